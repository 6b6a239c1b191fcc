/* tokdriver: the tokenizer and the chat templates for tokenizers.py, many texts in one run.
 *
 *   tokdriver tokenize VOCAB.GGUF    records {u32 n, n bytes of text}
 *       gives for each {u32 n_ids, ids as i32, u32 n, n bytes detokenized as a stream}
 *   tokdriver chat FAMILY BOS        records {u32 n_messages, open_reply, thinking; for each
 *                                    message {u32 n, role, u32 n, content}}
 *       gives for each {u32 n, n bytes}, or n 0xffffffff for a refused chat
 *
 * Numbers are little-endian. Any failure ends the program with a message and status 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "model/vocab.h"
#include "text/chat.h"

static void die(const char *what)
{
	fprintf(stderr, "tokdriver: %s\n", what);
	exit(1);
}

static void check(pal_status s, const pal_error *err)
{
	if (s)
		die(err->text);
}

static bool read_u32(uint32_t *v)
{
	return fread(v, sizeof *v, 1, stdin) == 1;
}

static char *read_text(uint32_t *n)
{
	if (!read_u32(n))
		die("the input ends within a record");
	char *s = malloc((size_t)*n + 1);
	if (!s || fread(s, 1, *n, stdin) != *n)
		die("the input ends within a record");
	s[*n] = 0;
	return s;
}

static void write_all(const void *p, size_t n)
{
	if (fwrite(p, 1, n, stdout) != n)
		die("cannot write");
}

static void write_text(const char *s, size_t n)
{
	uint32_t n32 = (uint32_t)n;
	write_all(&n32, sizeof n32);
	write_all(s, n);
}

static void detokenize(const pal__tokenizer *t, const int32_t *ids, size_t n_ids)
{
	size_t cap = 8, n = 0;
	pal__detok d;
	for (size_t i = 0; i < n_ids; i++)
		cap += pal__token_bytes(t, ids[i]).n;
	char *text = malloc(cap);
	if (!text)
		die("out of memory");
	pal__detok_init(&d, t, true);
	for (size_t i = 0; i < n_ids; i++)
		if (!pal__detok_feed(&d, ids[i], text, cap, &n))
			die("detokenized text does not fit");
	n += pal__detok_finish(&d, text + n);
	write_text(text, n);
	free(text);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void tokenize_all(const char *path)
{
	pal__tokenizer *t;
	pal_error err;
	uint32_t n;
	double seconds = 0, bytes = 0, start = now();
	check(pal__model_load_tokenizer(path, &t, &err), &err);
	fprintf(stderr, "vocabulary read in %.0f ms\n", 1e3 * (now() - start));
	for (int c; (c = getchar()) != EOF;) {
		int32_t *ids;
		size_t n_ids;
		ungetc(c, stdin);
		char *text = read_text(&n);
		start = now();
		check(pal__tokenize(t, text, n, PAL_TOKENIZE_SPECIAL, &ids, &n_ids, &err), &err);
		seconds += now() - start;
		bytes += n;
		uint32_t n32 = (uint32_t)n_ids;
		write_all(&n32, sizeof n32);
		write_all(ids, n_ids * sizeof *ids);
		detokenize(t, ids, n_ids);
		pal__free(ids);
		free(text);
	}
	fprintf(stderr, "%.1f MB tokenized at %.1f MB/s\n", bytes / 1e6, bytes / 1e6 / seconds);
	pal__tokenizer_free(t);
}

static void chat_all(const char *family, const char *bos)
{
	uint32_t n, open_reply, thinking, size;
	while (read_u32(&n) && read_u32(&open_reply) && read_u32(&thinking)) {
		pal_message *messages = calloc(n, sizeof *messages);
		char *text;
		size_t n_text;
		if (!messages)
			die("out of memory");
		for (uint32_t i = 0; i < n; i++) {
			messages[i].role = read_text(&size);
			messages[i].content = read_text(&size);
		}
		if (!pal__chat_format(family, bos, messages, n, open_reply, (pal_thinking)thinking,
				      &text, &n_text, NULL)) {
			write_text(text, n_text);
			pal__free(text);
		} else {
			write_all(&(uint32_t){UINT32_MAX}, sizeof(uint32_t));
		}
		for (uint32_t i = 0; i < n; i++) {
			free((char *)messages[i].role);
			free((char *)messages[i].content);
		}
		free(messages);
	}
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "tokenize"))
		tokenize_all(argv[2]);
	else if (argc == 4 && !strcmp(argv[1], "chat"))
		chat_all(argv[2], argv[3]);
	else
		die("usage: tokdriver tokenize VOCAB.GGUF | tokdriver chat FAMILY BOS");
	if (fflush(stdout))
		die("cannot write");
	return 0;
}
