/* pal corpus: makes texts into a corpus that drafts come from. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/process.h"
#include "cli/command.h"
#include "cli/input.h"
#include "cli/output.h"
#include "draft/indexing.h"
#include "model/vocab.h"
#include "text/stream.h"

#define IDS 4096 /* taken from the tokenizer at once */

static pal__texts files;
static const char *list, *out;
static bool ids, special, json, quiet;

static const pal__option options[] = {
	PAL__TEXTS(NULL, 'f', &files, "FILE",
		   "a text, one document; can be given 64 times\n(default: standard input)"),
	PAL__TEXT("list", 0, &list, "FILE", "also the texts whose names are the lines of FILE"),
	PAL__FLAG("special", 0, &special,
		  "text like <|im_end|> is the token: transcripts of chats"),
	PAL__FLAG("ids", 0, &ids, "the texts are token ids, white space between them"),
	PAL__TEXT("output", 'o', &out, "FILE", "the corpus to write"),
	PAL__FLAG("json", 0, &json, "print one JSON object"),
	PAL__FLAG("quiet", 'q', &quiet, "no progress"),
	PAL__NO_MORE_OPTIONS,
};

typedef struct {
	const char *model;
	pal__tokenizer *tokenizer;
	pal__corpus_text text;
	pal__stream stream;
	uint64_t text_bytes;
	pal__bar bar;
	double read_s, write_s;
} work;

/* --- the texts -------------------------------------------------------------------- */

/* path: NULL: standard input. */
static pal_status add_ids(work *w, const char *path, pal_error *err)
{
	int32_t *all;
	size_t n;
	pal_status s =
		pal__read_ids(path, (int32_t)pal__tokenizer_n_tokens(w->tokenizer), &all, &n, err);
	if (s != PAL_OK)
		return s;
	s = pal__corpus_add(&w->text, all, n, err);
	pal__free(all);
	return s;
}

static pal_status add_stream(work *w, int fd, const char *name, pal_error *err)
{
	int32_t some[IDS];
	struct stat st;
	uint64_t size = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	size_t got = 1;
	pal_status s = PAL_OK;
	pal__stream_init(&w->stream, w->tokenizer, fd, name, special ? PAL_TOKENIZE_SPECIAL : 0);
	while (s == PAL_OK && got) {
		s = pal__stream_next(&w->stream, some, IDS, &got, err);
		if (s == PAL_OK)
			s = pal__corpus_add(&w->text, some, got, err);
		pal__bar_update(&w->bar, w->stream.offset, size);
	}
	w->text_bytes += w->stream.offset;
	pal__stream_free(&w->stream);
	return s;
}

static pal_status add_text(work *w, const char *path, pal_error *err)
{
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	if (fd < 0)
		return pal__fail(err, PAL_EIO, "%s: %s", path, strerror(errno));
	pal_status s = add_stream(w, fd, path ? path : "standard input", err);
	if (path)
		close(fd);
	return s;
}

static pal_status add_document(work *w, const char *path, pal_error *err)
{
	pal_status s = path ? pal__out_other(out, path, err) : PAL_OK;
	if (s == PAL_OK)
		s = ids ? add_ids(w, path, err) : add_text(w, path, err);
	return s == PAL_OK ? pal__corpus_end(&w->text, err) : s;
}

static pal_status add_listed(work *w, pal_error *err)
{
	char *names;
	size_t n;
	pal_status s = pal__read_all(list, &names, &n, err);
	if (s != PAL_OK)
		return s;
	char *rest = names;
	for (char *name; s == PAL_OK && (name = strsep(&rest, "\n"));)
		if (*name)
			s = add_document(w, name, err);
	pal__free(names);
	return s;
}

static pal_status read_texts(work *w, pal_error *err)
{
	pal_status s = PAL_OK;
	pal__bar_start(&w->bar, "reading", "B", quiet);
	if (!files.n && !list)
		s = add_document(w, NULL, err);
	for (size_t i = 0; i < files.n && s == PAL_OK; i++)
		s = add_document(w, files.items[i], err);
	if (s == PAL_OK && list)
		s = add_listed(w, err);
	pal__bar_end(&w->bar);
	w->read_s = pal__now() - w->bar.start;
	return s;
}

/* --- the corpus ------------------------------------------------------------------- */

static void on_progress(void *user, uint64_t done, uint64_t total)
{
	pal__bar_update(user, done, total);
}

static pal_status report(const work *w, pal_error *err)
{
	char hash[17], line[256], human[32];
	struct stat st = {0};
	if (stat(out, &st) != 0)
		return pal__fail(err, PAL_EIO, "%s: %s", out, strerror(errno));
	uint64_t bytes = (uint64_t)st.st_size, n = w->text.n - w->text.documents;
	if (!json) {
		int length = snprintf(line, sizeof line,
				      "%llu tokens of %llu documents, %s, %.1f bytes a token\n",
				      (unsigned long long)n, (unsigned long long)w->text.documents,
				      pal__human_bytes(bytes, human), (double)bytes / (double)n);
		return pal__out_write(line, (size_t)length, err);
	}
	snprintf(hash, sizeof hash, "%016llx",
		 (unsigned long long)pal__tokenizer_hash(w->tokenizer));
	return pal__out_json(
		json_pack("{s:s, s:o, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:o, s:o, s:{s:o, s:I, "
			  "s:s}}",
			  "engine", "palimpsest", "corpus", pal__json_string(out, strlen(out)),
			  "tokens", (json_int_t)n, "documents", (json_int_t)w->text.documents,
			  "text_bytes", (json_int_t)w->text_bytes, "bytes", (json_int_t)bytes,
			  "read_s", w->read_s, "write_s", w->write_s, "rss_bytes",
			  (json_int_t)pal__process_memory("VmHWM"), "machine", pal__json_machine(),
			  "build", pal__json_build(), "vocabulary", "file",
			  pal__json_string(w->model, strlen(w->model)), "tokens",
			  (json_int_t)pal__tokenizer_n_tokens(w->tokenizer), "hash", hash),
		err);
}

static pal_status make(work *w, pal_error *err)
{
	pal_status s = read_texts(w, err);
	if (s != PAL_OK)
		return s;
	pal__bar_start(&w->bar, "sorting", "tok", quiet);
	s = pal__corpus_write(&w->text, w->tokenizer, out, on_progress, &w->bar, err);
	pal__bar_end(&w->bar);
	w->write_s = pal__now() - w->bar.start;
	return s == PAL_OK ? report(w, err) : s;
}

static pal_status run(const char *model, pal_error *err)
{
	if (!out)
		return pal__fail(err, PAL_EINVAL, "where to write the corpus is missing: -o FILE");
	pal_status s = pal__out_other(out, model, err);
	work *w = pal__calloc(1, sizeof *w);
	if (s == PAL_OK && !w)
		s = pal__fail_memory(err, "the texts", sizeof *w);
	if (s == PAL_OK)
		s = pal__model_load_tokenizer(model, &w->tokenizer, err);
	if (s == PAL_OK) {
		w->model = model;
		s = make(w, err);
		pal__tokenizer_free(w->tokenizer);
		pal__corpus_text_free(&w->text);
	}
	pal__free(w);
	return s;
}

const pal__command pal__command_corpus = {
	.name = "corpus",
	.summary = "make texts into a corpus, which drafts come from",
	.about =
		"Reads texts, each a document, and writes a corpus: their tokens, and an index of\n"
		"what stands before each. Drafts are what followed the same tokens there. The\n"
		"model file needs only a vocabulary.\n",
	.options = options,
	.run = run,
};
