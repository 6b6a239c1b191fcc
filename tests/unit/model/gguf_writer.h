/* Writes GGUF bytes into a buffer, right or wrong as the test likes, and the buffer
 * into a temporary file. A buffer that is too small fails the test. */
#ifndef PAL_TESTS_GGUF_WRITER_H
#define PAL_TESTS_GGUF_WRITER_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/gguf.h"

typedef struct {
	uint8_t bytes[65536];
	size_t n;
} buffer;

static inline void put(buffer *b, const void *bytes, size_t n)
{
	assert_true(n <= sizeof b->bytes - b->n);
	if (n)
		memcpy(b->bytes + b->n, bytes, n);
	b->n += n;
}

static inline void put_u8(buffer *b, uint8_t v)
{
	put(b, &v, sizeof v);
}

static inline void put_u32(buffer *b, uint32_t v)
{
	put(b, &v, sizeof v);
}

static inline void put_u64(buffer *b, uint64_t v)
{
	put(b, &v, sizeof v);
}

static inline void put_bytes(buffer *b, const char *s, size_t n)
{
	put_u64(b, n);
	put(b, s, n);
}

static inline void put_str(buffer *b, const char *s)
{
	put_bytes(b, s, strlen(s));
}

static inline void put_header(buffer *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
	b->n = 0;
	put(b, "GGUF", 4);
	put_u32(b, version);
	put_u64(b, n_tensors);
	put_u64(b, n_kv);
}

static inline void put_key(buffer *b, const char *key, uint32_t type)
{
	put_str(b, key);
	put_u32(b, type);
}

static inline void put_array(buffer *b, const char *key, uint32_t item, uint64_t count)
{
	put_key(b, key, PAL__GGUF_ARRAY);
	put_u32(b, item);
	put_u64(b, count);
}

static inline void put_key_u32(buffer *b, const char *key, uint32_t v)
{
	put_key(b, key, PAL__GGUF_U32);
	put_u32(b, v);
}

static inline void put_key_str(buffer *b, const char *key, const char *v)
{
	put_key(b, key, PAL__GGUF_STRING);
	put_str(b, v);
}

static inline void put_tensor(buffer *b, const char *name, uint32_t n_dims, const uint64_t *ne,
			      uint32_t type, uint64_t offset)
{
	put_str(b, name);
	put_u32(b, n_dims);
	for (uint32_t i = 0; i < n_dims; i++)
		put_u64(b, ne[i]);
	put_u32(b, type);
	put_u64(b, offset);
}

/* Padding to `align`, then n bytes of tensor data that count up. */
static inline void put_data(buffer *b, size_t align, size_t n)
{
	while (b->n % align)
		put_u8(b, 0);
	for (size_t i = 0; i < n; i++)
		put_u8(b, (uint8_t)(i + 1));
}

/* path: the template "/tmp/...XXXXXX", replaced by the file's name. */
static inline void write_file(char *path, const void *bytes, size_t n)
{
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	close(fd);
}

/* Opens the buffer as a file that is already gone from its folder. */
static inline pal_status open_buffer(const buffer *b, pal__gguf *g, pal_error *err)
{
	char path[] = "/tmp/pal-gguf-XXXXXX";
	write_file(path, b->bytes, b->n);
	pal_status s = pal__gguf_open(path, g, err);
	unlink(path);
	return s;
}

/* Every kind of value, three tensors. */
static inline void put_sample(buffer *b, uint32_t version)
{
	static const uint64_t shape_a[] = {4, 3}, shape_b[] = {64, 2}, shape_c[] = {5};
	const double f64 = 2.5;
	const float f32 = -0.5f, f32s[] = {1.0f, -2.0f};
	const int32_t i32s[] = {-1, 2, 3};
	put_header(b, version, 3, 19);
	put_key_str(b, "general.architecture", "qwen3");
	put_key_u32(b, "general.alignment", 64);
	put_key(b, "v.u8", PAL__GGUF_U8);
	put_u8(b, 200);
	put_key(b, "v.i8", PAL__GGUF_I8);
	put_u8(b, 0x80);
	put_key(b, "v.u16", PAL__GGUF_U16);
	put(b, &(uint16_t){65535}, 2);
	put_key(b, "v.i16", PAL__GGUF_I16);
	put(b, &(int16_t){-300}, 2);
	put_key_u32(b, "v.u32", UINT32_MAX);
	put_key(b, "v.i32", PAL__GGUF_I32);
	put_u32(b, (uint32_t)-7);
	put_key(b, "v.f32", PAL__GGUF_F32);
	put(b, &f32, sizeof f32);
	put_key(b, "v.bool", PAL__GGUF_BOOL);
	put_u8(b, 1);
	put_key(b, "v.u64", PAL__GGUF_U64);
	put_u64(b, UINT64_MAX);
	put_key(b, "v.i64", PAL__GGUF_I64);
	put_u64(b, (uint64_t)INT64_MIN);
	put_key(b, "v.f64", PAL__GGUF_F64);
	put(b, &f64, sizeof f64);
	put_array(b, "a.strings", PAL__GGUF_STRING, 3);
	put_str(b, "one");
	put_str(b, "");
	put_bytes(b, "\0\xff\n", 3);
	put_array(b, "a.f32", PAL__GGUF_F32, 2);
	put(b, f32s, sizeof f32s);
	put_array(b, "a.i32", PAL__GGUF_I32, 3);
	put(b, i32s, sizeof i32s);
	put_array(b, "a.bool", PAL__GGUF_BOOL, 2);
	put(b, "\1\0", 2);
	put_array(b, "a.empty", PAL__GGUF_U16, 0);
	put_key_str(b, "v.string", "");
	put_tensor(b, "a.weight", 2, shape_a, PAL__F32, 0);
	put_tensor(b, "b.weight", 2, shape_b, PAL__Q4_0, 128);
	put_tensor(b, "c.weight", 1, shape_c, PAL__F16, 64);
	put_data(b, 64, 128 + 72);
}

#endif
