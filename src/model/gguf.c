#include "model/gguf.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"

/* The file may be changed by others while we read it, so no length is read twice
 * without being checked twice: a value's elements are bounded by the n_bytes that
 * were checked when the file was opened, whatever the bytes say by then. */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is read by memcpy");

#define MAGIC 0x46554747u /* "GGUF" */
/* The least that a key (length, 1 byte, type, 1 byte) and a tensor (length, 1 byte,
 * dimensions, one of them, type, offset) take in a file: memory for n of them is
 * asked for only when the file is long enough to hold them. */
#define KEY_BYTES_MIN (8 + 1 + 4 + 1)
#define TENSOR_BYTES_MIN (8 + 1 + 4 + 8 + 4 + 8)
#define DEFAULT_ALIGN 32
#define SHOWN 80 /* bytes of a name in a message */

typedef struct {
	const char *name;
	size_t bytes; /* 0: depends on the value */
} value_type;

static const value_type value_types[] = {
	[PAL__GGUF_U8] = {"u8", 1},         [PAL__GGUF_I8] = {"i8", 1},
	[PAL__GGUF_U16] = {"u16", 2},       [PAL__GGUF_I16] = {"i16", 2},
	[PAL__GGUF_U32] = {"u32", 4},       [PAL__GGUF_I32] = {"i32", 4},
	[PAL__GGUF_F32] = {"f32", 4},       [PAL__GGUF_BOOL] = {"bool", 1},
	[PAL__GGUF_STRING] = {"string", 0}, [PAL__GGUF_ARRAY] = {"array", 0},
	[PAL__GGUF_U64] = {"u64", 8},       [PAL__GGUF_I64] = {"i64", 8},
	[PAL__GGUF_F64] = {"f64", 8},
};
#define N_VALUE_TYPES (sizeof value_types / sizeof value_types[0])

const char *pal__gguf_type_name(pal__gguf_type type)
{
	return (size_t)type < N_VALUE_TYPES ? value_types[type].name : "unknown";
}

/* --- messages ----------------------------------------------------------- */

/* What an error is about: "key general.name", "tensor 3 of 17". */
typedef struct {
	const char *kind;
	const char *name;
	size_t n_name;
} subject;

/* Names come from the file: only printable ASCII reaches a terminal, and not much of it. */
static void show(const char *s, size_t n, char out[SHOWN + 8])
{
	size_t at = 0;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		if (at + 4 > SHOWN) {
			memcpy(out + at, "...", 3);
			at += 3;
			break;
		}
		if (c >= 0x20 && c < 0x7f && c != '\\')
			out[at++] = (char)c;
		else
			at += (size_t)snprintf(out + at, 5, "\\x%02x", c);
	}
	out[at] = 0;
}

__attribute__((format(printf, 5, 6))) static pal_status
complain(const pal__gguf *g, subject about, pal_error *err, pal_status code, const char *fmt, ...)
{
	char text[256], name[SHOWN + 8];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	show(about.name, about.n_name, name);
	/* A long path may not push the message out of the error's text. */
	size_t n = strlen(g->path), keep = n > 120 ? 117 : n;
	return pal__fail(err, code, "%s%s: %s%s%s: %s", keep < n ? "..." : "", g->path + n - keep,
			 about.kind, about.n_name ? " " : "", name, text);
}

/* --- reading ------------------------------------------------------------ */

typedef struct {
	pal__gguf *g;
	size_t at; /* bytes read so far, at most g->file.size */
	subject about;
	pal_error *err;
} reader;

static size_t left(const reader *r)
{
	return r->g->file.size - r->at;
}

/* The next n bytes, or NULL with a message. */
static const uint8_t *take(reader *r, uint64_t n)
{
	if (n > left(r)) {
		complain(r->g, r->about, r->err, PAL_EFORMAT,
			 "%" PRIu64
			 " bytes are expected at byte %zu, but the file ends at byte %zu",
			 n, r->at, r->g->file.size);
		return NULL;
	}
	const uint8_t *p = r->g->file.data + r->at;
	r->at += n;
	return p;
}

static pal_status take_u32(reader *r, uint32_t *out)
{
	const uint8_t *p = take(r, sizeof *out);
	if (!p)
		return PAL_EFORMAT;
	memcpy(out, p, sizeof *out);
	return PAL_OK;
}

static pal_status take_u64(reader *r, uint64_t *out)
{
	const uint8_t *p = take(r, sizeof *out);
	if (!p)
		return PAL_EFORMAT;
	memcpy(out, p, sizeof *out);
	return PAL_OK;
}

/* A key or a tensor's name. */
static pal_status take_name(reader *r, pal__str *out)
{
	uint64_t n;
	pal_status s = take_u64(r, &n);
	if (s != PAL_OK)
		return s;
	if (n == 0 || n > PAL__GGUF_MAX_NAME)
		return complain(r->g, r->about, r->err, n ? PAL_ELIMIT : PAL_EFORMAT,
				"its name has %" PRIu64 " bytes; 1 to %d are accepted", n,
				PAL__GGUF_MAX_NAME);
	const uint8_t *p = take(r, n);
	if (!p)
		return PAL_EFORMAT;
	*out = (pal__str){(const char *)p, n};
	return PAL_OK;
}

static pal_status check_bools(reader *r, const uint8_t *p, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (p[i] > 1)
			return complain(r->g, r->about, r->err, PAL_EFORMAT,
					"element %" PRIu64 " is a bool of value %d; 0 and 1 are "
					"accepted",
					i, p[i]);
	return PAL_OK;
}

/* Moves over `count` elements of type `type`. */
static pal_status skip_elements(reader *r, pal__gguf_type type, uint64_t count)
{
	size_t size = value_types[type].bytes, each = size ? size : sizeof(uint64_t);
	if (count > left(r) / each)
		return complain(r->g, r->about, r->err, PAL_EFORMAT,
				"%" PRIu64 " elements of type %s are expected at byte %zu, but "
				"only %zu bytes are left",
				count, value_types[type].name, r->at, left(r));
	if (size) {
		const uint8_t *p = take(r, count * size);
		if (!p)
			return PAL_EFORMAT;
		return type == PAL__GGUF_BOOL ? check_bools(r, p, count) : PAL_OK;
	}
	for (uint64_t i = 0; i < count; i++) {
		uint64_t n;
		pal_status s = take_u64(r, &n);
		if (s != PAL_OK)
			return s;
		if (!take(r, n))
			return PAL_EFORMAT;
	}
	return PAL_OK;
}

static pal_status take_type(reader *r, pal__gguf_type *out)
{
	uint32_t type;
	pal_status s = take_u32(r, &type);
	if (s != PAL_OK)
		return s;
	if (type >= N_VALUE_TYPES)
		return complain(r->g, r->about, r->err, PAL_EFORMAT,
				"value type %" PRIu32 " at byte %zu is unknown (0 to %zu are "
				"accepted)",
				type, r->at - sizeof type, N_VALUE_TYPES - 1);
	*out = (pal__gguf_type)type;
	return PAL_OK;
}

static pal_status take_array_head(reader *r, pal__gguf_kv *kv)
{
	pal_status s = take_type(r, &kv->item);
	if (s == PAL_OK)
		s = take_u64(r, &kv->count);
	if (s != PAL_OK)
		return s;
	if (kv->item == PAL__GGUF_ARRAY)
		return complain(
			r->g, r->about, r->err, PAL_EUNSUPPORTED,
			"an array of arrays is not supported (supported: arrays of numbers, "
			"bools and strings)");
	if (kv->count > PAL__GGUF_MAX_ARRAY)
		return complain(r->g, r->about, r->err, PAL_ELIMIT,
				"the array has %" PRIu64 " elements; at most %d are accepted",
				kv->count, PAL__GGUF_MAX_ARRAY);
	return PAL_OK;
}

static pal_status take_kv(reader *r, pal__gguf_kv *kv)
{
	pal_status s = take_name(r, &kv->key);
	if (s != PAL_OK)
		return s;
	r->about = (subject){"key", kv->key.s, kv->key.n};
	s = take_type(r, &kv->type);
	kv->item = kv->type;
	kv->count = 1;
	if (s == PAL_OK && kv->type == PAL__GGUF_ARRAY)
		s = take_array_head(r, kv);
	size_t start = r->at;
	kv->data = r->g->file.data + start;
	if (s == PAL_OK)
		s = skip_elements(r, kv->item, kv->count);
	kv->n_bytes = r->at - start;
	return s;
}

/* ne, the product of its elements, and the bytes they take. */
static pal_status take_shape(reader *r, pal__gguf_tensor *t)
{
	uint32_t n_dims;
	pal_status s = take_u32(r, &n_dims);
	if (s != PAL_OK)
		return s;
	if (n_dims < 1 || n_dims > 4)
		return complain(r->g, r->about, r->err, PAL_EFORMAT,
				"it has %" PRIu32 " dimensions; 1 to 4 are accepted", n_dims);
	t->n_dims = (int)n_dims;
	for (uint32_t i = 0; i < 4; i++) {
		t->ne[i] = 1;
		if (i >= n_dims)
			continue;
		s = take_u64(r, &t->ne[i]);
		if (s != PAL_OK)
			return s;
		if (!t->ne[i])
			return complain(r->g, r->about, r->err, PAL_EFORMAT,
					"dimension %" PRIu32 " is zero", i);
	}
	return PAL_OK;
}

static pal_status check_size(reader *r, pal__gguf_tensor *t, uint32_t type)
{
	const pal__type_info *info = pal__type_find(type);
	if (!info)
		return complain(r->g, r->about, r->err, PAL_EUNSUPPORTED,
				"type %" PRIu32 " is not supported (supported: %s)", type,
				pal__type_names());
	t->type = info->type;
	if (t->ne[0] % (unsigned)info->block)
		return complain(r->g, r->about, r->err, PAL_EFORMAT,
				"rows of %" PRIu64
				" elements are not whole blocks of %s (%d elements)",
				t->ne[0], info->name, info->block);
	uint64_t n = 1;
	bool fits = true;
	for (int i = 0; i < 4; i++)
		fits = fits && !__builtin_mul_overflow(n, t->ne[i], &n);
	fits = fits && n <= INT64_MAX &&
	       !__builtin_mul_overflow(n / (unsigned)info->block, (uint64_t)info->block_bytes,
				       &t->n_bytes) &&
	       t->n_bytes <= INT64_MAX;
	if (!fits)
		return complain(r->g, r->about, r->err, PAL_EFORMAT,
				"the shape %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64
				" is larger than 63 bits can count",
				t->ne[0], t->ne[1], t->ne[2], t->ne[3]);
	return PAL_OK;
}

static pal_status take_tensor(reader *r, pal__gguf_tensor *t)
{
	pal__str name = {0};
	uint32_t type;
	pal_status s = take_name(r, &name);
	if (s != PAL_OK)
		return s;
	r->about = (subject){"tensor", name.s, name.n};
	if (memchr(name.s, 0, name.n))
		return complain(r->g, r->about, r->err, PAL_EFORMAT,
				"a NUL byte in a tensor's name is not accepted");
	t->name = pal__strndup(name.s, name.n);
	if (!t->name)
		return pal__fail_memory(r->err, "a tensor's name", name.n + 1);
	s = take_shape(r, t);
	if (s == PAL_OK)
		s = take_u32(r, &type);
	if (s == PAL_OK)
		s = check_size(r, t, type);
	if (s == PAL_OK)
		s = take_u64(r, &t->offset);
	if (s == PAL_OK && t->offset % r->g->alignment)
		return complain(r->g, r->about, r->err, PAL_EFORMAT,
				"its offset %" PRIu64
				" is not a multiple of the alignment, %" PRIu64,
				t->offset, r->g->alignment);
	return s;
}

/* --- indices ------------------------------------------------------------ */

typedef int (*compare_fn)(const pal__gguf *g, uint32_t a, uint32_t b);

static int compare_str(const char *a, size_t n_a, const char *b, size_t n_b)
{
	int c = memcmp(a, b, n_a < n_b ? n_a : n_b);
	return c ? c : (n_a > n_b) - (n_a < n_b);
}

static int by_key(const pal__gguf *g, uint32_t a, uint32_t b)
{
	const pal__str *x = &g->kv[a].key, *y = &g->kv[b].key;
	return compare_str(x->s, x->n, y->s, y->n);
}

static int by_name(const pal__gguf *g, uint32_t a, uint32_t b)
{
	return strcmp(g->tensors[a].name, g->tensors[b].name);
}

static int by_offset(const pal__gguf *g, uint32_t a, uint32_t b)
{
	uint64_t x = g->tensors[a].offset, y = g->tensors[b].offset;
	return (x > y) - (x < y);
}

static void sift_down(const pal__gguf *g, uint32_t *index, size_t from, size_t n,
		      compare_fn compare)
{
	for (size_t child; (child = 2 * from + 1) < n; from = child) {
		if (child + 1 < n && compare(g, index[child], index[child + 1]) < 0)
			child++;
		if (compare(g, index[from], index[child]) >= 0)
			return;
		uint32_t t = index[from];
		index[from] = index[child];
		index[child] = t;
	}
}

/* index: [n], filled with 0 to n - 1 in ascending order of compare. Heapsort: n log n
 * whatever the file holds, no memory, and harmless when keys change under it. */
static void sort_index(const pal__gguf *g, uint32_t *index, size_t n, compare_fn compare)
{
	for (size_t i = 0; i < n; i++)
		index[i] = (uint32_t)i;
	for (size_t i = n / 2; i-- > 0;)
		sift_down(g, index, i, n, compare);
	for (size_t end = n; end-- > 1;) {
		uint32_t t = index[0];
		index[0] = index[end];
		index[end] = t;
		sift_down(g, index, 0, end, compare);
	}
}

static pal_status make_index(const pal__gguf *g, size_t n, compare_fn compare, uint32_t **out,
			     pal_error *err)
{
	*out = pal__calloc(n, sizeof **out);
	if (!*out)
		return pal__fail_memory(err, "an index of the GGUF file", n * sizeof **out);
	sort_index(g, *out, n, compare);
	return PAL_OK;
}

/* --- opening ------------------------------------------------------------ */

static pal_status read_header(reader *r, uint64_t *n_tensors, uint64_t *n_kv)
{
	pal__gguf *g = r->g;
	uint32_t magic;
	pal_status s = take_u32(r, &magic);
	if (s != PAL_OK)
		return s;
	if (magic != MAGIC)
		return complain(g, r->about, r->err, PAL_EFORMAT,
				"not a GGUF file (it starts with the bytes %02x %02x %02x %02x, "
				"not with \"GGUF\")",
				magic & 255, magic >> 8 & 255, magic >> 16 & 255, magic >> 24);
	s = take_u32(r, &g->version);
	if (s != PAL_OK)
		return s;
	if (g->version != 2 && g->version != 3) {
		uint32_t swapped = __builtin_bswap32(g->version);
		if (swapped >= 1 && swapped <= 3)
			return complain(
				g, r->about, r->err, PAL_EUNSUPPORTED,
				"big-endian GGUF is not supported (supported: versions 2 and "
				"3, little-endian)");
		return complain(g, r->about, r->err, PAL_EUNSUPPORTED,
				"GGUF version %" PRIu32 " is not supported (supported: 2 and 3, "
				"little-endian)",
				g->version);
	}
	s = take_u64(r, n_tensors);
	return s == PAL_OK ? take_u64(r, n_kv) : s;
}

static pal_status check_count(reader *r, const char *what, uint64_t n, uint64_t max, size_t each)
{
	if (n > max)
		return complain(r->g, r->about, r->err, PAL_ELIMIT,
				"it announces %" PRIu64 " %s; at most %" PRIu64 " are accepted", n,
				what, max);
	if (n > left(r) / each)
		return complain(r->g, r->about, r->err, PAL_EFORMAT,
				"it announces %" PRIu64
				" %s, but the %zu bytes left can hold no more "
				"than %zu",
				n, what, left(r), left(r) / each);
	return PAL_OK;
}

static pal_status read_keys(reader *r, uint64_t n)
{
	pal__gguf *g = r->g;
	char number[64];
	if (n) {
		g->kv = pal__calloc(n, sizeof *g->kv);
		if (!g->kv)
			return pal__fail_memory(r->err, "the GGUF metadata", n * sizeof *g->kv);
	}
	for (uint64_t i = 0; i < n; i++) {
		snprintf(number, sizeof number, "key %" PRIu64 " of %" PRIu64, i + 1, n);
		r->about = (subject){number, "", 0};
		pal_status s = take_kv(r, &g->kv[i]);
		if (s != PAL_OK)
			return s;
		g->n_kv++;
	}
	pal_status s = n ? make_index(g, n, by_key, &g->kv_index, r->err) : PAL_OK;
	for (size_t i = 1; s == PAL_OK && i < n; i++) {
		const pal__str *key = &g->kv[g->kv_index[i]].key;
		if (by_key(g, g->kv_index[i - 1], g->kv_index[i]) == 0)
			return complain(g, (subject){"key", key->s, key->n}, r->err, PAL_EFORMAT,
					"it appears more than once");
	}
	return s;
}

static pal_status read_alignment(reader *r)
{
	int64_t align = DEFAULT_ALIGN;
	pal_status s = pal__gguf_int(r->g, "general.alignment", false, PAL__GGUF_MIN_ALIGN,
				     PAL__GGUF_MAX_ALIGN, &align, r->err);
	if (s == PAL_OK && (align & (align - 1)))
		return complain(r->g, (subject){"key", "general.alignment", 17}, r->err,
				PAL_EFORMAT, "%" PRId64 " is not a power of two", align);
	r->g->alignment = (uint64_t)align;
	return s;
}

static pal_status read_tensors(reader *r, uint64_t n)
{
	pal__gguf *g = r->g;
	char number[64];
	if (n) {
		g->tensors = pal__calloc(n, sizeof *g->tensors);
		if (!g->tensors)
			return pal__fail_memory(r->err, "the GGUF tensor table",
						n * sizeof *g->tensors);
	}
	for (uint64_t i = 0; i < n; i++) {
		snprintf(number, sizeof number, "tensor %" PRIu64 " of %" PRIu64, i + 1, n);
		r->about = (subject){number, "", 0};
		g->n_tensors++; /* first, so that a half-read tensor's name is freed */
		pal_status s = take_tensor(r, &g->tensors[i]);
		if (s != PAL_OK)
			return s;
	}
	pal_status s = n ? make_index(g, n, by_name, &g->tensor_index, r->err) : PAL_OK;
	for (size_t i = 1; s == PAL_OK && i < n; i++) {
		const char *name = g->tensors[g->tensor_index[i]].name;
		if (by_name(g, g->tensor_index[i - 1], g->tensor_index[i]) == 0)
			return complain(g, (subject){"tensor", name, strlen(name)}, r->err,
					PAL_EFORMAT, "it appears more than once");
	}
	return s;
}

/* Sets data and the offset in the file of every tensor, whose bytes must be there. */
static pal_status place_tensors(reader *r)
{
	pal__gguf *g = r->g;
	size_t start;
	if (!pal__round_up(r->at, g->alignment, &start) || start > g->file.size)
		start = g->file.size; /* fine when there is no tensor */
	g->data_offset = start;
	uint64_t room = g->file.size - start;
	for (size_t i = 0; i < g->n_tensors; i++) {
		pal__gguf_tensor *t = &g->tensors[i];
		if (t->offset > room || t->n_bytes > room - t->offset)
			return complain(g, (subject){"tensor", t->name, strlen(t->name)}, r->err,
					PAL_EFORMAT,
					"its %" PRIu64 " bytes at offset %" PRIu64
					" reach beyond the end of the file, which has %" PRIu64
					" bytes of tensor data",
					t->n_bytes, t->offset, room);
		t->offset += start;
		t->data = g->file.data + t->offset;
	}
	return PAL_OK;
}

static pal_status check_overlap(const pal__gguf *g, pal_error *err)
{
	uint32_t *order;
	if (g->n_tensors < 2)
		return PAL_OK;
	pal_status s = make_index(g, g->n_tensors, by_offset, &order, err);
	for (size_t i = 1; s == PAL_OK && i < g->n_tensors; i++) {
		const pal__gguf_tensor *a = &g->tensors[order[i - 1]], *b = &g->tensors[order[i]];
		char name[SHOWN + 8];
		if (a->offset + a->n_bytes <= b->offset)
			continue;
		show(a->name, strlen(a->name), name);
		s = complain(g, (subject){"tensor", b->name, strlen(b->name)}, err, PAL_EFORMAT,
			     "its data at byte %" PRIu64
			     " overlaps that of tensor %s, which ends at "
			     "byte %" PRIu64,
			     b->offset, name, a->offset + a->n_bytes);
	}
	pal__free(order);
	return s;
}

static pal_status parse(pal__gguf *g, pal_error *err)
{
	reader r = {.g = g, .about = {"header", "", 0}, .err = err};
	uint64_t n_tensors = 0, n_kv = 0;
	pal_status s = read_header(&r, &n_tensors, &n_kv);
	if (s == PAL_OK)
		s = check_count(&r, "keys", n_kv, PAL__GGUF_MAX_KEYS, KEY_BYTES_MIN);
	if (s == PAL_OK)
		s = check_count(&r, "tensors", n_tensors, PAL__GGUF_MAX_TENSORS, TENSOR_BYTES_MIN);
	if (s == PAL_OK)
		s = read_keys(&r, n_kv);
	if (s == PAL_OK)
		s = read_alignment(&r);
	if (s == PAL_OK)
		s = read_tensors(&r, n_tensors);
	if (s == PAL_OK)
		s = place_tensors(&r);
	return s == PAL_OK ? check_overlap(g, err) : s;
}

pal_status pal__gguf_open(const char *path, pal__gguf *out, pal_error *err)
{
	pal__gguf g = {0};
	g.path = pal__strndup(path, strlen(path));
	if (!g.path)
		return pal__fail_memory(err, "a path", strlen(path) + 1);
	pal_status s = pal__file_map(path, &g.file, err);
	if (s == PAL_OK) {
		s = parse(&g, err);
		/* What a shrinking file made us read is no reason to call it malformed. */
		if (pal__gguf_shrunk(&g, NULL) != PAL_OK)
			s = pal__gguf_shrunk(&g, err);
	}
	if (s != PAL_OK) {
		pal__gguf_close(&g);
		return s;
	}
	*out = g;
	return PAL_OK;
}

void pal__gguf_close(pal__gguf *g)
{
	for (size_t i = 0; i < g->n_tensors; i++)
		pal__free(g->tensors[i].name);
	pal__free(g->tensors);
	pal__free(g->kv);
	pal__free(g->kv_index);
	pal__free(g->tensor_index);
	pal__free(g->path);
	pal__file_unmap(&g->file);
	*g = (pal__gguf){0};
}

pal_status pal__gguf_shrunk(const pal__gguf *g, pal_error *err)
{
	if (!pal__file_shrunk(&g->file))
		return PAL_OK;
	return complain(g, (subject){"file", "", 0}, err, PAL_EIO,
			"it has become shorter while it was read (it had %zu bytes)", g->file.size);
}

/* --- values ------------------------------------------------------------- */

const pal__gguf_kv *pal__gguf_find(const pal__gguf *g, const char *key)
{
	size_t low = 0, high = g->n_kv, n = strlen(key);
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const pal__gguf_kv *kv = &g->kv[g->kv_index[mid]];
		int c = compare_str(key, n, kv->key.s, kv->key.n);
		if (!c)
			return kv;
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

const pal__gguf_tensor *pal__gguf_tensor_find(const pal__gguf *g, const char *name)
{
	size_t low = 0, high = g->n_tensors;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const pal__gguf_tensor *t = &g->tensors[g->tensor_index[mid]];
		int c = strcmp(name, t->name);
		if (!c)
			return t;
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

static void read_number(const uint8_t *p, pal__gguf_value *v)
{
	size_t n = value_types[v->type].bytes;
	uint64_t bits = 0;
	float f;
	memcpy(&bits, p, n);
	switch (v->type) {
	case PAL__GGUF_F32:
		memcpy(&f, p, sizeof f);
		v->f = (double)f;
		break;
	case PAL__GGUF_F64:
		memcpy(&v->f, p, sizeof v->f);
		break;
	case PAL__GGUF_I8:
	case PAL__GGUF_I16:
	case PAL__GGUF_I32:
	case PAL__GGUF_I64: /* sign-extended */
		v->i = (int64_t)(bits << (64 - 8 * n)) >> (64 - 8 * n);
		break;
	default:
		v->u = bits;
	}
}

bool pal__gguf_next(const pal__gguf_kv *kv, size_t *at, pal__gguf_value *out)
{
	*out = (pal__gguf_value){.type = kv->item};
	size_t room = kv->n_bytes - *at, n = value_types[kv->item].bytes;
	uint64_t length;
	if (n) {
		if (room < n)
			return false;
		read_number(kv->data + *at, out);
		*at += n;
		return true;
	}
	if (room < sizeof length)
		return false;
	memcpy(&length, kv->data + *at, sizeof length);
	if (length > room - sizeof length) /* changed since the file was opened */
		return false;
	*at += sizeof length;
	out->s = (pal__str){(const char *)kv->data + *at, length};
	*at += length;
	return true;
}

static pal_status missing(const pal__gguf *g, const char *key, bool required, pal_error *err)
{
	if (!required)
		return PAL_OK;
	return complain(g, (subject){"key", key, strlen(key)}, err, PAL_EFORMAT, "it is missing");
}

static pal_status wrong_type(const pal__gguf *g, const pal__gguf_kv *kv, const char *wanted,
			     pal_error *err)
{
	bool array = kv->type == PAL__GGUF_ARRAY;
	return complain(g, (subject){"key", kv->key.s, kv->key.n}, err, PAL_EFORMAT,
			"it holds %s%s, but %s is expected", array ? "an array of " : "type ",
			pal__gguf_type_name(kv->item), wanted);
}

static pal_status torn(const pal__gguf *g, const pal__gguf_kv *kv, pal_error *err)
{
	return complain(g, (subject){"key", kv->key.s, kv->key.n}, err, PAL_EIO,
			"the file has changed since it was opened");
}

static bool is_signed(pal__gguf_type type)
{
	return type == PAL__GGUF_I8 || type == PAL__GGUF_I16 || type == PAL__GGUF_I32 ||
	       type == PAL__GGUF_I64;
}

static bool is_unsigned(pal__gguf_type type)
{
	return type == PAL__GGUF_U8 || type == PAL__GGUF_U16 || type == PAL__GGUF_U32 ||
	       type == PAL__GGUF_U64;
}

static bool is_float(pal__gguf_type type)
{
	return type == PAL__GGUF_F32 || type == PAL__GGUF_F64;
}

/* The number v, which is_signed or is_unsigned, when it is within [min, max]. */
static bool integer_within(const pal__gguf_value *v, int64_t min, int64_t max, int64_t *out)
{
	if (is_unsigned(v->type) && v->u > INT64_MAX)
		return false;
	int64_t i = is_unsigned(v->type) ? (int64_t)v->u : v->i;
	if (i < min || i > max)
		return false;
	*out = i;
	return true;
}

static pal_status out_of_range(const pal__gguf *g, const pal__gguf_kv *kv, const pal__gguf_value *v,
			       size_t element, int64_t min, int64_t max, pal_error *err)
{
	char value[32], where[48] = "";
	if (is_unsigned(v->type))
		snprintf(value, sizeof value, "%" PRIu64, v->u);
	else
		snprintf(value, sizeof value, "%" PRId64, v->i);
	if (kv->type == PAL__GGUF_ARRAY)
		snprintf(where, sizeof where, "element %zu of value ", element);
	return complain(g, (subject){"key", kv->key.s, kv->key.n}, err, PAL_EFORMAT,
			"%s%s is not accepted (accepted: %" PRId64 " to %" PRId64 ")", where, value,
			min, max);
}

pal_status pal__gguf_int(const pal__gguf *g, const char *key, bool required, int64_t min,
			 int64_t max, int64_t *out, pal_error *err)
{
	const pal__gguf_kv *kv = pal__gguf_find(g, key);
	pal__gguf_value v;
	size_t at = 0;
	if (!kv)
		return missing(g, key, required, err);
	if (!is_signed(kv->type) && !is_unsigned(kv->type))
		return wrong_type(g, kv, "an integer", err);
	pal__gguf_next(kv, &at, &v);
	if (!integer_within(&v, min, max, out))
		return out_of_range(g, kv, &v, 0, min, max, err);
	return PAL_OK;
}

pal_status pal__gguf_float(const pal__gguf *g, const char *key, bool required, double min,
			   double max, double *out, pal_error *err)
{
	const pal__gguf_kv *kv = pal__gguf_find(g, key);
	pal__gguf_value v;
	size_t at = 0;
	if (!kv)
		return missing(g, key, required, err);
	if (!is_float(kv->type))
		return wrong_type(g, kv, "a float", err);
	pal__gguf_next(kv, &at, &v);
	if (!(v.f >= min && v.f <= max))
		return complain(g, (subject){"key", kv->key.s, kv->key.n}, err, PAL_EFORMAT,
				"%g is not accepted (accepted: %g to %g)", v.f, min, max);
	*out = v.f;
	return PAL_OK;
}

pal_status pal__gguf_bool(const pal__gguf *g, const char *key, bool required, bool *out,
			  pal_error *err)
{
	const pal__gguf_kv *kv = pal__gguf_find(g, key);
	pal__gguf_value v;
	size_t at = 0;
	if (!kv)
		return missing(g, key, required, err);
	if (kv->type != PAL__GGUF_BOOL)
		return wrong_type(g, kv, "a bool", err);
	pal__gguf_next(kv, &at, &v);
	*out = v.u != 0;
	return PAL_OK;
}

pal_status pal__gguf_string(const pal__gguf *g, const char *key, bool required, pal__str *out,
			    pal_error *err)
{
	const pal__gguf_kv *kv = pal__gguf_find(g, key);
	pal__gguf_value v;
	size_t at = 0;
	if (!kv)
		return missing(g, key, required, err);
	if (kv->type != PAL__GGUF_STRING)
		return wrong_type(g, kv, "a string", err);
	if (!pal__gguf_next(kv, &at, &v))
		return torn(g, kv, err);
	*out = v.s;
	return PAL_OK;
}

/* --- arrays ------------------------------------------------------------- */

/* One element v, the i-th of kv, into its place; false with a message when it is refused. */
typedef pal_status (*convert_fn)(const pal__gguf *g, const pal__gguf_kv *kv,
				 const pal__gguf_value *v, size_t i, void *out, pal_error *err);

static pal_status convert_string(const pal__gguf *g, const pal__gguf_kv *kv,
				 const pal__gguf_value *v, size_t i, void *out, pal_error *err)
{
	(void)g, (void)kv, (void)err;
	((pal__str *)out)[i] = v->s;
	return PAL_OK;
}

static pal_status convert_float(const pal__gguf *g, const pal__gguf_kv *kv,
				const pal__gguf_value *v, size_t i, void *out, pal_error *err)
{
	if (isnan(v->f) || (isfinite(v->f) && fabs(v->f) > (double)FLT_MAX))
		return complain(g, (subject){"key", kv->key.s, kv->key.n}, err, PAL_EFORMAT,
				"element %zu of value %g is not accepted (accepted: numbers in the "
				"range of "
				"f32)",
				i, v->f);
	((float *)out)[i] = (float)v->f;
	return PAL_OK;
}

static pal_status convert_int(const pal__gguf *g, const pal__gguf_kv *kv, const pal__gguf_value *v,
			      size_t i, void *out, pal_error *err)
{
	int64_t n;
	if (!integer_within(v, INT32_MIN, INT32_MAX, &n))
		return out_of_range(g, kv, v, i, INT32_MIN, INT32_MAX, err);
	((int32_t *)out)[i] = (int32_t)n;
	return PAL_OK;
}

/* Copies the elements of kv, of `size` bytes each when converted. */
static pal_status copy_array(const pal__gguf *g, const pal__gguf_kv *kv, size_t size,
			     convert_fn convert, void **out, size_t *n, pal_error *err)
{
	void *items = pal__calloc(kv->count, size);
	if (!items)
		return pal__fail_memory(err, "an array of the GGUF metadata", kv->count * size);
	pal__gguf_value v;
	pal_status s = PAL_OK;
	size_t at = 0;
	for (size_t i = 0; s == PAL_OK && i < kv->count; i++)
		s = pal__gguf_next(kv, &at, &v) ? convert(g, kv, &v, i, items, err)
						: torn(g, kv, err);
	if (s != PAL_OK) {
		pal__free(items);
		return s;
	}
	*out = items;
	*n = kv->count;
	return PAL_OK;
}

pal_status pal__gguf_strings(const pal__gguf *g, const char *key, bool required, pal__str **out,
			     size_t *n, pal_error *err)
{
	const pal__gguf_kv *kv = pal__gguf_find(g, key);
	void *items = NULL;
	size_t count = 0;
	pal_status s = kv ? PAL_OK : missing(g, key, required, err);
	if (kv && (kv->type != PAL__GGUF_ARRAY || kv->item != PAL__GGUF_STRING))
		s = wrong_type(g, kv, "an array of strings", err);
	else if (kv)
		s = copy_array(g, kv, sizeof **out, convert_string, &items, &count, err);
	if (s != PAL_OK)
		return s;
	*out = items;
	*n = count;
	return PAL_OK;
}

pal_status pal__gguf_floats(const pal__gguf *g, const char *key, bool required, float **out,
			    size_t *n, pal_error *err)
{
	const pal__gguf_kv *kv = pal__gguf_find(g, key);
	void *items = NULL;
	size_t count = 0;
	pal_status s = kv ? PAL_OK : missing(g, key, required, err);
	if (kv && (kv->type != PAL__GGUF_ARRAY || !is_float(kv->item)))
		s = wrong_type(g, kv, "an array of floats", err);
	else if (kv)
		s = copy_array(g, kv, sizeof **out, convert_float, &items, &count, err);
	if (s != PAL_OK)
		return s;
	*out = items;
	*n = count;
	return PAL_OK;
}

pal_status pal__gguf_ints(const pal__gguf *g, const char *key, bool required, int32_t **out,
			  size_t *n, pal_error *err)
{
	const pal__gguf_kv *kv = pal__gguf_find(g, key);
	void *items = NULL;
	size_t count = 0;
	pal_status s = kv ? PAL_OK : missing(g, key, required, err);
	if (kv && (kv->type != PAL__GGUF_ARRAY || !(is_signed(kv->item) || is_unsigned(kv->item))))
		s = wrong_type(g, kv, "an array of integers", err);
	else if (kv)
		s = copy_array(g, kv, sizeof **out, convert_int, &items, &count, err);
	if (s != PAL_OK)
		return s;
	*out = items;
	*n = count;
	return PAL_OK;
}
