/* Workloads: transcripts that a model is taken along, and their token ids.
 *
 * A transcript is a plain file (bench/workloads/README.md): parts that are given, and the reply to
 * each.
 *
 * Invariants:
 *  - Parts are the file's bytes; together with the lines between them they make up the file.
 *  - A script is a function of the transcript, the vocabulary and the number of turns. Parts are
 *    made into tokens one by one, so that a reply begins with a token of its own.
 */
#ifndef PAL_EVAL_WORKLOAD_H
#define PAL_EVAL_WORKLOAD_H

#include "base/status.h"

#define PAL__WORKLOAD_TURNS 4096               /* of one transcript */
#define PAL__WORKLOAD_BYTES ((size_t)16 << 20) /* of its file */

typedef struct {
	const char *given, *reply; /* [n_given], [n_reply] bytes, at least 1 each */
	size_t n_given, n_reply;
} pal__turn;

typedef struct {
	char name[64];
	uint64_t hash;    /* XXH3-64 of the file */
	char *text;       /* the file */
	pal__turn *turns; /* [n_turns], at least 1 */
	size_t n_turns;
} pal__workload;

/* name: of the workload. text: is copied. Errors: PAL_EFORMAT, PAL_ELIMIT, PAL_ENOMEM. */
pal_status pal__workload_parse(const char *name, const char *text, size_t n, pal__workload *out,
			       pal_error *err);
/* Its name is that of the file, without folder and ".txt". Errors: also PAL_EIO. */
pal_status pal__workload_open(const char *path, pal__workload *out, pal_error *err);
void pal__workload_free(pal__workload *w); /* fine on a zeroed struct */

typedef struct {
	int32_t *ids; /* all parts, one after the other */
	size_t *ends; /* [2 n_turns] where each part ends in ids: given, reply, given, ... */
	size_t n_turns;
} pal__script;

/* The first n_turns turns (0: all) in the vocabulary of a model. n_vocab: ids from there on are
 * refused (PAL_EINVAL), where another model than the vocabulary's is to read them. Errors:
 * those of pal_tokenize. */
pal_status pal__script_new(const pal__workload *w, const pal_model *vocabulary, size_t n_turns,
			   int32_t n_vocab, pal__script *out, pal_error *err);
void pal__script_free(pal__script *s); /* fine on a zeroed struct */

/* Tokens of part i: [from, to) of ids. */
static inline size_t pal__script_part(const pal__script *s, size_t i, const int32_t **ids)
{
	size_t from = i ? s->ends[i - 1] : 0;
	*ids = s->ids + from;
	return s->ends[i] - from;
}

#endif
