#include "model/hparams.h"

#include <stdio.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/trig.h"

/* Reads keys "ARCH.name"; the first failure sticks, so that a list of reads needs one check. */
typedef struct {
	const pal__gguf *g;
	const char *arch;
	pal_status status;
	pal_error *err;
} reader;

static const char *full_key(const reader *r, const char *name, char key[96])
{
	snprintf(key, 96, "%s.%s", r->arch, name);
	return key;
}

static int64_t get_int(reader *r, const char *name, bool required, int64_t min, int64_t max,
		       int64_t value)
{
	char key[96];
	if (r->status == PAL_OK)
		r->status = pal__gguf_int(r->g, full_key(r, name, key), required, min, max, &value,
					  r->err);
	return value;
}

static size_t get_size(reader *r, const char *name, bool required, int64_t min, int64_t max,
		       size_t value)
{
	return (size_t)get_int(r, name, required, min, max, (int64_t)value);
}

static double get_float(reader *r, const char *name, bool required, double min, double max,
			double value)
{
	char key[96];
	if (r->status == PAL_OK)
		r->status = pal__gguf_float(r->g, full_key(r, name, key), required, min, max,
					    &value, r->err);
	return value;
}

static pal__str get_string(reader *r, const char *name)
{
	char key[96];
	pal__str value = {0};
	if (r->status == PAL_OK)
		r->status = pal__gguf_string(r->g, full_key(r, name, key), false, &value, r->err);
	return value;
}

static bool is(pal__str s, const char *text)
{
	return s.n == strlen(text) && memcmp(s.s, text, s.n) == 0;
}

static pal_status read_arch(const pal__gguf *g, pal__hparams *h, pal_error *err)
{
	static const char *const names[] = {"qwen3", "qwen2", "llama", "gemma3"};
	pal__str arch = {0};
	pal_status s = pal__gguf_string(g, "general.architecture", true, &arch, err);
	if (s != PAL_OK)
		return s;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (is(arch, names[i])) {
			h->arch = (pal__arch)i;
			snprintf(h->arch_name, sizeof h->arch_name, "%s", names[i]);
			return PAL_OK;
		}
	return pal__fail(
		err, PAL_EUNSUPPORTED,
		"%s: general.architecture: %.*s is not supported (supported: qwen3, qwen2, "
		"llama, gemma3)",
		g->path, (int)(arch.n < 40 ? arch.n : 40), arch.s);
}

static void read_sizes(reader *r, pal__hparams *h)
{
	h->n_layers = get_size(r, "block_count", true, 1, PAL__MAX_LAYERS, 0);
	h->n_embd = get_size(r, "embedding_length", true, 1, PAL__MAX_EMBD, 0);
	h->n_ff = get_size(r, "feed_forward_length", true, 1, PAL__MAX_FF, 0);
	h->n_heads = get_size(r, "attention.head_count", true, 1, PAL__MAX_HEADS, 0);
	h->n_kv_heads =
		get_size(r, "attention.head_count_kv", false, 1, PAL__MAX_HEADS, h->n_heads);
	h->n_ctx_train = get_int(r, "context_length", true, 1, PAL_MAX_CONTEXT, 0);
	size_t dim = h->n_heads ? h->n_embd / h->n_heads : 0;
	h->head_dim = get_size(r, "attention.key_length", false, 2, PAL__MAX_HEAD_DIM, dim);
	size_t value =
		get_size(r, "attention.value_length", false, 2, PAL__MAX_HEAD_DIM, h->head_dim);
	h->n_rot = get_size(r, "rope.dimension_count", false, 2, PAL__MAX_HEAD_DIM, h->head_dim);
	h->rms_eps = (float)get_float(r, "attention.layer_norm_rms_epsilon", true, 0, 1, 0);
	if (r->status != PAL_OK)
		return;
	const char *why = NULL;
	if (h->n_heads % h->n_kv_heads)
		why = "attention.head_count is not a multiple of attention.head_count_kv";
	else if (value != h->head_dim)
		why = "attention.value_length differs from attention.key_length";
	else if (h->head_dim < 2 || h->head_dim > PAL__MAX_HEAD_DIM || h->head_dim % 2)
		why = "the head dimension (attention.key_length) is odd, or not in 2 to 1024";
	else if (h->n_rot % 2 || h->n_rot > h->head_dim)
		why = "rope.dimension_count is odd or larger than a head";
	else if (h->n_heads * h->head_dim > PAL__MAX_EMBD)
		why = "attention.head_count times attention.key_length is beyond 131072";
	if (why)
		r->status = pal__fail(r->err, PAL_EUNSUPPORTED, "%s: %s", r->g->path, why);
}

/* freq[i] = base^(-2i / n_rot). */
static void plain_rope(pal__rope *rope, size_t n_rot, double base, double divide)
{
	double log_base = pal__log64(base);
	rope->scale = 1;
	for (size_t i = 0; i < n_rot / 2; i++)
		rope->freq[i] = pal__exp64(-log_base * (double)(2 * i) / (double)n_rot) / divide;
}

static double clamp(double x, double lo, double hi)
{
	return x < lo ? lo : x > hi ? hi : x;
}

/* YaRN (Peng et al. 2023), "NTK by parts": pairs that turn more than beta_fast times in
 * the trained context keep their frequency, those below beta_slow are stretched by the
 * factor, those between are mixed; vectors grow by 1 + ln(factor) / 10. */
static void yarn(reader *r, const pal__hparams *h, pal__rope *rope, double base, double factor)
{
	double trained = (double)get_int(r, "rope.scaling.original_context_length", false, 1,
					 PAL_MAX_CONTEXT, h->n_ctx_train);
	double fast = get_float(r, "rope.scaling.yarn_beta_fast", false, 1e-3, 1e6, 32);
	double slow = get_float(r, "rope.scaling.yarn_beta_slow", false, 1e-3, 1e6, 1);
	double attn = get_float(r, "rope.scaling.attn_factor", false, 1e-3, 1e3, 1);
	double n = (double)h->n_rot, two_pi = 6.283185307179586, log_base = pal__log64(base);
	double first = n * pal__log64(trained / (fast * two_pi)) / (2 * log_base);
	double last = n * pal__log64(trained / (slow * two_pi)) / (2 * log_base);
	first = clamp(__builtin_floor(first), 0, n);
	last = clamp(__builtin_ceil(last), -n, n - 1);
	double width = last - first > 0.001 ? last - first : 0.001;
	for (size_t i = 0; i < h->n_rot / 2; i++) {
		double ramp = clamp(((double)i - first) / width, 0, 1), f = rope->freq[i];
		rope->freq[i] = f / factor * ramp + f * (1 - ramp);
	}
	rope->scale = attn * (1 + 0.1 * pal__log64(factor));
}

/* Llama 3: a tensor of divisors, one for each pair. */
static void divide_freqs(reader *r, const pal__hparams *h, pal__rope *rope)
{
	const pal__gguf_tensor *t = pal__gguf_tensor_find(r->g, "rope_freqs.weight");
	if (!t)
		return;
	if (t->type != PAL__F32 || t->n_dims != 1 || t->ne[0] != h->n_rot / 2) {
		r->status = pal__fail(r->err, PAL_EFORMAT,
				      "%s: tensor rope_freqs.weight: expected F32 [%zu]",
				      r->g->path, h->n_rot / 2);
		return;
	}
	for (size_t i = 0; i < h->n_rot / 2; i++) {
		float v;
		memcpy(&v, t->data + i * sizeof v, sizeof v);
		if (!(v >= 1e-6f && v <= 1e6f)) {
			r->status =
				pal__fail(r->err, PAL_EFORMAT,
					  "%s: tensor rope_freqs.weight: value %zu is %g, not in "
					  "1e-6 to 1e6",
					  r->g->path, i, (double)v);
			return;
		}
		rope->freq[i] /= (double)v;
	}
}

/* Scaling factors and divisors, each in its range, may together make angles that
 * pal__sincos64 cannot reduce. */
static void check_freqs(reader *r, const pal__hparams *h)
{
	for (size_t i = 0; i < h->n_rot / 2 && r->status == PAL_OK; i++)
		if (h->rope.freq[i] * PAL_MAX_CONTEXT > 0x1p45)
			r->status = pal__fail(r->err, PAL_EFORMAT,
					      "%s: %s.rope.scaling.factor and rope_freqs.weight "
					      "turn pair %zu by %g radians a position, more than "
					      "2^21",
					      r->g->path, r->arch, i, h->rope.freq[i]);
}

static void read_rope(reader *r, pal__hparams *h)
{
	double base = get_float(r, "rope.freq_base", false, 1.001, 1e12, 10000);
	double sliding = get_float(r, "rope.freq_base_swa", false, 1.001, 1e12, 10000);
	double factor = get_float(r, "rope.scale_linear", false, 0, 1e6, 0);
	factor = get_float(r, "rope.scaling.factor", false, 0, 1e6, factor);
	pal__str kind = get_string(r, "rope.scaling.type");
	if (r->status != PAL_OK)
		return;
	bool is_yarn = is(kind, "yarn");
	if (kind.s && !is_yarn && !is(kind, "linear") && !is(kind, "none")) {
		r->status =
			pal__fail(r->err, PAL_EUNSUPPORTED,
				  "%s: %s.rope.scaling.type: %.*s is not supported (supported: "
				  "none, linear, yarn)",
				  r->g->path, r->arch, (int)(kind.n < 40 ? kind.n : 40), kind.s);
		return;
	}
	if (is_yarn && h->arch == PAL__GEMMA3) {
		r->status = pal__fail(r->err, PAL_EUNSUPPORTED,
				      "%s: gemma3.rope.scaling.type: yarn is not supported for "
				      "gemma3 (supported: none, linear)",
				      r->g->path);
		return;
	}
	factor = factor == 0 || is(kind, "none") ? 1 : factor;
	if (factor < 1e-6) {
		r->status = pal__fail(r->err, PAL_EFORMAT,
				      "%s: %s.rope.scaling.factor: %g is below 1e-6", r->g->path,
				      r->arch, factor);
		return;
	}
	plain_rope(&h->rope, h->n_rot, base, is_yarn ? 1 : factor);
	plain_rope(&h->rope_sliding, h->n_rot, sliding, 1);
	if (h->arch == PAL__LLAMA)
		divide_freqs(r, h, &h->rope);
	if (is_yarn)
		yarn(r, h, &h->rope, base, factor);
	check_freqs(r, h);
}

static void read_scales(reader *r, pal__hparams *h)
{
	double width = (double)h->head_dim;
	h->embd_scale = 1;
	if (h->arch == PAL__GEMMA3) {
		h->embd_scale = (float)__builtin_sqrt((double)h->n_embd);
		h->window = get_int(r, "attention.sliding_window", true, 1, PAL_MAX_CONTEXT, 0);
		h->window_every =
			get_size(r, "attention.sliding_window_pattern", false, 1, 1024, 6);
		h->softcap = (float)get_float(r, "final_logit_softcapping", false, 0, 1e6, 0);
		if (h->n_layers == 62) /* the 27B scales queries by its embedding's width */
			width = (double)h->n_embd / (double)h->n_heads;
	}
	double scale =
		h->arch == PAL__LLAMA ? get_float(r, "attention.scale", false, 0, 1e3, 0) : 0;
	h->attn_scale = (float)(scale > 0 ? scale : 1 / __builtin_sqrt(width));
}

pal_status pal__hparams_read(const pal__gguf *g, size_t n_vocab, pal__hparams *out, pal_error *err)
{
	pal__hparams h = {.n_vocab = n_vocab};
	pal_status s = read_arch(g, &h, err);
	if (s != PAL_OK)
		return s;
	reader r = {.g = g, .arch = h.arch_name, .err = err};
	read_sizes(&r, &h);
	if (r.status == PAL_OK)
		read_rope(&r, &h);
	if (r.status == PAL_OK)
		read_scales(&r, &h);
	if (r.status == PAL_OK)
		*out = h;
	return r.status;
}

void pal__rope_at(const pal__rope *r, size_t n_rot, int64_t pos, float *cos, float *sin)
{
	for (size_t i = 0; i < n_rot / 2; i++) {
		double s, c;
		pal__sincos64((double)pos * r->freq[i], &s, &c);
		cos[i] = (float)(c * r->scale);
		sin[i] = (float)(s * r->scale);
	}
}
