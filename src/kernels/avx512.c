/* AVX-512 with VNNI (F, BW, DQ, VL, VNNI): 16 lanes are one register. With AMX's products
 * of int8 tiles it is a second set, "amx". */
#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KERNELS pal__kernels_avx512
#define KERNELS_NAME "avx512"
#define WIDE_ACTS false
#define ACT_QUANTS 32
#define PANEL 12
#define MAX_COLUMNS 12
#define ATTN_TILES(n) ((n) == 4 ? 2 : 4)
#define ATTN_DIMS(n) ((n) == 4 ? 4 : 8)
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
OP vf vf_lt(vf a, vf b, vf x, vf y)
{
	return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
OP vf vf_half(const void *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
OP vf vf_int16(const void *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256(p)));
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
OP vi vi_dot(vi acc, vw w, const int8_t *p)
{
	int32_t four;
	__builtin_memcpy(&four, p, 4);
	return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(four));
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

#include "kernels/simd.h"

/* After it, since it builds on it. */
#include "kernels/amx.h"
