/* Guests whose records are lost with the database: they go on, what they have is held, and they are told of until they end.
 *
 * A cell of a hypervisor is found by its backend's list. A guest that is a process is found by its keeper, which connects and is unknown:
 * after a start on a fresh database in the place of a damaged one it is not ended, but noted in observed_cells, by its incarnation. */
#include "phid.h"

#include "batch.h"
#include "clean.h"
#include "cpuset.h"
#include "error.h"
#include "hostfiles.h"
#include "json.h"
#include "keepers.h"
#include "log.h"
#include "store.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

struct lost {
	bool gone;
	char backend[16], name[32], incarnation[PHI_UUID_LEN + 1], cpus[CPUSET_TEXT_MAX];
};

static const char *backend_of_processes(const struct phid *p)
{
	for (size_t i = 0; i < p->n_backends; i++)
		if (p->backends[i]->can & CELL_IS_PROCESS)
			return p->backends[i]->name;
	return "process";
}

/* Where its vCPUs run: QEMU's threads "CPU 0/KVM" and so on (debug-threads=on). */
static void read_cpus(pid_t pid, char *ret, size_t size)
{
	struct cpuset all = {0}, one;
	char path[64];
	_clean_closedir_ DIR *d = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	for (struct dirent *f = d != NULL ? readdir(d) : NULL; f != NULL; f = readdir(d)) {
		_clean_free_ char *status = NULL;
		const char *list;
		char line[32];
		size_t n;

		if (!host_line("", line, sizeof(line), "%s/%s/comm", path, f->d_name) || strncmp(line, "CPU ", 4) != 0)
			continue;
		status = host_text("", 1 << 16, "%s/%s/status", path, f->d_name);
		list = status != NULL ? strstr(status, "Cpus_allowed_list:") : NULL;
		if (list == NULL)
			continue;
		list += strcspn(list, "\t") + 1;
		n = strcspn(list, "\n");
		if (n < size) {
			memcpy(ret, list, n);
			ret[n] = '\0';
			if (cpuset_parse(ret, "", &one, NULL) == 0)
				for (int c = cpuset_next(&one, 0); c >= 0; c = cpuset_next(&one, (unsigned)c + 1))
					cpuset_add(&all, (unsigned)c);
		}
	}
	cpuset_format(&all, ret, size);
}

static int write_cell(struct store *s, void *ud, struct phi_error *e)
{
	struct lost *l = ud;
	_clean_json_ struct json *j = json_object();
	_clean_free_ char *detail = NULL;
	int r = l->gone ? store_observed_remove(s, l->backend, l->name, e) : store_observed_insert(s, l->backend, l->name, l->incarnation, l->cpus, false, e);

	json_add_string(j, "backend", l->backend);
	json_add_string(j, "cell", l->name);
	json_add_string(j, "cpus", l->cpus);
	detail = json_print(j);
	return r < 0 ? r : store_event_insert(s, l->gone ? "cell.unexplained-gone" : "cell.unexplained", NULL, l->incarnation, detail, e);
}

static void written(void *ud, const struct phi_error *e)
{
	struct lost *l = ud;

	if (e != NULL)
		log_error(NULL, "%s", e->detail);
	else if (l->gone)
		log_info(NULL, "%s, which no record explained, ended; its CPUs are free", l->name);
	else
		log_warn(NULL, "%s runs and no record explains it; its CPUs (%s) are not granted until it ends", l->name, l->cpus);
	free(l);
}

static void submit(struct phid *p, bool gone, const char *name, const char *incarnation, pid_t pid)
{
	struct lost *l = calloc(1, sizeof(*l));

	if (l == NULL)
		abort();
	l->gone = gone;
	snprintf(l->backend, sizeof(l->backend), "%s", backend_of_processes(p));
	snprintf(l->name, sizeof(l->name), "%s", name);
	snprintf(l->incarnation, sizeof(l->incarnation), "%s", incarnation);
	if (!gone)
		read_cpus(pid, l->cpus, sizeof(l->cpus));
	batch_submit(p->batch, write_cell, written, l);
}

struct search {
	const char *name, *incarnation; /* either */
	char found[32];
};

static void match(void *ud, const char *name, const char *incarnation)
{
	struct search *q = ud;

	if (q->name != NULL ? strcmp(name, q->name) == 0 : strcmp(incarnation, q->incarnation) == 0)
		snprintf(q->found, sizeof(q->found), "%s", name);
}

static bool find(const struct phid *p, struct search *q)
{
	store_observed(p->store, STORE_READ, backend_of_processes(p), match, q);
	return q->found[0] != '\0';
}

bool lost_hold(struct phid *p, const char *incarnation, pid_t pid)
{
	struct search noted = {.incarnation = incarnation};
	char name[32];

	if (pid <= 0)
		return false;
	if (find(p, &noted))
		return true;
	if (p->store_note == NULL || !host_line("", name, sizeof(name), "/proc/%d/comm", (int)pid))
		return false;
	submit(p, false, name, incarnation, pid);
	return true;
}

void lost_ended(struct phid *p, const char *incarnation)
{
	struct search noted = {.incarnation = incarnation};

	if (find(p, &noted))
		submit(p, true, noted.found, incarnation, 0);
}

/* Has a keeper the directory's lock? */
static bool is_held(const struct phid *p, int64_t row)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[PHI_PATH_MAX];
	_clean_close_ int fd = -1;

	cell_path(p, row, "lock", path, sizeof(path));
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool lost_has(const struct phid *p, int64_t row)
{
	char name[32];
	struct search noted = {.name = name};

	snprintf(name, sizeof(name), CELL_NAME, (long long)row);
	return is_held(p, row) && (p->store_note != NULL || find(p, &noted));
}

static void note_ended(void *ud, const char *name, const char *incarnation)
{
	struct phid *p = ud;
	int64_t row = cell_row_of_name(name);

	if (row == 0 || !is_held(p, row))
		submit(p, true, name, incarnation, 0);
}

void lost_settle(struct phid *p)
{
	store_observed(p->store, STORE_READ, backend_of_processes(p), note_ended, p);
}

/* Calls each for the directory of every row. */
static void each_dir(const struct phid *p, void (*each)(const struct phid *p, long long row, long long *sum), long long *sum)
{
	char path[PHI_PATH_MAX];
	_clean_closedir_ DIR *d = NULL;

	snprintf(path, sizeof(path), "%s/cells", p->config.state_dir);
	d = opendir(path);
	for (struct dirent *f = d != NULL ? readdir(d) : NULL; f != NULL; f = readdir(d))
		if (atoll(f->d_name) > 0)
			each(p, atoll(f->d_name), sum);
}

static void count_held(const struct phid *p, long long row, long long *n)
{
	*n += is_held(p, row);
}

bool lost_awaited(const struct phid *p)
{
	long long held = 0;

	if (p->store_note == NULL)
		return false;
	each_dir(p, count_held, &held);
	return held > keepers_lost(p->keepers);
}

static void find_last(const struct phid *p, long long row, long long *last)
{
	(void)p;
	*last = row > *last ? row : *last;
}

int lost_rows(struct phid *p, struct store *s, struct phi_error *e)
{
	long long last = 0;

	each_dir(p, find_last, &last);
	return store_rows_beyond(s, last, e);
}
