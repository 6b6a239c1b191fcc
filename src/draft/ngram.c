/* Prompt lookup: what followed the last tokens where they stood before.
 *
 * As LZ77 compressors do it: for each of a few lengths, positions whose last so many tokens have
 * the same hash are chained from the latest back. A proposal asks the longest length first and
 * goes on to a shorter one only where no match was found; within a chain the longest match wins,
 * the latest among equals. A chain is followed for STEPS positions: where that does not reach its
 * end, a later match may stand for a longer one of less than twice its length.
 *
 * Invariants:
 *  - The chains are those of a source that was only ever shown the log as it is now: what was
 *    learnt of a part that is gone is taken back, newest first (`tokens` says what it was). But
 *    positions that the part that is gone has pushed out of the window stay out.
 *  - Positions along a chain only fall, and those that have left the window end it: their links
 *    are another position's by now.
 *  - A candidate is compared with the log itself: chains only say where to look.
 */
#include "draft/source.h"

#include <string.h>

#include "base/checked.h"
#include "base/mem.h"

#define LEVELS 5
#define STEPS 8        /* along a chain */
#define LONGEST 64     /* a match is compared so far */
#define WINDOW_MIN 16u /* tokens: the longest of lengths */
#define WINDOW_MAX ((size_t)1 << 30)

static const int lengths[LEVELS] = {1, 2, 4, 8, 16};

/* Where a degree of sureness begins, as the length of the match. */
static const uint8_t degrees[PAL__DRAFT_BUCKETS] = {1, 2,  3,  4,  5,  6,  7,  8,
						    9, 11, 14, 18, 24, 32, 48, LONGEST};

/* Memory: 44 bytes for each token of the window. Positions are kept modulo 2^32: a window is
 * smaller, and a wrong one is found out. */
typedef struct {
	pal__draft_source source;
	pal__arena arena;
	int64_t n;               /* tokens of the log that were observed */
	int64_t base, low;       /* the first that is in the chains, and that still is */
	size_t window;           /* a power of two */
	int32_t *tokens;         /* [window] of position p at p % window */
	uint32_t *heads[LEVELS]; /* [window] 1 + the latest position with a hash; 0: none */
	uint32_t *links[LEVELS]; /* [window] how far back the one before p is; 0: none */
} ngram;

/* Hashes of the runs of `lengths` tokens that end at position p. tokens[position & mask]; base:
 * no run begins before it. Returns how many lengths there are. */
static int hashes(const ngram *s, const int32_t *tokens, uint64_t mask, int64_t p, int64_t base,
		  uint32_t out[LEVELS])
{
	uint64_t h = 0;
	int level = 0;
	for (int64_t i = 0; level < LEVELS && p - i >= base; i++) {
		h = (h + (uint32_t)tokens[(uint64_t)(p - i) & mask] + 1) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
		if (i + 1 == lengths[level])
			out[level++] = (uint32_t)(h >> 8) & (uint32_t)(s->window - 1);
	}
	return level;
}

/* How far before position p the head's position is, 0: none in the window. */
static uint32_t distance(const ngram *s, uint32_t head, int64_t p)
{
	uint32_t d = (uint32_t)(p + 1) - head;
	return head && d <= s->window && p - (int64_t)d >= s->low ? d : 0;
}

static void insert(ngram *s, int32_t token)
{
	uint32_t h[LEVELS];
	int64_t p = s->n++;
	size_t at = (size_t)p & (s->window - 1);
	if (s->n - s->low > (int64_t)s->window)
		s->low++;
	s->tokens[at] = token;
	int n = hashes(s, s->tokens, s->window - 1, p, s->base, h);
	for (int i = 0; i < LEVELS; i++) {
		s->links[i][at] = i < n ? distance(s, s->heads[i][h[i]], p) : 0;
		if (i < n)
			s->heads[i][h[i]] = (uint32_t)(p + 1);
	}
}

/* Takes back the last token. */
static void take_back(ngram *s)
{
	uint32_t h[LEVELS];
	int64_t p = --s->n;
	int n = hashes(s, s->tokens, s->window - 1, p, s->base, h);
	for (int i = 0; i < n; i++) {
		uint32_t back = s->links[i][(size_t)p & (s->window - 1)];
		s->heads[i][h[i]] = back ? (uint32_t)(p + 1) - back : 0;
	}
}

static void start_at(ngram *s, int64_t position)
{
	for (int i = 0; i < LEVELS; i++)
		memset(s->heads[i], 0, s->window * sizeof *s->heads[i]);
	s->n = s->base = s->low = position;
}

static void observe(pal__draft_source *source, const int32_t *log, int64_t from, int64_t n)
{
	ngram *s = (ngram *)source;
	int64_t first = n > (int64_t)s->window ? n - (int64_t)s->window : 0;
	/* What is not in the window any more cannot be taken back. */
	bool lost = from < s->n && s->low > s->base && from < s->low + (int64_t)WINDOW_MIN;
	if (lost || from < s->base || first > s->n)
		start_at(s, first);
	while (s->n > from && s->n > s->base)
		take_back(s);
	while (s->n < n)
		insert(s, log[s->n]);
}

static int match(const int32_t *log, int64_t a, int64_t b)
{
	int n = 0;
	while (n < LONGEST && a - n >= 0 && log[a - n] == log[b - n])
		n++;
	return n;
}

/* The best place with a match of lengths[level] or more for the log's end. Returns the length of
 * the match, or 0. */
static int follow(const ngram *s, const pal__draft_view *v, int level, uint32_t hash,
		  int64_t *place)
{
	int64_t end = v->n - 1, p = end;
	int best = 0;
	uint32_t back = distance(s, s->heads[level][hash], p);
	for (int i = 0; i < STEPS && back && best < LONGEST; i++) {
		p -= back;
		int n = match(v->log, p, end);
		if (n > best && n >= lengths[level]) {
			best = n;
			*place = p;
		}
		back = s->links[level][(size_t)p & (s->window - 1)];
		back = p - (int64_t)back >= s->low ? back : 0;
	}
	return best;
}

static int propose(pal__draft_source *source, const pal__draft_view *v, int32_t *out, uint8_t *sure,
		   int most)
{
	ngram *s = (ngram *)source;
	uint32_t h[LEVELS];
	int64_t place = 0, end = v->n - 1;
	int n = 0, degree = 0;
	if (s->n > end)
		return 0; /* it was shown another log */
	for (int i = hashes(s, v->log, UINT64_MAX, end, 0, h) - 1; i >= 0 && !n; i--)
		n = follow(s, v, i, h[i], &place);
	if (!n)
		return 0;
	/* Where the match overlaps the end, what follows it is what was just proposed. */
	for (int i = 0; i < most; i++) {
		while (degree + 1 < PAL__DRAFT_BUCKETS && n + i >= degrees[degree + 1])
			degree++;
		out[i] = place + 1 + i <= end ? v->log[place + 1 + i] : out[place + i - end];
		sure[i] = (uint8_t)degree;
	}
	return most;
}

static void close_ngram(pal__draft_source *source)
{
	ngram *s = (ngram *)source;
	pal__arena_free(&s->arena);
	pal__free(s);
}

pal_status pal__draft_ngram(size_t window, pal__draft_source **out, pal_error *err)
{
	size_t n = WINDOW_MIN;
	while (n < window && n < WINDOW_MAX)
		n *= 2;
	ngram *s = pal__calloc(1, sizeof *s);
	if (!s)
		return pal__fail_memory(err, "the drafts' n-grams", sizeof *s);
	size_t array = pal__arena_need(n * sizeof(uint32_t));
	pal_status st =
		pal__arena_init(&s->arena, (1 + 2 * LEVELS) * array, "the drafts' n-grams", err);
	if (st != PAL_OK) {
		pal__free(s);
		return st;
	}
	s->source = (pal__draft_source){"ngram", propose, observe, close_ngram};
	s->window = n;
	s->tokens = pal__arena_take(&s->arena, n * sizeof *s->tokens);
	for (int i = 0; i < LEVELS; i++) {
		s->heads[i] = pal__arena_take(&s->arena, n * sizeof *s->heads[i]);
		s->links[i] = pal__arena_take(&s->arena, n * sizeof *s->links[i]);
	}
	*out = &s->source;
	return PAL_OK;
}
