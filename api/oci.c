/* Reading a bundle's config.json. Pure. */
#include "oci.h"

#include "error.h"

#include <errno.h>
#include <string.h>

static char *copy(const char *s)
{
	char *d = strdup(s);

	if (d == NULL)
		abort();
	return d;
}

/* Those that are well formed; the error is of the first that is not. */
static int read_annotations(const struct json *j, struct field_strings *ret, struct phi_error *e)
{
	int r = 0;

	if (j == NULL)
		return 0;
	if (!json_is_object(j))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/annotations", "an object was expected, not %s",
				     json_kind(j));
	ret->names = calloc(json_length(j) + 1, sizeof(char *));
	ret->values = calloc(json_length(j) + 1, sizeof(char *));
	if (ret->names == NULL || ret->values == NULL)
		abort();
	for (const struct json *m = json_first(j); m != NULL; m = json_next(m)) {
		if (json_string(m) != NULL && json_name(m)[0] != '\0') {
			ret->names[ret->n] = copy(json_name(m));
			ret->values[ret->n++] = copy(json_string(m));
		} else if (r == 0) {
			r = phi_error_set(e, PHI_INVALID, EINVAL, "/annotations",
					  "annotation \"%.60s\" must have a name and a string for its value", json_name(m));
		}
	}
	return r;
}

/* SemVer 2.0: 1.x.y, with what may follow. */
static int check_version(const char *version, struct phi_error *e)
{
	const char *p = version != NULL && strncmp(version, "1.", 2) == 0 ? version + 2 : "";
	size_t minor = strspn(p, "0123456789"), patch = p[minor] == '.' ? strspn(p + minor + 1, "0123456789") : 0;

	if (minor > 0 && patch > 0 && strchr("-+", p[minor + 1 + patch]) != NULL) /* or its end */
		return 0;
	return phi_error_set(e, PHI_INVALID, EINVAL, "/ociVersion", "\"%.30s\" is not a runtime-spec version 1.x.y",
			     version ? version : "");
}

/* No cell uses them, but config.md asks for an error. */
static int check_process(const struct json *process, struct phi_error *e)
{
	const struct json *cwd = json_get(process, "cwd"), *limits = json_get(process, "rlimits");
	char where[40];
	int i = 0;

	if (cwd != NULL && (json_string(cwd) == NULL || json_string(cwd)[0] != '/'))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/process/cwd", "an absolute path was expected");
	for (const struct json *l = json_first(limits); l != NULL; l = json_next(l), i++) {
		const char *type = json_get_string(l, "type");

		for (const struct json *b = json_first(limits); type != NULL && b != l; b = json_next(b)) {
			const char *before = json_get_string(b, "type");

			if (before == NULL || strcmp(type, before) != 0)
				continue;
			snprintf(where, sizeof(where), "/process/rlimits/%d", i);
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "%.40s is there twice", type);
		}
	}
	return 0;
}

int oci_config_read(const char *text, size_t len, struct oci_config *c, struct phi_error *e)
{
	const struct json *root, *process;
	const char *path;
	struct phi_error wrong;
	int r = json_parse(text, len, &c->document, e), annotations;

	if (r < 0)
		return r;
	root = json_get(c->document, "root");
	path = json_get_string(root, "path");
	if (path != NULL && path[0] != '\0' && strlen(path) <= PHI_PATH_MAX)
		c->root_path = copy(path);
	process = json_get(c->document, "process");
	c->has_process = process != NULL;
	json_is_bool(json_get(process, "terminal"), &c->terminal);
	c->vm = json_get(c->document, "vm");
	c->has_vm = c->vm != NULL;
	annotations = read_annotations(json_get(c->document, "annotations"), &c->annotations, &wrong);

	r = check_version(json_get_string(c->document, "ociVersion"), e);
	if (r == 0 && root != NULL && c->root_path == NULL)
		r = phi_error_set(e, PHI_INVALID, EINVAL, "/root/path", "a path was expected");
	if (r == 0)
		r = check_process(process, e);
	if (r == 0 && annotations < 0) {
		*e = wrong;
		r = annotations;
	}
	return r;
}

void oci_config_free(struct oci_config *c)
{
	for (size_t i = 0; i < c->annotations.n; i++) {
		free(c->annotations.names[i]);
		free(c->annotations.values[i]);
	}
	free(c->annotations.names);
	free(c->annotations.values);
	free(c->root_path);
	json_free(c->document);
	*c = (struct oci_config){0};
}

const char *oci_annotation(const struct oci_config *c, const char *name)
{
	for (size_t i = 0; i < c->annotations.n; i++)
		if (strcmp(c->annotations.names[i], name) == 0)
			return c->annotations.values[i];
	return NULL;
}
