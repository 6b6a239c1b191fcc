/* AVX-512 with VNNI (F, BW, DQ, VL, VNNI): 16 lanes are one register. With AMX's products
 * of int8 tiles it is a second set, "amx". */
#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KERNELS pal__kernels_avx512
#define KERNELS_NAME "avx512"
#define PANEL 12
#define MAX_COLUMNS 12
#define COLUMNS_OF_16 6
#define GROUPS 1
#define UNROLLED _Pragma("GCC unroll 8")
#define COLUMNS_AT_ONCE PAL__MAX_PANEL
#define EACH_COLUMN _Pragma("GCC unroll 16")
#define BLOCKS_AT_ONCE 4
#define ATTN_TILES(n) ((n) == 4 ? 2 : 4)
#define ATTN_DIMS(n) ((n) == 4 ? 4 : 8)
#define ATTN_SUMS 4
#define ROW_SUMS true
#define VW_BIAS_SHIFT 7 /* vpdpbusd wants unsigned codes: int8 + 128 */

#define OP static inline __attribute__((always_inline))

typedef __m512 vf;
typedef __m512i vi, vw;

OP vf vf_load(const float *p)
{
	return _mm512_loadu_ps(p);
}
OP void vf_store(float *p, vf v)
{
	_mm512_storeu_ps(p, v);
}
OP vf vf_set(float x)
{
	return _mm512_set1_ps(x);
}
OP vf vf_add(vf a, vf b)
{
	return _mm512_add_ps(a, b);
}
OP vf vf_sub(vf a, vf b)
{
	return _mm512_sub_ps(a, b);
}
OP vf vf_mul(vf a, vf b)
{
	return _mm512_mul_ps(a, b);
}
OP vf vf_div(vf a, vf b)
{
	return _mm512_div_ps(a, b);
}
OP vf vf_fma(vf a, vf b, vf c)
{
	return _mm512_fmadd_ps(a, b, c);
}
OP vf vf_neg(vf a)
{
	return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}
OP vf vf_max(vf a, vf b)
{
	return _mm512_max_ps(a, b);
}
OP vf vf_lt(vf a, vf b, vf x, vf y)
{
	return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
OP vf vf_half(const void *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
OP void vi_to_int16(int16_t *p, vi v)
{
	_mm256_storeu_si256((void *)p, _mm512_cvtepi32_epi16(v));
}
OP void vf_to_half(void *p, vf v)
{
	_mm256_storeu_si256(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
OP vf vf_of_bits(vi v)
{
	return _mm512_castsi512_ps(v);
}
OP vf vf_of_int(vi v)
{
	return _mm512_cvtepi32_ps(v);
}
OP vi vi_load(const void *p)
{
	return _mm512_loadu_si512(p);
}
OP vi vi_set(int32_t x)
{
	return _mm512_set1_epi32(x);
}
OP vi vi_and(vi a, vi b)
{
	return _mm512_and_si512(a, b);
}
OP vi vi_or(vi a, vi b)
{
	return _mm512_or_si512(a, b);
}
OP vi vi_xor(vi a, vi b)
{
	return _mm512_xor_si512(a, b);
}
OP vi vi_add(vi a, vi b)
{
	return _mm512_add_epi32(a, b);
}
OP vi vi_srl(vi v, int n)
{
	return _mm512_srl_epi32(v, _mm_cvtsi32_si128(n));
}
OP vi vi_sll(vi v, int n)
{
	return _mm512_sll_epi32(v, _mm_cvtsi32_si128(n));
}
OP vi vi_of_bits(vf v)
{
	return _mm512_castps_si512(v);
}
OP vi vi_half_bits(const void *p)
{
	return _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));
}
OP vi vi_round(vf v)
{
	return _mm512_cvtps_epi32(v);
}
OP vi vi_table(const int8_t *p)
{
	return _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)p));
}
OP vi vi_lookup(vi table, vi v)
{
	return _mm512_shuffle_epi8(table, v);
}
OP vw vw_codes(vi v)
{
	return v;
}
OP vw vw_signed(vi v)
{
	return _mm512_xor_si512(v, _mm512_set1_epi32((int)0x80808080));
}
/* As the compilers' builtin, but gcc 12 copies accumulators about and spills them around that. */
OP vi vi_dot(vi acc, vi u, vi s)
{
	__asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(s));
	return acc;
}
OP vi vi_dot_four(vi acc, vi u, const int8_t four[4])
{
	typedef int32_t word __attribute__((may_alias, aligned(1)));
	__asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(u), "m"(*(const word *)four));
	return acc;
}
OP void vi_dots(vi sum[], int n, const vw w[], int count, int bits, int zero, const int8_t *p,
		size_t stride)
{
	(void)count, (void)bits, (void)zero;
	for (int c = 0; c < n; c++)
		sum[c] = vi_dot_four(sum[c], w[0], p + (size_t)c * stride);
}
OP vf vf_times_2(vf p, vf n, vi t)
{
	(void)t;
	return _mm512_scalef_ps(p, n);
}
OP float vf_sum(vf v)
{
	__m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
	__m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
	q = _mm_add_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
OP float vf_most(vf v)
{
	__m256 h = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
	__m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
	q = _mm_max_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
OP float vf_largest(vf x, vf y)
{
	vi mask = _mm512_set1_epi32(0x7fffffff);
	vi m = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(x), mask),
				_mm512_and_si512(_mm512_castps_si512(y), mask));
	uint32_t max = _mm512_reduce_max_epu32(m);
	float f;
	__builtin_memcpy(&f, &max, sizeof f);
	return f;
}
/* Lanes j and j + 8, then j + 4, of four vectors at once; the rest within 128 bits. */
OP void vf_fold(const vf v[4], float out[4])
{
	vf a = v[0], b = v[1], c = v[2], d = v[3];
	vf x = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
	vf y = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
	vf s = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
	s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e));
	s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
	vi first = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
	_mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(first, s)));
}
OP void vi_pack(int8_t *p, vi v)
{
	_mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8(v));
}
OP vi vi_max(vi a, vi b)
{
	return _mm512_max_epu32(a, b);
}
OP int32_t vi_sum(vi v)
{
	return _mm512_reduce_add_epi32(v);
}

/* Rows: all a >> 8 (rounded), then all low bytes, both int8. Packing leaves 4 integers of each
 * vector in each quarter, which the permutation puts in order. */
OP void row_store(uint8_t *p, size_t pad, size_t at, const vi v[4])
{
	const vi order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
	const vi low = _mm512_set1_epi16(0xff), half = _mm512_set1_epi16(0x80);
	vi a = _mm512_packs_epi32(v[0], v[1]), b = _mm512_packs_epi32(v[2], v[3]);
	vi l = _mm512_packus_epi16(_mm512_and_si512(a, low), _mm512_and_si512(b, low));
	vi h = _mm512_packus_epi16(_mm512_srli_epi16(_mm512_add_epi16(a, half), 8),
				   _mm512_srli_epi16(_mm512_add_epi16(b, half), 8));
	_mm512_storeu_si512(p + at, _mm512_permutexvar_epi32(order, h));
	_mm512_storeu_si512(p + pad + at, _mm512_permutexvar_epi32(order, l));
}

/* vpdpbusd wants unsigned bytes: the high ones + 128. */
typedef struct {
	vi high, low;
} vu;
typedef struct {
	vi hh, mixed, ll; /* of high bytes with high ones, of high with low, of low with low */
} vs;

OP vu vu_load(const uint8_t *high, const uint8_t *low)
{
	return (vu){_mm512_xor_si512(vi_load(high), _mm512_set1_epi32((int)0x80808080)),
		    low ? vi_load(low) : vi_set(0)};
}
OP vs vs_start(int32_t sum, bool low)
{
	(void)low;
	return (vs){vi_set(0), vi_set(-128 * sum), vi_set(0)};
}
OP vs vs_dot(vs s, vu u, bool low, const uint8_t *row, size_t pad, size_t g)
{
	int32_t high4, low4;
	__builtin_memcpy(&high4, row + 4 * g, 4);
	__builtin_memcpy(&low4, row + pad + 4 * g, 4);
	vi h = vi_set(high4), l = vi_set(low4);
	s.mixed = vi_dot(s.mixed, u.high, l);
	if (!low)
		return (vs){vi_dot(s.hh, u.high, h), s.mixed, s.ll};
	return (vs){vi_dot(s.hh, u.high, h), vi_dot(s.mixed, u.low, h), vi_dot(s.ll, u.low, l)};
}
OP vf vs_value(vs s)
{
	vi n = _mm512_add_epi32(_mm512_slli_epi32(s.hh, 8), s.mixed);
	return vf_of_int(_mm512_add_epi32(n, _mm512_srai_epi32(s.ll, 8)));
}

#include "kernels/simd.h"

/* After it, since it builds on it. */
#include "kernels/amx.h"
