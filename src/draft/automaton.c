#include "draft/automaton.h"

#include <assert.h>
#include <string.h>

#include "base/checked.h"

#define COUNTED 64 /* states, from the longest suffix on */
#define FULL (UINT16_MAX - PAL__AUTOMATON_ONE)
#define ROOT 0u
#define NONE UINT32_MAX /* the root's link */

static uint32_t hash(const pal__automaton *a, uint32_t state, int32_t token)
{
	uint64_t h = ((uint64_t)state << 32 | (uint32_t)token) * 0x9e3779b97f4a7c15u;
	return (uint32_t)((h ^ h >> 29) * 0xbf58476d1ce4e5b9u >> a->hash_shift);
}

/* The edge from a state, or 0. */
static uint32_t find(const pal__automaton *a, uint32_t state, int32_t token)
{
	uint32_t e = a->heads[hash(a, state, token)];
	while (e && (a->edges[e].from != state || a->edges[e].token != token))
		e = a->edges[e].next;
	return e;
}

static uint32_t add_edge(pal__automaton *a, uint32_t from, int32_t token, uint32_t to)
{
	uint32_t e = (uint32_t)++a->n_edges, *head = &a->heads[hash(a, from, token)];
	assert(a->n_edges <= 3 * a->capacity);
	a->edges[e] = (pal__automaton_edge){from, to, token, a->states[from].first, *head};
	a->states[from].first = *head = e;
	return e;
}

static uint32_t add_state(pal__automaton *a, int32_t len)
{
	assert(a->n_states <= 2 * a->capacity);
	a->states[a->n_states] = (pal__automaton_state){.len = len, .link = NONE};
	return (uint32_t)a->n_states++;
}

/* q stands for strings longer than p's and the token, too, which do not end where the text ends
 * now. A copy of q takes those that do: it is where the edges from p and its suffixes lead. */
static uint32_t divide(pal__automaton *a, uint32_t p, uint32_t q, int32_t token)
{
	uint32_t copy = add_state(a, a->states[p].len + 1);
	pal__automaton_state *s = &a->states[copy];
	s->link = a->states[q].link;
	s->hits = a->states[q].hits;
	s->of = a->states[q].of;
	for (uint32_t e = a->states[q].first; e; e = a->edges[e].sibling) {
		uint32_t copied = add_edge(a, copy, a->edges[e].token, a->edges[e].to);
		if (e == a->states[q].best)
			s->best = copied;
	}
	for (uint32_t e; p != NONE; p = a->states[p].link) {
		e = find(a, p, token);
		if (a->edges[e].to != q)
			break;
		a->edges[e].to = copy;
	}
	return a->states[q].link = copy;
}

/* The token follows the state's strings again, or for the first time. */
static void follow(pal__automaton *a, uint32_t state, int32_t token)
{
	pal__automaton_state *s = &a->states[state];
	bool same = s->best && a->edges[s->best].token == token;
	if (!same || s->of > FULL) {
		s->hits /= 2;
		s->of /= 2;
	}
	if (!same && s->hits <= PAL__AUTOMATON_ONE) {
		s->best = find(a, state, token);
		s->hits = 0;
		same = true;
	}
	s->hits += same ? PAL__AUTOMATON_ONE : 0;
	s->of += PAL__AUTOMATON_ONE;
}

void pal__automaton_add(pal__automaton *a, int32_t token)
{
	assert(a->n < a->capacity);
	uint32_t before = a->last, p = before;
	uint32_t now = add_state(a, a->states[p].len + 1), e = 0;
	for (; p != NONE && !(e = find(a, p, token)); p = a->states[p].link)
		add_edge(a, p, token, now);
	if (p == NONE) {
		a->states[now].link = ROOT;
	} else {
		uint32_t q = a->edges[e].to;
		bool whole = a->states[q].len == a->states[p].len + 1;
		a->states[now].link = whole ? q : divide(a, p, q, token);
	}
	a->last = now;
	a->n++;
	for (int i = 0; i < COUNTED && before != NONE && token >= 0; i++) {
		follow(a, before, token);
		before = a->states[before].link;
	}
}

pal__automaton_match pal__automaton_end(const pal__automaton *a)
{
	return (pal__automaton_match){a->last, a->states[a->last].len};
}

pal__automaton_match pal__automaton_shorter(const pal__automaton *a, pal__automaton_match m)
{
	uint32_t link = a->states[m.state].link;
	return link == NONE ? (pal__automaton_match){ROOT, 0}
			    : (pal__automaton_match){link, a->states[link].len};
}

pal__automaton_match pal__automaton_step(const pal__automaton *a, pal__automaton_match m,
					 int32_t token)
{
	for (;;) {
		uint32_t e = token >= 0 ? find(a, m.state, token) : 0;
		if (e)
			return (pal__automaton_match){a->edges[e].to, m.len + 1};
		if (m.state == ROOT)
			return m;
		m = pal__automaton_shorter(a, m);
	}
}

bool pal__automaton_next(const pal__automaton *a, pal__automaton_match m, int32_t *token,
			 uint32_t *hits, uint32_t *of)
{
	const pal__automaton_state *s = &a->states[m.state];
	if (!s->best)
		return false;
	*token = a->edges[s->best].token;
	*hits = s->hits;
	*of = s->of;
	return true;
}

void pal__automaton_clear(pal__automaton *a)
{
	memset(a->heads, 0, sizeof *a->heads << (64 - a->hash_shift));
	a->n = a->n_states = a->n_edges = 0;
	a->last = add_state(a, 0);
}

pal_status pal__automaton_init(pal__automaton *a, size_t capacity, pal_error *err)
{
	*a = (pal__automaton){.capacity = capacity ? capacity : 1, .hash_shift = 63};
	if (capacity > PAL__AUTOMATON_MAX)
		return pal__fail(err, PAL_ELIMIT, "an automaton of %zu tokens: at most %zu",
				 capacity, PAL__AUTOMATON_MAX);
	while ((size_t)1 << (64 - a->hash_shift) < 2 * a->capacity)
		a->hash_shift--;
	size_t states = (2 * a->capacity + 1) * sizeof *a->states;
	size_t edges = (3 * a->capacity + 1) * sizeof *a->edges;
	size_t heads = sizeof *a->heads << (64 - a->hash_shift);
	pal_status s = pal__arena_init(&a->arena,
				       pal__arena_need(states) + pal__arena_need(edges) +
					       pal__arena_need(heads),
				       "the drafts' automaton", err);
	if (s != PAL_OK)
		return s;
	a->states = pal__arena_take(&a->arena, states);
	a->edges = pal__arena_take(&a->arena, edges);
	a->heads = pal__arena_take(&a->arena, heads);
	pal__automaton_clear(a);
	return PAL_OK;
}

void pal__automaton_free(pal__automaton *a)
{
	pal__arena_free(&a->arena);
	*a = (pal__automaton){0};
}
