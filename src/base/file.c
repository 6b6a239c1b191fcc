#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The table is read by a signal handler, so its fields are atomics: a slot is
 * live while end is not zero, and end is written last and cleared first. */
static struct {
	atomic_uintptr_t start, end;
	atomic_bool shrunk;
} maps[PAL__FILE_MAPS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before; /* whose SIGBUS it is when it is not ours */

/* A read past the end of a shrunken file: put a page of zeros there and go on. The plain
 * system call is safe in a handler, and another thread may be reading those zeros already. */
static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t at = (uintptr_t)info->si_addr;
	for (int i = 0; i < PAL__FILE_MAPS; i++) {
		uintptr_t end = atomic_load(&maps[i].end), start = atomic_load(&maps[i].start);
		/* A slot whose end has changed meanwhile is another mapping's: start may
		 * belong to a later one, and marking it would hide who has shrunk. */
		if (!end || at < start || at >= end || atomic_load(&maps[i].end) != end)
			continue;
		atomic_store(&maps[i].shrunk, true);
		long r = syscall(SYS_mmap, at & ~(page - 1), page, PROT_READ,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		errno = saved;
		if (r != -1)
			return;
	}
	errno = saved;
	if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(sig, info, context);
	} else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
		before.sa_handler(sig);
	} else { /* not ours: let it kill the process as it would have */
		signal(SIGBUS, SIG_DFL);
		raise(SIGBUS);
	}
}

/* Done for every mapping, since the program around us may have set its own handler. */
static bool set_handler(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_RESTART}, now;
	sigemptyset(&sa.sa_mask);
	if (sigaction(SIGBUS, NULL, &now) != 0)
		return false;
	if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_sigbus)
		return true;
	before = now;
	return sigaction(SIGBUS, &sa, NULL) == 0;
}

static int take_slot(uintptr_t start, size_t page_rounded)
{
	int slot = -1;
	pthread_mutex_lock(&lock);
	bool handler_set = set_handler();
	for (int i = 0; handler_set && i < PAL__FILE_MAPS && slot < 0; i++) {
		if (atomic_load(&maps[i].end))
			continue;
		slot = i;
		atomic_store(&maps[i].start, start);
		atomic_store(&maps[i].shrunk, false);
		atomic_store(&maps[i].end, start + page_rounded);
	}
	pthread_mutex_unlock(&lock);
	return slot;
}

/* On success the descriptor belongs to *out. */
static pal_status map_open(int fd, const char *path, pal__file *out, pal_error *err)
{
	struct stat st;
	if (fstat(fd, &st) != 0)
		return pal__fail(err, PAL_EIO, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return pal__fail(err, PAL_EIO, "%s: not a regular file", path);
	if (st.st_size == 0) {
		*out = (pal__file){.slot = -1, .fd = -1};
		close(fd);
		return PAL_OK;
	}
	size_t size = (size_t)st.st_size, page = (size_t)sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return pal__fail(err, PAL_EIO, "%s: cannot map %zu bytes: %s", path, size,
				 strerror(errno));
	int slot = take_slot((uintptr_t)p, (size + page - 1) & ~(page - 1));
	if (slot < 0) {
		munmap(p, size);
		return pal__fail(err, PAL_ELIMIT, "%s: more than %d files are mapped", path,
				 PAL__FILE_MAPS);
	}
	*out = (pal__file){.data = p, .size = size, .slot = slot, .fd = fd};
	return PAL_OK;
}

pal_status pal__file_map(const char *path, pal__file *out, pal_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return pal__fail(err, PAL_EIO, "%s: %s", path, strerror(errno));
	pal_status s = map_open(fd, path, out, err);
	if (s != PAL_OK)
		close(fd);
	return s;
}

void pal__file_unmap(pal__file *f)
{
	if (f->data) {
		atomic_store(&maps[f->slot].end, 0);
		munmap((void *)(uintptr_t)f->data, f->size);
		close(f->fd);
	}
	*f = (pal__file){.slot = -1, .fd = -1};
}

bool pal__file_shrunk(const pal__file *f)
{
	struct stat st;
	if (!f->data)
		return false;
	if (fstat(f->fd, &st) != 0 || (uintmax_t)st.st_size < f->size)
		atomic_store(&maps[f->slot].shrunk, true);
	return atomic_load(&maps[f->slot].shrunk);
}

bool pal__file_torn(const pal__file *f)
{
	if (!f->data)
		return false;
	(void)*(const volatile uint8_t *)(f->data + f->size - 1);
	return atomic_load(&maps[f->slot].shrunk);
}

static int64_t nanoseconds(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

bool pal__file_times(const pal__file *f, int64_t *mtime, int64_t *ctime)
{
	struct stat st;
	if (!f->data || fstat(f->fd, &st) != 0)
		return false;
	*mtime = nanoseconds(st.st_mtim);
	*ctime = nanoseconds(st.st_ctim);
	return true;
}

void pal__file_keep(const pal__file *f)
{
	if (f->data)
		madvise((void *)(uintptr_t)f->data, f->size, MADV_HUGEPAGE);
}

void pal__file_forget(const pal__file *f, size_t from, size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t start = (from + page - 1) & ~(page - 1), end = (from + n) & ~(page - 1);
	if (f->data && end > start)
		madvise((void *)(uintptr_t)(f->data + start), end - start, MADV_DONTNEED);
}
