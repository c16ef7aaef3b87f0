/* What a bundle's config.json asks of a cell, laid into its spec: the `vm` section, annotations, `linux.resources`. Pure. */
#include "oci.h"

#include "cpuset.h"
#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PREFIX "org.runphi."

static char *copy(const char *s)
{
	char *d = strdup(s);

	if (d == NULL)
		abort();
	return d;
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
		if (!json_integer(memory, &n) || n < 4096 || n % 4096 != 0 || n > INT64_C(1) << 50)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/vm/hwConfig/memory",
					     "a number of bytes, a multiple of 4096, was expected");
		spec_set_memory(s, (uint64_t)n);
	}
	return 0;
}

int oci_vm_to_spec(const struct json *vm, struct spec *s, struct phi_error *e)
{
	const struct json *kernel = json_get(vm, "kernel"), *initrd = json_get(kernel, "initrd");
	const struct json *hypervisor = json_get(vm, "hypervisor");
	_clean_free_ char *unused = NULL;
	int r;

	if (!json_is_object(vm))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/vm", "an object was expected");
	if (json_get(vm, "image") != NULL)
		return phi_error_set(e, PHI_NOT_BUILT, EOPNOTSUPP, "/vm/image", "a disk image is not built yet");
	/* Which hypervisor it is, the backend says. */
	r = hypervisor != NULL ? absolute_path(json_get(hypervisor, "path"), "/vm/hypervisor/path", &unused, e) : 0;
	if (r == 0)
		r = join_parameters(json_get(hypervisor, "parameters"), "/vm/hypervisor/parameters", &unused, e);
	if (r < 0)
		return r;
	if (json_first(json_get(hypervisor, "parameters")) != NULL)
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

/* ---- annotations ---- */

/* Where clients of the kubelet say what a container is to its pod, and the name it has in the pod. containerd:
 * pkg/cri/annotations; CRI-O: pkg/annotations, and the kubelet's own label. */
static const char *const types[] = {"io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"};
static const char *const names[] = {"io.kubernetes.cri.container-name", "io.kubernetes.container.name"};

static const char *first_of(const struct oci_config *c, const char *const *keys)
{
	const char *value = oci_annotation(c, keys[0]);

	return value != NULL ? value : oci_annotation(c, keys[1]);
}

bool oci_in_pod(const struct oci_config *c)
{
	return first_of(c, types) != NULL;
}

bool oci_is_sandbox(const struct oci_config *c)
{
	const char *type = first_of(c, types);

	return type != NULL && strcmp(type, "sandbox") == 0;
}

/* The path in "org.runphi.PATH", and in "org.runphi.container.NAME.PATH" with *ret_of its NAME; NULL of other annotations. */
static const char *own_path(const char *annotation, const char **ret_of, size_t *ret_n)
{
	const char *path = annotation + strlen(PREFIX), *name = path + strlen("container.");

	*ret_of = NULL;
	if (strncmp(annotation, PREFIX, strlen(PREFIX)) != 0)
		return NULL;
	if (strncmp(path, "container.", strlen("container.")) != 0)
		return path;
	*ret_of = name;
	*ret_n = strcspn(name, "."); /* a DNS label: no dots */
	return name[*ret_n] == '.' ? name + *ret_n + 1 : "";
}

static bool is_name(const char *name, const char *of, size_t n)
{
	return name != NULL && strlen(name) == n && strncmp(name, of, n) == 0;
}

const char *oci_own_annotation(const struct oci_config *c, const char *path)
{
	const char *name = first_of(c, names), *value = NULL, *of;
	size_t n;

	for (size_t i = 0; i < c->annotations.n; i++) {
		const char *found = own_path(c->annotations.names[i], &of, &n);

		if (found == NULL || strcmp(found, path) != 0)
			continue;
		if (of != NULL && is_name(name, of, n))
			return c->annotations.values[i];
		if (of == NULL)
			value = c->annotations.values[i];
	}
	return value;
}

static int read_annotation(const char *annotation, const char *path, const char *value, struct spec *s, struct phi_error *e)
{
	char where[200];
	uint64_t size;
	int r;

	field_pointer_join(where, sizeof(where), "/annotations", annotation);
	if (s != NULL && strcmp(path, "memory") == 0 && value[0] != '[') { /* so many bytes: the usual wish */
		if (!field_parse_size(value, &size) || size < 4096 || size % 4096 != 0 || size > 1ull << 50)
			return phi_error_set(e, PHI_INVALID, EINVAL, where,
					     "\"%.40s\" is not a size (\"64M\", a multiple of 4096 bytes), nor a list of regions", value);
		spec_set_memory(s, size);
		return 0;
	}
	r = fields_read_text(path, value, &spec_table, where, s, e);
	if (r < 0 && e->code == PHI_UNKNOWN_MEMBER)
		return phi_error_set(e, PHI_UNKNOWN_MEMBER, EINVAL, where, "phid knows no annotation %.100s; see runphi(8)", annotation);
	return r;
}

/* Of two members that exclude each other an annotation's wins over what the image says. */
static void settle_pairs(const struct oci_config *c, struct spec *s)
{
	bool count = oci_own_annotation(c, "cpus.count") != NULL, set = oci_own_annotation(c, "cpus.set") != NULL,
	     kernel = oci_own_annotation(c, "boot.kernel") != NULL, inmate = oci_own_annotation(c, "boot.inmate") != NULL,
	     initrd = oci_own_annotation(c, "boot.initrd") != NULL;

	if (count && !set)
		s->cpus.has_set = false;
	if (set && !count)
		s->cpus.has_count = false;
	if (kernel && !inmate)
		field_blob_free(&s->boot.inmate);
	if (inmate && !kernel)
		field_blob_free(&s->boot.kernel);
	if (inmate && !initrd)
		field_blob_free(&s->boot.initrd);
}

int oci_annotations_to_spec(const struct oci_config *c, struct spec *s, struct phi_error *e)
{
	const char *name = first_of(c, names);

	/* Those of the pod first, so that those of its container have the last word. */
	for (int own = 0; own <= 1; own++) {
		for (size_t i = 0; i < c->annotations.n; i++) {
			const char *annotation = c->annotations.names[i], *of, *path;
			bool ours;
			size_t n;
			int r;

			path = own_path(annotation, &of, &n);
			if (path == NULL || (of != NULL) != own || strcmp(path, "runtime") == 0)
				continue;
			if (of != NULL && name == NULL)
				return phi_error_set(e, PHI_INVALID, EINVAL, "/annotations",
						     "%.100s is for a container of a pod, and this is none", annotation);
			ours = of == NULL || is_name(name, of, n);
			if (ours && c->has_vm && strncmp(path, "boot.", 5) == 0)
				return phi_error_set(e, PHI_INVALID, EINVAL, "/annotations",
						     "%.100s: the vm section says what to boot", annotation);
			r = read_annotation(annotation, path, c->annotations.values[i], ours ? s : NULL, e);
			if (r < 0)
				return r;
		}
	}
	settle_pairs(c, s);
	return 0;
}

/* ---- linux.resources ---- */

/* As many CPUs as the quota lets run at once, rounded up (sched-bwc.rst; the period's default is 100 ms). */
bool oci_quota_cpus(const struct json *cpu, int64_t *ret)
{
	int64_t quota, period;

	if (!json_integer(json_get(cpu, "quota"), &quota) || quota <= 0)
		return false;
	if (!json_integer(json_get(cpu, "period"), &period) || period <= 0)
		period = 100000;
	*ret = quota / period + (quota % period != 0);
	return true;
}

int oci_resources_to_spec(const struct oci_config *c, struct spec *s, struct phi_error *e)
{
	const struct json *resources = json_get(json_get(c->document, "linux"), "resources"), *cpu = json_get(resources, "cpu"),
			  *pages = json_get(resources, "hugepageLimits");
	const char *cpus = json_get_string(cpu, "cpus");
	int64_t count, limit;
	size_t i = 0;
	char where[60];

	for (const struct json *p = json_first(pages); p != NULL; p = json_next(p), i++) {
		snprintf(where, sizeof(where), "/linux/resources/hugepageLimits/%zu", i);
		if (json_integer(json_get(p, "limit"), &limit) && limit > 0)
			return phi_error_set(e, PHI_NOT_BUILT, EOPNOTSUPP, where, "huge pages for a cell are not built yet; leave them out");
	}
	/* The kubelet's are shares of the host's CPUs, its cpuset included: no wish of the pod for CPUs of its own. */
	if (!oci_in_pod(c) && !s->cpus.has_count && !s->cpus.has_set) {
		if (cpus != NULL && cpus[0] != '\0') {
			int r = cpuset_parse(cpus, "/linux/resources/cpu/cpus", &s->cpus.set, e);

			if (r < 0)
				return r;
			s->cpus.has_set = true;
		} else if (oci_quota_cpus(cpu, &count)) {
			if (count > PHI_CPUS_MAX)
				return phi_error_set(e, PHI_INVALID, ERANGE, "/linux/resources/cpu/quota",
						     "%" PRId64 " CPUs are asked for; at most %d can be", count, PHI_CPUS_MAX);
			s->cpus.count = count;
			s->cpus.has_count = true;
		}
	}
	if (s->memory.n == 0 && json_integer(json_get(json_get(resources, "memory"), "limit"), &limit) && limit >= 4096 &&
	    limit <= INT64_C(1) << 50) /* more is what engines write for "no limit" */
		spec_set_memory(s, (uint64_t)limit & ~UINT64_C(4095));
	return 0;
}

/* ---- mounts ---- */

/* Where every client mounts something, whatever runs in the container: /proc and the like, files of the host's name and
 * resolver, secrets. A cell has nothing of it, and none of it was asked for by a person. "/" at the end: all beneath. */
static const char *const usual_mounts[] = {
	"/proc/", "/dev/", "/sys/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv", "/run/secrets/",
	"/var/run/secrets/", "/tmp/slurm/", /* slurmstepd's own */
};

static bool is_usual(const char *destination, const char *type)
{
	if (strcmp(destination, "/run") == 0 && type != NULL && strcmp(type, "tmpfs") == 0)
		return true; /* ctr's own: empty, no file of the host */
	for (size_t i = 0; i < PHI_COUNT(usual_mounts); i++) {
		size_t n = strlen(usual_mounts[i]);

		if (strcmp(destination, usual_mounts[i]) == 0)
			return true;
		if (usual_mounts[i][n - 1] == '/' && strncmp(destination, usual_mounts[i], n - 1) == 0 &&
		    (destination[n - 1] == '\0' || destination[n - 1] == '/'))
			return true;
	}
	return false;
}

int oci_check_mounts(const struct oci_config *c, struct phi_error *e)
{
	size_t i = 0;
	char where[40];

	for (const struct json *m = json_first(json_get(c->document, "mounts")); m != NULL; m = json_next(m), i++) {
		const char *destination = json_get_string(m, "destination");

		if (destination != NULL && strstr(destination, "/..") == NULL && is_usual(destination, json_get_string(m, "type")))
			continue;
		snprintf(where, sizeof(where), "/mounts/%zu", i);
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, where,
				     "nothing can be mounted at %.100s: a cell sees no files of the host; put what it needs into its image",
				     destination != NULL ? destination : "(no destination)");
	}
	return 0;
}
