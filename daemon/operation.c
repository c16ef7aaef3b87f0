/* The steps of an operation. One function a step; the transactions are in commit.c. */
#include "operation.h"

#include "clean.h"
#include "error.h"
#include "json.h"
#include "keepers.h"
#include "log.h"
#include "loop.h"

#include <errno.h>
#include <string.h>

#define AGAIN_MS 10 /* between two looks at a cell that is to go */
#define LOOKS_MAX 50 /* before the hypervisor is asked once more to destroy it */

bool operation_destroys(const struct operation *op)
{
	return op->failing || (op->verb == VERB_KILL && !op->ask) || op->verb == VERB_END || op->verb == VERB_DELETE_FORCE;
}

static const char *word(const struct operation *op)
{
	return op->failing ? "undo" : op->ask ? "ask" : lifecycle_verbs[op->verb];
}

/* ---- making, joining, ending ---- */

struct operation *operation_new(struct phid *p, struct cell *c, enum container_verb verb, struct waiter *waiter)
{
	struct operation *op;

	if (c->op != NULL && c->op->step == OP_UNWRITTEN)
		operation_supersede(c->op); /* what comes now is written in its place */
	if (c->op != NULL)
		return NULL;
	op = calloc(1, sizeof(*op));
	if (op == NULL)
		abort();
	op->p = p;
	op->cell = c;
	op->verb = verb;
	op->waiters = waiter;
	c->op = op;
	return op;
}

void operation_join(struct operation *op, struct waiter *w)
{
	w->next = op->waiters;
	op->waiters = w;
}

void waiter_reply(struct waiter *w, int status, const struct phi_error *e, const struct alloc_refusal *r)
{
	while (w != NULL) {
		struct waiter *next = w->next;

		w->reply(w->ud, status, e, r);
		free(w);
		w = next;
	}
}

void operation_free(struct operation *op)
{
	if (!op->detached && op->cell->op == op)
		op->cell->op = NULL;
	operation_make_forget(op);
	loop_source_free(op->deadline);
	loop_source_free(op->again);
	loop_source_free(op->patience);
	free(op->key);
	free(op);
}

void operation_supersede(struct operation *op)
{
	struct waiter *w = PHI_TAKE(op->waiters);
	struct phi_error e;

	phi_error_set(&e, PHI_STATE, ECANCELED, "", "something else was asked for in between");
	op->cell->op = NULL;
	op->detached = true;
	loop_source_clear(&op->deadline);
	loop_source_clear(&op->again);
	loop_source_clear(&op->patience);
	/* A transaction that is on its way still names it, and frees it when it is done. */
	if (op->step != OP_COMMIT && !op->intent_open)
		operation_free(op);
	waiter_reply(w, 0, &e, NULL);
}

/* ---- deadlines ---- */

static void on_deadline(void *ud)
{
	struct operation *op = ud;
	struct phi_error e;

	loop_source_clear(&op->deadline);
	phi_error_set(&e, PHI_DEADLINE, ETIMEDOUT, "", "%s of container %s: %s", word(op), op->cell->id,
		      op->step == OP_LINKS ? "another cell at its link was not made in time"
		      : op->step == OP_KEEPER || (op->step == OP_MAKE && op->missing == PART_KEEPER) ? "its keeper did not come in time"
		      : op->seen[0] != '\0' ? op->seen
					    : "the hypervisor did not answer in time");
	log_warn(op->cell->id, "%s", e.detail);
	operation_fail(op, &e);
}

static void arm(struct operation *op)
{
	loop_source_clear(&op->deadline);
	op->deadline = loop_timer(op->p->loop, "deadline", (uint64_t)op->p->config.action_timeout_ms, on_deadline, op);
}

/* ---- the intent of a destroy ---- */

static void intended(struct operation *op)
{
	loop_source_clear(&op->patience);
	arm(op);
	operation_act(op);
}

static void on_patience(void *ud)
{
	struct operation *op = ud;

	log_warn(op->cell->id, "the disk is slow: %s goes on without a record of the intent", word(op));
	intended(op);
}

static void intent_done(void *ud, const struct phi_error *e)
{
	struct operation *op = ud;

	op->intent_open = false;
	if (op->detached) {
		if (op->step != OP_COMMIT) /* the outcome was asked for as well: it comes behind this, and frees it */
			operation_free(op);
		return;
	}
	if (op->step != OP_INTENT)
		return; /* it went on */
	if (e != NULL)
		log_warn(op->cell->id, "%s goes on without a record of the intent: %s", word(op), e->detail);
	else
		killpoint(word(op), "reserved");
	intended(op);
}

/* Stopping never depends on a writable disk: the intent is written first, but not waited for beyond a second. */
static void intend(struct operation *op)
{
	op->step = OP_INTENT;
	op->intent_open = true;
	op->patience = loop_timer(op->p->loop, "patience", 1000, on_patience, op);
	operation_write_intent(op, intent_done);
}

/* ---- the steps ---- */

void operation_go(struct operation *op)
{
	struct cell *c = op->cell;

	if (operation_destroys(op) && !op->failing && !op->resuming) {
		intend(op);
		return;
	}
	arm(op);
	if (operation_destroys(op)) {
		operation_act(op);
		return;
	}
	if (op->resuming && op->verb == VERB_CREATE && !op->looked && !(c->backend->can & CELL_IS_PROCESS)) {
		operation_observe(op); /* where there is no cell, no keeper may ever come */
		return;
	}
	if (op->verb == VERB_CREATE && !op->resuming) {
		operation_make(op);
		return;
	}
	if (c->keeper == NULL && (op->verb == VERB_CREATE || (c->backend->can & CELL_IS_PROCESS)) && !keeper_claim(op->p, c)) {
		op->step = OP_KEEPER;
		if (op->verb == VERB_CREATE && op->p->config.action_timeout_ms > KEEPER_ANSWER_MS)
			loop_rearm(op->deadline, KEEPER_ANSWER_MS); /* by then it has connected again, if there ever was one */
		return;
	}
	if (op->resuming && op->verb != VERB_CREATE)
		operation_observe(op);
	else
		operation_act(op);
}

void operation_keeper_came(struct phid *p, struct cell *c)
{
	(void)p;
	loop_source_clear(&c->watch);
	if (c->op != NULL && c->op->step == OP_KEEPER)
		operation_go(c->op);
	else if (c->op != NULL && c->op->step == OP_MAKE)
		operation_part(c->op, PART_KEEPER, NULL);
}

void operation_act(struct operation *op)
{
	struct cell *c = op->cell;
	const struct backend *b = c->backend;
	uint64_t token = op->token = ++op->p->next_token;
	void (*f)(struct cell *, uint64_t) = NULL;
	const char *verb = word(op);

	op->step = OP_ACT;
	if (operation_destroys(op))
		f = b->destroy;
	else if (op->verb == VERB_CREATE)
		f = op->resuming ? b->attach : b->create;
	else if (op->verb == VERB_START)
		f = b->start;
	else if (op->verb == VERB_PAUSE)
		f = b->pause;
	else if (op->verb == VERB_RESUME)
		f = b->resume;
	else
		f = b->powerdown;
	if (fault("release-before-observe") && op->verb == VERB_KILL && !op->ask) { /* the checker must find this */
		op->seen_gone = true;
		operation_commit(op);
		return;
	}
	f(c, token); /* it may end at once, and the operation with it */
	killpoint(verb, "acting");
}

void cell_acted(struct cell *c, uint64_t token, const struct phi_error *e)
{
	struct operation *op = c->op;

	if (op == NULL || op->token != token || (op->step != OP_ACT && op->step != OP_MAKE))
		return; /* an answer that nobody waits for any more */
	killpoint(word(op), "acted");
	if (op->step == OP_MAKE)
		operation_part(op, PART_CELL, e);
	else if (e != NULL && !operation_destroys(op))
		operation_fail(op, e);
	else if (op->ask)
		operation_commit(op); /* there is nothing to see: the guest may take its time, or not care */
	else
		operation_observe(op); /* of a destroy that says it failed, too: only what is there counts */
}

void operation_observe(struct operation *op)
{
	op->step = OP_OBSERVE;
	op->token = ++op->p->next_token;
	op->cell->backend->observe(op->cell, op->token);
}

static void on_again(void *ud)
{
	struct operation *op = ud;

	loop_source_clear(&op->again);
	operation_observe(op);
}

static void look_again(struct operation *op, uint64_t ms)
{
	loop_source_clear(&op->again);
	op->again = loop_timer(op->p->loop, "observe", ms, on_again, op);
}

/* A cell that is to go. */
static void observed_going(struct operation *op, const struct observation *o, const struct phi_error *e)
{
	if (e != NULL || o->presence != CELL_ABSENT) {
		snprintf(op->seen, sizeof(op->seen), "%s", e != NULL ? e->detail : "the hypervisor still shows the cell");
		if (++op->looks % LOOKS_MAX == 0)
			operation_act(op);
		else
			look_again(op, e != NULL ? 5 * AGAIN_MS : AGAIN_MS);
		return;
	}
	killpoint(word(op), "observed");
	op->seen_gone = true;
	operation_commit(op);
}

/* The end's words where neither keeper nor hypervisor gave any. */
static void say_end(struct cell *c, const char *reason, int code)
{
	if (c->ended)
		return;
	c->ended = true;
	c->end = (struct cell_end){.code = code};
	snprintf(c->end.reason, sizeof(c->end.reason), "%s", reason);
}

static bool reached(const struct operation *op, const struct observation *o)
{
	switch (op->verb) {
	case VERB_CREATE:
		return o->presence == CELL_CREATED;
	case VERB_START: /* a guest may end before anybody looks: it was started all the same */
		return o->presence != CELL_CREATED && (o->presence != CELL_ABSENT || op->cell->ended || !op->resuming);
	case VERB_PAUSE:
		return o->presence == CELL_PAUSED;
	case VERB_RESUME:
		return o->presence == CELL_RUNNING;
	default:
		return false;
	}
}

void cell_observed(struct cell *c, uint64_t token, const struct observation *o, const struct phi_error *e)
{
	struct operation *op = c->op;
	struct phi_error wrong;

	if (op == NULL || op->token != token || op->step != OP_OBSERVE)
		return;
	if (op->resuming && op->verb == VERB_END) { /* a look after a start of phid: is it still there? */
		if (e != NULL) {
			look_again(op, 200);
			return;
		}
		op->resuming = false;
		if (o->presence == CELL_ABSENT || o->presence == CELL_ENDED) {
			if (o->presence == CELL_ENDED && !c->ended) {
				c->ended = true;
				c->end = o->end;
			}
			say_end(c, "lost", 137);
			operation_act(op);
		} else {
			operation_free(op);
			operation_watch(the_phid, c);
		}
		return;
	}
	if (operation_destroys(op)) {
		observed_going(op, o, e);
		return;
	}
	if (op->resuming && op->verb == VERB_CREATE && !op->looked && !(c->backend->can & CELL_IS_PROCESS)) {
		op->looked = e == NULL;
		if (e != NULL) {
			look_again(op, 200);
		} else if (o->presence == CELL_ABSENT) {
			phi_error_set(&wrong, PHI_INTERNAL, 0, "", "phid was started anew before the cell was made");
			operation_fail(op, &wrong);
		} else {
			operation_go(op);
		}
		return;
	}
	if (e != NULL) {
		operation_fail(op, e);
		return;
	}
	if (o->presence == CELL_ENDED && !c->ended) {
		c->ended = true;
		c->end = o->end;
	}
	if (reached(op, o)) {
		killpoint(word(op), "observed");
		operation_commit(op);
	} else if (op->resuming && op->verb != VERB_CREATE && o->presence != CELL_ABSENT) {
		op->resuming = false; /* the step is run once more */
		operation_act(op);
	} else {
		static const char *const shown[] = {"absent", "created", "running", "paused", "ended"};

		phi_error_set(&wrong, PHI_BACKEND, EIO, "",
			      "after %s the hypervisor shows the cell as %s%s%s", word(op), shown[o->presence],
			      c->ended && c->end.detail[0] ? ": " : "", c->ended ? c->end.detail : "");
		operation_fail(op, &wrong);
	}
}

/* Fails the operation: a create is undone, the others leave the container as it is, a destroy that did not come
 * about quarantines its units. */
void operation_fail(struct operation *op, const struct phi_error *e)
{
	struct phi_error error = *e;

	loop_source_clear(&op->deadline);
	loop_source_clear(&op->again);
	if (op->error.code == PHI_OK)
		op->error = error;
	op->token = ++op->p->next_token;
	if (op->verb == VERB_CREATE && !op->failing) {
		op->failing = true;
		arm(op);
		operation_act(op);
		return;
	}
	operation_commit(op);
}

/* ---- what happens by itself ---- */

void cell_ended(struct cell *c, const struct cell_end *end)
{
	struct phid *p = the_phid;
	struct operation *op = c->op;
	struct phi_error e;

	if (!c->ended) {
		c->ended = true;
		c->end = *end;
	}
	if (op == NULL) {
		op = operation_new(p, c, VERB_END, NULL);
		operation_go(op);
		return;
	}
	if (op->step != OP_ACT && op->step != OP_OBSERVE) /* also OP_INTENT */
		return; /* looked at when the step is done */
	if (op->ask) { /* that quick */
		operation_commit(op);
		return;
	}
	if (operation_destroys(op) || op->verb == VERB_START) {
		loop_source_clear(&op->again);
		operation_observe(op);
		return;
	}
	phi_error_set(&e, PHI_BACKEND, EIO, "", "the guest ended during %s: %s%s%s", word(op), c->end.reason,
		      c->end.detail[0] ? ": " : "", c->end.detail);
	operation_fail(op, &e);
}

static void on_watch(void *ud)
{
	struct cell *c = ud;
	struct phid *p = the_phid;

	loop_source_clear(&c->watch);
	if (c->keeper != NULL)
		return;
	if (cell_lock_held(c)) {
		operation_watch(p, c); /* it is there and will connect */
		return;
	}
	if (c->backend->can & CELL_IS_PROCESS) {
		_clean_free_ char *text = cell_exit_text(p, c->row);
		struct cell_end end = {.code = 137, .reason = "keeper-lost"};
		int wstatus = 0, code = 137, killed = 0;

		if (text != NULL && sscanf(text, "phid-exit 1\nwstatus %d\ncode %d\nkilled %d", &wstatus, &code, &killed) == 3)
			c->backend->explain(c, wstatus, killed != 0, code, text, &end);
		cell_ended(c, &end);
		return;
	}
	if (c->spec.keeper_lost == KEEPER_LOST_STOP && c->op == NULL) {
		struct operation *op = operation_new(p, c, VERB_KILL, NULL);

		op->signal = 9;
		op->reason = "keeper-lost";
		operation_go(op);
	} else if (c->op != NULL) {
		operation_watch(p, c);
	} else {
		log_warn(c->id, "its keeper is lost; the cell goes on, as its spec says");
	}
}

void operation_watch(struct phid *p, struct cell *c)
{
	if (c->watch == NULL && c->keeper == NULL)
		c->watch = loop_timer(p->loop, "watch", 50, on_watch, c);
}

void operation_keeper_left(struct cell *c)
{
	struct operation *op = c->op;
	struct phi_error e;

	if (op != NULL && op->verb == VERB_CREATE && !op->failing && (op->step == OP_ACT || op->step == OP_MAKE)) {
		phi_error_set(&e, PHI_BACKEND, ECONNRESET, "", "the keeper ended while the cell was made");
		if (op->step == OP_MAKE)
			operation_part(op, PART_KEEPER, &e);
		else
			operation_fail(op, &e);
		return;
	}
	operation_watch(the_phid, c);
}

void operation_undo(struct phid *p, struct cell *c)
{
	struct operation *op;

	if (c->op != NULL && operation_destroys(c->op))
		return;
	if (c->claimed) { /* it is kept on, for the next one */
		c->promised_until = 0;
		keeper_release(c, KEEPER_GONE, 137);
		return;
	}
	log_info(c->id, "its creator went away before it was told; it is undone");
	if (c->op != NULL)
		operation_supersede(c->op);
	op = operation_new(p, c, VERB_DELETE_FORCE, NULL);
	operation_go(op);
}

/* ---- after a start ---- */

void operation_resume(struct phid *p, struct cell *c, const struct container *row)
{
	bool process = c->backend->can & CELL_IS_PROCESS;
	/* A create that a forced delete superseded says so. */
	enum container_verb verb = row->op < VERB_MAX ? row->op : row->state == STATE_CREATING ? VERB_CREATE : VERB_END;
	struct operation *op;

	if (verb == VERB_KILL || verb == VERB_DELETE_FORCE || (verb == VERB_END && row->op == VERB_END)) {
		op = operation_new(p, c, verb, NULL);
		op->uid = row->op_uid;
		op->key = phi_strdup(row->op_key);
		op->signal = row->op_signal;
		if (row->exit != NULL) {
			c->ended = true;
			operation_read_end(row->exit, &c->end);
		}
		arm(op);
		operation_act(op);
		return;
	}
	if (process && !cell_lock_held(c)) {
		if (verb == VERB_CREATE) {
			op = operation_new(p, c, VERB_CREATE, NULL);
			op->uid = row->op_uid;
			op->failing = op->resuming = true;
			phi_error_set(&op->error, PHI_INTERNAL, 0, "", "phid was started anew before the cell was made");
			operation_go(op);
		} else {
			on_watch(c); /* reads the exit file */
		}
		return;
	}
	if (process && verb == VERB_END) { /* running on, as it should */
		operation_watch(p, c);
		return;
	}
	op = operation_new(p, c, verb, NULL);
	op->resuming = true;
	op->uid = row->op_uid;
	op->key = phi_strdup(row->op_key);
	if (verb == VERB_END) {
		arm(op);
		operation_observe(op);
	} else {
		operation_go(op);
	}
}
