#include "restore/lexical.h"

#include <assert.h>
#include <string.h>

#include "restore/source.h"

#define PLACES 1024 /* of the table, a power of two and more than a span's tokens */
#define PIECE 4096  /* tokens that are read at once, whole chunks */

_Static_assert(PLACES >= 2 * PAL__MAX_SPAN && PIECE % PAL_CHUNK == 0, "places and pieces");

typedef struct {
	int32_t token; /* -1: a free place */
	uint32_t weight;
	uint64_t chunks; /* that have it */
	int64_t last;    /* chunk in which it was met */
} word;

/* The place of a token, or the free one where it would be. */
static word *place(word *words, int32_t token)
{
	size_t i = (uint32_t)token * 2654435761u / (UINT32_MAX / PLACES + 1);
	while (words[i].token >= 0 && words[i].token != token)
		i = (i + 1) % PLACES;
	return &words[i];
}

/* log2(x) in 256ths, rounded down. x: at least 1. */
static uint32_t log_of(uint64_t x)
{
	uint32_t whole = 63 - (uint32_t)__builtin_clzll(x), part = 0;
	uint64_t y = x << (63 - whole) >> 32; /* from 2^31 on, below 2^32 */
	for (int i = 0; i < 8; i++) {
		y = y * y >> 31;
		part = 2 * part + (y >> 32 != 0);
		y >>= y >> 32;
	}
	return 256 * whole + part;
}

/* Reads the log once: counts the chunks that have each word, or, with found, adds up the weights of
 * those that a chunk has; total: of all of them. */
static pal_status read_log(const pal__disk *log, int64_t from, int64_t end, word *words,
			   uint32_t total, pal__found *found, size_t *n, pal_error *err)
{
	int32_t piece[PIECE];
	for (int64_t start = from / PIECE * PIECE; start < end; start += PIECE) {
		size_t count = end - start < PIECE ? (size_t)(end - start) : PIECE;
		pal_status s = pal__disk_read(log, piece, count * sizeof *piece,
					      (uint64_t)start * sizeof *piece, err);
		if (s)
			return s;
		uint32_t shared = 0;
		for (size_t i = start < from ? (size_t)(from - start) : 0; i < count; i++) {
			int64_t chunk = (start + (int64_t)i) / PAL_CHUNK;
			word *w = place(words, piece[i]);
			if (w->token >= 0 && w->last != chunk) {
				w->last = chunk;
				w->chunks += !found;
				shared += w->weight;
			}
			if (i + 1 < count && (i + 1) % PAL_CHUNK)
				continue;
			if (found && shared)
				pal__found_add(
					found, n,
					(pal__found){(int32_t)chunk, (float)shared / (float)total});
			shared = 0;
		}
	}
	return PAL_OK;
}

pal_status pal__lexical_score(const pal__disk *log, int64_t from, int64_t end, int64_t at,
			      size_t n_span, pal__found found[PAL__MAX_FOUND], size_t *n,
			      pal_error *err)
{
	word words[PLACES];
	int32_t span[PAL__MAX_SPAN];
	uint32_t total = 0;
	*n = 0;
	n_span = n_span < PAL__MAX_SPAN ? n_span : PAL__MAX_SPAN;
	if (from >= end || !n_span)
		return PAL_OK;
	assert((int64_t)n_span <= at);
	memset(words, 0xff, sizeof words);
	pal_status s = pal__disk_read(log, span, n_span * sizeof *span,
				      ((uint64_t)at - n_span) * sizeof *span, err);
	for (size_t i = 0; i < n_span && !s; i++)
		*place(words, span[i]) = (word){.token = span[i], .last = -1};
	if (!s)
		s = read_log(log, from, end, words, 0, NULL, NULL, err);
	int64_t chunks = (end + PAL_CHUNK - 1) / PAL_CHUNK - from / PAL_CHUNK;
	for (word *w = words; w < words + PLACES; w++) {
		w->last = -1;
		if (w->token < 0 || !w->chunks)
			continue;
		w->weight = log_of((uint64_t)chunks) - log_of(w->chunks);
		total += w->weight;
	}
	return s || !total ? s : read_log(log, from, end, words, total, found, n, err);
}
