/* pal: the command line program. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/output.h"

static const pal__command *const commands[] = {
	&pal__command_run,     &pal__command_chat,   &pal__command_tokenize, &pal__command_logits,
	&pal__command_inspect, &pal__command_bench,
#ifdef PAL_WITH_FIT
	&pal__command_fit,
#endif
#ifdef PAL_WITH_SERVE
	&pal__command_serve,   &pal__command_top,
#endif
	&pal__command_corpus,  &pal__command_recall, &pal__command_map,      &pal__command_check,
};

#define N_COMMANDS (sizeof commands / sizeof *commands)

static const pal__command *find(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	return NULL;
}

static int usage_error(const char *text, const char *command)
{
	fprintf(stderr, "pal: %s (see 'pal help%s%s')\n", text, command ? " " : "",
		command ? command : "");
	return 1;
}

static int unknown_command(const char *name)
{
	char text[256];
	snprintf(text, sizeof text, "unknown command '%s'", name);
	return usage_error(text, NULL);
}

static void print_overview(FILE *to)
{
	fputs("pal runs language models (GGUF files) on this machine.\n\n"
	      "usage: pal COMMAND MODEL [OPTION]...\n\ncommands:\n",
	      to);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(to, "  %-10s%s\n", commands[i]->name, commands[i]->summary);
	fputs("  help      explain a command: pal help COMMAND\n\n"
	      "pal --version prints the version. The manual page pal(1) has everything.\n",
	      to);
}

static void print_help(FILE *to, const pal__command *c)
{
	const char *operand = c->operand ? c->operand : "MODEL";
	fprintf(to, "usage: pal %s%s%s [OPTION]...\n\n%s\noptions:\n", c->name, *operand ? " " : "",
		operand, c->about);
	pal__options_print(to, c->options);
}

static int help(int argc, char **argv)
{
	const pal__command *c = argc > 2 ? find(argv[2]) : NULL;
	if (argc > 2 && !c)
		return unknown_command(argv[2]);
	if (c)
		print_help(stdout, c);
	else
		print_overview(stdout);
	return 0;
}

static int run(const pal__command *c, int argc, char **argv)
{
	const char *model = NULL;
	bool alone = c->operand && !*c->operand;
	pal_error err;
	for (int i = 2; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			print_help(stdout, c);
			return 0;
		}
	}
	if (pal__options_parse(argc - 1, argv + 1, c->options, alone ? NULL : &model,
			       c->operand ? c->operand_is : "the model file", &err))
		return usage_error(err.text, c->name);
	if (c->run(model, &err)) {
		fprintf(stderr, "pal: %s\n", err.text);
		return 1;
	}
	return 0;
}

static int dispatch(int argc, char **argv)
{
	if (argc < 2) {
		print_overview(stderr);
		return 1;
	}
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return help(argc, argv);
	if (!strcmp(argv[1], "--version")) {
		puts("pal " PAL_VERSION);
		return 0;
	}
	const pal__command *c = find(argv[1]);
	return c ? run(c, argc, argv) : unknown_command(argv[1]);
}

int main(int argc, char **argv)
{
	/* A limit on files is a write that fails, with a message, and not the end. */
	signal(SIGXFSZ, SIG_IGN);
	int code = dispatch(argc, argv);
	pal_error err;
	if (pal__out_flush(&err)) {
		/* Whoever closed the pipe has read enough and wants no message. */
		if (!pal__out_closed())
			fprintf(stderr, "pal: %s\n", err.text);
		return 1;
	}
	return code;
}
