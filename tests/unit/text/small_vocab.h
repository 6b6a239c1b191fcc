/* Small made-up vocabularies for the tests: every byte, some words, special tokens of each
 * kind. Tokens are looked up by their text, so that tests need no numbers. */
#ifndef PAL_TEST_SMALL_VOCAB_H
#define PAL_TEST_SMALL_VOCAB_H

#include <stdio.h>
#include <string.h>

#include "text/tokenizer.h"

#define SMALL_MAX 512

typedef struct {
	pal__vocab_spec spec;
	char byte_text[256][8]; /* how the vocabulary writes each byte */
	pal__str tokens[SMALL_MAX], merges[SMALL_MAX];
	int32_t types[SMALL_MAX];
	float scores[SMALL_MAX];
} small_vocab;

static inline pal__str str(const char *s)
{
	return (pal__str){s, strlen(s)};
}

static inline int32_t small_add(small_vocab *v, const char *text, int32_t type, float score)
{
	size_t i = v->spec.n_tokens++;
	v->tokens[i] = str(text);
	v->types[i] = type;
	v->scores[i] = score;
	return (int32_t)i;
}

static inline int32_t small_id(const small_vocab *v, const char *text)
{
	for (size_t i = 0; i < v->spec.n_tokens; i++)
		if (v->tokens[i].n == strlen(text) && !memcmp(v->tokens[i].s, text, v->tokens[i].n))
			return (int32_t)i;
	return -1;
}

static inline void small_start(small_vocab *v, const char *model, const char *pre)
{
	memset(v, 0, sizeof *v);
	v->spec = (pal__vocab_spec){.file = "small.gguf",
				    .model = str(model),
				    .pre = str(pre),
				    .tokens = v->tokens,
				    .scores = v->scores,
				    .types = v->types,
				    .merges = v->merges,
				    .bos = -1,
				    .eos = -1,
				    .eot = -1,
				    .unk = -1};
}

static inline void small_merge(small_vocab *v, const char *merge)
{
	v->merges[v->spec.n_merges++] = str(merge);
}

/* U+0120, a byte-level space, and U+2581, SentencePiece's */
#define G "\xc4\xa0"
#define M "\xe2\x96\x81"

/* Byte-level: bytes 0 to 255, then words with their merges, then special tokens. */
static inline void small_byte_level(small_vocab *v, const char *pre)
{
	static const char *const words[] = {
		"he", "ll", "hell", "hello",           G "w", "or", "ld", "orld", G "world",
		"12", "aa", "aaaa", "\xc3\x83\xc2\xa9"};
	static const char *const merges[] = {"h e",
					     "l l",
					     "he ll",
					     "hell o",
					     G " w",
					     "o r",
					     "l d",
					     "or ld",
					     G "w orld",
					     "1 2",
					     "a a",
					     "aa aa",
					     "\xc3\x83 \xc2\xa9"};
	small_start(v, "gpt2", pre);
	for (int b = 0, next = 256; b < 256; b++) {
		int plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
		int c = plain ? b : next++;
		if (c < 128)
			snprintf(v->byte_text[b], 8, "%c", c);
		else
			snprintf(v->byte_text[b], 8, "%c%c", 0xc0 | c >> 6, 0x80 | (c & 0x3f));
		small_add(v, v->byte_text[b], PAL__TOKEN_NORMAL, 0);
	}
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		small_add(v, words[i], PAL__TOKEN_NORMAL, 0);
		small_merge(v, merges[i]);
	}
	v->spec.bos = small_add(v, "<s>", PAL__TOKEN_CONTROL, 0);
	v->spec.eos = small_add(v, "<|im_end|>", PAL__TOKEN_CONTROL, 0);
	small_add(v, "<|im", PAL__TOKEN_CONTROL, 0);
	small_add(v, "<think>", PAL__TOKEN_USER, 0);
	small_add(v, "<unk>", PAL__TOKEN_UNKNOWN, 0);
	small_add(v, "[PAD]", PAL__TOKEN_UNUSED, 0);
	v->spec.add_bos = v->spec.add_eos = true;
}

/* SentencePiece: <unk>, <s>, </s>, bytes, letters and words by score, special tokens. */
static inline void small_sentencepiece(small_vocab *v, bool prefix)
{
	static const char *const words[] = {
		M,    "h",  "e",        "l",       "o",  "w",    "r",     "d",       "a",
		"<",  "\n", "\xc3\xa9", "he",      "ll", "hell", "hello", M "hello", M "w",
		"or", "ld", "orld",     M "world", "aa", "aaaa", M M "a",
	};
	small_start(v, "llama", "");
	v->spec.unk = small_add(v, "<unk>", PAL__TOKEN_UNKNOWN, 0);
	v->spec.bos = small_add(v, "<s>", PAL__TOKEN_CONTROL, 0);
	v->spec.eos = small_add(v, "</s>", PAL__TOKEN_CONTROL, 0);
	for (int b = 0; b < 256; b++) {
		snprintf(v->byte_text[b], 8, "<0x%02X>", b);
		small_add(v, v->byte_text[b], PAL__TOKEN_BYTE, 0);
	}
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		small_add(v, words[i], PAL__TOKEN_NORMAL, -(float)i);
	small_add(v, "  ", PAL__TOKEN_USER, -1000);
	small_add(v, "   ", PAL__TOKEN_USER, -1000);
	small_add(v, "\n\n", PAL__TOKEN_USER, -1000);
	small_add(v, "<tag>", PAL__TOKEN_USER, -1000);
	v->spec.add_bos = true;
	v->spec.add_space_prefix = prefix;
}

#endif
