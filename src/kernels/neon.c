/* NEON of ARMv8.2 with dot products: 16 lanes are four registers. */
#include <arm_neon.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KERNELS pal__kernels_neon
#define KERNELS_NAME "neon"
#define PANEL 12
#define MAX_COLUMNS 4
#define COLUMNS_OF_16 4
#define GROUPS 1
#define UNROLLED
#define COLUMNS_AT_ONCE PAL__MAX_PANEL
#define EACH_COLUMN
#define BLOCKS_AT_ONCE 1
#define ATTN_TILES(n) (4 / (n))
#define ATTN_DIMS(n) (4 / (n))
#define ATTN_SUMS 1
#define ROW_SUMS true
#define VW_BIAS_SHIFT 0

#define OP static inline __attribute__((always_inline))

typedef float32x4x4_t vf;
typedef uint32x4x4_t vi;
typedef int8x16x4_t vw;

#define EACH(e)                                \
	{                                      \
		{                              \
			e(0), e(1), e(2), e(3) \
		}                              \
	}

OP vf vf_load(const float *p)
{
	return vld1q_f32_x4(p);
}
OP void vf_store(float *p, vf v)
{
	vst1q_f32_x4(p, v);
}
#define E(i) vdupq_n_f32(x)
OP vf vf_set(float x)
{
	return (vf)EACH(E);
}
#undef E
#define E(i) vaddq_f32(a.val[i], b.val[i])
OP vf vf_add(vf a, vf b)
{
	return (vf)EACH(E);
}
#undef E
#define E(i) vsubq_f32(a.val[i], b.val[i])
OP vf vf_sub(vf a, vf b)
{
	return (vf)EACH(E);
}
#undef E
#define E(i) vmulq_f32(a.val[i], b.val[i])
OP vf vf_mul(vf a, vf b)
{
	return (vf)EACH(E);
}
#undef E
#define E(i) vdivq_f32(a.val[i], b.val[i])
OP vf vf_div(vf a, vf b)
{
	return (vf)EACH(E);
}
#undef E
#define E(i) vfmaq_f32(c.val[i], a.val[i], b.val[i])
OP vf vf_fma(vf a, vf b, vf c)
{
	return (vf)EACH(E);
}
#undef E
#define E(i) vnegq_f32(a.val[i])
OP vf vf_neg(vf a)
{
	return (vf)EACH(E);
}
#undef E
#define E(i) vbslq_f32(vcgtq_f32(a.val[i], b.val[i]), a.val[i], b.val[i])
OP vf vf_max(vf a, vf b)
{
	return (vf)EACH(E);
}
#undef E
#define E(i) vbslq_f32(vcltq_f32(a.val[i], b.val[i]), x.val[i], y.val[i])
OP vf vf_lt(vf a, vf b, vf x, vf y)
{
	return (vf)EACH(E);
}
#undef E
#define E(i) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h + 4 * i)))
OP vf vf_half(const void *p)
{
	const uint16_t *h = p;
	return (vf)EACH(E);
}
#undef E
OP void vi_to_int16(int16_t *p, vi v)
{
	for (int i = 0; i < 4; i++)
		vst1_s16(p + 4 * i, vmovn_s32(vreinterpretq_s32_u32(v.val[i])));
}
OP void vf_to_half(void *p, vf v)
{
	uint16_t *h = p;
	for (int i = 0; i < 4; i++)
		vst1_u16(h + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(v.val[i])));
}
#define E(i) vreinterpretq_f32_u32(v.val[i])
OP vf vf_of_bits(vi v)
{
	return (vf)EACH(E);
}
#undef E
#define E(i) vcvtq_f32_s32(vreinterpretq_s32_u32(v.val[i]))
OP vf vf_of_int(vi v)
{
	return (vf)EACH(E);
}
#undef E
OP vi vi_load(const void *p)
{
	return vld1q_u32_x4(p);
}
#define E(i) vdupq_n_u32((uint32_t)x)
OP vi vi_set(int32_t x)
{
	return (vi)EACH(E);
}
#undef E
#define E(i) vandq_u32(a.val[i], b.val[i])
OP vi vi_and(vi a, vi b)
{
	return (vi)EACH(E);
}
#undef E
#define E(i) vorrq_u32(a.val[i], b.val[i])
OP vi vi_or(vi a, vi b)
{
	return (vi)EACH(E);
}
#undef E
#define E(i) veorq_u32(a.val[i], b.val[i])
OP vi vi_xor(vi a, vi b)
{
	return (vi)EACH(E);
}
#undef E
#define E(i) vaddq_u32(a.val[i], b.val[i])
OP vi vi_add(vi a, vi b)
{
	return (vi)EACH(E);
}
#undef E
#define E(i) vshlq_u32(v.val[i], vdupq_n_s32(-n))
OP vi vi_srl(vi v, int n)
{
	return (vi)EACH(E);
}
#undef E
#define E(i) vshlq_u32(v.val[i], vdupq_n_s32(n))
OP vi vi_sll(vi v, int n)
{
	return (vi)EACH(E);
}
#undef E
#define E(i) vreinterpretq_u32_f32(v.val[i])
OP vi vi_of_bits(vf v)
{
	return (vi)EACH(E);
}
#undef E
#define E(i) vmovl_u16(vld1_u16(h + 4 * i))
OP vi vi_half_bits(const void *p)
{
	const uint16_t *h = p;
	return (vi)EACH(E);
}
#undef E
#define E(i) vreinterpretq_u32_s32(vcvtnq_s32_f32(v.val[i]))
OP vi vi_round(vf v)
{
	return (vi)EACH(E);
}
#undef E
#define E(i) vreinterpretq_u32_s8(vld1q_s8(p))
OP vi vi_table(const int8_t *p)
{
	return (vi)EACH(E);
}
#undef E
#define E(i)                  \
	vreinterpretq_u32_u8( \
		vqtbl1q_u8(vreinterpretq_u8_u32(t.val[i]), vreinterpretq_u8_u32(v.val[i])))
OP vi vi_lookup(vi t, vi v)
{
	return (vi)EACH(E);
}
#undef E
#define E(i) vreinterpretq_s8_u32(v.val[i])
OP vw vw_codes(vi v)
{
	return (vw)EACH(E);
}
OP vw vw_signed(vi v)
{
	return (vw)EACH(E);
}
#undef E
#define E(i) vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(acc.val[i]), w.val[i], a))
OP vi vi_dot(vi acc, vw w, const int8_t *p)
{
	int32_t four;
	__builtin_memcpy(&four, p, 4);
	int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(four));
	return (vi)EACH(E);
}
OP void vi_dots(vi sum[], int n, const vw w[], int count, int bits, int zero, const int8_t *p,
		size_t stride)
{
	(void)count, (void)bits, (void)zero;
	for (int c = 0; c < n; c++)
		sum[c] = vi_dot(sum[c], w[0], p + (size_t)c * stride);
}
#undef E
OP vf vf_times_2(vf p, vf n, vi t)
{
	(void)n;
	return vf_mul(p, vf_of_bits(vi_add(vi_sll(t, 23), vi_set(0x3f800000))));
}
OP float vf_sum(vf v)
{
	float32x4_t q = vaddq_f32(vaddq_f32(v.val[0], v.val[2]), vaddq_f32(v.val[1], v.val[3]));
	float32x2_t d = vadd_f32(vget_low_f32(q), vget_high_f32(q));
	return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}
#define E(a, b) vbslq_f32(vcgtq_f32(a, b), a, b)
OP float vf_most(vf v)
{
	float32x4_t q = E(E(v.val[0], v.val[2]), E(v.val[1], v.val[3]));
	q = E(q, vextq_f32(q, q, 2));
	q = E(q, vextq_f32(q, q, 1));
	return vgetq_lane_f32(q, 0);
}
#undef E
OP float vf_largest(vf x, vf y)
{
	uint32x4_t m = vdupq_n_u32(0), mask = vdupq_n_u32(0x7fffffff);
	for (int i = 0; i < 4; i++)
		m = vmaxq_u32(m, vmaxq_u32(vandq_u32(vreinterpretq_u32_f32(x.val[i]), mask),
					   vandq_u32(vreinterpretq_u32_f32(y.val[i]), mask)));
	uint32_t max = vmaxvq_u32(m);
	float f;
	__builtin_memcpy(&f, &max, sizeof f);
	return f;
}
OP void vf_fold(const vf v[4], float out[4])
{
	for (int i = 0; i < 4; i++) {
		float32x4_t h = vaddq_f32(vaddq_f32(v[i].val[0], v[i].val[2]),
					  vaddq_f32(v[i].val[1], v[i].val[3]));
		float32x2_t s = vadd_f32(vget_low_f32(h), vget_high_f32(h));
		out[i] = vget_lane_f32(s, 0) + vget_lane_f32(s, 1);
	}
}
OP void vi_pack(int8_t *p, vi v)
{
	for (int i = 0; i < 4; i++) {
		int16x4_t half = vmovn_s32(vreinterpretq_s32_u32(v.val[i]));
		int8x8_t byte = vmovn_s16(vcombine_s16(half, half));
		__builtin_memcpy(p + 4 * i, &byte, 4);
	}
}
#define E(i) vmaxq_u32(a.val[i], b.val[i])
OP vi vi_max(vi a, vi b)
{
	return (vi)EACH(E);
}
#undef E
OP int32_t vi_sum(vi v)
{
	uint32x4_t sum = vdupq_n_u32(0);
	for (int i = 0; i < 4; i++)
		sum = vaddq_u32(sum, v.val[i]);
	return (int32_t)vaddvq_u32(sum);
}

/* Rows: all a >> 8 (rounded), then all low bytes, both int8. */
OP void row_store(uint8_t *p, size_t pad, size_t at, const vi v[4])
{
	for (size_t i = 0; i < 8; i++) {
		const uint32x4_t *half = v[i / 2].val + i % 2 * 2;
		int16x8_t a = vcombine_s16(vmovn_s32(vreinterpretq_s32_u32(half[0])),
					   vmovn_s32(vreinterpretq_s32_u32(half[1])));
		vst1_s8((int8_t *)p + at + 8 * i, vrshrn_n_s16(a, 8));
		vst1_s8((int8_t *)p + pad + at + 8 * i, vmovn_s16(a));
	}
}

/* sdot wants signed bytes: the low ones - 128. */
typedef struct {
	int8x16x4_t high, low;
} vu;
typedef struct {
	int32x4x4_t hh, mixed,
		ll; /* of high bytes with high ones, of high with low, of low with low */
} vs;

OP vu vu_load(const uint8_t *high, const uint8_t *low)
{
	vu u = {.high = vld1q_s8_x4((const int8_t *)high)};
	for (int i = 0; i < 4; i++)
		u.low.val[i] = low ? vreinterpretq_s8_u8(
					     veorq_u8(vld1q_u8(low + 16 * i), vdupq_n_u8(0x80)))
				   : vdupq_n_s8(0);
	return u;
}
OP vs vs_start(int32_t sum, bool low)
{
	vs s;
	for (int i = 0; i < 4; i++) {
		s.hh.val[i] = s.mixed.val[i] = vdupq_n_s32(0);
		s.ll.val[i] = vdupq_n_s32(low ? 128 * sum : 0);
	}
	return s;
}
OP vs vs_dot(vs s, vu u, bool low, const uint8_t *row, size_t pad, size_t g)
{
	int32_t high4, low4;
	__builtin_memcpy(&high4, row + 4 * g, 4);
	__builtin_memcpy(&low4, row + pad + 4 * g, 4);
	int8x16_t h = vreinterpretq_s8_s32(vdupq_n_s32(high4));
	int8x16_t l = vreinterpretq_s8_s32(vdupq_n_s32(low4));
	for (int i = 0; i < 4; i++) {
		s.hh.val[i] = vdotq_s32(s.hh.val[i], u.high.val[i], h);
		s.mixed.val[i] = vdotq_s32(s.mixed.val[i], u.high.val[i], l);
		if (!low)
			continue;
		s.mixed.val[i] = vdotq_s32(s.mixed.val[i], u.low.val[i], h);
		s.ll.val[i] = vdotq_s32(s.ll.val[i], u.low.val[i], l);
	}
	return s;
}
OP vf vs_value(vs s)
{
	vf v;
	for (int i = 0; i < 4; i++) {
		int32x4_t n = vaddq_s32(vshlq_n_s32(s.hh.val[i], 8), s.mixed.val[i]);
		v.val[i] = vcvtq_f32_s32(vaddq_s32(n, vshrq_n_s32(s.ll.val[i], 8)));
	}
	return v;
}

#include "kernels/simd.h"
