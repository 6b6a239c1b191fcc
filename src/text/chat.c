#include "text/chat.h"

#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "text/utf8.h"

/* Text under construction. After a failed append `ok` is false and stays so. */
struct out {
	char *s; /* [n] */
	size_t n, cap;
	pal__stretch *plain; /* [n_plain] of contents */
	size_t n_plain, cap_plain;
	bool ok;
};

typedef struct {
	const char *s;
	size_t n;
} span;

static span whole(const char *s)
{
	return (span){s, strlen(s)};
}

static void put(struct out *o, span t)
{
	o->ok = o->ok && pal__grow((void **)&o->s, &o->cap, o->n + t.n + 1, 1);
	if (!o->ok)
		return;
	memcpy(o->s + o->n, t.s, t.n);
	o->n += t.n;
	o->s[o->n] = 0;
}

static void puts_to(struct out *o, const char *s)
{
	put(o, whole(s));
}

/* A part of a message's content. */
static void put_said(struct out *o, span t)
{
	size_t from = o->n;
	put(o, t);
	if (!t.n || !o->ok)
		return;
	o->ok = pal__grow((void **)&o->plain, &o->cap_plain, o->n_plain + 1, sizeof *o->plain);
	if (o->ok)
		o->plain[o->n_plain++] = (pal__stretch){from, o->n};
}

/* What templates call white space: Python's str.isspace(). */
static bool is_space(utf8proc_int32_t c)
{
	return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 ||
	       c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
	       c == 0x202f || c == 0x205f || c == 0x3000;
}

/* s[n] is one character and white space. */
static bool space_char(const char *s, size_t n)
{
	utf8proc_int32_t c;
	return pal__utf8_char(s, n) == (int)n &&
	       utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &c) > 0 &&
	       is_space(c);
}

static span trim(span t)
{
	for (size_t len = 1; len <= 3 && len <= t.n;)
		if (space_char(t.s, len)) {
			t.s += len;
			t.n -= len;
			len = 1;
		} else {
			len++;
		}
	for (size_t len = 1; len <= 3 && len <= t.n;)
		if (space_char(t.s + t.n - len, len)) {
			t.n -= len;
			len = 1;
		} else {
			len++;
		}
	return t;
}

static span trim_newlines(span t, bool left, bool right)
{
	for (; left && t.n && *t.s == '\n'; t.n--)
		t.s++;
	while (right && t.n && t.s[t.n - 1] == '\n')
		t.n--;
	return t;
}

static bool contains(span t, const char *what)
{
	return memmem(t.s, t.n, what, strlen(what)) != NULL;
}

/* t behind the last `what` in it, or t. */
static span after_last(span t, const char *what)
{
	size_t n = strlen(what);
	for (const char *at; (at = memmem(t.s, t.n, what, n));)
		t = (span){at + n, t.n - (size_t)(at + n - t.s)};
	return t;
}

/* t before the first `what` in it, or t. */
static span before_first(span t, const char *what)
{
	const char *at = memmem(t.s, t.n, what, strlen(what));
	return at ? (span){t.s, (size_t)(at - t.s)} : t;
}

/* One call's input. */
struct chat {
	const char *bos;
	const pal_message *messages;
	size_t n;
	bool open_reply;
	pal_thinking thinking;
};

static bool is_role(const pal_message *m, const char *role)
{
	return !strcmp(m->role, role);
}

static void open_turn(struct out *o, const char *role)
{
	puts_to(o, "<|im_start|>");
	puts_to(o, role);
	puts_to(o, "\n");
}

static pal_status format_chatml(const struct chat *c, struct out *o, pal_error *err)
{
	(void)err;
	for (size_t i = 0; i < c->n; i++) {
		open_turn(o, c->messages[i].role);
		put_said(o, whole(c->messages[i].content));
		puts_to(o, "<|im_end|>\n");
	}
	if (c->open_reply)
		open_turn(o, "assistant");
	return PAL_OK;
}

/* Index of the last message that is a question of the user, not the result of a tool;
 * the last index when there is none. */
static size_t last_query(const struct chat *c)
{
	for (size_t i = c->n; i-- > 0;) {
		const char open[] = "<tool_response>", close[] = "</tool_response>";
		span t = whole(c->messages[i].content);
		bool result = t.n >= strlen(close) && !strncmp(t.s, open, strlen(open)) &&
			      !strcmp(t.s + t.n - strlen(close), close);
		if (is_role(&c->messages[i], "user") && !result)
			return i;
	}
	return c->n - 1;
}

/* An assistant's turn: its thoughts are kept only after the last question. */
static void qwen3_answer(const struct chat *c, struct out *o, size_t i, size_t query)
{
	span content = whole(c->messages[i].content), thoughts = {content.s, 0};
	if (contains(content, "</think>")) {
		thoughts = trim_newlines(before_first(content, "</think>"), false, true);
		thoughts = trim_newlines(after_last(thoughts, "<think>"), true, false);
		content = trim_newlines(after_last(content, "</think>"), true, false);
	}
	if (i > query && (i == c->n - 1 || thoughts.n)) {
		puts_to(o, "<think>\n");
		put_said(o, trim_newlines(thoughts, true, true));
		puts_to(o, "\n</think>\n\n");
		content = trim_newlines(content, true, false);
	}
	put_said(o, content);
}

static pal_status format_qwen3(const struct chat *c, struct out *o, pal_error *err)
{
	size_t query = last_query(c);
	(void)err;
	for (size_t i = 0; i < c->n; i++) {
		open_turn(o, c->messages[i].role);
		if (is_role(&c->messages[i], "assistant"))
			qwen3_answer(c, o, i, query);
		else
			put_said(o, whole(c->messages[i].content));
		puts_to(o, "<|im_end|>\n");
	}
	if (c->open_reply)
		open_turn(o, "assistant");
	if (c->open_reply && c->thinking == PAL_THINKING_OFF)
		puts_to(o, "<think>\n\n</think>\n\n");
	return PAL_OK;
}

static void llama3_header(struct out *o, const char *role)
{
	puts_to(o, "<|start_header_id|>");
	puts_to(o, role);
	puts_to(o, "<|end_header_id|>\n\n");
}

static pal_status format_llama3(const struct chat *c, struct out *o, pal_error *err)
{
	(void)err;
	puts_to(o, c->bos);
	for (size_t i = 0; i < c->n; i++) {
		llama3_header(o, c->messages[i].role);
		put_said(o, trim(whole(c->messages[i].content)));
		puts_to(o, "<|eot_id|>");
	}
	if (c->open_reply)
		llama3_header(o, "assistant");
	return PAL_OK;
}

static pal_status format_gemma(const struct chat *c, struct out *o, pal_error *err)
{
	bool system = is_role(&c->messages[0], "system");
	if (system && c->n == 1)
		return pal__fail(err, PAL_EINVAL,
				 "the template gemma puts the system message into the first user "
				 "message, and there is none");
	puts_to(o, c->bos);
	for (size_t i = system; i < c->n; i++) {
		bool user = (i - system) % 2 == 0;
		if (!is_role(&c->messages[i], user ? "user" : "assistant"))
			return pal__fail(err, PAL_EINVAL,
					 "message %zu is of role %s: the template gemma needs user "
					 "and assistant by turns, and system only at the start",
					 i + 1, c->messages[i].role);
		puts_to(o, user ? "<start_of_turn>user\n" : "<start_of_turn>model\n");
		if (system && i == 1) {
			put_said(o, whole(c->messages[0].content));
			puts_to(o, "\n\n");
		}
		put_said(o, trim(whole(c->messages[i].content)));
		puts_to(o, "<end_of_turn>\n");
	}
	if (c->open_reply)
		puts_to(o, "<start_of_turn>model\n");
	return PAL_OK;
}

static const struct family {
	const char *name;
	pal_status (*format)(const struct chat *c, struct out *o, pal_error *err);
	bool thinks;
	const char *result; /* the role of a tool's results, if they have one */
} families[] = {
	{"chatml", format_chatml, false, NULL},
	{"qwen3", format_qwen3, true, NULL},
	{"llama3", format_llama3, false, "ipython"},
	{"gemma", format_gemma, false, NULL},
};

const char *pal__chat_names(void)
{
	return "chatml, qwen3, llama3, gemma";
}

/* Templates that think are taken for qwen3 only when they can be told not to, in its
 * way; of others that think none is known here. */
const char *pal__chat_detect(const char *source, size_t n)
{
	span t = {source, n};
	if (contains(t, "<start_of_turn>"))
		return "gemma";
	if (contains(t, "<|start_header_id|>") && contains(t, "<|eot_id|>"))
		return "llama3";
	if (!contains(t, "<|im_start|>") || !contains(t, "<|im_end|>"))
		return NULL;
	if (!contains(t, "think>"))
		return "chatml";
	return contains(t, "enable_thinking") && contains(t, "reasoning_content") ? "qwen3" : NULL;
}

static pal_status check(const struct chat *c, const struct family *f, pal_error *err)
{
	if (c->n == 0)
		return pal__fail(err, PAL_EINVAL, "a chat without messages");
	if (c->thinking == PAL_THINKING_ON && !f->thinks)
		return pal__fail(err, PAL_EINVAL, "the template %s has no thinking", f->name);
	for (size_t i = 0; i < c->n; i++) {
		const pal_message *m = &c->messages[i];
		if (!m->role || !m->content)
			return pal__fail(err, PAL_EINVAL, "message %zu has no %s", i + 1,
					 m->role ? "content" : "role");
		if (!is_role(m, "system") && !is_role(m, "user") && !is_role(m, "assistant") &&
		    !(f->result && is_role(m, f->result)))
			return pal__fail(
				err, PAL_EINVAL,
				"message %zu is of role %.64s: the template %s has system, "
				"user and assistant",
				i + 1, m->role, f->name);
	}
	return PAL_OK;
}

void pal__chat_text_free(pal__chat_text *t)
{
	pal__free(t->s);
	pal__free(t->plain);
	*t = (pal__chat_text){0};
}

pal_status pal__chat_write(const char *name, const char *bos, const pal_message *messages,
			   size_t n_messages, bool open_reply, pal_thinking thinking,
			   pal__chat_text *out, pal_error *err)
{
	const struct chat c = {bos, messages, n_messages, open_reply, thinking};
	const struct family *f = NULL;
	for (size_t i = 0; i < sizeof families / sizeof *families; i++)
		if (!strcmp(families[i].name, name))
			f = &families[i];
	if (!f)
		return pal__fail(err, PAL_EUNSUPPORTED,
				 "chat template \"%.64s\" is not supported (supported: %s)", name,
				 pal__chat_names());
	pal_status s = check(&c, f, err);
	if (s)
		return s;
	struct out o = {.ok = true};
	s = f->format(&c, &o, err);
	if (!s && !o.ok)
		s = pal__fail_memory(err, "a formatted chat", o.n);
	pal__chat_text text = {o.s, o.n, o.plain, o.n_plain};
	if (s) {
		pal__chat_text_free(&text);
		return s;
	}
	*out = text;
	return PAL_OK;
}

pal_status pal__chat_format(const char *name, const char *bos, const pal_message *messages,
			    size_t n_messages, bool open_reply, pal_thinking thinking, char **text,
			    size_t *n_text, pal_error *err)
{
	pal__chat_text all = {0};
	pal_status s =
		pal__chat_write(name, bos, messages, n_messages, open_reply, thinking, &all, err);
	if (s)
		return s;
	*text = all.s;
	*n_text = all.n;
	all.s = NULL;
	pal__chat_text_free(&all);
	return PAL_OK;
}
