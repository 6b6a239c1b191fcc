/* Time that never goes back, for measuring. */
#ifndef PAL_BASE_CLOCK_H
#define PAL_BASE_CLOCK_H

#include <time.h>

/* Seconds since some moment of the past. */
static inline double pal__now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
