#include "cli/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/topology.h"
#include "text/utf8.h"

/* --- standard output ------------------------------------------------------ */

static int out_errno; /* of the first write that failed; 0: none */

static pal_status out_failed(pal_error *err)
{
	if (!out_errno)
		out_errno = errno ? errno : EIO;
	return pal__fail(err, PAL_EIO, "cannot write to standard output: %s", strerror(out_errno));
}

pal_status pal__out_write(const void *bytes, size_t n, pal_error *err)
{
	errno = 0;
	return fwrite(bytes, 1, n, stdout) == n ? PAL_OK : out_failed(err);
}

pal_status pal__out_flush(pal_error *err)
{
	errno = 0;
	return fflush(stdout) == 0 && !ferror(stdout) ? PAL_OK : out_failed(err);
}

pal_status pal__out_id(int32_t id, pal_error *err)
{
	char line[16];
	int n = snprintf(line, sizeof line, "%" PRId32 "\n", id);
	return pal__out_write(line, (size_t)n, err);
}

bool pal__out_closed(void)
{
	return out_errno == EPIPE;
}

pal_status pal__out_json(json_t *object, pal_error *err)
{
	char *text = object ? json_dumps(object, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
	json_decref(object);
	if (!text)
		return pal__fail(err, PAL_ENOMEM, "out of memory: the JSON report");
	pal_status s = pal__out_write(text, strlen(text), err);
	free(text);
	return s ? s : pal__out_write("\n", 1, err);
}

pal_status pal__out_evidence(const json_t *evidence, pal_error *err)
{
	char *text = json_dumps(evidence, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
	if (!text)
		return pal__fail_memory(err, "the JSON report", 0);
	pal_status s = pal__out_write(text, strlen(text), err);
	free(text);
	return s ? s : pal__out_write("\n", 1, err);
}

pal_status pal__write_evidence(const char *path, const json_t *evidence, pal__page page,
			       pal_error *err)
{
	FILE *f = fopen(path, "we");
	if (!f)
		return pal__fail(err, PAL_EIO, "%s: cannot be written: %s", path, strerror(errno));
	pal_status s = PAL_OK;
	if (page)
		s = page(f, path, evidence, err);
	else if (json_dumpf(evidence, f, JSON_COMPACT | JSON_REAL_PRECISION(17)) != 0 ||
		 fflush(f) != 0)
		s = pal__fail(err, PAL_EIO, "%s: cannot be written: %s", path, strerror(errno));
	if (fclose(f) != 0 && !s)
		s = pal__fail(err, PAL_EIO, "%s: cannot be written: %s", path, strerror(errno));
	return s;
}

pal_status pal__out_other(const char *out, const char *read, pal_error *err)
{
	struct stat to, from;
	if (stat(read, &from) == 0 && stat(out, &to) == 0 && from.st_ino == to.st_ino &&
	    from.st_dev == to.st_dev)
		return pal__fail(err, PAL_EINVAL, "-o %s would write over %s", out, read);
	return PAL_OK;
}

/* --- progress ------------------------------------------------------------- */

void pal__bar_start(pal__bar *b, const char *what, const char *unit, bool quiet)
{
	*b = (pal__bar){.what = what,
			.unit = unit,
			.start = pal__now(),
			.wanted = !quiet && isatty(STDERR_FILENO)};
}

void pal__bar_update(pal__bar *b, uint64_t done, uint64_t total)
{
	enum { WIDTH = 30 };
	double now = pal__now(), seconds = now - b->start;
	if (!b->wanted || seconds < 1 || !total || now - b->drawn < 0.1)
		return;
	int full = (int)((double)done / (double)total * WIDTH);
	double rate = (double)done / seconds;
	char text[WIDTH + 1], speed[48], bytes[32];
	for (int i = 0; i < WIDTH; i++)
		text[i] = i < full ? '#' : '-';
	text[WIDTH] = 0;
	if (!strcmp(b->unit, "B"))
		snprintf(speed, sizeof speed, "%s", pal__human_bytes((uint64_t)rate, bytes));
	else
		snprintf(speed, sizeof speed, "%.0f %s", rate, b->unit);
	fprintf(stderr, "\r\033[K%s [%s] %3.0f%% %s/s", b->what, text,
		100 * (double)done / (double)total, speed);
	fflush(stderr);
	b->drawn = now;
	b->shown = true;
}

void pal__bar_end(pal__bar *b)
{
	if (b->shown)
		fputs("\r\033[K", stderr);
	b->shown = false;
}

/* --- figures -------------------------------------------------------------- */

const char *pal__human_bytes(uint64_t n, char buffer[32])
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
	double v = (double)n;
	size_t unit = 0;
	while (v >= 999.5 && unit + 1 < sizeof units / sizeof *units) {
		v /= 1000;
		unit++;
	}
	snprintf(buffer, 32, unit && v < 9.95 ? "%.1f %s" : "%.0f %s", v, units[unit]);
	return buffer;
}

/* The value after "NAME:" in a file of such lines, in buffer; NULL: not found. */
static const char *proc_field(const char *path, const char *name, char *buffer, size_t size)
{
	FILE *f = fopen(path, "re");
	const char *found = NULL;
	size_t n = strlen(name);
	while (f && !found && fgets(buffer, (int)size, f)) {
		char *colon = strchr(buffer, ':');
		if (!colon || strncmp(buffer, name, n) ||
		    buffer[n + strspn(buffer + n, " \t")] != ':')
			continue;
		found = colon + 1 + strspn(colon + 1, " \t");
		buffer[strcspn(buffer, "\n")] = 0;
	}
	if (f)
		fclose(f);
	return found;
}

/* --- JSON ----------------------------------------------------------------- */

json_t *pal__json_string(const char *text, size_t n)
{
	/* An invalid byte takes three bytes as U+FFFD. */
	char *valid = n < SIZE_MAX / 3 ? pal__alloc(3 * n + 1) : NULL;
	size_t at = 0;
	for (size_t i = 0; valid && i < n;) {
		size_t good = pal__utf8_valid(text + i, n - i);
		memcpy(valid + at, text + i, good);
		at += good;
		i += good;
		if (i == n)
			break;
		memcpy(valid + at, "\xef\xbf\xbd", 3);
		at += 3;
		i++;
	}
	json_t *j = valid ? json_stringn(valid, at) : NULL;
	pal__free(valid);
	return j;
}

json_t *pal__json_ids(const int32_t *ids, size_t n)
{
	json_t *j = json_array();
	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(j, json_integer(ids[i])) != 0) {
			json_decref(j);
			return NULL;
		}
	return j;
}

json_t *pal__json_machine(void)
{
	char cpu[256], memory[256];
	struct utsname u = {0};
	cpu_set_t cpus;
	uname(&u);
	const char *name = proc_field("/proc/cpuinfo", "model name", cpu, sizeof cpu);
	const char *kb = proc_field("/proc/meminfo", "MemTotal", memory, sizeof memory);
	return json_pack("{s:s, s:s, s:s, s:i, s:I}", "cpu", name ? name : "unknown", "arch",
			 u.machine, "kernel", u.release, "cores", pal__cpus_allowed(&cpus),
			 "memory_bytes", (json_int_t)(kb ? strtoull(kb, NULL, 10) * 1024 : 0));
}

json_t *pal__json_build(void)
{
#ifdef __clang__
	const char *compiler = "clang " __clang_version__;
#else
	const char *compiler = "gcc " __VERSION__;
#endif
	return json_pack("{s:s, s:s}", "version", PAL_VERSION, "compiler", compiler);
}

json_t *pal__json_model(const char *path, const pal_model_info *info)
{
	char hash[17];
	snprintf(hash, sizeof hash, "%016llx", (unsigned long long)info->hash);
	return json_pack("{s:o, s:o, s:s, s:s, s:I, s:I, s:s, s:i, s:b}", "file",
			 pal__json_string(path, strlen(path)), "name",
			 pal__json_string(info->name, strlen(info->name)), "arch", info->arch,
			 "hash", hash, "parameters", (json_int_t)info->n_params, "weight_bytes",
			 (json_int_t)info->weight_bytes, "isa", info->isa, "n_vocab", info->n_vocab,
			 "from_cache", info->from_cache);
}

json_t *pal__json_evidence(const char *format, const char *path, const pal_model_info *info,
			   const char *kv_type)
{
	char date[32];
	time_t now = time(NULL);
	struct tm utc;
	gmtime_r(&now, &utc);
	strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
	return json_pack("{s:s, s:s, s:o, s:o, s:o, s:i, s:s}", "format", format, "date", date,
			 "machine", pal__json_machine(), "build", pal__json_build(), "model",
			 pal__json_model(path, info), "threads", info->n_threads, "kv_type",
			 kv_type);
}

static const char *word(const json_t *j, const char *name)
{
	return json_string_value(json_object_get(j, name));
}

static double number(const json_t *j, const char *name)
{
	return json_number_value(json_object_get(j, name));
}

pal_status pal__map_line(const json_t *f, pal_error *err)
{
	char line[1024];
	int n = snprintf(line, sizeof line,
			 "%-7s %-8s %-8s %-12s %5.2fx (%.2f to %.2f)  %6.1f tok/s, plain %.1f  "
			 "accepted %.2f (%.2f to %.2f)  %.2f a forward  %s\n",
			 word(f, "isa"), word(f, "workload"), word(f, "mode"), word(f, "drafter"),
			 number(f, "speedup"), number(f, "speedup_low"), number(f, "speedup_high"),
			 number(f, "tok_s"), number(f, "plain_tok_s"), number(f, "acceptance"),
			 number(f, "low"), number(f, "high"), number(f, "tokens_per_forward"),
			 word(f, "verdict"));
	return pal__out_write(line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1, err);
}
