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

static int read_annotations(const struct json *j, struct field_strings *ret, struct phi_error *e)
{
	size_t n = 0;

	if (j == NULL)
		return 0;
	if (!json_is_object(j))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/annotations", "an object was expected, not %s",
				     json_kind(j));
	ret->names = calloc(json_length(j) + 1, sizeof(char *));
	ret->values = calloc(json_length(j) + 1, sizeof(char *));
	if (ret->names == NULL || ret->values == NULL)
		abort();
	for (const struct json *m = json_first(j); m != NULL; m = json_next(m), n++) {
		if (json_string(m) == NULL || json_name(m)[0] == '\0')
			return phi_error_set(e, PHI_INVALID, EINVAL, "/annotations",
					     "annotation \"%.60s\" must have a name and a string for its value",
					     json_name(m));
		ret->names[n] = copy(json_name(m));
		ret->values[n] = copy(json_string(m));
		ret->n = n + 1;
	}
	return 0;
}

int oci_config_read(const char *text, size_t len, struct oci_config *c, struct phi_error *e)
{
	const char *version;
	const struct json *root, *process;
	int r = json_parse(text, len, &c->document, e);

	if (r < 0)
		return r;
	version = json_get_string(c->document, "ociVersion");
	if (version == NULL || strncmp(version, "1.", 2) != 0)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/ociVersion",
				     "\"%.30s\" is not a runtime-spec version 1.x", version ? version : "");
	root = json_get(c->document, "root");
	if (root != NULL) {
		const char *path = json_get_string(root, "path");

		if (path == NULL || path[0] == '\0' || strlen(path) > PHI_PATH_MAX)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/root/path", "a path was expected");
		c->root_path = copy(path);
	}
	process = json_get(c->document, "process");
	c->has_process = process != NULL;
	json_is_bool(json_get(process, "terminal"), &c->terminal);
	c->vm = json_get(c->document, "vm");
	c->has_vm = c->vm != NULL;
	return read_annotations(json_get(c->document, "annotations"), &c->annotations, e);
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
