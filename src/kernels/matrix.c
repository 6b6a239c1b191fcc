#include "kernels/matrix.h"

#include <assert.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"

/* The blocks of the ggml project's types, as fields. Quants of four weights are one
 * unit, and so are four packed scales. */
static const pal__field f32[] = {{0, 4, 1}};
static const pal__field f16[] = {{0, 2, 1}};
static const pal__field q4_0[] = {{2, 4, 4}, {0, 2, 1}};
static const pal__field q4_1[] = {{4, 4, 4}, {0, 2, 1}, {2, 2, 1}};
static const pal__field q5_0[] = {{6, 4, 4}, {2, 4, 1}, {0, 2, 1}};
static const pal__field q5_1[] = {{8, 4, 4}, {4, 4, 1}, {0, 2, 1}, {2, 2, 1}};
static const pal__field q8_0[] = {{2, 4, 8}, {0, 2, 1}};
static const pal__field q2_k[] = {{16, 4, 16}, {0, 4, 4}, {80, 2, 1}, {82, 2, 1}};
static const pal__field q3_k[] = {{32, 4, 16}, {0, 4, 8}, {96, 4, 3}, {108, 2, 1}};
static const pal__field q4_k[] = {{16, 4, 32}, {4, 4, 3}, {0, 2, 1}, {2, 2, 1}};
static const pal__field q5_k[] = {{48, 4, 32}, {16, 4, 8}, {4, 4, 3}, {0, 2, 1}, {2, 2, 1}};
static const pal__field q6_k[] = {{0, 4, 32}, {128, 4, 16}, {192, 4, 4}, {208, 2, 1}};
static const pal__field iq4_xs[] = {{8, 4, 32}, {4, 4, 1}, {0, 2, 1}, {2, 2, 1}};

int pal__type_fields(pal__type type, const pal__field **fields)
{
#define FIELDS(t)                                     \
	do {                                          \
		*fields = t;                          \
		return (int)(sizeof t / sizeof t[0]); \
	} while (0)
	switch (type) {
	case PAL__F32:
		FIELDS(f32);
	case PAL__F16:
	case PAL__BF16:
		FIELDS(f16);
	case PAL__Q4_0:
	case PAL__IQ4_NL:
		FIELDS(q4_0);
	case PAL__Q4_1:
		FIELDS(q4_1);
	case PAL__Q5_0:
		FIELDS(q5_0);
	case PAL__Q5_1:
		FIELDS(q5_1);
	case PAL__Q8_0:
		FIELDS(q8_0);
	case PAL__Q2_K:
		FIELDS(q2_k);
	case PAL__Q3_K:
		FIELDS(q3_k);
	case PAL__Q4_K:
		FIELDS(q4_k);
	case PAL__Q5_K:
		FIELDS(q5_k);
	case PAL__Q6_K:
		FIELDS(q6_k);
	case PAL__IQ4_XS:
		FIELDS(iq4_xs);
	}
#undef FIELDS
	return 0;
}

bool pal__matrix_shape(pal__matrix *m, pal__type type, size_t n_rows, size_t n_cols)
{
	const pal__field *fields;
	int n = pal__type_fields(type, &fields);
	const pal__type_info *info = pal__type_find((uint32_t)type);
	*m = (pal__matrix){.type = type, .n_rows = n_rows, .n_cols = n_cols};
	m->n_blocks = n_cols / (size_t)info->block;
	m->n_tiles = n_rows / PAL__TILE_ROWS + (n_rows % PAL__TILE_ROWS != 0);
	for (int f = 0; f < n; f++) {
		m->plane[f] = m->pair_bytes;
		m->pair_bytes += (size_t)2 * fields[f].unit * fields[f].count * PAL__TILE_ROWS;
	}
	assert(m->pair_bytes % PAL__ALIGN == 0);
	size_t pairs = m->n_blocks / 2 + m->n_blocks % 2, total;
	return pal__mul_size(pairs, m->pair_bytes, &m->tile_bytes) &&
	       pal__mul_size(m->n_tiles, m->tile_bytes, &total) && total < SIZE_MAX / 2;
}

/* Where the units of plane f, `size` bytes a block, are for a block of a tile. */
static size_t units_at(const pal__matrix *m, int f, size_t size, size_t block)
{
	return block / 2 * m->pair_bytes + m->plane[f] + block % 2 * size;
}

/* One row of plane f: units of the row's blocks to their places 16 units apart. The
 * unit is a constant where this is inlined. */
static inline void pack_units(const pal__matrix *m, int f, uint8_t *to, const uint8_t *from,
			      size_t block_bytes, size_t count, size_t unit)
{
	for (size_t b = 0; b < m->n_blocks; b++, from += block_bytes) {
		uint8_t *at = to + units_at(m, f, count * unit * PAL__TILE_ROWS, b);
		for (size_t u = 0; u < count; u++, at += PAL__TILE_ROWS * unit)
			memcpy(at, from + u * unit, unit);
	}
}

void pal__matrix_pack_tile(pal__matrix *m, size_t tile, const uint8_t *src, const uint32_t *map)
{
	const pal__field *fields;
	int n = pal__type_fields(m->type, &fields);
	size_t block_bytes = (size_t)pal__type_find((uint32_t)m->type)->block_bytes;
	uint8_t *out = m->data + tile * m->tile_bytes;
	size_t first = tile * PAL__TILE_ROWS;
	if (first + PAL__TILE_ROWS > m->n_rows || m->n_blocks % 2)
		memset(out, 0, m->tile_bytes);
	for (size_t r = 0; r < PAL__TILE_ROWS && first + r < m->n_rows; r++) {
		size_t from = map ? map[first + r] : first + r;
		const uint8_t *row = src + from * m->n_blocks * block_bytes;
		for (int f = 0; f < n; f++) {
			const pal__field *d = &fields[f];
			uint8_t *to = out + r * d->unit;
			const uint8_t *units = row + d->offset;
			if (d->unit == 4)
				pack_units(m, f, to, units, block_bytes, d->count, 4);
			else
				pack_units(m, f, to, units, block_bytes, d->count, 2);
		}
	}
}

void pal__matrix_block(const pal__matrix *m, size_t row, size_t block, uint8_t *out)
{
	const pal__field *fields;
	int n = pal__type_fields(m->type, &fields);
	const uint8_t *tile = m->data + row / PAL__TILE_ROWS * m->tile_bytes;
	size_t lane = row % PAL__TILE_ROWS;
	for (int f = 0; f < n; f++) {
		size_t unit = fields[f].unit, count = fields[f].count;
		const uint8_t *from = tile + units_at(m, f, count * PAL__TILE_ROWS * unit, block);
		for (size_t u = 0; u < count; u++)
			memcpy(out + fields[f].offset + u * unit,
			       from + (u * PAL__TILE_ROWS + lane) * unit, unit);
	}
}
