/* Selection by words, against its definition in double; where a span is found; failing reads. */
#include "restore/lexical.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "restore/source.h"

#define MOST 20000

static int32_t log_ids[MOST];
static pal__disk disk;
static uint64_t random_state = 1;

static int32_t below(int32_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (int32_t)((random_state >> 33) % (uint64_t)n);
}

/* A log of n tokens, most of them of few kinds. */
static void make_log(size_t n, int32_t vocabulary)
{
	for (size_t i = 0; i < n; i++)
		log_ids[i] = below(3) ? below(vocabulary) % 20 : below(vocabulary);
	assert_int_equal(pal__disk_write(&disk, log_ids, n * sizeof *log_ids, 0, NULL), PAL_OK);
}

static size_t score(int64_t from, int64_t end, int64_t at, size_t span, pal__found *found)
{
	size_t n;
	assert_int_equal(pal__lexical_score(&disk, from, end, at, span, found, &n, NULL), PAL_OK);
	return n;
}

static bool chunk_has(int64_t chunk, int64_t from, int64_t end, int32_t token)
{
	for (int64_t i = chunk * PAL_CHUNK; i < (chunk + 1) * PAL_CHUNK; i++)
		if (i >= from && i < end && log_ids[i] == token)
			return true;
	return false;
}

/* What a chunk's score is. */
static double definition(int64_t chunk, int64_t from, int64_t end, int64_t at, size_t span)
{
	double shared = 0, total = 0;
	int64_t first = from / PAL_CHUNK, chunks = (end + PAL_CHUNK - 1) / PAL_CHUNK - first;
	for (int64_t i = at - (int64_t)span; i < at; i++) {
		int64_t have = 0;
		bool again = false;
		for (int64_t k = at - (int64_t)span; k < i; k++)
			again |= log_ids[k] == log_ids[i];
		for (int64_t c = first; c < first + chunks && !again; c++)
			have += chunk_has(c, from, end, log_ids[i]);
		if (again || !have)
			continue;
		double weight = log2((double)chunks) - log2((double)have);
		total += weight;
		shared += chunk_has(chunk, from, end, log_ids[i]) ? weight : 0;
	}
	return total > 0 ? shared / total : 0;
}

static void as_defined(void **state)
{
	(void)state;
	for (int round = 0; round < 40; round++) {
		pal__found found[PAL__MAX_FOUND];
		int64_t at = 200 + below(3000), end = at - below(150), from = below(70);
		size_t span = 1 + (size_t)below(100);
		double worst = 2;
		make_log((size_t)at, 20 + below(2000));
		size_t n = score(from, end, at, span, found);
		for (size_t i = 0; i < n; i++) {
			double want = definition(found[i].chunk, from, end, at, span);
			assert_true(fabs((double)found[i].score - want) < 0.02);
			assert_true(i == 0 || found[i].score < found[i - 1].score ||
				    (found[i].score == found[i - 1].score &&
				     found[i].chunk > found[i - 1].chunk));
			worst = (double)found[i].score;
		}
		/* Nothing better was left out. */
		for (int64_t c = from / PAL_CHUNK; c * PAL_CHUNK < end; c++) {
			bool here = false;
			for (size_t i = 0; i < n; i++)
				here |= found[i].chunk == c;
			double least = n == PAL__MAX_FOUND ? worst + 0.02 : 0.02;
			assert_true(here || definition(c, from, end, at, span) < least);
		}
	}
}

static void finds(void **state)
{
	(void)state;
	pal__found found[PAL__MAX_FOUND];
	make_log(MOST, 1000);
	/* Two rare tokens together, one of them alone. */
	log_ids[9000] = log_ids[MOST - 3] = 5000;
	log_ids[9010] = log_ids[MOST - 7] = log_ids[4000] = 5001;
	pal__disk_write(&disk, log_ids, sizeof log_ids, 0, NULL);
	assert_true(score(4, MOST - 256, MOST, 8, found) > 1);
	assert_int_equal(found[0].chunk, 9000 / PAL_CHUNK);
	assert_true(found[0].score < 1 && found[0].score > found[1].score);
	/* Only what is within the bounds counts. */
	score(9005, MOST - 256, MOST, 8, found);
	assert_true(found[0].score < 0.9f);
	assert_int_equal(score(100, 100, MOST, 8, found), 0);
	assert_int_equal(score(4, MOST - 256, MOST, 0, found), 0);
	/* A span of tokens that are nowhere, or everywhere. */
	for (int i = 0; i < MOST; i++)
		log_ids[i] = i < MOST - 300 ? 7 : 8;
	pal__disk_write(&disk, log_ids, sizeof log_ids, 0, NULL);
	assert_int_equal(score(4, MOST - 300, MOST, 256, found), 0);
	assert_int_equal(score(4, MOST - 600, MOST - 310, 256, found), 0);
}

static void bad_disk(void **state)
{
	(void)state;
	pal__found found[PAL__MAX_FOUND];
	pal_status s = PAL_EIO;
	int64_t i = 0;
	make_log(MOST, 1000);
	for (; s == PAL_EIO; i++) {
		size_t n;
		pal_error err = {0};
		pal__disk_fail_after(i);
		s = pal__lexical_score(&disk, 0, MOST - 100, MOST, 32, found, &n, &err);
		bool failed = pal__disk_failed();
		pal__disk_fail_after(-1);
		assert_int_equal(s, failed ? PAL_EIO : PAL_OK);
		assert_true(s == PAL_OK || strstr(err.text, "a log"));
	}
	assert_true(i > 10); /* the span, and five pieces twice */
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(as_defined), cmocka_unit_test(finds),
					   cmocka_unit_test(bad_disk)};
	if (pal__disk_open(&disk, "/tmp", "a log", NULL))
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	pal__disk_close(&disk);
	return failed;
}
