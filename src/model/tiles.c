#include "model/tiles.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/checked.h"
#include "base/mem.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fields are little-endian");

#define MAGIC "PALTILES"
#define FORMAT 1
#define BLOCK PAL__FILE_TAIL    /* the header and the trailer are whole blocks */
#define PIECE ((size_t)1 << 22) /* of the file, with one checksum: whole huge pages */
#define TEMPORARY ".part"       /* after the name of a file that is being written */
#define NAME_SHOWN 100          /* bytes of the model's name in the file's */

typedef struct {
	char magic[8];
	uint32_t format, layout;
	uint64_t file_bytes, model_bytes;
	int64_t mtime, ctime;
	uint64_t model_head, model_hash;
	uint64_t n_records, tiles_at, tiles_bytes;
	uint64_t trailer_hash; /* of all bytes behind the tiles */
} header;

_Static_assert(sizeof(header) == 96 && sizeof(pal__tiles_record) == 40, "no padding");

/* Where things are: header and records, to the end of whose blocks is their checksum; tiles;
 * the trailer, which is zeros up to a block and the pieces' checksums, zeros again. */
typedef struct {
	size_t head, tiles, hashes, file; /* bytes of the head and the tiles; offset; bytes */
	size_t first, n_pieces;           /* first: the file's piece where the tiles begin */
} layout;

static bool lay_out(const pal__tiles_key *key, layout *out)
{
	size_t records, end, bytes;
	layout l = {.tiles = key->bytes};
	if (!pal__mul_size(key->n_records, sizeof *key->records, &records) ||
	    !pal__add_size(records, sizeof(header) + sizeof(uint64_t), &bytes) ||
	    !pal__round_up(bytes, BLOCK, &l.head) || !pal__add_size(l.head, key->bytes, &end) ||
	    !pal__round_up(end, BLOCK, &l.hashes))
		return false;
	l.first = l.head / PIECE;
	l.n_pieces = (end - 1) / PIECE - l.first + 1;
	if (!pal__mul_size(l.n_pieces, sizeof(uint64_t), &bytes) ||
	    !pal__add_size(l.hashes, bytes, &bytes) || !pal__round_up(bytes, BLOCK, &l.file))
		return false;
	*out = l;
	return l.file <= INT64_MAX; /* an off_t */
}

/* The bytes [*from, *to) of the tiles that piece i holds. */
static void piece(const layout *l, size_t i, size_t *from, size_t *to)
{
	size_t start = (l->first + i) * PIECE, end = start + PIECE;
	*from = start < l->head ? 0 : start - l->head;
	*to = end - l->head < l->tiles ? end - l->head : l->tiles;
}

/* The head as it is written, zeros and checksum included; NULL: no memory. */
static uint8_t *make_head(const pal__tiles_key *key, const layout *l, uint64_t model_hash,
			  uint64_t trailer_hash)
{
	const header h = {.magic = MAGIC,
			  .format = FORMAT,
			  .layout = PAL__TILES_LAYOUT,
			  .file_bytes = l->file,
			  .model_bytes = key->model_bytes,
			  .mtime = key->mtime,
			  .ctime = key->ctime,
			  .model_head = key->model_head,
			  .model_hash = model_hash,
			  .n_records = key->n_records,
			  .tiles_at = l->head,
			  .tiles_bytes = l->tiles,
			  .trailer_hash = trailer_hash};
	uint8_t *head = pal__calloc(1, l->head);
	if (!head)
		return NULL;
	memcpy(head, &h, sizeof h);
	memcpy(head + sizeof h, key->records, key->n_records * sizeof *key->records);
	uint64_t sum = XXH3_64bits(head, l->head - sizeof sum);
	memcpy(head + l->head - sizeof sum, &sum, sizeof sum);
	return head;
}

/* --- reading ------------------------------------------------------------------ */

/* What is wrong with a file whose head is not the one that is wanted. */
static pal_status explain(const char *path, const pal__file *f, const layout *l,
			  const uint8_t *want, pal_error *err)
{
	header h, w;
	uint64_t sum;
	if (f->size < sizeof h || memcmp(f->data, MAGIC, sizeof h.magic) != 0)
		return pal__fail(err, PAL_EFORMAT, "%s is not a file of tiles", path);
	memcpy(&h, f->data, sizeof h);
	memcpy(&w, want, sizeof w);
	if (h.format != FORMAT)
		return pal__fail(err, PAL_EFORMAT, "%s has format version %u, this program %u",
				 path, h.format, FORMAT);
	if (f->size >= l->head)
		memcpy(&sum, f->data + l->head - sizeof sum, sizeof sum);
	if (f->size < l->head || XXH3_64bits(f->data, l->head - sizeof sum) != sum)
		return pal__fail(err, PAL_EFORMAT, "%s is damaged in its header", path);
	if (h.layout != PAL__TILES_LAYOUT)
		return pal__fail(err, PAL_EFORMAT, "%s has layout version %u, this program %u",
				 path, h.layout, PAL__TILES_LAYOUT);
	if (h.model_bytes != w.model_bytes || h.mtime != w.mtime || h.ctime != w.ctime ||
	    h.model_head != w.model_head)
		return pal__fail(err, PAL_EFORMAT, "%s is of an earlier state of the model file",
				 path);
	if (h.file_bytes == w.file_bytes && f->size != l->file)
		return pal__fail(err, PAL_EFORMAT, "%s has %zu bytes instead of %zu", path, f->size,
				 l->file);
	return pal__fail(err, PAL_EFORMAT, "%s is of other matrices", path);
}

static pal_status check_head(const char *path, const pal__tiles_key *key, const layout *l,
			     pal__tiles *t, pal_error *err)
{
	header h = {.format = FORMAT};
	if (t->file.size >= sizeof h)
		memcpy(&h, t->file.data, sizeof h);
	uint8_t *want = make_head(key, l, h.model_hash, h.trailer_hash);
	if (!want)
		return pal__fail_memory(err, "the header of a file of tiles", l->head);
	pal_status s = PAL_OK;
	if (t->file.size != l->file || memcmp(t->file.data, want, l->head) != 0)
		s = explain(path, &t->file, l, want, err);
	else if (XXH3_64bits(t->file.data + l->head + l->tiles, l->file - l->head - l->tiles) !=
		 h.trailer_hash)
		s = pal__fail(err, PAL_EFORMAT, "%s is damaged in its list of checksums", path);
	pal__free(want);
	if (s == PAL_OK) {
		t->data = t->file.data + l->head;
		t->model_hash = h.model_hash;
	}
	return s;
}

struct check {
	const layout *l;
	const pal__tiles *t;
	pal__tiles_step step;
	void *user;
	atomic_size_t bad; /* pieces */
};

static void check_piece(void *arg, size_t i, int worker)
{
	struct check *c = arg;
	size_t from, to;
	uint64_t want;
	piece(c->l, i, &from, &to);
	memcpy(&want, c->t->file.data + c->l->hashes + i * sizeof want, sizeof want);
	if (XXH3_64bits(c->t->data + from, to - from) != want)
		atomic_fetch_add(&c->bad, 1);
	c->step(c->user, to - from, worker);
}

pal_status pal__tiles_open(const char *path, const pal__tiles_key *key, pal__pool *pool,
			   pal__tiles_step step, void *user, pal__tiles *out, pal_error *err)
{
	layout l;
	pal__tiles t = {.data = NULL};
	if (!lay_out(key, &l))
		return pal__fail(err, PAL_EFORMAT, "%s: the tiles are too large for a file", path);
	pal_status s = pal__file_map(path, &t.file, err);
	if (s != PAL_OK)
		return s;
	struct check c = {.l = &l, .t = &t, .step = step, .user = user};
	pal__file_keep(&t.file);
	s = check_head(path, key, &l, &t, err);
	if (s == PAL_OK) {
		pal__pool_run(pool, l.n_pieces, check_piece, &c);
		if (c.bad)
			s = pal__fail(err, PAL_EFORMAT, "%s is damaged in %zu of its %zu pieces",
				      path, (size_t)c.bad, l.n_pieces);
	}
	if (s != PAL_ENOMEM && pal__file_shrunk(&t.file))
		s = pal__fail(err, PAL_EFORMAT, "%s became shorter while it was read", path);
	if (s == PAL_OK)
		*out = t;
	else
		pal__file_unmap(&t.file);
	return s;
}

/* --- writing ------------------------------------------------------------------ */

struct writing {
	const layout *l;
	const uint8_t *tiles;
	uint8_t *trailer;
	size_t trailer_bytes;
	int fd;
	atomic_int failed; /* an errno */
	pal__tiles_step step;
	void *user;
};

/* Returns 0 or an errno. */
static int write_at(int fd, const uint8_t *bytes, size_t n, size_t at)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = pwrite(fd, bytes + done, n - done, (off_t)(at + done));
		if (r < 0 && errno != EINTR)
			return errno;
		if (r > 0)
			done += (size_t)r;
	}
	return 0;
}

static void write_piece(void *arg, size_t i, int worker)
{
	struct writing *w = arg;
	size_t from, to;
	piece(w->l, i, &from, &to);
	uint64_t sum = XXH3_64bits(w->tiles + from, to - from);
	size_t hashes = w->l->hashes - w->l->head - w->l->tiles; /* of the trailer */
	memcpy(w->trailer + hashes + i * sizeof sum, &sum, sizeof sum);
	int e = atomic_load(&w->failed)
			? 0
			: write_at(w->fd, w->tiles + from, to - from, w->l->head + from);
	if (e)
		atomic_store(&w->failed, e);
	w->step(w->user, to - from, worker);
}

/* The temporary file, empty and locked, or -1 with errno; EWOULDBLOCK: another process is
 * writing it, or just has. One that a killed process left is taken over. */
static int open_temporary(const char *path)
{
	struct stat mine, named;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666), e = EWOULDBLOCK;
	if (fd < 0)
		return -1;
	if (flock(fd, LOCK_EX | LOCK_NB) != 0 || fstat(fd, &mine) != 0)
		e = errno;
	else if (stat(path, &named) == 0 && mine.st_ino == named.st_ino &&
		 mine.st_dev == named.st_dev) {
		if (ftruncate(fd, 0) == 0)
			return fd;
		e = errno;
	}
	close(fd);
	errno = e;
	return -1;
}

/* Asks for all the room at once: better no file than one that fills the disk. */
static int reserve(int fd, size_t bytes)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && bytes > limit.rlim_cur)
		return EFBIG; /* writing so far would be a signal */
	if (fallocate(fd, 0, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP && errno != ENOSYS)
		return errno;
	return 0;
}

/* Returns 0, an errno, or -1: no memory. */
static int fill(struct writing *w, const pal__tiles_key *key, uint64_t model_hash, pal__pool *pool)
{
	const layout *l = w->l;
	int e = reserve(w->fd, l->file);
	if (e)
		return e;
	pal__pool_run(pool, l->n_pieces, write_piece, w);
	uint64_t sum = XXH3_64bits(w->trailer, w->trailer_bytes);
	uint8_t *head = make_head(key, l, model_hash, sum);
	if (!head)
		return -1;
	e = atomic_load(&w->failed);
	if (!e)
		e = write_at(w->fd, w->trailer, w->trailer_bytes, l->head + l->tiles);
	if (!e)
		e = write_at(w->fd, head, l->head, 0);
	pal__free(head);
	return e ? e : fsync(w->fd) != 0 ? errno : 0;
}

/* Makes a rename last. That it cannot be made to is no failure: the file is only a copy. */
static void sync_folder(char *path)
{
	char *slash = strrchr(path, '/');
	*slash = 0;
	int fd = open(*path ? path : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*slash = '/';
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
}

/* temporary: path with TEMPORARY behind it. Returns as fill does. */
static int write_file(struct writing *w, const char *path, char *temporary,
		      const pal__tiles_key *key, uint64_t model_hash, pal__pool *pool)
{
	char *slash = strrchr(temporary, '/');
	*slash = 0;
	mkdir(temporary, 0777); /* if it fails, so does what follows, with a better reason */
	*slash = '/';
	w->fd = open_temporary(temporary);
	if (w->fd < 0)
		return errno;
	int e = fill(w, key, model_hash, pool);
	if (!e && rename(temporary, path) != 0)
		e = errno;
	if (e)
		unlink(temporary);
	else
		sync_folder(temporary);
	close(w->fd); /* and with it the lock */
	return e;
}

pal_status pal__tiles_write(const char *path, const pal__tiles_key *key, uint64_t model_hash,
			    const uint8_t *tiles, pal__pool *pool, pal__tiles_step step, void *user,
			    pal_error *err)
{
	layout l;
	if (!lay_out(key, &l))
		return pal__fail(err, PAL_EIO, "%s: the tiles are too large for a file", path);
	struct writing w = {.l = &l,
			    .tiles = tiles,
			    .trailer_bytes = l.file - l.head - l.tiles,
			    .step = step,
			    .user = user};
	size_t n = strlen(path);
	char *temporary = pal__alloc(n + sizeof TEMPORARY);
	w.trailer = pal__calloc(1, w.trailer_bytes);
	int e = -1;
	if (temporary && w.trailer) {
		memcpy(temporary, path, n);
		memcpy(temporary + n, TEMPORARY, sizeof TEMPORARY);
		e = write_file(&w, path, temporary, key, model_hash, pool);
	}
	pal__free(temporary);
	pal__free(w.trailer);
	if (e < 0)
		return pal__fail_memory(err, "writing tiles", w.trailer_bytes);
	if (e)
		return pal__fail(err, PAL_EIO, "%s cannot be written: %s", path,
				 e == EWOULDBLOCK ? "another process is writing it" : strerror(e));
	return PAL_OK;
}

pal_status pal__tiles_path(const char *dir, const char *model, char **out, pal_error *err)
{
	char whole[PATH_MAX];
	if (!realpath(model, whole))
		return pal__fail(err, PAL_EIO, "%s: %s", model, strerror(errno));
	const char *name = strrchr(whole, '/') + 1, *end = strrchr(name, '.');
	size_t n = end && end > name ? (size_t)(end - name) : strlen(name);
	n = n < NAME_SHOWN ? n : NAME_SHOWN;
	size_t size = strlen(dir) + n + sizeof "/-0123456789abcdef.tiles";
	char *path = pal__alloc(size);
	if (!path)
		return pal__fail_memory(err, "the path of a file of tiles", size);
	snprintf(path, size, "%s/%.*s-%016llx.tiles", dir, (int)n, name,
		 (unsigned long long)XXH3_64bits(whole, strlen(whole)));
	*out = path;
	return PAL_OK;
}
