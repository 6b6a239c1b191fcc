#include "model/vocab.h"

#include <stdio.h>

#include "gguf_writer.h"

#include "base/mem.h"

#define KEY(name) "tokenizer.ggml." name

/* Which keys of the vocabulary below are written, and what is wrong with them. */
struct plan {
	const char *model, *pre;                   /* NULL: missing */
	int n_tokens, n_scores, n_types, n_merges; /* -1: missing */
	int64_t bos, eos, eot, unk;                /* -1: missing */
	int add_bos, add_eos;                      /* -1: missing */
	bool nan_score, number_as_model;
};

static const struct plan good = {"gpt2", "gpt-2", 4, -1, 4, 1, 3, 3, -1, -1, -1, -1, false, false};
static const struct plan good_spm = {"llama", NULL, 5,  5,  5,  -1,    -1,
				     -1,      -1,   -1, -1, -1, false, false};

static void put_strings(buffer *b, const char *key, const char *const *items, int n)
{
	put_array(b, key, PAL__GGUF_STRING, (uint64_t)n);
	for (int i = 0; i < n; i++)
		put_str(b, items[i]);
}

static void put_numbers(buffer *b, const char *key, uint32_t type, const void *items, int n)
{
	put_array(b, key, type, (uint64_t)n);
	put(b, items, (size_t)n * 4);
}

static int put_arrays(buffer *b, const struct plan *p)
{
	static const char *const bpe[] = {"a", "b", "ab", "<s>", "x"}, *const merges[] = {"a b"};
	static const char *const spm[] = {"<unk>", "<s>", "</s>", "a", "\xe2\x96\x81"};
	static const int32_t bpe_types[] = {1, 1, 1, 3, 1}, spm_types[] = {2, 3, 3, 1, 1};
	float scores[] = {0, 0, 0, -1, -2};
	bool is_spm = p->model && !strcmp(p->model, "llama");
	int n = 0;
	if (p->nan_score)
		scores[1] = __builtin_nanf("");
	if (p->n_tokens >= 0)
		n++, put_strings(b, KEY("tokens"), is_spm ? spm : bpe, p->n_tokens);
	if (p->n_scores >= 0)
		n++, put_numbers(b, KEY("scores"), PAL__GGUF_F32, scores, p->n_scores);
	if (p->n_types >= 0)
		n++, put_numbers(b, KEY("token_type"), PAL__GGUF_I32,
				 is_spm ? spm_types : bpe_types, p->n_types);
	if (p->n_merges >= 0)
		n++, put_strings(b, KEY("merges"), merges, p->n_merges);
	return n;
}

static int put_keys(buffer *b, const struct plan *p)
{
	const struct {
		const char *key;
		int64_t id;
	} ids[] = {{KEY("bos_token_id"), p->bos},
		   {KEY("eos_token_id"), p->eos},
		   {KEY("eot_token_id"), p->eot},
		   {KEY("unknown_token_id"), p->unk}};
	int n = put_arrays(b, p);
	if (p->number_as_model)
		n++, put_key_u32(b, KEY("model"), 1);
	else if (p->model)
		n++, put_key_str(b, KEY("model"), p->model);
	if (p->pre)
		n++, put_key_str(b, KEY("pre"), p->pre);
	for (int i = 0; i < 4; i++)
		if (ids[i].id >= 0)
			n++, put_key_u32(b, ids[i].key, (uint32_t)ids[i].id);
	for (int i = 0; i < 2; i++) {
		int flag = i ? p->add_eos : p->add_bos;
		if (flag < 0)
			continue;
		n++, put_key(b, i ? KEY("add_eos_token") : KEY("add_bos_token"), PAL__GGUF_BOOL);
		put_u8(b, (uint8_t)flag);
	}
	return n;
}

static void write_plan(buffer *b, const struct plan *p)
{
	put_header(b, 3, 0, 0);
	int n = put_keys(b, p);
	put_header(b, 3, 0, (uint64_t)n);
	put_keys(b, p);
}

static pal_status load(const struct plan *p, pal__tokenizer **out, pal_error *err)
{
	static buffer b;
	char path[] = "/tmp/pal-vocab-XXXXXX";
	write_plan(&b, p);
	write_file(path, b.bytes, b.n);
	pal_status s = pal__model_load_tokenizer(path, out, err);
	unlink(path);
	return s;
}

/* The ids of text with BOS and EOS as the metadata asks, as a string. */
static const char *ids_of(const struct plan *p, const char *text)
{
	static char line[128];
	pal__tokenizer *t;
	pal_error err = {0};
	int32_t *ids;
	size_t n, at = 0;
	line[0] = 0;
	if (load(p, &t, &err))
		return strcpy(line, err.text);
	assert_int_equal(pal__tokenize(t, text, strlen(text), PAL_TOKENIZE_ADD, &ids, &n, NULL), 0);
	for (size_t i = 0; i < n; i++)
		at += (size_t)snprintf(line + at, sizeof line - at, "%s%d", i ? " " : "", ids[i]);
	pal__free(ids);
	pal__tokenizer_free(t);
	return line;
}

static void byte_level(void **state)
{
	struct plan p = good;
	(void)state;
	assert_string_equal(ids_of(&p, "aba"), "2 0");
	p.add_bos = p.add_eos = 1;
	assert_string_equal(ids_of(&p, "aba"), "3 2 0 3");
	p.add_bos = p.add_eos = -1;
	p.pre = "llama-bpe"; /* these models leave the key out and want BOS */
	assert_string_equal(ids_of(&p, "aba"), "3 2 0");
	p.add_bos = 0;
	assert_string_equal(ids_of(&p, "aba"), "2 0");
	p = good;
	p.n_types = -1;
	assert_string_equal(ids_of(&p, "aba"), "2 0");
}

static void sentencepiece(void **state)
{
	struct plan p = good_spm;
	pal__tokenizer *t;
	(void)state;
	assert_string_equal(ids_of(&p, "a"), "1 4 3"); /* BOS is 1, and a dummy space */
	p.add_bos = 0;
	p.add_eos = 1;
	assert_string_equal(ids_of(&p, "a"), "4 3 2");
	assert_int_equal(load(&p, &t, NULL), PAL_OK);
	assert_true(pal__token_is_end(t, 2));
	assert_int_equal(pal__tokenizer_bos(t), 1);
	pal__tokenizer_free(t);
}

static void refusals(void **state)
{
	struct {
		struct plan p;
		pal_status status;
		const char *text;
	} bad[] = {
		{good, PAL_EFORMAT, KEY("model")},
		{good, PAL_EFORMAT, KEY("model")},
		{good, PAL_EUNSUPPORTED, "bert"},
		{good, PAL_EFORMAT, KEY("tokens")},
		{good, PAL_EFORMAT, KEY("tokens") " is empty"},
		{good, PAL_EFORMAT, KEY("token_type") " has 3 entries for 4 tokens"},
		{good, PAL_EFORMAT, KEY("scores") " has 5 entries for 4 tokens"},
		{good, PAL_EFORMAT, KEY("merges")},
		{good, PAL_EFORMAT, KEY("bos_token_id")},
		{good, PAL_EFORMAT, KEY("eos_token_id")},
		{good, PAL_EFORMAT, KEY("eot_token_id")},
		{good, PAL_EFORMAT, KEY("add_bos_token") " is true without"},
		{good, PAL_EFORMAT, KEY("add_eos_token") " is true without"},
		{good_spm, PAL_EFORMAT, KEY("scores")},
		{good_spm, PAL_EFORMAT, KEY("scores") ": element 1 of value nan"},
		{good_spm, PAL_EFORMAT, KEY("unknown_token_id")},
	};
	int64_t live = pal__mem_live();
	(void)state;
	bad[0].p.model = NULL;
	bad[1].p.number_as_model = true;
	bad[2].p.model = "bert";
	bad[3].p.n_tokens = -1;
	bad[4].p.n_tokens = 0;
	bad[5].p.n_types = 3;
	bad[6].p.n_scores = 5;
	bad[7].p.n_merges = -1;
	bad[8].p.bos = 4;
	bad[9].p.eos = 4;
	bad[10].p.eot = 0xffffffff;
	bad[11].p.bos = -1;
	bad[11].p.add_bos = 1;
	bad[12].p.eos = -1;
	bad[12].p.add_eos = 1;
	bad[13].p.n_scores = -1;
	bad[14].p.nan_score = true;
	bad[15].p.unk = 5;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		pal__tokenizer *t = NULL;
		pal_error err = {0};
		pal_status s = load(&bad[i].p, &t, &err);
		if (s != bad[i].status || !strstr(err.text, bad[i].text))
			fail_msg("%zu: %d, '%s' instead of '%s'", i, s, err.text, bad[i].text);
		assert_non_null(strstr(err.text, "/tmp/pal-vocab-"));
		assert_null(t);
	}
	assert_int_equal(pal__mem_live(), live);
}

static void fail_each_allocation(const struct plan *p)
{
	int64_t live = pal__mem_live();
	pal_status s = PAL_ENOMEM;
	for (int i = 0; s; i++) {
		pal__tokenizer *t = NULL;
		pal__mem_fail_after(i);
		s = load(p, &t, NULL);
		pal__mem_fail_after(-1);
		assert_true(s == PAL_OK || s == PAL_ENOMEM);
		pal__tokenizer_free(t);
		assert_int_equal(pal__mem_live(), live);
	}
}

static void allocation_failures(void **state)
{
	(void)state;
	fail_each_allocation(&good);
	fail_each_allocation(&good_spm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(byte_level),
		cmocka_unit_test(sentencepiece),
		cmocka_unit_test(refusals),
		cmocka_unit_test(allocation_failures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
