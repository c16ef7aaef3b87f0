/* Are these cells safe beside each other? The hypervisor itself does not ask: it maps the same memory into two cells without a word
 * (measured), so this is what keeps them apart. What upstream's offline check looks for is here, and what it leaves out. */
#include "cell.h"

#include "clean.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PAGE 4096u

struct run {
	const struct jh_check *k;
	size_t n;
};

static void __attribute__((format(printf, 6, 7))) tell(struct run *r, const char *code, int cell, int other, const char *pointer,
						       const char *format, ...)
{
	struct jh_finding f = {.code = code, .cell = cell, .other = other};
	va_list args;

	snprintf(f.pointer, sizeof(f.pointer), "%s", pointer);
	va_start(args, format);
	vsnprintf(f.detail, sizeof(f.detail), format, args);
	va_end(args);
	r->n++;
	r->k->found(r->k->ud, &f);
}

static void at_memory(char ret[64], uint32_t i, const char *member)
{
	snprintf(ret, 64, "/memory/%u/%s", i, member);
}

/* ---- ranges ---- */

static bool meet(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	/* Ends that wrap were told already; here they count as the end of the address space. */
	uint64_t a_end = a + a_size < a ? UINT64_MAX : a + a_size, b_end = b + b_size < b ? UINT64_MAX : b + b_size;

	return a_size > 0 && b_size > 0 && a < b_end && b < a_end;
}

static bool phys_meet(const struct jh_memory *a, const struct jh_memory *b)
{
	/* The page of the communication region is the hypervisor's own, whatever phys says. */
	if ((a->flags | b->flags) & JH_COMM || !meet(a->phys, a->size, b->phys, b->size))
		return false;
	return !(a->flags & b->flags & JH_COLORED) || (a->colors & b->colors) != 0;
}

/* Is the region one of a link's: regions[shmem_start..+2+peers) of an ivshmem device? */
static bool is_section(const struct jh_pci *p, uint32_t region)
{
	return p->type == JH_PCI_IVSHMEM && region >= p->shmem_start && region - p->shmem_start < 2u + p->shmem_peers;
}

/* Are these regions of two cells sections of one link, that is, of devices in the same slot? */
static bool is_linked(const struct jh_cell *x, uint32_t i, const struct jh_cell *y, uint32_t k)
{
	for (uint32_t a = 0; a < x->lists[JH_PCI].n; a++)
		for (uint32_t b = 0; b < y->lists[JH_PCI].n; b++) {
			const struct jh_pci *m = JH_ITEM(x, JH_PCI, jh_pci, a), *o = JH_ITEM(y, JH_PCI, jh_pci, b);

			if (m->domain == o->domain && m->bdf == o->bdf && is_section(m, i) && is_section(o, k))
				return true;
		}
	return false;
}

/* ---- one cell ---- */

static void check_region(struct run *r, int cell, uint32_t i)
{
	const struct jh_cell *c = &r->k->cells[cell];
	const struct jh_memory *m = JH_ITEM(c, JH_MEMORY, jh_memory, i);
	uint64_t known = 0xfffff & ~UINT64_C(0x4800);
	char where[64];

	if (c->flavour == JH_UPSTREAM)
		known &= ~(uint64_t)(JH_COLORED | JH_COLORED_NO_COPY | JH_TCM_A | JH_TCM_B);
	at_memory(where, i, "flags");
	if (m->flags & ~known)
		tell(r, "memory-flags", cell, -1, where, "flags 0x%" PRIx64 " are not known to %s", m->flags & ~known, jh_flavours[c->flavour]);
	if (r->k->w_xor_x && (m->flags & (JH_WRITE | JH_EXECUTE)) == (JH_WRITE | JH_EXECUTE))
		tell(r, "writable-and-executable", cell, -1, where, "0x%" PRIx64 " can be written and executed", m->virt);
	at_memory(where, i, "size");
	if (m->size == 0)
		return;
	if (m->phys + m->size < m->phys || m->virt + m->size < m->virt)
		tell(r, "memory-wraps", cell, -1, where, "0x%" PRIx64 " bytes from 0x%" PRIx64 " go beyond the end of the addresses", m->size, m->phys);
	/* A region that is no whole pages is emulated access by access: right for registers, no memory. */
	if (!(m->flags & JH_IO) && (m->phys % PAGE != 0 || m->virt % PAGE != 0 || m->size % PAGE != 0))
		tell(r, "memory-alignment", cell, -1, where, "memory at 0x%" PRIx64 " with 0x%" PRIx64 " bytes is not whole pages", m->phys, m->size);
}

static void check_link(struct run *r, int cell, uint32_t i)
{
	const struct jh_cell *c = &r->k->cells[cell];
	const struct jh_pci *p = JH_ITEM(c, JH_PCI, jh_pci, i);
	char where[64];

	snprintf(where, sizeof(where), "/pci/%u", i);
	if ((uint32_t)p->caps_start + p->num_caps > c->lists[JH_CAPABILITY].n)
		tell(r, "pci-capabilities", cell, -1, where, "capabilities %u to %u of %u", p->caps_start, p->caps_start + p->num_caps,
		     c->lists[JH_CAPABILITY].n);
	if (p->type != JH_PCI_IVSHMEM) {
		if (p->type != JH_PCI_DEVICE && p->type != JH_PCI_BRIDGE)
			tell(r, "pci-type", cell, -1, where, "type %u is none of device (1), bridge (2), ivshmem (3)", p->type);
		return;
	}
	if ((uint64_t)p->shmem_start + 2 + p->shmem_peers > c->lists[JH_MEMORY].n)
		tell(r, "link-regions", cell, -1, where, "regions %u to %u for %u peers, of %u", p->shmem_start, p->shmem_start + 2 + p->shmem_peers,
		     p->shmem_peers, c->lists[JH_MEMORY].n);
	if (p->shmem_id >= p->shmem_peers)
		tell(r, "link-id", cell, -1, where, "id %u of %u peers", p->shmem_id, p->shmem_peers);
}

static void check_irqchip(struct run *r, int cell, uint32_t i)
{
	const struct jh_cell *c = &r->k->cells[cell];
	const struct jh_irqchip *chip = JH_ITEM(c, JH_IRQCHIP, jh_irqchip, i);
	const struct jh_system *s = r->k->system;
	char where[64];

	snprintf(where, sizeof(where), "/irqchips/%u", i);
	if (c->arch == JH_X86)
		return;
	if (chip->pin_base % 32 != 0 || chip->pin_base < 32)
		tell(r, "irq-base", cell, -1, where, "pin_base %u is not a multiple of 32 from 32 on", chip->pin_base);
	if (s != NULL && chip->address != s->gicd) /* such an entry is passed over without a word */
		tell(r, "irq-address", cell, -1, where, "the interrupt controller is at 0x%" PRIx64 ", not at 0x%" PRIx64, s->gicd, chip->address);
}

static void check_cell(struct run *r, int cell)
{
	const struct jh_cell *c = &r->k->cells[cell];
	bool cpu = false, remote = false, comm = false, ram = false, reset = false;
	uint32_t n = c->lists[JH_MEMORY].n;
	char where[64];

	for (uint32_t i = 0; i < c->n_cpus; i++)
		cpu = cpu || c->cpus[i] != 0;
	for (uint32_t i = 0; i < c->n_rcpus; i++)
		remote = remote || c->rcpus[i] != 0;
	if (c->name[0] == '\0')
		tell(r, "name", cell, -1, "/name", "a cell needs a name");
	if (!cpu && !remote)
		tell(r, "no-cpu", cell, -1, "/cpus", "a cell without a CPU is accepted and does nothing");
	if (c->n_cpus % 8 != 0)
		tell(r, "cpu-set-size", cell, -1, "/cpu_set_size", "%u bytes: the driver copies the set in words of 8", c->n_cpus);
	if (!(c->flags & JH_PASSIVE) && c->reply_timeout == 0)
		tell(r, "silent-cell", cell, -1, "/reply_timeout",
		     "a cell that does not answer messages stops the whole hypervisor: set passive_commreg or a timeout");
	for (uint32_t i = 0; i < n; i++) {
		const struct jh_memory *m = JH_ITEM(c, JH_MEMORY, jh_memory, i);

		comm = comm || (m->flags & JH_COMM && m->size > 0);
		ram = ram || (m->flags & (JH_WRITE | JH_LOADABLE)) == (JH_WRITE | JH_LOADABLE);
		reset = reset || (m->flags & JH_EXECUTE && c->reset_address >= m->virt && c->reset_address - m->virt < m->size);
		check_region(r, cell, i);
		for (uint32_t k = 0; k < i; k++) {
			const struct jh_memory *b = JH_ITEM(c, JH_MEMORY, jh_memory, k);

			at_memory(where, i, "virt");
			if (meet(m->virt, m->size, b->virt, b->size))
				tell(r, "memory-virtual-overlap", cell, -1, where, "0x%" PRIx64 " is in region %u, too", m->virt, k);
			at_memory(where, i, "phys");
			if (phys_meet(m, b))
				tell(r, "memory-self-overlap", cell, -1, where, "0x%" PRIx64 " is in region %u, too", m->phys, k);
		}
	}
	if (!comm)
		tell(r, "no-comm-region", cell, -1, "/memory", "no region has comm_region: the cell cannot tell how it ends");
	if (!ram)
		tell(r, "no-memory", cell, -1, "/memory", "no region can be loaded");
	if (cpu && ram && !reset && c->arch != JH_X86)
		tell(r, "reset-address", cell, -1, "/reset_address", "0x%" PRIx64 " is in no region that can be executed", c->reset_address);
	for (uint32_t i = 0; i < c->lists[JH_PCI].n; i++)
		check_link(r, cell, i);
	for (uint32_t i = 0; i < c->lists[JH_IRQCHIP].n; i++)
		check_irqchip(r, cell, i);
	if (jh_cell_size(c) > JH_FILE_MAX)
		tell(r, "size", cell, -1, "", "%zu bytes; the driver takes at most %u", jh_cell_size(c), JH_FILE_MAX);
}

/* ---- two cells ---- */

static void check_shared_memory(struct run *r, int a, int b)
{
	const struct jh_cell *x = &r->k->cells[a], *y = &r->k->cells[b];
	char where[64];

	for (uint32_t i = 0; i < x->lists[JH_MEMORY].n; i++) {
		const struct jh_memory *m = JH_ITEM(x, JH_MEMORY, jh_memory, i);

		for (uint32_t k = 0; m->size > 0 && k < y->lists[JH_MEMORY].n; k++) {
			const struct jh_memory *o = JH_ITEM(y, JH_MEMORY, jh_memory, k);

			/* Links share by their nature; so do registers that the root lends to both. */
			if (!phys_meet(m, o) || is_linked(x, i, y, k) || (m->flags & o->flags & JH_IO && m->flags & o->flags & JH_ROOTSHARED))
				continue;
			at_memory(where, i, "phys");
			tell(r, "memory-overlap", a, b, where, "0x%" PRIx64 " + 0x%" PRIx64 " meets 0x%" PRIx64 " + 0x%" PRIx64 " of %.31s", m->phys, m->size,
			     o->phys, o->size, y->name);
		}
	}
}

static void check_shared_irqs(struct run *r, int a, int b)
{
	const struct jh_cell *x = &r->k->cells[a], *y = &r->k->cells[b];
	char where[64];

	for (uint32_t i = 0; i < x->lists[JH_IRQCHIP].n; i++)
		for (uint32_t k = 0; k < y->lists[JH_IRQCHIP].n; k++) {
			const struct jh_irqchip *m = JH_ITEM(x, JH_IRQCHIP, jh_irqchip, i), *o = JH_ITEM(y, JH_IRQCHIP, jh_irqchip, k);

			for (unsigned p = 0; m->address == o->address && p < JH_PINS; p++) {
				unsigned at = m->pin_base + p - o->pin_base;

				if (!(m->pins[p / 32] >> p % 32 & 1) || m->pin_base + p < o->pin_base || at >= JH_PINS || !(o->pins[at / 32] >> at % 32 & 1))
					continue;
				snprintf(where, sizeof(where), "/irqchips/%u", i);
				tell(r, "irq-overlap", a, b, where, "interrupt %u is %.31s's, too", m->pin_base + p, y->name);
			}
		}
}

/* Of cells x and y, b -1: y is the root. */
static void check_two_links(struct run *r, int a, int b, const struct jh_cell *y, uint32_t i, uint32_t k)
{
	const struct jh_cell *x = &r->k->cells[a];
	const struct jh_pci *m = JH_ITEM(x, JH_PCI, jh_pci, i), *o = JH_ITEM(y, JH_PCI, jh_pci, k);
	char where[64];

	snprintf(where, sizeof(where), "/pci/%u", i);
	if (m->type != JH_PCI_IVSHMEM || o->type != JH_PCI_IVSHMEM) {
		tell(r, "pci-overlap", a, b, where, "device %04x:%04x is %.31s's, too", m->domain, m->bdf, y->name);
		return;
	}
	/* The same slot is one link; the hypervisor compares nothing of its ends but their ids. */
	if (m->shmem_id == o->shmem_id)
		tell(r, "link-id-twice", a, b, where, "both ends of the link in slot 0x%x have the id %u", m->bdf, m->shmem_id);
	if (m->shmem_peers != o->shmem_peers || m->shmem_protocol != o->shmem_protocol)
		tell(r, "link-mismatch", a, b, where, "%u peers and protocol 0x%x; %.31s has %u and 0x%x", m->shmem_peers, m->shmem_protocol, y->name,
		     o->shmem_peers, o->shmem_protocol);
	for (uint32_t n = 0; n < 2u + m->shmem_peers; n++) {
		const struct jh_memory *p, *q;

		if ((uint64_t)m->shmem_start + n >= x->lists[JH_MEMORY].n || (uint64_t)o->shmem_start + n >= y->lists[JH_MEMORY].n)
			return;
		p = JH_ITEM(x, JH_MEMORY, jh_memory, m->shmem_start + n);
		q = JH_ITEM(y, JH_MEMORY, jh_memory, o->shmem_start + n);
		if (p->size != q->size || (p->size > 0 && p->phys != q->phys)) {
			tell(r, "link-mismatch", a, b, where, "section %u is 0x%" PRIx64 " + 0x%" PRIx64 " here and 0x%" PRIx64 " + 0x%" PRIx64 " in %.31s", n,
			     p->phys, p->size, q->phys, q->size, y->name);
			return;
		}
		if (n >= 2 && p->flags & q->flags & JH_WRITE)
			tell(r, "link-section", a, b, where, "output section %u can be written by both ends", n - 2);
	}
}

static void check_links(struct run *r, int a, int b, const struct jh_cell *y)
{
	const struct jh_cell *x = &r->k->cells[a];

	for (uint32_t i = 0; i < x->lists[JH_PCI].n; i++)
		for (uint32_t k = 0; k < y->lists[JH_PCI].n; k++) {
			const struct jh_pci *m = JH_ITEM(x, JH_PCI, jh_pci, i), *o = JH_ITEM(y, JH_PCI, jh_pci, k);

			/* A device of the root's moves to the cell with its slot; the end of a link stays. */
			if (m->domain == o->domain && m->bdf == o->bdf && (b >= 0 || (m->type == JH_PCI_IVSHMEM && o->type == JH_PCI_IVSHMEM)))
				check_two_links(r, a, b, y, i, k);
		}
}

static void check_pair(struct run *r, int a, int b)
{
	const struct jh_cell *x = &r->k->cells[a], *y = &r->k->cells[b];

	if (strcmp(x->name, y->name) == 0)
		tell(r, "name-twice", a, b, "/name", "another cell is called %.31s, too", y->name);
	if (x->flavour != y->flavour || x->arch != y->arch)
		tell(r, "flavour-mismatch", a, b, "/flavour", "%s, %s; %.31s is %s, %s", jh_flavours[x->flavour], jh_archs[x->arch], y->name,
		     jh_flavours[y->flavour], jh_archs[y->arch]);
	for (uint32_t i = 0; i < x->n_cpus * 8 && i < y->n_cpus * 8; i++)
		if (x->cpus[i / 8] & y->cpus[i / 8] & 1u << i % 8)
			tell(r, "cpu-overlap", a, b, "/cpus", "CPU %u is %.31s's, too", i, y->name);
	for (uint32_t i = 0; i < x->n_rcpus * 8 && i < y->n_rcpus * 8; i++)
		if (x->rcpus[i / 8] & y->rcpus[i / 8] & 1u << i % 8)
			tell(r, "remote-cpu-overlap", a, b, "/remote_cpus", "remote processor %u is %.31s's, too", i, y->name);
	check_shared_memory(r, a, b);
	check_shared_irqs(r, a, b);
	check_links(r, a, b, y);
	for (uint32_t i = 0; i < x->lists[JH_STREAM].n; i++)
		for (uint32_t k = 0; k < y->lists[JH_STREAM].n; k++)
			if (JH_ITEM(x, JH_STREAM, jh_stream, i)->id == JH_ITEM(y, JH_STREAM, jh_stream, k)->id)
				tell(r, "stream-overlap", a, b, "/stream_ids", "stream id 0x%x is %.31s's, too", JH_ITEM(x, JH_STREAM, jh_stream, i)->id,
				     y->name);
}

/* ---- a cell and the system ---- */

struct reserved {
	const char *what;
	uint64_t base, size;
};

/* What belongs to the hypervisor and to the interrupt controller's emulation. Sizes: jailhouse config check. */
static size_t reserved_ranges(const struct jh_system *s, struct reserved ret[16])
{
	size_t n = 0;

	ret[n++] = (struct reserved){"the hypervisor's memory", s->hypervisor.phys, s->hypervisor.size};
	if (s->mmconfig_base != 0)
		ret[n++] = (struct reserved){"the PCI configuration space", s->mmconfig_base, ((uint64_t)s->mmconfig_end_bus + 1) << 20};
	for (int i = 0; i < JH_IOMMUS; i++)
		if (s->iommus[i].type != 0)
			ret[n++] = (struct reserved){"an IOMMU", s->iommus[i].base, s->iommus[i].size};
	if (s->root.arch == JH_X86) {
		ret[n++] = (struct reserved){"the local APIC", 0xfee00000, PAGE};
		return n;
	}
	ret[n++] = (struct reserved){"the GIC distributor", s->gicd, s->gic_version == 3 ? 0x10000 : 0x1000};
	if (s->gic_version == 3) {
		ret[n++] = (struct reserved){"the GIC redistributors", s->gicr, 0x20000};
	} else {
		ret[n++] = (struct reserved){"the GIC's CPU interface", s->gicc, 0x2000};
		ret[n++] = (struct reserved){"the GIC's hypervisor interface", s->gich, 0x2000};
		ret[n++] = (struct reserved){"the GIC's virtual interface", s->gicv, 0x2000};
	}
	return n;
}

static void check_against_system(struct run *r, int cell)
{
	const struct jh_system *s = r->k->system;
	const struct jh_cell *c = &r->k->cells[cell];
	struct reserved reserved[16];
	size_t n = reserved_ranges(s, reserved);
	char where[64];

	if (c->flavour != s->root.flavour || (c->arch != s->root.arch && c->flavour != JH_RUNPHI))
		tell(r, "flavour-mismatch", cell, -1, "/flavour", "%s, %s; the hypervisor is %s, %s", jh_flavours[c->flavour], jh_archs[c->arch],
		     jh_flavours[s->root.flavour], jh_archs[s->root.arch]);
	if (strcmp(c->name, s->root.name) == 0)
		tell(r, "name-twice", cell, -1, "/name", "the root cell is called %.31s, too", c->name);
	check_links(r, cell, -1, &s->root);
	for (uint32_t i = 0; i < c->n_cpus * 8; i++)
		if (c->cpus[i / 8] >> i % 8 & 1 && (i / 8 >= s->root.n_cpus || !(s->root.cpus[i / 8] >> i % 8 & 1)))
			tell(r, "cpu-not-of-root", cell, -1, "/cpus", "CPU %u is not one of the root cell's", i);
	if (c->arch == JH_X86 && c->n_cpus > 0 && c->cpus[0] & 1)
		tell(r, "cpu-0", cell, -1, "/cpus", "CPU 0 stays with the root cell on x86");
	for (uint32_t i = 0; i < c->lists[JH_MEMORY].n; i++) {
		const struct jh_memory *m = JH_ITEM(c, JH_MEMORY, jh_memory, i);

		at_memory(where, i, "phys");
		for (size_t k = 0; k < n && !(m->flags & JH_COMM); k++)
			if (meet(m->phys, m->size, reserved[k].base, reserved[k].size))
				tell(r, "memory-reserved", cell, -1, where, "0x%" PRIx64 " + 0x%" PRIx64 " meets %s at 0x%" PRIx64, m->phys, m->size,
				     reserved[k].what, reserved[k].base);
	}
}

static void check_against_linux(struct run *r, int cell)
{
	const struct jh_cell *c = &r->k->cells[cell];
	char where[64];

	for (uint32_t i = 0; i < c->lists[JH_MEMORY].n; i++) {
		const struct jh_memory *m = JH_ITEM(c, JH_MEMORY, jh_memory, i);

		at_memory(where, i, "phys");
		for (size_t k = 0; k < r->k->n_linux_ram && !(m->flags & JH_COMM); k++)
			if (meet(m->phys, m->size, r->k->linux_ram[k].phys, r->k->linux_ram[k].size))
				tell(r, "memory-of-linux", cell, -1, where, "0x%" PRIx64 " + 0x%" PRIx64 " meets memory that the root's Linux uses, at 0x%" PRIx64,
				     m->phys, m->size, r->k->linux_ram[k].phys);
	}
}

size_t jh_check(const struct jh_check *k)
{
	struct run r = {.k = k};

	for (int a = 0; (size_t)a < k->n; a++) {
		check_cell(&r, a);
		if (k->system != NULL)
			check_against_system(&r, a);
		check_against_linux(&r, a);
		for (int b = 0; b < a; b++)
			check_pair(&r, a, b);
	}
	return r.n;
}
