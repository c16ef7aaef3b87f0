/* The keeper's cgroup: where clients look for what the container uses. Made in every hierarchy of cgroup v1, or in v2. */
#include "runphi.h"

#include "clean.h"

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

/* A new cpuset of v1 is empty and takes no process (cgroup-v1/cpusets.rst): it gets its parent's. */
static void inherit_cpuset(const char *parent, const char *dir)
{
	static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};

	for (size_t i = 0; i < PHI_COUNT(files); i++) {
		char path[2 * PHI_PATH_MAX], text[4096];
		_clean_close_ int fd = -1;
		ssize_t n;

		snprintf(path, sizeof(path), "%s/%s", parent, files[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
		if (n > 0) {
			text[n] = '\0';
			put(dir, files[i], text);
		}
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
				inherit_cpuset(parent, dir);
			else if (errno != EEXIST)
				return false;
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

int cgroup_join(const char *path, pid_t pid, struct phi_error *e)
{
	struct join j = {.path = path};

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
	each_hierarchy(remove_each, (void *)(uintptr_t)path);
}
