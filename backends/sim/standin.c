/*
 * standin.c: phid-sim, a stand-in, not a hypervisor. phid's sim backend and its tests drive it; no guest runs
 * in it.
 *
 * Owns the process: command line, socket and its lock, daemon, and the small client `ctl`. It is a process of
 * its own so that it outlives phid and recovery is tested for real.
 */
#include "standin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	LOCK_TRIES = 50,
	LOCK_TRY_MS = 10,
	CTL_TIMEOUT_MS = 30000
};

/* ---- the socket ---- */

static int address_from_path(const char *path, struct sockaddr_un *ret_address)
{
	*ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (path[0] == '\0' || strlen(path) >= sizeof(ret_address->sun_path))
		return -ENAMETOOLONG;
	memcpy(ret_address->sun_path, path, strlen(path));
	return 0;
}

static int connect_to(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

/* Of two that start at once one gets the lock; one that has just died keeps it for a moment. */
static int lock_take(const char *socket_path)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];

	snprintf(path, sizeof(path), "%s.lock", socket_path);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	for (int i = 0; i < LOCK_TRIES; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return fd;
		poll(NULL, 0, LOCK_TRY_MS);
	}
	close(fd);
	return -EADDRINUSE;
}

/* What is not surely dead is alive: another program's socket, or one whose backlog is full. */
static bool address_answers(const struct sockaddr_un *address)
{
	int fd = connect_to(address);

	if (fd >= 0)
		close(fd);
	return fd != -ENOENT && fd != -ECONNREFUSED;
}

/* Binds; what it binds to is not live before listen(). */
static int sim_bind(struct sim *sim, const char *path)
{
	struct sockaddr_un address;
	struct stat st;
	int r = address_from_path(path, &address);

	if (r < 0)
		return r;
	if (address_answers(&address))
		return -EADDRINUSE;
	if ((sim->lock = lock_take(path)) < 0)
		return sim->lock;
	if (address_answers(&address))
		return -EADDRINUSE;
	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return -EEXIST;
	unlink(path);

	sim->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask = umask(0177);
	r = sim->listener < 0 || bind(sim->listener, (struct sockaddr *)&address, sizeof(address)) < 0
		? -errno
		: 0;
	umask(mask);
	if (r < 0)
		return r;
	char *directory = path[0] == '/' ? NULL : getcwd(NULL, 0);
	if (asprintf(&sim->socket_path, "%s%s%s", directory ? directory : "", directory ? "/" : "", path) < 0)
		sim->socket_path = NULL;
	free(directory);
	if (!sim->socket_path || stat(sim->socket_path, &st) < 0)
		return -ENOENT;
	sim->socket_dev = st.st_dev;
	sim->socket_ino = st.st_ino;
	return 0;
}

/* Last, and in the process that stays: its pid is what SO_PEERCRED tells the clients from here on. */
static int sim_listen(struct sim *sim)
{
	sigset_t set;
	struct rlimit files;
	int r;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max; /* a console each */
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (sim->epoll < 0 || sim->spare < 0 ||
	    (sim->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0 ||
	    listen(sim->listener, CONNECTIONS_MAX) < 0)
		return -errno;
	if ((r = sim_watch(sim, sim->signals, &sim->signals_watch)) < 0)
		return r;
	return sim_watch(sim, sim->listener, &sim->listener_watch);
}

/* ---- commands ---- */

static int fail(const char *what, int r)
{
	fprintf(stderr, "phid-sim: %s: %s\n", what, strerror(-r));
	return 1;
}

static int serve(struct sim *sim, const char *path, int ready)
{
	int null, r = sim_listen(sim);

	if (r < 0)
		return fail(path, r);
	if (ready >= 0) {
		if (chdir("/") < 0 || (null = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0)
			return fail("/dev/null", -errno);
		for (int fd = 0; fd <= 2; fd++)
			dup2(null, fd);
		close(null);
		if (write(ready, "", 1) < 0)
			return 1;
		close(ready);
	} else
		fprintf(stderr, "phid-sim: " STANDIN_WORDS "; listening on %s\n", path);
	r = sim_run(sim);
	return r < 0 ? fail("loop", r) : 0;
}

/* 0 in the process that first called, once the daemon listens. */
static int serve_in_background(struct sim *sim, const char *path)
{
	int ready[2];
	char byte;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return fail("pipe", -errno);
	pid_t pid = fork();
	if (pid < 0)
		return fail("fork", -errno);
	if (pid == 0) {
		close(ready[0]);
		setsid();
		pid = fork();
		if (pid != 0)
			_exit(pid < 0);
		return serve(sim, path, ready[1]);
	}
	close(ready[1]);
	waitpid(pid, NULL, 0);
	ssize_t n;
	while ((n = read(ready[0], &byte, 1)) < 0 && errno == EINTR)
		;
	_exit(n != 1); /* the socket belongs to the daemon: nothing of it may be undone here */
}

static int command_serve(const char *path, bool foreground)
{
	int fd;

	close_range(3, ~0U, 0);
	while ((fd = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && fd <= 2)
		; /* nothing of ours may take the place of a stdio that was closed */
	if (fd >= 0)
		close(fd);
	struct sim *sim = sim_new();
	if (!sim)
		return fail("start", -ENOMEM);
	int r = sim_bind(sim, path);
	if (r < 0)
		r = fail(path, r);
	else
		r = foreground ? serve(sim, path, -1) : serve_in_background(sim, path);
	sim_done(sim);
	return r;
}

static int command_ctl(const char *path, const char *request)
{
	struct sockaddr_un address;
	char bytes[PACKET_MAX_BYTES + 1];
	size_t digits = strspn(request, "0123456789");
	int fd = address_from_path(path, &address), len;

	if (fd < 0 || (fd = connect_to(&address)) < 0)
		return fail(path, fd) + 1;
	len =
	    snprintf(bytes, sizeof(bytes), "%s%s", digits > 0 && request[digits] == ' ' ? "" : "1 ", request);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n = -1;
	if (len >= (int)sizeof(bytes))
		errno = EMSGSIZE;
	else if (send(fd, bytes, (size_t)len, MSG_NOSIGNAL) >= 0) {
		errno = ETIMEDOUT;
		if (poll(&p, 1, CTL_TIMEOUT_MS) > 0)
			n = recv(fd, bytes, sizeof(bytes) - 1, 0);
		if (n == 0)
			errno = ECONNRESET;
	}
	int error = errno;
	close(fd);
	if (n <= 0)
		return fail(path, -error) + 1;
	bytes[n] = '\0';
	puts(bytes);
	const char *verdict = strchr(bytes, ' ');
	return verdict && strncmp(verdict, " ok", 3) == 0 && (verdict[3] == ' ' || !verdict[3]) ? 0 : 1;
}

static void usage(FILE *to)
{
	fputs(
	    "phid-sim: " STANDIN_WORDS
	    ". It keeps cells in its memory for phid's sim backend and for tests.\n"
	    "\n"
	    "  phid-sim serve --socket PATH [--foreground]   listen (PATH.lock is kept beside it)\n"
	    "  phid-sim ctl --socket PATH 'REQUEST'          send one request, with or without its number, "
	    "print\n"
	    "                                                the answer; exit 0 ok, 1 error, 2 no answer\n"
	    "  phid-sim --help\n"
	    "\n"
	    "requests: create CELL cpus=LIST mem=BYTES [base=HEX] tag=TOKEN [prog=PROGRAM], "
	    "console|start|pause|resume|\n"
	    "powerdown|destroy|observe CELL, list [after=CELL], stat, subscribe, quit, fault clear, fault "
	    "VERB\n"
	    "kind=delay|error|lie|hang|late [ms=N] [errno=NAME] [count=N]\n"
	    "programs: count:MS exit:CODE:MS panic:MS echo powerdown:MS powerdown:ignore, joined by commas\n",
	    to);
}

int main(int argc, char **argv)
{
	const char *path = NULL, *request = NULL, *command = argc > 1 ? argv[1] : "";
	bool foreground = false, serving = strcmp(command, "serve") == 0, bad = false;

	if (strcmp(command, "--help") == 0) {
		usage(stdout);
		return 0;
	}
	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], "--socket") == 0 && i + 1 < argc)
			path = argv[++i];
		else if (serving && strcmp(argv[i], "--foreground") == 0)
			foreground = true;
		else if (!serving && !request)
			request = argv[i];
		else
			bad = true;
	}
	if (bad || !path || (!serving && (strcmp(command, "ctl") != 0 || !request))) {
		usage(stderr);
		return 2;
	}
	return serving ? command_serve(path, foreground) : command_ctl(path, request);
}
