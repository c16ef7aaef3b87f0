/* See linux.h: device trees, by libfdt. Bindings: Linux Documentation/devicetree/bindings, named at each node. */
#include "linux.h"

#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIC_PHANDLE   1
#define CLOCK_PHANDLE 2
#define SPI	      0 /* interrupt specifiers of a GIC: kind, number, flags (interrupt-controller/arm,gic.yaml) */
#define PPI	      1
#define LEVEL_HIGH    4
#define EDGE_RISING   1
#define TREE_DEPTH_MAX 64
#define PCI_WINDOW    0x100000 /* bytes for the BARs of the virtual bus */

/* The first error of libfdt; the calls after it do nothing. */
struct tree {
	void *fdt;
	int err;
	char cells[512];
	size_t n;
};

#define DO(t, call)                                                                                          \
	do {                                                                                                 \
		if ((t)->err == 0)                                                                           \
			(t)->err = (call);                                                                   \
	} while (0)

static void __attribute__((format(printf, 2, 3))) node(struct tree *t, const char *format, ...)
{
	char name[64];
	va_list args;

	va_start(args, format);
	vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	DO(t, fdt_begin_node(t->fdt, name));
}

static void end(struct tree *t)
{
	DO(t, fdt_end_node(t->fdt));
}

static void text(struct tree *t, const char *name, const char *value)
{
	DO(t, fdt_property(t->fdt, name, value, (int)strlen(value) + 1));
}

static void number(struct tree *t, const char *name, uint32_t value)
{
	DO(t, fdt_property_u32(t->fdt, name, value));
}

static void flag(struct tree *t, const char *name)
{
	DO(t, fdt_property(t->fdt, name, NULL, 0));
}

/* Cells of one property, gathered and then written. */
static void cell(struct tree *t, uint32_t v)
{
	fdt32_t big = cpu_to_fdt32(v);

	if (t->n + sizeof(big) > sizeof(t->cells)) {
		t->err = -FDT_ERR_NOSPACE;
		return;
	}
	memcpy(t->cells + t->n, &big, sizeof(big));
	t->n += sizeof(big);
}

static void wide(struct tree *t, uint64_t v)
{
	cell(t, (uint32_t)(v >> 32));
	cell(t, (uint32_t)v);
}

static void write_cells(struct tree *t, const char *name)
{
	DO(t, fdt_property(t->fdt, name, t->cells, (int)t->n));
	t->n = 0;
}

static void irq(struct tree *t, uint32_t kind, uint32_t n, uint32_t flags)
{
	cell(t, kind);
	cell(t, n);
	cell(t, flags);
}

static void strings(struct tree *t, const char *name, const char *a, const char *b)
{
	char both[64];
	int n = snprintf(both, sizeof(both), "%s%c%s", a, 0, b) + 1;

	DO(t, fdt_property(t->fdt, name, both, n));
}

/* ---- the nodes ---- */

/* arm/cpus.yaml; MPIDR of the machine, else by the topology that the platform file tells. */
static uint32_t mpidr_of(const struct platform *p, unsigned cpu)
{
	const struct platform_cpu *row = platform_cpu(p, cpu);

	if (row != NULL && row->has_mpidr)
		return row->mpidr;
	return row != NULL ? (uint32_t)(row->cluster & 0xff) << 8 | (uint32_t)(row->core & 0xff) : cpu;
}

static void add_cpus(struct tree *t, const struct jh_tree_wish *w)
{
	const struct cpuset *cpus = &w->cell->grant.cpus;

	node(t, "cpus");
	number(t, "#address-cells", 1);
	number(t, "#size-cells", 0);
	for (int c = cpuset_next(cpus, 0); c >= 0; c = cpuset_next(cpus, (unsigned)c + 1)) {
		uint32_t mpidr = mpidr_of(w->platform, (unsigned)c);

		node(t, "cpu@%x", mpidr);
		text(t, "device_type", "cpu");
		text(t, "compatible", "arm,armv8");
		number(t, "reg", mpidr);
		text(t, "enable-method", "psci");
		end(t);
	}
	end(t);
	node(t, "psci"); /* arm/psci.yaml; Jailhouse takes hvc for its own calls */
	text(t, "compatible", "arm,psci-0.2");
	text(t, "method", "smc");
	end(t);
	node(t, "timer"); /* timer/arm,arch_timer.yaml */
	text(t, "compatible", "arm,armv8-timer");
	for (uint32_t i = 0; i < 4; i++)
		irq(t, PPI, (const uint32_t[]){13, 14, 11, 10}[i], LEVEL_HIGH);
	write_cells(t, "interrupts");
	end(t);
}

/* interrupt-controller/arm,gic.yaml, arm,gic-v3.yaml */
static void add_gic(struct tree *t, const struct jh_tree_wish *w, unsigned highest_cpu)
{
	const struct jh_system *s = w->system;
	bool v3 = s->gic_version == 3;

	node(t, "interrupt-controller@%" PRIx64, s->gicd);
	text(t, "compatible", v3 ? "arm,gic-v3" : "arm,gic-400");
	flag(t, "interrupt-controller");
	number(t, "#interrupt-cells", 3);
	number(t, "phandle", GIC_PHANDLE);
	wide(t, s->gicd);
	wide(t, v3 ? 0x10000 : 0x1000);
	wide(t, v3 ? s->gicr : s->gicc);
	wide(t, v3 ? UINT64_C(0x20000) * (highest_cpu + 1) : 0x2000);
	write_cells(t, "reg");
	end(t);
}

/* serial/pl011.yaml, cdns,uart.yaml, 8250.yaml. Their clocks run; at which rate only the board knows, and a console that is set up
 * already does not ask. */
static void add_uart(struct tree *t, const struct platform_device *d)
{
	const struct platform_mmio *m = d->mmio.items;
	bool pl011 = strcmp(d->type, "pl011") == 0, cadence = strcmp(d->type, "xuartps") == 0;

	node(t, "serial@%" PRIx64, m->base);
	if (pl011)
		strings(t, "compatible", "arm,pl011", "arm,primecell");
	else if (cadence)
		strings(t, "compatible", "xlnx,xuartps", "cdns,uart-r1p12");
	else
		text(t, "compatible", "ns16550a");
	if (pl011 || cadence) {
		cell(t, CLOCK_PHANDLE);
		cell(t, CLOCK_PHANDLE);
		write_cells(t, "clocks");
		strings(t, "clock-names", pl011 ? "uartclk" : "uart_clk", pl011 ? "apb_pclk" : "pclk");
	} else {
		number(t, "reg-shift", 2);
		number(t, "reg-io-width", 4);
		number(t, "clock-frequency", 24000000);
	}
	wide(t, m->base);
	wide(t, m->size);
	write_cells(t, "reg");
	if (d->irqs.n > 0) {
		irq(t, SPI, (uint32_t)((const struct platform_irq *)d->irqs.items)->spi, LEVEL_HIGH);
		write_cells(t, "interrupts");
	}
	end(t);
}

static const struct platform_device *uart_of(const struct jh_tree_wish *w, size_t i)
{
	const struct platform_device *d = platform_device(w->platform, w->cell->grant.devices[i]);

	if (d == NULL || d->type == NULL || d->mmio.n == 0 || strcmp(d->kind, "uart") != 0)
		return NULL;
	return strcmp(d->type, "pl011") == 0 || strcmp(d->type, "xuartps") == 0 || strcmp(d->type, "8250") == 0 ? d : NULL;
}

/* Addresses that the cell has nothing at: the hypervisor hears of every access. */
static uint64_t free_window(const struct jh_tree_wish *w)
{
	uint64_t at = 0x10000000;

	for (size_t i = 0; i < w->cell->grant.n_memory; i++) {
		const struct alloc_memory *m = &w->cell->grant.memory[i];

		if (m->base < at + PCI_WINDOW && at < m->base + m->size) {
			at = (m->base + m->size + PCI_WINDOW - 1) / PCI_WINDOW * PCI_WINDOW;
			i = (size_t)-1; /* once more from the first */
		}
	}
	return at;
}

/* pci/host-generic-pci.yaml: the bus that Jailhouse shows, with the ends of links. */
static void add_pci(struct tree *t, const struct jh_tree_wish *w)
{
	const struct jh_system *s = w->system;
	uint64_t window = free_window(w);

	node(t, "pci@%" PRIx64, s->mmconfig_base);
	text(t, "compatible", "pci-host-ecam-generic");
	text(t, "device_type", "pci");
	number(t, "#address-cells", 3);
	number(t, "#size-cells", 2);
	number(t, "#interrupt-cells", 1);
	number(t, "linux,pci-domain", (uint32_t)w->platform->links.domain);
	cell(t, 0);
	cell(t, s->mmconfig_end_bus);
	write_cells(t, "bus-range");
	wide(t, s->mmconfig_base);
	wide(t, ((uint64_t)s->mmconfig_end_bus + 1) << 20);
	write_cells(t, "reg");
	cell(t, 0x02000000); /* 32-bit memory */
	wide(t, window);
	wide(t, window);
	wide(t, PCI_WINDOW);
	write_cells(t, "ranges");
	cell(t, 0);
	cell(t, 0);
	cell(t, 0);
	cell(t, 7);
	write_cells(t, "interrupt-map-mask");
	for (uint32_t pin = 1; pin <= 4; pin++) {
		cell(t, 0);
		cell(t, 0);
		cell(t, 0);
		cell(t, pin);
		cell(t, GIC_PHANDLE);
		irq(t, SPI, (uint32_t)w->cell->grant.virtual_spi + pin - 1, EDGE_RISING);
	}
	write_cells(t, "interrupt-map");
	end(t);
}

static void add_memory(struct tree *t, const struct jh_tree_wish *w)
{
	node(t, "memory@%" PRIx64, w->cell->grant.memory[0].base);
	text(t, "device_type", "memory");
	for (size_t i = 0; i < w->cell->grant.n_memory; i++) {
		wide(t, w->cell->grant.memory[i].base);
		wide(t, w->cell->grant.memory[i].size);
	}
	write_cells(t, "reg");
	end(t);
}

static void add_chosen(struct tree *t, const struct jh_tree_wish *w)
{
	node(t, "chosen");
	if (w->cell->spec.boot.cmdline != NULL)
		text(t, "bootargs", w->cell->spec.boot.cmdline);
	for (size_t i = 0; i < w->cell->grant.n_devices; i++) {
		char path[40];

		if (uart_of(w, i) == NULL)
			continue;
		snprintf(path, sizeof(path), "/serial@%" PRIx64, ((const struct platform_mmio *)uart_of(w, i)->mmio.items)->base);
		text(t, "stdout-path", path);
		break;
	}
	if (w->initrd_size > 0) {
		wide(t, w->layout->initrd);
		write_cells(t, "linux,initrd-start");
		wide(t, w->layout->initrd + w->initrd_size);
		write_cells(t, "linux,initrd-end");
	}
	end(t);
}

static int said(int err, const char *pointer, struct phi_error *e)
{
	return err == 0 ? 0 : phi_error_set(e, PHI_PAYLOAD, EINVAL, pointer, "the device tree: %s", fdt_strerror(err));
}

int jh_tree_make(const struct jh_tree_wish *w, void **ret, size_t *ret_size, struct phi_error *e)
{
	struct tree t = {.fdt = malloc(JH_LINUX_DTB_MAX)};
	unsigned highest = 0;
	int r;

	*ret = t.fdt;
	if (t.fdt == NULL)
		abort();
	if (w->system == NULL || w->system->root.arch != JH_ARM64)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/boot/dtb",
				     "without a device tree of the image, the platform file must name the root cell (backends.jailhouse.root_cell): it says where the "
				     "interrupt controller is");
	for (int c = cpuset_next(&w->cell->grant.cpus, 0); c >= 0; c = cpuset_next(&w->cell->grant.cpus, (unsigned)c + 1))
		highest = (unsigned)c;
	DO(&t, fdt_create(t.fdt, JH_LINUX_DTB_MAX));
	DO(&t, fdt_finish_reservemap(t.fdt));
	node(&t, "%s", "");
	text(&t, "compatible", "phid,jailhouse-cell");
	text(&t, "model", w->cell->name);
	number(&t, "#address-cells", 2);
	number(&t, "#size-cells", 2);
	number(&t, "interrupt-parent", GIC_PHANDLE);
	add_chosen(&t, w);
	add_memory(&t, w);
	add_cpus(&t, w);
	add_gic(&t, w, highest);
	node(&t, "clock"); /* clock/fixed-clock.yaml */
	text(&t, "compatible", "fixed-clock");
	number(&t, "#clock-cells", 0);
	number(&t, "clock-frequency", 24000000);
	number(&t, "phandle", CLOCK_PHANDLE);
	end(&t);
	for (size_t i = 0; i < w->cell->grant.n_devices; i++)
		if (uart_of(w, i) != NULL)
			add_uart(&t, uart_of(w, i));
	if (w->cell->grant.n_links > 0 && w->cell->grant.has_virtual && w->system->mmconfig_base != 0)
		add_pci(&t, w);
	end(&t);
	DO(&t, fdt_finish(t.fdt));
	r = said(t.err, "/spec/boot/dtb", e);
	*ret_size = r == 0 ? fdt_totalsize(t.fdt) : 0;
	return r;
}

/* ---- the image's own ---- */

static int malformed(size_t offset, const char *what, struct phi_error *e)
{
	return phi_error_set(e, PHI_PAYLOAD, EINVAL, "/spec/boot/dtb", "the device tree is not right at offset %zu: %s", offset, what);
}

/* Does a text end before `end`? */
static bool ends(const char *tree, size_t at, size_t end)
{
	return at < end && memchr(tree + at, '\0', end - at) != NULL;
}

static size_t pad4(size_t n)
{
	return (n + 3) & ~(size_t)3;
}

/* The structure block, token by token. Behind it libfdt may trust what it reads. */
static int check_structure(const char *tree, size_t at, size_t size, size_t strings, size_t strings_end, struct phi_error *e)
{
	const size_t end = at + size;
	bool nodes_began = false; /* in this node: its properties are over */
	int depth = 0;

	while (end - at >= 4) {
		const size_t token = at;

		at += 4;
		switch (fdt32_ld((const fdt32_t *)(const void *)(tree + token))) {
		case FDT_BEGIN_NODE:
			if ((depth == 0 && token != end - size) || ++depth > TREE_DEPTH_MAX)
				return malformed(token, "a second root, or more than 64 levels", e);
			if (!ends(tree, at, end))
				return malformed(at, "the node's name does not end", e);
			at += pad4(strlen(tree + at) + 1);
			nodes_began = false;
			break;
		case FDT_PROP: {
			uint32_t length, name;

			if (depth == 0 || nodes_began || end - at < 8)
				return malformed(token, "a property where none can be", e);
			length = fdt32_ld((const fdt32_t *)(const void *)(tree + at));
			name = fdt32_ld((const fdt32_t *)(const void *)(tree + at + 4));
			at += 8;
			if (length > end - at || name >= strings_end - strings || !ends(tree, strings + name, strings_end))
				return malformed(token, "the property's name or value is not within the tree", e);
			at += pad4(length);
			break;
		}
		case FDT_END_NODE:
			if (--depth < 0)
				return malformed(token, "an end of no node", e);
			nodes_began = true;
			break;
		case FDT_NOP:
			break;
		case FDT_END:
			return depth == 0 && at == end && size > 4 ? 0 : malformed(token, "the end is not at the end", e);
		default:
			return malformed(token, "no token", e);
		}
		if (at > end)
			break;
	}
	return malformed(end, "the structure does not end", e);
}

/* libfdt 1.6.1 reads out of bounds, and through NULL, where a tree is malformed, in its own fdt_check_full too (found by tests/fuzz). */
static int check_tree(const void *tree, size_t size, struct phi_error *e)
{
	size_t structure, structure_size, strings, strings_size, reserved;

	if (size < FDT_V17_SIZE || fdt_magic(tree) != FDT_MAGIC)
		return malformed(0, "it is no device tree", e);
	structure = fdt_off_dt_struct(tree);
	structure_size = fdt_size_dt_struct(tree);
	strings = fdt_off_dt_strings(tree);
	strings_size = fdt_size_dt_strings(tree);
	reserved = fdt_off_mem_rsvmap(tree);
	if (fdt_version(tree) != 17 || fdt_last_comp_version(tree) > 17)
		return malformed(20, "its version is not 17", e);
	if (fdt_totalsize(tree) > size || fdt_totalsize(tree) < FDT_V17_SIZE)
		return malformed(4, "it is shorter than it says", e);
	size = fdt_totalsize(tree);
	if (structure % 4 != 0 || structure < FDT_V17_SIZE || structure > size || structure_size > size - structure || structure_size % 4 != 0)
		return malformed(8, "the structure is not within it", e);
	if (strings < structure + structure_size || strings > size || strings_size > size - strings)
		return malformed(12, "the strings are not behind the structure", e);
	for (bool last = false; !last; reserved += 16) {
		const fdt64_t *r = (const fdt64_t *)(const void *)((const char *)tree + reserved);

		if (reserved % 8 != 0 || reserved < FDT_V17_SIZE || reserved > structure || structure - reserved < 16)
			return malformed(16, "the reserved memory is not before the structure", e);
		last = fdt64_ld(r) == 0 && fdt64_ld(r + 1) == 0;
	}
	return check_structure(tree, structure, structure_size, strings, strings + strings_size, e);
}

/* A number of one or two cells; refused where it does not fit. */
static int add_number(struct tree *t, uint64_t v, int cells)
{
	if (cells == 1 && v >> 32 != 0)
		return -ERANGE;
	if (cells == 2)
		cell(t, (uint32_t)(v >> 32));
	cell(t, (uint32_t)v);
	return 0;
}

static int set_memory(struct tree *t, const struct jh_tree_wish *w, int address_cells, int size_cells)
{
	int r = 0, node = fdt_node_offset_by_prop_value(t->fdt, -1, "device_type", "memory", sizeof("memory"));

	if (node < 0)
		node = fdt_add_subnode(t->fdt, 0, "memory");
	if (node < 0) {
		t->err = node;
		return 0;
	}
	for (size_t i = 0; i < w->cell->grant.n_memory && r == 0; i++) {
		r = add_number(t, w->cell->grant.memory[i].base, address_cells);
		if (r == 0)
			r = add_number(t, w->cell->grant.memory[i].size, size_cells);
	}
	DO(t, fdt_setprop_string(t->fdt, node, "device_type", "memory"));
	DO(t, fdt_setprop(t->fdt, node, "reg", t->cells, (int)t->n));
	t->n = 0;
	return r;
}

static void set_chosen(struct tree *t, const struct jh_tree_wish *w)
{
	int node = fdt_path_offset(t->fdt, "/chosen");

	if (node == -FDT_ERR_NOTFOUND)
		node = fdt_add_subnode(t->fdt, 0, "chosen");
	if (node < 0) {
		t->err = node;
		return;
	}
	if (w->cell->spec.boot.cmdline != NULL)
		DO(t, fdt_setprop(t->fdt, node, "bootargs", w->cell->spec.boot.cmdline, (int)strlen(w->cell->spec.boot.cmdline) + 1));
	if (w->initrd_size == 0)
		return;
	DO(t, fdt_setprop_u64(t->fdt, node, "linux,initrd-start", w->layout->initrd));
	DO(t, fdt_setprop_u64(t->fdt, node, "linux,initrd-end", w->layout->initrd + w->initrd_size));
}

int jh_tree_edit(const struct jh_tree_wish *w, const void *tree, size_t size, void **ret, size_t *ret_size, struct phi_error *e)
{
	const size_t room = size + 8192; /* the command line and what grows besides */
	struct tree t = {.fdt = malloc(room)};
	int r, address_cells, size_cells;

	*ret = t.fdt;
	if (t.fdt == NULL)
		abort();
	if (size > JH_LINUX_DTB_MAX / 2)
		return phi_error_set(e, PHI_PAYLOAD, EFBIG, "/spec/boot/dtb", "the device tree has %zu bytes; at most %u are taken", size, JH_LINUX_DTB_MAX / 2);
	r = check_tree(tree, size, e);
	if (r < 0)
		return r;
	address_cells = fdt_address_cells(tree, 0);
	size_cells = fdt_size_cells(tree, 0);
	if (address_cells < 1 || address_cells > 2 || size_cells < 1 || size_cells > 2)
		return phi_error_set(e, PHI_PAYLOAD, EINVAL, "/spec/boot/dtb", "the root of the device tree has %d address cells and %d size cells", address_cells,
				     size_cells);
	DO(&t, fdt_open_into(tree, t.fdt, (int)room));
	if (set_memory(&t, w, address_cells, size_cells) < 0)
		return phi_error_set(e, PHI_PAYLOAD, ERANGE, "/spec/boot/dtb",
				     "the device tree has addresses of 32 bits, and memory of the cell is above 4 GiB: it needs #address-cells = <2>");
	set_chosen(&t, w);
	DO(&t, fdt_pack(t.fdt));
	r = said(t.err, "/spec/boot/dtb", e);
	*ret_size = r == 0 ? fdt_totalsize(t.fdt) : 0;
	return r;
}
