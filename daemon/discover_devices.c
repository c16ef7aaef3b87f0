/* phid --discover: the interrupt controller, what cells can be given, and remote processors, of the device tree. A device is listed where
 * all that a cell needs to know of it is there: UARTs, which have no DMA of their own, and what has its DMA behind an IOMMU. */
#include "discover.h"

#include "clean.h"
#include "hostfiles.h"
#include "limits.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the interrupt controller ---- */

static const struct {
	const char *compatible, *controller;
} gics[] = {{"arm,gic-v3", "gicv3"},	     {"arm,gic-400", "gicv2"},	     {"arm,cortex-a15-gic", "gicv2"},
	    {"arm,cortex-a9-gic", "gicv2"}, {"arm,cortex-a7-gic", "gicv2"}, {NULL, NULL}};

static const char *controller_of(const struct dt_node *n)
{
	for (size_t i = 0; gics[i].compatible != NULL; i++)
		if (dt_is(n, gics[i].compatible))
			return gics[i].controller;
	return NULL;
}

/* The root cell's file and the tree speak of one machine, or one of them is not this one's. */
static void compare_gic(struct discovery *d, const char *controller, uint64_t base)
{
	const char *known = d->system.gic_version == 2 ? "gicv2" : "gicv3";

	if (d->has_system && d->system.root.arch != JH_X86 && (d->system.gicd != base || strcmp(known, controller) != 0))
		discover_left_out(d, "the root cell's file speaks of another interrupt controller (%s at 0x%" PRIx64 "): it is none of this machine", known,
				  d->system.gicd);
}

static const struct dt_node *add_gic(struct discovery *d)
{
	for (const struct dt_node *n = d->tree; n != NULL; n = dt_next(n)) {
		const char *controller = controller_of(n);
		uint64_t base, size;
		char path[256];
		struct json *o;

		if (controller == NULL || !dt_available(n) || dt_reg(n, 0, &base, &size) <= 0)
			continue;
		dt_path(n, path, sizeof(path));
		o = json_add_object(d->doc, "interrupts");
		json_add_string(o, "controller", controller);
		json_add_hex(o, "base", base);
		discover_note(o, "device tree %s: compatible, reg. \"virtual\" is left out: which interrupts no device has the tree does not say", path);
		compare_gic(d, controller, base);
		return n;
	}
	discover_left_out(d, "interrupts: the device tree has no GIC of versions 2 or 3");
	return NULL;
}

/* ---- one device ---- */

/* Linux drivers' compatibles, and what Jailhouse's inmates know (include/jailhouse/console.h). */
static const struct {
	const char *compatible, *type;
} uarts[] = {{"arm,pl011", "pl011"},
	     {"cdns,uart-r1p12", "xuartps"},
	     {"cdns,uart-r1p8", "xuartps"},
	     {"xlnx,xuartps", "xuartps"},
	     {"ns16550a", "8250"},
	     {"ns16550", "8250"},
	     {"snps,dw-apb-uart", "8250"},
	     {"marvell,armada-3700-uart", "mvebu"},
	     {"renesas,hscif", "hscif"},
	     {"renesas,scifa", "scifa"},
	     {"renesas,scif", "scif"},
	     {"fsl,imx6q-uart", "imx"},
	     {"fsl,imx21-uart", "imx"},
	     {"fsl,vf610-lpuart", "imx-lpuart"},
	     {"fsl,imx7ulp-lpuart", "imx-lpuart"},
	     {NULL, NULL}};

static const char *uart_type(const struct dt_node *n)
{
	for (size_t i = 0; uarts[i].compatible != NULL; i++)
		if (dt_is(n, uarts[i].compatible))
			return uarts[i].type;
	return NULL;
}

/* What a cell needs to know of a device. */
struct found {
	const struct dt_node *node;
	struct json *o; /* of the document's list */
	struct {
		uint64_t base, size;
	} mmio[PHI_DEVICE_PARTS_MAX];
	uint32_t spis[PHI_DEVICE_PARTS_MAX], streams[PHI_DEVICE_PARTS_MAX];
	size_t n_mmio, n_spis, n_streams;
	size_t group; /* 0: alone */
};

/* These three read all there is or fail: a device of which something is not known is none for a cell. */
static bool read_registers(const struct dt_node *n, struct found *f)
{
	uint64_t base, size;
	int r;

	for (; (r = dt_reg(n, f->n_mmio, &base, &size)) > 0; f->n_mmio++) {
		if (f->n_mmio == PHI_DEVICE_PARTS_MAX || size == 0 || base > PHI_ADDRESS_MAX || size > PHI_ADDRESS_MAX - base)
			return false;
		f->mmio[f->n_mmio].base = base;
		f->mmio[f->n_mmio].size = size;
	}
	return r == 0 && f->n_mmio > 0;
}

static bool read_interrupts(const struct dt_node *tree, const struct dt_node *gic, const struct dt_node *n, struct found *f)
{
	enum { SPI }; /* bindings/interrupt-controller/arm,gic*.yaml: the first of three cells */
	struct dt_interrupt irq;
	int r;

	for (; (r = dt_interrupt(tree, n, f->n_spis, &irq)) > 0; f->n_spis++) {
		if (f->n_spis == PHI_DEVICE_PARTS_MAX || irq.controller != gic || irq.n < 3 || irq.cells[0] != SPI || irq.cells[1] > PHI_SPI_MAX)
			return false;
		f->spis[f->n_spis] = irq.cells[1];
	}
	return r == 0;
}

/* The streams of its DMA, as an IOMMU that Jailhouse drives sees them. */
static bool read_streams(const struct dt_node *tree, const struct dt_node *n, struct found *f)
{
	uint32_t phandle, cells, id, mask;

	for (size_t at = 0; dt_cell(n, "iommus", at, &phandle); at += 1 + cells, f->n_streams++) {
		const struct dt_node *iommu = dt_by_phandle(tree, phandle);

		if (f->n_streams == PHI_DEVICE_PARTS_MAX || iommu == NULL || !dt_cell(iommu, "#iommu-cells", 0, &cells) || cells == 0 ||
		    cells > 2 || !dt_cell(n, "iommus", at + 1, &id))
			return false;
		if (dt_is(iommu, "arm,mmu-500") || dt_is(iommu, "arm,smmu-v2")) {
			/* bindings/iommu/arm,smmu.yaml: the mask is the second cell, or one of the IOMMU for all. */
			if (cells == 2 ? !dt_cell(n, "iommus", at + 2, &mask) : !dt_cell(iommu, "stream-match-mask", 0, &mask))
				mask = 0;
			if (id > 0xffff || mask > 0xffff)
				return false;
			id |= mask << 16;
		} else if (!dt_is(iommu, "arm,smmu-v3") || cells != 1) {
			return false;
		}
		f->streams[f->n_streams] = id;
	}
	return f->n_streams > 0;
}

static void write_found(const struct found *f, struct json *to)
{
	struct json *list = json_add_array(to, "mmio"), *o;

	for (size_t i = 0; i < f->n_mmio; i++) {
		o = json_object();
		json_add_hex(o, "base", f->mmio[i].base);
		discover_size(o, "size", f->mmio[i].size);
		discover_note(o, "reg");
		json_add(list, NULL, o);
	}
	list = f->n_spis > 0 ? json_add_array(to, "irqs") : NULL;
	for (size_t i = 0; i < f->n_spis; i++) {
		o = json_object();
		json_add_integer(o, "spi", f->spis[i]);
		discover_note(o, "interrupts");
		json_add(list, NULL, o);
	}
	if (f->n_streams == 0)
		return;
	json_add_bool(to, "dma", true);
	list = json_add_array(to, "stream_ids");
	for (size_t i = 0; i < f->n_streams; i++) {
		o = json_object();
		json_add_integer(o, "id", f->streams[i]);
		discover_note(o, "iommus");
		json_add(list, NULL, o);
	}
}

/* Where Linux has it in sysfs, by which driver ("" for none). */
static bool find_in_linux(const struct discovery *d, const char *path, char ret_sysfs[PHI_PATH_MAX], char ret_driver[64])
{
	static const char *const buses[] = {"platform", "amba"};

	for (size_t b = 0; b < PHI_COUNT(buses); b++) {
		char dir[PHI_PATH_MAX], link[PHI_PATH_MAX], driver[256];
		_clean_closedir_ DIR *devices = NULL;

		snprintf(dir, sizeof(dir), "%s/sys/bus/%s/devices", d->root, buses[b]);
		devices = opendir(dir);
		for (struct dirent *f = devices ? readdir(devices) : NULL; f != NULL; f = readdir(devices)) {
			const char *node;
			_clean_free_ char *real = NULL;

			if (!host_link("", link, sizeof(link), "%s/%s/of_node", dir, f->d_name))
				continue;
			node = strstr(link, "/devicetree/base");
			if (node == NULL || strcmp(node + strlen("/devicetree/base"), path) != 0)
				continue;
			snprintf(link, sizeof(link), "/sys/bus/%s/devices/%.255s", buses[b], f->d_name);
			host_link(d->root, driver, sizeof(driver), "%s/driver", link);
			snprintf(ret_driver, 64, "%s", strrchr(driver, '/') != NULL ? strrchr(driver, '/') + 1 : driver);
			snprintf(dir, sizeof(dir), "%s%s", d->root, link);
			real = realpath(dir, NULL);
			snprintf(ret_sysfs, PHI_PATH_MAX, "%s", real != NULL ? real + strlen(d->root) : link);
			return true;
		}
	}
	return false;
}

/* Who has it now, and what to do so that a cell may. */
static void add_handover(struct discovery *d, const struct dt_node *n, const char *path, struct json *to)
{
	const struct dt_node *chosen = dt_find(d->tree, "/chosen");
	const char *console = chosen != NULL ? dt_text(chosen, "stdout-path") : NULL;
	char sysfs[PHI_PATH_MAX], driver[64];
	uint64_t base, size;
	struct json *o = json_add_object(to, "host");

	json_add_string(o, "handover", dt_available(n) ? "none" : "absent");
	if (!dt_available(n)) {
		discover_note(o, "status is not okay: Linux does not know it. That it has clock and power is yours to see to");
		return;
	}
	if (d->has_system && dt_reg(n, 0, &base, &size) > 0 && d->system.console.address == base)
		discover_note(o, "the hypervisor prints on it (root cell's file): give it to no cell");
	else if (console != NULL && dt_find(d->tree, console) == n)
		discover_note(o, "it is Linux's own console (stdout-path): start Linux with another one before a cell gets it");
	else if (find_in_linux(d, path, sysfs, driver))
		discover_note(o, "Linux has it as %s (%s). With \"handover\": \"unbind\" and this as \"sysfs\" phid takes it from Linux", sysfs,
			      driver[0] != '\0' ? driver : "no driver");
	else
		discover_note(o, "see that Linux does not use it");
}

/* Its type, or NULL: of a UART as Jailhouse's inmates know it, of others as Linux does. */
static const char *type_of(struct discovery *d, const struct dt_node *n, const char *path)
{
	const char *type = uart_type(n);
	uint32_t shift;

	if (type != NULL && dt_cell(n, "reg-shift", 0, &shift) && shift != 0) {
		discover_left_out(d, "the type of %s: its registers are 2^%u bytes apart (reg-shift), which no type of phid says", path, shift);
		return NULL;
	}
	if (type == NULL)
		type = dt_text(n, "compatible");
	return type != NULL && type[0] != '\0' && strlen(type) <= PHI_NAME_MAX ? type : NULL;
}

/* False where something about it is not known. */
static bool add_device(struct discovery *d, const struct dt_node *gic, const struct dt_node *n, struct json *list, struct found *f)
{
	char path[256], kind[32];
	const char *type;

	*f = (struct found){.node = n};
	dt_path(n, path, sizeof(path));
	if (!read_registers(n, f)) {
		discover_left_out(d, "%s: its registers are not all at addresses of the CPUs", path);
		return false;
	}
	if (!read_interrupts(d->tree, gic, n, f)) {
		discover_left_out(d, "%s: not all of its interrupts are SPIs of the GIC", path);
		return false;
	}
	if (dt_get(n, "iommus") != NULL && !read_streams(d->tree, n, f)) {
		discover_left_out(d, "%s: the streams of its DMA are none of an SMMU that Jailhouse drives", path);
		return false;
	}
	f->o = json_object();
	discover_name(f->o, list, n->name);
	snprintf(kind, sizeof(kind), "%.*s", (int)strcspn(n->name, "@"), n->name);
	json_add_string(f->o, "kind", uart_type(n) != NULL ? "uart" : kind[0] != '\0' ? kind : "device");
	type = type_of(d, n, path);
	if (type != NULL)
		json_add_string(f->o, "type", type);
	discover_note(f->o, "device tree %s", path);
	write_found(f, f->o);
	add_handover(d, n, path, f->o);
	json_add(list, NULL, f->o);
	return true;
}

/* ---- groups ---- */

static bool meet(const struct found *a, const struct found *b)
{
	const uint64_t page = 4096;

	for (size_t i = 0; i < a->n_mmio; i++)
		for (size_t k = 0; k < b->n_mmio; k++)
			if (a->mmio[i].base / page <= (b->mmio[k].base + b->mmio[k].size - 1) / page &&
			    b->mmio[k].base / page <= (a->mmio[i].base + a->mmio[i].size - 1) / page)
				return true;
	for (size_t i = 0; i < a->n_spis; i++)
		for (size_t k = 0; k < b->n_spis; k++)
			if (a->spis[i] == b->spis[k])
				return true;
	for (size_t i = 0; i < a->n_streams; i++)
		for (size_t k = 0; k < b->n_streams; k++)
			if (a->streams[i] == b->streams[k])
				return true;
	return false;
}

/* Those that share a page of registers, an interrupt or a stream go together, and with them who shares something with any of them. */
static void add_groups(struct found *f, size_t n)
{
	size_t groups = 0;

	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < i; k++) {
			size_t old = f[i].group;

			if ((old != 0 && old == f[k].group) || !meet(&f[i], &f[k]))
				continue;
			if (f[k].group == 0)
				f[k].group = ++groups;
			f[i].group = f[k].group;
			for (size_t m = 0; m < i && old != 0; m++)
				if (f[m].group == old)
					f[m].group = f[k].group;
		}
	for (size_t i = 0; i < n; i++)
		if (f[i].group != 0) {
			char name[24];

			snprintf(name, sizeof(name), "group-%zu", f[i].group);
			json_add_string(f[i].o, "group", name);
		}
}

/* ---- remote processors ---- */

/* Omnivisor numbers those of one node by their order in it (driver/rcpu.c), in which Linux's driver made them as well. Of others nothing
 * says the number. */
static void add_remote(struct discovery *d)
{
	static const char cluster[] = "xlnx,zynqmp-r5-remoteproc";
	struct json *list = json_array();

	for (int i = 0, id = 0; i < 32; i++) {
		_clean_free_ char *compatible = host_text(d->root, 4096, "/sys/class/remoteproc/remoteproc%d/device/of_node/../compatible", i);
		char name[128];
		struct json *o;

		if (!host_line(d->root, name, sizeof(name), "/sys/class/remoteproc/remoteproc%d/name", i) || name[0] == '\0')
			continue;
		if (compatible == NULL || strcmp(compatible, cluster) != 0 || strlen(name) > PHI_NAME_MAX || id == PHI_REMOTE_MAX) {
			discover_left_out(d, "remote processor %.64s (remoteproc%d): nothing says its number in the hypervisor's set", name, i);
			continue;
		}
		o = json_object();
		discover_name(o, list, strrchr(name, ':') != NULL && strrchr(name, ':')[1] != '\0' ? strrchr(name, ':') + 1 : name);
		json_add_integer(o, "id", id++);
		json_add_string(o, "match", name);
		discover_note(o, "/sys/class/remoteproc/remoteproc%d; id: its place below %s, as Omnivisor counts. Where its firmware sees memory nothing says", i,
			      cluster);
		json_add(list, NULL, o);
	}
	if (json_length(list) > 0)
		json_add(d->doc, "remote_processors", list);
	else
		json_free(list);
}

void discover_devices(struct discovery *d)
{
	const struct dt_node *gic = d->tree != NULL ? add_gic(d) : NULL;
	struct found *all = calloc(PHI_PLATFORM_DEVICES_MAX, sizeof(*all));
	struct json *list = json_array();
	size_t n = 0;

	if (all == NULL)
		abort();
	for (const struct dt_node *node = gic != NULL ? d->tree : NULL; node != NULL && n < PHI_PLATFORM_DEVICES_MAX; node = dt_next(node))
		if ((uart_type(node) != NULL || dt_get(node, "iommus") != NULL) && add_device(d, gic, node, list, &all[n]))
			n++;
	add_groups(all, n);
	if (n > 0)
		json_add(d->doc, "devices", list);
	else
		json_free(list);
	free(all);
	add_remote(d);
}
