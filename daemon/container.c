/* The verbs on containers. See container.h; the table of what is possible when is api/lifecycle.c. */
#include "container.h"

#include "batch.h"
#include "clean.h"
#include "error.h"
#include "jobs.h"
#include "json.h"
#include "keepers.h"
#include "log.h"
#include "loop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

void call_free(struct call *c)
{
	bundle_done(&c->bundle);
	for (size_t i = 0; i < CELL_IMAGES_MAX; i++)
		free(c->taken[i].path);
	free(c->key);
	free(c->oci_id);
	free(c->oci_root);
	free(c->plan);
	free(c);
}

static void reply(struct call *c, int status, const struct phi_error *e)
{
	struct waiter *w = PHI_TAKE(c->waiter);

	waiter_reply(w, status, e, c->refusal.kind != NULL ? &c->refusal : NULL);
}

static void reply_and_free(struct call *c, int status, const struct phi_error *e)
{
	reply(c, status, e);
	call_free(c);
}

/* ---- idempotency ---- */

/* An outcome on record for the call's key: 1 with *ret_status or *e; 0 if there is none. */
static int replay(struct store *s, enum store_side side, struct call *c, int *ret_status, struct phi_error *e)
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

/* ---- create ---- */

static const struct backend *choose_backend(struct call *c, struct phi_error *e)
{
	const struct spec *s = &c->bundle.spec;
	const struct backend *b;

	if (s->backend != BACKEND_AUTO) {
		b = backend_find(c->p, spec_backend_words[s->backend]);
		if (b == NULL)
			phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/backend",
				      "backend \"%s\" is not enabled here (--backend)", spec_backend_words[s->backend]);
		return b != NULL && b->validate(s, &c->p->platform, e) == 0 ? b : NULL;
	}
	for (size_t i = 0; i < c->p->n_backends; i++) {
		b = c->p->backends[i];
		if ((b->can & IS_STAND_IN) && c->p->n_backends > 1)
			continue; /* nobody wants a stand-in who did not ask for it */
		if (b->validate(s, &c->p->platform, e) == 0)
			return b;
		if (e->code == PHI_INVALID)
			return NULL; /* the spec is wrong, whoever runs it */
	}
	return NULL;
}

static int fit(struct call *c, struct store *s, enum store_side side, const struct backend *b, struct alloc_grant *g,
	       struct phi_error *e)
{
	_clean_(alloc_view_free_p) struct alloc_view *v = alloc_view_new(&c->p->platform);
	int r = store_vector_read(s, side, v, e);

	return r < 0 ? r : alloc_fit(v, &c->bundle.spec, !(b->can & CAN_PLACE), g, &c->refusal, e);
}

/* The container is there already: the same again, or another? */
static int existing(struct call *c, const struct container *old, const char *spec, const char *payload,
		    struct phi_error *e)
{
	bool same = strcmp(old->spec, spec) == 0 && strcmp(old->payload, payload) == 0 &&
		    (c->incarnation[0] == '\0' || strcmp(old->incarnation, c->incarnation) == 0);

	if (old->state == STATE_CREATING && c->key != NULL && old->op_key != NULL && strcmp(old->op_key, c->key) == 0 &&
	    old->op_uid == (int64_t)c->peer.uid) {
		c->join_row = old->row;
		return 0;
	}
	if (old->state == STATE_CREATING)
		return phi_error_set(e, PHI_BUSY, EBUSY, "/id", "container %s is being created by another request", c->id);
	if (c->refuse_existing || !same)
		return phi_error_set(e, PHI_EXISTS, EEXIST, "/id",
				     "container %s exists already%s", c->id, same ? "" : " and is another");
	c->status = 200;
	return 0;
}

static int insert(struct call *c, struct store *s, const struct backend *b, const char *spec, const char *payload,
		  struct phi_error *e)
{
	_clean_free_ char *annotations = c->bundle.annotations ? strdup(c->bundle.annotations) : strdup("{}");
	struct container row = {
		.state = STATE_CREATING,
		.op = VERB_CREATE,
		.op_uid = c->peer.uid,
		.op_key = c->key,
		.spec = (char *)(uintptr_t)spec,
		.payload = (char *)(uintptr_t)payload,
		.bundle = c->bundle.path,
		.oci_id = c->oci_id,
		.oci_root = c->oci_root,
		.annotations = annotations,
		.owner_uid = c->peer.uid,
		.owner_gid = c->peer.gid,
		.keeper_by_phid = !c->external_keeper,
	};
	struct alloc_grant g;
	int r = fit(c, s, STORE_WRITE, b, &g, e);

	if (r < 0)
		return r;
	if (store_containers_count(s, STORE_WRITE) >= PHI_CONTAINERS_MAX)
		return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, "", "there are %d containers; delete some", PHI_CONTAINERS_MAX);
	snprintf(row.id, sizeof(row.id), "%s", c->id);
	snprintf(row.incarnation, sizeof(row.incarnation), "%s", c->incarnation);
	snprintf(row.backend, sizeof(row.backend), "%s", b->name);
	snprintf(row.boot_id, sizeof(row.boot_id), "%s", c->p->boot_id);
	r = store_container_insert(s, &row, e);
	if (r == 0)
		r = store_grant_insert(s, row.row, &g, e);
	if (r == 0)
		r = store_event_insert(s, "container.creating", c->id, c->incarnation, NULL, e);
	if (r == 0 && c->key != NULL)
		r = store_key_insert(s, c->peer.uid, c->key, c->request, c->incarnation, e);
	c->row = row.row;
	return r;
}

/* The one that was asked for, or a fresh one. */
static int take_incarnation(struct call *c, struct store *s, struct phi_error *e)
{
	_clean_container_ struct container other = {0};

	if (c->incarnation[0] == '\0')
		host_uuid(c->incarnation);
	else if (store_container_by_incarnation(s, STORE_WRITE, c->incarnation, &other, NULL) == 0)
		return phi_error_set(e, PHI_EXISTS, EEXIST, "/incarnation", "container %s has this incarnation", other.id);
	return 0;
}

static int reserve(struct store *s, void *ud, struct phi_error *e)
{
	struct call *c = ud;
	_clean_json_ struct json *spec_json = spec_to_json(&c->bundle.spec);
	_clean_free_ char *spec = json_print(spec_json), *payload = bundle_payload_json(&c->bundle);
	_clean_container_ struct container old = {0};
	const struct backend *b;
	int r = replay(s, STORE_WRITE, c, &c->status, e);

	if (r != 0)
		return r < 0 ? r : 0;
	r = store_container_by_id(s, STORE_WRITE, c->id, &old, e);
	if (r == 0 && !(claim_possible(c->p, &old) && strcmp(old.spec, spec) == 0 && strcmp(old.payload, payload) == 0 &&
			strcmp(old.incarnation, c->incarnation) != 0 && old.owner_uid == c->peer.uid && !c->refuse_existing))
		return existing(c, &old, spec, payload, e);
	if (r == -ENOENT)
		r = claim_find(c, s, spec, payload, &old, e);
	if (r < 0 && r != -ENOENT)
		return r;
	e->code = PHI_OK;
	if (take_incarnation(c, s, e) < 0)
		return -EEXIST;
	if (r == 0)
		return claim(c, s, &old, e);
	b = choose_backend(c, e);
	return b == NULL ? -EINVAL : insert(c, s, b, spec, payload, e);
}

/* No cell was begun: the record goes again, with what was granted. */
static int take_back(struct store *s, void *ud, struct phi_error *e)
{
	const struct call *c = ud;
	int r = store_grant_release(s, c->row, e);

	if (r == 0)
		r = store_event_insert(s, "container.create-failed", c->id, c->incarnation, NULL, e);
	return r < 0 ? r : store_container_delete(s, c->row, e);
}

static void taken_back(void *ud, const struct phi_error *e)
{
	struct call *c = ud;

	if (e != NULL)
		log_error(c->id, "%s; it stays \"creating\" until the next start of phid", e->detail);
	phid_changed(c->p);
	reply_and_free(c, 0, &c->bundle.error);
}

/* The record and the grants are durable: now the cell. */
static void begin_create(struct call *c)
{
	_clean_container_ struct container row = {0};
	struct phi_error *e = &c->bundle.error;
	struct operation *op;
	struct cell *cell = NULL;

	killpoint("create", "reserved");
	if (store_container_by_row(c->p->store, STORE_READ, c->row, &row, e) < 0 || (cell = cell_new(c->p, &row, e)) == NULL ||
	    store_grant_read(c->p->store, STORE_READ, c->row, &cell->grant, e) < 0) {
		log_error(c->id, "%s", e->detail);
		if (cell != NULL)
			cell_free(c->p, cell);
		batch_submit(c->p->batch, take_back, taken_back, c);
		return;
	}
	memcpy(cell->images, c->bundle.images, sizeof(cell->images));
	cell->n_images = c->bundle.n_images;
	c->bundle.n_images = 0;
	op = operation_new(c->p, cell, VERB_CREATE, PHI_TAKE(c->waiter));
	op->uid = c->peer.uid;
	op->key = PHI_TAKE(c->key);
	memcpy(op->request, c->request, sizeof(op->request));
	call_free(c);
	operation_go(op);
}

static void reserved(void *ud, const struct phi_error *e)
{
	struct call *c = ud;

	if (e == NULL && c->join_row != 0) {
		struct cell *cell = cell_of_row(c->p, c->join_row);

		if (cell != NULL && cell->op != NULL) {
			operation_join(cell->op, PHI_TAKE(c->waiter));
			call_free(c);
			return;
		}
		c->status = 200; /* it ended in this very turn */
	}
	if (e == NULL && c->claimed) {
		claim_done(c);
		phid_changed(c->p);
	} else if (c->claimed) {
		claim_failed(c);
	}
	if (e != NULL || c->status != 0) {
		reply_and_free(c, c->status, e);
		return;
	}
	phid_changed(c->p);
	begin_create(c);
}

static void plan(struct call *c, void (*on_plan)(void *ud, const char *plan))
{
	_clean_json_ struct json *j = json_object();
	_clean_free_ char *payload = bundle_payload_json(&c->bundle), *text = NULL;
	struct json *list;
	struct alloc_grant g;
	struct phi_error e = {0};
	const struct backend *b = choose_backend(c, &e);

	if (b == NULL || fit(c, c->p->store, STORE_READ, b, &g, &e) < 0) {
		reply_and_free(c, 0, &e);
		return;
	}
	json_add_string(j, "backend", b->name);
	json_add(j, "spec", spec_to_json(&c->bundle.spec));
	list = json_add_array(j, "cpus");
	for (int i = cpuset_next(&g.cpus, 0); i >= 0; i = cpuset_next(&g.cpus, (unsigned)i + 1))
		json_add_integer(list, NULL, i);
	list = json_add_array(j, "memory");
	for (size_t i = 0; i < g.n_memory; i++) {
		struct json *o = json_object();

		json_add_string(o, "pool", g.memory[i].pool);
		if (g.memory[i].has_base)
			json_add_hex(o, "base", g.memory[i].base);
		json_add_integer(o, "size", (int64_t)g.memory[i].size);
		json_add(list, NULL, o);
	}
	json_add_raw(j, "payload", payload);
	text = json_print(j);
	on_plan(c->waiter->ud, text);
	free(PHI_TAKE(c->waiter));
	call_free(c);
}

struct load {
	struct call *c;
	void (*on_plan)(void *ud, const char *plan);
};

static void load_run(void *ud)
{
	bundle_load(&((struct load *)ud)->c->bundle);
}

static void load_done(void *ud)
{
	struct load *l = ud;
	struct call *c = l->c;
	void (*on_plan)(void *ud, const char *plan) = l->on_plan;

	free(l);
	if (c->bundle.error.code != PHI_OK)
		reply_and_free(c, 0, &c->bundle.error);
	else if (c->dry_run)
		plan(c, on_plan);
	else
		batch_submit(c->p->batch, reserve, reserved, c);
}

void call_create(struct call *c, void (*on_plan)(void *ud, const char *plan))
{
	struct load *l = calloc(1, sizeof(*l));

	if (l == NULL)
		abort();
	l->c = c;
	l->on_plan = on_plan;
	c->bundle.peer = c->peer.pid;
	jobs_submit(c->p->jobs, load_run, load_done, l);
}

/* ---- the other verbs ---- */

/* The container that is meant, in the right incarnation. */
static int find(struct call *c, struct store *s, enum store_side side, struct container *row, struct phi_error *e)
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
	int r = replay(s, STORE_WRITE, c, &c->status, e);

	if (r != 0)
		return r < 0 ? r : 0;
	r = find(c, s, STORE_WRITE, &row, e);
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
	if (r == 0)
		r = lifecycle_check(row.state, c->verb, c->id, e);
	if (r != 0)
		return r < 0 ? r : 0;
	row.op = c->verb;
	row.op_uid = c->peer.uid;
	free(row.op_key);
	row.op_key = c->key ? strdup(c->key) : NULL;
	r = store_container_update(s, &row, e);
	if (r == 0 && c->key != NULL)
		r = store_key_insert(s, c->peer.uid, c->key, c->request, row.incarnation, e);
	return r;
}

static void withdraw_done(void *ud, const struct phi_error *e)
{
	(void)e;
	free(ud);
}

static int withdraw(struct store *s, void *ud, struct phi_error *e)
{
	_clean_container_ struct container row = {0};
	int r = store_container_by_row(s, STORE_WRITE, *(int64_t *)ud, &row, e);

	if (r < 0)
		return r;
	row.op = VERB_MAX;
	row.op_uid = 0;
	free(PHI_TAKE(row.op_key));
	return store_container_update(s, &row, e);
}

static void intended(void *ud, const struct phi_error *e)
{
	struct call *c = ud;
	struct cell *cell = cell_of_row(c->p, c->row);
	struct operation *op;
	struct phi_error error;

	if (e == NULL && c->claimed && cell != NULL)
		cell->claimed = false;
	if (e != NULL || c->status != 0) {
		reply_and_free(c, c->status, e);
		return;
	}
	if (c->join_row != 0 && cell != NULL && cell->op != NULL) {
		operation_join(cell->op, PHI_TAKE(c->waiter));
		call_free(c);
		return;
	}
	killpoint(lifecycle_verbs[c->verb], "reserved");
	if (cell == NULL || cell->op != NULL) { /* the guest ended, or a kill came, while the intent was written */
		int64_t *row = malloc(sizeof(*row));

		if (row == NULL)
			abort();
		*row = c->row;
		batch_submit(c->p->batch, withdraw, withdraw_done, row);
		if (cell == NULL)
			lifecycle_check(STATE_STOPPED, c->verb, c->id, &error);
		else
			busy(c, lifecycle_verbs[cell->op->verb], &error);
		reply_and_free(c, 0, &error);
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
	int r = replay(s, STORE_WRITE, c, &c->status, e);

	if (r != 0)
		return r < 0 ? r : 0;
	r = find(c, s, STORE_WRITE, &row, e);
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

	if (e == NULL && c->status == 0) {
		killpoint("delete", "committed");
		cell_dir_remove(c->p, c->row);
		phid_changed(c->p);
		c->status = 204;
	}
	reply_and_free(c, c->status, e);
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

/* kill, and delete by force: they act first and commit what they saw, so that stopping needs no writable disk. */
static void destroy(struct call *c, const struct container *row)
{
	struct cell *cell = cell_of_row(c->p, row->row);
	bool ask = c->verb == VERB_KILL && c->signal != SIGKILL && row->state != STATE_CREATED;
	struct operation *op;
	struct phi_error e;

	if (cell == NULL) {
		if (row->state == STATE_CREATING && backend_find(c->p, row->backend) != NULL)
			busy(c, "create", &e); /* reserved in this very turn of the loop */
		else
			phi_error_set(&e, PHI_UNSUPPORTED, 0, "/backend",
				      "container %s runs on backend \"%s\", which is not enabled: phid cannot see its cell gone", c->id,
				      row->backend);
		reply_and_free(c, 0, &e);
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
	} else if (op != NULL) {
		busy(c, lifecycle_verbs[op->verb], &e);
		reply_and_free(c, 0, &e);
		return;
	}
	if (ask && !(cell->backend->can & CAN_POWERDOWN)) {
		phi_error_set(&e, PHI_UNSUPPORTED, 0, "/signal", "the %s backend cannot ask a guest to end; SIGKILL is possible",
			      cell->backend->name);
		reply_and_free(c, 0, &e);
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
		batch_submit(c->p->batch, intend, intended, c);
		return;
	}
	r = replay(c->p->store, STORE_READ, c, &status, &e);
	if (r != 0) {
		reply_and_free(c, status, r < 0 ? &e : NULL);
		return;
	}
	r = find(c, c->p->store, STORE_READ, &row, &e);
	if (r == 0)
		r = lifecycle_check(row.state, c->verb, c->id, &e);
	if (r < 0) {
		reply_and_free(c, status, &e);
		return;
	}
	if (c->verb == VERB_DELETE || (c->verb == VERB_DELETE_FORCE && row.state == STATE_STOPPED))
		batch_submit(c->p->batch, remove_record, removed, c);
	else
		destroy(c, &row);
}
