/* Special tokens in text: control tokens like <|im_end|>, and user-defined ones, which
 * are found before anything else looks at the text.
 *
 * At the first place where one starts the longest is taken, as Hugging Face tokenizers
 * does. The tokens are a sorted array, searched byte by byte as one would walk a trie;
 * a token has at most PAL__MAX_SPECIAL_BYTES, which bounds the work for one byte of text.
 * The first of tokens with equal text stays.
 *
 * Stretches of a text can be plain: somebody else's words, in which control tokens are text. What
 * a family of templates marks inside a turn is found there all the same: the model has written it
 * itself, and a vocabulary that has it as a user-defined token finds it everywhere.
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
	bool inside; /* <tool_call> and its like: found where control tokens are, and in plain */
} pal__special;

typedef struct {
	pal__special *v; /* [n], sorted by text once pal__specials_sort() was called */
	size_t n, cap;
	uint32_t first[257]; /* v[first[b]] up to v[first[b + 1]] start with byte b */
} pal__specials;

/* Bytes [from, end). */
typedef struct {
	size_t from, end;
} pal__stretch;

/* false: out of memory */
bool pal__specials_add(pal__specials *p, const char *s, size_t n, int32_t id, bool always);
void pal__specials_sort(pal__specials *p);
void pal__specials_free(pal__specials *p);

/* What is looked through. plain: ascending, without overlaps; a control token has no byte in any.
 */
typedef struct {
	const char *s; /* [n] */
	size_t n;
	bool all; /* control tokens, too */
	const pal__stretch *plain;
	size_t n_plain; /* those before where a search starts are taken away */
} pal__searched;

/* The next one from *at on: its place in *at, itself returned; or NULL. */
const pal__special *pal__specials_find(const pal__specials *p, pal__searched *in, size_t *at);

#endif
