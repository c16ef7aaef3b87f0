/* From what a container was granted to the configuration of its cell. Pure. */
#include "plan.h"

#include "clean.h"
#include "error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct findings {
	struct phi_error *e;
};

static void first_finding(void *ud, const struct jh_finding *f)
{
	struct findings *s = ud;

	if (s->e->code == PHI_OK)
		phi_error_set(s->e, PHI_INVALID, EINVAL, "/spec", "%s: %s (%s)", f->code, f->detail, f->pointer);
}

uint64_t jh_guest_address(const struct alloc_grant *g, uint64_t ram, size_t i)
{
	return i == 0 ? ram : g->memory[i].base;
}

static uint64_t comm_region_of(const struct platform *p)
{
	return p->jailhouse.has_comm ? p->jailhouse.comm_region : 0x80000000; /* what upstream's inmates expect */
}

static void set_cpus(struct jh_cell *ret, const struct cpuset *cpus)
{
	for (int cpu = cpuset_next(cpus, 0); cpu >= 0; cpu = cpuset_next(cpus, (unsigned)cpu + 1)) {
		ret->cpus[cpu / 8] |= (uint8_t)(1u << cpu % 8);
		ret->n_cpus = (uint32_t)cpu / 64 * 8 + 8;
	}
	if (ret->n_cpus == 0)
		ret->n_cpus = 8; /* of remote processors alone */
}

/* One entry of an irqchip has 128 pins, from a multiple of 32 on. */
static void add_irq(struct jh_cell *ret, const struct platform *p, int64_t spi)
{
	uint32_t intid = (uint32_t)spi + 32, base = 32 + (intid - 32) / JH_PINS * JH_PINS;
	struct jh_irqchip *chip = NULL;

	for (uint32_t k = 0; k < ret->lists[JH_IRQCHIP].n; k++)
		if (JH_ITEM(ret, JH_IRQCHIP, jh_irqchip, k)->pin_base == base)
			chip = (struct jh_irqchip *)ret->lists[JH_IRQCHIP].items + k;
	if (chip == NULL) {
		chip = jh_append(ret, JH_IRQCHIP, 1);
		*chip = (struct jh_irqchip){.address = p->interrupts.base, .pin_base = base};
	}
	chip->pins[(intid - base) / 32] |= 1u << (intid - base) % 32;
}

/* Its registers, interrupts and the streams of its DMA. */
static void add_device(struct jh_cell *ret, const struct platform *p, const struct platform_device *d)
{
	for (size_t i = 0; i < d->mmio.n; i++) {
		const struct platform_mmio *m = (const struct platform_mmio *)d->mmio.items + i;

		*(struct jh_memory *)jh_append(ret, JH_MEMORY, 1) =
			(struct jh_memory){m->base, m->base, m->size, JH_READ | JH_WRITE | JH_IO | (m->size % 4096 != 0 ? JH_IO_32 : 0), 0};
	}
	for (size_t i = 0; i < d->irqs.n; i++)
		add_irq(ret, p, ((const struct platform_irq *)d->irqs.items)[i].spi);
	for (size_t i = 0; i < d->stream_ids.n; i++)
		((struct jh_stream *)jh_append(ret, JH_STREAM, 1))->id = (uint32_t)((const struct platform_stream *)d->stream_ids.items)[i].id;
}

/* The first UART is where the inmate's library writes (jailhouse/console.h). */
static void set_console(struct jh_cell *ret, const struct platform_device *d)
{
	static const char *const types[] = {"none", "efifb", "8250", "pl011", "xuartps", "mvebu", "hscif", "scifa", "imx", "imx-lpuart", "scif"};
	static const uint16_t mmio = 1, four_bytes = 2;

	if (ret->console.type != 0 || strcmp(d->kind, "uart") != 0 || d->type == NULL || d->mmio.n == 0)
		return;
	for (uint16_t i = 1; i < PHI_COUNT(types); i++)
		if (strcmp(d->type, types[i]) == 0) {
			const struct platform_mmio *m = d->mmio.items;

			ret->console = (struct jh_console){.address = m->base, .size = (uint32_t)m->size, .type = i,
							   .flags = (uint16_t)(mmio | (i == 2 ? 0 : four_bytes))};
		}
}

static bool has_dma(const struct cell *c, const struct platform *p)
{
	for (size_t i = 0; i < c->grant.n_devices; i++) {
		const struct platform_device *d = platform_device(p, c->grant.devices[i]);

		if (d != NULL && d->dma)
			return true;
	}
	return false;
}

bool jh_is_hypervisor_console(const struct platform_device *d)
{
	return d->type != NULL && strcmp(d->type, PLATFORM_HYPERVISOR_CONSOLE) == 0;
}

/* The end of a link: an ivshmem device, and its sections in their order (facts of the order: cell-config.h, JAILHOUSE_SHMEM_NET_REGIONS).
 * Others' output is read only. What this end writes is loadable, so that it can be cleared. */
static void add_link(struct jh_cell *ret, const struct platform *p, const struct alloc_link *l)
{
	const uint64_t shared = JH_READ | JH_ROOTSHARED, own = shared | JH_WRITE | JH_LOADABLE;
	uint32_t first = ret->lists[JH_MEMORY].n;
	struct jh_memory *m = jh_append(ret, JH_MEMORY, 2 + (uint32_t)l->peers);
	struct jh_pci *pci;
	uint64_t at = l->base + ALLOC_LINK_STATES;

	m[0] = (struct jh_memory){l->base, l->base, ALLOC_LINK_STATES, shared, 0};
	if (l->common > 0)
		m[1] = (struct jh_memory){at, at, l->common, shared | JH_WRITE, 0};
	at += l->common;
	for (int64_t i = 0; i < l->peers; i++, at += l->output)
		m[2 + i] = (struct jh_memory){at, at, l->output, i == l->id ? own : shared, 0};
	pci = jh_append(ret, JH_PCI, 1);
	*pci = (struct jh_pci){
		.type = JH_PCI_IVSHMEM,
		.domain = (uint16_t)p->links.domain,
		.bdf = (uint16_t)(l->slot << 3),
		.bar_mask = {0xfffff000, p->jailhouse.arch == JH_X86 ? 0xfffff000 : 0},
		.msix_vectors = p->jailhouse.arch == JH_X86 ? (uint16_t)(l->peers + 1) : 0,
		.shmem_start = first,
		.shmem_id = (uint8_t)l->id,
		.shmem_peers = (uint8_t)l->peers,
		.shmem_protocol = l->protocol == LINK_NETWORK ? 1 : 0,
	};
}

/* Its bit in the set, and the memory that it runs from. */
static void add_remote(struct jh_cell *ret, const struct platform_remote *r)
{
	static const uint64_t banks[] = {[BANK_NONE] = 0, [BANK_A] = JH_TCM_A, [BANK_B] = JH_TCM_B};

	ret->rcpus[r->id / 8] |= (uint8_t)(1u << r->id % 8);
	ret->n_rcpus = 8;
	for (size_t i = 0; i < r->memory.n; i++) {
		const struct platform_remote_memory *m = (const struct platform_remote_memory *)r->memory.items + i;

		*(struct jh_memory *)jh_append(ret, JH_MEMORY, 1) =
			(struct jh_memory){m->base, m->has_at ? m->at : m->base, m->size,
					   JH_READ | JH_WRITE | JH_EXECUTE | JH_LOADABLE | banks[m->bank], 0};
	}
}

void jh_plan_clearing(const struct cell *c, const struct platform *p, const struct alloc_link *l, struct jh_cell *ret)
{
	uint64_t comm = comm_region_of(p);
	struct jh_memory *m;

	*ret = (struct jh_cell){.flavour = p->jailhouse.flavour, .arch = p->jailhouse.arch, .flags = JH_PASSIVE};
	snprintf(ret->name, sizeof(ret->name), "%s", c->name);
	set_cpus(ret, &c->grant.cpus);
	m = jh_append(ret, JH_MEMORY, 2);
	m[0] = (struct jh_memory){l->base, l->base, l->size, JH_READ | JH_WRITE | JH_LOADABLE, 0};
	m[1] = (struct jh_memory){0, comm, 0x1000, JH_READ | JH_WRITE | JH_COMM, 0};
}

int jh_plan(const struct cell *c, uint64_t ram, uint64_t entry, const struct platform *p, const struct jh_system *system, struct jh_cell *ret,
	    struct phi_error *e)
{
	uint64_t comm = comm_region_of(p), dma = has_dma(c, p) ? JH_DMA : 0;
	struct findings findings = {e};
	struct jh_check k = {.cells = ret, .n = 1, .system = system, .found = first_finding, .ud = &findings};
	struct jh_memory *m;

	*ret = (struct jh_cell){.flavour = p->jailhouse.flavour, .arch = p->jailhouse.arch, .flags = JH_PASSIVE};
	snprintf(ret->name, sizeof(ret->name), "%s", c->name);
	ret->reset_address = entry;
	set_cpus(ret, &c->grant.cpus);
	m = jh_append(ret, JH_MEMORY, (uint32_t)c->grant.n_memory + 1);
	for (size_t i = 0; i < c->grant.n_memory; i++) {
		const struct alloc_memory *g = &c->grant.memory[i];

		if (!g->has_base)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/memory", "pool \"%s\" has no addresses; a Jailhouse cell needs one that has", g->pool);
		bool colored = g->colors != UINT64_MAX;

		m[i] = (struct jh_memory){g->base, jh_guest_address(&c->grant, ram, i), g->size,
					  JH_READ | JH_WRITE | JH_EXECUTE | JH_LOADABLE | dma | (colored ? JH_COLORED : 0), colored ? g->colors : 0};
	}
	m[c->grant.n_memory] = (struct jh_memory){0, comm, 0x1000, JH_READ | JH_WRITE | JH_COMM, 0};
	for (size_t i = 0; i < c->grant.n_devices; i++) {
		const struct platform_device *d = platform_device(p, c->grant.devices[i]);

		if (d == NULL)
			continue; /* the platform file was another when it was granted */
		add_device(ret, p, d);
		set_console(ret, d);
		if (jh_is_hypervisor_console(d))
			ret->flags |= JH_CONSOLE_PERMITTED | JH_CONSOLE_ACTIVE;
	}
	for (size_t i = 0; i < c->grant.n_remote; i++) {
		const struct platform_remote *remote = platform_remote(p, c->grant.remote[i]);

		if (remote != NULL)
			add_remote(ret, remote);
	}
	for (size_t i = 0; i < c->grant.n_links; i++)
		add_link(ret, p, &c->grant.links[i]);
	if (c->grant.has_virtual) {
		ret->vpci_irq_base = (uint32_t)c->grant.virtual_spi;
		for (int64_t i = 0; i < 4; i++)
			add_irq(ret, p, c->grant.virtual_spi + i);
	}
	*e = (struct phi_error){0};
	return jh_check(&k) > 0 ? -EINVAL : 0;
}
