/* What a create of runPHI compiles: a cell with a UART, an interrupt controller and an ivshmem device (facts of the format: bench/cell.h). */
#include "cell.h"

struct {
	struct cell_desc cell;
	__u64 cpus[1];
	struct memory memory[7];
	struct irqchip irqchips[1];
	struct pci_device pci_devices[1];
} __attribute__((packed)) config = {
	.cell = {
		.signature = {'J', 'H', 'C', 'L', 'L'},
		.architecture = ARCH_ARM64,
		.revision = REVISION,
		.name = "inmate",
		.flags = PASSIVE,
		.cpu_set_size = CPU_SET_SIZE(&config),
		.num_memory_regions = COUNT(config.memory),
		.num_irqchips = COUNT(config.irqchips),
		.num_pci_devices = COUNT(config.pci_devices),
		.vpci_irq_base = 108,
		.console = {.address = 0x09000000, .size = 0x1000, .type = CON_PL011, .flags = CON_MMIO | CON_REGDIST_4},
	},
	.cpus = {0x8},
	.memory = {
		/* the link: state table, common section, an output section each */
		{.phys_start = 0x7fb00000, .virt_start = 0x7fb00000, .size = 0x1000, .flags = MEM_READ | MEM_ROOTSHARED},
		{0},
		{.phys_start = 0x7fb01000, .virt_start = 0x7fb01000, .size = 0x7f000, .flags = MEM_READ | MEM_ROOTSHARED},
		{.phys_start = 0x7fb80000, .virt_start = 0x7fb80000, .size = 0x7f000, .flags = MEM_READ | MEM_WRITE | MEM_ROOTSHARED},
		/* UART */
		{.phys_start = 0x09000000, .virt_start = 0x09000000, .size = 0x1000, .flags = MEM_READ | MEM_WRITE | MEM_IO | MEM_ROOTSHARED},
		/* RAM */
		{.phys_start = 0x70000000, .virt_start = 0, .size = 0x10000, .flags = MEM_READ | MEM_WRITE | MEM_EXECUTE | MEM_LOADABLE},
		/* communication region */
		{.virt_start = 0x80000000, .size = 0x1000, .flags = MEM_READ | MEM_WRITE | MEM_COMM},
	},
	.irqchips = {{.address = 0x08000000, .pin_base = 32, .pin_bitmap = {1u << 1, 0, 0, 0xf << 12}}},
	.pci_devices = {{
		.type = PCI_IVSHMEM,
		.domain = 1,
		.bdf = 0 << 3,
		.bar_mask = {0xfffff000},
		.shmem_regions_start = 0,
		.shmem_dev_id = 1,
		.shmem_peers = 2,
		.shmem_protocol = 1,
	}},
};
