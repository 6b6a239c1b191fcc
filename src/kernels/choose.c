#include <string.h>

#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool has_avx2(void)
{
	unsigned a, b, c = 0, d;
	bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
	return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
	return has_avx2() && __builtin_cpu_supports("avx512f") &&
	       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

/* Linux wants to be asked before a process uses AMX, whose registers take 8 KB of every thread's
 * saved state; see Documentation/arch/x86/xstate.rst. It refuses where the system cannot. */
static bool has_amx(void)
{
	const long req_xcomp_perm = 0x1023, xtile_data = 18;
	const unsigned tile = 1u << 24, tile_int8 = 1u << 25;
	unsigned a, b, c, d = 0;
	return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & tile) &&
	       (d & tile_int8) && syscall(SYS_arch_prctl, req_xcomp_perm, xtile_data) == 0;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

static bool has_neon(void)
{
	return getauxval(AT_HWCAP) >> 20 & 1; /* HWCAP_ASIMDDP: dot products */
}
#endif

static bool has_scalar(void)
{
	return true;
}

/* Best first. */
static const struct {
	const char *name;
	const pal__kernels *kernels; /* NULL: of another processor family */
	bool (*here)(void);
} known[] = {
#if defined(__x86_64__)
	{"amx", &pal__kernels_amx, has_amx},          {"avx512", &pal__kernels_avx512, has_avx512},
	{"avx2", &pal__kernels_avx2, has_avx2},       {"neon", NULL, NULL},
#elif defined(__aarch64__)
	{"amx", NULL, NULL},
	{"avx512", NULL, NULL},
	{"avx2", NULL, NULL},
	{"neon", &pal__kernels_neon, has_neon},
#endif
	{"scalar", &pal__kernels_scalar, has_scalar},
};

pal_status pal__kernels_choose(const char *name, const pal__kernels **out, pal_error *err)
{
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (name && strcmp(name, known[i].name) != 0)
			continue;
		if (known[i].kernels && known[i].here()) {
			*out = known[i].kernels;
			return PAL_OK;
		}
		if (name)
			return pal__fail(err, PAL_EUNSUPPORTED, "isa %s: this CPU does not have it",
					 name);
	}
	return pal__fail(err, PAL_EINVAL, "isa %s: scalar, avx2, avx512, amx and neon are known",
			 name);
}
