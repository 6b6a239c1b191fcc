/* Status codes and error texts, used by every module.
 *
 * A function that can fail returns a pal_status and takes a pal_error that may
 * be NULL. On failure it fills the error through pal__fail() and leaves its
 * outputs as they were (or NULL); on success it does not touch the error.
 * The text says what is wrong, where, and what would be accepted.
 */
#ifndef PAL_BASE_STATUS_H
#define PAL_BASE_STATUS_H

#include "palimpsest.h"

/* Fills err (if not NULL) with code and a printf-style text cut at the size of
 * the field; returns code, so that callers write `return pal__fail(...)`. */
__attribute__((format(printf, 3, 4))) pal_status pal__fail(pal_error *err, pal_status code,
							   const char *fmt, ...);

/* The failure of an allocation of size bytes for `what`. Returns PAL_ENOMEM. */
pal_status pal__fail_memory(pal_error *err, const char *what, size_t size);

#endif
