/* The one thread's event loop: sd-event behind a few calls, so that every callback has a name and is timed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_source;

int loop_new(struct loop **ret);
void loop_free(struct loop *l);
int loop_run(struct loop *l); /* until loop_stop */
void loop_stop(struct loop *l);
/* Pings systemd's watchdog from the loop, where the unit asks for it. */
void loop_watchdog(struct loop *l);

/* events: EPOLLIN and so on. name is a literal. Frees with loop_source_free, also from inside the callback. */
struct loop_source *loop_io(struct loop *l, const char *name, int fd, uint32_t events,
			    void (*cb)(void *ud, uint32_t revents), void *ud);
/* Once, after ms milliseconds. The source must still be freed. */
struct loop_source *loop_timer(struct loop *l, const char *name, uint64_t ms, void (*cb)(void *ud), void *ud);
struct loop_source *loop_signal(struct loop *l, const char *name, int signal, void (*cb)(void *ud), void *ud);
/* A source that runs once, in one of the next turns, each time it was asked for by loop_arm: it and what else is ready take turns. */
struct loop_source *loop_soon(struct loop *l, const char *name, void (*cb)(void *ud), void *ud);
void loop_arm(struct loop_source *s);
void loop_rearm(struct loop_source *timer, uint64_t ms);
void loop_io_events(struct loop_source *io, uint32_t events);
void loop_source_free(struct loop_source *s);
static inline void loop_source_clear(struct loop_source **s)
{
	loop_source_free(*s);
	*s = 0;
}

/* The longest callback since the start, in microseconds, and whose it was ("" if none yet). */
uint64_t loop_longest_us(const struct loop *l, const char **ret_name);
uint64_t loop_now_us(void); /* CLOCK_MONOTONIC */
uint64_t loop_now_ms(void);
