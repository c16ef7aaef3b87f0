/* The requests that change a container: read strictly, turned into a call, answered with its outcome. The work is in
 * container.c. */
#include "routes.h"

#include "clean.h"
#include "container.h"
#include "error.h"
#include "field.h"
#include "id.h"
#include "json.h"
#include "loop.h"
#include "view.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#define MUTATION_MAX_MS 60000

/* ---- reading ---- */

static int query_bool(struct request *r, const char *name, bool *ret, struct phi_error *e)
{
	const char *text = request_query(r, name);
	char pointer[40];

	*ret = text != NULL && strcmp(text, "true") == 0;
	snprintf(pointer, sizeof(pointer), "?%s", name);
	if (text != NULL && !*ret && strcmp(text, "false") != 0)
		return phi_error_set(e, PHI_INVALID, EINVAL, pointer, "\"%.40s\" is neither true nor false", text);
	return 0;
}

/* The request's JSON object; an empty body is an empty object where that is allowed. */
static int read_body(struct request *r, bool may_be_empty, struct json **ret, struct phi_error *e)
{
	size_t n;
	const char *text = request_body(r, &n);
	int rc;

	if (n == 0 && may_be_empty) {
		*ret = json_object();
		return 0;
	}
	rc = json_parse(text ? text : "", n, ret, e);
	if (rc == 0 && !json_is_object(*ret))
		return phi_error_set(e, PHI_INVALID, EINVAL, "", "an object was expected, not %s", json_kind(*ret));
	return rc;
}

static int only_members(const struct json *j, const char *const *known, struct phi_error *e)
{
	for (const struct json *m = json_first(j); m != NULL; m = json_next(m)) {
		char pointer[160];
		size_t i = 0;

		while (known[i] != NULL && strcmp(known[i], json_name(m)) != 0)
			i++;
		field_pointer_join(pointer, sizeof(pointer), "", json_name(m));
		if (known[i] == NULL)
			return phi_error_set(e, PHI_UNKNOWN_MEMBER, EINVAL, pointer, "there is no member \"%.60s\" here",
					     json_name(m));
	}
	return 0;
}

/* ---- the request waits, at most a minute, for the outcome ---- */

struct mutation {
	struct phid *p;
	struct request *request; /* NULL once it was answered with 202 */
	char id[PHI_ID_MAX + 1];
	struct loop_source *timer;
};

static void reply_container(struct mutation *m, int status)
{
	_clean_container_ struct container c = {0};
	struct phi_error e;

	if (status == 204)
		request_reply(m->request, 204, NULL, NULL);
	else if (store_container_by_id(m->p->store, STORE_READ, m->id, &c, &e) < 0)
		reply_problem(m->request, &e, NULL);
	else
		reply_json(m->request, status, view_container(m->p, &c));
}

static void on_outcome(void *ud, int status, const struct phi_error *e, const struct alloc_refusal *refusal)
{
	struct mutation *m = ud;

	if (m->request != NULL && e != NULL)
		reply_problem(m->request, e, refusal);
	else if (m->request != NULL)
		reply_container(m, status);
	loop_source_free(m->timer);
	free(m);
}

static void on_plan(void *ud, const char *plan)
{
	struct mutation *m = ud;

	if (m->request != NULL)
		reply_json(m->request, 200, phi_strdup(plan));
	loop_source_free(m->timer);
	free(m);
}

static void on_late(void *ud)
{
	struct mutation *m = ud;
	_clean_container_ struct container c = {0};

	loop_source_clear(&m->timer);
	if (store_container_by_id(m->p->store, STORE_READ, m->id, &c, NULL) == 0)
		reply_json(m->request, 202, view_container(m->p, &c));
	else
		reply_json(m->request, 202, phi_strdup("{}"));
	m->request = NULL;
}

/* FNV over method, path and body: tells a repeated request from another one under the same key. */
static void summarize(struct request *r, char ret[80])
{
	size_t n;
	const char *body = request_body(r, &n);
	_clean_free_ char *text = NULL;

	if (asprintf(&text, "%s %s %.*s", request_method(r), request_path(r), (int)n, body ? body : "") < 0)
		abort();
	snprintf(ret, 80, "%s %016" PRIx64, request_method(r), id_hash64(text));
}

static struct call *new_call(struct phid *p, struct request *r, const char *id, enum container_verb verb,
			     struct phi_error *e)
{
	const char *key = request_header(r, "Idempotency-Key"), *incarnation = request_query(r, "incarnation");
	struct call *c;

	if (id_check(id, "/id", e) < 0)
		return NULL;
	if (key != NULL && (key[0] == '\0' || strlen(key) > PHI_KEY_MAX)) {
		phi_error_set(e, PHI_INVALID, EINVAL, "/Idempotency-Key", "a key has 1 to %d bytes", PHI_KEY_MAX);
		return NULL;
	}
	if (incarnation != NULL && !id_is_uuid(incarnation)) {
		phi_error_set(e, PHI_INVALID, EINVAL, "?incarnation", "a UUID was expected");
		return NULL;
	}
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		abort();
	c->p = p;
	c->peer = *request_peer(r);
	c->verb = verb;
	c->timeout_ms = -1;
	snprintf(c->id, sizeof(c->id), "%s", id);
	snprintf(c->incarnation, sizeof(c->incarnation), "%s", incarnation ? incarnation : "");
	c->key = phi_strdup(key);
	summarize(r, c->request);
	return c;
}

/* The call's outcome goes to the request. */
static void await(struct phid *p, struct request *r, struct call *c)
{
	struct mutation *m = calloc(1, sizeof(*m));

	c->waiter = calloc(1, sizeof(*c->waiter));
	if (m == NULL || c->waiter == NULL)
		abort();
	m->p = p;
	m->request = r;
	snprintf(m->id, sizeof(m->id), "%s", c->id);
	m->timer = loop_timer(p->loop, "mutation", MUTATION_MAX_MS, on_late, m);
	c->waiter->reply = on_outcome;
	c->waiter->ud = m;
}

static int read_oci(const struct json *j, struct call *c, struct phi_error *e)
{
	static const char *const members[] = {"id", "root", NULL};
	const char *id = json_get_string(j, "id"), *root = json_get_string(j, "root");

	if (j == NULL)
		return 0;
	if (!json_is_object(j) || only_members(j, members, e) < 0 || id == NULL || root == NULL || root[0] != '/' ||
	    strlen(root) > PHI_PATH_MAX || strlen(id) > PHI_ID_MAX)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/oci", "{\"id\": text, \"root\": absolute path} was expected");
	c->oci_id = phi_strdup(id);
	c->oci_root = phi_strdup(root);
	return 0;
}

static int read_create(struct request *r, struct json *j, struct call *c, struct phi_error *e)
{
	static const char *const members[] = {"bundle", "spec", "incarnation", "keeper", "oci", NULL};
	const char *bundle = json_get_string(j, "bundle"), *incarnation = json_get_string(j, "incarnation"),
		   *keeper = json_get_string(j, "keeper"), *match = request_header(r, "If-None-Match");
	int rc = only_members(j, members, e);

	if (rc < 0)
		return rc;
	if (json_get(j, "bundle") == NULL && json_get(j, "spec") == NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, "", "a \"bundle\" or a \"spec\" says what to create");
	if (json_get(j, "bundle") != NULL && (bundle == NULL || bundle[0] != '/' || strlen(bundle) > PHI_PATH_MAX))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/bundle", "an absolute path was expected");
	if (json_get(j, "incarnation") != NULL && (incarnation == NULL || !id_is_uuid(incarnation)))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/incarnation", "a UUID in lower case was expected");
	if (json_get(j, "keeper") != NULL && (keeper == NULL || (strcmp(keeper, "caller") != 0 && strcmp(keeper, "phid") != 0)))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/keeper", "\"caller\" or \"phid\" was expected");
	if (match != NULL && strcmp(match, "*") != 0)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/If-None-Match", "only * is possible");
	rc = query_bool(r, "dry_run", &c->dry_run, e);
	if (rc == 0)
		rc = read_oci(json_get(j, "oci"), c, e);
	if (rc < 0)
		return rc;
	c->refuse_existing = match != NULL;
	c->external_keeper = keeper != NULL && strcmp(keeper, "caller") == 0;
	if (c->external_keeper && incarnation == NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/incarnation", "a keeper of the caller's needs one to be known by");
	snprintf(c->incarnation, sizeof(c->incarnation), "%s", incarnation ? incarnation : "");
	c->bundle.path = phi_strdup(bundle);
	c->bundle.spec_json = json_take(j, "spec");
	return 0;
}

void put_container(struct phid *p, struct request *r, const char *id)
{
	_clean_json_ struct json *j = NULL;
	struct phi_error e = {0};
	struct call *c = new_call(p, r, id, VERB_CREATE, &e);

	if (c == NULL || read_body(r, false, &j, &e) < 0 || read_create(r, j, c, &e) < 0) {
		if (c != NULL)
			call_free(c);
		reply_problem(r, &e, NULL);
		return;
	}
	await(p, r, c);
	call_create(c, on_plan);
}

static void verb_without_body(struct phid *p, struct request *r, const char *id, enum container_verb verb, void (*go)(struct call *c))
{
	static const char *const none[] = {NULL};
	_clean_json_ struct json *j = NULL;
	struct phi_error e = {0};
	struct call *c = new_call(p, r, id, verb, &e);

	if (c == NULL || read_body(r, true, &j, &e) < 0 || only_members(j, none, &e) < 0) {
		if (c != NULL)
			call_free(c);
		reply_problem(r, &e, NULL);
		return;
	}
	await(p, r, c);
	go(c);
}

void post_start(struct phid *p, struct request *r, const char *id)
{
	verb_without_body(p, r, id, VERB_START, call_verb);
}

void post_pause(struct phid *p, struct request *r, const char *id)
{
	verb_without_body(p, r, id, VERB_PAUSE, call_verb);
}

void post_resume(struct phid *p, struct request *r, const char *id)
{
	verb_without_body(p, r, id, VERB_RESUME, call_verb);
}

void post_release(struct phid *p, struct request *r, const char *id)
{
	verb_without_body(p, r, id, VERB_DELETE_FORCE, call_release);
}

void delete_container(struct phid *p, struct request *r, const char *id)
{
	struct phi_error e;
	bool force;

	if (query_bool(r, "force", &force, &e) < 0)
		reply_problem(r, &e, NULL);
	else
		verb_without_body(p, r, id, force ? VERB_DELETE_FORCE : VERB_DELETE, call_verb);
}

/* The signals that mean something to a cell. */
static int read_signal(const struct json *j, int *ret, struct phi_error *e)
{
	static const struct {
		const char *name;
		int number;
	} known[] = {{"TERM", SIGTERM}, {"INT", SIGINT}, {"QUIT", SIGQUIT}, {"KILL", SIGKILL}, {"STOP", SIGSTOP}, {"CONT", SIGCONT}};
	const char *text = json_string(j);
	int64_t n = -1;

	if (j == NULL) {
		*ret = SIGTERM;
		return 0;
	}
	if (text != NULL && strncmp(text, "SIG", 3) == 0)
		text += 3;
	json_integer(j, &n);
	for (size_t i = 0; i < PHI_COUNT(known); i++)
		if (text != NULL ? strcmp(text, known[i].name) == 0 : n == known[i].number) {
			*ret = known[i].number;
			return 0;
		}
	return phi_error_set(e, PHI_INVALID, EINVAL, "/signal",
			     "a cell knows SIGTERM, SIGINT, SIGQUIT (power down), SIGKILL, SIGSTOP (pause) and SIGCONT (resume), by name "
			     "or number");
}

void post_kill(struct phid *p, struct request *r, const char *id)
{
	static const char *const members[] = {"signal", "timeout_ms", NULL};
	_clean_json_ struct json *j = NULL;
	struct phi_error e = {0};
	struct call *c = new_call(p, r, id, VERB_KILL, &e);
	int rc = c != NULL ? read_body(r, true, &j, &e) : -EINVAL;

	if (rc == 0)
		rc = only_members(j, members, &e);
	if (rc == 0)
		rc = read_signal(json_get(j, "signal"), &c->signal, &e);
	if (rc == 0 && json_get(j, "timeout_ms") != NULL &&
	    (!json_integer(json_get(j, "timeout_ms"), &c->timeout_ms) || c->timeout_ms < 0 || c->timeout_ms > 3600000))
		rc = phi_error_set(&e, PHI_INVALID, ERANGE, "/timeout_ms", "0 to 3600000 milliseconds were expected");
	if (rc == 0 && (c->signal == SIGSTOP || c->signal == SIGCONT) && c->timeout_ms >= 0)
		rc = phi_error_set(&e, PHI_INVALID, EINVAL, "/timeout_ms", "a pause or resume has no end to be waited for");
	if (rc < 0) {
		if (c != NULL)
			call_free(c);
		reply_problem(r, &e, NULL);
		return;
	}
	if (c->signal == SIGSTOP || c->signal == SIGCONT)
		c->verb = c->signal == SIGSTOP ? VERB_PAUSE : VERB_RESUME;
	await(p, r, c);
	call_verb(c);
}
