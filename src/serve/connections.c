#include "serve/connections.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "serve/guard.h"

#define WAKE 0                        /* number of the event that wakes the thread */
#define MAX_LINGER 256                /* connections that are read to their end at a time */
#define FIRST_NUMBER (1 + MAX_LINGER) /* of connections; those below are of `lingering` */
#define REFUSED_S 2                   /* for the request of a connection that is one too many */
#define HUNG_S 0.5                    /* for what a client sent before it hung up */
#define DISCARD ((size_t)256 << 10)   /* bytes at a time */

struct pal__connections {
	int max, max_each;
	double request_s, idle_s;
	pthread_t thread;
	int epoll, wake;

	pthread_mutex_t lock; /* of what follows, and of all connections */
	bool stop;
	pal__connection *first;
	int n;
	uint64_t next_number;
	double next_look; /* when the thread wakes by itself */
	struct {
		int fd; /* -1: free */
		double deadline;
	} lingering[MAX_LINGER];
};

/* --- the thread --------------------------------------------------------------- */

static void refuse(pal__connection *k, int status, const char *message)
{
	char text[1024];
	if (k->reply)
		pal__reply_refused(k->reply, status);
	if (k->tls)
		return;
	size_t n = pal__error_raw(k->reply, status, message, text, sizeof text);
	/* What does not fit at once into an empty buffer of the system is not worth waiting for. */
	ssize_t sent = send(k->fd, text, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)sent;
}

static void stop_lingering(pal__connections *all, size_t i)
{
	close(all->lingering[i].fd);
	all->lingering[i].fd = -1;
}

static void too_late(pal__connection *k)
{
	k->deadline = 0;
	k->late = true;
	if (!k->idle)
		refuse(k, 408, "the request did not arrive in time");
	shutdown(k->fd, SHUT_RDWR);
}

/* Whatever is due; returns when something is next. */
static double look(pal__connections *all, double now)
{
	double next = INFINITY;
	for (pal__connection *k = all->first; k; k = k->next) {
		if (k->deadline > 0 && k->deadline <= now)
			too_late(k);
		else if (k->deadline > 0)
			next = fmin(next, k->deadline);
	}
	for (size_t i = 0; i < MAX_LINGER; i++) {
		if (all->lingering[i].fd < 0)
			continue;
		if (all->lingering[i].deadline <= now)
			stop_lingering(all, i);
		else
			next = fmin(next, all->lingering[i].deadline);
	}
	return next;
}

static void discard(pal__connections *all, size_t i)
{
	int fd = all->lingering[i].fd;
	if (fd < 0)
		return;
	/* TCP throws away what it is asked to truncate, without a copy. */
	ssize_t n = recv(fd, NULL, DISCARD, MSG_DONTWAIT | MSG_TRUNC);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		stop_lingering(all, i);
}

/* libmicrohttpd need not notice: when the end comes right behind other bytes, it sleeps. */
static void hung_up(pal__connection *k)
{
	double soon = pal__now() + HUNG_S;
	k->hung = true;
	if (k->answering)
		pal__reply_leave(k->reply);
	else if (k->deadline > soon || k->deadline <= 0)
		k->deadline = soon;
}

static void happened(pal__connections *all, uint64_t number)
{
	uint64_t count;
	if (number == WAKE) {
		ssize_t n = read(all->wake, &count, sizeof count);
		(void)n;
	} else if (number < FIRST_NUMBER) {
		discard(all, number - 1);
	} else {
		pal__connection *k = all->first;
		while (k && k->number != number)
			k = k->next;
		if (k)
			hung_up(k);
	}
}

static void *watch(void *arg)
{
	pal__connections *all = arg;
	struct epoll_event events[64];
	int timeout = -1;
	for (bool stop = false; !stop;) {
		int n = epoll_wait(all->epoll, events, 64, timeout);
		pthread_mutex_lock(&all->lock);
		for (int i = 0; i < n; i++)
			happened(all, events[i].data.u64);
		double now = pal__now();
		all->next_look = look(all, now);
		double wait_s = all->next_look - now;
		timeout = wait_s < 1000 ? (int)(wait_s * 1000) + 1 : -1;
		if (timeout < 0)
			all->next_look = INFINITY;
		stop = all->stop;
		pthread_mutex_unlock(&all->lock);
	}
	return NULL;
}

static void wake(pal__connections *all)
{
	uint64_t one = 1;
	ssize_t n = write(all->wake, &one, sizeof one);
	(void)n; /* it is full only when the thread is about to wake anyway */
}

static void set_deadline(pal__connection *k, double seconds)
{
	k->deadline = pal__now() + seconds;
	if (k->deadline < k->all->next_look)
		wake(k->all);
}

/* --- all of them ---------------------------------------------------------------- */

static pal_status start(pal__connections *all, pal_error *err)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE};
	all->epoll = epoll_create1(EPOLL_CLOEXEC);
	all->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (all->epoll < 0 || all->wake < 0 ||
	    epoll_ctl(all->epoll, EPOLL_CTL_ADD, all->wake, &event))
		return pal__fail(err, PAL_EIO, "connections cannot be watched: %s",
				 strerror(errno));
	int error = pthread_create(&all->thread, NULL, watch, all);
	if (error)
		return pal__fail(err, PAL_EIO, "a thread for connections could not be made: %s",
				 strerror(error));
	return PAL_OK;
}

static void release(pal__connections *all)
{
	if (all->epoll >= 0)
		close(all->epoll);
	if (all->wake >= 0)
		close(all->wake);
	pthread_mutex_destroy(&all->lock);
	pal__free(all);
}

pal_status pal__connections_new(int max, int max_each, double request_s, double idle_s,
				pal__connections **out, pal_error *err)
{
	pal__connections *all = pal__calloc(1, sizeof *all);
	if (!all)
		return pal__fail_memory(err, "connections", sizeof *all);
	*all = (pal__connections){.max = max,
				  .max_each = max_each ? max_each : max,
				  .request_s = request_s,
				  .idle_s = idle_s,
				  .epoll = -1,
				  .wake = -1,
				  .next_number = FIRST_NUMBER,
				  .next_look = INFINITY};
	for (size_t i = 0; i < MAX_LINGER; i++)
		all->lingering[i].fd = -1;
	pthread_mutex_init(&all->lock, NULL);
	pal_status s = start(all, err);
	if (s)
		release(all);
	else
		*out = all;
	return s;
}

void pal__connections_free(pal__connections *all)
{
	if (!all)
		return;
	pthread_mutex_lock(&all->lock);
	all->stop = true;
	pthread_mutex_unlock(&all->lock);
	wake(all);
	pthread_join(all->thread, NULL);
	for (size_t i = 0; i < MAX_LINGER; i++)
		if (all->lingering[i].fd >= 0)
			stop_lingering(all, i);
	release(all);
}

int pal__connections_count(pal__connections *all)
{
	pthread_mutex_lock(&all->lock);
	int n = all->n;
	pthread_mutex_unlock(&all->lock);
	return n;
}

void pal__connections_leave(pal__connections *all)
{
	pthread_mutex_lock(&all->lock);
	for (pal__connection *k = all->first; k; k = k->next)
		if (k->reply)
			pal__reply_leave(k->reply);
	pthread_mutex_unlock(&all->lock);
}

/* --- one of them ---------------------------------------------------------------- */

static int refusal(const pal__connections *all, uint64_t address)
{
	int each = 0;
	for (const pal__connection *k = all->first; k; k = k->next)
		each += k->address == address;
	if (all->n >= all->max)
		return 503;
	return each >= all->max_each ? 429 : 0;
}

pal__connection *pal__connection_open(pal__connections *all, int fd, bool tls,
				      const struct sockaddr *address)
{
	pal__connection *k = pal__calloc(1, sizeof *k);
	if (!k)
		return NULL;
	*k = (pal__connection){
		.all = all, .fd = fd, .tls = tls, .address = pal__address_hash(address)};
	struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT};
	pthread_mutex_lock(&all->lock);
	k->refused = refusal(all, k->address);
	event.data.u64 = k->number = all->next_number++;
	if (epoll_ctl(all->epoll, EPOLL_CTL_ADD, fd, &event)) {
		pthread_mutex_unlock(&all->lock);
		pal__free(k);
		return NULL;
	}
	k->next = all->first;
	if (k->next)
		k->next->previous = k;
	all->first = k;
	all->n++;
	set_deadline(k, k->refused ? fmin(all->request_s, REFUSED_S) : all->request_s);
	pthread_mutex_unlock(&all->lock);
	return k;
}

/* A second number of the socket keeps it open while its rest is read. */
static void linger(pal__connection *k)
{
	pal__connections *all = k->all;
	size_t i = 0;
	while (i < MAX_LINGER && all->lingering[i].fd >= 0)
		i++;
	int fd = i < MAX_LINGER ? dup(k->fd) : -1;
	if (fd < 0)
		return;
	struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.u64 = 1 + i};
	all->lingering[i].fd = fd;
	all->lingering[i].deadline = pal__now() + PAL__LINGER_S;
	if (epoll_ctl(all->epoll, EPOLL_CTL_ADD, fd, &event))
		stop_lingering(all, i);
	else
		wake(all);
}

void pal__connection_close(pal__connection *k)
{
	if (!k)
		return;
	pal__connections *all = k->all;
	pthread_mutex_lock(&all->lock);
	epoll_ctl(all->epoll, EPOLL_CTL_DEL, k->fd, NULL);
	if (k->unread)
		linger(k);
	if (k->previous)
		k->previous->next = k->next;
	else
		all->first = k->next;
	if (k->next)
		k->next->previous = k->previous;
	all->n--;
	pthread_mutex_unlock(&all->lock);
	pal__free(k);
}

void pal__connection_receive(pal__connection *k, pal__reply *reply)
{
	pthread_mutex_lock(&k->all->lock);
	k->reply = reply;
	if (k->idle && !k->late && !k->hung) /* else it began when the connection did */
		set_deadline(k, k->all->request_s);
	k->idle = false;
	pthread_mutex_unlock(&k->all->lock);
}

bool pal__connection_claim(pal__connection *k)
{
	pthread_mutex_lock(&k->all->lock);
	bool in_time = !k->late;
	k->deadline = 0;
	pthread_mutex_unlock(&k->all->lock);
	return in_time;
}

void pal__connection_answer(pal__connection *k)
{
	pthread_mutex_lock(&k->all->lock);
	k->answering = true;
	if (k->hung)
		pal__reply_leave(k->reply);
	pthread_mutex_unlock(&k->all->lock);
}

void pal__connection_done(pal__connection *k)
{
	pthread_mutex_lock(&k->all->lock);
	k->reply = NULL;
	k->answering = false;
	k->idle = true;
	set_deadline(k, k->hung ? HUNG_S : k->all->idle_s);
	pthread_mutex_unlock(&k->all->lock);
}

void pal__connection_refuse(pal__connection *k, int status, const char *message)
{
	pthread_mutex_lock(&k->all->lock);
	if (!k->late)
		refuse(k, status, message);
	k->late = true;
	k->unread = true;
	pthread_mutex_unlock(&k->all->lock);
}
