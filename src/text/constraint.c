/* How a mask is made: a walk through the vocabulary's trie, which is one look into a table a node.
 * The tokens that do not leave the open rule depend on its set alone: they are remembered, with the
 * nodes where others leave it. Only what is behind those nodes is walked each time, since that
 * depends on what is around. */
#include "text/constraint.h"

#include <string.h>

#include "base/mem.h"
#include "text/readings.h"
#include "text/schema.h"
#include "text/trie.h"

_Static_assert(PAL__TRIE_DEEP <= PAL__READINGS_TEXT, "a token can always be read");

struct pal_constraint {
	const pal__tokenizer *t;
	const pal__trie *trie;
	pal__readings r;
	pal__place now;
	size_t n_vocab, n_words;
	struct {
		int32_t at, around;
	} path[PAL__TRIE_DEEP + 1]; /* of a walk; around: which of stacks */
	pal__stack stacks[PAL__TRIE_DEEP + 1];
	uint8_t bytes[PAL__TRIE_DEEP + 1];
	uint64_t *mask;    /* [n_words] */
	uint64_t *no_text; /* [n_words] tokens that are not in the trie */
	int32_t *special;  /* [n_special] all of them */
	size_t n_special;
	uint64_t *known; /* [cap_known] masks: the number of leaves, the bits, the leaves */
	size_t n_known, cap_known;
};

/* Where a token leaves the open rule: a node, and the set of what has ended. */
static uint64_t leave(uint32_t node, int32_t ended)
{
	return (uint64_t)node << 32 | (uint32_t)ended;
}

/* --- opening -------------------------------------------------------------- */

static pal_status check_bytes(const pal_constraint *c, pal_error *err)
{
	const pal__form *f = &c->r.form;
	for (size_t i = 0; i < f->n; i++) {
		const pal__form_state *s = &f->states[i];
		if (s->need == PAL__FORM_NEVER)
			continue;
		unsigned lo = s->lo, hi = s->hi;
		if (s->kind == PAL__FORM_CALL)
			lo = hi = f->rules[s->other].open;
		else if (s->kind != PAL__FORM_BYTES)
			continue;
		for (unsigned b = lo; b <= hi; b++)
			if (!c->trie->bytes[b])
				return pal__fail(err, PAL_EUNSUPPORTED,
						 "the vocabulary has no token for the byte 0x%02x, "
						 "which a constraint needs",
						 b);
	}
	return PAL_OK;
}

static pal_status make(pal_constraint *c, pal_error *err)
{
	size_t n = c->n_vocab, size = n * sizeof *c->special + 2 * c->n_words * sizeof *c->mask;
	c->cap_known = PAL__CONSTRAINT_MASKS / sizeof *c->known;
	c->mask = pal__calloc(c->n_words, sizeof *c->mask);
	c->no_text = pal__calloc(c->n_words, sizeof *c->no_text);
	c->special = pal__alloc(n * sizeof *c->special);
	c->known = pal__alloc(c->cap_known * sizeof *c->known);
	if (!c->mask || !c->no_text || !c->special || !c->known)
		return pal__fail_memory(err, "a constraint", size + PAL__CONSTRAINT_MASKS);
	for (size_t i = 0; i < n; i++) {
		c->no_text[i / 64] |= (uint64_t)1 << (i % 64);
		if (pal__token_is_special(c->t, (int32_t)i) || pal__token_is_end(c->t, (int32_t)i))
			c->special[c->n_special++] = (int32_t)i;
	}
	for (size_t i = 0; i < c->trie->n_ids; i++)
		c->no_text[c->trie->ids[i] / 64] &= ~((uint64_t)1 << (c->trie->ids[i] % 64));
	return PAL_OK;
}

pal_status pal__constraint_new(const pal__tokenizer *t, pal__form *form, pal_constraint **out,
			       pal_error *err)
{
	pal_constraint *c = pal__calloc(1, sizeof *c);
	pal_status s = c ? PAL_OK : pal__fail_memory(err, "a constraint", sizeof *c);
	if (s) {
		pal__form_free(form);
		return s;
	}
	c->t = t;
	c->n_vocab = pal__tokenizer_n_tokens(t);
	c->n_words = (c->n_vocab + 63) / 64;
	s = pal__readings_init(&c->r, form, err);
	if (!s)
		s = pal__tokenizer_trie(t, &c->trie, err);
	if (!s)
		s = check_bytes(c, err);
	if (!s)
		s = make(c, err);
	if (s) {
		pal_constraint_close(c);
		return s;
	}
	pal__constraint_begin(c);
	*out = c;
	return PAL_OK;
}

pal_status pal__constraint_json(const pal__tokenizer *t, const char *schema, size_t n,
				pal_constraint **out, pal_error *err)
{
	pal__form form = {0};
	pal_status s = pal__schema_form(schema, n, &form, err);
	return s ? s : pal__constraint_new(t, &form, out, err);
}

void pal_constraint_close(pal_constraint *c)
{
	if (!c)
		return;
	pal__readings_free(&c->r);
	pal__free(c->mask);
	pal__free(c->no_text);
	pal__free(c->special);
	pal__free(c->known);
	pal__free(c);
}

static void forget(pal_constraint *c, pal__place *keep)
{
	pal__readings_forget(&c->r, keep);
	c->n_known = 0;
}

void pal__constraint_begin(pal_constraint *c)
{
	if (c->r.n_sets)
		c->now = pal__readings_start(&c->r);
	if (!c->r.n_sets || c->now.at == PAL__FULL) {
		forget(c, NULL);
		c->now = pal__readings_start(&c->r);
	}
}

/* --- walking -------------------------------------------------------------- */

static void allow(uint64_t *bits, int32_t id)
{
	bits[id / 64] |= (uint64_t)1 << (id % 64);
}

static void start_walk(pal_constraint *c, const pal__place *p)
{
	c->path[0].at = p->at;
	c->path[0].around = 0;
	c->stacks[0].n = p->around.n;
	memcpy(c->stacks[0].frames, p->around.frames, sizeof(int32_t) * (size_t)p->around.n);
}

/* Sets path[k] to what byte makes of path[k - 1] at a border of rules, `to` its set. PAL__DEAD:
 * the rule that was open when the walk started ends. */
static int32_t cross(pal_constraint *c, unsigned k, int32_t to, uint8_t byte)
{
	const pal__stack *from = &c->stacks[c->path[k - 1].around];
	pal__stack *s = &c->stacks[k];
	if (!(to & PAL__PUSH) && !from->n)
		return PAL__DEAD;
	memcpy(s->frames, from->frames, sizeof(int32_t) * (size_t)from->n);
	s->n = from->n;
	c->path[k].around = (int32_t)k;
	if (to & PAL__PUSH) {
		s->frames[s->n++] = pal__readings_frame(&c->r, c->path[k - 1].at, byte);
		return c->path[k].at = to & ~PAL__PUSH;
	}
	return c->path[k].at = pal__readings_pop(&c->r, to, s->frames[--s->n]);
}

/* After everything was forgotten in the middle of a walk that began at c->now. */
static void walk_again(pal_constraint *c, unsigned depth)
{
	pal__place p;
	forget(c, &c->now);
	p = c->now;
	start_walk(c, &p);
	for (unsigned k = 1; k <= depth; k++) {
		pal__readings_move(&c->r, &p, c->bytes[k]);
		c->path[k].at = p.at;
		c->path[k].around = (int32_t)k;
		c->stacks[k] = p.around;
	}
}

typedef struct {
	uint32_t node, end; /* walk the nodes from here up to there */
	unsigned above;     /* depth of the node that they are below */
	bool again;         /* forget and go on when there is no more room */
	uint64_t *bits;     /* of the tokens found */
	uint64_t *leaves;   /* [cap] where they leave the rule, or NULL */
	size_t n_leaves, cap;
} walk;

/* Adds the tokens of the nodes to w->bits. false: no room. */
static bool run(pal_constraint *c, walk *w)
{
	const pal__trie_node *nodes = c->trie->nodes;
	for (uint32_t i = w->node; i < w->end;) {
		const pal__trie_node *v = &nodes[i];
		unsigned k = v->depth - w->above;
		int32_t to = pal__readings_next(&c->r, c->path[k - 1].at, v->byte);
		bool left = false;
		if (to == PAL__DEAD) {
			i = v->skip;
			continue;
		}
		c->bytes[k] = v->byte;
		if (to > 0 && !(to & PAL__PUSH) && !(c->r.sets[to].flags & PAL__SET_ENDS)) {
			c->path[k].at = to;
			c->path[k].around = c->path[k - 1].around;
		} else if (to > 0) {
			int32_t in = cross(c, k, to, v->byte);
			left = in == PAL__DEAD;
			if (in == PAL__FULL)
				to = in;
		}
		if (to == PAL__FULL || (left && w->n_leaves == w->cap)) {
			if (!w->again)
				return false;
			walk_again(c, k - 1);
			continue;
		}
		if (left)
			w->leaves[w->n_leaves++] = leave(i, to);
		for (uint32_t t = v->first; t < v[1].first; t++)
			allow(w->bits, c->trie->ids[t]);
		i = left ? v->skip : i + 1;
	}
	return true;
}

/* The mask of the tokens that stay in the open rule, remembered: the number of leaves, the bits,
 * the leaves. NULL: no room. */
static const uint64_t *within(pal_constraint *c)
{
	int32_t at = pal__readings_capped(&c->r, c->now.at);
	if (at < 0)
		return NULL;
	pal__set *s = &c->r.sets[at];
	if (s->user)
		return c->known + s->user - 1;
	if (c->cap_known - c->n_known < c->n_words + 1)
		return NULL;
	uint64_t *to = c->known + c->n_known;
	size_t room = c->cap_known - c->n_known - c->n_words - 1;
	walk w = {.end = c->trie->n, .bits = to + 1, .leaves = to + 1 + c->n_words, .cap = room};
	memset(to, 0, (c->n_words + 1) * sizeof *to);
	start_walk(c, &(pal__place){.at = at});
	if (!run(c, &w))
		return NULL;
	to[0] = w.n_leaves;
	s->user = (uint32_t)c->n_known + 1;
	c->n_known += 1 + c->n_words + w.n_leaves;
	return to;
}

/* The tokens from here, with what is remembered. false: no room. */
static bool quick(pal_constraint *c)
{
	const uint64_t *known = within(c);
	if (!known)
		return false;
	const uint64_t *leaves = known + 1 + c->n_words;
	pal__place p = c->now;
	memcpy(c->mask, known + 1, c->n_words * sizeof *c->mask);
	p.around.n--;
	for (size_t i = 0; i < known[0]; i++) {
		uint32_t node = (uint32_t)(leaves[i] >> 32);
		const pal__trie_node *v = &c->trie->nodes[node];
		walk w = {.node = node + 1, .end = v->skip, .above = v->depth, .bits = c->mask};
		if (w.node == w.end)
			continue;
		p.at = pal__readings_pop(&c->r, (int32_t)(uint32_t)leaves[i],
					 c->now.around.frames[p.around.n]);
		if (p.at < 0)
			return false;
		start_walk(c, &p);
		if (!run(c, &w))
			return false;
	}
	return true;
}

/* --- tokens --------------------------------------------------------------- */

/* Whether a special token is text that the form asks for outside of all rules: the start or the
 * end of a call. Then *p is the place behind it. */
static bool is_marker(pal_constraint *c, int32_t id, pal__place *p)
{
	pal__str s = pal__token_bytes(c->t, id);
	if (c->now.around.n || !s.n || s.n > PAL__TRIE_DEEP || s.s[0] != '<')
		return false;
	*p = c->now;
	for (size_t i = 0; i < s.n; i++) {
		int moved = pal__readings_move(&c->r, p, (uint8_t)s.s[i]);
		if (moved == PAL__FULL) {
			forget(c, &c->now);
			return is_marker(c, id, p); /* there is room now */
		}
		if (!moved || p->around.n)
			return false;
	}
	return !(c->r.sets[p->at].flags & PAL__SET_ANY);
}

static unsigned flags_now(const pal_constraint *c)
{
	return c->r.sets[c->now.at].flags;
}

static bool all_allowed(const pal_constraint *c)
{
	size_t n = 0;
	for (size_t i = 0; i < c->n_words; i++)
		n += (size_t)__builtin_popcountll(c->mask[i]);
	return n == c->n_vocab;
}

static void find_mask(pal_constraint *c)
{
	if (quick(c))
		return;
	forget(c, &c->now);
	if (quick(c))
		return;
	forget(c, &c->now);
	memset(c->mask, 0, c->n_words * sizeof *c->mask);
	start_walk(c, &c->now);
	run(c, &(walk){.end = c->trie->n, .again = true, .bits = c->mask});
}

const uint64_t *pal__constraint_mask(pal_constraint *c)
{
	pal__place behind;
	find_mask(c);
	if (flags_now(c) & PAL__SET_ANY) {
		for (size_t i = 0; i < c->n_words; i++)
			c->mask[i] |= c->no_text[i];
		return all_allowed(c) ? NULL : c->mask;
	}
	for (size_t i = 0; i < c->n_special; i++) {
		int32_t id = c->special[i];
		if (pal__token_is_end(c->t, id) ? flags_now(c) & PAL__SET_WHOLE
						: is_marker(c, id, &behind))
			allow(c->mask, id);
	}
	return c->mask;
}

static bool take_text(pal_constraint *c, pal__str s)
{
	pal__place p = c->now;
	for (size_t i = 0; i < s.n; i++) {
		int moved = pal__readings_move(&c->r, &p, (uint8_t)s.s[i]);
		if (moved == PAL__FULL) {
			forget(c, &c->now);
			return take_text(c, s); /* there is room now */
		}
		if (!moved)
			return false;
	}
	c->now = p;
	return true;
}

bool pal__constraint_take(pal_constraint *c, int32_t id)
{
	pal__place behind;
	if (id < 0 || (size_t)id >= c->n_vocab)
		return false;
	if (pal__token_is_end(c->t, id))
		return flags_now(c) & PAL__SET_WHOLE;
	if (!(c->no_text[id / 64] >> (id % 64) & 1))
		return take_text(c, pal__token_bytes(c->t, id));
	if (!pal__token_is_special(c->t, id) || !is_marker(c, id, &behind))
		return flags_now(c) & PAL__SET_ANY;
	c->now = behind;
	return true;
}

bool pal__constraint_done(const pal_constraint *c)
{
	return flags_now(c) == PAL__SET_WHOLE;
}
