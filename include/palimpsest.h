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
	PAL_ENOTFOUND = -8,    /* there is none of that name */
	PAL_EBUSY = -9,        /* another operation on it is under way */
	PAL_EOVERLOAD = -10,   /* no room now; later there may be */
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

/* The tokens of that text. Special tokens are the template's alone: what looks like one in a
 * message is text, so that nobody's words can end a turn or begin one. (Tokens that a vocabulary
 * calls user-defined, and the marks of tools and thoughts within a turn, are found everywhere.)
 * pal_tokenize with PAL_TOKENIZE_SPECIAL does not know which words are whose. */
pal_status pal_chat_tokens(const pal_model *model, const char *template_name,
			   const pal_message *messages, size_t n_messages, bool open_reply,
			   pal_thinking thinking, int32_t **ids, size_t *n_ids, pal_error *err);

void pal_free(void *p);

/* --- sessions ----------------------------------------------------------- */

typedef struct pal_session pal_session;

/* How K and V are kept. I16, the default: 16 bits a value with one scale a head and
 * position, a tenth of the error of F16 (IEEE half) in the same memory. INT8: the same with
 * 8 bits. AFFINE4: 4 bits, with a scale and an offset for each 32 values, 5 bits a value in all. */
typedef enum pal_kv_type {
	PAL_KV_I16,
	PAL_KV_F16,
	PAL_KV_F32,
	PAL_KV_INT8,
	PAL_KV_AFFINE4
} pal_kv_type;

/* What a session remembers. FULL: K/V of every position. WINDOW: of the first `sink` and the
 * last `window` ones. RESTORED: of those, and of chunks of evicted positions that are brought
 * back when generation starts and as it goes on. While nothing has been evicted all three give
 * the same bits. */
typedef enum pal_kv_policy { PAL_KV_FULL, PAL_KV_WINDOW, PAL_KV_RESTORED } pal_kv_policy;

/* How far away sinks and restored chunks seem. COMPACT: as if they stood right before the
 * window, so that nothing is ever farther than the budget. ORIGINAL: as far as they are. */
typedef enum pal_positions { PAL_POSITIONS_COMPACT, PAL_POSITIONS_ORIGINAL } pal_positions;

/* Where the K/V of a restored chunk come from. RECOMPUTE: the model reads the chunk again, with
 * `left` tokens before it. SPILL: they were written to disk when they were evicted. HIDDEN: they
 * are computed from the layers' inputs, which were written to disk. PROJECT: the model's first
 * layers read the chunk, and the side-car's projection gives the layers above; or a proposer
 * reads it, a smaller model with the same tokens, and the projection gives all layers. */
typedef enum pal_source {
	PAL_SOURCE_RECOMPUTE,
	PAL_SOURCE_SPILL,
	PAL_SOURCE_HIDDEN,
	PAL_SOURCE_PROJECT
} pal_source;
#define PAL_N_SOURCES 4

typedef enum pal_spill_type { PAL_SPILL_F16, PAL_SPILL_INT8, PAL_SPILL_AFFINE4 } pal_spill_type;

/* How chunks are chosen. ATTENTION: by what the model's heads look for. LEXICAL: by rare tokens
 * that they have in common with what is read again, when generation starts and with
 * restore_prefill. BOTH: by attention, and the best one of LEXICAL comes, too. */
typedef enum pal_selection {
	PAL_SELECT_ATTENTION,
	PAL_SELECT_LEXICAL,
	PAL_SELECT_BOTH
} pal_selection;

#define PAL_CHUNK 32       /* positions of a chunk */
#define PAL_CHUNK_MARGIN 8 /* on either side, restored with it */
#define PAL_MAX_SLOTS 32   /* chunks that are restored at once */

/* Zeros are the defaults. */
typedef struct pal_session_options {
	int64_t n_ctx; /* positions to make room for; 0: what the model was trained for, or, of a
			* bounded session, no limit but PAL_MAX_LOG */
	pal_kv_type kv_type;
	int n_batch; /* tokens of one forward pass, 1 to PAL_MAX_BATCH; 0: PAL_MAX_BATCH */

	pal_kv_policy kv_policy;
	uint64_t kv_budget; /* bytes of K/V; 0: what sink, window and slots take. Those of them that
			     * are 0 are chosen to fill the budget */
	int64_t sink, window; /* positions; 0: 4 and 256 */
	int slots;            /* chunks, 1 to PAL_MAX_SLOTS; 0: 4 */
	int reread;           /* positions that are read again when chunks are restored; 0: 32 */
	pal_positions positions;
	bool exact_full_layers; /* of a model with sliding layers, the others keep everything */
	pal_source source;
	pal_selection selection;
	int left;                  /* tokens of context to the left of a chunk; 0: 64 */
	int rounds;                /* of selection at most; 0: 4 */
	int round_chunks;          /* chosen in a round; 0: 2 */
	bool restore_prefill;      /* restore every 64 positions of what is appended, too */
	bool no_restore_generated; /* not as generation goes on */
	const char *side_car;      /* file of `pal fit`, or NULL */
	pal_model *proposer;       /* whose states the side-car projects; borrowed, shared as models
				    * are; NULL: those of the model itself */
	const char *disk_dir; /* for files of its own without a name; NULL: $TMPDIR or /var/tmp */
	pal_spill_type spill_type;
	uint64_t disk_budget; /* bytes of spilled K/V or hidden states; 0: no limit */
} pal_session_options;

#define PAL_MAX_LOG ((int64_t)1 << 28) /* tokens of a bounded session */

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

/* --- restoration ---------------------------------------------------------- */

/* At `position` tokens of the log the restored slots were filled with these chunks, and the
 * last `reread` positions read again with them in sight. Chunk c is positions
 * [32 c, 32 c + 32), and margins. The logits of a session are a function of weights, log and
 * events. */
typedef struct pal_event {
	int64_t position;
	int32_t reread, n_chunks;
	int32_t chunks[PAL_MAX_SLOTS];  /* ascending */
	uint8_t sources[PAL_MAX_SLOTS]; /* pal_source that filled it */
} pal_event;

/* What a session has done so far. Counts of positions are of this moment, the others sums. */
typedef struct pal_session_stats {
	int64_t length, resident, evicted; /* positions; resident: sinks, window and restored */
	int64_t restored;                  /* positions in restored slots */
	uint64_t events, rounds;
	uint64_t filled[PAL_N_SOURCES]; /* chunks, by source */
	uint64_t kept_reads; /* of those recomputed: not read again, as the reading was kept */
	uint64_t fallbacks;  /* chunks that another source than asked for gave */
	uint64_t dropped;    /* chunks that disk_budget made it forget */
	uint64_t far_reads;  /* restored positions that queries attended to, summed */
	uint64_t kv_bytes, scratch_bytes, disk_bytes;
	double select_s, fill_s, reread_s; /* seconds */
	char note[256];                    /* why there were fallbacks, the last one; or "" */
} pal_session_stats;

void pal_session_get_stats(const pal_session *s, pal_session_stats *out);

/* Chooses chunks for the last positions and restores them, as pal_generate does before its first
 * token. Nothing happens where nothing is evicted or the policy restores nothing. */
pal_status pal_session_restore(pal_session *s, pal_error *err);

/* Applies one event: its position is the log's length. The sources are those named, and where
 * one of them fails the event fails. */
pal_status pal_session_apply(pal_session *s, const pal_event *event, pal_error *err);

/* The number of events so far, and event i of them. */
uint64_t pal_session_n_events(const pal_session *s);
pal_status pal_session_event(const pal_session *s, uint64_t i, pal_event *out, pal_error *err);

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

/* --- constraints -----------------------------------------------------------
 *
 * A constraint lets a generation make only texts of a form, say JSON of a schema: tokens that lead
 * out of the form cannot be drawn, and the generation ends when the text is whole. */

typedef struct pal_constraint pal_constraint;

/* Texts of one JSON value that schema[n] allows, without white space around it; an empty schema:
 * any JSON object. Which keywords are known, and how text is laid out: text/constraint.h. Errors:
 * PAL_EINVAL (no JSON, no schema, or one that nothing satisfies), PAL_EUNSUPPORTED (a keyword that
 * is not known here, by name), PAL_ELIMIT, PAL_ENOMEM. A constraint serves one generation at a
 * time; each begins anew. */
pal_status pal_constraint_json(const pal_model *model, const char *schema, size_t n,
			       pal_constraint **out, pal_error *err);
void pal_constraint_close(pal_constraint *c); /* NULL is fine */

/* --- drafting -------------------------------------------------------------
 *
 * A drafter guesses the tokens that come next; a session checks all guesses in one forward pass and
 * keeps those that it would have generated itself. So drafting changes how fast tokens come, and
 * never which (contract C3). */

typedef struct pal_drafter pal_drafter;

/* Zeros are the defaults. */
typedef struct pal_drafter_options {
	/* "auto" (or NULL): ngram and suffix. "ngram": what followed the last tokens when they
	 * stood in the log before. "suffix", "suffix:FILE": continuations by how often they
	 * occurred in the log and in a file of `pal corpus`. "model:FILE": a small model of the
	 * same vocabulary. "exit:M": the model's own first M layers. "mix:A,B...": the best of
	 * several at each step. */
	const char *source;
	int max_draft;         /* tokens of one draft, 1 to 32; 0: 16 */
	int64_t window;        /* tokens that ngram and suffix remember; 0: 32768 */
	const char *cache_dir; /* folder that keeps how long passes take here, or NULL */
} pal_drafter_options;

/* A drafter is used for one session at a time and closed before the model. Errors: PAL_EINVAL,
 * PAL_ENOMEM, and those of the files that it opens. */
pal_status pal_drafter_open(pal_model *model, const pal_drafter_options *options, pal_drafter **out,
			    pal_error *err);
void pal_drafter_close(pal_drafter *d); /* NULL is fine */

typedef struct pal_draft_stats {
	const char *source;         /* owned by the drafter */
	uint64_t proposals;         /* drafts that were checked */
	uint64_t drafted, accepted; /* tokens of them */
	uint64_t guessed, right;    /* tokens that it proposed, checked or not, and how many came */
	double seconds;             /* spent proposing */
} pal_draft_stats;

/* Of source i; false: there are not as many. */
bool pal_drafter_stats(const pal_drafter *d, size_t i, pal_draft_stats *out);

typedef enum pal_stop {
	PAL_STOP_LIMIT,
	PAL_STOP_END,
	PAL_STOP_STRING,
	PAL_STOP_CANCELLED
} pal_stop;

typedef struct pal_logprob {
	int32_t id;
	float logprob; /* of the model's own distribution: no filter, temperature 1 */
} pal_logprob;

#define PAL_MAX_LOGPROBS 20

typedef struct pal_generate_options {
	pal_sampling sampling;
	int64_t max_tokens;       /* 0: until the context is full */
	const char *const *stops; /* [n_stops] stop strings; not part of the text */
	size_t n_stops;
	bool ignore_end;      /* go on after an end-of-sequence token */
	pal_drafter *drafter; /* of the session's model, or NULL: one token a forward pass */
	/* Called for each token: its id, and the text that became certain with it, which
	 * is never half a UTF-8 character and may be empty. After the last token it is
	 * called once more with id -1 for text that was held back. false: stop. */
	bool (*on_token)(void *user, int32_t id, const char *text, size_t n_text);
	void *user;
	pal_constraint *constraint; /* what the text must be, or NULL: anything */
	int n_logprobs; /* likeliest tokens of each place to tell, to PAL_MAX_LOGPROBS */
	/* Called before on_token of the same token, if not NULL. top: [n_logprobs], likeliest
	 * first, without those that the constraint forbids. */
	void (*on_logprobs)(void *user, pal_logprob chosen, const pal_logprob *top, int n_top);
	bool resume; /* goes on with a generation that was interrupted: nothing is restored first */
} pal_generate_options;

typedef struct pal_generate_result {
	int64_t n_tokens; /* generated, the ending token included */
	pal_stop stop;
	double seconds;
	int64_t forwards;          /* passes that made them, without those of events */
	int64_t drafted, accepted; /* tokens that were checked, and those of them that were kept */
} pal_generate_result;

/* Generates after the log, which must not be empty; generated tokens join the log.
 * Token number i of a log is drawn with a random stream that depends on seed and i
 * alone. */
pal_status pal_generate(pal_session *s, const pal_generate_options *options,
			pal_generate_result *out, pal_error *err);

/* Appends the next token that plain decoding with this sampling generates, and those after it as
 * far as draft[n_draft] foresaw all of them: 1 to n_draft tokens (1, too, when n_draft is 0), and
 * none behind an end-of-sequence token. One forward pass, over less of the draft where the K/V has
 * no room for it. Any ids will do: those outside the vocabulary are wrong guesses. out:
 * [max(n_draft, 1)], *n_out of them. Errors: PAL_EINVAL (the log is empty), PAL_ELIMIT (the context
 * is full), those of pal_session_append. */
pal_status pal_verify(pal_session *s, const pal_sampling *sampling, const int32_t *draft,
		      size_t n_draft, int32_t *out, size_t *n_out, pal_error *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
