/* K and V made again from layers' inputs. Arguments: model files of tests/tools/mkmodel.py. */
#include "restore/hidden.h"

#include "past.h"

static char **paths;
static int n_paths;

static void expect(pal_status want, pal_status got, const char *words, const pal_error *err)
{
	assert_int_equal(got, want);
	if (!strstr(err->text, words))
		fail_msg("'%s' instead of '%s'", err->text, words);
}

static void fill(past *p, int64_t from, int64_t end, size_t row)
{
	pal__restore *r = &p->s->restore;
	pal_error err;
	if (pal__hidden_fill(&r->hidden, &r->site, &(pal__span){from, end, row}, &err))
		fail_msg("%s", err.text);
}

/* What comes back is what was evicted, to the bit: in passes of any size. */
static void exact(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++)
		for (int batch = 7; batch <= 343; batch *= 7) {
			pal_session_options o = past_options(PAL_SOURCE_HIDDEN);
			o.n_batch = batch;
			past p = past_open(paths[i], &o, 300);
			int64_t end = past_end(&p);
			fill(&p, PAST_SINK, PAST_SINK + 48, PAST_SINK);
			fill(&p, 120, 168, 61);
			fill(&p, end - 1, end, 110);
			past_same(&p, PAST_SINK, PAST_SINK + 48, PAST_SINK, 0, 0);
			past_same(&p, 120, 168, 61, 0, 0);
			past_same(&p, end - 1, end, 110, 0, 0);
			past_close(&p);
		}
}

/* The K and V of positions that the ring has now, once more. */
static void look_again(past *p, int64_t from)
{
	const pal__hparams *h = &p->m->h;
	for (int64_t pos = from; pos < p->s->length; pos++)
		for (size_t l = 0; l < h->n_layers; l++)
			for (size_t g = 0; g < h->n_kv_heads; g++) {
				float *to = past_row(p, pos, l, g);
				pal__kv_load(&p->s->kv, l, g, pos, to, to + h->head_dim);
			}
}

static void event(past *p, int32_t chunk)
{
	const uint8_t source = PAL_SOURCE_HIDDEN;
	pal_error err;
	const pal_event e = {.position = p->s->length,
			     .reread = 8,
			     .n_chunks = 1,
			     .chunks = {chunk},
			     .sources = {source}};
	if (pal_session_apply(p->s, &e, &err))
		fail_msg("%s", err.text);
}

/* Positions that were read again with other chunks in sight come back as they were then; also when
 * the session had to start over. */
static void read_again(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++)
		for (int round = 0; round < 2; round++) {
			pal_session_options o = past_options(PAL_SOURCE_HIDDEN);
			float before[PAL__KV_MAX_DIM];
			past p = past_open(paths[i], &o, 200 + round);
			const float *v =
				past_row(&p, 199, p.m->h.n_layers - 1, 0) + p.m->h.head_dim;
			size_t bytes = p.m->h.head_dim * sizeof *v;
			memcpy(before, v, bytes);
			event(&p, 2);
			look_again(&p, 192);
			/* Where a layer above a bounded one is bounded, they are others. */
			if (!p.m->h.window)
				assert_memory_not_equal(before, v, bytes);
			past_append(&p, 400);
			if (round) /* stale: log and event are played again */
				p.s->stale = true;
			assert_int_equal(pal__session_refresh(p.s, NULL), PAL_OK);
			past_end(&p);
			fill(&p, 180, 228, 60);
			past_same(&p, 180, 228, 60, 0, 0);
			past_close(&p);
		}
}

static void damage(void **state)
{
	pal_session_options o = past_options(PAL_SOURCE_HIDDEN);
	past p = past_open(paths[0], &o, 300);
	pal__restore *r = &p.s->restore;
	pal__hidden *x = &r->hidden;
	const int32_t chunks[] = {2, 5};
	pal_error err;
	(void)state;
	int64_t end = past_end(&p);
	for (size_t at = 0; at < x->record_bytes; at += at < 16 ? 1 : 31) {
		/* Of position 70 in layer 1. */
		uint64_t where = ((64 * 3 + 6) * x->record_bytes) + at;
		uint8_t byte, other;
		assert_int_equal(pal__disk_read(&x->disk, &byte, 1, where, NULL), PAL_OK);
		other = byte ^ (uint8_t)(1 << at % 8);
		assert_int_equal(pal__disk_write(&x->disk, &other, 1, where, NULL), PAL_OK);
		expect(PAL_EFORMAT, pal__hidden_fill(x, &r->site, &(pal__span){56, 104, 4}, &err),
		       "the hidden state of position 70 is damaged", &err);
		fill(&p, 60, 70, 4);
		fill(&p, 71, 80, 4);
		if (!at) {
			assert_int_equal(pal__restore_fill(r, chunks, NULL, 2, end, false, &err),
					 PAL_OK);
			assert_int_equal(r->fallbacks, 1);
			assert_string_equal(
				r->note, "the hidden state of position 70 is damaged: recomputed");
			assert_int_equal(r->filled[PAL_SOURCE_RECOMPUTE], 1);
			assert_int_equal(r->filled[PAL_SOURCE_HIDDEN], 1);
			past_same(&p, 152, 200, PAST_SINK + 48, 0, 0);
		}
		assert_int_equal(pal__disk_write(&x->disk, &byte, 1, where, NULL), PAL_OK);
		fill(&p, 56, 104, 4);
	}
	past_same(&p, 56, 104, 4, 0, 0);
	past_close(&p);
}

static void budget(void **state)
{
	pal_session_options o = past_options(PAL_SOURCE_HIDDEN);
	past p = past_open(paths[0], &o, 100);
	pal__hidden *x = &p.s->restore.hidden;
	pal_error err;
	(void)state;
	o.disk_budget = 3 * 64 * p.m->h.n_layers * x->record_bytes + 100;
	past_close(&p);
	p = past_open(paths[0], &o, 400); /* blocks 0 to 6, of which 4 to 6 are kept */
	x = &p.s->restore.hidden;
	int64_t end = past_end(&p);
	assert_int_equal(x->capacity, 3);
	assert_true(x->disk.bytes <= o.disk_budget);
	assert_int_equal(p.s->restore.dropped, 8);
	expect(PAL_ELIMIT, pal__hidden_fill(x, &p.s->restore.site, &(pal__span){255, 260, 4}, &err),
	       "the hidden states of positions up to 255 have been dropped", &err);
	fill(&p, 256, 304, 4);
	past_same(&p, 256, 304, 4, 0, 0);
	fill(&p, end - 20, end, 60);
	past_same(&p, end - 20, end, 60, 0, 0);
	past_close(&p);
	o.disk_budget = 1; /* none fits */
	p = past_open(paths[0], &o, 200);
	assert_int_equal(p.s->restore.dropped, 8);
	expect(PAL_ELIMIT,
	       pal__hidden_fill(&p.s->restore.hidden, &p.s->restore.site, &(pal__span){90, 91, 4},
				&err),
	       "dropped", &err);
	past_close(&p);
}

/* After a question that was taken back, what it read again is not trusted; all else is. */
static void taken_back(void **state)
{
	pal_session_options o = past_options(PAL_SOURCE_HIDDEN);
	past p = past_open(paths[0], &o, 300);
	pal__restore *r = &p.s->restore;
	pal__mark mark;
	pal_error err;
	(void)state;
	assert_int_equal(pal__session_mark(p.s, &mark, &err), PAL_OK);
	past_append(&p, 303);
	pal__session_rewind(p.s, &mark);
	assert_int_equal(r->hidden.doubt_end, 0); /* nothing was read again */
	event(&p, 3);
	pal__session_rewind(p.s, &mark);
	past_append(&p, 420);
	past_end(&p);
	fill(&p, 250, 292, 4);
	past_same(&p, 250, 292, 4, 0, 0);
	fill(&p, 300, 330, 50);
	past_same(&p, 300, 330, 50, 0, 0);
	expect(PAL_ELIMIT, pal__hidden_fill(&r->hidden, &r->site, &(pal__span){280, 293, 4}, &err),
	       "the hidden states of positions 292 to 299 are of a question that was taken back",
	       &err);
	/* Read from the start, they are what the log says. */
	p.s->stale = true;
	assert_int_equal(pal__session_refresh(p.s, &err), PAL_OK);
	fill(&p, 280, 310, 4);
	past_same(&p, 280, 310, 4, 0, 0);
	pal__mark_free(&mark);
	past_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact),  cmocka_unit_test(read_again), cmocka_unit_test(damage),
		cmocka_unit_test(budget), cmocka_unit_test(taken_back),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
