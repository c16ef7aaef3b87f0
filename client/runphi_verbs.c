/* The verbs on a container that is there. Texts for people are phid's; where clients look for words, phid has them. */
#include "runphi.h"

#include "clean.h"
#include "http_client.h"
#include "json.h"
#include "process.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <strings.h>

int request(const struct invocation *v, const struct marker *m, const char *method, const char *suffix, const char *body,
	    char **ret_body, struct phi_error *e)
{
	char path[PHI_ID_MAX + 160], key[PHI_UUID_LEN + 1];
	struct http_call c = {.socket = v->socket, .method = method, .path = path, .body = body};
	struct http_answer a;
	int r;

	if (m->incarnation[0] == '\0') /* a create was killed before anything was made */
		return phi_error_set(e, PHI_NOT_FOUND, ENOENT, "/id", "container does not exist: its create was cut off");
	if (strcmp(method, "GET") != 0) {
		new_uuid(key);
		c.key = key;
	}
	snprintf(path, sizeof(path), "/v1/containers/%s%s%cincarnation=%s", m->record, suffix, strchr(suffix, '?') ? '&' : '?',
		 m->incarnation);
	r = http_call(&c, &a, e);
	if (r < 0)
		return r;
	r = a.status < 300 ? 0 : http_problem(&a, e);
	if (r == 0 && ret_body != NULL)
		*ret_body = PHI_TAKE(a.body);
	free(a.body);
	return r;
}

/* The state document of runtime.md; "paused" beside its four, as runc has it. */
static struct json *state_document(const char *id, const struct json *container, const char *status)
{
	struct json *j = json_object();
	int64_t pid = 0;
	_clean_free_ char *annotations = NULL;

	if (status == NULL || strcmp(status, "stopped") != 0)
		json_integer(json_get(json_get(container, "keeper"), "pid"), &pid);
	json_add_string(j, "ociVersion", "1.0.2");
	json_add_string(j, "id", id);
	json_add_integer(j, "pid", pid);
	json_add_string(j, "status", status ? status : json_get_string(container, "state"));
	if (json_get_string(container, "bundle") != NULL)
		json_add_string(j, "bundle", json_get_string(container, "bundle"));
	if (json_get_string(container, "created_at") != NULL)
		json_add_string(j, "created", json_get_string(container, "created_at"));
	if (json_first(json_get(container, "annotations")) != NULL) {
		annotations = json_print(json_get(container, "annotations"));
		json_add_raw(j, "annotations", annotations);
	}
	return j;
}

static bool keeper_gone(const struct marker *m)
{
	return m->keeper > 0 && process_start(m->keeper) != m->keeper_start;
}

int fetch(const struct invocation *v, const struct marker *m, struct json **ret, struct phi_error *e)
{
	_clean_free_ char *body = NULL;
	const char *state, *lost;
	char keeper[40];
	int r = request(v, m, "GET", "", NULL, &body, e);

	if (r == 0)
		r = json_parse(body, strlen(body), ret, e);
	if (r < 0)
		return r;
	state = json_get_string(*ret, "state");
	lost = json_get_string(json_get(json_get(*ret, "spec"), "lifecycle"), "keeper_lost");
	if (state == NULL || strcmp(state, "stopped") == 0 || m->keeper == 0)
		return 0;
	json_remove(*ret, "keeper"); /* whose pid it is, we know best: a claimed cell had another */
	if (keeper_gone(m) && lost != NULL && strcmp(lost, "keep") == 0) {
		json_remove(*ret, "state");
		json_add_string(*ret, "state", "stopped");
		json_add_bool(*ret, "kept", true);
	} else {
		struct json *own = NULL;

		snprintf(keeper, sizeof(keeper), "{\"pid\":%d}", (int)m->keeper);
		if (json_parse(keeper, strlen(keeper), &own, e) == 0)
			json_add(*ret, "keeper", own);
	}
	return 0;
}

/* Did the container end for the OCI side while its cell goes on? Asks phid only where the keeper is gone. */
static bool is_kept(const struct invocation *v, const struct marker *m)
{
	_clean_json_ struct json *container = NULL;
	struct phi_error ignored;

	return keeper_gone(m) && fetch(v, m, &container, &ignored) == 0 && json_get(container, "kept") != NULL;
}

/* Nothing that is said to the container reaches a kept cell. */
static int refuse_kept(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	return !is_kept(v, m) ? 0 : phi_error_set(e, PHI_STATE, ESRCH, "/state",
						  "container not running: its keeper is lost; the cell is kept (phictl stop --kill %s)", m->record);
}

int verb_pause(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	int r = refuse_kept(v, m, e);

	return r < 0 ? r : request(v, m, "POST", "/pause", NULL, NULL, e);
}

int verb_resume(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	int r = refuse_kept(v, m, e);

	return r < 0 ? r : request(v, m, "POST", "/resume", NULL, NULL, e);
}

char *state_text(const char *id, const struct json *container, const char *status)
{
	_clean_json_ struct json *j = state_document(id, container, status);

	return json_print(j);
}

int verb_state(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	_clean_json_ struct json *container = NULL;
	_clean_free_ char *text = NULL;
	int r = fetch(v, m, &container, e);

	if (r < 0)
		return r;
	text = state_text(v->words[0], container, NULL);
	puts(text);
	return 0;
}

/* Hooks before and after; where one fails the container is stopped and taken away (runtime.md "Lifecycle", steps 8 to 10). */
int verb_start(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	_clean_json_ struct json *container = NULL;
	_clean_free_ char *before = NULL, *after = NULL;
	struct phi_error ignored;
	int r = refuse_kept(v, m, e);

	if (r < 0)
		return r;
	if (m->hooks == NULL)
		return request(v, m, "POST", "/start", NULL, NULL, e);
	r = fetch(v, m, &container, e);
	if (r < 0)
		return r;
	before = state_text(v->words[0], container, NULL);
	after = state_text(v->words[0], container, "running");
	if (strcmp(json_get_string(container, "state"), "created") == 0)
		r = hooks_run(m->hooks, "startContainer", before, e);
	if (r == 0) {
		r = request(v, m, "POST", "/start", NULL, NULL, e);
		if (r < 0)
			return r;
		r = hooks_run(m->hooks, "poststart", after, e);
	}
	if (r < 0)
		take_away(v, m, true, &ignored);
	return r;
}

/* "9", "KILL", "SIGKILL", "kill". */
static int read_signal(const char *text, int *ret, struct phi_error *e)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (isdigit((unsigned char)text[0]) && *end == '\0' && n > 0 && n < 65) {
		*ret = (int)n;
		return 0;
	}
	if (strncasecmp(text, "SIG", 3) == 0)
		text += 3;
	for (int s = 1; s < 32; s++)
		if (sigabbrev_np(s) != NULL && strcasecmp(sigabbrev_np(s), text) == 0) {
			*ret = s;
			return 0;
		}
	return phi_error_set(e, PHI_INVALID, EINVAL, "/signal", "unknown signal \"%.30s\"", text);
}

int verb_kill(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	int signal = SIGTERM, r = v->n_words > 1 ? read_signal(v->words[1], &signal, e) : 0;
	char body[40];

	if (r < 0)
		return r;
	r = refuse_kept(v, m, e);
	if (r < 0)
		return v->all ? 0 : r;
	snprintf(body, sizeof(body), "{\"signal\":%d}", signal);
	r = request(v, m, "POST", "/kill", body, NULL, e);
	/* --all of a stopped container: runc and crun both answer well. */
	return r < 0 && v->all && e->code == PHI_STATE ? 0 : r;
}

void clear_away(const struct invocation *v, const struct marker *m, const char *state)
{
	struct phi_error ignored;

	if (m->cgroup != NULL)
		cgroup_remove(m->cgroup);
	if (state != NULL)
		hooks_run(m->hooks, "poststop", state, &ignored);
	marker_remove(v, v->words[0]);
}

int take_away(const struct invocation *v, const struct marker *m, bool force, struct phi_error *e)
{
	_clean_json_ struct json *container = NULL;
	_clean_free_ char *state = NULL;
	int r = m->hooks != NULL ? fetch(v, m, &container, e) : 0;

	if (r < 0 && e->code != PHI_NOT_FOUND)
		return r;
	if (m->hooks != NULL)
		state = state_text(v->words[0], container, "stopped");
	r = request(v, m, "DELETE", force ? "?force=true" : "", NULL, NULL, e);
	if (r < 0 && e->code != PHI_NOT_FOUND)
		return r;
	if (m->cgroup != NULL)
		keeper_end(m);
	clear_away(v, m, state);
	return r;
}

/* A kept cell is let go on: the next create of the like claims it, or an operator ends it. */
static int leave_kept(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	_clean_json_ struct json *container = NULL;
	_clean_free_ char *state = NULL;
	int r = fetch(v, m, &container, e);

	if (r < 0)
		return r;
	state = state_text(v->words[0], container, "stopped");
	warn("the cell of %s is kept, as its spec says; phictl has it as %s", v->words[0], m->record);
	clear_away(v, m, state);
	return 0;
}

int verb_delete(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	int r = is_kept(v, m) ? leave_kept(v, m, e) : take_away(v, m, v->force, e);

	return r < 0 && v->force && e->code == PHI_NOT_FOUND ? 0 : r;
}

/* ---- list: the forwarded runtime's, and ours behind it ---- */

static void print_row(const struct invocation *v, const char *id, const struct json *container, struct json *list)
{
	int64_t pid = 0;

	json_integer(json_get(json_get(container, "keeper"), "pid"), &pid);
	if (list != NULL)
		json_add(list, NULL, state_document(id, container, NULL));
	else if (v->quiet)
		puts(id);
	else
		printf("%-20s %-11d %-11s %-28s %-30s %s\n", id, (int)pid, json_get_string(container, "state"),
		       json_get_string(container, "bundle"), json_get_string(container, "created_at"), "root");
}

int verb_list(const struct invocation *v, struct phi_error *e)
{
	_clean_free_ char *theirs = NULL, *text = NULL;
	_clean_json_ struct json *list = NULL;
	_clean_closedir_ DIR *d = NULL;
	bool json = v->format != NULL && strcmp(v->format, "json") == 0;
	char path[PHI_PATH_MAX + 64];

	/* Where the words are wrong, the forwarded runtime says so. */
	if (v->unknown != NULL || v->n_words > 0 || (v->format != NULL && !json && strcmp(v->format, "table") != 0))
		return forward(v, e);
	marker_path(v, "", path, sizeof(path));
	d = opendir(path);
	if (d == NULL)
		return forward(v, e); /* none of ours */
	theirs = forwarded_output(v);
	if (json && (json_parse(theirs, strlen(theirs), &list, NULL) < 0 || !json_is_array(list))) {
		json_free(list);
		list = json_array();
	}
	if (!json && theirs[0] != '\0')
		fputs(theirs, stdout);
	else if (!json && !v->quiet)
		printf("%-20s %-11s %-11s %-28s %-30s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER");
	for (struct dirent *f = readdir(d); f != NULL; f = readdir(d)) {
		_clean_json_ struct json *container = NULL;
		_clean_marker_ struct marker m = {0};
		int r;

		if (f->d_name[0] == '.' || marker_read(v, f->d_name, &m) < 0)
			continue;
		r = fetch(v, &m, &container, e);
		if (r == 0)
			print_row(v, f->d_name, container, list);
		else if (e->code != PHI_NOT_FOUND)
			return r;
	}
	if (list != NULL) {
		text = json_print(list);
		puts(text);
	}
	return 0;
}
