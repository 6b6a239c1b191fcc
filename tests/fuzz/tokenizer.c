/* Any bytes as text, and as a vocabulary.
 *
 * The first byte chooses: one of the small vocabularies, under which the rest is text that
 * must come back from its ids; or a vocabulary read from the rest, which must be refused or
 * work. Ids are always in range, and text streamed from them is never cut within a character.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/text/small_vocab.h"
#include "base/mem.h"
#include "text/chat.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEMAND(condition)                                            \
	do {                                                         \
		if (!(condition)) {                                  \
			fprintf(stderr, "not so: %s\n", #condition); \
			abort();                                     \
		}                                                    \
	} while (0)

static const char *const pres[] = {"qwen2", "llama-bpe", "gpt-2", "smollm", "default"};
#define N_PRES (sizeof pres / sizeof *pres)

/* Streams ids to text: [*n_text], freed with pal__free. */
static char *streamed(const pal__tokenizer *t, const int32_t *ids, size_t n_ids, size_t *n_text)
{
	size_t cap = 8, n = 0;
	pal__detok d;
	for (size_t i = 0; i < n_ids; i++) {
		DEMAND(ids[i] >= 0 && (size_t)ids[i] < pal__tokenizer_n_tokens(t));
		cap += pal__token_bytes(t, ids[i]).n;
	}
	char *text = pal__alloc(cap), *cut = pal__calloc(cap, 1);
	DEMAND(text && cut);
	pal__detok_init(&d, t, true);
	for (size_t i = 0; i < n_ids; i++) {
		DEMAND(pal__detok_feed(&d, ids[i], text, cap, &n));
		cut[n] = 1;
	}
	n += pal__detok_finish(&d, text + n);
	DEMAND(n <= cap);
	for (size_t i = 0; i < n;) {
		int len = pal__utf8_char(text + i, n - i);
		for (int k = 1; k < len; k++)
			DEMAND(!cut[i + (size_t)k]);
		i += len > 0 ? (size_t)len : 1;
	}
	pal__free(cut);
	*n_text = n;
	return text;
}

/* text as "llama" gives it back: U+2581 is a space. */
static size_t spaced(const char *text, size_t n, char *out)
{
	size_t k = 0;
	for (size_t i = 0; i < n; k++) {
		bool mark = n - i >= 3 && !memcmp(text + i, "\xe2\x96\x81", 3);
		out[k] = mark ? ' ' : text[i];
		i += mark ? 3 : 1;
	}
	return k;
}

static void round_trip(const pal__tokenizer *t, bool spm, bool nfc, bool prefix, const char *text,
		       size_t n)
{
	int32_t *ids, *again;
	size_t n_ids, n_again, n_back, n_want = n;
	/* the prefix after special tokens is not taken off again: none, then */
	unsigned flags = prefix ? 0 : PAL_TOKENIZE_SPECIAL;
	DEMAND(!pal__tokenize(t, text, n, flags, &ids, &n_ids, NULL));
	char *back = streamed(t, ids, n_ids, &n_back), *want = pal__alloc(n + 1);
	DEMAND(want);
	if (spm)
		n_want = spaced(text, n, want);
	else
		memcpy(want, text, n);
	bool tagged = prefix && (memmem(text, n, "<tag>", 5) || memmem(text, n, "\n\n", 2) ||
				 memmem(text, n, "\xe2\x96\x81", 3));
	if (!nfc && !tagged)
		DEMAND(n_back == n_want && !memcmp(back, want, n_want));
	if (nfc) { /* what came back is normalized: it comes back as it is */
		size_t n_twice;
		DEMAND(!pal__tokenize(t, back, n_back, flags, &again, &n_again, NULL));
		char *twice = streamed(t, again, n_again, &n_twice);
		DEMAND(n_twice == n_back && !memcmp(twice, back, n_back));
		pal__free(twice);
		pal__free(again);
	}
	pal__free(want);
	pal__free(back);
	pal__free(ids);
}

static void known_vocabulary(unsigned which, const char *text, size_t n)
{
	static pal__tokenizer *made[N_PRES + 2];
	bool spm = which >= N_PRES, prefix = which > N_PRES;
	if (!made[which]) {
		static small_vocab v;
		if (spm)
			small_sentencepiece(&v, prefix);
		else
			small_byte_level(&v, pres[which]);
		DEMAND(!pal__tokenizer_new(&v.spec, &made[which], NULL));
	}
	round_trip(made[which], spm, which == 0, prefix, text, n);
}

/* The next string of at most 255 bytes: its length, then it. */
static pal__str take(const char **s, size_t *n)
{
	size_t len = *n ? (uint8_t) * *s : 0;
	if (*n) {
		(*s)++;
		(*n)--;
	}
	len = len < *n ? len : *n;
	pal__str out = {*s, len};
	*s += len;
	*n -= len;
	return out;
}

static void hostile_vocabulary(unsigned which, const char *s, size_t n)
{
	static small_vocab v;
	pal__tokenizer *t;
	pal_error err;
	int32_t *ids;
	size_t n_ids, n_text;
	if (which >= N_PRES)
		small_sentencepiece(&v, which & 1);
	else
		small_byte_level(&v, pres[which]);
	size_t keep = n ? (uint8_t)s[0] : 0, extra = n > 1 ? (uint8_t)s[1] % 64 : 0;
	size_t merges = n > 2 ? (uint8_t)s[2] % 32 : 0;
	s += n < 3 ? n : 3;
	n -= n < 3 ? n : 3;
	if (keep < 128) /* else all: the special ids stay valid */
		v.spec.n_tokens = keep;
	for (size_t i = 0; i < extra; i++) {
		pal__str token = take(&s, &n);
		size_t at = v.spec.n_tokens++;
		v.tokens[at] = token;
		v.types[at] = token.n ? (uint8_t)token.s[token.n - 1] % 8 : 1;
		memcpy(&v.scores[at], token.n >= 4 ? token.s : "\0\0\x80\x3f", 4);
	}
	for (size_t i = 0; i < merges; i++)
		v.merges[v.spec.n_merges++] = take(&s, &n);
	if (pal__tokenizer_new(&v.spec, &t, &err)) {
		DEMAND(err.code && memchr(err.text, 0, sizeof err.text));
		return;
	}
	if (!pal__tokenize(t, s, n, PAL_TOKENIZE_SPECIAL | PAL_TOKENIZE_ADD, &ids, &n_ids, &err)) {
		pal__free(streamed(t, ids, n_ids, &n_text));
		pal__free(ids);
	}
	pal__tokenizer_free(t);
}

/* A chat of the bytes, cut at NULs, in every family. */
static void chat(const char *s, size_t n)
{
	static const char *const roles[] = {"system", "user", "assistant", "user"};
	static const char *const names[] = {"chatml", "qwen3", "llama3", "gemma"};
	pal_message messages[8];
	char *copy = pal__strndup(s, n), *text;
	size_t count = 0, n_text;
	DEMAND(copy);
	for (size_t at = 0; at <= n && count < 8; at += strlen(copy + at) + 1, count++)
		messages[count] = (pal_message){roles[count % 4], copy + at};
	pal__chat_detect(s, n);
	for (size_t i = 0; i < 4; i++)
		if (!pal__chat_format(names[i], "<s>", messages, count, n & 1, PAL_THINKING_OFF,
				      &text, &n_text, NULL)) {
			DEMAND(strlen(text) == n_text);
			pal__free(text);
		}
	pal__free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	unsigned kind = data[0] & 15, which = data[0] >> 4;
	const char *s = (const char *)data + 1;
	int64_t live = pal__mem_live();
	if (kind == 0)
		chat(s, size - 1);
	else if (kind < 8)
		known_vocabulary(which % (N_PRES + 2), s, size - 1);
	else
		hostile_vocabulary(which % (N_PRES + 2), s, size - 1);
	DEMAND(pal__mem_live() == live || kind < 8); /* known vocabularies stay */
	return 0;
}
