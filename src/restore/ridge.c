#include "restore/ridge.h"

#include <cblas.h>
#include <dlfcn.h>
#include <lapacke.h>
#include <string.h>

/* Loaded when they are needed: OpenBLAS takes memory and starts threads as soon as it is in a
 * process, and does not return where it cannot, while all else that pal does needs none of it. */
static struct {
	__typeof__(openblas_set_num_threads) *threads;
	__typeof__(cblas_dsyrk) *dsyrk;
	__typeof__(cblas_dgemm) *dgemm;
	__typeof__(cblas_dsymm) *dsymm;
	__typeof__(LAPACKE_dpotrf) *dpotrf;
	__typeof__(LAPACKE_dpotrs) *dpotrs;
} blas;

pal_status pal__ridge_begin(pal_error *err)
{
	const struct {
		int library;
		const char *name;
		void *to;
	} parts[] = {{0, "openblas_set_num_threads", &blas.threads},
		     {0, "cblas_dsyrk", &blas.dsyrk},
		     {0, "cblas_dgemm", &blas.dgemm},
		     {0, "cblas_dsymm", &blas.dsymm},
		     {1, "LAPACKE_dpotrf", &blas.dpotrf},
		     {1, "LAPACKE_dpotrs", &blas.dpotrs}};
	static const char *const names[] = {"libopenblas.so.0", "liblapacke.so.3"};
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		void *library = dlopen(names[parts[i].library], RTLD_NOW | RTLD_LOCAL);
		void *found = library ? dlsym(library, parts[i].name) : NULL;
		if (!found)
			return pal__fail(err, PAL_EUNSUPPORTED,
					 "fitting needs %s (Debian: libopenblas0, liblapacke): %s",
					 names[parts[i].library], dlerror());
		memcpy(parts[i].to, &found, sizeof found);
	}
	blas.threads(1); /* callers have threads of their own */
	return PAL_OK;
}

void pal__ridge_add_xx(double *xx, const double *x, size_t n, size_t n_x)
{
	blas.dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)n_x, (int)n, 1, x, (int)n_x, 1, xx,
		   (int)n_x);
}

void pal__ridge_add_yx(double *yx, double *yy, const double *x, const double *y, size_t n,
		       size_t n_x, size_t n_y)
{
	blas.dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n_y, (int)n_x, (int)n, 1, y,
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
	return blas.dpotrf(LAPACK_COL_MAJOR, 'L', (int)n_x, factor, (int)n_x) == 0;
}

void pal__ridge_solve(const double *factor, size_t n_x, const double *yx, size_t n_y, double *w)
{
	memcpy(w, yx, n_y * n_x * sizeof *w);
	blas.dpotrs(LAPACK_COL_MAJOR, 'L', (int)n_x, (int)n_y, factor, (int)n_x, w, (int)n_x);
}

double pal__ridge_error(const double *xx, const double *yx, const double *yy, size_t n_x,
			size_t n_y, const double *w, double *scratch)
{
	double left = 0, all = 0, n = xx[n_x * n_x - 1];
	blas.dsymm(CblasRowMajor, CblasRight, CblasUpper, (int)n_y, (int)n_x, 1, xx, (int)n_x, w,
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
