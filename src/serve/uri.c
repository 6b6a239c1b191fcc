#include "serve/uri.h"

#include <string.h>

#include "base/mem.h"
#include "text/utf8.h"

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place. query: '+' is a space. */
static pal_status decode(char *text, bool query, pal_error *err)
{
	char *to = text;
	for (const char *c = text; *c; c++, to++) {
		if (*c == '+' && query) {
			*to = ' ';
		} else if (*c != '%') {
			*to = *c;
		} else {
			int high = hex(c[1]), low = high < 0 ? -1 : hex(c[2]);
			if (low < 0 || high + low == 0)
				return pal__fail(err, PAL_EINVAL,
						 "the URL has a '%%' that is not followed by two "
						 "hexadecimal digits, or is a zero byte");
			*to = (char)(high << 4 | low);
			c += 2;
		}
	}
	*to = 0;
	size_t n = (size_t)(to - text);
	if (pal__utf8_valid(text, n) != n)
		return pal__fail(err, PAL_EINVAL, "the URL is not UTF-8");
	return PAL_OK;
}

static pal_status parse_path(char *path, pal__uri *u, pal_error *err)
{
	if (*path != '/')
		return pal__fail(err, PAL_EINVAL, "the URL's path does not begin with '/'");
	for (char *next = path; next;) {
		char *at = next + 1;
		next = strchr(at, '/');
		if (next)
			*next = 0;
		if (u->n_segments == PAL__MAX_SEGMENTS)
			return pal__fail(err, PAL_ELIMIT, "the URL's path has more than %d parts",
					 PAL__MAX_SEGMENTS);
		u->segments[u->n_segments++] = at;
		pal_status s = decode(at, false, err);
		if (s)
			return s;
	}
	return PAL_OK;
}

static pal_status parse_query(char *query, pal__uri *u, pal_error *err)
{
	for (char *at = query, *next; at; at = next) {
		next = strchr(at, '&');
		if (next)
			*next++ = 0;
		if (!*at)
			continue;
		if (u->n_args == PAL__MAX_ARGS)
			return pal__fail(err, PAL_ELIMIT, "the URL has more than %d arguments",
					 PAL__MAX_ARGS);
		char *value = strchr(at, '=');
		if (value)
			*value++ = 0;
		else
			value = at + strlen(at);
		u->names[u->n_args] = at;
		u->values[u->n_args++] = value;
		pal_status s = decode(at, true, err);
		if (!s)
			s = decode(value, true, err);
		if (s)
			return s;
	}
	return PAL_OK;
}

/* Behind "http://host", if it begins so. */
static const char *without_host(const char *target)
{
	const char *scheme = *target == '/' ? NULL : strstr(target, "://");
	if (!scheme)
		return target;
	const char *host = scheme + 3, *path = host + strcspn(host, "/?");
	return *path == '/' ? path : "/";
}

pal_status pal__uri_parse(const char *target, pal__uri *out, pal_error *err)
{
	target = without_host(target);
	pal__uri u = {.text = pal__strndup(target, strlen(target))};
	if (!u.text)
		return pal__fail_memory(err, "a request's URL", strlen(target));
	char *query = strchr(u.text, '?');
	if (query)
		*query++ = 0;
	pal_status s = parse_path(u.text, &u, err);
	if (!s && query)
		s = parse_query(query, &u, err);
	if (s)
		pal__uri_free(&u);
	else
		*out = u;
	return s;
}

void pal__uri_free(pal__uri *u)
{
	pal__free(u->text);
	*u = (pal__uri){0};
}

bool pal__uri_match(const pal__uri *u, const char *pattern, const char *param[PAL__MAX_PARAMS])
{
	int n = 0;
	for (int i = 0; i < u->n_segments; i++) {
		if (*pattern++ != '/')
			return false;
		size_t length = strcspn(pattern, "/");
		const char *segment = u->segments[i];
		if (*pattern == '{' && n < PAL__MAX_PARAMS && *segment)
			param[n++] = segment;
		else if (strlen(segment) != length || memcmp(segment, pattern, length) != 0)
			return false;
		pattern += length;
	}
	return !*pattern;
}
