#include "text/tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/mem.h"
#include "text/trie.h"
#include "text/utf8.h"
#include "text/vocabulary.h"

#define SPACE_MARK "\xe2\x96\x81" /* U+2581, how SentencePiece writes a space */
#define SHOWN 48                  /* bytes of a token shown in a message */

/* Control tokens that end a sequence or a turn, in the vocabularies we know. */
static const char *const ends[] = {
	"<|im_end|>",    "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>",
	"<end_of_turn>", "<|end|>",       "<|endofturn|>",   "<|EOT|>",    "</s>",
	"<eos>",         "<EOT>",         "<|return|>",
};

static bool is(pal__str s, const char *text)
{
	return s.n == strlen(text) && !memcmp(s.s, text, s.n);
}

static int shown(pal__str s)
{
	return s.n < SHOWN ? (int)s.n : SHOWN;
}

static int32_t type_of(const pal__vocab_spec *spec, size_t i)
{
	return spec->types ? spec->types[i] : PAL__TOKEN_NORMAL;
}

/* Byte-level BPE writes each byte as a printable character: the printable ones of
 * Latin-1 as themselves, the others in order from U+0100 on. */
static void make_alphabet(int16_t byte_of[324])
{
	int next = 256;
	memset(byte_of, 0xff, 324 * sizeof *byte_of);
	for (int b = 0; b < 256; b++) {
		bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
		byte_of[plain ? b : next++] = (int16_t)b;
	}
}

/* The bytes that a byte-level token stands for, at most s.n; false when it is not
 * written in the alphabet. */
static bool decode_byte_level(const int16_t byte_of[324], pal__str s, char *out, size_t *n_out)
{
	size_t n = 0;
	for (size_t i = 0; i < s.n;) {
		utf8proc_int32_t c;
		utf8proc_ssize_t len = utf8proc_iterate((const utf8proc_uint8_t *)s.s + i,
							(utf8proc_ssize_t)(s.n - i), &c);
		if (len <= 0 || c >= 324 || byte_of[c] < 0)
			return false;
		out[n++] = (char)byte_of[c];
		i += (size_t)len;
	}
	*n_out = n;
	return true;
}

static size_t marks_to_spaces(pal__str s, char *out)
{
	size_t n = 0;
	for (size_t i = 0; i < s.n; n++) {
		bool mark = s.n - i >= 3 && !memcmp(s.s + i, SPACE_MARK, 3);
		out[n] = mark ? ' ' : s.s[i];
		i += mark ? 3 : 1;
	}
	return n;
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of a token written <0xXX>, or -1. */
static int byte_token(pal__str s)
{
	if (s.n != 6 || memcmp(s.s, "<0x", 3) || s.s[5] != '>')
		return -1;
	int high = hex(s.s[3]), low = hex(s.s[4]);
	return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Token i of a byte-level vocabulary into out; *merges: whether merging may make it. */
static size_t fill_byte_level(pal__tokenizer *t, const int16_t byte_of[324], pal__str s,
			      int32_t type, size_t i, char *out, bool *merges)
{
	size_t n;
	*merges = type == PAL__TOKEN_NORMAL || type == PAL__TOKEN_BYTE;
	if (!*merges || !decode_byte_level(byte_of, s, out, &n)) {
		*merges = false;
		memcpy(out, s.s, s.n);
		return s.n;
	}
	if (n == 1 && t->byte_ids[(uint8_t)*out] < 0)
		t->byte_ids[(uint8_t)*out] = (int32_t)i;
	return n;
}

static size_t fill_sentencepiece(pal__tokenizer *t, pal__str s, int32_t type, size_t i, char *out,
				 bool *merges)
{
	int byte = type == PAL__TOKEN_BYTE || type == PAL__TOKEN_NORMAL ? byte_token(s) : -1;
	*merges = byte < 0 && (type == PAL__TOKEN_NORMAL || type == PAL__TOKEN_USER);
	if (byte >= 0) {
		if (t->byte_ids[byte] < 0)
			t->byte_ids[byte] = (int32_t)i;
		*out = (char)byte;
		return 1;
	}
	if (type != PAL__TOKEN_CONTROL && type != PAL__TOKEN_UNKNOWN)
		return marks_to_spaces(s, out);
	memcpy(out, s.s, s.n);
	return s.n;
}

/* Checks every token and allocates room for their bytes, none of which grows. */
static pal_status size_up(pal__tokenizer *t, const pal__vocab_spec *spec, pal_error *err)
{
	size_t total = 0;
	for (size_t i = 0; i < spec->n_tokens; i++) {
		pal__str s = spec->tokens[i];
		int32_t type = type_of(spec, i);
		if (s.n > PAL__MAX_TOKEN_BYTES || !pal__add_size(total, s.n, &total))
			return pal__fail(err, PAL_ELIMIT,
					 "%s: token %zu has %zu bytes: at most %d are supported",
					 spec->file, i, s.n, PAL__MAX_TOKEN_BYTES);
		if (type < PAL__TOKEN_NORMAL || type > PAL__TOKEN_BYTE)
			return pal__fail(err, PAL_EFORMAT,
					 "%s: token %zu (\"%.*s\") has type %d: it must be 1 to 6",
					 spec->file, i, shown(s), s.s, type);
		if (t->spm && type == PAL__TOKEN_BYTE && byte_token(s) < 0)
			return pal__fail(err, PAL_EFORMAT,
					 "%s: token %zu (\"%.*s\") has the type of a byte but is "
					 "not written like <0x0A>",
					 spec->file, i, shown(s), s.s);
	}
	t->n = spec->n_tokens;
	t->bytes = pal__alloc(total);
	t->at = pal__calloc(t->n + 1, sizeof *t->at);
	t->flags = pal__calloc(t->n, 1);
	if (!t->bytes || !t->at || !t->flags ||
	    !pal__text_map_init(&t->text, t->bytes, t->at, t->n))
		return pal__fail_memory(err, "a vocabulary", total);
	return PAL_OK;
}

static void fill_tokens(pal__tokenizer *t, const pal__vocab_spec *spec)
{
	int16_t byte_of[324];
	make_alphabet(byte_of);
	memset(t->byte_ids, 0xff, sizeof t->byte_ids);
	for (size_t i = 0; i < t->n; i++) {
		pal__str s = spec->tokens[i];
		int32_t type = type_of(spec, i);
		char *out = t->bytes + t->at[i];
		bool merges = false;
		size_t n = 0;
		if (s.n && t->spm)
			n = fill_sentencepiece(t, s, type, i, out, &merges);
		else if (s.n)
			n = fill_byte_level(t, byte_of, s, type, i, out, &merges);
		t->at[i + 1] = t->at[i] + n;
		if (merges && n)
			pal__text_map_add(&t->text, (int32_t)i);
	}
}

static void fill_flags(pal__tokenizer *t, const pal__vocab_spec *spec)
{
	for (size_t i = 0; i < t->n; i++) {
		int32_t type = type_of(spec, i);
		if (type == PAL__TOKEN_CONTROL || type == PAL__TOKEN_UNKNOWN)
			t->flags[i] |= PAL__IS_SPECIAL;
		for (size_t k = 0; type == PAL__TOKEN_CONTROL && k < sizeof ends / sizeof *ends;
		     k++)
			if (is(spec->tokens[i], ends[k]))
				t->flags[i] |= PAL__IS_END;
	}
	if (t->eos >= 0)
		t->flags[t->eos] |= PAL__IS_END;
	if (t->eot >= 0)
		t->flags[t->eot] |= PAL__IS_END;
}

/* A user-defined token of "llama" that is nothing but spaces, however written. */
static bool is_space_run(const pal__tokenizer *t, const pal__vocab_spec *spec, size_t i)
{
	if (!t->spm || type_of(spec, i) != PAL__TOKEN_USER || t->at[i] == t->at[i + 1])
		return false;
	for (size_t k = t->at[i]; k < t->at[i + 1]; k++)
		if (t->bytes[k] != ' ')
			return false;
	return true;
}

/* Runs of spaces are merged like words, so in text only U+2581 itself stands for them. */
static bool add_space_run(pal__tokenizer *t, size_t i)
{
	char marks[PAL__MAX_SPECIAL_BYTES];
	size_t n = t->at[i + 1] - t->at[i];
	for (size_t k = 0; k < n; k++)
		memcpy(marks + 3 * k, SPACE_MARK, 3);
	return pal__specials_add(&t->specials, marks, 3 * n, (int32_t)i, true);
}

static pal_status fill_specials(pal__tokenizer *t, const pal__vocab_spec *spec, pal_error *err)
{
	for (size_t i = 0; i < t->n; i++) {
		pal__str s = spec->tokens[i];
		int32_t type = type_of(spec, i);
		bool user = type == PAL__TOKEN_USER, run = is_space_run(t, spec, i);
		if (!s.n || (!user && type != PAL__TOKEN_CONTROL && type != PAL__TOKEN_UNKNOWN))
			continue;
		if (s.n > PAL__MAX_SPECIAL_BYTES ||
		    (run && 3 * (t->at[i + 1] - t->at[i]) > PAL__MAX_SPECIAL_BYTES))
			return pal__fail(err, PAL_ELIMIT,
					 "%s: token %zu (\"%.*s\"...) is special and has %zu "
					 "bytes: at most %d are supported",
					 spec->file, i, shown(s), s.s, s.n, PAL__MAX_SPECIAL_BYTES);
		if (!(run ? add_space_run(t, i)
			  : pal__specials_add(&t->specials, s.s, s.n, (int32_t)i, user)))
			return pal__fail_memory(err, "the special tokens", s.n);
	}
	pal__specials_sort(&t->specials);
	return PAL_OK;
}

/* A part of merge i, as a token; parts must be in the vocabulary. */
static pal_status merge_token(const pal__tokenizer *t, const pal__vocab_spec *spec, size_t i,
			      const char *what, pal__str raw, const int16_t byte_of[324],
			      char *buffer, int32_t *id, pal_error *err)
{
	size_t n = 0;
	*id = -1;
	if (raw.n && raw.n <= PAL__MAX_TOKEN_BYTES && decode_byte_level(byte_of, raw, buffer, &n))
		*id = pal__text_map_find(&t->text, buffer, n);
	if (*id >= 0)
		return PAL_OK;
	return pal__fail(err, PAL_EFORMAT,
			 "%s: merge %zu (\"%.*s\"): %s (\"%.*s\") is not in the vocabulary",
			 spec->file, i, shown(spec->merges[i]), spec->merges[i].s, what, shown(raw),
			 raw.s);
}

static pal_status add_merge(pal__tokenizer *t, const pal__vocab_spec *spec, size_t i,
			    const int16_t byte_of[324], char *buffer, pal_error *err)
{
	pal__str m = spec->merges[i];
	struct pal__pair_slot entry = {.rank = (uint32_t)i};
	const char *space = m.n > 1 ? memchr(m.s + 1, ' ', m.n - 1) : NULL;
	if (!space || space == m.s + m.n - 1)
		return pal__fail(err, PAL_EFORMAT,
				 "%s: merge %zu (\"%.*s\") is not two tokens with a space between",
				 spec->file, i, shown(m), m.s);
	pal__str left = {m.s, (size_t)(space - m.s)};
	pal__str right = {space + 1, m.n - left.n - 1};
	pal_status s =
		merge_token(t, spec, i, "its left part", left, byte_of, buffer, &entry.left, err);
	if (!s)
		s = merge_token(t, spec, i, "its right part", right, byte_of, buffer, &entry.right,
				err);
	if (s)
		return s;
	size_t n_left = t->at[entry.left + 1] - t->at[entry.left];
	size_t n_right = t->at[entry.right + 1] - t->at[entry.right];
	memcpy(buffer, t->bytes + t->at[entry.left], n_left);
	memcpy(buffer + n_left, t->bytes + t->at[entry.right], n_right);
	entry.id = pal__text_map_find(&t->text, buffer, n_left + n_right);
	/* A merge into nothing can make no token: other engines merge and then take it apart
	 * again, and files (of cut vocabularies) rely on that. */
	if (entry.id >= 0)
		pal__pair_map_add(&t->pairs, &entry);
	return PAL_OK;
}

static pal_status fill_merges(pal__tokenizer *t, const pal__vocab_spec *spec, pal_error *err)
{
	int16_t byte_of[324];
	make_alphabet(byte_of);
	if (spec->n_merges > PAL__MAX_MERGES)
		return pal__fail(err, PAL_ELIMIT, "%s: %zu merges: at most %d are supported",
				 spec->file, spec->n_merges, PAL__MAX_MERGES);
	if (!pal__pair_map_init(&t->pairs, spec->n_merges))
		return pal__fail_memory(err, "the merges", spec->n_merges * sizeof *t->pairs.slots);
	char *buffer = pal__alloc(2 * PAL__MAX_TOKEN_BYTES);
	if (!buffer)
		return pal__fail_memory(err, "the merges", 2 * PAL__MAX_TOKEN_BYTES);
	pal_status s = PAL_OK;
	for (size_t i = 0; !s && i < spec->n_merges; i++)
		s = add_merge(t, spec, i, byte_of, buffer, err);
	pal__free(buffer);
	return s;
}

/* The order in which "llama" tokens are made. */
struct priority {
	size_t run; /* characters of a run of spaces, else 0 */
	float score;
	int32_t id;
};

static int by_priority(const void *a, const void *b)
{
	const struct priority *l = a, *r = b;
	if (l->run != r->run)
		return l->run > r->run ? -1 : 1;
	if (l->score != r->score)
		return l->score > r->score ? -1 : 1;
	return l->id < r->id ? -1 : 1;
}

/* Longer runs of spaces first (whatever score the file gives user-defined tokens), then
 * by score; equal scores have equal rank, so that the leftmost is merged first. */
static pal_status fill_ranks(pal__tokenizer *t, const pal__vocab_spec *spec, pal_error *err)
{
	if (!spec->scores)
		return pal__fail(err, PAL_EFORMAT,
				 "%s: key tokenizer.ggml.scores is missing: the \"llama\" "
				 "tokenizer merges by score",
				 spec->file);
	struct priority *p = pal__calloc(t->n, sizeof *p);
	t->ranks = pal__calloc(t->n, sizeof *t->ranks);
	if (!p || !t->ranks) {
		pal__free(p);
		return pal__fail_memory(err, "the merge ranks", t->n * sizeof *p);
	}
	pal_status s = PAL_OK;
	for (size_t i = 0; i < t->n; i++) {
		bool run = is_space_run(t, spec, i);
		p[i] = (struct priority){run ? t->at[i + 1] - t->at[i] : 0,
					 run ? 0 : spec->scores[i], (int32_t)i};
		if (isnan(spec->scores[i]))
			s = pal__fail(err, PAL_EFORMAT,
				      "%s: the score of token %zu is not a number", spec->file, i);
	}
	if (!s) {
		qsort(p, t->n, sizeof *p, by_priority);
		for (size_t i = 1; i < t->n; i++)
			t->ranks[p[i].id] = t->ranks[p[i - 1].id] + (p[i].run != p[i - 1].run ||
								     p[i].score != p[i - 1].score);
	}
	pal__free(p);
	return s;
}

static pal_status check_ids(const pal__vocab_spec *spec, pal_error *err)
{
	const struct {
		const char *name;
		int32_t id;
	} ids[] = {
		{"bos", spec->bos}, {"eos", spec->eos}, {"eot", spec->eot}, {"unknown", spec->unk}};
	if (spec->n_tokens > PAL__MAX_VOCAB)
		return pal__fail(err, PAL_ELIMIT, "%s: %zu tokens: at most %d are supported",
				 spec->file, spec->n_tokens, PAL__MAX_VOCAB);
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
		if (ids[i].id < -1 || (ids[i].id >= 0 && (size_t)ids[i].id >= spec->n_tokens))
			return pal__fail(err, PAL_EFORMAT,
					 "%s: key tokenizer.ggml.%s_token_id: there is no token %d",
					 spec->file, ids[i].name, ids[i].id);
	return PAL_OK;
}

static pal_status build(pal__tokenizer *t, const pal__vocab_spec *spec, pal_error *err)
{
	pal__str pre = spec->pre.n ? spec->pre : (pal__str){"default", 7};
	pal_status s = check_ids(spec, err);
	if (!s)
		s = size_up(t, spec, err);
	if (s)
		return s;
	fill_tokens(t, spec);
	fill_flags(t, spec);
	s = fill_specials(t, spec, err);
	if (!s)
		s = t->spm ? fill_ranks(t, spec, err) : fill_merges(t, spec, err);
	if (!s && !t->spm)
		s = pal__pre_init(&t->pre, pre, spec->file, err);
	return s;
}

pal_status pal__tokenizer_new(const pal__vocab_spec *spec, pal__tokenizer **out, pal_error *err)
{
	bool spm = is(spec->model, "llama");
	if (!spm && !is(spec->model, "gpt2"))
		return pal__fail(err, PAL_EUNSUPPORTED,
				 "%s: tokenizer model \"%.*s\" is not supported (supported: gpt2, "
				 "llama)",
				 spec->file, shown(spec->model), spec->model.s);
	pal__tokenizer *t = pal__calloc(1, sizeof *t);
	if (!t)
		return pal__fail_memory(err, "a tokenizer", sizeof *t);
	t->spm = spm;
	t->bos = spec->bos;
	t->eos = spec->eos;
	t->eot = spec->eot;
	t->unk = spec->unk;
	t->add_bos = spec->add_bos;
	t->add_eos = spec->add_eos;
	t->add_space_prefix = spm && spec->add_space_prefix;
	pal_status s = build(t, spec, err);
	if (s) {
		pal__tokenizer_free(t);
		return s;
	}
	*out = t;
	return PAL_OK;
}

void pal__tokenizer_free(pal__tokenizer *t)
{
	if (!t)
		return;
	pal__trie_free(t->trie);
	pal__pre_free(&t->pre);
	pal__specials_free(&t->specials);
	pal__text_map_free(&t->text);
	pal__pair_map_free(&t->pairs);
	pal__free(t->ranks);
	pal__free(t->flags);
	pal__free(t->at);
	pal__free(t->bytes);
	pal__free(t);
}

size_t pal__tokenizer_n_tokens(const pal__tokenizer *t)
{
	return t->n;
}

bool pal__tokenizer_same(const pal__tokenizer *a, const pal__tokenizer *b, int32_t *first)
{
	size_t n = a->n > b->n ? a->n : b->n;
	for (size_t i = 0; i < n; i++) {
		*first = (int32_t)i;
		if (i >= a->n || i >= b->n || (a->flags[i] ^ b->flags[i]) & PAL__IS_SPECIAL)
			return false;
		pal__str x = pal__token_bytes(a, *first), y = pal__token_bytes(b, *first);
		if (x.n != y.n || memcmp(x.s, y.s, x.n))
			return false;
	}
	return true;
}

uint64_t pal__tokenizer_hash(const pal__tokenizer *t)
{
	uint64_t h = XXH3_64bits_withSeed(t->bytes, t->at[t->n], t->n);
	return XXH3_64bits_withSeed(t->at, (t->n + 1) * sizeof *t->at, h);
}

pal__str pal__token_bytes(const pal__tokenizer *t, int32_t id)
{
	return (pal__str){t->bytes + t->at[id], t->at[id + 1] - t->at[id]};
}

bool pal__token_is_special(const pal__tokenizer *t, int32_t id)
{
	return t->flags[id] & PAL__IS_SPECIAL;
}

bool pal__token_is_end(const pal__tokenizer *t, int32_t id)
{
	return t->flags[id] & PAL__IS_END;
}

int32_t pal__tokenizer_bos(const pal__tokenizer *t)
{
	return t->bos;
}
