/* Tiles: the file's bytes come back whole, from where the planes say they are. */
#include "kernels/matrix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static const pal__type types[] = {
	PAL__F32,  PAL__F16,  PAL__BF16, PAL__Q4_0, PAL__Q4_1, PAL__Q5_0,   PAL__Q5_1,   PAL__Q8_0,
	PAL__Q2_K, PAL__Q3_K, PAL__Q4_K, PAL__Q5_K, PAL__Q6_K, PAL__IQ4_NL, PAL__IQ4_XS,
};
#define N_TYPES (sizeof types / sizeof types[0])

/* Together the fields are the block: each byte once. */
static void fields(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_TYPES; i++) {
		const pal__field *f;
		const pal__type_info *info = pal__type_find((uint32_t)types[i]);
		uint8_t times[256] = {0};
		int n = pal__type_fields(types[i], &f);
		assert_true(n >= 1 && n <= PAL__MAX_FIELDS);
		for (int k = 0; k < n; k++) {
			assert_true(f[k].unit == 2 || f[k].unit == 4);
			for (int b = 0; b < f[k].unit * f[k].count; b++)
				times[f[k].offset + b]++;
		}
		for (int b = 0; b < 256; b++)
			assert_int_equal(times[b], b < info->block_bytes);
	}
	assert_int_equal(pal__type_fields((pal__type)99, &(const pal__field *){NULL}), 0);
}

static void types_by_number(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_TYPES; i++) {
		const pal__type_info *info = pal__type_find((uint32_t)types[i]);
		assert_int_equal(info->type, types[i]);
		assert_true(strstr(pal__type_names(), info->name) != NULL);
	}
	assert_null(pal__type_find(4)); /* a type that was taken out of the format */
	assert_null(pal__type_find(9));
	assert_null(pal__type_find(UINT32_MAX));
}

static void round_trip(pal__type type, size_t rows, size_t blocks, bool reversed)
{
	const pal__type_info *info = pal__type_find((uint32_t)type);
	size_t row_bytes = blocks * (size_t)info->block_bytes;
	uint8_t *src = pal__alloc(rows * row_bytes), block[256];
	uint32_t *map = pal__alloc(rows * sizeof *map);
	pal__matrix m;
	for (size_t i = 0; i < rows * row_bytes; i++)
		src[i] = (uint8_t)(1 + i * 2654435761u / 65536 % 255); /* never 0 */
	for (size_t i = 0; i < rows; i++)
		map[i] = (uint32_t)(reversed ? rows - 1 - i : i);
	assert_true(pal__matrix_shape(&m, type, rows, blocks * (size_t)info->block));
	assert_int_equal(m.n_tiles, (rows + 15) / 16);
	assert_int_equal(m.n_blocks, blocks);
	m.data = pal__alloc_aligned(pal__matrix_bytes(&m));
	memset(m.data, 0xee, pal__matrix_bytes(&m));
	for (size_t t = 0; t < m.n_tiles; t++)
		pal__matrix_pack_tile(&m, t, src, reversed ? map : NULL);
	for (size_t r = 0; r < rows; r++)
		for (size_t b = 0; b < blocks; b++) {
			pal__matrix_block(&m, r, b, block);
			assert_memory_equal(
				block, src + map[r] * row_bytes + b * (size_t)info->block_bytes,
				(size_t)info->block_bytes);
		}
	for (size_t r = rows; r < m.n_tiles * 16; r++) /* rows that are not there are zeros */
		for (size_t b = 0; b < blocks; b++) {
			pal__matrix_block(&m, r, b, block);
			for (int i = 0; i < info->block_bytes; i++)
				assert_int_equal(block[i], 0);
		}
	pal__free_aligned(m.data, pal__matrix_bytes(&m));
	pal__free(map);
	pal__free(src);
}

static void round_trips(void **state)
{
	static const size_t rows[] = {1, 15, 16, 17, 50}, blocks[] = {1, 3};
	(void)state;
	for (size_t i = 0; i < N_TYPES; i++)
		for (size_t r = 0; r < 5; r++)
			for (size_t b = 0; b < 2; b++) {
				round_trip(types[i], rows[r], blocks[b], false);
				round_trip(types[i], rows[r], blocks[b], true);
			}
}

static void shapes(void **state)
{
	pal__matrix m;
	(void)state;
	for (size_t i = 0; i < N_TYPES; i++) {
		size_t block = (size_t)pal__type_find((uint32_t)types[i])->block;
		assert_true(pal__matrix_shape(&m, types[i], 33, 5 * block));
		assert_null(m.data);
		for (int f = 0; f < PAL__MAX_FIELDS; f++)
			assert_int_equal(m.plane[f] % PAL__ALIGN, 0);
		assert_int_equal(m.tile_bytes % PAL__ALIGN, 0);
		assert_int_equal(pal__matrix_bytes(&m), 3 * m.tile_bytes);
		size_t many = SIZE_MAX / block * block;
		assert_false(pal__matrix_shape(&m, types[i], 16, many));
		assert_false(pal__matrix_shape(&m, types[i], SIZE_MAX, 8 * block));
		assert_false(pal__matrix_shape(&m, types[i], (size_t)1 << 40,
					       ((size_t)1 << 26) * block));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields),
		cmocka_unit_test(types_by_number),
		cmocka_unit_test(shapes),
		cmocka_unit_test(round_trips),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
