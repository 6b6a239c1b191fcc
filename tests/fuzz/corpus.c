/* A corpus with any bytes in it: refused with one sentence, or looked up in, also while it is cut
 * short.
 *
 * The first byte chooses: 0, the rest is the file; else the rest is changes of 5 bytes each to a
 * good file, a place and a value there (a place behind its end: a new length instead). 2: the sums
 * are then made to fit, as by somebody who means harm.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "base/mem.h"
#include "check.h"
#include "draft/indexing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VOCABULARY 8
#define TOKENS 200
#define DOCUMENTS 3
#define MAX_BYTES 8192
#define PLACES 16

static pal__tokenizer *vocabulary;
static int32_t text[TOKENS];
static uint8_t good[MAX_BYTES], bytes[2 * MAX_BYTES];
static size_t n_good;
static volatile int64_t sink;

static void make_vocabulary(void)
{
	static const char letters[] = "abcdefgh";
	pal__str tokens[VOCABULARY];
	for (int i = 0; i < VOCABULARY; i++)
		tokens[i] = (pal__str){letters + i, 1};
	const pal__vocab_spec spec = {.file = "x",
				      .model = {"gpt2", 4},
				      .n_tokens = VOCABULARY,
				      .tokens = tokens,
				      .bos = -1,
				      .eos = -1,
				      .eot = -1,
				      .unk = -1};
	CHECK(pal__tokenizer_new(&spec, &vocabulary, NULL) == PAL_OK);
}

static void write_good(void)
{
	char dir[] = "/tmp/pal-fuzz-XXXXXX", path[64];
	pal__corpus_text t = {0};
	make_vocabulary();
	for (int i = 0; i < TOKENS; i++)
		text[i] = i % 7 * i / 5 % VOCABULARY;
	for (int i = 0; i < DOCUMENTS; i++)
		CHECK(pal__corpus_add(&t, text, TOKENS, NULL) == PAL_OK &&
		      pal__corpus_end(&t, NULL) == PAL_OK);
	CHECK(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/corpus", dir);
	CHECK(pal__corpus_write(&t, vocabulary, path, NULL, NULL, NULL) == PAL_OK);
	FILE *f = fopen(path, "rb");
	CHECK(f && (n_good = fread(good, 1, MAX_BYTES, f)) < MAX_BYTES);
	/* The same for everyone: seeds name places in it. */
	CHECK(n_good == 128 + 8 * DOCUMENTS * (TOKENS + 1) + 16 * 10);
	fclose(f);
	unlink(path);
	CHECK(rmdir(dir) == 0);
	pal__corpus_text_free(&t);
}

static void seal(size_t n)
{
	pal__corpus_header h;
	if (n < sizeof h)
		return;
	memcpy(&h, bytes, sizeof h);
	h.sum = XXH3_64bits(bytes + sizeof h, n - sizeof h);
	h.vocab_hash = pal__tokenizer_hash(vocabulary);
	h.header_sum = XXH3_64bits(&h, offsetof(pal__corpus_header, header_sum));
	memcpy(bytes, &h, sizeof h);
}

static size_t change(const uint8_t *data, size_t size)
{
	size_t n = n_good;
	memcpy(bytes, good, n);
	memset(bytes + n, 0, sizeof bytes - n);
	for (; size >= 5; data += 5, size -= 5) {
		uint32_t at;
		memcpy(&at, data, sizeof at);
		if (at < n_good)
			bytes[at] = data[4];
		else
			n = at % sizeof bytes;
	}
	return n;
}

static void look_up(const pal__corpus *c)
{
	pal__corpus_place places[PLACES];
	for (size_t n = 1; n <= TOKENS; n += 1 + n / 8) {
		size_t got = pal__corpus_find(c, text, n, places, PLACES);
		CHECK(got <= PLACES);
		for (size_t i = 0; i < got; i++) {
			CHECK(places[i].match && places[i].match <= PAL__CORPUS_DEEP);
			for (uint32_t k = 0; k < 40; k++) {
				int32_t token = pal__corpus_token(c, places[i].next + k);
				CHECK(token >= -1 && token < VOCABULARY);
				sink += token;
			}
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	pal__corpus c = {0};
	pal_error err = {0};
	char path[64];
	if (!vocabulary)
		write_good();
	int64_t live = pal__mem_live();
	if (!size)
		return 0;
	size_t n = size - 1 < sizeof bytes ? size - 1 : sizeof bytes;
	if (data[0])
		n = change(data + 1, size - 1);
	else
		memcpy(bytes, data + 1, n);
	if (data[0] == 2)
		seal(n);
	int fd = memfd_create("corpus", MFD_CLOEXEC);
	CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	pal_status s = pal__corpus_open(path, vocabulary, &c, &err);
	if (s) {
		CHECK(s == PAL_EFORMAT || s == PAL_EINVAL || s == PAL_EIO);
		CHECK(err.code == s && err.text[0] && !strchr(err.text, '\n'));
		CHECK(s != PAL_EIO || !n);
	} else {
		look_up(&c);
		CHECK(pal__corpus_intact(&c));
		CHECK(ftruncate(fd, (off_t)(n / 2)) == 0);
		look_up(&c);
		CHECK(!pal__corpus_intact(&c));
	}
	pal__corpus_close(&c);
	close(fd);
	CHECK(pal__mem_live() == live);
	return 0;
}
