/* Any bytes as a GGUF file: open it, ask for everything it holds, once more after the
 * file has shrunk. What the headers promise is checked with CHECK, which aborts.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "check.h"
#include "model/gguf.h"
#include "model/inspect.h"
#include "model/vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink; /* so that reads are not optimised away */

static void ask_typed(const pal__gguf *g, const char *key)
{
	pal_error err = {0};
	int64_t i = -5;
	double f = 0;
	bool flag = false;
	pal__str s = {"", 0}, *strings = NULL;
	float *floats = NULL;
	int32_t *ints = NULL;
	size_t n = 0;
	if (pal__gguf_int(g, key, true, -10, 1000, &i, &err) == PAL_OK)
		CHECK(i >= -10 && i <= 1000);
	else
		CHECK(err.text[0] && i == -5);
	if (pal__gguf_float(g, key, true, -1e6, 1e6, &f, &err) == PAL_OK)
		CHECK(f >= -1e6 && f <= 1e6);
	pal__gguf_bool(g, key, true, &flag, &err);
	if (pal__gguf_string(g, key, true, &s, &err) == PAL_OK)
		for (size_t k = 0; k < s.n; k++)
			sink += (unsigned char)s.s[k];
	if (pal__gguf_strings(g, key, true, &strings, &n, &err) == PAL_OK)
		for (size_t k = 0; k < n; k++)
			sink += strings[k].n ? (unsigned char)strings[k].s[strings[k].n - 1] : 0;
	if (pal__gguf_floats(g, key, true, &floats, &n, &err) == PAL_OK)
		for (size_t k = 0; k < n; k++)
			CHECK(floats[k] == floats[k]);
	if (pal__gguf_ints(g, key, true, &ints, &n, &err) == PAL_OK)
		for (size_t k = 0; k < n; k++)
			sink += (uint32_t)ints[k];
	pal__free(strings);
	pal__free(floats);
	pal__free(ints);
}

static void ask_keys(const pal__gguf *g, bool whole)
{
	for (size_t i = 0; i < g->n_kv; i++) {
		const pal__gguf_kv *kv = &g->kv[i];
		char key[PAL__GGUF_MAX_NAME + 1];
		pal__gguf_value v;
		size_t at = 0;
		uint64_t n = 0;
		CHECK(kv->key.n >= 1 && kv->key.n <= PAL__GGUF_MAX_NAME);
		while (pal__gguf_next(kv, &at, &v))
			n++;
		if (whole)
			CHECK(n == kv->count && at == kv->n_bytes);
		memcpy(key, kv->key.s, kv->key.n);
		key[kv->key.n] = 0;
		if (whole && strlen(key) == kv->key.n)
			CHECK(pal__gguf_find(g, key) == kv);
		ask_typed(g, key);
	}
	ask_typed(g, "general.alignment");
}

static void ask_tensors(const pal__gguf *g)
{
	for (size_t i = 0; i < g->n_tensors; i++) {
		const pal__gguf_tensor *t = &g->tensors[i];
		CHECK(pal__gguf_tensor_find(g, t->name) == t);
		CHECK(t->n_bytes > 0 && t->offset >= g->data_offset);
		CHECK(t->offset <= g->file.size && t->n_bytes <= g->file.size - t->offset);
		CHECK((t->offset - g->data_offset) % g->alignment == 0);
		CHECK(t->data == g->file.data + t->offset);
		sink += t->data[0];
		sink += t->data[t->n_bytes - 1];
	}
}

static void ask_reports(const pal__gguf *g)
{
	static FILE *nowhere;
	pal__tokenizer *t = NULL;
	json_t *report = NULL;
	pal_error err = {0};
	if (!nowhere)
		nowhere = fopen("/dev/null", "w");
	CHECK(nowhere);
	pal_status s = pal__inspect_text(g, nowhere, &err);
	CHECK(s == PAL_OK || s == PAL_EIO);
	if (pal__inspect_json(g, &report, &err) == PAL_OK)
		json_decref(report);
	if (pal__vocab_from_gguf(g, &t, &err) == PAL_OK)
		pal__tokenizer_free(t);
	else
		CHECK(err.text[0]);
}

static void fill(int fd, const uint8_t *data, size_t size)
{
	CHECK(ftruncate(fd, 0) == 0);
	for (size_t at = 0; at < size;) {
		ssize_t n = pwrite(fd, data + at, size - at, (off_t)at);
		CHECK(n > 0);
		at += (size_t)n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	if (fd < 0) {
		fd = memfd_create("gguf", MFD_CLOEXEC);
		CHECK(fd >= 0);
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	}
	fill(fd, data, size);
	int64_t live = pal__mem_live();
	pal_error err = {0};
	pal__gguf g;
	pal_status s = pal__gguf_open(path, &g, &err);
	if (s == PAL_OK) {
		ask_keys(&g, true);
		ask_tensors(&g);
		ask_reports(&g);
		CHECK(pal__gguf_shrunk(&g, &err) == PAL_OK);
		CHECK(ftruncate(fd, size % 2 ? 0 : (off_t)(size / 2)) == 0);
		ask_keys(&g, false);
		ask_tensors(&g);
		ask_reports(&g);
		CHECK(pal__gguf_shrunk(&g, &err) == PAL_EIO);
		pal__gguf_close(&g);
	} else {
		CHECK(err.code == s && err.text[0]);
	}
	CHECK(pal__mem_live() == live);
	return 0;
}
