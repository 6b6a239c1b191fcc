/* pal top: the memory of a server's sessions, as it is now. */
#include "cli/top.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <utf8proc.h>

#include "base/clock.h"
#include "cli/command.h"
#include "cli/output.h"
#include "serve/client.h"

enum { BAR = 20, COLUMNS = 100, MAX_SESSIONS = 100, HEADER = 9 };

static const char *const sources[] = {"recompute", "spill", "hidden", "project"};

static const char *url = "http://127.0.0.1:8080", *key_file, *authorities;
static bool once, as_json;

static const pal__option options[] = {
	PAL__TEXT("url", 0, &url, "URL", "the server, http://127.0.0.1:8080 if not given"),
	PAL__TEXT("key-file", 0, &key_file, "FILE", "its first line is the API key"),
	PAL__TEXT("ca-file", 0, &authorities, "FILE",
		  "certificate authorities (PEM) instead of the system's"),
	PAL__FLAG("once", 0, &once, "look once, instead of every second"),
	PAL__FLAG("json", 0, &as_json, "look once, and write one JSON object"),
	PAL__NO_MORE_OPTIONS,
};

/* --- words ------------------------------------------------------------------------ */

static double number(const json_t *o, const char *name)
{
	return json_number_value(json_object_get(o, name));
}

static uint64_t whole(const json_t *o, const char *name)
{
	double v = number(o, name);
	return v > 0 && v < 1e18 ? (uint64_t)v : 0;
}

/* "12,345" */
static const char *count(uint64_t n, char out[32])
{
	char digits[24];
	int len = snprintf(digits, sizeof digits, "%" PRIu64, n), k = 0;
	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			out[k++] = ',';
		out[k++] = digits[i];
	}
	out[k] = 0;
	return out;
}

static void put_count(FILE *to, const char *before, uint64_t n, const char *after)
{
	char text[32];
	fprintf(to, "%s%s%s", before, count(n, text), after);
}

static void put_bytes(FILE *to, const char *before, uint64_t n)
{
	char text[32];
	fprintf(to, "%s%s", before, pal__human_bytes(n, text));
}

static void put_share(FILE *to, double part, double all)
{
	if (all > 0)
		fprintf(to, "%.0f %%", 100 * part / all);
	else
		fputs("-", to);
}

static void put_bar(FILE *to, double part, double all)
{
	int full = all > 0 ? (int)(part / all * BAR + 0.5) : 0;
	fputc('[', to);
	for (int i = 0; i < BAR; i++)
		fputc(i < full ? '#' : '-', to);
	fputs("] ", to);
}

static void put_time(FILE *to, double s)
{
	long t = s > 0 && s < 1e12 ? (long)s : 0;
	if (t < 60)
		fprintf(to, "%ld s", t);
	else if (t < 3600)
		fprintf(to, "%ld min %ld s", t / 60, t % 60);
	else
		fprintf(to, "%ld h %ld min", t / 3600, t / 60 % 60);
}

/* --- lines --------------------------------------------------------------------------- */

/* Bytes of text[n] that fit in so many columns. */
static size_t fitting(const char *text, size_t n, int columns)
{
	size_t at = 0;
	while (at < n) {
		utf8proc_int32_t c;
		utf8proc_ssize_t len = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
							(utf8proc_ssize_t)(n - at), &c);
		int width = len > 0 ? utf8proc_charwidth(c) : 1;
		if (columns < width)
			break;
		columns -= width;
		at += len > 0 ? (size_t)len : 1;
	}
	return at;
}

static double each_second(const pal__top_view *now, const pal__top_view *before, const char *name)
{
	double d = number(now->status, name) - number(before->status, name);
	return now->at > before->at && d > 0 ? d / (now->at - before->at) : 0;
}

static void draw_memory(FILE *to, const json_t *s)
{
	uint64_t used = whole(s, "memory_bytes"), limit = whole(s, "memory_limit");
	fputs("memory    ", to);
	if (limit)
		put_bar(to, (double)used, (double)limit);
	put_bytes(to, "", used);
	if (limit)
		put_bytes(to, " of ", limit);
	else
		fputs(", no limit", to);
	put_bytes(to, "; process ", whole(s, "rss_bytes"));
	put_bytes(to, ", at most ", whole(s, "peak_rss_bytes"));
	put_bytes(to, "; disk ", whole(s, "disk_bytes"));
	fputc('\n', to);
}

static void draw_speed(FILE *to, const pal__top_view *now, const pal__top_view *before)
{
	const json_t *s = now->status;
	if (before) {
		double read = each_second(now, before, "prompt_tokens") -
			      each_second(now, before, "reused_tokens");
		fprintf(to, "tokens/s  made %.1f, read %.1f; drafts accepted ",
			each_second(now, before, "generated_tokens"), read > 0 ? read : 0);
		put_share(to, each_second(now, before, "accepted"),
			  each_second(now, before, "drafted"));
		fputc('\n', to);
	}
	put_count(to, "tokens    made ", whole(s, "generated_tokens"), "");
	uint64_t asked = whole(s, "prompt_tokens"), reused = whole(s, "reused_tokens");
	put_count(to, ", read ", asked > reused ? asked - reused : 0, "");
	put_count(to, ", reused ", reused, "; drafts accepted ");
	put_share(to, number(s, "accepted"), number(s, "drafted"));
	fputc('\n', to);
}

static void draw_totals(FILE *to, const pal__top_view *now, const pal__top_view *before,
			const char *from)
{
	const json_t *s = now->status, *filled = json_object_get(s, "filled");
	fprintf(to, "%s, pal %s, %s, up ", json_string_value(json_object_get(s, "model")),
		json_string_value(json_object_get(s, "version")), from);
	put_time(to, number(s, "uptime_s"));
	fputc('\n', to);
	draw_memory(to, s);
	put_count(to, "sessions  ", whole(s, "sessions"), ", ");
	put_count(to, "", whole(s, "loaded"), " in memory; ");
	put_count(to, "", whole(s, "running"), " running, ");
	put_count(to, "", whole(s, "waiting"), " waiting\n");
	draw_speed(to, now, before);
	put_count(to, "restored  recompute ", whole(filled, sources[0]), "");
	for (int i = 1; i < PAL_N_SOURCES; i++) {
		fprintf(to, ", %s ", sources[i]);
		put_count(to, "", whole(filled, sources[i]), "");
	}
	put_count(to, "; fallbacks ", whole(s, "fallbacks"), "\n");
	put_count(to, "requests  ", whole(s, "requests"), "; ");
	put_count(to, "", whole(s, "refused"), " refused, ");
	put_count(to, "", whole(s, "cancelled"), " cancelled, ");
	put_count(to, "", whole(s, "failed"), " failed\n");
}

static const char *state_of(const json_t *s)
{
	if (json_is_true(json_object_get(s, "interrupted")))
		return "cut off";
	if (json_is_true(json_object_get(s, "busy")))
		return "busy";
	return json_is_true(json_object_get(s, "loaded")) ? "loaded" : "on disk";
}

static void draw_session(FILE *to, const json_t *s)
{
	char n[32];
	const char *id = json_string_value(json_object_get(s, "id"));
	const char *label = json_string_value(json_object_get(s, "label"));
	fprintf(to, "%-13.13s  %-7s  %11s  ", id ? id : "", state_of(s),
		count(whole(s, "length"), n));
	put_bar(to, number(s, "resident"), number(s, "budget_positions"));
	fprintf(to, "%9s", count(whole(s, "resident"), n));
	fprintf(to, " %9s",
		whole(s, "budget_positions") ? count(whole(s, "budget_positions"), n) : "no limit");
	fprintf(to, "  %11s", count(whole(s, "evicted"), n));
	fprintf(to, "  %8s  %s\n", count(whole(s, "restored"), n), label ? label : "");
}

static void draw_sessions(FILE *to, const json_t *list)
{
	const json_t *data = json_object_get(list, "data");
	size_t i, n = json_array_size(data), total = (size_t)whole(list, "total");
	json_t *s;
	if (n)
		fprintf(to, "\n%-13s  %-7s  %11s  %-*s %9s %9s  %11s  %8s  %s\n", "SESSION",
			"STATE", "LOG", BAR + 2, "MEMORY", "RESIDENT", "OF", "EVICTED", "RESTORED",
			"LABEL");
	json_array_foreach((json_t *)data, i, s) draw_session(to, s);
	if (total > n)
		put_count(to, "and ", total - n, " more\n");
}

void pal__top_draw(FILE *to, const pal__top_view *now, const pal__top_view *before,
		   const char *from, int columns, const char *end)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);
	if (!f)
		return;
	draw_totals(f, now, before, from);
	draw_sessions(f, now->sessions);
	if (fclose(f) == 0) {
		for (char *line = text, *stop; (stop = strchr(line, '\n')); line = stop + 1) {
			*stop = 0;
			pal__plain(line);
			fprintf(to, "%.*s%s\n", (int)fitting(line, (size_t)(stop - line), columns),
				line, end);
		}
	}
	free(text);
}

/* --- looking --------------------------------------------------------------------------- */

pal_status pal__top_check(const pal__top_view *v, const char *from, pal_error *err)
{
	size_t i;
	json_t *s;
	bool good = json_is_string(json_object_get(v->status, "model")) &&
		    json_is_string(json_object_get(v->status, "version")) &&
		    json_is_integer(json_object_get(v->status, "generated_tokens")) &&
		    json_is_array(json_object_get(v->sessions, "data"));
	json_array_foreach(json_object_get(v->sessions, "data"), i, s) good =
		good && json_is_string(json_object_get(s, "id"));
	return good ? PAL_OK
		    : pal__fail(err, PAL_EFORMAT, "%s: what it says is not what pal serve says",
				from);
}

static void forget(pal__top_view *v)
{
	json_decref(v->status);
	json_decref(v->sessions);
	*v = (pal__top_view){0};
}

static pal_status look(pal__client *c, int most, pal__top_view *v, pal_error *err)
{
	char path[64];
	snprintf(path, sizeof path, "/v1/sessions?limit=%d", most);
	*v = (pal__top_view){.at = pal__now()};
	pal_status s = pal__client_get(c, "/v1/status", &v->status, err);
	s = s ? s : pal__client_get(c, path, &v->sessions, err);
	s = s ? s : pal__top_check(v, url, err);
	if (s)
		forget(v);
	return s;
}

static pal_status show(const pal__top_view *now, const pal__top_view *before, int columns,
		       const char *start, const char *end, pal_error *err)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);
	if (!f)
		return pal__fail_memory(err, "what is seen", 0);
	fputs(start, f);
	pal__top_draw(f, now, before, url, columns, end);
	pal_status s =
		fclose(f) ? pal__fail_memory(err, "what is seen", n) : pal__out_write(text, n, err);
	free(text);
	return s;
}

static pal_status look_once(pal__client *c, pal_error *err)
{
	pal__top_view v;
	pal_status s = look(c, MAX_SESSIONS, &v, err);
	if (s)
		return s;
	if (as_json)
		s = pal__out_json(
			json_pack("{s:O, s:O}", "status", v.status, "sessions", v.sessions), err);
	else
		s = show(&v, NULL, isatty(STDOUT_FILENO) ? COLUMNS : 1000, "", "", err);
	forget(&v);
	return s;
}

static volatile sig_atomic_t stopped;

static void stop(int signal_number)
{
	(void)signal_number;
	stopped = 1;
}

static void size_of_terminal(int *columns, int *rows)
{
	struct winsize w;
	bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row;
	*columns = known ? w.ws_col : COLUMNS;
	*rows = known ? w.ws_row : 24;
}

/* One look, drawn over the one before, which it takes the place of. */
static pal_status redraw(pal__client *c, pal__top_view *before, bool first, pal_error *err)
{
	int columns, rows;
	pal__top_view now;
	pal_error why;
	size_of_terminal(&columns, &rows);
	int most = rows - HEADER - 1;
	most = most < 1 ? 1 : most > MAX_SESSIONS ? MAX_SESSIONS : most;
	pal_status s = look(c, most, &now, &why);
	if (s && first) {
		*err = why;
		return s;
	}
	if (s) {
		char line[sizeof why.text + 32];
		int n = snprintf(line, sizeof line, "\033[H%.*s\033[K\n\033[J", columns, why.text);
		return pal__out_write(line, (size_t)n, err);
	}
	s = show(&now, before->status ? before : NULL, columns, "\033[H", "\033[K", err);
	forget(before);
	*before = now;
	return s ? s : pal__out_write("\033[J", 3, err);
}

/* A server that has gone may come back: only the first look has to find one. */
static pal_status watch(pal__client *c, pal_error *err)
{
	pal__top_view before = {0};
	pal_status s = redraw(c, &before, true, err);
	while (!s && !(s = pal__out_flush(err)) && !stopped) {
		nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
		if (!stopped)
			s = redraw(c, &before, false, err);
	}
	forget(&before);
	return s;
}

/* The cursor is away while it draws, and comes back however it ends. */
static pal_status watch_terminal(pal__client *c, pal_error *err)
{
	struct sigaction action = {.sa_handler = stop};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	pal_status s = pal__out_write("\033[?25l\033[H\033[J", 12, err);
	s = s ? s : watch(c, err);
	pal_status shown = pal__out_write("\033[?25h", 6, s ? NULL : err);
	return s ? s : shown;
}

static pal_status run(const char *model, pal_error *err)
{
	pal__client *c;
	(void)model;
	pal_status s = pal__client_open(url, key_file, authorities, &c, err);
	if (s)
		return s;
	bool watching = !once && !as_json && isatty(STDOUT_FILENO);
	s = watching ? watch_terminal(c, err) : look_once(c, err);
	pal__client_close(c);
	return s;
}

const pal__command pal__command_top = {
	.name = "top",
	.summary = "watch the sessions and the memory of a server",
	.about = "Shows what pal serve is doing, drawn anew each second at a terminal until "
		 "Ctrl-C,\n"
		 "and once elsewhere: memory against its limit, tokens per second, drafts, "
		 "restored\n"
		 "chunks, and each session's log against what of it is resident.\n",
	.options = options,
	.operand = "",
	.run = run,
};
