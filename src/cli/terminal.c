#include "cli/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "base/mem.h"
#include "base/newfile.h"
#include "cli/input.h"

#define HISTORY_LINES 1000

struct pal__terminal {
	EditLine *edit; /* NULL: not interactive */
	History *history;
	char history_file[4096]; /* empty: none */
	const char *prompt;
	char *line; /* a plain line, by getline */
	size_t line_cap;
	char *text; /* the input read so far */
	size_t n_text, text_cap;
	bool handles_sigint;
	bool had_text; /* something was typed when Ctrl-C came */
};

static volatile sig_atomic_t interrupted;
static struct sigaction before;
/* Wakes whoever waits for input: the signal may come just before the wait, or on a thread
 * other than the one that waits. */
static int wake_pipe[2];

static void on_sigint(int sig)
{
	int saved = errno;
	(void)sig;
	interrupted = 1;
	if (write(wake_pipe[1], "", 1) < 0) {
		/* full: then it wakes anyway */
	}
	errno = saved;
}

static void clear_interrupt(void)
{
	char bytes[64];
	while (read(wake_pipe[0], bytes, sizeof bytes) > 0)
		;
	interrupted = 0;
}

bool pal__interrupted(bool clear)
{
	bool was = interrupted;
	if (clear)
		clear_interrupt();
	return was;
}

/* --- libedit -------------------------------------------------------------- */

static const char *prompt(EditLine *edit)
{
	pal__terminal *t;
	el_get(edit, EL_CLIENTDATA, &t);
	return t->prompt;
}

/* Waits for a byte of input: 1, or 0 at its end, or -1 for Ctrl-C or an error. */
static int get_byte(char *byte)
{
	struct pollfd wait[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
				 {.fd = wake_pipe[0], .events = POLLIN}};
	while (poll(wait, 2, -1) < 0)
		if (errno != EINTR)
			return -1;
	return wait[1].revents ? -1 : (int)read(STDIN_FILENO, byte, 1);
}

/* A character from the terminal. Ours instead of libedit's, so that Ctrl-C ends the line
 * that is being typed. */
static int get_char(EditLine *edit, wchar_t *out)
{
	mbstate_t state = {0};
	pal__terminal *t;
	el_get(edit, EL_CLIENTDATA, &t);
	for (;;) {
		char byte;
		int n = get_byte(&byte);
		if (n < 1) {
			const LineInfo *line = el_line(edit);
			t->had_text = line->lastchar > line->buffer;
			return n;
		}
		size_t used = mbrtowc(out, &byte, 1, &state);
		if (used == (size_t)-2)
			continue;
		if (used == (size_t)-1) /* not of this locale: libedit can only show a sign */
			*out = L'?';
		return 1;
	}
}

static void find_history_file(pal__terminal *t)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	int n = -1, size = (int)sizeof t->history_file;
	if (state && state[0] == '/')
		n = snprintf(t->history_file, (size_t)size, "%s/palimpsest/history", state);
	else if (home && home[0] == '/')
		n = snprintf(t->history_file, (size_t)size, "%s/.local/state/palimpsest/history",
			     home);
	if (n < 0 || n >= size || !pal__make_folders(t->history_file))
		t->history_file[0] = 0;
}

static bool open_edit(pal__terminal *t)
{
	HistEvent event;
	/* Characters of more than a byte need a UTF-8 locale, whatever the language. */
	setlocale(LC_CTYPE, "");
	if (MB_CUR_MAX == 1)
		setlocale(LC_CTYPE, "C.UTF-8");
	t->edit = el_init("pal", stdin, stdout, stderr);
	t->history = history_init();
	if (!t->edit || !t->history)
		return false;
	el_set(t->edit, EL_CLIENTDATA, t);
	el_set(t->edit, EL_PROMPT, prompt);
	el_set(t->edit, EL_EDITOR, "emacs");
	el_set(t->edit, EL_HIST, history, t->history);
	el_set(t->edit, EL_GETCFN, get_char);
	el_source(t->edit, NULL); /* ~/.editrc */
	history(t->history, &event, H_SETSIZE, HISTORY_LINES);
	history(t->history, &event, H_SETUNIQUE, 1);
	find_history_file(t);
	if (t->history_file[0])
		history(t->history, &event, H_LOAD, t->history_file);
	return true;
}

pal_status pal__terminal_open(pal__terminal **out, pal_error *err)
{
	pal__terminal *t = pal__calloc(1, sizeof *t);
	if (!t)
		return pal__fail_memory(err, "the terminal", sizeof *t);
	if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
		if (pipe2(wake_pipe, O_NONBLOCK | O_CLOEXEC) != 0 || !open_edit(t)) {
			pal__terminal_close(t);
			return pal__fail(err, PAL_EIO, "the terminal cannot be used");
		}
		struct sigaction sa = {.sa_handler = on_sigint, .sa_flags = SA_RESTART};
		sigemptyset(&sa.sa_mask);
		sigaction(SIGINT, &sa, &before);
		t->handles_sigint = true;
	}
	*out = t;
	return PAL_OK;
}

void pal__terminal_close(pal__terminal *t)
{
	HistEvent event;
	if (!t)
		return;
	if (t->handles_sigint)
		sigaction(SIGINT, &before, NULL);
	if (t->edit) {
		close(wake_pipe[0]);
		close(wake_pipe[1]);
	}
	if (t->history && t->history_file[0])
		history(t->history, &event, H_SAVE, t->history_file);
	if (t->edit)
		el_end(t->edit);
	if (t->history)
		history_end(t->history);
	free(t->line); /* getline's */
	pal__free(t->text);
	pal__free(t);
}

bool pal__terminal_interactive(const pal__terminal *t)
{
	return t->edit != NULL;
}

/* --- reading -------------------------------------------------------------- */

/* One line with its newline, if it has one; NULL: see *kind. */
static const char *edited_line(pal__terminal *t, size_t *n, pal__line_kind *kind)
{
	HistEvent event;
	int count = 0;
	clear_interrupt();
	t->had_text = false;
	el_resize(t->edit);
	/* Before the prompt appears, which libedit alone would do after it: what is typed in
	 * between would be echoed twice, and forgotten at Ctrl-C. */
	el_set(t->edit, EL_PREP_TERM, 1);
	const char *line = el_gets(t->edit, &count);
	if (interrupted) {
		bool typed = t->had_text || t->n_text;
		*kind = typed ? PAL__LINE_EMPTIED : PAL__LINE_CTRL_C;
		clear_interrupt();
		return NULL;
	}
	if (!line || count <= 0) {
		*kind = PAL__LINE_END;
		return NULL;
	}
	*n = (size_t)count;
	if (line[strspn(line, " \t\n")])
		history(t->history, &event, H_ENTER, line);
	return line;
}

static const char *plain_line(pal__terminal *t, size_t *n, pal__line_kind *kind)
{
	ssize_t count = getline(&t->line, &t->line_cap, stdin);
	if (count < 0) {
		*kind = PAL__LINE_END;
		return NULL;
	}
	*n = (size_t)count;
	return t->line;
}

/* Appends a line; *more: it ended in a backslash, which became a newline. */
static pal_status join(pal__terminal *t, const char *line, size_t n, bool *more, pal_error *err)
{
	if (n && line[n - 1] == '\n')
		n--;
	*more = n && line[n - 1] == '\\';
	if (t->n_text + n > PAL__MAX_INPUT)
		return pal__fail(err, PAL_ELIMIT, "the input is longer than %zu bytes",
				 PAL__MAX_INPUT);
	if (!pal__grow((void **)&t->text, &t->text_cap, t->n_text + n + 1, 1))
		return pal__fail_memory(err, "a line", t->n_text + n + 1);
	memcpy(t->text + t->n_text, line, n);
	t->n_text += n;
	if (*more)
		t->text[t->n_text - 1] = '\n';
	t->text[t->n_text] = 0;
	return PAL_OK;
}

pal_status pal__terminal_read(pal__terminal *t, pal__line_kind *kind, const char **text, size_t *n,
			      pal_error *err)
{
	bool more = true;
	t->n_text = 0;
	t->prompt = "> ";
	for (bool first = true; more; first = false) {
		size_t len;
		const char *line = t->edit ? edited_line(t, &len, kind) : plain_line(t, &len, kind);
		if (!line && ferror(stdin))
			return pal__fail(err, PAL_EIO, "standard input: %s", strerror(errno));
		if (!line && (*kind != PAL__LINE_END || first))
			return PAL_OK;
		pal_status s = line ? join(t, line, len, &more, err) : PAL_OK;
		if (s)
			return s;
		more = more && line;
		t->prompt = ". ";
	}
	*kind = PAL__LINE;
	*text = t->text;
	*n = t->n_text;
	return PAL_OK;
}
