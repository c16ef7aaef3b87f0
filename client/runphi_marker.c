/* The marker of a managed container. See runphi.h; why it is not below --root: DESIGN §6. */
#include "runphi.h"

#include "clean.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void marker_path(const struct invocation *v, const char *id, char *ret, size_t size)
{
	snprintf(ret, size, "%s/%016" PRIx64 "%s%s", v->state_dir, id_hash64(v->root), id[0] ? "/" : "", id);
}

void marker_free(struct marker *m)
{
	free(m->cgroup);
	free(m->hooks);
	m->cgroup = m->hooks = NULL;
}

static bool is_own(int fd)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return false;
	if (st.st_uid != 0 && st.st_uid != geteuid()) {
		errno = EPERM;
		return false;
	}
	return true;
}

/* Hooks are in it, which run as the caller: it must be the caller's own, or root's, and so must be who can put another in its place. */
static FILE *open_own(const char *dir, const char *id)
{
	_clean_close_ int d = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	_clean_close_ int fd = is_own(d) ? openat(d, id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
	FILE *f;

	if (!is_own(fd))
		return NULL;
	f = fdopen(fd, "r");
	if (f != NULL)
		fd = -1; /* it is the stream's */
	return f;
}

int marker_read(const struct invocation *v, const char *id, struct marker *ret)
{
	char path[PHI_PATH_MAX + 256], *line = NULL;
	_clean_fclose_ FILE *f = NULL;
	size_t room = 0;
	ssize_t n;
	int keeper = 0, words;

	*ret = (struct marker){0};
	marker_path(v, "", path, sizeof(path));
	f = open_own(path, id);
	if (f == NULL)
		return -errno;
	words = fscanf(f, "runphi-marker 1\nincarnation %36s\nrecord %128s\nkeeper %d %" SCNu64 "\n", ret->incarnation, ret->record,
		       &keeper, &ret->keeper_start);
	ret->keeper = keeper;
	while (words == 4 && (n = getline(&line, &room, f)) > 0) {
		if (line[n - 1] != '\n')
			break;
		line[n - 1] = '\0';
		if (strncmp(line, "cgroup ", 7) == 0 && ret->cgroup == NULL)
			ret->cgroup = phi_strdup(line + 7);
		else if (strncmp(line, "hooks ", 6) == 0 && ret->hooks == NULL)
			ret->hooks = phi_strdup(line + 6);
		else if (strcmp(line, "end") == 0)
			words = 5;
	}
	free(line);
	if (words == 5)
		return 0;
	marker_free(ret);
	*ret = (struct marker){0};
	return -EBADMSG;
}

int marker_write(const struct invocation *v, const char *id, const struct marker *m, struct phi_error *e)
{
	char path[PHI_PATH_MAX + 256];
	_clean_free_ char *text = NULL;
	_clean_close_ int fd = -1;
	int n = asprintf(&text, "runphi-marker 1\nincarnation %s\nrecord %s\nkeeper %d %" PRIu64 "\n%s%s%s%s%s%send\n",
			 m->incarnation, m->record, (int)m->keeper, m->keeper_start, m->cgroup ? "cgroup " : "",
			 m->cgroup ? m->cgroup : "", m->cgroup ? "\n" : "", m->hooks ? "hooks " : "", m->hooks ? m->hooks : "",
			 m->hooks ? "\n" : "");

	if (n < 0)
		abort();
	/* The directory goes with its last marker, perhaps right now: once more then. */
	for (int turn = 0; fd < 0 && turn < 10 && (turn == 0 || errno == ENOENT); turn++) {
		marker_path(v, "", path, sizeof(path));
		mkdir(v->state_dir, 0700);
		mkdir(path, 0700);
		marker_path(v, id, path, sizeof(path));
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	}
	if (fd < 0 && errno == EEXIST)
		return phi_error_set(e, PHI_EXISTS, EEXIST, "/id", "container with id %s already exists", id);
	if (fd < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, "/id", "%s: %s", path, strerror(errno));
	if (write(fd, text, (size_t)n) != n) {
		phi_error_set(e, PHI_INTERNAL, errno, "", "%s: %s", path, strerror(errno));
		unlink(path);
		return -EIO;
	}
	return 0;
}

void marker_remove(const struct invocation *v, const char *id)
{
	char path[PHI_PATH_MAX + 256];

	marker_path(v, id, path, sizeof(path));
	unlink(path);
	marker_path(v, "", path, sizeof(path));
	rmdir(path); /* if it was the last */
}
