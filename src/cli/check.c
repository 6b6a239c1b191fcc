/* pal check: whether a file of evidence supports what it says. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/command.h"
#include "cli/output.h"
#include "eval/evidence.h"

static const pal__option options[] = {PAL__NO_MORE_OPTIONS};

static pal_status print_verdicts(const json_t *e, pal_error *err)
{
	json_t *verdicts = json_object_get(e, "verdicts"), *v;
	size_t i;
	pal_status s = PAL_OK;
	json_array_foreach(verdicts, i, v)
	{
		char line[512];
		int n = snprintf(line, sizeof line, "%s, %s at %lld: %s: %s\n",
				 json_string_value(json_object_get(v, "arm")),
				 json_string_value(json_object_get(v, "kind")),
				 (long long)json_integer_value(json_object_get(v, "length")),
				 json_string_value(json_object_get(v, "verdict")),
				 json_string_value(json_object_get(v, "why")));
		s = s ? s : pal__out_write(line, (size_t)n, err);
	}
	return s;
}

static pal_status run(const char *path, pal_error *err)
{
	pal__file f;
	json_t *e = NULL;
	pal_status s = pal__file_map(path, &f, err);
	if (s)
		return s;
	s = pal__evidence_parse(path, (const char *)f.data, f.size, &e, err);
	if (!s)
		s = print_verdicts(e, err);
	json_decref(e);
	pal__file_unmap(&f);
	return s;
}

const pal__command pal__command_check = {
	.name = "check",
	.summary = "recompute the verdicts of an evidence file",
	.about =
		"FILE is what pal recall -o wrote. Every figure and every verdict is\n"
		"computed again from the samples in it; a file that does not support what it says\n"
		"is refused, with the first thing that is wrong. Otherwise the verdicts are "
		"printed.\n",
	.options = options,
	.operand = "FILE",
	.operand_is = "the evidence file",
	.run = run,
};
