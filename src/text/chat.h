/* Chat templates: messages to the text a model was trained to see.
 *
 * Templates are families with a name, not Jinja programs: "chatml" (no thinking),
 * "qwen3" (ChatML with Qwen3's thinking blocks), "llama3", "gemma". The family is
 * recognised by the markers in GGUF's tokenizer.chat_template. What each writes
 * equals what the family's original template renders for system, user and
 * assistant messages, and those that bring a tool's results (llama3's role for them is ipython);
 * but a system message that the template would make up is not written, and the order of roles that
 * a model was not trained for is refused.
 */
#ifndef PAL_TEXT_CHAT_H
#define PAL_TEXT_CHAT_H

#include "base/status.h"
#include "text/special.h"

/* The family of a template's source text (n bytes), or NULL when it is none of them. */
const char *pal__chat_detect(const char *source, size_t n);

/* "chatml, qwen3, llama3, gemma": for messages. */
const char *pal__chat_names(void);

/* As pal_chat_format(); name is one of the families. bos is written first by the
 * families that do so (llama3, gemma) when not empty; pass "" if the tokenizer adds it.
 * *text is freed with pal__free. Errors: PAL_EUNSUPPORTED (name), PAL_EINVAL (a role
 * the family has not, an order it refuses, no messages, thinking on where there is none),
 * PAL_ENOMEM. */
pal_status pal__chat_format(const char *name, const char *bos, const pal_message *messages,
			    size_t n_messages, bool open_reply, pal_thinking thinking, char **text,
			    size_t *n_text, pal_error *err);

/* The same, and which bytes of it are contents, and not the template's own: ascending, not empty.
 */
typedef struct {
	char *s; /* [n], and a NUL */
	size_t n;
	pal__stretch *plain; /* [n_plain] */
	size_t n_plain;
} pal__chat_text;
pal_status pal__chat_write(const char *name, const char *bos, const pal_message *messages,
			   size_t n_messages, bool open_reply, pal_thinking thinking,
			   pal__chat_text *out, pal_error *err);
void pal__chat_text_free(pal__chat_text *t);

#endif
