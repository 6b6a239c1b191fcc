/* Lines from a person at a terminal, with editing and history, or from a pipe without.
 *
 * Invariants:
 *  - Interactive means that both standard input and output are terminals. Only then are
 *    there a prompt, editing, a history file, and a handler for Ctrl-C.
 *  - While one is open and interactive, SIGINT ends a pal__terminal_read() and sets the
 *    flag that pal__interrupted() takes; it never ends the process.
 *  - The history is $XDG_STATE_HOME/palimpsest/history, or the same under ~/.local/state;
 *    that it cannot be read or written is no error.
 */
#ifndef PAL_CLI_TERMINAL_H
#define PAL_CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct pal__terminal pal__terminal;

typedef enum {
	PAL__LINE,         /* a line */
	PAL__LINE_END,     /* the end of the input */
	PAL__LINE_EMPTIED, /* Ctrl-C while something was typed */
	PAL__LINE_CTRL_C,  /* Ctrl-C at an empty prompt */
} pal__line_kind;

/* One at a time. Errors: PAL_ENOMEM, PAL_EIO. */
pal_status pal__terminal_open(pal__terminal **out, pal_error *err);
void pal__terminal_close(pal__terminal *t); /* NULL is fine */
bool pal__terminal_interactive(const pal__terminal *t);

/* The next input: a line, or several joined by newlines where they end in a backslash.
 * *text: NUL-terminated, *n bytes, without the last newline; valid until the next call.
 * Errors: PAL_ENOMEM, PAL_EIO, PAL_ELIMIT (beyond PAL__MAX_INPUT bytes). */
pal_status pal__terminal_read(pal__terminal *t, pal__line_kind *kind, const char **text, size_t *n,
			      pal_error *err);

/* Whether Ctrl-C was pressed since the last call with clear. */
bool pal__interrupted(bool clear);

#endif
