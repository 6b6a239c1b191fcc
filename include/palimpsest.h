/* palimpsest.h: the public interface of libpalimpsest.
 *
 * A model is a GGUF file, loaded once and shared; a session is one growing list
 * of tokens (the token log) with its attention memory (K/V). Whoever opens a
 * thing closes it, sessions before their model. A model may be used by several
 * threads at once; a session by one thread at a time.
 *
 * Functions that can fail return a pal_status, 0 or negative, and fill a
 * pal_error, if one is given, with a sentence that says what is wrong and where.
 * On failure nothing has changed and outputs are untouched.
 *
 * Determinism (contract C2): the logits of a position depend on the weights and
 * the token log alone, to the bit; never on batch sizes, threads or the
 * instruction set.
 */
#ifndef PALIMPSEST_H
#define PALIMPSEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define PAL_VERSION "0.1.0"

#define PAL_MAX_THREADS 256       /* threads of one model */
#define PAL_MAX_BATCH 512         /* tokens of one forward pass */
#define PAL_MAX_CONTEXT (1 << 24) /* tokens of a session with full K/V */

typedef enum pal_status {
	PAL_OK = 0,
	PAL_EINVAL = -1, /* an argument is out of its range */
	PAL_ENOMEM = -2,
	PAL_EIO = -3,          /* the system refused to read or write */
	PAL_EFORMAT = -4,      /* a file is not what it says it is */
	PAL_EUNSUPPORTED = -5, /* well formed, but not handled here */
	PAL_ELIMIT = -6,       /* a named limit was reached */
	PAL_ECANCELLED = -7,   /* a callback asked to stop */
} pal_status;

typedef struct pal_error {
	pal_status code;
	char text[512]; /* UTF-8, NUL-terminated, one sentence without a newline */
} pal_error;

const char *pal_status_name(pal_status code);

/* --- models ------------------------------------------------------------- */

typedef struct pal_model pal_model;

/* Called from the loading thread now and then; done and total in bytes. total grows when what
 * cache_dir has proves useless. */
typedef void (*pal_progress)(void *user, uint64_t done, uint64_t total);

/* Threads: 0 means one for each physical performance core that this process may use, fewer
 * where its control group is given less CPU time. Up to that many keep to those cores; more,
 * if asked for, use every CPU that is allowed, and those beyond the CPUs are not started. */
typedef struct pal_model_options {
	int n_threads;         /* 1 to PAL_MAX_THREADS; 0: automatic */
	const char *isa;       /* "scalar", "avx2", "avx512", "amx", "neon"; NULL: the best here */
	bool no_weights;       /* check and measure only: no sessions, and a hash of 0 */
	const char *cache_dir; /* folder that keeps repacked weights for the next start, or NULL */
	pal_progress progress; /* or NULL */
	void *user;
} pal_model_options;

typedef struct pal_model_info {
	const char *arch, *name, *isa; /* owned by the model */
	int32_t n_vocab, n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff;
	int64_t n_ctx_train;             /* positions the model was trained for */
	uint64_t n_params, weight_bytes; /* weight_bytes: in memory */
	uint64_t hash;                   /* XXH3-64 of the file's header and tensor data */
	int n_threads;
	bool from_cache;        /* whether cache_dir had the weights */
	const char *cache_note; /* why it had them not, or could not keep them; NULL: all is well */
} pal_model_info;

/* options may be NULL. Errors: every status but PAL_ECANCELLED. */
pal_status pal_model_open(const char *path, const pal_model_options *options, pal_model **out,
			  pal_error *err);
void pal_model_close(pal_model *model); /* NULL is fine */
void pal_model_get_info(const pal_model *model, pal_model_info *out);

/* --- text --------------------------------------------------------------- */

enum {
	PAL_TOKENIZE_SPECIAL = 1, /* text like <|im_end|> is read as the special token */
	PAL_TOKENIZE_ADD = 2,     /* add BOS and EOS as the model's metadata asks */
};

/* Tokens of text[n] (any bytes). *ids is set to an array of *n_ids token ids that
 * the caller frees with pal_free. */
pal_status pal_tokenize(const pal_model *model, const char *text, size_t n, unsigned flags,
			int32_t **ids, size_t *n_ids, pal_error *err);

/* The bytes of one token, owned by the model; *n bytes, not NUL-terminated.
 * Special tokens give their own text. Errors: PAL_EINVAL (no such id). */
pal_status pal_token_bytes(const pal_model *model, int32_t id, const char **bytes, size_t *n,
			   pal_error *err);

/* The text of ids[n_ids], its inverse: *text is NUL-terminated and freed with
 * pal_free; *n_text bytes, without the NUL. Special tokens are left out unless
 * flags has PAL_TOKENIZE_SPECIAL. */
pal_status pal_detokenize(const pal_model *model, const int32_t *ids, size_t n_ids, unsigned flags,
			  char **text, size_t *n_text, pal_error *err);

bool pal_token_is_end(const pal_model *model, int32_t id); /* end of sequence or of turn */

typedef struct pal_message {
	const char *role;    /* "system", "user", "assistant" */
	const char *content; /* UTF-8 */
} pal_message;

typedef enum pal_thinking { PAL_THINKING_DEFAULT, PAL_THINKING_ON, PAL_THINKING_OFF } pal_thinking;

/* Formats messages as the model's chat template does. template: "chatml", "qwen3",
 * "llama3", "gemma", or NULL for the one recognised in the model's metadata
 * (PAL_EUNSUPPORTED when it is unknown). open_reply: end with the start of the
 * assistant's turn. *text as in pal_detokenize. */
pal_status pal_chat_format(const pal_model *model, const char *template_name,
			   const pal_message *messages, size_t n_messages, bool open_reply,
			   pal_thinking thinking, char **text, size_t *n_text, pal_error *err);

void pal_free(void *p);

/* --- sessions ----------------------------------------------------------- */

typedef struct pal_session pal_session;

/* How K and V are kept. I16, the default: 16 bits a value with one scale a head and
 * position, a tenth of the error of F16 (IEEE half) in the same memory. */
typedef enum pal_kv_type { PAL_KV_I16, PAL_KV_F16, PAL_KV_F32 } pal_kv_type;

typedef struct pal_session_options {
	int64_t n_ctx; /* positions to make room for; 0: the model's trained context */
	pal_kv_type kv_type;
	int n_batch; /* tokens of one forward pass, 1 to PAL_MAX_BATCH; 0: PAL_MAX_BATCH */
} pal_session_options;

/* The bytes that a session with these options takes, K/V and scratch, fixed when it opens. */
pal_status pal_session_need(const pal_model *model, const pal_session_options *options,
			    uint64_t *kv_bytes, uint64_t *scratch_bytes, pal_error *err);
pal_status pal_session_open(pal_model *model, const pal_session_options *options, pal_session **out,
			    pal_error *err);
void pal_session_close(pal_session *s); /* NULL is fine */

int64_t pal_session_length(const pal_session *s);     /* tokens in the log */
const int32_t *pal_session_log(const pal_session *s); /* [length], until the next change */

/* Appends ids[n] to the log and computes them. logits: [n][n_vocab] float, or NULL
 * when only the last position's are wanted (pal_session_logits). On failure the log
 * is as before. Errors: PAL_EINVAL (an id outside the vocabulary), PAL_ELIMIT (past
 * n_ctx), PAL_ECANCELLED (progress returned false; it is called after every batch). */
typedef bool (*pal_session_progress)(void *user, size_t done, size_t total);
pal_status pal_session_append(pal_session *s, const int32_t *ids, size_t n, float *logits,
			      pal_session_progress progress, void *user, pal_error *err);

/* Logits of the last position, [n_vocab], or NULL when the log is empty. */
const float *pal_session_logits(const pal_session *s);

/* Forgets all but the first n tokens. The last logits are gone until the next
 * append (n > 0). Errors: PAL_EINVAL (n beyond the length). */
pal_status pal_session_truncate(pal_session *s, int64_t n, pal_error *err);

/* --- sampling and generation -------------------------------------------- */

typedef struct pal_sampling {
	float temperature;    /* 0: greedy, the smallest id among equals */
	int32_t top_k;        /* 0: off */
	float top_p;          /* 1: off */
	float min_p;          /* 0: off */
	float repeat_penalty; /* 1: off; divides positive and multiplies negative logits */
	int32_t repeat_last;  /* how many last tokens the penalty looks at */
	uint64_t seed;
} pal_sampling;

/* Greedy, every filter off. */
pal_sampling pal_sampling_default(void);

typedef enum pal_stop {
	PAL_STOP_LIMIT,
	PAL_STOP_END,
	PAL_STOP_STRING,
	PAL_STOP_CANCELLED
} pal_stop;

typedef struct pal_generate_options {
	pal_sampling sampling;
	int64_t max_tokens;       /* 0: until the context is full */
	const char *const *stops; /* [n_stops] stop strings; not part of the text */
	size_t n_stops;
	bool ignore_end; /* go on after an end-of-sequence token */
	/* Called for each token: its id, and the text that became certain with it, which
	 * is never half a UTF-8 character and may be empty. After the last token it is
	 * called once more with id -1 for text that was held back. false: stop. */
	bool (*on_token)(void *user, int32_t id, const char *text, size_t n_text);
	void *user;
} pal_generate_options;

typedef struct pal_generate_result {
	int64_t n_tokens; /* generated, the ending token included */
	pal_stop stop;
	double seconds;
} pal_generate_result;

/* Generates after the log, which must not be empty; generated tokens join the log.
 * Token number i of a log is drawn with a random stream that depends on seed and i
 * alone. */
pal_status pal_generate(pal_session *s, const pal_generate_options *options,
			pal_generate_result *out, pal_error *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
