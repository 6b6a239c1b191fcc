#include "text/normalize.h"

#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"

/* Characters below U+0300 are starters that compose with nothing before them: text may
 * be cut in front of them, and a run of them is its own NFC. Their first byte is below: */
#define FIRST_NONTRIVIAL 0xcc

/* Code points that one may decompose to, at most. */
#define MAX_DECOMPOSED 8

/* What utf8proc orders, decomposes or composes and the tokenizers do not, found by asking
 * both about every code point. */
static const struct {
	int32_t first, last;
} unknown[] = {
	{0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},
	{0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},
	{0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},   {0x10d24, 0x10d27},
	{0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85},
	{0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
	{0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943},
	{0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99},
	{0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42},
	{0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
	{0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
};

static bool is_unknown(int32_t c)
{
	size_t low = 0, high = sizeof unknown / sizeof *unknown;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (c > unknown[middle].last)
			low = middle + 1;
		else
			high = middle;
	}
	return low < sizeof unknown / sizeof *unknown && c >= unknown[low].first;
}

void pal__nfc_free(pal__nfc *b)
{
	pal__free(b->s);
	pal__free(b->points);
	pal__free(b->sorted);
	*b = (pal__nfc){0};
}

bool pal__nfc_trivial(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((uint8_t)s[i] >= FIRST_NONTRIVIAL)
			return false;
	return true;
}

static bool append(pal__nfc *b, const char *s, size_t n)
{
	if (n == 0)
		return true;
	if (!pal__grow((void **)&b->s, &b->cap, b->n + n, 1))
		return false;
	memcpy(b->s + b->n, s, n);
	b->n += n;
	return true;
}

static unsigned class_of(int32_t c)
{
	unsigned class = (unsigned)utf8proc_get_property(c)->combining_class;
	return class && is_unknown(c) ? 0 : class;
}

/* Orders points[n], all combining, by class; equals stay in order: a counting sort. */
static bool order_marks(pal__nfc *b, int32_t *points, size_t n)
{
	size_t start[257] = {0};
	for (size_t i = 0; i < n; i++)
		start[class_of(points[i]) + 1]++;
	for (size_t c = 1; c < 257; c++)
		start[c] += start[c - 1];
	if (!pal__grow((void **)&b->sorted, &b->cap_sorted, n, sizeof *b->sorted))
		return false;
	for (size_t i = 0; i < n; i++)
		b->sorted[start[class_of(points[i])]++] = points[i];
	memcpy(points, b->sorted, n * sizeof *points);
	return true;
}

static bool order_all(pal__nfc *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t from = i;
		while (i < n && class_of(b->points[i]) != 0)
			i++;
		if (i - from > 1 && !order_marks(b, b->points + from, i - from))
			return false;
	}
	return true;
}

/* points[n], which composes on its own, to text. */
static bool compose(pal__nfc *b, int32_t *points, size_t n)
{
	const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
	utf8proc_ssize_t kept = utf8proc_normalize_utf32(points, (utf8proc_ssize_t)n, options);
	for (utf8proc_ssize_t i = 0; i < kept; i++) {
		utf8proc_uint8_t c[4];
		utf8proc_ssize_t len = utf8proc_encode_char(points[i], c);
		if (!append(b, (const char *)c, (size_t)len))
			return false;
	}
	return true;
}

static bool compose_all(pal__nfc *b, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t from = i++;
		while (i < n && !is_unknown(b->points[i]))
			i++;
		if (!compose(b, b->points + from, i - from))
			return false;
	}
	return true;
}

/* Appends the NFC of s[n], a stretch that may be normalized on its own. */
static bool append_nfc(pal__nfc *b, const char *s, size_t n)
{
	const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
	size_t n_points = 0;
	for (size_t i = 0; i < n;) {
		utf8proc_int32_t c;
		int boundary = 0;
		i += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)s + i,
					      (utf8proc_ssize_t)(n - i), &c);
		if (!pal__grow((void **)&b->points, &b->cap_points, n_points + MAX_DECOMPOSED,
			       sizeof *b->points))
			return false;
		if (is_unknown(c))
			b->points[n_points++] = c;
		else
			n_points += (size_t)utf8proc_decompose_char(
				c, b->points + n_points, MAX_DECOMPOSED, options, &boundary);
	}
	return order_all(b, n_points) && compose_all(b, n_points);
}

bool pal__nfc_set(pal__nfc *b, const char *s, size_t n)
{
	b->n = 0;
	for (size_t i = 0; i < n;) {
		/* the trivial stretch but its last character, which what follows may change */
		size_t from = i, last = i;
		for (; i < n && (uint8_t)s[i] < FIRST_NONTRIVIAL; i++)
			if (((uint8_t)s[i] & 0xc0) != 0x80)
				last = i;
		if (i == n)
			return append(b, s + from, n - from);
		if (!append(b, s + from, last - from))
			return false;
		while (i < n &&
		       ((uint8_t)s[i] >= FIRST_NONTRIVIAL || ((uint8_t)s[i] & 0xc0) == 0x80))
			i++;
		if (!append_nfc(b, s + last, i - last))
			return false;
	}
	return true;
}
