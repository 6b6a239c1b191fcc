#include "memory/pack.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/half.h"

#define MAX_HALF 65504.0f

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

size_t pal__pack_bytes(pal__pack_kind kind, size_t n)
{
	if (kind == PAL__PACK_F16)
		return 2 * n;
	if (kind == PAL__PACK_INT8)
		return 4 + n;
	return (n + PAL__PACK_GROUP - 1) / PAL__PACK_GROUP * 4 + (n + 1) / 2;
}

/* Little-endian on every machine. */
static void put16(uint8_t *out, uint16_t v)
{
	out[0] = (uint8_t)v;
	out[1] = (uint8_t)(v >> 8);
}

static uint16_t get16(const uint8_t *in)
{
	return (uint16_t)(in[0] | in[1] << 8);
}

static float half_at(const uint8_t *in)
{
	return pal__half_float(get16(in));
}

/* Nearest whole number, ties to even: |x| < 2^22. */
static float round_even(float x)
{
	return x + 0x1.8p23f - 0x1.8p23f;
}

static bool all_finite(const float *x, size_t n)
{
	uint32_t largest = 0;
	for (size_t i = 0; i < n; i++) {
		uint32_t u = pal__float_bits(x[i]) & 0x7fffffff;
		largest = u > largest ? u : largest;
	}
	return largest < 0x7f800000;
}

/* --- int8 -------------------------------------------------------------------- */

/* As pal__kernels.to_int16 rounds: tiny rows are zero. */
static void pack_int8(const float *x, size_t n, uint8_t *out)
{
	float largest = 0;
	bool finite = all_finite(x, n);
	for (size_t i = 0; i < n; i++) {
		float size = fabsf(x[i]);
		largest = size > largest ? size : largest;
	}
	bool use = finite && largest >= 0x1p-100f;
	float scale = !finite ? NAN : use ? largest / 127 : 0, by = use ? 1 / scale : 0;
	uint32_t bits = finite ? pal__float_bits(scale) : 0x7fc00000;
	put16(out, (uint16_t)bits);
	put16(out + 2, (uint16_t)(bits >> 16));
	for (size_t i = 0; i < n; i++)
		out[4 + i] = use ? (uint8_t)(int8_t)round_even(x[i] * by) : 0;
}

static void unpack_int8(const uint8_t *in, size_t n, float *x)
{
	float scale = pal__bits_float((uint32_t)get16(in) | (uint32_t)get16(in + 2) << 16);
	for (size_t i = 0; i < n; i++)
		x[i] = (float)(int8_t)in[4 + i] * scale;
}

/* --- affine4 ----------------------------------------------------------------- */

static float within(float x, float low, float high)
{
	return x < low ? low : x > high ? high : x;
}

/* A group of n numbers. The codes are of the offset and the scale as halves, so that what those
 * lost is made good where it can be. */
static void pack_group(const float *x, size_t n, uint8_t *out)
{
	float least = INFINITY, most = -INFINITY;
	uint8_t codes[PAL__PACK_GROUP] = {0};
	if (!all_finite(x, n)) {
		memset(out, 0, 4 + (n + 1) / 2);
		put16(out + 2, 0x7e00);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		least = x[i] < least ? x[i] : least;
		most = x[i] > most ? x[i] : most;
	}
	uint16_t offset = pal__float_half(within(least, -MAX_HALF, MAX_HALF));
	least = pal__half_float(offset);
	uint16_t scale = pal__float_half(
		within((within(most, -MAX_HALF, MAX_HALF) - least) / 15, 0, MAX_HALF));
	float step = pal__half_float(scale);
	for (size_t i = 0; i < n && step > 0; i++)
		codes[i] = (uint8_t)round_even(within((x[i] - least) / step, 0, 15));
	put16(out, scale);
	put16(out + 2, offset);
	const size_t half = (n + 1) / 2;
	for (size_t i = 0; i < half; i++)
		out[4 + i] = (uint8_t)(codes[i] | (half + i < n ? codes[half + i] << 4 : 0));
}

static void unpack_group(const uint8_t *in, size_t n, float *restrict x)
{
	enum { HALF = PAL__PACK_GROUP / 2 };
	const float scale = half_at(in), offset = half_at(in + 2);
	const size_t half = (n + 1) / 2;
	if (n == PAL__PACK_GROUP) { /* the usual case, so that compilers make vectors of it */
		for (size_t i = 0; i < HALF; i++)
			x[i] = offset + scale * (float)(in[4 + i] & 15);
		for (size_t i = 0; i < HALF; i++)
			x[HALF + i] = offset + scale * (float)(in[4 + i] >> 4);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		int code = i < half ? in[4 + i] & 15 : in[4 + i - half] >> 4;
		x[i] = offset + scale * (float)code;
	}
}

/* --- rows -------------------------------------------------------------------- */

void pal__pack(pal__pack_kind kind, const float *x, size_t n, uint8_t *out)
{
	if (kind == PAL__PACK_INT8) {
		pack_int8(x, n, out);
		return;
	}
	for (size_t i = 0; i < n && kind == PAL__PACK_F16; i++)
		put16(out + 2 * i, pal__float_half(x[i]));
	for (size_t i = 0; i < n && kind == PAL__PACK_AFFINE4; i += PAL__PACK_GROUP) {
		size_t m = smaller(n - i, PAL__PACK_GROUP);
		pack_group(x + i, m, out);
		out += pal__pack_bytes(kind, m);
	}
}

void pal__unpack(pal__pack_kind kind, const uint8_t *in, size_t n, float *x)
{
	if (kind == PAL__PACK_INT8) {
		unpack_int8(in, n, x);
		return;
	}
	for (size_t i = 0; i < n && kind == PAL__PACK_F16; i++)
		x[i] = half_at(in + 2 * i);
	for (size_t i = 0; i < n && kind == PAL__PACK_AFFINE4; i += PAL__PACK_GROUP) {
		size_t m = smaller(n - i, PAL__PACK_GROUP);
		unpack_group(in, m, x + i);
		in += pal__pack_bytes(kind, m);
	}
}
