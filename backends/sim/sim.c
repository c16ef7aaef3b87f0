/* The sim backend: drives phid-sim, a stand-in for a hypervisor, over its socket <runtime_dir>/sim.sock (protocol:
 * standin_proto.c). For tests and load: no guest runs. phid-sim is started where nobody answers, and outlives phid. */
#include "backend.h"

#include "clean.h"
#include "error.h"
#include "json.h"
#include "loop.h"
#include "program.h"

#include <errno.h>
#include <inttypes.h>
#include <spawn.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

extern char **environ;

enum kind { ACT, CREATE, CONSOLE, DESTROY, OBSERVE, LIST, NOTICE };

/* A request that was not answered yet. */
struct pending {
	struct pending *next;
	uint64_t id, token;
	char name[CELL_NAME_MAX + 1];
	enum kind kind;
};

static struct {
	const struct backend_env *env;
	int fd;
	struct loop_source *source, *retry;
	uint64_t next_id;
	struct pending *pending;
	/* The list that is being made: its pages, then an observe of each. */
	void (*each)(void *ud, const char *name, const char *tag, const char *cpus);
	void (*listed)(void *ud, const struct phi_error *e);
	void *list_ud;
	unsigned list_open;
} sim = {.fd = -1};

static void on_readable(void *ud, uint32_t revents);
static void lost(void);

static int sim_connect(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_clean_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/sim.sock", sim.env->runtime_dir);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -errno;
	sim.fd = PHI_TAKE_FD(fd);
	sim.source = loop_io(sim.env->loop, "sim", sim.fd, EPOLLIN, on_readable, NULL);
	return send(sim.fd, "1 subscribe", 11, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int start_stand_in(struct phi_error *e)
{
	char program[PHI_PATH_MAX], path[PHI_PATH_MAX];
	char *argv[] = {program, (char[]){"serve"}, (char[]){"--socket"}, path, NULL};
	int status = -1, r;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/sim.sock", sim.env->runtime_dir);
	if (!program_find("../backends/sim", "phid-sim", program, sizeof(program)))
		return phi_error_set(e, PHI_BACKEND, ENOENT, "", "phid-sim is not installed");
	r = posix_spawn(&pid, program, NULL, NULL, argv, environ);
	if (r != 0 || waitpid(pid, &status, 0) < 0 || status != 0)
		return phi_error_set(e, PHI_BACKEND, r, "", "phid-sim does not start");
	return 0;
}

static int sim_init(const struct backend_env *env, struct phi_error *e)
{
	int r;

	sim.env = env;
	sim.next_id = 2;
	if (sim_connect() == 0)
		return 0;
	r = start_stand_in(e);
	if (r == 0 && sim_connect() < 0)
		r = phi_error_set(e, PHI_BACKEND, errno, "", "phid-sim does not answer");
	return r;
}

static void sim_describe(struct json *to)
{
	json_add_bool(to, "available", sim.fd >= 0);
	json_add_bool(to, "stand_in", true);
	json_add_string(to, "note", "a stand-in for tests: no guest runs");
	if (sim.fd < 0)
		json_add_string(to, "reason", "phid-sim does not answer");
}

static int sim_validate(const struct spec *s, const struct platform *p, struct phi_error *e)
{
	(void)s;
	(void)p;
	return sim.fd >= 0 ? 0
			   : phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/backend", "phid-sim does not answer");
}

/* ---- requests ---- */

static void answer(const struct pending *p, const struct phi_error *e)
{
	struct cell *c = cell_by_name(p->name);

	if (p->kind == LIST) {
		if (sim.listed != NULL && --sim.list_open == 0) {
			void (*listed)(void *, const struct phi_error *) = sim.listed;

			sim.listed = NULL;
			listed(sim.list_ud, e);
		}
	} else if (c != NULL && p->kind == OBSERVE) {
		cell_observed(c, p->token, NULL, e);
	} else if (c != NULL && p->kind != NOTICE) {
		cell_acted(c, p->token, e);
	}
}

static void ask(enum kind kind, const char *name, uint64_t token, const char *request)
{
	struct pending *p = calloc(1, sizeof(*p));
	char text[2048];
	int n;

	if (p == NULL)
		abort();
	p->id = sim.next_id++;
	p->token = token;
	p->kind = kind;
	snprintf(p->name, sizeof(p->name), "%s", name);
	n = snprintf(text, sizeof(text), "%" PRIu64 " %s", p->id, request);
	if (sim.fd < 0 || send(sim.fd, text, (size_t)n, MSG_NOSIGNAL) < 0) {
		struct phi_error e;

		phi_error_set(&e, PHI_BACKEND, ENOTCONN, "", "phid-sim does not answer");
		answer(p, &e);
		free(p);
		return;
	}
	p->next = sim.pending;
	sim.pending = p;
}

static void on_retry(void *ud)
{
	(void)ud;
	loop_source_clear(&sim.retry);
	if (sim_connect() < 0)
		sim.retry = loop_timer(sim.env->loop, "sim", 500, on_retry, NULL);
}

static void lost(void)
{
	struct pending *list = sim.pending;
	struct phi_error e;

	phi_error_set(&e, PHI_BACKEND, ECONNRESET, "", "phid-sim went away");
	loop_source_clear(&sim.source);
	phi_close(&sim.fd);
	sim.pending = NULL;
	while (list != NULL) {
		struct pending *p = list;

		list = p->next;
		answer(p, &e);
		free(p);
	}
	if (sim.retry == NULL)
		sim.retry = loop_timer(sim.env->loop, "sim", 100, on_retry, NULL);
}

/* ---- answers ---- */

/* The value of key= in the answer, into buf; false if it is not there. */
static bool value(const char *text, const char *key, char *buf, size_t size)
{
	size_t n = strlen(key);

	for (const char *p = strchr(text, ' '); p != NULL; p = strchr(p, ' ')) {
		p++;
		if (strncmp(p, key, n) == 0 && p[n] == '=') {
			snprintf(buf, size, "%.*s", (int)strcspn(p + n + 1, " "), p + n + 1);
			return true;
		}
	}
	buf[0] = '\0';
	return false;
}

static void read_end(const char *text, struct cell_end *end)
{
	char code[16];

	value(text, "code", code, sizeof(code));
	value(text, "reason", end->reason, sizeof(end->reason));
	end->code = atoi(code);
}

static void on_observed(const struct pending *p, struct cell *c, const char *text)
{
	struct observation o = {.presence = CELL_ENDED};
	char state[16];

	value(text, "state", state, sizeof(state));
	if (strcmp(state, "created") == 0)
		o.presence = CELL_CREATED;
	else if (strcmp(state, "running") == 0)
		o.presence = CELL_RUNNING;
	else if (strcmp(state, "paused") == 0)
		o.presence = CELL_PAUSED;
	else
		read_end(text, &o.end);
	cell_observed(c, p->token, &o, NULL);
}

/* A page of names: each is observed, so that its tag and CPUs are told as well. */
static void on_list(const struct pending *p, const char *text)
{
	char names[4096], request[64], more[8], last[CELL_NAME_MAX + 1] = "";

	if (p->name[0] != '\0') { /* the observe of one */
		char tag[64], cpus[256];

		if (value(text, "tag", tag, sizeof(tag)) && value(text, "cpus", cpus, sizeof(cpus)) && sim.listed != NULL)
			sim.each(sim.list_ud, p->name, tag, cpus);
		return;
	}
	value(text, "cells", names, sizeof(names));
	for (char *save, *name = strtok_r(names, ",", &save); name != NULL; name = strtok_r(NULL, ",", &save)) {
		snprintf(last, sizeof(last), "%s", name);
		snprintf(request, sizeof(request), "observe %s", last);
		sim.list_open++;
		ask(LIST, last, 0, request);
	}
	if (value(text, "more", more, sizeof(more)) && more[0] == '1' && last[0] != '\0') {
		snprintf(request, sizeof(request), "list after=%s", last);
		sim.list_open++;
		ask(LIST, "", 0, request);
	}
}

static void on_answer(const struct pending *p, const char *text, int fd)
{
	struct cell *c = cell_by_name(p->name);
	_clean_close_ int console = fd;
	bool ok = strncmp(text, "ok", 2) == 0;
	struct phi_error e = {0};

	if (p->kind == LIST) {
		if (ok)
			on_list(p, text);
		answer(p, NULL);
		return;
	}
	if (c == NULL)
		return;
	if (p->kind == OBSERVE) {
		const struct observation absent = {.presence = CELL_ABSENT};

		if (ok)
			on_observed(p, c, text);
		else if (strncmp(text, "err ENOENT", 10) == 0)
			cell_observed(c, p->token, &absent, NULL);
		else
			phi_error_set(&e, PHI_BACKEND, EIO, "", "phid-sim: %.200s", text);
	} else if (!ok && !(p->kind == DESTROY && strncmp(text, "err ENOENT", 10) == 0)) {
		phi_error_set(&e, PHI_BACKEND, EIO, "", "phid-sim: %.200s", text);
	} else if (p->kind == CREATE) {
		phi_close(&c->console);
		c->console = PHI_TAKE_FD(console);
	} else if (p->kind == CONSOLE && console >= 0) {
		if (cell_spawn(c, NULL, PHI_TAKE_FD(console), &e) == 0)
			e.code = PHI_OK;
	}
	if (e.code != PHI_OK || p->kind != OBSERVE)
		answer(p, e.code != PHI_OK ? &e : NULL);
}

/* "0 event CELL ended code=N reason=R" */
static void on_event(const char *text)
{
	char name[CELL_NAME_MAX + 1], what[16];
	struct cell_end end = {0};
	struct cell *c;

	if (sscanf(text, "event %31s %15s", name, what) != 2 || strcmp(what, "ended") != 0)
		return;
	c = cell_by_name(name);
	read_end(text, &end);
	if (c != NULL && strcmp(end.reason, "destroyed") != 0)
		cell_ended(c, &end);
}

static void on_packet(char *text, int fd)
{
	char *end;
	uint64_t id = strtoull(text, &end, 10);

	if (*end == ' ')
		end++;
	if (id == 0) {
		on_event(end);
		return;
	}
	for (struct pending **at = &sim.pending; *at != NULL; at = &(*at)->next) {
		struct pending *p = *at;

		if (p->id != id)
			continue;
		*at = p->next;
		on_answer(p, end, fd);
		free(p);
		return;
	}
	if (fd >= 0)
		close(fd);
}

static void on_readable(void *ud, uint32_t revents)
{
	(void)ud;
	(void)revents;
	for (int turn = 0; turn < 64 && sim.fd >= 0; turn++) {
		char text[4097];
		union {
			struct cmsghdr align;
			char bytes[CMSG_SPACE(sizeof(int))];
		} control;
		struct iovec iov = {text, sizeof(text) - 1};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
				   .msg_controllen = sizeof(control)};
		ssize_t n = recvmsg(sim.fd, &m, MSG_CMSG_CLOEXEC);
		struct cmsghdr *cm;
		int fd = -1;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			lost();
			return;
		}
		text[n] = '\0';
		cm = CMSG_FIRSTHDR(&m);
		if (cm != NULL && cm->cmsg_type == SCM_RIGHTS)
			memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
		on_packet(text, fd);
	}
}

/* ---- actions ---- */

static void simple(struct cell *c, uint64_t token, enum kind kind, const char *verb)
{
	char request[64];

	snprintf(request, sizeof(request), "%s %s", verb, c->name);
	ask(kind, c->name, token, request);
}

/* The program of the stand-in's guest: the word sim=... of the command line. */
static void program_of(const struct spec *s, char *buf, size_t size)
{
	const char *p = s->boot.cmdline != NULL ? strstr(s->boot.cmdline, "sim=") : NULL;

	buf[0] = '\0';
	if (p != NULL)
		snprintf(buf, size, " prog=%.*s", (int)strcspn(p + 4, " "), p + 4);
}

static void sim_create(struct cell *c, uint64_t token)
{
	char cpus[CPUSET_TEXT_MAX], request[1600], program[256], base[40] = "";
	uint64_t memory = 0;

	cpuset_format(&c->grant.cpus, cpus, sizeof(cpus));
	for (size_t i = 0; i < c->grant.n_memory; i++)
		memory += c->grant.memory[i].size;
	if (c->grant.n_memory > 0 && c->grant.memory[0].has_base)
		snprintf(base, sizeof(base), " base=0x%" PRIx64, c->grant.memory[0].base);
	program_of(&c->spec, program, sizeof(program));
	snprintf(request, sizeof(request), "create %s cpus=%.1000s mem=%" PRIu64 "%s tag=%s%s", c->name, cpus, memory, base,
		 c->incarnation, program);
	ask(CREATE, c->name, token, request);
}

static int sim_hand(struct cell *c, struct phi_error *e)
{
	return cell_spawn(c, NULL, PHI_TAKE_FD(c->console), e);
}

static void sim_attach(struct cell *c, uint64_t token)
{
	/* A keeper that has its console already goes on with it. */
	if (cell_lock_held(c))
		cell_acted(c, token, NULL);
	else
		simple(c, token, CONSOLE, "console");
}

static void sim_start(struct cell *c, uint64_t token)
{
	simple(c, token, ACT, "start");
}

static void sim_pause(struct cell *c, uint64_t token)
{
	simple(c, token, ACT, "pause");
}

static void sim_resume(struct cell *c, uint64_t token)
{
	simple(c, token, ACT, "resume");
}

static void sim_powerdown(struct cell *c, uint64_t token)
{
	simple(c, token, ACT, "powerdown");
}

static void sim_destroy(struct cell *c, uint64_t token)
{
	simple(c, token, DESTROY, "destroy");
}

static void sim_observe(struct cell *c, uint64_t token)
{
	simple(c, token, OBSERVE, "observe");
}

static void sim_list(void (*each)(void *ud, const char *name, const char *tag, const char *cpus),
		     void (*done)(void *ud, const struct phi_error *e), void *ud)
{
	sim.each = each;
	sim.listed = done;
	sim.list_ud = ud;
	sim.list_open = 1;
	ask(LIST, "", 0, "list");
}

static void sim_forget(struct cell *c)
{
	(void)c; /* answers find their cell by name */
}

const struct backend backend_sim = {
	.name = "sim",
	.can = CAN_PAUSE | CAN_POWERDOWN | CAN_PLACE | IS_STAND_IN,
	.init = sim_init,
	.describe = sim_describe,
	.validate = sim_validate,
	.create = sim_create,
	.hand = sim_hand,
	.attach = sim_attach,
	.start = sim_start,
	.pause = sim_pause,
	.resume = sim_resume,
	.powerdown = sim_powerdown,
	.destroy = sim_destroy,
	.observe = sim_observe,
	.list = sim_list,
	.forget = sim_forget,
};
