/* Hyper-parameters from files that hold nothing but keys. What each refused key says is in
 * tests/e2e/hostile.py; here are the values, against formulas in libm. */
#include "model/hparams.h"

#include <math.h>
#include <stdio.h>

#include "gguf_writer.h"

static buffer b;
static uint64_t n_keys;

static void put_key_f32(const char *key, float v)
{
	put_key(&b, key, PAL__GGUF_F32);
	put(&b, &v, sizeof v);
	n_keys++;
}

static void number(const char *key, uint32_t v)
{
	put_key_u32(&b, key, v);
	n_keys++;
}

static void text(const char *key, const char *v)
{
	put_key_str(&b, key, v);
	n_keys++;
}

#define KEY(rest) full_key(arch, rest)
static const char *full_key(const char *arch, const char *rest)
{
	static char key[96];
	snprintf(key, sizeof key, "%s.%s", arch, rest);
	return key;
}

/* What every model must have: 2 layers (or as given), 48 wide, 3 heads. */
static void begin(const char *arch, uint32_t layers)
{
	put_header(&b, 3, 0, 0);
	n_keys = 0;
	text("general.architecture", arch);
	number(KEY("block_count"), layers);
	number(KEY("embedding_length"), 48);
	number(KEY("feed_forward_length"), 80);
	number(KEY("attention.head_count"), 3);
	number(KEY("context_length"), 1000);
	put_key_f32(KEY("attention.layer_norm_rms_epsilon"), 1e-5f);
}

/* rope_freqs: [8] divisors, or NULL */
static pal_status read_keys(const float *rope_freqs, pal__hparams *h, pal_error *err)
{
	pal__gguf g;
	uint64_t one = 1, n = 8;
	memcpy(b.bytes + 16, &n_keys, sizeof n_keys);
	if (rope_freqs) {
		memcpy(b.bytes + 8, &one, sizeof one);
		put_tensor(&b, "rope_freqs.weight", 1, &n, PAL__F32, 0);
		put_data(&b, 32, 0);
		put(&b, rope_freqs, n * sizeof *rope_freqs);
	}
	assert_int_equal(open_buffer(&b, &g, NULL), PAL_OK);
	pal_status s = pal__hparams_read(&g, 77, h, err);
	pal__gguf_close(&g);
	return s;
}

static pal__hparams good(const float *rope_freqs)
{
	pal__hparams h;
	pal_error err;
	if (read_keys(rope_freqs, &h, &err))
		fail_msg("%s", err.text);
	return h;
}

static void near(double got, double want)
{
	if (!(fabs(got - want) <= 1e-14 * fabs(want)))
		fail_msg("%.17g instead of %.17g", got, want);
}

static double plain(double base, size_t i, size_t n_rot)
{
	return pow(base, -2.0 * (double)i / (double)n_rot);
}

/* --- sizes ---------------------------------------------------------------- */

static void defaults(void **state)
{
	(void)state;
	begin("qwen3", 2);
	pal__hparams h = good(NULL);
	assert_int_equal(h.arch, PAL__QWEN3);
	assert_string_equal(h.arch_name, "qwen3");
	assert_int_equal(h.n_vocab, 77);
	assert_int_equal(h.n_layers, 2);
	assert_int_equal(h.n_embd, 48);
	assert_int_equal(h.n_ff, 80);
	assert_int_equal(h.n_heads, 3);
	assert_int_equal(h.n_kv_heads, 3);
	assert_int_equal(h.head_dim, 16);
	assert_int_equal(h.n_rot, 16);
	assert_int_equal(h.n_ctx_train, 1000);
	assert_true(h.rms_eps == 1e-5f && h.embd_scale == 1 && h.softcap == 0);
	assert_true(h.attn_scale == 0.25f);
	assert_int_equal(h.window, 0);
	for (size_t i = 0; i < 8; i++)
		near(h.rope.freq[i], plain(10000, i, 16));
	assert_true(h.rope.scale == 1);
	assert_false(pal__layer_slides(&h, 0));
}

static void explicit_sizes(void **state)
{
	const char *arch = "llama";
	(void)state;
	begin(arch, 2);
	number(KEY("attention.head_count_kv"), 1);
	number(KEY("attention.key_length"), 32);
	number(KEY("attention.value_length"), 32);
	number(KEY("rope.dimension_count"), 24);
	put_key_f32(KEY("rope.freq_base"), 500000);
	put_key_f32(KEY("attention.scale"), 0.5f);
	pal__hparams h = good(NULL);
	assert_int_equal(h.n_kv_heads, 1);
	assert_int_equal(h.head_dim, 32);
	assert_int_equal(h.n_rot, 24);
	assert_true(h.attn_scale == 0.5f);
	for (size_t i = 0; i < 12; i++)
		near(h.rope.freq[i], plain(500000, i, 24));
}

static void gemma(void **state)
{
	const char *arch = "gemma3";
	(void)state;
	begin(arch, 13);
	number(KEY("attention.sliding_window"), 40);
	put_key_f32(KEY("final_logit_softcapping"), 30);
	put_key_f32(KEY("rope.freq_base"), 1e6f);
	put_key_f32(KEY("rope.scale_linear"), 8);
	pal__hparams h = good(NULL);
	assert_true(h.embd_scale == sqrtf(48) && h.softcap == 30);
	assert_int_equal(h.window, 40);
	for (size_t layer = 0; layer < 13; layer++)
		assert_int_equal(pal__layer_slides(&h, layer), layer != 5 && layer != 11);
	for (size_t i = 0; i < 8; i++) {
		near(h.rope.freq[i], plain(1e6, i, 16) / 8);
		near(h.rope_sliding.freq[i], plain(10000, i, 16));
	}
	begin(arch, 62); /* the largest scales by the width of the embedding */
	number(KEY("attention.sliding_window"), 1);
	number(KEY("attention.sliding_window_pattern"), 1);
	number(KEY("attention.key_length"), 32);
	number(KEY("attention.value_length"), 32);
	h = good(NULL);
	assert_true(h.attn_scale == 0.25f);
	assert_false(pal__layer_slides(&h, 0));
}

/* --- rotary positions ------------------------------------------------------- */

static void linear(void **state)
{
	static const char *const types[] = {"linear", "none", NULL};
	const char *arch = "qwen2";
	(void)state;
	for (int k = 0; k < 3; k++) {
		begin(arch, 2);
		if (types[k])
			text(KEY("rope.scaling.type"), types[k]);
		put_key_f32(KEY("rope.scaling.factor"), 4);
		pal__hparams h = good(NULL);
		for (size_t i = 0; i < 8; i++)
			near(h.rope.freq[i], plain(10000, i, 16) / (k == 1 ? 1 : 4));
	}
}

/* The paper's rule in other words: by the turns that a pair makes in the trained length. */
static void yarn(void **state)
{
	const char *arch = "qwen3";
	const double pi = acos(-1), base = 10000, trained = 128, factor = 4;
	(void)state;
	begin(arch, 2);
	text(KEY("rope.scaling.type"), "yarn");
	put_key_f32(KEY("rope.scaling.factor"), (float)factor);
	number(KEY("rope.scaling.original_context_length"), (uint32_t)trained);
	put_key_f32(KEY("rope.scaling.attn_factor"), 1.25f);
	pal__hparams h = good(NULL);
	near(h.rope.scale, 1.25 * (1 + 0.1 * log(factor)));
	/* The pair that makes 32 turns, or one, rounded outwards. */
	double low = floor(16 * log(trained / (32 * 2 * pi)) / (2 * log(base)));
	double high = ceil(16 * log(trained / (2 * pi)) / (2 * log(base)));
	low = low < 0 ? 0 : low;
	int mixed = 0;
	for (size_t i = 0; i < 8; i++) {
		double f = plain(base, i, 16), part = ((double)i - low) / (high - low);
		part = part < 0 ? 0 : part > 1 ? 1 : part;
		mixed += part > 0 && part < 1;
		near(h.rope.freq[i], f * (1 - part) + f / factor * part);
	}
	assert_true(mixed >= 2);
}

static void llama3(void **state)
{
	static const float divisors[8] = {1, 1, 1.5f, 2, 4, 8, 8, 8};
	(void)state;
	begin("llama", 2);
	pal__hparams h = good(divisors);
	for (size_t i = 0; i < 8; i++)
		near(h.rope.freq[i], plain(10000, i, 16) / (double)divisors[i]);
	begin("qwen3", 2); /* whose models have no such tensor: weights.c refuses it */
	h = good(divisors);
	near(h.rope.freq[7], plain(10000, 7, 16));
}

static void angles(void **state)
{
	static const int64_t positions[] = {0, 1, 2, 63, 1000, 131072, PAL_MAX_CONTEXT - 1};
	const char *arch = "qwen3";
	(void)state;
	begin(arch, 2);
	text(KEY("rope.scaling.type"), "yarn");
	put_key_f32(KEY("rope.scaling.factor"), 2);
	pal__hparams h = good(NULL);
	for (size_t k = 0; k < sizeof positions / sizeof positions[0]; k++) {
		float c[8], s[8];
		pal__rope_at(&h.rope, 16, positions[k], c, s);
		for (size_t i = 0; i < 8; i++) {
			double angle = (double)positions[k] * h.rope.freq[i];
			assert_true(fabs((double)c[i] - cos(angle) * h.rope.scale) < 1e-7);
			assert_true(fabs((double)s[i] - sin(angle) * h.rope.scale) < 1e-7);
		}
	}
}

/* --- refusals ---------------------------------------------------------------- */

static void expect_refusal(pal_status code, const char *words)
{
	pal__hparams h = {.n_embd = 12345};
	pal_error err;
	assert_int_equal(read_keys(NULL, &h, &err), code);
	if (!strstr(err.text, words))
		fail_msg("'%s' instead of '%s'", err.text, words);
	assert_int_equal(h.n_embd, 12345); /* untouched */
}

static void refusals(void **state)
{
	const char *arch = "qwen3";
	float divisors[8] = {1, 1, NAN, 1, 1, 1, 1, 1};
	pal__hparams h;
	pal_error err;
	(void)state;
	begin("mamba", 2);
	expect_refusal(PAL_EUNSUPPORTED, "mamba is not supported (supported: qwen3, qwen2, llama");
	begin(arch, 0);
	expect_refusal(PAL_EFORMAT, "qwen3.block_count");
	begin(arch, 2);
	number(KEY("attention.head_count_kv"), 2);
	expect_refusal(PAL_EUNSUPPORTED, "not a multiple of attention.head_count_kv");
	begin(arch, 2);
	number(KEY("attention.key_length"), 1024);
	number(KEY("attention.value_length"), 512);
	expect_refusal(PAL_EUNSUPPORTED, "value_length differs");
	begin(arch, 2);
	number(KEY("attention.key_length"), 17);
	expect_refusal(PAL_EUNSUPPORTED, "is odd");
	begin(arch, 2);
	number(KEY("rope.dimension_count"), 18);
	expect_refusal(PAL_EUNSUPPORTED, "larger than a head");
	begin(arch, 2);
	text(KEY("rope.scaling.type"), "su");
	expect_refusal(PAL_EUNSUPPORTED, "qwen3.rope.scaling.type: su is not supported");
	begin(arch, 2);
	put_key_f32(KEY("rope.scaling.factor"), 1e-7f);
	expect_refusal(PAL_EFORMAT, "is below 1e-6");
	begin("llama", 2);
	assert_int_equal(read_keys(divisors, &h, &err), PAL_EFORMAT);
	assert_non_null(strstr(err.text, "rope_freqs.weight: value 2 is nan"));
	/* Each in its range, together beyond what an angle may be. */
	arch = "llama";
	divisors[2] = 2e-6f;
	begin(arch, 2);
	put_key_f32(KEY("rope.scaling.factor"), 2e-6f);
	assert_int_equal(read_keys(divisors, &h, &err), PAL_EFORMAT);
	assert_non_null(strstr(err.text, "turn pair 2 by"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults), cmocka_unit_test(explicit_sizes),
		cmocka_unit_test(gemma),    cmocka_unit_test(linear),
		cmocka_unit_test(yarn),     cmocka_unit_test(llama3),
		cmocka_unit_test(angles),   cmocka_unit_test(refusals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
