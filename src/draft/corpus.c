#include "draft/corpus.h"

#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* its state on the stack */
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fields are little-endian");
_Static_assert(sizeof(pal__corpus_header) == 128, "no padding");

#define MAGIC "PALCORPS"
#define VERSION 1
#define PIECE ((size_t)1 << 22) /* is summed, and then forgotten: opening fills no memory */

/* --- opening ---------------------------------------------------------------------- */

static uint64_t keys_of(uint64_t n)
{
	return (n + PAL__CORPUS_STRIDE - 1) / PAL__CORPUS_STRIDE;
}

static uint64_t bytes_of(uint64_t n)
{
	return sizeof(pal__corpus_header) + n * (sizeof(int32_t) + sizeof(uint32_t)) +
	       keys_of(n) * PAL__CORPUS_KEY * sizeof(uint32_t);
}

static uint64_t header_sum(const pal__corpus_header *h)
{
	return XXH3_64bits(h, offsetof(pal__corpus_header, header_sum));
}

void pal__corpus_new_header(pal__corpus_header *h, const pal__tokenizer *t, uint64_t n,
			    uint64_t documents, uint64_t sum)
{
	*h = (pal__corpus_header){.version = VERSION,
				  .header_bytes = sizeof *h,
				  .file_bytes = bytes_of(n),
				  .n = n,
				  .documents = documents,
				  .n_vocab = pal__tokenizer_n_tokens(t),
				  .vocab_hash = pal__tokenizer_hash(t),
				  .sum = sum};
	memcpy(h->magic, MAGIC, sizeof h->magic);
	h->header_sum = header_sum(h);
}

static pal_status check_header(const char *path, const pal__corpus_header *h, size_t size,
			       const pal__tokenizer *t, pal_error *err)
{
	pal__corpus_header good;
	if (memcmp(h->magic, MAGIC, sizeof h->magic))
		return pal__fail(err, PAL_EFORMAT, "%s is no corpus", path);
	if (h->version != VERSION)
		return pal__fail(err, PAL_EFORMAT, "%s: version %u of the format, expected %d",
				 path, h->version, VERSION);
	if (h->header_sum != header_sum(h) || h->n > PAL__CORPUS_MAX)
		return pal__fail(err, PAL_EFORMAT, "%s: its header is damaged", path);
	if (h->file_bytes != size)
		return pal__fail(err, PAL_EFORMAT, "%s has %zu bytes instead of %llu%s", path, size,
				 (unsigned long long)h->file_bytes,
				 size < h->file_bytes ? ": it is cut short" : "");
	if (h->n_vocab != pal__tokenizer_n_tokens(t) || h->vocab_hash != pal__tokenizer_hash(t))
		return pal__fail(err, PAL_EINVAL,
				 "%s is of another vocabulary, %llu tokens with the hash %016llx, "
				 "than the model, %zu with %016llx",
				 path, (unsigned long long)h->n_vocab,
				 (unsigned long long)h->vocab_hash, pal__tokenizer_n_tokens(t),
				 (unsigned long long)pal__tokenizer_hash(t));
	pal__corpus_new_header(&good, t, h->n, h->documents, h->sum);
	if (memcmp(h, &good, sizeof good))
		return pal__fail(err, PAL_EFORMAT, "%s: its header is damaged", path);
	return PAL_OK;
}

static uint64_t sum_of(const pal__file *f, size_t from)
{
	XXH3_state_t state;
	XXH3_64bits_reset(&state);
	for (size_t n; from < f->size; from += n) {
		n = f->size - from < PIECE ? f->size - from : PIECE;
		XXH3_64bits_update(&state, f->data + from, n);
		if (from + n < f->size) /* the keys, at the end, are for every search */
			pal__file_forget(f, from, n);
	}
	return XXH3_64bits_digest(&state);
}

static pal_status check(const char *path, const pal__file *f, const pal__tokenizer *t,
			pal__corpus_header *h, pal_error *err)
{
	if (f->size < sizeof *h)
		return pal__fail(err, PAL_EFORMAT,
				 "%s is no corpus, or cut short: it has %zu bytes", path, f->size);
	memcpy(h, f->data, sizeof *h);
	pal_status s = check_header(path, h, f->size, t, err);
	if (s == PAL_OK && sum_of(f, sizeof *h) != h->sum)
		s = pal__fail(err, PAL_EFORMAT, "%s: its checksum is wrong: it is damaged", path);
	if (pal__file_shrunk(f))
		s = pal__fail(err, PAL_EIO, "%s became shorter while it was read", path);
	return s;
}

pal_status pal__corpus_open(const char *path, const pal__tokenizer *t, pal__corpus *out,
			    pal_error *err)
{
	pal__file f = {0};
	pal__corpus_header h;
	pal_status s = pal__file_map(path, &f, err);
	if (s != PAL_OK)
		return s;
	s = check(path, &f, t, &h, err);
	if (s != PAL_OK) {
		pal__file_unmap(&f);
		return s;
	}
	const uint8_t *at = f.data + sizeof h;
	*out = (pal__corpus){.file = f,
			     .tokens = (const void *)at,
			     .index = (const void *)(at + h.n * sizeof(int32_t)),
			     .keys = (const void *)(at + 2 * h.n * sizeof(int32_t)),
			     .n = (uint32_t)h.n,
			     .n_vocab = (int32_t)h.n_vocab};
	return PAL_OK;
}

void pal__corpus_close(pal__corpus *c)
{
	pal__file_unmap(&c->file);
	*c = (pal__corpus){0};
}

bool pal__corpus_intact(const pal__corpus *c)
{
	return !pal__file_shrunk(&c->file);
}

/* --- looking up ------------------------------------------------------------------- */

/* A context, read backwards, as keys. */
typedef struct {
	const pal__corpus *c;
	uint32_t keys[PAL__CORPUS_DEEP];
	uint32_t n;
} question;

static uint32_t position(const pal__corpus *c, uint32_t entry)
{
	return __atomic_load_n(&c->index[entry], __ATOMIC_RELAXED);
}

/* How many tokens an entry's context agrees with; *less: it is sorted before the question. */
static uint32_t agree(const question *q, uint32_t entry, bool *less)
{
	uint32_t at = position(q->c, entry), i = 0, key = 0;
	*less = true;
	if (at >= q->c->n)
		return 0;
	while (i < q->n && (key = pal__corpus_key(q->c->tokens, at, i)) == q->keys[i])
		i++;
	*less = i < q->n && key < q->keys[i];
	return i;
}

/* Whether entry k * PAL__CORPUS_STRIDE is sorted before the question. */
static bool key_less(const question *q, uint32_t k)
{
	bool less;
	for (uint32_t i = 0; i < PAL__CORPUS_KEY && i < q->n; i++) {
		uint32_t key = __atomic_load_n(&q->c->keys[k][i], __ATOMIC_RELAXED);
		if (key != q->keys[i])
			return key < q->keys[i];
	}
	agree(q, k * PAL__CORPUS_STRIDE, &less);
	return less;
}

/* The first entry that is not sorted before the question. The keys, which are few, keep most of
 * the search out of pages that are not in memory. */
static uint32_t lower_bound(const question *q)
{
	uint32_t lo = 0, hi = (uint32_t)keys_of(q->c->n);
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (key_less(q, mid))
			lo = mid + 1;
		else
			hi = mid;
	}
	/* Key lo - 1 is before the question, key lo is not. */
	uint64_t end = (uint64_t)lo * PAL__CORPUS_STRIDE;
	hi = end < q->c->n ? (uint32_t)end : q->c->n;
	lo = lo ? (lo - 1) * PAL__CORPUS_STRIDE : 0;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		bool less;
		agree(q, mid, &less);
		if (less)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The processor waits for all these tokens at once, and not for one after the other. */
static void prefetch(const pal__corpus *c, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++) {
		uint32_t at = position(c, i);
		if (at < c->n)
			__builtin_prefetch(&c->tokens[at]);
	}
}

size_t pal__corpus_find(const pal__corpus *c, const int32_t *context, size_t n,
			pal__corpus_place *out, size_t most)
{
	question q = {.c = c};
	while (q.n < n && q.n < PAL__CORPUS_DEEP && context[n - 1 - q.n] >= 0) {
		q.keys[q.n] = (uint32_t)context[n - 1 - q.n] + 1;
		q.n++;
	}
	if (!q.n || !c->n)
		return 0;
	uint32_t up = lower_bound(&q), down = up;
	uint32_t near = (uint32_t)(most < c->n ? most : c->n);
	prefetch(c, down > near ? down - near : 0, c->n - up > near ? up + near : c->n);
	bool less;
	uint32_t above = up < c->n ? agree(&q, up, &less) : 0;
	uint32_t below = down ? agree(&q, down - 1, &less) : 0;
	size_t found = 0;
	while (found < most && (above || below)) {
		bool take_above = above >= below;
		uint32_t entry = take_above ? up++ : --down, match = take_above ? above : below;
		out[found++] = (pal__corpus_place){position(c, entry) + 1, match};
		if (take_above)
			above = up < c->n ? agree(&q, up, &less) : 0;
		else
			below = down ? agree(&q, down - 1, &less) : 0;
	}
	return found;
}

int32_t pal__corpus_token(const pal__corpus *c, uint32_t at)
{
	int32_t token = PAL__CORPUS_BREAK;
	if (at < c->n)
		token = __atomic_load_n(&c->tokens[at], __ATOMIC_RELAXED);
	return token >= 0 && token < c->n_vocab ? token : PAL__CORPUS_BREAK;
}
