/* The cell's process as the keeper's child: how it begins (with the least it needs), and what is left of it. */
#include "keeper.h"

#include "clean.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The presence lock's text, for a phid that finds it held and no keeper to ask: who holds it. */
static void write_holders(const struct cell *c)
{
	char text[128];
	int n = snprintf(text, sizeof(text), "keeper %d %llu\ncell %d %llu\n", (int)getpid(),
			 (unsigned long long)process_start(getpid()), (int)c->pid, (unsigned long long)c->start);

	if (pwrite(c->lock, text, (size_t)n, 0) != n)
		return; /* only a help: the lock itself is the fact */
}

/* In the child: only async-signal-safe calls from here to exec. Puts fds at their numbers. */
static void place_fds(int lock, int console, int qmp, const int *images, int n_images)
{
	int all[3 + KEEPER_FDS_MAX], n = 0;

	all[n++] = lock;
	all[n++] = console;
	all[n++] = qmp;
	for (int i = 0; i < n_images; i++)
		all[n++] = images[i];
	for (int i = 0; i < n; i++) { /* first out of the way of the targets */
		all[i] = fcntl(all[i], F_DUPFD, 64);
		if (all[i] < 0)
			_exit(126);
	}
	for (int i = 0; i < n; i++)
		if (dup2(all[i], KEEPER_LOCK_FD + i) < 0)
			_exit(126);
	syscall(SYS_close_range, KEEPER_LOCK_FD + n, ~0U, 0);
}

static bool become_user(const struct keeper_spawn *m)
{
	gid_t group = m->group;

	if (geteuid() != 0) { /* the keeper of a user's own runphi: it is that user, and can drop no group */
		errno = EPERM;
		return getuid() == m->uid && getgid() == m->gid;
	}
	unshare(CLONE_NEWNET | CLONE_NEWIPC); /* a guest without devices needs no network of the host */
	return setgroups(m->group != 0, &group) == 0 && setresgid(m->gid, m->gid, m->gid) == 0 &&
	       setresuid(m->uid, m->uid, m->uid) == 0;
}

static void child(const struct keeper_spawn *m, char **argv, int lock, int dir, int console, int qmp,
		  int diagnostics, const int *images, int n_images, pid_t parent)
{
	static const char failed[] = "phid-keeper: the process could not be prepared or executed: errno ";
	int null = open("/dev/null", O_RDWR), err;
	char number[16];
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	if (null < 0 || dup2(null, 0) < 0 || dup2(diagnostics, 1) < 0 || dup2(diagnostics, 2) < 0 || fchdir(dir) < 0)
		goto fail;
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	if ((m->flags & KEEPER_AS_USER) && !become_user(m))
		goto fail;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		goto fail;
	/* After the change of user, which clears it (kernel/cred.c commit_creds). */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		goto fail;
	place_fds(lock, console, qmp, images, n_images);
	execv(argv[0], argv);
fail:
	err = errno;
	number[0] = (char)('0' + err / 100 % 10);
	number[1] = (char)('0' + err / 10 % 10);
	number[2] = (char)('0' + err % 10);
	number[3] = '\n';
	if (write(2, failed, sizeof(failed) - 1) < 0 || write(2, number, 4) < 0)
		_exit(126);
	_exit(126);
}

static int take_strings(struct cell *c, const struct keeper_spawn *m, size_t length, char ***ret_argv)
{
	const char *end;
	char *p;
	char **argv;

	if (m->strings_at < sizeof(struct keeper_header) || m->strings_at >= length ||
	    ((const char *)m)[length - 1] != '\0' || m->n_args > 256 || m->n_rules > PHI_COUNT(c->rules) / 2)
		return -EBADMSG;
	c->rules_text = malloc(length - m->strings_at);
	argv = calloc(m->n_args + 1, sizeof(char *));
	if (c->rules_text == NULL || argv == NULL)
		abort();
	memcpy(c->rules_text, (const char *)m + m->strings_at, length - m->strings_at);
	p = c->rules_text;
	end = p + (length - m->strings_at);
	for (uint32_t i = 0; i < m->n_args + 2 * m->n_rules; i++) {
		if (p >= end) {
			free(argv);
			return -EBADMSG;
		}
		if (i < m->n_args)
			argv[i] = p;
		else
			c->rules[i - m->n_args] = p;
		p += strlen(p) + 1;
	}
	c->n_rules = m->n_rules;
	*ret_argv = argv;
	return 0;
}

/* Keeper and process share the host's CPUs; vCPU threads are moved by phid later. */
static void set_affinity(const struct keeper_spawn *m)
{
	size_t n = m->n_cpus_words < PHI_COUNT(m->cpus) ? m->n_cpus_words : PHI_COUNT(m->cpus);

	for (size_t i = 0; i < n; i++)
		if (m->cpus[i] != 0) {
			sched_setaffinity(0, n * sizeof(m->cpus[0]), (const cpu_set_t *)m->cpus); /* as cpuset_apply */
			return;
		}
}

int cell_spawn(struct cell *c, const struct keeper_spawn *m, size_t length, int *fds, int n_fds, int *ret_console)
{
	int console[2] = {-1, -1}, qmp[2] = {-1, -1}, diagnostics[2] = {-1, -1}, err = 0;
	_clean_free_ char **argv = NULL;
	pid_t parent = getpid(), pid;
	int r;

	if (c->state != KEEPER_CELL_NONE)
		return -EALREADY;
	if (n_fds < KEEPER_FD_MORE)
		return -EBADMSG;
	r = take_strings(c, m, length, &argv);
	if (r < 0)
		return r;
	c->flags = m->flags;
	set_affinity(m);
	c->lock = PHI_TAKE_FD(fds[KEEPER_FD_LOCK]);
	c->dir = PHI_TAKE_FD(fds[KEEPER_FD_DIR]);
	if (m->n_args == 0) { /* the cell is no process of ours */
		if (n_fds > KEEPER_FD_MORE) {
			*ret_console = PHI_TAKE_FD(fds[KEEPER_FD_MORE]);
			fcntl(*ret_console, F_SETFL, fcntl(*ret_console, F_GETFL) | O_NONBLOCK);
		}
		c->state = KEEPER_CELL_ALIVE;
		write_holders(c);
		return 0;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, qmp) < 0 || pipe2(diagnostics, O_CLOEXEC) < 0) {
		err = errno;
		goto out;
	}
	pid = fork();
	if (pid < 0) {
		err = errno;
		goto out;
	}
	if (pid == 0)
		child(m, argv, c->lock, c->dir, console[1], qmp[1], diagnostics[1], fds + KEEPER_FD_MORE,
		      n_fds - KEEPER_FD_MORE, parent);
	c->has_process = true;
	c->pid = pid;
	c->start = process_start(pid);
	c->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	c->state = KEEPER_CELL_ALIVE;
	c->qmp = PHI_TAKE_FD(qmp[0]);
	c->diagnostics = PHI_TAKE_FD(diagnostics[0]);
	*ret_console = PHI_TAKE_FD(console[0]);
	int ours[] = {c->qmp, c->diagnostics, *ret_console};
	for (size_t i = 0; i < PHI_COUNT(ours); i++)
		fcntl(ours[i], F_SETFL, fcntl(ours[i], F_GETFL) | O_NONBLOCK);
	write_holders(c);
out:
	phi_close(&console[0]);
	phi_close(&console[1]);
	phi_close(&qmp[0]);
	phi_close(&qmp[1]);
	phi_close(&diagnostics[0]);
	phi_close(&diagnostics[1]);
	return -err;
}

void cell_kill(struct cell *c)
{
	if (c->state == KEEPER_CELL_ALIVE && c->has_process) {
		c->killed = true;
		kill(c->pid, SIGKILL); /* our own child, not yet reaped: the pid is its */
	}
}

/* Keeps the last bytes of a stream. */
static void tail_put(char *tail, size_t size, size_t *n, const char *bytes, size_t len)
{
	if (len >= size) {
		memcpy(tail, bytes + len - size, size);
		*n = size;
		return;
	}
	if (*n + len > size) {
		size_t drop = *n + len - size;

		memmove(tail, tail + drop, *n - drop);
		*n -= drop;
	}
	memcpy(tail + *n, bytes, len);
	*n += len;
}

void cell_read_qmp(struct cell *c, void (*forward)(const char *bytes, size_t n))
{
	char buf[16384];
	ssize_t n = read(c->qmp, buf, sizeof(buf));

	if (n > 0) {
		tail_put(c->qmp_tail, sizeof(c->qmp_tail) - 1, &c->qmp_tail_n, buf, (size_t)n);
		if (forward != NULL)
			forward(buf, (size_t)n);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		phi_close(&c->qmp);
	}
}

void cell_read_diagnostics(struct cell *c)
{
	char buf[1024];
	ssize_t n = read(c->diagnostics, buf, sizeof(buf));

	if (n > 0)
		tail_put(c->diagnostics_tail, sizeof(c->diagnostics_tail) - 1, &c->diagnostics_tail_n, buf, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		phi_close(&c->diagnostics);
}

size_t cell_exit_text(const struct cell *c, char *buf, size_t size)
{
	return (size_t)snprintf(buf, size, "phid-exit 1\nwstatus %d\ncode %d\nkilled %d\n--- diagnostics\n%.*s\n--- control\n%.*s\n",
				c->wstatus, c->code, c->killed, (int)c->diagnostics_tail_n, c->diagnostics_tail,
				(int)c->qmp_tail_n, c->qmp_tail);
}

static void write_exit_file(const struct cell *c)
{
	char text[sizeof(c->qmp_tail) + sizeof(c->diagnostics_tail) + 256];
	size_t n = cell_exit_text(c, text, sizeof(text));
	_clean_close_ int fd = openat(c->dir, "exit.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);

	if (fd < 0 || write(fd, text, n) != (ssize_t)n || fsync(fd) < 0)
		return; /* a full disk: phid is told on the connection all the same */
	renameat(c->dir, "exit.new", c->dir, "exit");
}

void cell_finish(struct cell *c)
{
	if (c->has_process) {
		while (waitpid(c->pid, &c->wstatus, 0) < 0 && errno == EINTR)
			;
		/* What it wrote last is still in the sockets; bounded, should somebody else hold an end. */
		for (int i = 0; c->qmp >= 0 && i < 64; i++)
			cell_read_qmp(c, NULL);
		c->qmp_tail[c->qmp_tail_n] = '\0';
		c->code = keeper_exit_code(c->wstatus, c->flags, c->qmp_tail, c->rules, c->n_rules);
	}
	c->state = KEEPER_CELL_DEAD;
	write_exit_file(c);
	phi_close(&c->pidfd);
	phi_close(&c->lock);
	phi_close(&c->dir);
}
