/* The calls of session/service.h that gRPC makes, played: a token's successor is the next id, so
 * that what comes is known, and `played` says what goes wrong. */
#ifndef PAL_TESTS_PLAYED_SERVICE_H
#define PAL_TESTS_PLAYED_SERVICE_H

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "session/service.h"

#define PLAYED_VOCAB 100
#define PLAYED_SESSIONS 8
#define PLAYED_LOG 256

struct played_session {
	bool used, busy, slow;
	uint64_t owner;
	char label[32];
	int32_t log[PLAYED_LOG], eos[PAL__MAX_EOS];
	int64_t length, turns;
	int n_eos;
};

static struct {
	struct played_session sessions[PLAYED_SESSIONS];
	pal_status fail;        /* of every run that finds its session */
	double retry_after_s;   /* then */
	int64_t resident, lost; /* more than the budget is resident; a run loses tokens */
	int64_t fail_after;     /* a generation fails behind so many tokens; 0: not */
	int64_t room;           /* tokens of a log; 0: PLAYED_LOG */
	bool slow;              /* a generation goes on until it is cancelled */
	pal_sampling sampling;  /* of the last generation */
	int cancelled;          /* generations that were */
} played;

static pthread_mutex_t played_lock = PTHREAD_MUTEX_INITIALIZER;

static void played_reset(void)
{
	pthread_mutex_lock(&played_lock);
	memset(&played, 0, sizeof played);
	pthread_mutex_unlock(&played_lock);
}

__attribute__((unused)) static void played_slow(void)
{
	pthread_mutex_lock(&played_lock);
	played.slow = true;
	pthread_mutex_unlock(&played_lock);
}

static struct played_session *played_find(const char *id, uint64_t owner, pal_error *err)
{
	unsigned i;
	if (sscanf(id, "sess-%32x", &i) == 1 && i < PLAYED_SESSIONS && played.sessions[i].used &&
	    played.sessions[i].owner == owner)
		return &played.sessions[i];
	pal__fail(err, PAL_ENOTFOUND, "there is no session %s", id);
	return NULL;
}

pal_status pal__service_create(pal__service *v, const pal__create *create, char *id, pal_error *err)
{
	pal_status status = pal__fail(err, PAL_EOVERLOAD, "no more sessions");
	(void)v;
	for (int i = 0; i < create->n_eos; i++)
		if (create->eos[i] < 0 || create->eos[i] >= PLAYED_VOCAB)
			return pal__fail(err, PAL_EINVAL, "eos %d", create->eos[i]);
	pthread_mutex_lock(&played_lock);
	for (unsigned i = 0; i < PLAYED_SESSIONS && status; i++) {
		struct played_session *s = &played.sessions[i];
		if (s->used)
			continue;
		*s = (struct played_session){
			.used = true, .owner = create->owner, .n_eos = create->n_eos};
		snprintf(s->label, sizeof s->label, "%s", create->label ? create->label : "");
		memcpy(s->eos, create->eos, sizeof s->eos);
		snprintf(id, PAL__ID_BYTES, "sess-%032x", i);
		status = PAL_OK;
	}
	pthread_mutex_unlock(&played_lock);
	return status;
}

pal_status pal__service_info(pal__service *v, const char *id, uint64_t owner,
			     pal__session_info *out, pal_error *err)
{
	(void)v;
	pthread_mutex_lock(&played_lock);
	const struct played_session *s = played_find(id, owner, err);
	if (s) {
		*out = (pal__session_info){
			.busy = s->busy, .turns = s->turns, .budget_positions = PLAYED_LOG};
		snprintf(out->id, sizeof out->id, "%s", id);
		out->stats.length = s->length;
		out->stats.resident = s->length + played.resident;
		out->stats.kv_bytes = 4096;
	}
	pthread_mutex_unlock(&played_lock);
	return s ? PAL_OK : PAL_ENOTFOUND;
}

pal_status pal__service_delete(pal__service *v, const char *id, uint64_t owner, int64_t *length,
			       pal_error *err)
{
	pal_status status = PAL_ENOTFOUND;
	(void)v;
	pthread_mutex_lock(&played_lock);
	struct played_session *s = played_find(id, owner, err);
	if (s && s->busy) {
		status = pal__fail(err, PAL_EBUSY, "%s is busy", id);
	} else if (s) {
		*length = s->length;
		s->used = false;
		status = PAL_OK;
	}
	pthread_mutex_unlock(&played_lock);
	return status;
}

static bool played_is_end(const struct played_session *s, int32_t id)
{
	for (int i = 0; i < s->n_eos; i++)
		if (s->eos[i] == id)
			return true;
	return false;
}

static void played_wait(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static pal_status played_generate(struct played_session *s, const pal__job *job,
				  pal__report *report, pal_error *err)
{
	const pal_generate_options *o = job->generate;
	int64_t n = 0, room = played.room ? played.room : PLAYED_LOG;
	report->made.stop = PAL_STOP_LIMIT;
	for (bool on = true; on && n < o->max_tokens && s->length < room;) {
		if (job->cancel && atomic_load(job->cancel))
			return pal__fail(err, PAL_ECANCELLED, "cancelled");
		if (played.fail_after && n == played.fail_after)
			return pal__fail(err, PAL_EIO, "the disk is on fire");
		int32_t id = (s->log[s->length - 1] + 1) % PLAYED_VOCAB;
		if (s->slow && n >= 3) {
			played_wait();
			continue;
		}
		s->log[s->length++] = id;
		report->made.n_tokens = ++n;
		on = o->on_token(o->user, id, "", 0);
		if (!on)
			report->made.stop = PAL_STOP_CANCELLED;
		if (on && played_is_end(s, id)) {
			report->made.stop = PAL_STOP_END;
			on = false;
		}
	}
	o->on_token(o->user, -1, "x", 1);
	return PAL_OK;
}

static pal_status played_append(struct played_session *s, const pal__job *job, pal_error *err)
{
	for (size_t i = 0; i < job->n_ids; i++)
		if (job->ids[i] < 0 || job->ids[i] >= PLAYED_VOCAB)
			return pal__fail(err, PAL_EINVAL, "token id %zu, %d, is outside", i + 1,
					 job->ids[i]);
	if (s->length + (int64_t)job->n_ids > PLAYED_LOG)
		return pal__fail(err, PAL_ELIMIT, "the log is full");
	if (!s->length && !job->n_ids)
		return pal__fail(err, PAL_EINVAL, "nothing to go on from");
	memcpy(s->log + s->length, job->ids, job->n_ids * sizeof *job->ids);
	s->length += (int64_t)job->n_ids - played.lost;
	return PAL_OK;
}

pal_status pal__service_run(pal__service *v, const pal__job *job, pal__report *report,
			    pal_error *err)
{
	pal_status status = PAL_ENOTFOUND;
	(void)v;
	pthread_mutex_lock(&played_lock);
	struct played_session *s = played_find(job->session, job->owner, err);
	*report = (pal__report){.retry_after_s = played.retry_after_s};
	if (s && s->busy)
		status = pal__fail(err, PAL_EBUSY, "%s is busy", job->session);
	else if (s && played.fail)
		status = pal__fail(err, played.fail, "told to fail");
	else if (s)
		status = played_append(s, job, err);
	if (status) {
		pthread_mutex_unlock(&played_lock);
		return status;
	}
	s->busy = true;
	s->slow = played.slow;
	if (job->generate)
		played.sampling = job->generate->sampling;
	pthread_mutex_unlock(&played_lock);
	if (job->generate) {
		if (job->on_start)
			job->on_start(job->user, report);
		status = played_generate(s, job, report, err);
	}
	pthread_mutex_lock(&played_lock);
	played.cancelled += status == PAL_ECANCELLED || report->made.stop == PAL_STOP_CANCELLED;
	s->busy = false;
	s->turns++;
	snprintf(report->session, sizeof report->session, "%s", job->session);
	report->length = s->length;
	pthread_mutex_unlock(&played_lock);
	return status;
}

#endif
