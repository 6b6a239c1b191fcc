#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

/* Bytes of the character at c, which a NUL ends at the latest; 0: there is none (RFC 3629), or one
 * that is not printed. */
static int character(const unsigned char *c)
{
	int n = *c < 0x80 ? *c >= 0x20 : *c < 0xc2 ? 0 : *c < 0xe0 ? 2 : *c < 0xf0 ? 3 : 4;
	unsigned low = *c == 0xe0 ? 0xa0 : *c == 0xf0 ? 0x90 : 0x80;
	unsigned high = *c == 0xed ? 0x9f : *c == 0xf4 ? 0x8f : 0xbf;
	if (*c > 0xf4 || (n > 1 && (c[1] < low || c[1] > high)))
		return 0;
	for (int i = 2; i < n; i++)
		if ((c[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

/* What is quoted may hold anything, and be cut anywhere: the text stays one line of UTF-8. */
static void tidy(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c;) {
		int n = character(c);
		if (!n)
			*c = '?';
		c += n ? n : 1;
	}
}

pal_status pal__fail(pal_error *err, pal_status code, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		err->code = code;
		vsnprintf(err->text, sizeof err->text, fmt, ap);
		va_end(ap);
		tidy(err->text);
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
