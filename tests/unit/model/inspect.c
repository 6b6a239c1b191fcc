#include "gguf_writer.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "model/inspect.h"

/* The report as a string that the caller frees. */
static char *text_of(const pal__gguf *g, pal_status want)
{
	char *text = NULL;
	size_t n;
	FILE *out = open_memstream(&text, &n);
	assert_non_null(out);
	assert_int_equal(pal__inspect_text(g, out, NULL), want);
	fclose(out);
	return text;
}

static void has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("\"%s\" is not in:\n%s", part, text);
}

static void text_of_sample(void **state)
{
	(void)state;
	buffer b;
	pal__gguf g;
	put_sample(&b, 3);
	assert_int_equal(open_buffer(&b, &g, NULL), PAL_OK);
	char *text = text_of(&g, PAL_OK);
	has(text, ": GGUF version 3, ");
	has(text, "19 keys, 3 tensors, aligned to 64 bytes\n");
	has(text, "  general.architecture  string          \"qwen3\"\n");
	has(text, "  v.i8                  i8              -128\n");
	has(text, "  v.u64                 u64             18446744073709551615\n");
	has(text, "  v.i64                 i64             -9223372036854775808\n");
	has(text, "  v.f32                 f32             -0.5\n");
	has(text, "  v.f64                 f64             2.5\n");
	has(text, "  v.bool                bool            true\n");
	has(text, "  a.strings             string[3]       \"one\", \"\", \"\\x00\\xff\\n\"\n");
	has(text, "  a.i32                 i32[3]          -1, 2, 3\n");
	has(text, "  a.empty               u16[0]          \n");
	char row[200];
	snprintf(row, sizeof row, "  b.weight  Q4_0                  64 x 2 %14zu             72\n",
		 (size_t)g.data_offset + 128);
	has(text, row);
	has(text, "  F32            1               12               48          32.00\n");
	has(text, "  Q4_0           1              128               72           4.50\n");
	has(text, "  all            3              145              130           7.17\n");
	free(text);
	pal__gguf_close(&g);
}

/* Long and hostile values: cut, and nothing that a terminal would obey. */
static void put_hostile(buffer *b)
{
	static char big[3000];
	memset(big, 'x', sizeof big - 1);
	put_header(b, 3, 1, 5);
	put_key_str(b, "\33[31mred\xc2\x9b", "\xe2\x80\xae\xff\xc3\xa9\"\\\t");
	put_key_str(b, "long", big);
	put_array(b, "many", PAL__GGUF_U8, 1000);
	put_data(b, 1, 1000);
	put_array(b, "odd", PAL__GGUF_F64, 3);
	put(b, (double[]){NAN, INFINITY, -INFINITY}, 24);
	put_key(b, "u64", PAL__GGUF_U64);
	put_u64(b, UINT64_MAX);
	put_tensor(b, "evil\n\33name", 1, (uint64_t[]){1}, PAL__F32, 0);
	put_data(b, 32, 4);
}

static void text_of_hostile(void **state)
{
	(void)state;
	buffer b;
	pal__gguf g;
	put_hostile(&b);
	assert_int_equal(open_buffer(&b, &g, NULL), PAL_OK);
	char *text = text_of(&g, PAL_OK);
	has(text, "\\x1b[31mred\\xc2\\x9b");
	has(text, "\"\\xe2\\x80\\xae\\xff\xc3\xa9\\\"\\\\\\t\"\n");
	has(text, "xxx...\"\n");
	has(text, "u8[1000]        1, 2, 3, 4, 5, 6, 7, 8, ...\n");
	has(text, "evil\\n\\x1bname");
	for (const char *c = text; *c; c++)
		assert_true((unsigned char)*c >= 0x20 || *c == '\n');
	assert_true(strlen(text) < 3000);
	free(text);
	pal__gguf_close(&g);
}

static json_t *kv_of(json_t *report, size_t i)
{
	return json_array_get(json_object_get(report, "metadata"), i);
}

static void json_of_sample(void **state)
{
	(void)state;
	buffer b;
	pal__gguf g;
	json_t *j = NULL;
	const char *key, *type, *name;
	json_int_t count, rows, bytes, offset;
	put_sample(&b, 3);
	assert_int_equal(open_buffer(&b, &g, NULL), PAL_OK);
	assert_int_equal(pal__inspect_json(&g, &j, NULL), PAL_OK);
	assert_string_equal(json_string_value(json_object_get(j, "file")), g.path);
	assert_int_equal(json_integer_value(json_object_get(j, "version")), 3);
	assert_int_equal(json_integer_value(json_object_get(j, "file_bytes")), b.n);
	assert_int_equal(json_array_size(json_object_get(j, "metadata")), 19);
	assert_int_equal(json_unpack(kv_of(j, 0), "{ss,ss,ss !}", "key", &key, "type", &type,
				     "value", &name),
			 0);
	assert_string_equal(key, "general.architecture");
	assert_string_equal(type, "string");
	assert_string_equal(name, "qwen3");
	json_t *strings = kv_of(j, 13);
	assert_int_equal(json_unpack(strings, "{ss,ss,ss,sI,s[s,s,o] !}", "key", &key, "type",
				     &type, "item", &name, "count", &count, "values", &key, &key,
				     &strings),
			 0);
	assert_string_equal(type, "array");
	assert_string_equal(name, "string");
	assert_int_equal(count, 3);
	assert_int_equal(json_string_length(strings), 1 + 3 + 1);
	assert_memory_equal(json_string_value(strings), "\0\xef\xbf\xbd\n", 5);
	assert_true(json_is_true(json_object_get(kv_of(j, 9), "value")));
	json_t *tensor = json_array_get(json_object_get(j, "tensors"), 1);
	assert_int_equal(json_unpack(tensor, "{ss,ss,s[I,I],sI,sI !}", "name", &name, "type", &type,
				     "shape", &count, &rows, "offset", &offset, "bytes", &bytes),
			 0);
	assert_string_equal(name, "b.weight");
	assert_string_equal(type, "Q4_0");
	assert_true(count == 64 && rows == 2 && bytes == 72);
	assert_int_equal(offset, g.data_offset + 128);
	json_t *totals = json_object_get(j, "totals");
	assert_int_equal(json_integer_value(json_object_get(totals, "weights")), 145);
	totals = json_object_get(json_object_get(totals, "types"), "F32");
	assert_int_equal(json_integer_value(json_object_get(totals, "bytes")), 48);
	json_decref(j);
	pal__gguf_close(&g);
}

static void json_of_hostile(void **state)
{
	(void)state;
	static buffer b;
	static char big[60000];
	pal__gguf g;
	json_t *j = NULL;
	put_hostile(&b);
	assert_int_equal(open_buffer(&b, &g, NULL), PAL_OK);
	assert_int_equal(pal__inspect_json(&g, &j, NULL), PAL_OK);
	assert_string_equal(json_string_value(json_object_get(kv_of(j, 0), "key")),
			    "\33[31mred\xc2\x9b");
	assert_string_equal(json_string_value(json_object_get(kv_of(j, 0), "value")),
			    "\xe2\x80\xae\xef\xbf\xbd\xc3\xa9\"\\\t");
	assert_int_equal(json_array_size(json_object_get(kv_of(j, 2), "values")),
			 PAL__INSPECT_ITEMS);
	json_t *odd = json_object_get(kv_of(j, 3), "values");
	assert_string_equal(json_string_value(json_array_get(odd, 0)), "nan");
	assert_string_equal(json_string_value(json_array_get(odd, 1)), "inf");
	assert_string_equal(json_string_value(json_array_get(odd, 2)), "-inf");
	assert_string_equal(json_string_value(json_object_get(kv_of(j, 4), "value")),
			    "18446744073709551615");
	char *text = json_dumps(j, 0);
	assert_non_null(text);
	pal__free(text);
	json_decref(j);
	pal__gguf_close(&g);
	/* A string beyond the limit. */
	memset(big, 0xff, sizeof big);
	put_header(&b, 3, 0, 1);
	put_key(&b, "long", PAL__GGUF_STRING);
	put_u64(&b, 70000);
	put(&b, big, sizeof big);
	pal_error err;
	char path[] = "/tmp/pal-gguf-XXXXXX";
	write_file(path, b.bytes, b.n);
	int fd = open(path, O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, big, 10000), 10000);
	close(fd);
	assert_int_equal(pal__gguf_open(path, &g, &err), PAL_OK);
	unlink(path);
	assert_int_equal(pal__inspect_json(&g, &j, NULL), PAL_OK);
	json_t *value = json_object_get(kv_of(j, 0), "value");
	assert_int_equal(json_string_length(value), 3 * PAL__INSPECT_STRING + 17);
	has(json_string_value(value) + 3 * PAL__INSPECT_STRING, "... (70000 bytes)");
	json_decref(j);
	pal__gguf_close(&g);
}

static void out_of_memory(void **state)
{
	(void)state;
	buffer b;
	pal__gguf g;
	put_sample(&b, 3);
	assert_int_equal(open_buffer(&b, &g, NULL), PAL_OK);
	int64_t live = pal__mem_live(), n = 0;
	for (;; n++) {
		json_t *j = NULL;
		pal_error err = {0};
		pal__mem_fail_after(n);
		pal_status s = pal__inspect_json(&g, &j, &err);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		json_decref(j);
		assert_int_equal(pal__mem_live(), live);
		assert_int_equal(s, failed ? PAL_ENOMEM : PAL_OK);
		if (!failed)
			break;
		has(err.text, "out of memory");
	}
	assert_true(n > 100);
	pal__gguf_close(&g);
}

static void shrunk(void **state)
{
	(void)state;
	char path[] = "/tmp/pal-gguf-XXXXXX";
	buffer b;
	pal__gguf g;
	pal_error err = {0};
	json_t *j = NULL;
	put_sample(&b, 3);
	write_file(path, b.bytes, b.n);
	assert_int_equal(pal__gguf_open(path, &g, NULL), PAL_OK);
	assert_int_equal(truncate(path, 0), 0);
	free(text_of(&g, PAL_EIO));
	assert_int_equal(pal__inspect_json(&g, &j, &err), PAL_EIO);
	assert_null(j);
	has(err.text, "shorter");
	pal__gguf_close(&g);
	unlink(path);
}

static void full_disk(void **state)
{
	(void)state;
	buffer b;
	pal__gguf g;
	pal_error err = {0};
	put_sample(&b, 3);
	assert_int_equal(open_buffer(&b, &g, NULL), PAL_OK);
	FILE *out = fopen("/dev/full", "w");
	assert_non_null(out);
	setvbuf(out, NULL, _IONBF, 0);
	assert_int_equal(pal__inspect_text(&g, out, &err), PAL_EIO);
	has(err.text, "could not be written");
	fclose(out);
	pal__gguf_close(&g);
}

int main(void)
{
	json_set_alloc_funcs(pal__alloc, pal__free); /* so that its failures are injected too */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_of_sample), cmocka_unit_test(text_of_hostile),
		cmocka_unit_test(json_of_sample), cmocka_unit_test(json_of_hostile),
		cmocka_unit_test(out_of_memory),  cmocka_unit_test(shrunk),
		cmocka_unit_test(full_disk),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
