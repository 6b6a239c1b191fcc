#include "text/numbers.h"

#include <string.h>

#define DIGITS 18   /* of an integer */
#define FRACTION 17 /* behind the point, of a number without limits */
#define EXACT 15    /* in all, of one with limits: no two are the same as doubles */
#define EXACT_MOST 999999999999999

/* 1 to n digits, of which at least one is not 0 if so wanted. */
static int32_t some_digits(pal__form *f, int n, bool not_0, uint8_t most, int32_t to)
{
	int32_t rest = -1, zeros = -1; /* n digits or fewer; the same, of which one is not 0 */
	for (int i = 0; i < n; i++) {
		int32_t more = pal__form_split(f, rest, to);
		if (not_0)
			zeros = pal__form_split(f, pal__form_bytes(f, '0', '0', zeros),
						pal__form_bytes(f, '1', most, more));
		rest = pal__form_bytes(f, '0', most, more);
	}
	return not_0 ? zeros : rest;
}

/* n digits from lo to hi; free[k]: any k digits. at_lo, at_hi: the digits before were those of the
 * limit. */
static int32_t between(pal__form *f, const char *lo, const char *hi, int n, bool at_lo, bool at_hi,
		       const int32_t *any)
{
	if (!n || (!at_lo && !at_hi))
		return any[n];
	uint8_t a = at_lo ? (uint8_t)*lo : '0', b = at_hi ? (uint8_t)*hi : '9';
	int32_t out = -1;
	if (at_lo && at_hi && a == b)
		return pal__form_bytes(f, a, a, between(f, lo + 1, hi + 1, n - 1, true, true, any));
	if (at_lo) {
		out = pal__form_bytes(f, a, a, between(f, lo + 1, hi + 1, n - 1, true, false, any));
		a++;
	}
	if (at_hi) {
		int32_t last = pal__form_bytes(f, b, b,
					       between(f, lo + 1, hi + 1, n - 1, false, true, any));
		out = pal__form_split(f, out, last);
		b--;
	}
	return a <= b ? pal__form_split(f, out, pal__form_bytes(f, a, b, any[n - 1])) : out;
}

static int to_digits(uint64_t v, char out[20])
{
	char reversed[20];
	int n = 0;
	do
		reversed[n++] = (char)('0' + v % 10);
	while (v /= 10);
	for (int i = 0; i < n; i++)
		out[i] = reversed[n - 1 - i];
	return n;
}

/* The integers lo to hi of n digits. */
static int32_t of_length(pal__form *f, uint64_t lo, uint64_t hi, int n, int32_t to)
{
	char a[20], b[20];
	int32_t any[20] = {to};
	uint64_t least = 1;
	for (int i = 1; i < n; i++)
		least *= 10;
	if (lo < least)
		lo = n == 1 ? lo : least;
	if (hi >= 10 * least)
		hi = 10 * least - 1;
	if (lo > hi)
		return -1;
	for (int i = 1; i < n; i++)
		any[i] = pal__form_bytes(f, '0', '9', any[i - 1]);
	if (lo == least && hi == 10 * least - 1)
		return pal__form_bytes(f, '1', '9', any[n - 1]);
	to_digits(lo, a);
	to_digits(hi, b);
	return between(f, a, b, n, true, true, any);
}

static uint64_t clamp(int64_t v, int64_t most)
{
	v = v < -most ? -most : v > most ? most : v;
	return (uint64_t)(v < 0 ? -v : v);
}

int32_t pal__form_integer(pal__form *f, pal__limits l, int32_t to)
{
	int32_t out = -1;
	if (l.over_lo && l.lo < PAL__NUMBER_MOST)
		l.lo++;
	if (l.under_hi && l.hi > -PAL__NUMBER_MOST)
		l.hi--;
	if (l.lo > l.hi || l.lo > PAL__NUMBER_MOST || l.hi < -PAL__NUMBER_MOST)
		return -1;
	uint64_t lo = clamp(l.lo, PAL__NUMBER_MOST), hi = clamp(l.hi, PAL__NUMBER_MOST);
	for (int n = 1; n <= DIGITS; n++) {
		if (l.hi >= 0)
			out = pal__form_split(f, out, of_length(f, l.lo > 0 ? lo : 0, hi, n, to));
		if (l.lo < 0) {
			int32_t digits = of_length(f, l.hi < 0 ? hi : 1, lo, n, to);
			out = pal__form_split(f, out, pal__form_bytes(f, '-', '-', digits));
		}
	}
	return out;
}

/* --- with a fraction ------------------------------------------------------ */

/* '.' and digits; optional unless one must not be 0. */
static int32_t fraction(pal__form *f, int n, bool not_0, uint8_t most, int32_t to)
{
	int32_t digits = some_digits(f, n, not_0, most, to);
	int32_t point = pal__form_bytes(f, '.', '.', digits);
	return not_0 ? point : pal__form_split(f, point, to);
}

/* Numbers from lo to hi without a sign; a limit may be excluded. beyond: every fraction of hi, too.
 */
static int32_t magnitude(pal__form *f, uint64_t lo, uint64_t hi, bool over_lo, bool under_hi,
			 bool beyond, int32_t to)
{
	int32_t out = -1;
	for (int n = 1; n <= EXACT && lo <= hi; n++) {
		int32_t any = fraction(f, EXACT - n, false, '9', to);
		uint64_t from = lo + over_lo;
		if (beyond || hi > 0)
			out = pal__form_split(f, out,
					      of_length(f, from, beyond ? hi : hi - 1, n, any));
		if (over_lo && (beyond || lo < hi))
			out = pal__form_split(
				f, out,
				of_length(f, lo, lo, n, fraction(f, EXACT - n, true, '9', to)));
		if (!beyond && !under_hi && (!over_lo || lo < hi))
			out = pal__form_split(
				f, out,
				of_length(f, hi, hi, n, fraction(f, EXACT - n, false, '0', to)));
	}
	return out;
}

static int32_t unlimited(pal__form *f, int32_t to)
{
	int32_t power = some_digits(f, 2, false, '9', to), digits, integer;
	power = pal__form_split(f, power,
				pal__form_split(f, pal__form_bytes(f, '+', '+', power),
						pal__form_bytes(f, '-', '-', power)));
	power = pal__form_split(f, pal__form_bytes(f, 'e', 'e', power),
				pal__form_bytes(f, 'E', 'E', power));
	power = pal__form_split(f, power, to);
	power = fraction(f, FRACTION, false, '9', power);
	digits = pal__form_split(f, some_digits(f, DIGITS - 1, false, '9', power), power);
	integer = pal__form_split(f, pal__form_bytes(f, '0', '0', power),
				  pal__form_bytes(f, '1', '9', digits));
	return pal__form_split(f, integer, pal__form_bytes(f, '-', '-', integer));
}

int32_t pal__form_number(pal__form *f, pal__limits l, int32_t to)
{
	bool low = l.lo > -EXACT_MOST, high = l.hi < EXACT_MOST;
	int32_t above = -1, below = -1;
	uint64_t lo = clamp(l.lo, EXACT_MOST), hi = clamp(l.hi, EXACT_MOST);
	if (l.lo <= -PAL__NUMBER_MOST && l.hi >= PAL__NUMBER_MOST)
		return unlimited(f, to);
	if (l.lo > l.hi || l.lo > EXACT_MOST || l.hi < -EXACT_MOST)
		return -1;
	if (l.hi >= 0)
		above = magnitude(f, l.lo > 0 ? lo : 0, hi, l.lo >= 0 && l.over_lo, l.under_hi,
				  !high, to);
	if (l.lo < 0)
		below = magnitude(f, l.hi < 0 ? hi : 0, lo, l.hi <= 0 && l.under_hi, l.over_lo,
				  !low, to);
	return pal__form_split(f, above, pal__form_bytes(f, '-', '-', below));
}
