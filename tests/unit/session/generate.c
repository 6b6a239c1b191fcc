/* pal_generate over a session that is played: its logits prefer the tokens of a script, so
 * that what is generated, and how its text falls on tokens, is the test's choice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "draft/drafter.h"
#include "draft/sample.h"
#include "model/model.h"
#include "session/session.h"

enum { A, B, C, AB, BCA, HIGH, LOW, END, N_TOKENS };

/* HIGH and LOW stand for the two bytes of U+00FC, 0xc3 0xbc. */
static const char *const texts[N_TOKENS] = {"a",   "b",        "c",        "ab",
					    "bca", "\xc3\x83", "\xc2\xbc", "<|end|>"};

static struct played {
	pal__tokenizer *tokenizer;
	int32_t script[256], log[256]; /* script[i]: token i of the log */
	int64_t length, n_ctx, fail_at;
	float logits[N_TOKENS];
	bool has_logits;
} played;

pal_model *pal__session_model(const pal_session *s)
{
	(void)s;
	return NULL;
}

const pal__tokenizer *pal__model_tokenizer(const pal_model *m)
{
	(void)m;
	return played.tokenizer;
}

void pal_model_get_info(const pal_model *m, pal_model_info *out)
{
	(void)m;
	*out = (pal_model_info){.n_vocab = N_TOKENS};
}

int64_t pal_session_length(const pal_session *s)
{
	(void)s;
	return played.length;
}

const int32_t *pal_session_log(const pal_session *s)
{
	(void)s;
	return played.log;
}

pal_status pal_session_restore(pal_session *s, pal_error *err)
{
	(void)s;
	(void)err;
	return PAL_OK;
}

pal_status pal__session_reselect(pal_session *s, pal_error *err)
{
	(void)s;
	(void)err;
	return PAL_OK;
}

const float *pal_session_logits(const pal_session *s)
{
	(void)s;
	return played.has_logits ? played.logits : NULL;
}

static void prefer_next(void)
{
	for (int i = 0; i < N_TOKENS; i++)
		played.logits[i] = i == played.script[played.length] ? 9 : 0;
	played.has_logits = true;
}

pal_status pal__session_room(pal_session *s, size_t n, size_t *room, pal_error *err)
{
	(void)s;
	if (played.length == played.n_ctx)
		return pal__fail(err, PAL_ELIMIT, "full");
	*room = n;
	return PAL_OK;
}

pal_status pal__session_write_log(pal_session *s, const int32_t *ids, size_t n, pal_error *err)
{
	(void)s, (void)ids, (void)n, (void)err;
	fail_msg("there is no drafter");
	return PAL_OK;
}

pal_status pal__session_verify(pal_session *s, const pal__verifying *v, const int32_t *ids,
			       size_t n, size_t *n_kept, double *seconds, pal_error *err)
{
	(void)s;
	assert_int_equal(n, 1);
	if (played.length == played.fail_at)
		return pal__fail(err, PAL_ENOMEM, "a failure that is played");
	played.log[played.length++] = ids[0];
	prefer_next();
	*n_kept = 1;
	*seconds = 0;
	v->kept(v->user, ids[0]);
	return PAL_OK;
}

/* No session here has a drafter. */
void pal__drafter_begin(pal_drafter *d)
{
	(void)d;
}

int pal__drafter_propose(pal_drafter *d, const pal__draft_view *view, int32_t *out, int most)
{
	(void)d, (void)view, (void)out, (void)most;
	return 0;
}

void pal__drafter_checked(pal_drafter *d, int rows, int kept, double seconds)
{
	(void)d, (void)rows, (void)kept, (void)seconds;
}

/* --- what is generated ---------------------------------------------------- */

static struct heard {
	char text[1024];
	size_t n;
	int32_t ids[256];
	int n_ids, n_last, stop_after; /* n_last: calls with id -1 */
} heard;

static bool on_token(void *user, int32_t id, const char *text, size_t n)
{
	assert_ptr_equal(user, &heard);
	assert_int_equal(heard.n_last, 0); /* -1 is the last call */
	memcpy(heard.text + heard.n, text, n);
	heard.n += n;
	heard.text[heard.n] = 0;
	if (id < 0) {
		heard.n_last++;
		assert_true(n > 0);
		return true;
	}
	assert_int_equal(played.log[played.length - 1], id); /* it has joined the log */
	heard.ids[heard.n_ids++] = id;
	return heard.n_ids != heard.stop_after;
}

static void play(const int32_t *script, size_t n)
{
	played.length = 1;
	played.n_ctx = 256;
	played.fail_at = -1;
	for (size_t i = 0; i < 256; i++)
		played.script[i] = i >= 1 && i <= n ? script[i - 1] : C;
	prefer_next();
	heard = (struct heard){0};
}

#define PLAY(...)                            \
	play((const int32_t[]){__VA_ARGS__}, \
	     sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static pal_generate_options options(int64_t max, const char *const *stops, size_t n_stops)
{
	return (pal_generate_options){.sampling = pal_sampling_default(),
				      .max_tokens = max,
				      .stops = stops,
				      .n_stops = n_stops,
				      .on_token = on_token,
				      .user = &heard};
}

static pal_generate_result generate(const pal_generate_options *o)
{
	pal_generate_result r = {.n_tokens = -1};
	pal_error err;
	if (pal_generate(NULL, o, &r, &err))
		fail_msg("%s", err.text);
	assert_int_equal(r.n_tokens, heard.n_ids);
	assert_true(r.seconds >= 0);
	return r;
}

static void expect(const pal_generate_options *o, pal_stop stop, int n_ids, const char *text)
{
	pal_generate_result r = generate(o);
	assert_int_equal(r.stop, stop);
	assert_int_equal(heard.n_ids, n_ids);
	assert_string_equal(heard.text, text);
}

/* --- tests ---------------------------------------------------------------- */

static void limits(void **state)
{
	pal_generate_options o = options(4, NULL, 0);
	(void)state;
	PLAY(A, BCA, AB, C, A);
	expect(&o, PAL_STOP_LIMIT, 4, "abcaabc");
	assert_int_equal(played.length, 5);
	PLAY(A, B, C);
	played.n_ctx = 3; /* room for two more */
	o.max_tokens = 0;
	expect(&o, PAL_STOP_LIMIT, 2, "ab");
	PLAY(A, B, C);
	o.on_token = NULL;
	o.max_tokens = 2;
	assert_int_equal(pal_generate(NULL, &o, NULL, NULL), PAL_OK);
	assert_int_equal(played.length, 3);
}

static void end_of_sequence(void **state)
{
	pal_generate_options o = options(5, NULL, 0);
	(void)state;
	PLAY(A, END, B, C, C);
	expect(&o, PAL_STOP_END, 2, "a");
	PLAY(A, END, B, C, C);
	o.ignore_end = true;
	expect(&o, PAL_STOP_LIMIT, 5, "abcc");
}

static void whole_characters(void **state)
{
	pal_generate_options o = options(3, NULL, 0);
	(void)state;
	PLAY(HIGH, LOW, A);
	o.on_token = on_token;
	heard.stop_after = 1;
	expect(&o, PAL_STOP_CANCELLED, 1, ""); /* half a character is not given out */
	PLAY(HIGH, LOW, A);
	expect(&o, PAL_STOP_LIMIT, 3,
	       "\xc3\xbc"
	       "a");
	PLAY(A, B, HIGH);
	expect(&o, PAL_STOP_LIMIT, 3, "ab\xc3"); /* at the end there is no other half */
	assert_int_equal(heard.n_last, 1);
	PLAY(HIGH, A, LOW);
	expect(&o, PAL_STOP_LIMIT, 3,
	       "\xc3"
	       "a\xbc");
}

static void cancelled(void **state)
{
	const char *const stops[] = {"bcX"};
	pal_generate_options o = options(9, stops, 1);
	(void)state;
	PLAY(A, B, C, A);
	heard.stop_after = 3;
	expect(&o, PAL_STOP_CANCELLED, 3, "a");
	assert_int_equal(heard.n_last, 0);
	assert_int_equal(played.length, 4);
}

static void stop_strings(void **state)
{
	const char *const stops[] = {"bb", "ca", "bca"};
	pal_generate_options o = options(6, stops, 3);
	(void)state;
	PLAY(A, AB, B, A);
	expect(&o, PAL_STOP_STRING, 3, "aa");
	/* "ca" and "bca" end at the same byte: the longer one counts. */
	PLAY(A, BCA, A);
	expect(&o, PAL_STOP_STRING, 2, "a");
	PLAY(A, B, C, A);
	expect(&o, PAL_STOP_STRING, 4, "a");
	/* What was held back is given out when it cannot be a stop string any more, or at
	 * the end. */
	PLAY(A, B, C, C, B, C);
	expect(&o, PAL_STOP_LIMIT, 6, "abccbc");
	assert_int_equal(heard.n_last, 1);
	PLAY(A, B, END);
	expect(&o, PAL_STOP_END, 3, "ab");
	/* The first to be complete counts, though another began before it. */
	const char *const nested[] = {"abcab", "c"};
	o = options(6, nested, 2);
	PLAY(A, B, C, A, B, B);
	expect(&o, PAL_STOP_STRING, 3, "ab");
}

/* Against the definition, on the whole text. */
static void any_stop_strings(void **state)
{
	(void)state;
	for (uint64_t round = 0; round < 3000; round++) {
		int32_t script[40];
		char whole[256] = "", stop_texts[3][8] = {""};
		const char *stops[3];
		uint64_t r = 0;
		for (size_t i = 0; i < 40; i++) {
			script[i] = (int32_t)(pal__random(round, r++) % 5);
			strcat(whole, texts[script[i]]);
		}
		for (int i = 0; i < 3; i++) {
			size_t n = 1 + pal__random(round, r++) % 6;
			for (size_t k = 0; k < n; k++)
				stop_texts[i][k] = (char)('a' + pal__random(round, r++) % 3);
			stops[i] = stop_texts[i];
		}
		size_t cut = strlen(whole);
		bool found = false;
		for (size_t end = 1; end <= strlen(whole) && !found; end++)
			for (int i = 0; i < 3; i++) {
				size_t n = strlen(stops[i]);
				if (n > end || memcmp(whole + end - n, stops[i], n))
					continue;
				cut = end - n < cut ? end - n : cut;
				found = true;
			}
		whole[cut] = 0;
		play(script, 40);
		const pal_generate_options o = options(40, stops, 3);
		pal_generate_result result = generate(&o);
		assert_int_equal(result.stop, found ? PAL_STOP_STRING : PAL_STOP_LIMIT);
		if (strcmp(heard.text, whole))
			fail_msg("round %d: '%s' instead of '%s'", (int)round, heard.text, whole);
	}
}

static void refusals(void **state)
{
	const char *const empty[] = {"x", ""}, *const bad[] = {"\xff"};
	const char *many[65];
	pal_error err;
	(void)state;
	for (int i = 0; i < 65; i++)
		many[i] = "x";
	pal_generate_options o = options(-1, NULL, 0);
	PLAY(A);
	assert_int_equal(pal_generate(NULL, &o, NULL, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "-1 tokens"));
	o = options(1, empty, 2);
	assert_int_equal(pal_generate(NULL, &o, NULL, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "stop string 2 has 0 bytes"));
	o = options(1, bad, 1);
	assert_int_equal(pal_generate(NULL, &o, NULL, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "not UTF-8"));
	o = options(1, many, 65);
	assert_int_equal(pal_generate(NULL, &o, NULL, &err), PAL_ELIMIT);
	o = options(1, NULL, 0);
	o.sampling.top_p = 2;
	assert_int_equal(pal_generate(NULL, &o, NULL, &err), PAL_EINVAL);
	played.has_logits = false;
	o = options(1, NULL, 0);
	assert_int_equal(pal_generate(NULL, &o, NULL, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "append a token first"));
	PLAY(A, B);
	played.fail_at = 2;
	o = options(3, NULL, 0);
	assert_int_equal(pal_generate(NULL, &o, NULL, &err), PAL_ENOMEM);
	assert_string_equal(err.text, "a failure that is played");
}

static void allocation_failures(void **state)
{
	const char *const stops[] = {"ca"};
	pal_generate_options o = options(3, stops, 1);
	pal_status s = PAL_ENOMEM;
	int64_t live = pal__mem_live();
	(void)state;
	for (int i = 0; s; i++) {
		PLAY(A, B, C);
		pal__mem_fail_after(i);
		s = pal_generate(NULL, &o, NULL, NULL);
		pal__mem_fail_after(-1);
		assert_true(s == PAL_OK || s == PAL_ENOMEM);
		assert_int_equal(heard.n_ids, s ? 0 : 3);
		assert_int_equal(pal__mem_live(), live);
	}
}

static int make_tokenizer(void **state)
{
	pal__str tokens[N_TOKENS];
	int32_t types[N_TOKENS];
	(void)state;
	for (int i = 0; i < N_TOKENS; i++) {
		tokens[i] = (pal__str){texts[i], strlen(texts[i])};
		types[i] = i == END ? PAL__TOKEN_CONTROL : PAL__TOKEN_NORMAL;
	}
	const pal__vocab_spec spec = {.file = "test",
				      .model = {"gpt2", 4},
				      .pre = {"gpt-2", 5},
				      .n_tokens = N_TOKENS,
				      .tokens = tokens,
				      .types = types,
				      .bos = -1,
				      .eos = END,
				      .eot = -1,
				      .unk = -1};
	return pal__tokenizer_new(&spec, &played.tokenizer, NULL);
}

static int free_tokenizer(void **state)
{
	(void)state;
	pal__tokenizer_free(played.tokenizer);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits),           cmocka_unit_test(end_of_sequence),
		cmocka_unit_test(whole_characters), cmocka_unit_test(cancelled),
		cmocka_unit_test(stop_strings),     cmocka_unit_test(any_stop_strings),
		cmocka_unit_test(refusals),         cmocka_unit_test(allocation_failures),
	};
	return cmocka_run_group_tests(tests, make_tokenizer, free_tokenizer);
}
