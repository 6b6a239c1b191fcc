/* pal serve: the server, until a signal ends it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/engine.h"
#include "cli/output.h"
#include "serve/server.h"

#define POSITIONS 2048 /* whose K/V a session keeps, where nothing else is said */
#define DRAIN_S 30     /* for what runs when a signal comes */

static pal__engine engine = {.kv_type = "i16",
			     .kv = "restored",
			     .draft = "auto",
			     .positions = "compact",
			     .source = "recompute",
			     .selection = "attention",
			     .spill_type = "f16"};
static const char *config, *host = "127.0.0.1", *data_dir, *memory_limit, *key_file, *tls_cert,
			   *tls_key, *cors_origin, *disk_limit;
static int64_t port = 8080, grpc_port = -1, max_sessions, max_queue, max_tokens, max_connections,
	       each, ttl, idle;
static float rate, max_wait;
static const char *model_name, *template_name;
static bool anyone, sync_commits, any_model;

static const pal__option options[] = {
	PAL__CONFIG("config", 0, &config,
		    "lines NAME = VALUE with the names of these options, without\n"
		    "dashes; the command line wins"),
	PAL__TEXT("host", 0, &host, "HOST", "address to listen at (default 127.0.0.1)"),
	PAL__INT("port", 0, &port, 0, 65535, "port to listen at (default 8080; 0: any)"),
	PAL__INT("grpc-port", 0, &grpc_port, 0, 65535,
		 "serve gRPC (kakeya.v1.RuntimeService) there, too (0: any port)"),
	PAL__TEXT("data-dir", 0, &data_dir, "DIR",
		  "where sessions are kept (default $XDG_STATE_HOME/palimpsest or\n"
		  "~/.local/state/palimpsest)"),
	PAL__TEXT("api-key-file", 0, &key_file, "FILE",
		  "API keys, one a line: needed to be reached from other machines;\n"
		  "SIGHUP has it read again"),
	PAL__FLAG("anyone", 0, &anyone, "let everybody in, from other machines, too"),
	PAL__TEXT("tls-cert", 0, &tls_cert, "FILE", "certificate, PEM: serve HTTPS"),
	PAL__TEXT("tls-key", 0, &tls_key, "FILE", "its key, PEM"),
	PAL__TEXT("cors-origin", 0, &cors_origin, "ORIGIN",
		  "let pages of this origin in (*: of any)"),
	PAL__TEXT("memory-limit", 0, &memory_limit, "BYTES",
		  "of the process (K, M and G are known); requests wait for room"),
	PAL__TEXT("disk-limit", 0, &disk_limit, "BYTES", "of all files of sessions"),
	PAL__INT("max-sessions", 0, &max_sessions, 1, 1e9, "that are kept (default 10000)"),
	PAL__INT("max-tokens", 0, &max_tokens, 1, PAL_MAX_LOG, "of a session"),
	PAL__INT("max-queue", 0, &max_queue, 1, 1e6, "requests that wait (default 1024)"),
	PAL__FLOAT("max-wait", 0, &max_wait, 0, 86400,
		   "seconds that a request waits for room (default 60)"),
	PAL__INT("max-connections", 0, &max_connections, 1, 100000, "(default 1024)"),
	PAL__INT("max-connections-each", 0, &each, 1, 100000, "of one address (default: as many)"),
	PAL__FLOAT("rate", 0, &rate, 0, 1e6,
		   "requests a second of one key or address (default: any)"),
	PAL__INT("idle", 0, &idle, 1, 1e9,
		 "seconds until an unused session is written out (default 300)"),
	PAL__INT("ttl", 0, &ttl, 1, 1e9,
		 "seconds until an unused session is deleted (default: never)"),
	PAL__TEXT("model-name", 0, &model_name, "NAME",
		  "what requests call the model (default: its own name)"),
	PAL__FLAG("any-model", 0, &any_model, "requests may name any model, and get this one"),
	PAL__OPTION_TEMPLATE(template_name),
	PAL__FLAG("sync", 0, &sync_commits, "commits survive the loss of power, too"),
	PAL__OPTION_CTX(engine, "tokens of a session with --kv full"),
	PAL__OPTIONS_KV(engine),
	PAL__OPTION_KV_TYPE(engine),
	PAL__OPTION_DRAFT(engine),
	PAL__OPTION_THREADS(engine),
	PAL__OPTION_BATCH(engine),
	PAL__OPTION_ISA(engine),
	PAL__OPTION_CACHE_DIR(engine),
	PAL__OPTION_QUIET(engine),
	PAL__NO_MORE_OPTIONS,
};

/* --- where sessions are --------------------------------------------------------- */

static pal_status make_folder(const char *path, pal_error *err)
{
	char part[4096];
	size_t n = strlen(path);
	if (n >= sizeof part)
		return pal__fail(err, PAL_EINVAL, "the name of the folder of sessions is too long");
	memcpy(part, path, n + 1);
	for (size_t i = 1; i <= n; i++) {
		if (part[i] != '/' && part[i])
			continue;
		part[i] = 0;
		if (mkdir(part, 0700) && errno != EEXIST)
			return pal__fail(err, PAL_EIO, "%s: %s", part, strerror(errno));
		part[i] = path[i];
	}
	return PAL_OK;
}

static pal_status choose_folder(char text[4096], pal_error *err)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	int n;
	if (data_dir)
		n = snprintf(text, 4096, "%s", data_dir);
	else if (state && *state == '/')
		n = snprintf(text, 4096, "%s/palimpsest", state);
	else if (home && *home == '/')
		n = snprintf(text, 4096, "%s/.local/state/palimpsest", home);
	else
		return pal__fail(err, PAL_EINVAL, "where to keep sessions is missing: --data-dir");
	if (n >= 4096)
		return pal__fail(err, PAL_EINVAL, "the name of the folder of sessions is too long");
	return make_folder(text, err);
}

/* --- signals ---------------------------------------------------------------------- */

static int signals[2]; /* a pipe: what came */

static void on_signal(int number)
{
	char c = (char)number;
	int before = errno;
	ssize_t n = write(signals[1], &c, 1);
	(void)n; /* full: enough have come */
	errno = before;
}

static pal_status catch_signals(pal_error *err)
{
	struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	if (pipe2(signals, O_CLOEXEC))
		return pal__fail(err, PAL_EIO, "a pipe for signals: %s", strerror(errno));
	fcntl(signals[1], F_SETFL, O_NONBLOCK);
	sigaction(SIGHUP, &a, NULL);
	a.sa_flags |= (int)SA_RESETHAND; /* the second one ends the process at once */
	sigaction(SIGTERM, &a, NULL);
	sigaction(SIGINT, &a, NULL);
	return PAL_OK;
}

/* Tells systemd, if it has started us. */
static void notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t n = path ? strlen(path) : 0;
	if (!n || n >= sizeof to.sun_path)
		return;
	memcpy(to.sun_path, path, n);
	if (*path == '@')
		to.sun_path[0] = 0;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	ssize_t sent = sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&to,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
	(void)sent; /* nobody listens */
	close(fd);
}

/* Until a signal ends it. */
static void wait_for_end(pal__server *server)
{
	struct pollfd came = {.fd = signals[0], .events = POLLIN};
	for (;;) {
		char c = 0;
		pal_error err = {0};
		/* A signal ends poll; it would not end read, under the thread sanitizer. */
		if (poll(&came, 1, -1) < 1)
			continue;
		if (read(signals[0], &c, 1) != 1 || c != SIGHUP)
			return;
		bool failed = pal__http_reload(pal__server_http(server), &err);
		fprintf(stderr, "pal: %s%s\n",
			failed ? "keys stay as they were: " : "keys read again",
			failed ? err.text : "");
	}
}

/* --- the command -------------------------------------------------------------------- */

static void on_log(void *user, const json_t *entry)
{
	char line[1024];
	(void)user;
	size_t n = json_dumpb(entry, line, sizeof line - 1, JSON_COMPACT | JSON_REAL_PRECISION(6));
	if (n && n < sizeof line)
		fprintf(stderr, "%.*s\n", (int)n, line);
}

/* The K/V of so many positions, unless something else is asked for. */
static pal_status choose_budget(const pal_model *model, pal_session_options *o, pal_error *err)
{
	pal_session_options full = {.n_ctx = POSITIONS, .kv_type = o->kv_type};
	uint64_t scratch;
	if (!pal__engine_bounded(&engine) || o->kv_budget || o->window || o->slots)
		return PAL_OK;
	return pal_session_need(model, &full, &o->kv_budget, &scratch, err);
}

static pal_status fill_options(const pal_model *model, const char *path, const char *folder,
			       pal__server_options *o, pal_error *err)
{
	o->api = (pal__api_options){.name = model_name,
				    .path = path,
				    .template_name = template_name,
				    .any_model = any_model};
	o->service =
		(pal__service_options){.session = pal__engine_session(&engine, engine.ctx),
				       .draft = strcmp(engine.draft, "none") ? engine.draft : NULL,
				       .cache_dir = engine.cache_dir,
				       .data_dir = folder,
				       .max_sessions = max_sessions,
				       .max_tokens = max_tokens,
				       .max_queue = (int)max_queue,
				       .max_wait_s = (double)max_wait,
				       .idle_s = (double)idle,
				       .ttl_s = (double)ttl,
				       .sync = sync_commits};
	o->http = (pal__http_options){.host = host,
				      .port = (int)port,
				      .key_file = key_file,
				      .anyone = anyone,
				      .tls_cert = tls_cert,
				      .tls_key = tls_key,
				      .cors_origin = cors_origin,
				      .max_connections = (int)max_connections,
				      .max_connections_each = (int)each,
				      .rate = (double)rate,
				      .log = engine.quiet ? NULL : on_log};
	o->grpc = grpc_port >= 0;
	o->grpc_port = o->grpc ? (int)grpc_port : 0;
	pal_status s = pal__bytes_of("memory-limit", memory_limit, &o->service.memory_limit, err);
	if (!s)
		s = pal__bytes_of("disk-limit", disk_limit, &o->service.disk_limit, err);
	return s ? s : choose_budget(model, &o->service.session, err);
}

/* Connections and files of sessions are many. */
static void raise_limits(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files))
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

static pal_status serve(pal_model *model, const char *path, const char *folder, pal_error *err)
{
	pal__server_options o = {0};
	pal__server *server = NULL;
	pal_status s = fill_options(model, path, folder, &o, err);
	if (!s)
		s = catch_signals(err);
	if (!s)
		s = pal__server_start(model, &o, &server, err);
	if (s)
		return s;
	bool six = strchr(host, ':');
	printf("%s://%s%s%s:%d\n", tls_cert ? "https" : "http", six ? "[" : "", host,
	       six ? "]" : "", pal__http_port(pal__server_http(server)));
	if (o.grpc)
		printf("gRPC at %s%s%s:%d\n", six ? "[" : "", host, six ? "]" : "",
		       pal__server_grpc_port(server));
	fflush(stdout);
	notify("READY=1");
	wait_for_end(server);
	notify("STOPPING=1");
	pal__server_stop(server, DRAIN_S);
	return PAL_OK;
}

static pal_status run(const char *path, pal_error *err)
{
	pal_model *model;
	char folder[4096];
	pal_status s = pal__engine_check(&engine, err);
	if (!s)
		s = pal__engine_model(&engine, path, &model, NULL, err);
	if (s)
		return s;
	raise_limits();
	s = choose_folder(folder, err);
	if (!s)
		s = serve(model, path, folder, err);
	pal__engine_close(&engine, model);
	return s;
}

const pal__command pal__command_serve = {
	.name = "serve",
	.summary = "serve sessions over HTTP",
	.about =
		"Serves the interfaces of OpenAI and Anthropic, and sessions that never forget, "
		"at\n"
		"http://127.0.0.1:8080/ until SIGTERM or SIGINT: what runs then is ended and "
		"kept;\n"
		"a second signal ends it at once. Each session keeps the K/V of about 2048 tokens\n"
		"and brings back what it needs of the others (--kv restored), if nothing else is\n"
		"asked for. Requests are logged as JSON, a line each, on standard error.\n",
	.options = options,
	.run = run,
};
