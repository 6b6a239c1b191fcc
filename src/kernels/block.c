#include "kernels/block.h"

#include <string.h>

#include "kernels/half.h"

const int8_t pal__iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
				    1,    13,   25,  38,  53,  69,  89,  113};

static float half_at(const uint8_t *p)
{
	return pal__half_float((uint16_t)(p[0] | p[1] << 8));
}

static uint32_t word_at(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Q4_0, Q4_1, Q5_0, Q5_1: 32 weights; low nibbles first, then high ones; `high` holds
 * the fifth bits, `zero` is the code of zero. */
static void nibbles(const uint8_t *qs, uint32_t high, int zero, int8_t *q)
{
	for (int i = 0; i < 16; i++) {
		q[i] = (int8_t)((qs[i] & 15) + (int)(high >> i & 1) * 16 - zero);
		q[i + 16] = (int8_t)((qs[i] >> 4) + (int)(high >> (i + 16) & 1) * 16 - zero);
	}
}

static void iq4(const uint8_t *qs, int8_t *q)
{
	for (int i = 0; i < 16; i++) {
		q[i] = pal__iq4_values[qs[i] & 15];
		q[i + 16] = pal__iq4_values[qs[i] >> 4];
	}
}

/* Q4_K, Q5_K: the 6-bit scale and min of sub-block s, packed in 12 bytes. */
static void scale_min(const uint8_t *p, int s, int *scale, int *min)
{
	if (s < 4) {
		*scale = p[s] & 63;
		*min = p[s + 4] & 63;
	} else {
		*scale = (p[s + 4] & 15) | p[s - 4] >> 6 << 4;
		*min = p[s + 4] >> 4 | p[s] >> 6 << 4;
	}
}

static void q45_k(const uint8_t *b, bool five, pal__block *o)
{
	const uint8_t *high = b + 16, *qs = five ? b + 48 : b + 16;
	float d = half_at(b), dmin = half_at(b + 2);
	for (int s = 0; s < 8; s++) {
		int scale, min;
		scale_min(b + 4, s, &scale, &min);
		o->scale[s] = d * (float)scale;
		o->min[s] = -(dmin * (float)min);
		for (int i = 0; i < 32; i++) {
			int q = qs[s / 2 * 32 + i] >> s % 2 * 4 & 15;
			o->q[s * 32 + i] = (int8_t)(q | (five ? (high[i] >> s & 1) << 4 : 0));
		}
	}
}

static void q2_k(const uint8_t *b, pal__block *o)
{
	float d = half_at(b + 80), dmin = half_at(b + 82);
	for (int s = 0; s < 16; s++) {
		o->scale[s] = d * (float)(b[s] & 15);
		o->min[s] = -(dmin * (float)(b[s] >> 4));
	}
	for (int i = 0; i < 256; i++)
		o->q[i] = b[16 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
}

static void q3_k(const uint8_t *b, pal__block *o)
{
	float d = half_at(b + 108);
	for (int s = 0; s < 16; s++) {
		int low = b[96 + s % 8] >> s / 8 * 4 & 15, high = b[104 + s % 4] >> s / 4 * 2 & 3;
		o->scale[s] = d * (float)((low | high << 4) - 32);
	}
	for (int i = 0; i < 256; i++) {
		int q = b[32 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
		o->q[i] = (int8_t)(q + (b[i % 32] >> i / 32 & 1) * 4 - 4);
	}
}

static void q6_k(const uint8_t *b, pal__block *o)
{
	float d = half_at(b + 208);
	for (int s = 0; s < 16; s++)
		o->scale[s] = d * (float)(int8_t)b[192 + s];
	for (int i = 0; i < 256; i++) {
		int part = i / 32 % 4, n = i / 128;
		int low = b[n * 64 + part % 2 * 32 + i % 32] >> part / 2 * 4 & 15;
		int high = b[128 + n * 32 + i % 32] >> part * 2 & 3;
		o->q[i] = (int8_t)((low | high << 4) - 32);
	}
}

static void iq4_xs(const uint8_t *b, pal__block *o)
{
	float d = half_at(b);
	for (int s = 0; s < 8; s++) {
		int low = b[4 + s / 2] >> s % 2 * 4 & 15, high = (b[2] | b[3] << 8) >> 2 * s & 3;
		o->scale[s] = d * (float)((low | high << 4) - 32);
		iq4(b + 8 + 16 * s, o->q + 32 * s);
	}
}

static void of_32(pal__type type, const uint8_t *b, pal__block *o)
{
	o->scale[0] = half_at(b);
	switch (type) {
	case PAL__Q4_0:
		nibbles(b + 2, 0, 8, o->q);
		break;
	case PAL__Q4_1:
		o->min[0] = half_at(b + 2);
		nibbles(b + 4, 0, 0, o->q);
		break;
	case PAL__Q5_0:
		nibbles(b + 6, word_at(b + 2), 16, o->q);
		break;
	case PAL__Q5_1:
		o->min[0] = half_at(b + 2);
		nibbles(b + 8, word_at(b + 4), 0, o->q);
		break;
	case PAL__IQ4_NL:
		iq4(b + 2, o->q);
		break;
	default: /* Q8_0 */
		memcpy(o->q, b + 2, 32);
	}
}

void pal__block_decode(pal__type type, const uint8_t *bytes, pal__block *out)
{
	out->sub = type == PAL__Q2_K || type == PAL__Q3_K || type == PAL__Q6_K ? 16 : 32;
	out->has_min = type == PAL__Q4_1 || type == PAL__Q5_1 || type == PAL__Q2_K ||
		       type == PAL__Q4_K || type == PAL__Q5_K;
	switch (type) {
	case PAL__Q2_K:
		q2_k(bytes, out);
		break;
	case PAL__Q3_K:
		q3_k(bytes, out);
		break;
	case PAL__Q4_K:
	case PAL__Q5_K:
		q45_k(bytes, type == PAL__Q5_K, out);
		break;
	case PAL__Q6_K:
		q6_k(bytes, out);
		break;
	case PAL__IQ4_XS:
		iq4_xs(bytes, out);
		break;
	default:
		of_32(type, bytes, out);
	}
}
