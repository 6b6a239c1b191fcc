/* All readings of a text in a form at once.
 *
 * A place says where the text so far may be: for the rule that is open a set of states, and for
 * each rule around it the set of calls that wait for its end. Sets are found as they are needed,
 * numbered, and remembered with what each byte makes of them; the tables have a fixed size. When
 * one is full (PAL__FULL), pal__readings_forget keeps one place and nothing else, and the numbers
 * are new.
 *
 * Invariant: every set leads to the end of the text. States that do not, or that would need more
 * than PAL__FORM_DEPTH open rules, are in none.
 */
#ifndef PAL_TEXT_READINGS_H
#define PAL_TEXT_READINGS_H

#include "text/form.h"

#define PAL__READINGS_SETS 8192
#define PAL__READINGS_TEXT                                                      \
	128 /* bytes that can always be read before the tables are full, from a \
	     * place that was kept */

enum { PAL__DEAD = 0, PAL__UNKNOWN = -1, PAL__FULL = -2, PAL__PUSH = 1 << 30 };

/* Of a set */
enum {
	PAL__SET_ENDS = 1,    /* the open rule has ended: pop */
	PAL__SET_WHOLE = 2,   /* the text may end here */
	PAL__SET_GOES_ON = 4, /* bytes may come */
	PAL__SET_ANY = 8,     /* special tokens may come */
};

/* A state, and what is still to be counted: at least, at most. */
typedef uint64_t pal__reading;

typedef struct {
	uint32_t at, n; /* of the items */
	int32_t capped; /* see pal__readings_capped */
	int32_t frame[3];
	uint32_t user; /* the caller's; 0 at first */
	uint8_t depth, flags;
} pal__set;

typedef struct {
	int32_t n, frames[PAL__FORM_DEPTH];
} pal__stack;

typedef struct {
	int32_t at;
	pal__stack around;
} pal__place;

typedef struct {
	pal__form form; /* owned */
	size_t n_live;  /* states that can be in a set */
	uint8_t class_of[256];
	size_t n_classes; /* of bytes that no state tells apart */
	pal__reading *items, *saved, *fresh;
	size_t n_items, cap_items, n_fresh;
	pal__set *sets; /* [n_sets] */
	int32_t n_sets, *next, *table;
	struct {
		int32_t ended, calls, to;
	} popped[256];
	uint32_t *seen, round;    /* [form.n] */
	uint32_t *ended, n_ended; /* [form.n_rules] */
	pal__reading *todo;
} pal__readings;

/* form becomes theirs, also when there is an error: PAL_ENOMEM. pal__readings_forget comes first.
 */
pal_status pal__readings_init(pal__readings *r, pal__form *form, pal_error *err);
void pal__readings_free(pal__readings *r);

/* Keeps *p and nothing else; NULL: nothing. */
void pal__readings_forget(pal__readings *r, pal__place *p);

/* The place before the text; its set may be PAL__FULL. */
pal__place pal__readings_start(pal__readings *r);

/* What byte makes of a set: another one, PAL__DEAD or PAL__FULL. With PAL__PUSH: the byte opens
 * rules, the set is in them, and pal__readings_frame is what waits around. */
int32_t pal__readings_find(pal__readings *r, int32_t at, uint8_t byte);
static inline int32_t pal__readings_next(pal__readings *r, int32_t at, uint8_t byte)
{
	int32_t to = r->next[(size_t)at * r->n_classes + r->class_of[byte]];
	return to == PAL__UNKNOWN ? pal__readings_find(r, at, byte) : to;
}
int32_t pal__readings_frame(const pal__readings *r, int32_t at, uint8_t byte);

/* Where those of the calls go on whose rules are at their end; or PAL__FULL. */
int32_t pal__readings_pop(pal__readings *r, int32_t ended, int32_t calls);

/* Reads a byte. 1, PAL__DEAD or PAL__FULL, when *p is as it was. */
int pal__readings_move(pal__readings *r, pal__place *p, uint8_t byte);

/* The same set with counts that PAL__READINGS_TEXT bytes can tell apart and no others; or
 * PAL__FULL. */
int32_t pal__readings_capped(pal__readings *r, int32_t at);

#endif
