/* After a start: the database is compared with what is really there, before anybody is answered. The table of DESIGN §4
 * (ARCHITECTURE.md, "After a start") in code: operation_resume settles one container; this file goes over all of them and
 * over what the hypervisors show besides. */
#include "container.h"

#include "batch.h"
#include "clean.h"
#include "jobs.h"
#include "json.h"
#include "keepers.h"
#include "log.h"
#include "loop.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define LIMIT_MS 5000 /* a hypervisor that does not answer does not keep phid from answering */

static struct {
	void (*done)(struct phid *p);
	struct loop_source *tick;
	uint64_t until;
	size_t next_backend;
	bool listing;
} rec;

static void resume_one(void *ud, const struct container *row)
{
	_clean_json_ struct json *j = NULL;
	struct phid *p = ud;
	struct spec spec = {0};
	struct phi_error e;
	struct cell *c;
	int r;

	if (row->state == STATE_STOPPED)
		return;
	r = json_parse(row->spec, strlen(row->spec), &j, &e);
	if (r == 0)
		r = spec_read(j, FIELD_WIRE, "/spec", &spec, &e);
	if (r == 0 && backend_find(p, row->backend) == NULL)
		r = phi_error_set(&e, PHI_UNSUPPORTED, 0, "", "backend \"%s\" is not enabled", row->backend);
	if (r < 0) { /* its units stay held until its backend is enabled, or a forced delete */
		log_error(row->id, "cannot be taken up: %s", e.detail);
		spec_free(&spec);
		return;
	}
	c = cell_new(p, row, &spec);
	c->made = row->state != STATE_CREATING;
	store_grant_read(p->store, STORE_READ, row->row, &c->grant, &e);
	operation_resume(p, c, row);
}

/* Operations that ask a hypervisor right now; those that wait for a keeper go on by themselves. */
static bool settled(const struct phid *p)
{
	for (size_t i = 0; i < PHI_COUNT(p->cells); i++)
		for (const struct cell *c = p->cells[i]; c != NULL; c = c->next)
			if (c->op != NULL && c->op->step != OP_KEEPER)
				return false;
	return !lost_awaited(p);
}

/* ---- cells that no record explains ---- */

struct shown {
	struct phid *p;
	const struct backend *b;
	size_t n;
	struct {
		char name[32], tag[64], cpus[256];
	} cells[256];
};

static void shown_each(void *ud, const char *name, const char *tag, const char *cpus)
{
	struct shown *s = ud;

	if (cell_by_name(name) != NULL || s->n == PHI_COUNT(s->cells))
		return;
	snprintf(s->cells[s->n].name, sizeof(s->cells[0].name), "%s", name);
	snprintf(s->cells[s->n].tag, sizeof(s->cells[0].tag), "%s", tag);
	snprintf(s->cells[s->n++].cpus, sizeof(s->cells[0].cpus), "%s", cpus);
}

static int shown_write(struct store *st, void *ud, struct phi_error *e)
{
	struct shown *s = ud;
	int r = store_observed_clear(st, s->b->name, e);

	for (size_t i = 0; r == 0 && i < s->n; i++) {
		int64_t row = cell_row_of_name(s->cells[i].name);
		_clean_json_ struct json *j = json_object();
		_clean_free_ char *detail = NULL;

		json_add_string(j, "backend", s->b->name);
		json_add_string(j, "cell", s->cells[i].name);
		json_add_string(j, "cpus", s->cells[i].cpus);
		detail = json_print(j);
		r = store_observed_insert(st, s->b->name, s->cells[i].name, s->cells[i].tag, s->cells[i].cpus, row > 0 && (s->b->can & CAN_PLACE), e);
		if (r == 0)
			r = store_rows_beyond(st, row, e);
		if (r == 0)
			r = store_event_insert(st, "cell.unexplained", NULL, NULL, detail, e);
	}
	return r;
}

static void shown_written(void *ud, const struct phi_error *e)
{
	struct shown *s = ud;

	for (size_t i = 0; i < s->n; i++)
		log_warn(NULL, "%s shows cell %s that no record explains; its CPUs (%s) are not granted", s->b->name,
			 s->cells[i].name, s->cells[i].cpus);
	if (e != NULL)
		log_error(NULL, "%s", e->detail);
	free(s);
	rec.listing = false;
}

static void shown_done(void *ud, const struct phi_error *e)
{
	struct shown *s = ud;

	if (e != NULL) {
		log_error(NULL, "%s: its cells cannot be listed: %s", s->b->name, e->detail);
		free(s);
		rec.listing = false;
		return;
	}
	batch_submit(s->p->batch, shown_write, shown_written, s);
}

static void list_next(struct phid *p)
{
	const struct backend *b = p->backends[rec.next_backend++];
	struct shown *s;

	if (b->list == NULL)
		return;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		abort();
	s->p = p;
	s->b = b;
	rec.listing = true;
	b->list(shown_each, shown_done, s);
}

/* ---- directories of containers that are no more ---- */

static void sweep(struct phid *p)
{
	char path[PHI_PATH_MAX];
	_clean_closedir_ DIR *d = NULL;

	snprintf(path, sizeof(path), "%s/cells", p->config.state_dir);
	d = opendir(path);
	for (struct dirent *f = d != NULL ? readdir(d) : NULL; f != NULL; f = readdir(d)) {
		_clean_container_ struct container row = {0};
		long long n = atoll(f->d_name);

		if (n > 0 && store_container_by_row(p->store, STORE_READ, n, &row, NULL) == -ENOENT && !lost_has(p, n))
			cell_dir_remove(p, n);
	}
}

static void on_tick(void *ud)
{
	struct phid *p = ud;
	bool late = loop_now_ms() > rec.until;

	loop_source_clear(&rec.tick);
	if (!late && (rec.listing || !settled(p))) {
		rec.tick = loop_timer(p->loop, "reconcile", 2, on_tick, p);
		return;
	}
	if (!late && rec.next_backend < p->n_backends) {
		list_next(p);
		rec.tick = loop_timer(p->loop, "reconcile", 1, on_tick, p);
		return;
	}
	if (late)
		log_warn(NULL, "a hypervisor did not answer in %d ms; phid goes on with what it knows", LIMIT_MS);
	sweep(p);
	rec.done(p);
}

void reconcile(struct phid *p, void (*done)(struct phid *p))
{
	struct phi_error e;

	rec.done = done;
	rec.until = loop_now_ms() + LIMIT_MS;
	if (store_containers(p->store, STORE_READ, NULL, NULL, NULL, PHI_CONTAINERS_MAX, resume_one, p, &e) < 0)
		log_error(NULL, "%s", e.detail);
	lost_settle(p);
	keepers_open(p->keepers);
	rec.tick = loop_timer(p->loop, "reconcile", 0, on_tick, p);
}
