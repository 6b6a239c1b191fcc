#include "draft/indexing.h"

#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* its state on the stack */
#include <xxhash.h>

#include "base/mem.h"
#include "base/newfile.h"

#define FEW 16   /* positions that are sorted by insertion */
#define AHEAD 16 /* positions whose tokens are fetched before they are needed */

/* --- gathering -------------------------------------------------------------------- */

pal_status pal__corpus_add(pal__corpus_text *t, const int32_t *ids, size_t n, pal_error *err)
{
	if (n > PAL__CORPUS_MAX - t->n)
		return pal__fail(err, PAL_ELIMIT, "the texts have more than %llu tokens",
				 (unsigned long long)PAL__CORPUS_MAX);
	if (!pal__grow((void **)&t->tokens, &t->cap, t->n + n, sizeof *t->tokens))
		return pal__fail_memory(err, "the texts", (t->n + n) * sizeof *t->tokens);
	if (n)
		memcpy(t->tokens + t->n, ids, n * sizeof *ids);
	t->n += n;
	return PAL_OK;
}

pal_status pal__corpus_end(pal__corpus_text *t, pal_error *err)
{
	static const int32_t end = PAL__CORPUS_BREAK;
	if (!t->n || t->tokens[t->n - 1] == end)
		return PAL_OK;
	pal_status s = pal__corpus_add(t, &end, 1, err);
	t->documents += s == PAL_OK;
	return s;
}

void pal__corpus_text_free(pal__corpus_text *t)
{
	pal__free(t->tokens);
	*t = (pal__corpus_text){0};
}

/* --- sorting ---------------------------------------------------------------------- */

/* Multikey quicksort (Bentley and Sedgewick 1997) with the keys beside the positions: an item is
 * key << 32 | position, and its key the token `depth` tokens before the position. Beyond the
 * border of a document, or PAL__CORPUS_DEEP tokens, the key is the position itself. */
typedef struct {
	const int32_t *tokens;
	uint64_t random, done, total;
	pal__corpus_progress progress;
	void *user;
} sorting;

static uint32_t key_of(uint64_t item)
{
	return (uint32_t)(item >> 32);
}

static void load_keys(const sorting *s, uint64_t *items, size_t n, uint32_t depth)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t at = (uint32_t)items[i], key = at;
		if (i + AHEAD < n)
			__builtin_prefetch(&s->tokens[(uint32_t)items[i + AHEAD]]);
		if (depth < PAL__CORPUS_DEEP)
			key = pal__corpus_key(s->tokens, at, depth);
		items[i] = (uint64_t)key << 32 | at;
	}
}

/* Whether item a comes before b; both have the keys of depth. */
static bool before(const sorting *s, uint64_t a, uint64_t b, uint32_t depth)
{
	uint32_t x = key_of(a), y = key_of(b);
	while (x == y && x && ++depth < PAL__CORPUS_DEEP) {
		x = pal__corpus_key(s->tokens, (uint32_t)a, depth);
		y = pal__corpus_key(s->tokens, (uint32_t)b, depth);
	}
	return x != y ? x < y : (uint32_t)a < (uint32_t)b;
}

static void sort_few(sorting *s, uint64_t *items, size_t n, uint32_t depth)
{
	for (size_t i = 1; i < n; i++) {
		uint64_t item = items[i];
		size_t k = i;
		for (; k && before(s, item, items[k - 1], depth); k--)
			items[k] = items[k - 1];
		items[k] = item;
	}
	uint64_t step = s->total / 256 + 1;
	if (s->progress && (s->done + n) / step > s->done / step)
		s->progress(s->user, s->done + n, s->total);
	s->done += n;
}

static uint32_t pivot(sorting *s, const uint64_t *items, size_t n)
{
	uint32_t k[3];
	for (int i = 0; i < 3; i++) {
		s->random = s->random * 6364136223846793005u + 1442695040888963407u;
		k[i] = key_of(items[(s->random >> 33) % n]);
	}
	uint32_t lo = k[0] < k[1] ? k[0] : k[1], hi = k[0] < k[1] ? k[1] : k[0];
	return k[2] < lo ? lo : k[2] > hi ? hi : k[2];
}

static void swap(uint64_t *a, uint64_t *b)
{
	uint64_t t = *a;
	*a = *b;
	*b = t;
}

/* Items of one depth: those before, at and behind the pivot. */
typedef struct {
	uint64_t *items;
	size_t n;
	uint32_t depth;
} part;

static void divide(sorting *s, part whole, part parts[3])
{
	uint64_t *items = whole.items;
	uint32_t at = pivot(s, items, whole.n);
	size_t lo = 0, hi = whole.n;
	for (size_t i = 0; i < hi;) {
		uint32_t key = key_of(items[i]);
		if (key < at)
			swap(&items[i++], &items[lo++]);
		else if (key > at)
			swap(&items[i], &items[--hi]);
		else
			i++;
	}
	parts[0] = (part){items, lo, whole.depth};
	/* A key of 0 is a document's border: nothing behind it counts. */
	parts[1] = (part){items + lo, hi - lo, at ? whole.depth + 1 : PAL__CORPUS_DEEP};
	parts[2] = (part){items + hi, whole.n - hi, whole.depth};
	if (whole.depth < PAL__CORPUS_DEEP)
		load_keys(s, parts[1].items, parts[1].n, parts[1].depth);
}

/* Goes on with the largest part and calls itself for the others, which are at most half as long:
 * the stack stays below 32 calls. */
static void sort(sorting *s, part p)
{
	while (p.n > FEW) {
		part parts[3];
		divide(s, p, parts);
		int largest = 0;
		for (int i = 1; i < 3; i++)
			if (parts[i].n > parts[largest].n)
				largest = i;
		for (int i = 0; i < 3; i++)
			if (i != largest)
				sort(s, parts[i]);
		p = parts[largest];
	}
	sort_few(s, p.items, p.n, p.depth);
}

/* --- writing ---------------------------------------------------------------------- */

typedef struct {
	pal__newfile file;
	XXH3_state_t sum;
} output;

static pal_status put(output *o, const void *bytes, size_t n, pal_error *err)
{
	XXH3_64bits_update(&o->sum, bytes, n);
	return pal__newfile_write(&o->file, bytes, n, err);
}

static pal_status put_keys(output *o, const pal__corpus_text *t, const uint32_t *index,
			   pal_error *err)
{
	pal_status s = PAL_OK;
	for (size_t i = 0; i < t->n && s == PAL_OK; i += PAL__CORPUS_STRIDE) {
		uint32_t keys[PAL__CORPUS_KEY] = {0};
		/* Behind a border there is nothing: zeros, as before the first token. */
		for (uint32_t k = 0; k < PAL__CORPUS_KEY; k++) {
			keys[k] = pal__corpus_key(t->tokens, index[i], k);
			if (!keys[k])
				break;
		}
		s = put(o, keys, sizeof keys, err);
	}
	return s;
}

/* items: [t->n] sorted; becomes the index. */
static pal_status put_all(output *o, const pal__corpus_text *t, const pal__tokenizer *tokenizer,
			  uint64_t *items, pal_error *err)
{
	pal__corpus_header h = {0};
	uint32_t *index = (uint32_t *)items;
	for (size_t i = 0; i < t->n; i++) {
		uint32_t at = (uint32_t)items[i];
		memcpy(&index[i], &at, sizeof at);
	}
	pal__corpus_new_header(&h, tokenizer, t->n, t->documents, 0);
	pal_status s = pal__newfile_open(&o->file, o->file.path, h.file_bytes, err);
	if (s == PAL_OK)
		s = pal__newfile_write(&o->file, &h, sizeof h, err);
	if (s == PAL_OK)
		s = put(o, t->tokens, t->n * sizeof *t->tokens, err);
	if (s == PAL_OK)
		s = put(o, index, t->n * sizeof *index, err);
	if (s == PAL_OK)
		s = put_keys(o, t, index, err);
	pal__corpus_new_header(&h, tokenizer, t->n, t->documents, XXH3_64bits_digest(&o->sum));
	if (s == PAL_OK)
		s = pal__newfile_finish(&o->file, &h, sizeof h, err);
	pal__newfile_close(&o->file);
	return s;
}

pal_status pal__corpus_write(const pal__corpus_text *t, const pal__tokenizer *tokenizer,
			     const char *path, pal__corpus_progress progress, void *user,
			     pal_error *err)
{
	if (!t->documents)
		return pal__fail(err, PAL_EINVAL, "a corpus needs text: there is none");
	size_t bytes = t->n * sizeof(uint64_t);
	uint64_t *items = pal__alloc_aligned(bytes);
	if (!items)
		return pal__fail_memory(err, "sorting the texts", bytes);
	for (size_t i = 0; i < t->n; i++)
		items[i] = i;
	sorting s = {.tokens = t->tokens,
		     .random = 1,
		     .total = t->n,
		     .progress = progress,
		     .user = user};
	load_keys(&s, items, t->n, 0);
	sort(&s, (part){items, t->n, 0});
	output o = {.file = {.path = path, .fd = -1}};
	XXH3_64bits_reset(&o.sum);
	pal_status st = put_all(&o, t, tokenizer, items, err);
	pal__free_aligned(items, bytes);
	return st;
}
