/* Filling the far rows, and everything that can fail on the way. Arguments: model files of
 * tests/tools/mkmodel.py. */
#include "restore/restore.h"

#include <dirent.h>
#include <unistd.h>

#include "past.h"
#include "text/vocabulary.h"

static char **paths;
static int n_paths;

static void fill(past *p, const int32_t *chunks, int n, int64_t end)
{
	pal_error err;
	if (pal__restore_fill(&p->s->restore, chunks, NULL, n, end, false, &err))
		fail_msg("%s", err.text);
}

/* Chunks lie behind the sinks, one after the other, with their margins; those of neighbours are
 * there once, and what is not evicted is not. */
static void places(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		pal_session_options o = past_options(PAL_SOURCE_SPILL);
		past p = past_open(paths[i], &o, 303);
		const pal__kv *kv = &p.s->kv;
		int64_t end = past_end(&p), row = PAST_SINK;
		assert_int_equal(end, 303 - PAST_WINDOW);
		fill(&p, (const int32_t[]){0, 3, 4, 6, 8}, 5, end);
		const int64_t spans[][2] = {
			{PAST_SINK, 40}, {88, 136}, {136, 168}, {184, 232}, {248, end}};
		for (int j = 0; j < 5; j++) {
			past_same(&p, spans[j][0], spans[j][1], (size_t)row, 1e-3f, 5e-4f);
			row += spans[j][1] - spans[j][0];
		}
		assert_int_equal(kv->far_rows, row);
		/* The sinks are where they were. */
		past_same(&p, 0, PAST_SINK, 0, 0, 0);
		fill(&p, NULL, 0, end);
		assert_int_equal(kv->far_rows, PAST_SINK);
		assert_int_equal(p.s->restore.filled[PAL_SOURCE_SPILL], 5);
		assert_int_equal(p.s->restore.fallbacks, 0);
		assert_string_equal(p.s->restore.note, "");
		past_close(&p);
	}
}

/* What a source cannot give is recomputed, counted and said; or an error where the source is
 * prescribed. */
static void fallbacks(void **state)
{
	static const int32_t chunks[] = {2, 5};
	static const uint8_t spilled[] = {PAL_SOURCE_SPILL, PAL_SOURCE_SPILL},
			     mixed[] = {PAL_SOURCE_RECOMPUTE, PAL_SOURCE_SPILL},
			     unknown[] = {PAL_SOURCE_HIDDEN, PAL_SOURCE_SPILL};
	pal_session_options o = past_options(PAL_SOURCE_SPILL);
	past p = past_open(paths[0], &o, 300);
	pal__restore *r = &p.s->restore;
	pal_error err;
	const uint8_t byte = 0x77;
	int64_t end = past_end(&p);
	(void)state;
	assert_int_equal(pal__restore_fill(r, chunks, spilled, 2, end, true, &err), PAL_OK);
	assert_int_equal(
		pal__disk_write(&r->spill.disk, &byte, 1, 9 * r->spill.record_bytes + 100, NULL),
		PAL_OK);
	fill(&p, chunks, 2, end);
	assert_int_equal(r->fallbacks, 1);
	assert_string_equal(r->note, "the spill file's record of positions 72 to 79 is damaged: "
				     "recomputed");
	assert_true(r->sources[0] == PAL_SOURCE_RECOMPUTE && r->sources[1] == PAL_SOURCE_SPILL);
	assert_int_equal(r->filled[PAL_SOURCE_RECOMPUTE], 1);
	assert_int_equal(r->filled[PAL_SOURCE_SPILL], 3);
	past_same(&p, 152, 200, PAST_SINK + 48, 1e-3f, 5e-4f);
	/* V of layer 0 has seen no other position, and so it is the same when it is recomputed. */
	float k[PAL__KV_MAX_DIM], v[PAL__KV_MAX_DIM];
	past_far(&p.s->kv, 0, 0, PAST_SINK, k, v);
	assert_memory_equal(v, past_row(&p, 56, 0, 0) + p.m->h.head_dim,
			    p.m->h.head_dim * sizeof *v);
	assert_int_equal(pal__restore_fill(r, chunks, mixed, 2, end, true, &err), PAL_OK);
	assert_int_equal(pal__restore_fill(r, chunks, spilled, 2, end, true, &err), PAL_EFORMAT);
	assert_string_equal(err.text, "the spill file's record of positions 72 to 79 is damaged");
	assert_int_equal(p.s->kv.far_rows, PAST_SINK);
	assert_int_equal(r->n_chunks, 0);
	assert_int_equal(pal__restore_fill(r, chunks, unknown, 2, end, true, &err), PAL_EINVAL);
	assert_string_equal(err.text, "this session has no source hidden");
	assert_int_equal(r->fallbacks, 1);
	past_close(&p);
}

/* --- failures ----------------------------------------------------------------------- */

static int open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;
	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void allocation_failures(void **state)
{
	pal_model *m = past_model(paths[0], 2, NULL);
	int64_t live = pal__mem_live();
	int files = open_files();
	(void)state;
	for (int source = PAL_SOURCE_RECOMPUTE; source <= PAL_SOURCE_HIDDEN; source++) {
		pal_status status = PAL_ENOMEM;
		int n = 0;
		for (; status; n++) {
			pal_session_options o = past_options((pal_source)source);
			pal_session *s = NULL;
			pal_error err;
			pal__mem_fail_after(n);
			status = pal_session_open(m, &o, &s, &err);
			bool failed = pal__mem_failed();
			pal__mem_fail_after(-1);
			assert_int_equal(status, failed ? PAL_ENOMEM : PAL_OK);
			pal_session_close(s);
			assert_int_equal(pal__mem_live(), live);
			assert_int_equal(open_files(), files);
		}
		assert_true(n > 2);
	}
	/* No file can be made. */
	pal_session_options o = past_options(PAL_SOURCE_SPILL);
	pal_session *s = NULL;
	pal_error err;
	o.disk_dir = "/nowhere/at/all";
	assert_int_equal(pal_session_open(m, &o, &s, &err), PAL_EIO);
	assert_int_equal(pal__mem_live(), live);
	assert_int_equal(open_files(), files);
	pal_model_close(m);
}

/* A side-car of random weights for m, or for m and a proposer. */
static void write_side(const pal_model *m, const pal_model *proposer, const char *path)
{
	size_t from = proposer ? 0 : 1, n = m->h.n_layers - from;
	size_t y = 2 * m->h.n_kv_heads * m->h.head_dim, e = (proposer ? proposer : m)->h.n_embd;
	float *w = malloc(y * e * sizeof *w);
	const float *weights[8], *bias[8];
	const float record[8] = {0};
	assert_true(w && n <= 8);
	for (size_t i = 0; i < y * e; i++)
		w[i] = (float)(i * 2654435761u % 256) * 0x1p-10f - 0.125f;
	for (size_t i = 0; i < n; i++) {
		weights[i] = w;
		bias[i] = w;
	}
	const pal__heads heads = {.heads = {{1, 0}}, .n = 1};
	const pal__sidecar_content c = {.proposer = proposer,
					.m = 1,
					.weights = weights,
					.bias = bias,
					.lambda = record,
					.error_k = record,
					.error_v = record,
					.first = &heads,
					.later = &heads};
	assert_int_equal(pal__sidecar_write(path, m, &c, NULL), PAL_OK);
	free(w);
}

static void not_opened(pal_model *m, const pal_session_options *o, const char *why)
{
	pal_session *s = NULL;
	pal_error err = {0};
	int64_t live = pal__mem_live();
	assert_int_equal(pal_session_open(m, o, &s, &err), PAL_EINVAL);
	if (!strstr(err.text, why))
		fail_msg("\"%s\" instead of \"%s\"", err.text, why);
	assert_int_equal(pal__mem_live(), live);
}

/* What a session with a proposer needs, and what it refuses. */
static void proposers(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-restore-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	pal_model *m = past_model(paths[0], 2, NULL), *proposer = past_model(paths[2], 1, NULL),
		  *other = past_model(paths[1], 1, NULL), *bare;
	const pal_model_options without = {.no_weights = true};
	assert_int_equal(pal_model_open(paths[2], &without, &bare, NULL), PAL_OK);
	pal_session_options o = past_options(PAL_SOURCE_PROJECT);
	uint64_t kv, own, more;
	o.side_car = path;
	write_side(m, NULL, path);
	assert_int_equal(pal_session_need(m, &o, &kv, &own, NULL), PAL_OK);
	o.proposer = proposer;
	not_opened(m, &o, "has no use for");
	write_side(m, proposer, path);
	assert_int_equal(pal_session_need(m, &o, &kv, &more, NULL), PAL_OK);
	assert_true(more > own);
	o.proposer = other;
	not_opened(m, &o, "another proposer");
	o.proposer = bare;
	not_opened(m, &o, "without its weights");
	proposer->tokenizer->bytes[proposer->tokenizer->at[9]]++;
	o.proposer = proposer;
	not_opened(m, &o, "its token 9 is not that of");
	proposer->tokenizer->bytes[proposer->tokenizer->at[9]]--;
	o.proposer = NULL;
	not_opened(m, &o, "of a proposer");
	o.source = PAL_SOURCE_RECOMPUTE; /* has use for the heads alone */
	assert_int_equal(pal_session_need(m, &o, &kv, &own, NULL), PAL_OK);
	o.side_car = NULL;
	o.proposer = proposer;
	not_opened(m, &o, "needs a side-car that was fitted with it");
	/* Every allocation of opening fails in turn. */
	o = past_options(PAL_SOURCE_PROJECT);
	o.side_car = path;
	o.proposer = proposer;
	int64_t live = pal__mem_live();
	pal_status status = PAL_ENOMEM;
	for (int64_t i = 0; status == PAL_ENOMEM; i++) {
		pal_session *s = NULL;
		pal__mem_fail_after(i);
		status = pal_session_open(m, &o, &s, NULL);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(status, failed ? PAL_ENOMEM : PAL_OK);
		pal_session_close(s);
		assert_int_equal(pal__mem_live(), live);
	}
	unlink(path);
	pal_model_close(bare);
	pal_model_close(other);
	pal_model_close(proposer);
	pal_model_close(m);
}

#define LENGTH 200

/* One session's work: tokens, an event with chunks, more tokens. Where it stopped is in *done. */
static pal_status work(pal_session *s, int *done, pal_error *err)
{
	int32_t ids[LENGTH];
	for (int64_t i = 0; i < LENGTH; i++)
		ids[i] = past_token(s->model, i);
	pal_status status = PAL_OK;
	if (*done == 0) {
		status = pal_session_append(s, ids, LENGTH - 20, NULL, NULL, NULL, err);
		*done += !status;
	}
	if (!status && *done == 1) {
		int32_t chunks[] = {0, 2};
		pal__restore *r = &s->restore;
		int64_t end = pal__restore_end(r, s->length - 8);
		status = pal__session_event(
			s,
			&(pal__recalling){.at = s->length, .reread = 8, .chunks = chunks, .n = 2},
			err);
		assert_true(status || end > 96);
		s->stale = s->stale || status;
		*done += !status;
	}
	if (!status && *done == 2) {
		status = pal_session_append(s, ids + LENGTH - 20, 20, NULL, NULL, NULL, err);
		*done += !status;
	}
	return status;
}

static const float *open_far(const pal_session *s, size_t *bytes)
{
	const pal__kv *kv = &s->kv;
	*bytes = kv->far.n_blocks * kv->far.n_layers * kv->shape.n_kv_heads * kv->head_bytes;
	return (const float *)(const void *)kv->far.data;
}

/* Every read and write fails in turn, and all after it until the call returns; then the work goes
 * on. What comes out is what comes out without failures, or is recomputed and said to be. */
static void disk_failures(pal_source source)
{
	pal_model *m = past_model(paths[0], 1, NULL);
	pal_session_options o = past_options(source);
	size_t row = m->h.n_vocab * sizeof(float), bytes;
	pal_error err;
	pal_session *good = past_session(m, &o);
	int done = 0, errors = 0, recomputed = 0;
	bool failed = true;
	assert_int_equal(work(good, &done, &err), PAL_OK);
	for (int n = 0; failed; n++) {
		pal_session *s = past_session(m, &o);
		pal_status status = PAL_OK;
		done = 0;
		pal__disk_fail_after(n);
		status = work(s, &done, &err);
		failed = pal__disk_failed();
		pal__disk_fail_after(-1);
		if (status) {
			assert_true(failed && status == PAL_EIO &&
				    strstr(err.text, "Input/output"));
			errors++;
			if (work(s, &done, &err))
				fail_msg("operation %d, going on: %s", n, err.text);
		}
		const pal__restore *r = &s->restore;
		assert_int_equal(r->n_chunks, 2);
		bool same = !memcmp(r->sources, good->restore.sources, 2);
		const float *far = open_far(s, &bytes);
		if (same) {
			assert_memory_equal(far, open_far(good, &bytes), bytes);
			assert_memory_equal(pal_session_logits(s), pal_session_logits(good), row);
		} else {
			assert_true(failed && r->fallbacks > 0 && strstr(r->note, "recomputed"));
			recomputed++;
		}
		pal_session_close(s);
	}
	assert_true(errors > 10);
	assert_true(source == PAL_SOURCE_RECOMPUTE || recomputed > 0 || errors > 0);
	pal_session_close(good);
	pal_model_close(m);
}

static void disk_failures_recompute(void **state)
{
	(void)state;
	disk_failures(PAL_SOURCE_RECOMPUTE);
}

static void disk_failures_spill(void **state)
{
	(void)state;
	disk_failures(PAL_SOURCE_SPILL);
}

static void disk_failures_hidden(void **state)
{
	(void)state;
	disk_failures(PAL_SOURCE_HIDDEN);
}

/* What the budget has dropped is recomputed. */
static void budget(void **state)
{
	pal_session_options o = past_options(PAL_SOURCE_SPILL);
	past p = past_open(paths[0], &o, 100);
	(void)state;
	o.disk_budget = 12 * p.s->restore.spill.record_bytes;
	past_close(&p);
	p = past_open(paths[0], &o, 400);
	int64_t end = past_end(&p);
	pal_session_stats t;
	fill(&p, (const int32_t[]){1, 9}, 2, end);
	pal_session_get_stats(p.s, &t);
	assert_int_equal(t.fallbacks, 1);
	assert_int_equal(t.filled[PAL_SOURCE_RECOMPUTE], 1);
	assert_int_equal(t.filled[PAL_SOURCE_SPILL], 1);
	assert_int_equal(t.dropped, (end / 8 - 11 + 3) / 4);
	assert_string_equal(t.note, "the spill file has dropped positions 24 to 31: recomputed");
	past_same(&p, 280, 328, PAST_SINK + 48, 1e-3f, 5e-4f);
	past_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places),
		cmocka_unit_test(fallbacks),
		cmocka_unit_test(allocation_failures),
		cmocka_unit_test(proposers),
		cmocka_unit_test(disk_failures_recompute),
		cmocka_unit_test(disk_failures_spill),
		cmocka_unit_test(disk_failures_hidden),
		cmocka_unit_test(budget),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
