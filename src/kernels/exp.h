/* exp for the forward pass: one definition for every instruction set.
 *
 * Cody and Waite: x = n ln 2 + r, exp(x) = 2^n p(r), p the degree-6 Taylor
 * polynomial on |r| <= ln(2) / 2; error below 2 ulp. Arguments above PAL__EXP_MAX are
 * taken as that (2^127 and something), those below PAL__EXP_MIN give 0, NaN gives NaN.
 * The vector kernels do these very steps in this order. */
#ifndef PAL_KERNELS_EXP_H
#define PAL_KERNELS_EXP_H

#include "kernels/half.h"

#define PAL__EXP_MAX 88.0f
#define PAL__EXP_MIN (-87.0f)
#define PAL__LOG2E 0x1.715476p+0f
#define PAL__ROUND 0x1.8p23f     /* adding it leaves the nearest integer in the low bits */
#define PAL__LN2_HI 0x1.62e4p-1f /* 15 bits: n times it is exact */
#define PAL__LN2_LO 0x1.7f7d1cp-20f
#define PAL__EXP_P2 0x1p-1f
#define PAL__EXP_P3 0x1.555556p-3f
#define PAL__EXP_P4 0x1.555556p-5f
#define PAL__EXP_P5 0x1.111112p-7f
#define PAL__EXP_P6 0x1.6c16c2p-10f

/* gelu: exp(-2 sqrt(2 / pi) (x + 0.044715 x^3)) = exp(x (A + B x^2)) */
#define PAL__GELU_A (-0x1.988454p+0f)
#define PAL__GELU_B (-0x1.2444f2p-4f)

static inline float pal__exp(float x)
{
	float y = x > PAL__EXP_MAX ? PAL__EXP_MAX : x;
	float t = __builtin_fmaf(y, PAL__LOG2E, PAL__ROUND);
	float n = t - PAL__ROUND;
	float r = __builtin_fmaf(n, -PAL__LN2_HI, y);
	r = __builtin_fmaf(n, -PAL__LN2_LO, r);
	float p = __builtin_fmaf(r, PAL__EXP_P6, PAL__EXP_P5);
	p = __builtin_fmaf(p, r, PAL__EXP_P4);
	p = __builtin_fmaf(p, r, PAL__EXP_P3);
	p = __builtin_fmaf(p, r, PAL__EXP_P2);
	p = __builtin_fmaf(p, r, 1.0f);
	p = __builtin_fmaf(p, r, 1.0f);
	float scale = pal__bits_float((pal__float_bits(t) << 23) + 0x3f800000);
	float e = p * scale;
	e = x < PAL__EXP_MIN ? 0 : e;
	return x != x ? x : e;
}

#endif
