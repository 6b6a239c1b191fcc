#include "eval/map_report.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "eval/report.h"

/* Where one colour of the heat map ends and the next begins: speed against plain decoding. */
static const double steps[] = {0.9, 0.98, 1.02, 1.25, 1.6, 2.2, 3};
#define N_STEPS (sizeof steps / sizeof *steps)

/* The colours of c0 (slower) to c7 (faster), in light and in dark; text on them has a contrast of 7
 * or more. What they say is in the cells as numbers and words, too. */
static const char style[] =
	"<style>:root{color-scheme:light dark;--page:#fff;--ink:#1c1c1c;--line:#bbb;--mute:#555;"
	"--c0:#f4b8a0;--c1:#fadfd2;--c2:#f2f2ee;--c3:#e0f0dc;--c4:#c2e3c4;--c5:#9dd3b0;--c6:#"
	"77c3a3;"
	"--c7:#55b59c;--bad:#ffd34d}"
	"@media(prefers-color-scheme:dark){:root{--page:#15171a;--ink:#f1f1ee;--line:#555;"
	"--mute:#b4b4b0;--c0:#6b2c1a;--c1:#4a2a20;--c2:#2b2d30;--c3:#1f3527;--c4:#1b4230;--c5:#"
	"16503b;"
	"--c6:#0f5c45;--c7:#076850;--bad:#6a5200}}"
	"body{font:16px/1.5 system-ui,sans-serif;max-width:64em;margin:2em auto;padding:0 1em;"
	"background:var(--page);color:var(--ink)}"
	"table{border-collapse:collapse;margin:1em 0}caption{text-align:left;font-weight:bold;"
	"padding:.3em 0}th,td{padding:.4em .8em;text-align:left;border:1px solid var(--line);"
	"vertical-align:top}.wide{overflow-x:auto}.heat td{min-width:7.5em}"
	".heat b{display:block;font-size:1.25em}small{display:block}p.note{color:var(--mute)}"
	"td.n{text-align:right;font-variant-numeric:tabular-nums}"
	".c0{background:var(--c0)}.c1{background:var(--c1)}.c2{background:var(--c2)}"
	".c3{background:var(--c3)}.c4{background:var(--c4)}.c5{background:var(--c5)}"
	".c6{background:var(--c6)}.c7{background:var(--c7)}"
	".bad{background:var(--bad);outline:3px solid var(--ink)}</style>\n";

static double number(const json_t *j, const char *name)
{
	return json_number_value(json_object_get(j, name));
}

static const char *word(const json_t *j, const char *name)
{
	const char *text = json_string_value(json_object_get(j, name));
	return text ? text : "";
}

static bool is(const json_t *j, const char *name, const char *text)
{
	return !strcmp(word(j, name), text);
}

/* An element with text in it. */
static void element(FILE *to, const char *open, const char *text, const char *close)
{
	fputs(open, to);
	pal__html_put(to, text);
	fputs(close, to);
}

static void head(FILE *to, const json_t *e)
{
	const json_t *model = json_object_get(e, "model"), *p = json_object_get(e, "parameters");
	bool replay = json_is_true(json_object_get(p, "replay"));
	fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
	      "<meta name=\"viewport\" content=\"width=device-width\">",
	      to);
	element(to, "<title>What drafting pays with ", word(model, "name"), "</title>\n");
	fputs(style, to);
	element(to, "</head><body>\n<h1>What drafting pays with ", word(model, "name"), "</h1>\n");
	element(to, "<p>On ", word(json_object_get(e, "machine"), "cpu"), "");
	fprintf(to, ", %.0f threads, K/V ", number(e, "threads"));
	element(to, "", word(e, "kv"), " (");
	element(to, "", word(e, "kv_type"), "). ");
	element(to, "Model hash ", word(model, "hash"), ". ");
	fprintf(to, "Each cell is the median of %.0f pairs of plain and drafted decoding.</p>\n",
		number(p, "pairs"));
	fprintf(to,
		"<p class=\"note\">A cell says how many times faster than plain decoding it is "
		"(slowest and fastest pair), which share of the drafted tokens was accepted (95 %% "
		"interval), and how many tokens came of one forward pass. <em>pays</em>: faster by "
		"2 %% or more in every pair; <em>costs</em>: slower by that; <em>even</em>: "
		"neither. %s</p>\n",
		replay ? "<strong>Replay:</strong> the forward passes are real, the tokens are "
			 "those of the transcript, not the model's."
		       : "Every token is the model's own.");
}

static void heat_cell(FILE *to, const json_t *f)
{
	double speed = number(f, "speedup");
	size_t colour = 0;
	while (colour < N_STEPS && speed >= steps[colour])
		colour++;
	if (is(f, "verdict", "differs")) {
		fprintf(to,
			"<td class=\"bad\"><b>differs</b><small>%.0f turns are not as in plain "
			"decoding</small></td>",
			number(f, "differing"));
		return;
	}
	fprintf(to, "<td class=\"c%zu\"><b>%.2fx</b><small>", colour, speed);
	pal__html_put(to, word(f, "verdict"));
	fprintf(to,
		" (%.2f to %.2f)</small><small>%.0f %% accepted (%.0f to %.0f)</small><small>%.2f "
		"a "
		"forward</small></td>",
		number(f, "speedup_low"), number(f, "speedup_high"), 100 * number(f, "acceptance"),
		100 * number(f, "low"), 100 * number(f, "high"), number(f, "tokens_per_forward"));
}

/* Figures of one instruction set and mode: workloads down, drafters across. */
static void heat_table(FILE *to, const json_t *e, const char *isa, const char *mode)
{
	const json_t *p = json_object_get(e, "parameters"), *w, *d, *f;
	size_t i, j, k;
	element(to, "<div class=\"wide\"><table class=\"heat\"><caption>", isa, ", ");
	element(to, "", mode, "</caption>\n<tr><th scope=\"col\">workload</th>");
	json_array_foreach(json_object_get(p, "drafters"), i, d)
		element(to, "<th scope=\"col\">", json_string_value(d), "</th>");
	fputs("</tr>\n", to);
	json_array_foreach(json_object_get(p, "workloads"), i, w)
	{
		element(to, "<tr><th scope=\"row\">", word(w, "name"), "</th>");
		json_array_foreach(json_object_get(p, "drafters"), j, d)
			json_array_foreach(json_object_get(e, "figures"), k, f)
		{
			if (is(f, "isa", isa) && is(f, "mode", mode) &&
			    is(f, "workload", word(w, "name")) &&
			    is(f, "drafter", json_string_value(d)))
				heat_cell(to, f);
		}
		fputs("</tr>\n", to);
	}
	fputs("</table></div>\n", to);
}

static void numeric(FILE *to, const char *format, double x) __attribute__((format(printf, 2, 0)));
static void numeric(FILE *to, const char *format, double x)
{
	fputs("<td class=\"n\">", to);
	fprintf(to, format, x);
	fputs("</td>", to);
}

static void figures_table(FILE *to, const json_t *e)
{
	static const char *const names[] = {"isa", "workload", "mode", "drafter"};
	const json_t *f;
	size_t i;
	fputs("<div class=\"wide\"><table><caption>Figures</caption>\n<tr><th>instructions</th>"
	      "<th>workload</th><th>mode</th><th>drafter</th><th>tokens</th><th>forwards</th>"
	      "<th>drafted</th><th>accepted</th><th>plain tokens/s</th><th>tokens/s</th>"
	      "<th>verdict</th></tr>\n",
	      to);
	json_array_foreach(json_object_get(e, "figures"), i, f)
	{
		fputs("<tr>", to);
		for (size_t j = 0; j < sizeof names / sizeof *names; j++)
			element(to, "<td>", word(f, names[j]), "</td>");
		numeric(to, "%.0f", number(f, "tokens"));
		numeric(to, "%.0f", number(f, "forwards"));
		numeric(to, "%.0f", number(f, "drafted"));
		numeric(to, "%.0f", number(f, "accepted"));
		numeric(to, "%.2f", number(f, "plain_tok_s"));
		numeric(to, "%.2f", number(f, "tok_s"));
		element(to, "<td>", word(f, "verdict"), "</td></tr>\n");
	}
	fputs("</table></div>\n", to);
}

static void sources_row(FILE *to, const json_t *run, const json_t *own, const json_t *source)
{
	element(to, "<tr><td>", word(run, "workload"), "</td>");
	element(to, "<td>", word(run, "mode"), "</td>");
	element(to, "<td>", word(own, "drafter"), "</td>");
	element(to, "<td>", word(source, "name"), "</td>");
	numeric(to, "%.0f", number(source, "proposals"));
	numeric(to, "%.0f", number(source, "drafted"));
	numeric(to, "%.0f", number(source, "accepted"));
	numeric(to, "%.0f", number(source, "guessed"));
	numeric(to, "%.0f", number(source, "right"));
	numeric(to, "%.4f", number(source, "seconds"));
	fputs("</tr>\n", to);
}

static void sources_table(FILE *to, const json_t *e)
{
	const json_t *run, *own, *source;
	size_t i, j, k;
	fputs("<div class=\"wide\"><table><caption>Sources</caption>\n<tr><th>workload</th>"
	      "<th>mode</th><th>drafter</th><th>source</th><th>proposals</th><th>drafted</th>"
	      "<th>accepted</th><th>guessed</th><th>right</th><th>seconds</th></tr>\n",
	      to);
	json_array_foreach(json_object_get(e, "runs"), i, run)
		json_array_foreach(json_object_get(run, "drafted"), j, own)
			json_array_foreach(json_object_get(own, "sources"), k, source)
				sources_row(to, run, own, source);
	fputs("</table></div>\n", to);
}

pal_status pal__map_report(FILE *to, const char *name, const json_t *evidence, pal_error *err)
{
	const json_t *p = json_object_get(evidence, "parameters"), *isa, *mode;
	size_t i, j;
	errno = 0;
	head(to, evidence);
	json_array_foreach(json_object_get(p, "isas"), i, isa)
		json_array_foreach(json_object_get(p, "modes"), j, mode)
			heat_table(to, evidence, json_string_value(isa), json_string_value(mode));
	figures_table(to, evidence);
	sources_table(to, evidence);
	fputs("</body></html>\n", to);
	if (fflush(to) != 0 || ferror(to))
		return pal__fail(err, PAL_EIO, "%s: cannot be written: %s", name, strerror(errno));
	return PAL_OK;
}
