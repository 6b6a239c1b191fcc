#include "eval/probes.h"

#include <string.h>

#define FACTS 6        /* of a log with probes */
#define DENSE_LOG 4096 /* tokens of a log full of facts */
#define DENSE_FACTS 40

static void all_kinds(const pal__tasks *tasks, pal__sample_spec *spec)
{
	int n = pal__tasks_n_kinds(tasks);
	spec->n_kinds = n < PAL__TASK_KINDS ? n : PAL__TASK_KINDS;
	for (int i = 0; i < spec->n_kinds; i++)
		spec->kinds[i] = i;
}

/* What selection would have restored in the first round: a chunk around the sentence. */
static void in_sight(pal__probe *p, int64_t begin, int64_t end, size_t evicted)
{
	size_t from = (size_t)begin / PAL_CHUNK * PAL_CHUNK;
	p->seen_from = from > PAL_CHUNK_MARGIN ? from - PAL_CHUNK_MARGIN : 0;
	p->seen_to = (size_t)end + PAL_CHUNK_MARGIN;
	p->seen_to = p->seen_to < evicted ? p->seen_to : evicted;
	if (p->seen_to - p->seen_from > PAL__PROBE_SEEN)
		p->seen_from = p->seen_to - PAL__PROBE_SEEN;
}

static pal_status ask(pal__calibration *c, const pal__question *q, bool hard, size_t evicted,
		      pal_error *err)
{
	pal_status s = PAL_OK;
	size_t n = q->n_prompt < PAL__PROBE_QUESTION ? q->n_prompt : PAL__PROBE_QUESTION;
	for (int i = 0; i < q->n_needles && s == PAL_OK; i++) {
		pal__probe p = {.question = q->prompt + q->n_prompt - n,
				.n_question = n,
				.from = (size_t)q->begin[i],
				.to = (size_t)q->end[i],
				.later = hard && i > 0};
		if (p.later)
			in_sight(&p, q->begin[0], q->end[0], evicted);
		s = pal__calibration_ask(c, &p, err);
	}
	return s;
}

static pal_status ask_sample(const pal__tasks *tasks, const pal_model *model, pal__calibration *c,
			     const pal__sample_spec *spec, pal_error *err)
{
	pal__sample *sample;
	int32_t log[PAL__PROBE_LOG];
	size_t have = 0, n = 1;
	pal_status s = pal__sample_new(tasks, model, spec, &sample, err);
	if (s != PAL_OK)
		return s;
	while (s == PAL_OK && n && have < (size_t)spec->length) {
		const int32_t *ids;
		s = pal__sample_next(sample, &ids, &n, err);
		if (s == PAL_OK && n) {
			memcpy(log + have, ids, n * sizeof *ids);
			have += n;
		}
	}
	if (s == PAL_OK)
		s = pal__calibration_log(c, log, have, err);
	for (int i = 0; i < spec->n_facts && s == PAL_OK; i++) {
		const pal__question *q = pal__sample_question(sample, i);
		s = ask(c, q, pal__tasks_hard(tasks, q->kind), (size_t)spec->last, err);
	}
	pal__sample_free(sample);
	return s;
}

pal_status pal__probes_ask(const pal__tasks *tasks, const pal_model *model, pal__calibration *c,
			   int samples, size_t length, uint64_t seed,
			   void (*progress)(void *user, uint64_t done, uint64_t total), void *user,
			   pal_error *err)
{
	pal__sample_spec spec = {.length = (int64_t)length,
				 .first = 4,
				 .last = (int64_t)length - PAL__PROBE_WINDOW,
				 .n_facts = FACTS};
	all_kinds(tasks, &spec);
	pal_status s = PAL_OK;
	for (int i = 0; i < samples && s == PAL_OK; i++) {
		spec.seed = seed + (uint64_t)i;
		spec.chat = i % 2 == 1;
		s = ask_sample(tasks, model, c, &spec, err);
		if (progress)
			progress(user, (uint64_t)i + 1, (uint64_t)samples);
	}
	return s;
}

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
		all_kinds(f->tasks, &spec);
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
