#include "cli/engine.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/output.h"

pal_status pal__engine_check(const pal__engine *e, pal_error *err)
{
	if (strcmp(e->kv, "full"))
		return pal__fail(err, PAL_EUNSUPPORTED,
				 "--kv %s: not available yet; this version has: full", e->kv);
	if (strcmp(e->draft, "none"))
		return pal__fail(err, PAL_EUNSUPPORTED,
				 "--draft %s: not available yet; this version has: none", e->draft);
	return PAL_OK;
}

static void on_progress(void *user, uint64_t done, uint64_t total)
{
	pal__bar_update(user, done, total);
}

pal_status pal__engine_model(const pal__engine *e, const char *path, pal_model **out,
			     double *seconds, pal_error *err)
{
	pal__bar bar;
	pal__bar_start(&bar, "loading", "B", e->quiet);
	const pal_model_options options = {.n_threads = (int)e->threads,
					   .isa = e->isa,
					   .cache_dir = e->cache_dir,
					   .progress = on_progress,
					   .user = &bar};
	pal_status s = pal_model_open(path, &options, out, err);
	pal__bar_end(&bar);
	if (seconds)
		*seconds = pal__now() - bar.start;
	if (s)
		return s;
	pal_model_info info;
	pal_model_get_info(*out, &info);
	if (info.cache_note && !e->quiet)
		fprintf(stderr, "pal: %s\n", info.cache_note);
	return PAL_OK;
}

/* name: one of the choices of --kv-type. */
static pal_kv_type kv_type(const char *name)
{
	static const char *const names[] = {[PAL_KV_F16] = "f16",
					    [PAL_KV_F32] = "f32",
					    [PAL_KV_INT8] = "int8",
					    [PAL_KV_AFFINE4] = "affine4"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (names[i] && !strcmp(name, names[i]))
			return (pal_kv_type)i;
	return PAL_KV_I16;
}

pal_session_options pal__engine_session(const pal__engine *e, int64_t n_ctx)
{
	return (pal_session_options){
		.n_ctx = n_ctx, .kv_type = kv_type(e->kv_type), .n_batch = (int)e->batch};
}

pal_thinking pal__thinking(const char *choice)
{
	if (!strcmp(choice, "on"))
		return PAL_THINKING_ON;
	return strcmp(choice, "off") ? PAL_THINKING_DEFAULT : PAL_THINKING_OFF;
}

json_t *pal__sampling_json(const pal_sampling *p)
{
	/* The seed as text: JSON numbers beyond 2^53 lose digits in many readers. */
	char seed[24];
	snprintf(seed, sizeof seed, "%llu", (unsigned long long)p->seed);
	return json_pack("{s:f, s:i, s:f, s:f, s:f, s:i, s:s}", "temp", (double)p->temperature,
			 "top_k", p->top_k, "top_p", (double)p->top_p, "min_p", (double)p->min_p,
			 "repeat_penalty", (double)p->repeat_penalty, "repeat_last", p->repeat_last,
			 "seed", seed);
}
