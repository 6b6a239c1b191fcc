/* /v1/models, /v1/tokenize, /v1/detokenize, /v1/status */
#include <string.h>

#include "base/mem.h"
#include "serve/api.h"
#include "serve/json.h"
#include "serve/params.h"
#include "serve/report.h"

static json_t *model_json(const pal__api *api, const char *name)
{
	return json_pack("{s:s, s:s, s:I, s:s, s:I, s:o, s:s}", "id", name, "object", "model",
			 "created", (json_int_t)api->started, "owned_by", "palimpsest",
			 "context_length", (json_int_t)api->info.n_ctx_train, "display_name",
			 pal__json_text(api->name, strlen(api->name)), "type", "model");
}

/* For both dialects: they read the fields that they know. */
void pal__models_list(const pal__http_request *r, pal__reply *reply)
{
	const pal__api *api = r->user;
	json_t *data = pal__json_append(json_array(), model_json(api, api->name));
	pal__reply_send(reply, 200,
			json_pack("{s:s, s:o, s:b, s:s, s:s}", "object", "list", "data", data,
				  "has_more", 0, "first_id", api->name, "last_id", api->name),
			PAL__OPENAI);
}

void pal__models_get(const pal__http_request *r, pal__reply *reply)
{
	const pal__api *api = r->user;
	const char *name;
	pal__fault f = {0};
	if (pal__api_model(api, r->param[0], &name, &f))
		pal__reply_fault(reply, &f, PAL__OPENAI);
	else
		pal__reply_send(reply, 200, model_json(api, name), PAL__OPENAI);
}

static json_t *ids_json(const int32_t *ids, size_t n)
{
	json_t *a = json_array();
	for (size_t i = 0; i < n; i++)
		a = pal__json_append(a, json_integer(ids[i]));
	return a;
}

/* {"content" or "text" or "prompt", "add_special", "parse_special"} to {"tokens", "count"} */
void pal__models_tokenize(const pal__http_request *r, pal__reply *reply)
{
	const pal__api *api = r->user;
	pal__fault f = {0};
	json_t *body = pal__params_body(r, &f);
	const pal__params p = {body, "", &f};
	static const char *const names[] = {"content", "text", "prompt"}; /* of several servers */
	const char *text = NULL;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const char *s = pal__param_string(&p, names[i]);
		text = text ? text : s;
	}
	unsigned flags = pal__param_bool(&p, "add_special", false) ? PAL_TOKENIZE_ADD : 0;
	flags |= pal__param_bool(&p, "parse_special", true) ? PAL_TOKENIZE_SPECIAL : 0;
	int32_t *ids = NULL;
	size_t n = 0;
	if (!text)
		pal__refuse(&f, "content", "is missing: must be a string");
	if (!f.err.code)
		pal_tokenize(api->model, text, strlen(text), flags, &ids, &n, &f.err);
	if (f.err.code)
		pal__reply_fault(reply, &f, PAL__OPENAI);
	else
		pal__reply_send(
			reply, 200,
			json_pack("{s:o, s:I}", "tokens", ids_json(ids, n), "count", (json_int_t)n),
			PAL__OPENAI);
	pal_free(ids);
	json_decref(body);
}

/* {"tokens"} to {"content"} */
void pal__models_detokenize(const pal__http_request *r, pal__reply *reply)
{
	const pal__api *api = r->user;
	pal__fault f = {0};
	json_t *body = pal__params_body(r, &f);
	const pal__params p = {body, "", &f};
	const json_t *tokens = pal__param_array(&p, "tokens");
	int32_t *ids = NULL;
	char *text = NULL;
	size_t n, n_text;
	if (!tokens)
		pal__refuse(&f, "tokens", "is missing: must be an array of token ids");
	if (!pal__param_ids(&p, "tokens", tokens, api->info.n_vocab, &ids, &n))
		pal_detokenize(api->model, ids, n, PAL_TOKENIZE_SPECIAL, &text, &n_text, &f.err);
	if (f.err.code)
		pal__reply_fault(reply, &f, PAL__OPENAI);
	else
		pal__reply_send(reply, 200,
				json_pack("{s:o}", "content", pal__json_text(text, n_text)),
				PAL__OPENAI);
	pal_free(text);
	pal_free(ids);
	json_decref(body);
}

void pal__status_get(const pal__http_request *r, pal__reply *reply)
{
	const pal__api *api = r->user;
	pal__service_counts c = {0};
	pal__service_get_counts(api->options.service, &c);
	const struct {
		const char *name;
		uint64_t value;
	} all[] = {
#define COUNT(field) {#field, c.field}
		COUNT(sessions),      COUNT(loaded),           COUNT(running),
		COUNT(waiting),       COUNT(requests),         COUNT(refused),
		COUNT(cancelled),     COUNT(failed),           COUNT(prompt_tokens),
		COUNT(reused_tokens), COUNT(generated_tokens), COUNT(drafted),
		COUNT(accepted),      COUNT(forwards),         COUNT(rows),
		COUNT(events),        COUNT(fallbacks),        COUNT(commits),
		COUNT(parked),        COUNT(unparked),         COUNT(replayed),
		COUNT(quarantined),   COUNT(expired),          COUNT(memory_bytes),
		COUNT(memory_limit),  COUNT(rss_bytes),        COUNT(peak_rss_bytes),
		COUNT(disk_bytes),
#undef COUNT
	};
	json_t *o = json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:o}", "object", "status", "model",
			      api->name, "version", PAL_VERSION, "uptime_s",
			      pal__wall_clock() - api->started, "forward_s", c.forward_s,
			      "commit_s", c.commit_s, "filled", pal__report_sources(c.filled));
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		o = pal__json_with(o, all[i].name, json_integer((json_int_t)all[i].value));
	pal__reply_send(reply, 200, o, PAL__OPENAI);
}
