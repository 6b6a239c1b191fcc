/* What a session's options come to: defaults, and a budget turned into window and slots. */
#include "base/checked.h"
#include "session/session.h"

#define WINDOW 256      /* positions */
#define SLOTS 4         /* chunks */
#define MOST_SLOTS 8    /* that a budget is spent on */
#define LEAST_WINDOW 16 /* positions that a budget must leave */

static pal_status check(const pal_model *m, const pal_session_options *o, pal_error *err)
{
	static const struct {
		const char *what;
		size_t at;
		int most;
	} small[] = {
		{"slots", offsetof(pal_session_options, slots), PAL_MAX_SLOTS},
		{"positions to read again", offsetof(pal_session_options, reread), 256},
		{"tokens to the left of a chunk", offsetof(pal_session_options, left), 1024},
		{"rounds", offsetof(pal_session_options, rounds), 64},
		{"chunks a round", offsetof(pal_session_options, round_chunks), PAL_MAX_SLOTS}};
	for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
		int value = *(const int *)(const void *)((const char *)o + small[i].at);
		if (value < 0 || value > small[i].most)
			return pal__fail(err, PAL_EINVAL, "%d %s: 1 to %d are possible", value,
					 small[i].what, small[i].most);
	}
	if (o->sink < 0 || o->sink > 65536 || o->window < 0 || o->window > PAL_MAX_CONTEXT)
		return pal__fail(err, PAL_EINVAL,
				 "%lld sinks and a window of %lld: up to 65536 and %d are possible",
				 (long long)o->sink, (long long)o->window, PAL_MAX_CONTEXT);
	if (o->kv_policy != PAL_KV_FULL && o->kv_policy != PAL_KV_WINDOW &&
	    o->kv_policy != PAL_KV_RESTORED)
		return pal__fail(err, PAL_EINVAL, "K/V policy %d is not known", (int)o->kv_policy);
	if ((unsigned)o->selection > PAL_SELECT_BOTH)
		return pal__fail(err, PAL_EINVAL, "selection %d is not known", (int)o->selection);
	if (o->exact_full_layers && !m->h.window)
		return pal__fail(
			err, PAL_EINVAL,
			"exact full layers: %s has no sliding layers, and so they would be all",
			m->h.arch_name);
	if (o->kv_policy == PAL_KV_FULL && (o->kv_budget || o->window || o->slots))
		return pal__fail(err, PAL_EINVAL,
				 "a budget, a window or slots need the policy window or restored");
	return PAL_OK;
}

static void defaults(pal_session_options *o)
{
	o->sink = o->sink ? o->sink : 4;
	o->reread = o->reread ? o->reread : 32;
	o->left = o->left ? o->left : 64;
	o->rounds = o->rounds ? o->rounds : 4;
	o->round_chunks = o->round_chunks ? o->round_chunks : 2;
}

static void into_shape(const pal_session_options *o, pal__kv_shape *shape)
{
	bool restores = o->kv_policy == PAL_KV_RESTORED;
	shape->sink = o->sink;
	shape->window = o->window;
	shape->reread = o->reread;
	if (o->restore_prefill && shape->reread < PAL__ATTN_BLOCK)
		shape->reread = PAL__ATTN_BLOCK;
	shape->original = o->positions == PAL_POSITIONS_ORIGINAL;
	shape->slots = restores ? (size_t)o->slots * PAL__SPAN_ROWS : 0;
	size_t pieces = (size_t)o->window / 256;
	shape->piece = pieces < 1 ? 1 : pieces > 8 ? 8 : pieces;
}

/* The bytes with a window that fills the ring of `blocks` blocks behind the newest. */
static size_t with_blocks(pal_session_options *o, pal__kv_shape *shape, int64_t blocks)
{
	size_t bytes;
	int64_t reread =
		o->restore_prefill && o->reread < PAL__ATTN_BLOCK ? PAL__ATTN_BLOCK : o->reread;
	o->window = blocks * PAL__ATTN_BLOCK - o->sink - reread + 1;
	if (o->window < LEAST_WINDOW)
		return 0;
	into_shape(o, shape);
	return pal__kv_need(shape, &bytes) ? bytes : SIZE_MAX;
}

static pal_status spend(pal_session_options *o, pal__kv_shape *shape, pal_error *err)
{
	bool restores = o->kv_policy == PAL_KV_RESTORED, choose_slots = restores && !o->slots;
	size_t least = 0, bytes;
	int64_t blocks = 1, given = o->window;
	if (choose_slots)
		o->slots = 1;
	for (; !given && !(least = with_blocks(o, shape, blocks)); blocks++)
		;
	if (given) {
		into_shape(o, shape);
		if (!pal__kv_need(shape, &least))
			least = SIZE_MAX;
	}
	if (least > o->kv_budget)
		return pal__fail(
			err, PAL_ELIMIT,
			"a K/V budget of %llu bytes: the least that works with %lld sinks is "
			"%zu",
			(unsigned long long)o->kv_budget, (long long)o->sink, least);
	/* Half of what is left goes to slots, the rest to the window. */
	for (; choose_slots && o->slots < MOST_SLOTS; o->slots++) {
		pal_session_options more = *o;
		more.slots++;
		into_shape(&more, shape);
		if (!pal__kv_need(shape, &bytes) || bytes > least + (o->kv_budget - least) / 2)
			break;
	}
	for (; !given && blocks < PAL_MAX_CONTEXT / PAL__ATTN_BLOCK; blocks++) {
		pal_session_options more = *o;
		if (with_blocks(&more, shape, blocks + 1) > o->kv_budget)
			break;
	}
	if (!given)
		with_blocks(o, shape, blocks);
	else
		into_shape(o, shape);
	return PAL_OK;
}

pal_status pal__session_plan(const pal_model *m, const pal_session_options *options,
			     pal_session_options *out, pal__kv_shape *shape, pal_error *err)
{
	const pal__hparams *h = &m->h;
	pal_session_options o = options ? *options : (pal_session_options){0};
	pal_status s = check(m, &o, err);
	if (s)
		return s;
	bool keeps_all = o.kv_policy == PAL_KV_FULL || o.exact_full_layers;
	int64_t most = keeps_all ? PAL_MAX_CONTEXT : PAL_MAX_LOG;
	if (!o.n_ctx)
		o.n_ctx = keeps_all ? h->n_ctx_train : PAL_MAX_LOG;
	if (o.n_ctx < 1 || o.n_ctx > most)
		return pal__fail(err, PAL_EINVAL,
				 "a context of %lld tokens: 1 to %lld are possible",
				 (long long)o.n_ctx, (long long)most);
	if (o.n_batch < 0 || o.n_batch > PAL_MAX_BATCH)
		return pal__fail(err, PAL_EINVAL, "a batch of %d tokens: 1 to %d are possible",
				 o.n_batch, PAL_MAX_BATCH);
	pal__kv_shape kept = {0};
	if (!pal__kv_of_type(o.kv_type, &kept))
		return pal__fail(err, PAL_EINVAL, "K/V type %d is not known", (int)o.kv_type);
	o.n_batch = o.n_batch ? o.n_batch : PAL_MAX_BATCH;
	*shape = (pal__kv_shape){.n_layers = h->n_layers,
				 .n_kv_heads = h->n_kv_heads,
				 .head_dim = h->head_dim,
				 .n_ctx = o.n_ctx,
				 .kind = kept.kind,
				 .packed = kept.packed,
				 .slide = h->window,
				 .slide_every = h->window_every,
				 .piece = ((size_t)o.n_batch + 62) / PAL__ATTN_BLOCK + 1};
	if (keeps_all) {
		o.n_batch = o.n_ctx < o.n_batch ? (int)o.n_ctx : o.n_batch;
		*out = o;
		return PAL_OK;
	}
	defaults(&o);
	if (o.kv_budget) {
		s = spend(&o, shape, err);
		if (s)
			return s;
	} else {
		o.window = o.window ? o.window : WINDOW;
		o.slots = o.slots ? o.slots : SLOTS;
		into_shape(&o, shape);
	}
	*out = o;
	return PAL_OK;
}
