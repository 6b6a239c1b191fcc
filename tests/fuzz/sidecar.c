/* Any bytes as a side-car, with a proposer and without: what the headers promise of one that opens.
 * The hashes of the models and the checksum are made to fit, where there is a place for them, as by
 * somebody who means harm; with an odd number of bytes, only the hash is.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/mem.h"
#include "check.h"
#include "restore/sidecar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_BYTES (1 << 20)

static uint8_t bytes[MAX_BYTES];
static volatile float sink;

static char name[] = "model.gguf";

/* A model that is no more than its shape. */
static pal_model model = {
	.h = {.n_layers = 3, .n_embd = 8, .n_heads = 4, .n_kv_heads = 2, .head_dim = 4},
	.path = name,
	.hash = 0x1234,
};
static pal_model proposer = {.h = {.n_layers = 2, .n_embd = 12}, .path = name, .hash = 0x5678};

static void fill(int fd, size_t size)
{
	CHECK(ftruncate(fd, 0) == 0);
	CHECK(pwrite(fd, bytes, size, 0) == (ssize_t)size);
}

/* Sets the u64 of a key in the bytes; false: there is none. */
static bool set(const char *path, const char *key, uint64_t value)
{
	pal__gguf g;
	if (pal__gguf_open(path, &g, NULL))
		return false;
	const pal__gguf_kv *kv = pal__gguf_find(&g, key);
	bool found = kv && kv->type == PAL__GGUF_U64;
	if (found)
		memcpy(bytes + (kv->data - g.file.data), &value, sizeof value);
	pal__gguf_close(&g);
	return found;
}

static void seal(int fd, const char *path, size_t size)
{
	set(path, "palimpsest.model_hash", model.hash);
	set(path, "palimpsest.proposer.hash", proposer.hash);
	if (size % 2 == 0 && set(path, "palimpsest.sum", 0))
		set(path, "palimpsest.sum", XXH3_64bits(bytes, size));
	fill(fd, size);
}

static void check_heads(const pal__heads *h)
{
	CHECK(h->n >= 1 && h->n <= PAL__MAX_HEADS_SET);
	for (size_t i = 0; i < h->n; i++) {
		CHECK(h->heads[i].layer < model.h.n_layers && h->heads[i].head < model.h.n_heads);
		for (size_t k = 0; k < i; k++)
			CHECK(memcmp(&h->heads[i], &h->heads[k], sizeof h->heads[i]));
	}
}

static void check_sidecar(const pal__sidecar *s)
{
	static float row[PAL__MAX_EMBD], x[2 * PAL__MAX_EMBD];
	float out[2 * 16];
	CHECK(s->n_layers == 3 && s->n_kv == 8 && s->m >= 1 && s->from <= s->n_layers);
	CHECK(s->separate ? s->from == 0 : s->from == s->m && s->n_embd == model.h.n_embd);
	CHECK(!s->proposer || (s->separate && s->proposer == &proposer &&
			       s->m <= proposer.h.n_layers && s->n_embd == proposer.h.n_embd));
	check_heads(&s->first);
	check_heads(&s->later);
	for (size_t l = 0; l < s->n_layers - s->from; l++) {
		for (size_t r = 0; r < 2 * s->n_kv; r++) {
			pal__matrix_row(&s->weights[l], r, row);
			for (size_t k = 0; k < s->n_embd; k++)
				CHECK(isfinite(row[k]));
			CHECK(isfinite(s->bias[l * 2 * s->n_kv + r]));
		}
		for (size_t k = 0; k < 2 * s->n_embd; k++)
			x[k] = (float)(k % 16) - 8;
		pal__project_norm(s, &model, x, 2);
		pal__project(s, &model, s->from + l, x, 2, out);
		sink += out[0];
	}
}

static void open_with(const char *path, pal_model *with)
{
	int64_t live = pal__mem_live();
	pal_error err = {0};
	pal__sidecar s;
	if (pal__sidecar_open(path, &model, with, &s, &err) == PAL_OK) {
		CHECK(s.proposer == with);
		check_sidecar(&s);
		pal__sidecar_close(&s);
	} else {
		CHECK(err.text[0]);
	}
	CHECK(pal__mem_live() == live);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	if (fd < 0) {
		fd = memfd_create("sidecar", MFD_CLOEXEC);
		CHECK(fd >= 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		CHECK(pal__pool_new(1, NULL, &model.pool, NULL) == PAL_OK);
		model.kernels = &pal__kernels_scalar;
	}
	size = size < MAX_BYTES ? size : MAX_BYTES;
	if (size)
		memcpy(bytes, data, size);
	fill(fd, size);
	seal(fd, path, size);
	open_with(path, NULL);
	open_with(path, &proposer);
	return 0;
}
