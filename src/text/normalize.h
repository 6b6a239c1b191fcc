/* Unicode normalization form C, as Hugging Face's qwen2 tokenizers apply it.
 *
 * Their tables are older than utf8proc's: marks that they do not know neither move nor
 * compose, and stop others from composing across them.
 *
 * Linear in the text, whatever it holds (utf8proc's own ordering of combining marks is
 * quadratic in their number, so only its tables and its composition are used).
 */
#ifndef PAL_TEXT_NORMALIZE_H
#define PAL_TEXT_NORMALIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The result and working memory, reused from one text to the next; zeroed is empty. */
typedef struct {
	char *s; /* [n] */
	size_t n, cap;
	int32_t *points; /* code points */
	size_t cap_points;
	int32_t *sorted;
	size_t cap_sorted;
} pal__nfc;

void pal__nfc_free(pal__nfc *b);

/* Whether s[n], valid UTF-8, is plainly its own NFC: it has no character from U+0300 on. */
bool pal__nfc_trivial(const char *s, size_t n);

/* b->s[b->n] = NFC of s[n], valid UTF-8. false: out of memory. */
bool pal__nfc_set(pal__nfc *b, const char *s, size_t n);

#endif
