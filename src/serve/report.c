#include "serve/report.h"

#include <string.h>

#include "serve/json.h"

typedef json_int_t whole; /* what json_pack's I takes */

const char *pal__source_word(int source)
{
	static const char *const words[PAL_N_SOURCES] = {"recompute", "spill", "hidden", "project"};
	return source >= 0 && source < PAL_N_SOURCES ? words[source] : "unknown";
}

json_t *pal__report_sources(const uint64_t *counts)
{
	json_t *o = json_object();
	for (int i = 0; i < PAL_N_SOURCES; i++)
		o = pal__json_with(o, pal__source_word(i), json_integer((whole)counts[i]));
	return o;
}

json_t *pal__report_json(const pal__report *r)
{
	json_t *ms = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "queue", 1e3 * r->queue_s, "load",
			       1e3 * r->load_s, "prefill", 1e3 * r->prefill_s, "generate",
			       1e3 * r->generate_s, "restore", 1e3 * r->restore_s, "commit",
			       1e3 * r->commit_s);
	json_t *o = json_pack(
		"{s:s, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
		"s:I, "
		"s:I, s:I, s:o}",
		"session", r->session, "log_length", (whole)r->length, "resident",
		(whole)r->resident, "evicted", (whole)r->evicted, "restored", (whole)r->restored,
		"restored_chunks", pal__report_sources(r->filled), "kept_reads",
		(whole)r->kept_reads, "fallbacks", (whole)r->fallbacks, "events", (whole)r->events,
		"committed", (whole)r->committed, "tokens_reused", (whole)r->reused,
		"tokens_reread", (whole)r->reread, "edits", (whole)r->edits, "drafted",
		(whole)r->made.drafted, "accepted", (whole)r->made.accepted, "forwards",
		(whole)r->made.forwards, "kv_bytes", (whole)r->kv_bytes, "scratch_bytes",
		(whole)r->scratch_bytes, "disk_bytes", (whole)r->disk_bytes, "ms", ms);
	if (*r->note)
		o = pal__json_with(o, "note", pal__json_text(r->note, strlen(r->note)));
	return o;
}

json_t *pal__usage_completion(const pal__usage *u)
{
	return json_pack("{s:I, s:I, s:I, s:{s:I}, s:{s:I}, s:o}", "prompt_tokens",
			 (whole)u->prompt, "completion_tokens", (whole)u->completion,
			 "total_tokens", (whole)(u->prompt + u->completion),
			 "prompt_tokens_details", "cached_tokens", (whole)u->cached,
			 "completion_tokens_details", "reasoning_tokens", (whole)u->reasoning,
			 "palimpsest", pal__report_json(&u->last));
}

json_t *pal__usage_response(const pal__usage *u)
{
	return json_pack("{s:I, s:I, s:I, s:{s:I}, s:{s:I}, s:o}", "input_tokens", (whole)u->prompt,
			 "output_tokens", (whole)u->completion, "total_tokens",
			 (whole)(u->prompt + u->completion), "input_tokens_details",
			 "cached_tokens", (whole)u->cached, "output_tokens_details",
			 "reasoning_tokens", (whole)u->reasoning, "palimpsest",
			 pal__report_json(&u->last));
}

/* Tokens that were read from the cache are not among the input tokens there. */
json_t *pal__usage_message(const pal__usage *u)
{
	return json_pack("{s:I, s:I, s:i, s:I, s:o}", "input_tokens",
			 (whole)(u->prompt - u->cached), "cache_read_input_tokens",
			 (whole)u->cached, "cache_creation_input_tokens", 0, "output_tokens",
			 (whole)u->completion, "palimpsest", pal__report_json(&u->last));
}
