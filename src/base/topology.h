/* The machine's processors: how many threads make sense here, and where.
 *
 * All of it is advice: files that are missing, unreadable or strange make the answer plainer
 * (every CPU a core of its own, all cores alike, one memory node), never an error. Results do
 * not depend on it, only speed does.
 *
 * What is decided:
 *  - The default number of threads is that of the physical performance cores among the CPUs
 *    that this process may use, or less if its control group is given less CPU time. A second
 *    thread of a core adds nothing to reading memory, and all wait for a slow core.
 *  - Up to that many, threads keep to those cores, each free to move among them and to leave
 *    one that another process uses. More threads, if asked for, may use every allowed CPU.
 *  - Large blocks of memory are spread over the nodes of the allowed CPUs page by page
 *    (pal__interleave), as every thread reads a part of every matrix; not if the user chose
 *    a policy (numactl).
 */
#ifndef PAL_BASE_TOPOLOGY_H
#define PAL_BASE_TOPOLOGY_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
	int n_threads;  /* 1 to PAL_MAX_THREADS */
	cpu_set_t cpus; /* where they should run; at least one */
} pal__placement;

/* The CPUs that this process may use, at least one; returns how many. */
int pal__cpus_allowed(cpu_set_t *out);

/* asked: threads, 0: the default. root: "", or a folder whose sys/ is read instead. */
pal__placement pal__place_threads(const char *root, const cpu_set_t *allowed, int asked);

/* Memory nodes with CPUs that are allowed, as bits; 0 where the system does not say. */
uint64_t pal__nodes_of(const char *root, const cpu_set_t *allowed);

/* Spreads the pages of p, of which none is touched yet, over these nodes, if the system lets
 * us. p: a multiple of the page size. */
void pal__spread(void *p, size_t bytes, uint64_t nodes);

/* The same over the nodes of the process's CPUs, as they were when this was called first. */
void pal__interleave(void *p, size_t bytes);

#endif
