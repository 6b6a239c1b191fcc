/* The options that commands share, and models and sessions opened as they say. */
#ifndef PAL_CLI_ENGINE_H
#define PAL_CLI_ENGINE_H

#include <jansson.h>

#include "cli/options.h"

typedef struct {
	int64_t threads, batch, ctx, max_draft; /* 0: the default */
	const char *isa, *kv_type, *kv, *draft, *cache_dir;
	/* Of a bounded session; 0 and NULL: the default. */
	int64_t sink, window, slots, left, rounds, round_chunks;
	const char *kv_budget, *disk_budget; /* bytes, with K, M or G */
	const char *positions, *source, *selection, *spill_type, *side_car, *proposer, *disk_dir;
	bool restore_prefill, exact_full_layers;
	bool quiet;
	pal_model *proposer_model; /* while the model is open, where one is asked for */
} pal__engine;

/* clang-format off */
#define PAL__ENGINE_DEFAULTS {.kv_type = "i16", .kv = "full", .draft = "auto",                     \
	.positions = "compact", .source = "recompute", .selection = "attention", .spill_type = "f16"}

/* Entries of an option table for the fields of e. */
#define PAL__OPTION_THREADS(e)                                                                     \
	PAL__INT("threads", 't', &(e).threads, 1, PAL_MAX_THREADS, "threads (default: one a fast core)")
#define PAL__OPTION_BATCH(e)                                                                       \
	PAL__INT("batch", 0, &(e).batch, 1, PAL_MAX_BATCH,                                         \
		 "tokens of one forward pass (the result is the same)")
#define PAL__OPTION_CTX(e, text) PAL__INT("ctx", 0, &(e).ctx, 1, PAL_MAX_CONTEXT, text)
#define PAL__OPTION_ISA(e)                                                                         \
	PAL__CHOICE("isa", 0, &(e).isa, "scalar|avx2|avx512|amx|neon",                                 \
		    "instruction set (default: the best here; the result is the same)")
#define PAL__OPTION_KV_TYPE(e)                                                                     \
	PAL__CHOICE("kv-type", 0, &(e).kv_type, "i16|f16|f32|int8|affine4",                     \
		    "how K/V is kept (default i16: 16 bits and a scale a head)")
#define PAL__OPTION_PROPOSER(e, text) PAL__TEXT("proposer", 0, &(e).proposer, "FILE", text)
/* Of bounded sessions, whatever their policy and source. */
#define PAL__OPTIONS_BOUNDED(e)                                                                    \
	PAL__TEXT("kv-budget", 0, &(e).kv_budget, "BYTES",                                         \
		  "bytes of K/V (K, M and G are known); the options below that\n"                  \
		  "are not given are chosen to fill it"),                                          \
	PAL__INT("sink", 0, &(e).sink, 1, 65536, "first tokens that stay (default 4)"),            \
	PAL__INT("window", 0, &(e).window, 1, PAL_MAX_CONTEXT, "last tokens that stay (default 256)"), \
	PAL__INT("restored", 0, &(e).slots, 1, PAL_MAX_SLOTS,                                      \
		 "chunks of 32 tokens and margins that can be back at once (default 4)"),          \
	PAL__INT("left", 0, &(e).left, 1, 1024, "tokens read before a chunk (default 64)"),        \
	PAL__INT("rounds", 0, &(e).rounds, 1, 64, "of selection at most (default 4)"),             \
	PAL__INT("round-chunks", 0, &(e).round_chunks, 1, PAL_MAX_SLOTS,                           \
		 "chunks chosen in a round (default 2)"),                                          \
	PAL__FLAG("restore-prefill", 0, &(e).restore_prefill,                                      \
		  "bring back every 64 tokens of the prompt, too"),                                \
	PAL__FLAG("exact-full-layers", 0, &(e).exact_full_layers,                                  \
		  "of a model with sliding layers, the others keep everything"),                   \
	PAL__TEXT("side", 0, &(e).side_car, "FILE", "side-car of the model, by pal fit"),          \
	PAL__OPTION_PROPOSER(e, "model whose states the side-car projects"),                       \
	PAL__TEXT("disk-budget", 0, &(e).disk_budget, "BYTES", "of the file of K/V (default: no limit)"), \
	PAL__TEXT("disk-dir", 0, &(e).disk_dir, "DIR",                                             \
		  "where the session's files are (default $TMPDIR or /var/tmp)")
#define PAL__OPTIONS_KV(e)                                                                         \
	PAL__CHOICE("kv", 0, &(e).kv, "full|window|restored",                                      \
		    "which K/V is kept: all (default); the first and the last\n"                   \
		    "tokens'; these, and what is brought back when it is needed"),                 \
	PAL__CHOICE("positions", 0, &(e).positions, "compact|original",                            \
		    "how far away what is brought back seems (default compact:\nright before the window)"), \
	PAL__CHOICE("restore", 0, &(e).source, "recompute|spill|hidden|project",                   \
		    "where it comes from: the tokens are read again (default); a\n"                \
		    "file of K/V; a file of layer inputs; a fitted projection"),                   \
	PAL__CHOICE("select", 0, &(e).selection, "attention|lexical|both",                         \
		    "how it is found: by what the model looks for (default); by rare\n"           \
		    "words in common with the end; by the first, and one by the second"),          \
	PAL__CHOICE("spill-type", 0, &(e).spill_type, "f16|int8|affine4", "of --restore spill (default f16)"), \
	PAL__OPTIONS_BOUNDED(e)
#define PAL__OPTION_DRAFT(e)                                                                       \
	PAL__TEXT("draft", 0, &(e).draft, "SOURCE",                                                \
		  "where drafts come from, which make it faster and nothing else: auto\n"           \
		  "(default: ngram and suffix), none, ngram, suffix[:CORPUS],\n"                    \
		  "model:FILE, exit:LAYERS, mix:SOURCE,SOURCE..."),                                \
	PAL__INT("max-draft", 0, &(e).max_draft, 1, 32, "tokens of a draft at most (default 16)")
#define PAL__OPTION_CACHE_DIR(e)                                                                   \
	PAL__TEXT("cache-dir", 0, &(e).cache_dir, "DIR",                                           \
		  "keep repacked weights in DIR: later starts are faster")
#define PAL__OPTION_QUIET(e)                                                                       \
	PAL__FLAG("quiet", 'q', &(e).quiet, "no progress and no figures on standard error")

/* Entries for a pal_sampling; the texts are its defaults, for the help. */
#define PAL__OPTIONS_SAMPLING(p, temp, k, top, min)                                                \
	PAL__FLOAT("temp", 0, &(p).temperature, 0, 1000,                                           \
		   "temperature (default " temp "; 0: always the most probable token)"),           \
	PAL__INT32("top-k", 0, &(p).top_k, 0, INT32_MAX,                                           \
		   "draw among the N most probable (default " k "; 0: off)"),                      \
	PAL__FLOAT("top-p", 0, &(p).top_p, 0, 1,                                                   \
		   "draw among the fewest that make up X (default " top "; 1: off)"),              \
	PAL__FLOAT("min-p", 0, &(p).min_p, 0, 1,                                                   \
		   "leave out those below X times the most probable (default " min ";\n0: off)"),  \
	PAL__FLOAT("repeat-penalty", 0, &(p).repeat_penalty, 0.01, 100,                            \
		   "make repeated tokens less likely (default 1: off)"),                           \
	PAL__INT32("repeat-last", 0, &(p).repeat_last, 0, INT32_MAX,                               \
		   "repeated within the last N tokens (default 64)"),                              \
	PAL__SEED("seed", 0, &(p).seed, "the same seed draws the same tokens (default 0)")

/* Entries for how a conversation is written. */
#define PAL__OPTION_TEMPLATE(v)                                                                    \
	PAL__TEXT("template", 0, &(v), "NAME",                                                     \
		  "chat template: chatml, qwen3, llama3 or gemma (default: the\nmodel's)")
#define PAL__OPTION_SYSTEM(v) PAL__TEXT("system", 0, &(v), "TEXT", "the system message")
#define PAL__OPTION_THINK(v)                                                                       \
	PAL__CHOICE("think", 0, &(v), "on|off|default",                                            \
		    "let the model think before it answers, if its template can")
/* clang-format on */

/* "4M" to bytes, for the option of this name; text NULL: 0. */
pal_status pal__bytes_of(const char *option, const char *text, uint64_t *out, pal_error *err);

/* Whether texts are what they should be. */
pal_status pal__engine_check(const pal__engine *e, pal_error *err);

/* Opens the model with a progress bar, and the proposer where there is one, and says what their
 * caches have to say. seconds: what it took, may be NULL. Both are closed together. */
pal_status pal__engine_model(pal__engine *e, const char *path, pal_model **out, double *seconds,
			     pal_error *err);
void pal__engine_close(pal__engine *e, pal_model *model); /* NULL is fine */

/* The options of a session of n_ctx tokens, to open it or to ask for its size.
 */
pal_session_options pal__engine_session(const pal__engine *e, int64_t n_ctx);

/* The drafter that --draft names; NULL: none. */
pal_status pal__engine_drafter(const pal__engine *e, pal_model *model, pal_drafter **out,
			       pal_error *err);

/* What drafting did, into the JSON object `to`; and for people: "; drafted 9, kept 7 (ngram 5 of 6,
 * suffix 2 of 3)". */
#define PAL__DRAFT_TEXT 512
void pal__draft_json(const pal_drafter *d, const pal_generate_result *r, json_t *to);
const char *pal__draft_text(const pal_drafter *d, const pal_generate_result *r,
			    char text[PAL__DRAFT_TEXT]);

/* Whether sessions evict: --kv window or restored, without --exact-full-layers. */
bool pal__engine_bounded(const pal__engine *e);

/* What a session's memory did, into the JSON object `to`; and for people, of a bounded one:
 * "; evicted 9, restored 2 chunks", and where something was not as asked, why. */
#define PAL__MEMORY_TEXT 512
void pal__memory_json(const pal_session *s, json_t *to);
const char *pal__memory_text(const pal__engine *e, const pal_session *s,
			     char text[PAL__MEMORY_TEXT]);

pal_thinking pal__thinking(const char *choice); /* "on", "off" or "default" */

json_t *pal__sampling_json(const pal_sampling *p);

#endif
