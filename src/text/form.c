#include "text/form.h"

#include <string.h>

#include "base/mem.h"

void pal__form_free(pal__form *f)
{
	pal__free(f->states);
	pal__free(f->rules);
	*f = (pal__form){0};
}

static int32_t add(pal__form *f, pal__form_state s)
{
	if (!f->status && f->n == PAL__FORM_STATES)
		f->status = PAL_ELIMIT;
	if (!f->status && !pal__grow((void **)&f->states, &f->cap, f->n + 1, sizeof s))
		f->status = PAL_ENOMEM;
	if (f->status)
		return -1;
	f->states[f->n] = s;
	return (int32_t)f->n++;
}

int32_t pal__form_rule_new(pal__form *f, uint8_t open, uint32_t min, uint32_t max)
{
	if (!f->status && f->n_rules == PAL__FORM_RULES)
		f->status = PAL_ELIMIT;
	if (!f->status &&
	    !pal__grow((void **)&f->rules, &f->cap_rules, f->n_rules + 1, sizeof *f->rules))
		f->status = PAL_ENOMEM;
	if (f->status)
		return -1;
	f->rules[f->n_rules] = (pal__form_rule){open, min, max, -1};
	return (int32_t)f->n_rules++;
}

int32_t pal__form_bytes(pal__form *f, uint8_t lo, uint8_t hi, int32_t to)
{
	return to < 0 || lo > hi ? -1
				 : add(f, (pal__form_state){PAL__FORM_BYTES, lo, hi, 0, to, -1});
}

int32_t pal__form_split(pal__form *f, int32_t to, int32_t other)
{
	if (to < 0 || other < 0 || to == other)
		return to < 0 ? other : to;
	return add(f, (pal__form_state){PAL__FORM_SPLIT, 0, 0, 0, to, other});
}

int32_t pal__form_call(pal__form *f, int32_t rule, int32_t to)
{
	return to < 0 || rule < 0 ? -1
				  : add(f, (pal__form_state){PAL__FORM_CALL, 0, 0, 0, to, rule});
}

int32_t pal__form_mark(pal__form *f, pal__form_kind kind, int32_t to)
{
	return to < 0 ? -1 : add(f, (pal__form_state){(uint8_t)kind, 0, 0, 0, to, -1});
}

int32_t pal__form_end(pal__form *f, int32_t rule)
{
	return rule < 0 ? -1 : add(f, (pal__form_state){PAL__FORM_END, 0, 0, 0, -1, rule});
}

int32_t pal__form_literal(pal__form *f, const char *s, size_t n, int32_t to)
{
	while (n--)
		to = pal__form_bytes(f, (uint8_t)s[n], (uint8_t)s[n], to);
	return to;
}

int32_t pal__form_hole(pal__form *f)
{
	return add(f, (pal__form_state){PAL__FORM_SPLIT, 0, 0, 0, -1, -1});
}

void pal__form_fill(pal__form *f, int32_t hole, int32_t to, int32_t other)
{
	if (hole >= 0 && !f->status) {
		f->states[hole].to = to;
		f->states[hole].other = other;
	}
}

/* --- characters ----------------------------------------------------------- */

static int encode(uint32_t c, uint8_t out[4])
{
	int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	for (int i = n - 1; i > 0; i--, c >>= 6)
		out[i] = (uint8_t)(0x80 | (c & 0x3f));
	out[0] = (uint8_t)(n == 1 ? c : (0xf00u >> n & 0xff) | c);
	return n;
}

/* lo to hi, of as many bytes: cut until each byte has a range of its own, whatever the others
 * are. */
static int32_t sequences(pal__form *f, uint32_t lo, uint32_t hi, int32_t to)
{
	uint8_t a[4], b[4];
	for (int i = 1; i < 4; i++) {
		uint32_t low = ((uint32_t)1 << (6 * i)) - 1, cut = 0;
		if ((lo & ~low) == (hi & ~low))
			continue;
		if (lo & low)
			cut = (lo | low) + 1;
		else if ((hi & low) != low)
			cut = hi & ~low;
		if (cut)
			return pal__form_split(f, sequences(f, lo, cut - 1, to),
					       sequences(f, cut, hi, to));
	}
	int n = encode(lo, a);
	encode(hi, b);
	while (n--)
		to = pal__form_bytes(f, a[n], b[n], to);
	return to;
}

static int32_t escaped(pal__form *f, uint32_t c, int32_t to)
{
	static const char from[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt",
			  hex[] = "0123456789abcdef";
	const char *at = memchr(from, (int)c, sizeof from - 1);
	if (at)
		return pal__form_literal(f, (char[]){'\\', letters[at - from]}, 2, to);
	return pal__form_literal(f, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6, to);
}

int32_t pal__form_chars(pal__form *f, uint32_t lo, uint32_t hi, int32_t to)
{
	/* as many bytes each, without surrogates and without what is escaped */
	static const uint32_t plain[][2] = {{0x20, 0x21},       {0x23, 0x5b},    {0x5d, 0x7f},
					    {0x80, 0x7ff},      {0x800, 0xd7ff}, {0xe000, 0xffff},
					    {0x10000, 0x10ffff}};
	int32_t out = -1;
	for (uint32_t c = 1; c <= '\\'; c++)
		if (c >= lo && c <= hi && (c < 0x20 || c == '"' || c == '\\'))
			out = pal__form_split(f, escaped(f, c, to), out);
	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
		uint32_t a = lo > plain[i][0] ? lo : plain[i][0];
		uint32_t b = hi < plain[i][1] ? hi : plain[i][1];
		if (a <= b)
			out = pal__form_split(f, sequences(f, a, b, to), out);
	}
	return out;
}

int32_t pal__form_text(pal__form *f, const char *s, size_t n, int32_t to)
{
	while (n--) {
		uint8_t c = (uint8_t)s[n];
		to = c < 0x20 || c == '"' || c == '\\' ? escaped(f, c, to)
						       : pal__form_bytes(f, c, c, to);
	}
	return to;
}

/* --- what can end --------------------------------------------------------- */

static unsigned need_at(const pal__form *f, int32_t s)
{
	return s < 0 ? PAL__FORM_NEVER : f->states[s].need;
}

static unsigned need_of(const pal__form *f, const pal__form_state *s)
{
	unsigned a = need_at(f, s->to), b;
	switch (s->kind) {
	case PAL__FORM_END:
		return 0;
	case PAL__FORM_SPLIT:
		b = need_at(f, s->other);
		return a < b ? a : b;
	case PAL__FORM_CALL:
		b = need_at(f, f->rules[s->other].start);
		b += b < PAL__FORM_NEVER;
		return b > PAL__FORM_DEPTH ? PAL__FORM_NEVER : a > b ? a : b;
	default:
		return a;
	}
}

/* The states that s follows from: through a call, a rule's first state, too. */
static int edges(const pal__form *f, size_t s, int32_t out[2])
{
	const pal__form_state *state = &f->states[s];
	int32_t other = state->other;
	int n = 0;
	if (state->kind == PAL__FORM_CALL)
		other = f->rules[other].start;
	if (state->kind != PAL__FORM_END && state->to >= 0)
		out[n++] = state->to;
	if ((state->kind == PAL__FORM_CALL || state->kind == PAL__FORM_SPLIT) && other >= 0)
		out[n++] = other;
	return n;
}

/* from[first[s]] up to from[first[s + 1]]: the states that lead to s. first: [n + 2], zeros. */
static void turn_edges(const pal__form *f, uint32_t *first, int32_t *from)
{
	int32_t to[2];
	for (size_t i = 0; i < f->n; i++)
		for (int k = edges(f, i, to); k--;)
			first[to[k] + 2]++;
	for (size_t i = 2; i < f->n + 2; i++)
		first[i] += first[i - 1];
	for (size_t i = 0; i < f->n; i++)
		for (int k = edges(f, i, to); k--;)
			from[first[to[k] + 1]++] = (int32_t)i;
}

/* From the ends back to all that leads there. A state is at most once in the queue, [n]. */
static void find_needs(pal__form *f, const uint32_t *first, const int32_t *from, int32_t *queue,
		       bool *queued)
{
	size_t head = 0, n = 0;
	for (size_t i = 0; i < f->n; i++) {
		bool end = f->states[i].kind == PAL__FORM_END;
		f->states[i].need = end ? 0 : PAL__FORM_NEVER;
		if (end)
			queue[n++] = (int32_t)i;
	}
	while (n) {
		int32_t s = queue[head];
		head = (head + 1) % f->n;
		n--;
		queued[s] = false;
		for (uint32_t i = first[s]; i < first[s + 1]; i++) {
			pal__form_state *p = &f->states[from[i]];
			unsigned need = need_of(f, p);
			if (need == p->need)
				continue;
			p->need = (uint8_t)need;
			if (!queued[from[i]])
				queue[(head + n++) % f->n] = from[i];
			queued[from[i]] = true;
		}
	}
}

pal_status pal__form_finish(pal__form *f, const char *what, pal_error *err)
{
	if (f->status == PAL_ELIMIT)
		return pal__fail(err, PAL_ELIMIT, "%s takes more than %d states or %d rules", what,
				 PAL__FORM_STATES, PAL__FORM_RULES);
	uint32_t *first = f->status ? NULL : pal__calloc(f->n + 2, sizeof *first);
	int32_t *from = first ? pal__alloc((2 * f->n + 1) * sizeof *from) : NULL;
	int32_t *queue = from ? pal__alloc((f->n + 1) * sizeof *queue) : NULL;
	bool *queued = queue ? pal__calloc(f->n + 1, sizeof *queued) : NULL;
	if (queued) {
		turn_edges(f, first, from);
		find_needs(f, first, from, queue, queued);
	}
	pal_status s = PAL_OK;
	if (!queued)
		s = pal__fail_memory(err, what, (f->n + 1) * sizeof *f->states);
	else if (need_at(f, f->rules[0].start) == PAL__FORM_NEVER)
		s = pal__fail(err, PAL_EINVAL, "nothing satisfies %s", what);
	pal__free(first);
	pal__free(from);
	pal__free(queue);
	pal__free(queued);
	return s;
}
