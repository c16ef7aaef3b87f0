/* The boot configuration that an image carries in /boot/config.json, of both formats, as a spec. Pure.
 * runPHI's fields and defaults: runphi_manager v0.5.5 frontend_to_backend and its KVM branch. */
#include "spec.h"

#include "error.h"
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* The fields of runPHI that ask for something we do not have. Absent, null, "", 0, false and [] ask for nothing. */
static const char *const refused[] = {
	"accelerators", "bitstream", "region",	   "disk_type",	"disk_image", "disk_size",	  "isolcpu",
	   "nohz_full",  "steer_irq", "irq_steering", "emulator_pinning", "emulatorpin",
};

static bool asks_for_nothing(const struct json *j)
{
	const char *s = json_string(j);
	int64_t n;
	bool b;

	return j == NULL || json_is_null(j) || (s != NULL && (s[0] == '\0' || strcmp(s, "none") == 0 || strcmp(s, "no") == 0)) ||
	       (json_is_bool(j, &b) && !b) || (json_is_array(j) && json_first(j) == NULL) ||
	       (json_integer(j, &n) && n == 0);
}

static char *copy(const char *s)
{
	char *d = strdup(s);

	if (d == NULL)
		abort();
	return d;
}

/* The text of a member, NULL where it is absent or empty; an error where it is no text. */
static int text_member(const struct json *j, const char *name, const char **ret, struct phi_error *e)
{
	const struct json *m = json_get(j, name);
	char where[80];

	*ret = json_string(m);
	if (m != NULL && !json_is_null(m) && *ret == NULL) {
		snprintf(where, sizeof(where), "/%s", name);
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "a string was expected, not %s", json_kind(m));
	}
	if (*ret != NULL && (*ret)[0] == '\0')
		*ret = NULL;
	return 0;
}

/* A path member, made absolute: runPHI takes "boot/x" and "/boot/x" alike. */
static int path_member(const struct json *j, const char *name, char **ret, struct phi_error *e)
{
	const char *s;
	char where[80];
	int r = text_member(j, name, &s, e);

	if (r < 0 || s == NULL)
		return r;
	snprintf(where, sizeof(where), "/%s", name);
	if (asprintf(ret, "%s%s", s[0] == '/' ? "" : "/", s) < 0)
		abort();
	return field_check_path(*ret, where, e);
}

static int read_sizes(const struct json *j, struct spec *s, struct phi_error *e)
{
	const struct json *memory = json_get(j, "memory"), *vcpus = json_get(j, "vcpus"),
			  *pins = json_get(j, "vcpu_pinning");
	int64_t n;

	if (!asks_for_nothing(memory)) {
		if (!json_integer(memory, &n) || n < 1 || n > 1 << 30)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/memory", "a number of MiB was expected");
		spec_set_memory(s, (uint64_t)n << 20);
	}
	if (!asks_for_nothing(vcpus)) {
		if (!json_integer(vcpus, &n) || n < 1 || n > PHI_CPUS_MAX)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/vcpus", "1 to %d CPUs can be asked for",
					     PHI_CPUS_MAX);
		s->cpus.count = n;
		s->cpus.has_count = true;
	}
	if (asks_for_nothing(pins))
		return 0;
	if (!json_is_array(pins))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/vcpu_pinning", "an array was expected");
	for (const struct json *p = json_first(pins); p != NULL; p = json_next(p)) {
		if (!json_integer(json_get(p, "pcpu"), &n) || n < 0 || n >= PHI_CPUS_MAX)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/vcpu_pinning",
					     "each item needs a \"pcpu\" from 0 to %d", PHI_CPUS_MAX - 1);
		cpuset_add(&s->cpus.set, (unsigned)n);
	}
	if (cpuset_count(&s->cpus.set) != json_length(pins) || (s->cpus.has_count && s->cpus.count != (int64_t)json_length(pins)))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/vcpu_pinning",
				     "each of the vcpus needs a pcpu of its own: %zu pins name %u CPUs", json_length(pins),
				     cpuset_count(&s->cpus.set));
	s->cpus.has_set = true;
	s->cpus.has_count = false;
	return 0;
}

/* A network with the host, by shared memory. The words of runPHI's KVM branch ask for one of QEMU's. */
static int read_net(const struct json *net, struct spec *s, struct phi_error *e)
{
	const char *word = json_string(net);
	struct spec_link *l;
	bool on;

	if (asks_for_nothing(net))
		return 0;
	if (!(json_is_bool(net, &on) && on) && !(word != NULL && (strcmp(word, "yes") == 0 || strcmp(word, "ivshmem") == 0)))
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/net",
				     "the image asks for a network that phid cannot give; \"yes\" (with the host, by shared memory) and \"none\" are possible");
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		abort();
	*l = (struct spec_link){.host = true, .protocol = LINK_NETWORK};
	s->links = (struct field_array){1, l};
	return 0;
}

/* An image for a remote processor: its inmate is the firmware, its vcpus are so many processors. */
static void for_remote(struct spec *s)
{
	s->boot.firmware.path = PHI_TAKE(s->boot.inmate.path);
	s->remote.count = s->cpus.has_count && s->cpus.count <= PHI_REMOTE_MAX ? s->cpus.count : 1;
	s->remote.has_count = true;
	s->cpus.count = 0;
	s->cpus.has_count = true;
}

static int read_runphi(const struct json *j, struct spec *s, struct phi_error *e)
{
	_clean_free_ char *inmate = NULL;
	const char *os, *at;
	char where[80];
	bool remote = false;
	int r;

	if (!json_is_object(j))
		return phi_error_set(e, PHI_INVALID, EINVAL, "", "an object was expected, not %s", json_kind(j));
	for (size_t i = 0; i < PHI_COUNT(refused); i++) {
		if (asks_for_nothing(json_get(j, refused[i])))
			continue;
		snprintf(where, sizeof(where), "/%s", refused[i]);
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, where,
				     "the image asks for \"%s\", which phid cannot give", refused[i]);
	}
	r = read_net(json_get(j, "net"), s, e);
	if (r < 0)
		return r;
	r = text_member(j, "os_var", &os, e);
	if (r < 0)
		return r;
	r = path_member(j, "kernel", &s->boot.kernel.path, e);
	if (r < 0)
		return r;
	r = path_member(j, "inmate", &inmate, e);
	if (r < 0)
		return r;
	static const char *const ramdisks[] = {"ramdisk", "initrd", "cpio"};
	for (size_t i = 0; i < PHI_COUNT(ramdisks) && s->boot.initrd.path == NULL; i++) {
		r = path_member(j, ramdisks[i], &s->boot.initrd.path, e);
		if (r < 0)
			return r;
	}
	r = path_member(j, "dtb", &s->boot.dtb.path, e);
	if (r < 0)
		return r;
	if (s->boot.kernel.path == NULL || (os != NULL && strcmp(os, "linux") != 0)) {
		free(PHI_TAKE(s->boot.kernel.path));
		free(PHI_TAKE(s->boot.initrd.path));
		free(PHI_TAKE(s->boot.dtb.path)); /* runPHI gives it to Linux only */
		s->boot.inmate.path = inmate != NULL ? PHI_TAKE(inmate) : copy("/boot/boot.bin");
	}
	r = text_member(j, "starting_vaddress", &at, e);
	if (r < 0)
		return r;
	if (at != NULL && s->boot.inmate.path != NULL) {
		if (!field_parse_address(at, &s->boot.inmate.at))
			return phi_error_set(e, PHI_INVALID, EINVAL, "/starting_vaddress",
					     "\"%.40s\" is not a hexadecimal address", at);
		s->boot.inmate.has_at = true;
	}
	r = text_member(j, "cmdline", &at, e);
	if (r < 0)
		return r;
	if (at != NULL && strlen(at) > PHI_CMDLINE_MAX)
		return phi_error_set(e, PHI_INVALID, ERANGE, "/cmdline", "the text has %zu bytes; at most %d are allowed", strlen(at),
				     PHI_CMDLINE_MAX);
	if (at != NULL)
		s->boot.cmdline = copy(at);
	r = read_sizes(j, s, e);
	if (r == 0 && !asks_for_nothing(json_get(j, "rpu_req"))) {
		if (!json_is_bool(json_get(j, "rpu_req"), &remote) || s->boot.inmate.path == NULL)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/rpu_req", "true or false was expected, and with true an inmate to run");
		for_remote(s);
	}
	return r < 0 ? r : spec_check(s, "", e);
}

int spec_read_boot_config(const char *text, size_t len, struct spec *s, struct phi_error *e)
{
	_clean_json_ struct json *j = NULL;
	const char *format;
	int r;

	spec_init(s);
	r = json_parse(text, len, &j, e);
	if (r < 0)
		return r;
	format = json_get_string(j, "format");
	if (json_get(j, "format") == NULL)
		return read_runphi(j, s, e);
	if (format == NULL || strcmp(format, "phid-boot/1") != 0)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/format",
				     "the format \"%.40s\" is not known; this phid reads \"phid-boot/1\"",
				     format ? format : "");
	json_remove(j, "format");
	return spec_read(j, FIELD_FILE, "", s, e);
}
