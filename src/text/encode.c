/* pal__tokenize(): text to ids. */
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "text/merge.h"
#include "text/normalize.h"
#include "text/utf8.h"
#include "text/vocabulary.h"

#define SPACE_MARK "\xe2\x96\x81" /* U+2581, which text may hold too: a space like any */

/* Long texts have most of their words many times: what they became is kept. */
#define LONG_TEXT 8192 /* bytes */
#define WORDS 2048
#define WORD_BYTES 18
#define WORD_IDS 7

typedef struct {
	uint8_t n, n_ids; /* n 0: none */
	char s[WORD_BYTES];
	int32_t ids[WORD_IDS];
} word;

/* One call's state. */
struct run {
	const pal__tokenizer *t;
	int32_t *ids; /* [n_ids] */
	size_t n_ids, cap_ids;
	pal__merger merger;
	pal__pre_scan scan;
	pal__nfc nfc;
	word *words;  /* [WORDS] by their hash; NULL: a short text */
	char *spaced; /* spm: the text with its spaces as they merge */
	size_t cap_spaced;
	pal_error *err;
};

static pal_status no_memory(struct run *r)
{
	return pal__fail_memory(r->err, "tokens", r->cap_ids * sizeof *r->ids);
}

static pal_status emit(struct run *r, int32_t id)
{
	if (!pal__grow((void **)&r->ids, &r->cap_ids, r->n_ids + 1, sizeof *r->ids))
		return no_memory(r);
	r->ids[r->n_ids++] = id;
	return PAL_OK;
}

static pal_status no_token(struct run *r, char byte)
{
	return pal__fail(r->err, PAL_EUNSUPPORTED,
			 "the vocabulary has no token for byte 0x%02X and none for the unknown",
			 (uint8_t)byte);
}

/* --- byte-level BPE ----------------------------------------------------- */

static bool find_pair(const void *rules, const char *text, const pal__symbol *l,
		      const pal__symbol *r, uint32_t *rank, int32_t *id)
{
	const pal__tokenizer *t = rules;
	const struct pal__pair_slot *slot = pal__pair_map_find(&t->pairs, l->id, r->id);
	(void)text;
	if (!slot)
		return false;
	*rank = slot->rank;
	*id = slot->id;
	return true;
}

static pal_status emit_byte(struct run *r, char byte)
{
	int32_t id = r->t->byte_ids[(uint8_t)byte];
	if (id < 0)
		id = r->t->unk;
	return id < 0 ? no_token(r, byte) : emit(r, id);
}

static pal_status merge_piece(struct run *r, const char *s, size_t n)
{
	int32_t whole;
	if (r->t->pre.whole_first && (whole = pal__text_map_find(&r->t->text, s, n)) >= 0)
		return emit(r, whole);
	r->merger.n = 0;
	for (size_t i = 0; i < n; i++)
		if (!pal__merger_push(&r->merger, (uint32_t)i, 1, r->t->byte_ids[(uint8_t)s[i]]))
			return no_memory(r);
	if (!pal__merge(&r->merger, s, find_pair, r->t))
		return no_memory(r);
	for (int32_t i = 0; i >= 0; i = r->merger.symbols[i].next) {
		const pal__symbol *symbol = &r->merger.symbols[i];
		pal_status status =
			symbol->id >= 0 ? emit(r, symbol->id) : emit_byte(r, s[symbol->at]);
		if (status)
			return status;
	}
	return PAL_OK;
}

static pal_status encode_piece(struct run *r, const char *s, size_t n)
{
	if (!r->words || n > WORD_BYTES)
		return merge_piece(r, s, n);
	word *w = &r->words[XXH3_64bits(s, n) % WORDS];
	pal_status status = PAL_OK;
	if (w->n == n && !memcmp(w->s, s, n)) {
		for (int i = 0; i < w->n_ids && !status; i++)
			status = emit(r, w->ids[i]);
		return status;
	}
	size_t before = r->n_ids;
	status = merge_piece(r, s, n);
	size_t n_ids = r->n_ids - before;
	if (status || n_ids > WORD_IDS)
		return status;
	w->n = (uint8_t)n;
	w->n_ids = (uint8_t)n_ids;
	memcpy(w->s, s, n);
	memcpy(w->ids, r->ids + before, n_ids * sizeof *w->ids);
	return PAL_OK;
}

/* s[n]: valid UTF-8 */
static pal_status encode_valid(struct run *r, const char *s, size_t n)
{
	if (r->t->pre.nfc && !pal__nfc_trivial(s, n)) {
		if (!pal__nfc_set(&r->nfc, s, n))
			return no_memory(r);
		s = r->nfc.s;
		n = r->nfc.n;
	}
	pal__pre_scan_text(&r->scan, s, n);
	for (;;) {
		const char *piece;
		size_t len;
		pal_status status = pal__pre_scan_next(&r->scan, &piece, &len, r->err);
		if (status || len == 0)
			return status;
		if ((status = encode_piece(r, piece, len)))
			return status;
	}
}

/* Bytes that are no UTF-8 cut the text, and become the tokens of single bytes. */
static pal_status encode_byte_level(struct run *r, const char *s, size_t n)
{
	pal_status status = PAL_OK;
	for (size_t i = 0; i < n && !status;) {
		size_t valid = pal__utf8_valid(s + i, n - i);
		if (valid)
			status = encode_valid(r, s + i, valid);
		i += valid;
		size_t bad = pal__utf8_invalid(s + i, n - i);
		for (size_t k = 0; k < bad && !status; k++)
			status = emit_byte(r, s[i + k]);
		i += bad;
	}
	return status;
}

/* --- SentencePiece ------------------------------------------------------ */

static bool find_text(const void *rules, const char *text, const pal__symbol *l,
		      const pal__symbol *r, uint32_t *rank, int32_t *id)
{
	const pal__tokenizer *t = rules;
	int32_t found = pal__text_map_find(&t->text, text + l->at, (size_t)l->n + r->n);
	if (found < 0)
		return false;
	*rank = t->ranks[found];
	*id = found;
	return true;
}

/* A character that is no token: its bytes, if all have tokens, or the unknown token,
 * once for a row of them. */
static pal_status emit_fallback(struct run *r, const char *s, size_t n, bool *unknown)
{
	size_t have = 0;
	while (have < n && r->t->byte_ids[(uint8_t)s[have]] >= 0)
		have++;
	if (have < n && r->t->unk < 0)
		return no_token(r, s[have]);
	if (have < n) {
		bool again = *unknown;
		*unknown = true;
		return again ? PAL_OK : emit(r, r->t->unk);
	}
	*unknown = false;
	for (size_t i = 0; i < n; i++) {
		pal_status status = emit(r, r->t->byte_ids[(uint8_t)s[i]]);
		if (status)
			return status;
	}
	return PAL_OK;
}

/* s[n] with the dummy prefix and U+2581 as spaces, in r->spaced. */
static bool space_out(struct run *r, const char *s, size_t n, size_t *n_out)
{
	size_t k = 0;
	if (!pal__grow((void **)&r->spaced, &r->cap_spaced, n + 1, 1))
		return false;
	if (r->t->add_space_prefix)
		r->spaced[k++] = ' ';
	for (size_t i = 0; i < n; k++) {
		bool mark = s[i] == SPACE_MARK[0] && n - i >= 3 && !memcmp(s + i, SPACE_MARK, 3);
		r->spaced[k] = mark ? ' ' : s[i];
		i += mark ? 3 : 1;
	}
	*n_out = k;
	return true;
}

static pal_status encode_sentencepiece(struct run *r, const char *s, size_t n)
{
	bool unknown = false;
	if (!space_out(r, s, n, &n))
		return no_memory(r);
	r->merger.n = 0;
	for (size_t i = 0, len; i < n; i += len) {
		int c = pal__utf8_char(r->spaced + i, n - i);
		len = c > 0 ? (size_t)c : 1;
		int32_t id = c > 0 ? pal__text_map_find(&r->t->text, r->spaced + i, len) : -1;
		if (!pal__merger_push(&r->merger, (uint32_t)i, (uint32_t)len, id))
			return no_memory(r);
	}
	if (!pal__merge(&r->merger, r->spaced, find_text, r->t))
		return no_memory(r);
	for (int32_t i = 0; i >= 0; i = r->merger.symbols[i].next) {
		const pal__symbol *symbol = &r->merger.symbols[i];
		pal_status status;
		if (symbol->id < 0) {
			status = emit_fallback(r, r->spaced + symbol->at, symbol->n, &unknown);
		} else {
			unknown = false;
			status = emit(r, symbol->id);
		}
		if (status)
			return status;
	}
	return PAL_OK;
}

/* --- both --------------------------------------------------------------- */

/* Text without special tokens. */
static pal_status encode_plain(struct run *r, const char *s, size_t n)
{
	if (n == 0)
		return PAL_OK;
	return r->t->spm ? encode_sentencepiece(r, s, n) : encode_byte_level(r, s, n);
}

static pal_status encode(struct run *r, pal__searched *in, unsigned flags)
{
	const pal__tokenizer *t = r->t;
	pal_status s = PAL_OK;
	size_t from = 0;
	if ((flags & PAL_TOKENIZE_ADD) && t->add_bos && t->bos >= 0)
		s = emit(r, t->bos);
	while (!s) {
		size_t at = from;
		const pal__special *special = pal__specials_find(&t->specials, in, &at);
		s = encode_plain(r, in->s + from, (special ? at : in->n) - from);
		if (!special)
			break;
		if (!s)
			s = emit(r, special->id);
		from = at + special->n;
	}
	if (!s && (flags & PAL_TOKENIZE_ADD) && t->add_eos && t->eos >= 0)
		s = emit(r, t->eos);
	return s;
}

pal_status pal__tokenize(const pal__tokenizer *t, const char *text, size_t n, unsigned flags,
			 int32_t **ids, size_t *n_ids, pal_error *err)
{
	return pal__tokenize_mixed(t, text, n, NULL, 0, flags, ids, n_ids, err);
}

pal_status pal__tokenize_mixed(const pal__tokenizer *t, const char *text, size_t n,
			       const pal__stretch *plain, size_t n_plain, unsigned flags,
			       int32_t **ids, size_t *n_ids, pal_error *err)
{
	pal__searched in = {text, n, flags & PAL_TOKENIZE_SPECIAL, plain, n_plain};
	struct run r = {.t = t, .err = err};
	if (n > PAL__MAX_TEXT)
		return pal__fail(err, PAL_ELIMIT, "a text of %zu bytes: at most %zu are supported",
				 n, PAL__MAX_TEXT);
	pal_status s = t->spm ? PAL_OK : pal__pre_scan_init(&r.scan, &t->pre, err);
	if (!s && !pal__grow((void **)&r.ids, &r.cap_ids, n / 4 + 2, sizeof *r.ids))
		s = no_memory(&r);
	if (!s && n >= LONG_TEXT && !t->spm && !(r.words = pal__calloc(WORDS, sizeof *r.words)))
		s = pal__fail_memory(err, "words", WORDS * sizeof *r.words);
	if (!s)
		s = encode(&r, &in, flags);
	pal__pre_scan_free(&r.scan);
	pal__merger_free(&r.merger);
	pal__nfc_free(&r.nfc);
	pal__free(r.words);
	pal__free(r.spaced);
	if (s) {
		pal__free(r.ids);
		return s;
	}
	*ids = r.ids;
	*n_ids = r.n_ids;
	return PAL_OK;
}
