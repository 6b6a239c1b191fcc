/* A conversation: messages, and the session that has read them.
 *
 * Invariants:
 *  - Before an answer the session's log is exactly the conversation as the chat template
 *    writes it; what the log has of it already is kept (the longest common prefix of
 *    tokens), the rest is cut off and read anew.
 *  - A turn that fails or is cancelled before its answer has begun leaves no message.
 */
#ifndef PAL_CLI_CONVERSATION_H
#define PAL_CLI_CONVERSATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
	pal_model *model;
	pal_session *session;
	int64_t n_ctx;
	const char *template_name; /* or NULL */
	pal_thinking thinking;
	pal_message *messages; /* [n], texts owned; [0] may be the system message */
	size_t n, cap;
} pal__conversation;

/* What a turn took. */
typedef struct {
	size_t n_prompt, n_reused; /* tokens of the conversation, and those not read again */
	double prompt_s;
	pal_generate_result result;
} pal__turn;

void pal__conversation_free(pal__conversation *c); /* the messages; not model and session */

/* Forgets all messages but the system message, and the session's log. */
pal_status pal__conversation_reset(pal__conversation *c, pal_error *err);

/* Sets the system message; NULL or "": none. */
pal_status pal__conversation_system(pal__conversation *c, const char *text, pal_error *err);

typedef struct {
	pal_session_progress progress; /* while the conversation is read; false: cancel */
	bool (*on_text)(void *user, const char *text, size_t n); /* of the answer; false: stop */
	void *user;
} pal__turn_calls;

/* One turn. options: sampling, max_tokens and stops are used. Errors: PAL_ELIMIT (the
 * conversation does not fit), PAL_ECANCELLED, and those of what is called. */
pal_status pal__conversation_ask(pal__conversation *c, const char *text,
				 const pal_generate_options *options, const pal__turn_calls *calls,
				 pal__turn *turn, pal_error *err);

#endif
