#include "cli/config.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"

/* The texts of all files that were read: options point into them. */
typedef struct kept kept;
struct kept {
	kept *next;
	char *text;
};
static kept *texts;

static char *trim(char *text)
{
	text += strspn(text, " \t\r");
	size_t n = strlen(text);
	while (n && strchr(" \t\r", text[n - 1]))
		n--;
	text[n] = 0;
	return text;
}

static pal_status set_line(char *line, const pal__option *options, pal_error *err)
{
	line = trim(line);
	if (!*line || *line == '#')
		return PAL_OK;
	char *value = strchr(line, '=');
	if (!value)
		return pal__fail(err, PAL_EINVAL, "must be NAME = VALUE");
	*value = 0;
	return pal__options_set(options, trim(line), trim(value + 1), err);
}

static pal_status read_text(const char *path, char **out, pal_error *err)
{
	pal__file f = {0};
	pal_status s = pal__file_map(path, &f, err);
	if (s)
		return s;
	if (f.size > PAL__CONFIG_BYTES)
		s = pal__fail(err, PAL_ELIMIT, "%s: larger than %d bytes", path, PAL__CONFIG_BYTES);
	else if (f.size && memchr(f.data, 0, f.size))
		s = pal__fail(err, PAL_EINVAL, "%s: there is a zero byte in it", path);
	else if (!(*out = pal__strndup((const char *)f.data, f.size)))
		s = pal__fail_memory(err, path, f.size);
	pal__file_unmap(&f);
	return s;
}

static pal_status keep_text(const char *path, char **out, pal_error *err)
{
	kept *k = pal__calloc(1, sizeof *k);
	if (!k)
		return pal__fail_memory(err, path, sizeof *k);
	pal_status s = read_text(path, &k->text, err);
	if (s) {
		pal__free(k);
		return s;
	}
	k->next = texts;
	texts = k;
	*out = k->text;
	return PAL_OK;
}

pal_status pal__config_read(const char *path, const pal__option *options, pal_error *err)
{
	char *text = NULL;
	pal_error why = {0};
	pal_status s = keep_text(path, &text, err);
	if (s)
		return s;
	int number = 1;
	for (char *line = text, *next; line; line = next, number++) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		s = set_line(line, options, &why);
		if (s)
			return pal__fail(err, s, "%s:%d: %s", path, number, why.text);
	}
	return PAL_OK;
}
