/* Forms: sets of texts, as automata over bytes that call each other.
 *
 * A form is a graph of states. Rule 0 is the whole text; every other rule is what comes behind an
 * opening byte (a quote or a bracket), its closing byte included. Where a rule is called, every
 * other way on with that byte is a call, too: so what is open at any place is plain from the bytes
 * before it, and the states of all readings of a text can be kept as one set for each open rule.
 *
 * A form is built backwards: a function is given the state that follows and returns the first one
 * of what it made. -1 is the state that nothing follows, and what leads there only is -1 itself.
 * After a failure (status) everything returns -1; pal__form_finish tells.
 */
#ifndef PAL_TEXT_FORM_H
#define PAL_TEXT_FORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define PAL__FORM_STATES (1 << 15)
#define PAL__FORM_RULES (1 << 13)
#define PAL__FORM_DEPTH 64                       /* rules open at once */
#define PAL__FORM_NEVER 255                      /* need: no text can end from here */
#define PAL__FORM_MANY ((uint32_t)(1 << 22) - 1) /* max: no limit; what is counted is below it */

typedef enum {
	PAL__FORM_SPLIT, /* to, or other */
	PAL__FORM_BYTES, /* one of lo to hi */
	PAL__FORM_CALL,  /* rule `other` with its opening byte, then on at `to` */
	PAL__FORM_COUNT, /* one more; none beyond the rule's max */
	PAL__FORM_CHECK, /* at least the rule's min were counted */
	PAL__FORM_ANY,   /* a mark: special tokens may come */
	PAL__FORM_END,   /* of rule `other` */
} pal__form_kind;

typedef struct {
	uint8_t kind, lo, hi;
	uint8_t need; /* rules that must be open at once, at least, until this rule ends */
	int32_t to, other;
} pal__form_state;

typedef struct {
	uint8_t open;      /* its opening byte */
	uint32_t min, max; /* of what COUNT counts */
	int32_t start;     /* behind the opening byte; -1 until it is set */
} pal__form_rule;

typedef struct {
	pal__form_state *states; /* [n] */
	size_t n, cap;
	pal__form_rule *rules; /* [n_rules] */
	size_t n_rules, cap_rules;
	pal_status status; /* PAL_ENOMEM or PAL_ELIMIT once something failed */
} pal__form;

/* Zeros are a form without any rule: the first that is made is the text. */
void pal__form_free(pal__form *f);

int32_t pal__form_rule_new(pal__form *f, uint8_t open, uint32_t min, uint32_t max);
int32_t pal__form_bytes(pal__form *f, uint8_t lo, uint8_t hi, int32_t to);
int32_t pal__form_split(pal__form *f, int32_t to, int32_t other);
int32_t pal__form_call(pal__form *f, int32_t rule, int32_t to);
int32_t pal__form_mark(pal__form *f, pal__form_kind kind, int32_t to); /* COUNT, CHECK, ANY */
int32_t pal__form_end(pal__form *f, int32_t rule);
int32_t pal__form_literal(pal__form *f, const char *s, size_t n, int32_t to);

/* A state that leads nowhere until it is set to a split: for what goes round. */
int32_t pal__form_hole(pal__form *f);
void pal__form_fill(pal__form *f, int32_t hole, int32_t to, int32_t other);

/* The characters lo to hi of a JSON string, written in the one way that is shortest (\n and \u001f
 * are escaped, / and what is not ASCII is not). NUL, which parsers refuse, is left out. */
int32_t pal__form_chars(pal__form *f, uint32_t lo, uint32_t hi, int32_t to);

/* s[n], UTF-8, as the rest of a JSON string, in that way. */
int32_t pal__form_text(pal__form *f, const char *s, size_t n, int32_t to);

/* Works out `need`. Errors: status; PAL_EINVAL: there is no text of the form (with at most
 * PAL__FORM_DEPTH rules open). */
pal_status pal__form_finish(pal__form *f, const char *what, pal_error *err);

#endif
