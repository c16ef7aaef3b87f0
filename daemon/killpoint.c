/* Hooks of the crash tests; only in builds configured with --enable-test-hooks.
 * PHID_KILL_LOG=FILE   each point that is reached is appended to FILE as a line "verb.step"
 * PHID_KILL_AT=V.S:N   the process dies by SIGKILL at the N-th time that it reaches the point
 * PHID_FAULT=NAME      breaks a promise on purpose, so that a checker can be seen to find it */
#include "phid.h"

#include <fcntl.h>
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
#endif
