/* Files that appear when they are whole.
 *
 * Invariants:
 *  - What is written goes to NAME.part, locked; pal__newfile_finish gives it its name in one step.
 *    Whoever has the file of that name open or mapped keeps the old one, to the last byte.
 *  - Two processes do not write the same file at once: the second is refused. What a killed one
 *    left is overwritten.
 *  - Room for all of it is reserved first: a full disk is an error, and no signal.
 */
#ifndef PAL_BASE_NEWFILE_H
#define PAL_BASE_NEWFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct {
	const char *path; /* the caller's, lives as long */
	char *part;
	int fd;
} pal__newfile;

#define PAL__NO_NEWFILE ((pal__newfile){.fd = -1})

/* bytes: room to reserve. Errors: PAL_EIO, PAL_ENOMEM. */
pal_status pal__newfile_open(pal__newfile *f, const char *path, uint64_t bytes, pal_error *err);

/* Writes behind what was written. Errors: PAL_EIO. */
pal_status pal__newfile_write(pal__newfile *f, const void *bytes, size_t n, pal_error *err);

/* Writes n bytes over the file's first ones, syncs it and gives it its name. Errors: PAL_EIO. */
pal_status pal__newfile_finish(pal__newfile *f, const void *head, size_t n, pal_error *err);

/* Removes what is not finished. Fine on PAL__NO_NEWFILE and after pal__newfile_finish. */
void pal__newfile_close(pal__newfile *f);

/* Makes the folders of path up to its last slash, for the user alone. Not empty; written to, and as
 * before afterwards. False: errno says why. */
bool pal__make_folders(char *path);

#endif
