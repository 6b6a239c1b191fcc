/* A session's file with any bytes in it: refused with one sentence, or read, written and read
 * again.
 *
 * The first byte chooses: 0, the rest is the file; else it is, after its size, the model and the
 * sum were made to fit, as by somebody who means harm.
 */
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "check.h"
#include "session/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_BYTES 65536
#define VOCABULARY 100
#define HASH 7

static uint8_t bytes[MAX_BYTES];

static void seal(size_t n)
{
	uint64_t fields[] = {n, HASH};
	if (n < 40)
		return;
	memcpy(bytes + 16, fields, sizeof fields);
	uint64_t sum = XXH3_64bits(bytes, n - sizeof sum);
	memcpy(bytes + n - sizeof sum, &sum, sizeof sum);
}

static void is_sane(const pal__stored *s)
{
	const pal__record *r = &s->record;
	CHECK(!r->id[0] && !r->owner && strlen(r->label) <= PAL__MAX_LABEL);
	CHECK(r->length >= 0 && r->turns >= 0 && r->remaining >= 0);
	CHECK(r->n_eos <= PAL__MAX_EOS);
	for (int i = 0; i < r->n_eos; i++)
		CHECK(r->eos[i] >= 0 && r->eos[i] < VOCABULARY);
	for (int64_t i = 0; i < r->length; i++)
		CHECK(s->ids[i] >= 0 && s->ids[i] < VOCABULARY);
	for (uint64_t i = 0; i < r->n_events; i++) {
		const pal_event *e = &s->events[i];
		CHECK(e->position >= 0 && e->reread >= 0 && e->n_chunks >= 0);
		CHECK(e->n_chunks <= PAL_MAX_SLOTS);
		for (int k = 0; k < e->n_chunks; k++)
			CHECK(e->chunks[k] >= 0 && e->sources[k] < PAL_N_SOURCES &&
			      (!k || e->chunks[k] > e->chunks[k - 1]));
	}
	for (size_t i = 0; i < s->n_changes; i++) {
		const pal__change *c = &s->changes[i];
		CHECK(c->position >= 0 && c->n_old >= 0 && c->n_new >= 0);
		CHECK(c->position + c->n_old <= c->at);
		for (int64_t k = 0; k < (int64_t)c->n_old + c->n_new; k++)
			CHECK(c->ids[k] >= 0 && c->ids[k] < VOCABULARY);
	}
}

static void again(const pal__stored *s, size_t n)
{
	pal__stored back = {0};
	void *to = NULL;
	size_t n_to = 0;
	CHECK(pal__transfer_write(s, HASH, &to, &n_to, NULL) == PAL_OK && n_to == n);
	CHECK(pal__transfer_read(to, n_to, HASH, VOCABULARY, &back, NULL) == PAL_OK);
	CHECK(!memcmp(&s->record, &back.record, sizeof back.record));
	CHECK(!memcmp(s->ids, back.ids, 4 * (size_t)s->record.length));
	CHECK(!memcmp(s->events, back.events, s->record.n_events * sizeof *s->events));
	CHECK(s->n_changes == back.n_changes);
	pal__stored_free(&back);
	pal__free(to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	pal__stored s = {0};
	pal_error err = {0};
	int64_t live = pal__mem_live();
	if (!size || size > MAX_BYTES)
		return 0;
	memcpy(bytes, data + 1, size - 1);
	if (data[0])
		seal(size - 1);
	pal_status status = pal__transfer_read(bytes, size - 1, HASH, VOCABULARY, &s, &err);
	if (status) {
		CHECK(status == PAL_EFORMAT || status == PAL_EINVAL || status == PAL_EUNSUPPORTED);
		CHECK(err.code == status && err.text[0] && !strchr(err.text, '\n'));
	} else {
		is_sane(&s);
		again(&s, size - 1);
	}
	pal__stored_free(&s);
	CHECK(pal__mem_live() == live);
	return 0;
}
