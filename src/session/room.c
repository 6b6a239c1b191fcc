/* Room: what sessions take of memory_limit, who waits for it, and who is written out.
 *
 * Invariants:
 *  - `held` is what loaded sessions may come to take, and with base_bytes never more than
 *    memory_limit.
 *  - Requests get room in the order in which they came.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "session/live.h"

#define LOOK_S 0.05 /* how often one that waits looks whether its client is there */

static bool fits(const pal__service *v)
{
	return !v->o.memory_limit ||
	       v->base_bytes + v->held + v->session_bytes <= v->o.memory_limit;
}

static struct timespec at_time(double t)
{
	return (struct timespec){.tv_sec = (time_t)t,
				 .tv_nsec = (long)((t - (double)(time_t)t) * 1e9)};
}

/* The idle session that was used longest ago, in memory. */
static pal__live *longest_idle(const pal__service *v)
{
	pal__live *best = NULL;
	for (size_t i = 0; i < v->n; i++) {
		pal__live *l = v->all[i];
		if (l->s && !l->parked && !l->busy && (!best || l->used < best->used))
			best = l;
	}
	return best;
}

static size_t n_parked(const pal__service *v)
{
	size_t n = 0;
	for (size_t i = 0; i < v->n; i++)
		n += v->all[i]->parked;
	return n;
}

/* Written out where there are descriptors for it, else closed: the store has it. With the lock,
 * which is given up meanwhile. */
static void write_out(pal__service *v, pal__live *l)
{
	bool park = n_parked(v) < v->most_parked && !l->doubtful;
	l->busy = l->moving = true;
	pthread_mutex_unlock(&v->lock);
	pal_drafter_close(l->drafter);
	bool parked = park && pal__session_park(l->s, NULL) == PAL_OK;
	if (!parked)
		pal_session_close(l->s);
	pthread_mutex_lock(&v->lock);
	l->drafter = NULL;
	l->parked = parked;
	l->s = parked ? l->s : NULL;
	l->doubtful = false;
	l->busy = l->moving = false;
	v->held -= v->session_bytes;
	v->counts.parked += parked;
	pthread_cond_broadcast(&v->changed);
}

void pal__service_tidy(pal__service *v)
{
	double now = pal__now();
	pthread_mutex_lock(&v->lock);
	for (pal__live *l; (l = longest_idle(v)) && now - l->used > v->o.idle_s;)
		write_out(v, l);
	pthread_mutex_unlock(&v->lock);
}

static void leave_queue(pal__service *v, pal__waiter *w)
{
	pal__waiter **at = &v->queue;
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	v->n_waiting--;
	pthread_cond_broadcast(&v->changed);
}

static pal_status too_late(const pal__service *v, double waited, pal__report *report,
			   pal_error *err)
{
	report->retry_after_s = 1 + 2 * (double)v->n_waiting / (v->n_running + 1);
	return pal__fail(err, PAL_EOVERLOAD,
			 "no room after %.1f s: %llu sessions of %zu bytes take what memory_limit "
			 "(%llu) leaves",
			 waited, (unsigned long long)(v->held / v->session_bytes), v->session_bytes,
			 (unsigned long long)v->o.memory_limit);
}

/* With the lock. */
static pal_status wait_turn(pal__service *v, pal__waiter *w, const pal__job *job,
			    pal__report *report, pal_error *err)
{
	double start = pal__now();
	while (v->queue != w || !fits(v)) {
		pal__live *idle = v->queue == w ? longest_idle(v) : NULL;
		double waited = pal__now() - start;
		if (idle) {
			write_out(v, idle);
			continue;
		}
		if (v->draining)
			return pal__fail(err, PAL_EOVERLOAD, "the server is going down");
		if (job->cancel && atomic_load(job->cancel))
			return pal__fail(err, PAL_ECANCELLED, "cancelled");
		if (waited >= v->o.max_wait_s)
			return too_late(v, waited, report, err);
		struct timespec t = at_time(pal__now() + LOOK_S);
		pthread_cond_timedwait(&v->changed, &v->lock, &t);
	}
	return PAL_OK;
}

pal_status pal__service_room(pal__service *v, const pal__job *job, pal__report *report,
			     pal_error *err)
{
	pal__waiter w = {0};
	double start = pal__now();
	pthread_mutex_lock(&v->lock);
	pal_status s = PAL_OK;
	if (v->n_waiting >= v->o.max_queue) {
		report->retry_after_s = 1 + 2 * (double)v->n_waiting / (v->n_running + 1);
		s = pal__fail(err, PAL_EOVERLOAD, "%d requests wait, as many as may (max_queue)",
			      v->n_waiting);
	} else {
		pal__waiter **at = &v->queue;
		while (*at)
			at = &(*at)->next;
		*at = &w;
		v->n_waiting++;
		s = wait_turn(v, &w, job, report, err);
		leave_queue(v, &w);
	}
	if (!s)
		v->held += v->session_bytes;
	pthread_mutex_unlock(&v->lock);
	report->queue_s += pal__now() - start;
	return s;
}

void pal__service_no_room(pal__service *v)
{
	pthread_mutex_lock(&v->lock);
	v->held -= v->session_bytes;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
}
