#include "serve/client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

struct pal__client {
	CURL *curl;
	struct curl_slist *headers;
	char *base;         /* the URL without a slash at its end */
	const char *with;   /* the key file, or NULL */
	char *body;         /* [n] of the answer */
	size_t n, cap;      /* bytes */
	pal_status trouble; /* of take() */
	char why[CURL_ERROR_SIZE];
};

/* --- opening -------------------------------------------------------------------- */

/* The first line of text[n] that says something: [*n_line]. */
static const char *first_line(const char *text, size_t n, size_t *n_line)
{
	for (const char *end = text + n; text < end;) {
		const char *stop = memchr(text, '\n', (size_t)(end - text));
		const char *last = stop ? stop : end, *next = stop ? stop + 1 : end;
		while (text < last && strchr(" \t\r", *text))
			text++;
		while (last > text && strchr(" \t\r", last[-1]))
			last--;
		if (last > text && *text != '#') {
			*n_line = (size_t)(last - text);
			return text;
		}
		text = next;
	}
	return NULL;
}

static pal_status read_key(const char *path, char key[PAL__MAX_KEY + 1], pal_error *err)
{
	pal__file f;
	size_t n = 0;
	pal_status s = pal__file_map(path, &f, err);
	if (s)
		return s;
	const char *line = f.size ? first_line((const char *)f.data, f.size, &n) : NULL;
	bool good = line && n <= PAL__MAX_KEY;
	for (size_t i = 0; good && i < n; i++)
		good = line[i] > ' ' && line[i] < 127;
	if (good) {
		memcpy(key, line, n);
		key[n] = 0;
	}
	pal__file_unmap(&f);
	return good ? PAL_OK
		    : pal__fail(err, PAL_EINVAL,
				"%s: no key in it: a line of at most %d printable ASCII "
				"characters without spaces",
				path, PAL__MAX_KEY);
}

static pal_status take_headers(pal__client *c, const char *key_file, pal_error *err)
{
	char key[PAL__MAX_KEY + 1], line[PAL__MAX_KEY + 32];
	if (!key_file)
		return PAL_OK;
	pal_status s = read_key(key_file, key, err);
	if (s)
		return s;
	snprintf(line, sizeof line, "Authorization: Bearer %s", key);
	c->headers = curl_slist_append(NULL, line);
	return c->headers ? PAL_OK : pal__fail_memory(err, "a request", 0);
}

static size_t take(char *data, size_t size, size_t count, void *user)
{
	pal__client *c = user;
	size_t n = size * count; /* size is 1 */
	if (n > PAL__MAX_ANSWER - c->n)
		c->trouble = PAL_ELIMIT;
	else if (!pal__grow((void **)&c->body, &c->cap, c->n + n, 1))
		c->trouble = PAL_ENOMEM;
	if (c->trouble)
		return n ? 0 : 1;
	memcpy(c->body + c->n, data, n);
	c->n += n;
	return n;
}

static pal_status set_up(pal__client *c, const char *authorities, pal_error *err)
{
	c->curl = curl_easy_init();
	if (!c->curl)
		return pal__fail_memory(err, "a request", 0);
	curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c->curl, CURLOPT_PROXY, "");
	curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, 5L);
	curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, (long)PAL__ANSWER_S);
	curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->why);
	curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
	if (curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers) ||
	    (authorities && curl_easy_setopt(c->curl, CURLOPT_CAINFO, authorities)))
		return pal__fail_memory(err, "a request", 0);
	return PAL_OK;
}

pal_status pal__client_open(const char *url, const char *key_file, const char *authorities,
			    pal__client **out, pal_error *err)
{
	size_t n = strlen(url);
	if (strncmp(url, "http://", 7) && strncmp(url, "https://", 8))
		return pal__fail(err, PAL_EINVAL,
				 "%s: no URL of a server: http://HOST:PORT, or https://", url);
	pal__client *c = pal__calloc(1, sizeof *c);
	if (!c)
		return pal__fail_memory(err, "a client", sizeof *c);
	while (n && url[n - 1] == '/')
		n--;
	c->with = key_file;
	c->base = pal__strndup(url, n);
	pal_status s = c->base ? PAL_OK : pal__fail_memory(err, "a client", n);
	s = s ? s : take_headers(c, key_file, err);
	s = s ? s : set_up(c, authorities, err);
	if (s)
		pal__client_close(c);
	else
		*out = c;
	return s;
}

void pal__client_close(pal__client *c)
{
	if (!c)
		return;
	curl_easy_cleanup(c->curl);
	curl_slist_free_all(c->headers);
	pal__free(c->body);
	pal__free(c->base);
	pal__free(c);
}

/* --- asking ------------------------------------------------------------------------ */

static pal_status fetch(pal__client *c, const char *path, long *status, pal_error *err)
{
	char url[1024];
	int n = snprintf(url, sizeof url, "%s%s", c->base, path);
	if (n < 0 || (size_t)n >= sizeof url)
		return pal__fail(err, PAL_ELIMIT, "%s: longer than %zu bytes", c->base,
				 sizeof url - 1);
	c->n = 0;
	c->trouble = PAL_OK;
	*c->why = 0;
	CURLcode code = curl_easy_setopt(c->curl, CURLOPT_URL, url);
	code = code ? code : curl_easy_perform(c->curl);
	if (c->trouble == PAL_ELIMIT)
		return pal__fail(err, PAL_ELIMIT, "%s: an answer of more than %zu MiB", url,
				 PAL__MAX_ANSWER >> 20);
	if (c->trouble || code == CURLE_OUT_OF_MEMORY)
		return pal__fail_memory(err, "an answer", c->cap);
	if (code == CURLE_URL_MALFORMAT)
		return pal__fail(err, PAL_EINVAL, "%s: no URL of a server: http://HOST:PORT", url);
	if (code)
		return pal__fail(err, PAL_EIO, "%s: no answer: %s", c->base,
				 *c->why ? c->why : curl_easy_strerror(code));
	curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, status);
	return PAL_OK;
}

void pal__plain(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c; c++) {
		if (*c < ' ' || *c == 127)
			*c = '?';
		else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) /* C1 */
			c[0] = c[1] = '?';
	}
}

/* Why the server said no. */
static pal_status refused(const pal__client *c, long status, const json_t *answer, pal_error *err)
{
	const char *said =
		json_string_value(json_object_get(json_object_get(answer, "error"), "message"));
	if (status == 401 || status == 403)
		return c->with ? pal__fail(err, PAL_EINVAL, "%s does not take the key in %s",
					   c->base, c->with)
			       : pal__fail(err, PAL_EINVAL, "%s asks for a key: --key-file FILE",
					   c->base);
	pal_status code = status == 404 ? PAL_ENOTFOUND : status == 429 ? PAL_EOVERLOAD : PAL_EIO;
	char text[201];
	snprintf(text, sizeof text, "%s", said ? said : "it may be no server of pal");
	pal__plain(text);
	return pal__fail(err, code, "%s answers %ld: %s", c->base, status, text);
}

pal_status pal__client_get(pal__client *c, const char *path, json_t **out, pal_error *err)
{
	long status = 0;
	json_error_t where;
	pal_status s = fetch(c, path, &status, err);
	if (s)
		return s;
	json_t *answer = json_loadb(c->body ? c->body : "", c->n, 0, &where);
	if (status != 200)
		s = refused(c, status, answer, err);
	else if (!json_is_object(answer))
		s = pal__fail(err, PAL_EFORMAT, "%s%s: no JSON object: it may be no server of pal",
			      c->base, path);
	if (s)
		json_decref(answer);
	else
		*out = answer;
	return s;
}
