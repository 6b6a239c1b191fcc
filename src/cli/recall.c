/* pal recall: whether a model remembers what was evicted. */
#include "eval/recall.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/engine.h"
#include "cli/output.h"
#include "eval/evidence.h"
#include "eval/report.h"

static pal__engine engine = PAL__ENGINE_DEFAULTS;
static pal__recall_plan plan = {.questions = 500, .turns = 500, .texts = 4, .seed = 1};
static const char *tasks_path, *filler_path, *lengths, *kinds, *arms, *out_path, *report_path,
	*form = "plain";
static int64_t reread;
static bool json, no_controls, no_restore_generated;

static const pal__option options[] = {
	PAL__TEXT("tasks", 0, &tasks_path, "FILE", "the tasks, as training/tasks.json"),
	PAL__TEXT("filler", 0, &filler_path, "FILE", "the text between the facts"),
	PAL__TEXT("lengths", 0, &lengths, "N,N...",
		  "tokens of the logs, ascending (default: the trained length)"),
	PAL__TEXT("kinds", 0, &kinds, "NAME,...",
		  "kinds of tasks (default: all that are not hard)"),
	PAL__TEXT("arms", 0, &arms, "ARM,...",
		  "besides oracle and window: SOURCE[:oracle|random|lexical|both]\n"
		  "[:original], of\n"
		  "recompute, spill-f16, spill-int8, spill-affine4, hidden, project\n"
		  "(default recompute,spill-f16,spill-affine4, project with --side)"),
	PAL__FLAG("no-controls", 0, &no_controls, "no broken arms; nothing can be validated then"),
	PAL__INT("questions", 0, &plan.questions, 1, 1 << 20,
		 "of each kind at each length (default 500)"),
	PAL__INT("facts", 0, &plan.facts, 1, PAL__SAMPLE_FACTS,
		 "in one log at most (default: one for every 128 tokens)"),
	PAL__INT("turns", 0, &plan.turns, 0, 1 << 20,
		 "questions over growing sessions, 50 a session (default 500)"),
	PAL__INT("texts", 0, &plan.texts, 0, 1 << 16,
		 "samples of text for agreement with the oracle (default 4)"),
	PAL__INT("oracle-max", 0, &plan.oracle_max, 1, PAL_MAX_CONTEXT,
		 "longest log for full K/V (default: 8 times the trained length)"),
	PAL__CHOICE("form", 0, &form, "plain|chat", "of the questions (default plain)"),
	PAL__SEED("seed", 's', &plan.seed, "of the samples (default 1)"),
	PAL__OPTIONS_BOUNDED(engine),
	PAL__INT("reread", 0, &reread, 1, 256, "positions read again with them (default 32)"),
	PAL__FLAG("no-restore-generated", 0, &no_restore_generated,
		  "do not restore again while an answer is generated"),
	PAL__TEXT(NULL, 'o', &out_path, "FILE", "write the evidence to FILE, for pal check"),
	PAL__TEXT("report", 0, &report_path, "FILE", "write a page of HTML to FILE"),
	PAL__FLAG("json", 0, &json, "print the evidence instead of the table"),
	PAL__OPTION_THREADS(engine),
	PAL__OPTION_BATCH(engine),
	PAL__OPTION_ISA(engine),
	PAL__OPTION_CACHE_DIR(engine),
	PAL__OPTION_KV_TYPE(engine),
	PAL__OPTION_QUIET(engine),
	PAL__NO_MORE_OPTIONS,
};

static pal_status parse_lengths(const pal_model_info *info, pal_error *err)
{
	if (!lengths) {
		plan.lengths[plan.n_lengths++] = info->n_ctx_train;
		return PAL_OK;
	}
	for (const char *at = lengths; at;) {
		char *end = NULL;
		long long n = *at >= '0' && *at <= '9' ? strtoll(at, &end, 10) : 0;
		int64_t last = plan.n_lengths ? plan.lengths[plan.n_lengths - 1] : 0;
		if (n <= last || n > PAL_MAX_LOG || (*end && *end != ',') ||
		    plan.n_lengths == PAL__RECALL_LENGTHS)
			return pal__fail(
				err, PAL_EINVAL,
				"--lengths %s: at most %d ascending numbers with commas between "
				"them are wanted",
				lengths, PAL__RECALL_LENGTHS);
		plan.lengths[plan.n_lengths++] = n;
		at = *end ? end + 1 : NULL;
	}
	return PAL_OK;
}

static pal_status parse_kinds(const pal__tasks *tasks, pal_error *err)
{
	char name[64];
	for (int i = 0; !kinds && i < pal__tasks_n_kinds(tasks); i++)
		if (!pal__tasks_hard(tasks, i))
			plan.kinds[plan.n_kinds++] = i;
	for (const char *at = kinds; at;) {
		size_t n = strcspn(at, ",");
		snprintf(name, sizeof name, "%.*s", (int)(n < 64 ? n : 63), at);
		int kind = pal__tasks_find_kind(tasks, name);
		for (int i = 0; i < plan.n_kinds; i++)
			kind = plan.kinds[i] == kind ? -1 : kind;
		if (kind < 0)
			return pal__fail(err, PAL_EINVAL,
					 "--kinds %s: '%s' is no kind of the tasks, or there twice",
					 kinds, name);
		plan.kinds[plan.n_kinds++] = kind;
		at = at[n] ? at + n + 1 : NULL;
	}
	return plan.n_kinds ? PAL_OK : pal__fail(err, PAL_EINVAL, "no kinds of tasks");
}

static pal_status fill_plan(const pal__tasks *tasks, const pal_model_info *info, pal_error *err)
{
	plan.options = pal__engine_session(&engine, 0);
	plan.options.reread = (int)reread;
	plan.options.no_restore_generated = no_restore_generated;
	plan.chat = !strcmp(form, "chat");
	if (!plan.oracle_max)
		plan.oracle_max = 8 * info->n_ctx_train < PAL_MAX_CONTEXT ? 8 * info->n_ctx_train
									  : PAL_MAX_CONTEXT;
	pal_status s = pal__engine_check(&engine, err);
	if (!s)
		s = parse_lengths(info, err);
	if (!s)
		s = parse_kinds(tasks, err);
	if (!s)
		s = pal__recall_arms(arms              ? arms
				     : engine.side_car ? "recompute,spill-f16,spill-affine4,project"
						       : "recompute,spill-f16,spill-affine4",
				     !no_controls, &plan, err);
	return s;
}

static const char *word(const json_t *j, const char *name)
{
	return json_string_value(json_object_get(j, name));
}

static double number(const json_t *j, const char *name)
{
	return json_number_value(json_object_get(j, name));
}

static pal_status print_table(const json_t *e, pal_error *err)
{
	char line[512];
	size_t i;
	json_t *f;
	pal_status s = PAL_OK;
	json_array_foreach(json_object_get(e, "figures"), i, f)
	{
		int n = snprintf(
			line, sizeof line,
			"%-30s %-8s %9.0f  recall %.3f (%.3f to %.3f of %.0f)  chunks %.1f  "
			"%.1f ms\n",
			word(f, "arm"), word(f, "kind"), number(f, "length"), number(f, "recall"),
			number(f, "low"), number(f, "high"), number(f, "n"),
			number(f, "chunks") / number(f, "n"), number(f, "us") / 1e3);
		s = s ? s : pal__out_write(line, (size_t)n, err);
	}
	json_array_foreach(json_object_get(e, "agreement"), i, f)
	{
		int n = snprintf(
			line, sizeof line, "%-30s text     %9.0f  agrees %.3f (of %.0f)  KL %.4f\n",
			word(f, "arm"), number(f, "length"), number(f, "agree") / number(f, "n"),
			number(f, "n"), number(f, "kl"));
		s = s ? s : pal__out_write(line, (size_t)n, err);
	}
	json_array_foreach(json_object_get(e, "verdicts"), i, f)
	{
		int n = snprintf(line, sizeof line, "%-30s %-8s %9.0f  %s: %s\n", word(f, "arm"),
				 word(f, "kind"), number(f, "length"), word(f, "verdict"),
				 word(f, "why"));
		s = s ? s : pal__out_write(line, (size_t)n, err);
	}
	return s;
}

static void on_progress(void *user, uint64_t done, uint64_t total)
{
	pal__bar_update(user, done, total);
}

static pal_status measure(pal_model *model, const pal__tasks *tasks, json_t *e, pal_error *err)
{
	pal__bar bar;
	pal__bar_start(&bar, "asking", "tok", engine.quiet);
	plan.progress = on_progress;
	plan.user = &bar;
	pal_status s = pal__recall_run(model, tasks, &plan, e, err);
	pal__bar_end(&bar);
	if (!s)
		s = pal__evidence_finish(e, err);
	if (!s && out_path)
		s = pal__write_evidence(out_path, e, NULL, err);
	if (!s && report_path)
		s = pal__write_evidence(report_path, e, pal__report_write, err);
	if (!s)
		s = json ? pal__out_evidence(e, err) : print_table(e, err);
	return s;
}

static pal_status run(const char *path, pal_error *err)
{
	pal_model *model = NULL;
	pal__tasks *tasks = NULL;
	pal_model_info info;
	if (!tasks_path || !filler_path)
		return pal__fail(err, PAL_EINVAL,
				 "--tasks and --filler are needed: which tasks to ask "
				 "about, and the text between the facts");
	pal_status s = pal__tasks_open(tasks_path, filler_path, &tasks, err);
	if (!s)
		s = pal__engine_model(&engine, path, &model, NULL, err);
	if (!s) {
		pal_model_get_info(model, &info);
		s = fill_plan(tasks, &info, err);
	}
	if (!s) {
		json_t *e = pal__json_evidence(PAL__EVIDENCE_FORMAT, path, &info, engine.kv_type);
		if (e && engine.proposer) {
			pal_model_get_info(engine.proposer_model, &info);
			json_object_set_new(e, "proposer", pal__json_model(engine.proposer, &info));
		}
		s = e ? measure(model, tasks, e, err) : pal__fail_memory(err, "the evidence", 0);
		json_decref(e);
	}
	pal__engine_close(&engine, model);
	pal__tasks_close(tasks);
	return s;
}

const pal__command pal__command_recall = {
	.name = "recall",
	.summary = "measure whether what was evicted is remembered",
	.about =
		"Puts facts into long texts, lets them fall out of sight, and asks for them: with\n"
		"full K/V (oracle), with the window alone, and with chunks restored by each "
		"source;\n"
		"and with restoration broken on purpose, when it must forget. The verdicts follow\n"
		"from the samples, which are all in the evidence (-o).\n",
	.options = options,
	.run = run,
};
