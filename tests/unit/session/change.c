/* Changes far back: which rows move where. That log, events and changes make the bits is
 * tests/property/changes.c. Arguments: model files of tests/tools/mkmodel.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/disk.h"
#include "base/mem.h"
#include "session/session.h"

#define LOG 520
#define AT 100 /* where it is changed */

static char **paths;
static int n_paths;

static pal_session *open_session(pal_model *m, int64_t window, pal_kv_type type)
{
	const pal_session_options o = {.kv_policy = PAL_KV_RESTORED,
				       .kv_type = type,
				       .sink = 5,
				       .window = window,
				       .reread = 8,
				       .slots = 3,
				       .left = 20,
				       .n_batch = 64};
	int32_t ids[LOG];
	pal_session *s;
	pal_error err;
	for (int i = 0; i < LOG; i++)
		ids[i] = (int32_t)((uint32_t)i * 2654435761u >> 20) % 90;
	if (pal_session_open(m, &o, &s, &err) ||
	    pal_session_append(s, ids, LOG, NULL, NULL, NULL, &err))
		fail_msg("%s", err.text);
	return s;
}

/* The K/V with a memory of its own. */
static pal__kv copy_of(const pal__kv *kv)
{
	pal__kv c = *kv;
	c.data = aligned_alloc(64, (kv->bytes + 63) & ~(size_t)63);
	assert_non_null(c.data);
	memcpy(c.data, kv->data, kv->bytes);
	c.main.data = c.data + (kv->main.data - kv->data);
	c.far.data = c.data + (kv->far.data - kv->data);
	c.sliding.data = c.data + (kv->sliding.data - kv->data);
	return c;
}

/* What a row is, and what it was `moved` before, turned to where it is now and rounded again. */
static void check_row(const pal_session *s, const pal__kv *old, pal__kv *to, size_t layer,
		      int64_t pos, int64_t moved)
{
	const pal_model *m = s->model;
	const pal__hparams *h = &m->h;
	const pal__rope *rope = pal__kv_slides(&s->kv.shape, layer) ? &h->rope_sliding : &h->rope;
	float there[PAL__KV_MAX_DIM], here[PAL__KV_MAX_DIM];
	float k[2][PAL__KV_MAX_DIM], v[2][PAL__KV_MAX_DIM];
	size_t half = h->n_rot / 2;
	pal__rope_at(rope, h->n_rot, pos - moved, there, there + half);
	pal__rope_at(rope, h->n_rot, pos, here, here + half);
	for (size_t head = 0; head < h->n_kv_heads; head++) {
		if (moved) {
			pal__take(m, old, there, layer, head, pos - moved, k[0], v[0]);
			m->kernels->rope(k[0], here, here + half, h->n_rot);
			pal__kv_store(to, m->kernels, layer, head, pos, k[0], v[0]);
		}
		pal__kv_load(moved ? to : old, layer, head, pos, k[0], v[0]);
		pal__kv_load(&s->kv, layer, head, pos, k[1], v[1]);
		assert_memory_equal(k[0], k[1], h->head_dim * sizeof **k);
		assert_memory_equal(v[0], v[1], h->head_dim * sizeof **v);
	}
}

/* Tokens are put in, or taken out if it is below 0. */
static void check_move(pal_model *m, int64_t window, int64_t moved)
{
	pal_session *s = open_session(m, window, (pal_kv_type)((window + moved + 1000) % 5));
	int32_t ids[200] = {0};
	pal__kv old = copy_of(&s->kv), to = copy_of(&s->kv);
	const pal__kv_shape *k = &s->kv.shape;
	int64_t n_new = moved > 0 ? moved + 3 : 3, length = LOG + moved;
	pal_error err;
	if (pal__session_change(s, AT, n_new - moved, ids, n_new, &err))
		fail_msg("window %lld, %lld: %s", (long long)window, (long long)moved, err.text);
	assert_int_equal(pal_session_length(s), length);
	for (size_t layer = 0; layer < k->n_layers; layer++) {
		int64_t sight = pal__kv_slides(k, layer) ? k->slide : k->sink + k->window;
		int64_t first = length - k->reread - sight + 1;
		for (int64_t pos = first; pos < length - k->reread; pos++)
			check_row(s, &old, &to, layer, pos, moved);
	}
	free(old.data);
	free(to.data);
	pal_session_close(s);
}

/* As far as rows move within their ring (64 positions, of these windows), farther, and not: each
 * with one of the models, in turn, since under emulation a session takes seconds. */
static void rows_move(void **state)
{
	static const int64_t windows[] = {1, 59, 60, 61, 100, 180};
	static const int64_t moves[] = {0, 1, -1, 37, -37, 63, 64, -64, 65, -65, 130, -130};
	const size_t n_windows = sizeof windows / sizeof *windows, n = (size_t)n_paths;
	const size_t n_moves = sizeof moves / sizeof *moves;
	(void)state;
	for (size_t i = 0; i < n; i++) {
		pal_model *m;
		assert_int_equal(
			pal_model_open(paths[i], &(pal_model_options){.n_threads = 2}, &m, NULL),
			PAL_OK);
		for (size_t w = 0; w < n_windows; w++)
			for (size_t j = (i + w) % n; j < n_moves; j += n)
				check_move(m, windows[w], moves[j]);
		pal_model_close(m);
	}
}

static void same_logits(const pal_session *a, const pal_session *b)
{
	assert_memory_equal(pal_session_logits(a), pal_session_logits(b),
			    a->model->h.n_vocab * sizeof(float));
}

/* Where nothing is in sight, nothing is put away: the bits are those of putting nothing away, and
 * there is no event of it. */
static void nothing_to_put_away(void **state)
{
	(void)state;
	pal_model *m;
	assert_int_equal(pal_model_open(paths[0], NULL, &m, NULL), PAL_OK);
	pal_session *a = open_session(m, 60, PAL_KV_I16), *b = open_session(m, 60, PAL_KV_I16),
		    *c = open_session(m, 60, PAL_KV_I16);
	const pal_event none = {.position = LOG, .reread = 8};
	pal_event e;
	/* Not even what is looked for is known: it is read again, to the same bits. */
	pal__index_restart(&c->restore.index, 0);
	assert_int_equal(pal_session_apply(b, &none, NULL), PAL_OK);
	same_logits(a, b);
	assert_int_equal(pal_session_restore(a, NULL), PAL_OK);
	assert_int_equal(pal_session_restore(b, NULL), PAL_OK);
	assert_int_equal(pal_session_restore(c, NULL), PAL_OK);
	assert_true(pal_session_n_events(a) > 0);
	for (uint64_t i = 0; i < pal_session_n_events(a); i++) {
		pal_event other;
		assert_int_equal(pal_session_event(a, i, &e, NULL), PAL_OK);
		assert_true(e.n_chunks > 0);
		assert_int_equal(pal_session_event(b, i + 1, &other, NULL), PAL_OK);
		assert_memory_equal(&e, &other, sizeof e);
		assert_int_equal(pal_session_event(c, i, &other, NULL), PAL_OK);
		assert_memory_equal(&e, &other, sizeof e);
	}
	same_logits(a, b);
	same_logits(a, c);
	/* Now there is something. */
	uint64_t n = pal_session_n_events(a);
	assert_int_equal(pal_session_restore(a, NULL), PAL_OK);
	assert_int_equal(pal_session_event(a, n, &e, NULL), PAL_OK);
	assert_int_equal(e.n_chunks, 0);
	pal_session_close(a);
	pal_session_close(b);
	pal_session_close(c);
	pal_model_close(m);
}

/* A change that fails leaves the log and what follows from it as they were, if the log's file can
 * still be written; otherwise the session says so. */
static void check_failed(pal_session *s, const pal_session *undisturbed, bool may_break)
{
	pal_error err;
	assert_int_equal(pal_session_length(s), LOG);
	if (may_break && s->broken) {
		assert_int_equal(pal_session_restore(s, &err), PAL_EIO);
		assert_non_null(strstr(err.text, "could not be put back"));
		return;
	}
	assert_int_equal(s->n_changes, 0);
	assert_memory_equal(s->log, undisturbed->log, LOG * sizeof *s->log);
	if (pal_session_restore(s, &err))
		fail_msg("%s", err.text);
	same_logits(s, undisturbed);
}

/* Changes of one token, each failing later than the one before, until one does not. */
static void fail_each(pal_model *m, void (*fail_after)(int64_t), bool may_break)
{
	const int32_t id[2] = {7, 8};
	pal_session *undisturbed = open_session(m, 60, PAL_KV_F16), *s = NULL;
	assert_int_equal(pal_session_restore(undisturbed, NULL), PAL_OK);
	pal_status status = PAL_EIO;
	for (int64_t n = 0; status; n += 1 + n / 4) {
		s = open_session(m, 60, PAL_KV_F16);
		fail_after(n);
		status = pal__session_change(s, AT, 1, id, 2, NULL);
		fail_after(-1);
		if (!status)
			break;
		check_failed(s, undisturbed, may_break);
		pal_session_close(s);
	}
	assert_int_equal(pal_session_length(s), LOG + 1);
	pal_session_close(s);
	pal_session_close(undisturbed);
}

static void failed_change(void **state)
{
	(void)state;
	pal_model *m;
	assert_int_equal(pal_model_open(paths[0], NULL, &m, NULL), PAL_OK);
	fail_each(m, pal__mem_fail_after, false);
	fail_each(m, pal__disk_fail_after, true);
	pal_model_close(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_move),
		cmocka_unit_test(nothing_to_put_away),
		cmocka_unit_test(failed_change),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
