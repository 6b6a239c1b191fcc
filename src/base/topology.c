#include "base/topology.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/status.h"

#define TEXT 8192 /* a list of 1024 CPUs, every second one of them, takes 2.6 kB */
#define NODES 64
#define MAX_NUMBER 1000000000 /* larger ones are no count, capacity or time of a CPU */

/* --- files ------------------------------------------------------------------ */

/* The text of a small file of the system, with a final NUL; false: there is none. */
static bool read_text(const char *root, const char *name, char text[TEXT])
{
	char path[4096];
	int n = snprintf(path, sizeof path, "%s/sys/%s", root, name);
	if (n < 0 || (size_t)n >= sizeof path)
		return false;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	size_t got = 0;
	ssize_t r;
	while (got < TEXT && (r = read(fd, text + got, TEXT - got)) > 0)
		got += (size_t)r;
	close(fd);
	if (got == TEXT)
		return false;
	text[got] = 0;
	return true;
}

/* A decimal number at *at, which moves behind it. */
static bool number(const char **at, int64_t *out)
{
	int64_t n = 0;
	const char *c = *at;
	for (; *c >= '0' && *c <= '9'; c++)
		if ((n = n * 10 + (*c - '0')) > MAX_NUMBER)
			return false;
	bool any = c != *at;
	*at = c;
	*out = n;
	return any;
}

/* A list like 0-3,8,10-11. False: it is none, and *out is undefined. An empty one is. */
static bool parse_list(const char *c, cpu_set_t *out)
{
	CPU_ZERO(out);
	while (*c && *c != '\n') {
		int64_t first, last;
		if (!number(&c, &first))
			return false;
		last = first;
		if (*c == '-' && (c++, !number(&c, &last)))
			return false;
		if (last < first || last >= CPU_SETSIZE)
			return false;
		for (int64_t i = first; i <= last; i++)
			CPU_SET((size_t)i, out);
		if (*c == ',')
			c++;
		else if (*c && *c != '\n')
			return false;
	}
	return true;
}

static bool read_list(const char *root, const char *name, cpu_set_t *out)
{
	char text[TEXT];
	return read_text(root, name, text) && parse_list(text, out);
}

/* --- processors ------------------------------------------------------------- */

int pal__cpus_allowed(cpu_set_t *out)
{
	if (sched_getaffinity(0, sizeof *out, out) == 0 && CPU_COUNT(out) > 0)
		return CPU_COUNT(out);
	CPU_ZERO(out); /* a system of more CPUs than the set can hold */
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	for (long i = 0; i == 0 || (i < n && i < CPU_SETSIZE); i++)
		CPU_SET((size_t)i, out);
	return CPU_COUNT(out);
}

/* Takes from *cpus those that are slow by their capacity, as ARM's systems tell it: less than
 * half of the best one's. Unknown ones stay. */
static void leave_slow(const char *root, cpu_set_t *cpus)
{
	int64_t capacity[CPU_SETSIZE], most = 0;
	for (size_t i = 0; i < CPU_SETSIZE; i++) {
		char name[64], text[TEXT];
		const char *at = text;
		capacity[i] = -1;
		snprintf(name, sizeof name, "devices/system/cpu/cpu%zu/cpu_capacity", i);
		if (CPU_ISSET(i, cpus) && read_text(root, name, text) && !number(&at, &capacity[i]))
			capacity[i] = -1;
		most = capacity[i] > most ? capacity[i] : most;
	}
	for (size_t i = 0; i < CPU_SETSIZE; i++)
		if (capacity[i] >= 0 && capacity[i] * 2 < most)
			CPU_CLR(i, cpus);
}

/* The performance cores' CPUs among these: all, if nothing says that they differ. */
static cpu_set_t performance(const char *root, const cpu_set_t *allowed)
{
	cpu_set_t fast;
	if (read_list(root, "devices/cpu_core/cpus", &fast)) /* Intel's hybrid processors */
		CPU_AND(&fast, &fast, allowed);
	else
		fast = *allowed;
	if (!CPU_COUNT(&fast)) /* only efficiency cores are allowed */
		fast = *allowed;
	leave_slow(root, &fast);
	return fast;
}

/* Physical cores: CPUs of which no sibling in the set comes before them. */
static int count_cores(const char *root, const cpu_set_t *cpus)
{
	int n = 0;
	for (size_t i = 0; i < CPU_SETSIZE; i++) {
		char name[64];
		cpu_set_t siblings;
		bool first = true;
		if (!CPU_ISSET(i, cpus))
			continue;
		snprintf(name, sizeof name, "devices/system/cpu/cpu%zu/topology/%s", i,
			 "thread_siblings_list");
		if (read_list(root, name, &siblings) && CPU_ISSET(i, &siblings))
			for (size_t j = 0; j < i; j++)
				first = first && !(CPU_ISSET(j, &siblings) && CPU_ISSET(j, cpus));
		n += first;
	}
	return n;
}

/* CPUs' worth of time that the control group is given, rounded up, as a container sees it;
 * INT_MAX: no limit. The file: microseconds of every so many, or max. */
static int quota(const char *root)
{
	char text[TEXT];
	const char *at = text;
	int64_t time, period;
	if (!read_text(root, "fs/cgroup/cpu.max", text) || !number(&at, &time) || *at++ != ' ' ||
	    !number(&at, &period) || time == 0 || period == 0)
		return INT_MAX;
	return (int)((time + period - 1) / period);
}

static int min_int(int a, int b)
{
	return a < b ? a : b;
}

pal__placement pal__place_threads(const char *root, const cpu_set_t *allowed, int asked)
{
	pal__placement p = {.n_threads = asked, .cpus = performance(root, allowed)};
	int cores = count_cores(root, &p.cpus);
	if (!asked)
		p.n_threads = min_int(min_int(cores, quota(root)), PAL_MAX_THREADS);
	if (p.n_threads > cores)
		p.cpus = *allowed;
	return p;
}

/* --- memory nodes ----------------------------------------------------------- */

uint64_t pal__nodes_of(const char *root, const cpu_set_t *allowed)
{
	uint64_t nodes = 0;
	for (int i = 0; i < NODES; i++) {
		char name[64];
		cpu_set_t cpus;
		snprintf(name, sizeof name, "devices/system/node/node%d/cpulist", i);
		if (!read_list(root, name, &cpus))
			continue;
		CPU_AND(&cpus, &cpus, allowed);
		nodes |= (uint64_t)(CPU_COUNT(&cpus) > 0) << i;
	}
	return nodes;
}

static uint64_t spread_over; /* nodes; 0: memory stays where it falls */

static void find_nodes(void)
{
	cpu_set_t allowed;
	int policy;
	pal__cpus_allowed(&allowed);
	if (syscall(SYS_get_mempolicy, &policy, NULL, 0UL, NULL, 0UL) != 0 ||
	    policy != MPOL_DEFAULT)
		return;
	uint64_t nodes = pal__nodes_of("", &allowed);
	spread_over = nodes & (nodes - 1) ? nodes : 0; /* one alone needs nothing */
}

void pal__spread(void *p, size_t bytes, uint64_t nodes)
{
	/* The system takes one from the number of bits. */
	syscall(SYS_mbind, p, bytes, MPOL_INTERLEAVE, &nodes, NODES + 1UL, 0U);
}

void pal__interleave(void *p, size_t bytes)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, find_nodes);
	if (spread_over)
		pal__spread(p, bytes, spread_over);
}
