/* Tensor element types: GGUF's numbers, and the sizes of their blocks.
 * What the bytes of a block mean is in kernels/ref.c. */
#ifndef PAL_KERNELS_TYPES_H
#define PAL_KERNELS_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
	PAL__F32 = 0,
	PAL__F16 = 1,
	PAL__Q4_0 = 2,
	PAL__Q4_1 = 3,
	PAL__Q5_0 = 6,
	PAL__Q5_1 = 7,
	PAL__Q8_0 = 8,
	PAL__Q2_K = 10,
	PAL__Q3_K = 11,
	PAL__Q4_K = 12,
	PAL__Q5_K = 13,
	PAL__Q6_K = 14,
	PAL__IQ4_NL = 20,
	PAL__IQ4_XS = 23,
	PAL__BF16 = 30,
} pal__type;

typedef struct {
	pal__type type;
	const char *name; /* "Q4_K" */
	int block;        /* weights in a block */
	int block_bytes;
} pal__type_info;

/* NULL when the number is not one of the supported types. */
const pal__type_info *pal__type_find(uint32_t number);

/* "F32, F16, ...": for messages. */
const char *pal__type_names(void);

#endif
