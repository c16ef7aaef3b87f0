/* See console.h. The device has no poll: it is read twenty times a second while a cell has it, without blocking. */
#include "console.h"

#include "clean.h"
#include "error.h"
#include "jobs.h"
#include "log.h"
#include "loop.h"
#include "plan.h"

#include <pthread.h>
#include <string.h>

#define LOOK_MS	  50
#define RING_SIZE 2048 /* the hypervisor's (console.h, struct jailhouse_console content) */

static struct {
	pthread_mutex_t lock; /* of fd: jobs read it */
	int fd;
	struct cell *cell; /* that has it, NULL: none */
	const struct backend_env *env;
	const struct jh_paths *paths;
	struct loop_source *timer;
	bool open;   /* a job is on its way */
	bool failed; /* and it was said */
	bool anew;   /* to be said */
} console = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

struct reading {
	char name[CELL_NAME_MAX + 1];
	char bytes[4 * RING_SIZE];
	size_t n;
	struct phi_error error;
	int r;
};

static void read_run(void *ud)
{
	struct reading *r = ud;
	ssize_t n = 1;

	pthread_mutex_lock(&console.lock);
	while (n > 0 && r->n + RING_SIZE <= sizeof(r->bytes)) {
		n = jh_driver_console(console.paths, &console.fd, r->bytes + r->n, RING_SIZE, &r->error);
		if (n > 0)
			r->n += (size_t)n;
	}
	if (n < 0) {
		r->r = (int)n;
		phi_close(&console.fd); /* the next look opens it again */
	}
	pthread_mutex_unlock(&console.lock);
}

static void look_later(void);

static void read_done(void *ud)
{
	struct reading *r = ud;
	struct cell *c = cell_by_name(r->name);

	console.open = false;
	if (c != NULL && c == console.cell) {
		cell_output(c, r->bytes, r->n);
		if (r->r < 0 && !console.failed)
			log_warn(c->id, "%s", r->error.detail);
		console.failed = r->r < 0;
	}
	free(r);
	look_later();
}

static void on_look(void *ud)
{
	static const char notice[] = "\r\n[phid was started anew: up to 2048 bytes may follow that are here already]\r\n";
	struct reading *r;

	(void)ud;
	loop_source_clear(&console.timer);
	if (!cell_has_keeper(console.cell)) { /* it will come; the ring keeps the last 2048 bytes */
		look_later();
		return;
	}
	if (console.anew)
		cell_output(console.cell, notice, sizeof(notice) - 1);
	console.anew = false;
	r = calloc(1, sizeof(*r));
	if (r == NULL)
		abort();
	snprintf(r->name, sizeof(r->name), "%s", console.cell->name);
	console.open = true;
	jobs_submit(console.env->jobs, read_run, read_done, r);
}

static void look_later(void)
{
	if (console.cell != NULL && console.timer == NULL && !console.open)
		console.timer = loop_timer(console.env->loop, "console", LOOK_MS, on_look, NULL);
}

bool jh_has_console(const struct platform *p, const struct alloc_grant *g)
{
	for (size_t i = 0; i < g->n_devices; i++) {
		const struct platform_device *d = platform_device(p, g->devices[i]);

		if (d != NULL && jh_is_hypervisor_console(d))
			return true;
	}
	return false;
}

void jh_console_skip(const struct jh_paths *paths)
{
	char old[RING_SIZE];
	struct phi_error e;

	pthread_mutex_lock(&console.lock);
	phi_close(&console.fd);
	while (jh_driver_console(paths, &console.fd, old, sizeof(old), &e) > 0)
		;
	pthread_mutex_unlock(&console.lock);
}

void jh_console_begin(struct cell *c, const struct backend_env *env, const struct jh_paths *paths, bool anew)
{
	if (console.cell == c)
		return;
	console.cell = c;
	console.env = env;
	console.paths = paths;
	console.anew = anew;
	look_later();
}

void jh_console_end(struct cell *c)
{
	if (console.cell != c)
		return;
	console.cell = NULL;
	loop_source_clear(&console.timer);
}
