#include "base/newfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define TEMPORARY ".part" /* after the name of a file that is being written */

static pal_status fail(const pal__newfile *f, int e, pal_error *err)
{
	return pal__fail(err, PAL_EIO, "%s cannot be written: %s", f->path,
			 e == EWOULDBLOCK ? "another process is writing it"
			 : e == EINVAL    ? "it is no regular file"
					  : strerror(e));
}

bool pal__make_folders(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		bool made = mkdir(path, 0700) == 0 || errno == EEXIST;
		*slash = '/';
		if (!made)
			return false;
	}
	return true;
}

/* Returns the file, locked and empty, or -1 with errno. */
static int open_part(const char *part)
{
	struct stat mine, named;
	int fd = open(part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666), e = EWOULDBLOCK;
	if (fd < 0)
		return -1;
	if (flock(fd, LOCK_EX | LOCK_NB) != 0 || fstat(fd, &mine) != 0)
		e = errno;
	/* Another process may have finished and renamed it between the two calls above. */
	else if (stat(part, &named) == 0 && mine.st_ino == named.st_ino &&
		 mine.st_dev == named.st_dev) {
		if (ftruncate(fd, 0) == 0)
			return fd;
		e = errno;
	}
	close(fd);
	errno = e;
	return -1;
}

/* Returns 0 or an errno. */
static int reserve(int fd, uint64_t bytes)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && bytes > limit.rlim_cur)
		return EFBIG; /* writing so far would be a signal */
	if (bytes && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) != 0 &&
	    errno != EOPNOTSUPP && errno != ENOSYS)
		return errno;
	return 0;
}

pal_status pal__newfile_open(pal__newfile *f, const char *path, uint64_t bytes, pal_error *err)
{
	struct stat st;
	size_t n = strlen(path);
	*f = (pal__newfile){.path = path, .fd = -1};
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return fail(f, S_ISDIR(st.st_mode) ? EISDIR : EINVAL, err);
	f->part = pal__alloc(n + sizeof TEMPORARY);
	if (!f->part)
		return pal__fail_memory(err, path, n + sizeof TEMPORARY);
	memcpy(f->part, path, n);
	memcpy(f->part + n, TEMPORARY, sizeof TEMPORARY);
	f->fd = open_part(f->part);
	int e = f->fd < 0 ? errno : reserve(f->fd, bytes);
	if (!e)
		return PAL_OK;
	pal_status s = fail(f, e, err);
	pal__newfile_close(f);
	return s;
}

static int write_all(int fd, const uint8_t *bytes, size_t n)
{
	while (n) {
		ssize_t r = write(fd, bytes, n);
		if (r < 0 && errno != EINTR)
			return errno;
		if (r > 0) {
			bytes += r;
			n -= (size_t)r;
		}
	}
	return 0;
}

pal_status pal__newfile_write(pal__newfile *f, const void *bytes, size_t n, pal_error *err)
{
	int e = write_all(f->fd, bytes, n);
	return e ? fail(f, e, err) : PAL_OK;
}

/* Makes a rename last. That it cannot be made to is no failure: the file is there. */
static void sync_folder(char *path)
{
	char *slash = strrchr(path, '/');
	const char *folder = !slash ? "." : slash == path ? "/" : path;
	if (slash)
		*slash = 0;
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
}

pal_status pal__newfile_finish(pal__newfile *f, const void *head, size_t n, pal_error *err)
{
	int e = lseek(f->fd, 0, SEEK_SET) < 0 ? errno : write_all(f->fd, head, n);
	if (!e && (fsync(f->fd) != 0 || rename(f->part, f->path) != 0))
		e = errno;
	if (e)
		return fail(f, e, err);
	sync_folder(f->part);
	close(f->fd); /* and with it the lock */
	pal__free(f->part);
	*f = PAL__NO_NEWFILE;
	return PAL_OK;
}

void pal__newfile_close(pal__newfile *f)
{
	if (f->fd >= 0) {
		unlink(f->part);
		close(f->fd);
	}
	pal__free(f->part);
	*f = PAL__NO_NEWFILE;
}
