/* Tiles kept in a file, so that the next start maps them instead of repacking.
 *
 * The format is docs/formats/tiles.md. Invariants:
 *  - A file is used only when it is, byte by byte, what would be written for the same model
 *    now: its header is compared with the one made from the key, and every other byte is
 *    covered by a checksum. No size or offset of the file is ever followed.
 *  - A file appears under its name whole or not at all: it is written beside it, synced and
 *    renamed. One process writes at a time; readers of an older file keep theirs.
 *  - The mapping outlives this module's calls. A file that is cut short meanwhile reads as
 *    zeros, never as a SIGBUS; pal__file_torn(&t->file) tells.
 */
#ifndef PAL_MODEL_TILES_H
#define PAL_MODEL_TILES_H

#include <stddef.h>
#include <stdint.h>

#include "base/file.h"
#include "base/pool.h"

/* Raise it whenever the bytes of a tile, or which rows it holds, change: kernels/matrix.h's
 * layout, the order of llama's rows, the order of the matrices. */
#define PAL__TILES_LAYOUT 2

/* A matrix, as in the file. */
typedef struct {
	uint64_t name; /* XXH3-64 of the tensor's name */
	uint32_t type, zero;
	uint64_t rows, cols;
	uint64_t offset; /* of its tiles, from the first tile of all */
} pal__tiles_record;

/* Whose tiles they are. */
typedef struct {
	uint64_t model_bytes, model_head; /* of the model file: size, XXH3-64 of its header */
	int64_t mtime, ctime;             /* of the model file, in ns since 1970 */
	const pal__tiles_record *records; /* [n_records] */
	size_t n_records, bytes;          /* bytes: of all tiles */
} pal__tiles_key;

typedef struct {
	pal__file file;
	const uint8_t *data; /* [key's bytes], at a multiple of 64 */
	uint64_t model_hash;
} pal__tiles;

/* Called after each piece, by every thread; worker 0 is the caller's. */
typedef void (*pal__tiles_step)(void *user, uint64_t bytes, int worker);

/* The file for a model: DIR/NAME-HASH.tiles, NAME from the model's file name and HASH of its whole
 * path. *out is freed with pal__free. Errors: PAL_ENOMEM, PAL_EIO. */
pal_status pal__tiles_path(const char *dir, const char *model, char **out, pal_error *err);

/* Maps and checks the file. Errors: PAL_EIO, PAL_ELIMIT (not mapped), PAL_EFORMAT (not what the
 * key asks for, or damaged; the text says which), PAL_ENOMEM. */
pal_status pal__tiles_open(const char *path, const pal__tiles_key *key, pal__pool *pool,
			   pal__tiles_step step, void *user, pal__tiles *out, pal_error *err);

/* Writes the file, and its folder if only that is missing. Errors: PAL_EIO, PAL_ENOMEM; then
 * path is what it was. */
pal_status pal__tiles_write(const char *path, const pal__tiles_key *key, uint64_t model_hash,
			    const uint8_t *tiles, pal__pool *pool, pal__tiles_step step, void *user,
			    pal_error *err);

#endif
