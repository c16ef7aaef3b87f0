/* How a create is made: first the cell waits until its links are nobody's who may still clear them, then its parts come in any order: its
 * directory, its keeper, and the cell itself where it is no process of the keeper's. When all are there the process is begun, or the keeper
 * is given the cell's console, and the cell is looked at. */
#include "operation.h"

#include "error.h"
#include "jobs.h"
#include "keepers.h"
#include "loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The directory, and then the keeper where phid starts it. */
struct make_job {
	struct operation *op; /* NULL: it ended meanwhile */
	atomic_bool forgotten; /* that, for the worker */
	struct phid *p;
	char dir[PHI_PATH_MAX];
	uid_t uid;
	gid_t gid;
	uint64_t log_size;
	bool starts; /* a keeper: */
	struct keeper_wish keeper;
	int r;
	struct phi_error e;
};

static void make_run(void *ud)
{
	struct make_job *j = ud;

	j->r = cell_dir_make(j->dir, j->uid, j->gid, j->log_size, &j->e);
	if (j->r == 0 && j->starts && !j->forgotten)
		j->r = keeper_start(&j->keeper, &j->e);
}

static void make_done(void *ud)
{
	struct make_job *j = ud;

	if (j->op != NULL)
		j->op->job = NULL;
	if (j->op != NULL && j->op->step == OP_MAKE)
		operation_part(j->op, PART_DIR, j->r < 0 ? &j->e : NULL);
	else if (cell_of_row(j->p, j->keeper.row) == NULL) /* it was removed before it was made */
		cell_dir_remove(j->p, j->keeper.row);
	free(j);
}

static void make_begin(struct operation *op)
{
	const struct cell *c = op->cell;
	struct make_job *j = calloc(1, sizeof(*j));

	if (j == NULL)
		abort();
	op->job = j;
	j->op = op;
	j->p = op->p;
	j->uid = c->owner_uid;
	j->gid = c->owner_gid;
	j->log_size = c->spec.log_max;
	j->starts = (op->missing & PART_KEEPER) && !c->external_keeper;
	j->keeper = keeper_wish(op->p, c);
	cell_path(op->p, c->row, "", j->dir, sizeof(j->dir));
	jobs_submit(op->p->jobs, make_run, make_done, j);
}

void operation_make_forget(struct operation *op)
{
	if (op->job == NULL)
		return;
	op->job->op = NULL;
	op->job->forgotten = true;
}

static bool has_end(const struct cell *c, const char *link)
{
	for (size_t i = 0; i < c->grant.n_links; i++)
		if (strcmp(c->grant.links[i].name, link) == 0)
			return true;
	return false;
}

/* The first cell at a link clears its memory, and while it does, or may fail before, no other is there. So a create waits for those of
 * older cells at its links; then it knows whether somebody is there. */
static bool links_are_ready(const struct phid *p, struct cell *c)
{
	for (size_t i = 0; i < c->grant.n_links; i++) {
		struct alloc_link *l = &c->grant.links[i];

		l->alone = true;
		for (size_t k = 0; k < PHI_COUNT(p->cells); k++)
			for (const struct cell *o = p->cells[k]; o != NULL; o = o->next) {
				if (o == c || !has_end(o, l->name))
					continue;
				if (!o->made && o->row < c->row)
					return false;
				l->alone = l->alone && !o->made;
			}
	}
	return true;
}

static void on_links(void *ud)
{
	struct phid *p = ud;

	for (size_t k = 0; k < PHI_COUNT(p->cells); k++)
		for (struct cell *c = p->cells[k], *next; c != NULL; c = next) {
			next = c->next; /* a create that fails at once ends in a transaction, not here */
			if (c->op != NULL && c->op->step == OP_LINKS)
				operation_make(c->op);
		}
}

void operation_links_changed(struct phid *p)
{
	if (p->links == NULL)
		p->links = loop_soon(p->loop, "links", on_links, p);
	loop_arm(p->links);
}

void operation_make(struct operation *op)
{
	struct cell *c = op->cell;
	struct phi_error e;

	if (!links_are_ready(op->p, c)) {
		op->step = OP_LINKS;
		return;
	}
	op->step = OP_MAKE;
	if (keeper_undone(op->p, c)) {
		phi_error_set(&e, PHI_STATE, ECANCELED, "", "its creator went away before the create was begun");
		operation_fail(op, &e);
		return;
	}
	op->missing = PART_DIR;
	if (c->keeper == NULL && !keeper_claim(op->p, c))
		op->missing |= PART_KEEPER;
	if (!(c->backend->can & CELL_IS_PROCESS)) {
		op->missing |= PART_CELL;
		op->token = ++op->p->next_token;
		c->backend->create(c, op->token); /* it may fail at once */
		killpoint("create", "acting");
	}
	if (op->step == OP_MAKE)
		make_begin(op);
}

static void put_together(struct operation *op)
{
	struct phi_error e;

	if (op->cell->backend->can & CELL_IS_PROCESS)
		operation_act(op);
	else if (op->cell->backend->hand(op->cell, &e) < 0)
		operation_fail(op, &e);
	else
		operation_observe(op);
}

void operation_part(struct operation *op, enum op_part part, const struct phi_error *e)
{
	op->missing &= ~part;
	if (e != NULL && op->error.code == PHI_OK)
		op->error = *e;
	if (op->missing & PART_CELL)
		return; /* the hypervisor is at it: nothing is undone before it has answered, or the deadline speaks */
	if (op->error.code != PHI_OK)
		operation_fail(op, &op->error);
	else if (op->missing == 0)
		put_together(op);
}
