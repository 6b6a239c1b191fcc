/* The source `recompute`: keeps nothing but the log. The model reads a chunk again, apart from
 * the session, after the sinks and `left` tokens of its own left context, which give all but the
 * oracle's K/V (research/REPORT.md). */
#include "restore/source.h"

void pal__recompute(pal__runs *r, pal__site *s, const pal__span *spans, size_t n)
{
	int64_t at[PAL__RUNS];
	for (size_t i = 0; i < n; i += (size_t)r->n) {
		int some = n - i < (size_t)r->n ? (int)(n - i) : r->n;
		pal__runs_read(r, s, spans + i, some, at, NULL);
		pal__runs_put(r, s, spans + i, some, at, s->m->h.n_layers);
	}
}
