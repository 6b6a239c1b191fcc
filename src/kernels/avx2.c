/* AVX2 with FMA and F16C: 16 lanes are two registers. Dots with weights add up in 16 bits as
 * long as they are exact there. */
#include <assert.h>
#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KERNELS pal__kernels_avx2
#define KERNELS_NAME "avx2"
#define PANEL 12
#define MAX_COLUMNS 12
#define COLUMNS_OF_16 4
#define GROUPS 8
#define UNROLLED
#define EACH_COLUMN _Pragma("GCC unroll 16")
#define COLUMNS_AT_ONCE 4
#define EACH_OF_4 _Pragma("GCC unroll 4")
#define BLOCKS_AT_ONCE 1
#define ATTN_TILES(n) (4 / (n))
#define ATTN_DIMS(n) (4 / (n))
#define ATTN_SUMS 2
#define ROW_SUMS false
#define VW_BIAS_SHIFT 0

#define OP static inline __attribute__((always_inline))

typedef struct {
	__m256 a, b; /* lanes 0 to 7, 8 to 15 */
} vf;
typedef struct {
	__m256i a, b;
} vi, vw;

#define BOTH(op)                           \
	{                                  \
		op(x.a, y.a), op(x.b, y.b) \
	}

OP vf vf_load(const float *p)
{
	return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
OP void vf_store(float *p, vf v)
{
	_mm256_storeu_ps(p, v.a);
	_mm256_storeu_ps(p + 8, v.b);
}
OP vf vf_set(float x)
{
	return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
OP vf vf_add(vf x, vf y)
{
	return (vf)BOTH(_mm256_add_ps);
}
OP vf vf_sub(vf x, vf y)
{
	return (vf)BOTH(_mm256_sub_ps);
}
OP vf vf_mul(vf x, vf y)
{
	return (vf)BOTH(_mm256_mul_ps);
}
OP vf vf_div(vf x, vf y)
{
	return (vf)BOTH(_mm256_div_ps);
}
OP vf vf_fma(vf a, vf b, vf c)
{
	return (vf){_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b)};
}
OP vf vf_neg(vf v)
{
	__m256 sign = _mm256_set1_ps(-0.0f);
	return (vf){_mm256_xor_ps(v.a, sign), _mm256_xor_ps(v.b, sign)};
}
OP vf vf_max(vf x, vf y)
{
	return (vf)BOTH(_mm256_max_ps);
}
OP vf vf_lt(vf a, vf b, vf x, vf y)
{
	return (vf){_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ)),
		    _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ))};
}
OP vf vf_half(const void *p)
{
	const __m128i *h = p;
	return (vf){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
OP void vi_to_int16(int16_t *p, vi v)
{
	__m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.a, v.b), 0xd8);
	_mm256_storeu_si256((void *)p, w);
}
OP void vf_to_half(void *p, vf v)
{
	__m128i *h = p;
	_mm_storeu_si128(h, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
	_mm_storeu_si128(h + 1, _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}
OP vf vf_of_bits(vi v)
{
	return (vf){_mm256_castsi256_ps(v.a), _mm256_castsi256_ps(v.b)};
}
OP vf vf_of_int(vi v)
{
	return (vf){_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)};
}
OP vi vi_load(const void *p)
{
	const __m256i *q = p;
	return (vi){_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
OP vi vi_set(int32_t x)
{
	return (vi){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
OP vi vi_and(vi x, vi y)
{
	return (vi)BOTH(_mm256_and_si256);
}
OP vi vi_or(vi x, vi y)
{
	return (vi)BOTH(_mm256_or_si256);
}
OP vi vi_xor(vi x, vi y)
{
	return (vi)BOTH(_mm256_xor_si256);
}
OP vi vi_add(vi x, vi y)
{
	return (vi)BOTH(_mm256_add_epi32);
}
OP vi vi_srl(vi v, int n)
{
	__m128i by = _mm_cvtsi32_si128(n);
	return (vi){_mm256_srl_epi32(v.a, by), _mm256_srl_epi32(v.b, by)};
}
OP vi vi_sll(vi v, int n)
{
	__m128i by = _mm_cvtsi32_si128(n);
	return (vi){_mm256_sll_epi32(v.a, by), _mm256_sll_epi32(v.b, by)};
}
OP vi vi_of_bits(vf v)
{
	return (vi){_mm256_castps_si256(v.a), _mm256_castps_si256(v.b)};
}
OP vi vi_half_bits(const void *p)
{
	const __m128i *h = p;
	return (vi){_mm256_cvtepu16_epi32(_mm_loadu_si128(h)),
		    _mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1))};
}
OP vi vi_round(vf v)
{
	return (vi){_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b)};
}
OP vi vi_table(const int8_t *p)
{
	__m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)p));
	return (vi){t, t};
}
OP vi vi_lookup(vi x, vi y)
{
	return (vi)BOTH(_mm256_shuffle_epi8);
}
OP vw vw_codes(vi v)
{
	return v;
}
OP vw vw_signed(vi v)
{
	return v;
}

typedef int32_t word __attribute__((may_alias, aligned(1)));

/* 16 rows of a group by a column, or by four of them that are `stride` apart. Instructions one
 * after the other: left to itself gcc 12 makes all products first, and keeps them in memory. */
#define FIRST_DOTS(product, add, p, a, b)                                              \
	"vpbroadcastd %[" p "], %[x]\n\t" product " %[x], %[wa], %[" a "]\n\t" product \
	" %[x], %[wb], %[" b "]\n\t"
#define MORE_DOTS(product, add, p, a, b)                                                         \
	"vpbroadcastd %[" p "], %[x]\n\t" product " %[x], %[wa], %[y]\n\t" product               \
	" %[x], %[wb], %[x]\n\t" add " %[y], %[" a "], %[" a "]\n\t" add " %[x], %[" b "], %[" b \
	"]\n\t"
#define DOTS_BY_1(dots, out, product, add)                                   \
	__asm__(dots(product, add, "p0", "a0", "b0")                         \
		: [a0] out(s->a), [b0] out(s->b), [x] "=&x"(x), [y] "=&x"(y) \
		: [p0] "m"(*(const word *)p), [wa] "x"(w.a), [wb] "x"(w.b))
#define DOTS_BY_4(dots, out, product, add)                                                        \
	__asm__(dots(product, add, "p0", "a0", "b0") dots(product, add, "p1", "a1", "b1")         \
			dots(product, add, "p2", "a2", "b2") dots(product, add, "p3", "a3", "b3") \
		: [a0] out(s[0].a), [b0] out(s[0].b), [a1] out(s[1].a), [b1] out(s[1].b),         \
		  [a2] out(s[2].a), [b2] out(s[2].b), [a3] out(s[3].a), [b3] out(s[3].b),         \
		  [x] "=&x"(x), [y] "=&x"(y)                                                      \
		: [p0] "m"(*(const word *)p), [p1] "m"(*(const word *)(p + stride)),              \
		  [p2] "m"(*(const word *)(p + 2 * stride)),                                      \
		  [p3] "m"(*(const word *)(p + 3 * stride)), [wa] "x"(w.a), [wb] "x"(w.b))

#define DOTS(name, dots, out, product, add)                               \
	OP void name(vi s[], int n, vw w, const int8_t *p, size_t stride) \
	{                                                                 \
		__m256i x, y;                                             \
		if (n == 4)                                               \
			DOTS_BY_4(dots, out, product, add);               \
		for (; n < 4 && n; n--, s++, p += stride)                 \
			DOTS_BY_1(dots, out, product, add);               \
	}
/* Bytes below 128 by int8, in 16 bits; int16 by int16, in 32 bits. */
DOTS(first_codes, FIRST_DOTS, "=&x", "vpmaddubsw", "")
DOTS(more_codes, MORE_DOTS, "+x", "vpmaddubsw", "vpaddw")
DOTS(more_pairs, MORE_DOTS, "+x", "vpmaddwd", "vpaddd")

/* What codes that mean less than they are by 2^zero owe to a column's quants (zero < 0: nothing):
 * in each 16 bits the pairs of bytes that a dot adds up there. */
OP int32_t nsum_of(const int8_t q[16], int32_t sum)
{
	uint32_t even = 0, odd = 0;
	(void)sum;
	for (int i = 0; i < 16; i += 4) {
		even -= (uint32_t)(q[i] + q[i + 1]);
		odd -= (uint32_t)(q[i + 2] + q[i + 3]);
	}
	return (int32_t)(odd << 16 | (even & 0xffff));
}
OP vi vi_start(int32_t nsum_a, int32_t nsum_b, int zero)
{
	__m256i v = _mm256_add_epi16(_mm256_set1_epi32(nsum_a), _mm256_set1_epi32(nsum_b));
	v = zero < 0 ? _mm256_setzero_si256() : _mm256_slli_epi16(v, zero);
	return (vi){v, v};
}

/* Products of two bytes below 2^bits with quants, which are up to 127, stay within 16 bits for
 * 2^(7 - bits) groups; of codes that mean 2^(bits - 1) less for twice as many, and as all is
 * modulo 2^16 they may start with what they owe. */
OP void dot_codes(vi sum[], int n, const vw w[], int count, int bits, int zero, const int8_t *p,
		  size_t stride)
{
	const int exact = 1 << (zero < 0 ? 7 - bits : 8 - bits);
	assert(zero < 0 || count <= exact);
	const __m256i one = _mm256_set1_epi16(1);
	for (int i = 0; i < count; i += exact) {
		vi s[COLUMNS_AT_ONCE];
		first_codes(s, n, w[i], p + 4 * i, stride);
		EACH_OF_4
		for (int c = 0; c < n && zero >= 0; c++)
			s[c] = (vi){_mm256_add_epi16(s[c].a, sum[c].a),
				    _mm256_add_epi16(s[c].b, sum[c].b)};
		for (int j = i + 1; j < count && j < i + exact; j++)
			more_codes(s, n, w[j], p + 4 * j, stride);
		EACH_OF_4
		for (int c = 0; c < n; c++) {
			s[c] = (vi){_mm256_madd_epi16(s[c].a, one), _mm256_madd_epi16(s[c].b, one)};
			sum[c] = i ? vi_add(sum[c], s[c]) : s[c];
		}
	}
}

/* Bytes 0 and 2, or 1 and 3, of every four as int16. */
OP __m256i even_bytes(__m256i v)
{
	return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
}
OP __m256i odd_bytes(__m256i v)
{
	return _mm256_srai_epi16(v, 8);
}

/* A whole block of int8: wide[2 j] and [2 j + 1] are the even and odd bytes of group j. */
OP void dot_pairs(vi sum[], int n, const vw wide[], const int8_t *p, size_t stride)
{
	int32_t quants[COLUMNS_AT_ONCE][2][GROUPS];
	EACH_OF_4
	for (int c = 0; c < n; c++) {
		__m256i q = _mm256_loadu_si256((const void *)(p + (size_t)c * stride));
		_mm256_storeu_si256((void *)quants[c][0], even_bytes(q));
		_mm256_storeu_si256((void *)quants[c][1], odd_bytes(q));
	}
	for (int j = 0; j < GROUPS; j++)
		for (int odd = 0; odd < 2; odd++)
			more_pairs(sum, n, wide[2 * j + odd], (const int8_t *)&quants[0][odd][j],
				   sizeof quants[0]);
}

/* Of int8 by few columns, for which pairs do not pay: the sign of a weight goes to the quant. */
OP __m256i dot_signed(__m256i sum, __m256i w, const void *p)
{
	__m256i q = _mm256_sign_epi8(_mm256_set1_epi32(*(const word *)p), w);
	q = _mm256_maddubs_epi16(_mm256_abs_epi8(w), q);
	return _mm256_add_epi32(sum, _mm256_madd_epi16(q, _mm256_set1_epi16(1)));
}
OP void dot_few(vi sum[], int n, const vw w[], int count, const int8_t *p, size_t stride)
{
	for (int c = 0; c < n; c++)
		for (int j = 0; j < count; j++) {
			const int8_t *q = p + (size_t)c * stride + 4 * j;
			sum[c].a = dot_signed(sum[c].a, w[j].a, q);
			sum[c].b = dot_signed(sum[c].b, w[j].b, q);
		}
}

OP void vi_dots(vi sum[], int n, const vw w[], int count, int bits, int zero, const int8_t *p,
		size_t stride)
{
	if (bits < 8) {
		dot_codes(sum, n, w, count, bits, zero, p, stride);
		return;
	}
	if (n <= 2) {
		dot_few(sum, n, w, count, p, stride);
		return;
	}
	vw wide[2 * GROUPS];
	for (int j = 0; j < GROUPS; j++) {
		wide[2 * j] = (vw){even_bytes(w[j].a), even_bytes(w[j].b)};
		wide[2 * j + 1] = (vw){odd_bytes(w[j].a), odd_bytes(w[j].b)};
	}
	EACH_OF_4
	for (int c = 0; c < n; c += COLUMNS_AT_ONCE)
		dot_pairs(sum + c, n - c < COLUMNS_AT_ONCE ? n - c : COLUMNS_AT_ONCE, wide,
			  p + (size_t)c * stride, stride);
}
OP vf vf_times_2(vf p, vf n, vi t)
{
	(void)n;
	return vf_mul(p, vf_of_bits(vi_add(vi_sll(t, 23), vi_set(0x3f800000))));
}
OP float vf_sum(vf v)
{
	__m256 h = _mm256_add_ps(v.a, v.b);
	__m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
	q = _mm_add_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
OP float vf_most(vf v)
{
	__m256 h = _mm256_max_ps(v.a, v.b);
	__m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
	q = _mm_max_ps(q, _mm_movehl_ps(q, q));
	return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
OP float vf_largest(vf x, vf y)
{
	__m256i mask = _mm256_set1_epi32(0x7fffffff);
	__m256i m = _mm256_max_epu32(_mm256_and_si256(_mm256_castps_si256(x.a), mask),
				     _mm256_and_si256(_mm256_castps_si256(x.b), mask));
	m = _mm256_max_epu32(m, _mm256_and_si256(_mm256_castps_si256(y.a), mask));
	m = _mm256_max_epu32(m, _mm256_and_si256(_mm256_castps_si256(y.b), mask));
	__m128i h = _mm_max_epu32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
	h = _mm_max_epu32(h, _mm_shuffle_epi32(h, 0x4e));
	h = _mm_max_epu32(h, _mm_shuffle_epi32(h, 0xb1));
	return _mm_cvtss_f32(_mm_castsi128_ps(h));
}
OP void vf_fold(const vf v[4], float out[4])
{
	__m128 s[4];
	for (int i = 0; i < 4; i++) {
		__m256 h = _mm256_add_ps(v[i].a, v[i].b);
		s[i] = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
	}
	_MM_TRANSPOSE4_PS(s[0], s[1], s[2], s[3]);
	_mm_storeu_ps(out, _mm_add_ps(_mm_add_ps(s[0], s[2]), _mm_add_ps(s[1], s[3])));
}
OP void vi_pack(int8_t *p, vi v)
{
	__m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.a, v.b), 0xd8);
	__m128i lo = _mm256_castsi256_si128(w), hi = _mm256_extracti128_si256(w, 1);
	_mm_storeu_si128((void *)p, _mm_packs_epi16(lo, hi));
}
OP vi vi_max(vi x, vi y)
{
	return (vi)BOTH(_mm256_max_epu32);
}
OP int32_t vi_sum(vi v)
{
	(void)v;
	return 0; /* no ROW_SUMS */
}

/* Rows: int16, the even and the odd ones of four in pairs. */
OP void row_store(uint8_t *p, size_t pad, size_t at, const vi v[4])
{
	const __m256i pairs = _mm256_broadcastsi128_si256(
		_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
	(void)pad;
	for (size_t i = 0; i < 4; i++) {
		__m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(v[i].a, v[i].b), 0xd8);
		_mm256_storeu_si256((void *)(p + 2 * (at + 16 * i)), _mm256_shuffle_epi8(w, pairs));
	}
}

typedef struct {
	__m256i even, odd;
} pairs;
typedef struct {
	pairs high_a, high_b, low_a, low_b;
} vu;
typedef struct {
	vi high, low;
} vs;

OP pairs signed_pairs(const uint8_t *p)
{
	__m256i v = _mm256_loadu_si256((const void *)p);
	return (pairs){even_bytes(v), odd_bytes(v)};
}
OP pairs unsigned_pairs(const uint8_t *p)
{
	__m256i v = _mm256_loadu_si256((const void *)p);
	return (pairs){_mm256_and_si256(v, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(v, 8)};
}
OP vu vu_load(const uint8_t *high, const uint8_t *low)
{
	vu u = {.high_a = signed_pairs(high), .high_b = signed_pairs(high + 32)};
	if (low) {
		u.low_a = unsigned_pairs(low);
		u.low_b = unsigned_pairs(low + 32);
	}
	return u;
}
OP vs vs_start(int32_t sum, bool low)
{
	(void)sum, (void)low;
	return (vs){vi_set(0), vi_set(0)};
}
OP __m256i madd_pairs(__m256i acc, pairs u, __m256i even, __m256i odd)
{
	acc = _mm256_add_epi32(acc, _mm256_madd_epi16(u.even, even));
	return _mm256_add_epi32(acc, _mm256_madd_epi16(u.odd, odd));
}
OP vs vs_dot(vs s, vu u, bool low, const uint8_t *row, size_t pad, size_t g)
{
	int32_t pair[2];
	(void)pad;
	__builtin_memcpy(pair, row + 8 * g, 8);
	__m256i even = _mm256_set1_epi32(pair[0]), odd = _mm256_set1_epi32(pair[1]);
	s.high = (vi){madd_pairs(s.high.a, u.high_a, even, odd),
		      madd_pairs(s.high.b, u.high_b, even, odd)};
	if (low)
		s.low = (vi){madd_pairs(s.low.a, u.low_a, even, odd),
			     madd_pairs(s.low.b, u.low_b, even, odd)};
	return s;
}
OP vf vs_value(vs s)
{
	return vf_of_int((vi){_mm256_add_epi32(s.high.a, _mm256_srai_epi32(s.low.a, 8)),
			      _mm256_add_epi32(s.high.b, _mm256_srai_epi32(s.low.b, 8))});
}

#include "kernels/simd.h"
