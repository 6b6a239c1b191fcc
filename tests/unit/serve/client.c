#include "serve/client.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

/* --- a server that says what it is told, once for each request, and keeps what it was asked --- */

static struct {
	int fd;
	char url[64], asked[2048];
	const char *answer;
	size_t filler; /* bytes of spaces after the answer */
	pthread_t thread;
} server;

static void serve(int fd)
{
	static char spaces[65536];
	size_t n = 0;
	while (n < sizeof server.asked - 1 && !strstr(server.asked, "\r\n\r\n")) {
		ssize_t got = read(fd, server.asked + n, sizeof server.asked - 1 - n);
		if (got <= 0)
			break;
		n += (size_t)got;
		server.asked[n] = 0;
	}
	ssize_t sent = write(fd, server.answer, strlen(server.answer));
	memset(spaces, ' ', sizeof spaces);
	for (size_t left = server.filler; left && sent > 0; left -= (size_t)sent)
		sent = write(fd, spaces, left < sizeof spaces ? left : sizeof spaces);
}

static void *answer_once(void *unused)
{
	int fd = accept(server.fd, NULL, NULL);
	(void)unused;
	if (fd >= 0) {
		serve(fd);
		close(fd);
	}
	return NULL;
}

static void says(const char *answer, size_t filler)
{
	server.answer = answer;
	server.filler = filler;
	memset(server.asked, 0, sizeof server.asked);
	assert_int_equal(pthread_create(&server.thread, NULL, answer_once, NULL), 0);
}

static int start(void **state)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof a;
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	server.fd = socket(AF_INET, SOCK_STREAM, 0);
	if (server.fd < 0 || bind(server.fd, (struct sockaddr *)&a, n) || listen(server.fd, 4) ||
	    getsockname(server.fd, (struct sockaddr *)&a, &n))
		return -1;
	snprintf(server.url, sizeof server.url, "http://127.0.0.1:%d/", ntohs(a.sin_port));
	return 0;
}

static int stop(void **state)
{
	(void)state;
	return close(server.fd);
}

/* --- tests ---------------------------------------------------------------------------------- */

static char *write_file(const char *text, char path[32])
{
	strcpy(path, "/tmp/pal-client-XXXXXX");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	return path;
}

static pal_status get(const char *key_file, const char *answer, size_t filler, json_t **out,
		      pal_error *err)
{
	pal__client *c;
	assert_int_equal(pal__client_open(server.url, key_file, NULL, &c, err), PAL_OK);
	says(answer, filler);
	pal_status s = pal__client_get(c, "/v1/status", out, err);
	pthread_join(server.thread, NULL);
	pal__client_close(c);
	return s;
}

static void answers(void **state)
{
	char path[32];
	json_t *o = NULL;
	pal_error err;
	int64_t live = pal__mem_live();
	(void)state;
	write_file("# keys\n\n  one-key \nanother\n", path);
	assert_int_equal(
		get(path, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"a\": 7}", 0, &o, &err),
		PAL_OK);
	assert_int_equal(json_integer_value(json_object_get(o, "a")), 7);
	json_decref(o);
	assert_non_null(strstr(server.asked, "GET /v1/status HTTP/1.1\r\n"));
	assert_non_null(strstr(server.asked, "\r\nAuthorization: Bearer one-key\r\n"));
	unlink(path);
	assert_int_equal(pal__mem_live(), live);
}

static void refusals(void **state)
{
#define HEAD(status) "HTTP/1.1 " status "\r\nConnection: close\r\n\r\n"
	static const struct {
		const char *answer;
		pal_status status;
		const char *text;
	} bad[] = {
		{HEAD("401 Unauthorized") "{}", PAL_EINVAL, "asks for a key: --key-file FILE"},
		{HEAD("404 Not Found") "<html>", PAL_ENOTFOUND, "404: it may be no server of pal"},
		{HEAD("429 Too Many Requests") "{\"error\":{\"message\":\"full\\u001b[2J\"}}",
		 PAL_EOVERLOAD, "429: full?[2J"},
		{HEAD("500 No") "{\"error\":7}", PAL_EIO, "answers 500"},
		{HEAD("302 Found"), PAL_EIO, "answers 302"},
		{HEAD("200 OK"), PAL_EFORMAT, "no JSON object"},
		{HEAD("200 OK") "[1]", PAL_EFORMAT, "no JSON object"},
		{HEAD("200 OK") "{\"a\":", PAL_EFORMAT, "no JSON object"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", PAL_EIO, "no answer: "},
		{"nonsense", PAL_EIO, "no answer: "},
	};
	int64_t live = pal__mem_live();
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		json_t *o = NULL;
		pal_error err = {0};
		assert_int_equal(get(NULL, bad[i].answer, 0, &o, &err), bad[i].status);
		if (!strstr(err.text, bad[i].text) || strncmp(err.text, "http://127.0.0.1:", 17))
			fail_msg("'%s' instead of '%s'", err.text, bad[i].text);
		assert_null(o);
	}
	json_t *o = NULL;
	pal_error err;
	assert_int_equal(get(NULL, HEAD("200 OK") "{}", PAL__MAX_ANSWER, &o, &err), PAL_ELIMIT);
	assert_non_null(strstr(err.text, "more than 16 MiB"));
	assert_int_equal(pal__mem_live(), live);
}

static void refused_key(void **state)
{
	char path[32];
	json_t *o = NULL;
	pal_error err;
	(void)state;
	write_file("wrong", path);
	assert_int_equal(get(path, HEAD("401 Unauthorized") "{}", 0, &o, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "does not take the key in /tmp/pal-client-"));
	unlink(path);
}

static void bad_options(void **state)
{
	static const char *const urls[] = {"", "127.0.0.1:80", "ftp://host", "HTTP", "http:/x"};
	static const char *const keys[] = {"", "\n# only a comment\n", "two words", "caf\xc3\xa9"};
	pal__client *c = NULL;
	pal_error err;
	int64_t live = pal__mem_live();
	char path[32], longer[PAL__MAX_KEY + 2];
	(void)state;
	for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
		assert_int_equal(pal__client_open(urls[i], NULL, NULL, &c, &err), PAL_EINVAL);
		assert_non_null(strstr(err.text, "http://HOST:PORT"));
	}
	memset(longer, 'k', sizeof longer);
	longer[PAL__MAX_KEY + 1] = 0;
	for (size_t i = 0; i <= sizeof keys / sizeof *keys; i++) {
		write_file(i < sizeof keys / sizeof *keys ? keys[i] : longer, path);
		assert_int_equal(pal__client_open(server.url, path, NULL, &c, &err), PAL_EINVAL);
		assert_non_null(strstr(err.text, "no key in it"));
		unlink(path);
	}
	assert_int_equal(pal__client_open(server.url, "/nonexistent", NULL, &c, &err), PAL_EIO);
	assert_null(c);
	assert_int_equal(pal__mem_live(), live);
}

static void no_server(void **state)
{
	pal__client *c;
	json_t *o = NULL;
	pal_error err;
	(void)state;
	/* Port 1 is nobody's: what is listened to has been chosen by the system. */
	assert_int_equal(pal__client_open("http://127.0.0.1:1", NULL, NULL, &c, &err), PAL_OK);
	assert_int_equal(pal__client_get(c, "/", &o, &err), PAL_EIO);
	assert_non_null(strstr(err.text, "http://127.0.0.1:1: no answer: "));
	pal__client_close(c);
	pal__client_close(NULL);
}

static void plain(void **state)
{
	char text[] = "a\x1b[2J\n\xc2\x9b"
		      "31m \xc3\xa9 \x7f\xc2\xa0.";
	(void)state;
	pal__plain(text);
	assert_string_equal(text, "a?[2J???31m \xc3\xa9 ?\xc2\xa0.");
}

static void allocation_failures(void **state)
{
	int64_t live = pal__mem_live();
	pal_status s = PAL_ENOMEM;
	(void)state;
	for (int i = 0; s; i++) {
		pal__client *c = NULL;
		json_t *o = NULL;
		assert_true(i < 100);
		pal__mem_fail_after(i);
		s = pal__client_open(server.url, NULL, NULL, &c, NULL);
		pal__mem_fail_after(-1);
		if (!s) { /* the answer's memory: a request comes whatever happens to it */
			says(HEAD("200 OK") "{}", 0);
			pal__mem_fail_after(0);
			assert_int_equal(pal__client_get(c, "/", &o, NULL), PAL_ENOMEM);
			pal__mem_fail_after(-1);
			pthread_join(server.thread, NULL);
		}
		assert_true(s == PAL_OK || s == PAL_ENOMEM);
		assert_null(o);
		pal__client_close(c);
		assert_int_equal(pal__mem_live(), live);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers),
		cmocka_unit_test(refusals),
		cmocka_unit_test(refused_key),
		cmocka_unit_test(bad_options),
		cmocka_unit_test(no_server),
		cmocka_unit_test(plain),
		cmocka_unit_test(allocation_failures),
	};
	return cmocka_run_group_tests(tests, start, stop);
}
