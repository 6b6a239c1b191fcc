/* Memory: the only allocator of the project, and arenas.
 *
 * Invariants:
 *  - Every allocation of the library goes through pal__alloc, pal__calloc,
 *    pal__realloc or an arena, so that tests can make the n-th one fail
 *    (pal__mem_fail_after) and count what is still held (pal__mem_live).
 *  - Memory from pal__alloc_aligned and arenas is aligned to 64 bytes, a cache
 *    line and the widest vector.
 *  - An arena is one block, sized when it is made, that never grows: contract C1.
 */
#ifndef PAL_BASE_MEM_H
#define PAL_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define PAL__ALIGN 64

void *pal__alloc(size_t size);
void *pal__calloc(size_t count, size_t size); /* NULL too when count * size overflows */
void *pal__realloc(void *p, size_t size);
char *pal__strndup(const char *s, size_t n); /* n bytes and a final NUL */
void pal__free(void *p);                     /* NULL is fine */

/* size bytes at a multiple of 64, all zero, straight from the system where they are
 * many (and then only resident once touched); freed with pal__free_aligned and the same size. */
void *pal__alloc_aligned(size_t size);
void pal__free_aligned(void *p, size_t size);

uint64_t pal__mem_mapped(void); /* bytes of such memory that are straight from the system */

/* Makes [p, p + size) of such memory resident now, and not when it is first written to: the
 * system takes a second to clear a gigabyte, or several. What it cannot do now comes later. */
void pal__populate(void *p, size_t size);

/* Makes room for `need` items of `item` bytes in *items, doubling the capacity.
 * *items and *cap are unchanged on failure. */
bool pal__grow(void **items, size_t *cap, size_t need, size_t item);

/* Fault injection. After pal__mem_fail_after(n) the n-th allocation from now
 * (counting from 0) and all later ones fail; n < 0 turns it off. Not thread-safe
 * with allocations under way. */
void pal__mem_fail_after(int64_t n);
bool pal__mem_failed(void);  /* whether an injected failure has happened */
int64_t pal__mem_live(void); /* allocations not yet freed */

typedef struct {
	uint8_t *base;
	size_t size, used; /* bytes */
} pal__arena;

pal_status pal__arena_init(pal__arena *a, size_t size, const char *what, pal_error *err);
void pal__arena_free(pal__arena *a);

/* size bytes at a multiple of 64, or NULL when the arena is full. The bytes a
 * request takes are pal__arena_need(size). */
void *pal__arena_take(pal__arena *a, size_t size);
static inline size_t pal__arena_need(size_t size)
{
	return (size + PAL__ALIGN - 1) & ~(size_t)(PAL__ALIGN - 1);
}

#endif
