/* The platform file: table and rules. Pure. */
#include "platform.h"

#include "clean.h"
#include "error.h"
#include "json.h"

#include <errno.h>
#include <string.h>

#define P(member) offsetof(struct platform, member)
#define C(member) offsetof(struct platform_cpu, member)
#define L(member) offsetof(struct platform_pool, member)

const char *const platform_pool_kinds[] = {"carveout", "host", "hugepages", "tcm", "ocm", NULL};
const char *const jh_flavours[] = {"upstream-14", "runphi-13", "omnivisor-14", NULL};
const char *const jh_archs[] = {"x86", "arm", "arm64", NULL};
static const char *const unused_words[] = {"host", NULL}; /* offline and isolated are not built */

static const struct field_table topology_table = {
	sizeof(struct platform_cpu), (const struct field[]){
		{.name = "id", .type = FIELD_INTEGER, .offset = C(id), .max = PHI_CPUS_MAX - 1, .required = true},
		{.name = "package", .type = FIELD_INTEGER, .offset = C(package), .max = 65535},
		{.name = "cluster", .type = FIELD_INTEGER, .offset = C(cluster), .max = 65535},
		{.name = "core", .type = FIELD_INTEGER, .offset = C(core), .max = 65535},
		{.name = "node", .type = FIELD_INTEGER, .offset = C(node), .max = 65535},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table cpus_table = {
	0, (const struct field[]){
		{.name = "ids", .type = FIELD_CPUS, .offset = P(cpus.ids), .present = P(cpus.has_ids)},
		{.name = "host", .type = FIELD_CPUS, .offset = P(cpus.host), .present = P(cpus.has_host)},
		{.name = "unused", .type = FIELD_ENUM, .offset = P(cpus.unused), .words = unused_words},
		{.name = "topology", .type = FIELD_ARRAY, .offset = P(cpus.topology), .max = PHI_CPUS_MAX,
		 .sub = &topology_table},
		{.name = "classes", .type = FIELD_NOT_BUILT},
		{.name = "domains", .type = FIELD_NOT_BUILT},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table pool_table = {
	sizeof(struct platform_pool), (const struct field[]){
		{.name = "name", .type = FIELD_STRING, .offset = L(name), .min = 1, .max = PHI_NAME_MAX, .required = true},
		{.name = "kind", .type = FIELD_ENUM, .offset = L(kind), .words = platform_pool_kinds, .required = true},
		{.name = "base", .type = FIELD_ADDRESS, .offset = L(base), .present = L(has_base)},
		{.name = "size", .type = FIELD_SIZE, .offset = L(size), .min = 4096, .max = 1ull << 52, .required = true},
		{.name = "node", .type = FIELD_INTEGER, .offset = L(node), .max = 65535},
		{.name = "access", .type = FIELD_NOT_BUILT},
		{.name = "use", .type = FIELD_NOT_BUILT},
		{.name = "scrub", .type = FIELD_NOT_BUILT},
		{.name = "seen_at", .type = FIELD_NOT_BUILT},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

#define O(member) offsetof(struct platform_mmio, member)
#define D(member) offsetof(struct platform_device, member)

const char *const platform_controllers[] = {"gicv2", "gicv3", NULL};
static const char *const handover_words[] = {"absent", "none", NULL}; /* unbind is not built */

static const struct field_table mmio_table = {
	sizeof(struct platform_mmio), (const struct field[]){
		{.name = "base", .type = FIELD_ADDRESS, .offset = O(base), .required = true},
		{.name = "size", .type = FIELD_SIZE, .offset = O(size), .min = 1, .max = 1ull << 40, .required = true},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table irq_table = {
	sizeof(struct platform_irq), (const struct field[]){
		{.name = "spi", .type = FIELD_INTEGER, .offset = offsetof(struct platform_irq, spi), .max = PHI_SPI_MAX, .required = true},
		{.name = "gsi", .type = FIELD_NOT_BUILT},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table device_host_table = {
	0, (const struct field[]){
		{.name = "handover", .type = FIELD_ENUM, .offset = D(host.handover), .words = handover_words, .required = true},
		{.name = "sysfs", .type = FIELD_NOT_BUILT},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table device_table = {
	sizeof(struct platform_device), (const struct field[]){
		{.name = "name", .type = FIELD_STRING, .offset = D(name), .min = 1, .max = PHI_NAME_MAX, .required = true},
		{.name = "kind", .type = FIELD_STRING, .offset = D(kind), .min = 1, .max = PHI_NAME_MAX, .required = true},
		{.name = "type", .type = FIELD_STRING, .offset = D(type), .min = 1, .max = PHI_NAME_MAX},
		{.name = "mmio", .type = FIELD_ARRAY, .offset = D(mmio), .max = PHI_DEVICE_PARTS_MAX, .sub = &mmio_table},
		{.name = "irqs", .type = FIELD_ARRAY, .offset = D(irqs), .max = PHI_DEVICE_PARTS_MAX, .sub = &irq_table},
		{.name = "host", .type = FIELD_OBJECT, .sub = &device_host_table, .required = true},
		{.name = "stream_ids", .type = FIELD_NOT_BUILT},
		{.name = "dma", .type = FIELD_NOT_BUILT},
		{.name = "group", .type = FIELD_NOT_BUILT},
		{.name = "share", .type = FIELD_NOT_BUILT},
		{.name = "requires", .type = FIELD_NOT_BUILT},
		{.name = "safe_state", .type = FIELD_NOT_BUILT},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table interrupts_table = {
	0, (const struct field[]){
		{.name = "controller", .type = FIELD_ENUM, .offset = P(interrupts.controller), .words = platform_controllers, .required = true},
		{.name = "base", .type = FIELD_ADDRESS, .offset = P(interrupts.base), .required = true},
		{.name = "virtual", .type = FIELD_NOT_BUILT},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table qemu_table = {
	0, (const struct field[]){
		{.name = "accel", .type = FIELD_TEXTS, .offset = P(qemu_accel), .max = 2},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table jailhouse_table = {
	0, (const struct field[]){
		{.name = "flavour", .type = FIELD_ENUM, .offset = P(jailhouse.flavour), .words = jh_flavours, .required = true},
		{.name = "architecture", .type = FIELD_ENUM, .offset = P(jailhouse.arch), .words = jh_archs, .required = true},
		{.name = "root_cell", .type = FIELD_PATH, .offset = P(jailhouse.root_cell)},
		{.name = "device", .type = FIELD_PATH, .offset = P(jailhouse.device)},
		{.name = "sysfs", .type = FIELD_PATH, .offset = P(jailhouse.sysfs)},
		{.name = "comm_region", .type = FIELD_ADDRESS, .offset = P(jailhouse.comm_region), .present = P(jailhouse.has_comm)},
		{.name = "host_enable", .type = FIELD_NOT_BUILT},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table backends_table = {
	0, (const struct field[]){
		{.name = "qemu", .type = FIELD_OBJECT, .sub = &qemu_table},
		{.name = "jailhouse", .type = FIELD_OBJECT, .sub = &jailhouse_table, .present = P(jailhouse.present)},
		{.name = "xen", .type = FIELD_NOT_BUILT},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

const struct field_table platform_table = {
	sizeof(struct platform), (const struct field[]){
		{.name = "format", .type = FIELD_STRING, .offset = P(format), .max = 32, .required = true},
		{.name = "board", .type = FIELD_STRING, .offset = P(board), .max = 128},
		{.name = "note", .type = FIELD_ANY},
		{.name = "cpus", .type = FIELD_OBJECT, .sub = &cpus_table},
		{.name = "memory", .type = FIELD_ARRAY, .offset = P(memory), .max = PHI_POOLS_MAX, .sub = &pool_table},
		{.name = "backends", .type = FIELD_OBJECT, .sub = &backends_table},
		{.name = "include", .type = FIELD_NOT_BUILT},
		{.name = "expect", .type = FIELD_NOT_BUILT},
		{.name = "interrupts", .type = FIELD_OBJECT, .sub = &interrupts_table, .present = P(interrupts.present)},
		{.name = "devices", .type = FIELD_ARRAY, .offset = P(devices), .max = PHI_PLATFORM_DEVICES_MAX, .sub = &device_table},
		{.name = "remote_processors", .type = FIELD_NOT_BUILT},
		{.name = "links", .type = FIELD_NOT_BUILT},
		{0},
	}};

static const struct platform_pool *pools(const struct platform *p)
{
	return p->memory.items;
}

static const struct platform_mmio *mmio(const struct platform_device *d, size_t i)
{
	return (const struct platform_mmio *)d->mmio.items + i;
}

/* Registers in common, or an interrupt: what each can be given without the other has neither. */
static bool devices_meet(const struct platform_device *a, const struct platform_device *b, const char **ret_what)
{
	for (size_t i = 0; i < a->mmio.n; i++)
		for (size_t k = 0; k < b->mmio.n; k++) {
			const struct platform_mmio *m = mmio(a, i), *o = mmio(b, k);

			/* By pages: what is mapped is whole pages. */
			*ret_what = "registers on a page of";
			if (m->base / 4096 <= (o->base + o->size - 1) / 4096 && o->base / 4096 <= (m->base + m->size - 1) / 4096)
				return true;
		}
	for (size_t i = 0; i < a->irqs.n; i++)
		for (size_t k = 0; k < b->irqs.n; k++) {
			*ret_what = "an interrupt of";
			if (((const struct platform_irq *)a->irqs.items)[i].spi == ((const struct platform_irq *)b->irqs.items)[k].spi)
				return true;
		}
	return false;
}

static int check_devices(const struct platform *p, struct phi_error *e)
{
	const struct platform_device *devices = p->devices.items;
	char where[60];

	for (size_t i = 0; i < p->devices.n; i++) {
		const struct platform_device *d = &devices[i];
		const char *what;

		snprintf(where, sizeof(where), "/devices/%zu", i);
		if (d->irqs.n > 0 && !p->interrupts.present)
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "it has interrupts, and \"interrupts\" does not say whose they are");
		for (size_t m = 0; m < d->mmio.n; m++)
			if (mmio(d, m)->base + mmio(d, m)->size > PHI_ADDRESS_MAX)
				return phi_error_set(e, PHI_INVALID, ERANGE, where, "its registers end beyond 2^62");
		for (size_t k = 0; k < i; k++) {
			if (strcmp(d->name, devices[k].name) == 0)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "the name \"%s\" is there twice", d->name);
			if (devices_meet(d, &devices[k], &what))
				return phi_error_set(e, PHI_INVALID, EINVAL, where,
						     "it has %s \"%s\"; devices that go together (\"group\") are not built", what, devices[k].name);
		}
	}
	return 0;
}

int platform_check(const struct platform *p, struct phi_error *e)
{
	char where[60];

	for (int c = cpuset_next(&p->cpus.host, 0); c >= 0; c = cpuset_next(&p->cpus.host, (unsigned)c + 1))
		if (p->cpus.has_ids && !cpuset_has(&p->cpus.ids, (unsigned)c))
			return phi_error_set(e, PHI_INVALID, EINVAL, "/cpus/host", "CPU %d is not in cpus.ids", c);
	for (size_t i = 0; i < p->memory.n; i++) {
		const struct platform_pool *a = pools(p) + i;

		snprintf(where, sizeof(where), "/memory/%zu", i);
		if (a->has_base != (a->kind != POOL_HOST && a->kind != POOL_HUGEPAGES))
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "a pool of kind \"%s\" %s a base",
					     platform_pool_kinds[a->kind], a->has_base ? "has not" : "needs");
		if (a->size % 4096 != 0 || a->base % 4096 != 0 || a->base + a->size > PHI_ADDRESS_MAX)
			return phi_error_set(e, PHI_INVALID, EINVAL, where,
					     "base and size must be multiples of 4096 and end below 2^62");
		for (size_t k = 0; k < i; k++) {
			const struct platform_pool *b = pools(p) + k;

			if (strcmp(a->name, b->name) == 0)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "the name \"%s\" is there twice",
						     a->name);
			if (a->has_base && b->has_base && a->base < b->base + b->size && b->base < a->base + a->size)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "pool \"%s\" overlaps pool \"%s\"",
						     a->name, b->name);
		}
	}
	for (size_t i = 0; i < p->qemu_accel.n; i++)
		if (strcmp(p->qemu_accel.values[i], "kvm") != 0 && strcmp(p->qemu_accel.values[i], "tcg") != 0)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/backends/qemu/accel",
					     "\"%.20s\" is none of kvm, tcg", p->qemu_accel.values[i]);
	return check_devices(p, e);
}

int platform_read(const char *text, size_t len, struct platform *p, struct phi_error *e)
{
	_clean_json_ struct json *j = NULL;
	int r = json_parse(text, len, &j, e);

	if (r < 0)
		return r;
	r = fields_read(j, &platform_table, FIELD_FILE, "", p, e);
	if (r < 0)
		return r;
	if (strcmp(p->format, "phid-platform/1") != 0)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/format",
				     "the format \"%.40s\" is not known; this phid reads \"phid-platform/1\"",
				     p->format);
	return platform_check(p, e);
}

struct json *platform_to_json(const struct platform *p)
{
	struct json *j = json_object();

	fields_write(p, &platform_table, j);
	return j;
}

void platform_free(struct platform *p)
{
	fields_free(p, &platform_table);
}

const struct platform_cpu *platform_cpu(const struct platform *p, unsigned cpu)
{
	const struct platform_cpu *rows = p->cpus.topology.items;

	for (size_t i = 0; i < p->cpus.topology.n; i++)
		if (rows[i].id == (int64_t)cpu)
			return rows + i;
	return NULL;
}

const struct platform_pool *platform_pool(const struct platform *p, const char *name)
{
	for (size_t i = 0; i < p->memory.n; i++)
		if (strcmp(pools(p)[i].name, name) == 0)
			return pools(p) + i;
	return NULL;
}

const struct platform_device *platform_device(const struct platform *p, const char *name)
{
	const struct platform_device *devices = p->devices.items;

	for (size_t i = 0; i < p->devices.n; i++)
		if (strcmp(devices[i].name, name) == 0)
			return devices + i;
	return NULL;
}
