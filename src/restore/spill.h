/* The source `spill`: K and V of evicted positions in a file, 16, 8 or 4 bits a value.
 *
 * Invariants:
 *  - A record is 8 positions: a checksum, then the rows [bounded layer][kv head][8][K, V], K before
 *    rotation, packed as memory/pack.h says; a chunk and its margins are whole records.
 *  - A record that is not what was written is an error that names it, and not K/V.
 *  - With a budget, a record takes the place of that `capacity` records before it.
 */
#ifndef PAL_RESTORE_SPILL_H
#define PAL_RESTORE_SPILL_H

#include "base/disk.h"
#include "memory/pack.h"
#include "restore/source.h"

#define PAL__SPILL_ROWS 8

typedef struct {
	pal__disk disk;
	pal__pack_kind kind;
	size_t row_bytes, record_bytes; /* of K or V of a head; of a record, checksum included */
	int64_t capacity;               /* records; INT64_MAX: no limit */
	int64_t end;                    /* positions written */
	int64_t first;                  /* record: those before it are dropped */
	int64_t doubt_from, doubt_end;  /* positions whose records are of another log */
	uint8_t *record;                /* scratch */
	float *angles;
} pal__spill;

/* budget: bytes, 0: no limit. False: sizes overflow. */
bool pal__spill_shape(pal__spill *x, const pal__site *s, pal__pack_kind kind, uint64_t budget);
size_t pal__spill_need(const pal__spill *x, const pal__site *s);
pal_status pal__spill_init(pal__spill *x, const pal__site *s, pal__arena *arena, const char *dir,
			   pal_error *err);
void pal__spill_close(pal__spill *x);

/* Writes positions up to `end`, which the site's K/V still has. Chunks whose first record the
 * budget took away are added to *dropped. */
pal_status pal__spill_keep(pal__spill *x, const pal__site *s, int64_t end, uint64_t *dropped,
			   pal_error *err);

/* Positions [from, end) are no longer those that were written. */
void pal__spill_doubt(pal__spill *x, int64_t from, int64_t end);

/* Errors: PAL_EIO; PAL_EFORMAT (a record is damaged); PAL_ELIMIT (the budget dropped it, or it is
 * in doubt). */
pal_status pal__spill_fill(pal__spill *x, pal__site *s, const pal__span *span, pal_error *err);

#endif
