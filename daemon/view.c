/* Documents from records. See view.h and api/openapi.yaml. */
#include "view.h"

#include "clean.h"
#include "json.h"
#include "keepers.h"
#include "loop.h"
#include "operation.h"

#include <errno.h>
#include <string.h>

static const char *or_null(const char *s)
{
	return s[0] != '\0' ? s : NULL;
}

void view_container_into(struct phid *p, const struct container *c, struct json *j)
{
	_clean_json_ struct json *spec = NULL;
	struct cell *cell = cell_of_row(p, c->row);
	struct json *o;

	json_parse(c->spec, strlen(c->spec), &spec, NULL);
	json_add_string(j, "id", c->id);
	json_add_string(j, "name", json_get_string(spec, "name") ? json_get_string(spec, "name")
				   : c->oci_id			 ? c->oci_id
								 : c->id);
	json_add_string(j, "incarnation", c->incarnation);
	json_add_integer(j, "generation", c->generation);
	json_add_string(j, "state", lifecycle_states[c->state]);
	json_add_string(j, "operation", cell != NULL && cell->op != NULL ? lifecycle_verbs[cell->op->verb]
					: c->op < VERB_MAX		 ? lifecycle_verbs[c->op] /* its intent: not begun yet */
									 : NULL);
	json_add_string(j, "backend", c->backend);
	json_add_raw(j, "spec", c->spec);
	json_add_raw(j, "payload", c->payload);
	json_add_raw(j, "cell", c->cell);
	o = json_add_object(j, "keeper");
	if (cell != NULL && cell->keeper != NULL && c->state != STATE_CREATING)
		json_add_integer(o, "pid", cell->keeper_pid);
	else if (c->keeper_pid > 0 && c->state != STATE_STOPPED && !(cell != NULL && cell_is_kept(cell)))
		json_add_integer(o, "pid", c->keeper_pid);
	else
		json_add_null(o, "pid");
	json_add_raw(j, "exit", c->exit);
	json_add_string(j, "bundle", c->bundle);
	if (c->oci_id != NULL) {
		o = json_add_object(j, "oci");
		json_add_string(o, "id", c->oci_id);
		json_add_string(o, "root", c->oci_root);
	} else {
		json_add_null(j, "oci");
	}
	o = json_add_object(j, "owner");
	json_add_integer(o, "uid", c->owner_uid);
	json_add_integer(o, "gid", c->owner_gid);
	if (json_get(spec, "labels") != NULL) {
		_clean_free_ char *labels = json_print(json_get(spec, "labels"));

		json_add_raw(j, "labels", labels);
	} else {
		json_add_object(j, "labels");
	}
	json_add_raw(j, "annotations", c->annotations);
	json_add_string(j, "created_at", c->created_at);
	json_add_string(j, "started_at", or_null(c->started_at));
	json_add_string(j, "stopped_at", or_null(c->stopped_at));
}

char *view_container(struct phid *p, const struct container *c)
{
	_clean_json_ struct json *j = json_object();

	view_container_into(p, c, j);
	return json_print(j);
}

char *view_stats(const struct cell *c, const struct cell_stats *s)
{
	_clean_json_ struct json *j = json_object();
	struct json *o = json_add_object(j, "cpu");
	uint64_t granted = 0;

	json_add_integer(o, "user_ns", (int64_t)s->user_ns);
	json_add_integer(o, "system_ns", (int64_t)s->system_ns);
	json_add_integer(o, "total_ns", (int64_t)(s->user_ns + s->system_ns));
	for (size_t i = 0; i < c->spec.memory.n; i++)
		granted += ((const struct spec_memory *)c->spec.memory.items + i)->size;
	o = json_add_object(j, "memory");
	json_add_integer(o, "granted", (int64_t)granted);
	json_add_integer(o, "resident", (int64_t)s->resident);
	json_add_integer(j, "threads", s->threads);
	return json_print(j);
}

char *view_problem(const struct phi_error *e, const struct alloc_refusal *r)
{
	_clean_json_ struct json *j = json_object();
	char type[64];
	struct json *list, *o;

	snprintf(type, sizeof(type), "urn:phid:problem:%s", phi_code_name(e->code));
	json_add_string(j, "type", type);
	json_add_string(j, "title", phi_code_title(e->code));
	json_add_integer(j, "status", phi_code_http(e->code));
	json_add_string(j, "detail", e->detail);
	json_add_string(j, "code", phi_code_name(e->code));
	list = json_add_array(j, "errors");
	if (e->pointer[0] != '\0') {
		o = json_object();
		json_add_string(o, "pointer", e->pointer);
		json_add_string(o, "detail", e->detail);
		json_add(list, NULL, o);
	}
	if (r == NULL || r->kind == NULL)
		return json_print(j);
	o = json_add_object(j, "wanted");
	json_add_integer(o, r->kind, (int64_t)r->wanted);
	o = json_add_object(j, "free");
	json_add_integer(o, r->kind, (int64_t)r->available);
	list = json_add_array(j, "blockers");
	for (size_t i = 0; i < r->n_blockers; i++) {
		o = json_object();
		json_add_string(o, "unit", r->blockers[i].unit);
		json_add_string(o, "owner", r->blockers[i].owner);
		json_add(list, NULL, o);
	}
	return json_print(j);
}

static void add_id(void *ud, const char *id)
{
	json_add_string(ud, NULL, id);
}

static void add_name(void *ud, const char *name, const char *tag)
{
	(void)tag;
	json_add_string(ud, NULL, name);
}

char *view_health(struct phid *p)
{
	_clean_json_ struct json *j = json_object();
	const char *name;
	uint64_t us = loop_longest_us(p->loop, &name);
	struct json *o, *list;

	json_add_string(j, "status", p->store_note != NULL ? "degraded" : "ok");
	json_add_string(j, "note", p->store_note);
	store_quarantined(p->store, STORE_READ, add_id, json_add_array(j, "quarantined"), NULL);
	list = json_add_array(j, "unexplained");
	for (size_t i = 0; i < p->n_backends; i++)
		store_observed(p->store, STORE_READ, p->backends[i]->name, add_name, list);
	o = json_add_object(j, "loop");
	json_add_integer(o, "longest_us", (int64_t)us);
	json_add_string(o, "longest_callback", name);
	json_add_integer(j, "containers", store_containers_count(p->store, STORE_READ));
	json_add_integer(j, "last_event", store_events_last(p->store, STORE_READ));
	return json_print(j);
}

char *view_host(struct phid *p, const struct check_facts *facts)
{
	_clean_json_ struct json *j = host_to_json(p, facts);

	return json_print(j);
}

char *view_event(const struct event *ev)
{
	_clean_json_ struct json *j = json_object();

	json_add_integer(j, "seq", ev->seq);
	json_add_string(j, "at", ev->at);
	json_add_string(j, "type", ev->type);
	json_add_string(j, "container", ev->container);
	json_add_string(j, "incarnation", ev->incarnation);
	json_add_raw(j, "detail", ev->detail);
	return json_print(j);
}
