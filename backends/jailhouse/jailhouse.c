/* The Jailhouse backend: bare-metal cells. All calls of the driver are jobs, each begun with what it needs and nothing else; what
 * the hypervisor shows in sysfs is looked at twice a second while a cell lives, since nothing tells of its end. */
#include "backend.h"
#include "cell.h"
#include "console.h"
#include "driver.h"
#include "handover.h"
#include "make.h"
#include "payload.h"
#include "plan.h"

#include "clean.h"
#include "error.h"
#include "jobs.h"
#include "json.h"
#include "loop.h"
#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define LOOK_MS	     500 /* an end is known within a second */
#define LAST_LOOK_MS 150 /* of the hypervisor's console, meanwhile */

static struct {
	const struct backend_env *env;
	struct jh_paths paths;
	struct jh_system system;
	bool has_system;
	char why[200]; /* why no cell can be made; "" */
} jh;

/* of_backend. One job at a time a cell: a destroy that overtook a create would see it gone before it is there. */
struct doings {
	struct loop_source *look; /* at a living cell, every now and then */
	bool ended;   /* it was seen so once */
	bool leaving; /* it is to be destroyed: gone is when its devices are back, too */
	struct job *running, *waiting, **last;
};

/* ---- the host ---- */

static int read_root(const char *path, enum jh_flavour flavour, struct phi_error *e)
{
	_clean_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_clean_free_ char *bytes = malloc(JH_FILE_MAX);
	ssize_t n = fd >= 0 ? read(fd, bytes, JH_FILE_MAX) : -1;

	if (bytes == NULL)
		abort();
	if (n < 0)
		return phi_error_set(e, PHI_INVALID, errno, "/backends/jailhouse/root_cell", "%s: %s", path, strerror(errno));
	return jh_system_read(bytes, (size_t)n, flavour, &jh.system, e);
}

static int jh_init(const struct backend_env *env, struct phi_error *e)
{
	const struct platform *p = env->platform;
	struct phi_error why = {0};
	int r;

	jh.env = env;
	if (!p->jailhouse.present)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/backends/jailhouse", "the platform file must say flavour and architecture");
	jh_paths_of(p, &jh.paths);
	if (p->jailhouse.root_cell != NULL) {
		r = read_root(p->jailhouse.root_cell, (enum jh_flavour)p->jailhouse.flavour, e);
		if (r < 0)
			return r;
		jh.has_system = true;
	}
	r = jh_driver_enabled(&jh.paths, &why);
	if (r < 0)
		snprintf(jh.why, sizeof(jh.why), "%s", why.detail);
	else if (r == 0)
		snprintf(jh.why, sizeof(jh.why), "jailhouse is not enabled: the operator does that (jailhouse enable ROOT.cell)");
	else
		jh.why[0] = '\0';
	return 0;
}

static void jh_describe(struct json *to)
{
	json_add_bool(to, "available", jh.why[0] == '\0');
	json_add_string(to, "flavour", jh_flavours[jh.env->platform->jailhouse.flavour]);
	json_add_string(to, "device", jh.paths.device);
	json_add_bool(to, "root_cell_known", jh.has_system);
	if (jh.why[0] != '\0')
		json_add_string(to, "reason", jh.why);
}

static int jh_validate(const struct spec *s, const struct platform *p, struct phi_error *e)
{
	int r;

	if (jh.why[0] != '\0')
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/backend", "%s", jh.why);
	r = jh_payload_validate(s, p, e);
	if (r < 0)
		return r;
	if ((s->remote.has_count || s->remote.names.n > 0) && p->jailhouse.flavour != JH_OMNIVISOR)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/remote_processors", "of the flavours of Jailhouse, omnivisor-14 runs remote "
				     "processors; this host has %s", jh_flavours[p->jailhouse.flavour]);
	for (size_t i = 0; i < s->memory.n; i++) {
		char where[40];

		snprintf(where, sizeof(where), "/spec/memory/%zu/colors", i);
		if (((const struct spec_memory *)s->memory.items)[i].has_colors && p->jailhouse.flavour == JH_UPSTREAM)
			return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, where, "upstream-14 has no cache colours");
	}
	return 0;
}

/* ---- jobs ---- */

enum kind { CREATE, START, DESTROY, OBSERVE, LOOK };

struct job {
	struct job *next;
	enum kind kind;
	char name[CELL_NAME_MAX + 1];
	uint64_t token;
	struct jh_make make;	  /* of create */
	struct alloc_grant grant; /* where it is leaving: what else must be back */
	bool leaving;
	/* answers */
	int found;
	struct jh_seen seen;
	struct phi_error error;
	int r;
};

static void job_run(void *ud)
{
	struct job *j = ud;
	const struct alloc_grant *g = &j->grant;

	if (j->kind == CREATE) {
		if (jh_has_console(j->make.platform, &j->make.grant))
			jh_console_skip(&jh.paths);
		j->r = jh_make(&j->make, &j->error);
		return;
	}
	if (j->kind == DESTROY) {
		j->r = jh_unmake(&jh.paths, jh.env->platform, j->name, g, &j->error);
		return;
	}
	j->found = jh_driver_find(&jh.paths, j->name, &j->seen, &j->error);
	j->r = j->found < 0 ? j->found : 0;
	if (j->found > 0 && j->kind == START)
		j->r = jh_driver_start(&jh.paths, j->seen.id, &j->error);
	else if (j->found == 0 && j->kind == START)
		j->r = phi_error_set(&j->error, PHI_BACKEND, ENOENT, "", "jailhouse shows no cell %s", j->name);
	else if (j->found == 0 && j->leaving)
		j->r = jh_devices_given(jh.env->platform, g->devices, g->n_devices, &j->error);
}

/* Why it ended; false if it did not. */
static bool read_end(const struct jh_seen *seen, struct cell_end *end)
{
	char cpus[CPUSET_TEXT_MAX];

	*end = (struct cell_end){0};
	if (strcmp(seen->state, "shut down") == 0) {
		snprintf(end->reason, sizeof(end->reason), "guest-shutdown");
		return true;
	}
	if (strcmp(seen->state, "failed") != 0)
		return false;
	end->code = 1;
	cpuset_format(&seen->failed, cpus, sizeof(cpus));
	snprintf(end->reason, sizeof(end->reason), "failed");
	snprintf(end->detail, sizeof(end->detail), "the hypervisor stopped CPUs %.100s: an access outside of the cell's resources", cpus);
	return true;
}

static void look_later(struct cell *c);

static void on_observed(struct cell *c, const struct job *j)
{
	struct observation o = {.presence = CELL_ABSENT};

	if (j->r < 0) {
		cell_observed(c, j->token, NULL, &j->error);
		return;
	}
	if (j->found > 0) {
		/* A cell that was not started is "shut down" as well. One that runs was, whoever remembers. */
		c->started = c->started || strncmp(j->seen.state, "running", 7) == 0;
		if (!c->started)
			o.presence = CELL_CREATED;
		else
			o.presence = read_end(&j->seen, &o.end) ? CELL_ENDED : CELL_RUNNING;
		look_later(c);
		if (jh_has_console(jh.env->platform, &c->grant))
			jh_console_begin(c, jh.env, &jh.paths, true); /* nothing where it was begun */
	}
	cell_observed(c, j->token, &o, NULL);
}

/* Gives the keeper the cell's console: the other end of its UART's line, what the hypervisor's console says, or a sentence that there is
 * none. `fd` is taken over. */
static int hand_console(struct cell *c, int fd, bool anew, struct phi_error *e)
{
	static const char sentence[] = "[phid: this cell has no console that phid can read]\n";
	bool none = fd < 0;
	int r = cell_spawn(c, NULL, fd, e);

	if (r < 0)
		return r;
	if (jh_has_console(jh.env->platform, &c->grant))
		jh_console_begin(c, jh.env, &jh.paths, anew);
	else if (none)
		cell_output(c, sentence, sizeof(sentence) - 1);
	return 0;
}

static void on_looked(struct cell *c, const struct job *j)
{
	struct doings *d = c->of_backend;
	struct cell_end end;

	if (j->r == 0 && j->found == 0 && c->started) {
		end = (struct cell_end){.code = 137, .reason = "lost", .detail = "jailhouse does not show the cell any more"};
		cell_ended(c, &end);
	} else if (j->r == 0 && j->found > 0 && c->started && read_end(&j->seen, &end)) {
		if (!d->ended && jh_has_console(jh.env->platform, &c->grant)) {
			d->ended = true; /* what it printed last is read before it goes */
			look_later(c);
			return;
		}
		cell_ended(c, &end);
	} else {
		look_later(c);
	}
}

static void job_free(struct job *j)
{
	if (j->kind == CREATE)
		jh_make_done(&j->make);
	alloc_grant_done(&j->grant);
	free(j);
}

static void job_done(void *ud);

static void begin_next(struct doings *d)
{
	d->running = d->waiting;
	if (d->running == NULL)
		return;
	d->waiting = d->running->next;
	if (d->waiting == NULL)
		d->last = &d->waiting;
	jobs_submit(jh.env->jobs, job_run, job_done, d->running);
}

static void job_done(void *ud)
{
	struct job *j = ud;
	struct cell *c = cell_by_name(j->name);

	if (c != NULL)
		begin_next(c->of_backend);
	if (c != NULL && j->kind == OBSERVE) {
		on_observed(c, j);
	} else if (c != NULL && j->kind == LOOK) {
		on_looked(c, j);
	} else if (c != NULL) {
		if (j->kind == CREATE) {
			phi_close(&c->console);
			c->console = PHI_TAKE_FD(j->make.console);
		}
		if (j->kind == START && j->r == 0)
			c->started = true;
		cell_acted(c, j->token, j->r < 0 ? &j->error : NULL);
	}
	job_free(j);
}

static struct doings *doings_of(struct cell *c)
{
	struct doings *d = c->of_backend;

	if (d != NULL)
		return d;
	d = calloc(1, sizeof(*d));
	if (d == NULL)
		abort();
	d->last = &d->waiting;
	c->of_backend = d;
	return d;
}

static struct job *job_new(struct cell *c, enum kind kind, uint64_t token)
{
	struct job *j = calloc(1, sizeof(*j));

	if (j == NULL)
		abort();
	j->kind = kind;
	j->token = token;
	j->leaving = doings_of(c)->leaving;
	if (j->leaving)
		alloc_grant_copy(&j->grant, &c->grant);
	snprintf(j->name, sizeof(j->name), "%s", c->name);
	return j;
}

static void submit(struct cell *c, struct job *j)
{
	struct doings *d = doings_of(c);

	*d->last = j;
	d->last = &j->next;
	if (d->running == NULL)
		begin_next(d);
}

static void on_look(void *ud)
{
	struct cell *c = ud;

	loop_source_clear(&doings_of(c)->look);
	submit(c, job_new(c, LOOK, 0));
}

static void look_later(struct cell *c)
{
	struct doings *d = doings_of(c);

	if (d->look == NULL && (d->running == NULL || d->running->kind != LOOK))
		d->look = loop_timer(jh.env->loop, "jailhouse", d->ended ? LAST_LOOK_MS : LOOK_MS, on_look, c);
}

/* ---- actions ---- */

static void jh_create(struct cell *c, uint64_t token)
{
	struct job *j = job_new(c, CREATE, token);
	int r = jh_make_plan(&j->make, c, jh.env->platform, &jh.paths, jh.has_system ? &jh.system : NULL, &j->error);

	if (r == 0) {
		submit(c, j);
		return;
	}
	cell_acted(c, token, &j->error);
	job_free(j);
}

static int jh_hand(struct cell *c, struct phi_error *e)
{
	return hand_console(c, PHI_TAKE_FD(c->console), false, e);
}

static void jh_attach(struct cell *c, uint64_t token)
{
	struct phi_error e = {0};
	int r = 0, fd = -1;

	/* The keeper gets the lock, and the console with it, when the cell is loaded. */
	if (!cell_lock_held(c) && !c->started) {
		r = phi_error_set(&e, PHI_INTERNAL, 0, "", "phid was started anew before the cell was loaded");
	} else if (!cell_lock_held(c)) { /* one that is kept */
		r = jh_open_tty(jh.env->platform, &c->grant, &fd, &e);
		if (r == 0)
			r = hand_console(c, fd, true, &e);
	}
	cell_acted(c, token, r < 0 ? &e : NULL);
}

static void jh_start(struct cell *c, uint64_t token)
{
	submit(c, job_new(c, START, token));
}

static void jh_unsupported(struct cell *c, uint64_t token)
{
	struct phi_error e;

	phi_error_set(&e, PHI_UNSUPPORTED, EOPNOTSUPP, "", "jailhouse can neither pause a cell nor ask it to end");
	cell_acted(c, token, &e);
}

static void jh_destroy(struct cell *c, uint64_t token)
{
	doings_of(c)->leaving = true;
	submit(c, job_new(c, DESTROY, token));
}

static void jh_observe(struct cell *c, uint64_t token)
{
	submit(c, job_new(c, OBSERVE, token));
}

static void jh_forget(struct cell *c)
{
	struct doings *d = c->of_backend;

	jh_console_end(c);
	if (d == NULL)
		return;
	loop_source_free(d->look);
	for (struct job *j = d->waiting, *next; j != NULL; j = next) {
		next = j->next;
		job_free(j);
	}
	free(PHI_TAKE(c->of_backend));
}

/* ---- the list ---- */

struct listing {
	struct jh_seen cells[256];
	int n;
	struct phi_error error;
	void (*each)(void *ud, const char *name, const char *tag, const char *cpus);
	void (*done)(void *ud, const struct phi_error *e);
	void *ud;
};

static void list_run(void *ud)
{
	struct listing *l = ud;

	l->n = jh_driver_list(&jh.paths, l->cells, PHI_COUNT(l->cells), &l->error);
}

static void list_done(void *ud)
{
	struct listing *l = ud;
	char cpus[CPUSET_TEXT_MAX];

	for (int i = 0; i < l->n; i++) {
		if (l->cells[i].id == 0)
			continue; /* the root */
		cpuset_format(&l->cells[i].cpus, cpus, sizeof(cpus));
		l->each(l->ud, l->cells[i].name, l->cells[i].name, cpus);
	}
	l->done(l->ud, l->n < 0 && jh.why[0] == '\0' ? &l->error : NULL);
	free(l);
}

static void jh_list(void (*each)(void *ud, const char *name, const char *tag, const char *cpus),
		    void (*done)(void *ud, const struct phi_error *e), void *ud)
{
	struct listing *l = calloc(1, sizeof(*l));

	if (l == NULL)
		abort();
	l->each = each;
	l->done = done;
	l->ud = ud;
	jobs_submit(jh.env->jobs, list_run, list_done, l);
}

const struct backend backend_jailhouse = {
	.name = "jailhouse",
	.can = CAN_PLACE,
	.init = jh_init,
	.describe = jh_describe,
	.validate = jh_validate,
	.create = jh_create,
	.hand = jh_hand,
	.attach = jh_attach,
	.start = jh_start,
	.pause = jh_unsupported,
	.resume = jh_unsupported,
	.powerdown = jh_unsupported,
	.destroy = jh_destroy,
	.observe = jh_observe,
	.list = jh_list,
	.forget = jh_forget,
};
