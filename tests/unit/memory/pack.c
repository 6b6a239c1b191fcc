#include "memory/pack.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/half.h"

#define MOST 300

static const size_t sizes[] = {0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 80, 96, 128, 256, 299, 300};
#define N_SIZES (sizeof sizes / sizeof sizes[0])

static uint32_t state = 1;

static uint32_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 17;
	return state ^= state << 5;
}

static void numbers(float *x, size_t n, float size, float middle)
{
	for (size_t i = 0; i < n; i++)
		x[i] = middle + size * ((float)(int32_t)rnd() * 0x1p-31f);
}

/* Packs and unpacks; writes exactly the bytes and the numbers that it says. */
static void there_and_back(pal__pack_kind kind, const float *x, size_t n, float *back)
{
	uint8_t bytes[4 * MOST + 8];
	size_t size = pal__pack_bytes(kind, n);
	assert_true(size <= 4 * n + 4);
	memset(bytes, 0xa5, sizeof bytes);
	pal__pack(kind, x, n, bytes + 1);
	assert_int_equal(bytes[0], 0xa5);
	for (size_t i = size + 1; i < sizeof bytes; i++)
		assert_int_equal(bytes[i], 0xa5);
	back[n] = 77;
	pal__unpack(kind, bytes + 1, n, back);
	assert_true(back[n] == 77);
}

/* Half a step, and what rounding in float (to halves, for the second) adds. */
static float bound(pal__pack_kind kind, const float *x, size_t n, size_t i)
{
	float least = INFINITY, most = -INFINITY, size = 0;
	size_t from = kind == PAL__PACK_AFFINE4 ? i / 32 * 32 : 0;
	size_t end = kind == PAL__PACK_AFFINE4 && from + 32 < n ? from + 32 : n;
	for (size_t j = from; j < end; j++) {
		least = fminf(least, x[j]);
		most = fmaxf(most, x[j]);
		size = fmaxf(size, fabsf(x[j]));
	}
	if (kind == PAL__PACK_F16)
		return fabsf(x[i]) * 0x1p-11f + 0x1p-25f;
	if (kind == PAL__PACK_INT8)
		return size / 254 * 1.001f;
	return (most - least) / 30 * 1.001f + (size + most - least) * 0x1p-10f + 0x1p-20f;
}

static void errors(void **unused)
{
	static const float middles[] = {0, 1, -7, 100}, scales[] = {1e-3f, 1, 30, 1e4f};
	(void)unused;
	for (pal__pack_kind kind = PAL__PACK_F16; kind <= PAL__PACK_AFFINE4; kind++)
		for (size_t s = 0; s < N_SIZES; s++)
			for (int c = 0; c < 16; c++) {
				float x[MOST + 1], y[MOST + 1];
				size_t n = sizes[s];
				numbers(x, n, scales[c % 4], middles[c / 4]);
				there_and_back(kind, x, n, y);
				for (size_t i = 0; i < n; i++)
					if (!(fabsf(y[i] - x[i]) <= bound(kind, x, n, i)))
						fail_msg("kind %d, %zu of %zu: %a became %a", kind,
							 i, n, (double)x[i], (double)y[i]);
			}
}

/* What each kind can say is kept to the bit. */
static void exact(void **unused)
{
	float x[64], y[65];
	(void)unused;
	for (int i = 0; i < 64; i++)
		x[i] = pal__half_float((uint16_t)(rnd() & 0xfbff));
	there_and_back(PAL__PACK_F16, x, 64, y);
	assert_memory_equal(x, y, sizeof x);
	for (int i = 0; i < 64; i++)
		x[i] = (float)(i == 9 ? -127 : i - 30) * 0.0625f;
	there_and_back(PAL__PACK_INT8, x, 64, y);
	assert_memory_equal(x, y, sizeof x);
	for (int i = 0; i < 64; i++)
		x[i] = (float)(i / 32) - 2.5f + 0.125f * (float)(i % 16);
	there_and_back(PAL__PACK_AFFINE4, x, 64, y);
	assert_memory_equal(x, y, sizeof x);
	for (int i = 0; i < 64; i++) /* groups without a range */
		x[i] = i < 32 ? 3.5f : 0;
	there_and_back(PAL__PACK_AFFINE4, x, 64, y);
	assert_memory_equal(x, y, sizeof x);
}

/* The bytes as the header describes them. */
static void format(void **unused)
{
	const float x[3] = {-254, 1, 127}, z[3] = {-1, 14, 2};
	const uint8_t half[] = {0xf0, 0xdb, 0x00, 0x3c, 0xf0, 0x57};
	const uint8_t int8[] = {0, 0, 0, 0x40, 0x81, 0, 0x40}; /* 0.5 and 63.5: ties to even */
	const uint8_t affine[] = {0x00, 0x3c, 0x00, 0xbc, 0x30, 0x0f};
	uint8_t bytes[8];
	(void)unused;
	assert_int_equal(pal__pack_bytes(PAL__PACK_F16, 3), sizeof half);
	pal__pack(PAL__PACK_F16, x, 3, bytes);
	assert_memory_equal(bytes, half, sizeof half);
	assert_int_equal(pal__pack_bytes(PAL__PACK_INT8, 3), sizeof int8);
	pal__pack(PAL__PACK_INT8, x, 3, bytes);
	assert_memory_equal(bytes, int8, sizeof int8);
	assert_int_equal(pal__pack_bytes(PAL__PACK_AFFINE4, 3), sizeof affine);
	pal__pack(PAL__PACK_AFFINE4, z, 3, bytes);
	assert_memory_equal(bytes, affine, sizeof affine);
	assert_int_equal(pal__pack_bytes(PAL__PACK_AFFINE4, 33), 16 + 4 + 1 + 4);
	assert_int_equal(pal__pack_bytes(PAL__PACK_AFFINE4, 128), 4 * 20);
}

/* What is not finite shows, what is too large or too small goes to the nearest there is. */
static void hostile(void **unused)
{
	static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
	float x[70], y[71];
	(void)unused;
	for (int b = 0; b < 4; b++)
		for (size_t at = 0; at < 70; at += 23) {
			numbers(x, 70, 1, 0);
			x[at] = bad[b];
			there_and_back(PAL__PACK_F16, x, 70, y);
			for (size_t i = 0; i < 70; i++)
				assert_true(i == at ? b < 2 ? isnan(y[i]) : y[i] == x[i]
						    : isfinite(y[i]));
			there_and_back(PAL__PACK_INT8, x, 70, y);
			for (size_t i = 0; i < 70; i++)
				assert_true(isnan(y[i]));
			there_and_back(PAL__PACK_AFFINE4, x, 70, y);
			for (size_t i = 0; i < 70; i++)
				assert_true(isnan(y[i]) == (i / 32 == at / 32));
		}
	for (size_t i = 0; i < 70; i++)
		x[i] = i % 2 ? 3e38f : -3e38f;
	there_and_back(PAL__PACK_F16, x, 70, y);
	assert_true(isinf(y[0]) && isinf(y[1]));
	there_and_back(PAL__PACK_INT8, x, 70, y);
	assert_true(fabsf(y[0] + 3e38f) < 1e36f && fabsf(y[1] - 3e38f) < 1e36f);
	there_and_back(PAL__PACK_AFFINE4, x, 70, y);
	assert_true(y[0] == -65504 && fabsf(y[1] - 65504) < 64);
	for (size_t i = 0; i < 70; i++)
		x[i] = i % 2 ? 0x1p-101f : -0x1p-140f;
	for (pal__pack_kind kind = PAL__PACK_F16; kind <= PAL__PACK_AFFINE4; kind++) {
		there_and_back(kind, x, 70, y);
		for (size_t i = 0; i < 70; i++)
			assert_true(y[i] == 0);
	}
}

/* Any bytes can be unpacked, and always to the same. */
static void any_bytes(void **unused)
{
	(void)unused;
	for (int round = 0; round < 3000; round++) {
		pal__pack_kind kind = (pal__pack_kind)(round % 3);
		size_t n = sizes[rnd() % N_SIZES];
		uint8_t bytes[4 * MOST + 4];
		float x[MOST], y[MOST];
		for (size_t i = 0; i < sizeof bytes; i++)
			bytes[i] = rnd() % 4 ? (uint8_t)rnd() : rnd() % 2 ? 0xff : 0x7c;
		pal__unpack(kind, bytes, n, x);
		pal__unpack(kind, bytes, n, y);
		assert_memory_equal(x, y, n * sizeof *x);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors),  cmocka_unit_test(exact),     cmocka_unit_test(format),
		cmocka_unit_test(hostile), cmocka_unit_test(any_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
