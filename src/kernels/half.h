/* IEEE half precision and bfloat16 in plain C, for the reference and for loading. */
#ifndef PAL_KERNELS_HALF_H
#define PAL_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline float pal__bits_float(uint32_t u)
{
	float f;
	memcpy(&f, &u, sizeof f);
	return f;
}

static inline uint32_t pal__float_bits(float f)
{
	uint32_t u;
	memcpy(&u, &f, sizeof u);
	return u;
}

/* Exact. */
static inline float pal__half_float(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
	if (rest >= 0x7c00) /* inf, NaN */
		return pal__bits_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);
	if (rest >= 0x0400)
		return pal__bits_float(sign | ((rest << 13) + ((127 - 15) << 23)));
	float v = (float)rest * 0x1p-24f; /* zero or denormal: an exact product */
	return sign ? -v : v;
}

/* Nearest, ties to even; overflow gives infinity. */
static inline uint16_t pal__float_half(float f)
{
	uint32_t u = pal__float_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
	if (a > 0x7f800000)
		return (uint16_t)(sign | 0x7e00);
	if (a >= 0x477ff000) /* 65520 and more */
		return (uint16_t)(sign | 0x7c00);
	if (a < 0x38800000) { /* below 2^-14: let a float addition round to 2^-24 */
		float r = pal__bits_float(a) + 0.5f;
		return (uint16_t)(sign | (pal__float_bits(r) - 0x3f000000));
	}
	uint32_t odd = a >> 13 & 1;
	return (uint16_t)(sign | ((a - ((127 - 15) << 23) + 0xfff + odd) >> 13));
}

static inline float pal__bf16_float(uint16_t h)
{
	return pal__bits_float((uint32_t)h << 16);
}

#endif
