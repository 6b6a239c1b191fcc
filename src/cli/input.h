/* What pal reads: whole files or standard input, texts and token ids, checked. */
#ifndef PAL_CLI_INPUT_H
#define PAL_CLI_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define PAL__MAX_INPUT ((size_t)1 << 30) /* bytes */

/* All of a file, or of standard input when path is NULL. *text is NUL-terminated and
 * freed with pal__free. Errors: PAL_EIO, PAL_ELIMIT, PAL_ENOMEM. */
pal_status pal__read_all(const char *path, char **text, size_t *n, pal_error *err);

/* PAL_OK if text[n] is UTF-8, otherwise PAL_EINVAL that names the first bad byte; what:
 * for the message, "the prompt". */
pal_status pal__check_utf8(const char *text, size_t n, const char *what, pal_error *err);

/* Token ids in text[n], white space between, each below n_vocab. *ids: freed with
 * pal__free. Errors: PAL_EINVAL (what is wrong, and where), PAL_ENOMEM. */
pal_status pal__parse_ids(const char *text, size_t n, int32_t n_vocab, int32_t **ids, size_t *n_ids,
			  pal_error *err);

/* Both for standard input, or the file at path if not NULL. */
pal_status pal__read_ids(const char *path, int32_t n_vocab, int32_t **ids, size_t *n_ids,
			 pal_error *err);

#endif
