#include "model/vocab.h"

#include <string.h>

#include "base/mem.h"

#define KEY(name) "tokenizer.ggml." name

static bool is(pal__str s, const char *text)
{
	return s.n == strlen(text) && !memcmp(s.s, text, s.n);
}

/* The arrays, in memory of their own until the tokenizer has copied them. */
struct arrays {
	pal__str *tokens, *merges;
	float *scores;
	int32_t *types;
};

static void free_arrays(struct arrays *a)
{
	pal__free(a->tokens);
	pal__free(a->merges);
	pal__free(a->scores);
	pal__free(a->types);
}

static pal_status check_length(const pal__gguf *g, const char *key, size_t n, size_t n_tokens,
			       pal_error *err)
{
	if (n == 0 || n == n_tokens)
		return PAL_OK;
	return pal__fail(err, PAL_EFORMAT, "%s: key %s has %zu entries for %zu tokens", g->path,
			 key, n, n_tokens);
}

static pal_status read_tokens(const pal__gguf *g, struct arrays *a, pal__vocab_spec *spec,
			      pal_error *err)
{
	const pal__gguf_kv *kv = pal__gguf_find(g, KEY("tokens"));
	if (kv && kv->type == PAL__GGUF_ARRAY && kv->count > PAL__MAX_VOCAB)
		return pal__fail(err, PAL_ELIMIT,
				 "%s: %llu tokens in " KEY("tokens") ": at most %d "
								     "are supported",
				 g->path, (unsigned long long)kv->count, PAL__MAX_VOCAB);
	pal_status s = pal__gguf_strings(g, KEY("tokens"), true, &a->tokens, &spec->n_tokens, err);
	if (s)
		return s;
	if (!spec->n_tokens)
		return pal__fail(err, PAL_EFORMAT, "%s: key " KEY("tokens") " is empty", g->path);
	spec->tokens = a->tokens;
	return PAL_OK;
}

static pal_status read_arrays(const pal__gguf *g, struct arrays *a, pal__vocab_spec *spec,
			      pal_error *err)
{
	size_t n;
	pal_status s = read_tokens(g, a, spec, err);
	if (s)
		return s;
	s = pal__gguf_floats(g, KEY("scores"), is(spec->model, "llama"), &a->scores, &n, err);
	if (s || (s = check_length(g, KEY("scores"), n, spec->n_tokens, err)))
		return s;
	spec->scores = n ? a->scores : NULL;
	s = pal__gguf_ints(g, KEY("token_type"), false, &a->types, &n, err);
	if (s || (s = check_length(g, KEY("token_type"), n, spec->n_tokens, err)))
		return s;
	spec->types = n ? a->types : NULL;
	s = pal__gguf_strings(g, KEY("merges"), is(spec->model, "gpt2"), &a->merges,
			      &spec->n_merges, err);
	spec->merges = a->merges;
	return s;
}

static pal_status read_ids(const pal__gguf *g, pal__vocab_spec *spec, pal_error *err)
{
	bool spm = is(spec->model, "llama") && spec->n_tokens > 2;
	const struct {
		const char *key;
		int32_t missing, *out;
	} ids[] = {
		{KEY("bos_token_id"), spm ? 1 : -1, &spec->bos},
		{KEY("eos_token_id"), spm ? 2 : -1, &spec->eos},
		{KEY("eot_token_id"), -1, &spec->eot},
		{KEY("unknown_token_id"), spm ? 0 : -1, &spec->unk},
	};
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
		int64_t id = ids[i].missing;
		pal_status s = pal__gguf_int(g, ids[i].key, false, 0, (int64_t)spec->n_tokens - 1,
					     &id, err);
		if (s)
			return s;
		*ids[i].out = (int32_t)id;
	}
	return PAL_OK;
}

static pal_status read_flags(const pal__gguf *g, pal__vocab_spec *spec, pal_error *err)
{
	spec->add_bos = spec->bos >= 0 && (is(spec->model, "llama") || is(spec->pre, "llama-bpe"));
	spec->add_space_prefix = true;
	pal_status s = pal__gguf_bool(g, KEY("add_bos_token"), false, &spec->add_bos, err);
	if (!s)
		s = pal__gguf_bool(g, KEY("add_eos_token"), false, &spec->add_eos, err);
	if (!s)
		s = pal__gguf_bool(g, KEY("add_space_prefix"), false, &spec->add_space_prefix, err);
	if (s)
		return s;
	if (spec->add_bos && spec->bos < 0)
		return pal__fail(
			err, PAL_EFORMAT,
			"%s: key " KEY("add_bos_token") " is true without " KEY("bos_token_id"),
			g->path);
	if (spec->add_eos && spec->eos < 0)
		return pal__fail(
			err, PAL_EFORMAT,
			"%s: key " KEY("add_eos_token") " is true without " KEY("eos_token_id"),
			g->path);
	return PAL_OK;
}

static pal_status read_spec(const pal__gguf *g, struct arrays *a, pal__vocab_spec *spec,
			    pal_error *err)
{
	pal_status s = pal__gguf_string(g, KEY("model"), true, &spec->model, err);
	if (!s)
		s = pal__gguf_string(g, KEY("pre"), false, &spec->pre, err);
	if (!s)
		s = read_arrays(g, a, spec, err);
	if (!s)
		s = read_ids(g, spec, err);
	return s ? s : read_flags(g, spec, err);
}

pal_status pal__vocab_from_gguf(const pal__gguf *g, pal__tokenizer **out, pal_error *err)
{
	struct arrays a = {0};
	pal__vocab_spec spec = {.file = g->path, .model = {"", 0}, .pre = {"", 0}};
	pal__tokenizer *t = NULL;
	pal_status s = read_spec(g, &a, &spec, err);
	if (!s)
		s = pal__tokenizer_new(&spec, &t, err);
	free_arrays(&a);
	if (!s && (s = pal__gguf_shrunk(g, err)))
		pal__tokenizer_free(t);
	if (!s)
		*out = t;
	return s;
}

pal_status pal__model_load_tokenizer(const char *path, pal__tokenizer **out, pal_error *err)
{
	pal__gguf g = {0};
	pal_status s = pal__gguf_open(path, &g, err);
	if (s)
		return s;
	s = pal__vocab_from_gguf(&g, out, err);
	pal__gguf_close(&g);
	return s;
}
