/* Checked arithmetic for sizes that come from files, sockets or users.
 * Every function returns false, and leaves *out as it was, when the result does
 * not fit. */
#ifndef PAL_BASE_CHECKED_H
#define PAL_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool pal__add_size(size_t a, size_t b, size_t *out)
{
	size_t r;
	if (__builtin_add_overflow(a, b, &r))
		return false;
	*out = r;
	return true;
}

static inline bool pal__mul_size(size_t a, size_t b, size_t *out)
{
	size_t r;
	if (__builtin_mul_overflow(a, b, &r))
		return false;
	*out = r;
	return true;
}

/* Rounds a up to a multiple of `to`, a power of two. */
static inline bool pal__round_up(size_t a, size_t to, size_t *out)
{
	size_t r;
	if (!pal__add_size(a, to - 1, &r))
		return false;
	*out = r & ~(to - 1);
	return true;
}

#endif
