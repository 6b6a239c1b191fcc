/* GGUF: reading model files, versions 2 and 3, little-endian.
 *
 * Follows the specification "GGUF" of the ggml project. The file is mapped and
 * hostile: every count is checked before it is used, and what this header hands
 * out has been validated:
 *
 *  - Keys are unique, not empty, and at most PAL__GGUF_MAX_NAME bytes. Strings may hold any bytes.
 *  - Tensor names are unique; dimensions are 1 to 4, none zero, their product and
 *    its bytes fit in 63 bits; rows are whole blocks of the type; data lies inside
 *    the file, at multiples of general.alignment, and no two tensors overlap.
 *  - A type number that is not known is an error that names the tensor.
 *
 * Everything points into the mapping and lives until pal__gguf_close(). A file that
 * shrinks meanwhile reads as zeros: ask pal__gguf_shrunk() after reading.
 */
#ifndef PAL_MODEL_GGUF_H
#define PAL_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file.h"
#include "kernels/types.h"
#include "text/tokenizer.h"

#define PAL__GGUF_MAX_NAME 1024 /* bytes of a key or a tensor's name */
#define PAL__GGUF_MAX_TENSORS 65536
#define PAL__GGUF_MAX_KEYS 65536
#define PAL__GGUF_MAX_ARRAY (1 << 26) /* elements of one array */
#define PAL__GGUF_MIN_ALIGN 8         /* general.alignment: a power of two, in bytes */
#define PAL__GGUF_MAX_ALIGN (1 << 20)

/* The specification's value types, by its numbers. */
typedef enum {
	PAL__GGUF_U8,
	PAL__GGUF_I8,
	PAL__GGUF_U16,
	PAL__GGUF_I16,
	PAL__GGUF_U32,
	PAL__GGUF_I32,
	PAL__GGUF_F32,
	PAL__GGUF_BOOL,
	PAL__GGUF_STRING,
	PAL__GGUF_ARRAY,
	PAL__GGUF_U64,
	PAL__GGUF_I64,
	PAL__GGUF_F64,
} pal__gguf_type;

typedef struct {
	pal__str key;
	pal__gguf_type type, item; /* item: element type, when type is PAL__GGUF_ARRAY */
	uint64_t count;            /* elements: 1 unless an array */
	const uint8_t *data;       /* the value as in the file; strings with their length */
	size_t n_bytes;
} pal__gguf_kv;

typedef struct {
	char *name; /* NUL-terminated; names with a NUL inside are refused */
	pal__type type;
	int n_dims;
	uint64_t ne[4]; /* ne[0]: elements of a row; missing ones are 1 */
	const uint8_t *data;
	uint64_t offset, n_bytes; /* offset: of data in the file */
} pal__gguf_tensor;

typedef struct {
	char *path;
	pal__file file;
	uint32_t version;
	uint64_t alignment;
	size_t n_kv, n_tensors;
	pal__gguf_kv *kv;          /* [n_kv], in file order */
	pal__gguf_tensor *tensors; /* [n_tensors], in file order */
	uint64_t data_offset;      /* where tensor data starts */
	/* private: indices sorted by name */
	uint32_t *kv_index, *tensor_index; /* [n_kv], [n_tensors] */
} pal__gguf;

/* Errors: PAL_EIO, PAL_EFORMAT, PAL_EUNSUPPORTED, PAL_ELIMIT, PAL_ENOMEM. */
pal_status pal__gguf_open(const char *path, pal__gguf *out, pal_error *err);
void pal__gguf_close(pal__gguf *g); /* fine on a zeroed struct */

/* PAL_OK, or PAL_EIO with a message when the file has shrunk since it was opened. */
pal_status pal__gguf_shrunk(const pal__gguf *g, pal_error *err);

const pal__gguf_kv *pal__gguf_find(const pal__gguf *g, const char *key);             /* or NULL */
const pal__gguf_tensor *pal__gguf_tensor_find(const pal__gguf *g, const char *name); /* or NULL */

const char *pal__gguf_type_name(pal__gguf_type type); /* "u8", "string", ... */

/* The elements of a value in turn (a value that is no array has one). */
typedef struct {
	pal__gguf_type type; /* says which field holds the element */
	uint64_t u;          /* U8 to U64, BOOL */
	int64_t i;           /* I8 to I64 */
	double f;            /* F32, F64 */
	pal__str s;          /* STRING */
} pal__gguf_value;

/* Reads the element at byte *at of kv->data (0: the first) and moves *at behind it;
 * false at the end. */
bool pal__gguf_next(const pal__gguf_kv *kv, size_t *at, pal__gguf_value *out);

/* Typed values. When the key is missing *out is left as it is (so set the default
 * first) and PAL_OK is returned; with `required`, PAL_EFORMAT that names the key. A value
 * of another type, or outside [min, max], is PAL_EFORMAT that names key, value and range.
 * Any integer type is taken for an integer (and f64 for a float). */
pal_status pal__gguf_int(const pal__gguf *g, const char *key, bool required, int64_t min,
			 int64_t max, int64_t *out, pal_error *err);
pal_status pal__gguf_float(const pal__gguf *g, const char *key, bool required, double min,
			   double max, double *out, pal_error *err); /* NaN is refused */
pal_status pal__gguf_bool(const pal__gguf *g, const char *key, bool required, bool *out,
			  pal_error *err);
pal_status pal__gguf_string(const pal__gguf *g, const char *key, bool required, pal__str *out,
			    pal_error *err);

/* Arrays, copied to memory that the caller frees with pal__free (NULL and 0 when the key
 * is missing and not required). Strings still point into the mapping. A NaN among
 * floats is PAL_EFORMAT. */
pal_status pal__gguf_strings(const pal__gguf *g, const char *key, bool required, pal__str **out,
			     size_t *n, pal_error *err);
pal_status pal__gguf_floats(const pal__gguf *g, const char *key, bool required, float **out,
			    size_t *n, pal_error *err);
pal_status pal__gguf_ints(const pal__gguf *g, const char *key, bool required, int32_t **out,
			  size_t *n, pal_error *err); /* values outside int32: PAL_EFORMAT */

#endif
