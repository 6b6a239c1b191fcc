#include "text/special.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static bool is_inside(const char *s, size_t n)
{
	static const char *const marks[] = {"tool_call", "tool_response", "tools", "think"};
	if (n < 3 || s[0] != '<' || s[n - 1] != '>')
		return false;
	size_t from = s[1] == '/' ? 2 : 1;
	for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
		if (strlen(marks[i]) == n - 1 - from && !memcmp(s + from, marks[i], n - 1 - from))
			return true;
	return false;
}

bool pal__specials_add(pal__specials *p, const char *s, size_t n, int32_t id, bool always)
{
	if (!pal__grow((void **)&p->v, &p->cap, p->n + 1, sizeof *p->v))
		return false;
	char *copy = pal__strndup(s, n);
	if (!copy)
		return false;
	p->v[p->n++] = (pal__special){
		.s = copy, .n = n, .id = id, .always = always, .inside = is_inside(s, n)};
	return true;
}

/* By bytes, a prefix before what it starts; then by id. */
static int by_text(const void *a, const void *b)
{
	const pal__special *l = a, *r = b;
	int order = memcmp(l->s, r->s, l->n < r->n ? l->n : r->n);
	if (order)
		return order;
	if (l->n != r->n)
		return l->n < r->n ? -1 : 1;
	return l->id < r->id ? -1 : 1;
}

void pal__specials_sort(pal__specials *p)
{
	size_t kept = 0;
	if (p->n > 1)
		qsort(p->v, p->n, sizeof *p->v, by_text);
	for (size_t i = 0; i < p->n; i++) {
		pal__special *last = kept ? &p->v[kept - 1] : NULL;
		if (last && last->n == p->v[i].n && !memcmp(last->s, p->v[i].s, last->n))
			pal__free(p->v[i].s);
		else
			p->v[kept++] = p->v[i];
	}
	p->n = kept;
	for (size_t b = 0, i = 0; b <= 256; b++) {
		while (i < p->n && (uint8_t)p->v[i].s[0] < b)
			i++;
		p->first[b] = (uint32_t)i;
	}
}

void pal__specials_free(pal__specials *p)
{
	for (size_t i = 0; i < p->n; i++)
		pal__free(p->v[i].s);
	pal__free(p->v);
	*p = (pal__specials){0};
}

/* The first of v[low .. high), which share `depth` bytes, whose next byte is at least b. */
static size_t lower_bound(const pal__special *v, size_t low, size_t high, size_t depth, unsigned b)
{
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (v[middle].n <= depth || (uint8_t)v[middle].s[depth] < b)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The longest that text[n] starts with; of control tokens, with all, those of up to n_control bytes
 * and those that may be inside. */
static const pal__special *longest_at(const pal__specials *p, const char *text, size_t n, bool all,
				      size_t n_control)
{
	const pal__special *best = NULL;
	size_t low = p->first[(uint8_t)text[0]], high = p->first[(uint8_t)text[0] + 1];
	for (size_t depth = 1; low < high; depth++) {
		const pal__special *v = &p->v[low];
		if (v->n == depth && (v->always || (all && (depth <= n_control || v->inside))))
			best = v;
		if (depth == n)
			break;
		low = lower_bound(p->v, low, high, depth, (uint8_t)text[depth]);
		high = lower_bound(p->v, low, high, depth, (uint8_t)text[depth] + 1u);
	}
	return best;
}

/* Bytes from `at` to the next that are plain. */
static size_t before_plain(pal__searched *in, size_t at)
{
	while (in->n_plain && in->plain->end <= at) {
		in->plain++;
		in->n_plain--;
	}
	if (!in->n_plain)
		return in->n - at;
	return in->plain->from > at ? in->plain->from - at : 0;
}

const pal__special *pal__specials_find(const pal__specials *p, pal__searched *in, size_t *at)
{
	for (size_t i = *at; i < in->n; i++) {
		const char *s = in->s + i;
		if (p->first[(uint8_t)*s] == p->first[(uint8_t)*s + 1])
			continue;
		const pal__special *found =
			longest_at(p, s, in->n - i, in->all, before_plain(in, i));
		if (found) {
			*at = i;
			return found;
		}
	}
	return NULL;
}
