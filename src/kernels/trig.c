#include "kernels/trig.h"

#include <stdint.h>
#include <string.h>

#define fma __builtin_fma

/* Adding it rounds to the nearest integer, which is then in the low bits. */
#define ROUND 0x1.8p52
#define LN2_HI 0x1.62e42fefap-1
#define LN2_LO 0x1.cf79abc9e3b3ap-40
#define PIO2_HI 0x1.921fb54442d18p+0
#define PIO2_MID 0x1.1a62633145c07p-54
#define PIO2_LO (-0x1.f1976b7ed8fbcp-110)

static double of_bits(uint64_t u)
{
	double d;
	memcpy(&d, &u, sizeof d);
	return d;
}

static uint64_t bits_of(double d)
{
	uint64_t u;
	memcpy(&u, &d, sizeof u);
	return u;
}

double pal__exp64(double x)
{
	if (x != x)
		return x;
	if (x < -700)
		return 0;
	x = x > 700 ? 700 : x;
	double t = fma(x, 0x1.71547652b82fep+0, ROUND), n = t - ROUND;
	double r = fma(n, -LN2_LO, fma(n, -LN2_HI, x)), p = 1;
	for (int i = 14; i >= 1; i--) /* Taylor, by Horner: |r| < 0.35 */
		p = fma(p, r / i, 1);
	return p * of_bits((bits_of(t) << 52) + 0x3ff0000000000000u);
}

/* x = m 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m - 1) / (m + 1)). */
double pal__log64(double x)
{
	uint64_t u = bits_of(x);
	int e = (int)(u >> 52) - 1023;
	double m = of_bits((u & 0x000fffffffffffffu) | 0x3ff0000000000000u);
	if (m > 0x1.6a09e667f3bcdp+0) {
		m /= 2;
		e++;
	}
	double f = (m - 1) / (m + 1), f2 = f * f, p = 0;
	for (int i = 23; i >= 1; i -= 2)
		p = fma(p, f2, 1.0 / i);
	return fma(e, LN2_HI, fma(e, LN2_LO, 2 * f * p));
}

void pal__sincos64(double x, double *sin, double *cos)
{
	double t = fma(x, 0x1.45f306dc9c883p-1, ROUND), n = t - ROUND;
	double r = fma(n, -PIO2_LO, fma(n, -PIO2_MID, fma(n, -PIO2_HI, x)));
	double r2 = r * r, s = 1, c = 1;
	for (int i = 16; i >= 2; i -= 2) { /* Taylor: |r| < 0.79 */
		s = fma(s, -r2 / (i * (i + 1)), 1);
		c = fma(c, -r2 / (i * (i - 1)), 1);
	}
	s *= r;
	switch (bits_of(t) & 3) {
	case 0:
		*sin = s, *cos = c;
		break;
	case 1:
		*sin = c, *cos = -s;
		break;
	case 2:
		*sin = -s, *cos = -c;
		break;
	default:
		*sin = -c, *cos = s;
	}
}
