/* Rows of K or V as few bytes: what the spill file keeps, and resident K/V of few bits.
 *
 *   kind             bytes of a row of n             value of number i
 *   PAL__PACK_F16    2 n                             half
 *   PAL__PACK_INT8   4 + n                           int8 * scale (float32, first)
 *   PAL__PACK_AFFINE4  4 + ceil(m / 2) a group       offset + scale * code, code 0 to 15
 *
 * An affine4 row is groups of 32 numbers, the last one of the m that are left: scale, offset
 * (halves), then the codes, number i the low half of byte i and i + ceil(m / 2) the high one. All
 * is little-endian. Every number is at most half a step from what it was (int8: largest / 127; a
 * group: its range / 15, and what rounding scale and offset to halves adds).
 *
 * The bytes are the same on every machine: each operation is rounded on its own, and scale * code
 * is exact, so that fusing it with the sum would change nothing.
 *
 * Hostile values: a half is the nearest, too large ones become infinite, and NaN stay. An int8
 * row, and an affine4 group, with a number that is not finite becomes NaN as a whole, so that it
 * shows. affine4 moves numbers beyond 65504 there. Any bytes can be unpacked. */
#ifndef PAL_MEMORY_PACK_H
#define PAL_MEMORY_PACK_H

#include <stddef.h>
#include <stdint.h>

typedef enum { PAL__PACK_F16, PAL__PACK_INT8, PAL__PACK_AFFINE4 } pal__pack_kind;

#define PAL__PACK_GROUP 32

/* Bytes of a row of n numbers; never more than 4 n + 4. n: below SIZE_MAX / 8 */
size_t pal__pack_bytes(pal__pack_kind kind, size_t n);

/* x: [n], out: [pal__pack_bytes(kind, n)]; no alignment is needed. */
void pal__pack(pal__pack_kind kind, const float *x, size_t n, uint8_t *out);
void pal__unpack(pal__pack_kind kind, const uint8_t *in, size_t n, float *x);

#endif
