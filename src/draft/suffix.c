/* What followed the last tokens most often: in the session, by an automaton of its last tokens, and
 * in a corpus file.
 *
 * A continuation that followed `hits` of the `of` times that a context of `len` tokens stood there
 * is believed with
 *
 *     hits / (of + 2 / len)
 *
 * so that a longer context needs fewer occurrences than a short one; in the session newer ones
 * count for more. At each step the context and the continuation with the highest belief win, over
 * both places and many lengths of context; the belief is the degree of sureness.
 *
 * Invariants:
 *  - The automaton holds the last tokens of the log: when it is full, it is made anew from the
 *    newer half. A log that was cut goes on as another text; what was learnt of the rest stays.
 *  - A corpus whose file was cut short proposes nothing any more.
 */
#include "draft/source.h"

#include "base/mem.h"
#include "draft/automaton.h"
#include "draft/corpus.h"
#include "model/model.h"

#define PLACES 16            /* of the corpus that are looked at */
#define CONTEXTS 4           /* of the session, for one token */
#define CONTEXT_LONG 64      /* tokens: longer ones count as that */
#define AGAIN 16             /* tokens before a cut that are read again behind it */
#define ONE 4096             /* the belief 1 */
#define ENOUGH (ONE * 7 / 8) /* belief with which no other context is asked */
#define UNLIKELY (ONE / 256) /* belief in all tokens together: no more are proposed */

/* Where a degree of sureness begins, in 1/4096. */
static const uint16_t degrees[PAL__DRAFT_BUCKETS] = {
	0, 256, 512, 768, 1024, 1536, 2048, 2560, 3072, 3328, 3584, 3712, 3840, 3968, 4032, 4064};

typedef struct {
	pal__draft_source source;
	pal__automaton session;
	pal__corpus corpus; /* or zeros */
	int64_t n;          /* tokens of the log that were observed */
} suffix;

typedef struct {
	int32_t token; /* -1: none */
	uint32_t belief;
} guess;

/* One proposal under way. */
typedef struct {
	const suffix *s;
	pal__automaton_match at; /* in the session */
	pal__corpus_place places[PLACES];
	size_t n_places;
} walk;

/* hits and of: in 1/unit. */
static uint32_t belief(uint64_t hits, uint64_t of, uint64_t unit, uint64_t len)
{
	if (len > CONTEXT_LONG)
		len = CONTEXT_LONG;
	return (uint32_t)(ONE * hits * len / (of * len + 2 * unit));
}

/* --- the session ------------------------------------------------------------------ */

static void observe(pal__draft_source *source, const int32_t *log, int64_t from, int64_t n)
{
	suffix *s = (suffix *)source;
	const int64_t room = (int64_t)s->session.capacity;
	if (n - from > room) {
		pal__automaton_clear(&s->session);
		from = n - room;
	} else if (from != s->n && s->session.n) {
		if (s->session.n < s->session.capacity)
			pal__automaton_add(&s->session, PAL__CORPUS_BREAK);
		from = from > AGAIN ? from - AGAIN : 0;
	}
	for (int64_t i = from; i < n; i++) {
		if (s->session.n == s->session.capacity) {
			pal__automaton_clear(&s->session);
			int64_t half = i - room / 2;
			i = half > 0 ? half : 0;
		}
		pal__automaton_add(&s->session, log[i] < 0 ? PAL__CORPUS_BREAK : log[i]);
	}
	s->n = n;
}

static guess guess_session(const walk *w)
{
	guess best = {-1, 0};
	pal__automaton_match m = w->at;
	for (int i = 0; i < CONTEXTS && m.len > 0 && best.belief < ENOUGH; i++) {
		int32_t token;
		uint32_t hits, of;
		if (pal__automaton_next(&w->s->session, m, &token, &hits, &of)) {
			uint32_t b = belief(hits, of, PAL__AUTOMATON_ONE, (uint64_t)m.len);
			if (b > best.belief)
				best = (guess){token, b};
		}
		m = pal__automaton_shorter(&w->s->session, m);
	}
	return best;
}

/* --- the corpus ------------------------------------------------------------------- */

/* Places are in the order of their matches: each new length of context is asked once all places
 * that agree with so much are counted. */
static guess guess_corpus(const walk *w)
{
	guess best = {-1, 0};
	int32_t tokens[PLACES];
	uint32_t counts[PLACES], most = 0, of = 0;
	size_t n = 0;
	for (size_t i = 0; i < w->n_places; i++) {
		int32_t token = pal__corpus_token(&w->s->corpus, w->places[i].next);
		size_t k = 0;
		of++;
		while (k < n && tokens[k] != token)
			k++;
		if (k == n) {
			tokens[n] = token;
			counts[n++] = 0;
		}
		if (token >= 0 && (++counts[k] > counts[most] || tokens[most] < 0))
			most = (uint32_t)k;
		bool last = i + 1 == w->n_places || w->places[i + 1].match < w->places[i].match;
		uint32_t b = last ? belief(counts[most], of, 1, w->places[i].match) : 0;
		if (b > best.belief)
			best = (guess){tokens[most], b};
	}
	return best;
}

/* Goes on to the places where the token follows. */
static void go_on(walk *w, int32_t token)
{
	size_t kept = 0;
	for (size_t i = 0; i < w->n_places; i++) {
		pal__corpus_place p = w->places[i];
		if (pal__corpus_token(&w->s->corpus, p.next) == token)
			w->places[kept++] = (pal__corpus_place){p.next + 1, p.match + 1};
	}
	w->n_places = kept;
	w->at = pal__automaton_step(&w->s->session, w->at, token);
}

/* --- proposing -------------------------------------------------------------------- */

static uint8_t degree_of(uint32_t b)
{
	uint8_t degree = 0;
	while (degree + 1 < PAL__DRAFT_BUCKETS && b >= degrees[degree + 1])
		degree++;
	return degree;
}

static int propose(pal__draft_source *source, const pal__draft_view *v, int32_t *out, uint8_t *sure,
		   int most)
{
	suffix *s = (suffix *)source;
	walk w = {.s = s};
	int n = 0;
	w.at = pal__automaton_step(&s->session, pal__automaton_end(&s->session), v->log[v->n - 1]);
	w.n_places = pal__corpus_find(&s->corpus, v->log, (size_t)v->n, w.places, PLACES);
	for (uint32_t all = ONE; n < most; n++) {
		guess g = guess_session(&w), c = guess_corpus(&w);
		if (c.belief > g.belief)
			g = c;
		all = all * g.belief / ONE;
		if (g.token < 0 || all < UNLIKELY)
			break;
		out[n] = g.token;
		sure[n] = degree_of(g.belief);
		go_on(&w, g.token);
	}
	if (!pal__corpus_intact(&s->corpus)) {
		pal__corpus_close(&s->corpus);
		return 0;
	}
	return n;
}

static void close_suffix(pal__draft_source *source)
{
	suffix *s = (suffix *)source;
	pal__automaton_free(&s->session);
	pal__corpus_close(&s->corpus);
	pal__free(s);
}

pal_status pal__draft_suffix(const pal_model *verifier, size_t window, const char *corpus,
			     pal__draft_source **out, pal_error *err)
{
	suffix *s = pal__calloc(1, sizeof *s);
	if (!s)
		return pal__fail_memory(err, "the drafts' automaton", sizeof *s);
	s->source = (pal__draft_source){"suffix", propose, observe, close_suffix};
	pal_status st = pal__automaton_init(&s->session, window, err);
	if (st == PAL_OK && corpus)
		st = pal__corpus_open(corpus, verifier->tokenizer, &s->corpus, err);
	if (st == PAL_OK)
		*out = &s->source;
	else
		close_suffix(&s->source);
	return st;
}
