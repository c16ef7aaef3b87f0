/* create and run: the keeper first (so that it is the caller's grandchild and reparents to its subreaper), then phid is
 * asked, then the pid-file is written, then the keeper is told that the container was handed over. */
#include "runphi.h"

#include "clean.h"
#include "field.h"
#include "http_client.h"
#include "json.h"
#include "oci.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

void new_uuid(char ret[PHI_UUID_LEN + 1])
{
	uint8_t random[16];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		abort();
	id_uuid_format(random, ret);
}

static int write_pid_file(const char *path, pid_t pid, struct phi_error *e)
{
	_clean_free_ char *fresh = NULL;
	_clean_close_ int fd = -1;
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", (int)pid);

	if (asprintf(&fresh, "%s.new", path) < 0)
		abort();
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, (size_t)n) != n || rename(fresh, path) < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, "/pid-file", "%s: %s", path, strerror(errno));
	return 0;
}

/* The PUT, and where it takes longer than a minute the wait for its outcome. */
static int ask_phid(const struct invocation *v, const struct marker *m, const char *bundle, struct phi_error *e)
{
	_clean_json_ struct json *j = json_object();
	_clean_free_ char *body = NULL;
	char path[PHI_ID_MAX + 100], key[PHI_UUID_LEN + 16];
	struct http_call c = {.socket = v->socket, .method = "PUT", .path = path, .key = key};
	struct json *oci;
	struct http_answer a;
	int r;

	snprintf(path, sizeof(path), "/v1/containers/%s", m->record);
	snprintf(key, sizeof(key), "create-%s", m->incarnation);
	json_add_string(j, "bundle", bundle);
	json_add_string(j, "incarnation", m->incarnation);
	json_add_string(j, "keeper", "caller");
	oci = json_add_object(j, "oci");
	json_add_string(oci, "id", v->words[0]);
	json_add_string(oci, "root", v->root);
	c.body = body = json_print(j);
	r = http_call(&c, &a, e);
	while (r == 0 && (a.status == 202 || a.status == 204)) {
		struct http_call wait = {.socket = v->socket, .method = "GET", .path = path};

		free(a.body);
		snprintf(path, sizeof(path), "/v1/containers/%s/wait?for=created&incarnation=%s", m->record, m->incarnation);
		r = http_call(&wait, &a, e);
	}
	if (r < 0)
		return r;
	r = a.status < 300 ? 0 : http_problem(&a, e);
	free(a.body);
	return r;
}

static int absolute_bundle(const struct invocation *v, char *ret, struct phi_error *e)
{
	const char *given = v->bundle ? v->bundle : ".";

	if (realpath(given, ret) == NULL)
		return phi_error_set(e, PHI_INVALID, errno, "/bundle", "%s: %s", given, strerror(errno));
	return 0;
}

/* The state document where phid has none of this container: not yet, or no longer. */
static char *own_state_text(const struct invocation *v, const char *bundle, const struct oci_config *c, pid_t keeper, const char *status)
{
	_clean_json_ struct json *container = NULL;
	struct json *annotations;
	char text[48];

	snprintf(text, sizeof(text), "{\"keeper\":{\"pid\":%d}}", (int)keeper);
	if (json_parse(text, strlen(text), &container, NULL) < 0)
		abort();
	annotations = json_add_object(container, "annotations");
	json_add_string(container, "bundle", bundle);
	for (size_t i = 0; i < c->annotations.n; i++)
		json_add_string(annotations, c->annotations.names[i], c->annotations.values[i]);
	return state_text(v->words[0], container, status);
}

/* The cell is there; what is left of create. */
static int complete(const struct invocation *v, const struct marker *m, const char *state, int sync, struct phi_error *e)
{
	static const char *const kinds[] = {"prestart", "createRuntime", "createContainer"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < PHI_COUNT(kinds); i++)
		r = hooks_run(m->hooks, kinds[i], state, e);
	if (r == 0 && v->pid_file != NULL)
		r = write_pid_file(v->pid_file, m->keeper, e);
	if (r == 0 && write(sync, "d", 1) != 1)
		r = phi_error_set(e, PHI_INTERNAL, errno, "", "the keeper ended at once");
	return r;
}

/* A new network namespace is asked for. No cell uses one, but hooks do: docker's puts an interface, an address and a route
 * into that of our pid, which must not be the host's. */
static bool asks_for_network(const struct oci_config *c)
{
	const struct json *namespaces = json_get(json_get(c->document, "linux"), "namespaces");

	for (const struct json *n = json_first(namespaces); n != NULL; n = json_next(n)) {
		const char *type = json_get_string(n, "type"), *path = json_get_string(n, "path");

		if (type != NULL && strcmp(type, "network") == 0)
			return path == NULL || path[0] == '\0';
	}
	return false;
}

/* Creates; the keeper is our child. m is freed by the caller. */
static int create(const struct invocation *v, const char *bundle, const struct oci_config *c, struct marker *m, struct phi_error *e)
{
	const struct json *hooks = json_get(c->document, "hooks"), *process = json_get(c->document, "process");
	const char *id = v->words[0], *cgroup = json_get_string(json_get(c->document, "linux"), "cgroupsPath");
	_clean_close_ int sync = -1, terminal = -1;
	_clean_free_ char *creating = NULL, *stopped = NULL;
	int r = id_check(id, "/id", e);

	if (r == 0)
		r = id_of_oci(id, v->root, m->record, e);
	if (r == 0)
		r = hooks_check(hooks, e);
	if (cgroup != NULL && cgroup[0] == '\0')
		cgroup = NULL;
	/* A relative path may be taken from wherever the runtime likes (config-linux.md): from the root. */
	if (cgroup != NULL && (cgroup[0] == '/' || strchr(cgroup, ':') != NULL))
		m->cgroup = phi_strdup(cgroup);
	else if (cgroup != NULL && asprintf(&m->cgroup, "/%s", cgroup) < 0)
		abort();
	if (r == 0 && m->cgroup != NULL)
		r = cgroup_check(m->cgroup, e);
	if (r == 0 && forwarded_has(v, id))
		r = phi_error_set(e, PHI_EXISTS, EEXIST, "/id", "container with id %s already exists: it is no cell", id);
	if (r == 0 && v->console_socket != NULL && !c->terminal)
		r = phi_error_set(e, PHI_INVALID, EINVAL, "/console-socket", "process.terminal is false, so there is no terminal to send");
	if (r == 0 && v->console_socket != NULL)
		r = console_open(json_get(process, "consoleSize"), v->console_socket, &terminal, e);
	if (r < 0)
		return r;
	m->hooks = hooks != NULL ? json_print(hooks) : NULL;
	new_uuid(m->incarnation);
	r = keeper_begin(v, m->incarnation, terminal, hooks != NULL && asks_for_network(c), &sync, e);
	if (r < 0)
		return r;
	m->keeper = r;
	m->keeper_start = process_start(m->keeper);
	r = marker_write(v, id, m, e);
	if (r < 0) {
		phi_close(&sync);
		keeper_end(m);
		return r;
	}
	if (m->cgroup != NULL)
		r = cgroup_join(m->cgroup, m->keeper, e);
	if (r == 0)
		r = ask_phid(v, m, bundle, e);
	if (r == 0) {
		creating = own_state_text(v, bundle, c, m->keeper, "creating");
		r = complete(v, m, creating, sync, e);
		if (r == 0)
			return 0;
		stopped = own_state_text(v, bundle, c, 0, "stopped");
	}
	/* The keeper sees its pipe close and has this incarnation undone; then it ends. */
	phi_close(&sync);
	keeper_end(m);
	clear_away(v, m, stopped);
	return r;
}

/* By the marker alone: an ordinary container never needs phid. */
static bool is_cell(const struct invocation *v, const char *id)
{
	_clean_marker_ struct marker m = {0};

	return strchr(id, '/') == NULL && id[0] != '\0' && marker_read(v, id, &m) == 0;
}

/* Forwards where the bundle is not ours; else its absolute path and its config.json. */
static int ours_or_forward(const struct invocation *v, char *bundle, struct oci_config *c, struct phi_error *e)
{
	int r = absolute_bundle(v, bundle, e);

	if (r < 0)
		return forward(v, e);
	r = bundle_is_managed(v, bundle, c, e);
	if (r == 0 && is_cell(v, v->words[0]))
		return phi_error_set(e, PHI_EXISTS, EEXIST, "/id", "container with id %s already exists: it is a cell", v->words[0]);
	if (r == 0)
		return forward(v, e);
	if (r > 0 && v->unknown != NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, "", "runphi %s has no option %.100s; see runphi(8)", v->command, v->unknown);
	if (r > 0 && c->terminal && v->console_socket == NULL && (strcmp(v->command, "run") != 0 || v->detach))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/process/terminal",
				     "a terminal goes to --console-socket; without one, set process.terminal to false, or run without --detach");
	return r < 0 ? r : 0;
}

int verb_create(const struct invocation *v, struct phi_error *e)
{
	_clean_oci_ struct oci_config c = {0};
	_clean_marker_ struct marker m = {0};
	char bundle[PHI_PATH_MAX + 1];
	int r = ours_or_forward(v, bundle, &c, e);

	return r < 0 ? r : create(v, bundle, &c, &m, e);
}

/* Waits for the keeper; signals on the way are for the cell. */
static int wait_keeper(const struct invocation *v, const struct marker *m, int signals)
{
	_clean_close_ int pidfd = (int)syscall(SYS_pidfd_open, m->keeper, 0);
	struct pollfd p[2] = {{pidfd, POLLIN, 0}, {signals, POLLIN, 0}};
	int status = 0;

	while (pidfd >= 0 && !(p[0].revents & POLLIN)) {
		struct signalfd_siginfo info;

		if (poll(p, 2, -1) > 0 && (p[1].revents & POLLIN) && read(signals, &info, sizeof(info)) == sizeof(info)) {
			char body[40];
			struct phi_error e;

			snprintf(body, sizeof(body), "{\"signal\":%u}", info.ssi_signo);
			request(v, m, "POST", "/kill", body, NULL, &e);
		}
	}
	waitpid(m->keeper, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int verb_run(const struct invocation *v, int *ret_status, struct phi_error *e)
{
	_clean_close_ int signals = -1;
	_clean_oci_ struct oci_config c = {0};
	_clean_marker_ struct marker m = {0};
	char bundle[PHI_PATH_MAX + 1];
	sigset_t set;
	int r = ours_or_forward(v, bundle, &c, e);

	if (r == 0 && c.terminal && v->console_socket == NULL && !isatty(0))
		r = phi_error_set(e, PHI_INVALID, ENOTTY, "/process/terminal", "a terminal is asked for, and standard input is none");
	if (r == 0)
		r = create(v, bundle, &c, &m, e);
	if (r < 0)
		return r;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGQUIT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (c.terminal && v->console_socket == NULL)
		console_raw();
	r = verb_start(v, &m, e);
	if (r < 0) {
		struct marker left = {0};
		struct phi_error ignored;

		if (marker_read(v, v->words[0], &left) == 0) /* else a failing hook took all away */
			take_away(v, &m, true, &ignored);
		marker_free(&left);
		console_restore();
		return r;
	}
	if (v->detach)
		return 0;
	*ret_status = wait_keeper(v, &m, signals);
	console_restore();
	return v->keep ? 0 : take_away(v, &m, false, e);
}
