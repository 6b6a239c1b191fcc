#include "restore/recompute.h"

#include <assert.h>

void pal__recompute(pal__memo *memo, pal__runs *r, pal__site *s, const pal__span *spans, size_t n)
{
	int64_t at[PAL__RUNS];
	size_t n_new = 0;
	pal__span new[PAL_MAX_SLOTS];
	assert(n <= PAL_MAX_SLOTS);
	uint64_t since = memo ? memo->clock : 0;
	/* First those that are kept, so that none of them makes room for one that is not. */
	for (size_t i = 0; i < n; i++) {
		if (spans[i].from == spans[i].end)
			continue;
		pal__memo_found found =
			memo ? pal__memo_find(memo, r, s, &spans[i], at) : PAL__MEMO_NONE;
		if (found == PAL__MEMO_RUN)
			pal__runs_put(r, s, &spans[i], 1, at, s->m->h.n_layers);
		else if (found == PAL__MEMO_NONE)
			new[n_new++] = spans[i];
	}
	for (size_t i = 0; i < n_new; i += (size_t)r->n) {
		int some = n_new - i < (size_t)r->n ? (int)(n_new - i) : r->n;
		pal__runs_read(r, s, new + i, some, at, NULL);
		pal__runs_put(r, s, new + i, some, at, s->m->h.n_layers);
		for (int j = 0; memo && j < some; j++)
			pal__memo_keep(memo, r, j, s, &new[i + (size_t)j], at[j]);
	}
	if (memo)
		pal__memo_displace(memo, since);
}
