/* Who answers what: the table of resources, and the reading of requests. The work is elsewhere: container.c changes,
 * view.c tells, waits.c waits. */
#include "routes.h"

#include "batch.h"
#include "clean.h"
#include "console_log.h"
#include "container.h"
#include "error.h"
#include "field.h"
#include "http.h"
#include "id.h"
#include "json.h"
#include "log.h"
#include "loop.h"
#include "view.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#define JSON_TYPE    "application/json"
#define PROBLEM_TYPE "application/problem+json"
#define MUTATION_MAX_MS 60000

/* ---- answers ---- */

void reply_json(struct request *r, int status, char *text)
{
	request_reply(r, status, JSON_TYPE, text);
}

void reply_problem(struct request *r, const struct phi_error *e, const struct alloc_refusal *refusal)
{
	request_reply(r, phi_code_http(e->code), PROBLEM_TYPE, view_problem(e, refusal));
}

void routes_refuse(struct request *r, const struct phi_error *e)
{
	reply_problem(r, e, NULL);
}

static void reply_document(struct request *r, char *text, const struct phi_error *e)
{
	if (text == NULL)
		reply_problem(r, e, NULL);
	else
		reply_json(r, 200, text);
}

/* ---- reading ---- */

/* A whole number in the query, from min to max; the default where it is absent. */
int query_number(struct request *r, const char *name, int64_t min, int64_t max, int64_t absent, int64_t *ret,
		 struct phi_error *e)
{
	const char *text = request_query(r, name);
	char pointer[40], *end;
	long long v;

	*ret = absent;
	if (text == NULL)
		return 0;
	errno = 0;
	v = strtoll(text, &end, 10);
	snprintf(pointer, sizeof(pointer), "?%s", name);
	if (errno != 0 || end == text || *end != '\0' || (!isdigit((unsigned char)text[0]) && text[0] != '-') || v < min || v > max)
		return phi_error_set(e, PHI_INVALID, EINVAL, pointer, "\"%.40s\" is not a number from %" PRId64 " to %" PRId64, text,
				     min, max);
	*ret = v;
	return 0;
}

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

/* ---- mutations: the request waits, at most a minute, for the outcome ---- */

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
		reply_json(m->request, 200, strdup(plan));
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
		reply_json(m->request, 202, strdup("{}"));
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
	c->key = key ? strdup(key) : NULL;
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
	c->oci_id = strdup(id);
	c->oci_root = strdup(root);
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
	c->bundle.path = bundle ? strdup(bundle) : NULL;
	c->bundle.spec_json = json_take(j, "spec");
	return 0;
}

static void put_container(struct phid *p, struct request *r, const char *id)
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

static void verb_without_body(struct phid *p, struct request *r, const char *id, enum container_verb verb)
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
	call_verb(c);
}

static void post_start(struct phid *p, struct request *r, const char *id)
{
	verb_without_body(p, r, id, VERB_START);
}

static void post_pause(struct phid *p, struct request *r, const char *id)
{
	verb_without_body(p, r, id, VERB_PAUSE);
}

static void post_resume(struct phid *p, struct request *r, const char *id)
{
	verb_without_body(p, r, id, VERB_RESUME);
}

static void delete_container(struct phid *p, struct request *r, const char *id)
{
	struct phi_error e;
	bool force;

	if (query_bool(r, "force", &force, &e) < 0)
		reply_problem(r, &e, NULL);
	else
		verb_without_body(p, r, id, force ? VERB_DELETE_FORCE : VERB_DELETE);
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

static void post_kill(struct phid *p, struct request *r, const char *id)
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

/* ---- reads ---- */

static void get_root(struct phid *p, struct request *r, const char *id)
{
	(void)p;
	(void)id;
	reply_json(r, 200, strdup("{\"name\":\"phid\",\"version\":\"" PACKAGE_VERSION "\",\"api\":\"v1\"}"));
}

static void get_health(struct phid *p, struct request *r, const char *id)
{
	(void)id;
	reply_json(r, 200, view_health(p));
}

extern const char openapi_json[], openapi_json_end[]; /* api/openapi.yaml, by embed.c */

static void get_openapi(struct phid *p, struct request *r, const char *id)
{
	(void)p;
	(void)id;
	reply_json(r, 200, strndup(openapi_json, (size_t)(openapi_json_end - openapi_json)));
}

static void get_host(struct phid *p, struct request *r, const char *id)
{
	(void)id;
	reply_json(r, 200, view_host(p));
}

static void get_allocations(struct phid *p, struct request *r, const char *id)
{
	struct phi_error e;

	(void)id;
	reply_document(r, view_allocations(p, &e), &e);
}

static void get_capacity(struct phid *p, struct request *r, const char *id)
{
	struct phi_error e;

	(void)id;
	reply_document(r, view_capacity(p, &e), &e);
}

struct listing {
	struct phid *p;
	struct json *items;
	unsigned n, limit;
	char next[PHI_ID_MAX + 1];
};

static void list_each(void *ud, const struct container *c)
{
	struct listing *l = ud;
	struct json *o;

	if (l->n++ == l->limit)
		return; /* one more than asked for: there is a next page */
	o = json_object();
	view_container_into(l->p, c, o);
	json_add(l->items, NULL, o);
	snprintf(l->next, sizeof(l->next), "%s", c->id);
}

static void get_containers(struct phid *p, struct request *r, const char *id)
{
	const char *state = request_query(r, "state"), *backend = request_query(r, "backend"),
		   *after = request_query(r, "after");
	_clean_json_ struct json *j = json_object();
	struct listing l = {.p = p, .items = json_add_array(j, "items")};
	struct phi_error e = {0};
	int64_t limit;
	int rc = query_number(r, "limit", 1, PHI_PAGE_MAX, 100, &limit, &e);

	(void)id;
	if (rc == 0 && state != NULL && lifecycle_state(state) == STATE_MAX)
		rc = phi_error_set(&e, PHI_INVALID, EINVAL, "?state", "\"%.40s\" is no state of a container", state);
	if (rc == 0 && after != NULL)
		rc = id_check(after, "?after", &e);
	l.limit = (unsigned)limit;
	if (rc == 0)
		rc = store_containers(p->store, STORE_READ, state, backend, after, l.limit + 1, list_each, &l, &e);
	if (rc < 0) {
		reply_problem(r, &e, NULL);
		return;
	}
	json_add_string(j, "next", l.n > l.limit ? l.next : NULL);
	reply_json(r, 200, json_print(j));
}

/* The container, in the incarnation that the query may name; answers the request itself if there is none. */
bool find_container(struct phid *p, struct request *r, const char *id, struct container *c)
{
	const char *incarnation = request_query(r, "incarnation");
	struct phi_error e = {0};
	int rc = id_check(id, "/id", &e);

	if (rc == 0)
		rc = store_container_by_id(p->store, STORE_READ, id, c, &e);
	if (rc == 0 && incarnation != NULL && strcmp(incarnation, c->incarnation) != 0)
		rc = phi_error_set(&e, PHI_NOT_FOUND, ENOENT, "", "container does not exist: %s was made again since", id);
	if (rc < 0)
		reply_problem(r, &e, NULL);
	return rc == 0;
}

static void get_container(struct phid *p, struct request *r, const char *id)
{
	_clean_container_ struct container c = {0};

	if (find_container(p, r, id, &c))
		reply_json(r, 200, view_container(p, &c));
}

static void not_built(struct phid *p, struct request *r, const char *id)
{
	struct phi_error e;

	(void)p;
	(void)id;
	phi_error_set(&e, PHI_NOT_BUILT, 0, "", "%s %s is defined but not built yet", request_method(r), request_path(r));
	reply_problem(r, &e, NULL);
}

/* ---- the table ---- */

#define Q(...) ((const char *const[]){__VA_ARGS__, NULL})
static const char *const no_query[] = {NULL};

static const struct route {
	const char *method, *path; /* "*" stands for a container's id */
	enum role role;
	void (*handle)(struct phid *p, struct request *r, const char *id);
	const char *const *query;
} routes[] = {
	{"GET", "/", ROLE_VIEW, not_built, no_query},
	{"GET", "/metrics", ROLE_VIEW, not_built, no_query},
	{"GET", "/v1", ROLE_VIEW, get_root, no_query},
	{"GET", "/v1/health", ROLE_VIEW, get_health, no_query},
	{"GET", "/v1/openapi.json", ROLE_VIEW, get_openapi, no_query},
	{"GET", "/v1/host", ROLE_VIEW, get_host, no_query},
	{"GET", "/v1/allocations", ROLE_VIEW, get_allocations, no_query},
	{"GET", "/v1/capacity", ROLE_VIEW, get_capacity, no_query},
	{"GET", "/v1/containers", ROLE_VIEW, get_containers, Q("state", "backend", "limit", "after")},
	{"GET", "/v1/containers/*", ROLE_VIEW, get_container, Q("incarnation")},
	{"PUT", "/v1/containers/*", ROLE_ADMIN, put_container, Q("dry_run")},
	{"PATCH", "/v1/containers/*", ROLE_ADMIN, not_built, no_query},
	{"DELETE", "/v1/containers/*", ROLE_ADMIN, delete_container, Q("force", "incarnation")},
	{"POST", "/v1/containers/*/start", ROLE_ADMIN, post_start, Q("incarnation")},
	{"POST", "/v1/containers/*/kill", ROLE_ADMIN, post_kill, Q("incarnation")},
	{"POST", "/v1/containers/*/pause", ROLE_ADMIN, post_pause, Q("incarnation")},
	{"POST", "/v1/containers/*/resume", ROLE_ADMIN, post_resume, Q("incarnation")},
	{"GET", "/v1/containers/*/wait", ROLE_VIEW, get_wait, Q("for", "timeout", "incarnation")},
	{"GET", "/v1/containers/*/stats", ROLE_VIEW, not_built, no_query},
	{"GET", "/v1/containers/*/console", ROLE_VIEW, get_console, Q("tail", "follow", "incarnation")},
	{"GET", "/v1/events", ROLE_VIEW, get_events, Q("after", "wait", "limit")},
};

/* Does the path fit, and which id is at the star? */
static bool match(const char *pattern, const char *path, char id[PHI_ID_MAX + 2])
{
	const char *star = strchr(pattern, '*');
	size_t before, n;

	id[0] = '\0';
	if (star == NULL)
		return strcmp(pattern, path) == 0;
	before = (size_t)(star - pattern);
	if (strncmp(pattern, path, before) != 0)
		return false;
	n = strcspn(path + before, "/");
	if (strcmp(path + before + n, star + 1) != 0 || n == 0)
		return false;
	/* One byte more than allowed, so that the check of the id refuses what is too long. */
	snprintf(id, PHI_ID_MAX + 2, "%.*s", (int)n, path + before);
	return true;
}

static void refuse_route(struct request *r, const char *allow)
{
	struct phi_error e;

	if (allow[0] != '\0') {
		request_reply_header(r, "Allow", allow);
		phi_error_set(&e, PHI_METHOD, 0, "", "%s has %s, not %s", request_path(r), allow, request_method(r));
	} else {
		phi_error_set(&e, PHI_NOT_FOUND, 0, "", "there is no resource %.200s", request_path(r));
	}
	reply_problem(r, &e, NULL);
}

void routes_dispatch(struct phid *p, struct request *r)
{
	const struct peer *peer = request_peer(r);
	const char *method = request_method(r), *wrong, *rule;
	char id[PHI_ID_MAX + 2], allow[64] = "";
	const struct route *route = NULL;
	struct phi_error e;

	for (size_t i = 0; i < PHI_COUNT(routes) && route == NULL; i++) {
		size_t n = strlen(allow);

		if (!match(routes[i].path, request_path(r), id))
			continue;
		if (strcmp(routes[i].method, method) == 0)
			route = &routes[i];
		else
			snprintf(allow + n, sizeof(allow) - n, "%s%s", n ? ", " : "", routes[i].method);
	}
	if (route == NULL) {
		refuse_route(r, allow);
		return;
	}
	if (peer->role < route->role) {
		phi_error_set(&e, PHI_FORBIDDEN, 0, "", "user %u may not do this: %s", (unsigned)peer->uid,
			      route->role == ROLE_ADMIN ? "root and the group phid may" : "root and the groups phid and phid-view may");
		reply_problem(r, &e, NULL);
		return;
	}
	wrong = request_wrong_query(r, route->query, &rule);
	if (wrong != NULL) {
		char pointer[80];

		snprintf(pointer, sizeof(pointer), "?%.60s", wrong);
		phi_error_set(&e, PHI_UNKNOWN_MEMBER, 0, pointer, "the query parameter \"%.60s\" %s", wrong, rule);
		reply_problem(r, &e, NULL);
		return;
	}
	route->handle(p, r, id);
}
