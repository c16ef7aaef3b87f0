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

uint64_t jh_guest_address(const struct cell *c, size_t i)
{
	if (i > 0)
		return c->grant.memory[i].base;
	return c->spec.boot.inmate.has_at ? c->spec.boot.inmate.at & ~UINT64_C(4095) : 0;
}

/* Its registers and interrupts. One entry of an irqchip has 128 pins, from a multiple of 32 on. */
static void add_device(struct jh_cell *ret, const struct platform *p, const struct platform_device *d)
{
	for (size_t i = 0; i < d->mmio.n; i++) {
		const struct platform_mmio *m = (const struct platform_mmio *)d->mmio.items + i;

		*(struct jh_memory *)jh_append(ret, JH_MEMORY, 1) =
			(struct jh_memory){m->base, m->base, m->size, JH_READ | JH_WRITE | JH_IO | (m->size % 4096 != 0 ? JH_IO_32 : 0), 0};
	}
	for (size_t i = 0; i < d->irqs.n; i++) {
		uint32_t intid = (uint32_t)((const struct platform_irq *)d->irqs.items)[i].spi + 32, base = 32 + (intid - 32) / JH_PINS * JH_PINS;
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

int jh_plan(const struct cell *c, const struct platform *p, const struct jh_system *system, struct jh_cell *ret, struct phi_error *e)
{
	uint64_t comm = p->jailhouse.has_comm ? p->jailhouse.comm_region : 0x80000000; /* what upstream's inmates expect */
	struct findings findings = {e};
	struct jh_check k = {.cells = ret, .n = 1, .system = system, .found = first_finding, .ud = &findings};
	struct jh_memory *m;

	*ret = (struct jh_cell){.flavour = p->jailhouse.flavour, .arch = p->jailhouse.arch, .flags = JH_PASSIVE};
	snprintf(ret->name, sizeof(ret->name), "%s", c->name);
	ret->reset_address = c->spec.boot.inmate.has_at ? c->spec.boot.inmate.at : 0;
	for (int cpu = cpuset_next(&c->grant.cpus, 0); cpu >= 0; cpu = cpuset_next(&c->grant.cpus, (unsigned)cpu + 1)) {
		ret->cpus[cpu / 8] |= (uint8_t)(1u << cpu % 8);
		ret->n_cpus = (uint32_t)cpu / 64 * 8 + 8;
	}
	m = jh_append(ret, JH_MEMORY, (uint32_t)c->grant.n_memory + 1);
	for (size_t i = 0; i < c->grant.n_memory; i++) {
		const struct alloc_memory *g = &c->grant.memory[i];

		if (!g->has_base)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/memory", "pool \"%s\" has no addresses; a Jailhouse cell needs one that has", g->pool);
		bool colored = g->colors != UINT64_MAX;

		m[i] = (struct jh_memory){g->base, jh_guest_address(c, i), g->size,
					  JH_READ | JH_WRITE | JH_EXECUTE | JH_LOADABLE | (colored ? JH_COLORED : 0), colored ? g->colors : 0};
	}
	m[c->grant.n_memory] = (struct jh_memory){0, comm, 0x1000, JH_READ | JH_WRITE | JH_COMM, 0};
	for (size_t i = 0; i < c->grant.n_devices; i++) {
		const struct platform_device *d = platform_device(p, c->grant.devices[i]);

		if (d != NULL) { /* the allocator chose it */
			add_device(ret, p, d);
			set_console(ret, d);
		}
	}
	*e = (struct phi_error){0};
	return jh_check(&k) > 0 ? -EINVAL : 0;
}
