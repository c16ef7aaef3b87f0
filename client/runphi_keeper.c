/* The keeper as runphi begins and ends it: our child, so that it reparents to the caller's subreaper. See runphi.h. */
#include "runphi.h"

#include "clean.h"
#include "keeper_proto.h"
#include "process.h"
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

/* How many descriptors from 3 on the caller wants kept (--preserve-fds, sd_listen_fds(3)). */
static int kept_fds(const struct invocation *v)
{
	const char *listen = getenv("LISTEN_FDS");
	int n = (v->preserve_fds ? atoi(v->preserve_fds) : 0) + (listen ? atoi(listen) : 0);

	return n < 0 ? 0 : n > 1000 ? 1000 : n;
}

int keeper_begin(const struct invocation *v, const char *incarnation, int terminal, bool own_network, int *ret_sync, struct phi_error *e)
{
	char program[PHI_PATH_MAX + 1], socket[128], number[16];
	const char *slash = strrchr(v->socket, '/'), *named = getenv("PHID_KEEPER");
	char *argv[] = {program, (char[]){"--socket"}, socket, (char[]){"--incarnation"}, (char *)(uintptr_t)incarnation,
			(char[]){"--sync"}, number, NULL};
	char *none[] = {NULL};
	int p[2], sync = 3 + kept_fds(v);
	pid_t pid;

	if (named != NULL)
		snprintf(program, sizeof(program), "%s", named);
	else if (!program_find(".", "phid-keeper", program, sizeof(program)))
		return phi_error_set(e, PHI_INTERNAL, ENOENT, "", "phid-keeper is not installed");
	snprintf(socket, sizeof(socket), "%.*s/" KEEPER_SOCKET_NAME, slash ? (int)(slash - v->socket) : 0, v->socket);
	if (pipe2(p, O_CLOEXEC) < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, "", "pipe: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		sigset_t empty;

		setsid();
		if (own_network)
			unshare(CLONE_NEWNET); /* only root can, and only root's hooks could do harm in the host's */
		sigemptyset(&empty);
		sigprocmask(SIG_SETMASK, &empty, NULL);
		if (terminal >= 0 && (dup2(terminal, 0) < 0 || dup2(terminal, 1) < 0 || dup2(terminal, 2) < 0))
			_exit(126);
		if (p[0] == sync ? fcntl(sync, F_SETFD, 0) < 0 : dup2(p[0], sync) < 0)
			_exit(126);
		syscall(SYS_close_range, sync + 1, ~0U, 0);
		snprintf(number, sizeof(number), "%d", sync);
		execve(program, argv, none);
		_exit(127);
	}
	close(p[0]);
	if (pid < 0) {
		close(p[1]);
		return phi_error_set(e, PHI_INTERNAL, errno, "", "fork: %s", strerror(errno));
	}
	*ret_sync = p[1];
	return pid;
}

void keeper_end(const struct marker *m)
{
	_clean_close_ int pidfd = m->keeper > 0 ? (int)syscall(SYS_pidfd_open, m->keeper, 0) : -1;
	struct pollfd p = {pidfd, POLLIN, 0};

	if (pidfd < 0 || process_start(m->keeper) != m->keeper_start)
		return; /* its number may be another's by now */
	if (poll(&p, 1, 2 * KEEPER_ANSWER_MS) == 0) {
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
		poll(&p, 1, KEEPER_ANSWER_MS);
	}
}
