#include "cli/conversation.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/output.h"

/* Takes over the memory of content; frees it on failure. */
static pal_status add(pal__conversation *c, size_t at, const char *role, char *content,
		      pal_error *err)
{
	if (!content || !pal__grow((void **)&c->messages, &c->cap, c->n + 1, sizeof *c->messages)) {
		pal__free(content);
		return pal__fail_memory(err, "a message", sizeof *c->messages);
	}
	memmove(&c->messages[at + 1], &c->messages[at], (c->n - at) * sizeof *c->messages);
	c->messages[at] = (pal_message){role, content};
	c->n++;
	return PAL_OK;
}

static void drop(pal__conversation *c, size_t at)
{
	pal__free((void *)(uintptr_t)c->messages[at].content);
	c->n--;
	memmove(&c->messages[at], &c->messages[at + 1], (c->n - at) * sizeof *c->messages);
}

static bool has_system(const pal__conversation *c)
{
	return c->n && !strcmp(c->messages[0].role, "system");
}

void pal__conversation_free(pal__conversation *c)
{
	while (c->n)
		drop(c, c->n - 1);
	pal__free(c->messages);
	c->messages = NULL;
	c->cap = 0;
}

pal_status pal__conversation_reset(pal__conversation *c, pal_error *err)
{
	while (c->n > (has_system(c) ? 1 : 0))
		drop(c, c->n - 1);
	return pal_session_truncate(c->session, 0, err);
}

pal_status pal__conversation_system(pal__conversation *c, const char *text, pal_error *err)
{
	bool had = has_system(c);
	if (text && *text) {
		pal_status s = add(c, 0, "system", pal__strndup(text, strlen(text)), err);
		if (s)
			return s;
	}
	if (had)
		drop(c, text && *text ? 1 : 0);
	return PAL_OK;
}

static pal_status tokens(pal__conversation *c, int32_t **ids, size_t *n, pal_error *err)
{
	return pal_chat_tokens(c->model, c->template_name, c->messages, c->n, true, c->thinking,
			       ids, n, err);
}

/* Brings the log to ids[n]. */
static pal_status read_ids(pal__conversation *c, const int32_t *ids, size_t n,
			   const pal__turn_calls *calls, pal__turn *turn, pal_error *err)
{
	if ((int64_t)n >= c->n_ctx)
		return pal__fail(
			err, PAL_ELIMIT,
			"the conversation has %zu tokens and no room is left in the context "
			"of %lld",
			n, (long long)c->n_ctx);
	const int32_t *log = pal_session_log(c->session);
	size_t length = (size_t)pal_session_length(c->session), same = 0;
	/* The last token is always computed: its logits are what the answer starts from. */
	while (same < length && same + 1 < n && log[same] == ids[same])
		same++;
	double start = pal__now();
	pal_status s = pal_session_truncate(c->session, (int64_t)same, err);
	if (!s)
		s = pal_session_append(c->session, ids + same, n - same, NULL, calls->progress,
				       calls->user, err);
	turn->n_prompt = n;
	turn->n_reused = same;
	turn->prompt_s = pal__now() - start;
	return s;
}

static pal_status read_conversation(pal__conversation *c, const pal__turn_calls *calls,
				    pal__turn *turn, pal_error *err)
{
	int32_t *ids;
	size_t n;
	pal_status s = tokens(c, &ids, &n, err);
	if (s)
		return s;
	s = read_ids(c, ids, n, calls, turn, err);
	pal_free(ids);
	return s;
}

struct answer {
	const pal__turn_calls *calls;
	char *text; /* [n] */
	size_t n, cap;
	bool failed; /* out of memory */
};

static bool on_token(void *user, int32_t id, const char *text, size_t n)
{
	struct answer *a = user;
	(void)id;
	if (!pal__grow((void **)&a->text, &a->cap, a->n + n + 1, 1)) {
		a->failed = true;
		return false;
	}
	memcpy(a->text + a->n, text, n);
	a->n += n;
	a->text[a->n] = 0;
	return a->calls->on_text(a->calls->user, text, n);
}

static pal_status answer(pal__conversation *c, const pal_generate_options *options,
			 const pal__turn_calls *calls, pal__turn *turn, pal_error *err)
{
	struct answer a = {.calls = calls};
	pal_generate_options o = *options;
	o.on_token = on_token;
	o.user = &a;
	pal_status s = pal_generate(c->session, &o, &turn->result, err);
	if (!s && a.failed)
		s = pal__fail_memory(err, "the answer", a.n);
	if (!s && !a.n && turn->result.stop == PAL_STOP_CANCELLED)
		s = pal__fail(err, PAL_ECANCELLED, "stopped before the answer began");
	if (s) {
		pal__free(a.text);
		return s;
	}
	/* A zero byte would end the message for whoever reads it as a C string. */
	for (size_t i = 0; i < a.n; i++)
		if (!a.text[i])
			a.text[i] = ' ';
	return add(c, c->n, "assistant", a.text ? a.text : pal__strndup("", 0), err);
}

pal_status pal__conversation_ask(pal__conversation *c, const char *text,
				 const pal_generate_options *options, const pal__turn_calls *calls,
				 pal__turn *turn, pal_error *err)
{
	*turn = (pal__turn){0};
	pal_status s = add(c, c->n, "user", pal__strndup(text, strlen(text)), err);
	if (s)
		return s;
	s = read_conversation(c, calls, turn, err);
	if (!s)
		s = answer(c, options, calls, turn, err);
	if (s)
		drop(c, c->n - 1);
	return s;
}
