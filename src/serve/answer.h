/* An answer: one request to the service, and what came of it: thoughts, text, calls of tools, log
 * probabilities; told as it comes, and kept until the end.
 *
 * Invariants:
 *  - Texts and calls that are told, one after another, are those that are kept.
 *  - Nothing is told before the prompt has been computed and committed.
 */
#ifndef PAL_SERVE_ANSWER_H
#define PAL_SERVE_ANSWER_H

#include "serve/api.h"
#include "serve/json.h"
#include "serve/report.h"
#include "text/tools.h"

typedef enum { PAL__THOUGHT, PAL__SAID } pal__part;

typedef struct pal__answer pal__answer;
struct pal__answer {
	/* Asked. job: session, ids, own_eos, ...; its generate, cancel and callbacks are set by
	 * the run. */
	const pal__api *api;
	pal__job job;
	pal_generate_options generate; /* max_tokens 0: nothing is generated */
	bool generates;
	bool calls_tools, thinks; /* look for calls; for thoughts */
	bool wants_logprobs;      /* generate.n_logprobs of each place, and the token's own */
	bool wants_ids;

	/* Told, each or NULL; false: stop. */
	bool (*on_start)(pal__answer *a);
	bool (*on_part)(pal__answer *a, pal__part part, const char *text, size_t n);
	bool (*on_call)(pal__answer *a, size_t i);
	bool (*on_token)(pal__answer *a, int32_t id, const char *text, size_t n);
	void *user;

	/* Came. */
	pal__text thoughts, said, raw;
	pal__calls *calls; /* [n_calls] */
	size_t n_calls;
	int64_t n_thoughts;  /* tokens of thoughts */
	json_t *ids;         /* with wants_ids */
	json_t *logprobs;    /* [{"token","logprob","bytes","top_logprobs"}], not taken so far */
	const char *stopped; /* the stop string that ended it, or NULL */
	bool gone;           /* the client has, or a callback said stop */
	pal__report report;

	/* Inside. */
	pal__reply *reply;
	pal__fault *f;
	int state;
	pal__text held; /* text that may be the start of a mark */
};

/* Errors: those of the service, PAL_ECANCELLED when the client has gone. */
pal_status pal__answer_run(pal__answer *a, pal__reply *reply, pal__fault *f);
void pal__answer_free(pal__answer *a); /* what came; what was asked stays the caller's */

/* "stop", "length" or "tool_calls" */
const char *pal__answer_finish(const pal__answer *a);

/* The log probabilities since the last call, or null where none were asked for. */
json_t *pal__answer_logprobs(pal__answer *a);

/* Adds the run to the usage of a request; first: its prompt counts. */
void pal__answer_count(const pal__answer *a, pal__usage *usage, bool first);

#endif
