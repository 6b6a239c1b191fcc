#include "gguf_writer.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "base/mem.h"

static const uint64_t four[] = {4};

static void well_formed(void **state)
{
	(void)state;
	for (uint32_t version = 2; version <= 3; version++) {
		buffer b;
		pal__gguf g;
		pal_error err = {0};
		put_sample(&b, version);
		assert_int_equal(open_buffer(&b, &g, &err), PAL_OK);
		assert_int_equal(g.version, version);
		assert_int_equal(g.alignment, 64);
		assert_int_equal(g.n_kv, 19);
		assert_int_equal(g.n_tensors, 3);
		assert_int_equal(g.data_offset % 64, 0);
		assert_int_equal(pal__gguf_shrunk(&g, &err), PAL_OK);
		const pal__gguf_tensor *t = pal__gguf_tensor_find(&g, "b.weight");
		assert_ptr_equal(t, &g.tensors[1]);
		assert_int_equal(t->type, PAL__Q4_0);
		assert_int_equal(t->n_dims, 2);
		assert_int_equal(t->ne[0], 64);
		assert_int_equal(t->ne[1], 2);
		assert_int_equal(t->ne[2], 1);
		assert_int_equal(t->ne[3], 1);
		assert_int_equal(t->n_bytes, 4 * 18);
		assert_int_equal(t->offset, g.data_offset + 128);
		assert_int_equal(t->data[0], 129);
		assert_non_null(pal__gguf_tensor_find(&g, "a.weight"));
		assert_non_null(pal__gguf_tensor_find(&g, "c.weight"));
		assert_null(pal__gguf_tensor_find(&g, "a.weigh"));
		assert_null(pal__gguf_tensor_find(&g, "d.weight"));
		pal__gguf_close(&g);
		pal__gguf_close(&g); /* a zeroed struct */
	}
}

static void scalars(void **state)
{
	(void)state;
	static const struct {
		const char *key;
		int64_t value;
	} ints[] = {{"v.u8", 200}, {"v.i8", -128},        {"v.u16", 65535},    {"v.i16", -300},
		    {"v.i32", -7}, {"v.u32", UINT32_MAX}, {"v.i64", INT64_MIN}};
	buffer b;
	pal__gguf g;
	pal_error err;
	put_sample(&b, 3);
	assert_int_equal(open_buffer(&b, &g, &err), PAL_OK);
	for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++) {
		int64_t v = 0;
		assert_int_equal(
			pal__gguf_int(&g, ints[i].key, true, INT64_MIN, INT64_MAX, &v, &err),
			PAL_OK);
		assert_true(v == ints[i].value);
	}
	double f = 0;
	assert_int_equal(pal__gguf_float(&g, "v.f32", true, -1, 1, &f, &err), PAL_OK);
	assert_true(f == -0.5);
	assert_int_equal(pal__gguf_float(&g, "v.f64", true, 2.5, 2.5, &f, &err), PAL_OK);
	assert_true(f == 2.5);
	bool flag = false;
	assert_int_equal(pal__gguf_bool(&g, "v.bool", true, &flag, &err), PAL_OK);
	assert_true(flag);
	pal__str s = {0};
	assert_int_equal(pal__gguf_string(&g, "general.architecture", true, &s, &err), PAL_OK);
	assert_int_equal(s.n, 5);
	assert_memory_equal(s.s, "qwen3", 5);
	assert_int_equal(pal__gguf_string(&g, "v.string", true, &s, &err), PAL_OK);
	assert_int_equal(s.n, 0);
	pal__gguf_close(&g);
}

static void arrays(void **state)
{
	(void)state;
	buffer b;
	pal__gguf g;
	pal_error err;
	pal__str *strings;
	float *floats;
	int32_t *ints;
	size_t n;
	put_sample(&b, 3);
	assert_int_equal(open_buffer(&b, &g, &err), PAL_OK);
	assert_int_equal(pal__gguf_strings(&g, "a.strings", true, &strings, &n, &err), PAL_OK);
	assert_int_equal(n, 3);
	assert_memory_equal(strings[0].s, "one", 3);
	assert_int_equal(strings[1].n, 0);
	assert_int_equal(strings[2].n, 3);
	assert_memory_equal(strings[2].s, "\0\xff\n", 3);
	pal__free(strings);
	assert_int_equal(pal__gguf_floats(&g, "a.f32", true, &floats, &n, &err), PAL_OK);
	assert_int_equal(n, 2);
	assert_true(floats[0] == 1.0f && floats[1] == -2.0f);
	pal__free(floats);
	assert_int_equal(pal__gguf_ints(&g, "a.i32", true, &ints, &n, &err), PAL_OK);
	assert_int_equal(n, 3);
	assert_int_equal(ints[0], -1);
	assert_int_equal(ints[2], 3);
	pal__free(ints);
	assert_int_equal(pal__gguf_ints(&g, "a.empty", true, &ints, &n, &err), PAL_OK);
	assert_int_equal(n, 0);
	pal__free(ints);
	pal__gguf_close(&g);
}

static void missing_keys(void **state)
{
	(void)state;
	buffer b;
	pal__gguf g;
	pal_error err;
	int64_t i = 42;
	double f = 4.5;
	bool flag = true;
	pal__str s = {"default", 7}, *strings = &s;
	float *floats = (float *)&f;
	int32_t *ints = (int32_t *)&f;
	size_t n = 9;
	put_sample(&b, 3);
	assert_int_equal(open_buffer(&b, &g, &err), PAL_OK);
	for (int required = 0; required < 2; required++) {
		pal_status want = required ? PAL_EFORMAT : PAL_OK;
		assert_int_equal(pal__gguf_int(&g, "no.1", required, 0, 9, &i, &err), want);
		assert_int_equal(pal__gguf_float(&g, "no.2", required, 0, 9, &f, &err), want);
		assert_int_equal(pal__gguf_bool(&g, "no.3", required, &flag, &err), want);
		assert_int_equal(pal__gguf_string(&g, "no.4", required, &s, &err), want);
		assert_true(i == 42 && f == 4.5 && flag && s.n == 7);
		assert_int_equal(pal__gguf_strings(&g, "no.5", required, &strings, &n, &err), want);
		assert_int_equal(pal__gguf_floats(&g, "no.6", required, &floats, &n, &err), want);
		assert_int_equal(pal__gguf_ints(&g, "no.7", required, &ints, &n, &err), want);
		assert_null(strings);
		assert_null(floats);
		assert_null(ints);
		assert_int_equal(n, 0);
	}
	assert_non_null(strstr(err.text, "key no.7: it is missing"));
	pal__gguf_close(&g);
}

/* Both parts must be in the message. */
#define refused(call, part, part2)                        \
	do {                                              \
		err.text[0] = 0;                          \
		assert_int_equal(call, PAL_EFORMAT);      \
		assert_non_null(strstr(err.text, part));  \
		assert_non_null(strstr(err.text, part2)); \
	} while (0)

static void wrong_values(void **state)
{
	(void)state;
	buffer b;
	pal__gguf g;
	pal_error err;
	int64_t i;
	double f;
	bool flag;
	pal__str s, *strings;
	float *floats;
	int32_t *ints;
	size_t n;
	double huge = 1e300;
	put_header(&b, 3, 0, 9);
	put_key_u32(&b, "u32", 7);
	put_key(&b, "u64", PAL__GGUF_U64);
	put_u64(&b, UINT64_MAX);
	put_key(&b, "nan", PAL__GGUF_F32);
	put(&b, &(float){NAN}, 4);
	put_key_str(&b, "str", "x");
	put_array(&b, "nans", PAL__GGUF_F32, 2);
	put(&b, (float[]){0, NAN}, 8);
	put_array(&b, "huges", PAL__GGUF_F64, 1);
	put(&b, &huge, 8);
	put_array(&b, "bigs", PAL__GGUF_U32, 2);
	put_u32(&b, 0);
	put_u32(&b, 1u << 31);
	put_array(&b, "strs", PAL__GGUF_STRING, 1);
	put_str(&b, "x");
	put_array(&b, "lows", PAL__GGUF_I64, 1);
	put_u64(&b, (uint64_t)-3000000000);
	assert_int_equal(open_buffer(&b, &g, &err), PAL_OK);
	refused(pal__gguf_int(&g, "u32", true, 1, 6, &i, &err), "key u32: 7", "accepted: 1 to 6");
	refused(pal__gguf_int(&g, "u32", true, 8, 9, &i, &err), "key u32: 7", "accepted: 8 to 9");
	refused(pal__gguf_int(&g, "u64", true, 0, INT64_MAX, &i, &err), "key u64",
		"18446744073709551615");
	refused(pal__gguf_int(&g, "str", true, 0, 9, &i, &err), "key str",
		"an integer is expected");
	refused(pal__gguf_int(&g, "bigs", true, 0, 9, &i, &err), "key bigs", "an array of u32");
	refused(pal__gguf_float(&g, "nan", true, -1, 1, &f, &err), "key nan: ", "nan");
	refused(pal__gguf_float(&g, "u32", true, -1, 1, &f, &err), "key u32",
		"a float is expected");
	refused(pal__gguf_bool(&g, "u32", true, &flag, &err), "key u32", "a bool is expected");
	refused(pal__gguf_string(&g, "u32", true, &s, &err), "key u32", "a string is expected");
	refused(pal__gguf_string(&g, "strs", true, &s, &err), "key strs", "a string is expected");
	refused(pal__gguf_strings(&g, "str", true, &strings, &n, &err), "key str",
		"array of strings");
	refused(pal__gguf_floats(&g, "bigs", true, &floats, &n, &err), "key bigs",
		"array of floats");
	refused(pal__gguf_floats(&g, "nans", true, &floats, &n, &err), "key nans", "element 1");
	refused(pal__gguf_floats(&g, "huges", true, &floats, &n, &err), "key huges", "element 0");
	refused(pal__gguf_ints(&g, "nans", true, &ints, &n, &err), "key nans", "array of integers");
	refused(pal__gguf_ints(&g, "bigs", true, &ints, &n, &err), "key bigs: element 1",
		"2147483648");
	refused(pal__gguf_ints(&g, "lows", true, &ints, &n, &err), "key lows: element 0",
		"-3000000000");
	pal__gguf_close(&g);
}

/* --- files that are refused --------------------------------------------- */

static void refuse_open(const buffer *b, pal_status code, const char *part, const char *part2)
{
	pal__gguf g = {0};
	pal_error err = {0};
	int64_t live = pal__mem_live();
	pal_status s = open_buffer(b, &g, &err);
	if (s != code || !strstr(err.text, part) || !strstr(err.text, part2))
		fail_msg("%s: \"%s\" wants %s, \"%s\" and \"%s\"", pal_status_name(s), err.text,
			 pal_status_name(code), part, part2);
	assert_null(g.kv);
	assert_int_equal(pal__mem_live(), live);
	assert_non_null(strstr(err.text, "/tmp/pal-gguf-"));
}

static void bad_headers(void **state)
{
	(void)state;
	buffer b = {.n = 0};
	refuse_open(&b, PAL_EFORMAT, "header", "ends at byte 0");
	put(&b, "GGML\3\0\0\0", 8);
	refuse_open(&b, PAL_EFORMAT, "not a GGUF file", "47 47 4d 4c");
	put_header(&b, 1, 0, 0);
	refuse_open(&b, PAL_EUNSUPPORTED, "version 1", "2 and 3");
	put_header(&b, 4, 0, 0);
	refuse_open(&b, PAL_EUNSUPPORTED, "version 4", "2 and 3");
	put_header(&b, 3u << 24, 0, 0);
	refuse_open(&b, PAL_EUNSUPPORTED, "big-endian", "little-endian");
	/* Counts that the file cannot hold are refused before memory is asked for. */
	static const uint64_t counts[] = {UINT64_MAX, 1ull << 60, 1ull << 32,
					  PAL__GGUF_MAX_KEYS + 1};
	for (int i = 0; i < 4; i++) {
		put_header(&b, 3, 0, counts[i]);
		put_data(&b, 1, 100);
		refuse_open(&b, PAL_ELIMIT, "keys", "at most 65536");
		put_header(&b, 3, counts[i], 0);
		put_data(&b, 1, 100);
		refuse_open(&b, PAL_ELIMIT, "tensors", "at most 65536");
	}
	put_header(&b, 3, 0, PAL__GGUF_MAX_KEYS);
	put_data(&b, 1, 140);
	refuse_open(&b, PAL_EFORMAT, "65536 keys", "no more than 10");
	put_header(&b, 3, PAL__GGUF_MAX_TENSORS, 0);
	put_data(&b, 1, 33);
	refuse_open(&b, PAL_EFORMAT, "65536 tensors", "no more than 1");
}

static void bad_keys(void **state)
{
	(void)state;
	buffer b;
	put_header(&b, 3, 0, 1);
	put_key_u32(&b, "", 1);
	put_data(&b, 1, 10);
	refuse_open(&b, PAL_EFORMAT, "key 1 of 1", "name has 0 bytes");
	static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 30, PAL__GGUF_MAX_NAME + 1};
	for (int i = 0; i < 3; i++) {
		put_header(&b, 3, 0, 1);
		put_u64(&b, lengths[i]);
		put_data(&b, 1, 2000);
		refuse_open(&b, PAL_ELIMIT, "key 1 of 1", "1 to 1024 are accepted");
	}
	put_header(&b, 3, 0, 1);
	put_key_u32(&b, "ab", 13);
	b.bytes[24 + 8 + 2] = 13; /* its type */
	refuse_open(&b, PAL_EFORMAT, "key ab", "value type 13");
	put_header(&b, 3, 0, 2);
	put_key_u32(&b, "twice", 1);
	put_key_str(&b, "twice", "x");
	refuse_open(&b, PAL_EFORMAT, "key twice", "more than once");
	put_header(&b, 3, 0, 1);
	put_key(&b, "flag", PAL__GGUF_BOOL);
	put_u8(&b, 2);
	refuse_open(&b, PAL_EFORMAT, "key flag", "a bool of value 2");
	put_header(&b, 3, 0, 1);
	put_array(&b, "flags", PAL__GGUF_BOOL, 3);
	put(&b, "\0\1\377", 3);
	refuse_open(&b, PAL_EFORMAT, "key flags: element 2", "a bool of value 255");
	put_header(&b, 3, 0, 1);
	put_array(&b, "nested", PAL__GGUF_ARRAY, 1);
	put_data(&b, 1, 30);
	refuse_open(&b, PAL_EUNSUPPORTED, "key nested", "array of arrays");
	put_header(&b, 3, 0, 1);
	put_array(&b, "unknown", 99, 1);
	refuse_open(&b, PAL_EFORMAT, "key unknown", "value type 99");
}

static void bad_lengths(void **state)
{
	(void)state;
	buffer b;
	static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7, 1ull << 62, 11};
	for (int i = 0; i < 4; i++) {
		put_header(&b, 3, 0, 1);
		put_key(&b, "text", PAL__GGUF_STRING);
		put_u64(&b, lengths[i]);
		put_data(&b, 1, 10);
		refuse_open(&b, PAL_EFORMAT, "key text", "the file ends");
		put_header(&b, 3, 0, 1);
		put_array(&b, "texts", PAL__GGUF_STRING, 2);
		put_str(&b, "");
		put_u64(&b, lengths[i]);
		put_data(&b, 1, 10);
		refuse_open(&b, PAL_EFORMAT, "key texts", "the file ends");
	}
	put_header(&b, 3, 0, 1);
	put_array(&b, "many", PAL__GGUF_U8, UINT64_MAX);
	refuse_open(&b, PAL_ELIMIT, "key many", "at most 67108864");
	static const uint32_t items[] = {PAL__GGUF_U8, PAL__GGUF_F64, PAL__GGUF_STRING};
	for (int i = 0; i < 3; i++) {
		put_header(&b, 3, 0, 1);
		put_array(&b, "many", items[i], PAL__GGUF_MAX_ARRAY);
		put_data(&b, 1, 80);
		refuse_open(&b, PAL_EFORMAT, "key many: 67108864 elements",
			    "only 80 bytes are left");
	}
}

static void bad_alignment(void **state)
{
	(void)state;
	static const uint32_t values[] = {0, 1, 4, 1u << 21, UINT32_MAX};
	buffer b;
	for (int i = 0; i < 5; i++) {
		put_header(&b, 3, 0, 1);
		put_key_u32(&b, "general.alignment", values[i]);
		refuse_open(&b, PAL_EFORMAT, "key general.alignment", "accepted: 8 to 1048576");
	}
	put_header(&b, 3, 0, 1);
	put_key_u32(&b, "general.alignment", 48);
	refuse_open(&b, PAL_EFORMAT, "key general.alignment: 48", "power of two");
	put_header(&b, 3, 0, 1);
	put_key_str(&b, "general.alignment", "32");
	refuse_open(&b, PAL_EFORMAT, "key general.alignment", "integer");
}

static void bad_shapes(void **state)
{
	(void)state;
	static const struct {
		uint32_t n_dims;
		uint64_t ne[5];
		uint32_t type;
		pal_status code;
		const char *part;
	} cases[] = {
		{0, {0}, PAL__F32, PAL_EFORMAT, "0 dimensions; 1 to 4"},
		{5, {1, 1, 1, 1, 1}, PAL__F32, PAL_EFORMAT, "5 dimensions; 1 to 4"},
		{1, {0}, PAL__F32, PAL_EFORMAT, "dimension 0 is zero"},
		{3, {4, 4, 0}, PAL__F32, PAL_EFORMAT, "dimension 2 is zero"},
		{4, {1ull << 32, 1ull << 32, 1, 1}, PAL__F32, PAL_EFORMAT, "63 bits"},
		{4,
		 {1ull << 16, 1ull << 16, 1ull << 16, 1ull << 16},
		 PAL__F32,
		 PAL_EFORMAT,
		 "63 bits"},
		{1, {1ull << 63}, PAL__Q8_0, PAL_EFORMAT, "63 bits"},
		{2, {1ull << 62, 1}, PAL__F32, PAL_EFORMAT, "63 bits"},
		{1, {UINT64_MAX}, PAL__F16, PAL_EFORMAT, "63 bits"},
		{1, {33}, PAL__Q4_0, PAL_EFORMAT, "whole blocks of Q4_0 (32 elements)"},
		{2, {128, 2}, PAL__Q6_K, PAL_EFORMAT, "whole blocks of Q6_K (256 elements)"},
		{1, {4}, 99, PAL_EUNSUPPORTED, "type 99 is not supported (supported: F32, F16"},
		{1, {4}, 4, PAL_EUNSUPPORTED, "type 4 is not supported"},
		{1, {4}, UINT32_MAX, PAL_EUNSUPPORTED, "type 4294967295 is not supported"},
		{1, {1ull << 40}, PAL__F32, PAL_EFORMAT, "beyond the end of the file"},
		{1, {1ull << 60}, PAL__F32, PAL_EFORMAT, "beyond the end of the file"},
		{1, {9}, PAL__F32, PAL_EFORMAT, "beyond the end of the file"},
	};
	buffer b;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		put_header(&b, 3, 1, 0);
		put_tensor(&b, "odd.weight", cases[i].n_dims, cases[i].ne, cases[i].type, 0);
		put_data(&b, 32, 32);
		refuse_open(&b, cases[i].code, "tensor odd.weight", cases[i].part);
	}
}

static void bad_places(void **state)
{
	(void)state;
	static const uint64_t offsets[] = {UINT64_MAX & ~31ull, 1ull << 63, 96, 64};
	buffer b;
	for (int i = 0; i < 4; i++) {
		put_header(&b, 3, 1, 0);
		put_tensor(&b, "far", 1, four, PAL__F32, offsets[i]);
		put_data(&b, 32, 64);
		refuse_open(&b, PAL_EFORMAT, "tensor far", "beyond the end of the file");
	}
	put_header(&b, 3, 1, 0);
	put_tensor(&b, "odd", 1, four, PAL__F32, 8);
	put_data(&b, 32, 64);
	refuse_open(&b, PAL_EFORMAT, "tensor odd", "not a multiple of the alignment, 32");
	put_header(&b, 3, 2, 0);
	put_tensor(&b, "same", 1, four, PAL__F32, 0);
	put_tensor(&b, "same", 1, four, PAL__F32, 32);
	put_data(&b, 32, 64);
	refuse_open(&b, PAL_EFORMAT, "tensor same", "more than once");
	put_header(&b, 3, 1, 0);
	put_bytes(&b, "a\0b", 3);
	put_u32(&b, 1);
	put_u64(&b, 4);
	put_u32(&b, PAL__F32);
	put_u64(&b, 0);
	put_data(&b, 32, 16);
	refuse_open(&b, PAL_EFORMAT, "tensor a\\x00b", "NUL");
	put_header(&b, 3, 1, 0);
	put_tensor(&b, "cut", 1, four, PAL__F32, 0);
	refuse_open(&b, PAL_EFORMAT, "tensor cut", "beyond the end");
}

static void overlaps(void **state)
{
	(void)state;
	static const uint64_t nine[] = {9};
	static const struct {
		uint64_t offsets[3];
		const char *first, *second;
	} cases[] = {{{0, 64, 64}, "tensor t", "overlaps that of tensor t"},
		     {{64, 32, 128}, "tensor t0", "overlaps that of tensor t1"},
		     {{96, 128, 0}, "tensor t1", "overlaps that of tensor t0"}};
	buffer b;
	for (int i = 0; i < 3; i++) {
		put_header(&b, 3, 3, 0);
		put_tensor(&b, "t0", 1, nine, PAL__F32, cases[i].offsets[0]);
		put_tensor(&b, "t1", 1, nine, PAL__F32, cases[i].offsets[1]);
		put_tensor(&b, "t2", 1, nine, PAL__F32, cases[i].offsets[2]);
		put_data(&b, 32, 256);
		refuse_open(&b, PAL_EFORMAT, cases[i].first, cases[i].second);
	}
}

static void hostile_names(void **state)
{
	(void)state;
	char name[PAL__GGUF_MAX_NAME + 1];
	buffer b;
	memset(name, 'n', sizeof name - 1);
	memcpy(name, "\33[2J\n\xff\\", 7);
	name[sizeof name - 1] = 0;
	put_header(&b, 3, 1, 0);
	put_tensor(&b, name, 1, four, 99, 0);
	/* Nothing that a terminal would obey, cut, and the reason is still there. */
	refuse_open(&b, PAL_EUNSUPPORTED, "tensor \\x1b[2J\\x0a\\xff\\x5cnnn",
		    "nnn...: type 99 is not supported (supported: F32");
}

static void long_paths(void **state)
{
	(void)state;
	char path[700];
	pal__gguf g;
	pal_error err;
	memset(path, '/', sizeof path);
	memcpy(path, "/tmp", 4);
	strcpy(path + sizeof path - 25, "pal-gguf-XXXXXX");
	buffer b = {.n = 0};
	put(&b, "nonsense", 8);
	write_file(path, b.bytes, b.n);
	assert_int_equal(pal__gguf_open(path, &g, &err), PAL_EFORMAT);
	unlink(path);
	assert_int_equal(strncmp(err.text, "...", 3), 0);
	assert_non_null(strstr(err.text, "not a GGUF file"));
	assert_int_equal(pal__gguf_open("/nowhere/model.gguf", &g, &err), PAL_EIO);
	assert_non_null(strstr(err.text, "/nowhere/model.gguf"));
}

static void without_tensors(void **state)
{
	(void)state;
	buffer b;
	pal__gguf g;
	pal_error err;
	put_header(&b, 3, 0, 0);
	assert_int_equal(open_buffer(&b, &g, &err), PAL_OK);
	assert_int_equal(g.data_offset, b.n);
	assert_int_equal(g.alignment, 32);
	assert_null(pal__gguf_find(&g, "x"));
	assert_null(pal__gguf_tensor_find(&g, "x"));
	pal__gguf_close(&g);
}

static void truncated(void **state)
{
	(void)state;
	buffer b;
	pal__gguf g;
	put_sample(&b, 3);
	size_t whole = b.n;
	for (b.n = 0; b.n < whole; b.n++) {
		pal_error err = {0};
		pal_status s = open_buffer(&b, &g, &err);
		if (s != PAL_EFORMAT || !err.text[0])
			fail_msg("cut to %zu of %zu bytes: %d, \"%s\"", b.n, whole, s, err.text);
	}
	assert_int_equal(open_buffer(&b, &g, NULL), PAL_OK);
	pal__gguf_close(&g);
}

/* Any byte may have any value: an error or not, but no crash and no leak. */
static void flipped(void **state)
{
	(void)state;
	static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
	buffer b;
	pal__gguf g;
	int64_t live = pal__mem_live();
	put_sample(&b, 3);
	for (size_t i = 0; i < b.n; i++) {
		uint8_t was = b.bytes[i];
		for (int v = 0; v < 5; v++) {
			pal_error err = {0};
			b.bytes[i] = values[v];
			if (open_buffer(&b, &g, &err) == PAL_OK)
				pal__gguf_close(&g);
			else
				assert_true(err.text[0] != 0);
			assert_int_equal(pal__mem_live(), live);
		}
		b.bytes[i] = was;
	}
}

static pal_status open_and_copy(const char *path, pal_error *err)
{
	pal__gguf g;
	pal__str *strings = NULL;
	float *floats = NULL;
	int32_t *ints = NULL;
	size_t n;
	pal_status s = pal__gguf_open(path, &g, err);
	if (s != PAL_OK)
		return s;
	s = pal__gguf_strings(&g, "a.strings", true, &strings, &n, err);
	if (s == PAL_OK)
		s = pal__gguf_floats(&g, "a.f32", true, &floats, &n, err);
	if (s == PAL_OK)
		s = pal__gguf_ints(&g, "a.i32", true, &ints, &n, err);
	pal__free(strings);
	pal__free(floats);
	pal__free(ints);
	pal__gguf_close(&g);
	return s;
}

static void out_of_memory(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-gguf-XXXXXX";
	buffer b;
	int64_t live = pal__mem_live(), n = 0;
	put_sample(&b, 3);
	write_file(path, b.bytes, b.n);
	for (;; n++) {
		pal_error err = {0};
		pal__mem_fail_after(n);
		pal_status s = open_and_copy(path, &err);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(pal__mem_live(), live);
		assert_int_equal(s, failed ? PAL_ENOMEM : PAL_OK);
		if (!failed)
			break;
		assert_non_null(strstr(err.text, "out of memory"));
	}
	assert_true(n > 9); /* path, keys, tensors, 3 names, 3 indices, 3 arrays */
	unlink(path);
}

static void shrinking(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-gguf-XXXXXX";
	const uint64_t ne[] = {12288};
	buffer b;
	pal__gguf g;
	pal_error err = {0};
	pal__str s, *strings;
	size_t n;
	put_header(&b, 3, 1, 2);
	put_key_str(&b, "text", "some text");
	put_array(&b, "texts", PAL__GGUF_STRING, 1);
	put_str(&b, "more");
	put_tensor(&b, "big", 1, ne, PAL__F32, 0);
	put_data(&b, 32, 49152);
	write_file(path, b.bytes, b.n);
	assert_int_equal(pal__gguf_open(path, &g, &err), PAL_OK);
	assert_int_equal(truncate(path, 4096), 0);
	unsigned sum = 0;
	for (size_t i = 8192; i < g.tensors[0].n_bytes; i++)
		sum += g.tensors[0].data[i];
	assert_int_equal(sum, 0);
	assert_int_equal(pal__gguf_shrunk(&g, &err), PAL_EIO);
	assert_non_null(strstr(err.text, path));
	assert_non_null(strstr(err.text, "shorter"));
	assert_int_equal(truncate(path, 0), 0);
	/* All zeros now: the key is not found, or the value is empty; never a crash. */
	assert_int_equal(pal__gguf_string(&g, "text", true, &s, &err), PAL_EFORMAT);
	assert_int_equal(pal__gguf_strings(&g, "texts", true, &strings, &n, &err), PAL_EFORMAT);
	pal__gguf_close(&g);
	unlink(path);
}

static void *cut_file(void *path)
{
	usleep(20);
	return truncate(path, 40) == 0 ? path : NULL;
}

/* Cut before, while or after it is read: never a crash, a leak, or a file called good
 * that is known to be cut. */
static void shrinking_while_opened(void **state)
{
	(void)state;
	static buffer b;
	int64_t live = pal__mem_live();
	put_header(&b, 3, 0, 1500);
	for (int i = 0; i < 1500; i++) {
		char name[16];
		snprintf(name, sizeof name, "key.%d", i);
		put_key_u32(&b, name, 1);
	}
	for (int round = 0; round < 100; round++) {
		char path[] = "/tmp/pal-gguf-XXXXXX";
		pthread_t cutter;
		pal__gguf g;
		pal_error err = {0};
		write_file(path, b.bytes, b.n);
		assert_int_equal(pthread_create(&cutter, NULL, cut_file, path), 0);
		pal_status s = pal__gguf_open(path, &g, &err);
		void *cut;
		pthread_join(cutter, &cut);
		assert_ptr_equal(cut, path);
		if (s == PAL_OK) {
			assert_int_equal(pal__gguf_shrunk(&g, &err), PAL_EIO);
			pal__gguf_close(&g);
		} else { /* EFORMAT: it was short before it was mapped */
			assert_true(s == PAL_EIO || s == PAL_EFORMAT);
			assert_non_null(strstr(err.text, path));
		}
		assert_int_equal(pal__mem_live(), live);
		unlink(path);
	}
}

/* Lengths that grow after the checks are checked again. */
static void rewritten(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-gguf-XXXXXX";
	buffer b;
	pal__gguf g;
	pal_error err = {0};
	pal__str s, *strings;
	size_t n;
	put_header(&b, 3, 0, 2);
	put_key_str(&b, "text", "some text");
	size_t text = b.n - 9 - 8;
	put_array(&b, "texts", PAL__GGUF_STRING, 2);
	size_t texts = b.n;
	put_str(&b, "more");
	put_str(&b, "and more");
	write_file(path, b.bytes, b.n);
	assert_int_equal(pal__gguf_open(path, &g, &err), PAL_OK);
	int fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, &(uint64_t){UINT64_MAX}, 8, (off_t)text), 8);
	assert_int_equal(pwrite(fd, &(uint64_t){20}, 8, (off_t)texts), 8);
	close(fd);
	assert_int_equal(pal__gguf_string(&g, "text", true, &s, &err), PAL_EIO);
	assert_non_null(strstr(err.text, "key text: the file has changed"));
	assert_int_equal(pal__gguf_strings(&g, "texts", true, &strings, &n, &err), PAL_EIO);
	assert_non_null(strstr(err.text, "key texts: the file has changed"));
	pal__gguf_close(&g);
	unlink(path);
}

/* Sorted look-ups over many keys and tensors, in an order that is not the sorted one. */
static void many_names(void **state)
{
	(void)state;
	enum { N = 500 };
	static buffer b;
	const uint64_t ne[] = {8};
	char name[32];
	pal__gguf g;
	pal_error err;
	put_header(&b, 3, N, N);
	for (uint32_t i = 0; i < N; i++) {
		snprintf(name, sizeof name, "k%u", i * 7919 % N);
		put_key_u32(&b, name, i);
	}
	for (uint32_t i = 0; i < N; i++) {
		snprintf(name, sizeof name, "t%u", i * 104729 % N);
		put_tensor(&b, name, 1, ne, PAL__F32, i * 271 % N * 32);
	}
	put_data(&b, 32, N * 32);
	assert_int_equal(open_buffer(&b, &g, &err), PAL_OK);
	for (uint32_t i = 0; i < N; i++) {
		int64_t v = -1;
		snprintf(name, sizeof name, "k%u", i * 7919 % N);
		assert_int_equal(pal__gguf_int(&g, name, true, 0, N, &v, &err), PAL_OK);
		assert_int_equal(v, i);
		snprintf(name, sizeof name, "t%u", i * 104729 % N);
		assert_ptr_equal(pal__gguf_tensor_find(&g, name), &g.tensors[i]);
	}
	pal__gguf_close(&g);
}

static void names_of_types(void **state)
{
	(void)state;
	assert_string_equal(pal__gguf_type_name(PAL__GGUF_F64), "f64");
	assert_string_equal(pal__gguf_type_name((pal__gguf_type)13), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(well_formed),     cmocka_unit_test(scalars),
		cmocka_unit_test(arrays),          cmocka_unit_test(missing_keys),
		cmocka_unit_test(wrong_values),    cmocka_unit_test(bad_headers),
		cmocka_unit_test(bad_keys),        cmocka_unit_test(bad_lengths),
		cmocka_unit_test(bad_alignment),   cmocka_unit_test(bad_shapes),
		cmocka_unit_test(bad_places),      cmocka_unit_test(overlaps),
		cmocka_unit_test(hostile_names),   cmocka_unit_test(long_paths),
		cmocka_unit_test(without_tensors), cmocka_unit_test(truncated),
		cmocka_unit_test(flipped),         cmocka_unit_test(out_of_memory),
		cmocka_unit_test(shrinking),       cmocka_unit_test(shrinking_while_opened),
		cmocka_unit_test(rewritten),       cmocka_unit_test(many_names),
		cmocka_unit_test(names_of_types),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
