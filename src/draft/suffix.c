/* What followed the last tokens: in the session, by an automaton of its last tokens, and in a
 * corpus file.
 *
 * Contexts are asked from the longest to the shortest, those of both places together, and each
 * shares out what the longer ones have left open (as PPM compressors do: Cleary and Witten 1984). A
 * context that `of` times was followed by one of `different` tokens leaves
 *
 *     e / (of + e),   e = ESCAPE sqrt(different)
 *
 * of it open, and that again for each length down to the next context, since all of these
 * lengths say the same. The rest goes to its tokens by how often they came; in the session newer
 * ones count for more. So one place with a long context is believed as much as many with a
 * short one, and a corpus that knows better than the session is heard, but does not drown it.
 * The token with the largest share is the guess; what it lacks of all is the doubt in it, whose
 * size is the degree of sureness.
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
#define LAST 8               /* tokens of the shortest match that stand for one more length */
#define CONTEXTS 6           /* of the session, for one token */
#define CONTEXT_LONG 32      /* tokens: longer ones count as that */
#define ESCAPE 1.5f          /* occurrences that a context should have had to be half believed */
#define OPEN 0.01f           /* what is left open when no other context is asked */
#define AGAIN 16             /* tokens before a cut that are read again behind it */
#define UNLIKELY 0.00390625f /* chance of all tokens together: no more are proposed */

/* The doubt with which a degree of sureness begins. */
static const float degrees[PAL__DRAFT_BUCKETS] = {
	1,     0.933f, 0.871f,  0.785f,    0.707f,      0.595f,      0.5f,        0.354f,
	0.25f, 0.125f, 0.0625f, 0.015625f, 0.00390625f, 0.00048828f, 0.00006104f, 0.00000381f};

typedef struct {
	pal__draft_source source;
	pal__automaton session;
	pal__corpus corpus; /* or zeros */
	int64_t n;          /* tokens of the log that were observed */
} suffix;

/* One proposal under way. */
typedef struct {
	const suffix *s;
	pal__automaton_match at; /* in the session */
	pal__corpus_place places[PLACES];
	size_t n_places;
} walk;

/* What is thought of the next token. */
typedef struct {
	int32_t tokens[CONTEXTS + PLACES];
	float shares[CONTEXTS + PLACES];
	size_t n;
	float open; /* of 1 */
} opinion;

/* What the corpus has at those of its places that were asked. */
typedef struct {
	int32_t tokens[PLACES];
	uint32_t counts[PLACES];
	size_t n;
	uint32_t of;
} counting;

/* --- opinions --------------------------------------------------------------------- */

/* The share of a context that stands for so many lengths. */
static float share(opinion *o, float of, size_t different, uint32_t lengths)
{
	/* The square root is that of 1, 2, 4, 8 and 16, which is near enough. */
	float e = ESCAPE, open = o->open;
	for (size_t i = 1; i < different; i *= 2)
		e *= 1.41421356f;
	for (uint32_t i = 0; i < lengths; i++)
		o->open *= e / (of + e);
	return open - o->open;
}

static uint32_t lengths(uint32_t longest, uint32_t next)
{
	uint32_t n = (longest < CONTEXT_LONG ? longest : CONTEXT_LONG) - next;
	return next < CONTEXT_LONG ? n : 1;
}

static void vote(opinion *o, int32_t token, float share)
{
	size_t i = 0;
	while (i < o->n && o->tokens[i] != token)
		i++;
	if (i == o->n) {
		o->tokens[o->n] = token;
		o->shares[o->n++] = 0;
	}
	o->shares[i] += share;
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

/* Asks the longest context that was not asked yet. */
static pal__automaton_match ask_session(const walk *w, pal__automaton_match m, opinion *o)
{
	int32_t token;
	uint32_t hits, of;
	pal__automaton_match shorter = pal__automaton_shorter(&w->s->session, m);
	if (pal__automaton_next(&w->s->session, m, &token, &hits, &of)) {
		float all = share(o, (float)of / PAL__AUTOMATON_ONE, hits < of ? 2 : 1,
				  lengths((uint32_t)m.len, (uint32_t)shorter.len));
		vote(o, token, all * (float)hits / (float)of);
	}
	return shorter;
}

/* --- the corpus ------------------------------------------------------------------- */

/* Places are in the order of their matches: asks those that agree in as many tokens as place i
 * does, and all before. Returns the first that agrees in fewer. */
static size_t ask_corpus(const walk *w, size_t i, counting *c, opinion *o)
{
	const uint32_t match = w->places[i].match;
	for (; i < w->n_places && w->places[i].match == match; i++) {
		int32_t token = pal__corpus_token(&w->s->corpus, w->places[i].next);
		size_t k = 0;
		c->of++;
		while (k < c->n && c->tokens[k] != token)
			k++;
		if (k == c->n) {
			c->tokens[c->n] = token;
			c->counts[c->n++] = 0;
		}
		c->counts[k]++;
	}
	/* Nothing is known of what is shorter than the last of them. */
	uint32_t n = i < w->n_places ? lengths(match, w->places[i].match) : 1 + match / LAST;
	float all = share(o, (float)c->of, c->n, n);
	for (size_t k = 0; k < c->n; k++)
		if (c->tokens[k] >= 0)
			vote(o, c->tokens[k], all * (float)c->counts[k] / (float)c->of);
	return i;
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

/* The token that is thought to come, and how likely it is; -1: none. */
static int32_t guess(const walk *w, float *chance)
{
	opinion o = {.open = 1};
	counting c = {.n = 0};
	pal__automaton_match m = w->at;
	size_t place = 0, best = 0;
	int contexts = m.len > 0 ? CONTEXTS : 0;
	while (o.open > OPEN && (contexts || place < w->n_places)) {
		bool corpus = place < w->n_places &&
			      (!contexts || w->places[place].match > (uint32_t)m.len);
		if (corpus) {
			place = ask_corpus(w, place, &c, &o);
		} else {
			m = ask_session(w, m, &o);
			contexts = m.len > 0 ? contexts - 1 : 0;
		}
	}
	for (size_t i = 1; i < o.n; i++)
		if (o.shares[i] > o.shares[best])
			best = i;
	*chance = o.n ? o.shares[best] : 0;
	return o.n ? o.tokens[best] : -1;
}

static uint8_t degree_of(float chance)
{
	uint8_t degree = 0;
	while (degree + 1 < PAL__DRAFT_BUCKETS && 1 - chance <= degrees[degree + 1])
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
	float chance, all = 1;
	for (; n < most; n++) {
		int32_t token = guess(&w, &chance);
		all *= chance;
		if (token < 0 || all < UNLIKELY)
			break;
		out[n] = token;
		sure[n] = degree_of(chance);
		go_on(&w, token);
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

pal_status pal__draft_suffix(const pal_model *vocabulary, size_t window, const char *corpus,
			     pal__draft_source **out, pal_error *err)
{
	suffix *s = pal__calloc(1, sizeof *s);
	if (!s)
		return pal__fail_memory(err, "the drafts' automaton", sizeof *s);
	s->source = (pal__draft_source){"suffix", propose, observe, close_suffix};
	pal_status st = pal__automaton_init(&s->session, window, err);
	if (st == PAL_OK && corpus)
		st = pal__corpus_open(corpus, vocabulary->tokenizer, &s->corpus, err);
	if (st == PAL_OK)
		*out = &s->source;
	else
		close_suffix(&s->source);
	return st;
}
