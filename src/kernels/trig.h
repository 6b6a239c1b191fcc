/* exp, log, sine and cosine in double precision, ours, so that tables made at run time
 * (rotary positions) have the same bits on every machine. Plain C, no vectors: for tables
 * and rare use. Errors are a few ulp. */
#ifndef PAL_KERNELS_TRIG_H
#define PAL_KERNELS_TRIG_H

double pal__exp64(double x); /* 0 below -700, that of 700 above it, NaN for NaN */
double pal__log64(double x); /* x > 0, normal */

/* |x| <= 2^45; the reduction is exact to about 2^-60 |x|. */
void pal__sincos64(double x, double *sin, double *cos);

#endif
