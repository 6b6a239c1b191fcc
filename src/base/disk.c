#include "base/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic int64_t fail_after = -1;
static _Atomic bool failed;

void pal__disk_fail_after(int64_t n)
{
	atomic_store(&fail_after, n);
	atomic_store(&failed, false);
}

bool pal__disk_failed(void)
{
	return atomic_load(&failed);
}

static bool injected(void)
{
	int64_t n = atomic_load(&fail_after);
	while (n > 0 && !atomic_compare_exchange_weak(&fail_after, &n, n - 1))
		;
	if (n == 0)
		atomic_store(&failed, true);
	return n == 0;
}

static int open_unnamed(const char *dir)
{
	char path[4096];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd;
	/* A file system without unnamed files. */
	if (snprintf(path, sizeof path, "%s/pal-XXXXXX", dir) >= (int)sizeof path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

pal_status pal__disk_open(pal__disk *d, const char *dir, const char *what, pal_error *err)
{
	const char *place = dir ? dir : getenv("TMPDIR");
	if (!place || !*place)
		place = "/var/tmp";
	int fd = open_unnamed(place);
	if (fd < 0)
		return pal__fail(err, PAL_EIO, "%s: cannot make a file in %s: %s", what, place,
				 strerror(errno));
	*d = (pal__disk){.fd = fd, .what = what};
	return PAL_OK;
}

void pal__disk_close(pal__disk *d)
{
	if (d->fd >= 0)
		close(d->fd);
	*d = PAL__NO_DISK;
}

pal_status pal__disk_write(pal__disk *d, const void *from, size_t n, uint64_t at, pal_error *err)
{
	const uint8_t *p = from;
	for (size_t done = 0; done < n;) {
		ssize_t k = -1;
		errno = EIO;
		if (!injected())
			k = pwrite(d->fd, p + done, n - done, (off_t)(at + done));
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return pal__fail(err, PAL_EIO, "%s: writing %zu bytes at %llu: %s", d->what,
					 n, (unsigned long long)at, strerror(errno));
		done += (size_t)k;
	}
	if (at + n > d->bytes)
		d->bytes = at + n;
	return PAL_OK;
}

pal_status pal__disk_read(const pal__disk *d, void *to, size_t n, uint64_t at, pal_error *err)
{
	uint8_t *p = to;
	for (size_t done = 0; done < n;) {
		ssize_t k = -1;
		errno = EIO;
		if (!injected())
			k = pread(d->fd, p + done, n - done, (off_t)(at + done));
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return pal__fail(err, PAL_EIO, "%s: reading %zu bytes at %llu: %s", d->what,
					 n, (unsigned long long)at,
					 k ? strerror(errno) : "the file ends before");
		done += (size_t)k;
	}
	return PAL_OK;
}

pal_status pal__disk_copy(const pal__disk *from, pal__disk *to, pal_error *err)
{
	off_t in = 0, out = 0;
	while ((uint64_t)in < from->bytes) {
		ssize_t k = -1;
		errno = EIO;
		if (!injected())
			k = copy_file_range(from->fd, &in, to->fd, &out,
					    (size_t)(from->bytes - (uint64_t)in), 0);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return pal__fail(err, PAL_EIO, "%s: copying byte %lld: %s", to->what,
					 (long long)in, k ? strerror(errno) : "the file ends");
	}
	to->bytes = from->bytes;
	return PAL_OK;
}

void pal__disk_forget(pal__disk *d, uint64_t at, uint64_t n)
{
	(void)!fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n);
}
