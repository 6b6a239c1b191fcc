/* The service: a process's sessions, many at once, durable, under one ceiling of memory.
 *
 * Whoever has a request (HTTP, gRPC) brings the thread that runs it and blocks in
 * pal__service_run; forward passes of requests that run at the same time are joined in one
 * (model/batcher.h). What a request appends, and every 32 tokens that it generates, are committed
 * to the store (session/store.h) before it goes on.
 *
 * Invariants:
 *  - A session is used by one request at a time; a second one is refused with PAL_EBUSY.
 *  - What was reported as committed is there after a crash, and goes on with the same bits.
 *  - A request is admitted when the most that it can need fits below memory_limit; idle sessions
 *    are written out to make room. What does not fit now waits, and what has waited too long, or
 *    finds the queue full, is refused with PAL_EOVERLOAD and a time to try again.
 *  - A session belongs to the owner that created it. To all others it does not exist.
 */
#ifndef PAL_SESSION_SERVICE_H
#define PAL_SESSION_SERVICE_H

#include <stdatomic.h>
#include <stdio.h>

#include "base/status.h"

#define PAL__ID_BYTES 38   /* "sess-", 32 hex digits, NUL */
#define PAL__MAX_LABEL 127 /* bytes of a session's label, UTF-8 */
#define PAL__MAX_EOS 16    /* end-of-sequence tokens of a session's own */
#define PAL__COMMIT_EVERY 32
#define PAL__SHOWN_EVENTS 64

typedef struct pal__service pal__service;

/* Zeros are the defaults. */
typedef struct {
	pal_session_options session; /* of every session; n_batch: of a piece of prompt, 0: 128 */
	const char *draft;           /* as in pal_drafter_options, or NULL: none */
	const char *cache_dir;       /* for drafters, or NULL */
	const char *data_dir;        /* folder of the store; NULL: one that is gone at the end */
	uint64_t memory_limit;       /* bytes of the whole process; 0: none */
	uint64_t disk_limit;         /* bytes in data_dir and files of sessions; 0: none */
	int64_t max_sessions;        /* that are kept; 0: 10,000. Beyond, resent histories go */
	int64_t max_tokens;          /* of a session's log; 0: what the session's options allow */
	int max_queue;               /* requests that wait; 0: 1024 */
	double max_wait_s;           /* that one waits for room; 0: 60 */
	double idle_s;               /* idle for so long: written out; 0: 300 */
	double ttl_s;                /* idle for so long: deleted; 0: never */
	bool sync;                   /* commits survive the loss of power, too */
} pal__service_options;

/* Errors: those of the store and of session options. The model outlives the service. */
pal_status pal__service_open(pal_model *model, const pal__service_options *options,
			     pal__service **out, pal_error *err);

/* No new requests (PAL_EOVERLOAD); waits at most wait_s for those that run, then cancels them:
 * what they have is committed. */
void pal__service_drain(pal__service *v, double wait_s);
void pal__service_close(pal__service *v); /* drains first; NULL is fine */

pal_model *pal__service_model(const pal__service *v);

/* --- sessions ----------------------------------------------------------- */

typedef struct {
	const char *label; /* or NULL */
	uint64_t owner;
	int32_t eos[PAL__MAX_EOS];
	int n_eos;      /* -1: the model's own */
	bool stateless; /* made for a history that a client resends */
} pal__create;

/* id: [PAL__ID_BYTES]. Errors: PAL_EINVAL (label, eos), PAL_EOVERLOAD (max_sessions). */
pal_status pal__service_create(pal__service *v, const pal__create *create, char *id,
			       pal_error *err);

typedef struct {
	char id[PAL__ID_BYTES];
	char label[PAL__MAX_LABEL + 1];
	bool stateless, loaded, busy; /* loaded: its K/V are in memory */
	bool interrupted;             /* a generation was cut off by a crash: `resume` goes on */
	int64_t remaining;            /* tokens that it was still to make */
	int64_t committed;            /* tokens of the log that are in the store */
	int64_t turns;                /* requests that appended or generated */
	double created, used;         /* seconds since 1970 */
	pal_session_stats stats;      /* of what is in memory; else length alone */
	int64_t sink, window, budget_positions; /* budget_positions: resident at most */
} pal__session_info;

/* Errors of these: PAL_ENOTFOUND, PAL_EBUSY (delete, fork and export of one in use), PAL_EIO. */
pal_status pal__service_info(pal__service *v, const char *id, uint64_t owner,
			     pal__session_info *out, pal_error *err);
pal_status pal__service_delete(pal__service *v, const char *id, uint64_t owner, int64_t *length,
			       pal_error *err);
pal_status pal__service_fork(pal__service *v, const char *id, uint64_t owner, const char *label,
			     char *new_id, pal_error *err);

/* The ids of a session's log, [*n], freed with pal_free. */
pal_status pal__service_log(pal__service *v, const char *id, uint64_t owner, int32_t **ids,
			    size_t *n, pal_error *err);

/* One file with all of a session (docs/formats/session.md), freed with pal_free; and back, under a
 * new id. Errors: PAL_EFORMAT, PAL_EINVAL (of another model). */
pal_status pal__service_export(pal__service *v, const char *id, uint64_t owner, void **bytes,
			       size_t *n, pal_error *err);
pal_status pal__service_import(pal__service *v, const void *bytes, size_t n, uint64_t owner,
			       char *id, pal_error *err);

/* The owner's sessions in order of last use, latest first, from number `from` on: at most `most`,
 * *n of them; *total: how many there are. */
pal_status pal__service_list(pal__service *v, uint64_t owner, size_t from, pal__session_info *out,
			     size_t most, size_t *n, size_t *total, pal_error *err);

/* What is in sight of a session's end now, and the last events, latest first. */
typedef struct {
	int64_t length;
	int64_t sink, window_from; /* [0, sink) and [window_from, length) are resident */
	int n_chunks;              /* restored now */
	int32_t chunks[PAL_MAX_SLOTS];
	uint8_t sources[PAL_MAX_SLOTS];
	int n_events;
	pal_event events[PAL__SHOWN_EVENTS];
} pal__memory_view;
pal_status pal__service_memory(pal__service *v, const char *id, uint64_t owner,
			       pal__memory_view *out, pal_error *err);

/* --- requests ------------------------------------------------------------- */

/* What happened: for every reply. */
typedef struct {
	char session[PAL__ID_BYTES];
	int64_t prompt_tokens;  /* ids that came with the request */
	int64_t reused, reread; /* positions of them that were there; that were computed */
	int64_t edits;          /* places where the history had changed behind what is reused */
	int64_t length, resident, evicted, restored, committed;        /* afterwards, positions */
	uint64_t filled[PAL_N_SOURCES], kept_reads, fallbacks, events; /* of this request */
	pal_generate_result made;
	uint64_t kv_bytes, scratch_bytes, disk_bytes;
	double queue_s, load_s, prefill_s, generate_s, restore_s, commit_s;
	double retry_after_s; /* with PAL_EOVERLOAD */
	char note[256];       /* why there were fallbacks, or "" */
} pal__report;

typedef struct {
	const char *session; /* its id; NULL: ids are a whole history, of the session whose log it
			      * goes on, or of a new one */
	uint64_t owner;
	const int32_t *ids; /* [n_ids]: appended; of a history: the whole */
	size_t n_ids;
	/* NULL: nothing is generated. Its drafter is the service's, whatever it says. Callbacks
	 * run on the calling thread. With `resume` (and no ids): goes on with what a crash cut
	 * off, with the sampling and max_tokens that it had. */
	const pal_generate_options *generate;
	bool own_eos; /* ends at the session's eos ids, not at the model's */
	bool no_draft;
	atomic_bool *cancel; /* or NULL: looked at before each pass */
	/* Once what is appended has been computed and committed, before the first token. */
	void (*on_start)(void *user, const pal__report *report);
	void *user;
} pal__job;

/* Appends, then generates; blocks until all is done. report is filled on failure, too, as far as
 * it goes; what was committed stays. An append that fails leaves the log as it was.
 * Errors: PAL_ENOTFOUND, PAL_EBUSY, PAL_EOVERLOAD, PAL_EINVAL (ids, sampling, nothing to go on
 * from), PAL_ELIMIT (max_tokens, naming it), PAL_ECANCELLED, PAL_EIO and PAL_EFORMAT (a damaged
 * session, which is set aside). */
pal_status pal__service_run(pal__service *v, const pal__job *job, pal__report *report,
			    pal_error *err);

/* --- what clients store ------------------------------------------------------- */

/* Bytes under a name (at most 63 bytes), for replies that can be asked for again. data of get is
 * freed with pal_free. Errors: PAL_ENOTFOUND, PAL_ELIMIT (16 MiB), PAL_EIO. */
pal_status pal__service_put(pal__service *v, const char *name, uint64_t owner, const void *data,
			    size_t n, pal_error *err);
pal_status pal__service_get(pal__service *v, const char *name, uint64_t owner, void **data,
			    size_t *n, pal_error *err);
pal_status pal__service_forget(pal__service *v, const char *name, uint64_t owner, pal_error *err);

/* --- counts -------------------------------------------------------------------- */

typedef struct {
	uint64_t sessions, loaded, running, waiting;   /* now */
	uint64_t requests, refused, cancelled, failed; /* so far, as all below */
	uint64_t prompt_tokens, reused_tokens, generated_tokens, drafted, accepted;
	uint64_t forwards, rows; /* passes; positions in them */
	uint64_t events, filled[PAL_N_SOURCES], fallbacks;
	uint64_t commits, parked, unparked, replayed, quarantined, expired;
	uint64_t memory_bytes, memory_limit, rss_bytes, peak_rss_bytes, disk_bytes; /* now */
	double forward_s, commit_s;
} pal__service_counts;

void pal__service_get_counts(pal__service *v, pal__service_counts *out);

#endif
