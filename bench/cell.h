/* The layout of a cell's configuration, revision 14, as a compiler is told it: for bench/cell.c alone. phid writes the bytes itself
 * (backends/jailhouse/cell.c). */
#pragma once

#include <linux/types.h>

#define SIGNATURE      "JHCLL"
#define REVISION       14
#define NAME_MAX_LEN   31
#define ARCH_ARM64     2
#define PASSIVE	       0x00000001
#define MEM_READ       0x0001
#define MEM_WRITE      0x0002
#define MEM_EXECUTE    0x0004
#define MEM_DMA	       0x0008
#define MEM_IO	       0x0010
#define MEM_COMM       0x0020
#define MEM_LOADABLE   0x0040
#define MEM_ROOTSHARED 0x0080
#define CON_PL011      3
#define CON_MMIO       0x0001
#define CON_REGDIST_4  0x0002
#define PCI_IVSHMEM    3

struct console {
	__u64 address;
	__u32 size;
	__u16 type, flags;
	__u32 divider, gate_nr;
	__u64 clock_reg;
} __attribute__((packed));

struct cell_desc {
	char signature[5];
	__u8 architecture;
	__u16 revision;
	char name[NAME_MAX_LEN + 1];
	__u32 id, flags;
	__u32 cpu_set_size, num_memory_regions, num_cache_regions, num_irqchips, num_pio_regions, num_pci_devices, num_pci_caps, num_stream_ids;
	__u32 vpci_irq_base;
	__u64 cpu_reset_address, msg_reply_timeout;
	struct console console;
} __attribute__((packed));

struct memory {
	__u64 phys_start, virt_start, size, flags;
} __attribute__((packed));

struct cache {
	__u32 start, size;
	__u8 type, padding;
	__u16 flags;
} __attribute__((packed));

struct irqchip {
	__u64 address;
	__u32 id, pin_base, pin_bitmap[4];
} __attribute__((packed));

struct pci_device {
	__u8 type, iommu;
	__u16 domain, bdf;
	__u32 bar_mask[6];
	__u16 caps_start, num_caps;
	__u8 num_msi_vectors, msi_flags;
	__u16 num_msix_vectors, msix_region_size;
	__u64 msix_address;
	__u32 shmem_regions_start;
	__u8 shmem_dev_id, shmem_peers;
	__u16 shmem_protocol;
} __attribute__((packed));

struct pci_capability {
	__u16 id, start, len, flags;
} __attribute__((packed));

#define CPU_SET_SIZE(set) sizeof((set)->cpus)
#define COUNT(a)	  (sizeof(a) / sizeof((a)[0]))
