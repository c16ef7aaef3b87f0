/* The spec's table, defaults and rules. Pure. */
#include "spec.h"

#include "error.h"
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define S(member) offsetof(struct spec, member)
#define M(member) offsetof(struct spec_memory, member)
#define D(member) offsetof(struct spec_device, member)

const char *const spec_backend_words[] = {"auto", "qemu", "jailhouse", "xen", "remoteproc", "mica", "sim", NULL};
const char *const link_protocols[] = {"raw", "network", NULL};
static const char *const machine_words[] = {"", "microvm", "q35", NULL};
static const char *const keeper_lost_words[] = {"stop", "keep", NULL};
static const char *const then_words[] = {"kill", "nothing", NULL};

static const struct field_table boot_table = {
	0, (const struct field[]){
		{.name = "kernel", .type = FIELD_BLOB, .offset = S(boot.kernel)},
		{.name = "initrd", .type = FIELD_BLOB, .offset = S(boot.initrd)},
		{.name = "inmate", .type = FIELD_BLOB, .offset = S(boot.inmate)},
		{.name = "cmdline", .type = FIELD_STRING, .offset = S(boot.cmdline), .max = PHI_CMDLINE_MAX},
		{.name = "machine", .type = FIELD_ENUM, .offset = S(boot.machine), .words = machine_words},
		{.name = "dtb", .type = FIELD_BLOB, .offset = S(boot.dtb)},
		{.name = "firmware", .type = FIELD_BLOB, .offset = S(boot.firmware)},
		{.name = "args", .type = FIELD_NOT_BUILT},
		{.name = "entry", .type = FIELD_ADDRESS, .offset = S(boot.entry), .present = S(boot.has_entry)},
		{0},
	}};

static const struct field_table cpus_table = {
	0, (const struct field[]){
		{.name = "count", .type = FIELD_INTEGER, .offset = S(cpus.count), .max = PHI_CPUS_MAX,
		 .present = S(cpus.has_count)},
		{.name = "set", .type = FIELD_CPUS, .offset = S(cpus.set), .present = S(cpus.has_set)},
		{.name = "class", .type = FIELD_NOT_BUILT},
		{0},
	}};

static const struct field_table memory_table = {
	sizeof(struct spec_memory), (const struct field[]){
		{.name = "size", .type = FIELD_SIZE, .offset = M(size), .min = 4096, .max = 1ull << 50,
		 .required = true},
		{.name = "at", .type = FIELD_ADDRESS, .offset = M(at), .present = M(has_at)},
		{.name = "pool", .type = FIELD_STRING, .offset = M(pool), .min = 1, .max = PHI_NAME_MAX},
		{.name = "colors", .type = FIELD_ADDRESS, .offset = M(colors), .present = M(has_colors)},
		{.name = "access", .type = FIELD_NOT_BUILT},
		{0},
	}};

static const struct field_table device_table = {
	sizeof(struct spec_device), (const struct field[]){
		{.name = "name", .type = FIELD_STRING, .offset = D(name), .min = 1, .max = PHI_NAME_MAX},
		{.name = "kind", .type = FIELD_STRING, .offset = D(kind), .min = 1, .max = PHI_NAME_MAX},
		{.name = "as", .type = FIELD_NOT_BUILT},
		{.name = "share", .type = FIELD_NOT_BUILT},
		{0},
	}};

#define K(member) offsetof(struct spec_link, member)

static const struct field_table link_table = {
	sizeof(struct spec_link), (const struct field[]){
		{.name = "name", .type = FIELD_ID, .offset = K(name)},
		{.name = "size", .type = FIELD_SIZE, .offset = K(size), .min = 16384, .max = 1ull << 32, .present = K(has_size)},
		{.name = "protocol", .type = FIELD_ENUM, .offset = K(protocol), .words = link_protocols},
		{.name = "peers", .type = FIELD_INTEGER, .offset = K(peers), .min = 2, .max = PHI_LINK_PEERS_MAX, .present = K(has_peers)},
		{.name = "role", .type = FIELD_INTEGER, .offset = K(role), .max = PHI_LINK_PEERS_MAX - 1, .present = K(has_role)},
		{.name = "host", .type = FIELD_BOOL, .offset = K(host)},
		{0},
	}};

static const struct field_table remote_table = {
	0, (const struct field[]){
		{.name = "count", .type = FIELD_INTEGER, .offset = S(remote.count), .min = 1, .max = PHI_REMOTE_MAX, .present = S(remote.has_count)},
		{.name = "names", .type = FIELD_TEXTS, .offset = S(remote.names), .max = PHI_REMOTE_MAX},
		{0},
	}};

static const struct field_table log_table = {
	0, (const struct field[]){
		{.name = "max", .type = FIELD_SIZE, .offset = S(log_max), .min = PHI_LOG_MIN, .max = PHI_LOG_MAX},
		{.name = "keep_on_failure", .type = FIELD_NOT_BUILT},
		{0},
	}};

static const struct field_table console_table = {
	0, (const struct field[]){
		{.name = "log", .type = FIELD_OBJECT, .sub = &log_table},
		{.name = "via", .type = FIELD_NOT_BUILT},
		{0},
	}};

static const struct field_table stop_table = {
	0, (const struct field[]){
		{.name = "grace_ms", .type = FIELD_INTEGER, .offset = S(stop.grace_ms), .max = 3600000},
		{.name = "then", .type = FIELD_ENUM, .offset = S(stop.then), .words = then_words},
		{.name = "ask", .type = FIELD_NOT_BUILT},
		{0},
	}};

static const struct field_table lifecycle_table = {
	0, (const struct field[]){
		{.name = "keeper_lost", .type = FIELD_ENUM, .offset = S(keeper_lost), .words = keeper_lost_words},
		{.name = "autostart", .type = FIELD_NOT_BUILT},
		{.name = "restart", .type = FIELD_NOT_BUILT},
		{0},
	}};

const struct field_table spec_table = {
	sizeof(struct spec), (const struct field[]){
		{.name = "name", .type = FIELD_STRING, .offset = S(name), .min = 1, .max = PHI_NAME_MAX},
		{.name = "backend", .type = FIELD_ENUM, .offset = S(backend), .words = spec_backend_words},
		{.name = "criticality", .type = FIELD_STRING, .offset = S(criticality), .min = 1, .max = 32},
		{.name = "boot", .type = FIELD_OBJECT, .sub = &boot_table},
		{.name = "cpus", .type = FIELD_OBJECT, .sub = &cpus_table},
		{.name = "memory", .type = FIELD_ARRAY, .offset = S(memory), .max = PHI_MEMORY_REGIONS_MAX,
		 .sub = &memory_table},
		{.name = "console", .type = FIELD_OBJECT, .sub = &console_table},
		{.name = "stop", .type = FIELD_OBJECT, .sub = &stop_table},
		{.name = "lifecycle", .type = FIELD_OBJECT, .sub = &lifecycle_table},
		{.name = "labels", .type = FIELD_STRINGS, .offset = S(labels), .max = PHI_LABELS_MAX},
		{.name = "devices", .type = FIELD_ARRAY, .offset = S(devices), .max = PHI_DEVICES_MAX, .sub = &device_table},
		{.name = "remote_processors", .type = FIELD_OBJECT, .sub = &remote_table},
		{.name = "links", .type = FIELD_ARRAY, .offset = S(links), .max = PHI_LINKS_MAX, .sub = &link_table},
		{.name = "health", .type = FIELD_NOT_BUILT},
		{0},
	}};

void spec_init(struct spec *s)
{
	*s = (struct spec){.log_max = PHI_LOG_DEFAULT, .stop = {.grace_ms = 10000}};
}

void spec_free(struct spec *s)
{
	fields_free(s, &spec_table);
}

bool spec_boots(const struct spec *s)
{
	return s->boot.kernel.path != NULL || s->boot.inmate.path != NULL || s->boot.firmware.path != NULL;
}

static int check_links(const struct spec *s, const char *pointer, struct phi_error *e)
{
	const struct spec_link *l = s->links.items;
	char where[100];

	for (size_t i = 0; i < s->links.n; i++) {
		snprintf(where, sizeof(where), "%s/links/%zu", pointer, i);
		if (l[i].name == NULL && !l[i].host)
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "\"name\" is needed; only a link with the host can do without");
		if (l[i].size % 4096 != 0)
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "size: %" PRIu64 " is not a multiple of 4096 bytes", l[i].size);
		if (l[i].has_role && l[i].role >= (l[i].has_peers ? l[i].peers : 2))
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "role: %" PRIi64 " is not below the number of peers", l[i].role);
		for (size_t k = 0; k < i; k++)
			if (l[i].name != NULL && l[k].name != NULL && strcmp(l[i].name, l[k].name) == 0)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "the link \"%s\" is there twice", l[i].name);
	}
	return 0;
}

static int check_remote(const struct spec *s, const char *pointer, struct phi_error *e)
{
	bool any = s->remote.has_count || s->remote.names.n > 0;
	char where[100];

	snprintf(where, sizeof(where), "%s/remote_processors", pointer);
	if (s->remote.has_count && s->remote.names.n > 0)
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "give \"count\" or \"names\", not both");
	if (any && s->boot.firmware.path == NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "remote processors need \"boot\": {\"firmware\": an ELF file}");
	snprintf(where, sizeof(where), "%s/boot/firmware", pointer);
	if (!any && s->boot.firmware.path != NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "firmware is for \"remote_processors\", and the spec asks for none");
	snprintf(where, sizeof(where), "%s/cpus/count", pointer);
	if (s->cpus.has_count && s->cpus.count == 0 && !any)
		return phi_error_set(e, PHI_INVALID, ERANGE, where, "0 is below 1; only a cell of remote processors needs no CPU");
	return 0;
}

int spec_check(const struct spec *s, const char *pointer, struct phi_error *e)
{
	char where[100];
	int r;

	if (s->cpus.has_count && s->cpus.has_set) {
		snprintf(where, sizeof(where), "%s/cpus", pointer);
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "give \"count\" or \"set\", not both");
	}
	if (s->cpus.has_set && cpuset_count(&s->cpus.set) == 0) {
		snprintf(where, sizeof(where), "%s/cpus/set", pointer);
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "the set has no CPU");
	}
	if (s->boot.kernel.path != NULL && s->boot.inmate.path != NULL) {
		snprintf(where, sizeof(where), "%s/boot/inmate", pointer);
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "give \"kernel\" or \"inmate\", not both");
	}
	if (s->boot.initrd.path != NULL && s->boot.kernel.path == NULL) {
		snprintf(where, sizeof(where), "%s/boot/initrd", pointer);
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "an initrd needs a kernel");
	}
	if (s->boot.dtb.path != NULL && s->boot.kernel.path == NULL) {
		snprintf(where, sizeof(where), "%s/boot/dtb", pointer);
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "a device tree needs a kernel");
	}
	for (size_t i = 0; i < s->memory.n; i++) {
		const struct spec_memory *m = (const struct spec_memory *)s->memory.items + i;

		snprintf(where, sizeof(where), "%s/memory/%zu/size", pointer, i);
		if (m->size % 4096 != 0)
			return phi_error_set(e, PHI_INVALID, EINVAL, where,
					     "%" PRIu64 " is not a multiple of 4096 bytes", m->size);
		snprintf(where, sizeof(where), "%s/memory/%zu/at", pointer, i);
		if (m->has_at && (m->at % 4096 != 0 || m->at + m->size > PHI_ADDRESS_MAX))
			return phi_error_set(e, PHI_INVALID, EINVAL, where,
					     "the address is not a multiple of 4096 or the range ends beyond 2^62");
		snprintf(where, sizeof(where), "%s/memory/%zu/colors", pointer, i);
		if (m->has_colors && m->colors == 0)
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "the mask has no colour");
	}
	for (size_t i = 0; i < s->devices.n; i++) {
		const struct spec_device *d = (const struct spec_device *)s->devices.items + i;

		snprintf(where, sizeof(where), "%s/devices/%zu", pointer, i);
		if ((d->name == NULL) == (d->kind == NULL))
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "give \"name\" or \"kind\"");
	}
	r = check_links(s, pointer, e);
	return r < 0 ? r : check_remote(s, pointer, e);
}

void spec_set_memory(struct spec *s, uint64_t size)
{
	struct spec_memory *m = calloc(1, sizeof(*m));

	if (m == NULL)
		abort();
	m->size = size;
	for (size_t i = 0; i < s->memory.n; i++)
		free(((struct spec_memory *)s->memory.items)[i].pool);
	free(s->memory.items);
	s->memory = (struct field_array){1, m};
}

int spec_complete(struct spec *s, const char *pointer, struct phi_error *e)
{
	if (!s->cpus.has_count && !s->cpus.has_set) {
		s->cpus.count = s->remote.has_count || s->remote.names.n > 0 ? 0 : 1;
		s->cpus.has_count = true;
	}
	if (s->memory.n == 0)
		spec_set_memory(s, 64 << 20);
	return spec_check(s, pointer, e);
}

int spec_read(const struct json *j, enum field_form form, const char *pointer, struct spec *s, struct phi_error *e)
{
	int r;

	spec_init(s);
	r = fields_read(j, &spec_table, form, pointer, s, e);
	return r < 0 ? r : spec_check(s, pointer, e);
}

struct json *spec_to_json(const struct spec *s)
{
	struct json *j = json_object();

	fields_write(s, &spec_table, j);
	return j;
}
