/* Who answers what: the table of resources, and the plain reads. routes_verbs.c has the requests that change something, waits.c
 * those that wait, view.c the words of the answers. */
#include "routes.h"

#include "checks.h"
#include "clean.h"
#include "error.h"
#include "http.h"
#include "id.h"
#include "jobs.h"
#include "json.h"
#include "view.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define JSON_TYPE    "application/json"
#define PROBLEM_TYPE "application/problem+json"

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

/* ---- reads ---- */

static void get_root(struct phid *p, struct request *r, const char *id)
{
	(void)p;
	(void)id;
	reply_json(r, 200, phi_strdup("{\"name\":\"phid\",\"version\":\"" PACKAGE_VERSION "\",\"api\":\"v1\"}"));
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

/* The host's files may block. */
struct host_call {
	struct phid *p;
	struct request *r;
	struct check_facts facts;
};

static void host_run(void *ud)
{
	struct host_call *c = ud;

	checks_gather(&c->p->platform, c->p->config.host_root, &c->facts);
}

static void host_done(void *ud)
{
	struct host_call *c = ud;

	reply_json(c->r, 200, view_host(c->p, &c->facts));
	checks_free(&c->facts);
	free(c);
}

static void get_host(struct phid *p, struct request *r, const char *id)
{
	struct host_call *c = calloc(1, sizeof(*c));

	(void)id;
	if (c == NULL)
		abort();
	c->p = p;
	c->r = r;
	jobs_submit(p->jobs, host_run, host_done, c);
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

static void get_links(struct phid *p, struct request *r, const char *id)
{
	struct phi_error e;

	(void)id;
	reply_document(r, view_links(p, NULL, &e), &e);
}

static void get_link(struct phid *p, struct request *r, const char *id)
{
	struct phi_error e;

	reply_document(r, id_check(id, "/name", &e) < 0 ? NULL : view_links(p, id, &e), &e);
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

static void get_stats(struct phid *p, struct request *r, const char *id)
{
	_clean_container_ struct container c = {0};
	struct cell_stats stats;
	struct phi_error e;
	struct cell *cell;
	int rc;

	if (!find_container(p, r, id, &c))
		return;
	cell = cell_of_row(p, c.row);
	if (cell == NULL || c.state == STATE_CREATING || c.state == STATE_STOPPED)
		rc = phi_error_set(&e, PHI_STATE, ESRCH, "/state", "container not running: %s is %s", id, lifecycle_states[c.state]);
	else if (cell->backend->stats == NULL)
		rc = phi_error_set(&e, PHI_UNSUPPORTED, EOPNOTSUPP, "/backend", "the backend \"%s\" measures nothing", c.backend);
	else
		rc = cell->backend->stats(cell, &stats, &e);
	if (rc < 0)
		reply_problem(r, &e, NULL);
	else
		reply_json(r, 200, view_stats(cell, &stats));
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
	const char *method, *path; /* "*" stands for an id */
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
	{"GET", "/v1/links", ROLE_VIEW, get_links, no_query},
	{"GET", "/v1/links/*", ROLE_VIEW, get_link, no_query},
	{"GET", "/v1/containers", ROLE_VIEW, get_containers, Q("state", "backend", "limit", "after")},
	{"GET", "/v1/containers/*", ROLE_VIEW, get_container, Q("incarnation")},
	{"PUT", "/v1/containers/*", ROLE_ADMIN, put_container, Q("dry_run")},
	{"PATCH", "/v1/containers/*", ROLE_ADMIN, not_built, no_query},
	{"DELETE", "/v1/containers/*", ROLE_ADMIN, delete_container, Q("force", "incarnation")},
	{"POST", "/v1/containers/*/start", ROLE_ADMIN, post_start, Q("incarnation")},
	{"POST", "/v1/containers/*/kill", ROLE_ADMIN, post_kill, Q("incarnation")},
	{"POST", "/v1/containers/*/pause", ROLE_ADMIN, post_pause, Q("incarnation")},
	{"POST", "/v1/containers/*/resume", ROLE_ADMIN, post_resume, Q("incarnation")},
	{"POST", "/v1/containers/*/release", ROLE_ADMIN, post_release, Q("incarnation")},
	{"GET", "/v1/containers/*/wait", ROLE_VIEW, get_wait, Q("for", "timeout", "incarnation")},
	{"GET", "/v1/containers/*/stats", ROLE_VIEW, get_stats, Q("incarnation")},
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
