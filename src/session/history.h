/* Histories: how what a client sends again goes on from a log that is there.
 *
 * Clients without state send everything at each turn, with small changes near the front (a clock, a
 * counter) and sometimes another end (an answer that is asked for again). Both are token lists;
 * what they have in common is found from the front on, over changes of up to PAL__EDIT_TOKENS
 * tokens, and behind each the next PAL__EDIT_SURE must be equal.
 */
#ifndef PAL_SESSION_HISTORY_H
#define PAL_SESSION_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#define PAL__EDIT_TOKENS 512
#define PAL__EDIT_SURE 16
#define PAL__MAX_EDITS 16

/* log[at, at + n_old) is ids[new_at, new_at + n_new). */
typedef struct {
	int64_t at, n_old, new_at, n_new;
} pal__edit;

typedef struct {
	int n_edits;
	pal__edit edits[PAL__MAX_EDITS]; /* ascending */
	int64_t log_end, ids_end;        /* up to there the one becomes the other by the edits */
	int64_t equal;                   /* tokens of both that are the same */
} pal__history;

/* log: [n_log], ids: [n_ids]. */
void pal__history_match(const int32_t *log, int64_t n_log, const int32_t *ids, int64_t n_ids,
			pal__history *out);

#endif
