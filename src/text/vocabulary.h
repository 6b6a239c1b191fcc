/* A tokenizer's insides: what tokenizer.c makes of a vocabulary and encode.c reads.
 *
 * Token i stands for the bytes bytes[at[i]] up to at[i + 1]. Tokens that merging may
 * make are in the text map: normal ones (for "llama" user-defined ones too, as runs of
 * spaces are merged), not empty and, for byte-level BPE, written in its alphabet.
 */
#ifndef PAL_TEXT_VOCABULARY_H
#define PAL_TEXT_VOCABULARY_H

#include "text/maps.h"
#include "text/pretokenize.h"
#include "text/special.h"
#include "text/tokenizer.h"

enum { PAL__IS_SPECIAL = 1, PAL__IS_END = 2 };

struct pal__tokenizer {
	bool spm; /* model "llama", else "gpt2" */
	bool add_bos, add_eos, add_space_prefix;
	int32_t bos, eos, eot, unk;
	size_t n;
	char *bytes;
	size_t *at;            /* [n + 1] */
	uint8_t *flags;        /* [n] */
	int32_t byte_ids[256]; /* the token of a single byte; -1: none */
	pal__text_map text;
	pal__pair_map pairs; /* gpt2: merges */
	uint32_t *ranks;     /* [n] spm: lower merges first */
	pal__specials specials;
	pal__pre pre;                     /* gpt2 */
	_Atomic(struct pal__trie *) trie; /* made when it is first asked for */
};

#endif
