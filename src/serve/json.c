#include "serve/json.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/checked.h"
#include "base/mem.h"
#include "text/utf8.h"

bool pal__text_put(pal__text *t, const char *s, size_t n)
{
	size_t need;
	if (!pal__add_size(t->n, n, &need) || !pal__add_size(need, 1, &need) ||
	    !pal__grow((void **)&t->s, &t->cap, need, 1))
		return false;
	if (n)
		memcpy(t->s + t->n, s, n);
	t->n += n;
	t->s[t->n] = 0;
	return true;
}

json_t *pal__json_with(json_t *object, const char *key, json_t *value)
{
	if (object && json_object_set_new(object, key, value) == 0)
		return object;
	if (!object)
		json_decref(value); /* otherwise set_new has */
	json_decref(object);
	return NULL;
}

json_t *pal__json_append(json_t *array, json_t *value)
{
	if (array && json_array_append_new(array, value) == 0)
		return array;
	if (!array)
		json_decref(value);
	json_decref(array);
	return NULL;
}

json_t *pal__json_text(const char *s, size_t n)
{
	pal__text clean = {0};
	bool ok = true;
	size_t valid = pal__utf8_valid(s, n);
	if (valid == n)
		return json_stringn_nocheck(s ? s : "", n);
	while (ok && n) {
		ok = pal__text_put(&clean, s, valid);
		s += valid;
		n -= valid;
		size_t bad = n ? pal__utf8_invalid(s, n) : 0;
		if (ok && bad)
			ok = pal__text_put(&clean, "\xef\xbf\xbd", 3);
		s += bad;
		n -= bad;
		valid = n ? pal__utf8_valid(s, n) : 0;
	}
	json_t *j = ok ? json_stringn_nocheck(clean.s, clean.n) : NULL;
	pal__free(clean.s);
	return j;
}

static int put(const char *s, size_t n, void *user)
{
	return pal__text_put(user, s, n) ? 0 : -1;
}

bool pal__json_dump(const json_t *value, pal__text *out)
{
	return json_dump_callback(value, put, out, JSON_COMPACT | JSON_ENCODE_ANY) == 0;
}

void pal__fresh_id(const char *prefix, char *out, size_t size)
{
	unsigned char random[16] = {0};
	size_t n = (size_t)snprintf(out, size, "%s", prefix);
	/* 16 bytes are never cut short, and never refused once the system has started. */
	if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
		return;
	for (size_t i = 0; i < sizeof random && n + 3 <= size; i++, n += 2)
		snprintf(out + n, 3, "%02x", random[i]);
}

const char *pal__json_get(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}
