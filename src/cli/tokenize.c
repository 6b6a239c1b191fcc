/* pal tokenize: text to token ids. */
#include "base/mem.h"
#include "cli/command.h"
#include "cli/input.h"
#include "cli/output.h"
#include "model/vocab.h"

static const pal__option options[] = {PAL__NO_MORE_OPTIONS};

static pal_status tokenize(const pal__tokenizer *t, pal_error *err)
{
	char *text;
	size_t n, n_ids;
	int32_t *ids;
	pal_status s = pal__read_all(NULL, &text, &n, err);
	if (s)
		return s;
	s = pal__tokenize(t, text, n, PAL_TOKENIZE_SPECIAL, &ids, &n_ids, err);
	pal__free(text);
	if (s)
		return s;
	for (size_t i = 0; i < n_ids && !s; i++)
		s = pal__out_id(ids[i], err);
	pal__free(ids);
	return s;
}

static pal_status run(const char *model, pal_error *err)
{
	pal__tokenizer *t;
	pal_status s = pal__model_load_tokenizer(model, &t, err);
	if (s)
		return s;
	s = tokenize(t, err);
	pal__tokenizer_free(t);
	return s;
}

const pal__command pal__command_tokenize = {
	.name = "tokenize",
	.summary = "turn text into token ids",
	.about = "Reads text from standard input and writes its token ids, one a line. Special\n"
		 "tokens in the text are recognised; none are added. The model file needs only a\n"
		 "vocabulary.\n",
	.options = options,
	.run = run,
};
