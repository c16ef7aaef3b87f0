/* The create of a container, or the plan of one: its bundle is read, the record reserved with its units in one transaction, and the
 * cell begun. A name that is taken is answered here, too; a kept cell is claimed (claim.c). */
#include "container.h"

#include "batch.h"
#include "clean.h"
#include "error.h"
#include "jobs.h"
#include "hostfiles.h"
#include "json.h"
#include "log.h"
#include "view.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

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

#define OFFLINE "host:offline"

/* CPUs that are offline now are nobody's for a guest that is a process: the kernel would run it elsewhere. A hypervisor's cells have
 * such CPUs. */
static void set_offline(struct alloc_view *v, const char *root, bool offline)
{
	struct cpuset online;

	if (offline && !host_cpus(root, &online, "/sys/devices/system/cpu/online"))
		return;
	for (unsigned i = 0; i < v->n_cpus; i++) {
		char *owner = v->cpus[i].owner;

		if (offline && owner[0] == '\0' && !cpuset_has(&online, i))
			strcpy(owner, OFFLINE);
		else if (!offline && strcmp(owner, OFFLINE) == 0)
			owner[0] = '\0';
	}
}

/* Pools without addresses may promise more memory than Linux has, since the host was changed or from the beginning. */
static int check_memory(struct call *c, const struct alloc_view *v, const struct alloc_grant *g, struct phi_error *e)
{
	uint64_t have = host_memory(c->p->config.host_root), granted = 0, wanted = 0;

	for (size_t i = 0; i < v->n_ranges; i++)
		granted += v->ranges[i].has_base ? 0 : v->ranges[i].size;
	for (size_t i = 0; i < g->n_memory; i++)
		wanted += g->memory[i].has_base ? 0 : g->memory[i].size;
	if (have == 0 || granted + wanted <= have)
		return 0;
	c->refusal = (struct alloc_refusal){.kind = "memory", .wanted = wanted, .available = granted < have ? have - granted : 0};
	for (size_t i = 0; i < v->n_ranges; i++)
		if (!v->ranges[i].has_base)
			alloc_blocked(&c->refusal, v->ranges[i].owner, "memory %" PRIu64 " bytes", v->ranges[i].size);
	return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, "/spec/memory",
			     "%" PRIu64 " bytes are wanted; the pools have them, but Linux has %" PRIu64 " bytes, and guests have %" PRIu64, wanted, have, granted);
}

/* v is as before after it. */
static int fit(struct call *c, struct alloc_view *v, const struct backend *b, struct alloc_grant *g, struct phi_error *e)
{
	bool is_process = b->can & CELL_IS_PROCESS;
	int r;

	if (is_process)
		set_offline(v, c->p->config.host_root, true);
	r = alloc_fit(v, &c->bundle.spec, !(b->can & CAN_PLACE), g, &c->refusal, e);
	if (is_process)
		set_offline(v, c->p->config.host_root, false);
	return r == 0 && is_process ? check_memory(c, v, g, e) : r;
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
	struct container *row = &c->record;
	struct alloc_view *v;
	int r = store_vector(s, &c->p->platform, &v, e);

	if (r == 0)
		r = fit(c, v, b, &c->grant, e);
	if (r < 0)
		return r;
	if (store_containers_count(s, STORE_WRITE) >= PHI_CONTAINERS_MAX)
		return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, "", "there are %d containers; delete some", PHI_CONTAINERS_MAX);
	*row = (struct container){
		.state = STATE_CREATING,
		.op = VERB_CREATE,
		.op_uid = c->peer.uid,
		.op_key = phi_strdup(c->key),
		.spec = phi_strdup(spec),
		.payload = phi_strdup(payload),
		.bundle = phi_strdup(c->bundle.path),
		.oci_id = phi_strdup(c->oci_id),
		.oci_root = phi_strdup(c->oci_root),
		.annotations = phi_strdup(c->bundle.annotations ? c->bundle.annotations : "{}"),
		.owner_uid = c->peer.uid,
		.owner_gid = c->peer.gid,
		.keeper_by_phid = !c->external_keeper,
	};
	snprintf(row->id, sizeof(row->id), "%s", c->id);
	snprintf(row->incarnation, sizeof(row->incarnation), "%s", c->incarnation);
	snprintf(row->backend, sizeof(row->backend), "%s", b->name);
	snprintf(row->boot_id, sizeof(row->boot_id), "%s", c->p->boot_id);
	r = store_container_insert(s, row, e);
	if (r == 0)
		r = store_grant_insert(s, row->row, &c->grant, e);
	if (r == 0)
		r = store_event_insert(s, "container.creating", c->id, c->incarnation, NULL, e);
	if (r == 0 && c->key != NULL)
		r = store_key_insert(s, c->peer.uid, c->key, c->request, c->incarnation, e);
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
	int r = call_replay(s, STORE_WRITE, c, &c->status, e);

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

/* The record and the grants outlive phid: now the cell. Nothing has changed them: a container that is being created without a cell is
 * nobody else's. */
static void begin_create(struct call *c)
{
	struct operation *op;
	struct cell *cell;

	killpoint("create", "reserved");
	cell = cell_new(c->p, &c->record, &c->bundle.spec);
	cell->grant = c->grant;
	c->grant = (struct alloc_grant){0};
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
		call_reply(c, c->status, e);
		return;
	}
	phid_changed(c->p);
	begin_create(c);
}

static void plan(struct call *c, void (*on_plan)(void *ud, const char *plan))
{
	_clean_json_ struct json *j = json_object();
	_clean_free_ char *payload = bundle_payload_json(&c->bundle), *text = NULL;
	_clean_(alloc_view_free_p) struct alloc_view *v = alloc_view_new(&c->p->platform);
	_clean_grant_ struct alloc_grant g = {0};
	struct phi_error e = {0};
	const struct backend *b = choose_backend(c, &e);

	if (b == NULL || store_vector_read(c->p->store, STORE_READ, v, &e) < 0 || fit(c, v, b, &g, &e) < 0) {
		call_reply(c, 0, &e);
		return;
	}
	json_add_string(j, "backend", b->name);
	json_add(j, "spec", spec_to_json(&c->bundle.spec));
	view_grant(&c->p->platform, &g, j);
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
		call_reply(c, 0, &c->bundle.error);
	else if (c->dry_run)
		plan(c, on_plan);
	else
		batch_intend(c->p->batch, reserve, reserved, c);
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
