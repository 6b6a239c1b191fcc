/* What `recompute` keeps of what it read, against reading it again. Arguments: models of
 * tests/tools/mkmodel.py. */
#include "restore/memo.h"

#include <stdio.h>

#include "base/disk.h"
#include "past.h"

#define LOG 400

static char **paths;
static int n_paths;

static size_t far_bytes(const pal__kv *kv)
{
	return kv->far.n_blocks * kv->far.n_layers * kv->shape.n_kv_heads * kv->head_bytes;
}

/* The far rows of spans that are read, without a memo. The caller frees it. */
static uint8_t *read_anew(past *p, const pal__span *spans, size_t n)
{
	pal__restore *r = &p->s->restore;
	size_t bytes = far_bytes(&p->s->kv);
	uint8_t *out = malloc(bytes);
	assert_non_null(out);
	memset(p->s->kv.far.data, 0, bytes);
	pal__memo_displace(&r->memo, UINT64_MAX);
	pal__recompute(NULL, &r->runs, &r->site, spans, n);
	return memcpy(out, p->s->kv.far.data, bytes);
}

/* With the memo, into far rows that are zero: the same bits, and as many hits. */
static void check(past *p, const pal__span *spans, size_t n, uint64_t hits)
{
	pal__restore *r = &p->s->restore;
	uint8_t *want = read_anew(p, spans, n);
	uint64_t before = r->memo.hits;
	memset(p->s->kv.far.data, 0, far_bytes(&p->s->kv));
	pal__recompute(&r->memo, &r->runs, &r->site, spans, n);
	assert_memory_equal(want, p->s->kv.far.data, far_bytes(&p->s->kv));
	assert_int_equal(r->memo.hits - before, hits);
	free(want);
}

/* Of all types and positions: what was read before has the bits of a reading, in other rows, too.
 */
static void same_bits(void **state)
{
	const pal__span one[] = {{88, 136, 4}, {160, 208, 52}};
	const pal__span more[] = {{24, 72, 4}, {88, 136, 52}, {160, 208, 100}, {210, 210, 148}};
	(void)state;
	for (int i = 0; i < n_paths; i++)
		for (int type = 0; type < 5; type++) {
			pal_session_options o = past_options(PAL_SOURCE_RECOMPUTE);
			o.kv_type = (pal_kv_type)type;
			o.positions = type & 1 ? PAL_POSITIONS_COMPACT : PAL_POSITIONS_ORIGINAL;
			o.n_batch = type & 2 ? 400 : 64;
			past p = {.m = past_model(paths[i], 2, NULL)};
			int32_t ids[LOG];
			for (int j = 0; j < LOG; j++)
				ids[j] = past_token(p.m, j);
			p.s = past_session(p.m, &o);
			assert_int_equal(pal_session_append(p.s, ids, LOG, NULL, NULL, NULL, NULL),
					 PAL_OK);
			check(&p, one, 2, 0);
			check(&p, one, 2, 2);
			check(&p, more, 4, 2);
			check(&p, one, 1, 1);
			past_close(&p);
		}
}

/* What is in its rows already is not put there again; what may not be is. */
static void in_place(void **state)
{
	const pal__span one[] = {{24, 72, 4}, {88, 136, 52}}, other = {160, 208, 52};
	pal_session_options o = past_options(PAL_SOURCE_RECOMPUTE);
	past p = past_open(paths[0], &o, LOG);
	pal__restore *r = &p.s->restore;
	pal__kv *kv = &p.s->kv;
	size_t bytes = far_bytes(kv);
	(void)state;
	uint8_t *want = read_anew(&p, one, 2);
	pal__recompute(&r->memo, &r->runs, &r->site, one, 2);
	memset(kv->far.data, 0, bytes); /* nobody does this: it shows what is not put */
	pal__recompute(&r->memo, &r->runs, &r->site, one, 2);
	assert_true(kv->far.data[0] == 0 && !memcmp(kv->far.data, kv->far.data + 1, bytes - 1));
	pal__memo_displace(&r->memo, UINT64_MAX);
	pal__recompute(&r->memo, &r->runs, &r->site, one, 2);
	assert_memory_equal(kv->far.data, want, bytes);
	/* Another chunk in the rows of the second one; then it comes back. */
	pal__recompute(&r->memo, &r->runs, &r->site, &other, 1);
	assert_memory_not_equal(kv->far.data, want, bytes);
	pal__recompute(&r->memo, &r->runs, &r->site, one, 2);
	assert_memory_equal(kv->far.data, want, bytes);
	/* Controls put other rows, and what they put does not count. */
	r->site.control = PAL__CONTROL_ZERO;
	pal__recompute(&r->memo, &r->runs, &r->site, one, 2);
	assert_memory_not_equal(kv->far.data, want, bytes);
	r->site.control = PAL__CONTROL_NONE;
	pal__recompute(&r->memo, &r->runs, &r->site, one, 2);
	assert_memory_equal(kv->far.data, want, bytes);
	free(want);
	past_close(&p);
}

/* A token that is another one, in the chunk, to its left or among the sinks, is another run. */
static void by_tokens(void **state)
{
	const pal__span span = {100, 140, 4};
	const int64_t read[] = {0, 3, 80, 99, 100, 139}, not_read[] = {4, 79, 140};
	pal_session_options o = past_options(PAL_SOURCE_RECOMPUTE);
	past p = past_open(paths[0], &o, LOG);
	int32_t log[LOG];
	(void)state;
	memcpy(log, p.s->log, sizeof log);
	p.s->restore.site.log = log;
	check(&p, &span, 1, 0);
	check(&p, &span, 1, 1);
	for (size_t i = 0; i < sizeof read / sizeof *read; i++) {
		log[read[i]] ^= 1;
		check(&p, &span, 1, 0);
		log[read[i]] ^= 1;
		check(&p, &span, 1, 1);
	}
	for (size_t i = 0; i < sizeof not_read / sizeof *not_read; i++) {
		log[not_read[i]] ^= 1;
		check(&p, &span, 1, 1);
	}
	/* The same tokens, of which another one is the first. */
	const pal__span later = {101, 140, 4};
	check(&p, &later, 1, 0);
	past_close(&p);
}

/* As many as there are slots are kept, those used last. */
static void as_many_as_slots(void **state)
{
	pal_session_options o = past_options(PAL_SOURCE_RECOMPUTE);
	pal__span all[7];
	o.slots = 6;
	past p = past_open(paths[0], &o, LOG);
	(void)state;
	for (int i = 0; i < 7; i++)
		all[i] = (pal__span){40 * (i + 1), 40 * (i + 1) + 32, 4 + 32 * (size_t)(i % 6)};
	check(&p, all, 6, 0);
	check(&p, all, 1, 1);
	check(&p, all + 6, 1, 0); /* in the place of the second */
	check(&p, all + 2, 5, 5);
	check(&p, all, 1, 1);
	check(&p, all + 1, 1, 0);
	assert_true(p.s->restore.memo.disk.bytes <= 6 * p.s->restore.memo.record_bytes);
	pal_session_stats stats;
	pal_session_get_stats(p.s, &stats);
	assert_int_equal(stats.kept_reads, p.s->restore.memo.hits);
	past_close(&p);
}

/* Whatever the disk does, the bits are those of a reading. */
static void disk_fails(void **state)
{
	const pal__span spans[] = {{24, 72, 4}, {88, 136, 52}, {160, 208, 100}};
	pal_session_options o = past_options(PAL_SOURCE_RECOMPUTE);
	past p = past_open(paths[0], &o, LOG);
	pal__restore *r = &p.s->restore;
	size_t bytes = far_bytes(&p.s->kv);
	(void)state;
	uint8_t *want = read_anew(&p, spans, 3);
	bool failed = true;
	for (int n = 0; failed; n++) {
		for (int round = 0; round < 2; round++) {
			memset(p.s->kv.far.data, 0, bytes);
			pal__memo_displace(&r->memo, UINT64_MAX);
			pal__disk_fail_after(round ? n / 2 : n);
			pal__recompute(&r->memo, &r->runs, &r->site, spans, 3);
			failed = pal__disk_failed();
			pal__disk_fail_after(-1);
			assert_memory_equal(p.s->kv.far.data, want, bytes);
		}
		assert_true(n < 20);
		pal__memo_forget(&r->memo);
	}
	/* A record that is not what was written. */
	check(&p, spans, 3, 0);
	check(&p, spans, 3, 3);
	uint8_t byte;
	uint64_t at = r->memo.record_bytes + 77;
	assert_int_equal(pal__disk_read(&r->memo.disk, &byte, 1, at, NULL), PAL_OK);
	byte ^= 4;
	assert_int_equal(pal__disk_write(&r->memo.disk, &byte, 1, at, NULL), PAL_OK);
	check(&p, spans, 3, 2);
	check(&p, spans, 3, 3);
	free(want);
	past_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_bits),  cmocka_unit_test(in_place),
		cmocka_unit_test(by_tokens),  cmocka_unit_test(as_many_as_slots),
		cmocka_unit_test(disk_fails),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
