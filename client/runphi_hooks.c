/* The bundle's hooks. A cell has no namespaces, so all six kinds run in the runtime's, with paths of the host. */
#include "runphi.h"

#include "clean.h"
#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const char *const kinds[] = {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"};

static int check_texts(const struct json *list, const char *where, struct phi_error *e)
{
	if (list != NULL && !json_is_array(list))
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "an array of strings was expected, not %s", json_kind(list));
	for (const struct json *t = json_first(list); t != NULL; t = json_next(t))
		if (json_string(t) == NULL)
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "an array of strings was expected");
	return 0;
}

static int check_one(const struct json *hook, const char *where, struct phi_error *e)
{
	const char *path = json_get_string(hook, "path");
	const struct json *timeout = json_get(hook, "timeout");
	char at[80];
	int64_t n;
	int r;

	if (path == NULL || path[0] != '/') {
		snprintf(at, sizeof(at), "%s/path", where);
		return phi_error_set(e, PHI_INVALID, EINVAL, at, "an absolute path was expected, not \"%.80s\"", path ? path : "");
	}
	if (timeout != NULL && (!json_integer(timeout, &n) || n < 1 || n > 86400)) {
		snprintf(at, sizeof(at), "%s/timeout", where);
		return phi_error_set(e, PHI_INVALID, EINVAL, at, "a number of seconds above 0 was expected");
	}
	snprintf(at, sizeof(at), "%s/args", where);
	r = check_texts(json_get(hook, "args"), at, e);
	snprintf(at, sizeof(at), "%s/env", where);
	return r < 0 ? r : check_texts(json_get(hook, "env"), at, e);
}

int hooks_check(const struct json *hooks, struct phi_error *e)
{
	for (size_t k = 0; k < PHI_COUNT(kinds); k++) {
		const struct json *list = json_get(hooks, kinds[k]);
		char where[64];
		int i = 0;

		snprintf(where, sizeof(where), "/hooks/%s", kinds[k]);
		if (list != NULL && !json_is_null(list) && !json_is_array(list))
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "an array was expected, not %s", json_kind(list));
		for (const struct json *h = json_first(list); h != NULL; h = json_next(h)) {
			int r;

			snprintf(where, sizeof(where), "/hooks/%s/%d", kinds[k], i++);
			r = check_one(h, where, e);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* The strings of a list as argv; *ret is freed, its strings are the document's. */
static char **texts(const struct json *list, const char *first)
{
	char **v = calloc(json_length(list) + 2, sizeof(char *));
	size_t n = 0;

	if (v == NULL)
		abort();
	if (first != NULL)
		v[n++] = (char *)(uintptr_t)first;
	for (const struct json *t = json_first(list); t != NULL; t = json_next(t))
		v[n++] = (char *)(uintptr_t)json_string(t);
	return v;
}

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

static int run_one(const struct json *hook, const char *state, struct phi_error *e)
{
	const char *path = json_get_string(hook, "path");
	const struct json *args = json_get(hook, "args");
	_clean_free_ char **argv = texts(args, json_first(args) == NULL ? path : NULL), **env = texts(json_get(hook, "env"), NULL);
	_clean_close_ int in = memfd_create("state", MFD_CLOEXEC);
	int out[2], status;
	int64_t timeout = 0;
	char said[200];
	pid_t pid;

	json_integer(json_get(hook, "timeout"), &timeout);
	if (in < 0 || write(in, state, strlen(state)) != (ssize_t)strlen(state) || lseek(in, 0, SEEK_SET) < 0 ||
	    pipe2(out, O_CLOEXEC) < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, "", "the hook %s cannot be prepared: %s", path, strerror(errno));
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
	status = await_end(pid, out[0], timeout, said, sizeof(said));
	close(out[0]);
	if (status == -ETIME)
		return phi_error_set(e, PHI_INVALID, ETIME, "", "%s did not end within its %lld s and was killed", path, (long long)timeout);
	if (status != 0)
		return phi_error_set(e, PHI_INVALID, EIO, "", "%s ended with %s %d%s%.200s", path, WIFEXITED(status) ? "status" : "signal",
				     WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), said[0] ? ": " : "", said);
	return 0;
}

int hooks_run(const char *hooks, const char *kind, const char *state, struct phi_error *e)
{
	_clean_json_ struct json *all = NULL;
	int i = 0;

	if (hooks == NULL || json_parse(hooks, strlen(hooks), &all, e) < 0)
		return 0;
	for (const struct json *h = json_first(json_get(all, kind)); h != NULL; h = json_next(h), i++) {
		int r = run_one(h, state, e);

		if (r == 0)
			continue;
		phi_error_wrap(e, "%s hook %d", kind, i);
		if (strcmp(kind, "poststop") != 0)
			return r;
		warn("%s", e->detail); /* runtime.md "Lifecycle", step 13 */
	}
	return 0;
}
