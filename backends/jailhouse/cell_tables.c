/* See cell_tables.h. Offsets: include/jailhouse/cell-config.h of the named sources in cell.h. */
#include "cell_tables.h"

#define M(type, name, at, size, ...) {#name, at, size, offsetof(struct type, name), __VA_ARGS__}

static const char *const memory_flags[] = {"read", "write", "execute", "dma", "io", "comm_region", "loadable", "rootshared", "no_hugepages",
					   "colored", "colored_no_copy", "", "tcm_a", "tcm_b", "", "io_unaligned", "io_8", "io_16", "io_32",
					   "io_64", NULL};

static const struct jh_member memory[] = {
	M(jh_memory, phys, 0, 8, JH_HEX, NULL),	 M(jh_memory, virt, 8, 8, JH_HEX, NULL),
	M(jh_memory, size, 16, 8, JH_HEX, NULL), M(jh_memory, flags, 24, 8, JH_HEX, memory_flags),
	M(jh_memory, colors, 32, 8, JH_HEX, NULL), /* beyond the end of upstream's */
	{0}};

static const struct jh_member cache[] = {
	M(jh_cache, start, 0, 4, JH_DECIMAL, NULL), M(jh_cache, size, 4, 4, JH_DECIMAL, NULL), M(jh_cache, type, 8, 1, JH_DECIMAL, NULL),
	M(jh_cache, padding, 9, 1, JH_DECIMAL, NULL), M(jh_cache, flags, 10, 2, JH_HEX, NULL), {0}};

static const struct jh_member irqchip[] = {
	M(jh_irqchip, address, 0, 8, JH_HEX, NULL), M(jh_irqchip, id, 8, 4, JH_HEX, NULL), M(jh_irqchip, pin_base, 12, 4, JH_DECIMAL, NULL),
	{"pins_0", 16, 4, offsetof(struct jh_irqchip, pins[0]), JH_HEX, NULL}, {"pins_1", 20, 4, offsetof(struct jh_irqchip, pins[1]), JH_HEX, NULL},
	{"pins_2", 24, 4, offsetof(struct jh_irqchip, pins[2]), JH_HEX, NULL}, {"pins_3", 28, 4, offsetof(struct jh_irqchip, pins[3]), JH_HEX, NULL},
	{0}};

static const struct jh_member pio[] = {M(jh_pio, base, 0, 2, JH_HEX, NULL), M(jh_pio, length, 2, 2, JH_HEX, NULL), {0}};

#define BAR(i) {"bar_mask_" #i, 6 + 4 * i, 4, offsetof(struct jh_pci, bar_mask[i]), JH_HEX, NULL}
static const struct jh_member pci[] = {
	M(jh_pci, type, 0, 1, JH_DECIMAL, NULL),
	M(jh_pci, iommu, 1, 1, JH_DECIMAL, NULL),
	M(jh_pci, domain, 2, 2, JH_HEX, NULL),
	M(jh_pci, bdf, 4, 2, JH_HEX, NULL),
	BAR(0), BAR(1), BAR(2), BAR(3), BAR(4), BAR(5),
	M(jh_pci, caps_start, 0x1e, 2, JH_DECIMAL, NULL),
	M(jh_pci, num_caps, 0x20, 2, JH_DECIMAL, NULL),
	M(jh_pci, msi_vectors, 0x22, 1, JH_DECIMAL, NULL),
	M(jh_pci, msi_flags, 0x23, 1, JH_HEX, NULL),
	M(jh_pci, msix_vectors, 0x24, 2, JH_DECIMAL, NULL),
	M(jh_pci, msix_region_size, 0x26, 2, JH_HEX, NULL),
	M(jh_pci, msix_address, 0x28, 8, JH_HEX, NULL),
	M(jh_pci, shmem_start, 0x30, 4, JH_DECIMAL, NULL),
	M(jh_pci, shmem_id, 0x34, 1, JH_DECIMAL, NULL),
	M(jh_pci, shmem_peers, 0x35, 1, JH_DECIMAL, NULL),
	M(jh_pci, shmem_protocol, 0x36, 2, JH_HEX, NULL),
	{0}};

static const struct jh_member capability[] = {M(jh_capability, id, 0, 2, JH_HEX, NULL), M(jh_capability, start, 2, 2, JH_HEX, NULL),
					      M(jh_capability, len, 4, 2, JH_DECIMAL, NULL), M(jh_capability, flags, 6, 2, JH_HEX, NULL), {0}};

static const struct jh_member stream[] = {M(jh_stream, id, 0, 4, JH_HEX, NULL), {0}};

const struct jh_list_table jh_lists[JH_LISTS] = {
	[JH_MEMORY] = {"memory", 0, sizeof(struct jh_memory), memory},
	[JH_CACHE] = {"cache", 12, sizeof(struct jh_cache), cache},
	[JH_IRQCHIP] = {"irqchips", 32, sizeof(struct jh_irqchip), irqchip},
	[JH_PIO] = {"pio", 4, sizeof(struct jh_pio), pio},
	[JH_PCI] = {"pci", 56, sizeof(struct jh_pci), pci},
	[JH_CAPABILITY] = {"pci_capabilities", 8, sizeof(struct jh_capability), capability},
	[JH_STREAM] = {"stream_ids", 4, sizeof(struct jh_stream), stream},
};
