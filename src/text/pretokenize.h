/* Pre-tokenizers: cut text into the pieces that byte-level BPE merges within.
 *
 * The rules are the regular expressions of the tokenizers themselves, run by PCRE2,
 * with the letters, numbers and white space that Hugging Face's regex engine knows
 * (Unicode 16) whatever Unicode version PCRE2 has. A pre-tokenizer is immutable and may
 * be used by any threads; a scan belongs to one.
 */
#ifndef PAL_TEXT_PRETOKENIZE_H
#define PAL_TEXT_PRETOKENIZE_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "text/tokenizer.h"

typedef struct {
	bool nfc;         /* the text is to be normalized first */
	bool whole_first; /* a piece that is a token is that token, however it would merge */
	pcre2_general_context *memory; /* of everything below */
	pcre2_match_context *limits;
	pcre2_code *piece; /* matches the next piece */
	pcre2_code *digit; /* smollm: a number, a piece of its own; else NULL */
} pal__pre;

/* Errors: PAL_EUNSUPPORTED (name, listing the supported), PAL_ENOMEM. */
pal_status pal__pre_init(pal__pre *p, pal__str name, const char *file, pal_error *err);
void pal__pre_free(pal__pre *p); /* fine on a zeroed struct */

typedef struct {
	const pal__pre *pre;
	pcre2_match_data *match;
	const char *s; /* [n], valid UTF-8 */
	size_t n, at;  /* at: where the next piece starts */
	size_t digit;  /* smollm: the next digit starts here, */
	size_t after;  /* and ends here */
} pal__pre_scan;

pal_status pal__pre_scan_init(pal__pre_scan *scan, const pal__pre *p, pal_error *err);
void pal__pre_scan_free(pal__pre_scan *scan); /* fine on a zeroed struct */
void pal__pre_scan_text(pal__pre_scan *scan, const char *s, size_t n);

/* The next piece, never empty; *n is 0 at the end. Errors: PAL_ENOMEM, PAL_ELIMIT. */
pal_status pal__pre_scan_next(pal__pre_scan *scan, const char **s, size_t *n, pal_error *err);

#endif
