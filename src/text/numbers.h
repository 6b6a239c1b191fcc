/* JSON numbers within limits, as parts of a form (text/form.h). How they are written: schema.h. */
#ifndef PAL_TEXT_NUMBERS_H
#define PAL_TEXT_NUMBERS_H

#include "text/form.h"

#define PAL__NUMBER_MOST 999999999999999999 /* the largest integer that is written */

/* No limit: ±PAL__NUMBER_MOST, or beyond, not excluded. */
typedef struct {
	int64_t lo, hi;
	bool over_lo, under_hi; /* the limit itself is excluded */
} pal__limits;

int32_t pal__form_integer(pal__form *f, pal__limits limits, int32_t to);
int32_t pal__form_number(pal__form *f, pal__limits limits, int32_t to);

#endif
