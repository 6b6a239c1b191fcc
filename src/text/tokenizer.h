/* Tokenizers: text to token ids and back.
 *
 * Two families, chosen by spec->model: "gpt2", byte-level BPE with the
 * pre-tokenizers "qwen2", "llama-bpe", "gpt-2", "smollm" (and "default", which is
 * gpt-2); and "llama", SentencePiece BPE (merges by score, byte fallback, dummy
 * prefix). The ids equal those of Hugging Face tokenizers for the same vocabulary.
 *
 * Invariants:
 *  - A tokenizer is immutable once made and may be used by any threads at once.
 *  - Any bytes may be tokenized, in O(n log n); invalid UTF-8 is no error, and
 *    detokenizing the ids, special tokens kept, gives the same bytes back. But: "qwen2"
 *    gives the text in NFC, since the models' tokenizers normalize it; "llama" gives a
 *    space for U+2581, and after a special token the space of the dummy prefix.
 *  - It owns copies of all it needs of the spec.
 *
 * Vocabularies are hostile. Of tokens with equal bytes the first is used; empty tokens
 * stand for nothing and are never made; a merge must be of two tokens, and is passed over
 * when it makes none; special tokens are found in text as special.h says. A byte without a token
 * becomes spec->unk, or is an error of pal__tokenize() when there is none.
 */
#ifndef PAL_TEXT_TOKENIZER_H
#define PAL_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "text/special.h"

#define PAL__MAX_VOCAB (1 << 22) /* tokens */
#define PAL__MAX_MERGES (1 << 24)
#define PAL__MAX_TOKEN_BYTES 65536      /* bytes of one token's text */
#define PAL__MAX_TEXT ((size_t)1 << 30) /* bytes of one text to tokenize */

typedef struct {
	const char *s; /* not NUL-terminated */
	size_t n;      /* bytes */
} pal__str;

/* GGUF's tokenizer.ggml.token_type */
enum pal__token_type {
	PAL__TOKEN_NORMAL = 1,
	PAL__TOKEN_UNKNOWN = 2,
	PAL__TOKEN_CONTROL = 3,
	PAL__TOKEN_USER = 4,
	PAL__TOKEN_UNUSED = 5,
	PAL__TOKEN_BYTE = 6,
};

/* A vocabulary as GGUF metadata gives it; only read during pal__tokenizer_new. */
typedef struct {
	const char *file;    /* for messages */
	pal__str model, pre; /* tokenizer.ggml.model, tokenizer.ggml.pre (empty: absent) */
	size_t n_tokens;
	const pal__str *tokens; /* [n_tokens] */
	const float *scores;    /* [n_tokens] or NULL */
	const int32_t *types;   /* [n_tokens] or NULL: all normal */
	size_t n_merges;
	const pal__str *merges;     /* [n_merges], "left right" */
	int32_t bos, eos, eot, unk; /* -1: none */
	bool add_bos, add_eos;
	bool add_space_prefix; /* "llama" only: the dummy prefix */
} pal__vocab_spec;

typedef struct pal__tokenizer pal__tokenizer;

/* Errors: PAL_EFORMAT (a vocabulary that cannot work, saying which token or merge),
 * PAL_EUNSUPPORTED (model or pre-tokenizer, listing the supported), PAL_ELIMIT,
 * PAL_ENOMEM. */
pal_status pal__tokenizer_new(const pal__vocab_spec *spec, pal__tokenizer **out, pal_error *err);
void pal__tokenizer_free(pal__tokenizer *t); /* NULL is fine */

/* flags: PAL_TOKENIZE_*. *ids: [*n_ids], freed with pal__free. User-defined tokens are
 * always found in text, control tokens only with PAL_TOKENIZE_SPECIAL. Errors: PAL_ENOMEM,
 * PAL_ELIMIT (PAL__MAX_TEXT), PAL_EUNSUPPORTED (a byte that the vocabulary cannot write). */
pal_status pal__tokenize(const pal__tokenizer *t, const char *text, size_t n, unsigned flags,
			 int32_t **ids, size_t *n_ids, pal_error *err);

/* The same of a text that has plain stretches, ascending, in which control tokens are text (but for
 * those that text/special.h names). */
pal_status pal__tokenize_mixed(const pal__tokenizer *t, const char *text, size_t n,
			       const pal__stretch *plain, size_t n_plain, unsigned flags,
			       int32_t **ids, size_t *n_ids, pal_error *err);

size_t pal__tokenizer_n_tokens(const pal__tokenizer *t);

/* Whether every id stands for the same bytes in both, and is special in both or in none: ids of one
 * may be given to a model of the other. Else *first is the first id that does not. */
bool pal__tokenizer_same(const pal__tokenizer *a, const pal__tokenizer *b, int32_t *first);

/* XXH3-64 of what the ids stand for: the bytes of every token. */
uint64_t pal__tokenizer_hash(const pal__tokenizer *t);

/* The raw bytes a token stands for (byte-level BPE decoded, SentencePiece's U+2581
 * as a space, <0xXX> as its byte); special tokens give their own text. id must be
 * valid. */
pal__str pal__token_bytes(const pal__tokenizer *t, int32_t id);
bool pal__token_is_special(const pal__tokenizer *t, int32_t id); /* control or unknown */

/* End of sequence, or of a turn: the metadata's eos and eot ids and the control tokens
 * known to end turns by name (<|im_end|>, <|eot_id|>, <end_of_turn>, <|endoftext|>,
 * <|end_of_text|>, ...). */
bool pal__token_is_end(const pal__tokenizer *t, int32_t id);
int32_t pal__tokenizer_bos(const pal__tokenizer *t); /* -1: none */

/* Streaming detokenization: feed ids, take text that is whole UTF-8 characters.
 * Bytes that cannot become valid UTF-8 any more are given out as they are. The dummy
 * prefix is taken off the first token; clear at_start to go on within a text. */
typedef struct {
	const pal__tokenizer *t;
	bool keep_special, at_start;
	char held[4]; /* the start of an unfinished character */
	unsigned n_held;
} pal__detok;

void pal__detok_init(pal__detok *d, const pal__tokenizer *t, bool keep_special);

/* Text of one more token appended at out[*n_out], whose capacity is cap; needs at most
 * pal__token_bytes(id).n + 4 bytes. Returns false, changing nothing, when they do not fit. */
bool pal__detok_feed(pal__detok *d, int32_t id, char *out, size_t cap, size_t *n_out);

/* The held-back bytes (at most 3), at the end of a stream. out: [4]. Returns their number. */
size_t pal__detok_finish(pal__detok *d, char out[4]);

#endif
