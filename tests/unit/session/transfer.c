/* A session's file: there and back, and what is refused, by name. Any bytes in it:
 * tests/fuzz/session.c, whose corpus has a file for each field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "session/store.h"

#define HASH 0x0123456789abcdefu
#define VOCABULARY 1000

static int32_t ids[500], changed[] = {1, 2, 3, 4, 5};
static pal_event events[2] = {
	{.position = 100, .reread = 32, .n_chunks = 2, .chunks = {0, 9}, .sources = {0, 3}},
	{.position = 500},
};
static pal__change changes[2] = {
	{.at = 200, .position = 10, .n_events = 1, .n_old = 2, .n_new = 3, .ids = changed},
	{.at = 500, .position = 500, .n_events = 2, .ids = changed},
};

static pal__stored make(void)
{
	pal__record r = {.id = "sess-x",
			 .label = "label",
			 .owner = 5,
			 .eos = {7, 999},
			 .n_eos = 2,
			 .stateless = true,
			 .created = 1.5,
			 .used = 2.5,
			 .turns = 3,
			 .length = 500,
			 .n_events = 2,
			 .generating = true,
			 .remaining = 12,
			 .sampling = {0.5f, 40, 0.9f, 0.05f, 1.1f, 64, 77}};
	for (int i = 0; i < 500; i++)
		ids[i] = i * 37 % VOCABULARY;
	return (pal__stored){r, ids, events, changes, 2};
}

static void there_and_back(void **state)
{
	(void)state;
	pal__stored s = make(), back = {0};
	void *bytes = NULL;
	size_t n = 0;
	int64_t live = pal__mem_live();
	assert_int_equal(pal__transfer_write(&s, HASH, &bytes, &n, NULL), PAL_OK);
	assert_int_equal(n, 32 + 288 + 4 * 500 + (16 + 10) + 16 + (32 + 20) + 32 + 8);
	assert_int_equal(pal__transfer_read(bytes, n, HASH, VOCABULARY, &back, NULL), PAL_OK);
	/* Whose it is, and under which name, is not in it. */
	s.record.owner = 0;
	memset(s.record.id, 0, sizeof s.record.id);
	assert_string_equal(back.record.id, "");
	assert_string_equal(back.record.label, "label");
	assert_int_equal(back.record.owner, 0);
	assert_memory_equal(back.record.eos, s.record.eos, sizeof s.record.eos);
	assert_true(back.record.n_eos == 2 && back.record.stateless && back.record.generating);
	assert_true(back.record.created == 1.5 && back.record.used == 2.5);
	assert_true(back.record.turns == 3 && back.record.remaining == 12);
	assert_memory_equal(&back.record.sampling, &s.record.sampling, sizeof s.record.sampling);
	assert_int_equal(back.record.length, 500);
	assert_memory_equal(back.ids, ids, sizeof ids);
	assert_int_equal(back.record.n_events, 2);
	assert_memory_equal(back.events, events, sizeof events);
	assert_int_equal(back.n_changes, 2);
	for (int i = 0; i < 2; i++) {
		const pal__change *a = &changes[i], *b = &back.changes[i];
		assert_true(a->at == b->at && a->position == b->position);
		assert_true(a->n_events == b->n_events && a->n_old == b->n_old &&
			    a->n_new == b->n_new);
		if (a->n_old + a->n_new)
			assert_memory_equal(a->ids, b->ids, 4 * (size_t)(a->n_old + a->n_new));
	}
	pal__stored_free(&back);
	pal__free(bytes);
	assert_int_equal(pal__mem_live(), live);
}

static void refused(const void *bytes, size_t n, uint64_t hash, int32_t n_vocab, pal_status want,
		    const char *text)
{
	pal_error err = {0};
	pal__stored out = {0};
	int64_t live = pal__mem_live();
	pal_status status = pal__transfer_read(bytes, n, hash, n_vocab, &out, &err);
	if (status != want || err.code != want || !strstr(err.text, text))
		fail_msg("%d instead of %d: %s (expected: %s)", status, want, err.text, text);
	assert_null(out.ids);
	assert_int_equal(pal__mem_live(), live);
}

static void what_is_refused(void **state)
{
	(void)state;
	pal__stored s = make();
	void *file = NULL;
	size_t n = 0;
	assert_int_equal(pal__transfer_write(&s, HASH, &file, &n, NULL), PAL_OK);
	uint8_t *bytes = file;
	refused(bytes, n, HASH + 1, VOCABULARY, PAL_EINVAL,
		"of 0123456789abcdef, but this one is 0123456789abcdf0");
	refused(bytes, n, HASH, 999, PAL_EFORMAT, "end id 999 is not of the vocabulary");
	refused(bytes, n - 1, HASH, VOCABULARY, PAL_EFORMAT, "bytes instead of");
	refused(bytes, 8, HASH, VOCABULARY, PAL_EFORMAT, "no session");
	refused(bytes, 0, HASH, VOCABULARY, PAL_EFORMAT, "no session");
	bytes[8] = 2;
	refused(bytes, n, HASH, VOCABULARY, PAL_EUNSUPPORTED, "version 2 (supported: 1)");
	bytes[8] = 1;
	/* No byte can be another one. */
	for (size_t i = 0; i < n; i++) {
		pal__stored out = {0};
		bytes[i] ^= 0x40;
		assert_int_not_equal(pal__transfer_read(bytes, n, HASH, VOCABULARY, &out, NULL),
				     PAL_OK);
		assert_null(out.ids);
		bytes[i] ^= 0x40;
	}
	pal__free(file);
	/* An event, or a change, of a log that there was not at its time. */
	for (int i = 0; i < 3; i++) {
		int64_t *field = i == 0   ? &events[0].position
				 : i == 1 ? &changes[0].at
					  : &changes[1].at,
			good = *field;
		*field = i == 0 ? 201 : 501;
		assert_int_equal(pal__transfer_write(&s, HASH, &file, &n, NULL), PAL_OK);
		refused(file, n, HASH, VOCABULARY, PAL_EFORMAT, "not of its log");
		pal__free(file);
		*field = good;
	}
	changes[0].n_events = 3;
	assert_int_equal(pal__transfer_write(&s, HASH, &file, &n, NULL), PAL_OK);
	refused(file, n, HASH, VOCABULARY, PAL_EFORMAT, "not of its log");
	pal__free(file);
	changes[0].n_events = 1;
	/* What none is is not written. */
	pal_error err = {0};
	pal__record record = s.record;
	file = NULL;
	s.record.n_eos = PAL__MAX_EOS + 1;
	assert_int_equal(pal__transfer_write(&s, HASH, &file, &n, &err), PAL_EINVAL);
	s.record = record;
	events[1].n_chunks = -1;
	assert_int_equal(pal__transfer_write(&s, HASH, &file, &n, &err), PAL_EINVAL);
	events[1].n_chunks = 0;
	changes[1].at = 499;
	assert_int_equal(pal__transfer_write(&s, HASH, &file, &n, &err), PAL_EINVAL);
	changes[1].at = 500;
	assert_string_equal(err.text, "session sess-x cannot be written: it is none");
	assert_null(file);
}

static void without_memory(void **state)
{
	(void)state;
	pal__stored s = make();
	void *bytes = NULL;
	size_t n = 0;
	pal__mem_fail_after(0);
	assert_int_equal(pal__transfer_write(&s, HASH, &bytes, &n, NULL), PAL_ENOMEM);
	pal__mem_fail_after(-1);
	assert_int_equal(pal__transfer_write(&s, HASH, &bytes, &n, NULL), PAL_OK);
	for (int64_t i = 0;; i++) {
		pal__stored back = {0};
		pal_error err = {0};
		int64_t live = pal__mem_live();
		pal__mem_fail_after(i);
		pal_status status = pal__transfer_read(bytes, n, HASH, VOCABULARY, &back, &err);
		pal__mem_fail_after(-1);
		if (!status) {
			assert_int_equal(i, 5);
			pal__stored_free(&back);
			break;
		}
		assert_int_equal(status, PAL_ENOMEM);
		assert_true(err.code == PAL_ENOMEM && !back.ids);
		assert_int_equal(pal__mem_live(), live);
	}
	pal__free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(what_is_refused),
		cmocka_unit_test(without_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
