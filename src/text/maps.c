#include "text/maps.h"

#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/mem.h"

/* Slots for n entries, a power of two and at least 2n, so that a search ends soon. */
static bool slots_for(size_t n, size_t *slots)
{
	size_t want, to = 16;
	if (!pal__mul_size(n, 2, &want))
		return false;
	while (to < want)
		if (!pal__mul_size(to, 2, &to))
			return false;
	*slots = to;
	return true;
}

/* Guards against hostile vocabularies only: without entropy the maps work all the same. */
static uint64_t random_seed(void)
{
	uint64_t seed = 0;
	if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
		seed = 0x9e3779b97f4a7c15u;
	return seed;
}

bool pal__text_map_init(pal__text_map *m, const char *bytes, const size_t *at, size_t n)
{
	size_t slots, size;
	*m = (pal__text_map){.bytes = bytes, .at = at, .seed = random_seed()};
	if (!slots_for(n, &slots) || !pal__mul_size(slots, sizeof *m->slots, &size))
		return false;
	m->slots = pal__alloc(size);
	if (!m->slots)
		return false;
	memset(m->slots, 0xff, size);
	m->mask = slots - 1;
	return true;
}

void pal__text_map_free(pal__text_map *m)
{
	pal__free(m->slots);
	*m = (pal__text_map){0};
}

/* The slot of s[n], or the free one where it would be. */
static struct pal__text_slot *text_slot(const pal__text_map *m, const char *s, size_t n,
					uint32_t *tag)
{
	uint64_t hash = XXH3_64bits_withSeed(s, n, m->seed);
	*tag = (uint32_t)(hash >> 32);
	for (size_t i = hash & m->mask;; i = (i + 1) & m->mask) {
		struct pal__text_slot *slot = &m->slots[i];
		if (slot->id < 0)
			return slot;
		if (slot->tag != *tag)
			continue;
		size_t from = m->at[slot->id];
		if (m->at[slot->id + 1] - from == n && !memcmp(m->bytes + from, s, n))
			return slot;
	}
}

void pal__text_map_add(pal__text_map *m, int32_t id)
{
	uint32_t tag;
	size_t n = m->at[id + 1] - m->at[id];
	struct pal__text_slot *slot = text_slot(m, m->bytes + m->at[id], n, &tag);
	if (slot->id >= 0)
		return;
	*slot = (struct pal__text_slot){.tag = tag, .id = id};
	if (n > m->longest)
		m->longest = n;
}

int32_t pal__text_map_find(const pal__text_map *m, const char *s, size_t n)
{
	uint32_t tag;
	return n > m->longest ? -1 : text_slot(m, s, n, &tag)->id;
}

bool pal__pair_map_init(pal__pair_map *m, size_t n)
{
	size_t slots, size;
	*m = (pal__pair_map){.seed = random_seed()};
	if (!slots_for(n, &slots) || !pal__mul_size(slots, sizeof *m->slots, &size))
		return false;
	m->slots = pal__alloc(size);
	if (!m->slots)
		return false;
	memset(m->slots, 0xff, size);
	m->mask = slots - 1;
	return true;
}

void pal__pair_map_free(pal__pair_map *m)
{
	pal__free(m->slots);
	*m = (pal__pair_map){0};
}

static struct pal__pair_slot *pair_slot(const pal__pair_map *m, int32_t left, int32_t right)
{
	int32_t key[2] = {left, right};
	uint64_t hash = XXH3_64bits_withSeed(key, sizeof key, m->seed);
	for (size_t i = hash & m->mask;; i = (i + 1) & m->mask) {
		struct pal__pair_slot *slot = &m->slots[i];
		if (slot->left < 0 || (slot->left == left && slot->right == right))
			return slot;
	}
}

void pal__pair_map_add(pal__pair_map *m, const struct pal__pair_slot *entry)
{
	struct pal__pair_slot *slot = pair_slot(m, entry->left, entry->right);
	if (slot->left < 0)
		*slot = *entry;
}

const struct pal__pair_slot *pal__pair_map_find(const pal__pair_map *m, int32_t left, int32_t right)
{
	const struct pal__pair_slot *slot = pair_slot(m, left, right);
	return slot->left < 0 ? NULL : slot;
}
