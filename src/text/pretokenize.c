#include "text/pretokenize.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

/* What goes into a character class. PCRE2 10.42 knows Unicode 14; the ranges after the
 * properties are what Unicode 16 adds. ASCII first: it is found in a bitmap. */
#define LETTERS                                                                                \
	"A-Za-z\\p{L}\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}"                \
	"\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}" \
	"\\x{1123f}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}"  \
	"\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}"   \
	"\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}"            \
	"\\x{16100}-\\x{1611d}\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}"             \
	"\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}" \
	"\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NUMBERS                                                                    \
	"0-9\\p{N}\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}" \
	"\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}"          \
	"\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"
/* Not \s: PCRE2's has U+180E, which lost the property White_Space in Unicode 6.3. */
#define SPACES                                                                          \
	"\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}" \
	"\\x{205f}\\x{3000}"

/* The last alternatives of all: white space but its last character before text. */
#define BLANKS "[" SPACES "]+(?![^" SPACES "])|[" SPACES "]+"

/* llama-bpe and qwen2 differ in how many digits make a piece. */
#define MODERN(digits)                                                       \
	"(?i:'s|'t|'re|'ve|'m|'ll|'d)"                                       \
	"|[^\\r\\n" LETTERS NUMBERS "]?[" LETTERS "]+"                       \
	"|[" NUMBERS "]" digits "| ?[^" SPACES LETTERS NUMBERS "]+[\\r\\n]*" \
	"|[" SPACES "]*[\\r\\n]+|" BLANKS

#define GPT2                                                        \
	"'s|'t|'re|'ve|'m|'ll|'d| ?[" LETTERS "]+| ?[" NUMBERS "]+" \
	"| ?[^" SPACES LETTERS NUMBERS "]+|" BLANKS

static const struct rule {
	const char *name, *piece, *digit;
	bool nfc, whole_first;
} rules[] = {
	{"qwen2", MODERN(""), NULL, .nfc = true},
	{"llama-bpe", MODERN("{1,3}"), NULL, .whole_first = true},
	{"gpt-2", GPT2, NULL, .nfc = false},
	{"default", GPT2, NULL, .nfc = false},
	{"smollm", GPT2, "[" NUMBERS "]", .nfc = false},
};

static void *take(PCRE2_SIZE n, void *user)
{
	(void)user;
	return pal__alloc(n);
}

static void give(void *p, void *user)
{
	(void)user;
	pal__free(p);
}

static pal_status compile(pcre2_compile_context *context, const char *pattern, pcre2_code **out,
			  pal_error *err)
{
	int code;
	PCRE2_SIZE at;
	*out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
			     PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &code, &at, context);
	if (!*out && code == PCRE2_ERROR_HEAP_FAILED)
		return pal__fail_memory(err, "a compiled pre-tokenizer", strlen(pattern));
	if (!*out)
		return pal__fail(err, PAL_EUNSUPPORTED,
				 "this PCRE2 cannot compile a pre-tokenizer: error %d at %zu", code,
				 (size_t)at);
	/* Where JIT is missing or forbidden the interpreter gives the same matches. */
	(void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
	return PAL_OK;
}

static pal_status compile_rule(pal__pre *p, const struct rule *rule, pal_error *err)
{
	p->memory = pcre2_general_context_create(take, give, NULL);
	p->limits = p->memory ? pcre2_match_context_create(p->memory) : NULL;
	pcre2_compile_context *context = p->memory ? pcre2_compile_context_create(p->memory) : NULL;
	if (!p->limits || !context) {
		pcre2_compile_context_free(context);
		return pal__fail_memory(err, "a pre-tokenizer", 0);
	}
	/* One match takes at most a few steps for every byte of the largest text. */
	pcre2_set_match_limit(p->limits, UINT32_MAX);
	pal_status s = compile(context, rule->piece, &p->piece, err);
	if (!s && rule->digit)
		s = compile(context, rule->digit, &p->digit, err);
	pcre2_compile_context_free(context);
	return s;
}

pal_status pal__pre_init(pal__pre *p, pal__str name, const char *file, pal_error *err)
{
	*p = (pal__pre){0};
	for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
		const struct rule *rule = &rules[i];
		if (strlen(rule->name) != name.n || memcmp(rule->name, name.s, name.n))
			continue;
		p->nfc = rule->nfc;
		p->whole_first = rule->whole_first;
		pal_status s = compile_rule(p, rule, err);
		if (s)
			pal__pre_free(p);
		return s;
	}
	return pal__fail(err, PAL_EUNSUPPORTED,
			 "%s: pre-tokenizer \"%.*s\" is not supported (supported: qwen2, "
			 "llama-bpe, gpt-2, default, smollm)",
			 file, name.n < 64 ? (int)name.n : 64, name.s);
}

void pal__pre_free(pal__pre *p)
{
	pcre2_code_free(p->piece);
	pcre2_code_free(p->digit);
	pcre2_match_context_free(p->limits);
	pcre2_general_context_free(p->memory);
	*p = (pal__pre){0};
}

pal_status pal__pre_scan_init(pal__pre_scan *scan, const pal__pre *p, pal_error *err)
{
	*scan = (pal__pre_scan){.pre = p, .match = pcre2_match_data_create(1, p->memory)};
	return scan->match ? PAL_OK : pal__fail_memory(err, "a pre-tokenizer's match", 0);
}

void pal__pre_scan_free(pal__pre_scan *scan)
{
	pcre2_match_data_free(scan->match);
	*scan = (pal__pre_scan){0};
}

void pal__pre_scan_text(pal__pre_scan *scan, const char *s, size_t n)
{
	scan->s = s;
	scan->n = n;
	scan->at = scan->digit = scan->after = 0;
}

/* The first match of code in s[n]: [*from, *to), both n when there is none. */
static pal_status match(pal__pre_scan *scan, const pcre2_code *code, const char *s, size_t n,
			size_t *from, size_t *to, pal_error *err)
{
	int rc = pcre2_match(code, (PCRE2_SPTR)s, n, 0, PCRE2_NO_UTF_CHECK, scan->match,
			     scan->pre->limits);
	*from = *to = n;
	if (rc == PCRE2_ERROR_NOMATCH)
		return PAL_OK;
	if (rc == PCRE2_ERROR_NOMEMORY)
		return pal__fail_memory(err, "a pre-tokenizer's match", n);
	if (rc < 0)
		return pal__fail(err, PAL_ELIMIT,
				 "the pre-tokenizer gave up on a text of %zu bytes: PCRE2 error %d",
				 n, rc);
	const PCRE2_SIZE *span = pcre2_get_ovector_pointer(scan->match);
	*from = span[0];
	*to = span[1];
	return PAL_OK;
}

/* smollm: finds the digit at or after `at`, if that is not the one known. */
static pal_status seek_digit(pal__pre_scan *scan, pal_error *err)
{
	size_t from, to;
	if (scan->after > scan->at)
		return PAL_OK;
	pal_status s = match(scan, scan->pre->digit, scan->s + scan->at, scan->n - scan->at, &from,
			     &to, err);
	if (s)
		return s;
	scan->digit = scan->at + from;
	scan->after = scan->at + to;
	return PAL_OK;
}

pal_status pal__pre_scan_next(pal__pre_scan *scan, const char **s, size_t *n, pal_error *err)
{
	size_t end = scan->n, from, to;
	*s = scan->s + scan->at;
	*n = 0;
	if (scan->at == scan->n)
		return PAL_OK;
	if (scan->pre->digit) {
		pal_status status = seek_digit(scan, err);
		if (status)
			return status;
		end = scan->digit;
	}
	if (end == scan->at) {
		to = scan->after - scan->at;
	} else {
		pal_status status =
			match(scan, scan->pre->piece, *s, end - scan->at, &from, &to, err);
		if (status)
			return status;
		if (from > 0)
			to = from; /* what no rule matches is a piece too */
	}
	*n = to;
	scan->at += to;
	return PAL_OK;
}
