/* The keeper's cgroup: where clients look for what the container uses. Made in every hierarchy of cgroup v1, or in v2. */
#include "runphi.h"

#include "clean.h"
#include "field.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static bool put(const char *dir, const char *file, const char *text)
{
	char path[2 * PHI_PATH_MAX];
	_clean_close_ int fd = -1;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

static bool get(const char *dir, const char *file, char *ret, size_t size)
{
	char path[2 * PHI_PATH_MAX];
	_clean_close_ int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, ret, size - 1) : -1;
	ret[n > 0 ? n : 0] = '\0';
	return n >= 0;
}

/* An empty cpuset of v1 takes no process (cgroup-v1/cpusets.rst): it gets its parent's, whoever made it. */
static void inherit_cpuset(const char *parent, const char *dir)
{
	static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};

	for (size_t i = 0; i < PHI_COUNT(files); i++) {
		char text[4096], own[4096];

		if (get(dir, files[i], own, sizeof(own)) && own[strspn(own, "\n")] == '\0' && get(parent, files[i], text, sizeof(text)))
			put(dir, files[i], text);
	}
}

/* In v2 a directory has the controllers that its parent hands down (cgroup-v2.rst, "Enabling and Disabling"): each that there is. One
 * that cannot be (processes in the parent, a controller that v1 has) is done without. */
static void hand_down(const char *parent)
{
	char text[1024], word[80];

	get(parent, "cgroup.controllers", text, sizeof(text));
	for (char *save, *c = strtok_r(text, " \n", &save); c != NULL; c = strtok_r(NULL, " \n", &save)) {
		snprintf(word, sizeof(word), "+%.70s", c);
		put(parent, "cgroup.subtree_control", word);
	}
}

/* Makes path below the mount point, component by component. */
static bool make(const char *mount, const char *path, char *dir, size_t size)
{
	size_t n = (size_t)snprintf(dir, size, "%s", mount);
	char parent[PHI_PATH_MAX + 1];

	for (const char *p = path; *p != '\0';) {
		size_t len = strcspn(p, "/");

		if (len > 0) {
			snprintf(parent, sizeof(parent), "%s", dir);
			if (n + len + 2 > size)
				return false;
			n += (size_t)snprintf(dir + n, size - n, "/%.*s", (int)len, p);
			if (mkdir(dir, 0755) == 0)
				hand_down(parent);
			else if (errno != EEXIST)
				return false;
			inherit_cpuset(parent, dir);
		}
		p += len + (p[len] == '/');
	}
	return true;
}

/* Calls each for the mount point of every hierarchy. */
static void each_hierarchy(void (*each)(void *ud, const char *mount), void *ud)
{
	_clean_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[2 * PHI_PATH_MAX], mount[PHI_PATH_MAX + 1], type[32];

	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		const char *dash = strstr(line, " - ");

		if (dash != NULL && sscanf(line, "%*d %*d %*s %*s %4095s", mount) == 1 && sscanf(dash, " - %31s", type) == 1 &&
		    (strcmp(type, "cgroup") == 0 || strcmp(type, "cgroup2") == 0))
			each(ud, mount);
	}
}

struct join {
	const char *path;
	char pid[16];
	unsigned joined;
	int err;
};

static void join_each(void *ud, const char *mount)
{
	struct join *j = ud;
	char dir[PHI_PATH_MAX + 1];

	if (make(mount, j->path, dir, sizeof(dir)) && put(dir, "cgroup.procs", j->pid))
		j->joined++;
	else
		j->err = errno;
}

/* ---- systemd's form ---- */

/* "slice:prefix:name" of runc --systemd-cgroup, as the unit's name and its slice (runc's docs/systemd.md). */
static bool scope_of(const char *path, char slice[256], char unit[256])
{
	const char *first = strchr(path, ':'), *second = first ? strchr(first + 1, ':') : NULL;
	size_t prefix = second ? (size_t)(second - first - 1) : 0;

	if (second == NULL || strchr(second + 1, ':') != NULL || second[1] == '\0' || strlen(path) > 240 || strpbrk(path, "/\n ") != NULL)
		return false;
	snprintf(slice, 256, "%.*s", first > path ? (int)(first - path) : 12, first > path ? path : "system.slice");
	snprintf(unit, 256, "%.*s%s%s.scope", (int)prefix, first + 1, prefix ? "-" : "", second + 1);
	return true;
}

static bool is_in(pid_t pid, const char *unit)
{
	char path[40], text[8192], end[260];
	_clean_fclose_ FILE *f = NULL;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	snprintf(end, sizeof(end), "/%s\n", unit);
	f = fopen(path, "re");
	n = f != NULL ? fread(text, 1, sizeof(text) - 1, f) : 0;
	text[n] = '\0';
	return strstr(text, end) != NULL;
}

/* By busctl: libsystemd would be loaded at each call of runphi, for what is done once a container. */
static int scope_join(const char *path, pid_t pid, struct phi_error *e)
{
	char slice[256], unit[256], number[16];
	char *argv[] = {(char[]){"busctl"}, (char[]){"--quiet"}, (char[]){"call"}, (char[]){"org.freedesktop.systemd1"},
			(char[]){"/org/freedesktop/systemd1"}, (char[]){"org.freedesktop.systemd1.Manager"}, (char[]){"StartTransientUnit"},
			(char[]){"ssa(sv)a(sa(sv))"}, unit, (char[]){"fail"}, (char[]){"4"},
			(char[]){"PIDs"}, (char[]){"au"}, (char[]){"1"}, number,
			(char[]){"Slice"}, (char[]){"s"}, slice,
			(char[]){"Delegate"}, (char[]){"b"}, (char[]){"true"},
			(char[]){"CollectMode"}, (char[]){"s"}, (char[]){"inactive-or-failed"}, (char[]){"0"}, NULL};
	char *env[] = {NULL};
	int r;

	if (!scope_of(path, slice, unit)) /* checked before */
		return -EINVAL;
	snprintf(number, sizeof(number), "%d", (int)pid);
	if (access("/run/systemd/system", F_OK) < 0)
		return phi_error_set(e, PHI_UNSUPPORTED, ENOENT, "/linux/cgroupsPath",
				     "%.200s asks for a scope of systemd, which does not run here; use cgroupfs, or an absolute path", path);
	r = program_run("/usr/bin/busctl", argv, env, "", 20, e);
	if (r < 0) {
		phi_error_wrap(e, "the scope %s", unit);
		return r;
	}
	for (int i = 0; i < 500 && !is_in(pid, unit); i++) /* its job ends later than the answer */
		usleep(10000);
	return is_in(pid, unit) ? 0 : phi_error_set(e, PHI_INTERNAL, ETIMEDOUT, "/linux/cgroupsPath", "systemd does not make the scope %s", unit);
}

int cgroup_check(const char *path, struct phi_error *e)
{
	char slice[256], unit[256];

	if (strchr(path, ':') != NULL && path[0] != '/')
		return scope_of(path, slice, unit) ? 0 :
			phi_error_set(e, PHI_INVALID, EINVAL, "/linux/cgroupsPath", "\"%.60s\" is not \"slice:prefix:name\"", path);
	if (strchr(path, '\n') != NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/linux/cgroupsPath", "a path must not have a line break");
	return field_check_path(path, "/linux/cgroupsPath", e);
}

int cgroup_join(const char *path, pid_t pid, struct phi_error *e)
{
	struct join j = {.path = path};

	if (path[0] != '/')
		return scope_join(path, pid, e);

	snprintf(j.pid, sizeof(j.pid), "%d", (int)pid);
	each_hierarchy(join_each, &j);
	if (j.joined > 0)
		return 0;
	return phi_error_set(e, PHI_INVALID, j.err, "/linux/cgroupsPath", "the cgroup %.200s cannot be made in any hierarchy: %s", path,
			     strerror(j.err));
}

static void remove_each(void *ud, const char *mount)
{
	char dir[2 * PHI_PATH_MAX];

	snprintf(dir, sizeof(dir), "%s/%s", mount, (const char *)ud);
	rmdir(dir);
}

void cgroup_remove(const char *path)
{
	if (path[0] == '/')
		each_hierarchy(remove_each, (void *)(uintptr_t)path);
}
