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

static int absolute_path(const struct json *j, const char *pointer, char **ret, struct phi_error *e)
{
	const char *s = json_string(j);
	int r = s != NULL ? field_check_path(s, pointer, e)
			  : phi_error_set(e, PHI_INVALID, EINVAL, pointer, "an absolute path was expected, not %s", json_kind(j));

	if (r < 0)
		return r;
	free(*ret);
	*ret = copy(s);
	return 0;
}

/* kernel.parameters, an array of strings, joined by spaces as the kernel gets them. */
static int join_parameters(const struct json *j, const char *pointer, char **ret, struct phi_error *e)
{
	char line[PHI_CMDLINE_MAX + 1] = "";
	size_t n = 0;

	if (j == NULL)
		return 0;
	if (!json_is_array(j))
		return phi_error_set(e, PHI_INVALID, EINVAL, pointer, "an array of strings was expected, not %s", json_kind(j));
	for (const struct json *p = json_first(j); p != NULL; p = json_next(p)) {
		const char *s = json_string(p);

		if (s == NULL || n + strlen(s) + (n ? 2 : 1) > sizeof(line))
			return phi_error_set(e, PHI_INVALID, EINVAL, pointer,
					     "strings of together at most %d bytes were expected", PHI_CMDLINE_MAX);
		n += (size_t)snprintf(line + n, sizeof(line) - n, "%s%s", n ? " " : "", s);
	}
	free(*ret);
	*ret = copy(line);
	return 0;
}

static int read_hw_config(const struct json *hw, struct spec *s, struct phi_error *e)
{
	static const char *const refused[] = {"deviceTree", "dtdevs", "iomems", "irqs"};
	const struct json *vcpus = json_get(hw, "vcpus"), *memory = json_get(hw, "memory");
	char where[60];
	int64_t n;

	if (hw != NULL && !json_is_object(hw))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/vm/hwConfig", "an object was expected, not %s", json_kind(hw));
	for (size_t i = 0; i < PHI_COUNT(refused); i++) {
		const struct json *m = json_get(hw, refused[i]);

		if (m == NULL || (json_is_array(m) && json_first(m) == NULL))
			continue;
		snprintf(where, sizeof(where), "/vm/hwConfig/%s", refused[i]);
		return phi_error_set(e, PHI_NOT_BUILT, EOPNOTSUPP, where, "\"%s\" is not built yet", refused[i]);
	}
	if (vcpus != NULL) {
		if (!json_integer(vcpus, &n) || n < 1 || n > PHI_CPUS_MAX)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/vm/hwConfig/vcpus",
					     "a number of CPUs was expected");
		s->cpus.count = n;
		s->cpus.has_count = true;
		s->cpus.has_set = false;
	}
	if (memory != NULL) {
		struct spec_memory *m;

		if (!json_integer(memory, &n) || n < 4096 || n % 4096 != 0 || n > INT64_C(1) << 50)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/vm/hwConfig/memory",
					     "a number of bytes, a multiple of 4096, was expected");
		m = calloc(1, sizeof(*m));
		if (m == NULL)
			abort();
		m->size = (uint64_t)n;
		for (size_t i = 0; i < s->memory.n; i++) /* one region in place of what there was */
			free(((struct spec_memory *)s->memory.items)[i].pool);
		free(s->memory.items);
		s->memory = (struct field_array){1, m};
	}
	return 0;
}

int oci_vm_to_spec(const struct json *vm, struct spec *s, struct phi_error *e)
{
	const struct json *kernel = json_get(vm, "kernel"), *initrd = json_get(kernel, "initrd");
	int r;

	if (!json_is_object(vm))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/vm", "an object was expected");
	if (json_get(vm, "image") != NULL)
		return phi_error_set(e, PHI_NOT_BUILT, EOPNOTSUPP, "/vm/image", "a disk image is not built yet");
	if (json_first(json_get(json_get(vm, "hypervisor"), "parameters")) != NULL)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/vm/hypervisor/parameters",
				     "parameters for the hypervisor's program are not passed on; use the spec's members");
	r = absolute_path(json_get(kernel, "path"), "/vm/kernel/path", &s->boot.kernel.path, e);
	if (r < 0)
		return r;
	if (initrd != NULL) {
		r = absolute_path(initrd, "/vm/kernel/initrd", &s->boot.initrd.path, e);
		if (r < 0)
			return r;
	}
	r = join_parameters(json_get(kernel, "parameters"), "/vm/kernel/parameters", &s->boot.cmdline, e);
	if (r < 0)
		return r;
	return read_hw_config(json_get(vm, "hwConfig"), s, e);
}
