/* What the files of the service share (session/service.h): its table of sessions.
 *
 * Invariants:
 *  - `lock` guards the table and every field of a live session but those that are its user's: the
 *    thread that set `busy` has `s`, `drafter` and the record until it takes `busy` back.
 *  - `shown` is what others are told of a session; its user sets it, under the lock.
 */
#ifndef PAL_SESSION_LIVE_H
#define PAL_SESSION_LIVE_H

#include <pthread.h>

#include "session/session.h"
#include "session/store.h"

typedef struct {
	pal__record r;
	pal_session *s;       /* NULL: not loaded */
	pal_drafter *drafter; /* or NULL */
	bool busy, parked;    /* parked: loaded, but its memory is in a file */
	bool moving;          /* busy, since it is written out or looked at */
	bool doubtful;        /* what is in memory may not be what the store has */
	double used;          /* pal__now() */
	int64_t committed;    /* tokens that the store has */
	int64_t keep;         /* of them those that are still the log's, */
	uint64_t keep_events; /* and of the events */
	pal_session_stats shown;
	pal__memory_view view;
} pal__live;

/* A request that waits for room. */
typedef struct pal__waiter {
	struct pal__waiter *next;
} pal__waiter;

struct pal__service {
	pal_model *model;
	pal__service_options o;
	pal_drafter_options drafting;
	pal__batcher *batcher;
	pal__store *store;
	char *own_dir; /* of a store that is gone at the end, or NULL */
	pthread_t keeper;
	bool has_keeper, closing;
	pthread_cond_t closed;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* something was given back */
	pal__live **all;        /* [n] */
	size_t n, cap;
	size_t session_bytes; /* that a loaded one takes */
	uint64_t base_bytes;  /* what the process had before the first */
	uint64_t held;        /* session_bytes of those that are loaded and not parked */
	pal__waiter *queue;
	size_t most_parked; /* by the files that may be open */
	int n_running, n_waiting;
	bool draining;
	atomic_bool stop; /* requests that run end at the next token */
	pal__service_counts counts;
};

double pal__wall(void); /* seconds since 1970 */

/* With the lock held. */
pal__live *pal__service_find(pal__service *v, const char *id, uint64_t owner);
pal_status pal__service_add(pal__service *v, const pal__create *c, pal__live **out, pal_error *err);
void pal__service_remove(pal__service *v, pal__live *l);
void pal__service_show(pal__live *l); /* its user alone */

/* A session for its user: found, or an error, and busy from then on. */
pal_status pal__service_take(pal__service *v, const char *id, uint64_t owner, pal__live **out,
			     pal_error *err);
void pal__service_give(pal__service *v, pal__live *l);

/* A new one, in the store, too; busy: for the caller, else nobody has it. And one that is as l is,
 * which the caller has, busy. */
pal_status pal__service_new(pal__service *v, const pal__create *create, bool busy, pal__live **out,
			    pal_error *err);
pal_status pal__service_fork_live(pal__service *v, pal__live *l, const char *label, pal__live **out,
				  pal_error *err);

/* Opens the store and lists its sessions. */
pal_status pal__service_begin_store(pal__service *v, pal_error *err);

/* Room for one more session in memory (src/session/room.c): waits for it as long as it may. report:
 * queue_s, retry_after_s. And when it is not used after all. */
pal_status pal__service_room(pal__service *v, const pal__job *job, pal__report *report,
			     pal_error *err);
void pal__service_no_room(pal__service *v);

/* Whether sessions may take more of the disk. Errors: PAL_EOVERLOAD. */
pal_status pal__service_disk(pal__service *v, pal_error *err);

/* Writes out what has been idle for idle_s. */
void pal__service_tidy(pal__service *v);

/* Makes the session that the caller has resident, when there is room for it. report: queue_s,
 * load_s, retry_after_s. */
pal_status pal__service_load(pal__service *v, pal__live *l, const pal__job *job,
			     pal__report *report, pal_error *err);

/* Commits what the session has; the caller has it. */
pal_status pal__service_commit(pal__service *v, pal__live *l, pal_error *err);

/* As pal__session_change, committed; and as pal_session_truncate, for the next commit. */
pal_status pal__service_change(pal__service *v, pal__live *l, int64_t position, int64_t n_old,
			       const int32_t *ids, int64_t n_new, pal_error *err);
pal_status pal__service_truncate(pal__live *l, int64_t n, pal_error *err);

/* For a whole history: the session whose log it goes on, busy, or one that is made for it
 * (src/session/resend.c). And then what is between its log and the ids: from *from on they are to
 * be appended. report: reused, edits. */
pal_status pal__service_find_history(pal__service *v, const pal__job *job, pal__live **out,
				     pal_error *err);
pal_status pal__service_follow(pal__service *v, pal__live *l, const pal__job *job, size_t *from,
			       pal__report *report, pal_error *err);

#endif
