/* Early exit: what it drafts, and that the verifier never notices. Arguments: models, at least one
 * of which has more than two layers. */
#include "along.h"

static char **paths;
static int n_paths;

static pal__draft_source *open_exit(const pal_model *m, int n_layers)
{
	pal__draft_source *s;
	pal_error err;
	if (pal__draft_exit(m, n_layers, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

/* The first layers alone, computed from the start. */
typedef struct {
	pal_model *m;
	size_t n_layers;
	pal__kv kv;
	pal__scratch scratch;
	pal__arena arena;
	float *logits;
} first_layers;

static void first_open(first_layers *f, pal_model *m, size_t n_layers, int64_t n_ctx)
{
	const pal__kv_shape shape = {.n_layers = m->h.n_layers,
				     .n_kv_heads = m->h.n_kv_heads,
				     .head_dim = m->h.head_dim,
				     .n_ctx = n_ctx,
				     .kind = PAL__KV_INT16,
				     .slide = m->h.window,
				     .slide_every = m->h.window_every,
				     .piece = 6}; /* those of a draft are computed again */
	size_t bytes = 0, more = 0;
	f->m = m;
	f->n_layers = n_layers;
	assert_true(pal__kv_need(&shape, &bytes) && pal__scratch_need(m, 1, &more));
	assert_int_equal(pal__arena_init(&f->arena, bytes + more, "a test", NULL), PAL_OK);
	pal__kv_init(&f->kv, &shape, &f->arena);
	pal__scratch_init(&f->scratch, m, 1, &f->arena);
	f->logits = pal__calloc(m->h.n_vocab, sizeof *f->logits);
}

static void first_close(first_layers *f)
{
	pal__free(f->logits);
	pal__arena_free(&f->arena);
}

/* The likeliest token after `id` at `pos`, which may have been computed before. */
static int32_t first_next(first_layers *f, int32_t id, int64_t pos)
{
	pal__forward(f->m, &f->scratch, &(pal__row){id, pos, &f->kv, f->logits}, 1,
		     &(pal__tap){.n_layers = f->n_layers});
	return pal__largest(f->logits, f->m->h.n_vocab);
}

#define LOG 70
#define ROOM 30

/* Drafts after the log and one of six pending tokens are what the first layers say; how many. */
static int drafts_by(along *a, int n_layers, const int32_t pending[static 6])
{
	first_layers f;
	int total = 0;
	pal__draft_source *s = open_exit(a->m, n_layers);
	first_open(&f, a->m, (size_t)n_layers, LOG + ROOM);
	for (int64_t pos = 0; pos < LOG; pos++)
		first_next(&f, a->log[pos], pos);
	for (int round = 0; round < 6; round++) {
		int32_t out[PAL__DRAFT_MOST];
		uint8_t sure[PAL__DRAFT_MOST];
		pal__draft_view v = along_view(a, pending[round]);
		assert_int_equal(v.room, ROOM);
		int n = s->propose(s, &v, out, sure, 5);
		assert_true(n >= 0 && n <= 5);
		for (int k = 0; k < n; k++) {
			int32_t id = k ? out[k - 1] : pending[round];
			assert_int_equal(out[k], first_next(&f, id, LOG + k));
			assert_true(sure[k] < PAL__DRAFT_BUCKETS);
		}
		total += n;
	}
	first_close(&f);
	s->close(s);
	return total;
}

static void drafts(void **state)
{
	int total = 0, deepest = 0;
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		along a;
		pal_model *m = along_model(paths[i]);
		along_open(&a, m, &(pal_session_options){.n_ctx = LOG + ROOM, .n_batch = 40});
		int32_t ids[LOG];
		for (int k = 0; k < LOG; k++)
			ids[k] = (int32_t)along_random(m->h.n_vocab - 8);
		along_append(&a, ids, LOG);
		for (int layers = 1; layers < (int)m->h.n_layers; layers++) {
			deepest = layers > deepest ? layers : deepest;
			total += drafts_by(&a, layers, ids);
		}
		pal_session_close(a.s);
		pal_model_close(m);
	}
	assert_true(total > 10 && deepest > 1);
}

/* Two sessions of one log, of which one is drafted for before every append: their logits are the
 * same to the bit, and so is what is restored. */
static void unnoticed_with(pal_model *m, const pal_session_options *o, int layers)
{
	along a, b;
	pal_error err;
	pal__draft_source *s = open_exit(m, layers);
	along_open(&a, m, o);
	along_open(&b, m, o);
	for (int step = 0; along_length(&a) < 300; step++) {
		int32_t ids[24], out[PAL__DRAFT_MOST];
		uint8_t sure[PAL__DRAFT_MOST];
		size_t n = 1 + along_random(step % 4 ? 4 : 24);
		for (size_t k = 0; k < n; k++)
			ids[k] = (int32_t)along_random(m->h.n_vocab - 8);
		pal__draft_view v = along_view(&a, ids[0]);
		int drafted = s->propose(s, &v, out, sure, PAL__DRAFT_MOST);
		assert_true(drafted <= v.room);
		/* Some drafts are right. */
		for (int k = 0; k < drafted && k + 1 < (int)n && step % 2; k++)
			ids[k + 1] = out[k];
		s->observe(s, a.log, v.n - 1, v.n);
		along_append(&a, ids, n);
		along_append(&b, ids, n);
		if (step % 9 == 8) {
			int64_t keep = along_length(&a) - (int64_t)along_random(60);
			keep = keep < 1 ? 1 : keep;
			assert_int_equal(pal_session_truncate(a.s, keep, &err), PAL_OK);
			assert_int_equal(pal_session_truncate(b.s, keep, &err), PAL_OK);
			along_append(&a, ids, 1);
			along_append(&b, ids, 1);
		}
		if (o->kv_policy == PAL_KV_RESTORED && step % 10 == 9) {
			assert_int_equal(pal_session_restore(a.s, &err), PAL_OK);
			assert_int_equal(pal_session_restore(b.s, &err), PAL_OK);
			assert_int_equal(a.s->n_events, b.s->n_events);
		}
		assert_memory_equal(pal_session_logits(a.s), pal_session_logits(b.s),
				    m->h.n_vocab * sizeof(float));
	}
	s->close(s);
	pal_session_close(a.s);
	pal_session_close(b.s);
}

static void unnoticed(void **state)
{
	static const pal_kv_policy policies[] = {PAL_KV_FULL, PAL_KV_WINDOW, PAL_KV_RESTORED};
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		pal_model *m = along_model(paths[i]);
		for (int p = 0; p < 3; p++) {
			pal_session_options o = {.n_ctx = 500,
						 .kv_policy = policies[p],
						 .kv_type = p == 1 ? PAL_KV_AFFINE4 : PAL_KV_I16,
						 .n_batch = 64};
			if (p) {
				o.window = 70;
				o.disk_dir = "/tmp";
			}
			if (p == 2) {
				o.slots = 2;
				o.left = 16;
				o.source = PAL_SOURCE_SPILL;
			}
			unnoticed_with(m, &o, i % 2 ? 1 : (int)m->h.n_layers - 1);
		}
		pal_model_close(m);
	}
}

static void little_room(void **state)
{
	(void)state;
	along a;
	int32_t out[PAL__DRAFT_MOST];
	uint8_t sure[PAL__DRAFT_MOST];
	pal_model *m = along_model(paths[n_paths - 1]);
	pal__draft_source *s = open_exit(m, 1);
	along_open(&a, m, &(pal_session_options){.n_ctx = 8});
	along_append(&a, (int32_t[]){1, 2, 3, 4, 5, 6}, 6);
	for (int room = 2; room >= 1; room--) {
		pal__draft_view v = along_view(&a, 7);
		assert_int_equal(v.room, room);
		assert_true(s->propose(s, &v, out, sure, PAL__DRAFT_MOST) <= room);
		along_append(&a, (int32_t[]){7}, 1);
	}
	s->close(s);
	pal_session_close(a.s);
	pal_model_close(m);
}

static void refusals(void **state)
{
	(void)state;
	pal__draft_source *s = NULL;
	pal_error err;
	pal_model *m = along_model(paths[0]);
	int n = (int)m->h.n_layers;
	const int bad[] = {-1, 0, n, n + 1};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(pal__draft_exit(m, bad[i], &s, &err), PAL_EINVAL);
		assert_non_null(strstr(err.text, "at least 1 layer, and fewer than the"));
	}
	int64_t live = pal__mem_live();
	pal_status status = PAL_ENOMEM;
	for (int i = 0; status; i++) {
		assert_null(s);
		pal__mem_fail_after(i);
		status = pal__draft_exit(m, 1, &s, &err);
		pal__mem_fail_after(-1);
		assert_int_equal(pal__mem_live(), status ? live : live + 2);
	}
	assert_string_equal(s->name, "exit");
	s->close(s);
	assert_int_equal(pal__mem_live(), live);
	pal_model_close(m);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(drafts),
		cmocka_unit_test(unnoticed),
		cmocka_unit_test(little_room),
		cmocka_unit_test(refusals),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
