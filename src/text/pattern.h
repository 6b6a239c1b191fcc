/* Regular expressions of JSON schemas as parts of a form: strings, character by character.
 *
 * Known: literals, '.', classes with ranges and \d \w \s, their negations, groups, alternatives,
 * * + ? {m,n}, \n \t \r \f \v \xHH \uHHHH, and ^ and $ at the ends of an alternative of the whole
 * expression; an end without one may have anything before or behind it. Lookaround, references,
 * \b and \p are not.
 */
#ifndef PAL_TEXT_PATTERN_H
#define PAL_TEXT_PATTERN_H

#include "text/form.h"

#define PAL__PATTERN_NODES 4096 /* of an expression, written out without counts */
#define PAL__PATTERN_DEPTH 32   /* groups in groups */
#define PAL__PATTERN_REPEAT 1000

/* What is left of a JSON string, characters from min to max (PAL__FORM_MANY: any number) that match
 * pattern[n], UTF-8. *start: the first state; `to` follows the last character. Errors:
 * PAL_EUNSUPPORTED, PAL_EINVAL (no expression), PAL_ELIMIT, PAL_ENOMEM; f->status tells of f's. */
pal_status pal__form_pattern(pal__form *f, const char *pattern, size_t n, uint32_t min,
			     uint32_t max, int32_t to, int32_t *start, pal_error *err);

#endif
