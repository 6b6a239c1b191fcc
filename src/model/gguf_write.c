#include "model/gguf_write.h"

#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* for a state on the stack */
#include <xxhash.h>

#include "base/mem.h"
#include "base/newfile.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fields are little-endian");

#define ALIGN 32     /* the format's default */
#define MAX_HEAD 256 /* bytes up to the end of the checksum */

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

/* Calls `each` with every byte of the file in order. Returns the first failure. */
typedef pal_status (*piece_fn)(void *user, const void *bytes, size_t n, pal_error *err);

static pal_status pieces(const pal__gguf_writer *w, const uint8_t *head, size_t n_head,
			 piece_fn each, void *user, pal_error *err)
{
	static const uint8_t zeros[ALIGN];
	pal_status s = each(user, head, n_head, err);
	size_t at = n_head + w->keys.n + w->infos.n;
	if (!s)
		s = each(user, w->keys.data, w->keys.n, err);
	if (!s)
		s = each(user, w->infos.data, w->infos.n, err);
	if (!s)
		s = each(user, zeros, -at % ALIGN, err);
	for (size_t i = 0; i < w->n_tensors && !s; i++) {
		s = each(user, w->tensors[i].data, w->tensors[i].n_bytes, err);
		if (!s)
			s = each(user, zeros, -w->tensors[i].n_bytes % ALIGN, err);
	}
	return s;
}

static pal_status sum_piece(void *user, const void *bytes, size_t n, pal_error *err)
{
	(void)err;
	if (n)
		XXH3_64bits_update(user, bytes, n);
	return PAL_OK;
}

static pal_status write_piece(void *user, const void *bytes, size_t n, pal_error *err)
{
	return pal__newfile_write(user, bytes, n, err);
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

pal_status pal__gguf_write(const pal__gguf_writer *w, const char *path, const char *sum_key,
			   pal_error *err)
{
	uint8_t head[MAX_HEAD];
	XXH3_state_t state;
	pal__newfile f = PAL__NO_NEWFILE;
	if (w->failed)
		return pal__fail_memory(err, "a GGUF file", w->keys.n + w->infos.n);
	size_t n = make_head(w, sum_key, 0, head);
	XXH3_64bits_reset(&state);
	pieces(w, head, n, sum_piece, &state, NULL);
	make_head(w, sum_key, XXH3_64bits_digest(&state), head);
	uint64_t bytes = n + w->keys.n + w->infos.n + ALIGN + w->offset;
	pal_status s = pal__newfile_open(&f, path, bytes, err);
	if (!s)
		s = pieces(w, head, n, write_piece, &f, err);
	if (!s)
		s = pal__newfile_finish(&f, head, n, err);
	pal__newfile_close(&f);
	return s;
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
