/* Regression by sums: it finds the map that made the data, and its errors are those of the rows. */
#include "restore/ridge.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { X = 6, Y = 3, ROWS = 200 }; /* X with the constant */

static uint64_t random_state = 1;

static double noise(void)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (double)(random_state >> 11) * 0x1p-52 - 1;
}

static double x[ROWS][X], y[ROWS][Y], xx[X * X], yx[Y * X], yy[Y], w[Y * X];

/* y = truth x + `dirt` of noise, as rows and, in two pieces, as sums. */
static void make(double truth[Y][X], double dirt)
{
	for (int i = 0; i < ROWS; i++) {
		for (int k = 0; k < X; k++)
			x[i][k] = k == X - 1 ? 1 : noise();
		for (int o = 0; o < Y; o++) {
			y[i][o] = dirt * noise();
			for (int k = 0; k < X; k++)
				y[i][o] += truth[o][k] * x[i][k];
		}
	}
	memset(xx, 0, sizeof xx);
	memset(yx, 0, sizeof yx);
	memset(yy, 0, sizeof yy);
	for (int from = 0; from < ROWS; from += ROWS / 2) {
		pal__ridge_add_xx(xx, x[from], ROWS / 2, X);
		pal__ridge_add_yx(yx, yy, x[from], y[from], ROWS / 2, X, Y);
	}
}

static void random_truth(double truth[Y][X])
{
	for (int o = 0; o < Y; o++)
		for (int k = 0; k < X; k++)
			truth[o][k] = noise();
}

static double solve(double lambda)
{
	double factor[X * X], scratch[Y * X];
	assert_true(pal__ridge_factor(xx, X, lambda, factor));
	pal__ridge_solve(factor, X, yx, Y, w);
	return pal__ridge_error(xx, yx, yy, X, Y, w, scratch);
}

static void finds_the_map(void **state)
{
	(void)state;
	double truth[Y][X];
	random_truth(truth);
	make(truth, 0);
	assert_true(solve(1e-12) < 1e-12);
	for (int i = 0; i < Y * X; i++)
		assert_true(fabs(w[i] - truth[i / X][i % X]) < 1e-8);
}

static void error_of_rows(void **state)
{
	(void)state;
	double truth[Y][X], left = 0, all = 0, mean[Y] = {0};
	random_truth(truth);
	make(truth, 0.5);
	double error = solve(0.1);
	for (int i = 0; i < ROWS; i++)
		for (int o = 0; o < Y; o++)
			mean[o] += y[i][o] / ROWS;
	for (int i = 0; i < ROWS; i++)
		for (int o = 0; o < Y; o++) {
			double guess = 0;
			for (int k = 0; k < X; k++)
				guess += w[o * X + k] * x[i][k];
			left += (y[i][o] - guess) * (y[i][o] - guess);
			all += (y[i][o] - mean[o]) * (y[i][o] - mean[o]);
		}
	assert_true(error > 0.05 && error < 1);
	assert_true(fabs(error - left / all) < 1e-9);
}

/* A map that is punished beyond measure says the mean, and that leaves all of the variance. */
static void bias_is_free(void **state)
{
	(void)state;
	double truth[Y][X];
	random_truth(truth);
	for (int o = 0; o < Y; o++)
		truth[o][X - 1] = 100;
	make(truth, 0);
	assert_true(fabs(solve(1e12) - 1) < 1e-6);
	assert_true(fabs(w[X - 1] - 100) < 1);
}

static void not_definite(void **state)
{
	(void)state;
	double factor[X * X], zeros[X * X] = {0};
	assert_false(pal__ridge_factor(zeros, X, 0.1, factor));
	xx[0] = NAN;
	assert_false(pal__ridge_factor(xx, X, 0.1, factor));
}

static void without_variance(void **state)
{
	(void)state;
	double truth[Y][X] = {{0}};
	make(truth, 0);
	assert_true(solve(1e-6) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_the_map),    cmocka_unit_test(error_of_rows),
		cmocka_unit_test(bias_is_free),     cmocka_unit_test(not_definite),
		cmocka_unit_test(without_variance),
	};
	pal_error err;
	if (pal__ridge_begin(&err)) {
		printf("Bail out! %s\n", err.text);
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
