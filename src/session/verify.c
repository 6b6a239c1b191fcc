/* Verification: guesses at the next tokens, checked in one forward pass.
 *
 * Invariants:
 *  - The log grows by what plain decoding would have appended, one token after the other: after
 * each the session is as if the pass had ended there (length, last logits, query vectors of the
 *    selection index), so that sampling, selection and the caller see no difference (contract C3).
 *  - What the pass wrote behind the last token that was kept, nobody sees: rings have room for one
 *    pass behind what the log's end sees, files are written again at the same places, and behind
 *    its first token no event can lie and, where chunks are restored, no block can begin and push
 *    an old one out (pal__session_room).
 *  - Where selection would bring a chunk in, the rest of the pass is void: it was computed without.
 */
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "draft/sample.h"
#include "session/session.h"

typedef struct {
	pal_session *s;
	const pal__verifying *v;
	const int32_t *ids;
	size_t n, kept;
	int64_t from; /* the log's length before */
	float *rows;  /* [n][n_vocab] */
	pal_status status;
	pal_error *err;
} checking;

/* The session as it is after row i. */
static void stand_at(const checking *c, size_t i)
{
	pal_session *s = c->s;
	s->length = c->from + (int64_t)i + 1;
	s->logits = c->rows + i * s->model->h.n_vocab;
	s->has_logits = true;
	s->settled = false;
	s->hidden = s->scratch.batcher ? NULL : s->scratch.x + i * s->model->h.n_embd;
	s->restore.index.q_end = s->length;
}

/* Whether the next guess is what comes next. */
static bool agrees(checking *c, size_t i)
{
	bool looks = false;
	if (i + 1 == c->n)
		return false;
	c->status = pal__session_looks(c->s, &looks, c->err);
	return !c->status && !looks && c->v->next(c->v->user) == c->ids[i + 1];
}

static void check(checking *c)
{
	pal_session *s = c->s;
	float *own = s->logits;
	bool more = true;
	for (size_t i = 0; more; i++) {
		stand_at(c, i);
		c->kept = i + 1;
		more = c->v->kept(c->v->user, c->ids[i]) && agrees(c, i);
	}
	if (c->rows == s->next_logits) {
		s->next_logits = own;
		return;
	}
	memcpy(own, s->logits, s->model->h.n_vocab * sizeof *own);
	s->logits = own;
}

pal_status pal__session_verify(pal_session *s, const pal__verifying *v, const int32_t *ids,
			       size_t n, size_t *n_kept, double *seconds, pal_error *err)
{
	pal_status status = pal__session_write_log(s, ids, n, err);
	double start = pal__now();
	checking c = {.s = s, .v = v, .ids = ids, .n = n, .from = s->length, .err = err};
	assert(n == 1 || v->logits);
	c.rows = n > 1 ? v->logits : s->next_logits;
	if (status)
		return status;
	uint64_t n_events = s->n_events;
	status = pal__session_read(
		s, &(pal__reading){.ids = ids, .n = n, .logits = n > 1 ? c.rows : NULL}, err);
	if (status)
		return pal__session_failed(s, n_events, status);
	*seconds = pal__now() - start;
	check(&c);
	pal__session_uncount(s, c.kept, n);
	*n_kept = c.kept;
	return c.status;
}

/* --- the public form ---------------------------------------------------------------- */

typedef struct {
	pal_session *s;
	pal__sampler *sampler;
	int32_t *out;
	size_t n;
} plain;

static int32_t next_sampled(void *user)
{
	const plain *p = user;
	return pal__sample(p->sampler, pal_session_logits(p->s), pal_session_log(p->s),
			   pal_session_length(p->s));
}

static bool keep_token(void *user, int32_t id)
{
	plain *p = user;
	p->out[p->n++] = id;
	return !pal_token_is_end(p->s->model, id);
}

static pal_status verify(plain *p, const int32_t *draft, size_t n_draft, pal_error *err)
{
	pal_session *s = p->s;
	pal__verifying v = {.next = next_sampled, .kept = keep_token, .user = p};
	int32_t ids[PAL_MAX_BATCH];
	size_t n = 1, room, kept;
	double seconds;
	pal_status status = pal__session_reselect(s, err);
	if (!status)
		status = pal__session_room(s, n_draft ? n_draft : 1, &room, err);
	if (status)
		return status;
	ids[0] = next_sampled(p);
	while (n < room && draft[0] == ids[0] && draft[n] >= 0 &&
	       (size_t)draft[n] < s->model->h.n_vocab) {
		ids[n] = draft[n];
		n++;
	}
	size_t bytes = n * s->model->h.n_vocab * sizeof(float);
	v.logits = n > 1 ? pal__alloc(bytes) : NULL;
	if (n > 1 && !v.logits)
		return pal__fail_memory(err, "logits", bytes);
	status = pal__session_verify(s, &v, ids, n, &kept, &seconds, err);
	pal__free(v.logits);
	return status;
}

pal_status pal_verify(pal_session *s, const pal_sampling *sampling, const int32_t *draft,
		      size_t n_draft, int32_t *out, size_t *n_out, pal_error *err)
{
	plain p = {.s = s, .out = out};
	if (!pal_session_logits(s))
		return pal__fail(err, PAL_EINVAL, "nothing to go on from: append a token first");
	pal_status status =
		pal__sampler_new((int32_t)s->model->h.n_vocab, sampling, &p.sampler, err);
	if (status)
		return status;
	status = verify(&p, draft, n_draft, err);
	pal__sampler_free(p.sampler);
	if (!status)
		*n_out = p.n;
	return status;
}
