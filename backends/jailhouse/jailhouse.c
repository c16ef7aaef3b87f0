/* The Jailhouse backend: bare-metal cells. All calls of the driver are jobs, each begun with what it needs and nothing else; what
 * the hypervisor shows in sysfs is looked at twice a second while a cell lives, since nothing tells of its end. */
#include "backend.h"
#include "cell.h"
#include "driver.h"
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

#define LOOK_MS 500 /* an end is known within a second */

static struct {
	const struct backend_env *env;
	struct jh_paths paths;
	struct jh_system system;
	bool has_system;
	char why[200]; /* why no cell can be made; "" */
} jh;

/* of_backend: the look at a living cell. */
struct look {
	struct loop_source *timer;
	bool open; /* a job is on its way */
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
	if (jh.why[0] != '\0')
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/backend", "%s", jh.why);
	if (s->boot.kernel.path != NULL || s->boot.initrd.path != NULL)
		return phi_error_set(e, PHI_NOT_BUILT, EOPNOTSUPP, "/spec/boot/kernel", "Linux in a Jailhouse cell is not built yet; an \"inmate\" is possible");
	if (s->boot.inmate.path == NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/boot/inmate", "a Jailhouse cell needs an inmate; the spec names none");
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
	enum kind kind;
	char name[CELL_NAME_MAX + 1];
	uint64_t token;
	/* of create: what it needs, so that it looks at no handle */
	uint8_t *config;
	size_t config_n;
	struct jh_memory regions[PHI_MEMORY_REGIONS_MAX]; /* to be cleared: virt, size */
	size_t n_regions;
	int image; /* a descriptor of our own */
	uint64_t image_size, image_at;
	char arguments[256];
	/* answers */
	int found;
	struct jh_seen seen;
	struct phi_error error;
	int r;
};

/* Where upstream's inmates look for their command line, from where they begin (inmates/lib/.../cmdline). */
#define ARGUMENTS_AT 0x1000

/* Zeros over all of its memory (another had it before), then the image, then its command line. */
static int fill(struct job *j, int id)
{
	struct jh_image images[PHI_MEMORY_REGIONS_MAX + 2];
	void *maps[PHI_MEMORY_REGIONS_MAX + 1];
	size_t sizes[PHI_MEMORY_REGIONS_MAX + 1], n_maps = 0;
	uint32_t n = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i <= j->n_regions; i++) { /* the last is the image */
		bool image = i == j->n_regions;
		size_t size = image ? j->image_size : j->regions[i].size;
		void *p = mmap(NULL, size, PROT_READ, MAP_PRIVATE | (image ? 0 : MAP_ANONYMOUS | MAP_NORESERVE), image ? j->image : -1, 0);

		if (p == MAP_FAILED) {
			r = phi_error_set(&j->error, PHI_INTERNAL, errno, "", "mmap: %s", strerror(errno));
			break;
		}
		maps[n_maps] = p;
		sizes[n_maps++] = size;
		images[n++] = (struct jh_image){p, size, image ? j->image_at : j->regions[i].virt};
	}
	if (j->arguments[0] != '\0')
		images[n++] = (struct jh_image){j->arguments, strlen(j->arguments) + 1, (j->image_at & ~UINT64_C(4095)) + ARGUMENTS_AT};
	if (r == 0)
		r = jh_driver_load(&jh.paths, id, images, n, &j->error);
	for (size_t i = 0; i < n_maps; i++)
		munmap(maps[i], sizes[i]);
	return r;
}

static int create(struct job *j)
{
	struct jh_seen seen;
	int r = jh_driver_find(&jh.paths, j->name, &seen, &j->error);

	if (r > 0) /* of a try that was cut off */
		r = jh_driver_destroy(&jh.paths, seen.id, &j->error);
	if (r < 0)
		return r;
	r = jh_driver_create(&jh.paths, j->config, j->config_n, &j->error);
	if (r < 0)
		return r;
	/* Its answer counts for nothing: a cell of another architecture is taken, and not made. */
	r = jh_driver_find(&jh.paths, j->name, &seen, &j->error);
	if (r == 0)
		return phi_error_set(&j->error, PHI_BACKEND, ENOENT, "", "jailhouse answered well and made no cell: is it of another architecture?");
	return r < 0 ? r : fill(j, seen.id);
}

static void job_run(void *ud)
{
	struct job *j = ud;

	if (j->kind == CREATE) {
		j->r = create(j);
		return;
	}
	j->found = jh_driver_find(&jh.paths, j->name, &j->seen, &j->error);
	j->r = j->found < 0 ? j->found : 0;
	if (j->found > 0 && j->kind == START)
		j->r = jh_driver_start(&jh.paths, j->seen.id, &j->error);
	else if (j->found > 0 && j->kind == DESTROY)
		j->r = jh_driver_destroy(&jh.paths, j->seen.id, &j->error);
	else if (j->found == 0 && j->kind == START)
		j->r = phi_error_set(&j->error, PHI_BACKEND, ENOENT, "", "jailhouse shows no cell %s", j->name);
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
	}
	cell_observed(c, j->token, &o, NULL);
}

/* Output of a cell goes to a UART of its own, if to anywhere: phid has none to read. The keeper gets an end with that sentence. */
static int hand_console(struct cell *c, struct phi_error *e)
{
	static const char sentence[] = "[phid: this cell has no console that phid can read]\n";
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, "", "pipe: %s", strerror(errno));
	if (write(p[1], sentence, sizeof(sentence) - 1) < 0)
		phi_error_set(e, PHI_INTERNAL, errno, "", "pipe: %s", strerror(errno));
	close(p[1]);
	return cell_spawn(c, NULL, p[0], e);
}

static void on_looked(struct cell *c, const struct job *j)
{
	struct look *l = c->of_backend;
	struct cell_end end;

	l->open = false;
	if (j->r == 0 && j->found == 0 && c->started) {
		end = (struct cell_end){.code = 137, .reason = "lost", .detail = "jailhouse does not show the cell any more"};
		cell_ended(c, &end);
	} else if (j->r == 0 && j->found > 0 && c->started && read_end(&j->seen, &end)) {
		cell_ended(c, &end);
	} else {
		look_later(c);
	}
}

static void job_done(void *ud)
{
	struct job *j = ud;
	struct cell *c = cell_by_name(j->name);

	if (c != NULL && j->kind == OBSERVE) {
		on_observed(c, j);
	} else if (c != NULL && j->kind == LOOK) {
		if (c->of_backend != NULL)
			on_looked(c, j);
	} else if (c != NULL) {
		if (j->kind == CREATE && j->r == 0)
			j->r = hand_console(c, &j->error);
		if (j->kind == START && j->r == 0)
			c->started = true;
		cell_acted(c, j->token, j->r < 0 ? &j->error : NULL);
	}
	phi_close(&j->image);
	free(j->config);
	free(j);
}

static struct job *job_new(const struct cell *c, enum kind kind, uint64_t token)
{
	struct job *j = calloc(1, sizeof(*j));

	if (j == NULL)
		abort();
	j->kind = kind;
	j->token = token;
	j->image = -1;
	snprintf(j->name, sizeof(j->name), "%s", c->name);
	return j;
}

static void submit(const struct cell *c, enum kind kind, uint64_t token)
{
	jobs_submit(jh.env->jobs, job_run, job_done, job_new(c, kind, token));
}

static void on_look(void *ud)
{
	struct cell *c = ud;
	struct look *l = c->of_backend;

	loop_source_clear(&l->timer);
	l->open = true;
	submit(c, LOOK, 0);
}

static void look_later(struct cell *c)
{
	struct look *l = c->of_backend;

	if (l == NULL) {
		l = c->of_backend = calloc(1, sizeof(*l));
		if (l == NULL)
			abort();
	}
	if (l->timer == NULL && !l->open)
		l->timer = loop_timer(jh.env->loop, "jailhouse", LOOK_MS, on_look, c);
}

/* ---- actions ---- */

static void jh_create(struct cell *c, uint64_t token)
{
	struct job *j = job_new(c, CREATE, token);
	struct phi_error e;
	struct jh_cell cell;
	int r = jh_plan(c, jh.env->platform, jh.has_system ? &jh.system : NULL, &cell, &e);

	if (r == 0) {
		j->config_n = jh_cell_size(&cell);
		j->config = malloc(j->config_n);
		if (j->config == NULL)
			abort();
		jh_cell_write(&cell, j->config);
	}
	jh_cell_free(&cell);
	for (size_t i = 0; i < c->grant.n_memory; i++)
		j->regions[j->n_regions++] = (struct jh_memory){.virt = jh_guest_address(c, i), .size = c->grant.memory[i].size};
	for (size_t i = 0; i < c->n_images; i++) {
		j->image = fcntl(c->images[i].fd, F_DUPFD_CLOEXEC, 3);
		j->image_size = c->images[i].size;
	}
	j->image_at = c->spec.boot.inmate.has_at ? c->spec.boot.inmate.at : 0;
	if (r == 0 && c->spec.boot.cmdline != NULL && strlen(c->spec.boot.cmdline) >= sizeof(j->arguments))
		r = phi_error_set(&e, PHI_INVALID, ERANGE, "/spec/boot/cmdline", "an inmate's command line has at most %zu bytes",
				  sizeof(j->arguments) - 1);
	if (r == 0 && c->spec.boot.cmdline != NULL)
		snprintf(j->arguments, sizeof(j->arguments), "%s", c->spec.boot.cmdline);
	if (r == 0 && j->image < 0)
		r = phi_error_set(&e, PHI_INTERNAL, EBADF, "", "the image is not there");
	if (r == 0) {
		jobs_submit(jh.env->jobs, job_run, job_done, j);
		return;
	}
	phi_close(&j->image);
	free(j->config);
	free(j);
	cell_acted(c, token, &e);
}

static void jh_attach(struct cell *c, uint64_t token)
{
	struct phi_error e = {0};
	int r = cell_lock_held(c) ? 0 : hand_console(c, &e);

	cell_acted(c, token, r < 0 ? &e : NULL);
}

static void jh_start(struct cell *c, uint64_t token)
{
	submit(c, START, token);
}

static void jh_unsupported(struct cell *c, uint64_t token)
{
	struct phi_error e;

	phi_error_set(&e, PHI_UNSUPPORTED, EOPNOTSUPP, "", "jailhouse can neither pause a cell nor ask it to end");
	cell_acted(c, token, &e);
}

static void jh_destroy(struct cell *c, uint64_t token)
{
	submit(c, DESTROY, token);
}

static void jh_observe(struct cell *c, uint64_t token)
{
	submit(c, OBSERVE, token);
}

static void jh_forget(struct cell *c)
{
	struct look *l = c->of_backend;

	if (l != NULL)
		loop_source_free(l->timer);
	free(l);
	c->of_backend = NULL;
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
