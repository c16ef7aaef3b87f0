/* The QEMU backend: a QEMU process under the keeper, driven over its control channel (QMP, docs/interop/qmp-spec.txt).
 * QMP lines come and go through the keeper, so that they survive a restart of phid whole. One action at a time a cell;
 * each command carries the action's token for its id, and answers with another id are of the past. */
#include "qemu.h"

#include "clean.h"
#include "error.h"
#include "json.h"
#include "keeper_proto.h"
#include "loop.h"
#include "platform.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>

enum doing { NOTHING, GREETING, CAPABILITIES, THREADS, COMMAND, STATUS };

struct qemu_cell {
	enum doing doing;
	uint64_t token;
	struct loop_source *ending; /* the guest ended, QEMU not yet */
	char *line; /* of QMP, not yet whole */
	size_t n, room;
};

#define ENDING_MS 2000
#define LINE_MAX_BYTES (256u << 10)

static struct {
	const struct backend_env *env;
	const char *binary;
	const char *lacks; /* why nothing can be run; NULL: it can */
	char accel[8], why[160];
	gid_t kvm_group;
} q;

static int qemu_init(const struct backend_env *env, struct phi_error *e)
{
	static const char *const binaries[] = {"/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64"};
#ifdef __x86_64__
	const bool x86 = true;
#else
	const bool x86 = false;
#endif
	const struct field_strings *accel = &env->platform->qemu_accel;
	bool wants_kvm = accel->n == 0, wants_tcg = accel->n == 0;
	struct stat st;

	(void)e;
	q.env = env;
	if (!x86) {
		kvm_works(q.why, sizeof(q.why));
		q.lacks = QEMU_X86_ONLY;
		return 0;
	}
	for (size_t i = 0; i < PHI_COUNT(binaries) && q.binary == NULL; i++)
		if (access(binaries[i], X_OK) == 0)
			q.binary = binaries[i];
	for (size_t i = 0; i < accel->n; i++) {
		wants_kvm = wants_kvm || strcmp(accel->values[i], "kvm") == 0;
		wants_tcg = wants_tcg || strcmp(accel->values[i], "tcg") == 0;
	}
	snprintf(q.why, sizeof(q.why), "the platform file leaves kvm out");
	if (wants_kvm && kvm_works(q.why, sizeof(q.why)) && stat("/dev/kvm", &st) == 0) {
		/* Guests are not root; Debian's udev gives the device to group kvm. */
		if (env->root && st.st_gid == 0 && !(st.st_mode & 0006))
			snprintf(q.why, sizeof(q.why), "/dev/kvm works, but for root alone; give it a group of its own");
		else
			strcpy(q.accel, "kvm");
		q.kvm_group = st.st_gid;
	}
	if (q.accel[0] == '\0' && wants_tcg) {
		strcpy(q.accel, "tcg");
	}
	if (q.binary == NULL)
		q.lacks = "qemu-system-x86_64 is not installed (Debian: qemu-system-x86)";
	else if (q.accel[0] == '\0')
		q.lacks = "the platform file allows kvm only, and kvm does not work";
	return 0;
}

static void qemu_describe(struct json *to)
{
	json_add_bool(to, "available", q.lacks == NULL);
	json_add_string(to, "accel", q.accel[0] != '\0' ? q.accel : NULL);
	json_add_string(to, "kvm", q.why);
	json_add_string(to, "binary", q.binary);
	if (q.lacks != NULL)
		json_add_string(to, "reason", q.lacks);
}

static int qemu_validate(const struct spec *s, const struct platform *p, struct phi_error *e)
{
	(void)p;
	if (q.lacks != NULL)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/backend", "%s", q.lacks);
	if (s->boot.kernel.path == NULL && s->boot.inmate.path == NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/boot/kernel",
				     "QEMU needs a kernel or an ELF with a PVH note; the spec names none");
	if (s->boot.dtb.path != NULL || s->boot.has_entry)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, s->boot.has_entry ? "/spec/boot/entry" : "/spec/boot/dtb",
				     "QEMU makes the device tree and takes the entry from the image");
	if (s->boot.kernel.has_at || s->boot.inmate.has_at || s->boot.initrd.has_at)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/boot",
				     "QEMU loads an image where its headers say; leave \"at\" out");
	if (s->keeper_lost == KEEPER_LOST_KEEP)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/lifecycle/keeper_lost",
				     "QEMU is the keeper's child and ends with it; \"stop\" is possible");
	if (s->devices.n > 0)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/devices", "QEMU guests get no devices of the host");
	if (s->links.n > 0)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/links", "QEMU guests have no links");
	if (s->remote.has_count || s->remote.names.n > 0)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/remote_processors", "QEMU runs no remote processors");
	for (size_t i = 0; i < s->memory.n; i++) {
		const struct spec_memory *m = (const struct spec_memory *)s->memory.items + i;
		char where[40];

		snprintf(where, sizeof(where), "/spec/memory/%zu", i);
		if (m->has_at || m->has_colors)
			return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, where,
					     "QEMU's guests are placed by the kernel; leave \"at\" and \"colors\" out");
	}
	return 0;
}

/* ---- QMP ---- */

static struct qemu_cell *of(struct cell *c)
{
	if (c->of_backend == NULL) {
		c->of_backend = calloc(1, sizeof(struct qemu_cell));
		if (c->of_backend == NULL)
			abort();
	}
	return c->of_backend;
}

static void finish(struct cell *c, const struct phi_error *e)
{
	struct qemu_cell *qc = of(c);

	qc->doing = NOTHING;
	cell_acted(c, qc->token, e);
}

static void send_command(struct cell *c, const char *command)
{
	char text[160];
	int n = snprintf(text, sizeof(text), "{\"execute\":\"%s\",\"id\":%" PRIu64 "}\n", command, of(c)->token);

	if (cell_control(c, text, (size_t)n) < 0) {
		struct phi_error e;

		phi_error_set(&e, PHI_BACKEND, ENOTCONN, "", "the keeper is not there to pass \"%s\" to QEMU", command);
		finish(c, &e);
	}
}

static void begin(struct cell *c, uint64_t token, enum doing doing, const char *command)
{
	struct qemu_cell *qc = of(c);

	qc->token = token;
	qc->doing = doing;
	send_command(c, command);
}

/* Capabilities, then the vCPUs' threads: QEMU answers both when its main loop begins, so that nothing is waited for in between. */
static void negotiate(struct cell *c, uint64_t token)
{
	begin(c, token, CAPABILITIES, "qmp_capabilities");
	if (of(c)->doing == CAPABILITIES)
		send_command(c, "query-cpus-fast");
}

/* Is it a thread of that process? The number comes from QEMU, in which a guest may have taken over. */
static bool is_thread_of(pid_t pid, int64_t tid)
{
	char path[60];

	snprintf(path, sizeof(path), "/proc/%d/task/%" PRId64, (int)pid, tid);
	return pid > 0 && tid > 0 && access(path, F_OK) == 0;
}

/* The i-th vCPU's thread on the i-th CPU of the grant. */
static int pin(const struct cell *c, const struct json *threads, struct phi_error *e)
{
	int cpu = cpuset_next(&c->grant.cpus, 0);
	unsigned pinned = 0;

	for (const struct json *t = json_first(threads); t != NULL && cpu >= 0; t = json_next(t), pinned++) {
		int64_t tid = 0;
		struct cpuset one = {0};
		int r;

		if (!json_integer(json_get(t, "thread-id"), &tid))
			return phi_error_set(e, PHI_BACKEND, EPROTO, "", "QEMU named no thread for vCPU %u", pinned);
		if (!is_thread_of(c->pid, tid))
			return phi_error_set(e, PHI_BACKEND, EPROTO, "", "the thread %" PRId64 " that QEMU names for vCPU %u is none of its own", tid, pinned);
		cpuset_add(&one, (unsigned)cpu);
		r = cpuset_apply((pid_t)tid, &one);
		if (r < 0)
			return phi_error_set(e, PHI_BACKEND, -r, "", "vCPU %u cannot be put on CPU %d: %s", pinned, cpu, strerror(-r));
		cpu = cpuset_next(&c->grant.cpus, (unsigned)cpu + 1);
	}
	if (pinned != cpuset_count(&c->grant.cpus))
		return phi_error_set(e, PHI_BACKEND, EPROTO, "", "QEMU has %u vCPUs, %u were asked for", pinned,
				     cpuset_count(&c->grant.cpus));
	return 0;
}

static void on_status(struct cell *c, const struct json *answer)
{
	const char *status = json_get_string(answer, "status");
	struct observation o = {.presence = CELL_ENDED};
	struct phi_error e;

	of(c)->doing = NOTHING;
	if (status == NULL) {
		phi_error_set(&e, PHI_BACKEND, EPROTO, "", "QEMU does not tell its state");
		cell_observed(c, of(c)->token, NULL, &e);
		return;
	}
	if (strcmp(status, "prelaunch") == 0)
		o.presence = CELL_CREATED;
	else if (strcmp(status, "running") == 0 || strcmp(status, "shutdown") == 0 || strcmp(status, "guest-panicked") == 0)
		o.presence = CELL_RUNNING; /* or at its end: how, the keeper tells in a moment */
	else if (strcmp(status, "paused") == 0)
		o.presence = CELL_PAUSED;
	else
		snprintf(o.end.reason, sizeof(o.end.reason), "%.20s", status);
	cell_observed(c, of(c)->token, &o, NULL);
}

static void on_answer(struct cell *c, const struct json *answer, const struct json *error)
{
	struct qemu_cell *qc = of(c);
	struct phi_error e;

	switch (qc->doing) {
	case CAPABILITIES: /* refused where an earlier phid did it already */
		qc->doing = THREADS;
		return;
	case STATUS:
		on_status(c, answer);
		return;
	case THREADS:
	case COMMAND:
		if (error != NULL) {
			phi_error_set(&e, PHI_BACKEND, EIO, "", "QEMU refused: %s",
				      json_get_string(error, "desc") ? json_get_string(error, "desc") : "no reason given");
			finish(c, &e);
		} else if (qc->doing == COMMAND || pin(c, answer, &e) == 0) {
			finish(c, NULL);
		} else {
			finish(c, &e);
		}
		return;
	case NOTHING:
	case GREETING:
		return;
	}
}

static void on_ending(void *ud)
{
	struct cell *c = ud;

	loop_source_clear(&of(c)->ending);
	cell_kill_process(c);
}

/* The guest ended, and so will QEMU; but a command that arrives right then can keep QEMU 7.2 in monitor_cleanup for ever. */
static void on_event(struct cell *c, const char *event)
{
	struct qemu_cell *qc = of(c);

	if ((strcmp(event, "SHUTDOWN") == 0 || strcmp(event, "GUEST_PANICKED") == 0) && qc->ending == NULL)
		qc->ending = loop_timer(q.env->loop, "qemu", ENDING_MS, on_ending, c);
}

static void on_line(struct cell *c, const char *line, size_t n)
{
	_clean_json_ struct json *j = NULL;
	struct qemu_cell *qc = of(c);
	int64_t id;

	if (json_parse(line, n, &j, NULL) < 0)
		return; /* the rest of a line that an earlier phid began to read */
	if (json_get(j, "QMP") != NULL && qc->doing == GREETING) {
		negotiate(c, qc->token);
		return;
	}
	if (json_get_string(j, "event") != NULL)
		on_event(c, json_get_string(j, "event"));
	if (json_integer(json_get(j, "id"), &id) && (uint64_t)id == qc->token)
		on_answer(c, json_get(j, "return"), json_get(j, "error"));
}

static void qemu_control(struct cell *c, const char *bytes, size_t n)
{
	struct qemu_cell *qc = of(c);

	while (n > 0) {
		const char *newline = memchr(bytes, '\n', n);
		size_t take = newline ? (size_t)(newline - bytes) + 1 : n;

		if (qc->n + take > LINE_MAX_BYTES)
			qc->n = 0; /* no answer of ours is that long */
		if (qc->n + take > qc->room) {
			qc->room = qc->n + take + 4096;
			qc->line = realloc(qc->line, qc->room);
			if (qc->line == NULL)
				abort();
		}
		memcpy(qc->line + qc->n, bytes, take);
		qc->n += take;
		bytes += take;
		n -= take;
		if (newline != NULL) {
			size_t whole = qc->n;

			qc->n = 0;
			on_line(c, qc->line, whole);
			if (c->of_backend != qc)
				return;
		}
	}
}

/* ---- actions ---- */

static const struct cell_image *image(const struct cell *c, const char *role)
{
	for (size_t i = 0; i < c->n_images; i++)
		if (strcmp(c->images[i].role, role) == 0)
			return &c->images[i];
	return NULL;
}

static void qemu_create(struct cell *c, uint64_t token)
{
	const struct cell_image *kernel = image(c, "kernel"), *initrd = image(c, "initrd");
	struct cell_process p = {.flags = KEEPER_ODD_IS_GUESTS, .rules = qemu_exit_rules};
	struct qemu_args a;
	struct phi_error e;
	struct qemu_fds fds = {-1, -1, -1};
	_clean_close_ int watch = cell_listen(c, "qmp");

	if (kernel == NULL)
		kernel = image(c, "inmate");
	if (kernel != NULL) {
		fds.kernel = KEEPER_IMAGE_FD + (int)p.n_fds;
		p.fds[p.n_fds++] = kernel->fd;
	}
	if (initrd != NULL) {
		fds.initrd = KEEPER_IMAGE_FD + (int)p.n_fds;
		p.fds[p.n_fds++] = initrd->fd;
	}
	if (watch >= 0) {
		fds.watch = KEEPER_IMAGE_FD + (int)p.n_fds;
		p.fds[p.n_fds++] = watch;
	}
	strcpy(c->accel, q.accel);
	if (q.env->root) { /* a user that owns nothing: the caller's, or one of its own for root */
		p.flags |= KEEPER_AS_USER;
		p.uid = c->owner_uid != 0 ? c->owner_uid : q.env->vm_uid_base + (uid_t)(c->row % 65536);
		p.gid = c->owner_uid != 0 ? c->owner_gid : (gid_t)p.uid;
		p.group = strcmp(q.accel, "kvm") == 0 ? q.kvm_group : 0;
	}
	qemu_args_make(&a, q.binary, c, q.accel, &fds);
	p.argv = a.argv;
	of(c)->token = token;
	of(c)->doing = GREETING;
	of(c)->n = 0;
	if (cell_spawn(c, &p, -1, &e) < 0)
		finish(c, &e);
	qemu_args_free(&a);
}

static void qemu_spawned(struct cell *c, int err)
{
	struct phi_error e;

	if (err == 0 || of(c)->doing != GREETING)
		return; /* the greeting follows */
	phi_error_set(&e, PHI_BACKEND, err, "", "the keeper cannot start QEMU: %s", strerror(err));
	finish(c, &e);
}

static void qemu_attach(struct cell *c, uint64_t token)
{
	strcpy(c->accel, q.accel);
	negotiate(c, token);
}

static void qemu_start(struct cell *c, uint64_t token)
{
	begin(c, token, COMMAND, "cont");
}

static void qemu_pause(struct cell *c, uint64_t token)
{
	begin(c, token, COMMAND, "stop");
}

static void qemu_powerdown(struct cell *c, uint64_t token)
{
	begin(c, token, COMMAND, "system_powerdown");
}

static void qemu_destroy(struct cell *c, uint64_t token)
{
	of(c)->doing = NOTHING;
	of(c)->token = token;
	cell_kill_process(c);
	cell_acted(c, token, NULL); /* observe sees it gone */
}

static void qemu_observe(struct cell *c, uint64_t token)
{
	struct observation o = {.presence = CELL_ABSENT};

	of(c)->token = token;
	of(c)->doing = NOTHING;
	if (!cell_lock_held(c)) {
		cell_observed(c, token, &o, NULL);
		return;
	}
	if (!cell_has_keeper(c)) {
		struct phi_error e;

		phi_error_set(&e, PHI_BACKEND, ENOTCONN, "", "the cell is there, its keeper is not connected");
		cell_observed(c, token, NULL, &e);
		return;
	}
	begin(c, token, STATUS, "query-status");
}

static void qemu_forget(struct cell *c)
{
	struct qemu_cell *qc = c->of_backend;

	if (qc == NULL)
		return;
	loop_source_free(qc->ending);
	free(qc->line);
	free(qc);
	c->of_backend = NULL;
}

const struct backend backend_qemu = {
	.name = "qemu",
	.can = CAN_PAUSE | CAN_POWERDOWN | CELL_IS_PROCESS,
	.init = qemu_init,
	.describe = qemu_describe,
	.validate = qemu_validate,
	.create = qemu_create,
	.attach = qemu_attach,
	.start = qemu_start,
	.pause = qemu_pause,
	.resume = qemu_start,
	.powerdown = qemu_powerdown,
	.destroy = qemu_destroy,
	.observe = qemu_observe,
	.spawned = qemu_spawned,
	.control = qemu_control,
	.explain = qemu_explain,
	.stats = qemu_stats,
	.forget = qemu_forget,
};
