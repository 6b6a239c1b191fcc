/* The spill file. Arguments: model files of tests/tools/mkmodel.py. */
#include "restore/spill.h"

#include "past.h"

static char **paths;
static int n_paths;

/* Of a row's largest number, for K that was rotated back and forth and V that was not: halves,
 * 255 steps, and 15 of a group's range, which may be twice the largest. */
static const float allowed[3][2] = {{1e-3f, 5e-4f}, {9e-3f, 4e-3f}, {0.15f, 0.07f}};

static void round_trips(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++)
		for (int type = PAL_SPILL_F16; type <= PAL_SPILL_AFFINE4; type++) {
			pal_session_options o = past_options(PAL_SOURCE_SPILL);
			o.spill_type = (pal_spill_type)type;
			past p = past_open(paths[i], &o, 300);
			int64_t end = past_end(&p);
			pal__restore *r = &p.s->restore;
			pal_error err;
			/* Whole records and parts of them, from the first evicted to the last. */
			const pal__span spans[] = {{PAST_SINK, PAST_SINK + 48, PAST_SINK},
						   {101, 102, 60},
						   {120, 168, 61},
						   {end - 30, end, 120}};
			assert_true(end > 250);
			for (size_t j = 0; j < 4; j++)
				if (pal__spill_fill(&r->spill, &r->site, &spans[j], &err))
					fail_msg("%s", err.text);
			for (size_t j = 0; j < 4; j++)
				past_same(&p, spans[j].from, spans[j].end, spans[j].row,
					  allowed[type][0], allowed[type][1]);
			past_close(&p);
		}
}

static void expect(pal_status want, pal_status got, const char *words, const pal_error *err)
{
	assert_int_equal(got, want);
	if (!strstr(err->text, words))
		fail_msg("'%s' instead of '%s'", err->text, words);
}

/* Every byte of a record counts, and the records beside it do not. */
static void damage(void **state)
{
	pal_session_options o = past_options(PAL_SOURCE_SPILL);
	past p = past_open(paths[0], &o, 300);
	pal__restore *r = &p.s->restore;
	pal__spill *x = &r->spill;
	pal_error err;
	(void)state;
	past_end(&p);
	for (size_t at = 0; at < x->record_bytes; at += at < 16 ? 1 : 97) {
		const pal__span before = {72, 80, 4}, in = {64, 96, 4}, behind = {88, 90, 4};
		uint8_t byte, other;
		uint64_t where = 10 * x->record_bytes + at;
		assert_int_equal(pal__disk_read(&x->disk, &byte, 1, where, NULL), PAL_OK);
		other = byte ^ (uint8_t)(1 << at % 8);
		assert_int_equal(pal__disk_write(&x->disk, &other, 1, where, NULL), PAL_OK);
		expect(PAL_EFORMAT, pal__spill_fill(x, &r->site, &in, &err),
		       "the spill file's record of positions 80 to 87 is damaged", &err);
		assert_int_equal(pal__spill_fill(x, &r->site, &before, &err), PAL_OK);
		assert_int_equal(pal__spill_fill(x, &r->site, &behind, &err), PAL_OK);
		assert_int_equal(pal__disk_write(&x->disk, &byte, 1, where, NULL), PAL_OK);
		assert_int_equal(pal__spill_fill(x, &r->site, &in, &err), PAL_OK);
	}
	/* A whole record in another's place is none of its own. */
	assert_int_equal(
		pal__disk_read(&x->disk, x->record, x->record_bytes, 11 * x->record_bytes, NULL),
		PAL_OK);
	assert_int_equal(
		pal__disk_write(&x->disk, x->record, x->record_bytes, 10 * x->record_bytes, NULL),
		PAL_OK);
	expect(PAL_EFORMAT, pal__spill_fill(x, &r->site, &(pal__span){80, 81, 4}, &err),
	       "80 to 87 is damaged", &err);
	past_close(&p);
}

/* With a budget the oldest go; a truncation does not bring them back, nor loses the others. */
static void budget(void **state)
{
	pal_session_options o = past_options(PAL_SOURCE_SPILL);
	past p = past_open(paths[0], &o, 100);
	pal_error err;
	(void)state;
	o.disk_budget = 10 * p.s->restore.spill.record_bytes + 5;
	past_close(&p);
	p = past_open(paths[0], &o, 300);
	pal__restore *r = &p.s->restore;
	int64_t end = past_end(&p), last = (end - 1) / 8, first = last - 9;
	assert_int_equal(r->spill.capacity, 10);
	assert_true(r->spill.disk.bytes <= o.disk_budget);
	/* Chunks are forgotten with their first record. */
	assert_int_equal(r->dropped, (first + 3) / 4);
	expect(PAL_ELIMIT,
	       pal__spill_fill(&r->spill, &r->site, &(pal__span){first * 8 - 1, first * 8, 4},
			       &err),
	       "the spill file has dropped positions", &err);
	assert_int_equal(pal__spill_fill(&r->spill, &r->site,
					 &(pal__span){first * 8, first * 8 + 40, 4}, &err),
			 PAL_OK);
	past_same(&p, first * 8, first * 8 + 40, 4, 1e-3f, 5e-4f);
	expect(PAL_ELIMIT,
	       pal__spill_fill(&r->spill, &r->site, &(pal__span){end, end + 1, 4}, &err),
	       "the spill file ends at position", &err);
	/* Records behind the cut have taken their place. */
	assert_int_equal(pal_session_truncate(p.s, end - 16, &err), PAL_OK);
	expect(PAL_ELIMIT,
	       pal__spill_fill(&r->spill, &r->site, &(pal__span){first * 8 - 1, first * 8, 4},
			       &err),
	       "the spill file has dropped positions", &err);
	assert_int_equal(pal__spill_fill(&r->spill, &r->site,
					 &(pal__span){first * 8, first * 8 + 40, 4}, &err),
			 PAL_OK);
	past_append(&p, 300);
	assert_int_equal(past_end(&p), end);
	assert_int_equal(r->dropped, (first + 3) / 4);
	past_close(&p);
	/* None fits: all are dropped. */
	o.disk_budget = 1;
	p = past_open(paths[0], &o, 200);
	end = past_end(&p);
	expect(PAL_ELIMIT,
	       pal__spill_fill(&p.s->restore.spill, &p.s->restore.site,
			       &(pal__span){end - 1, end, 4}, &err),
	       "the spill file has dropped positions", &err);
	assert_int_equal(p.s->restore.dropped, (end + 31) / 32);
	past_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trips),
		cmocka_unit_test(damage),
		cmocka_unit_test(budget),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
