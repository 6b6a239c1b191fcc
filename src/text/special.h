/* Special tokens in text: control tokens like <|im_end|>, and user-defined ones, which
 * are found before anything else looks at the text.
 *
 * At the first place where one starts the longest is taken, as Hugging Face tokenizers
 * does. The tokens are a sorted array, searched byte by byte as one would walk a trie;
 * a token has at most PAL__MAX_SPECIAL_BYTES, which bounds the work for one byte of text.
 * The first of tokens with equal text stays.
 */
#ifndef PAL_TEXT_SPECIAL_H
#define PAL_TEXT_SPECIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAL__MAX_SPECIAL_BYTES 1024

typedef struct {
	char *s;  /* owned */
	size_t n; /* 1 to PAL__MAX_SPECIAL_BYTES */
	int32_t id;
	bool always; /* user-defined: found whether or not control tokens are asked for */
} pal__special;

typedef struct {
	pal__special *v; /* [n], sorted by text once pal__specials_sort() was called */
	size_t n, cap;
	uint32_t first[257]; /* v[first[b]] up to v[first[b + 1]] start with byte b */
} pal__specials;

/* false: out of memory */
bool pal__specials_add(pal__specials *p, const char *s, size_t n, int32_t id, bool always);
void pal__specials_sort(pal__specials *p);
void pal__specials_free(pal__specials *p);

/* The next one in text[n] from *at on: its place in *at, itself returned; or NULL.
 * all: control tokens too. */
const pal__special *pal__specials_find(const pal__specials *p, const char *text, size_t n, bool all,
				       size_t *at);

#endif
