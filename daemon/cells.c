/* Handles of living cells and what the daemon does for backends: the way to the keeper, the presence lock, the
 * directory. A handle caches nothing that the database owns but what an action needs; it is made from the row. */
#include "phid.h"

#include "clean.h"
#include "console_log.h"
#include "error.h"
#include "id.h"
#include "jobs.h"
#include "json.h"
#include "keepers.h"
#include "log.h"
#include "loop.h"
#include "operation.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

struct phid *the_phid;

#define OUTPUT_MAX 16384 /* bytes of one packet to a keeper */
#define BUCKETS PHI_COUNT(((struct phid *)0)->cells)

const struct backend *backend_find(const struct phid *p, const char *name)
{
	for (size_t i = 0; i < p->n_backends; i++)
		if (strcmp(p->backends[i]->name, name) == 0)
			return p->backends[i];
	return NULL;
}

size_t incarnation_bucket(const char *incarnation)
{
	return id_hash64(incarnation) % INCARNATION_BUCKETS;
}

static void name(struct phid *p, struct cell *c, const char *id, const char *incarnation)
{
	struct cell **first = &p->named[incarnation_bucket(incarnation)];

	snprintf(c->id, sizeof(c->id), "%s", id);
	snprintf(c->incarnation, sizeof(c->incarnation), "%s", incarnation);
	c->next_named = *first;
	*first = c;
}

static void unname(struct phid *p, struct cell *c)
{
	struct cell **at = &p->named[incarnation_bucket(c->incarnation)];

	while (*at != c)
		at = &(*at)->next_named;
	*at = c->next_named;
}

void cell_rename(struct phid *p, struct cell *c, const char *id, const char *incarnation)
{
	unname(p, c);
	name(p, c, id, incarnation);
}

struct cell *cell_new(struct phid *p, const struct container *row, struct spec *spec)
{
	_clean_json_ struct json *cell = NULL;
	struct cell *c = calloc(1, sizeof(*c));

	if (c == NULL)
		abort();
	c->row = row->row;
	c->spec = *spec;
	*spec = (struct spec){0};
	c->console = -1;
	name(p, c, row->id, row->incarnation);
	snprintf(c->name, sizeof(c->name), CELL_NAME, (long long)row->row);
	c->backend = backend_find(p, row->backend);
	c->owner_uid = row->owner_uid;
	c->owner_gid = row->owner_gid;
	c->keeper_pid = row->keeper_pid;
	c->keeper_start = row->keeper_start;
	c->external_keeper = !row->keeper_by_phid;
	c->started = row->started_at[0] != '\0';
	if (row->cell != NULL && json_parse(row->cell, strlen(row->cell), &cell, NULL) == 0 && json_get_string(cell, "accel") != NULL)
		snprintf(c->accel, sizeof(c->accel), "%s", json_get_string(cell, "accel"));
	json_is_bool(json_get(cell, "claimed"), &c->claimed);
	c->next = p->cells[(uint64_t)c->row % BUCKETS];
	p->cells[(uint64_t)c->row % BUCKETS] = c;
	return c;
}

void cell_free(struct phid *p, struct cell *c)
{
	struct cell **at = &p->cells[(uint64_t)c->row % BUCKETS];

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	unname(p, c);
	if (c->grant.n_links > 0)
		operation_links_changed(p);
	c->backend->forget(c);
	for (size_t i = 0; i < c->n_images; i++) {
		phi_close(&c->images[i].fd);
		free(c->images[i].path);
	}
	phi_close(&c->console);
	loop_source_free(c->watch);
	loop_source_free(c->escalation);
	alloc_grant_done(&c->grant);
	spec_free(&c->spec);
	free(c->end_text);
	free(c);
}

struct cell *cell_of_row(struct phid *p, int64_t row)
{
	struct cell *c = p->cells[(uint64_t)row % BUCKETS];

	while (c != NULL && c->row != row)
		c = c->next;
	return c;
}

struct cell *cell_of_incarnation(struct phid *p, const char *incarnation)
{
	struct cell *c = p->named[incarnation_bucket(incarnation)];

	while (c != NULL && strcmp(c->incarnation, incarnation) != 0)
		c = c->next_named;
	return c;
}

struct cell *cell_by_name(const char *name)
{
	return strncmp(name, "phid-", 5) == 0 ? cell_of_row(the_phid, atoll(name + 5)) : NULL;
}

/* ---- the directory ---- */

int64_t cell_row_of_name(const char *name)
{
	long long row = 0;
	int end = 0;

	return sscanf(name, CELL_NAME "%n", &row, &end) == 1 && name[end] == '\0' && row > 0 ? row : 0;
}

void cell_path(const struct phid *p, int64_t row, const char *file, char *ret, size_t size)
{
	snprintf(ret, size, "%s/cells/%lld%s%s", p->config.state_dir, (long long)row, file[0] ? "/" : "", file);
}

int cell_dir_make(const char *dir, uid_t uid, gid_t gid, uint64_t log_size, struct phi_error *e)
{
	struct console_log head = {.magic = CONSOLE_LOG_MAGIC, .size = log_size};
	_clean_close_ int d = -1, lock = -1, log = -1;
	int r;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return phi_error_set(e, PHI_STORAGE, errno, "", "%s: %s", dir, strerror(errno));
	d = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (d >= 0)
		lock = openat(d, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (d >= 0)
		log = openat(d, "console", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (d < 0 || lock < 0 || log < 0)
		return phi_error_set(e, PHI_STORAGE, errno, "", "%s: %s", dir, strerror(errno));
	r = posix_fallocate(log, 0, (off_t)(CONSOLE_LOG_HEADER + log_size));
	if (r != 0 || pwrite(log, &head, sizeof(head), 0) != sizeof(head))
		return phi_error_set(e, PHI_STORAGE, r ? r : errno, "", "there is no room for the console's log: %s",
				     strerror(r ? r : errno));
	/* The keeper has the caller's rights, not phid's: it writes the exit file. */
	if (geteuid() == 0 && (fchown(d, uid, gid) < 0 || fchown(lock, uid, gid) < 0 || fchown(log, uid, gid) < 0))
		return phi_error_set(e, PHI_STORAGE, errno, "", "%s: %s", dir, strerror(errno));
	return 0;
}

static void remove_run(void *ud)
{
	static const char *const files[] = {"lock", "console", "exit", "exit.new", "qmp", NULL};
	char *dir = ud, path[PHI_PATH_MAX];

	for (int i = 0; files[i] != NULL; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		unlink(path);
	}
	rmdir(dir);
}

void cell_dir_remove(struct phid *p, int64_t row)
{
	char dir[PHI_PATH_MAX], *copy;

	cell_path(p, row, "", dir, sizeof(dir));
	copy = strdup(dir);
	if (copy == NULL)
		abort();
	jobs_submit(p->jobs, remove_run, free, copy);
}

char *cell_exit_text(const struct phid *p, int64_t row)
{
	char path[PHI_PATH_MAX], text[8192];
	_clean_close_ int fd = -1;
	ssize_t n;

	cell_path(p, row, "exit", path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return NULL;
	n = read(fd, text, sizeof(text) - 1);
	return n > 0 ? strndup(text, (size_t)n) : NULL;
}

bool cell_lock_held(const struct cell *c)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[PHI_PATH_MAX];
	_clean_close_ int fd = -1;

	cell_path(the_phid, c->row, "lock", path, sizeof(path));
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	/* OFD locks are asked about without taking them (fcntl(2), F_OFD_GETLK). */
	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

bool cell_is_kept(const struct cell *c)
{
	return c->keeper == NULL && c->spec.keeper_lost == KEEPER_LOST_KEEP && !(c->backend->can & CELL_IS_PROCESS) && !cell_lock_held(c);
}

/* ---- the way to the keeper ---- */

bool cell_has_keeper(const struct cell *c)
{
	return c->keeper != NULL;
}

int cell_control(struct cell *c, const char *text, size_t n)
{
	struct keeper_header m = {0};

	if (c->keeper == NULL)
		return -ENOTCONN;
	return keeper_send(c->keeper, &m, sizeof(m), KEEPER_QMP_IN, text, n, NULL, 0);
}

void cell_output(struct cell *c, const char *bytes, size_t n)
{
	struct keeper_header m = {0};

	for (size_t done = 0; c->keeper != NULL && done < n; done += OUTPUT_MAX)
		keeper_send(c->keeper, &m, sizeof(m), KEEPER_OUTPUT, bytes + done, n - done < OUTPUT_MAX ? n - done : OUTPUT_MAX, NULL, 0);
}

int cell_listen(const struct cell *c, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_clean_close_ int dir = -1, fd = -1;
	char path[PHI_PATH_MAX];

	cell_path(the_phid, c->row, name, path, sizeof(path));
	unlink(path);
	cell_path(the_phid, c->row, "", path, sizeof(path));
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* By the directory's descriptor: a state directory's path may be longer than sun_path. */
	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/%s", dir, name);
	if (dir < 0 || fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0)
		return -1;
	return PHI_TAKE_FD(fd);
}

/* Opens directory, lock (and takes it: from here on the cell is "present" as long as any copy is open) and log. */
static int open_presence(const struct cell *c, int fds[3], struct phi_error *e)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[PHI_PATH_MAX];

	cell_path(the_phid, c->row, "lock", path, sizeof(path));
	fds[KEEPER_FD_LOCK] = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	cell_path(the_phid, c->row, "", path, sizeof(path));
	fds[KEEPER_FD_DIR] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	cell_path(the_phid, c->row, "console", path, sizeof(path));
	fds[KEEPER_FD_LOG] = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fds[0] < 0 || fds[1] < 0 || fds[2] < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, "", "%s: %s", path, strerror(errno));
	if (fcntl(fds[KEEPER_FD_LOCK], F_OFD_SETLK, &l) < 0)
		return phi_error_set(e, PHI_BUSY, errno, "", "the cell's presence lock is held already");
	return 0;
}

static size_t put_strings(char *buf, size_t size, const char *const *list, uint32_t *ret_n)
{
	size_t n = 0;

	for (*ret_n = 0; list != NULL && list[*ret_n] != NULL; (*ret_n)++) {
		size_t len = strlen(list[*ret_n]) + 1;

		if (n + len > size)
			abort(); /* the sum of bounded parts */
		memcpy(buf + n, list[*ret_n], len);
		n += len;
	}
	return n;
}

int cell_spawn(struct cell *c, const struct cell_process *process, int console, struct phi_error *e)
{
	_clean_close_ int lock = -1, dir = -1, log = -1, console_fd = console;
	struct keeper_spawn m = {.strings_at = sizeof(m), .n_cpus_words = PHI_CPUS_MAX / 64};
	char strings[16384] = "";
	int fds[KEEPER_FDS_MAX] = {-1, -1, -1};
	size_t n = 1, n_fds = KEEPER_FD_MORE;
	struct cpuset cpus;
	int r;

	if (c->keeper == NULL)
		return phi_error_set(e, PHI_BACKEND, ENOTCONN, "", "the container's keeper is not there");
	r = open_presence(c, fds, e);
	lock = fds[KEEPER_FD_LOCK];
	dir = fds[KEEPER_FD_DIR];
	log = fds[KEEPER_FD_LOG];
	if (r < 0)
		return r;
	host_stay(&the_phid->platform, &cpus);
	memcpy(m.cpus, cpus.bits, sizeof(m.cpus));
	if (process != NULL) {
		uint32_t n_rules;

		m.flags = process->flags;
		m.uid = process->uid;
		m.gid = process->gid;
		m.group = process->group;
		n = put_strings(strings, sizeof(strings), process->argv, &m.n_args);
		n += put_strings(strings + n, sizeof(strings) - n, process->rules, &n_rules);
		m.n_rules = n_rules / 2;
		for (size_t i = 0; i < process->n_fds; i++)
			fds[n_fds++] = process->fds[i];
	} else if (console_fd >= 0) {
		fds[n_fds++] = console_fd;
	}
	r = keeper_send(c->keeper, &m, sizeof(m), KEEPER_SPAWN, strings, n, fds, n_fds);
	if (r < 0)
		return phi_error_set(e, PHI_BACKEND, -r, "", "the keeper cannot be told: %s", strerror(-r));
	return 0;
}

/* SIGKILL to exactly that process, never to one that got its number since. */
static void kill_exactly(pid_t pid, uint64_t start)
{
	char path[40], text[512];
	_clean_close_ int pidfd = pid > 1 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1, fd = -1;
	ssize_t n;

	if (pidfd < 0)
		return;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
	text[n > 0 ? n : 0] = '\0';
	if (n > 0 && keeper_start_of_stat(text) == start)
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

void cell_kill_process(struct cell *c)
{
	struct keeper_header m = {0};
	struct keeper_holders h;

	if (c->keeper != NULL && keeper_send(c->keeper, &m, sizeof(m), KEEPER_KILL, NULL, 0, NULL, 0) == 0)
		return;
	if (cell_lock_held(c) && keeper_holders_read(the_phid, c->row, &h)) {
		kill_exactly(h.cell, h.cell_start);
		kill_exactly(h.keeper, h.keeper_start);
	}
}
