/* Keepers' connections. See keepers.h; the protocol is api/keeper_proto.h. */
#include "keepers.h"

#include "clean.h"
#include "error.h"
#include "log.h"
#include "loop.h"
#include "operation.h"
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#define CONNECTIONS_MAX 4096
#define UNCLAIMED_MS	30000
#define ERRNO_MAX	4095 /* MAX_ERRNO of linux/err.h */

extern char **environ;

struct keeper {
	struct keepers *all;
	struct keeper *next, **at; /* in the list of all; what points to it */
	struct keeper *next_named;
	int fd;
	struct loop_source *source, *unclaimed;
	struct peer peer;
	bool greeted, input_open;
	bool lost; /* its guest's record is lost, see lost.c */
	bool undone; /* its creator died before phid had the create: remembered beyond the connection, as that may still come */
	struct keeper_hello hello;
	struct cell *cell;
};

struct keepers {
	struct phid *p;
	int fd;
	struct loop_source *source;
	struct keeper *first;			   /* the youngest */
	struct keeper *named[INCARNATION_BUCKETS]; /* those that have greeted, by incarnation */
	unsigned n;
};

static struct keeper **bucket(struct keepers *all, const char *incarnation)
{
	return &all->named[incarnation_bucket(incarnation)];
}

static void keeper_free(struct keeper *k)
{
	struct keeper **at = bucket(k->all, k->hello.incarnation);

	while (k->greeted && *at != k)
		at = &(*at)->next_named;
	if (k->greeted)
		*at = k->next_named;
	*k->at = k->next;
	if (k->next != NULL)
		k->next->at = k->at;
	k->all->n--;
	loop_source_free(k->source);
	loop_source_free(k->unclaimed);
	phi_close(&k->fd);
	free(k);
}

int keeper_send(struct keeper *k, void *message, size_t size, uint16_t type, const void *body, size_t n, const int *fds,
		size_t n_fds)
{
	struct keeper_header *h = message;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * KEEPER_FDS_MAX)];
	} control = {0};
	struct iovec iov[2] = {{message, size}, {(void *)(uintptr_t)body, n}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = n > 0 ? 2 : 1};

	if (n_fds > KEEPER_FDS_MAX)
		return -EINVAL;
	if (n_fds > 0) {
		struct cmsghdr *c;

		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	h->length = (uint32_t)(size + n);
	h->type = type;
	return sendmsg(k->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static void send_end(struct keeper *k, enum keeper_type type, int code)
{
	struct keeper_ended m = {.code = code};

	keeper_send(k, &m, sizeof(m), (uint16_t)type, NULL, 0, NULL, 0);
}

void keeper_release(struct cell *c, enum keeper_type type, int code)
{
	struct keeper *k = c->keeper;

	if (k == NULL)
		return;
	c->keeper = NULL;
	k->cell = NULL;
	send_end(k, type, code);
}

static void on_unclaimed(void *ud)
{
	struct keeper *k = ud;

	send_end(k, KEEPER_GONE, 137);
	keeper_free(k);
}

void keeper_unclaim(struct cell *c)
{
	struct keeper *k = c->keeper;

	if (k == NULL || k->hello.cell != KEEPER_CELL_NONE || !k->hello.by_caller)
		return; /* one of phid's own is told to go: the next try has another */
	c->keeper = NULL;
	k->cell = NULL;
	k->unclaimed = loop_timer(k->all->p->loop, "keeper", UNCLAIMED_MS, on_unclaimed, k);
}

static void attach(struct keeper *k, struct cell *c)
{
	loop_source_clear(&k->unclaimed);
	if (c->keeper != NULL && c->keeper != k) { /* a second one of that incarnation: the newer connection counts */
		c->keeper->cell = NULL;
		keeper_free(c->keeper);
	}
	k->cell = c;
	c->keeper = k;
	c->promised_until = 0;
	c->keeper_pid = k->hello.pid;
	c->keeper_start = k->hello.start;
	c->pid = k->hello.cell_pid;
	/* The keeper of one who claimed the cell: it needs the console. */
	if (c->op == NULL && k->hello.cell == KEEPER_CELL_NONE && !(c->backend->can & CELL_IS_PROCESS))
		c->backend->attach(c, 0);
	operation_keeper_came(k->all->p, c);
}

int keeper_input(struct cell *c, const char *bytes, size_t n)
{
	struct keeper_header m = {0};
	int r;

	if (c->keeper == NULL || c->keeper->input_open || c->keeper->hello.version < 2)
		return -EBUSY;
	r = keeper_send(c->keeper, &m, sizeof(m), KEEPER_INPUT, bytes, n, NULL, 0);
	c->keeper->input_open = r == 0;
	return r;
}

int keeper_check_input(const struct cell *c, struct phi_error *e)
{
	if (c->keeper != NULL && c->keeper->hello.version < 2) /* else it is on its way: input waits for it */
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "",
				     "the keeper of %s is older than this phid and takes no input; the console can be read without Upgrade", c->id);
	return 0;
}

unsigned keepers_lost(const struct keepers *all)
{
	unsigned n = 0;

	for (const struct keeper *k = all->first; k != NULL; k = k->next)
		n += k->lost;
	return n;
}

/* One that waits for its container to be asked for. */
static struct keeper *find_waiting(struct keepers *all, const char *incarnation, bool undone)
{
	struct keeper *k = *bucket(all, incarnation);

	while (k != NULL && !(k->cell == NULL && k->hello.cell == KEEPER_CELL_NONE && k->undone == undone &&
			      strcmp(k->hello.incarnation, incarnation) == 0))
		k = k->next_named;
	return k;
}

bool keeper_claim(struct phid *p, struct cell *c)
{
	struct keeper *k = find_waiting(p->keepers, c->incarnation, false);

	if (k == NULL)
		return false;
	loop_source_clear(&k->unclaimed);
	k->cell = c;
	c->keeper = k;
	c->promised_until = 0;
	c->keeper_pid = k->hello.pid;
	c->keeper_start = k->hello.start;
	return true;
}

bool keeper_undone(struct phid *p, const struct cell *c)
{
	return find_waiting(p->keepers, c->incarnation, true) != NULL;
}

/* A keeper whose container has no cell handle: stopped, deleted, or not yet asked for. */
static void greet_stranger(struct keeper *k)
{
	_clean_container_ struct container c = {0};
	bool known = store_container_by_incarnation(k->all->p->store, STORE_READ, k->hello.incarnation, &c, NULL) == 0;

	if (known && c.state == STATE_STOPPED && c.exit != NULL) {
		struct cell_end end;

		operation_read_end(c.exit, &end);
		send_end(k, KEEPER_COMMITTED, end.code);
	} else if (known) {
		return; /* of a backend that is not enabled: its guest is none of our business now */
	} else if (k->hello.cell == KEEPER_CELL_NONE && k->hello.by_caller) {
		k->unclaimed = loop_timer(k->all->p->loop, "keeper", UNCLAIMED_MS, on_unclaimed, k);
	} else {
		k->lost = k->hello.cell == KEEPER_CELL_ALIVE && lost_hold(k->all->p, k->hello.incarnation, k->hello.cell_pid);
		if (!k->lost) {
			lost_ended(k->all->p, k->hello.incarnation); /* meanwhile */
			send_end(k, KEEPER_GONE, 137);
		}
	}
}

static void on_hello(struct keeper *k, const char *buf, size_t n)
{
	struct cell *c;

	if (k->greeted)
		return;
	memcpy(&k->hello, buf, n < sizeof(k->hello) ? n : sizeof(k->hello));
	k->hello.incarnation[PHI_UUID_LEN] = '\0';
	k->next_named = *bucket(k->all, k->hello.incarnation);
	*bucket(k->all, k->hello.incarnation) = k;
	k->greeted = true;
	c = cell_of_incarnation(k->all->p, k->hello.incarnation);
	if (c != NULL)
		attach(k, c);
	else
		greet_stranger(k);
}

static void on_ended(struct keeper *k, const char *buf, size_t n)
{
	struct keeper_ended m = {0};
	struct cell *c = k->cell;
	struct cell_end end = {.code = 137, .reason = "lost"};

	memcpy(&m, buf, n < sizeof(m) ? n : sizeof(m));
	k->hello.cell = KEEPER_CELL_DEAD;
	if (c == NULL || c->ended)
		return;
	free(c->end_text);
	c->end_text = n > sizeof(m) ? strndup(buf + sizeof(m), n - sizeof(m)) : strdup("");
	if (c->end_text == NULL)
		abort();
	if (c->backend->explain != NULL)
		c->backend->explain(c, m.wstatus, m.killed != 0, m.code, c->end_text, &end);
	cell_ended(c, &end);
}

static void on_message(struct keeper *k, const char *buf, size_t n)
{
	struct keeper_header h;

	if (n < sizeof(h))
		return;
	memcpy(&h, buf, sizeof(h));
	if (h.length != n)
		return;
	if (h.type == KEEPER_HELLO) {
		on_hello(k, buf, n);
	} else if (h.type == KEEPER_UNDO && k->greeted) {
		if (k->cell != NULL)
			operation_undo(k->all->p, k->cell);
		else
			k->undone = true;
	} else if (k->cell == NULL) { /* it is told to go already */
		if (k->lost && h.type == KEEPER_ENDED)
			send_end(k, KEEPER_GONE, 137);
	} else if (h.type == KEEPER_SPAWNED && n >= sizeof(struct keeper_spawned)) {
		struct keeper_spawned m;

		memcpy(&m, buf, sizeof(m));
		if (m.err < 0 || m.err > ERRNO_MAX)
			m.err = EPROTO;
		k->cell->pid = m.pid;
		if (m.err == 0)
			k->hello.cell = KEEPER_CELL_ALIVE;
		if (k->cell->backend->spawned != NULL)
			k->cell->backend->spawned(k->cell, m.err);
	} else if (h.type == KEEPER_QMP_OUT) {
		if (k->cell->backend->control != NULL)
			k->cell->backend->control(k->cell, buf + sizeof(h), n - sizeof(h));
	} else if (h.type == KEEPER_TAKEN) {
		k->input_open = false;
		attach_taken(k->all->p, k->cell);
	} else if (h.type == KEEPER_ENDED) {
		on_ended(k, buf, n);
	}
}

static void on_readable(void *ud, uint32_t revents)
{
	static char buf[KEEPER_MESSAGE_MAX] __attribute__((aligned(8)));
	struct keeper *k = ud;

	(void)revents;
	for (int turn = 0; turn < 16; turn++) {
		ssize_t n = recv(k->fd, buf, sizeof(buf), MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			struct cell *c = k->cell;

			if (k->undone && k->unclaimed != NULL) {
				loop_source_clear(&k->source);
				phi_close(&k->fd);
				return;
			}
			if (c != NULL)
				c->keeper = NULL;
			if (k->lost)
				lost_ended(k->all->p, k->hello.incarnation);
			keeper_free(k);
			if (c != NULL)
				operation_keeper_left(c);
			return;
		}
		on_message(k, buf, (size_t)n);
	}
}

/* Room for one more, at the cost of the oldest that has said nothing yet, else of the oldest without a container. */
static bool make_room(struct keepers *all)
{
	struct keeper *silent = NULL, *stranger = NULL;

	if (all->n < CONNECTIONS_MAX)
		return true;
	for (struct keeper *k = all->first; k != NULL; k = k->next) { /* the youngest first */
		if (!k->greeted)
			silent = k;
		else if (k->cell == NULL)
			stranger = k;
	}
	if (silent == NULL)
		silent = stranger;
	if (silent != NULL)
		keeper_free(silent);
	return silent != NULL;
}

static void on_accept(void *ud, uint32_t revents)
{
	struct keepers *all = ud;

	(void)revents;
	for (int turn = 0; turn < 64; turn++) {
		int fd = accept4(all->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		struct peer peer;
		struct keeper *k;

		if (fd < 0)
			return;
		if (peer_read(fd, &peer) < 0 || peer.role != ROLE_ADMIN || !make_room(all)) {
			close(fd);
			continue;
		}
		k = calloc(1, sizeof(*k));
		if (k == NULL)
			abort();
		k->all = all;
		k->fd = fd;
		k->peer = peer;
		k->next = all->first;
		k->at = &all->first;
		if (k->next != NULL)
			k->next->at = &k->next;
		all->first = k;
		all->n++;
		k->source = loop_io(all->p->loop, "keeper", fd, EPOLLIN, on_readable, k);
	}
}

int keepers_new(struct phid *p, int listen_fd, struct keepers **ret, struct phi_error *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_clean_close_ int fd = listen_fd;
	struct keepers *all;

	if (fd < 0) {
		const char *slash = strrchr(p->config.socket, '/');

		if (snprintf(a.sun_path, sizeof(a.sun_path), "%.*s/" KEEPER_SOCKET_NAME, (int)(slash - p->config.socket),
			     p->config.socket) >= (int)sizeof(a.sun_path))
			return phi_error_set(e, PHI_INVALID, ENAMETOOLONG, "/socket", "the path of the socket is too long");
		unlink(a.sun_path);
		fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(a.sun_path, 0666) < 0 ||
		    listen(fd, 1024) < 0)
			return phi_error_set(e, PHI_INTERNAL, errno, "", "%s: %s", a.sun_path, strerror(errno));
	}
	all = calloc(1, sizeof(*all));
	if (all == NULL)
		abort();
	all->p = p;
	all->fd = PHI_TAKE_FD(fd);
	*ret = all;
	return 0;
}

void keepers_open(struct keepers *all)
{
	all->source = loop_io(all->p->loop, "keepers", all->fd, EPOLLIN, on_accept, all);
}

void keepers_free(struct keepers *all)
{
	if (all == NULL)
		return;
	while (all->first != NULL) {
		if (all->first->cell != NULL)
			all->first->cell->keeper = NULL;
		keeper_free(all->first);
	}
	loop_source_free(all->source);
	close(all->fd);
	free(all);
}

bool keeper_holders_read(const struct phid *p, int64_t row, struct keeper_holders *ret)
{
	char path[PHI_PATH_MAX], text[160];
	_clean_close_ int fd = -1;
	unsigned long long ks, cs;
	ssize_t n;

	cell_path(p, row, "lock", path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	if (sscanf(text, "keeper %d %llu\ncell %d %llu", &ret->keeper, &ks, &ret->cell, &cs) != 4)
		return false;
	ret->keeper_start = ks;
	ret->cell_start = cs;
	return true;
}

/* glibc's other name of clone(2), which ThreadSanitizer does not take for a fork that leaves its threads behind. */
extern int __clone(int (*child)(void *ud), void *stack, int flags, void *ud, ...);

struct start {
	const char *program;
	char *const *argv;
	int err; /* answer */
};

/* In a process that has phid's memory and, until the first call, its descriptors: a table of thousands is neither copied nor closed one
 * by one. Nothing but system calls; the thread waits meanwhile. */
__attribute__((no_sanitize("address", "undefined", "thread"))) static int start_child(void *ud)
{
	struct start *s = ud;
	uint64_t none = 0;
	long null;

	if (syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_UNSHARE) == 0) {
		null = syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR);
		if (null < 0)
			goto out;
		for (int fd = 0; fd < 3; fd++)
			if (null != fd && syscall(SYS_dup3, null, fd, 0) < 0)
				goto out;
		if (null > 2)
			syscall(SYS_close, null);
		syscall(SYS_setsid);
		syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
		syscall(SYS_execve, s->program, s->argv, environ);
	}
out:
	s->err = errno;
	_exit(127);
}

struct keeper_wish keeper_wish(const struct phid *p, const struct cell *c)
{
	struct keeper_wish w = {.config = &p->config, .row = c->row};

	memcpy(w.incarnation, c->incarnation, sizeof(w.incarnation));
	return w;
}

int keeper_start(const struct keeper_wish *w, struct phi_error *e)
{
	char stack[16384] __attribute__((aligned(16))), socket[PHI_PATH_MAX];
	const char *slash = strrchr(w->config->socket, '/');
	char *argv[] = {w->config->keeper, (char[]){"--socket"}, socket, (char[]){"--incarnation"}, (char *)(uintptr_t)w->incarnation, NULL};
	struct start s = {w->config->keeper, argv, 0};

	snprintf(socket, sizeof(socket), "%.*s/" KEEPER_SOCKET_NAME, (int)(slash - w->config->socket), w->config->socket);
	if (unit_wanted())
		return unit_start(w->row, argv, e);
	if (__clone(start_child, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, &s) < 0)
		s.err = errno;
	if (s.err != 0)
		return phi_error_set(e, PHI_INTERNAL, s.err, "", "%s cannot be started: %s", w->config->keeper, strerror(s.err));
	return 0;
}
