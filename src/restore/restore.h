/* Restoration: what leaves the K/V is kept track of, and what is asked for comes back.
 *
 * Invariants:
 *  - Before a position leaves its ring, and once it is final, pal__restore_keep has seen it.
 *  - A set of chunks fills the far rows behind the sinks in ascending order. Where margins of
 *    neighbours overlap, the first has the positions.
 *  - Which source filled a chunk is known: where one cannot, `recompute` does, counted and said.
 *  - All memory is the arena's; files have the rest (contract C1).
 */
#ifndef PAL_RESTORE_RESTORE_H
#define PAL_RESTORE_RESTORE_H

#include "restore/hidden.h"
#include "restore/index.h"
#include "restore/project.h"
#include "restore/recompute.h"
#include "restore/spill.h"

typedef struct pal__restore pal__restore;
struct pal__restore {
	pal__site site;
	pal__runs runs;
	pal__memo memo;
	pal__index index;
	pal__spill spill;
	pal__hidden hidden;
	pal__sidecar side; /* zeros: none */
	pal__projector projector;
	pal_source source;
	int slots;
	int64_t kept;        /* positions seen by pal__restore_keep */
	pal__restore *other; /* PAL__CONTROL_FOREIGN: whose chunks are taken */
	/* In sight now. */
	int n_chunks;
	int32_t chunks[PAL_MAX_SLOTS];
	uint8_t sources[PAL_MAX_SLOTS];
	/* Counts, as in pal_session_stats. */
	uint64_t filled[PAL_N_SOURCES], fallbacks, dropped;
	char note[256];
};

/* Prepares r for a session: site has all but what the arena gives. Options: source, left, slots,
 * spill_type, disk_budget, restore_prefill, proposer, side_car; without the last, MODEL.side.gguf
 * beside MODEL.gguf is taken where there is one. Errors: PAL_EINVAL, PAL_ELIMIT and what reading
 * the side-car gives. pal__restore_close, always. */
pal_status pal__restore_shape(pal__restore *r, const pal__site *site, const pal_session_options *o,
			      size_t *bytes, pal_error *err);
pal_status pal__restore_init(pal__restore *r, pal__arena *arena, const char *dir, pal_error *err);
void pal__restore_close(pal__restore *r);

/* Positions up to `end` are final, and still in the K/V. On failure they are not kept. */
pal_status pal__restore_keep(pal__restore *r, int64_t end, pal_error *err);

/* Sees every forward pass over the site's rows: pal__tap's `at`, whose user is the pal__restore.
 * What failed then is told afterwards, and the K/V are not all kept. */
void pal__restore_tap(void *restore, size_t layer, const pal__scratch *s, int n);
pal_status pal__restore_tapped(pal__restore *r, pal_error *err);

/* The chunks that have positions which are evicted for a query at pos, and are kept. */
int64_t pal__restore_end(const pal__restore *r, int64_t pos);

/* Fills the far rows with chunks[n], ascending, each below `end` somewhere. exact: sources[n] says
 * by which source, and a failure is an error; else by the one the session has, and what could not
 * is filled by `recompute`. */
pal_status pal__restore_fill(pal__restore *r, const int32_t *chunks, const uint8_t *sources, int n,
			     int64_t end, bool exact, pal_error *err);

#endif
