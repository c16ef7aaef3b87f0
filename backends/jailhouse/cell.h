/* Jailhouse's cell and system configurations: the binary files that its driver takes (CELL_CREATE, ENABLE), read and written by our
 * own code. Pure. Facts of the layouts: siemens/jailhouse e57d1eff and DanieleOttaviano/jailhouse ca88efec,
 * include/jailhouse/cell-config.h, and the cells that runPHI ships. All numbers are little endian and packed. */
#pragma once

#include "limits.h"
#include "platform.h" /* the words of flavours and architectures */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json;
struct phi_error;

/* Revision and signature do not tell them apart, so the platform says which one its hypervisor is. */
enum jh_flavour {
	JH_UPSTREAM,  /* revision 14 */
	JH_RUNPHI,    /* revision 13 of runPHI's hypervisor: another signature, no architecture, coloured memory */
	JH_OMNIVISOR, /* revision 14 with remote processors, coloured memory, upstream's signature */
	JH_FLAVOURS,
};

enum jh_arch { JH_X86, JH_ARM, JH_ARM64, JH_ARCHS };

enum { /* cell flags */
	JH_PASSIVE = 1,
	JH_TEST_DEVICE = 2,
	JH_AARCH32 = 4,
};
#define JH_CONSOLE_PERMITTED 0x40000000u
#define JH_CONSOLE_ACTIVE    0x80000000u

enum { /* memory flags */
	JH_READ = 1,
	JH_WRITE = 2,
	JH_EXECUTE = 4,
	JH_DMA = 8,
	JH_IO = 0x10,
	JH_COMM = 0x20,
	JH_LOADABLE = 0x40,
	JH_ROOTSHARED = 0x80,
	JH_NO_HUGEPAGES = 0x100,
	JH_COLORED = 0x200,	    /* not upstream */
	JH_COLORED_NO_COPY = 0x400, /* not upstream */
	JH_TCM_A = 0x1000,	    /* Omnivisor */
	JH_TCM_B = 0x2000,	    /* Omnivisor */
	JH_IO_UNALIGNED = 0x8000,
	JH_IO_8 = 0x10000,
	JH_IO_16 = 0x20000,
	JH_IO_32 = 0x40000,
	JH_IO_64 = 0x80000,
};

enum { JH_PCI_DEVICE = 1, JH_PCI_BRIDGE = 2, JH_PCI_IVSHMEM = 3 };

#define JH_NAME_SIZE	32	    /* with its NUL */
#define JH_CPU_BYTES	(PHI_CPUS_MAX / 8)
#define JH_FILE_MAX	(64u << 10) /* the driver takes no more: E2BIG */
#define JH_PINS		128	    /* of one irqchip entry */

struct jh_console {
	uint64_t address, clock_reg;
	uint32_t size, divider, gate_nr;
	uint16_t type, flags;
};

struct jh_memory {
	uint64_t phys, virt, size, flags;
	uint64_t colors; /* not upstream */
};

struct jh_cache {
	uint32_t start, size;
	uint8_t type, padding;
	uint16_t flags;
};

struct jh_irqchip {
	uint64_t address;
	uint32_t id, pin_base; /* interrupt number of the first bit; on arm INTID, 32 is SPI 0 */
	uint32_t pins[JH_PINS / 32];
};

struct jh_pio {
	uint16_t base, length;
};

struct jh_pci {
	uint8_t type, iommu;
	uint16_t domain, bdf;
	uint32_t bar_mask[6];
	uint16_t caps_start, num_caps;
	uint8_t msi_vectors, msi_flags; /* bit 0: 64 bits, bit 1: maskable */
	uint16_t msix_vectors, msix_region_size;
	uint64_t msix_address;
	uint32_t shmem_start; /* index of the first of its regions in memory[] */
	uint8_t shmem_id, shmem_peers;
	uint16_t shmem_protocol;
};

struct jh_capability {
	uint16_t id, start, len, flags;
};

struct jh_stream {
	uint32_t id;
};

/* The arrays of a file, in its order. */
enum jh_list { JH_MEMORY, JH_CACHE, JH_IRQCHIP, JH_PIO, JH_PCI, JH_CAPABILITY, JH_STREAM, JH_LISTS };

struct jh_cell {
	int flavour, arch;
	char name[JH_NAME_SIZE];
	uint32_t id; /* of the driver's making */
	uint32_t flags, vpci_irq_base;
	uint64_t reset_address, reply_timeout;
	struct jh_console console;
	/* Bitmaps, as long as the file has them. */
	uint8_t cpus[JH_CPU_BYTES], rcpus[JH_CPU_BYTES], fpga[JH_CPU_BYTES];
	uint32_t n_cpus, n_rcpus, n_fpga; /* bytes; the latter two Omnivisor's */
	struct jh_array {
		uint32_t n;
		void *items; /* struct jh_memory, ... by the list's kind */
	} lists[JH_LISTS];
};

#define JH_ITEM(cell, list, type, i) ((const struct type *)(const void *)(cell)->lists[list].items + (i))

struct jh_iommu {
	uint32_t type, size; /* 0: none */
	uint64_t base;
};
#define JH_IOMMUS 8

/* A system configuration: what the checks of cells need of it, and the root cell. */
struct jh_system {
	uint32_t flags;
	struct jh_memory hypervisor;
	struct jh_console console; /* where the hypervisor prints: address, size and type */
	uint64_t mmconfig_base;
	uint8_t mmconfig_end_bus;
	uint16_t pci_domain;
	struct jh_iommu iommus[JH_IOMMUS];
	uint8_t gic_version; /* arm */
	uint64_t gicd, gicc, gich, gicv, gicr;
	struct jh_cell root;
};

/* Reads n bytes. Refuses what is malformed, by its offset; *c is freeable whatever the answer. */
int jh_cell_read(const void *bytes, size_t n, enum jh_flavour flavour, struct jh_cell *c, struct phi_error *e);
/* The flavour that the bytes can be; JH_OMNIVISOR and JH_UPSTREAM are told apart by their length. Negative with the error. */
int jh_cell_guess(const void *bytes, size_t n, struct phi_error *e);
size_t jh_cell_size(const struct jh_cell *c);
/* Writes jh_cell_size bytes. A cell that jh_cell_read gave is the same bytes again. */
void jh_cell_write(const struct jh_cell *c, void *bytes);
void jh_cell_free(struct jh_cell *c);

/* Of the flavour upstream; the others' layouts are not known. */
int jh_system_read(const void *bytes, size_t n, enum jh_flavour flavour, struct jh_system *s, struct phi_error *e);
void jh_system_free(struct jh_system *s);

/* Appends n zeroed items; answers the first. */
void *jh_append(struct jh_cell *c, enum jh_list list, uint32_t n);

/* cell_json.c: a cell as a document for people and programs, and back. Nothing is lost on the way but bytes of the name that are not
 * ASCII, or behind its end. */
struct json *jh_cell_to_json(const struct jh_cell *c);
int jh_cell_from_json(const struct json *j, struct jh_cell *c, struct phi_error *e);
/* In words, a line a part; malloc'd. */
char *jh_cell_to_text(const struct jh_cell *c);

/* check.c: what upstream's offline check knows, and what neither it nor the hypervisor does. */
struct jh_finding {
	const char *code; /* like "memory-overlap" */
	int cell, other;  /* indices; -1: the root or the system */
	char pointer[64]; /* in the cell's document */
	char detail[200];
};
struct jh_check {
	const struct jh_cell *cells;
	size_t n;
	const struct jh_system *system; /* NULL: only the cells among each other */
	bool w_xor_x;
	const struct jh_memory *linux_ram; /* ranges that the root's kernel uses (/proc/iomem "System RAM"), or NULL */
	size_t n_linux_ram;
	void (*found)(void *ud, const struct jh_finding *f);
	void *ud;
};
/* Calls found for each; answers how many. */
size_t jh_check(const struct jh_check *k);
