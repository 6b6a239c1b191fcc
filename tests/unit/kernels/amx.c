/* AMX's kernels with emulated tiles, as `emulated_amx`, so that they are compared with the
 * reference (kernels.c) on every CPU with AVX-512 VNNI. The tiles do what Intel's manual says of
 * TILELOADD, TILESTORED, TILEZERO, TDPBSSD and TDPBSUD. */
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static _Thread_local struct {
	uint8_t rows[8];
	uint16_t row_bytes[8];
	uint8_t tile[8][16][64];
} amx;

static void load_config(const void *config)
{
	const uint8_t *c = config;
	memset(&amx, 0, sizeof amx);
	memcpy(amx.row_bytes, c + 16, sizeof amx.row_bytes);
	memcpy(amx.rows, c + 48, sizeof amx.rows);
}

static void zero(int t)
{
	memset(amx.tile[t], 0, sizeof amx.tile[t]);
}

static void load(int t, const void *p, size_t stride)
{
	zero(t);
	for (size_t r = 0; r < amx.rows[t]; r++)
		memcpy(amx.tile[t][r], (const uint8_t *)p + r * stride, amx.row_bytes[t]);
}

static void store(int t, void *p, size_t stride)
{
	for (size_t r = 0; r < amx.rows[t]; r++)
		memcpy((uint8_t *)p + r * stride, amx.tile[t][r], amx.row_bytes[t]);
}

static void dot(int to, int a, int b, bool b_signed)
{
	for (int m = 0; m < amx.rows[to]; m++)
		for (int n = 0; n < amx.row_bytes[to] / 4; n++) {
			int32_t sum;
			memcpy(&sum, &amx.tile[to][m][4 * n], sizeof sum);
			for (int k = 0; k < amx.row_bytes[a]; k++) {
				uint8_t v = amx.tile[b][k / 4][4 * n + k % 4];
				sum += (int8_t)amx.tile[a][m][k] * (b_signed ? (int8_t)v : v);
			}
			memcpy(&amx.tile[to][m][4 * n], &sum, sizeof sum);
		}
}

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbssd
#undef _tile_dpbsud
#define _tile_loadconfig load_config
#define _tile_release() ((void)0)
#define _tile_loadd load
#define _tile_stored store
#define _tile_zero zero
#define _tile_dpbssd(to, a, b) dot(to, a, b, true)
#define _tile_dpbsud(to, a, b) dot(to, a, b, false)
#define pal__kernels_avx512 emulated_avx512
#define pal__kernels_amx emulated_amx

#include "kernels/avx512.c"
