/* Read-only file mappings that survive a hostile disk.
 *
 * Invariants:
 *  - A mapping covers the file's size when it was opened.
 *  - When the file shrinks later, reading past its new end gives zeros instead of
 *    a SIGBUS that would kill the program, and the mapping is marked as shrunk
 *    for good. Whoever reads from a mapping asks pal__file_shrunk() after reading
 *    and before using what was read. It looks at the file's size too, since within
 *    the last page the zeros come without a SIGBUS; so the file stays open.
 *  - At most PAL__FILE_MAPS mappings are open at a time in one process.
 */
#ifndef PAL_BASE_FILE_H
#define PAL_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define PAL__FILE_MAPS 64

typedef struct {
	const uint8_t *data; /* [size], NULL when the file is empty */
	size_t size;         /* bytes */
	int slot, fd;        /* in the table of mappings, of the open file; internal */
} pal__file;

/* Errors: PAL_EIO (cannot open, not a regular file), PAL_ELIMIT. */
pal_status pal__file_map(const char *path, pal__file *out, pal_error *err);
void pal__file_unmap(pal__file *f); /* fine on a zeroed struct */

/* Whether the file is, or a read has found it, shorter than when it was opened. */
bool pal__file_shrunk(const pal__file *f);

/* The same without a system call, for a file whose last PAL__FILE_TAIL bytes are read by nobody
 * else: reads the last byte, and says whether a read has met the end of a shortened file. */
#define PAL__FILE_TAIL 65536 /* no page is larger */
bool pal__file_torn(const pal__file *f);

/* When its contents and its state last changed, in ns since 1970. False: unknown. */
bool pal__file_times(const pal__file *f, int64_t *mtime, int64_t *ctime);

/* Tells the system that all of the mapping will be read again and again: it is mapped in
 * huge pages where its file system has them. */
void pal__file_keep(const pal__file *f);

/* Tells the system that [from, from + n) will not be read soon: its pages leave
 * this process's resident set. */
void pal__file_forget(const pal__file *f, size_t from, size_t n);

#endif
