#include "serve/health.h"

#include <string.h>

#include "base/mem.h"
#include "serve/traffic.h"

void pal__health_get(const pal__http_request *request, pal__reply *reply)
{
	pal__health *h = request->user;
	bool stopping = atomic_load(&h->stopping);
	json_t *body = json_pack("{s:s, s:s}", "status", stopping ? "stopping" : "ok", "version",
				 PAL_VERSION);
	if (body)
		pal__reply_json(reply, stopping ? 503 : 200, body);
	else
		pal__reply_error(reply, 503, NULL, NULL, NULL, "out of memory");
}

typedef struct {
	const char *name, *help;
	double value;
	bool gauge;
} metric;

typedef struct {
	char *text;
	size_t n, cap;
} page;

static pal_status put_sources(page *p, const pal__service_counts *c, pal_error *err)
{
	static const char *const names[PAL_N_SOURCES] = {
		[PAL_SOURCE_RECOMPUTE] = "recompute",
		[PAL_SOURCE_SPILL] = "spill",
		[PAL_SOURCE_HIDDEN] = "hidden",
		[PAL_SOURCE_PROJECT] = "project",
	};
	pal_status s = pal__append(&p->text, &p->n, &p->cap, err,
				   "# HELP palimpsest_restored_chunks_total Chunks of evicted "
				   "tokens that were brought back.\n"
				   "# TYPE palimpsest_restored_chunks_total counter\n");
	for (int i = 0; i < PAL_N_SOURCES && !s; i++)
		s = pal__append(&p->text, &p->n, &p->cap, err,
				"palimpsest_restored_chunks_total{source=\"%s\"} %llu\n", names[i],
				(unsigned long long)c->filled[i]);
	return s;
}

static pal_status put_counts(page *p, pal__service *v, pal_error *err)
{
	pal__service_counts c = {0};
	pal__service_get_counts(v, &c);
	const metric metrics[] = {
		{"sessions", "Sessions that are kept.", (double)c.sessions, true},
		{"sessions_loaded", "Sessions in memory.", (double)c.loaded, true},
		{"requests_running", "Requests that are being computed.", (double)c.running, true},
		{"requests_waiting", "Requests that wait.", (double)c.waiting, true},
		{"requests_total", "Requests to sessions.", (double)c.requests, false},
		{"requests_refused_total", "Of them, refused.", (double)c.refused, false},
		{"requests_cancelled_total", "Of them, cancelled.", (double)c.cancelled, false},
		{"requests_failed_total", "Of them, failed.", (double)c.failed, false},
		{"prompt_tokens_total", "Tokens that came with requests.", (double)c.prompt_tokens,
		 false},
		{"reused_tokens_total", "Of them, those that were there.", (double)c.reused_tokens,
		 false},
		{"generated_tokens_total", "Tokens generated.", (double)c.generated_tokens, false},
		{"drafted_tokens_total", "Tokens drafted.", (double)c.drafted, false},
		{"accepted_tokens_total", "Of them, kept.", (double)c.accepted, false},
		{"forwards_total", "Forward passes.", (double)c.forwards, false},
		{"forward_rows_total", "Positions in them.", (double)c.rows, false},
		{"forward_seconds_total", "Time of them.", c.forward_s, false},
		{"restorations_total", "Times that evicted tokens were brought back.",
		 (double)c.events, false},
		{"restore_fallbacks_total", "Chunks from another source than asked for.",
		 (double)c.fallbacks, false},
		{"commits_total", "Commits to the store.", (double)c.commits, false},
		{"commit_seconds_total", "Time of them.", c.commit_s, false},
		{"sessions_parked_total", "Sessions written out.", (double)c.parked, false},
		{"sessions_unparked_total", "Sessions read back.", (double)c.unparked, false},
		{"sessions_replayed_total", "Sessions computed again.", (double)c.replayed, false},
		{"sessions_quarantined_total", "Damaged sessions.", (double)c.quarantined, false},
		{"sessions_expired_total", "Sessions deleted as too old.", (double)c.expired,
		 false},
		{"memory_bytes", "Memory that is promised.", (double)c.memory_bytes, true},
		{"memory_limit_bytes", "The most of it; 0: no limit.", (double)c.memory_limit,
		 true},
		{"resident_bytes", "Resident memory.", (double)c.rss_bytes, true},
		{"resident_peak_bytes", "The peak of it.", (double)c.peak_rss_bytes, true},
		{"disk_bytes", "On disk.", (double)c.disk_bytes, true},
	};
	pal_status s = PAL_OK;
	for (size_t i = 0; i < sizeof metrics / sizeof *metrics && !s; i++)
		s = pal__append(&p->text, &p->n, &p->cap, err,
				"# HELP palimpsest_%s %s\n# TYPE palimpsest_%s %s\n"
				"palimpsest_%s %.17g\n",
				metrics[i].name, metrics[i].help, metrics[i].name,
				metrics[i].gauge ? "gauge" : "counter", metrics[i].name,
				metrics[i].value);
	return s ? s : put_sources(p, &c, err);
}

void pal__metrics_get(const pal__http_request *request, pal__reply *reply)
{
	pal__health *h = request->user;
	pal__http *http = atomic_load(&h->http);
	page p = {0};
	pal_error err = {0};
	pal_status s = put_counts(&p, h->service, &err);
	if (!s && http)
		s = pal__http_metrics(http, &p.text, &p.n, &p.cap, &err);
	if (s)
		pal__reply_error(reply, 503, NULL, NULL, NULL, "%s", err.text);
	else
		pal__reply_bytes(reply, 200, "text/plain; version=0.0.4", p.text, p.n);
	pal__free(p.text);
}
