/* Options of a subcommand: one table that is parsed, checked and printed as help.
 *
 * Invariants:
 *  - What the help says and what is accepted come from the same table.
 *  - Numbers are taken whole ("12x" is refused) and within their range, and a message
 *    names the option, what was given and what is possible.
 *  - Nothing here prints or exits; texts point into argv and live as long as it does.
 */
#ifndef PAL_CLI_OPTIONS_H
#define PAL_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

#define PAL__MAX_OPTIONS 64 /* of one command */
#define PAL__MAX_TEXTS 64   /* times that a repeatable option may be given */

typedef enum {
	PAL__OPTION_FLAG,   /* out: bool */
	PAL__OPTION_INT,    /* out: int64_t, min to max */
	PAL__OPTION_INT32,  /* out: int32_t, min to max */
	PAL__OPTION_SEED,   /* out: uint64_t, any */
	PAL__OPTION_FLOAT,  /* out: float, min to max */
	PAL__OPTION_TEXT,   /* out: const char * */
	PAL__OPTION_CHOICE, /* out: const char *, one of choices */
	PAL__OPTION_TEXTS,  /* out: pal__texts, repeatable */
	PAL__OPTION_CONFIG, /* out: const char *, a file of options (config.h) */
} pal__option_kind;

typedef struct {
	const char *items[PAL__MAX_TEXTS];
	size_t n;
} pal__texts;

typedef struct {
	const char *name; /* long name without dashes, or NULL: only the letter */
	char letter;      /* or 0: only the long name */
	pal__option_kind kind;
	void *out;
	double min, max;     /* INT, INT32, FLOAT */
	const char *choices; /* CHOICE: "a|b|c" */
	const char *arg;     /* what the help calls the value */
	const char *help;    /* NULL ends a table */
} pal__option;

/* Entries of a table. */
#define PAL__FLAG(name, letter, out, help)                                  \
	{                                                                   \
		name, letter, PAL__OPTION_FLAG, out, 0, 0, NULL, NULL, help \
	}
#define PAL__INT(name, letter, out, min, max, help)                           \
	{                                                                     \
		name, letter, PAL__OPTION_INT, out, min, max, NULL, "N", help \
	}
#define PAL__INT32(name, letter, out, min, max, help)                           \
	{                                                                       \
		name, letter, PAL__OPTION_INT32, out, min, max, NULL, "N", help \
	}
#define PAL__SEED(name, letter, out, help)                                 \
	{                                                                  \
		name, letter, PAL__OPTION_SEED, out, 0, 0, NULL, "N", help \
	}
#define PAL__FLOAT(name, letter, out, min, max, help)                           \
	{                                                                       \
		name, letter, PAL__OPTION_FLOAT, out, min, max, NULL, "X", help \
	}
#define PAL__TEXT(name, letter, out, arg, help)                            \
	{                                                                  \
		name, letter, PAL__OPTION_TEXT, out, 0, 0, NULL, arg, help \
	}
#define PAL__TEXTS(name, letter, out, arg, help)                            \
	{                                                                   \
		name, letter, PAL__OPTION_TEXTS, out, 0, 0, NULL, arg, help \
	}
#define PAL__CONFIG(name, letter, out, help)                                    \
	{                                                                       \
		name, letter, PAL__OPTION_CONFIG, out, 0, 0, NULL, "FILE", help \
	}
#define PAL__CHOICE(name, letter, out, choices, help)                            \
	{                                                                        \
		name, letter, PAL__OPTION_CHOICE, out, 0, 0, choices, NULL, help \
	}
#define PAL__NO_MORE_OPTIONS \
	{                    \
		0            \
	}

/* Parses argv[1..argc): options into their outs, and exactly one operand, if operand is
 * not NULL, into *operand; what: its name in messages. Options may come after the
 * operand; "--" ends them. A file of options comes first, wherever it is named: what else is
 * given wins. Errors: PAL_EINVAL, PAL_ELIMIT, those of pal__config_read. */
pal_status pal__options_parse(int argc, char **argv, const pal__option *options,
			      const char **operand, const char *what, pal_error *err);

/* One option by its long name, without dashes; a flag's value is "true" or "false". value lives
 * as long as what it is for. */
pal_status pal__options_set(const pal__option *options, const char *name, const char *value,
			    pal_error *err);

/* The table as help text, an entry a line or more. */
void pal__options_print(FILE *to, const pal__option *options);

#endif
