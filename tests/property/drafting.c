/* Drafting against plain decoding (contract C3): whatever is drafted, and by whom, tokens, text,
 * reasons to stop, events and logits are those of a session without a drafter, to the bit.
 *
 *   drafting [--seed N] [--rounds N] MODEL...
 *
 * A round is a random program on two sessions of the same options, of which one has a drafter and
 * the other none, nor its number of threads, instruction set or batch: appends, truncations,
 * generation with stops of all kinds, pal_verify, restoration, events of random chunks, going back
 * to a mark, another session that uses the drafter meanwhile, and at last a disk that fails while
 * tokens are drafted: what then is there is what a replay of log and events gives. The drafter has
 * one or more random sources. One of them is hostile: it knows what plain decoding said, and drafts
 * it with mistakes, ids that are none, ends of sequences, or noise, and leaves rubbish wherever a
 * source may write. Half of the drafters draft always, whatever their controllers have learnt.
 * Speaks TAP. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/disk.h"
#include "draft/drafter.h"
#include "draft/indexing.h"
#include "programs.h"
#include "text/utf8.h"

#define MAX_LOG 1500
#define STEPS 12
#define HEARD ((size_t)1 << 16)

/* What a full run must have seen. */
enum {
	EVICTED,       /* steps with something evicted */
	AMID,          /* events between the tokens of a generation with drafts */
	CUT_END,       /* drafts that were cut by an end of sequence, ... */
	CUT_STRING,    /* a stop string, */
	CUT_CALLER,    /* and a callback */
	LIMITED,       /* limits reached by generations with drafts */
	TRUNCATED,     /* truncations after a generation with drafts */
	VERIFIED,      /* tokens that pal_verify foresaw */
	FAILED,        /* generations with drafts that failed */
	HALF_FORESEEN, /* calls of it that foresaw some of a draft */
	N_LIVE
};
static const char *const live_names[N_LIVE] = {"steps with something evicted",
					       "events between drafts",
					       "drafts cut by an end",
					       "drafts cut by a stop string",
					       "drafts cut by a caller",
					       "limits",
					       "truncations of what was drafted",
					       "tokens verified",
					       "failures amid drafts",
					       "drafts half verified"};

enum { HOSTILE, NGRAM, SUFFIX, CORPUS, EXIT, MODEL, N_KINDS };
static const char *const kind_names[N_KINDS] = {"hostile", "ngram", "suffix",
						"corpus",  "exit",  "model"};

static struct {
	uint64_t seen[N_LIVE], drafted[N_KINDS], accepted[N_KINDS];
} live;

/* One of the two sessions. */
typedef struct {
	pal_model *model, *proposer;
	pal_session *s;
	uint8_t heard[HEARD]; /* what on_token was told by the last generation */
	size_t n_heard;
	int calls, stop_after;
	uint64_t events_before; /* its first token */
	float *rows;            /* [MAX_LOG][n_vocab] of an append */
} side;

typedef struct {
	side sides[2]; /* with a drafter, and without */
	const char *const *paths;
	size_t n_paths;
	size_t path; /* of the model */
	char side_car[32], corpus[32];
	uint64_t state; /* of the random numbers */
	pal_session_options o;
	pal_drafter *d;
	int kinds[PAL__DRAFT_SOURCES];
	int32_t n_vocab, end;
	int64_t n;       /* tokens of the log */
	bool fresh;      /* the log's end was generated with drafts */
	char text[4096]; /* of the last generation, to take stop strings from */
	size_t n_text;
	char did[200], with[100], wrong[1000];
} program;

static int64_t below(program *p, int64_t n)
{
	return random_below(&p->state, n);
}

static bool wrong(program *p, const char *what, const char *detail)
{
	if (!p->wrong[0])
		snprintf(p->wrong, sizeof p->wrong, "after %s at %lld tokens, drafter %s: %s %s",
			 p->did, (long long)p->n, p->with, what, detail);
	return false;
}

/* --- the hostile source ----------------------------------------------------------------- */

typedef struct {
	pal__draft_source source;
	program *p;
} hostile;

/* Rubbish wherever a source may write. */
static void scribble(program *p, const pal__draft_view *v)
{
	int n = 1 + (int)below(p, v->room);
	const pal__tap tap = {.n_layers = (size_t)below(p, (int64_t)v->verifier->h.n_layers)};
	for (int i = 0; i < n; i++)
		v->rows[i] = (pal__row){
			.token = (int32_t)below(p, p->n_vocab), .pos = v->n - 1 + i, .kv = v->kv};
	pal__forward(v->verifier, v->scratch, v->rows, n, &tap);
}

static int32_t bad_id(program *p)
{
	const int32_t ids[] = {-1, INT32_MIN, INT32_MAX, p->n_vocab, p->n_vocab + 1, p->end};
	return ids[below(p, 6)];
}

/* What plain decoding has at a place, as far as that is known. */
static int32_t truth(program *p, int64_t at)
{
	const pal_session *plain = p->sides[1].s;
	return at < pal_session_length(plain) ? pal_session_log(plain)[at]
					      : (int32_t)below(p, p->n_vocab);
}

static int propose(pal__draft_source *source, const pal__draft_view *v, int32_t *out, uint8_t *sure,
		   int most)
{
	program *p = ((hostile *)source)->p;
	int64_t kind = below(p, 8), wrong_at = below(p, most);
	int32_t one = (int32_t)below(p, p->n_vocab);
	for (int i = 0; i < PAL__DRAFT_MOST; i++) {
		sure[i] = (uint8_t)below(p, below(p, 2) ? PAL__DRAFT_BUCKETS : 256);
		if (kind < 5)
			out[i] = truth(p, v->n + i);
		else if (kind == 5)
			out[i] = p->end;
		else
			out[i] = kind == 6 ? one : (int32_t)below(p, p->n_vocab);
	}
	if (kind == 1 || kind == 2)
		out[wrong_at] = kind == 1 ? bad_id(p) : one;
	if (below(p, 2))
		scribble(p, v);
	/* More than was asked for, less than nothing. */
	return below(p, 8) ? most : (int)below(p, 2 * PAL__DRAFT_MOST) - PAL__DRAFT_MOST;
}

static void observe(pal__draft_source *source, const int32_t *log, int64_t from, int64_t n)
{
	(void)source, (void)log, (void)from, (void)n;
}

static void close_hostile(pal__draft_source *source)
{
	pal__free(source);
}

static pal_status open_hostile(program *p, pal__draft_source **out)
{
	hostile *h = pal__alloc(sizeof *h);
	if (!h)
		exit(1);
	*h = (hostile){{"hostile", propose, observe, close_hostile}, p};
	*out = &h->source;
	return PAL_OK;
}

/* --- drafters --------------------------------------------------------------------------- */

/* Documents of runs with short periods, as random models like to say. */
static bool write_corpus(program *p, pal_error *err)
{
	pal__corpus_text t = {0};
	pal_status s = PAL_OK;
	for (int i = 0; i < 30 && !s; i++) {
		int32_t ids[24];
		int64_t period = 1 + below(p, 3);
		for (int64_t k = 0; k < 24; k++)
			ids[k] = k < period ? (int32_t)below(p, p->n_vocab) : ids[k - period];
		s = pal__corpus_add(&t, ids, 24, err);
		s = s ? s : pal__corpus_end(&t, err);
	}
	if (!s)
		s = pal__corpus_write(&t, p->sides[0].model->tokenizer, p->corpus, NULL, NULL, err);
	pal__corpus_text_free(&t);
	return !s;
}

static pal_status open_source(program *p, int kind, pal__draft_source **out, pal_error *err)
{
	const pal_model *m = p->sides[0].model;
	size_t window = 1 + (size_t)below(p, 400);
	if (kind == HOSTILE)
		return open_hostile(p, out);
	if (kind == NGRAM)
		return pal__draft_ngram(window, out, err);
	if (kind == SUFFIX || kind == CORPUS)
		return pal__draft_suffix(m, window, kind == CORPUS ? p->corpus : NULL, out, err);
	if (kind == EXIT)
		return pal__draft_exit(m, 1 + (int)below(p, (int64_t)m->h.n_layers - 1), out, err);
	/* Another model drafts if it has the same vocabulary, else the same one. */
	pal_status s =
		pal__draft_model(m, p->paths[below(p, (int64_t)p->n_paths)], window, out, err);
	return s == PAL_EINVAL ? pal__draft_model(m, p->paths[p->path], window, out, err) : s;
}

/* Counts what the drafter did, and closes it. */
static void close_drafter(program *p)
{
	pal_draft_stats t;
	for (size_t i = 0; p->d && pal_drafter_stats(p->d, i, &t); i++) {
		live.drafted[p->kinds[i]] += t.drafted;
		live.accepted[p->kinds[i]] += t.accepted;
	}
	pal_drafter_close(p->d);
	p->d = NULL;
}

static bool open_drafter(program *p)
{
	pal__draft_source *sources[PAL__DRAFT_SOURCES];
	pal_error err;
	size_t n = 1 + (size_t)(below(p, 2) ? 0 : below(p, 4));
	close_drafter(p);
	p->with[0] = 0;
	for (size_t i = 0; i < n; i++) {
		p->kinds[i] = (int)below(p, N_KINDS);
		size_t at = strlen(p->with);
		snprintf(p->with + at, sizeof p->with - at, "%s%s", i ? "," : "",
			 kind_names[p->kinds[i]]);
		if (!open_source(p, p->kinds[i], &sources[i], &err))
			continue;
		while (i--)
			sources[i]->close(sources[i]);
		return wrong(p, "no drafter:", err.text);
	}
	if (pal__drafter_of(p->sides[0].model, sources, n, 1 + (int)below(p, PAL__DRAFT_MOST),
			    &p->d, &err))
		return wrong(p, "no drafter:", err.text);
	p->d->always = below(p, 2);
	return true;
}

/* --- comparing -------------------------------------------------------------------------- */

static bool same_rows(program *p, const float *got, const float *want, int64_t n, const char *what)
{
	for (int64_t i = 0; i < n * p->n_vocab; i++)
		if (memcmp(got + i, want + i, sizeof *got)) {
			char text[160];
			snprintf(text, sizeof text, "row %lld, logit %lld is %a instead of %a",
				 (long long)(i / p->n_vocab), (long long)(i % p->n_vocab),
				 (double)got[i], (double)want[i]);
			return wrong(p, what, text);
		}
	return true;
}

static bool same_events(program *p)
{
	const pal_session *a = p->sides[0].s, *b = p->sides[1].s;
	uint64_t n = pal_session_n_events(a);
	if (n != pal_session_n_events(b))
		return wrong(p, "another number of events", "");
	for (uint64_t i = 0; i < n; i++) {
		pal_event x, y;
		if (pal_session_event(a, i, &x, NULL) || pal_session_event(b, i, &y, NULL))
			return wrong(p, "an event cannot be read", "");
		if (memcmp(&x, &y, sizeof x) != 0)
			return wrong(p, "another event", "");
	}
	return true;
}

static bool same_stats(program *p)
{
	pal_session_stats x, y;
	pal_session_get_stats(p->sides[0].s, &x);
	pal_session_get_stats(p->sides[1].s, &y);
	live.seen[EVICTED] += x.evicted > 0;
	const pal__restore *ra = &p->sides[0].s->restore, *rb = &p->sides[1].s->restore;
	if (ra->hidden.first != rb->hidden.first || ra->spill.first != rb->spill.first ||
	    ra->hidden.newest != rb->hidden.newest)
		printf("# DIFF src %d hidden cap %lld first %lld %lld newest %lld %lld; spill cap "
		       "%lld first %lld %lld; dropped %llu %llu; n %lld\n",
		       (int)p->o.source, (long long)ra->hidden.capacity,
		       (long long)ra->hidden.first, (long long)rb->hidden.first,
		       (long long)ra->hidden.newest, (long long)rb->hidden.newest,
		       (long long)ra->spill.capacity, (long long)ra->spill.first,
		       (long long)rb->spill.first, (unsigned long long)x.dropped,
		       (unsigned long long)y.dropped, (long long)p->n);
	if (x.resident != y.resident || x.evicted != y.evicted || x.restored != y.restored ||
	    x.rounds != y.rounds || memcmp(x.filled, y.filled, sizeof x.filled) != 0 ||
	    x.fallbacks != y.fallbacks)
		return wrong(p, "other statistics", "");
	if (x.dropped != y.dropped || x.far_reads != y.far_reads) {
		char text[120];
		snprintf(text, sizeof text, "%llu dropped instead of %llu, %llu reads of %llu",
			 (unsigned long long)x.dropped, (unsigned long long)y.dropped,
			 (unsigned long long)x.far_reads, (unsigned long long)y.far_reads);
		return wrong(p, "other statistics:", text);
	}
	return true;
}

static bool check(program *p)
{
	const pal_session *a = p->sides[0].s, *b = p->sides[1].s;
	const float *x = pal_session_logits(a), *y = pal_session_logits(b);
	p->n = pal_session_length(b);
	if (pal_session_length(a) != p->n ||
	    memcmp(pal_session_log(a), pal_session_log(b), (size_t)p->n * sizeof(int32_t)) != 0)
		return wrong(p, "another log", "");
	if (!x != !y)
		return wrong(p, "logits, or none", "");
	return same_events(p) && same_stats(p) && (!x || same_rows(p, x, y, 1, "last logits:"));
}

/* What both calls returned, and what is there then. */
static bool settle(program *p, pal_status a, pal_status b, const pal_error *err)
{
	if (a != b)
		return wrong(p, a ? "an error: " : "no error, but plainly: ", err[a ? 0 : 1].text);
	return check(p);
}

/* --- the steps -------------------------------------------------------------------------- */

static bool append(program *p)
{
	static const int64_t sizes[] = {1, 1, 2, 5, 31, 63, 64, 65, 130, 300};
	int64_t n = sizes[below(p, 10)], room = p->o.n_ctx - 20 - p->n;
	int32_t ids[MAX_LOG];
	pal_error err[2];
	pal_status got[2];
	bool all = below(p, 3) == 0;
	if (!p->n && p->o.window > 500) /* so that something is evicted */
		n = p->o.sink + p->o.window + 20;
	/* Blocks' borders are where K/V and files change: half of what is generated begins there.
	 */
	else if (below(p, 2))
		n = PAL__ATTN_BLOCK - (p->n + below(p, 6)) % PAL__ATTN_BLOCK;
	n = n < room ? n : room;
	if (n < 1)
		return true;
	for (int64_t i = 0; i < n; i++)
		ids[i] = (int32_t)below(p, p->n_vocab);
	snprintf(p->did, sizeof p->did, "appending %lld", (long long)n);
	for (int i = 0; i < 2; i++)
		got[i] = pal_session_append(p->sides[i].s, ids, (size_t)n,
					    all ? p->sides[i].rows : NULL, NULL, NULL, &err[i]);
	p->fresh = false;
	return settle(p, got[0], got[1], err) &&
	       (!all || same_rows(p, p->sides[0].rows, p->sides[1].rows, n, "appended:"));
}

static bool truncate_log(program *p)
{
	static const int64_t most[] = {40, 140, MAX_LOG};
	int64_t back = most[below(p, 3)], n = p->n - below(p, (p->n < back ? p->n : back) + 1);
	pal_error err[2];
	pal_status got[2];
	snprintf(p->did, sizeof p->did, "truncating to %lld", (long long)n);
	live.seen[TRUNCATED] += p->fresh && n < p->n;
	for (int i = 0; i < 2; i++)
		got[i] = pal_session_truncate(p->sides[i].s, n, &err[i]);
	return settle(p, got[0], got[1], err) && (!below(p, 4) || append(p));
}

static bool restore(program *p)
{
	pal_error err[2];
	pal_status got[2];
	snprintf(p->did, sizeof p->did, "restoring");
	for (int i = 0; i < 2; i++)
		got[i] = pal_session_restore(p->sides[i].s, &err[i]);
	return settle(p, got[0], got[1], err);
}

static bool apply(program *p)
{
	pal_event e = {.position = p->n};
	pal_error err[2];
	pal_status got[2];
	int64_t reread = 1 + below(p, 32);
	e.reread = (int32_t)(reread < p->n ? reread : p->n);
	snprintf(p->did, sizeof p->did, "an event that reads %d again", e.reread);
	if (p->o.kv_policy != PAL_KV_RESTORED || !p->n)
		return true;
	pal__restore *r = &p->sides[0].s->restore;
	int64_t end = pal__restore_end(r, p->n - e.reread);
	for (int64_t c = 0; c * PAL_CHUNK < end && e.n_chunks < r->slots; c++)
		if (!below(p, 4)) {
			e.sources[e.n_chunks] =
				(uint8_t)(below(p, 2) ? PAL_SOURCE_RECOMPUTE : p->o.source);
			e.chunks[e.n_chunks++] = (int32_t)c;
		}
	for (int i = 0; i < 2; i++)
		got[i] = pal_session_apply(p->sides[i].s, &e, &err[i]);
	return settle(p, got[0], got[1], err);
}

static bool on_token(void *user, int32_t id, const char *text, size_t n)
{
	side *x = user;
	uint8_t size = (uint8_t)n;
	if (x->n_heard + n + 5 > HEARD || n > UINT8_MAX)
		exit(1);
	if (!x->calls)
		x->events_before = pal_session_n_events(x->s);
	memcpy(x->heard + x->n_heard, &id, sizeof id);
	memcpy(x->heard + x->n_heard + 4, &size, sizeof size);
	memcpy(x->heard + x->n_heard + 5, text, n);
	x->n_heard += n + 5;
	return ++x->calls != x->stop_after;
}

/* What may come up again: random models repeat themselves. */
static void remember_text(program *p)
{
	const side *x = &p->sides[1];
	p->n_text = 0;
	for (size_t at = 0; at < x->n_heard;) {
		size_t n = x->heard[at + 4];
		if (p->n_text + n > sizeof p->text)
			break;
		memcpy(p->text + p->n_text, x->heard + at + 5, n);
		p->n_text += n;
		at += n + 5;
	}
}

/* Up to 3 stop strings. */
static size_t draw_stops(program *p, char text[3][8], const char **stops)
{
	size_t n = 0, most = (size_t)below(p, 4);
	for (size_t i = 0; i < most && p->n_text; i++) {
		size_t at = (size_t)below(p, (int64_t)p->n_text), size = 1 + (size_t)below(p, 6);
		size = size < p->n_text - at ? size : p->n_text - at;
		memcpy(text[n], p->text + at, size);
		size = pal__utf8_valid(text[n], size);
		text[n][size] = 0;
		stops[n] = text[n];
		n += text[n][0] != 0;
	}
	return n;
}

static pal_sampling draw_sampling(program *p)
{
	pal_sampling s = pal_sampling_default();
	static const float temperatures[] = {0, 0, 0, 0.2f, 0.7f, 1, 3};
	s.temperature = temperatures[below(p, 7)];
	s.top_k = below(p, 2) ? 0 : (int32_t)(1 + below(p, 40));
	s.top_p = below(p, 2) ? 1 : 0.5f;
	s.min_p = below(p, 2) ? 0 : 0.1f;
	s.repeat_penalty = below(p, 3) ? 1 : 1.3f;
	s.repeat_last = 1 + (int32_t)below(p, 80);
	s.seed = random_next(&p->state);
	return s;
}

/* Counts what the two equal generations have shown. */
static void count(program *p, const pal_generate_result *r)
{
	const pal_drafter *d = p->d;
	live.seen[AMID] +=
		r->drafted ? pal_session_n_events(p->sides[0].s) - p->sides[0].events_before : 0;
	live.seen[LIMITED] += r->drafted && r->stop == PAL_STOP_LIMIT;
	/* The last pass kept so many of its draft: was there more? */
	int64_t kept = p->n - d->at;
	if (!d->always || d->chosen == d->n_sources || kept >= d->guesses[d->chosen].n)
		return;
	live.seen[CUT_END] += r->stop == PAL_STOP_END;
	live.seen[CUT_STRING] += r->stop == PAL_STOP_STRING;
	live.seen[CUT_CALLER] += r->stop == PAL_STOP_CANCELLED;
}

static bool generate(program *p)
{
	char text[3][8];
	const char *stops[3];
	pal_error err[2];
	pal_status got[2];
	pal_generate_result r[2] = {0};
	pal_generate_options o = {.sampling = draw_sampling(p),
				  .max_tokens = 1 + below(p, below(p, 4) ? 12 : 60),
				  .stops = stops,
				  .n_stops = draw_stops(p, text, stops),
				  .ignore_end = below(p, 2),
				  .on_token = on_token};
	if (p->o.n_ctx - p->n < 80 && below(p, 2))
		o.max_tokens = 0;
	int stop_after = below(p, 3) ? 0 : 1 + (int)below(p, 12);
	snprintf(p->did, sizeof p->did,
		 "generating up to %lld, temperature %g, %zu stops, cancelled after %d",
		 (long long)o.max_tokens, (double)o.sampling.temperature, o.n_stops, stop_after);
	/* Plainly first, since the hostile source knows. */
	for (int i = 1; i >= 0; i--) {
		side *x = &p->sides[i];
		x->n_heard = 0;
		x->calls = 0;
		x->stop_after = stop_after;
		o.user = x;
		o.drafter = i ? NULL : p->d;
		got[i] = pal_generate(x->s, &o, &r[i], &err[i]);
	}
	if (!settle(p, got[0], got[1], err))
		return false;
	if (r[0].n_tokens != r[1].n_tokens || r[0].stop != r[1].stop)
		return wrong(p, "another end", "");
	if (p->sides[0].n_heard != p->sides[1].n_heard ||
	    memcmp(p->sides[0].heard, p->sides[1].heard, p->sides[0].n_heard) != 0)
		return wrong(p, "the caller was told other things", "");
	p->fresh = r[0].drafted > 0;
	if (!got[0] && r[0].n_tokens)
		count(p, &r[0]);
	remember_text(p);
	return true;
}

/* pal_verify token by token without a draft, and with drafts that know it. */
static bool verify(program *p)
{
	const pal_sampling sampling = draw_sampling(p);
	int32_t out[40], draft[40];
	int64_t from = p->n, room = p->o.n_ctx - p->n, most = 1 + below(p, 20);
	pal_error err;
	size_t n;
	snprintf(p->did, sizeof p->did, "verifying %lld", (long long)most);
	if (!pal_session_logits(p->sides[1].s))
		return true;
	most = most < room ? most : room;
	for (int64_t i = 0; i < most; i++)
		if (pal_verify(p->sides[1].s, &sampling, NULL, 0, out, &n, &err) || n != 1)
			return wrong(p, "plainly:", err.text);
	while (pal_session_length(p->sides[0].s) < from + most) {
		int64_t at = pal_session_length(p->sides[0].s), left = from + most - at;
		int64_t ask = below(p, left + 1);
		for (int64_t i = 0; i < ask; i++)
			draft[i] = below(p, 12) ? truth(p, at + i) : bad_id(p);
		if (pal_verify(p->sides[0].s, &sampling, draft, (size_t)ask, out, &n, &err))
			return wrong(p, "refused:", err.text);
		if (n < 1 || (int64_t)n > (ask ? ask : 1) ||
		    memcmp(out, pal_session_log(p->sides[0].s) + at, n * sizeof *out) != 0)
			return wrong(p, "other tokens were reported", "");
		live.seen[VERIFIED] += n - 1;
		live.seen[HALF_FORESEEN] += n > 1 && (int64_t)n < ask;
	}
	return check(p);
}

static bool mark(program *p)
{
	pal__mark m[2];
	pal_error err;
	for (int i = 0; i < 2; i++)
		if (pal__session_mark(p->sides[i].s, &m[i], &err))
			return wrong(p, "no mark:", err.text);
	bool good = generate(p) && append(p) && generate(p);
	for (int i = 0; i < 2; i++) {
		pal__session_rewind(p->sides[i].s, &m[i]);
		pal__mark_free(&m[i]);
	}
	snprintf(p->did, sizeof p->did, "going back to a mark");
	p->fresh = false;
	return good && check(p);
}

/* The drafter sees another log for a while, which may begin with the same tokens. */
static bool elsewhere(program *p)
{
	pal_session *s;
	pal_error err;
	const pal_session_options full = {.n_ctx = MAX_LOG};
	const pal_generate_options o = {.sampling = draw_sampling(p),
					.max_tokens = 1 + below(p, 20),
					.ignore_end = true,
					.drafter = p->d};
	int32_t ids[100];
	int64_t n = 1 + below(p, 100), same = below(p, (p->n < n ? p->n : n) + 1);
	for (int64_t i = 0; i < n; i++)
		ids[i] = i < same ? pal_session_log(p->sides[0].s)[i]
				  : (int32_t)below(p, p->n_vocab);
	snprintf(p->did, sizeof p->did, "drafting elsewhere");
	if (pal_session_open(p->sides[0].model, &full, &s, &err))
		return wrong(p, "no session:", err.text);
	bool good = !pal_session_append(s, ids, (size_t)n, NULL, NULL, NULL, &err) &&
		    !pal_generate(s, &o, NULL, &err);
	pal_session_close(s);
	return good ? check(p) : wrong(p, "refused:", err.text);
}

/* The disk fails while tokens are generated, which then are those of log and events. */
static bool bad_disk(program *p)
{
	const pal_generate_options o = {.sampling = draw_sampling(p),
					.max_tokens = 20 + below(p, 40),
					.ignore_end = true,
					.drafter = p->d};
	pal_session *s = p->sides[0].s, *judge;
	pal_error err;
	snprintf(p->did, sizeof p->did, "a failing disk");
	pal__disk_fail_after(below(p, 100));
	bool failed = pal_generate(s, &o, NULL, NULL) == PAL_EIO;
	pal__disk_fail_after(-1);
	live.seen[FAILED] += failed && pal_session_length(s) > p->n;
	pal_session_close(p->sides[1].s);
	p->sides[1].s = NULL;
	pal_session_options replayed = p->o;
	/* The events say what was restored, and what was read again. */
	replayed.restore_prefill = false;
	replayed.reread = 128;
	if (pal_session_open(p->sides[1].model, &replayed, &judge, &err))
		return wrong(p, "no session:", err.text);
	p->sides[1].s = judge;
	if (!replay(&p->state, s, judge, &err))
		return wrong(p, "a replay:", err.text);
	p->n = pal_session_length(s);
	return same_events(p) &&
	       same_rows(p, pal_session_logits(s), pal_session_logits(judge), 1, "last logits:");
}

static bool step(program *p)
{
	static bool (*const steps[])(program *) = {append,   append,   truncate_log, restore,
						   apply,    mark,     elsewhere,    open_drafter,
						   generate, generate, generate,     generate,
						   generate, generate, verify,       verify};
	return p->n + 320 > p->o.n_ctx && !below(p, 4) ? truncate_log(p) : steps[below(p, 16)](p);
}

/* --- the rounds ------------------------------------------------------------------------- */

static void draw_options(program *p)
{
	int64_t policy = below(p, 5);
	p->o = random_options(&p->state);
	p->o.rounds = (int)below(p, 3);
	p->o.no_restore_generated = below(p, 8) == 0;
	/* With such a window a pass may reach over the border of a block. */
	if (below(p, 4) == 0)
		p->o.window = 512 + below(p, 100);
	if (below(p, 2))
		p->o.disk_budget = 1 + (uint64_t)below(p, 200000);
	if (policy == 0)
		p->o = (pal_session_options){.kv_type = p->o.kv_type};
	else if (policy == 1)
		p->o.kv_policy = PAL_KV_WINDOW;
	else
		p->o.side_car = p->side_car;
	p->o.n_ctx = 500 + p->o.window + below(p, 300);
}

static bool open_sides(program *p)
{
	pal_error err;
	bool proposer = p->o.kv_policy == PAL_KV_RESTORED && below(p, 2);
	if (!random_side(&p->state, p->side_car, p->sides[0].model,
			 proposer ? p->sides[0].proposer : NULL, &err))
		return wrong(p, "no side-car:", err.text);
	if (!write_corpus(p, &err))
		return wrong(p, "no corpus:", err.text);
	for (int i = 0; i < 2; i++) {
		side *x = &p->sides[i];
		p->o.proposer = proposer ? x->proposer : NULL;
		p->o.n_batch = 1 + (int)below(p, 200);
		x->rows = pal__alloc(MAX_LOG * (size_t)p->n_vocab * sizeof *x->rows);
		if (!x->rows)
			exit(1);
		if (pal_session_open(x->model, &p->o, &x->s, &err))
			return wrong(p, "refused:", err.text);
	}
	return true;
}

static bool play(program *p)
{
	draw_options(p);
	snprintf(p->did, sizeof p->did, "opening");
	bool good = open_sides(p) && open_drafter(p) && append(p);
	for (int i = 0; i < STEPS && good; i++)
		good = step(p);
	/* What is in the K/V now decides what comes next. */
	good = good && append(p) && generate(p) && append(p);
	if (good && p->o.kv_policy != PAL_KV_FULL && pal_session_logits(p->sides[0].s))
		good = bad_disk(p);
	close_drafter(p);
	for (int i = 0; i < 2; i++) {
		pal_session_close(p->sides[i].s);
		pal__free(p->sides[i].rows);
	}
	return good;
}

static void make_file(char *path, const char *template)
{
	strcpy(path, template);
	int fd = mkstemp(path);
	if (fd < 0)
		exit(1);
	close(fd);
}

static void load_models(program *p, size_t proposer)
{
	for (int i = 0; i < 2; i++) {
		const pal_model_options o = {.n_threads = 1 + (int)below(p, 4),
					     .isa = random_isa(&p->state)};
		p->sides[i].model = load(p->paths[p->path], o);
		p->sides[i].proposer = load(p->paths[proposer], o);
	}
	p->n_vocab = (int32_t)p->sides[0].model->h.n_vocab;
	for (p->end = p->n_vocab - 1; p->end > 0; p->end--)
		if (pal_token_is_end(p->sides[0].model, p->end))
			break;
}

static bool run_round(const char *const *paths, size_t n_paths, uint64_t seed, char *label)
{
	static program p;
	pal_model_info info[2];
	p = (program){.state = seed * 0x9e3779b97f4a7c15u,
		      .paths = paths,
		      .n_paths = n_paths,
		      .path = seed % n_paths};
	make_file(p.side_car, "/tmp/pal-side-XXXXXX");
	make_file(p.corpus, "/tmp/pal-corpus-XXXXXX");
	load_models(&p, (seed + seed / n_paths) % n_paths);
	bool good = play(&p);
	for (int i = 0; i < 2; i++)
		pal_model_get_info(p.sides[i].model, &info[i]);
	snprintf(label, 1500,
		 "seed %llu: %s, %s (plainly %s), policy %d, context %lld, sinks %lld, window "
		 "%lld, %d slots, type %d, source %d%s, selection %d, %s%s%s %s",
		 (unsigned long long)seed, info[0].arch, info[0].isa, info[1].isa,
		 (int)p.o.kv_policy, (long long)p.o.n_ctx, (long long)p.o.sink,
		 (long long)p.o.window, p.o.slots, (int)p.o.kv_type, (int)p.o.source,
		 p.o.proposer ? " with a proposer" : "", (int)p.o.selection,
		 p.o.positions ? "original" : "compact", p.o.restore_prefill ? ", prefill" : "",
		 p.o.disk_budget ? ", disk budget" : "", p.wrong);
	unlink(p.side_car);
	unlink(p.corpus);
	for (int i = 0; i < 2; i++) {
		pal_model_close(p.sides[i].proposer);
		pal_model_close(p.sides[i].model);
	}
	return good;
}

/* Whether all was tried that there is to try. */
static bool lively(void)
{
	bool good = true;
	for (int i = 0; i < N_LIVE; i++) {
		printf("# %llu %s\n", (unsigned long long)live.seen[i], live_names[i]);
		good = good && live.seen[i];
	}
	for (int i = 0; i < N_KINDS; i++) {
		printf("# %s: %llu tokens drafted, %llu accepted\n", kind_names[i],
		       (unsigned long long)live.drafted[i], (unsigned long long)live.accepted[i]);
		good = good && live.accepted[i] && live.accepted[i] < live.drafted[i];
	}
	return good;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1, rounds = 60;
	int first = 1, failures = 0;
	for (; first + 1 < argc && !strncmp(argv[first], "--", 2); first += 2) {
		uint64_t value = strtoull(argv[first + 1], NULL, 10);
		*(strcmp(argv[first], "--seed") ? &rounds : &seed) = value;
	}
	if (first >= argc || !rounds) {
		fprintf(stderr, "usage: drafting [--seed N] [--rounds N] MODEL...\n");
		return 2;
	}
	int64_t mem = pal__mem_live();
	printf("1..%llu\n", (unsigned long long)rounds + 1);
	for (uint64_t i = 0; i < rounds; i++) {
		char label[1500];
		bool good = run_round((const char *const *)argv + first, (size_t)(argc - first),
				      seed + i, label);
		failures += !good;
		printf("%s %llu - %s\n", good ? "ok" : "not ok", (unsigned long long)i + 1, label);
		fflush(stdout);
	}
	bool good = lively() && pal__mem_live() == mem;
	printf("%s %llu - nothing leaked, and nothing was left out\n", good ? "ok" : "not ok",
	       (unsigned long long)rounds + 1);
	return failures || !good;
}
