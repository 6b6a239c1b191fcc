/* The endpoints: what clients of OpenAI's and Anthropic's APIs expect, and the sessions of this
 * server, over one service. Shapes of requests and replies: openapi.json, served at
 * /openapi.json.
 *
 * Invariants:
 *  - Nothing is truncated: what cannot be taken is an error that says what can.
 *  - A stream begins when its prompt has been read, so that errors before that have their status;
 *    an error later is an event. A client that has gone cancels what it asked for.
 *  - Requests are stateless here: all that is kept is in the service.
 *
 * A family of endpoints is a file: models.c, sessions.c, completions.c, chat.c, responses.c,
 * messages.c.
 */
#ifndef PAL_SERVE_API_H
#define PAL_SERVE_API_H

#include "serve/fault.h"
#include "serve/http.h"

typedef struct {
	pal__service *service;     /* closed after the server */
	const char *name;          /* that the model is served under; NULL: its own */
	const char *path;          /* of its file, whose name is a name of it, too; or NULL */
	const char *template_name; /* family of its chat template; NULL: as its metadata says */
	bool any_model;            /* requests may name any other model, and get this one */
} pal__api_options;

typedef struct {
	pal__api_options options;
	const pal_model *model;
	pal_model_info info;
	char name[128], file[128];
	const char *family; /* of chat templates; NULL: none is known */
	double started;     /* seconds since 1970 */
	pal__route *routes;
} pal__api;

/* Strings of options live as long. */
pal_status pal__api_new(const pal__api_options *options, pal__api **out, pal_error *err);
void pal__api_free(pal__api *api); /* NULL is fine */

/* A table for pal__http_start, owned by api. */
const pal__route *pal__api_routes(const pal__api *api);

/* --- for the endpoints ------------------------------------------------------ */

double pal__wall_clock(void); /* seconds since 1970 */

/* asked (or NULL) is a name of the model; *name: how the reply calls it. */
pal_status pal__api_model(const pal__api *api, const char *asked, const char **name, pal__fault *f);

void pal__models_list(const pal__http_request *r, pal__reply *reply);
void pal__models_get(const pal__http_request *r, pal__reply *reply);
void pal__models_tokenize(const pal__http_request *r, pal__reply *reply);
void pal__models_detokenize(const pal__http_request *r, pal__reply *reply);
void pal__status_get(const pal__http_request *r, pal__reply *reply);
void pal__sessions_create(const pal__http_request *r, pal__reply *reply);
void pal__sessions_list(const pal__http_request *r, pal__reply *reply);
void pal__sessions_get(const pal__http_request *r, pal__reply *reply);
void pal__sessions_delete(const pal__http_request *r, pal__reply *reply);
void pal__sessions_append(const pal__http_request *r, pal__reply *reply);
void pal__sessions_generate(const pal__http_request *r, pal__reply *reply);
void pal__sessions_fork(const pal__http_request *r, pal__reply *reply);
void pal__sessions_export(const pal__http_request *r, pal__reply *reply);
void pal__sessions_import(const pal__http_request *r, pal__reply *reply);
void pal__sessions_log(const pal__http_request *r, pal__reply *reply);
void pal__sessions_memory(const pal__http_request *r, pal__reply *reply);
void pal__completions(const pal__http_request *r, pal__reply *reply);
void pal__chat(const pal__http_request *r, pal__reply *reply);
void pal__responses_create(const pal__http_request *r, pal__reply *reply);
void pal__responses_get(const pal__http_request *r, pal__reply *reply);
void pal__responses_delete(const pal__http_request *r, pal__reply *reply);
void pal__responses_input(const pal__http_request *r, pal__reply *reply);
void pal__messages(const pal__http_request *r, pal__reply *reply);
void pal__messages_count(const pal__http_request *r, pal__reply *reply);

#endif
