/* Ridge regression by normal equations, in double precision: y ~ W x, where the last element of
 * every x is 1, so that W's last column is the bias, which is not punished.
 *
 * Sums are kept instead of rows, so that memory does not grow with the data and the error on
 * held-out data is computed from the held-out sums, for any W:
 *   xx [n_x][n_x] X'X, of which only the upper triangle is read or written
 *   yx [n_y][n_x] Y'X        yy [n_y] the sums of y^2
 * Functions are thread-safe, compute on the calling thread, and allocate nothing. All matrices
 * are row-major.
 */
#ifndef PAL_RESTORE_RIDGE_H
#define PAL_RESTORE_RIDGE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* Loads OpenBLAS and LAPACKE; to be called before the others, from one thread. Errors:
 * PAL_EUNSUPPORTED where they are not installed. */
pal_status pal__ridge_begin(pal_error *err);

/* xx += X'X of x [n][n_x]. */
void pal__ridge_add_xx(double *xx, const double *x, size_t n, size_t n_x);

/* yx += Y'X and yy += y^2 of x [n][n_x] and y [n][n_y]. */
void pal__ridge_add_yx(double *yx, double *yy, const double *x, const double *y, size_t n,
		       size_t n_x, size_t n_y);

/* Factors X'X + lambda d I into factor [n_x][n_x], d: the mean of X'X's diagonal without the
 * bias. False: it is not positive definite. */
bool pal__ridge_factor(const double *xx, size_t n_x, double lambda, double *factor);

/* w [n_y][n_x] from the factor. */
void pal__ridge_solve(const double *factor, size_t n_x, const double *yx, size_t n_y, double *w);

/* 1 - R^2 of w over all n_y outputs: what is left of their variance. 0 where they have none.
 * scratch: [n_y][n_x]. */
double pal__ridge_error(const double *xx, const double *yx, const double *yy, size_t n_x,
			size_t n_y, const double *w, double *scratch);

#endif
