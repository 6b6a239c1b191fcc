/* Machines that are folders: what a sys/ of each would say. */
#include "base/topology.h"

#include <linux/mempolicy.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/status.h"

static char root[64];

static void put_bytes(const char *name, const char *bytes, size_t n)
{
	char path[512];
	assert_true((size_t)snprintf(path, sizeof path, "%s/sys/%s", root, name) < sizeof path);
	for (char *c = path + strlen(root) + 1; (c = strchr(c, '/')) != NULL; c++) {
		*c = 0;
		mkdir(path, 0755);
		*c = '/';
	}
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static void put(const char *name, const char *text)
{
	put_bytes(name, text, strlen(text));
}

/* A file of CPU i; text may have one %d, for a number. */
static void put_cpu(int i, const char *file, const char *text)
{
	char name[128];
	snprintf(name, sizeof name, "devices/system/cpu/cpu%d/%s", i, file);
	put(name, text);
}

static void pair(int a, int b)
{
	char text[32];
	snprintf(text, sizeof text, b == a + 1 ? "%d-%d\n" : "%d,%d\n", a, b);
	put_cpu(a, "topology/thread_siblings_list", text);
	put_cpu(b, "topology/thread_siblings_list", text);
}

static void alone(int i)
{
	char text[32];
	snprintf(text, sizeof text, "%d\n", i);
	put_cpu(i, "topology/thread_siblings_list", text);
}

static cpu_set_t range(size_t from, size_t to)
{
	cpu_set_t s;
	CPU_ZERO(&s);
	for (size_t i = from; i <= to; i++)
		CPU_SET(i, &s);
	return s;
}

static void check(cpu_set_t allowed, int asked, int threads, cpu_set_t cpus)
{
	pal__placement p = pal__place_threads(root, &allowed, asked);
	assert_int_equal(p.n_threads, threads);
	assert_true(CPU_EQUAL(&p.cpus, &cpus));
}

static int fresh(void **state)
{
	(void)state;
	strcpy(root, "/tmp/pal-topology-XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int clear(void **state)
{
	(void)state;
	char command[128];
	snprintf(command, sizeof command, "rm -r '%s'", root);
	return system(command);
}

/* Two performance cores of two threads each, four efficiency cores. */
static void hybrid_laptop(void **state)
{
	(void)state;
	put("devices/cpu_core/cpus", "0-3\n");
	put("devices/cpu_atom/cpus", "4-7\n");
	pair(0, 1);
	pair(2, 3);
	for (int i = 4; i < 8; i++)
		alone(i);
	check(range(0, 7), 0, 2, range(0, 3));
	check(range(0, 7), 1, 1, range(0, 3));
	check(range(0, 7), 2, 2, range(0, 3));
	check(range(0, 7), 3, 3, range(0, 7)); /* more than there are: all cores */
	check(range(0, 7), 8, 8, range(0, 7));
	check(range(1, 4), 0, 2, range(1, 3)); /* 1 is its core's only CPU here */
	check(range(4, 7), 0, 4, range(4, 7)); /* none of the fast ones is allowed */
	check(range(5, 5), 0, 1, range(5, 5));
}

/* Two nodes of four cores, whose second threads are numbered after all first ones. */
static void server(void **state)
{
	(void)state;
	for (int i = 0; i < 8; i++)
		pair(i, i + 8);
	put("devices/system/node/node0/cpulist", "0-3,8-11\n");
	put("devices/system/node/node1/cpulist", "4-7,12-15\n");
	put("devices/system/node/node2/cpulist", "\n"); /* memory alone */
	check(range(0, 15), 0, 8, range(0, 15));
	check(range(0, 15), 12, 12, range(0, 15));
	check(range(8, 15), 0, 8, range(8, 15));
	check(range(6, 9), 0, 4, range(6, 9));
	cpu_set_t all = range(0, 15), first = range(8, 9), second = range(12, 13),
		  none = range(20, 30);
	assert_int_equal(pal__nodes_of(root, &all), 3);
	assert_int_equal(pal__nodes_of(root, &first), 1);
	assert_int_equal(pal__nodes_of(root, &second), 2);
	assert_int_equal(pal__nodes_of(root, &none), 0);
}

static void big_and_little(void **state)
{
	(void)state;
	const char *const capacity[] = {"250\n", "250\n", "250\n", "870\n", "870\n", "1024\n"};
	for (int i = 0; i < 6; i++) {
		alone(i);
		put_cpu(i, "cpu_capacity", capacity[i]);
	}
	check(range(0, 5), 0, 3, range(3, 5));
	check(range(0, 5), 4, 4, range(0, 5));
	check(range(0, 2), 0, 3, range(0, 2));
	put_cpu(5, "cpu_capacity", "what\n"); /* unknown: it stays */
	check(range(0, 5), 0, 3, range(3, 5));
}

static void small_vm(void **state)
{
	(void)state;
	alone(0);
	alone(1);
	put("devices/system/node/node0/cpulist", "0-1\n");
	check(range(0, 1), 0, 2, range(0, 1));
	check(range(0, 1), 8, 8, range(0, 1));
	cpu_set_t all = range(0, 1);
	assert_int_equal(pal__nodes_of(root, &all), 1);
}

static void container(void **state)
{
	(void)state;
	put("fs/cgroup/cpu.max", "150000 100000\n");
	check(range(0, 15), 0, 2, range(0, 15));
	check(range(0, 15), 5, 5, range(0, 15)); /* what was asked for stays */
	put("fs/cgroup/cpu.max", "1000 100000\n");
	check(range(0, 15), 0, 1, range(0, 15));
	for (size_t i = 0; i < 7; i++) {
		static const char *const none[] = {"max 100000\n",
						   "100000\n",
						   "0 100000\n",
						   "1 0\n",
						   "99999999999999999999 1\n",
						   "-5 100\n",
						   ""};
		put("fs/cgroup/cpu.max", none[i]);
		check(range(0, 15), 0, 16, range(0, 15));
	}
}

static void nothing_known(void **state)
{
	(void)state;
	check(range(0, 3), 0, 4, range(0, 3));
	check(range(3, 3), 0, 1, range(3, 3));
	check(range(0, 1023), 0, PAL_MAX_THREADS, range(0, 1023));
	cpu_set_t all = range(0, 1023);
	assert_int_equal(pal__nodes_of(root, &all), 0);
	char deep[8000];
	memset(deep, 'x', sizeof deep - 1);
	deep[sizeof deep - 1] = 0;
	assert_int_equal(pal__place_threads(deep, &all, 3).n_threads, 3);
	/* Folders where files are wanted. */
	put("devices/cpu_core/cpus/x", "");
	put("devices/system/cpu/cpu0/topology/thread_siblings_list/x", "");
	check(range(0, 3), 0, 4, range(0, 3));
}

/* Each of these is no list at all, wherever it stands. */
static void garbage(void **state)
{
	(void)state;
	static char huge[20000];
	for (size_t i = 0; i + 2 < sizeof huge; i += 2)
		memcpy(huge + i, "1,", 2);
	const char *const bad[] = {"x",           "0-",    "-3",  "3-1", "0,,1",
				   "0-5000",      "1024",  "0 1", ",",   "18446744073709551616",
				   "99999999999", "0-1;2", huge};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		put("devices/cpu_core/cpus", bad[i]);
		put("devices/system/node/node0/cpulist", bad[i]);
		for (int cpu = 0; cpu < 4; cpu++)
			put_cpu(cpu, "topology/thread_siblings_list", bad[i]);
		check(range(0, 3), 0, 4, range(0, 3));
		cpu_set_t all = range(0, 3);
		assert_int_equal(pal__nodes_of(root, &all), 0);
	}
	put_bytes("devices/cpu_core/cpus", "0-1\0,2", 6); /* ends where a text does */
	check(range(0, 3), 0, 2, range(0, 1));
	for (int cpu = 0; cpu < 4; cpu++) /* lists that leave out the CPU itself */
		put_cpu(cpu, "topology/thread_siblings_list", "9\n");
	check(range(0, 3), 0, 2, range(0, 1));
}

/* Whatever the bytes, the answer is a number of threads and CPUs that are allowed. */
static void noise(void **state)
{
	(void)state;
	const char *const files[] = {"devices/cpu_core/cpus", "fs/cgroup/cpu.max",
				     "devices/system/cpu/cpu0/topology/thread_siblings_list",
				     "devices/system/cpu/cpu1/cpu_capacity",
				     "devices/system/node/node3/cpulist"};
	const char letters[] = "0123456789,-- \n\0max";
	uint32_t seed = 7;
	for (int round = 0; round < 400; round++) {
		char text[12];
		for (size_t i = 0; i < sizeof text; i++) {
			seed = seed * 1664525u + 1013904223u;
			text[i] = letters[(seed >> 16) % (sizeof letters - 1)];
		}
		put_bytes(files[round % 5], text, (seed >> 8) % (sizeof text + 1));
		cpu_set_t allowed = range(0, 3), in;
		for (int asked = 0; asked < 6; asked++) {
			pal__placement p = pal__place_threads(root, &allowed, asked);
			assert_in_range(p.n_threads, 1, asked ? asked : 4);
			CPU_AND(&in, &p.cpus, &allowed);
			assert_true(CPU_COUNT(&p.cpus) > 0 && CPU_EQUAL(&in, &p.cpus));
		}
		assert_int_equal(pal__nodes_of(root, &allowed) & ~(uint64_t)8, 0);
	}
}

/* The memory policy at p, or of the process; -1: the system has none. */
static int policy_of(void *p)
{
	int policy = -1;
	unsigned long flags = p ? MPOL_F_ADDR : 0;
	return syscall(SYS_get_mempolicy, &policy, NULL, 0UL, p, flags) == 0 ? policy : -1;
}

static void this_machine(void **state)
{
	(void)state;
	cpu_set_t allowed, in;
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	int n = pal__cpus_allowed(&allowed);
	assert_true(n >= 1 && n <= (online > 1 ? online : 1) && n == CPU_COUNT(&allowed));
	pal__placement p = pal__place_threads("", &allowed, 0);
	CPU_AND(&in, &p.cpus, &allowed);
	assert_true(p.n_threads >= 1 && p.n_threads <= n && CPU_EQUAL(&in, &p.cpus));
}

/* Memory stays usable. On one node, or none, it is left as it is; whether it is spread when
 * told to is seen where the system knows policies at all. */
static void interleaving(void **state)
{
	(void)state;
	size_t size = (size_t)4 << 20;
	uint8_t *p = pal__alloc_aligned(size);
	assert_non_null(p);
	for (size_t i = 0; i < size; i += 4096)
		assert_int_equal(p[i]++, 0);
	cpu_set_t allowed;
	pal__cpus_allowed(&allowed);
	uint64_t nodes = pal__nodes_of("", &allowed);
	int before = policy_of(NULL), policy = policy_of(p);
	if (before == MPOL_DEFAULT)
		assert_int_equal(policy, nodes & (nodes - 1) ? MPOL_INTERLEAVE : MPOL_DEFAULT);
	pal__free_aligned(p, size);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	pal__spread(p, size, nodes);
	for (size_t i = 0; i < size; i += 4096)
		assert_int_equal(p[i]++, 0);
	if (before == MPOL_DEFAULT && nodes)
		assert_int_equal(policy_of(p), MPOL_INTERLEAVE);
	munmap(p, size);
}

#define ON_A_TREE(f) cmocka_unit_test_setup_teardown(f, fresh, clear)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_A_TREE(hybrid_laptop),
		ON_A_TREE(server),
		ON_A_TREE(big_and_little),
		ON_A_TREE(small_vm),
		ON_A_TREE(container),
		ON_A_TREE(nothing_known),
		ON_A_TREE(garbage),
		ON_A_TREE(noise),
		cmocka_unit_test(this_machine),
		cmocka_unit_test(interleaving),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
