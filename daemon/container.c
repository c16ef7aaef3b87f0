/* The verbs on containers that are there, and what all calls share. See container.h; a create is create.c's, the table of what is
 * possible when is api/lifecycle.c. */
#include "container.h"

#include "batch.h"
#include "clean.h"
#include "error.h"
#include "json.h"
#include "log.h"
#include "loop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

void call_free(struct call *c)
{
	bundle_done(&c->bundle);
	container_done(&c->record);
	alloc_grant_done(&c->grant);
	for (size_t i = 0; i < CELL_IMAGES_MAX; i++)
		free(c->taken[i].path);
	free(c->key);
	free(c->oci_id);
	free(c->oci_root);
	free(c->plan);
	free(c);
}

void call_reply(struct call *c, int status, const struct phi_error *e)
{
	struct waiter *w = PHI_TAKE(c->waiter);

	waiter_reply(w, status, e, c->refusal.kind != NULL ? &c->refusal : NULL);
	call_free(c);
}

/* ---- idempotency ---- */

int call_replay(struct store *s, enum store_side side, struct call *c, int *ret_status, struct phi_error *e)
{
	struct idempotency known;
	_clean_json_ struct json *problem = NULL;
	int r;

	if (c->key == NULL)
		return 0;
	r = store_key_get(s, side, c->peer.uid, c->key, &known, e);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (strcmp(known.request, c->request) != 0) {
		free(known.problem);
		return phi_error_set(e, PHI_KEY_REUSED, EEXIST, "/Idempotency-Key",
				     "the key \"%.60s\" belongs to another request; use a fresh one", c->key);
	}
	if (known.status == 0) /* it was begun; whether it still runs the record tells */
		return 0;
	*ret_status = known.status;
	if (known.problem != NULL && json_parse(known.problem, strlen(known.problem), &problem, NULL) == 0)
		r = phi_error_set(e, phi_code_from_name(json_get_string(problem, "code")), 0,
				  json_get_string(problem, "pointer"), "%s",
				  json_get_string(problem, "detail") ? json_get_string(problem, "detail") : "");
	free(known.problem);
	return r < 0 ? r : 1;
}

/* ---- the verbs ---- */

int call_find(const struct call *c, struct store *s, enum store_side side, struct container *row, struct phi_error *e)
{
	int r = store_container_by_id(s, side, c->id, row, e);

	if (r == 0 && c->incarnation[0] != '\0' && strcmp(c->incarnation, row->incarnation) != 0)
		return phi_error_set(e, PHI_NOT_FOUND, ENOENT, "",
				     "container does not exist: %s was deleted and made again since", c->id);
	return r;
}

static int busy(const struct call *c, const char *with, struct phi_error *e)
{
	return phi_error_set(e, PHI_BUSY, EBUSY, "/state", "container %s is busy with %s; try again", c->id, with);
}

/* start, pause, resume: the intent is written before the cell is touched. */
static int intend(struct store *s, void *ud, struct phi_error *e)
{
	struct call *c = ud;
	_clean_container_ struct container row = {0};
	int r = call_replay(s, STORE_WRITE, c, &c->status, e);

	if (r != 0)
		return r < 0 ? r : 0;
	r = call_find(c, s, STORE_WRITE, &row, e);
	if (r < 0)
		return r;
	c->row = row.row;
	if (row.op < VERB_MAX && row.op_key != NULL && c->key != NULL && strcmp(row.op_key, c->key) == 0) {
		c->join_row = row.row;
		return 0;
	}
	if (row.op < VERB_MAX)
		return busy(c, lifecycle_verbs[row.op], e);
	r = c->verb == VERB_START ? claim_start(c, s, &row, e) : 0;
	if (r == 0 && !c->claimed)
		r = lifecycle_check(row.state, c->verb, c->id, e);
	if (r != 0 || c->claimed)
		return r;
	row.op = c->verb;
	row.op_uid = c->peer.uid;
	free(row.op_key);
	row.op_key = phi_strdup(c->key);
	r = store_container_update(s, &row, e);
	if (r == 0 && c->key != NULL)
		r = store_key_insert(s, c->peer.uid, c->key, c->request, row.incarnation, e);
	return r;
}

/* The intent of a verb that was overtaken; the one that overtook it may have written its own by now. */
static int withdraw(struct store *s, void *ud, struct phi_error *e)
{
	const struct call *c = ud;
	_clean_container_ struct container row = {0};
	int r = store_container_by_row(s, STORE_WRITE, c->row, &row, e);

	if (r < 0 || row.op != c->verb)
		return r;
	row.op = VERB_MAX;
	row.op_uid = 0;
	free(PHI_TAKE(row.op_key));
	return store_container_update(s, &row, e);
}

static void withdrawn(void *ud, const struct phi_error *e)
{
	struct call *c = ud;

	(void)e;
	call_reply(c, 0, &c->bundle.error);
}

static void intended(void *ud, const struct phi_error *e)
{
	struct call *c = ud;
	struct cell *cell = cell_of_row(c->p, c->row);
	struct operation *op;

	if (e == NULL && c->claimed && cell != NULL)
		cell->claimed = false;
	if (e != NULL || c->status != 0) {
		call_reply(c, c->status, e);
		return;
	}
	if (c->join_row != 0 && cell != NULL && cell->op != NULL) {
		operation_join(cell->op, PHI_TAKE(c->waiter));
		call_free(c);
		return;
	}
	killpoint(lifecycle_verbs[c->verb], "reserved");
	if (cell == NULL || cell->op != NULL) { /* the guest ended, or a kill came, while the intent was written */
		if (cell == NULL)
			lifecycle_check(STATE_STOPPED, c->verb, c->id, &c->bundle.error);
		else
			busy(c, lifecycle_verbs[cell->op->verb], &c->bundle.error);
		batch_submit(c->p->batch, withdraw, withdrawn, c);
		return;
	}
	op = operation_new(c->p, cell, c->verb, PHI_TAKE(c->waiter));
	op->uid = c->peer.uid;
	op->key = PHI_TAKE(c->key);
	memcpy(op->request, c->request, sizeof(op->request));
	call_free(c);
	operation_go(op);
}

/* The delete of a stopped container: its record only. */
static int remove_record(struct store *s, void *ud, struct phi_error *e)
{
	struct call *c = ud;
	_clean_container_ struct container row = {0};
	int r = call_replay(s, STORE_WRITE, c, &c->status, e);

	if (r != 0)
		return r < 0 ? r : 0;
	r = call_find(c, s, STORE_WRITE, &row, e);
	c->again = r == 0 && c->verb == VERB_DELETE_FORCE && row.state != STATE_STOPPED;
	if (c->again)
		return 0;
	if (r == 0)
		r = lifecycle_check(row.state, VERB_DELETE, c->id, e);
	if (r == 0)
		r = store_event_insert(s, "container.deleted", row.id, row.incarnation, NULL, e);
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

static void removed(void *ud, const struct phi_error *e)
{
	struct call *c = ud;

	if (e == NULL && c->again) {
		call_verb(c);
		return;
	}
	if (e == NULL && c->status == 0) {
		killpoint("delete", "committed");
		cell_dir_remove(c->p, c->row);
		phid_changed(c->p);
		c->status = 204;
	}
	call_reply(c, c->status, e);
}

static void on_escalation(void *ud)
{
	struct cell *c = ud;
	struct operation *op;

	loop_source_clear(&c->escalation);
	op = operation_new(the_phid, c, VERB_KILL, NULL);
	if (op == NULL) {
		c->escalation = loop_timer(the_phid->loop, "escalation", 100, on_escalation, c);
		return;
	}
	log_info(c->id, "did not power down in time; killed");
	op->signal = SIGKILL;
	operation_go(op);
}

static int nothing(struct store *s, void *ud, struct phi_error *e)
{
	(void)s;
	(void)ud;
	(void)e;
	return 0;
}

static void on_next_batch(void *ud, const struct phi_error *e)
{
	(void)e; /* a disk that cannot be written stops no delete */
	call_verb(ud);
}

/* kill, and delete by force: they act first and commit what they saw, so that stopping needs no writable disk. */
static void destroy(struct call *c, const struct container *row)
{
	struct cell *cell = cell_of_row(c->p, row->row);
	bool ask = c->verb == VERB_KILL && c->signal != SIGKILL && row->state != STATE_CREATED;
	struct operation *op;
	struct phi_error e;

	if (cell == NULL) {
		if (row->state == STATE_CREATING && backend_find(c->p, row->backend) != NULL) {
			/* Reserved, but the loop was not told yet: it is before the next batch is done. */
			if (c->row != row->row) {
				c->row = row->row;
				batch_intend(c->p->batch, nothing, on_next_batch, c);
				return;
			}
			busy(c, "create", &e); /* that could not be taken up at the start of phid; see reconcile.c */
		} else {
			phi_error_set(&e, PHI_UNSUPPORTED, 0, "/backend",
				      "container %s runs on backend \"%s\", which is not enabled: phid cannot see its cell gone", c->id,
				      row->backend);
		}
		call_reply(c, 0, &e);
		return;
	}
	op = cell->op;
	if (op != NULL && op->key != NULL && c->key != NULL && strcmp(op->key, c->key) == 0) {
		operation_join(op, PHI_TAKE(c->waiter));
		call_free(c);
		return;
	}
	/* It is ending, or being deleted by force, already: that is what is wanted. */
	if (op != NULL && ((c->verb == VERB_KILL && op->verb == VERB_END && !op->resuming) ||
			   (c->verb == VERB_DELETE_FORCE && op->verb == VERB_DELETE_FORCE))) {
		operation_join(op, PHI_TAKE(c->waiter));
		call_free(c);
		return;
	}
	if (op != NULL && c->verb == VERB_DELETE_FORCE) {
		operation_supersede(op);
	} else if (op != NULL && op->step != OP_UNWRITTEN) {
		busy(c, lifecycle_verbs[op->verb], &e);
		call_reply(c, 0, &e);
		return;
	}
	if (ask && !(cell->backend->can & CAN_POWERDOWN)) {
		phi_error_set(&e, PHI_UNSUPPORTED, 0, "/signal", "the %s backend cannot ask a guest to end; SIGKILL is possible",
			      cell->backend->name);
		call_reply(c, 0, &e);
		return;
	}
	op = operation_new(c->p, cell, c->verb, PHI_TAKE(c->waiter));
	op->uid = c->peer.uid;
	op->key = PHI_TAKE(c->key);
	op->signal = c->signal;
	op->ask = ask;
	memcpy(op->request, c->request, sizeof(op->request));
	if (ask && c->timeout_ms >= 0) {
		loop_source_clear(&cell->escalation);
		cell->escalation = loop_timer(c->p->loop, "escalation", (uint64_t)c->timeout_ms, on_escalation, cell);
	}
	call_free(c);
	operation_go(op);
}

void call_verb(struct call *c)
{
	_clean_container_ struct container row = {0};
	struct phi_error e = {0};
	int r, status = 0;

	if (c->verb == VERB_START || c->verb == VERB_PAUSE || c->verb == VERB_RESUME) {
		batch_intend(c->p->batch, intend, intended, c);
		return;
	}
	r = call_replay(c->p->store, STORE_READ, c, &status, &e);
	if (r != 0) {
		call_reply(c, status, r < 0 ? &e : NULL);
		return;
	}
	r = call_find(c, c->p->store, STORE_READ, &row, &e);
	if (r == 0)
		r = lifecycle_check(row.state, c->verb, c->id, &e);
	if (r < 0) {
		call_reply(c, status, &e);
		return;
	}
	if (c->verb == VERB_DELETE || (c->verb == VERB_DELETE_FORCE && row.state == STATE_STOPPED))
		batch_submit(c->p->batch, remove_record, removed, c);
	else
		destroy(c, &row);
}
