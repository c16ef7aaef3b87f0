/* sd-event, wrapped. See loop.h. */
#include "loop.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

struct loop {
	sd_event *event;
	uint64_t longest_us;
	const char *longest_name;
};

struct loop_source {
	struct loop *loop;
	sd_event_source *source;
	const char *name;
	void (*on_io)(void *ud, uint32_t revents);
	void (*on_time)(void *ud);
	void *ud;
	int soon;	    /* of loop_soon, else -1 */
	bool running, dead; /* freed inside of its own callback */
};

uint64_t loop_now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t loop_now_ms(void)
{
	return loop_now_us() / 1000;
}

int loop_new(struct loop **ret)
{
	struct loop *l = calloc(1, sizeof(*l));
	int r;

	if (l == NULL)
		abort();
	r = sd_event_new(&l->event);
	if (r < 0) {
		free(l);
		return r;
	}
	l->longest_name = "";
	*ret = l;
	return 0;
}

void loop_free(struct loop *l)
{
	if (l == NULL)
		return;
	sd_event_unref(l->event);
	free(l);
}

int loop_run(struct loop *l)
{
	return sd_event_loop(l->event);
}

void loop_stop(struct loop *l)
{
	sd_event_exit(l->event, 0);
}

void loop_watchdog(struct loop *l)
{
	sd_event_set_watchdog(l->event, true);
}

uint64_t loop_longest_us(const struct loop *l, const char **ret_name)
{
	*ret_name = l->longest_name;
	return l->longest_us;
}

/* Around each callback: the time it took, and a free that was asked for inside of it. */
static void dispatch(struct loop_source *s, uint32_t revents)
{
	uint64_t begin = loop_now_us(), took;

	s->running = true;
	if (s->on_io != NULL)
		s->on_io(s->ud, revents);
	else
		s->on_time(s->ud);
	s->running = false;
	took = loop_now_us() - begin;
	if (took > s->loop->longest_us) {
		s->loop->longest_us = took;
		s->loop->longest_name = s->name;
	}
	if (s->dead)
		free(s);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *ud)
{
	(void)source;
	(void)fd;
	dispatch(ud, revents);
	return 0;
}

static int on_time(sd_event_source *source, uint64_t usec, void *ud)
{
	(void)source;
	(void)usec;
	dispatch(ud, 0);
	return 0;
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *ud)
{
	(void)source;
	(void)info;
	dispatch(ud, 0);
	return 0;
}

static int on_soon(sd_event_source *source, int fd, uint32_t revents, void *ud)
{
	eventfd_t n;

	(void)source;
	(void)revents;
	if (eventfd_read(fd, &n) == 0)
		dispatch(ud, 0);
	return 0;
}

static struct loop_source *source_new(struct loop *l, const char *name, void *ud)
{
	struct loop_source *s = calloc(1, sizeof(*s));

	if (s == NULL)
		abort();
	s->loop = l;
	s->name = name;
	s->ud = ud;
	s->soon = -1;
	return s;
}

struct loop_source *loop_io(struct loop *l, const char *name, int fd, uint32_t events,
			    void (*cb)(void *ud, uint32_t revents), void *ud)
{
	struct loop_source *s = source_new(l, name, ud);

	s->on_io = cb;
	if (sd_event_add_io(l->event, &s->source, fd, events, on_io, s) < 0)
		abort();
	return s;
}

struct loop_source *loop_timer(struct loop *l, const char *name, uint64_t ms, void (*cb)(void *ud), void *ud)
{
	struct loop_source *s = source_new(l, name, ud);

	s->on_time = cb;
	/* Accuracy 1: 0 would mean 250 ms. */
	if (sd_event_add_time_relative(l->event, &s->source, CLOCK_MONOTONIC, ms * 1000, 1, on_time, s) < 0)
		abort();
	return s;
}

struct loop_source *loop_signal(struct loop *l, const char *name, int signal, void (*cb)(void *ud), void *ud)
{
	struct loop_source *s = source_new(l, name, ud);

	s->on_time = cb;
	if (sd_event_add_signal(l->event, &s->source, signal, on_signal, s) < 0)
		abort();
	return s;
}

/* By a descriptor: a defer source that is armed again in its own turn starves the others, and starves behind them at a lower priority. */
struct loop_source *loop_soon(struct loop *l, const char *name, void (*cb)(void *ud), void *ud)
{
	struct loop_source *s = source_new(l, name, ud);

	s->on_time = cb;
	s->soon = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->soon < 0 || sd_event_add_io(l->event, &s->source, s->soon, EPOLLIN, on_soon, s) < 0)
		abort();
	return s;
}

void loop_arm(struct loop_source *s)
{
	if (eventfd_write(s->soon, 1) < 0)
		abort();
}

void loop_rearm(struct loop_source *timer, uint64_t ms)
{
	sd_event_source_set_time_relative(timer->source, ms * 1000);
	sd_event_source_set_enabled(timer->source, SD_EVENT_ONESHOT);
}

void loop_io_events(struct loop_source *io, uint32_t events)
{
	sd_event_source_set_io_events(io->source, events);
}

void loop_source_free(struct loop_source *s)
{
	if (s == NULL)
		return;
	s->source = sd_event_source_disable_unref(s->source);
	if (s->soon >= 0)
		close(s->soon);
	if (s->running)
		s->dead = true;
	else
		free(s);
}
