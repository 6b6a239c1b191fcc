/* pal fit: writes a model's side-car. */
#include "restore/fit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/process.h"
#include "cli/command.h"
#include "cli/engine.h"
#include "cli/output.h"
#include "eval/calibrate.h"
#include "eval/facts.h"
#include "eval/recall.h"
#include "text/stream.h"

#define LOGS 2 /* for calibration */
#define FACTS_EVERY 3
#define LOGS_SEED 1 /* of the first of them */
#define FACTS_SEED 1000000
#define SHOWN_HEADS 8 /* of the ranking */

static pal__engine engine = PAL__ENGINE_DEFAULTS;
static const char *file, *out, *tasks;
static int64_t tokens = 1000000, layer, questions = 40;
static float threshold = 0.1f;
static bool json;

static const pal__option options[] = {
	PAL__TEXT(NULL, 'f', &file, "FILE", "the text (default: standard input)"),
	PAL__TEXT("output", 'o', &out, "FILE", "the side-car to write, NAME.side.gguf"),
	PAL__TEXT("tasks", 0, &tasks, "FILE",
		  "recall tasks to calibrate with, as training/tasks.json (needs -f)"),
	PAL__INT("questions", 0, &questions, 0, 1 << 20,
		 "of the tasks to ask with every layer that is tried (default 40)"),
	PAL__INT("tokens", 0, &tokens, 1, 1e15, "of the text to read at most (default 1000000)"),
	PAL__INT("layer", 0, &layer, 1, 1024,
		 "whose state is projected (default: the lowest that is good enough)"),
	PAL__FLOAT("threshold", 0, &threshold, 0, 1,
		   "good enough: the most that is left of the variance of K where\nchunks are "
		   "selected (default 0.1)"),
	PAL__OPTION_PROPOSER(engine,
			     "another model with the same tokens, whose last layer's states are\n"
			     "projected to all layers (default: the model's own, to those above)"),
	PAL__OPTION_THREADS(engine),
	PAL__OPTION_ISA(engine),
	PAL__OPTION_CACHE_DIR(engine),
	PAL__FLAG("json", 0, &json, "print one JSON object"),
	PAL__OPTION_QUIET(engine),
	PAL__NO_MORE_OPTIONS,
};

typedef struct {
	const char *path;
	pal_model *model;
	pal__stream stream;
	int32_t *kept; /* [n_kept] tokens of the text's start, for calibration and then the fit */
	size_t n_kept, taken;
	pal__tasks *tasks; /* or NULL */
	pal__facts facts;
	uint64_t calls; /* for more text */
	pal__bar bar;
	uint64_t logs_done;
	pal__calibrated first, later;
	pal__fit_options o;
	pal__fit fit;
	pal__recalled reread, recalled[PAL__MAX_LAYERS]; /* recompute's, and of each m */
	double calibrate_s, fit_s, recall_s;
} work;

/* --- the text ------------------------------------------------------------------- */

/* What was kept, then the rest of the stream; with tasks, every third time text full of facts, as
 * long as the stream lasts. */
static pal_status next_tokens(void *user, int32_t *ids, size_t n, size_t *got, pal_error *err)
{
	work *w = user;
	size_t left = w->n_kept - w->taken;
	if (w->tasks && w->calls++ % FACTS_EVERY == FACTS_EVERY - 1) {
		*got = n;
		return pal__facts_next(&w->facts, ids, n, err);
	}
	if (!left)
		return pal__stream_next(&w->stream, ids, n, got, err);
	*got = left < n ? left : n;
	memcpy(ids, w->kept + w->taken, *got * sizeof *ids);
	w->taken += *got;
	return PAL_OK;
}

static pal_status keep_start(work *w, size_t most, pal_error *err)
{
	pal_status s = PAL_OK;
	size_t got = 1;
	w->kept = pal__alloc(most * sizeof *w->kept);
	if (!w->kept)
		return pal__fail_memory(err, "the text", most * sizeof *w->kept);
	while (s == PAL_OK && got && w->n_kept < most) {
		s = pal__stream_next(&w->stream, w->kept + w->n_kept, most - w->n_kept, &got, err);
		w->n_kept += s == PAL_OK ? got : 0;
	}
	return s;
}

/* --- calibration ---------------------------------------------------------------- */

static void on_log(void *user, uint64_t done, uint64_t total)
{
	work *w = user;
	pal__bar_update(&w->bar, w->logs_done * total + done, LOGS * total);
}

/* Logs of the text itself, or with the tasks' facts in it: as long as the text lasts. */
static pal_status ask(work *w, pal__calibration *c, pal_error *err)
{
	pal_status s = keep_start(w, LOGS * PAL__CALIBRATION_LOG, err);
	if (s == PAL_OK && w->n_kept < PAL__CALIBRATION_LEAST)
		s = pal__fail(err, PAL_EINVAL, "too little text: %zu tokens; %d are the least",
			      w->n_kept, PAL__CALIBRATION_LEAST);
	size_t n = w->n_kept < PAL__CALIBRATION_LOG ? w->n_kept : PAL__CALIBRATION_LOG;
	for (size_t i = 0; i < LOGS && s == PAL_OK; i++) {
		uint64_t seed = LOGS_SEED + i;
		if (w->tasks)
			s = pal__calibration_tasks(c, w->tasks, n, i % 2 == 1, seed, err);
		else if ((i + 1) * n <= w->n_kept)
			s = pal__calibration_text(c, w->kept + i * n, n, seed, err);
		w->logs_done++;
	}
	return s;
}

static pal_status open_tasks(work *w, pal_error *err)
{
	if (!tasks)
		return PAL_OK;
	if (!file)
		return pal__fail(err, PAL_EINVAL, "--tasks needs the text in a file: -f FILE");
	w->facts = (pal__facts){.model = w->model, .seed = FACTS_SEED};
	pal_status s = pal__tasks_open(tasks, file, &w->tasks, err);
	w->facts.tasks = w->tasks;
	return s;
}

static pal_status calibrate(work *w, pal_error *err)
{
	pal__calibration *c;
	pal_status s = open_tasks(w, err);
	if (s == PAL_OK)
		s = pal__calibration_new(w->model, &c, err);
	if (s != PAL_OK)
		return s;
	pal__calibration_watch(c, on_log, w);
	pal__bar_start(&w->bar, "calibrating", "tokens", engine.quiet);
	s = ask(w, c, err);
	if (s == PAL_OK)
		s = pal__calibration_choose(c, false, &w->first, err);
	if (s == PAL_OK)
		s = pal__calibration_choose(c, true, &w->later, err);
	pal__bar_end(&w->bar);
	w->calibrate_s = pal__now() - w->bar.start;
	pal__calibration_free(c);
	w->o.first = w->first.heads;
	/* A model that joins no facts has no heads that would find the second one. */
	w->o.later = w->later.hit2 >= 0.5f ? w->later.heads : w->first.heads;
	return s;
}

/* --- results -------------------------------------------------------------------- */

/* A line of the report, or a part of one. */
__attribute__((format(printf, 2, 3))) static pal_status line(pal_error *err, const char *format,
							     ...)
{
	char text[512];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return pal__out_write(text, n < (int)sizeof text ? (size_t)n : sizeof text - 1, err);
}

static pal_status print_heads(const char *name, const pal__calibrated *c, pal_error *err)
{
	pal_status s = line(err, "%s", name);
	for (size_t i = 0; i < c->heads.n && !s; i++)
		s = line(err, "%s%u.%u", i ? " " : "", c->heads.heads[i].layer,
			 c->heads.heads[i].head);
	if (!s)
		s = line(err,
			 " (layer.head): of %zu questions the right chunk is first in %.3f, "
			 "first or second in %.3f\n",
			 c->n_probes, (double)c->hit1, (double)c->hit2);
	for (size_t i = 0; i < c->n_singles && i < SHOWN_HEADS && !s; i++)
		s = line(err, "  alone %u.%u: %.3f, %.3f\n", c->singles[i].head.layer,
			 c->singles[i].head.head, (double)c->singles[i].hit1,
			 (double)c->singles[i].hit2);
	return s;
}

static double recall_of(const pal__recalled *r)
{
	return (double)r->right / (double)r->asked;
}

static pal_status print_report(const work *w, pal_error *err)
{
	const pal__fit *f = &w->fit;
	pal_status s = print_heads("select    ", &w->first, err);
	if (!s && w->later.n_probes)
		s = print_heads("later     ", &w->later, err);
	if (!s)
		s = line(err,
			 "text      %llu tokens, %llu rows fitted, %llu held out, in %.1f s\n"
			 "what is left of the variance of K and V on held-out text, by layer:\n",
			 (unsigned long long)f->tokens, (unsigned long long)f->rows,
			 (unsigned long long)f->held, w->fit_s);
	for (size_t i = 0; i < f->n_m && !s; i++) {
		s = line(err, "%c m = %-4zu", i == f->chosen ? '*' : ' ', f->m[i]);
		if (!s && w->reread.asked)
			s = line(err, "  recall %.3f", recall_of(&w->recalled[i]));
		for (size_t l = pal__fit_from(f, i); l < f->n_layers && !s; l++) {
			const pal__fit_error *e = &f->errors[i * f->n_layers + l];
			s = line(err, "  %zu: %.4f %.4f", l, (double)e->k, (double)e->v);
		}
		if (!s)
			s = line(err, "\n");
	}
	if (!s && w->reread.asked)
		s = line(err, "of %lld questions, in %.1f s; when chunks are read again: %.3f\n",
			 (long long)w->reread.asked, w->recall_s, recall_of(&w->reread));
	const char *best = "; no layer is good enough, this one is the best";
	best = f->good || layer ? "" : best;
	if (!s && f->separate)
		s = line(err, "%s: all layers are projected from state %zu of %s%s\n", out,
			 f->m[f->chosen], engine.proposer, best);
	else if (!s)
		s = line(err, "%s: layers below %zu are computed, the others projected%s\n", out,
			 f->m[f->chosen], best);
	return s;
}

static json_t *heads_json(const pal__calibrated *c)
{
	json_t *chosen = json_array(), *all = json_array();
	for (size_t i = 0; i < c->heads.n; i++)
		json_array_append_new(chosen, json_pack("[i, i]", (int)c->heads.heads[i].layer,
							(int)c->heads.heads[i].head));
	for (size_t i = 0; i < c->n_singles; i++) {
		const pal__head_score *h = &c->singles[i];
		json_array_append_new(all, json_pack("{s:i, s:i, s:f, s:f, s:f}", "layer",
						     (int)h->head.layer, "head", (int)h->head.head,
						     "first", (double)h->hit1, "first_two",
						     (double)h->hit2, "score", (double)h->score));
	}
	return json_pack("{s:I, s:o, s:f, s:f, s:f, s:o}", "questions", (json_int_t)c->n_probes,
			 "heads", chosen, "first", (double)c->hit1, "first_two", (double)c->hit2,
			 "score", (double)c->score, "alone", all);
}

static json_t *errors_json(const pal__fit *f)
{
	json_t *all = json_array();
	for (size_t i = 0; i < f->n_m; i++)
		for (size_t l = pal__fit_from(f, i); l < f->n_layers; l++) {
			const pal__fit_error *e = &f->errors[i * f->n_layers + l];
			json_array_append_new(all, json_pack("{s:I, s:I, s:f, s:f, s:f}", "m",
							     (json_int_t)f->m[i], "layer",
							     (json_int_t)l, "k", (double)e->k, "v",
							     (double)e->v, "lambda", e->lambda));
		}
	return all;
}

static json_t *recalled_json(const pal__recalled *r)
{
	return json_pack("{s:I, s:I}", "questions", (json_int_t)r->asked, "right",
			 (json_int_t)r->right);
}

/* What was asked: for each m, and with the chunks read again. */
static json_t *recall_json(const work *w)
{
	json_t *all = json_array();
	for (size_t i = 0; i < w->fit.n_m; i++) {
		json_t *one = recalled_json(&w->recalled[i]);
		json_object_set_new(one, "m", json_integer((json_int_t)w->fit.m[i]));
		json_array_append_new(all, one);
	}
	return json_pack("{s:o, s:o, s:f}", "recompute", recalled_json(&w->reread), "project", all,
			 "seconds", w->recall_s);
}

static pal_status print_json(const work *w, pal_error *err)
{
	pal_model_info info;
	pal_model_get_info(w->model, &info);
	json_t *all = json_pack(
		"{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:f, s:f, s:f, s:I, s:o, s:o, "
		"s:o, s:o, s:o, s:o}",
		"engine", "palimpsest", "side_car", out, "text", file ? file : "standard input",
		"tokens", (json_int_t)w->fit.tokens, "rows", (json_int_t)w->fit.rows, "held_out",
		(json_int_t)w->fit.held, "layer", (json_int_t)w->fit.m[w->fit.chosen], "good",
		w->fit.good, "threshold", w->o.threshold, "calibrate_s", w->calibrate_s, "fit_s",
		w->fit_s, "rss_bytes", (json_int_t)pal__process_memory("VmHWM"), "select",
		heads_json(&w->first), "select_later", heads_json(&w->later), "errors",
		errors_json(&w->fit), "machine", pal__json_machine(), "build", pal__json_build(),
		"model", pal__json_model(w->path, &info));
	if (all && engine.proposer) {
		pal_model_get_info(engine.proposer_model, &info);
		json_object_set_new(all, "proposer", pal__json_model(engine.proposer, &info));
	}
	if (all && w->reread.asked)
		json_object_set_new(all, "recall", recall_json(w));
	return pal__out_json(all, err);
}

/* --- the command ---------------------------------------------------------------- */

static bool on_progress(void *user, uint64_t done)
{
	work *w = user;
	pal__bar_update(&w->bar, done < (uint64_t)tokens ? done : (uint64_t)tokens,
			(uint64_t)tokens);
	return true;
}

/* Asks with one m's projection, in a side-car that is gone afterwards. */
static pal_status ask_with(void *user, const pal__fit *f, pal_error *err)
{
	work *w = user;
	char path[4096];
	double start = pal__now();
	pal__bar_end(&w->bar); /* of reading, when the first one is asked */
	if (snprintf(path, sizeof path, "%s.trial", out) >= (int)sizeof path)
		return pal__fail(err, PAL_EINVAL, "-o %s: too long a name", out);
	pal_session_options o = {.side_car = path, .proposer = engine.proposer_model};
	pal_status s = pal__fit_write(f, w->model, &w->o, path, err);
	if (s == PAL_OK && !w->reread.asked)
		s = pal__recall_quick(w->model, w->tasks, &o, questions, &w->reread, err);
	o.source = PAL_SOURCE_PROJECT;
	if (s == PAL_OK)
		s = pal__recall_quick(w->model, w->tasks, &o, questions, &w->recalled[f->chosen],
				      err);
	unlink(path);
	w->recall_s += pal__now() - start;
	return s;
}

static pal_status fit(work *w, pal_error *err)
{
	w->o.tokens = (uint64_t)tokens;
	w->o.proposer = engine.proposer_model;
	w->o.layer = (size_t)layer;
	w->o.threshold = (double)threshold;
	w->o.next = next_tokens;
	w->o.progress = on_progress;
	w->o.each = w->tasks && questions ? ask_with : NULL;
	w->o.user = w;
	pal__bar_start(&w->bar, "reading", "tok", engine.quiet);
	pal_status s = pal__fit_run(w->model, &w->o, &w->fit, err);
	pal__bar_end(&w->bar);
	w->fit_s = pal__now() - w->bar.start - w->recall_s;
	if (s == PAL_OK)
		s = pal__fit_write(&w->fit, w->model, &w->o, out, err);
	return s;
}

static pal_status with_text(work *w, pal_error *err)
{
	int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	if (fd < 0)
		return pal__fail(err, PAL_EIO, "%s: %s", file, strerror(errno));
	pal__stream_init(&w->stream, w->model->tokenizer, fd, file ? file : "standard input", 0);
	pal_status s = calibrate(w, err);
	if (s == PAL_OK)
		s = fit(w, err);
	if (s == PAL_OK)
		s = json ? print_json(w, err) : print_report(w, err);
	pal__facts_end(&w->facts);
	pal__tasks_close(w->tasks);
	pal__stream_free(&w->stream);
	pal__free(w->kept);
	pal__free(w->first.singles);
	pal__free(w->later.singles);
	pal__fit_free(&w->fit);
	if (file)
		close(fd);
	return s;
}

static pal_status check_output(const char *model, pal_error *err)
{
	const char *read[] = {model, engine.proposer, file, tasks};
	pal_status s = PAL_OK;
	if (!out)
		return pal__fail(err, PAL_EINVAL,
				 "where to write the side-car is missing: -o FILE");
	for (size_t i = 0; i < sizeof read / sizeof *read && s == PAL_OK; i++)
		if (read[i])
			s = pal__out_other(out, read[i], err);
	return s;
}

static pal_status run(const char *path, pal_error *err)
{
	pal_model *model;
	pal_status s = pal__engine_model(&engine, path, &model, NULL, err);
	if (s != PAL_OK)
		return s;
	s = check_output(path, err);
	work *w = pal__calloc(1, sizeof *w);
	if (s == PAL_OK && !w)
		s = pal__fail_memory(err, "the text", sizeof *w);
	if (s == PAL_OK) {
		w->path = path;
		w->model = model;
		s = with_text(w, err);
	}
	pal__free(w);
	pal__engine_close(&engine, model);
	return s;
}

const pal__command pal__command_fit = {
	.name = "fit",
	.summary = "fit a side-car, which restoration uses, to a model",
	.about = "Reads text, streams it through the model, and writes a side-car: which heads\n"
		 "find the chunks to restore, and a projection from the state of a lower layer\n"
		 "to K and V of the layers above, or from a proposer's state to all of them.\n",
	.options = options,
	.run = run,
};
