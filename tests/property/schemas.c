/* Texts drawn at random from schemas, for schemas.py to judge.
 *
 *   schemas MODEL < schemas
 *
 * A line of the input is a seed and a schema. Of each a line of JSON comes back: {"error"}, or
 * {"text", "whole"}: tokens drawn through the masks until the text was whole, or too long. A mask
 * without a token, or one that says other than the bytes of a token do, ends the program.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "model/vocab.h"
#include "text/constraint.h"
#include "text/readings.h"
#include "text/schema.h"

#define LONG 300 /* tokens; from here on the text is ended where it can be */
#define MOST 3000
#define CHECK(c)                                                                        \
	do {                                                                            \
		if (!(c)) {                                                             \
			fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #c); \
			abort();                                                        \
		}                                                                       \
	} while (0)

static pal__tokenizer *vocabulary;
static uint64_t random_state;

static uint32_t draw(uint32_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((random_state >> 33) % n);
}

static bool allowed(const uint64_t *mask, int32_t id)
{
	return mask[id / 64] >> (id % 64) & 1;
}

/* How much a token brings the text to an end. */
static int closing(int32_t id)
{
	pal__str s = pal__token_bytes(vocabulary, id);
	if (pal__token_is_end(vocabulary, id))
		return 100;
	int sum = -(int)s.n;
	for (size_t i = 0; i < s.n; i++)
		sum += s.s[i] == '}' || s.s[i] == ']'                    ? 12
		       : s.s[i] == '"'                                   ? 6
		       : s.s[i] == '{' || s.s[i] == '[' || s.s[i] == ',' ? -6
									 : 0;
	return sum;
}

static int32_t choose(const uint64_t *mask, size_t n, bool end)
{
	int32_t found = -1;
	uint32_t seen = 0;
	int best = 0;
	for (int32_t id = 0; id < (int32_t)n; id++) {
		if (!allowed(mask, id))
			continue;
		int value = closing(id);
		if (end ? found < 0 || value > best : draw(++seen) == 0) {
			found = id;
			best = value;
		}
	}
	return found;
}

/* A token is allowed when its bytes can be read, one by one. */
static void compare(pal__readings *r, pal__place *at, const uint64_t *mask, size_t n)
{
	bool whole = r->sets[at->at].flags & PAL__SET_WHOLE;
	for (int32_t id = 0; id < (int32_t)n; id++) {
		pal__str s = pal__token_bytes(vocabulary, id);
		pal__place p = *at;
		bool fits = s.n > 0;
		for (size_t i = 0; i < s.n && fits; i++) {
			int moved = pal__readings_move(r, &p, (uint8_t)s.s[i]);
			if (moved == PAL__FULL) {
				pal__readings_forget(r, at);
				p = *at;
				i = (size_t)-1;
			}
			fits = moved != 0;
		}
		if (pal__token_is_special(vocabulary, id))
			fits = false;
		if (pal__token_is_end(vocabulary, id))
			fits = whole;
		CHECK(fits == allowed(mask, id));
	}
}

static void sample(pal_constraint *c, pal__readings *r, json_t *out)
{
	size_t n = pal__tokenizer_n_tokens(vocabulary), n_text = 0;
	char text[MOST * PAL__READINGS_TEXT];
	bool whole = false;
	pal__readings_forget(r, NULL);
	pal__place at = pal__readings_start(r);
	for (int i = 0; i < MOST && !whole; i++) {
		const uint64_t *mask = pal__constraint_mask(c);
		CHECK(mask);
		if (draw(8) == 0)
			compare(r, &at, mask, n);
		int32_t id = choose(mask, n, i > LONG || draw(3) == 0);
		CHECK(id >= 0);
		CHECK(pal__constraint_take(c, id));
		whole = pal__token_is_end(vocabulary, id);
		if (pal__constraint_done(c))
			whole = true;
		pal__str s = pal__token_bytes(vocabulary, id);
		if (pal__token_is_end(vocabulary, id))
			break;
		for (size_t k = 0; k < s.n; k++) {
			pal__place before = at;
			int moved = pal__readings_move(r, &at, (uint8_t)s.s[k]);
			if (moved == PAL__FULL) {
				at = before;
				pal__readings_forget(r, &at);
				moved = pal__readings_move(r, &at, (uint8_t)s.s[k]);
			}
			CHECK(moved == 1);
		}
		memcpy(text + n_text, s.s, s.n);
		n_text += s.n;
	}
	json_object_set_new(out, "text", json_stringn(text, n_text));
	json_object_set_new(out, "whole", json_boolean(whole));
}

int main(int argc, char **argv)
{
	pal_error err = {0};
	char *line = NULL;
	size_t cap = 0;
	if (argc != 2 || pal__model_load_tokenizer(argv[1], &vocabulary, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
		char *schema;
		pal_constraint *c;
		pal__form form;
		pal__readings r;
		json_t *out = json_object();
		random_state = strtoull(line, &schema, 10);
		size_t n_schema = (size_t)(line + n - schema);
		if (pal__constraint_json(vocabulary, schema, n_schema, &c, &err)) {
			json_object_set_new(out, "error", json_string(err.text));
			json_object_set_new(out, "code", json_integer(err.code));
		} else {
			CHECK(!pal__schema_form(schema, n_schema, &form, &err));
			CHECK(!pal__readings_init(&r, &form, &err));
			sample(c, &r, out);
			pal__readings_free(&r);
			pal_constraint_close(c);
		}
		CHECK(json_dumpf(out, stdout, JSON_COMPACT) == 0);
		puts("");
		json_decref(out);
	}
	free(line);
	pal__tokenizer_free(vocabulary);
	return 0;
}
