/* What a host has to give: the platform file, "phid-platform/1" (schema/platform.schema.json). Pure. */
#pragma once

#include "cpuset.h"
#include "field.h"
#include "grant.h"

enum pool_kind { POOL_CARVEOUT, POOL_HOST, POOL_HUGEPAGES, POOL_TCM, POOL_OCM };
extern const char *const platform_pool_kinds[], *const platform_controllers[];
extern const char *const jh_flavours[], *const jh_archs[]; /* end in NULL */

struct platform_cpu { /* one row of cpus.topology */
	int64_t id, package, cluster, core, node;
	uint32_t mpidr; /* the affinity in arm's register; of the running machine only, not in the file */
	bool has_mpidr;
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

struct platform_stream {
	int64_t id; /* 32 bits as the cell's file has them; of an MMU-500: id | mask_out << 16 */
};

struct platform_write { /* of a register, when its device leaves a cell */
	uint64_t address, value;
	int64_t width; /* 8, 16, 32 or 64 bits */
};

struct platform_device {
	char *name, *kind, *type; /* type: what a driver of the guest looks for, "pl011" */
	char *group;		  /* devices of one group go together; NULL: alone */
	struct field_array mmio, irqs; /* struct platform_mmio, platform_irq */
	struct field_array stream_ids; /* struct platform_stream */
	bool dma, unsafe_dma;	       /* it reads and writes memory by itself; nothing keeps it to the cell's */
	struct field_array safe_state; /* struct platform_write, in their order */
	struct {
		int handover; /* enum platform_handover */
		char *sysfs;  /* the device's directory, of "unbind" */
		char *tty;    /* the other end of an UART's line, or NULL */
		int64_t baud; /* of tty, 115200 if !has_baud */
		bool has_baud;
	} host;
};
/* What the host has to do with it. absent: Linux does not know it; none: the operator sees to it; unbind: Linux's driver has it
 * whenever no cell has. */
enum platform_handover { HANDOVER_ABSENT, HANDOVER_NONE, HANDOVER_UNBIND };
/* The type of the device that stands for the hypervisor's own console (of kind "console"). */
#define PLATFORM_HYPERVISOR_CONSOLE "jailhouse"

struct platform_remote_memory {
	uint64_t base, size, at; /* at: where the cell's file says it is; base if !has_at */
	int bank;		 /* enum platform_bank */
	bool has_at;
};
enum platform_bank { BANK_NONE, BANK_A, BANK_B };

struct platform_remote { /* a remote processor */
	char *name;
	int64_t id;   /* its bit in Omnivisor's rcpu set */
	char *match;  /* of /sys/class/remoteproc/<n>/name */
	struct field_array memory; /* struct platform_remote_memory */
};

/* Where the root cell has an end of a link (an ivshmem device of its configuration). Its memory: a page of states, `common` bytes that
 * all may write, `output` bytes of each peer. */
struct platform_host_slot {
	int64_t slot, peers, id; /* id: the root's end */
	uint64_t base, common, output;
	int protocol; /* enum link_protocol */
};

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
		struct field_array virtual; /* struct platform_irq: the first of four that no device has, for a cell's virtual PCI */
		bool present;
	} interrupts;
	struct field_array remote; /* struct platform_remote */
	struct {
		char *memory; /* the pool that links are made from; NULL: none can be made */
		int64_t domain; /* PCI domain of their devices */
		struct field_array host_slots; /* struct platform_host_slot */
		bool present;
	} links;
	struct field_strings qemu_accel; /* in order of preference */
	struct {
		int flavour, arch; /* enum jh_flavour, jh_arch of backends/jailhouse/cell.h */
		char *root_cell;   /* the system configuration, or NULL */
		char *device, *sysfs; /* NULL: where the driver has them */
		char *firmware; /* directory of remote processors' images; NULL: /lib/firmware */
		char *mem;	/* physical memory as a file; NULL: /dev/mem */
		uint64_t comm_region; /* address in each cell */
		bool has_comm, present;
		bool host_enable; /* at boot, by phid-jailhouse.service */
	} jailhouse;
};

extern const struct field_table platform_table;

/* *p is all zeros. */
int platform_read(const char *text, size_t len, struct platform *p, struct phi_error *e);
/* Rules between members; call again after gaps were filled from the running host. */
int platform_check(const struct platform *p, struct phi_error *e);
struct json *platform_to_json(const struct platform *p);
void platform_free(struct platform *p);
const struct platform_cpu *platform_cpu(const struct platform *p, unsigned cpu); /* NULL if not listed */
const struct platform_device *platform_device(const struct platform *p, const char *name);
const struct platform_remote *platform_remote(const struct platform *p, const char *name);
const struct platform_pool *platform_pool(const struct platform *p, const char *name);
