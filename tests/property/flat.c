/* The memory of a bounded session does not grow with its log: peak memory after so many tokens,
 * with restoration and generation, is within 8 MiB of that after 8192, whatever restores.
 *
 *   flat [--tokens N] MODEL SIDE-CAR [TEXT]
 *
 * Each source has a process of its own, since peaks stay. The log is the text, over and over, or
 * random ids. Speaks TAP. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "palimpsest.h"

#define PIECE 4096
#define EARLY 8192
#define MOST_KIB 8192 /* that peak memory may grow by */
#define GENERATED 32

static const struct {
	const char *name;
	pal_kv_policy policy;
	pal_source source;
	pal_spill_type type;
} sources[] = {
	{"window", PAL_KV_WINDOW, 0, 0},
	{"recompute", PAL_KV_RESTORED, PAL_SOURCE_RECOMPUTE, 0},
	{"spill f16", PAL_KV_RESTORED, PAL_SOURCE_SPILL, PAL_SPILL_F16},
	{"spill int8", PAL_KV_RESTORED, PAL_SOURCE_SPILL, PAL_SPILL_INT8},
	{"spill affine4", PAL_KV_RESTORED, PAL_SOURCE_SPILL, PAL_SPILL_AFFINE4},
	{"hidden", PAL_KV_RESTORED, PAL_SOURCE_HIDDEN, 0},
	{"project", PAL_KV_RESTORED, PAL_SOURCE_PROJECT, 0},
};
#define N_SOURCES (sizeof sources / sizeof *sources)

typedef struct {
	pal_session *s;
	int32_t *text;
	size_t n_text, at;
} log_state;

static _Noreturn void stop(const char *what)
{
	printf("# %s\n", what);
	fflush(stdout);
	_exit(1);
}

static long peak_kib(void)
{
	char line[256];
	long kib = -1;
	FILE *f = fopen("/proc/self/status", "r");
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, "VmHWM:", 6))
			kib = strtol(line + 6, NULL, 10);
	if (f)
		fclose(f);
	return kib;
}

static void read_text(log_state *l, pal_model *m, const char *path)
{
	static char bytes[1 << 20];
	pal_error err;
	pal_model_info info;
	pal_model_get_info(m, &info);
	FILE *f = path ? fopen(path, "rb") : NULL;
	size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
	if (f)
		fclose(f);
	if (path && !n)
		stop("no text");
	if (path && pal_tokenize(m, bytes, n, 0, &l->text, &l->n_text, &err))
		stop(err.text);
	if (path)
		return;
	uint64_t x = 1;
	l->n_text = 1 << 16;
	l->text = malloc(l->n_text * sizeof *l->text);
	for (size_t i = 0; l->text && i < l->n_text; i++)
		l->text[i] = (int32_t)((x = x * 6364136223846793005u + 1) >> 33) % info.n_vocab;
	if (!l->text)
		stop("no memory");
}

static void append(log_state *l, int64_t n)
{
	pal_error err;
	for (int64_t m; n; n -= m) {
		size_t left = l->n_text - l->at;
		m = n < PIECE ? n : PIECE;
		m = m < (int64_t)left ? m : (int64_t)left;
		if (pal_session_append(l->s, l->text + l->at, (size_t)m, NULL, NULL, NULL, &err))
			stop(err.text);
		l->at = (l->at + (size_t)m) % l->n_text;
	}
}

static void generate(log_state *l)
{
	pal_error err;
	const pal_generate_options o = {
		.sampling = pal_sampling_default(), .max_tokens = GENERATED, .ignore_end = true};
	pal_generate_result r = {0};
	if (pal_generate(l->s, &o, &r, &err))
		stop(err.text);
	if (r.n_tokens != GENERATED)
		stop("too little was generated");
}

/* The child's work. Exits with 0 if memory stayed flat and something was restored. */
static _Noreturn void run(size_t source, int64_t tokens, char **args)
{
	pal_model *m;
	pal_error err;
	log_state l = {0};
	const pal_model_options mo = {.n_threads = 2};
	const pal_session_options o = {.kv_policy = sources[source].policy,
				       .source = sources[source].source,
				       .spill_type = sources[source].type,
				       .side_car = args[1]};
	if (pal_model_open(args[0], &mo, &m, &err) || pal_session_open(m, &o, &l.s, &err))
		stop(err.text);
	read_text(&l, m, args[2]);
	append(&l, EARLY);
	generate(&l);
	long early = peak_kib();
	append(&l, tokens - EARLY);
	generate(&l);
	long late = peak_kib();
	pal_session_stats stats;
	pal_session_get_stats(l.s, &stats);
	uint64_t restored = 0;
	for (size_t i = 0; i < PAL_N_SOURCES; i++)
		restored += stats.filled[i];
	printf("# %s: peak %ld KiB after %d tokens, %ld KiB after %lld (%+ld KiB); %llu chunks "
	       "restored\n",
	       sources[source].name, early, EARLY, late, (long long)pal_session_length(l.s),
	       late - early, (unsigned long long)restored);
	fflush(stdout);
	bool restores = sources[source].policy == PAL_KV_WINDOW || restored;
	_exit(early < 0 || late - early > MOST_KIB || !restores);
}

int main(int argc, char **argv)
{
	int64_t tokens = 65536;
	int at = 1, failures = 0;
	if (argc > 2 && !strcmp(argv[1], "--tokens")) {
		tokens = strtoll(argv[2], NULL, 10);
		at = 3;
	}
	if (argc < at + 2 || tokens <= EARLY) {
		fprintf(stderr, "usage: flat [--tokens N] MODEL SIDE-CAR [TEXT]\n");
		return 2;
	}
	printf("1..%zu\n", N_SOURCES);
	for (size_t i = 0; i < N_SOURCES; i++) {
		fflush(stdout);
		pid_t child = fork();
		if (!child)
			run(i, tokens, argv + at);
		int status = -1;
		bool good = child > 0 && waitpid(child, &status, 0) == child && !status;
		failures += !good;
		printf("%s %zu - %s, %lld tokens\n", good ? "ok" : "not ok", i + 1, sources[i].name,
		       (long long)tokens);
	}
	return failures > 0;
}
