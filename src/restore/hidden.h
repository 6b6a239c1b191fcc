/* The source `hidden`: the inputs of bounded layers in a file, from which K and V are made again.
 *
 * Exact: the products are those of the forward pass, to the bit. A position takes n_embd floats
 * for each bounded layer, many times what spilled K/V take where few heads share them.
 *
 * Invariants:
 *  - A record is one position's input of one layer: a checksum, then [n_embd] float32. The
 *    file is blocks of 64 positions: [block][bounded layer][64] records.
 *  - Records are written as they are computed, by a tap, and again when a position is read again,
 *    so that they are those of the K/V in the ring.
 *  - A record that is not what was written is an error that names it, and not K/V.
 *  - With a budget, a block takes the place of that `capacity` blocks before it.
 */
#ifndef PAL_RESTORE_HIDDEN_H
#define PAL_RESTORE_HIDDEN_H

#include "base/disk.h"
#include "restore/source.h"

typedef struct {
	pal__disk disk;
	size_t record_bytes;
	int64_t capacity;              /* blocks; INT64_MAX: no limit */
	int64_t first, newest;         /* blocks: those before first are dropped */
	int64_t doubt_from, doubt_end; /* positions whose records may be of what was taken back */
	uint8_t *records;              /* [PAL__ATTN_BLOCK] scratch */
	pal_error error;               /* of the tap; code PAL_OK: none */
} pal__hidden;

/* budget: bytes, 0: no limit. False: sizes overflow. */
bool pal__hidden_shape(pal__hidden *x, const pal__site *s, uint64_t budget);
size_t pal__hidden_need(const pal__hidden *x);
pal_status pal__hidden_init(pal__hidden *x, pal__arena *arena, const char *dir, pal_error *err);
void pal__hidden_close(pal__hidden *x);

/* For a tap: writes the inputs of `layer` of the site's first n rows, which are of its K/V. What
 * fails is kept in x->error. Chunks that the budget took away are added to *dropped. */
void pal__hidden_write(pal__hidden *x, const pal__site *s, size_t layer,
		       const pal__scratch *scratch, int n, uint64_t *dropped);

/* The K/V of positions [from, end) are as they were before events that wrote their records. */
void pal__hidden_doubt(pal__hidden *x, int64_t from, int64_t end);

/* Errors: PAL_EIO; PAL_EFORMAT (a record is damaged); PAL_ELIMIT (the budget dropped it, or it is
 * in doubt). */
pal_status pal__hidden_fill(pal__hidden *x, pal__site *s, const pal__span *span, pal_error *err);

#endif
