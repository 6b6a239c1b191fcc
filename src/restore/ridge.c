#include "restore/ridge.h"

#include <cblas.h>
#include <lapacke.h>
#include <string.h>

void pal__ridge_begin(void)
{
	openblas_set_num_threads(1); /* callers have threads of their own */
}

void pal__ridge_add_xx(double *xx, const double *x, size_t n, size_t n_x)
{
	cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)n_x, (int)n, 1, x, (int)n_x, 1, xx,
		    (int)n_x);
}

void pal__ridge_add_yx(double *yx, double *yy, const double *x, const double *y, size_t n,
		       size_t n_x, size_t n_y)
{
	cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n_y, (int)n_x, (int)n, 1, y,
		    (int)n_y, x, (int)n_x, 1, yx, (int)n_x);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < n_y; k++)
			yy[k] += y[i * n_y + k] * y[i * n_y + k];
}

/* LAPACK stores columns: our upper triangle is its lower one, and our rows are its columns. */

bool pal__ridge_factor(const double *xx, size_t n_x, double lambda, double *factor)
{
	double mean = 0;
	for (size_t i = 0; i + 1 < n_x; i++)
		mean += xx[i * n_x + i] / (double)(n_x - 1);
	memcpy(factor, xx, n_x * n_x * sizeof *xx);
	for (size_t i = 0; i + 1 < n_x; i++)
		factor[i * n_x + i] += lambda * mean;
	return LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', (int)n_x, factor, (int)n_x) == 0;
}

void pal__ridge_solve(const double *factor, size_t n_x, const double *yx, size_t n_y, double *w)
{
	memcpy(w, yx, n_y * n_x * sizeof *w);
	LAPACKE_dpotrs(LAPACK_COL_MAJOR, 'L', (int)n_x, (int)n_y, factor, (int)n_x, w, (int)n_x);
}

double pal__ridge_error(const double *xx, const double *yx, const double *yy, size_t n_x,
			size_t n_y, const double *w, double *scratch)
{
	double left = 0, all = 0, n = xx[n_x * n_x - 1];
	cblas_dsymm(CblasRowMajor, CblasRight, CblasUpper, (int)n_y, (int)n_x, 1, xx, (int)n_x, w,
		    (int)n_x, 0, scratch, (int)n_x);
	for (size_t i = 0; i < n_y; i++) {
		const double *wi = w + i * n_x, *yxi = yx + i * n_x, *si = scratch + i * n_x;
		double sum = yxi[n_x - 1];
		left += yy[i];
		all += yy[i] - sum * sum / n;
		for (size_t k = 0; k < n_x; k++)
			left += wi[k] * (si[k] - 2 * yxi[k]);
	}
	return all > 0 ? left / all : 0;
}
