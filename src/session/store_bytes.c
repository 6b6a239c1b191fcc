/* Bytes that clients store under names. */
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "session/store_sql.h"

static pal_status check_name(const char *name, pal_error *err)
{
	size_t n = strlen(name);
	if (n && n <= PAL__MAX_NAME)
		return PAL_OK;
	return pal__fail(err, PAL_EINVAL, "a name of %zu bytes (allowed: 1 to %d)", n,
			 PAL__MAX_NAME);
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

pal_status pal__store_put(pal__store *t, const char *name, uint64_t owner, const void *data,
			  size_t n, pal_error *err)
{
	pal_status status = check_name(name, err);
	if (status)
		return status;
	if (n > PAL__MAX_BYTES)
		return pal__fail(err, PAL_ELIMIT, "%s: %zu bytes (allowed: %zu)", name, n,
				 PAL__MAX_BYTES);
	int64_t sum = (int64_t)pal__store_sum(name, PAL__BYTES, (int64_t)owner, data, n);
	pthread_mutex_lock(&t->mutex);
	status = pal__sql_run(t,
			      pal__sql_bind(t, PAL__SQL_PUT_BYTES, "tidbi", name, (int64_t)owner,
					    seconds(), data, n, sum),
			      err);
	pthread_mutex_unlock(&t->mutex);
	return status;
}

/* A copy of what the row has. */
static pal_status take_bytes(sqlite3_stmt *q, const char *name, uint64_t owner, void **data,
			     size_t *n, pal_error *err)
{
	const void *bytes = sqlite3_column_blob(q, 0);
	size_t size = (size_t)sqlite3_column_bytes(q, 0);
	if (pal__store_sum(name, PAL__BYTES, (int64_t)owner, bytes, size) !=
	    (uint64_t)sqlite3_column_int64(q, 1))
		return pal__fail(err, PAL_EFORMAT, "%s is damaged: its checksum does not fit",
				 name);
	void *copy = pal__alloc(size);
	if (!copy)
		return pal__fail_memory(err, name, size);
	if (size)
		memcpy(copy, bytes, size);
	*data = copy;
	*n = size;
	return PAL_OK;
}

pal_status pal__store_get(pal__store *t, const char *name, uint64_t owner, void **data, size_t *n,
			  pal_error *err)
{
	int rc = 0;
	pthread_mutex_lock(&t->mutex);
	sqlite3_stmt *q = pal__sql_bind(t, PAL__SQL_GET_BYTES, "ti", name, (int64_t)owner);
	pal_status status = pal__sql_step(t, q, &rc, err);
	if (!status && rc != SQLITE_ROW)
		status = pal__fail(err, PAL_ENOTFOUND, "there is no %s", name);
	if (!status)
		status = take_bytes(q, name, owner, data, n, err);
	sqlite3_reset(q);
	pthread_mutex_unlock(&t->mutex);
	return status;
}

pal_status pal__store_forget(pal__store *t, const char *name, uint64_t owner, pal_error *err)
{
	pthread_mutex_lock(&t->mutex);
	pal_status status = pal__sql_run(
		t, pal__sql_bind(t, PAL__SQL_FORGET_BYTES, "ti", name, (int64_t)owner), err);
	if (!status && !sqlite3_changes(t->db))
		status = pal__fail(err, PAL_ENOTFOUND, "there is no %s", name);
	pthread_mutex_unlock(&t->mutex);
	return status;
}

pal_status pal__store_expire(pal__store *t, double older_than_s, pal_error *err)
{
	pthread_mutex_lock(&t->mutex);
	pal_status status = pal__sql_run(
		t, pal__sql_bind(t, PAL__SQL_EXPIRE_BYTES, "d", seconds() - older_than_s), err);
	pthread_mutex_unlock(&t->mutex);
	return status;
}
