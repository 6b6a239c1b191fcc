/* A session of a verifier, and the view of it that draft sources are given. */
#ifndef ALONG_H
#define ALONG_H

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "draft/sample.h"
#include "draft/source.h"
#include "session/session.h"

#define ALONG_MOST 2048 /* tokens of a log */

static inline uint64_t along_random(size_t n)
{
	static uint64_t i;
	return pal__random(5, i++) % n;
}

static inline pal_model *along_model(const char *path)
{
	pal_model *m;
	pal_error err;
	if (pal_model_open(path, &(pal_model_options){.n_threads = 2}, &m, &err))
		fail_msg("%s", err.text);
	return m;
}

typedef struct {
	pal_model *m;
	pal_session *s;
	int32_t log[ALONG_MOST]; /* what the session has, and a pending token */
} along;

static inline void along_open(along *a, pal_model *m, const pal_session_options *o)
{
	pal_error err;
	a->m = m;
	if (pal_session_open(m, o, &a->s, &err))
		fail_msg("%s", err.text);
}

static inline int64_t along_length(const along *a)
{
	return pal_session_length(a->s);
}

static inline void along_append(along *a, const int32_t *ids, size_t n)
{
	pal_error err;
	int64_t at = along_length(a);
	assert_true(at + (int64_t)n < ALONG_MOST);
	memmove(a->log + at, ids, n * sizeof *ids);
	if (pal_session_append(a->s, ids, n, NULL, NULL, NULL, &err))
		fail_msg("%s", err.text);
}

/* What greedy decoding says next. */
static inline int32_t along_next(const along *a)
{
	return pal__largest(pal_session_logits(a->s), a->m->h.n_vocab);
}

/* A view with `pending` at the end of the log. What leaves a ring of the K/V is kept before, and
 * what is written to it counts. */
static inline pal__draft_view along_view(along *a, int32_t pending)
{
	pal_session *s = a->s;
	pal_error err;
	int64_t n = s->length;
	size_t room = (size_t)s->n_batch < PAL__DRAFT_MOST ? (size_t)s->n_batch : PAL__DRAFT_MOST;
	room = pal__kv_piece(&s->kv, n, room);
	if (!s->bounded && (int64_t)room > s->n_ctx - n)
		room = (size_t)(s->n_ctx - n);
	int64_t end = n + (int64_t)room,
		block = (end - 1) / PAL__ATTN_BLOCK + 1 - (int64_t)s->kv.main.n_blocks;
	if (s->restores && block > 0 &&
	    pal__restore_keep(&s->restore, block * PAL__ATTN_BLOCK, &err))
		fail_msg("%s", err.text);
	s->written = end > s->written ? end : s->written;
	a->log[n] = pending;
	return (pal__draft_view){.log = a->log,
				 .n = n + 1,
				 .verifier = a->m,
				 .kv = &s->kv,
				 .scratch = &s->scratch,
				 .rows = s->rows,
				 .room = (int)room};
}

#endif
