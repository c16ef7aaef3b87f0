/* A program of others, run to its end: a hook, busctl. See runphi.h. */
#include "runphi.h"

#include "clean.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Its end, within timeout_s (0: none). Its words on the way go into said. */
static int await_end(pid_t pid, int out, int64_t timeout_s, char *said, size_t size)
{
	_clean_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	size_t n = 0;
	int status, left = timeout_s > 0 ? (int)(timeout_s * 1000) : -1;
	bool timed_out = false;

	for (;;) {
		struct pollfd p[2] = {{pidfd, POLLIN, 0}, {out, POLLIN, 0}};
		char buf[512];
		int r = poll(p, 2, left > 100 || left < 0 ? 100 : left);

		if (p[1].revents != 0) {
			ssize_t got = read(out, buf, sizeof(buf));

			for (ssize_t i = 0; i < got && n + 1 < size; i++)
				said[n++] = buf[i] == '\n' ? ' ' : buf[i];
			if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
				out = -1;
			else if (got > 0)
				continue;
		}
		if (p[0].revents != 0)
			break;
		if (r == 0 && left > 0 && (left -= left > 100 ? 100 : left) == 0) {
			timed_out = true;
			kill(-pid, SIGKILL);
			left = -1;
		}
	}
	said[n] = '\0';
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return timed_out ? -ETIME : status;
}

int program_run(const char *path, char **argv, char **env, const char *input, int64_t timeout_s, struct phi_error *e)
{
	_clean_close_ int in = memfd_create("input", MFD_CLOEXEC);
	int out[2], status;
	char said[200];
	pid_t pid;

	if (in < 0 || write(in, input, strlen(input)) != (ssize_t)strlen(input) || lseek(in, 0, SEEK_SET) < 0 ||
	    pipe2(out, O_CLOEXEC) < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, "", "%s cannot be prepared: %s", path, strerror(errno));
	pid = fork();
	if (pid == 0) {
		sigset_t none;

		setpgid(0, 0);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		signal(SIGPIPE, SIG_DFL);
		if (dup2(in, 0) < 0 || dup2(out[1], 1) < 0 || dup2(out[1], 2) < 0)
			_exit(126);
		syscall(SYS_close_range, 3, ~0U, 0);
		execve(path, argv, env);
		dprintf(2, "%s", strerror(errno));
		_exit(127);
	}
	close(out[1]);
	if (pid < 0) {
		close(out[0]);
		return phi_error_set(e, PHI_INTERNAL, errno, "", "fork: %s", strerror(errno));
	}
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	status = await_end(pid, out[0], timeout_s, said, sizeof(said));
	close(out[0]);
	if (status == -ETIME)
		return phi_error_set(e, PHI_INVALID, ETIME, "", "%s did not end within its %lld s and was killed", path, (long long)timeout_s);
	if (status != 0)
		return phi_error_set(e, PHI_INVALID, EIO, "", "%s ended with %s %d%s%.200s", path, WIFEXITED(status) ? "status" : "signal",
				     WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), said[0] ? ": " : "", said);
	return 0;
}
