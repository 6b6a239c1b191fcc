#include "text/merge.h"

#include "base/mem.h"

void pal__merger_free(pal__merger *m)
{
	pal__free(m->symbols);
	pal__free(m->heap);
	*m = (pal__merger){0};
}

bool pal__merger_push(pal__merger *m, uint32_t at, uint32_t n, int32_t id)
{
	if (!pal__grow((void **)&m->symbols, &m->cap, m->n + 1, sizeof *m->symbols))
		return false;
	int32_t i = (int32_t)m->n++;
	m->symbols[i] =
		(pal__symbol){.at = at, .n = n, .prev = i - 1, .next = -1, .id = id, .to = -1};
	if (i > 0)
		m->symbols[i - 1].next = i;
	return true;
}

static bool heap_push(pal__merger *m, struct pal__candidate c)
{
	if (!pal__grow((void **)&m->heap, &m->cap_heap, m->n_heap + 1, sizeof *m->heap))
		return false;
	size_t i = m->n_heap++;
	for (; i > 0 && m->heap[(i - 1) / 2].order > c.order; i = (i - 1) / 2)
		m->heap[i] = m->heap[(i - 1) / 2];
	m->heap[i] = c;
	return true;
}

static struct pal__candidate heap_pop(pal__merger *m)
{
	struct pal__candidate top = m->heap[0], last = m->heap[--m->n_heap];
	size_t i = 0;
	for (size_t child; (child = 2 * i + 1) < m->n_heap; i = child) {
		if (child + 1 < m->n_heap && m->heap[child + 1].order < m->heap[child].order)
			child++;
		if (last.order <= m->heap[child].order)
			break;
		m->heap[i] = m->heap[child];
	}
	m->heap[i] = last;
	return top;
}

/* Looks at symbol i and its next one: a candidate when they merge. */
static bool consider(pal__merger *m, int32_t i, const char *text, pal__merge_find find,
		     const void *rules)
{
	pal__symbol *l = &m->symbols[i];
	uint32_t rank;
	l->to = -1;
	if (l->next < 0 || l->id < 0 || m->symbols[l->next].id < 0 ||
	    !find(rules, text, l, &m->symbols[l->next], &rank, &l->to))
		return true;
	return heap_push(m, (struct pal__candidate){(uint64_t)rank << 32 | (uint32_t)i, l->to});
}

bool pal__merge(pal__merger *m, const char *text, pal__merge_find find, const void *rules)
{
	m->n_heap = 0;
	for (size_t i = 0; i + 1 < m->n; i++)
		if (!consider(m, (int32_t)i, text, find, rules))
			return false;
	while (m->n_heap > 0) {
		struct pal__candidate c = heap_pop(m);
		int32_t i = (int32_t)(uint32_t)c.order;
		pal__symbol *l = &m->symbols[i];
		if (l->n == 0 || l->to != c.id)
			continue;
		pal__symbol *r = &m->symbols[l->next];
		l->n += r->n;
		l->id = c.id;
		l->next = r->next;
		r->n = 0;
		if (l->next >= 0)
			m->symbols[l->next].prev = i;
		if (!consider(m, i, text, find, rules) ||
		    (l->prev >= 0 && !consider(m, l->prev, text, find, rules)))
			return false;
	}
	return true;
}
