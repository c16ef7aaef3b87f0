/* A cell that was to be kept when its keeper was lost (lifecycle.keeper_lost), and the create that gets it instead of one of its
 * own: a second one of the same name, spec and payload. The record takes the new container's identity in one transaction; the
 * cell hears nothing of it. The first start of a claimed cell is done already. */
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
#include <string.h>

#define PROMISED_MS 30000 /* the keeper of a claimant is not there yet: nobody else gets the cell so long */

bool claim_possible(struct phid *p, const struct container *old)
{
	const struct cell *c = cell_of_row(p, old->row);

	return c != NULL && old->state == STATE_RUNNING && old->op == VERB_MAX && c->op == NULL && !c->ended && c->spec.name != NULL && cell_is_kept(c) &&
	       loop_now_ms() >= c->promised_until;
}

struct search {
	struct phid *p;
	int64_t row; /* 0: none yet */
};

static void search_each(void *ud, const struct container *c)
{
	struct search *s = ud;

	if (s->row == 0 && claim_possible(s->p, c))
		s->row = c->row;
}

int claim_find(struct call *c, struct store *s, const char *spec, const char *payload, struct container *ret, struct phi_error *e)
{
	struct search search = {.p = c->p};
	int r = 0;

	if (c->bundle.spec.keeper_lost == KEEPER_LOST_KEEP && c->bundle.spec.name != NULL)
		r = store_containers_alike(s, spec, payload, c->peer.uid, search_each, &search, e);
	if (r == 0 && search.row == 0)
		return phi_error_set(e, PHI_NOT_FOUND, ENOENT, "", "there is no kept cell to claim");
	return r < 0 ? r : store_container_by_row(s, STORE_WRITE, search.row, ret, e);
}

/* Sets or removes "claimed" in the record's cell document. Answers whether it was there. */
static bool mark(struct container *row, bool claimed)
{
	_clean_json_ struct json *j = NULL;
	bool was = false;

	if (row->cell == NULL || json_parse(row->cell, strlen(row->cell), &j, NULL) < 0)
		return false;
	json_is_bool(json_get(j, "claimed"), &was);
	json_remove(j, "claimed");
	if (claimed)
		json_add_bool(j, "claimed", true);
	free(row->cell);
	row->cell = json_print(j);
	return was;
}

static int tell(struct store *s, const char *type, const char *id, const char *incarnation, const char *member, const char *value,
		struct phi_error *e)
{
	_clean_json_ struct json *j = json_object();
	_clean_free_ char *detail = NULL;

	json_add_string(j, member, value);
	detail = json_print(j);
	return store_event_insert(s, type, id, incarnation, detail, e);
}

int claim(struct call *c, struct store *s, struct container *old, struct phi_error *e)
{
	_clean_free_ char *id = phi_strdup(old->id), *incarnation = phi_strdup(old->incarnation);
	int r;

	if (!store_is_durable(s))
		return BATCH_DURABLE; /* it is answered at once */
	if (id == NULL || incarnation == NULL)
		abort();
	snprintf(old->id, sizeof(old->id), "%s", c->id);
	snprintf(old->incarnation, sizeof(old->incarnation), "%s", c->incarnation);
	old->keeper_by_phid = !c->external_keeper;
	old->keeper_pid = 0;
	old->keeper_start = 0;
	mark(old, true);
	r = store_container_update(s, old, e);
	if (r == 0)
		r = store_container_rename(s, old, c->bundle.path, c->oci_id, c->oci_root, c->bundle.annotations, e);
	if (r == 0)
		r = tell(s, "container.deleted", id, incarnation, "claimed_by", c->id, e);
	if (r == 0)
		r = tell(s, "container.claimed", c->id, c->incarnation, "was", id, e);
	if (r == 0 && c->key != NULL)
		r = store_key_insert(s, c->peer.uid, c->key, c->request, c->incarnation, e);
	if (r == 0 && c->key != NULL)
		r = store_key_outcome(s, c->peer.uid, c->key, 200, NULL, e);
	c->row = old->row;
	c->claimed = true;
	c->status = 200;
	cell_of_row(c->p, old->row)->promised_until = loop_now_ms() + PROMISED_MS; /* the next call of this transaction sees it */
	return r;
}

void claim_failed(struct call *c)
{
	struct cell *cell = cell_of_row(c->p, c->row);

	if (cell != NULL)
		cell->promised_until = 0;
}

struct keeper_job {
	struct keeper_wish wish;
	char id[PHI_ID_MAX + 1];
};

static void run_keeper(void *ud)
{
	struct keeper_job *j = ud;
	struct phi_error e;

	if (keeper_start(&j->wish, &e) < 0)
		log_error(j->id, "%s", e.detail);
}

/* The guest goes on without one: a failure is logged. */
static void start_keeper(struct phid *p, const struct cell *c)
{
	struct keeper_job *j = calloc(1, sizeof(*j));

	if (j == NULL)
		abort();
	j->wish = keeper_wish(p, c);
	memcpy(j->id, c->id, sizeof(j->id));
	jobs_submit(p->jobs, run_keeper, free, j);
}

void claim_done(struct call *c)
{
	struct cell *cell = cell_of_row(c->p, c->row);

	killpoint("claim", "committed");
	if (cell == NULL)
		return; /* the guest ended in this very turn */
	log_info(c->id, "claims the cell of %s, whose keeper is lost", cell->id);
	cell_rename(c->p, cell, c->id, c->incarnation);
	cell->external_keeper = c->external_keeper;
	cell->claimed = true;
	if (keeper_claim(c->p, cell)) /* else it gets the console when it comes */
		cell->backend->attach(cell, 0);
	else if (!c->external_keeper)
		start_keeper(c->p, cell);
}

int claim_start(struct call *c, struct store *s, struct container *row, struct phi_error *e)
{
	const struct cell *cell = cell_of_row(c->p, row->row);
	int r;

	if (row->state != STATE_RUNNING || cell == NULL || !mark(row, false))
		return 0;
	if (!store_is_durable(s))
		return BATCH_DURABLE;
	row->keeper_pid = cell->keeper_pid;
	row->keeper_start = cell->keeper_start;
	r = store_container_update(s, row, e);
	if (r == 0)
		r = store_event_insert(s, "container.started", row->id, row->incarnation, NULL, e);
	if (r == 0 && c->key != NULL)
		r = store_key_insert(s, c->peer.uid, c->key, c->request, row->incarnation, e);
	if (r == 0 && c->key != NULL)
		r = store_key_outcome(s, c->peer.uid, c->key, 200, NULL, e);
	c->claimed = true;
	c->status = 200;
	return r;
}
