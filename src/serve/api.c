#include "serve/api.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "model/model.h"
#include "serve/json.h"
#include "serve/openapi.h"

#define EXPORT_BYTES ((size_t)1 << 30) /* of an imported session */

double pal__wall_clock(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void openapi(const pal__http_request *r, pal__reply *reply)
{
	(void)r;
	pal__reply_bytes(reply, 200, "application/json", pal__openapi, pal__openapi_size);
}

static const pal__route table[] = {
	{"GET", "/openapi.json", openapi, NULL, true, 0},
	{"GET", "/v1/models", pal__models_list, NULL, false, 0},
	{"GET", "/v1/models/{id}", pal__models_get, NULL, false, 0},
	{"POST", "/v1/tokenize", pal__models_tokenize, NULL, false, 0},
	{"POST", "/v1/detokenize", pal__models_detokenize, NULL, false, 0},
	{"GET", "/v1/status", pal__status_get, NULL, false, 0},
	{"POST", "/v1/sessions", pal__sessions_create, NULL, false, 0},
	{"GET", "/v1/sessions", pal__sessions_list, NULL, false, 0},
	{"POST", "/v1/sessions/import", pal__sessions_import, NULL, false, EXPORT_BYTES},
	{"GET", "/v1/sessions/{id}", pal__sessions_get, NULL, false, 0},
	{"DELETE", "/v1/sessions/{id}", pal__sessions_delete, NULL, false, 0},
	{"POST", "/v1/sessions/{id}/append", pal__sessions_append, NULL, false, 0},
	{"POST", "/v1/sessions/{id}/generate", pal__sessions_generate, NULL, false, 0},
	{"POST", "/v1/sessions/{id}/fork", pal__sessions_fork, NULL, false, 0},
	{"GET", "/v1/sessions/{id}/export", pal__sessions_export, NULL, false, 0},
	{"GET", "/v1/sessions/{id}/log", pal__sessions_log, NULL, false, 0},
	{"GET", "/v1/sessions/{id}/memory", pal__sessions_memory, NULL, false, 0},
	{"POST", "/v1/completions", pal__completions, NULL, false, 0},
	{"POST", "/v1/chat/completions", pal__chat, NULL, false, 0},
	{"POST", "/v1/responses", pal__responses_create, NULL, false, 0},
	{"GET", "/v1/responses/{id}", pal__responses_get, NULL, false, 0},
	{"DELETE", "/v1/responses/{id}", pal__responses_delete, NULL, false, 0},
	{"GET", "/v1/responses/{id}/input_items", pal__responses_input, NULL, false, 0},
	{"POST", "/v1/messages", pal__messages, NULL, false, 0},
	{"POST", "/v1/messages/count_tokens", pal__messages_count, NULL, false, 0},
	{NULL, NULL, NULL, NULL, false, 0},
};

/* "folder/name.gguf" is "name". */
static void file_name(const char *path, char *out, size_t size)
{
	const char *slash = path ? strrchr(path, '/') : NULL;
	const char *name = slash ? slash + 1 : path ? path : "";
	size_t n = strlen(name);
	if (n > 5 && !strcmp(name + n - 5, ".gguf"))
		n -= 5;
	snprintf(out, size, "%.*s", (int)n, name);
}

pal_status pal__api_new(const pal__api_options *options, pal__api **out, pal_error *err)
{
	pal__api *a = pal__calloc(1, sizeof *a);
	pal__route *routes = pal__alloc(sizeof table);
	if (!a || !routes) {
		pal__free(a);
		pal__free(routes);
		return pal__fail_memory(err, "the endpoints", sizeof *a + sizeof table);
	}
	memcpy(routes, table, sizeof table);
	a->options = *options;
	a->routes = routes;
	a->model = pal__service_model(options->service);
	a->started = pal__wall_clock();
	a->family = options->template_name ? options->template_name : a->model->chat_family;
	pal_model_get_info(a->model, &a->info);
	file_name(options->path, a->file, sizeof a->file);
	const char *own = a->info.name && *a->info.name ? a->info.name : a->file;
	snprintf(a->name, sizeof a->name, "%s", options->name ? options->name : own);
	if (!*a->name)
		snprintf(a->name, sizeof a->name, "palimpsest");
	for (size_t i = 0; routes[i].method; i++)
		routes[i].user = a;
	*out = a;
	return PAL_OK;
}

void pal__api_free(pal__api *api)
{
	if (api)
		pal__free(api->routes);
	pal__free(api);
}

const pal__route *pal__api_routes(const pal__api *api)
{
	return api->routes;
}

static bool known(const pal__api *api, const char *name)
{
	return api->options.any_model || !strcmp(name, api->name) ||
	       (*api->file && !strcmp(name, api->file)) || !strcmp(name, "palimpsest") ||
	       !strcmp(name, "default");
}

pal_status pal__api_model(const pal__api *api, const char *asked, const char **name, pal__fault *f)
{
	*name = asked ? asked : api->name;
	if (f->err.code || known(api, *name))
		return f->err.code;
	f->code = "model_not_found";
	snprintf(f->param, sizeof f->param, "model");
	return pal__fail(&f->err, PAL_ENOTFOUND,
			 "the model \"%.100s\" is not served here: \"%s\" is", *name, api->name);
}
