#include "serve/keys.h"

#include <pthread.h>
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/mem.h"

/* Padded with zeros, so that all take equally long to compare. */
typedef struct {
	char text[PAL__KEY_MOST + 1];
} key;

struct pal__keys {
	char *path;
	pthread_rwlock_t lock; /* of what follows */
	key *keys;             /* [n] */
	size_t n;
};

typedef struct {
	key *keys;
	size_t n, cap;
} list;

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static bool key_of(const char *text, size_t n, key *out)
{
	if (n < PAL__KEY_LEAST || n > PAL__KEY_MOST)
		return false;
	for (size_t i = 0; i < n; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	memset(out, 0, sizeof *out);
	memcpy(out->text, text, n);
	return true;
}

static pal_status add_line(const char *path, const char *text, size_t n, size_t line, list *l,
			   pal_error *err)
{
	while (n && blank(*text))
		text++, n--;
	while (n && blank(text[n - 1]))
		n--;
	if (!n || *text == '#')
		return PAL_OK;
	if (l->n == PAL__MAX_KEYS)
		return pal__fail(err, PAL_ELIMIT, "%s: more than %d keys", path, PAL__MAX_KEYS);
	if (!pal__grow((void **)&l->keys, &l->cap, l->n + 1, sizeof *l->keys))
		return pal__fail_memory(err, "keys", (l->n + 1) * sizeof *l->keys);
	if (!key_of(text, n, &l->keys[l->n]))
		return pal__fail(err, PAL_EFORMAT,
				 "%s: line %zu: a key is %d to %d visible ASCII characters", path,
				 line, PAL__KEY_LEAST, PAL__KEY_MOST);
	l->n++;
	return PAL_OK;
}

static pal_status read_keys(const char *path, list *l, pal_error *err)
{
	pal__file f = {0};
	pal_status s = pal__file_map(path, &f, err);
	const char *at = f.data ? (const char *)f.data : "", *end = at + f.size;
	for (size_t line = 1; !s && at < end; line++) {
		const char *stop = memchr(at, '\n', (size_t)(end - at));
		stop = stop ? stop : end;
		s = add_line(path, at, (size_t)(stop - at), line, l, err);
		at = stop + 1;
	}
	pal__file_unmap(&f);
	if (!s && !l->n)
		s = pal__fail(err, PAL_EFORMAT, "%s: there is no key in it", path);
	if (s) {
		pal__free(l->keys);
		*l = (list){0};
	}
	return s;
}

pal_status pal__keys_open(const char *path, pal__keys **out, pal_error *err)
{
	list l = {0};
	pal_status s = read_keys(path, &l, err);
	if (s)
		return s;
	pal__keys *k = pal__calloc(1, sizeof *k);
	char *copy = pal__strndup(path, strlen(path));
	if (!k || !copy) {
		pal__free(l.keys);
		pal__free(k);
		pal__free(copy);
		return pal__fail_memory(err, "keys", sizeof *k);
	}
	*k = (pal__keys){.path = copy, .keys = l.keys, .n = l.n};
	pthread_rwlock_init(&k->lock, NULL);
	*out = k;
	return PAL_OK;
}

pal_status pal__keys_reload(pal__keys *k, pal_error *err)
{
	list l = {0};
	pal_status s = read_keys(k->path, &l, err);
	if (s)
		return s;
	pthread_rwlock_wrlock(&k->lock);
	key *old = k->keys;
	k->keys = l.keys;
	k->n = l.n;
	pthread_rwlock_unlock(&k->lock);
	pal__free(old);
	return PAL_OK;
}

void pal__keys_close(pal__keys *k)
{
	if (!k)
		return;
	pthread_rwlock_destroy(&k->lock);
	pal__free(k->keys);
	pal__free(k->path);
	pal__free(k);
}

static bool equal(const key *a, const key *b)
{
	volatile unsigned char different = 0; /* keeps the compiler from stopping early */
	for (size_t i = 0; i < sizeof a->text; i++)
		different |= (unsigned char)(a->text[i] ^ b->text[i]);
	return !different;
}

bool pal__keys_has(pal__keys *k, const char *text, uint64_t *owner)
{
	key given;
	bool found = false;
	if (!key_of(text, strlen(text), &given))
		return false;
	pthread_rwlock_rdlock(&k->lock);
	for (size_t i = 0; i < k->n; i++)
		found |= equal(&given, &k->keys[i]);
	pthread_rwlock_unlock(&k->lock);
	if (!found)
		return false;
	uint64_t hash = XXH3_64bits(text, strlen(text));
	*owner = hash ? hash : 1;
	return true;
}
