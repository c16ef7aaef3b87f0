/* The platform file: its table. Pure; the rules between members are in platform_check.c. */
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
static const char *const handover_words[] = {"absent", "none", "unbind", NULL};

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

static const struct field_table stream_table = {
	sizeof(struct platform_stream), (const struct field[]){
		{.name = "id", .type = FIELD_INTEGER, .offset = offsetof(struct platform_stream, id), .max = UINT32_MAX, .required = true},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

#define W(member) offsetof(struct platform_write, member)

static const struct field_table write_table = {
	sizeof(struct platform_write), (const struct field[]){
		{.name = "address", .type = FIELD_ADDRESS, .offset = W(address), .required = true},
		{.name = "value", .type = FIELD_ADDRESS, .offset = W(value), .required = true},
		{.name = "width", .type = FIELD_INTEGER, .offset = W(width), .min = 8, .max = 64, .required = true},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table device_host_table = {
	0, (const struct field[]){
		{.name = "handover", .type = FIELD_ENUM, .offset = D(host.handover), .words = handover_words, .required = true},
		{.name = "sysfs", .type = FIELD_PATH, .offset = D(host.sysfs)},
		{.name = "tty", .type = FIELD_PATH, .offset = D(host.tty)},
		{.name = "baud", .type = FIELD_INTEGER, .offset = D(host.baud), .min = 300, .max = 4000000, .present = D(host.has_baud)},
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
		{.name = "stream_ids", .type = FIELD_ARRAY, .offset = D(stream_ids), .max = PHI_DEVICE_PARTS_MAX, .sub = &stream_table},
		{.name = "dma", .type = FIELD_BOOL, .offset = D(dma)},
		{.name = "unsafe_dma", .type = FIELD_BOOL, .offset = D(unsafe_dma)},
		{.name = "group", .type = FIELD_STRING, .offset = D(group), .min = 1, .max = PHI_NAME_MAX},
		{.name = "safe_state", .type = FIELD_ARRAY, .offset = D(safe_state), .max = PHI_DEVICE_PARTS_MAX, .sub = &write_table},
		{.name = "share", .type = FIELD_NOT_BUILT},
		{.name = "requires", .type = FIELD_NOT_BUILT},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table interrupts_table = {
	0, (const struct field[]){
		{.name = "controller", .type = FIELD_ENUM, .offset = P(interrupts.controller), .words = platform_controllers, .required = true},
		{.name = "base", .type = FIELD_ADDRESS, .offset = P(interrupts.base), .required = true},
		{.name = "virtual", .type = FIELD_ARRAY, .offset = P(interrupts.virtual), .max = PHI_VIRTUAL_IRQS_MAX, .sub = &irq_table},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

#define R(member) offsetof(struct platform_remote, member)
#define RM(member) offsetof(struct platform_remote_memory, member)
#define H(member) offsetof(struct platform_host_slot, member)

static const char *const bank_words[] = {"", "a", "b", NULL};

static const struct field_table remote_memory_table = {
	sizeof(struct platform_remote_memory), (const struct field[]){
		{.name = "base", .type = FIELD_ADDRESS, .offset = RM(base), .required = true},
		{.name = "size", .type = FIELD_SIZE, .offset = RM(size), .min = 4096, .max = 1ull << 32, .required = true},
		{.name = "at", .type = FIELD_ADDRESS, .offset = RM(at), .present = RM(has_at)},
		{.name = "bank", .type = FIELD_ENUM, .offset = RM(bank), .words = bank_words},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table remote_table = {
	sizeof(struct platform_remote), (const struct field[]){
		{.name = "name", .type = FIELD_STRING, .offset = R(name), .min = 1, .max = PHI_NAME_MAX, .required = true},
		{.name = "id", .type = FIELD_INTEGER, .offset = R(id), .max = PHI_REMOTE_MAX - 1, .required = true},
		{.name = "match", .type = FIELD_STRING, .offset = R(match), .min = 1, .max = PHI_NAME_MAX},
		{.name = "memory", .type = FIELD_ARRAY, .offset = R(memory), .max = PHI_DEVICE_PARTS_MAX, .sub = &remote_memory_table},
		{.name = "isolation", .type = FIELD_NOT_BUILT},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table host_slot_table = {
	sizeof(struct platform_host_slot), (const struct field[]){
		{.name = "slot", .type = FIELD_INTEGER, .offset = H(slot), .max = PHI_SLOTS - 1, .required = true},
		{.name = "base", .type = FIELD_ADDRESS, .offset = H(base), .required = true},
		{.name = "common", .type = FIELD_SIZE, .offset = H(common), .max = 1ull << 32},
		{.name = "output", .type = FIELD_SIZE, .offset = H(output), .min = 4096, .max = 1ull << 32, .required = true},
		{.name = "peers", .type = FIELD_INTEGER, .offset = H(peers), .min = 2, .max = PHI_LINK_PEERS_MAX, .required = true},
		{.name = "id", .type = FIELD_INTEGER, .offset = H(id), .max = PHI_LINK_PEERS_MAX - 1},
		{.name = "protocol", .type = FIELD_ENUM, .offset = H(protocol), .words = link_protocols},
		{.name = "note", .type = FIELD_ANY},
		{0},
	}};

static const struct field_table links_table = {
	0, (const struct field[]){
		{.name = "memory", .type = FIELD_STRING, .offset = P(links.memory), .min = 1, .max = PHI_NAME_MAX},
		{.name = "domain", .type = FIELD_INTEGER, .offset = P(links.domain), .max = 65535},
		{.name = "host_slots", .type = FIELD_ARRAY, .offset = P(links.host_slots), .max = PHI_SLOTS, .sub = &host_slot_table},
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
		{.name = "firmware", .type = FIELD_PATH, .offset = P(jailhouse.firmware)},
		{.name = "mem", .type = FIELD_PATH, .offset = P(jailhouse.mem)},
		{.name = "comm_region", .type = FIELD_ADDRESS, .offset = P(jailhouse.comm_region), .present = P(jailhouse.has_comm)},
		{.name = "host_enable", .type = FIELD_BOOL, .offset = P(jailhouse.host_enable)},
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
		{.name = "remote_processors", .type = FIELD_ARRAY, .offset = P(remote), .max = PHI_REMOTE_MAX, .sub = &remote_table},
		{.name = "links", .type = FIELD_OBJECT, .sub = &links_table, .present = P(links.present)},
		{0},
	}};

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
	const struct platform_pool *pools = p->memory.items;

	for (size_t i = 0; i < p->memory.n; i++)
		if (strcmp(pools[i].name, name) == 0)
			return pools + i;
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

const struct platform_remote *platform_remote(const struct platform *p, const char *name)
{
	const struct platform_remote *remote = p->remote.items;

	for (size_t i = 0; i < p->remote.n; i++)
		if (strcmp(remote[i].name, name) == 0)
			return remote + i;
	return NULL;
}
