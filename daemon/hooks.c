/* Hooks of tests and benchmarks; only in builds configured with --enable-test-hooks.
 * PHID_KILL_LOG=FILE   each point that is reached is appended to FILE as a line "verb.step"
 * PHID_KILL_AT=V.S:N   the process dies by SIGKILL at the N-th time that it reaches the point
 * PHID_FAULT=NAME      breaks a promise on purpose, so that a checker can be seen to find it
 * PHID_TICKS=FILE      a timer of 1 ms: a line "when late" (us, of CLOCK_MONOTONIC) for each time that it comes */
#include "loop.h"
#include "phid.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef PHID_TEST_HOOKS
void killpoint(const char *verb, const char *step)
{
	static int reached;
	const char *log = getenv("PHID_KILL_LOG"), *at = getenv("PHID_KILL_AT");
	char line[64];
	int n = snprintf(line, sizeof(line), "%s.%s\n", verb, step);

	if (log != NULL) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

		if (fd >= 0 && write(fd, line, (size_t)n) == n)
			close(fd);
	}
	if (at != NULL && strncmp(at, line, (size_t)n - 1) == 0 && at[n - 1] == ':' && ++reached == atoi(at + n))
		kill(getpid(), SIGKILL);
}

bool fault(const char *name)
{
	const char *wanted = getenv("PHID_FAULT");

	return wanted != NULL && strcmp(wanted, name) == 0;
}

static struct {
	FILE *file;
	struct loop *loop;
	struct loop_source *timer;
	uint64_t due;
} ticks;

static void on_tick(void *ud)
{
	uint64_t now = loop_now_us();

	(void)ud;
	if (ticks.timer != NULL)
		fprintf(ticks.file, "%" PRIu64 " %" PRIu64 "\n", now, now - ticks.due);
	loop_source_clear(&ticks.timer);
	ticks.due = loop_now_us() + 1000;
	ticks.timer = loop_timer(ticks.loop, "tick", 1, on_tick, NULL);
}

void ticks_start(struct loop *l)
{
	const char *path = getenv("PHID_TICKS");

	if (path == NULL || (ticks.file = fopen(path, "we")) == NULL)
		return;
	ticks.loop = l;
	on_tick(NULL);
}
#endif
