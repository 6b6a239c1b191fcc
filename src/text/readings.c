#include "text/readings.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"

#define STATE_BITS 20
#define COUNT_BITS 22
#define TABLE (4 * PAL__READINGS_SETS)
_Static_assert(PAL__FORM_STATES <= 1 << STATE_BITS && PAL__FORM_MANY < 1 << COUNT_BITS, "reading");

/* A byte adds three sets at most: of states, of calls, and where a rule's end leads. Each set that
 * is made may be capped, too. */
#define ROOM 4
#define KEPT ((PAL__FORM_DEPTH + 1) + PAL__READINGS_TEXT * ROOM)

static pal__reading reading(int32_t state, uint32_t min, uint32_t max)
{
	return (pal__reading)state | (pal__reading)min << STATE_BITS |
	       (pal__reading)max << (STATE_BITS + COUNT_BITS);
}

static int32_t state_of(pal__reading i)
{
	return (int32_t)(i & ((1 << STATE_BITS) - 1));
}

static uint32_t min_of(pal__reading i)
{
	return (uint32_t)(i >> STATE_BITS) & PAL__FORM_MANY;
}

static uint32_t max_of(pal__reading i)
{
	return (uint32_t)(i >> (STATE_BITS + COUNT_BITS)) & PAL__FORM_MANY;
}

/* --- making --------------------------------------------------------------- */

/* Bytes are in one class unless a state's range begins or ends between them. */
static void classify(pal__readings *r)
{
	bool border[257] = {true};
	for (size_t i = 0; i < r->form.n; i++)
		if (r->form.states[i].kind == PAL__FORM_BYTES)
			border[r->form.states[i].lo] = border[r->form.states[i].hi + 1] = true;
	for (const char *open = "\"[{"; *open; open++)
		border[(uint8_t)*open] = border[(uint8_t)*open + 1] = true;
	r->n_classes = 0;
	for (int b = 0; b < 256; b++)
		r->class_of[b] = (uint8_t)((r->n_classes += border[b]) - 1);
}

static void count_live(pal__readings *r)
{
	for (size_t i = 0; i < r->form.n; i++) {
		uint8_t kind = r->form.states[i].kind;
		r->n_live += kind == PAL__FORM_BYTES || kind == PAL__FORM_CALL ||
			     kind == PAL__FORM_ANY || kind == PAL__FORM_END;
	}
}

pal_status pal__readings_init(pal__readings *r, pal__form *form, pal_error *err)
{
	*r = (pal__readings){.form = *form};
	*form = (pal__form){0};
	classify(r);
	count_live(r);
	size_t n = r->form.n;
	r->cap_items = KEPT * (r->n_live + 1);
	r->items = pal__alloc(r->cap_items * sizeof *r->items);
	r->saved = pal__alloc((PAL__FORM_DEPTH + 1) * (r->n_live + 1) * sizeof *r->saved);
	r->fresh = pal__alloc((n + 1) * sizeof *r->fresh);
	r->sets = pal__alloc(PAL__READINGS_SETS * sizeof *r->sets);
	r->next = pal__alloc(PAL__READINGS_SETS * r->n_classes * sizeof *r->next);
	r->table = pal__alloc(TABLE * sizeof *r->table);
	r->seen = pal__calloc(n, sizeof *r->seen);
	r->ended = pal__calloc(r->form.n_rules, sizeof *r->ended);
	r->todo = pal__alloc((2 * n + 2) * sizeof *r->todo);
	if (!r->items || !r->saved || !r->fresh || !r->sets || !r->next || !r->table || !r->seen ||
	    !r->ended || !r->todo) {
		pal__readings_free(r);
		return pal__fail_memory(err, "the states of a constraint",
					KEPT * (n + 1) * sizeof *r->items);
	}
	return PAL_OK;
}

void pal__readings_free(pal__readings *r)
{
	pal__form_free(&r->form);
	pal__free(r->items);
	pal__free(r->saved);
	pal__free(r->fresh);
	pal__free(r->sets);
	pal__free(r->next);
	pal__free(r->table);
	pal__free(r->seen);
	pal__free(r->ended);
	pal__free(r->todo);
	*r = (pal__readings){0};
}

/* --- sets ----------------------------------------------------------------- */

static void open_set(pal__readings *r)
{
	r->n_fresh = 0;
	if (++r->round == 0) {
		memset(r->seen, 0, r->form.n * sizeof *r->seen);
		r->round = 1;
	}
}

/* Adds a state, or where it leads without a byte. In one rule, counts follow from the text: a
 * state comes with one pair of them only. */
static void visit(pal__readings *r, pal__reading first, unsigned depth)
{
	size_t n = 0;
	r->todo[n++] = first;
	while (n) {
		pal__reading i = r->todo[--n];
		int32_t at = state_of(i);
		const pal__form_state *s = &r->form.states[at];
		uint32_t min = min_of(i), max = max_of(i);
		if (r->seen[at] == r->round || depth + s->need > PAL__FORM_DEPTH)
			continue;
		r->seen[at] = r->round;
		bool on = s->kind == PAL__FORM_SPLIT || s->kind == PAL__FORM_ANY ||
			  (s->kind == PAL__FORM_COUNT && max) ||
			  (s->kind == PAL__FORM_CHECK && !min);
		if (s->kind == PAL__FORM_COUNT) {
			min -= min > 0;
			max -= max > 0 && max < PAL__FORM_MANY;
		}
		if (on && s->other >= 0)
			r->todo[n++] = reading(s->other, min, max);
		if (on && s->to >= 0)
			r->todo[n++] = reading(s->to, min, max);
		if (s->kind == PAL__FORM_END)
			i = reading(at, 0, 0);
		if (s->kind != PAL__FORM_SPLIT && s->kind != PAL__FORM_COUNT &&
		    s->kind != PAL__FORM_CHECK)
			r->fresh[r->n_fresh++] = i;
	}
}

/* Without memory of its own, which qsort may want. */
static void sort(pal__reading *v, size_t n)
{
	size_t gap = 1;
	while (gap < n / 3)
		gap = 3 * gap + 1;
	for (; gap; gap /= 3)
		for (size_t i = gap; i < n; i++) {
			pal__reading x = v[i];
			size_t k = i;
			for (; k >= gap && v[k - gap] > x; k -= gap)
				v[k] = v[k - gap];
			v[k] = x;
		}
}

static uint8_t flags_of(const pal__readings *r, unsigned depth)
{
	uint8_t flags = 0;
	for (size_t i = 0; i < r->n_fresh; i++)
		switch (r->form.states[state_of(r->fresh[i])].kind) {
		case PAL__FORM_END:
			flags |= depth ? PAL__SET_ENDS : PAL__SET_WHOLE;
			break;
		case PAL__FORM_ANY:
			flags |= PAL__SET_ANY;
			break;
		default:
			flags |= PAL__SET_GOES_ON;
		}
	/* a rule's closing byte is its last */
	assert(!(flags & PAL__SET_ENDS) || flags == PAL__SET_ENDS);
	return flags;
}

/* The number of the set that was opened. There is room for it. */
static int32_t close_set(pal__readings *r, unsigned depth)
{
	size_t n = r->n_fresh;
	if (!n)
		return PAL__DEAD;
	sort(r->fresh, n);
	size_t h = XXH3_64bits_withSeed(r->fresh, n * sizeof *r->fresh, depth) % TABLE;
	for (; r->table[h]; h = (h + 1) % TABLE) {
		const pal__set *s = &r->sets[r->table[h]];
		if (s->depth == depth && s->n == n &&
		    !memcmp(r->items + s->at, r->fresh, n * sizeof *r->fresh))
			return r->table[h];
	}
	assert(r->n_sets < PAL__READINGS_SETS && r->n_items + n <= r->cap_items);
	int32_t id = r->n_sets++;
	r->table[h] = id;
	r->sets[id] = (pal__set){.at = (uint32_t)r->n_items,
				 .n = (uint32_t)n,
				 .depth = (uint8_t)depth,
				 .flags = flags_of(r, depth)};
	memcpy(r->items + r->n_items, r->fresh, n * sizeof *r->fresh);
	r->n_items += n;
	memset(r->next + (size_t)id * r->n_classes, 0xff, r->n_classes * sizeof *r->next);
	return id;
}

static bool is_full(const pal__readings *r)
{
	return r->n_sets + ROOM > PAL__READINGS_SETS ||
	       r->n_items + ROOM * r->n_live > r->cap_items;
}

/* --- steps ---------------------------------------------------------------- */

static int opening(uint8_t byte)
{
	return byte == '"' ? 0 : byte == '[' ? 1 : 2;
}

int32_t pal__readings_frame(const pal__readings *r, int32_t at, uint8_t byte)
{
	return r->sets[at].frame[opening(byte)];
}

/* The calls of the set that open with byte, as a set; PAL__DEAD: none do. */
static int32_t calls_of(pal__readings *r, const pal__set *s, uint8_t byte)
{
	open_set(r);
	for (uint32_t i = 0; i < s->n; i++) {
		const pal__form_state *f = &r->form.states[state_of(r->items[s->at + i])];
		if (f->kind == PAL__FORM_CALL && r->form.rules[f->other].open == byte)
			r->fresh[r->n_fresh++] = r->items[s->at + i];
	}
	return close_set(r, s->depth);
}

int32_t pal__readings_find(pal__readings *r, int32_t at, uint8_t byte)
{
	pal__set *s = &r->sets[at];
	if (is_full(r))
		return PAL__FULL;
	int32_t calls = calls_of(r, s, byte), to;
	open_set(r);
	for (uint32_t i = 0; i < s->n; i++) {
		pal__reading item = r->items[s->at + i];
		const pal__form_state *f = &r->form.states[state_of(item)];
		if (f->kind == PAL__FORM_BYTES && f->lo <= byte && byte <= f->hi) {
			assert(!calls);
			visit(r, reading(f->to, min_of(item), max_of(item)), s->depth);
		} else if (f->kind == PAL__FORM_CALL && r->form.rules[f->other].open == byte) {
			const pal__form_rule *rule = &r->form.rules[f->other];
			visit(r, reading(rule->start, rule->min, rule->max), s->depth + 1u);
		}
	}
	to = close_set(r, s->depth + (calls != PAL__DEAD));
	if (calls) {
		s->frame[opening(byte)] = calls;
		to |= PAL__PUSH;
	}
	return r->next[(size_t)at * r->n_classes + r->class_of[byte]] = to;
}

static int32_t pop(pal__readings *r, int32_t ended, int32_t calls)
{
	const pal__set *e = &r->sets[ended], *c = &r->sets[calls];
	r->n_ended++;
	for (uint32_t i = 0; i < e->n; i++)
		r->ended[r->form.states[state_of(r->items[e->at + i])].other] = r->n_ended;
	open_set(r);
	for (uint32_t i = 0; i < c->n; i++) {
		pal__reading item = r->items[c->at + i];
		const pal__form_state *f = &r->form.states[state_of(item)];
		if (r->ended[f->other] == r->n_ended)
			visit(r, reading(f->to, min_of(item), max_of(item)), c->depth);
	}
	return close_set(r, c->depth);
}

int32_t pal__readings_pop(pal__readings *r, int32_t ended, int32_t calls)
{
	size_t h = ((uint32_t)ended * 31 + (uint32_t)calls) % 256;
	if (r->popped[h].ended != ended || r->popped[h].calls != calls) {
		if (is_full(r))
			return PAL__FULL;
		r->popped[h].to = pop(r, ended, calls);
		r->popped[h].ended = ended;
		r->popped[h].calls = calls;
	}
	return r->popped[h].to;
}

int pal__readings_move(pal__readings *r, pal__place *p, uint8_t byte)
{
	int32_t to = pal__readings_next(r, p->at, byte), n = p->around.n;
	if (to <= 0)
		return to;
	if (to & PAL__PUSH) {
		to &= ~PAL__PUSH;
		p->around.frames[n++] = pal__readings_frame(r, p->at, byte);
	} else if (r->sets[to].flags & PAL__SET_ENDS) {
		to = pal__readings_pop(r, to, p->around.frames[--n]);
		if (to < 0)
			return to;
	}
	p->at = to;
	p->around.n = n;
	return 1;
}

int32_t pal__readings_capped(pal__readings *r, int32_t at)
{
	pal__set *s = &r->sets[at];
	if (s->capped)
		return s->capped;
	if (is_full(r))
		return PAL__FULL;
	open_set(r);
	for (uint32_t i = 0; i < s->n; i++) {
		pal__reading item = r->items[s->at + i];
		uint32_t min = min_of(item), max = max_of(item);
		if (min > PAL__READINGS_TEXT)
			min = PAL__READINGS_TEXT;
		if (max >= PAL__READINGS_TEXT)
			max = PAL__FORM_MANY;
		r->fresh[r->n_fresh++] = reading(state_of(item), min, max);
	}
	return s->capped = close_set(r, s->depth);
}

/* --- forgetting ----------------------------------------------------------- */

void pal__readings_forget(pal__readings *r, pal__place *p)
{
	uint32_t n[PAL__FORM_DEPTH + 1], depth[PAL__FORM_DEPTH + 1];
	size_t n_kept = p ? (size_t)p->around.n + 1 : 0, at = 0;
	for (size_t i = 0; i < n_kept; i++) {
		const pal__set *s = &r->sets[i ? p->around.frames[i - 1] : p->at];
		memcpy(r->saved + at, r->items + s->at, s->n * sizeof *r->saved);
		at += n[i] = s->n;
		depth[i] = s->depth;
	}
	memset(r->table, 0, TABLE * sizeof *r->table);
	memset(r->popped, 0, sizeof r->popped);
	r->n_sets = 1;
	r->n_items = at = 0;
	for (size_t i = 0; i < n_kept; at += n[i++]) {
		memcpy(r->fresh, r->saved + at, n[i] * sizeof *r->fresh);
		r->n_fresh = n[i];
		*(i ? &p->around.frames[i - 1] : &p->at) = close_set(r, depth[i]);
	}
}

pal__place pal__readings_start(pal__readings *r)
{
	const pal__form_rule *text = &r->form.rules[0];
	if (is_full(r))
		return (pal__place){.at = PAL__FULL};
	open_set(r);
	visit(r, reading(text->start, text->min, text->max), 0);
	return (pal__place){.at = close_set(r, 0)};
}
