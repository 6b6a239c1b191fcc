#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

pal_status pal__fail(pal_error *err, pal_status code, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		err->code = code;
		vsnprintf(err->text, sizeof err->text, fmt, ap);
		va_end(ap);
	}
	return code;
}

pal_status pal__fail_memory(pal_error *err, const char *what, size_t size)
{
	return pal__fail(err, PAL_ENOMEM, "out of memory: %s needs %zu bytes", what, size);
}

const char *pal_status_name(pal_status code)
{
	switch (code) {
	case PAL_OK:
		return "ok";
	case PAL_EINVAL:
		return "invalid argument";
	case PAL_ENOMEM:
		return "out of memory";
	case PAL_EIO:
		return "input/output error";
	case PAL_EFORMAT:
		return "malformed input";
	case PAL_EUNSUPPORTED:
		return "not supported";
	case PAL_ELIMIT:
		return "limit exceeded";
	case PAL_ECANCELLED:
		return "cancelled";
	case PAL_ENOTFOUND:
		return "not found";
	case PAL_EBUSY:
		return "in use";
	case PAL_EOVERLOAD:
		return "no room now";
	}
	return "unknown status";
}
