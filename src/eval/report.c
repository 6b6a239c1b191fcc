#include "eval/report.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#define WIDTH 720 /* of a plot, in pixels; the last MARGIN_RIGHT hold the names */
#define HEIGHT 320
#define LEFT 70
#define RIGHT 190
#define TOP 16
#define BOTTOM 40
#define MAX_SERIES 64

static const char *const colours[] = {"#1b6ca8", "#c8553d", "#2a9d5c", "#8e5bb0", "#b8860b",
				      "#d45087", "#555555", "#1aa3a3", "#7a4a2b"};

struct plot {
	FILE *to;
	const char *title, *unit;
	int64_t lengths[32];
	size_t n_lengths;
	double top; /* largest value */
	size_t series;
};

static double number(const json_t *j, const char *name)
{
	return json_number_value(json_object_get(j, name));
}

static const char *word(const json_t *j, const char *name)
{
	const char *text = json_string_value(json_object_get(j, name));
	return text ? text : "";
}

void pal__html_put(FILE *to, const char *text)
{
	for (; *text; text++) {
		const char *as = *text == '<'   ? "&lt;"
				 : *text == '>' ? "&gt;"
				 : *text == '&' ? "&amp;"
				 : *text == '"' ? "&quot;"
						: NULL;
		if (as)
			fputs(as, to);
		else
			putc(*text, to);
	}
}

static double x_of(const struct plot *p, int64_t length)
{
	size_t i = 0;
	while (i + 1 < p->n_lengths && p->lengths[i] != length)
		i++;
	double share = p->n_lengths > 1 ? (double)i / (double)(p->n_lengths - 1) : 0.5;
	return LEFT + share * (WIDTH - LEFT - RIGHT);
}

static double y_of(const struct plot *p, double value)
{
	return HEIGHT - BOTTOM - value / p->top * (HEIGHT - TOP - BOTTOM);
}

static void begin(struct plot *p)
{
	fprintf(p->to, "<h2>%s</h2>\n<svg width=\"%d\" height=\"%d\" role=\"img\">\n", p->title,
		WIDTH, HEIGHT);
	for (int i = 0; i <= 4; i++) {
		double v = p->top * i / 4, y = y_of(p, v);
		fprintf(p->to,
			"<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>"
			"<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g%s</text>\n",
			LEFT, WIDTH - RIGHT, y, y, LEFT - 6, y + 4, v, p->unit);
	}
	for (size_t i = 0; i < p->n_lengths; i++)
		fprintf(p->to, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%lld</text>\n",
			x_of(p, p->lengths[i]), HEIGHT - BOTTOM + 18, (long long)p->lengths[i]);
}

static const char *colour(const struct plot *p)
{
	return colours[p->series % (sizeof colours / sizeof *colours)];
}

/* A point of the series, with its interval where it has one. */
static void point(const struct plot *p, int64_t length, double value, double low, double high,
		  double *last_x, double *last_y)
{
	/* Series side by side, so that equal ones can be told apart. */
	double x = x_of(p, length) + 3 * (double)(p->series % 5) - 6, y = y_of(p, value);
	if (*last_x >= 0)
		fprintf(p->to,
			"<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n",
			*last_x, *last_y, x, y, colour(p));
	if (low < high)
		fprintf(p->to,
			"<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
			"stroke-width=\"3\" opacity=\".4\"/>\n",
			x, x, y_of(p, low), y_of(p, high), colour(p));
	fprintf(p->to, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x, y, colour(p));
	*last_x = x;
	*last_y = y;
}

/* The name of the series at the right, and the next one begins. */
static void name_series(struct plot *p, const char *name)
{
	double y = TOP + 8 + 15 * (double)p->series;
	if (y < HEIGHT - 4) {
		fprintf(p->to, "<text x=\"%d\" y=\"%.1f\" fill=\"%s\">", WIDTH - RIGHT + 16, y + 4,
			colour(p));
		pal__html_put(p->to, name);
		fputs("</text>\n", p->to);
	}
	p->series++;
}

static bool is_control(const json_t *arm)
{
	return json_object_get(arm, "control") != NULL;
}

/* Recall of one kind against length, an arm a series. */
static void plot_recall(struct plot *p, const json_t *e, const char *kind)
{
	const json_t *arms = json_object_get(e, "arms"), *figures = json_object_get(e, "figures");
	char title[160];
	size_t i, j;
	json_t *arm, *f;
	snprintf(title, sizeof title, "Recall against length: ");
	fprintf(p->to, "<h2>%s", title);
	pal__html_put(p->to, kind);
	fputs("</h2>\n", p->to);
	p->title = "";
	p->unit = "";
	p->top = 1;
	p->series = 0;
	begin(p);
	json_array_foreach(arms, i, arm)
	{
		double x = -1, y = 0;
		bool any = false;
		json_array_foreach(figures, j, f) if (!is_control(arm) &&
						      !strcmp(word(f, "arm"), word(arm, "name")) &&
						      !strcmp(word(f, "kind"), kind))
		{
			point(p, (int64_t)number(f, "length"), number(f, "recall"),
			      number(f, "low"), number(f, "high"), &x, &y);
			any = true;
		}
		if (any)
			name_series(p, word(arm, "name"));
	}
	fputs("</svg>\n", p->to);
}

/* The value of a run that a plot is about: memory at its highest, or time for a question. */
static double memory(const json_t *run)
{
	return number(run, "peak_bytes") / 1e6;
}

static double kv(const json_t *run)
{
	return number(run, "kv_bytes") / 1e6;
}

/* The largest value of an arm's runs at a length; -1: none. */
static double most(const json_t *e, const char *arm, int64_t length,
		   double (*value)(const json_t *))
{
	double best = -1;
	size_t i, j;
	json_t *log, *run;
	json_array_foreach(json_object_get(e, "logs"), i,
			   log) if ((int64_t)number(log, "length") == length)
		json_array_foreach(json_object_get(log, "runs"), j,
				   run) if (!strcmp(word(run, "arm"), arm))
	{
		double v = value(run);
		best = v > best ? v : best;
	}
	return best;
}

static void plot_runs(struct plot *p, const json_t *e, const char *title,
		      double (*value)(const json_t *))
{
	const json_t *arms = json_object_get(e, "arms");
	size_t i;
	json_t *arm;
	p->title = title;
	p->unit = " MB";
	p->top = 1e-3;
	p->series = 0;
	json_array_foreach(arms, i, arm) for (size_t l = 0; l < p->n_lengths; l++)
	{
		double v = most(e, word(arm, "name"), p->lengths[l], value);
		p->top = v > p->top ? v : p->top;
	}
	begin(p);
	json_array_foreach(arms, i, arm)
	{
		double x = -1, y = 0;
		if (is_control(arm) || strcmp(word(arm, "selection"), "default") != 0)
			continue;
		for (size_t l = 0; l < p->n_lengths; l++) {
			double v = most(e, word(arm, "name"), p->lengths[l], value);
			if (v >= 0)
				point(p, p->lengths[l], v, 0, 0, &x, &y);
		}
		name_series(p, word(arm, "name"));
	}
	fputs("</svg>\n", p->to);
}

static void cell(FILE *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void cell(FILE *to, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fputs("<td>", to);
	vfprintf(to, format, args);
	fputs("</td>", to);
	va_end(args);
}

static void table_figures(FILE *to, const json_t *e)
{
	size_t i;
	json_t *f;
	fputs("<h2>Figures</h2>\n<table><tr><th>arm<th>kind<th>length<th>questions<th>recall<th>95 "
	      "%"
	      "<th>chunks<th>their fact in them<th>fallbacks<th>ms a question</tr>\n",
	      to);
	json_array_foreach(json_object_get(e, "figures"), i, f)
	{
		double n = number(f, "n");
		fputs("<tr><td>", to);
		pal__html_put(to, word(f, "arm"));
		fputs("</td><td>", to);
		pal__html_put(to, word(f, "kind"));
		fputs("</td>", to);
		cell(to, "%.0f", number(f, "length"));
		cell(to, "%.0f", n);
		cell(to, "%.3f", number(f, "recall"));
		cell(to, "%.3f to %.3f", number(f, "low"), number(f, "high"));
		cell(to, "%.2f", number(f, "chunks") / n);
		cell(to, "%.3f", number(f, "found") / n);
		cell(to, "%.0f", number(f, "fallbacks"));
		cell(to, "%.1f", number(f, "us") / 1e3);
		fputs("</tr>\n", to);
	}
	fputs("</table>\n", to);
}

static void table_verdicts(FILE *to, const json_t *e)
{
	size_t i;
	json_t *v;
	fputs("<h2>Verdicts</h2>\n<table><tr><th>arm<th>kind<th>length<th>verdict<th>why</tr>\n",
	      to);
	json_array_foreach(json_object_get(e, "verdicts"), i, v)
	{
		const char *verdict = word(v, "verdict");
		fputs("<tr><td>", to);
		pal__html_put(to, word(v, "arm"));
		fputs("</td><td>", to);
		pal__html_put(to, word(v, "kind"));
		fputs("</td>", to);
		cell(to, "%.0f", number(v, "length"));
		fprintf(to, "<td class=\"%s\">",
			!strcmp(verdict, "validated") ? "good"
			: !strcmp(verdict, "failed")  ? "bad"
						      : "");
		pal__html_put(to, verdict);
		fputs("</td><td>", to);
		pal__html_put(to, word(v, "why"));
		fputs("</td></tr>\n", to);
	}
	fputs("</table>\n", to);
}

static void head(FILE *to, const json_t *e)
{
	const json_t *model = json_object_get(e, "model"), *p = json_object_get(e, "parameters");
	fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Recall of ",
	      to);
	pal__html_put(to, word(model, "name"));
	fputs("</title>\n<style>body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;"
	      "padding:0 1em;color:#222}svg text{font:12px "
	      "sans-serif}table{border-collapse:collapse}"
	      "td,th{padding:.2em .7em;text-align:left;border-bottom:1px solid "
	      "#ddd}.good{color:#1b7a3d;"
	      "font-weight:bold}.bad{color:#b3261e;font-weight:bold}</style></"
	      "head><body>\n<h1>Recall "
	      "of ",
	      to);
	pal__html_put(to, word(model, "name"));
	fputs("</h1>\n<p>Model hash ", to);
	pal__html_put(to, word(model, "hash"));
	fprintf(to, ", %s positions trained, seed ", "");
	pal__html_put(to, word(p, "seed"));
	fprintf(to,
		". Trained length %.0f. In sight: %.0f first and %.0f last positions, and %.0f "
		"chunks. "
		"On ",
		number(p, "n_ctx_train"), number(p, "sink"), number(p, "window"),
		number(p, "slots"));
	pal__html_put(to, word(json_object_get(e, "machine"), "cpu"));
	fputs(".</p>\n", to);
}

pal_status pal__report_write(FILE *to, const char *name, const json_t *evidence, pal_error *err)
{
	const json_t *p = json_object_get(evidence, "parameters");
	struct plot plot = {.to = to};
	size_t i;
	json_t *v;
	errno = 0;
	json_array_foreach(json_object_get(p, "lengths"), i, v) if (i < 32)
		plot.lengths[plot.n_lengths++] = json_integer_value(v);
	head(to, evidence);
	table_verdicts(to, evidence);
	json_array_foreach(json_object_get(p, "kinds"), i, v)
		plot_recall(&plot, evidence, json_string_value(v));
	if (number(p, "turns") > 0)
		plot_recall(&plot, evidence, "turns");
	plot_runs(&plot, evidence, "Peak of resident memory against length", memory);
	plot_runs(&plot, evidence, "K/V against length", kv);
	table_figures(to, evidence);
	fputs("</body></html>\n", to);
	if (fflush(to) != 0 || ferror(to))
		return pal__fail(err, PAL_EIO, "%s: cannot be written: %s", name, strerror(errno));
	return PAL_OK;
}
