#include "serve/fault.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "serve/json.h"

pal_status pal__refuse(pal__fault *f, const char *param, const char *format, ...)
{
	char text[400];
	va_list args;
	if (f->err.code)
		return f->err.code;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	snprintf(f->param, sizeof f->param, "%s", param);
	return pal__fail(&f->err, PAL_EINVAL, "%.64s%s%s", param, *param ? ": " : "", text);
}

pal_status pal__fault_memory(pal__fault *f)
{
	return f->err.code ? f->err.code : pal__fail(&f->err, PAL_ENOMEM, "out of memory");
}

static const struct kind {
	pal_status status;
	int http;
	const char *openai, *anthropic, *code;
} kinds[] = {
	{PAL_EINVAL, 400, "invalid_request_error", "invalid_request_error", "invalid_value"},
	{PAL_EUNSUPPORTED, 400, "invalid_request_error", "invalid_request_error", "unsupported"},
	{PAL_ELIMIT, 400, "invalid_request_error", "invalid_request_error", "limit_exceeded"},
	{PAL_ENOTFOUND, 404, "invalid_request_error", "not_found_error", "not_found"},
	{PAL_EBUSY, 409, "conflict_error", "invalid_request_error", "busy"},
	{PAL_EOVERLOAD, 429, "rate_limit_error", "rate_limit_error", "overloaded"},
	{PAL_ENOMEM, 503, "server_error", "overloaded_error", "out_of_memory"},
	{PAL_ECANCELLED, 503, "server_error", "api_error", "cancelled"},
	{PAL_EIO, 500, "server_error", "api_error", "io_error"},
	{PAL_EFORMAT, 500, "server_error", "api_error", "damaged"},
};

static const struct kind *kind_of(const pal__fault *f)
{
	size_t n = sizeof kinds / sizeof *kinds, i = 0;
	while (i < n - 1 && kinds[i].status != f->err.code)
		i++;
	return &kinds[i];
}

int pal__fault_http(const pal__fault *f)
{
	return kind_of(f)->http;
}

json_t *pal__fault_json(const pal__fault *f, pal__dialect dialect)
{
	const struct kind *k = kind_of(f);
	/* The text may be cut in the middle of a character. */
	json_t *message = pal__json_text(f->err.text, strlen(f->err.text));
	if (dialect == PAL__ANTHROPIC)
		return json_pack("{s:s, s:{s:s, s:o}}", "type", "error", "error", "type",
				 k->anthropic, "message", message);
	json_t *param = *f->param ? pal__json_text(f->param, strlen(f->param)) : json_null();
	return json_pack("{s:{s:o, s:s, s:s, s:o}}", "error", "message", message, "type", k->openai,
			 "code", f->code ? f->code : k->code, "param", param);
}

void pal__reply_fault(pal__reply *reply, const pal__fault *f, pal__dialect dialect)
{
	if (f->err.code == PAL_EOVERLOAD) {
		char seconds[32];
		double s = f->retry_after_s > 1 ? f->retry_after_s : 1;
		snprintf(seconds, sizeof seconds, "%.0f", s < 3600 ? ceil(s) : 3600);
		pal__reply_header(reply, "Retry-After", seconds);
	}
	pal__reply_send(reply, pal__fault_http(f), pal__fault_json(f, dialect), dialect);
}

void pal__reply_send(pal__reply *reply, int status, json_t *body, pal__dialect dialect)
{
	static const char openai[] =
		"{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\",\"code\":"
		"\"out_of_memory\",\"param\":null}}";
	static const char anthropic[] = "{\"type\":\"error\",\"error\":{\"type\":"
					"\"overloaded_error\",\"message\":\"out of memory\"}}";
	const char *text = dialect == PAL__ANTHROPIC ? anthropic : openai;
	if (body)
		pal__reply_json(reply, status, body);
	else
		pal__reply_bytes(reply, 503, "application/json", text, strlen(text));
}
