/* Tools: how a family of chat templates tells a model of its tools, and how the model calls them.
 *
 * "chatml" and "qwen3": a list in <tools></tools> in the system message, calls in
 * <tool_call></tool_call>, results in <tool_response></tool_response> of a user's turn.
 * "llama3": as its own template does it with the tools in the system message and no date given:
 * a call is the whole message, and so is its result. Families without tools: PAL_EUNSUPPORTED.
 *
 * Tools are OpenAI's: an array of {"type":"function","function":{"name","description",
 * "parameters"}} as JSON text.
 */
#ifndef PAL_TEXT_TOOLS_H
#define PAL_TEXT_TOOLS_H

#include <jansson.h>

#include "text/constraint.h"

#define PAL__TOOL_NAME 256 /* bytes of a tool's name */

/* The system message's text: `system` (NULL: none) and the tools. *text is freed with pal__free. */
pal_status pal__tools_system(const char *family, const char *system, const json_t *tools,
			     char **text, pal_error *err);

/* The content of an assistant's message that said `content` (or NULL) and made calls, an array of
 * {"function":{"name","arguments":"JSON text"}}. */
pal_status pal__tools_calls(const char *family, const char *content, const json_t *calls,
			    char **text, pal_error *err);

/* The role and content of the message that brings the results of n calls back, in their order. */
pal_status pal__tools_results(const char *family, const char *const *results, size_t n,
			      const char **role, char **text, pal_error *err);

/* Splits a reply into what it says and the calls it makes, as it grows: what comes before the
 * first call is content (held back while it may be the start of a call). */
typedef struct pal__calls pal__calls;
pal_status pal__calls_new(const char *family, pal__calls **out, pal_error *err);
void pal__calls_free(pal__calls *c); /* NULL is fine */

/* text[n] came; with n 0: nothing more comes. content: [*n_content] new content, valid until the
 * next call. *n_calls: whole calls so far. A call that is no call (not JSON, no name) is content.
 */
pal_status pal__calls_feed(pal__calls *c, const char *text, size_t n, const char **content,
			   size_t *n_content, size_t *n_calls, pal_error *err);

/* Of call i: name and arguments (JSON text), owned by c. */
const char *pal__calls_name(const pal__calls *c, size_t i);
const char *pal__calls_arguments(const pal__calls *c, size_t i);

typedef enum {
	PAL__TOOLS_AUTO,     /* the model may call tools, and a call it begins is a valid one */
	PAL__TOOLS_REQUIRED, /* it calls one or more */
} pal__tools_choice;

/* A constraint under which calls are valid: a tool's name, and arguments of its parameters'
 * schema (none: an empty object). only: the one tool that may be called, or NULL. parallel: more
 * than one call. A call is laid out as the families' templates do it; what is begun (for llama3:
 * a reply that starts with a brace) is a call, and what follows one is another one or the end.
 * Errors: those of pal__schema_form; PAL_EINVAL (tools, or `only` is none of them). */
pal_status pal__tools_constraint(const pal__tokenizer *t, const char *family, const json_t *tools,
				 pal__tools_choice choice, const char *only, bool parallel,
				 pal_constraint **out, pal_error *err);

#endif
