/* phid-keeper: the "init" of one container. Its pid is the container's for OCI clients, its exit status the
 * container's. It starts the cell's process on phid's word, carries the console, writes the exit file, and tells phid.
 * It decides nothing by itself but this: when the cell ended and phid is silent, it exits all the same; when whoever
 * asked for the container died before it heard the answer, it asks phid to undo it.
 *
 *   phid-keeper --socket DIR/keeper.sock --incarnation UUID [--sync FD]
 *
 * Parses no JSON, links nothing but libc, statically: it lives as long as the guest. */
#include "keeper.h"

#include "clean.h"
#include "console_log.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static struct {
	const char *socket, *incarnation;
	int phid, sync; /* connection; pipe of the creator, -1 once it said "done" */
	bool undo, finishing, by_caller;
	int64_t retry_at, exit_at; /* CLOCK_MONOTONIC ms; 0: none */
	int retry_ms, exit_code;
	struct cell cell;
	struct console console;
} k = {.phid = -1,
       .sync = -1,
       .retry_ms = 20,
       .cell = {.pidfd = -1, .lock = -1, .dir = -1, .qmp = -1, .diagnostics = -1},
       .console = {.cell = -1, .in = 0, .out = 1}};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void lost_phid(void)
{
	phi_close(&k.phid);
	k.retry_ms = 20;
	k.retry_at = now_ms() + k.retry_ms;
}

/* Sends one message; body may be NULL. A connection that does not take it is given up: phid asks again. */
static void tell(void *message, size_t size, uint16_t type, const void *body, size_t n)
{
	struct keeper_header *h = message;
	struct iovec iov[2] = {{message, size}, {(void *)(uintptr_t)body, n}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n > 0 ? 2 : 1};

	if (k.phid < 0)
		return;
	h->length = (uint32_t)(size + n);
	h->type = type;
	if (sendmsg(k.phid, &m, MSG_NOSIGNAL) < 0 && errno != EINTR)
		lost_phid();
}

static void tell_ended(void)
{
	struct keeper_ended m = {.wstatus = k.cell.wstatus, .code = k.cell.code, .killed = k.cell.killed};
	char text[8192];
	size_t n = cell_exit_text(&k.cell, text, sizeof(text));

	tell(&m, sizeof(m), KEEPER_ENDED, text, n < sizeof(text) ? n : sizeof(text) - 1);
}

static void tell_undo(void)
{
	struct keeper_header m = {0};

	tell(&m, sizeof(m), KEEPER_UNDO, NULL, 0);
}

static void tell_taken(void)
{
	struct keeper_header m = {0};

	k.console.taking = false;
	tell(&m, sizeof(m), KEEPER_TAKEN, NULL, 0);
}

static void forward_qmp(const char *bytes, size_t n)
{
	struct keeper_header m = {0};

	tell(&m, sizeof(m), KEEPER_QMP_OUT, bytes, n);
}

static void connect_phid(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct keeper_hello m = {.version = KEEPER_VERSION,
				 .cell = k.cell.state,
				 .pid = getpid(),
				 .start = process_start(getpid()),
				 .cell_pid = k.cell.pid,
				 .cell_start = k.cell.start};

	k.retry_at = 0;
	k.phid = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	strncpy(a.sun_path, k.socket, sizeof(a.sun_path) - 1);
	if (k.phid < 0 || connect(k.phid, (struct sockaddr *)&a, sizeof(a)) < 0) {
		phi_close(&k.phid);
		k.retry_ms = k.retry_ms < 500 ? k.retry_ms * 2 : 1000;
		k.retry_at = now_ms() + k.retry_ms;
		return;
	}
	m.by_caller = k.by_caller;
	strcpy(m.incarnation, k.incarnation); /* length checked in main */
	tell(&m, sizeof(m), KEEPER_HELLO, NULL, 0);
	if (k.cell.state == KEEPER_CELL_DEAD)
		tell_ended();
	if (k.undo)
		tell_undo();
}

/* From now on only the rest of the console keeps us (and a process of ours until it is dead). */
static void finish(int code)
{
	if (k.cell.state == KEEPER_CELL_ALIVE && !k.cell.has_process) {
		if (k.console.cell >= 0)
			console_read_cell(&k.console);
		k.cell.state = KEEPER_CELL_DEAD;
		phi_close(&k.cell.lock);
	}
	k.exit_code = code;
	k.finishing = true;
	k.exit_at = now_ms() + KEEPER_ANSWER_MS;
}

static void cell_ended(void)
{
	cell_finish(&k.cell);
	tell_ended();
	k.exit_at = now_ms() + KEEPER_ANSWER_MS;
	k.exit_code = k.cell.code;
}

static void on_spawn(const struct keeper_spawn *m, size_t length, int *fds, int n_fds)
{
	struct keeper_spawned answer = {0};
	int console = -1, r;

	r = k.console.log == NULL && n_fds > KEEPER_FD_LOG ? console_map(&k.console, fds[KEEPER_FD_LOG]) : 0;
	if (r == 0)
		r = cell_spawn(&k.cell, m, length, fds, n_fds, &console);
	if (console >= 0)
		k.console.cell = console;
	answer.err = -r;
	answer.pid = k.cell.pid;
	answer.start = k.cell.start;
	tell(&answer, sizeof(answer), KEEPER_SPAWNED, NULL, 0);
}

static void on_message(const char *buf, size_t n, int *fds, int n_fds)
{
	union {
		struct keeper_header h;
		struct keeper_spawn spawn;
		struct keeper_ended ended;
	} m = {0};

	memcpy(&m, buf, n < sizeof(m) ? n : sizeof(m));
	if (n < sizeof(m.h) || m.h.length != n)
		return;
	switch (m.h.type) {
	case KEEPER_SPAWN:
		if (n > sizeof(m.spawn))
			on_spawn((const struct keeper_spawn *)(const void *)buf, n, fds, n_fds);
		break;
	case KEEPER_QMP_IN:
		/* Requests are far smaller than the socket's buffer, which QEMU drains; if it does not, it is stuck and
		 * phid's deadline speaks. */
		if (k.cell.qmp >= 0 && write(k.cell.qmp, buf + sizeof(m.h), n - sizeof(m.h)) < 0)
			break;
		break;
	case KEEPER_OUTPUT:
		if (k.console.log != NULL)
			console_put(&k.console, buf + sizeof(m.h), n - sizeof(m.h));
		break;
	case KEEPER_INPUT:
		if (k.cell.state == KEEPER_CELL_ALIVE && k.console.cell < 0) { /* nobody is there to hear it */
			tell_taken();
			break;
		}
		console_take(&k.console, buf + sizeof(m.h), n - sizeof(m.h));
		break;
	case KEEPER_KILL:
		cell_kill(&k.cell);
		break;
	case KEEPER_CELL_ENDED:
		if (k.cell.state == KEEPER_CELL_ALIVE && !k.cell.has_process) {
			k.cell.code = m.ended.code;
			k.cell.killed = m.ended.killed != 0;
			if (k.console.cell >= 0)
				console_read_cell(&k.console);
			cell_ended();
		}
		break;
	case KEEPER_COMMITTED:
		finish(m.ended.code & 0xff);
		break;
	case KEEPER_GONE:
		cell_kill(&k.cell);
		finish(137);
		break;
	}
}

static void read_phid(void)
{
	static char buf[KEEPER_MESSAGE_MAX] __attribute__((aligned(8)));
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * KEEPER_FDS_MAX)];
	} control;
	struct iovec iov = {buf, sizeof(buf)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	int fds[KEEPER_FDS_MAX], n_fds = 0;
	ssize_t n = recvmsg(k.phid, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		lost_phid();
		return;
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c != NULL; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n_fds = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), (size_t)n_fds * sizeof(int));
	}
	on_message(buf, (size_t)n, fds, n_fds);
	for (int i = 0; i < n_fds; i++)
		phi_close(&fds[i]);
}

/* The creator's pipe: a byte says that the container was handed over; its end without one says that the creator
 * died first. */
static void read_sync(void)
{
	char c;
	ssize_t n = read(k.sync, &c, 1);

	if (n < 0 && errno == EINTR)
		return;
	phi_close(&k.sync);
	if (n == 1)
		return;
	k.undo = true;
	tell_undo();
	if (k.cell.state == KEEPER_CELL_NONE)
		finish(137); /* nothing was begun: nothing but this process is to be undone */
}

static int next_timeout(void)
{
	int64_t t = 0, now = now_ms();

	if (k.retry_at != 0)
		t = k.retry_at;
	if (k.exit_at != 0 && (t == 0 || k.exit_at < t))
		t = k.exit_at;
	return t == 0 ? -1 : t <= now ? 0 : (int)(t - now);
}

static void turn(void)
{
	enum { PHID, SYNC, PROCESS, QMP, DIAGNOSTICS, CELL, IN, OUT, N };
	struct console *c = &k.console;
	bool input = c->in >= 0 && c->input_n < KEEPER_INPUT_MAX && !c->taking && (c->cell >= 0 || k.cell.state == KEEPER_CELL_NONE);
	struct pollfd p[N] = {
		[PHID] = {k.phid, POLLIN, 0},
		[SYNC] = {k.sync, POLLIN, 0},
		[PROCESS] = {k.cell.state == KEEPER_CELL_ALIVE ? k.cell.pidfd : -1, POLLIN, 0},
		[QMP] = {k.cell.qmp, POLLIN, 0},
		[DIAGNOSTICS] = {k.cell.diagnostics, POLLIN, 0},
		[CELL] = {c->cell, (short)(POLLIN | (c->input_n > 0 ? POLLOUT : 0)), 0},
		[IN] = {input ? c->in : -1, POLLIN, 0},
		[OUT] = {console_has_output(c) ? c->out : -1, POLLOUT, 0},
	};

	if (poll(p, N, next_timeout()) < 0)
		return;
	if (k.retry_at != 0 && now_ms() >= k.retry_at)
		connect_phid();
	if (p[CELL].revents & POLLOUT)
		console_write_cell(c);
	if (c->taking && c->input_n == 0)
		tell_taken();
	if (p[CELL].revents & (POLLIN | POLLHUP | POLLERR))
		console_read_cell(c);
	if (p[QMP].revents)
		cell_read_qmp(&k.cell, forward_qmp);
	if (p[DIAGNOSTICS].revents)
		cell_read_diagnostics(&k.cell);
	if (p[IN].revents)
		console_read_stdin(c);
	if (p[OUT].revents)
		console_write_out(c);
	/* The end of the process only once its console is drained to the end (QEMU's end of it is closed then). */
	if (p[PROCESS].revents && c->cell < 0)
		cell_ended();
	if (p[SYNC].revents)
		read_sync();
	if (p[PHID].revents && k.phid >= 0)
		read_phid();
}

/* A stdout of our own that does not block us: the flag is the open file's, which we share with the caller, so the file
 * is opened again where that is possible. */
static int own_nonblocking(int fd, int mode)
{
	char path[32];
	struct stat st;
	int own;

	/* A file never blocks; and opened again it would have lost its offset and O_APPEND. */
	if (fstat(fd, &st) < 0 || S_ISREG(st.st_mode))
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return own >= 0 ? own : fd;
}

static const char *option(int argc, char **argv, const char *name)
{
	for (int i = 1; i + 1 < argc; i += 2)
		if (strcmp(argv[i], name) == 0)
			return argv[i + 1];
	return NULL;
}

int main(int argc, char **argv)
{
	const char *sync = option(argc, argv, "--sync");

	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("phid-keeper %s, protocol %d\n", PACKAGE_VERSION, KEEPER_VERSION);
		return 0;
	}
	k.socket = option(argc, argv, "--socket");
	k.incarnation = option(argc, argv, "--incarnation");
	if (k.socket == NULL || k.incarnation == NULL || strlen(k.incarnation) != PHI_UUID_LEN ||
	    strlen(k.socket) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		fprintf(stderr, "phid-keeper: started by runphi and phid, not by hand: "
				"--socket PATH --incarnation UUID [--sync FD]\n");
		return 2;
	}
	if (sync != NULL) {
		k.sync = atoi(sync);
		k.by_caller = true;
	}
	prctl(PR_SET_NAME, "phid-keeper");
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	/* The container's lifetime is the cell's, not this process's: whoever wants an end asks phid, or sends KILL. */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	k.console.in = own_nonblocking(0, O_RDONLY);
	k.console.out = own_nonblocking(1, O_WRONLY);
	connect_phid();
	for (;;) {
		bool quiet = !console_has_output(&k.console) && k.cell.state != KEEPER_CELL_ALIVE;

		if (k.finishing && quiet)
			break;
		if (k.exit_at != 0 && now_ms() >= k.exit_at && k.cell.state != KEEPER_CELL_ALIVE)
			break;
		turn();
	}
	return k.exit_code;
}
