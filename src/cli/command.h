/* The subcommands of pal. Each is one file that defines one pal__command; main.c finds
 * it by name, parses its options, and runs it.
 *
 * Parameters are static variables with their defaults, filled through the table of
 * options: a process runs one command, once.
 */
#ifndef PAL_CLI_COMMAND_H
#define PAL_CLI_COMMAND_H

#include "cli/options.h"

typedef struct {
	const char *name, *summary; /* summary: one line without a full stop */
	const char *about;          /* paragraphs for `pal help NAME` */
	const pal__option *options;
	/* What the operand is called, and is; NULL: MODEL, the model file; "": there is none. */
	const char *operand;
	const char *operand_is;
	/* model: the operand, or NULL. PAL_OK: exit code 0; otherwise err is printed: 1. */
	pal_status (*run)(const char *model, pal_error *err);
} pal__command;

extern const pal__command pal__command_run, pal__command_chat, pal__command_tokenize,
	pal__command_logits, pal__command_inspect, pal__command_bench, pal__command_fit,
	pal__command_recall, pal__command_map, pal__command_check, pal__command_corpus,
	pal__command_serve, pal__command_top;

#endif
