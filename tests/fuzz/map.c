/* Any bytes as evidence of a value map, and as a transcript: read, or refused with one sentence.
 *
 * The first byte chooses: 0, evidence as it is; 1, evidence whose figures and sum are made to fit
 * first, as by somebody who means harm: it must then hold together; 2, a transcript.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "check.h"
#include "eval/map_evidence.h"
#include "eval/map_report.h"
#include "eval/seal.h"
#include "eval/workload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(pal_status s, const pal_error *err)
{
	CHECK(s == PAL_EFORMAT || s == PAL_ENOMEM || s == PAL_ELIMIT);
	CHECK(err->code == s && err->text[0] && !strchr(err->text, '\n'));
}

/* Figures that hold together survive being written and read. */
static void again(const json_t *e)
{
	char *text = json_dumps(e, JSON_COMPACT | JSON_REAL_PRECISION(17));
	json_t *copy = NULL;
	pal_error err;
	CHECK(text && pal__json_read("x", text, strlen(text), &copy, &err) == PAL_OK);
	CHECK(pal__map_check("x", copy, &err) == PAL_OK);
	json_decref(copy);
	free(text);
}

static void evidence(const char *text, size_t n, bool fit)
{
	json_t *e = NULL;
	pal_error err = {0};
	pal_status s = pal__json_read("x", text, n, &e, &err);
	if (!s)
		s = fit ? pal__map_finish(e, &err) : pal__map_check("x", e, &err);
	if (s)
		check_error(s, &err);
	if (!s) {
		FILE *page = fopen("/dev/null", "w");
		CHECK(page && pal__map_report(page, "x", e, &err) == PAL_OK);
		fclose(page);
		again(e);
	}
	json_decref(e);
}

static void transcript(const char *text, size_t n)
{
	pal__workload w = {0};
	pal_error err = {0};
	pal_status s = pal__workload_parse("x", text, n, &w, &err);
	size_t sum = 0;
	if (s)
		check_error(s, &err);
	for (size_t i = 0; i < w.n_turns; i++) {
		CHECK(w.turns[i].n_given && w.turns[i].n_reply);
		CHECK(w.turns[i].given > w.text && w.turns[i].given < w.turns[i].reply);
		sum += w.turns[i].n_given + w.turns[i].n_reply + 2 * strlen("=== given\n");
	}
	CHECK(s || sum == n);
	pal__workload_free(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data + 1;
	int64_t live = pal__mem_live();
	if (!size)
		return 0;
	if (data[0] == 2)
		transcript(text, size - 1);
	else
		evidence(text, size - 1, data[0] == 1);
	CHECK(pal__mem_live() == live);
	return 0;
}
