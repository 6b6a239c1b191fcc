#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cli/config.h"

#define FIRST_LONG 256 /* getopt's value for table entry 0; letters are below */

struct getopt_table {
	struct option longs[PAL__MAX_OPTIONS + 1];
	char letters[2 * PAL__MAX_OPTIONS + 2];
};

static void fill_table(const pal__option *options, struct getopt_table *t)
{
	size_t n_longs = 0, at = 0;
	*t = (struct getopt_table){0};
	t->letters[at++] = ':'; /* a missing value is told from an unknown option */
	for (int i = 0; options[i].help && i < PAL__MAX_OPTIONS; i++) {
		bool value = options[i].kind != PAL__OPTION_FLAG;
		if (options[i].name)
			t->longs[n_longs++] =
				(struct option){.name = options[i].name,
						.has_arg = value ? required_argument : no_argument,
						.val = FIRST_LONG + i};
		if (options[i].letter) {
			t->letters[at++] = options[i].letter;
			if (value)
				t->letters[at++] = ':';
		}
	}
}

/* "--temp", or "-p" if it has no long name. */
static const char *shown(const pal__option *o, char buffer[64])
{
	if (o->name)
		snprintf(buffer, 64, "--%s", o->name);
	else
		snprintf(buffer, 64, "-%c", o->letter);
	return buffer;
}

static pal_status set_int(const pal__option *o, const char *value, pal_error *err)
{
	char name[64], *end;
	errno = 0;
	long long v = strtoll(value, &end, 10);
	if (end == value || *end || errno || (double)v < o->min || (double)v > o->max)
		return pal__fail(err, PAL_EINVAL, "%s %s: must be a whole number from %.0f to %.0f",
				 shown(o, name), value, o->min, o->max);
	if (o->kind == PAL__OPTION_INT32)
		*(int32_t *)o->out = (int32_t)v;
	else
		*(int64_t *)o->out = v;
	return PAL_OK;
}

static pal_status set_seed(const pal__option *o, const char *value, pal_error *err)
{
	char name[64], *end;
	errno = 0;
	unsigned long long v = strtoull(value, &end, 10);
	if (end == value || *end || errno || strchr(value, '-'))
		return pal__fail(err, PAL_EINVAL, "%s %s: must be a whole number from 0 to %llu",
				 shown(o, name), value, (unsigned long long)UINT64_MAX);
	*(uint64_t *)o->out = v;
	return PAL_OK;
}

static pal_status set_float(const pal__option *o, const char *value, pal_error *err)
{
	char name[64], *end;
	double v = strtod(value, &end);
	if (end == value || *end || !(v >= o->min && v <= o->max))
		return pal__fail(err, PAL_EINVAL, "%s %s: must be a number from %g to %g",
				 shown(o, name), value, o->min, o->max);
	*(float *)o->out = (float)v;
	return PAL_OK;
}

static pal_status set_choice(const pal__option *o, const char *value, pal_error *err)
{
	char name[64];
	size_t n = strlen(value);
	for (const char *at = o->choices; n && at; at = strchr(at, '|')) {
		at += *at == '|';
		if (!strncmp(at, value, n) && (at[n] == '|' || !at[n])) {
			*(const char **)o->out = value;
			return PAL_OK;
		}
	}
	return pal__fail(err, PAL_EINVAL, "%s %s: must be one of %s", shown(o, name), value,
			 o->choices);
}

static pal_status set_texts(const pal__option *o, const char *value, pal_error *err)
{
	char name[64];
	pal__texts *texts = o->out;
	if (texts->n == PAL__MAX_TEXTS)
		return pal__fail(err, PAL_ELIMIT, "%s: can be given at most %d times",
				 shown(o, name), PAL__MAX_TEXTS);
	texts->items[texts->n++] = value;
	return PAL_OK;
}

static pal_status set(const pal__option *o, const char *value, pal_error *err)
{
	switch (o->kind) {
	case PAL__OPTION_FLAG:
		*(bool *)o->out = true;
		return PAL_OK;
	case PAL__OPTION_INT:
	case PAL__OPTION_INT32:
		return set_int(o, value, err);
	case PAL__OPTION_SEED:
		return set_seed(o, value, err);
	case PAL__OPTION_FLOAT:
		return set_float(o, value, err);
	case PAL__OPTION_CONFIG:
	case PAL__OPTION_TEXT:
		*(const char **)o->out = value;
		return PAL_OK;
	case PAL__OPTION_CHOICE:
		return set_choice(o, value, err);
	case PAL__OPTION_TEXTS:
		return set_texts(o, value, err);
	}
	return PAL_OK;
}

static const pal__option *find(const pal__option *options, int c)
{
	if (c >= FIRST_LONG)
		return &options[c - FIRST_LONG];
	for (; options->help; options++)
		if (options->letter == c)
			return options;
	return NULL;
}

static pal_status refuse(char **argv, int c, pal_error *err)
{
	/* A letter may stand anywhere in its argument; a long one is the argument before. */
	char letter[3] = {'-', (char)optopt, 0};
	bool is_letter = optopt > 0 && optopt < FIRST_LONG;
	const char *given = is_letter ? letter : argv[optind - 1];
	if (c == ':')
		return pal__fail(err, PAL_EINVAL, "option %s needs a value", given);
	if (optopt >= FIRST_LONG)
		return pal__fail(err, PAL_EINVAL, "option %s takes no value", given);
	return pal__fail(err, PAL_EINVAL, "unknown or ambiguous option %s", given);
}

pal_status pal__options_set(const pal__option *options, const char *name, const char *value,
			    pal_error *err)
{
	for (const pal__option *o = options; o->help; o++) {
		if (!o->name || strcmp(o->name, name) != 0 || o->kind == PAL__OPTION_CONFIG)
			continue;
		if (o->kind != PAL__OPTION_FLAG)
			return set(o, value, err);
		bool yes = !strcmp(value, "true");
		if (!yes && strcmp(value, "false") != 0)
			return pal__fail(err, PAL_EINVAL, "--%s %s: must be true or false", name,
					 value);
		*(bool *)o->out = yes;
		return PAL_OK;
	}
	return pal__fail(err, PAL_EINVAL, "unknown option %s", name);
}

/* The files of options among argv, in their order. */
static pal_status read_configs(int argc, char **argv, const pal__option *options,
			       const struct getopt_table *t, pal_error *err)
{
	char letters[sizeof t->letters + 1];
	pal_status s = PAL_OK;
	snprintf(letters, sizeof letters, "-%s", t->letters); /* in order: argv stays as it is */
	optind = 0;
	for (int c; !s && (c = getopt_long(argc, argv, letters, t->longs, NULL)) != -1;) {
		const pal__option *o = c == '?' || c == ':' ? NULL : find(options, c);
		if (o && o->kind == PAL__OPTION_CONFIG)
			s = pal__config_read(optarg, options, err);
	}
	return s;
}

pal_status pal__options_parse(int argc, char **argv, const pal__option *options,
			      const char **operand, const char *what, pal_error *err)
{
	struct getopt_table t;
	fill_table(options, &t);
	opterr = 0;
	pal_status read = read_configs(argc, argv, options, &t, err);
	if (read)
		return read;
	optind = 0; /* GNU: start afresh, whoever parsed before */
	for (int c; (c = getopt_long(argc, argv, t.letters, t.longs, NULL)) != -1;) {
		const pal__option *o = c == '?' || c == ':' ? NULL : find(options, c);
		if (!o)
			return refuse(argv, c, err);
		pal_status s = set(o, optarg, err);
		if (s)
			return s;
	}
	int wanted = operand ? 1 : 0;
	if (argc - optind < wanted)
		return pal__fail(err, PAL_EINVAL, "%s is missing", what);
	if (argc - optind > wanted)
		return pal__fail(err, PAL_EINVAL, "unexpected argument '%s'",
				 argv[optind + wanted]);
	if (operand)
		*operand = argv[optind];
	return PAL_OK;
}

void pal__options_print(FILE *to, const pal__option *options)
{
	for (; options->help; options++) {
		const pal__option *o = options;
		char left[80];
		snprintf(left, sizeof left, "%c%c%s%s%s %s", o->letter ? '-' : ' ',
			 o->letter ? o->letter : ' ', o->letter && o->name ? ", " : "  ",
			 o->name ? "--" : "", o->name ? o->name : "",
			 o->choices ? o->choices
			 : o->arg   ? o->arg
				    : "");
		int n = (int)strlen(left);
		while (n && left[n - 1] == ' ')
			left[--n] = 0;
		if (n > 26)
			fprintf(to, "  %s\n%30s", left, "");
		else
			fprintf(to, "  %-28s", left);
		for (const char *c = o->help; *c; c++) {
			putc(*c, to);
			if (*c == '\n')
				fprintf(to, "%30s", "");
		}
		putc('\n', to);
	}
}
