/* The source `recompute`: keeps nothing but the log. The model reads a chunk again, apart from
 * the session, after the sinks and `left` tokens of its own left context, which give all but the
 * oracle's K/V (research/REPORT.md). What was read lately is not read again (restore/memo.h). */
#ifndef PAL_RESTORE_RECOMPUTE_H
#define PAL_RESTORE_RECOMPUTE_H

#include "restore/memo.h"

/* n: at most PAL_MAX_SLOTS. memo: or NULL, and nothing is kept. */
void pal__recompute(pal__memo *memo, pal__runs *r, pal__site *s, const pal__span *spans, size_t n);

#endif
