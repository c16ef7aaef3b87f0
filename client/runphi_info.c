/* What clients ask about a cell beside its state, and what they ask for that no cell can do. */
#include "runphi.h"

#include "clean.h"
#include "json.h"

#include <errno.h>
#include <string.h>

int verb_ps(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	_clean_json_ struct json *container = NULL, *list = json_array();
	int64_t keeper = 0, cell = 0;
	int r = fetch(v, m, &container, e);

	if (r < 0)
		return r;
	json_integer(json_get(json_get(container, "keeper"), "pid"), &keeper);
	json_integer(json_get(json_get(container, "cell"), "pid"), &cell);
	if (keeper == 0)
		return phi_error_set(e, PHI_STATE, ESRCH, "/state", "container not running: %s is %s", v->words[0],
				     json_get_string(container, "state"));
	json_add_integer(list, NULL, keeper);
	if (cell != 0)
		json_add_integer(list, NULL, cell);
	if (v->format != NULL && strcmp(v->format, "json") == 0) {
		_clean_free_ char *text = json_print(list);

		puts(text);
		return 0;
	}
	printf("PID        ROLE\n%-10d keeper\n", (int)keeper);
	if (cell != 0)
		printf("%-10d cell\n", (int)cell);
	return 0;
}

int verb_exec(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	(void)m;
	return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "",
			     "exec: not supported for cells: %s is a partition with a system of its own, no process can be put into it", v->words[0]);
}

int verb_checkpoint(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	(void)m;
	return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "", "%s: not supported for cells: the state of %s cannot be saved",
			     v->command, v->words[0]);
}

/* The forwarded runtime's document (ordinary containers are its), with annotations of ours; else what holds for both. */
int verb_features(const struct invocation *v, struct phi_error *e)
{
	static const char ours[] = "{\"ociVersionMin\":\"1.0.0\",\"ociVersionMax\":\"1.0.2\",\"hooks\":[\"prestart\",\"createRuntime\","
				   "\"createContainer\",\"startContainer\",\"poststart\",\"poststop\"]}";
	_clean_free_ char *theirs = forwarded_output(v), *text = NULL;
	_clean_json_ struct json *j = NULL, *annotations = NULL;

	if (json_parse(theirs, strlen(theirs), &j, NULL) < 0 || !json_is_object(j)) {
		json_free(PHI_TAKE(j));
		if (json_parse(ours, strlen(ours), &j, e) < 0)
			return -EINVAL;
	}
	annotations = json_take(j, "annotations");
	if (!json_is_object(annotations)) {
		json_free(annotations);
		annotations = json_object();
	}
	json_add_string(annotations, "org.runphi.version", PACKAGE_VERSION);
	json_add(j, "annotations", PHI_TAKE(annotations));
	text = json_print(j);
	puts(text);
	return 0;
}
