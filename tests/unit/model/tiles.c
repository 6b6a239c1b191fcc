/* Tiles kept in a file: a model from them is the model without them, to the bit, and what is
 * wrong with the file is a note and a new file, never an error. Arguments: models. */
#include "model/tiles.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fcntl.h>

#include <cmocka.h>
#include <xxhash.h>

#include "base/mem.h"
#include "model/model.h"

#define FORMAT_AT 8
#define LAYOUT_AT 12
#define TRAILER_HASH_AT 88

static char **paths;
static int n_paths;
static char dir[64];

/* --- files ------------------------------------------------------------------ */

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/pal-tiles-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

/* Removes the folder, and returns how many files were in it. */
static int empty_dir(void)
{
	int n = 0;
	char path[512];
	DIR *d = opendir(dir);
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.') {
			snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
			unlink(path);
			n++;
		}
	closedir(d);
	return n;
}

static int remove_dir(void **state)
{
	(void)state;
	empty_dir();
	return rmdir(dir);
}

static char *tiles_path(const char *model)
{
	char *path = NULL;
	assert_int_equal(pal__tiles_path(dir, model, &path, NULL), PAL_OK);
	return path;
}

static uint8_t *read_whole(const char *path, size_t *n)
{
	struct stat st;
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	uint8_t *bytes = malloc((size_t)st.st_size + 1);
	assert_non_null(bytes);
	assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
	close(fd);
	*n = (size_t)st.st_size;
	return bytes;
}

static void write_whole(const char *path, const uint8_t *bytes, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	close(fd);
}

/* --- models ----------------------------------------------------------------- */

struct progress {
	uint64_t done, total;
};

static void on_progress(void *user, uint64_t done, uint64_t total)
{
	struct progress *p = user;
	assert_true(done >= p->done && total >= p->total && done <= total);
	*p = (struct progress){done, total};
}

static pal_model *load(const char *path, const char *cache_dir)
{
	pal_model *m;
	pal_error err;
	struct progress p = {0};
	const pal_model_options o = {
		.n_threads = 3, .cache_dir = cache_dir, .progress = on_progress, .user = &p};
	if (pal_model_open(path, &o, &m, &err))
		fail_msg("%s", err.text);
	assert_true(p.done > 0 && p.done == p.total);
	return m;
}

static const int32_t tokens[] = {1, 70, 3, 200, 42};
#define N_TOKENS (sizeof tokens / sizeof *tokens)

static void logits_of(pal_model *m, float *logits)
{
	pal_session *s;
	const pal_session_options o = {.n_ctx = 16};
	assert_int_equal(pal_session_open(m, &o, &s, NULL), PAL_OK);
	assert_int_equal(pal_session_append(s, tokens, N_TOKENS, logits, NULL, NULL, NULL), PAL_OK);
	pal_session_close(s);
}

static void same(pal_model *a, pal_model *b)
{
	size_t n = N_TOKENS * a->h.n_vocab;
	float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
	assert_true(x && y && a->hash && a->hash == b->hash);
	assert_int_equal(a->tiles_bytes, b->tiles_bytes);
	assert_memory_equal(a->embd.data, b->embd.data, a->tiles_bytes); /* it comes first */
	logits_of(a, x);
	logits_of(b, y);
	assert_memory_equal(x, y, n * sizeof *x);
	free(x);
	free(y);
}

/* Opens path with the cache: found there or not, with a note that has `note` in it, or none. */
static void open_noting(const char *path, const char *cache_dir, bool found, const char *note)
{
	pal_model *plain = load(path, NULL), *m = load(path, cache_dir);
	pal_model_info info;
	pal_model_get_info(m, &info);
	assert_int_equal(info.from_cache, found);
	if (!note ? info.cache_note != NULL : !info.cache_note || !strstr(info.cache_note, note))
		fail_msg("\"%s\" instead of \"%s\"", info.cache_note, note);
	same(plain, m);
	pal_model_close(m);
	pal_model_close(plain);
}

/* --- tests ------------------------------------------------------------------ */

static void found_again(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		open_noting(paths[i], NULL, false, NULL);
		assert_int_equal(empty_dir(), 0);
		open_noting(paths[i], dir, false, NULL);
		open_noting(paths[i], dir, true, NULL);
		assert_int_equal(empty_dir(), 1); /* nothing temporary is left */
	}
}

static void without_weights(void **state)
{
	(void)state;
	pal_model *m;
	const pal_model_options o = {.no_weights = true, .cache_dir = dir};
	assert_int_equal(pal_model_open(paths[0], &o, &m, NULL), PAL_OK);
	pal_model_close(m);
	assert_int_equal(empty_dir(), 0);
}

/* Bytes anywhere are noticed, and what is written again is what it was. */
static void damaged(void **state)
{
	(void)state;
	size_t n, m;
	uint64_t random = 1;
	open_noting(paths[0], dir, false, NULL);
	char *path = tiles_path(paths[0]);
	uint8_t *good = read_whole(path, &n);
	for (int round = 0; round < 60; round++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		/* The header's fields and records in turn, then anywhere. */
		size_t at = round < 30 ? (size_t)round * 4 : (size_t)(random >> 16) % n;
		uint8_t was = good[at];
		good[at] ^= (uint8_t)(1 << (random >> 61));
		write_whole(path, good, n);
		good[at] = was;
		open_noting(paths[0], dir, false, ": it was written again");
		uint8_t *again = read_whole(path, &m);
		assert_int_equal(m, n);
		assert_memory_equal(again, good, n);
		free(again);
	}
	open_noting(paths[0], dir, true, NULL);
	free(good);
	pal__free(path);
	empty_dir();
}

static void other_sizes(void **state)
{
	(void)state;
	size_t n;
	open_noting(paths[0], dir, false, NULL);
	char *path = tiles_path(paths[0]);
	uint8_t *good = read_whole(path, &n);
	const size_t sizes[] = {0, 1, 95, 96, 4096, 65535, 65536, n / 2, n - 65536, n - 1, n + 1};
	good[n] = 0;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		write_whole(path, good, sizes[i]);
		open_noting(paths[0], dir, false,
			    sizes[i] < 96      ? "is not a file of tiles"
			    : sizes[i] < 65536 ? "is damaged in its header"
					       : " bytes instead of ");
		open_noting(paths[0], dir, true, NULL);
	}
	free(good);
	pal__free(path);
	empty_dir();
}

/* Writes value at byte `at` of the file, and the header's checksum anew. */
static void patch(const char *path, size_t at, uint32_t value)
{
	size_t n;
	uint8_t *bytes = read_whole(path, &n);
	memcpy(bytes + at, &value, sizeof value);
	uint64_t sum = XXH3_64bits(bytes, PAL__FILE_TAIL - sizeof sum);
	memcpy(bytes + PAL__FILE_TAIL - sizeof sum, &sum, sizeof sum);
	write_whole(path, bytes, n);
	free(bytes);
}

static void other_versions(void **state)
{
	(void)state;
	static const struct {
		size_t at;
		const char *note;
	} cases[] = {
		{FORMAT_AT, "has format version 77, this program 1"},
		{LAYOUT_AT, "has layout version 77, this program"},
		{24, "is of an earlier state of the model file"},
		{32, "is of an earlier state of the model file"},
		{40, "is of an earlier state of the model file"},
		{48, "is of an earlier state of the model file"},
		{64, "is of other matrices"},
		{TRAILER_HASH_AT, "is damaged in its list of checksums"},
		{96, "is of other matrices"},
		{96 + 8, "is of other matrices"},
		{96 + 32, "is of other matrices"},
	};
	open_noting(paths[0], dir, false, NULL);
	char *path = tiles_path(paths[0]);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		patch(path, cases[i].at, 77);
		open_noting(paths[0], dir, false, cases[i].note);
		open_noting(paths[0], dir, true, NULL);
	}
	pal__free(path);
	empty_dir();
}

static void other_models(void **state)
{
	(void)state;
	char model[96];
	size_t n;
	uint8_t *bytes = read_whole(paths[0], &n);
	snprintf(model, sizeof model, "%s/model.gguf", dir);
	write_whole(model, bytes, n);
	open_noting(model, dir, false, NULL);
	open_noting(model, dir, true, NULL);
	/* The same bytes, but written later: who could tell that they are the same? */
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000}};
	assert_int_equal(utimensat(AT_FDCWD, model, times, 0), 0);
	open_noting(model, dir, false, "is of an earlier state of the model file");
	/* Other weights with all but the inode's own time as before. */
	bytes[n - 50] ^= 1;
	write_whole(model, bytes, n);
	assert_int_equal(utimensat(AT_FDCWD, model, times, 0), 0);
	open_noting(model, dir, false, "is of an earlier state of the model file");
	open_noting(model, dir, true, NULL);
	/* Another model under its name. */
	free(bytes);
	bytes = read_whole(paths[1], &n);
	write_whole(model, bytes, n);
	open_noting(model, dir, false, "is of an earlier state of the model file");
	open_noting(model, dir, true, NULL);
	free(bytes);
	empty_dir();
}

static void not_writable(void **state)
{
	(void)state;
	char nowhere[96];
	struct rlimit before, small;
	open_noting(paths[0], "/dev/null", false, "cannot be written: Not a directory");
	snprintf(nowhere, sizeof nowhere, "%s/a/b", dir);
	open_noting(paths[0], nowhere, false, "the next start will repack, too");
	/* A disk that is full, as far as this process can tell. */
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = 70000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	open_noting(paths[0], dir, false, "cannot be written: File too large");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(empty_dir(), 0);
	/* A folder that is missing is made. */
	snprintf(nowhere, sizeof nowhere, "%s/a", dir);
	open_noting(paths[0], nowhere, false, NULL);
	open_noting(paths[0], nowhere, true, NULL);
	strcat(dir, "/a");
	remove_dir(NULL);
	*strrchr(dir, '/') = 0;
}

static void out_of_memory(void **state)
{
	(void)state;
	for (int hit = 0; hit < 2; hit++) {
		pal_status s = PAL_ENOMEM;
		for (int n = 0; s; n++) {
			pal_error err = {.text = ""};
			pal_model *m = NULL;
			int64_t live = pal__mem_live();
			const pal_model_options o = {.n_threads = 2, .cache_dir = dir};
			pal__mem_fail_after(n);
			s = pal_model_open(paths[0], &o, &m, &err);
			bool failed = pal__mem_failed();
			pal__mem_fail_after(-1);
			if (s != (failed ? PAL_ENOMEM : PAL_OK))
				fail_msg("allocation %d: %s (%s)", n, pal_status_name(s), err.text);
			assert_true(!s || strstr(err.text, "out of memory"));
			assert_true(s || (m->cached.data != NULL) == hit);
			pal_model_close(m);
			assert_int_equal(pal__mem_live(), live);
			/* Nothing half is left, and nothing temporary. */
			assert_true(hit || !s || empty_dir() == 0);
		}
	}
	/* The note about a useless file, too. */
	char *path = tiles_path(paths[0]);
	pal_status s = PAL_ENOMEM;
	for (int n = 0; s; n++) {
		pal_model *m = NULL;
		int64_t live = pal__mem_live();
		const pal_model_options o = {.n_threads = 2, .cache_dir = dir};
		write_whole(path, (const uint8_t *)"nonsense", 8);
		pal__mem_fail_after(n);
		s = pal_model_open(paths[0], &o, &m, NULL);
		bool failed = pal__mem_failed();
		pal__mem_fail_after(-1);
		assert_int_equal(s, failed ? PAL_ENOMEM : PAL_OK);
		pal_model_close(m);
		assert_int_equal(pal__mem_live(), live);
	}
	pal__free(path);
	empty_dir();
}

static void several_writers(void **state)
{
	(void)state;
	enum { WRITERS = 4 };
	for (int round = 0; round < 8; round++) {
		pid_t children[WRITERS];
		for (int i = 0; i < WRITERS; i++) {
			children[i] = fork();
			assert_true(children[i] >= 0);
			if (children[i] == 0) {
				pal_model *m;
				const pal_model_options o = {.n_threads = 1, .cache_dir = dir};
				pal_status s = pal_model_open(paths[0], &o, &m, NULL);
				bool good = !s && (!m->cache_note ||
						   strstr(m->cache_note, "is writing it"));
				_exit(good ? 0 : 1);
			}
		}
		for (int i = 0; i < WRITERS; i++) {
			int status;
			assert_int_equal(waitpid(children[i], &status, 0), children[i]);
			assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		}
		open_noting(paths[0], dir, true, NULL);
		assert_int_equal(empty_dir(), 1);
	}
}

static void temporary_files(void **state)
{
	(void)state;
	char *path = tiles_path(paths[0]), part[256];
	snprintf(part, sizeof part, "%s.part", path);
	/* Of a process that is at it. */
	int fd = open(part, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
	assert_int_equal(write(fd, "busy", 4), 4);
	open_noting(paths[0], dir, false, "cannot be written: another process is writing it");
	size_t n;
	uint8_t *bytes = read_whole(part, &n);
	assert_int_equal(n, 4);
	assert_memory_equal(bytes, "busy", 4);
	free(bytes);
	close(fd);
	/* Of one that is gone. */
	open_noting(paths[0], dir, false, NULL);
	open_noting(paths[0], dir, true, NULL);
	assert_int_equal(empty_dir(), 1);
	/* A link in its place is not followed. */
	char victim[96];
	snprintf(victim, sizeof victim, "%s/victim", dir);
	write_whole(victim, (const uint8_t *)"text", 4);
	assert_int_equal(symlink(victim, part), 0);
	open_noting(paths[0], dir, false, "cannot be written: ");
	bytes = read_whole(victim, &n);
	assert_true(n == 4 && !memcmp(bytes, "text", 4));
	free(bytes);
	pal__free(path);
	empty_dir();
}

/* A file that is cut short under a running model ends what is being done with an error. */
static void cut_while_in_use(void **state)
{
	(void)state;
	pal_session *s;
	pal_error err = {0};
	float *before;
	open_noting(paths[0], dir, false, NULL);
	char *path = tiles_path(paths[0]);
	pal_model *m = load(paths[0], dir);
	assert_non_null(m->cached.data);
	const pal_session_options o = {.n_ctx = 16};
	assert_int_equal(pal_session_open(m, &o, &s, NULL), PAL_OK);
	assert_int_equal(pal_session_append(s, tokens, 2, NULL, NULL, NULL, NULL), PAL_OK);
	before = malloc(m->h.n_vocab * sizeof *before);
	assert_non_null(before);
	memcpy(before, pal_session_logits(s), m->h.n_vocab * sizeof *before);
	assert_int_equal(truncate(path, 65536), 0);
	assert_int_equal(pal_session_append(s, tokens, 2, NULL, NULL, NULL, &err), PAL_EIO);
	assert_non_null(strstr(err.text, "became shorter"));
	assert_int_equal(pal_session_length(s), 2);
	assert_memory_equal(pal_session_logits(s), before, m->h.n_vocab * sizeof *before);
	pal_session_close(s);
	pal_model_close(m);
	open_noting(paths[0], dir, false, "it was written again");
	free(before);
	pal__free(path);
	empty_dir();
}

/* More than one piece, and a first and a last one that are not whole. */
static void step(void *user, uint64_t bytes, int worker)
{
	(void)worker;
	__atomic_fetch_add((uint64_t *)user, bytes, __ATOMIC_RELAXED);
}

static void many_pieces(void **state)
{
	(void)state;
	enum { BYTES = 9 << 20 };
	pal__pool *pool;
	pal__tiles t;
	pal_error err;
	char path[96];
	uint64_t steps = 0;
	uint8_t *tiles = malloc(BYTES);
	assert_non_null(tiles);
	for (size_t i = 0; i < BYTES; i++)
		tiles[i] = (uint8_t)(i * 2654435761u >> 24);
	const pal__tiles_record record = {.name = 5, .type = 8, .rows = 16, .cols = 32};
	const pal__tiles_key key = {.records = &record, .n_records = 1, .bytes = BYTES};
	snprintf(path, sizeof path, "%s/t", dir);
	assert_int_equal(pal__pool_new(3, NULL, &pool, NULL), PAL_OK);
	assert_int_equal(pal__tiles_write(path, &key, 99, tiles, pool, step, &steps, &err), PAL_OK);
	assert_int_equal(steps, BYTES);
	assert_int_equal(pal__tiles_open(path, &key, pool, step, &steps, &t, &err), PAL_OK);
	assert_int_equal(steps, 2 * BYTES);
	assert_int_equal(t.model_hash, 99);
	assert_memory_equal(t.data, tiles, BYTES);
	pal__file_unmap(&t.file);
	int fd = open(path, O_RDWR);
	const size_t at[] = {65536, (4 << 20) - 1, 4 << 20, 9 << 20};
	for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
		assert_int_equal(pwrite(fd, "?", 1, (off_t)at[i]), 1);
		assert_int_equal(pal__tiles_open(path, &key, pool, step, &steps, &t, &err),
				 PAL_EFORMAT);
		if (!strstr(err.text, i < 2   ? "damaged in 1 of its 3 pieces"
				      : i < 3 ? "damaged in 2 of its 3 pieces"
					      : "damaged in 3 of its 3 pieces"))
			fail_msg("%s", err.text);
	}
	close(fd);
	pal__pool_free(pool);
	free(tiles);
	empty_dir();
}

/* Files of tiles outlive the program that wrote them: when this fails because the tiles have
 * another layout now, raise PAL__TILES_LAYOUT, and put both numbers here. */
static void layout_has_a_version(void **state)
{
	(void)state;
	static uint8_t rows[20 * 2 * 256 * 4];
	XXH3_state_t *all = XXH3_createState();
	assert_non_null(all);
	XXH3_64bits_reset(all);
	for (size_t i = 0; i < sizeof rows; i++)
		rows[i] = (uint8_t)(i * 2654435761u >> 24);
	for (uint32_t type = 0; type < 64; type++) {
		pal__matrix m;
		if (!pal__type_find(type))
			continue;
		assert_true(pal__matrix_shape(&m, (pal__type)type, 20, 512));
		size_t n = pal__matrix_bytes(&m);
		m.data = pal__alloc_aligned(n);
		assert_non_null(m.data);
		for (size_t tile = 0; tile < m.n_tiles; tile++)
			pal__matrix_pack_tile(&m, tile, rows, NULL);
		XXH3_64bits_update(all, m.data, n);
		pal__free_aligned(m.data, n);
	}
	assert_int_equal(PAL__TILES_LAYOUT, 2);
	assert_int_equal(XXH3_64bits_digest(all), 0xdefc5ca1c4eb4d70);
	XXH3_freeState(all);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(found_again),      cmocka_unit_test(without_weights),
		cmocka_unit_test(damaged),          cmocka_unit_test(other_sizes),
		cmocka_unit_test(other_versions),   cmocka_unit_test(other_models),
		cmocka_unit_test(not_writable),     cmocka_unit_test(out_of_memory),
		cmocka_unit_test(several_writers),  cmocka_unit_test(temporary_files),
		cmocka_unit_test(cut_while_in_use), cmocka_unit_test(layout_has_a_version),
		cmocka_unit_test(many_pieces),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths > 1 ? cmocka_run_group_tests(tests, make_dir, remove_dir) : 2;
}
