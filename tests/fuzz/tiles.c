/* A file of tiles with any bytes in it: it is used only if it is, but for what it says of the
 * model's hash, the file that would be written now.
 *
 * The first byte chooses: 0, the rest is the file; else the rest is changes of 5 bytes each to a
 * good file, a place and a value there (a place behind its end: a new length instead). 2: the
 * checksums are then made to fit, as by somebody who means harm.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/mem.h"
#include "check.h"
#include "model/tiles.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEAD PAL__FILE_TAIL
#define BYTES 40000
#define HASHES (2 * PAL__FILE_TAIL)
#define WHOLE (3 * PAL__FILE_TAIL)
#define MODEL_HASH_AT 56
#define TRAILER_HASH_AT 88
#define RECORDS_AT 96

static const pal__tiles_record records[] = {
	{.name = 17, .type = 8, .rows = 16, .cols = 1024},
	{.name = 18, .type = 2, .rows = 40, .cols = 64, .offset = 17408},
};
static const pal__tiles_key key = {.model_bytes = 12345,
				   .model_head = 99,
				   .mtime = 5,
				   .ctime = 6,
				   .records = records,
				   .n_records = 2,
				   .bytes = BYTES};
static pal__pool *pool;
static uint8_t good[WHOLE], bytes[2 * WHOLE];
static volatile uint64_t sink;

static void step(void *user, uint64_t n, int worker)
{
	(void)user;
	(void)n;
	(void)worker;
}

static void write_good(void)
{
	static uint8_t tiles[BYTES];
	char dir[] = "/tmp/pal-fuzz-XXXXXX", path[64];
	pal_error err;
	for (size_t i = 0; i < BYTES; i++)
		tiles[i] = (uint8_t)(i * 2654435761u >> 24);
	CHECK(mkdtemp(dir) && pal__pool_new(1, NULL, &pool, &err) == PAL_OK);
	snprintf(path, sizeof path, "%s/tiles", dir);
	CHECK(pal__tiles_write(path, &key, 7, tiles, pool, step, NULL, &err) == PAL_OK);
	int fd = open(path, O_RDONLY);
	CHECK(fd >= 0 && read(fd, good, WHOLE) == WHOLE && read(fd, bytes, 1) == 0);
	close(fd);
	unlink(path);
	rmdir(dir);
}

static size_t change(const uint8_t *data, size_t size)
{
	size_t n = WHOLE;
	memcpy(bytes, good, WHOLE);
	memset(bytes + WHOLE, 0, sizeof bytes - WHOLE);
	for (; size >= 5; data += 5, size -= 5) {
		uint32_t at;
		memcpy(&at, data, sizeof at);
		if (at < sizeof bytes)
			bytes[at] = data[4];
		else
			n = at % sizeof bytes;
	}
	return n;
}

static void seal(size_t from, size_t n, size_t at)
{
	uint64_t sum = XXH3_64bits(bytes + from, n);
	memcpy(bytes + at, &sum, sizeof sum);
}

static void check(int fd, const char *path, size_t n, bool sealed)
{
	pal__tiles t = {0};
	pal_error err = {0};
	pal_status s = pal__tiles_open(path, &key, pool, step, NULL, &t, &err);
	if (s != PAL_OK) {
		CHECK(err.code == s && err.text[0] && !t.data);
		CHECK(n != WHOLE || memcmp(bytes, good, WHOLE) != 0);
		return;
	}
	CHECK(n == WHOLE);
	/* What the key says is as it was, and without new checksums everything is. */
	CHECK(!memcmp(bytes, good, sealed ? MODEL_HASH_AT : WHOLE));
	CHECK(!memcmp(bytes + MODEL_HASH_AT + 8, good + MODEL_HASH_AT + 8,
		      TRAILER_HASH_AT - MODEL_HASH_AT - 8));
	CHECK(!memcmp(bytes + RECORDS_AT, good + RECORDS_AT, HEAD - 8 - RECORDS_AT));
	for (size_t i = 0; i < BYTES; i++)
		CHECK(t.data[i] == bytes[HEAD + i]);
	CHECK(!pal__file_torn(&t.file));
	CHECK(ftruncate(fd, (off_t)(n / 2)) == 0);
	for (size_t i = 0; i < BYTES; i++)
		sink += t.data[i];
	CHECK(pal__file_torn(&t.file));
	pal__file_unmap(&t.file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	if (fd < 0) {
		write_good();
		fd = memfd_create("tiles", MFD_CLOEXEC);
		CHECK(fd >= 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	}
	if (!size)
		return 0;
	size_t n = size - 1 < sizeof bytes ? size - 1 : sizeof bytes;
	if (data[0])
		n = change(data + 1, size - 1);
	else
		memcpy(bytes, data + 1, n);
	bool sealed = data[0] == 2 && n == WHOLE;
	if (sealed) {
		seal(HEAD, BYTES, HASHES);
		seal(HEAD + BYTES, WHOLE - HEAD - BYTES, TRAILER_HASH_AT);
		seal(0, HEAD - 8, HEAD - 8);
	}
	int64_t live = pal__mem_live();
	CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, bytes, n, 0) == (ssize_t)n);
	check(fd, path, n, sealed);
	CHECK(pal__mem_live() == live);
	return 0;
}
