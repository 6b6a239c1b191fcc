/* Vocabularies: the tokenizer.ggml.* keys of a GGUF file, checked and made into a
 * tokenizer.
 *
 * Invariants:
 *  - Works for files without any tensor (vocabulary-only GGUFs).
 *  - Arrays that go with the tokens (scores, token_type) have one entry a token, and
 *    the ids of special tokens lie inside the vocabulary; anything else is an error
 *    that names file and key.
 *  - The tokenizer owns its memory: the GGUF file may be closed afterwards.
 *
 * Keys that are missing: add_bos_token is on for "llama" vocabularies and for the
 * pre-tokenizer "llama-bpe", as the models that leave it out expect; add_space_prefix
 * is on; a "llama" vocabulary has unknown, BOS and EOS at 0, 1 and 2; any other
 * special token does not exist.
 */
#ifndef PAL_MODEL_VOCAB_H
#define PAL_MODEL_VOCAB_H

#include "model/gguf.h"
#include "text/tokenizer.h"

/* *out is freed with pal__tokenizer_free. Errors: PAL_EFORMAT, PAL_EUNSUPPORTED,
 * PAL_ELIMIT, PAL_ENOMEM, PAL_EIO (the file shrank while it was read). */
pal_status pal__vocab_from_gguf(const pal__gguf *g, pal__tokenizer **out, pal_error *err);

/* The tokenizer alone of the model file at path; nothing of its tensors is read. Errors:
 * those of pal__gguf_open too. */
pal_status pal__model_load_tokenizer(const char *path, pal__tokenizer **out, pal_error *err);

#endif
