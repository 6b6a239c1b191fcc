/* AMX: int8 tiles. Included by avx512.c, on which it builds. */
typedef struct {
	uint8_t palette, start_row, zero[14];
	uint16_t colsb[16];
	uint8_t rows[16];
} amx_config;

/* Compilers do not know that tile loads read memory: what was written before must be there. */
INLINE void amx_written(void)
{
	__asm__ volatile("" ::: "memory");
}

#include "kernels/amx_attn.h"

const pal__kernels pal__kernels_amx = {
	TABLE,
	.name = "amx",
	.matmul = matmul,
	.attn = amx_attn,
};
