#include "model/gguf_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY /* for a state on the stack */
#include <xxhash.h>

#include "base/mem.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fields are little-endian");

#define ALIGN 32          /* the format's default */
#define MAX_HEAD 256      /* bytes up to the end of the checksum */
#define TEMPORARY ".part" /* after the name of a file that is being written */

/* --- collecting --------------------------------------------------------------- */

static void put(pal__gguf_writer *w, pal__gguf_bytes *to, const void *bytes, size_t n)
{
	if (w->failed || !pal__grow((void **)&to->data, &to->cap, to->n + n, 1)) {
		w->failed = true;
		return;
	}
	if (n)
		memcpy(to->data + to->n, bytes, n);
	to->n += n;
}

static void put_u32(pal__gguf_writer *w, pal__gguf_bytes *to, uint32_t v)
{
	put(w, to, &v, sizeof v);
}

static void put_text(pal__gguf_writer *w, pal__gguf_bytes *to, const char *s)
{
	uint64_t n = strlen(s);
	put(w, to, &n, sizeof n);
	put(w, to, s, (size_t)n);
}

static void put_key(pal__gguf_writer *w, const char *key, pal__gguf_type type)
{
	put_text(w, &w->keys, key);
	put_u32(w, &w->keys, type);
	w->n_keys++;
}

static size_t size_of(pal__gguf_type type)
{
	switch (type) {
	case PAL__GGUF_U8:
	case PAL__GGUF_I8:
	case PAL__GGUF_BOOL:
		return 1;
	case PAL__GGUF_U16:
	case PAL__GGUF_I16:
		return 2;
	case PAL__GGUF_U32:
	case PAL__GGUF_I32:
	case PAL__GGUF_F32:
		return 4;
	default:
		return 8;
	}
}

void pal__gguf_put_string(pal__gguf_writer *w, const char *key, const char *value)
{
	put_key(w, key, PAL__GGUF_STRING);
	put_text(w, &w->keys, value);
}

void pal__gguf_put(pal__gguf_writer *w, const char *key, pal__gguf_type type, const void *value)
{
	put_key(w, key, type);
	put(w, &w->keys, value, size_of(type));
}

void pal__gguf_put_array(pal__gguf_writer *w, const char *key, pal__gguf_type item,
			 const void *values, size_t n)
{
	uint64_t count = n;
	put_key(w, key, PAL__GGUF_ARRAY);
	put_u32(w, &w->keys, item);
	put(w, &w->keys, &count, sizeof count);
	put(w, &w->keys, values, n * size_of(item));
}

void pal__gguf_put_tensor(pal__gguf_writer *w, const char *name, pal__type type, size_t n_cols,
			  size_t n_rows, const void *data)
{
	size_t bytes = n_rows * n_cols * (size_t)pal__type_find((uint32_t)type)->block_bytes;
	const uint64_t ne[2] = {n_cols, n_rows};
	if (w->failed || !pal__grow((void **)&w->tensors, &w->cap_tensors, w->n_tensors + 1,
				    sizeof *w->tensors)) {
		w->failed = true;
		return;
	}
	put_text(w, &w->infos, name);
	put_u32(w, &w->infos, 2);
	put(w, &w->infos, ne, sizeof ne);
	put_u32(w, &w->infos, type);
	put(w, &w->infos, &w->offset, sizeof w->offset);
	w->tensors[w->n_tensors++] = (pal__gguf_source){data, bytes};
	w->offset += (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

void pal__gguf_writer_free(pal__gguf_writer *w)
{
	pal__free(w->keys.data);
	pal__free(w->infos.data);
	pal__free(w->tensors);
	*w = (pal__gguf_writer){0};
}

/* --- writing ------------------------------------------------------------------ */

static int write_all(int fd, const uint8_t *bytes, size_t n)
{
	while (n) {
		ssize_t r = write(fd, bytes, n);
		if (r < 0 && errno != EINTR)
			return errno;
		if (r > 0) {
			bytes += r;
			n -= (size_t)r;
		}
	}
	return 0;
}

/* Calls `each` with every byte of the file in order. Returns the first failure. */
typedef int (*piece_fn)(void *user, const void *bytes, size_t n);

static int pieces(const pal__gguf_writer *w, const uint8_t *head, size_t n_head, piece_fn each,
		  void *user)
{
	static const uint8_t zeros[ALIGN];
	int e = each(user, head, n_head);
	size_t at = n_head + w->keys.n + w->infos.n;
	if (!e)
		e = each(user, w->keys.data, w->keys.n);
	if (!e)
		e = each(user, w->infos.data, w->infos.n);
	if (!e)
		e = each(user, zeros, -at % ALIGN);
	for (size_t i = 0; i < w->n_tensors && !e; i++) {
		e = each(user, w->tensors[i].data, w->tensors[i].n_bytes);
		if (!e)
			e = each(user, zeros, -w->tensors[i].n_bytes % ALIGN);
	}
	return e;
}

static int sum_piece(void *user, const void *bytes, size_t n)
{
	return n ? (int)XXH3_64bits_update(user, bytes, n) : 0;
}

static int write_piece(void *user, const void *bytes, size_t n)
{
	return write_all(*(int *)user, bytes, n);
}

static void sync_folder(char *path)
{
	char *slash = strrchr(path, '/');
	const char *folder = !slash ? "." : slash == path ? "/" : path;
	if (slash)
		*slash = 0;
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (slash)
		*slash = '/';
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
}

/* The head of the file up to the sum and with it. Returns its length. */
static size_t make_head(const pal__gguf_writer *w, const char *sum_key, uint64_t sum,
			uint8_t head[MAX_HEAD])
{
	uint64_t counts[2] = {w->n_tensors, w->n_keys + 1}, n = strlen(sum_key);
	uint32_t version = 3, type = PAL__GGUF_U64;
	size_t at = 0;
	const struct {
		const void *from;
		size_t n;
	} parts[] = {{"GGUF", 4},       {&version, sizeof version}, {counts, sizeof counts},
		     {&n, sizeof n},    {sum_key, (size_t)n},       {&type, sizeof type},
		     {&sum, sizeof sum}};
	for (size_t i = 0; i < sizeof parts / sizeof *parts; at += parts[i++].n)
		memcpy(head + at, parts[i].from, parts[i].n);
	return at;
}

/* Returns 0 or an errno. */
static int write_file(const pal__gguf_writer *w, const char *path, char *temporary,
		      const uint8_t *head, size_t n_head)
{
	struct stat st;
	struct rlimit limit;
	uint64_t bytes = n_head + w->keys.n + w->infos.n + ALIGN + w->offset;
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && bytes > limit.rlim_cur)
		return EFBIG; /* writing so far would be a signal */
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
	int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (fd < 0)
		return errno;
	int e = pieces(w, head, n_head, write_piece, &fd);
	if (!e && fsync(fd) != 0)
		e = errno;
	if (close(fd) != 0 && !e)
		e = errno;
	if (!e && rename(temporary, path) != 0)
		e = errno;
	if (e)
		unlink(temporary);
	else
		sync_folder(temporary);
	return e;
}

pal_status pal__gguf_write(const pal__gguf_writer *w, const char *path, const char *sum_key,
			   pal_error *err)
{
	size_t n = strlen(path);
	uint8_t head[MAX_HEAD];
	XXH3_state_t state;
	char *temporary = w->failed ? NULL : pal__alloc(n + sizeof TEMPORARY);
	if (!temporary)
		return pal__fail_memory(err, "a GGUF file", w->keys.n + w->infos.n);
	memcpy(temporary, path, n);
	memcpy(temporary + n, TEMPORARY, sizeof TEMPORARY);
	size_t n_head = make_head(w, sum_key, 0, head);
	XXH3_64bits_reset(&state);
	pieces(w, head, n_head, sum_piece, &state);
	make_head(w, sum_key, XXH3_64bits_digest(&state), head);
	int e = write_file(w, path, temporary, head, n_head);
	pal__free(temporary);
	if (e)
		return pal__fail(err, PAL_EIO, "%s cannot be written: %s", path,
				 e == EINVAL ? "it is no regular file" : strerror(e));
	return PAL_OK;
}

pal_status pal__gguf_check_sum(const pal__gguf *g, const char *sum_key, pal_error *err)
{
	static const uint8_t zeros[sizeof(uint64_t)];
	const pal__gguf_kv *kv = pal__gguf_find(g, sum_key);
	uint64_t sum;
	XXH3_state_t state;
	if (!kv || kv->type != PAL__GGUF_U64)
		return pal__fail(err, PAL_EFORMAT, "%s: its checksum, the u64 %s, is missing",
				 g->path, sum_key);
	memcpy(&sum, kv->data, sizeof sum);
	size_t at = (size_t)(kv->data - g->file.data), after = at + sizeof sum;
	XXH3_64bits_reset(&state);
	XXH3_64bits_update(&state, g->file.data, at);
	XXH3_64bits_update(&state, zeros, sizeof zeros);
	XXH3_64bits_update(&state, g->file.data + after, g->file.size - after);
	if (XXH3_64bits_digest(&state) != sum)
		return pal__fail(err, PAL_EFORMAT, "%s: its checksum is wrong: it is damaged",
				 g->path);
	return PAL_OK;
}
