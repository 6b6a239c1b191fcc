#include "eval/facts.h"

#include <string.h>

#define DENSE_LOG 4096 /* tokens of a log full of facts */
#define DENSE_FACTS 40

pal_status pal__facts_next(pal__facts *f, int32_t *ids, size_t n, pal_error *err)
{
	pal_status s = PAL_OK;
	while (n && s == PAL_OK) {
		size_t take = f->n < n ? f->n : n;
		if (take) {
			memcpy(ids, f->ids, take * sizeof *ids);
			f->ids += take;
		}
		ids += take;
		n -= take;
		f->n -= take;
		if (f->sample && n)
			s = pal__sample_next(f->sample, &f->ids, &f->n, err);
		if (s != PAL_OK || !n || f->n)
			continue;
		pal__sample_spec spec = {.seed = f->seed++,
					 .first = 4,
					 .length = DENSE_LOG,
					 .last = DENSE_LOG,
					 .n_facts = DENSE_FACTS};
		pal__spec_kinds(f->tasks, &spec);
		pal__facts_end(f);
		s = pal__sample_new(f->tasks, f->model, &spec, &f->sample, err);
	}
	return s;
}

void pal__facts_end(pal__facts *f)
{
	pal__sample_free(f->sample);
	f->sample = NULL;
	f->ids = NULL;
	f->n = 0;
}
