/* Conversations: messages and tools, as OpenAI's chat has them, to the ids that a model reads, and
 * to the constraint that its answer is under. The other APIs translate theirs to these.
 *
 * Invariants:
 *  - Every message is in the prompt, whole, or the request is refused.
 *  - Control tokens are the template's: what looks like one in a message is text.
 *  - The prompt is a function of the model and of the request alone.
 */
#ifndef PAL_SERVE_PROMPT_H
#define PAL_SERVE_PROMPT_H

#include "serve/api.h"
#include "serve/params.h"
#include "text/tools.h"

#define PAL__MAX_TOOLS 512
#define PAL__MAX_TOOL_NAME 128 /* bytes */

typedef enum { PAL__CALL_NEVER, PAL__CALL_AUTO, PAL__CALL_REQUIRED } pal__call_choice;

/* Zeros: no tools, any text. */
typedef struct {
	const json_t *messages; /* array */
	const json_t *tools;    /* array, or NULL */
	pal__call_choice choice;
	const char *only;     /* the tool that is to be called, or NULL */
	bool parallel;        /* more than one call in an answer */
	const json_t *schema; /* of the answer, an object, or NULL. Empty: any JSON object */
	pal_thinking thinking;
} pal__ask;

/* `tools`, `tool_choice` and `parallel_tool_calls` as chat has them. */
pal_status pal__ask_tools(pal__ask *ask, const pal__params *p);

/* Checks one tool of OpenAI's form; where: for messages. */
pal_status pal__check_tool(const json_t *tool, const char *where, pal__fault *f);

/* The index of the tool of that name is there; otherwise refused. */
pal_status pal__ask_only(pal__ask *ask, const char *name, const char *where, pal__fault *f);

/* Whether the answer may call tools, and must be looked at for calls. */
bool pal__ask_calls(const pal__ask *ask);

/* The ids, freed with pal_free. open_reply: ends where the answer begins. */
pal_status pal__ask_ids(const pal__api *api, const pal__ask *ask, bool open_reply, int32_t **ids,
			size_t *n, pal__fault *f);

/* *out: NULL where any text will do; closed with pal_constraint_close. */
pal_status pal__ask_constraint(const pal__api *api, const pal__ask *ask, pal_constraint **out,
			       pal__fault *f);

/* A format of the answer, as response_format of chat and text.format of responses have it, into
 * ask->schema; *owned is freed with json_decref. */
pal_status pal__ask_format(pal__ask *ask, const pal__params *p, const char *name, json_t **owned);

/* Texts of parts whose type is one of types (NULL ends them), joined; others are refused. content:
 * a string, or such parts. *text: freed with pal__free; NULL where there is nothing. where:
 * "messages[2].content". */
pal_status pal__parts_text(const json_t *content, const char *const *types, const char *where,
			   char **text, pal__fault *f);

#endif
