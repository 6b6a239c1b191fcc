#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/topology.h"

/* From this size on memory is mapped: it goes back to the system when freed, and
 * huge pages are asked for, since weights and K/V are read end to end,
 * by all threads: so it is spread over memory nodes. */
#define MAP_FROM ((size_t)1 << 21)

static _Atomic uint64_t mapped; /* bytes */
static _Atomic int64_t countdown = -1;
static _Atomic int64_t live;
static atomic_bool failed;

static bool refuse(void)
{
	int64_t n = atomic_load_explicit(&countdown, memory_order_relaxed);
	if (n < 0)
		return false;
	if (n == 0) {
		atomic_store(&failed, true);
		return true;
	}
	atomic_store(&countdown, n - 1);
	return false;
}

void pal__mem_fail_after(int64_t n)
{
	atomic_store(&countdown, n);
	atomic_store(&failed, false);
}

bool pal__mem_failed(void)
{
	return atomic_load(&failed);
}

int64_t pal__mem_live(void)
{
	return atomic_load(&live);
}

static void *count(void *p)
{
	if (p)
		atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
	return p;
}

void *pal__alloc(size_t size)
{
	return refuse() ? NULL : count(malloc(size ? size : 1));
}

void *pal__calloc(size_t n, size_t size)
{
	size_t total;
	if (!pal__mul_size(n, size, &total) || refuse())
		return NULL;
	return count(calloc(total ? total : 1, 1));
}

void *pal__realloc(void *p, size_t size)
{
	if (!p)
		return pal__alloc(size);
	return refuse() ? NULL : realloc(p, size ? size : 1);
}

char *pal__strndup(const char *s, size_t n)
{
	size_t size;
	if (!pal__add_size(n, 1, &size))
		return NULL;
	char *copy = pal__alloc(size);
	if (copy) {
		memcpy(copy, s, n);
		copy[n] = 0;
	}
	return copy;
}

void pal__free(void *p)
{
	if (p)
		atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
	free(p);
}

void *pal__alloc_aligned(size_t size)
{
	size_t rounded;
	if (!pal__round_up(size ? size : 1, PAL__ALIGN, &rounded) || refuse())
		return NULL;
	if (rounded < MAP_FROM) {
		void *small = aligned_alloc(PAL__ALIGN, rounded);
		return small ? count(memset(small, 0, rounded)) : NULL;
	}
	void *p = mmap(NULL, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	atomic_fetch_add_explicit(&mapped, rounded, memory_order_relaxed);
	madvise(p, rounded, MADV_HUGEPAGE);
	pal__interleave(p, rounded);
	return count(p);
}

void pal__free_aligned(void *p, size_t size)
{
	if (!p)
		return;
	size_t rounded = pal__arena_need(size ? size : 1);
	atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
	if (rounded < MAP_FROM) {
		free(p);
		return;
	}
	atomic_fetch_sub_explicit(&mapped, rounded, memory_order_relaxed);
	munmap(p, rounded);
}

uint64_t pal__mem_mapped(void)
{
	return atomic_load_explicit(&mapped, memory_order_relaxed);
}

void pal__populate(void *p, size_t size)
{
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
	const uintptr_t page = 4096, from = (uintptr_t)p & ~(page - 1);
	if (size >= page)
		madvise((void *)from, (uintptr_t)p + size - from, MADV_POPULATE_WRITE);
}

bool pal__grow(void **items, size_t *cap, size_t need, size_t item)
{
	if (need <= *cap)
		return true;
	size_t to = *cap ? *cap : 16, bytes;
	while (to < need)
		if (!pal__mul_size(to, 2, &to))
			return false;
	if (!pal__mul_size(to, item, &bytes))
		return false;
	void *grown = pal__realloc(*items, bytes);
	if (!grown)
		return false;
	*items = grown;
	*cap = to;
	return true;
}

pal_status pal__arena_init(pal__arena *a, size_t size, const char *what, pal_error *err)
{
	*a = (pal__arena){.base = pal__alloc_aligned(size), .size = size};
	return a->base ? PAL_OK : pal__fail_memory(err, what, size);
}

void pal__arena_free(pal__arena *a)
{
	pal__free_aligned(a->base, a->size);
	*a = (pal__arena){0};
}

void *pal__arena_take(pal__arena *a, size_t size)
{
	size_t need = pal__arena_need(size);
	if (need < size || need > a->size - a->used)
		return NULL;
	void *p = a->base + a->used;
	a->used += need;
	return p;
}
