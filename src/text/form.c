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

pal_status pal__form_finish(pal__form *f, const char *what, pal_error *err)
{
	if (f->status == PAL_ELIMIT)
		return pal__fail(err, PAL_ELIMIT, "%s takes more than %d states or %d rules", what,
				 PAL__FORM_STATES, PAL__FORM_RULES);
	if (f->status)
		return pal__fail_memory(err, what, f->cap * sizeof *f->states);
	for (size_t i = 0; i < f->n; i++)
		f->states[i].need = PAL__FORM_NEVER;
	/* What follows has a smaller number, but for calls: a round for each rule inside another.
	 */
	for (bool changed = true; changed;) {
		changed = false;
		for (size_t i = 0; i < f->n; i++) {
			uint8_t need = (uint8_t)need_of(f, &f->states[i]);
			changed |= need != f->states[i].need;
			f->states[i].need = need;
		}
	}
	if (need_at(f, f->rules[0].start) == PAL__FORM_NEVER)
		return pal__fail(err, PAL_EINVAL, "nothing satisfies %s", what);
	return PAL_OK;
}
