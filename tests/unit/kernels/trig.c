/* Our exp, log, sine and cosine against libm's long double ones. */
#include "kernels/trig.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static uint64_t state;

/* 0 to 1 */
static double uniform(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (double)(state >> 11) * 0x1p-53;
}

/* The error of got in units of the last place of want. */
static double ulps(double got, long double want)
{
	int e;
	frexpl(want, &e);
	return (double)fabsl(((long double)got - want) / ldexpl(1, e - 53));
}

static void exponential(void **unused)
{
	double worst = 0;
	(void)unused;
	for (int i = 0; i < 100000; i++) {
		double x = i % 2 ? (uniform() - 0.5) * 1398 : (uniform() - 0.5) * 4;
		double error = ulps(pal__exp64(x), expl((long double)x));
		worst = error > worst ? error : worst;
	}
	if (!(worst < 2))
		fail_msg("%g ulp", worst);
	assert_true(pal__exp64(0) == 1 && pal__exp64(-0.0) == 1);
	assert_true(pal__exp64(-701) == 0 && pal__exp64(-INFINITY) == 0);
	assert_true(pal__exp64(1e300) == pal__exp64(700) &&
		    pal__exp64(INFINITY) == pal__exp64(700));
	assert_true(isnan(pal__exp64(NAN)));
}

static void logarithm(void **unused)
{
	double worst = 0;
	(void)unused;
	for (int i = 0; i < 100000; i++) {
		double x = i % 2 ? ldexp(0.5 + uniform(), (int)(uniform() * 2000) - 1000)
				 : 0.5 + uniform();
		long double want = logl((long double)x);
		/* Near 1 the sum of e ln 2 and the series cancels: there the error is absolute. */
		double error = fabsl(want) < 0.5L
				       ? (double)fabsl((long double)pal__log64(x) - want) * 0x1p53
				       : ulps(pal__log64(x), want);
		worst = error > worst ? error : worst;
	}
	if (!(worst < 3))
		fail_msg("%g ulp", worst);
	assert_true(pal__log64(1) == 0);
	assert_true(pal__log64(2) == log(2));
}

static void sine_cosine_at(double x, double *worst)
{
	double s, c, allowed = fabs(x) * 0x1p-60 + 0x1p-52;
	pal__sincos64(x, &s, &c);
	double error = fabs((double)((long double)s - sinl((long double)x))) / allowed;
	*worst = error > *worst ? error : *worst;
	error = fabs((double)((long double)c - cosl((long double)x))) / allowed;
	*worst = error > *worst ? error : *worst;
}

static void sine_cosine(void **unused)
{
	double worst = 0, s, c;
	(void)unused;
	for (int i = 0; i < 100000; i++) /* of every size up to 2^45, both signs */
		sine_cosine_at((uniform() - 0.5) * ldexp(1, i % 47), &worst);
	for (int i = -2000; i < 2000; i++) { /* where the quadrant changes */
		sine_cosine_at(i * 0x1.921fb54442d18p-1, &worst);
		sine_cosine_at(nextafter(i * 0x1.921fb54442d18p-1, 1e9), &worst);
	}
	for (int i = 0; i < 1 << 14; i++) /* positions of the fastest pair */
		sine_cosine_at(i, &worst);
	if (!(worst < 1))
		fail_msg("%g times what is allowed", worst);
	pal__sincos64(0, &s, &c);
	assert_true(s == 0 && c == 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exponential),
		cmocka_unit_test(logarithm),
		cmocka_unit_test(sine_cosine),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
