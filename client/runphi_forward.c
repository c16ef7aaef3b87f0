/* Ours or not: the rule that decides, and the way to the forwarded runtime (DESIGN §6). */
#include "runphi.h"

#include "clean.h"
#include "http_client.h"
#include "oci.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char *read_file(const char *path, size_t max, size_t *ret_n)
{
	_clean_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	char *text;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size > max)
		return NULL;
	text = malloc((size_t)st.st_size + 1);
	if (text == NULL)
		abort();
	n = read(fd, text, (size_t)st.st_size);
	*ret_n = n > 0 ? (size_t)n : 0;
	text[*ret_n] = '\0';
	return text;
}

static int open_root(const char *bundle, const char *root_path)
{
	char path[2 * PHI_PATH_MAX + 2];

	snprintf(path, sizeof(path), "%s%s%s", root_path[0] == '/' ? "" : bundle, root_path[0] == '/' ? "" : "/", root_path);
	return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Does the image carry /boot/config.json? Looked up inside of it, whatever its symbolic links say. */
static bool image_asks(const char *bundle, const char *root_path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	_clean_close_ int root = open_root(bundle, root_path), fd = -1;

	if (root < 0)
		return false;
	fd = (int)syscall(SYS_openat2, root, "boot/config.json", &how, sizeof(how));
	return fd >= 0;
}

int bundle_read(const char *bundle, struct oci_config *c, struct phi_error *e)
{
	_clean_free_ char *text = NULL;
	char path[PHI_PATH_MAX + 16];
	size_t n;

	snprintf(path, sizeof(path), "%s/config.json", bundle);
	text = read_file(path, PHI_BUNDLE_CONFIG_MAX, &n);
	return text != NULL ? oci_config_read(text, n, c, e)
			    : phi_error_set(e, PHI_INVALID, EINVAL, "/bundle", "%s cannot be read", path);
}

static int asks_for_a_cell(const struct invocation *v, const char *bundle, const struct oci_config *c, struct phi_error *e)
{
	const char *asked;

	if (oci_is_sandbox(c))
		return 0;
	asked = oci_own_annotation(c, "runtime");
	if (asked != NULL && strcmp(asked, "runphi") == 0)
		return 1;
	if (asked != NULL && strcmp(asked, "runc") == 0)
		return 0;
	if (asked != NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/annotations",
				     "org.runphi.runtime is \"%.40s\", which is neither runphi nor runc", asked);
	return c->has_vm || (v->images_ask && c->root_path != NULL && image_asks(bundle, c->root_path));
}

int bundle_is_managed(const struct invocation *v, const char *bundle, struct oci_config *c, struct phi_error *e)
{
	_clean_close_ int root = -1;
	struct phi_error wrong;
	int read = bundle_read(bundle, c, &wrong), asks;

	if (!json_is_object(c->document))
		return 0; /* the forwarded runtime says what is wrong with it, in its own words */
	asks = asks_for_a_cell(v, bundle, c, e);
	if (asks <= 0)
		return asks;
	if (read == 0 && c->root_path != NULL && (root = open_root(bundle, c->root_path)) < 0)
		return phi_error_set(e, PHI_INVALID, errno, "/root/path", "%s: %s", c->root_path, strerror(errno));
	if (read == 0)
		return asks;
	*e = wrong; /* what asks for a cell never becomes an ordinary container */
	return read;
}

/* No marker, and nothing of the forwarded runtime: phid may know it all the same. A kept cell (DESIGN §4, keeper_lost) is not the
 * container's any more. */
static bool phid_knows(const struct invocation *v, const char *id, struct marker *m)
{
	_clean_json_ struct json *j = NULL;
	struct http_answer a;
	char path[PHI_ID_MAX + 40];
	struct http_call c = {.socket = v->socket, .method = "GET", .path = path};
	struct phi_error e;
	bool known = false;

	if (access(v->socket, F_OK) < 0 || id_of_oci(id, v->root, m->record, &e) < 0)
		return false;
	snprintf(path, sizeof(path), "/v1/containers/%s", m->record);
	if (http_call(&c, &a, &e) < 0)
		return false;
	if (a.status == 200 && json_parse(a.body, a.n, &j, NULL) == 0 && json_get_string(j, "incarnation") != NULL) {
		const char *state = json_get_string(j, "state"), *lost = json_get_string(json_get(json_get(j, "spec"), "lifecycle"), "keeper_lost");

		snprintf(m->incarnation, sizeof(m->incarnation), "%s", json_get_string(j, "incarnation"));
		known = !json_is_null(json_get(json_get(j, "keeper"), "pid")) || lost == NULL || strcmp(lost, "keep") != 0 ||
			(state != NULL && (strcmp(state, "stopped") == 0 || strcmp(state, "creating") == 0));
	}
	free(a.body);
	return known;
}

bool forwarded_has(const struct invocation *v, const char *id)
{
	char path[2 * PHI_PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", v->root, id);
	return access(path, F_OK) == 0;
}

int container_is_managed(const struct invocation *v, const char *id, struct marker *m, struct phi_error *e)
{
	int r;

	*m = (struct marker){0};
	if (strchr(id, '/') != NULL || id[0] == '.' || id[0] == '\0')
		return 0;
	r = marker_read(v, id, m);
	if (r == 0 || r == -EBADMSG)
		return 1;
	if (r == -EPERM)
		return phi_error_set(e, PHI_FORBIDDEN, EPERM, "",
				     "container %s is another user's: its marker below %s is neither root's nor yours, and what it says would be run as you; "
				     "call runphi as that user", id, v->state_dir);
	return !forwarded_has(v, id) && phid_knows(v, id, m);
}

int forward(const struct invocation *v, struct phi_error *e)
{
	static const char *const places[] = {"/usr/bin/runc", "/usr/sbin/runc", "/usr/local/bin/runc", "/usr/local/sbin/runc",
					     "/usr/bin/crun", "/usr/local/bin/crun"};
	extern char **environ;

	if (v->runtime[0] != '\0') {
		execve(v->runtime, v->argv, environ);
		return phi_error_set(e, PHI_UNSUPPORTED, errno, "", "the forwarded runtime %s cannot be run: %s", v->runtime,
				     strerror(errno));
	}
	/* Known places first: clients give no PATH at times. */
	for (size_t i = 0; i < PHI_COUNT(places); i++)
		execve(places[i], v->argv, environ);
	return phi_error_set(e, PHI_UNSUPPORTED, ENOENT, "",
			     "neither runc nor crun is installed, so an ordinary container cannot be run; "
			     "install one or name it in /etc/phid/runphi.conf (runtime = PATH)");
}

char *forwarded_output(const struct invocation *v)
{
	char *text = strdup("");
	size_t n = 0;
	int p[2], status;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return text;
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);
		struct phi_error e;

		dup2(p[1], 1);
		dup2(null, 2);
		forward(v, &e);
		_exit(127);
	}
	close(p[1]);
	for (;;) {
		ssize_t got;

		text = realloc(text, n + 65536);
		if (text == NULL)
			abort();
		got = read(p[0], text + n, 65535);
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	text[n] = '\0';
	close(p[0]);
	waitpid(pid, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		text[0] = '\0';
	return text;
}
