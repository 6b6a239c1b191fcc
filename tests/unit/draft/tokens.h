/* Random texts of tokens that repeat themselves, and vocabularies for them. */
#ifndef PAL_TEST_TOKENS_H
#define PAL_TEST_TOKENS_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "text/tokenizer.h"

static inline uint32_t below(uint64_t *random, uint32_t n)
{
	*random = *random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*random >> 33) % n;
}

/* Fills out[from..n): single tokens, copies of what stood before, and runs of short periods. */
static inline void random_text(uint64_t *random, int32_t *out, size_t from, size_t n,
			       uint32_t alphabet)
{
	for (size_t i = from; i < n;) {
		size_t length = 1 + below(random, 20), back = 0;
		switch (below(random, 4)) {
		case 0:
			back = i ? 1 + below(random, (uint32_t)i) : 0;
			break;
		case 1:
			back = i > 3 ? 1 + below(random, 3) : 0;
			break;
		default:
			length = 1 + below(random, 3);
		}
		for (; length && i < n; length--, i++)
			out[i] = back ? out[i - back] : (int32_t)below(random, alphabet);
	}
}

/* A vocabulary of n tokens, at most 600, that are numbers with a prefix. */
static inline pal__tokenizer *make_vocabulary(size_t n, const char *prefix)
{
	static char text[600][16];
	static pal__str tokens[600];
	pal__vocab_spec spec = {.file = "made up",
				.model = {"gpt2", 4},
				.pre = {"default", 7},
				.n_tokens = n,
				.tokens = tokens,
				.bos = -1,
				.eos = -1,
				.eot = -1,
				.unk = -1};
	for (size_t i = 0; i < n; i++)
		tokens[i] = (pal__str){text[i],
				       (size_t)snprintf(text[i], sizeof *text, "%s%zu", prefix, i)};
	pal__tokenizer *t = NULL;
	return pal__tokenizer_new(&spec, &t, NULL) ? NULL : t;
}

#endif
