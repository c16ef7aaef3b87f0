/* The bundle's hooks. A cell has no namespaces, so all six kinds run in the runtime's, with paths of the host. */
#include "runphi.h"

#include "clean.h"
#include "json.h"

#include <errno.h>
#include <string.h>

static const char *const kinds[] = {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"};

static int check_texts(const struct json *list, const char *where, struct phi_error *e)
{
	if (list != NULL && !json_is_array(list))
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "an array of strings was expected, not %s", json_kind(list));
	for (const struct json *t = json_first(list); t != NULL; t = json_next(t))
		if (json_string(t) == NULL)
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "an array of strings was expected");
	return 0;
}

static int check_one(const struct json *hook, const char *where, struct phi_error *e)
{
	const char *path = json_get_string(hook, "path");
	const struct json *timeout = json_get(hook, "timeout");
	char at[80];
	int64_t n;
	int r;

	if (path == NULL || path[0] != '/') {
		snprintf(at, sizeof(at), "%s/path", where);
		return phi_error_set(e, PHI_INVALID, EINVAL, at, "an absolute path was expected, not \"%.80s\"", path ? path : "");
	}
	if (timeout != NULL && (!json_integer(timeout, &n) || n < 1 || n > 86400)) {
		snprintf(at, sizeof(at), "%s/timeout", where);
		return phi_error_set(e, PHI_INVALID, EINVAL, at, "a number of seconds above 0 was expected");
	}
	snprintf(at, sizeof(at), "%s/args", where);
	r = check_texts(json_get(hook, "args"), at, e);
	snprintf(at, sizeof(at), "%s/env", where);
	return r < 0 ? r : check_texts(json_get(hook, "env"), at, e);
}

int hooks_check(const struct json *hooks, struct phi_error *e)
{
	for (size_t k = 0; k < PHI_COUNT(kinds); k++) {
		const struct json *list = json_get(hooks, kinds[k]);
		char where[64];
		int i = 0;

		snprintf(where, sizeof(where), "/hooks/%s", kinds[k]);
		if (list != NULL && !json_is_null(list) && !json_is_array(list))
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "an array was expected, not %s", json_kind(list));
		for (const struct json *h = json_first(list); h != NULL; h = json_next(h)) {
			int r;

			snprintf(where, sizeof(where), "/hooks/%s/%d", kinds[k], i++);
			r = check_one(h, where, e);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* The strings of a list as argv; *ret is freed, its strings are the document's. */
static char **texts(const struct json *list, const char *first)
{
	char **v = calloc(json_length(list) + 2, sizeof(char *));
	size_t n = 0;

	if (v == NULL)
		abort();
	if (first != NULL)
		v[n++] = (char *)(uintptr_t)first;
	for (const struct json *t = json_first(list); t != NULL; t = json_next(t))
		v[n++] = (char *)(uintptr_t)json_string(t);
	return v;
}

static int run_one(const struct json *hook, const char *state, struct phi_error *e)
{
	const char *path = json_get_string(hook, "path");
	const struct json *args = json_get(hook, "args");
	_clean_free_ char **argv = texts(args, json_first(args) == NULL ? path : NULL), **env = texts(json_get(hook, "env"), NULL);
	int64_t timeout = 0;

	json_integer(json_get(hook, "timeout"), &timeout);
	return program_run(path, argv, env, state, timeout, e);
}

int hooks_run(const char *hooks, const char *kind, const char *state, struct phi_error *e)
{
	_clean_json_ struct json *all = NULL;
	int i = 0;

	if (hooks == NULL || json_parse(hooks, strlen(hooks), &all, e) < 0)
		return 0;
	for (const struct json *h = json_first(json_get(all, kind)); h != NULL; h = json_next(h), i++) {
		int r = run_one(h, state, e);

		if (r == 0)
			continue;
		phi_error_wrap(e, "%s hook %d", kind, i);
		if (strcmp(kind, "poststop") != 0)
			return r;
		warn("%s", e->detail); /* runtime.md "Lifecycle", step 13 */
	}
	return 0;
}
