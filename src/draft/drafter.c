#include "draft/drafter.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/newfile.h"

#define MOST 16           /* tokens of a draft */
#define WINDOW 32768      /* tokens that sources of text remember */
#define MODEL_WINDOW 2048 /* positions that a small model sees */
#define CACHE_FORMAT "palimpsest-passes-1"

/* --- which sources ------------------------------------------------------------------ */

static pal_status open_exit(pal_model *m, const char *layers, pal__draft_source **out,
			    pal_error *err)
{
	char *end;
	long n = strtol(layers, &end, 10);
	if (end == layers || *end)
		return pal__fail(err, PAL_EINVAL, "exit:%s: a number of layers is wanted", layers);
	n = n < -1 ? -1 : n > INT32_MAX ? INT32_MAX : n;
	return pal__draft_exit(m, (int)n, out, err);
}

static pal_status open_source(pal_model *m, const pal_model *vocabulary, const char *what,
			      size_t window, pal__draft_source **out, pal_error *err)
{
	if (!strcmp(what, "ngram"))
		return pal__draft_ngram(window, out, err);
	if (!strcmp(what, "suffix"))
		return pal__draft_suffix(vocabulary, window, NULL, out, err);
	if (!strncmp(what, "suffix:", 7))
		return pal__draft_suffix(vocabulary, window, what + 7, out, err);
	if (!strncmp(what, "model:", 6))
		return pal__draft_model(m, what + 6, MODEL_WINDOW, out, err);
	if (!strncmp(what, "exit:", 5))
		return open_exit(m, what + 5, out, err);
	return pal__fail(err, PAL_EINVAL,
			 "no source of drafts '%s': auto, ngram, suffix, suffix:FILE, model:FILE, "
			 "exit:LAYERS, or mix:SOURCE,SOURCE...",
			 what);
}

/* Opens the sources of a comma-separated list. */
static pal_status open_list(pal_model *m, const pal_model *vocabulary, char *list, size_t window,
			    pal__draft_source **sources, size_t *n, pal_error *err)
{
	char *rest, *one = strtok_r(list, ",", &rest);
	pal_status s = one ? PAL_OK : pal__fail(err, PAL_EINVAL, "a mix of no sources of drafts");
	for (; one && !s; one = strtok_r(NULL, ",", &rest)) {
		if (*n == PAL__DRAFT_SOURCES)
			s = pal__fail(err, PAL_ELIMIT, "a mix of more than %d sources of drafts",
				      PAL__DRAFT_SOURCES);
		else
			s = open_source(m, vocabulary, one, window, &sources[*n], err);
		*n += !s;
	}
	return s;
}

static pal_status open_sources(pal_model *m, const pal_model *vocabulary,
			       const pal_drafter_options *o, pal__draft_source **sources, size_t *n,
			       pal_error *err)
{
	const char *what = o->source ? o->source : "auto";
	size_t window = o->window ? (size_t)o->window : WINDOW;
	if (!strcmp(what, "auto") || !strcmp(what, "mix"))
		what = "mix:ngram,suffix";
	if (strncmp(what, "mix:", 4)) {
		pal_status s = open_source(m, vocabulary, what, window, &sources[0], err);
		*n = !s;
		return s;
	}
	char *list = pal__strndup(what + 4, strlen(what + 4));
	if (!list)
		return pal__fail_memory(err, "a list of sources", strlen(what));
	pal_status s = open_list(m, vocabulary, list, window, sources, n, err);
	pal__free(list);
	return s;
}

/* --- times that are kept -------------------------------------------------------------- */

static pal_status name_cache(pal_drafter *d, const char *dir, pal_error *err)
{
	pal_model_info info;
	pal_model_get_info(d->model, &info);
	size_t n = strlen(dir) + 80;
	d->cache = pal__alloc(n);
	if (!d->cache)
		return pal__fail_memory(err, "a path", n);
	snprintf(d->cache, n, "%s/%016" PRIx64 "-%s-%d.passes", dir, info.hash, info.isa,
		 info.n_threads);
	return PAL_OK;
}

/* What an earlier run learnt. A file that is not as it should be is as good as none: the times are
 * learnt again, and nothing else depends on them. */
static void load_times(pal_drafter *d)
{
	json_t *all = json_load_file(d->cache, 0, NULL), *times = json_object_get(all, "pass_s");
	const char *format = json_string_value(json_object_get(all, "format"));
	bool known = format && !strcmp(format, CACHE_FORMAT);
	for (size_t i = 1; known && i < json_array_size(times) && i <= PAL__DRAFT_MOST + 1; i++) {
		double seconds = json_number_value(json_array_get(times, i));
		if (seconds > 0 && seconds < 3600)
			d->controller.pass_s[i] = seconds;
	}
	json_decref(all);
}

static void save_times(const pal_drafter *d)
{
	json_t *times = json_array();
	for (size_t i = 0; i <= PAL__DRAFT_MOST + 1; i++)
		json_array_append_new(times, json_real(d->controller.pass_s[i]));
	json_t *all = json_pack("{s:s, s:o}", "format", CACHE_FORMAT, "pass_s", times);
	char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
	size_t n = text ? strlen(text) : 0;
	pal__newfile f = PAL__NO_NEWFILE;
	/* The next run learns them again where this fails. */
	if (text && !pal__newfile_open(&f, d->cache, n, NULL) &&
	    !pal__newfile_write(&f, text, n, NULL))
		pal__newfile_finish(&f, text, n, NULL);
	pal__newfile_close(&f);
	free(text);
	json_decref(all);
}

/* --- opening ---------------------------------------------------------------------------- */

pal_status pal__drafter_of(pal_model *model, pal__draft_source *const *sources, size_t n_sources,
			   int most, pal_drafter **out, pal_error *err)
{
	size_t bytes;
	pal_drafter *d = pal__calloc(1, sizeof *d);
	float *logits = NULL;
	if (d && pal__mul_size((size_t)most + 1, model->h.n_vocab * sizeof *logits, &bytes))
		logits = pal__alloc(bytes);
	if (!logits) {
		pal__free(d);
		for (size_t i = 0; i < n_sources; i++)
			sources[i]->close(sources[i]);
		return pal__fail_memory(err, "a drafter", sizeof *d);
	}
	d->model = model;
	d->logits = logits;
	d->most = most;
	d->n_sources = d->chosen = n_sources;
	memcpy(d->sources, sources, n_sources * sizeof *sources);
	for (size_t i = 0; i < n_sources; i++)
		d->stats[i].source = sources[i]->name;
	pal__controller_init(&d->controller);
	*out = d;
	return PAL_OK;
}

pal_status pal_drafter_open(pal_model *model, const pal_drafter_options *options, pal_drafter **out,
			    pal_error *err)
{
	return pal__drafter_open(model, model, options, out, err);
}

pal_status pal__drafter_open(pal_model *model, const pal_model *vocabulary,
			     const pal_drafter_options *options, pal_drafter **out, pal_error *err)
{
	pal_drafter_options o = options ? *options : (pal_drafter_options){0};
	pal__draft_source *sources[PAL__DRAFT_SOURCES];
	pal_drafter *d = NULL;
	size_t n = 0;
	if (o.max_draft < 0 || o.max_draft > PAL__DRAFT_MOST)
		return pal__fail(err, PAL_EINVAL, "drafts of %d tokens: 1 to %d are possible",
				 o.max_draft, PAL__DRAFT_MOST);
	if (o.window < 0 || o.window > PAL_MAX_CONTEXT)
		return pal__fail(err, PAL_EINVAL,
				 "a window of %lld tokens for drafts: 1 to %d are possible",
				 (long long)o.window, PAL_MAX_CONTEXT);
	pal_status s = open_sources(model, vocabulary, &o, sources, &n, err);
	if (s) {
		while (n--)
			sources[n]->close(sources[n]);
		return s;
	}
	s = pal__drafter_of(model, sources, n, o.max_draft ? o.max_draft : MOST, &d, err);
	if (!s && o.cache_dir)
		s = name_cache(d, o.cache_dir, err);
	if (s) {
		pal_drafter_close(d);
		return s;
	}
	if (d->cache)
		load_times(d);
	*out = d;
	return PAL_OK;
}

void pal_drafter_close(pal_drafter *d)
{
	if (!d)
		return;
	if (d->cache)
		save_times(d);
	for (size_t i = 0; i < d->n_sources; i++)
		d->sources[i]->close(d->sources[i]);
	pal__free(d->cache);
	pal__free(d->logits);
	pal__free(d);
}

bool pal_drafter_stats(const pal_drafter *d, size_t i, pal_draft_stats *out)
{
	if (i >= d->n_sources)
		return false;
	*out = d->stats[i];
	return true;
}

/* --- a step ----------------------------------------------------------------------------- */

/* What came after the last step's pending token: every guess at it was right or wrong. */
static void learn(pal_drafter *d, const pal__draft_view *v)
{
	for (size_t i = 0; i < d->n_sources; i++) {
		bool right = true;
		for (int k = 0; k < d->guesses[i].n && right && d->at + k < v->n; k++) {
			right = v->log[d->at + k] == d->guesses[i].ids[k];
			pal__controller_guessed(&d->controller, i, d->guesses[i].sure[k], right);
			d->stats[i].guessed++;
			d->stats[i].right += right;
		}
		d->guesses[i].n = 0;
	}
}

/* Shows the sources what they have not seen of log[n]. */
static void show(pal_drafter *d, const int32_t *log, int64_t n)
{
	int64_t from = d->seen < n ? d->seen : n;
	int64_t tail = d->seen < PAL__DRAFT_TAIL ? d->seen : PAL__DRAFT_TAIL;
	/* A log that does not have what was last seen where it was is another one. */
	if (from == d->seen && memcmp(log + from - tail, d->tail, (size_t)tail * sizeof *log))
		from = 0;
	for (size_t i = 0; i < d->n_sources; i++)
		d->sources[i]->observe(d->sources[i], log, from, n);
	d->seen = n;
	tail = n < PAL__DRAFT_TAIL ? n : PAL__DRAFT_TAIL;
	memcpy(d->tail, log + n - tail, (size_t)tail * sizeof *log);
}

static void ask(pal_drafter *d, size_t i, const pal__draft_view *v, int most)
{
	double start = pal__now();
	int n = d->sources[i]->propose(d->sources[i], v, d->guesses[i].ids, d->guesses[i].sure,
				       most);
	size_t n_vocab = d->model->h.n_vocab;
	int valid = 0;
	n = n < most ? n : most;
	while (valid < n && d->guesses[i].ids[valid] >= 0 &&
	       (size_t)d->guesses[i].ids[valid] < n_vocab) {
		if (d->guesses[i].sure[valid] >= PAL__DRAFT_BUCKETS)
			d->guesses[i].sure[valid] = 0;
		valid++;
	}
	d->guesses[i].n = valid;
	d->guesses[i].seconds = pal__now() - start;
	d->stats[i].seconds += d->guesses[i].seconds;
}

void pal__drafter_begin(pal_drafter *d)
{
	d->at = 0;
}

int pal__drafter_propose(pal_drafter *d, const pal__draft_view *v, int32_t *out, int most)
{
	double best = d->always ? 0 : pal__controller_plain(&d->controller), rate;
	int length = 0;
	if (d->at && d->at < v->n)
		learn(d, v);
	d->at = v->n;
	d->chosen = d->n_sources;
	show(d, v->log, v->n - 1);
	most = most < d->most ? most : d->most;
	for (size_t i = 0; i < d->n_sources; i++) {
		d->guesses[i].n = 0;
		d->guesses[i].asked =
			most > 0 && (pal__controller_awake(&d->controller, i) || d->always);
		if (!d->guesses[i].asked)
			continue;
		ask(d, i, v, most);
		int n = pal__controller_length(&d->controller, i, d->guesses[i].sure,
					       d->guesses[i].n, &rate);
		if (d->always)
			rate = n = d->guesses[i].n;
		if (n && rate > best) {
			best = rate;
			length = n;
			d->chosen = i;
		}
	}
	if (length)
		memcpy(out, d->guesses[d->chosen].ids, (size_t)length * sizeof *out);
	return length;
}

void pal__drafter_checked(pal_drafter *d, int rows, int kept, double seconds)
{
	pal__controller_passed(&d->controller, rows, seconds);
	for (size_t i = 0; i < d->n_sources; i++)
		if (d->guesses[i].asked)
			pal__controller_stepped(&d->controller, i, d->guesses[i].seconds,
						i == d->chosen ? rows : 0, kept);
	if (d->chosen == d->n_sources)
		return;
	d->stats[d->chosen].proposals++;
	d->stats[d->chosen].drafted += (uint64_t)rows - 1;
	d->stats[d->chosen].accepted += (uint64_t)kept - 1;
}
