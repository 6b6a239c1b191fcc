/* Fields of a request's JSON: each with its type and range. An error names the parameter and what
 * is allowed; the first one stays in the fault, and what is read after it is the default.
 *
 * A field that is absent or null has its default. Unknown fields are passed over, as the APIs
 * that are spoken here do.
 */
#ifndef PAL_SERVE_PARAMS_H
#define PAL_SERVE_PARAMS_H

#include <jansson.h>

#include "serve/fault.h"

#define PAL__MAX_STOPS 16          /* stop strings of one request */
#define PAL__MAX_COUNT (1LL << 31) /* of whatever has no smaller limit */
#define PAL__MAX_CHOICES 16        /* `n` */
#define PAL__DEFAULT_TOKENS 8192   /* generated where a client does not say how many */

typedef struct {
	const json_t *o;
	const char *prefix; /* "stream_options." or "" */
	pal__fault *f;
} pal__params;

/* The body as an object; NULL: it is none, and f says why. */
json_t *pal__params_body(const pal__http_request *r, pal__fault *f);

int64_t pal__param_int(const pal__params *p, const char *name, int64_t min, int64_t max,
		       int64_t otherwise);
double pal__param_number(const pal__params *p, const char *name, double min, double max,
			 double otherwise);
bool pal__param_bool(const pal__params *p, const char *name, bool otherwise);
const char *pal__param_string(const pal__params *p, const char *name); /* NULL: absent */
const json_t *pal__param_object(const pal__params *p, const char *name);
const json_t *pal__param_array(const pal__params *p, const char *name);

/* One of words (NULL ends them), as its index. */
int pal__param_word(const pal__params *p, const char *name, const char *const *words,
		    int otherwise);

/* A string, or an array of at most `most` strings, none of them empty. out: [most]. */
size_t pal__param_strings(const pal__params *p, const char *name, size_t most, const char **out);

/* temperature (of `otherwise` when absent), top_p, top_k, min_p, repeat_penalty (or
 * repetition_penalty) and seed; frequency_penalty, presence_penalty and logit_bias are refused
 * where they would do something. Without a seed there is a random one. */
pal_sampling pal__param_sampling(const pal__params *p, double otherwise);

/* An array of token ids below n_vocab. *ids is freed with pal_free. */
pal_status pal__param_ids(const pal__params *p, const char *name, const json_t *array,
			  int32_t n_vocab, int32_t **ids, size_t *n);

/* A query's number. */
int64_t pal__query_int(const pal__http_request *r, const char *name, int64_t min, int64_t max,
		       int64_t otherwise, pal__fault *f);

#endif
