/* create and run: the keeper first (so that it is the caller's grandchild and reparents to its subreaper), then phid is
 * asked, then the pid-file is written, then the keeper is told that the container was handed over. */
#include "runphi.h"

#include "clean.h"
#include "http_client.h"
#include "json.h"
#include "keeper_proto.h"
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

void new_uuid(char ret[PHI_UUID_LEN + 1])
{
	uint8_t random[16];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		abort();
	id_uuid_format(random, ret);
}

/* Begins the keeper; *ret_sync is our end of its pipe. It keeps our stdio and nothing else that leaked into us. */
static int start_keeper(const struct invocation *v, const char *incarnation, int *ret_sync, struct phi_error *e)
{
	char program[PHI_PATH_MAX + 1], socket[128], number[16];
	const char *slash = strrchr(v->socket, '/'), *named = getenv("PHID_KEEPER");
	char *argv[] = {program, (char[]){"--socket"}, socket, (char[]){"--incarnation"}, (char *)(uintptr_t)incarnation,
			(char[]){"--sync"}, number, NULL};
	char *none[] = {NULL};
	int p[2];
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
		sigemptyset(&empty);
		sigprocmask(SIG_SETMASK, &empty, NULL);
		if (dup2(p[0], 3) < 0)
			_exit(126);
		fcntl(3, F_SETFD, 0);
		syscall(SYS_close_range, 4, ~0U, 0);
		strcpy(number, "3");
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

static int write_pid_file(const char *path, pid_t pid, struct phi_error *e)
{
	_clean_free_ char *fresh = NULL;
	_clean_close_ int fd = -1;
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", (int)pid);

	if (asprintf(&fresh, "%s.new", path) < 0)
		abort();
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, (size_t)n) != n || rename(fresh, path) < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, "/pid-file", "%s: %s", path, strerror(errno));
	return 0;
}

/* The PUT, and where it takes longer than a minute the wait for its outcome. */
static int ask_phid(const struct invocation *v, const struct marker *m, const char *bundle, struct phi_error *e)
{
	_clean_json_ struct json *j = json_object();
	_clean_free_ char *body = NULL;
	char path[PHI_ID_MAX + 100], key[PHI_UUID_LEN + 16];
	struct http_call c = {.socket = v->socket, .method = "PUT", .path = path, .key = key};
	struct json *oci;
	struct http_answer a;
	int r;

	snprintf(path, sizeof(path), "/v1/containers/%s", m->record);
	snprintf(key, sizeof(key), "create-%s", m->incarnation);
	json_add_string(j, "bundle", bundle);
	json_add_string(j, "incarnation", m->incarnation);
	json_add_string(j, "keeper", "caller");
	oci = json_add_object(j, "oci");
	json_add_string(oci, "id", v->words[0]);
	json_add_string(oci, "root", v->root);
	c.body = body = json_print(j);
	r = http_call(&c, &a, e);
	while (r == 0 && (a.status == 202 || a.status == 204)) {
		struct http_call wait = {.socket = v->socket, .method = "GET", .path = path};

		free(a.body);
		snprintf(path, sizeof(path), "/v1/containers/%s/wait?for=created&incarnation=%s", m->record, m->incarnation);
		r = http_call(&wait, &a, e);
	}
	if (r < 0)
		return r;
	r = a.status < 300 ? 0 : http_problem(&a, e);
	free(a.body);
	return r;
}

static int absolute_bundle(const struct invocation *v, char *ret, struct phi_error *e)
{
	const char *given = v->bundle ? v->bundle : ".";

	if (realpath(given, ret) == NULL)
		return phi_error_set(e, PHI_INVALID, errno, "/bundle", "%s: %s", given, strerror(errno));
	return 0;
}

/* Waits for a keeper that is to end; one that cannot (phid is gone) is killed, and its guest with it. */
static void end_keeper(pid_t pid)
{
	struct pollfd p = {(int)syscall(SYS_pidfd_open, pid, 0), POLLIN, 0};

	if (p.fd < 0 || poll(&p, 1, KEEPER_ANSWER_MS) <= 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	phi_close(&p.fd);
}

/* Creates; the keeper is our child. */
static int create(const struct invocation *v, const char *bundle, struct marker *m, struct phi_error *e)
{
	_clean_close_ int sync = -1;
	const char *id = v->words[0];
	int r = id_check(id, "/id", e);

	if (r == 0)
		r = id_of_oci(id, v->root, m->record, e);
	if (r < 0)
		return r;
	new_uuid(m->incarnation);
	r = marker_write(v, id, m, true, e);
	if (r < 0)
		return r;
	r = start_keeper(v, m->incarnation, &sync, e);
	if (r > 0) {
		m->keeper = r;
		r = marker_write(v, id, m, false, e);
		if (r == 0)
			r = ask_phid(v, m, bundle, e);
		if (r == 0 && v->pid_file != NULL)
			r = write_pid_file(v->pid_file, m->keeper, e);
		if (r == 0 && write(sync, "d", 1) == 1)
			return 0;
		if (r == 0)
			r = phi_error_set(e, PHI_INTERNAL, errno, "", "the keeper ended at once");
		/* The keeper sees its pipe close and has this incarnation undone; then it ends. */
		phi_close(&sync);
		end_keeper(m->keeper);
	}
	marker_remove(v, id);
	return r;
}

/* Forwards where the bundle is not ours; else its absolute path. */
static int ours_or_forward(const struct invocation *v, char *bundle, struct phi_error *e)
{
	bool terminal = false;
	int r = absolute_bundle(v, bundle, e);

	if (r < 0)
		return forward(v, e);
	r = bundle_is_managed(v, bundle, &terminal, e);
	if (r == 0)
		return forward(v, e);
	if (r > 0 && (terminal || v->console_socket != NULL))
		return phi_error_set(e, PHI_NOT_BUILT, 0, "/process/terminal",
				     "a terminal for a cell is not built yet; set process.terminal to false");
	return r < 0 ? r : 0;
}

int verb_create(const struct invocation *v, struct phi_error *e)
{
	char bundle[PHI_PATH_MAX + 1];
	struct marker m = {0};
	int r = ours_or_forward(v, bundle, e);

	return r < 0 ? r : create(v, bundle, &m, e);
}

/* Waits for the keeper; signals on the way are for the cell. */
static int wait_keeper(const struct invocation *v, const struct marker *m, int signals)
{
	_clean_close_ int pidfd = (int)syscall(SYS_pidfd_open, m->keeper, 0);
	struct pollfd p[2] = {{pidfd, POLLIN, 0}, {signals, POLLIN, 0}};
	int status = 0;

	while (pidfd >= 0 && !(p[0].revents & POLLIN)) {
		struct signalfd_siginfo info;

		if (poll(p, 2, -1) > 0 && (p[1].revents & POLLIN) && read(signals, &info, sizeof(info)) == sizeof(info)) {
			char body[40];
			struct phi_error e;

			snprintf(body, sizeof(body), "{\"signal\":%u}", info.ssi_signo);
			request(v, m, "POST", "/kill", body, NULL, &e);
		}
	}
	waitpid(m->keeper, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int verb_run(const struct invocation *v, int *ret_status, struct phi_error *e)
{
	_clean_close_ int signals = -1;
	char bundle[PHI_PATH_MAX + 1];
	struct marker m = {0};
	sigset_t set;
	int r = ours_or_forward(v, bundle, e);

	if (r == 0)
		r = create(v, bundle, &m, e);
	if (r < 0)
		return r;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGQUIT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	r = verb_start(v, &m, e);
	if (r < 0) {
		struct phi_error ignored;

		request(v, &m, "DELETE", "?force=true", NULL, NULL, &ignored);
		marker_remove(v, v->words[0]);
		return r;
	}
	if (v->detach)
		return 0;
	*ret_status = wait_keeper(v, &m, signals);
	return v->keep ? 0 : verb_delete(v, &m, e);
}
