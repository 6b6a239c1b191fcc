/* Files of a session's own: without a name, written and read in pieces, gone when it closes.
 *
 * Invariants:
 *  - A write is whole or an error that says what the system said; so is a read.
 *  - Nothing is mapped for writing: a full disk is a message and not a signal.
 *  - pal__disk_fail_after makes the n-th read or write fail, for tests.
 */
#ifndef PAL_BASE_DISK_H
#define PAL_BASE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
	int fd; /* or -1 */
	const char *what;
	uint64_t bytes; /* written at most: where the file ends */
} pal__disk;

#define PAL__NO_DISK ((pal__disk){.fd = -1})

/* dir: NULL: $TMPDIR or /var/tmp. what: names the file in messages, lives as long. */
pal_status pal__disk_open(pal__disk *d, const char *dir, const char *what, pal_error *err);
void pal__disk_close(pal__disk *d); /* fine on PAL__NO_DISK */
pal_status pal__disk_write(pal__disk *d, const void *from, size_t n, uint64_t at, pal_error *err);
pal_status pal__disk_read(const pal__disk *d, void *to, size_t n, uint64_t at, pal_error *err);

/* All of `from` to an empty file. */
pal_status pal__disk_copy(const pal__disk *from, pal__disk *to, pal_error *err);

/* Gives the bytes [at, at + n) back to the system; they read as zeros, or as they were. */
void pal__disk_forget(pal__disk *d, uint64_t at, uint64_t n);

/* As in mem.h, of reads and writes: the n-th and all later ones fail; n < 0: none. */
void pal__disk_fail_after(int64_t n);
bool pal__disk_failed(void); /* whether an injected failure has happened */

#endif
