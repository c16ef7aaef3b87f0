/* The platform file: rules between its members. Pure. */
#include "platform.h"

#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct platform_pool *pools(const struct platform *p)
{
	return p->memory.items;
}

static const struct platform_mmio *mmio(const struct platform_device *d, size_t i)
{
	return (const struct platform_mmio *)d->mmio.items + i;
}

/* Registers in common, or an interrupt: what each can be given without the other has neither. */
static bool devices_meet(const struct platform_device *a, const struct platform_device *b, const char **ret_what)
{
	for (size_t i = 0; i < a->mmio.n; i++)
		for (size_t k = 0; k < b->mmio.n; k++) {
			const struct platform_mmio *m = mmio(a, i), *o = mmio(b, k);

			/* By pages: what is mapped is whole pages. */
			*ret_what = "registers on a page of";
			if (m->base / 4096 <= (o->base + o->size - 1) / 4096 && o->base / 4096 <= (m->base + m->size - 1) / 4096)
				return true;
		}
	for (size_t i = 0; i < a->irqs.n; i++)
		for (size_t k = 0; k < b->irqs.n; k++) {
			*ret_what = "an interrupt of";
			if (((const struct platform_irq *)a->irqs.items)[i].spi == ((const struct platform_irq *)b->irqs.items)[k].spi)
				return true;
		}
	return false;
}

static int check_safe_state(const struct platform_device *d, const char *where, struct phi_error *e)
{
	for (size_t i = 0; i < d->safe_state.n; i++) {
		const struct platform_write *w = (const struct platform_write *)d->safe_state.items + i;
		bool inside = false;

		if ((w->width & (w->width - 1)) != 0 || w->address % (uint64_t)(w->width / 8) != 0 || (w->width < 64 && w->value >> w->width != 0))
			return phi_error_set(e, PHI_INVALID, EINVAL, where,
					     "safe_state: width is 8, 16, 32 or 64 bits, the address a multiple of it, and the value fits");
		for (size_t k = 0; k < d->mmio.n; k++)
			inside = inside || (w->address >= mmio(d, k)->base && w->address - mmio(d, k)->base + (uint64_t)w->width / 8 <= mmio(d, k)->size);
		if (!inside)
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "safe_state writes 0x%" PRIx64 ", which is none of its registers", w->address);
	}
	return 0;
}

static int check_device(const struct platform *p, const struct platform_device *d, const char *where, struct phi_error *e)
{
	if (d->irqs.n > 0 && !p->interrupts.present)
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "it has interrupts, and \"interrupts\" does not say whose they are");
	for (size_t m = 0; m < d->mmio.n; m++)
		if (mmio(d, m)->base + mmio(d, m)->size > PHI_ADDRESS_MAX)
			return phi_error_set(e, PHI_INVALID, ERANGE, where, "its registers end beyond 2^62");
	if (d->dma && d->stream_ids.n == 0 && !d->unsafe_dma)
		return phi_error_set(e, PHI_INVALID, EINVAL, where,
				     "it has DMA: give the stream_ids by which an IOMMU keeps it to its cell's memory, or say \"unsafe_dma\": true");
	if ((d->host.handover == HANDOVER_UNBIND) != (d->host.sysfs != NULL))
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "host: \"sysfs\" and the handover \"unbind\" need each other");
	if (d->type != NULL && strcmp(d->type, PLATFORM_HYPERVISOR_CONSOLE) == 0 && (d->mmio.n > 0 || d->irqs.n > 0))
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "the hypervisor's console has neither registers nor interrupts");
	return check_safe_state(d, where, e);
}

static bool same_text(const char *a, const char *b)
{
	return a != NULL && b != NULL && strcmp(a, b) == 0;
}

static int check_devices(const struct platform *p, struct phi_error *e)
{
	const struct platform_device *devices = p->devices.items;
	char where[60];

	for (size_t i = 0; i < p->devices.n; i++) {
		const struct platform_device *d = &devices[i];
		const char *what;
		int r;

		snprintf(where, sizeof(where), "/devices/%zu", i);
		r = check_device(p, d, where, e);
		if (r < 0)
			return r;
		for (size_t k = 0; k < i; k++) {
			if (strcmp(d->name, devices[k].name) == 0)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "the name \"%s\" is there twice", d->name);
			if (same_text(d->host.tty, devices[k].host.tty))
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "its tty is \"%s\"'s, too", devices[k].name);
			if (d->type != NULL && strcmp(d->type, PLATFORM_HYPERVISOR_CONSOLE) == 0 && same_text(d->type, devices[k].type))
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "the hypervisor has one console");
			if (devices_meet(d, &devices[k], &what) && !same_text(d->group, devices[k].group))
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "it has %s \"%s\"; give both one \"group\": they go together",
						     what, devices[k].name);
		}
	}
	return 0;
}

/* The four interrupts of each virtual PCI bus are nobody else's. */
static int check_virtual(const struct platform *p, struct phi_error *e)
{
	const struct platform_irq *v = p->interrupts.virtual.items;
	char where[60];

	for (size_t i = 0; i < p->interrupts.virtual.n; i++) {
		snprintf(where, sizeof(where), "/interrupts/virtual/%zu", i);
		if (v[i].spi > PHI_SPI_MAX - 3)
			return phi_error_set(e, PHI_INVALID, ERANGE, where, "four interrupts begin there; the last is %d", PHI_SPI_MAX);
		for (size_t k = 0; k < i; k++)
			if (v[i].spi < v[k].spi + 4 && v[k].spi < v[i].spi + 4)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "of the four interrupts from %" PRIi64 " on, some are those of item %zu",
						     v[i].spi, k);
		for (size_t d = 0; d < p->devices.n; d++) {
			const struct platform_device *device = (const struct platform_device *)p->devices.items + d;

			for (size_t k = 0; k < device->irqs.n; k++) {
				int64_t spi = ((const struct platform_irq *)device->irqs.items)[k].spi;

				if (spi >= v[i].spi && spi < v[i].spi + 4)
					return phi_error_set(e, PHI_INVALID, EINVAL, where, "interrupt %" PRIi64 " is the device \"%s\"'s", spi, device->name);
			}
		}
	}
	return 0;
}

static int check_remote(const struct platform *p, struct phi_error *e)
{
	const struct platform_remote *r = p->remote.items;
	char where[60];

	for (size_t i = 0; i < p->remote.n; i++) {
		snprintf(where, sizeof(where), "/remote_processors/%zu", i);
		for (size_t k = 0; k < i; k++)
			if (strcmp(r[i].name, r[k].name) == 0 || r[i].id == r[k].id)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "its name or id is that of item %zu", k);
		for (size_t m = 0; m < r[i].memory.n; m++) {
			const struct platform_remote_memory *a = (const struct platform_remote_memory *)r[i].memory.items + m;

			if (a->base % 4096 != 0 || a->size % 4096 != 0 || a->at % 4096 != 0)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "memory: whole pages of 4096 bytes");
			for (size_t k = 0; k < p->memory.n; k++)
				if (pools(p)[k].has_base && a->base < pools(p)[k].base + pools(p)[k].size && pools(p)[k].base < a->base + a->size)
					return phi_error_set(e, PHI_INVALID, EINVAL, where, "its memory overlaps pool \"%s\"", pools(p)[k].name);
		}
	}
	return 0;
}

static int check_links(const struct platform *p, struct phi_error *e)
{
	const struct platform_host_slot *h = p->links.host_slots.items;
	const struct platform_pool *pool = p->links.memory ? platform_pool(p, p->links.memory) : NULL;
	char where[60];

	if (p->links.memory != NULL && (pool == NULL || !pool->has_base))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/links/memory", "\"%s\" is no pool that has a base", p->links.memory);
	for (size_t i = 0; i < p->links.host_slots.n; i++) {
		uint64_t size = 4096 + h[i].common + h[i].output * (uint64_t)h[i].peers;

		snprintf(where, sizeof(where), "/links/host_slots/%zu", i);
		if (h[i].id >= h[i].peers)
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "the id is below the number of peers");
		if (h[i].base % 4096 != 0 || h[i].common % 4096 != 0 || h[i].output % 4096 != 0 || h[i].base + size > PHI_ADDRESS_MAX)
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "base and sizes are multiples of 4096 and end below 2^62");
		for (size_t k = 0; k < i; k++)
			if (h[i].slot == h[k].slot)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "slot %" PRIi64 " is there twice", h[i].slot);
		for (size_t k = 0; k < p->memory.n; k++)
			if (pools(p)[k].has_base && h[i].base < pools(p)[k].base + pools(p)[k].size && pools(p)[k].base < h[i].base + size)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "its memory overlaps pool \"%s\"", pools(p)[k].name);
	}
	return 0;
}

int platform_check(const struct platform *p, struct phi_error *e)
{
	char where[60];
	int r;

	for (int c = cpuset_next(&p->cpus.host, 0); c >= 0; c = cpuset_next(&p->cpus.host, (unsigned)c + 1))
		if (p->cpus.has_ids && !cpuset_has(&p->cpus.ids, (unsigned)c))
			return phi_error_set(e, PHI_INVALID, EINVAL, "/cpus/host", "CPU %d is not in cpus.ids", c);
	for (size_t i = 0; i < p->memory.n; i++) {
		const struct platform_pool *a = pools(p) + i;

		snprintf(where, sizeof(where), "/memory/%zu", i);
		if (a->has_base != (a->kind != POOL_HOST && a->kind != POOL_HUGEPAGES))
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "a pool of kind \"%s\" %s a base",
					     platform_pool_kinds[a->kind], a->has_base ? "has not" : "needs");
		if (a->size % 4096 != 0 || a->base % 4096 != 0 || a->base + a->size > PHI_ADDRESS_MAX)
			return phi_error_set(e, PHI_INVALID, EINVAL, where,
					     "base and size must be multiples of 4096 and end below 2^62");
		for (size_t k = 0; k < i; k++) {
			const struct platform_pool *b = pools(p) + k;

			if (strcmp(a->name, b->name) == 0)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "the name \"%s\" is there twice",
						     a->name);
			if (a->has_base && b->has_base && a->base < b->base + b->size && b->base < a->base + a->size)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "pool \"%s\" overlaps pool \"%s\"",
						     a->name, b->name);
		}
	}
	for (size_t i = 0; i < p->qemu_accel.n; i++)
		if (strcmp(p->qemu_accel.values[i], "kvm") != 0 && strcmp(p->qemu_accel.values[i], "tcg") != 0)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/backends/qemu/accel",
					     "\"%.20s\" is none of kvm, tcg", p->qemu_accel.values[i]);
	r = check_devices(p, e);
	if (r == 0)
		r = check_virtual(p, e);
	if (r == 0)
		r = check_remote(p, e);
	return r < 0 ? r : check_links(p, e);
}

