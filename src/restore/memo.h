/* What the source `recompute` has read is kept for a while: a chunk that stays in sight from one
 * event to the next, or comes back soon, is not read again.
 *
 * What a run gives is a function of the tokens it read and of where in it the span lies, and of
 * nothing else (contract C2). So its tokens are its name: a record is used where all of them are
 * equal, whatever has happened to the log, and gives the bits that reading them again would.
 *
 * Invariants:
 *  - A record is the blocks of a run's K/V that a span lies in, as they were when it was read, in a
 *    file that has as many records as there are slots; in memory are only the tokens (contract C1).
 *  - What the last fill put into far rows and is wanted in the same ones is there already.
 *  - A record that cannot be written, cannot be read back or is not what was written is none: the
 *    chunk is read, which costs time and changes nothing.
 */
#ifndef PAL_RESTORE_MEMO_H
#define PAL_RESTORE_MEMO_H

#include "base/disk.h"
#include "restore/source.h"

typedef struct {
	int64_t length, at; /* tokens of the run, 0: there is no record; where its span begins */
	uint64_t used, sum;
	pal__span placed; /* where it is in the far rows; no positions: nowhere, or not for sure */
} pal__memo_record;

typedef struct {
	pal__disk disk;
	const char *dir;
	int n;               /* records */
	int64_t most;        /* tokens of a run */
	size_t record_bytes; /* at most: where the next record is */
	uint64_t clock, hits;
	int32_t *ids;  /* [n][most] */
	int32_t *name; /* [most] of the run that is asked for */
	pal__memo_record records[PAL_MAX_SLOTS];
} pal__memo;

/* n: slots. False: sizes overflow. dir: of pal__disk_open, lives as long. */
bool pal__memo_need(const pal__site *s, int n, size_t *bytes);
void pal__memo_init(pal__memo *x, const pal__site *s, int n, const pal__runs *r, pal__arena *arena,
		    const char *dir);
void pal__memo_close(pal__memo *x);

/* Whether what reading the span gives is kept: PAL__MEMO_HERE, it is in the span's far rows;
 * PAL__MEMO_RUN, it is in run 0, its first position at *at. */
typedef enum { PAL__MEMO_NONE, PAL__MEMO_HERE, PAL__MEMO_RUN } pal__memo_found;
pal__memo_found pal__memo_find(pal__memo *x, pal__runs *r, const pal__site *s,
			       const pal__span *span, int64_t *at);

/* Keeps what run i gave for a span, whose first position lies at `at` and which has been put into
 * its far rows, in the place of the record that was not used for the longest time. */
void pal__memo_keep(pal__memo *x, const pal__runs *r, int i, const pal__site *s,
		    const pal__span *span, int64_t at);

/* Far rows hold nothing but what was found or kept since the clock was `since`. */
void pal__memo_displace(pal__memo *x, uint64_t since);

/* Nothing is kept any more. */
void pal__memo_forget(pal__memo *x);

#endif
