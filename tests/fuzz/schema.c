/* Any bytes as a schema, and tokens drawn by them through its masks.
 *
 * Up to the first NUL it is the schema, behind it each byte draws a token. What is refused is
 * refused with one sentence; else some token may always come, those that may are taken, and those
 * that may not are not.
 */
#include <stdint.h>
#include <string.h>

#include "../unit/text/small_vocab.h"
#include "base/mem.h"
#include "check.h"
#include "text/constraint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TOKENS 40

static pal__tokenizer *tokens;
static size_t n_tokens;

static bool allowed(const uint64_t *mask, size_t id)
{
	return mask[id / 64] >> (id % 64) & 1;
}

static void draw(pal_constraint *c, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size && i < TOKENS && !pal__constraint_done(c); i++) {
		const uint64_t *mask = pal__constraint_mask(c);
		size_t n = 0, not = n_tokens;
		for (size_t id = 0; id < n_tokens; id++) {
			n += allowed(mask, id);
			not = allowed(mask, id) ? not : id;
		}
		CHECK(n);
		CHECK(not == n_tokens || !pal__constraint_take(c, (int32_t) not ));
		size_t skip = data[i] % n, id = 0;
		while (!allowed(mask, id) || skip--)
			id++;
		CHECK(pal__constraint_take(c, (int32_t)id));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static small_vocab vocab;
	pal_constraint *c = NULL;
	pal_error err = {0};
	if (!tokens) {
		small_byte_level(&vocab, "gpt-2");
		CHECK(!pal__tokenizer_new(&vocab.spec, &tokens, NULL));
		CHECK(!pal__constraint_json(tokens, "", 0, &c, NULL)); /* its trie stays */
		pal_constraint_close(c);
		n_tokens = pal__tokenizer_n_tokens(tokens);
		c = NULL;
	}
	int64_t live = pal__mem_live();
	const uint8_t *end = size ? memchr(data, 0, size) : NULL;
	size_t n = end ? (size_t)(end - data) : size;
	pal_status s = pal__constraint_json(tokens, (const char *)data, n, &c, &err);
	if (s) {
		CHECK(s == PAL_EINVAL || s == PAL_EUNSUPPORTED || s == PAL_ELIMIT);
		CHECK(err.code == s && err.text[0] && !strchr(err.text, '\n') && !c);
	} else if (end) {
		draw(c, end + 1, size - n - 1);
	}
	pal_constraint_close(c);
	CHECK(pal__mem_live() == live);
	return 0;
}
