/* The operator's word: what is quarantined is free. phid could not see the cell gone, somebody else did (or pulled the plug). */
#include "container.h"

#include "batch.h"
#include "clean.h"
#include "error.h"
#include "keepers.h"
#include "log.h"

#include <errno.h>

static int check(struct call *c, struct store *s, const struct container *row, struct phi_error *e)
{
	struct cell *cell = cell_of_row(c->p, row->row);

	if (row->op < VERB_MAX || (cell != NULL && cell->op != NULL))
		return phi_error_set(e, PHI_BUSY, EBUSY, "/state", "container %s is busy; try again", c->id);
	/* Of a backend that is not enabled nothing can be seen at all. */
	if (row->state == STATE_STOPPED || (backend_find(c->p, row->backend) != NULL && store_grant_quarantined(s, row->row) == 0))
		return phi_error_set(e, PHI_STATE, EPERM, "/state",
				     "container %s is %s and its units are not quarantined: phid can end it and see it gone (delete, by force if need be)", c->id,
				     lifecycle_states[row->state]);
	return 0;
}

static int release(struct store *s, void *ud, struct phi_error *e)
{
	struct call *c = ud;
	_clean_container_ struct container row = {0};
	int r = call_replay(s, STORE_WRITE, c, &c->status, e);

	if (r != 0)
		return r < 0 ? r : 0;
	r = call_find(c, s, STORE_WRITE, &row, e);
	if (r == 0)
		r = check(c, s, &row, e);
	if (r == 0)
		r = store_grant_release(s, row.row, e);
	if (r == 0)
		r = store_event_insert(s, "container.released", row.id, row.incarnation, NULL, e);
	if (r == 0)
		r = store_container_delete(s, row.row, e);
	if (r == 0 && c->key != NULL) {
		r = store_key_insert(s, c->peer.uid, c->key, c->request, row.incarnation, e);
		if (r == 0)
			r = store_key_outcome(s, c->peer.uid, c->key, 204, NULL, e);
	}
	c->row = row.row;
	return r;
}

static void released(void *ud, const struct phi_error *e)
{
	struct call *c = ud;
	struct cell *cell = cell_of_row(c->p, c->row);

	if (e == NULL && c->status == 0) {
		log_warn(c->id, "its units were released by user %u's word; phid did not see its cell gone", (unsigned)c->peer.uid);
		if (cell != NULL) {
			keeper_release(cell, KEEPER_GONE, 137);
			cell_free(c->p, cell);
		}
		cell_dir_remove(c->p, c->row);
		phid_changed(c->p);
		c->status = 204;
	}
	call_reply(c, c->status, e);
}

void call_release(struct call *c)
{
	batch_submit(c->p->batch, release, released, c);
}
