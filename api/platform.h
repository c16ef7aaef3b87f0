/* What a host has to give: the platform file, "phid-platform/1" (schema/platform.schema.json). Pure. */
#pragma once

#include "cpuset.h"
#include "field.h"

enum pool_kind { POOL_CARVEOUT, POOL_HOST, POOL_HUGEPAGES, POOL_TCM, POOL_OCM };
extern const char *const platform_pool_kinds[], *const platform_controllers[];
extern const char *const jh_flavours[], *const jh_archs[]; /* end in NULL */

struct platform_cpu { /* one row of cpus.topology */
	int64_t id, package, cluster, core, node;
};

struct platform_pool {
	char *name;
	int kind; /* enum pool_kind */
	uint64_t base, size;
	int64_t node;
	bool has_base;
};

struct platform_mmio {
	uint64_t base, size;
};

struct platform_irq {
	int64_t spi; /* of the GIC: INTID - 32 */
};

struct platform_device {
	char *name, *kind, *type; /* type: what a driver of the guest looks for, "pl011" */
	struct field_array mmio, irqs; /* struct platform_mmio, platform_irq */
	struct {
		int handover; /* enum platform_handover */
	} host;
};
/* What the host has to do with it. absent: Linux does not know it; none: the operator sees to it. */
enum platform_handover { HANDOVER_ABSENT, HANDOVER_NONE };

struct platform {
	char *format, *board;
	struct {
		struct cpuset ids, host;
		bool has_ids, has_host;
		int unused;
		struct field_array topology; /* struct platform_cpu */
	} cpus;
	struct field_array memory; /* struct platform_pool */
	struct field_array devices; /* struct platform_device */
	struct {
		int controller; /* index into platform_controllers */
		uint64_t base;	/* of the distributor */
		bool present;
	} interrupts;
	struct field_strings qemu_accel; /* in order of preference */
	struct {
		int flavour, arch; /* enum jh_flavour, jh_arch of backends/jailhouse/cell.h */
		char *root_cell;   /* the system configuration, or NULL */
		char *device, *sysfs; /* NULL: where the driver has them */
		uint64_t comm_region; /* address in each cell */
		bool has_comm, present;
	} jailhouse;
};

extern const struct field_table platform_table;

int platform_read(const char *text, size_t len, struct platform *p, struct phi_error *e);
/* Rules between members; call again after gaps were filled from the running host. */
int platform_check(const struct platform *p, struct phi_error *e);
struct json *platform_to_json(const struct platform *p);
void platform_free(struct platform *p);
const struct platform_cpu *platform_cpu(const struct platform *p, unsigned cpu); /* NULL if not listed */
const struct platform_device *platform_device(const struct platform *p, const char *name);
const struct platform_pool *platform_pool(const struct platform *p, const char *name);
