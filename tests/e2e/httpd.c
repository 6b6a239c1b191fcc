/* A server with a few handlers, for transport.py: httpd NAME=VALUE...
 *
 * It prints its port, then a line for each line of standard input that is an order: "reload",
 * "quiet" (listen no more), "gone" (how many handlers have seen their client go), "live"
 * (allocations), "fds"; at its end it closes.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "serve/http.h"

static atomic_int gone;

/* What came: {"method", "path", "bytes", "sum", "param", "query", "header", "owner"}. */
static void echo(const pal__http_request *r, pal__reply *reply)
{
	const char *query = pal__http_query(r, "q"), *header = pal__http_header(r, "X-Test");
	json_int_t sum = 0;
	for (size_t i = 0; i < r->n_body; i++)
		sum += (unsigned char)r->body[i];
	pal__reply_json(reply, 200,
			json_pack("{s:s, s:s, s:I, s:I, s:s?, s:s?, s:s?, s:I, s:b}", "method",
				  r->method, "path", r->path, "bytes", (json_int_t)r->n_body, "sum",
				  sum, "param", r->param[0], "query", query, "header", header,
				  "owner", (json_int_t)(r->owner >> 1), "ends",
				  !r->body[r->n_body]));
}

/* Bytes of the body back, in pieces of ?piece=N. */
static void mirror(const pal__http_request *r, pal__reply *reply)
{
	const char *text = pal__http_query(r, "piece");
	size_t piece = text ? strtoul(text, NULL, 10) : 1000, n;
	if (!piece || !pal__reply_begin(reply, 200, "application/octet-stream"))
		return;
	for (size_t at = 0; at < r->n_body; at += n) {
		n = r->n_body - at < piece ? r->n_body - at : piece;
		if (!pal__reply_write(reply, r->body + at, n))
			return;
	}
}

/* Says something, and then nothing until the client has gone. */
static void hold(const pal__http_request *r, pal__reply *reply)
{
	if (!pal__http_query(r, "silent")) {
		pal__reply_begin(reply, 200, "text/event-stream");
		pal__reply_write(reply, "data: 1\n\n", 9);
	}
	while (!atomic_load(pal__reply_gone(reply)))
		usleep(2000);
	atomic_fetch_add(&gone, 1);
}

/* Writes for ever. */
static void flood(const pal__http_request *r, pal__reply *reply)
{
	static const char block[4096];
	(void)r;
	pal__reply_begin(reply, 200, "application/octet-stream");
	while (pal__reply_write(reply, block, sizeof block))
		;
	atomic_fetch_add(&gone, 1);
}

static void wait_ms(const pal__http_request *r, pal__reply *reply)
{
	usleep((useconds_t)strtoul(r->param[0], NULL, 10) * 1000);
	pal__reply_bytes(reply, 200, "text/plain", "done", 4);
}

static void nothing(const pal__http_request *r, pal__reply *reply)
{
	(void)r;
	(void)reply;
}

static void failure(const pal__http_request *r, pal__reply *reply)
{
	(void)r;
	pal__reply_header(reply, "Retry-After", "7");
	pal__reply_error(reply, 429, NULL, "slow_down", "n", "no more than %d", 3);
}

static const pal__route routes[] = {
	{"GET", "/", .handler = echo, .open = true},
	{"GET", "/open", .handler = echo, .open = true},
	{"POST", "/echo", .handler = echo},
	{"GET", "/items/{id}", .handler = echo},
	{"DELETE", "/items/{id}", .handler = echo},
	{"POST", "/items/{id}/sub/{other}", .handler = echo},
	{"POST", "/small", .handler = echo, .max_body = 100},
	{"POST", "/mirror", .handler = mirror},
	{"GET", "/hold", .handler = hold},
	{"GET", "/flood", .handler = flood},
	{"GET", "/wait/{ms}", .handler = wait_ms},
	{"GET", "/nothing", .handler = nothing},
	{"GET", "/failure", .handler = failure},
	{"POST", "/v1/messages", .handler = failure},
	{0},
};

static void on_log(void *user, const json_t *entry)
{
	(void)user;
	char *text = json_dumps(entry, JSON_COMPACT);
	fprintf(stderr, "%s\n", text ? text : "");
	free(text);
}

static bool option(const char *arg, pal__http_options *o)
{
	static const struct {
		const char *name;
		size_t at;
	} texts[] = {
		{"host", offsetof(pal__http_options, host)},
		{"keys", offsetof(pal__http_options, key_file)},
		{"cert", offsetof(pal__http_options, tls_cert)},
		{"key", offsetof(pal__http_options, tls_key)},
		{"cors", offsetof(pal__http_options, cors_origin)},
	};
	const char *value = strchr(arg, '=');
	size_t n = value ? (size_t)(value++ - arg) : strlen(arg);
	for (size_t i = 0; value && i < sizeof texts / sizeof *texts; i++) {
		if (strlen(texts[i].name) == n && !strncmp(arg, texts[i].name, n)) {
			*(const char **)((char *)o + texts[i].at) = value;
			return true;
		}
	}
	double x = value ? strtod(value, NULL) : 0;
	if (!strncmp(arg, "anyone", n))
		o->anyone = true;
	else if (!strncmp(arg, "body", n))
		o->max_body = (size_t)x;
	else if (!strncmp(arg, "header", n))
		o->max_header = (size_t)x;
	else if (!strncmp(arg, "connections", n))
		o->max_connections = (int)x;
	else if (!strncmp(arg, "each", n))
		o->max_connections_each = (int)x;
	else if (!strncmp(arg, "request", n))
		o->request_timeout_s = x;
	else if (!strncmp(arg, "idle", n))
		o->idle_timeout_s = x;
	else if (!strncmp(arg, "rate", n))
		o->rate = x;
	else
		return false;
	return true;
}

static int count_fds(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/fd");
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static void order(pal__http *h, const char *line)
{
	pal_error err = {0};
	if (!strcmp(line, "reload\n")) {
		printf("%s\n", pal__http_reload(h, &err) ? err.text : "ok");
	} else if (!strcmp(line, "quiet\n")) {
		pal__http_stop_listening(h);
		puts("ok");
	} else if (!strcmp(line, "gone\n")) {
		printf("%d\n", atomic_load(&gone));
	} else if (!strcmp(line, "live\n")) {
		printf("%lld\n", (long long)pal__mem_live());
	} else if (!strcmp(line, "fds\n")) {
		printf("%d\n", count_fds());
	} else if (!strncmp(line, "fail ", 5)) {
		pal__mem_fail_after(strtol(line + 5, NULL, 10));
		puts("ok");
	} else if (!strcmp(line, "metrics\n")) {
		char *text = NULL;
		size_t n = 0, cap = 0;
		if (!pal__http_metrics(h, &text, &n, &cap, &err))
			printf("%.*s", (int)n, text);
		puts(".");
		pal__free(text);
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	pal__http_options o = {.routes = routes, .log = on_log};
	pal__http *h;
	pal_error err;
	char line[64];
	for (int i = 1; i < argc; i++) {
		if (!option(argv[i], &o)) {
			fprintf(stderr, "httpd: %s is no option\n", argv[i]);
			return 2;
		}
	}
	if (pal__http_start(&o, &h, &err)) {
		printf("%s\n", err.text);
		return 1;
	}
	printf("%d\n", pal__http_port(h));
	fflush(stdout);
	while (fgets(line, sizeof line, stdin))
		order(h, line);
	pal__http_close(h);
	printf("live %lld\n", (long long)pal__mem_live());
	return 0;
}
