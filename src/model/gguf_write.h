/* GGUF: writing a small file, version 3, and a checksum in it.
 *
 * Keys and tensors are collected, then the file is written at once, under another name, and
 * renamed when it is on the disk: nobody ever sees half a file, and a failure leaves the old one.
 *
 * Running out of memory while collecting is kept in the writer and reported by pal__gguf_write().
 */
#ifndef PAL_MODEL_GGUF_WRITE_H
#define PAL_MODEL_GGUF_WRITE_H

#include "model/gguf.h"

typedef struct {
	uint8_t *data;
	size_t n, cap;
} pal__gguf_bytes;

typedef struct {
	const void *data;
	size_t n_bytes;
} pal__gguf_source;

typedef struct {
	pal__gguf_bytes keys, infos;
	pal__gguf_source *tensors;
	size_t n_keys, n_tensors, cap_tensors;
	uint64_t offset; /* of the next tensor */
	bool failed;     /* no memory */
} pal__gguf_writer;

/* A zeroed writer is empty. */
void pal__gguf_writer_free(pal__gguf_writer *w);

void pal__gguf_put_string(pal__gguf_writer *w, const char *key, const char *value);
/* value: of a fixed size, as the file has it. */
void pal__gguf_put(pal__gguf_writer *w, const char *key, pal__gguf_type type, const void *value);
void pal__gguf_put_array(pal__gguf_writer *w, const char *key, pal__gguf_type item,
			 const void *values, size_t n);
/* data: [n_rows][n_cols] of a type whose blocks are one value, until the file is written. */
void pal__gguf_put_tensor(pal__gguf_writer *w, const char *name, pal__type type, size_t n_cols,
			  size_t n_rows, const void *data);

/* Writes what was collected to `path`, behind a first key `sum_key`: a u64, the XXH3-64 of the
 * file with these eight bytes zero. Errors: PAL_ENOMEM, PAL_EIO (the disk is full, the file cannot
 * be written, it is no regular file). */
pal_status pal__gguf_write(const pal__gguf_writer *w, const char *path, const char *sum_key,
			   pal_error *err);

/* PAL_EFORMAT when the bytes are not those that were written. */
pal_status pal__gguf_check_sum(const pal__gguf *g, const char *sum_key, pal_error *err);

#endif
