/* Weight matrices as tiles, activations as panels: what matmul reads.
 *
 * A matrix of n_rows outputs by n_cols inputs keeps the file's bytes, re-ordered: 16
 * rows make a tile, in which the file's blocks are taken by pairs, and in a pair every field
 * of the blocks (scales, quants) is a plane in which the 16 rows lie side by side:
 *
 *     plane f of a pair: [2 blocks][units of f in a block][16 rows][unit bytes]
 *
 * with units of 2 bytes (half-precision scales, F16, BF16) or 4 (four quants, F32). So a
 * vector load gives one field of 16 rows, at a multiple of 64 bytes (32 for the second of units
 * of 2), and a tile is read from its first byte to its last, which memory is fastest at. Rows
 * beyond n_rows, in the last tile, and the block that a last pair may lack are zeros.
 *
 * Activations for the float types are plain f32. For all others a column is rounded to
 * int8 in blocks of 32 with an f32 scale d, x ~ q d, |q| <= 127. Of PAL__ACT_TRIES scales,
 * |largest| / 127, / 126 and so on, the one with the least squared error is taken (the first
 * of equals), and d is then the least-squares scale for its quants, sum(x q) / sum(q q):
 * rounding once costs little, and every row of the matrix has its error less for it (the
 * steps are in ref.c; docs/adr/0007). d = 0 and q = 0 where all |x| < 2^-100; d = NaN and
 * q = 0 where not all are finite. Columns are grouped into panels of up to PAL__MAX_PANEL.
 */
#ifndef PAL_KERNELS_MATRIX_H
#define PAL_KERNELS_MATRIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "base/status.h"
#include "kernels/types.h"

#define PAL__TILE_ROWS 16
#define PAL__MAX_FIELDS 5
#define PAL__MAX_PANEL 16
#define PAL__ACT_TRIES 4

/* A field of a type's block: `count` units of `unit` bytes at byte `offset`. */
typedef struct {
	uint8_t offset, unit, count;
} pal__field;

/* The fields of a type, in the order of their planes; returns their number. */
int pal__type_fields(pal__type type, const pal__field **fields);

typedef struct {
	pal__type type;
	size_t n_rows, n_cols, n_tiles, n_blocks; /* n_blocks: of a row */
	size_t plane[PAL__MAX_FIELDS];            /* byte offsets of a pair's planes */
	size_t pair_bytes, tile_bytes;
	uint8_t *data; /* [n_tiles][tile_bytes], at a multiple of 64 */
} pal__matrix;

/* Shape and offsets; data stays NULL. n_cols is whole blocks. False: sizes overflow. */
bool pal__matrix_shape(pal__matrix *m, pal__type type, size_t n_rows, size_t n_cols);
static inline size_t pal__matrix_bytes(const pal__matrix *m)
{
	return m->n_tiles * m->tile_bytes;
}

/* Fills tile `tile` of m from the file's rows: src [n_rows][row bytes]. Row i of the matrix
 * is row map[i] of src, or i where map is NULL. */
void pal__matrix_pack_tile(pal__matrix *m, size_t tile, const uint8_t *src, const uint32_t *map);

/* The file's block `block` of row `row`, gathered from its tile. out: block bytes. */
void pal__matrix_block(const pal__matrix *m, size_t row, size_t block, uint8_t *out);

/* Whether activations for this type are rounded to int8. */
static inline bool pal__type_is_float(pal__type t)
{
	return t == PAL__F32 || t == PAL__F16 || t == PAL__BF16;
}

/* Activations: n columns of k inputs, for matmul. */
typedef struct {
	size_t n, k;
	const float *x; /* [n][k], for the float types */
	const void *q;  /* panels, for the others */
} pal__acts;

/* 32 columns of a panel `w` wide, in this order:
 *   quants [w][32] int8
 *   d [w] float, the scales
 *   nsum [w][2] int32, minus the sum of the quants of either half, or of an instruction set
 *       (whose panels are its own) what it wants to know of them instead
 *   dsum [w][3] float, d * sum of the quants of either half, and of all */
#define PAL__ACT_BYTES ((size_t)32 + 4 + 8 + 12)

static inline size_t pal__panels_bytes(size_t n, size_t k)
{
	return n * (k / 32) * PAL__ACT_BYTES;
}

/* Width of the panel that starts where `left` columns are left; panel: the widest. */
static inline int pal__panel_width(size_t left, int panel)
{
	return left < (size_t)panel ? (int)left : panel;
}

#endif
