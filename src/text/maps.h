/* Hash maps of a vocabulary: from a token's bytes to its id, and from a pair of ids
 * to what they merge into.
 *
 * Both are open-addressed, at most half full, keyed with XXH3 under a random seed (a
 * vocabulary cannot be made to collide), sized once and then only filled; the first
 * of equal keys stays. Reading from any threads at once is fine.
 */
#ifndef PAL_TEXT_MAPS_H
#define PAL_TEXT_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes to id. The bytes stay where they are: token i's are bytes[at[i]] up to at[i + 1]. */
typedef struct {
	const char *bytes;
	const size_t *at;
	struct pal__text_slot {
		uint32_t tag; /* of the hash, so that most misses cost one cache line */
		int32_t id;   /* -1: free */
	} * slots;
	size_t mask;
	size_t longest; /* bytes of the longest token in the map */
	uint64_t seed;
} pal__text_map;

/* false: out of memory. Room for n tokens. */
bool pal__text_map_init(pal__text_map *m, const char *bytes, const size_t *at, size_t n);
void pal__text_map_free(pal__text_map *m); /* fine on a zeroed struct */
void pal__text_map_add(pal__text_map *m, int32_t id);
int32_t pal__text_map_find(const pal__text_map *m, const char *s, size_t n); /* -1: not there */

typedef struct {
	struct pal__pair_slot {
		int32_t left, right; /* left -1: free */
		uint32_t rank;       /* lower merges first */
		int32_t id;          /* what the pair becomes */
	} * slots;
	size_t mask;
	uint64_t seed;
} pal__pair_map;

bool pal__pair_map_init(pal__pair_map *m, size_t n); /* false: out of memory */
void pal__pair_map_free(pal__pair_map *m);
void pal__pair_map_add(pal__pair_map *m, const struct pal__pair_slot *entry);
const struct pal__pair_slot *pal__pair_map_find(const pal__pair_map *m, int32_t left,
						int32_t right); /* NULL: not there */

#endif
