/* Recall tasks: long logs with facts in them, and questions about the facts.
 *
 * The tasks come from the file that the verifier was trained with (training/tasks.json; its
 * format is in training/README.md), the text between the facts from a plain file.
 *
 * Invariants:
 *  - A sample is a function of the two files, the vocabulary and its spec alone; drawing it again
 *    gives the same log, so that every arm reads the same tokens.
 *  - A log is given out in pieces and never held: a sample takes memory for its facts only.
 *  - A fact is a line of its own. Where its tokens stand in the log is exact, and within
 *    [first, last) of the spec.
 *  - Within one sample no two facts agree in the text of a key.
 */
#ifndef PAL_EVAL_TASKS_H
#define PAL_EVAL_TASKS_H

#include <jansson.h>

#include "base/status.h"

#define PAL__TASK_SENTENCES 4 /* of one fact */
#define PAL__TASK_KINDS 32
#define PAL__SAMPLE_FACTS 65536 /* of one log */

typedef struct pal__tasks pal__tasks;

/* Errors: PAL_EIO, PAL_EFORMAT, PAL_ELIMIT, PAL_ENOMEM. */
pal_status pal__tasks_open(const char *tasks, const char *filler, pal__tasks **out, pal_error *err);
void pal__tasks_close(pal__tasks *t); /* NULL is fine */

/* The same from memory; name: in messages. Both texts are copied. */
pal_status pal__tasks_parse(const char *name, const char *tasks, size_t n_tasks, const char *filler,
			    size_t n_filler, pal__tasks **out, pal_error *err);

/* XXH3-64 of the two files. */
void pal__tasks_hashes(const pal__tasks *t, uint64_t *tasks, uint64_t *filler);

int pal__tasks_n_kinds(const pal__tasks *t);
const char *pal__tasks_kind(const pal__tasks *t, int kind);      /* its name */
int pal__tasks_find_kind(const pal__tasks *t, const char *name); /* -1: none */
bool pal__tasks_hard(const pal__tasks *t, int kind);

typedef struct {
	uint64_t seed;
	int64_t length;      /* tokens of the log */
	int64_t first, last; /* every fact lies in [first, last) */
	int n_facts;         /* 0 to PAL__SAMPLE_FACTS; fact i is of kinds[i % n_kinds] */
	int n_kinds, kinds[PAL__TASK_KINDS];
	bool chat; /* questions in the form of a chat */
} pal__sample_spec;

/* Facts of every kind, in turn. */
void pal__spec_kinds(const pal__tasks *t, pal__sample_spec *spec);

typedef struct {
	int kind, ask;                                                /* ask: which phrasing */
	int n_needles, phrases[PAL__TASK_SENTENCES];                  /* sentences of the fact */
	int64_t begin[PAL__TASK_SENTENCES], end[PAL__TASK_SENTENCES]; /* positions of each */
	int32_t *prompt, *expect; /* token ids of the question, and of the answer */
	size_t n_prompt, n_expect;
} pal__question;

typedef struct pal__sample pal__sample;

/* model: whose vocabulary is used; the tasks and the model must outlive the sample. Errors:
 * PAL_EINVAL (no room for the facts), PAL_ELIMIT (names run out), PAL_EFORMAT, PAL_ENOMEM. */
pal_status pal__sample_new(const pal__tasks *t, const pal_model *model,
			   const pal__sample_spec *spec, pal__sample **out, pal_error *err);
void pal__sample_free(pal__sample *s); /* NULL is fine */

/* Question i of n_facts: about fact i. */
const pal__question *pal__sample_question(const pal__sample *s, int i);

/* The next token ids of the log, *n of them at *ids until the next call; *n is 0 after `length` of
 * them. pal__sample_filler goes on with text without facts, at most `most` tokens. */
pal_status pal__sample_next(pal__sample *s, const int32_t **ids, size_t *n, pal_error *err);
pal_status pal__sample_filler(pal__sample *s, size_t most, const int32_t **ids, size_t *n,
			      pal_error *err);
void pal__sample_rewind(pal__sample *s);                             /* to the first token */
const int32_t *pal__sample_newline(const pal__sample *s, size_t *n); /* ids of a line break */

/* splitmix64: the next number of a stream. */
uint64_t pal__draw(uint64_t *state);

#endif
