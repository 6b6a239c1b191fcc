#include "session/history.h"

#include <string.h>

typedef struct {
	const int32_t *log, *ids; /* [n_log], [n_ids] */
	int64_t n_log, n_ids;
} pair;

static bool sure(const pair *p, int64_t i, int64_t j)
{
	/* What ends may agree in fewer. */
	int64_t n = PAL__EDIT_SURE, log = p->n_log - i, ids = p->n_ids - j;
	return log >= n && ids >= n && p->log[i] == p->ids[j] &&
	       !memcmp(p->log + i, p->ids + j, (size_t)n * sizeof *p->log);
}

/* The nearest place behind (i, j) where both go on alike: the least sum of what is left out. */
static bool find_next(const pair *p, int64_t i, int64_t j, int64_t *n_old, int64_t *n_new)
{
	for (int64_t sum = 1; sum <= 2 * PAL__EDIT_TOKENS; sum++) {
		int64_t first = sum > PAL__EDIT_TOKENS ? sum - PAL__EDIT_TOKENS : 0;
		for (int64_t old = first; old <= sum && old <= PAL__EDIT_TOKENS; old++)
			if (sure(p, i + old, j + sum - old)) {
				*n_old = old;
				*n_new = sum - old;
				return true;
			}
	}
	return false;
}

void pal__history_match(const int32_t *log, int64_t n_log, const int32_t *ids, int64_t n_ids,
			pal__history *out)
{
	pair p = {log, ids, n_log, n_ids};
	*out = (pal__history){0};
	for (int64_t i = 0, j = 0;;) {
		int64_t n = 0;
		while (i + n < n_log && j + n < n_ids && log[i + n] == ids[j + n])
			n++;
		i += n;
		j += n;
		out->equal += n;
		out->log_end = i;
		out->ids_end = j;
		pal__edit *e = &out->edits[out->n_edits];
		if (i == n_log || j == n_ids || out->n_edits == PAL__MAX_EDITS ||
		    !find_next(&p, i, j, &e->n_old, &e->n_new))
			return;
		e->at = i;
		e->new_at = j;
		out->n_edits++;
		i += e->n_old;
		j += e->n_new;
	}
}
