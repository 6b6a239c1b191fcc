/* pal map: where drafting pays. */
#include "eval/map.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/engine.h"
#include "cli/output.h"
#include "eval/map_evidence.h"
#include "eval/map_report.h"

static pal__engine engine = PAL__ENGINE_DEFAULTS;
static pal__map_plan plan = {.pairs = 3, .temperature = 0.8f};
static const char *folder = "bench/workloads", *vocabulary_path, *out_path, *report_path;
static pal__texts names, drafters, isas;
static bool json;

static const pal__option options[] = {
	PAL__TEXT("workloads", 0, &folder, "DIR", "the transcripts (default bench/workloads)"),
	PAL__TEXTS("workload", 0, &names, "NAME",
		   "only this one; may be given again (default: all of DIR)"),
	PAL__TEXTS("draft", 0, &drafters, "SOURCE",
		   "as of pal run, or none for the noise of the measurement; may be\n"
		   "given again (default ngram, suffix and auto)"),
	PAL__TEXTS("isa", 0, &isas, "ISA",
		   "scalar, avx2, avx512, amx or neon; may be given again (default:\n"
		   "the best here)"),
	PAL__FLAG("replay", 0, &plan.replay,
		  "the replies are the transcripts', each forward pass is real: speed\n"
		  "without trained weights"),
	PAL__TEXT("tokenizer", 0, &vocabulary_path, "MODEL",
		  "whose vocabulary makes the transcripts into token ids, for a model\n"
		  "without one of its own"),
	PAL__INT("pairs", 0, &plan.pairs, 1, PAL__MAP_PAIRS,
		 "times that each cell is measured (default 3)"),
	PAL__INT(NULL, 'n', &plan.most, 1, PAL_MAX_CONTEXT,
		 "tokens of a reply at most (default: as many as the transcript's)"),
	PAL__INT("turns", 0, &plan.turns, 1, PAL__WORKLOAD_TURNS,
		 "of each transcript at most (default: all)"),
	PAL__FLOAT("temp", 0, &plan.temperature, 0, 1000,
		   "temperature of the sampled half (default 0.8; 0: greedy only)"),
	PAL__SEED("seed", 's', &plan.seed, "of the sampled half (default 0)"),
	PAL__FLAG("ignore-eos", 0, &plan.ignore_end,
		  "freely: go on after an end-of-sequence token"),
	PAL__TEXT(NULL, 'o', &out_path, "FILE", "write the evidence to FILE, for pal check"),
	PAL__TEXT("report", 0, &report_path, "FILE", "write a page of HTML to FILE"),
	PAL__FLAG("json", 0, &json, "print the evidence instead of the table"),
	PAL__OPTION_THREADS(engine),
	PAL__OPTION_BATCH(engine),
	PAL__OPTION_CACHE_DIR(engine),
	PAL__OPTIONS_KV(engine),
	PAL__OPTION_KV_TYPE(engine),
	PAL__OPTION_QUIET(engine),
	PAL__NO_MORE_OPTIONS,
};

/* --- workloads --------------------------------------------------------------------- */

struct workloads {
	pal__workload items[PAL__MAP_LIST];
	size_t n;
};

static int is_transcript(const struct dirent *d)
{
	size_t n = strlen(d->d_name);
	return n > 4 && !strcmp(d->d_name + n - 4, ".txt");
}

static pal_status add_workload(struct workloads *w, const char *file, const char *end,
			       pal_error *err)
{
	char path[4096];
	if (w->n == PAL__MAP_LIST)
		return pal__fail(err, PAL_ELIMIT, "%s: at most %d workloads are possible", folder,
				 PAL__MAP_LIST);
	int n = snprintf(path, sizeof path, "%s/%s%s", folder, file, end);
	if (n >= (int)sizeof path)
		return pal__fail(err, PAL_ELIMIT, "%s: its name is too long", folder);
	pal_status s = pal__workload_open(path, &w->items[w->n], err);
	w->n += !s;
	return s;
}

static pal_status open_workloads(struct workloads *w, pal_error *err)
{
	struct dirent **found;
	pal_status s = PAL_OK;
	for (size_t i = 0; i < names.n && !s; i++)
		s = add_workload(w, names.items[i], ".txt", err);
	if (names.n || s)
		return s;
	int n = scandir(folder, &found, is_transcript, alphasort);
	if (n < 0)
		return pal__fail(err, PAL_EIO, "%s: cannot be read: %s (see --workloads)", folder,
				 strerror(errno));
	for (int i = 0; i < n; i++) {
		s = s ? s : add_workload(w, found[i]->d_name, "", err);
		free(found[i]);
	}
	free(found);
	if (!s && !w->n)
		s = pal__fail(err, PAL_EINVAL, "%s: no .txt file in it (see --workloads)", folder);
	return s;
}

/* --- measuring --------------------------------------------------------------------- */

static pal_status check_list(const char *option, const pal__texts *list, pal_error *err)
{
	if (list->n > PAL__MAP_LIST)
		return pal__fail(err, PAL_ELIMIT, "--%s: at most %d are possible", option,
				 PAL__MAP_LIST);
	for (size_t i = 0; i < list->n; i++)
		for (size_t j = 0; j < i; j++)
			if (!strcmp(list->items[i], list->items[j]))
				return pal__fail(err, PAL_EINVAL, "--%s %s is given twice", option,
						 list->items[i]);
	return PAL_OK;
}

static void on_progress(void *user, uint64_t done, uint64_t total)
{
	pal__bar_update(user, done, total);
}

/* The evidence, but for runs and what follows from them. */
static pal_status begin(const char *path, const pal_model *model, const pal_model *vocabulary,
			json_t **out, pal_error *err)
{
	json_t *parameters = NULL;
	pal_model_info info;
	pal_status s = pal__map_parameters(&plan, model, vocabulary, &parameters, err);
	if (s)
		return s;
	pal_model_get_info(model, &info);
	json_object_set_new(parameters, "isas", json_array());
	*out = pal__json_evidence(PAL__MAP_FORMAT, path, &info, engine.kv_type);
	json_object_set_new(*out, "kv", json_string(engine.kv));
	return json_object_set_new(*out, "parameters", parameters) == 0
		       ? PAL_OK
		       : pal__fail_memory(err, "the evidence", 0);
}

/* The cells of one instruction set. The first one begins the evidence. */
static pal_status measure(const char *path, const char *isa, json_t *runs, json_t **evidence,
			  pal_error *err)
{
	pal_model *model = NULL, *words = NULL;
	const pal_model_options quick = {.n_threads = 1, .no_weights = true};
	pal_model_info info;
	pal__bar bar;
	engine.isa = isa;
	pal_status s = pal__engine_model(&engine, path, &model, NULL, err);
	if (!s && vocabulary_path)
		s = pal_model_open(vocabulary_path, &quick, &words, err);
	if (!s && !*evidence)
		s = begin(path, model, words ? words : model, evidence, err);
	if (!s) {
		pal_model_get_info(model, &info);
		json_array_append_new(
			json_object_get(json_object_get(*evidence, "parameters"), "isas"),
			json_string(info.isa));
		pal__bar_start(&bar, "measuring", "tok", engine.quiet);
		plan.user = &bar;
		s = pal__map_run(&plan, model, words ? words : model, runs, err);
		pal__bar_end(&bar);
	}
	pal_model_close(words);
	pal__engine_close(&engine, model);
	return s;
}

static pal_status print_table(const json_t *e, pal_error *err)
{
	json_t *f;
	size_t i;
	pal_status s = PAL_OK;
	json_array_foreach(json_object_get(e, "figures"), i, f) s = s ? s : pal__map_line(f, err);
	return s;
}

static pal_status report(json_t *e, pal_error *err)
{
	pal_status s = pal__map_finish(e, err);
	if (!s && out_path)
		s = pal__write_evidence(out_path, e, NULL, err);
	if (!s && report_path)
		s = pal__write_evidence(report_path, e, pal__map_report, err);
	if (!s)
		s = json ? pal__out_evidence(e, err) : print_table(e, err);
	int differing = s ? 0 : pal__map_differing(e);
	if (differing)
		s = pal__fail(err, PAL_EFORMAT,
			      "the output of %d cells is not that of plain decoding", differing);
	return s;
}

static pal_status run(const char *path, pal_error *err)
{
	static const pal__texts usual = {.items = {"ngram", "suffix", "auto"}, .n = 3};
	struct workloads w = {0};
	json_t *e = NULL, *runs = json_array();
	drafters = drafters.n ? drafters : usual;
	pal_status s = pal__engine_check(&engine, err);
	if (!s)
		s = check_list("workload", &names, err);
	if (!s)
		s = check_list("draft", &drafters, err);
	if (!s)
		s = check_list("isa", &isas, err);
	if (!s)
		s = open_workloads(&w, err);
	plan.workloads = w.items;
	plan.n_workloads = w.n;
	plan.drafters = drafters.items;
	plan.n_drafters = drafters.n;
	plan.session = pal__engine_session(&engine, 0);
	plan.cache_dir = engine.cache_dir;
	plan.progress = on_progress;
	for (size_t i = 0; i < (isas.n ? isas.n : 1) && !s; i++)
		s = measure(path, isas.n ? isas.items[i] : NULL, runs, &e, err);
	if (!s && json_object_set(e, "runs", runs) != 0)
		s = pal__fail_memory(err, "the evidence", 0);
	if (!s)
		s = report(e, err);
	for (size_t i = 0; i < w.n; i++)
		pal__workload_free(&w.items[i]);
	json_decref(runs);
	json_decref(e);
	return s;
}

const pal__command pal__command_map = {
	.name = "map",
	.summary = "measure where drafting pays",
	.about = "Takes the model along transcripts of different work, decoding plainly and with\n"
		 "each drafter turn by turn, and says of each: how many times faster, which share\n"
		 "of the drafts was accepted, how many tokens came of one forward pass, and\n"
		 "whether every token is that of plain decoding. If one is not, the exit code is\n"
		 "1.\n",
	.options = options,
	.run = run,
};
