/* The transactions that end an operation, and what follows them. Nothing is released here but what observe saw gone. */
#include "operation.h"

#include "batch.h"
#include "clean.h"
#include "error.h"
#include "json.h"
#include "keepers.h"
#include "log.h"
#include "loop.h"
#include "view.h"

#include <errno.h>
#include <string.h>

#define UNWRITTEN_MS 1000

/* ---- the documents ---- */

static char *cell_json(const struct cell *c)
{
	_clean_json_ struct json *j = json_object();

	json_add_string(j, "name", c->name);
	view_grant(&the_phid->platform, &c->grant, j);
	/* Threads are put on their CPUs; nothing keeps the host's other tasks off them yet. */
	json_add_string(j, "cpu_exclusive", c->backend->can & CELL_IS_PROCESS ? "advisory" : "hard");
	if (c->pid > 0)
		json_add_integer(j, "pid", c->pid);
	else
		json_add_null(j, "pid");
	json_add_string(j, "accel", c->accel[0] ? c->accel : NULL);
	json_add_string(j, "boot_id", the_phid->boot_id);
	if (c->claimed)
		json_add_bool(j, "claimed", true);
	return json_print(j);
}

static char *end_json(const struct cell_end *end)
{
	_clean_json_ struct json *j = json_object();

	json_add_integer(j, "code", end->code);
	if (end->signal != 0)
		json_add_integer(j, "signal", end->signal);
	else
		json_add_null(j, "signal");
	json_add_string(j, "reason", end->reason);
	json_add_string(j, "detail", end->detail[0] ? end->detail : NULL);
	return json_print(j);
}

void operation_read_end(const char *text, struct cell_end *ret)
{
	_clean_json_ struct json *j = NULL;
	int64_t code = 137, sig = 0;

	*ret = (struct cell_end){.code = 137, .reason = "lost"};
	if (json_parse(text, strlen(text), &j, NULL) < 0)
		return;
	json_integer(json_get(j, "code"), &code);
	json_integer(json_get(j, "signal"), &sig);
	ret->code = (int)code;
	ret->signal = (int)sig;
	if (json_get_string(j, "reason") != NULL)
		snprintf(ret->reason, sizeof(ret->reason), "%s", json_get_string(j, "reason"));
	if (json_get_string(j, "detail") != NULL)
		snprintf(ret->detail, sizeof(ret->detail), "%s", json_get_string(j, "detail"));
}

static char *error_json(const struct phi_error *e)
{
	_clean_json_ struct json *j = json_object();

	json_add_string(j, "code", phi_code_name(e->code));
	json_add_string(j, "detail", e->detail);
	if (e->pointer[0] != '\0')
		json_add_string(j, "pointer", e->pointer);
	return json_print(j);
}

/* ---- the transactions ---- */

static int key_outcome(struct store *s, const struct operation *op, int status, const struct container *c,
		       struct phi_error *e)
{
	_clean_free_ char *problem = NULL;
	int r;

	/* What only a restart undid is simply asked for again. */
	if (op->key == NULL || (op->resuming && op->failing))
		return 0;
	if (op->error.code != PHI_OK)
		problem = error_json(&op->error);
	r = store_key_insert(s, (uid_t)op->uid, op->key, op->request, c->incarnation, e);
	return r < 0 ? r : store_key_outcome(s, op->uid, op->key, status, problem, e);
}

static int event(struct store *s, const struct container *c, const char *type, const char *detail, struct phi_error *e)
{
	return store_event_insert(s, type, c->id, c->incarnation, detail, e);
}

static int apply_intent(struct store *s, void *ud, struct phi_error *e)
{
	struct operation *op = ud;
	_clean_container_ struct container c = {0};
	int r = store_container_by_row(s, STORE_WRITE, op->cell->row, &c, e);

	if (r < 0)
		return r;
	c.op = op->verb;
	c.op_uid = op->uid;
	free(c.op_key);
	c.op_key = phi_strdup(op->key);
	c.op_signal = op->signal;
	if (op->cell->ended) {
		free(c.exit);
		c.exit = end_json(&op->cell->end);
	}
	r = store_container_update(s, &c, e);
	if (r == 0 && op->key != NULL)
		r = store_key_insert(s, (uid_t)op->uid, op->key, op->request, c.incarnation, e);
	return r;
}

void operation_write_intent(struct operation *op, void (*intent_done)(void *ud, const struct phi_error *e))
{
	batch_intend(op->p->batch, apply_intent, intent_done, op);
}

/* The guest is gone: its units are free, the record tells how it ended. */
static int apply_stopped(struct store *s, struct operation *op, struct container *c, struct phi_error *e)
{
	_clean_free_ char *end = NULL;
	struct cell *cell = op->cell;
	int r = store_grant_release(s, c->row, e);

	if (!cell->ended && op->verb == VERB_KILL) {
		cell->end = (struct cell_end){.code = 128 + op->signal, .signal = op->signal};
		snprintf(cell->end.reason, sizeof(cell->end.reason), "%s", op->reason ? op->reason : "killed");
	}
	if (op->verb == VERB_KILL && op->reason == NULL && strcmp(cell->end.reason, "killed") == 0) {
		cell->end.signal = op->signal; /* what was asked for, not by what means it was done */
		cell->end.code = 128 + op->signal;
	}
	end = end_json(&cell->end);
	free(c->exit);
	c->exit = phi_strdup(end);
	free(PHI_TAKE(c->cell));
	c->state = STATE_STOPPED;
	store_now(c->stopped_at);
	if (r == 0)
		r = store_container_update(s, c, e);
	return r < 0 ? r : event(s, c, "container.stopped", end, e);
}

static int apply_gone(struct store *s, struct operation *op, struct container *c, struct phi_error *e)
{
	_clean_free_ char *why = op->failing ? error_json(&op->error) : NULL;
	int r = store_grant_release(s, c->row, e);

	if (r == 0)
		r = event(s, c, op->failing ? "container.create-failed" : "container.deleted", why, e);
	return r < 0 ? r : store_container_delete(s, c->row, e);
}

static int apply_done(struct store *s, struct operation *op, struct container *c, struct phi_error *e)
{
	static const struct {
		enum container_state state;
		const char *event;
	} to[VERB_MAX] = {
		[VERB_CREATE] = {STATE_CREATED, "container.created"},
		[VERB_START] = {STATE_RUNNING, "container.started"},
		[VERB_PAUSE] = {STATE_PAUSED, "container.paused"},
		[VERB_RESUME] = {STATE_RUNNING, "container.resumed"},
	};
	int r;

	c->state = to[op->verb].state;
	if (op->verb == VERB_START)
		store_now(c->started_at);
	free(c->cell);
	c->cell = cell_json(op->cell);
	c->keeper_pid = op->cell->keeper_pid;
	c->keeper_start = op->cell->keeper_start;
	snprintf(c->boot_id, sizeof(c->boot_id), "%s", op->p->boot_id);
	r = store_container_update(s, c, e);
	return r < 0 ? r : event(s, c, to[op->verb].event, NULL, e);
}

static int apply_failed(struct store *s, struct operation *op, struct container *c, bool quarantine,
			struct phi_error *e)
{
	_clean_free_ char *why = error_json(&op->error);
	int r = quarantine ? store_grant_quarantine(s, c->row, e) : 0;

	if (r == 0)
		r = store_container_update(s, c, e);
	return r < 0 ? r : event(s, c, quarantine ? "container.quarantined" : "container.failed", why, e);
}

static int apply(struct store *s, void *ud, struct phi_error *e)
{
	struct operation *op = ud;
	_clean_container_ struct container c = {0};
	int r, status = 200;

	r = store_container_by_row(s, STORE_WRITE, op->cell->row, &c, e);
	if (r == -ENOENT && operation_destroys(op)) { /* an operation that this one superseded removed it */
		op->status = 204;
		return 0;
	}
	if (r < 0)
		return r;
	c.op = VERB_MAX;
	free(PHI_TAKE(c.op_key));
	c.op_uid = 0;
	c.op_signal = 0;
	if (op->quarantine) {
		r = apply_failed(s, op, &c, true, e);
	} else if (op->verb == VERB_DELETE_FORCE || op->failing) {
		r = apply_gone(s, op, &c, e);
		status = 204;
	} else if (op->ask) {
		r = 0;
	} else if (op->verb == VERB_KILL || op->verb == VERB_END) {
		r = apply_stopped(s, op, &c, e);
	} else if (op->error.code != PHI_OK) {
		r = apply_failed(s, op, &c, false, e);
	} else {
		r = apply_done(s, op, &c, e);
		status = op->verb == VERB_CREATE ? 201 : 200;
	}
	op->status = op->error.code != PHI_OK ? 0 : status;
	return r < 0 ? r : key_outcome(s, op, op->error.code != PHI_OK ? phi_code_http(op->error.code) : status, &c, e);
}

/* ---- what follows ---- */

static void on_unwritten(void *ud)
{
	struct operation *op = ud;

	loop_source_clear(&op->again);
	operation_commit(op);
}

/* The database could not be written. What was done stays done and its callers are told; the record follows as soon as it can. Until then
 * the operation is the container's, so that one who asks again with its key hears the outcome. */
static void not_written(struct operation *op, const struct phi_error *e)
{
	struct cell *c = op->cell;
	struct waiter *w = PHI_TAKE(op->waiters);

	log_error(c->id, "%s", e->detail);
	op->step = OP_UNWRITTEN;
	op->again = loop_timer(op->p->loop, "unwritten", UNWRITTEN_MS, on_unwritten, op);
	waiter_reply(w, 0, e, NULL);
}

static void done(void *ud, const struct phi_error *e)
{
	struct operation *op = ud;
	struct phid *p = op->p;
	struct cell *c = op->cell;
	struct waiter *w;
	bool gone = operation_destroys(op) && !op->quarantine;
	struct phi_error error = op->error;
	int status = op->status;

	if (op->detached) { /* a forced delete took over; the cell's handle is its business */
		operation_free(op);
		return;
	}
	if (e != NULL) {
		not_written(op, e);
		return;
	}
	killpoint(op->failing ? "undo" : op->ask ? "ask" : lifecycle_verbs[op->verb], "committed");
	if (c->ended && op->verb != VERB_END && gone)
		log_info(c->id, "%s", op->failing ? "create was undone" : "stopped");
	if (op->resuming && op->failing) /* a creator that asked again meanwhile: once more, then */
		phi_error_set(&error, PHI_SHUTDOWN, 0, "", "phid was started anew before the cell was made; ask again");
	w = PHI_TAKE(op->waiters);
	if (gone) {
		bool record = op->verb == VERB_KILL || op->verb == VERB_END;
		int64_t row = c->row;

		if (op->resuming && op->failing)
			keeper_unclaim(c);
		keeper_release(c, record || c->ended ? KEEPER_COMMITTED : KEEPER_GONE, c->ended || record ? c->end.code : 137);
		operation_free(op);
		cell_free(p, c);
		if (!record)
			cell_dir_remove(p, row);
		c = NULL;
	} else {
		for (size_t i = 0; i < c->n_images; i++) { /* QEMU has them */
			phi_close(&c->images[i].fd);
			free(c->images[i].path);
		}
		c->n_images = 0;
		if (op->verb == VERB_CREATE && error.code == PHI_OK) {
			c->made = true;
			if (c->grant.n_links > 0)
				operation_links_changed(p);
		}
		operation_free(op);
	}
	waiter_reply(w, status, error.code != PHI_OK ? &error : NULL, NULL);
	phid_changed(p);
	if (c != NULL && c->ended && c->op == NULL)
		cell_ended(c, &c->end);
	else if (c != NULL)
		operation_watch(p, c);
}

void operation_commit(struct operation *op)
{
	loop_source_clear(&op->deadline);
	loop_source_clear(&op->again);
	op->quarantine = operation_destroys(op) && !op->seen_gone;
	op->step = OP_COMMIT;
	batch_submit(op->p->batch, apply, done, op);
}
