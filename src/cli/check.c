/* pal check: whether a file of evidence supports what it says. */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/command.h"
#include "cli/output.h"
#include "eval/evidence.h"
#include "eval/map_evidence.h"
#include "eval/seal.h"

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

/* What a value map says of each of its cells. */
static pal_status print_cells(const json_t *e, pal_error *err)
{
	json_t *f;
	size_t i;
	pal_status s = PAL_OK;
	json_array_foreach(json_object_get(e, "figures"), i, f) s = s ? s : pal__map_line(f, err);
	return s;
}

static pal_status check(const char *path, json_t *e, pal_error *err)
{
	const char *format = json_string_value(json_object_get(e, "format"));
	bool map = format && !strcmp(format, PAL__MAP_FORMAT);
	pal_status s = map ? pal__map_check(path, e, err) : pal__evidence_check(path, e, err);
	if (s)
		return s;
	return map ? print_cells(e, err) : print_verdicts(e, err);
}

static pal_status run(const char *path, pal_error *err)
{
	pal__file f;
	json_t *e = NULL;
	pal_status s = pal__file_map(path, &f, err);
	if (s)
		return s;
	s = pal__json_read(path, (const char *)f.data, f.size, &e, err);
	if (!s)
		s = check(path, e, err);
	json_decref(e);
	pal__file_unmap(&f);
	return s;
}

const pal__command pal__command_check = {
	.name = "check",
	.summary = "recompute what an evidence file says",
	.about =
		"FILE is what pal recall -o or pal map -o wrote. Every figure and every verdict "
		"is\n"
		"computed again from the samples in it; a file that does not support what it says\n"
		"is refused, with the first thing that is wrong. Otherwise the verdicts are "
		"printed.\n",
	.options = options,
	.operand = "FILE",
	.operand_is = "the evidence file",
	.run = run,
};
