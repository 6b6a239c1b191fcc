/* Blocks of the quantised types in their plain form, and access to activation panels:
 * the reference's view of both.
 *
 * Every quantised type is, in sub-blocks of `sub` (16 or 32) weights:
 *     weight = q * scale + min        (min: only where has_min)
 */
#ifndef PAL_KERNELS_BLOCK_H
#define PAL_KERNELS_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/matrix.h"

#define PAL__MAX_BLOCK_BYTES 256
#define PAL__MAX_BLOCK 256

typedef struct {
	int sub;
	bool has_min;
	int8_t q[PAL__MAX_BLOCK];
	float scale[PAL__MAX_BLOCK / 16], min[PAL__MAX_BLOCK / 16];
} pal__block;

/* bytes: one block of a quantised type, as in a file. */
void pal__block_decode(pal__type type, const uint8_t *bytes, pal__block *out);

extern const int8_t pal__iq4_values[16];

/* A column's part of 32 columns of a panel. */
typedef struct {
	int8_t *q;     /* [32] */
	float *d;      /* [1] */
	int32_t *nsum; /* [2] */
	float *dsum;   /* [3] */
} pal__act_block;

static inline pal__act_block pal__act_at(uint8_t *block, int width, int c)
{
	size_t w = (size_t)width, i = (size_t)c;
	uint8_t *d = block + w * 32, *nsum = d + w * 4, *dsum = nsum + w * 8;
	return (pal__act_block){.q = (int8_t *)(block + i * 32),
				.d = (float *)(void *)d + i,
				.nsum = (int32_t *)(void *)nsum + i * 2,
				.dsum = (float *)(void *)dsum + i * 3};
}

#endif
