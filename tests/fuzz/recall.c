/* Any bytes as evidence of recall, and as a file of tasks: read, or refused with one sentence.
 *
 * The first byte chooses: 0, evidence as it is; 1, evidence whose figures, verdicts and sum are
 * made to fit first, as by somebody who means harm: it must then hold together; 2, tasks.
 */
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "check.h"
#include "eval/evidence.h"
#include "eval/report.h"
#include "eval/seal.h"
#include "eval/tasks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(pal_status s, const pal_error *err)
{
	CHECK(s == PAL_EFORMAT || s == PAL_ENOMEM);
	CHECK(err->code == s && err->text[0] && !strchr(err->text, '\n'));
}

static void fitted(const char *text, size_t n)
{
	json_t *e = json_loadb(text, n, 0, NULL);
	pal_error err = {0};
	pal_status s = e ? pal__evidence_finish(e, &err) : PAL_OK;
	if (s)
		check_error(s, &err);
	else if (e)
		CHECK(pal__evidence_check("x", e, &err) == PAL_OK);
	if (e && !s) {
		FILE *page = fopen("/dev/null", "w");
		CHECK(page && pal__report_write(page, "x", e, &err) == PAL_OK);
		fclose(page);
	}
	json_decref(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char filler[2048];
	const char *text = (const char *)data + 1;
	pal_error err = {0};
	int64_t live = pal__mem_live();
	if (!size)
		return 0;
	if (data[0] == 1) {
		fitted(text, size - 1);
	} else if (data[0] == 2) {
		pal__tasks *t = NULL;
		memset(filler, 'a', sizeof filler);
		pal_status s =
			pal__tasks_parse("x", text, size - 1, filler, sizeof filler, &t, &err);
		if (s)
			check_error(s, &err);
		for (int i = 0; !s && i < pal__tasks_n_kinds(t); i++)
			CHECK(pal__tasks_kind(t, i) &&
			      pal__tasks_find_kind(t, pal__tasks_kind(t, i)) >= 0);
		pal__tasks_close(t);
	} else {
		json_t *e = NULL;
		pal_status s = pal__json_read("x", text, size - 1, &e, &err);
		if (!s)
			s = pal__evidence_check("x", e, &err);
		if (s)
			check_error(s, &err);
		json_decref(e);
	}
	CHECK(pal__mem_live() == live);
	return 0;
}
