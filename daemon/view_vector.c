/* The documents of the allocation vector: who has what, what there is, what a cell was granted. See view.h and api/openapi.yaml. */
#include "view.h"

#include "clean.h"
#include "json.h"

#include <errno.h>
#include <string.h>

#define GIC_SPI 32 /* INTID of SPI 0 (GIC architecture, 2.2.1) */

static const char *cpu_state(const struct alloc_cpu *c)
{
	return c->host ? "host" : c->quarantined ? "quarantined" : c->observed ? "observed" : c->owner[0] ? "granted" : "free";
}

static const char *unit_state(const char *owner, bool quarantined)
{
	return quarantined ? "quarantined" : owner[0] ? "granted" : "free";
}

static void add_unit(struct json *list, const char *name, const struct alloc_unit *u, const char *kind)
{
	struct json *o = json_object(), *owners;

	json_add_string(o, "name", name);
	if (kind != NULL)
		json_add_string(o, "kind", kind);
	json_add_string(o, "state", unit_state(u->owner, u->quarantined));
	owners = json_add_array(o, "owners");
	if (u->owner[0] != '\0')
		json_add_string(owners, NULL, u->owner);
	json_add(list, NULL, o);
}

static void add_irq(struct json *list, int64_t spi, const char *device, const char *owner)
{
	struct json *o = json_object();

	json_add_integer(o, "irq", spi + GIC_SPI);
	json_add_string(o, "device", device);
	json_add_string(o, "owner", owner[0] ? owner : NULL);
	json_add(list, NULL, o);
}

/* What has a name in the platform file. */
static void add_units(const struct platform *p, const struct alloc_view *v, struct json *j)
{
	const struct platform_device *devices = p->devices.items;
	const struct platform_remote *remote = p->remote.items;
	const struct platform_irq *virtual = p->interrupts.virtual.items;
	struct json *list = json_add_array(j, "devices"), *irqs = json_add_array(j, "irqs");

	for (size_t i = 0; i < p->devices.n; i++) {
		add_unit(list, devices[i].name, &v->devices[i], devices[i].kind);
		for (size_t k = 0; k < devices[i].irqs.n; k++)
			add_irq(irqs, ((const struct platform_irq *)devices[i].irqs.items)[k].spi, devices[i].name, v->devices[i].owner);
	}
	for (size_t i = 0; i < p->interrupts.virtual.n; i++)
		for (int64_t k = 0; k < 4; k++)
			add_irq(irqs, virtual[i].spi + k, NULL, v->virtual[i].owner);
	list = json_add_array(j, "remote_processors");
	for (size_t i = 0; i < p->remote.n; i++)
		add_unit(list, remote[i].name, &v->remote[i], NULL);
}

static struct json *link_json(const struct alloc_open_link *l)
{
	struct json *o = json_object(), *ends;

	json_add_string(o, "name", l->link.name);
	json_add_integer(o, "slot", l->link.slot);
	json_add_hex(o, "base", l->link.base);
	json_add_integer(o, "size", (int64_t)l->link.size);
	json_add_integer(o, "common", (int64_t)l->link.common);
	json_add_integer(o, "output", (int64_t)l->link.output);
	json_add_string(o, "protocol", link_protocols[l->link.protocol]);
	json_add_bool(o, "host", l->link.host);
	json_add_integer(o, "peers", l->link.peers);
	ends = json_add_array(o, "ends");
	for (size_t i = 0; i < l->n_ends; i++) {
		struct json *end = json_object();

		json_add_integer(end, "id", l->ends[i].id);
		json_add_string(end, "owner", l->ends[i].owner);
		json_add_string(end, "state", unit_state(l->ends[i].owner, l->ends[i].quarantined));
		json_add(ends, NULL, end);
	}
	return o;
}

char *view_links(struct phid *p, const char *name, struct phi_error *e)
{
	_clean_(alloc_view_free_p) struct alloc_view *v = alloc_view_new(&p->platform);
	_clean_json_ struct json *j = json_object();
	struct json *items = json_add_array(j, "items");

	if (store_vector_read(p->store, STORE_READ, v, e) < 0)
		return NULL;
	for (size_t i = 0; i < v->n_links; i++) {
		struct json *o = link_json(&v->links[i]);

		if (name != NULL && strcmp(v->links[i].link.name, name) == 0) {
			char *text = json_print(o);

			json_free(o);
			return text;
		}
		json_add(items, NULL, o);
	}
	if (name != NULL) {
		phi_error_set(e, PHI_NOT_FOUND, ENOENT, "/name", "link %s does not exist: no container has an end of it", name);
		return NULL;
	}
	json_add_null(j, "next");
	return json_print(j);
}

void view_grant(const struct platform *p, const struct alloc_grant *g, struct json *to)
{
	struct json *list = json_add_array(to, "cpus"), *irqs = NULL;

	for (int i = cpuset_next(&g->cpus, 0); i >= 0; i = cpuset_next(&g->cpus, (unsigned)i + 1))
		json_add_integer(list, NULL, i);
	list = json_add_array(to, "memory");
	for (size_t i = 0; i < g->n_memory; i++) {
		const struct alloc_memory *m = &g->memory[i];
		struct json *o = json_object();

		json_add_string(o, "pool", m->pool);
		if (m->has_base)
			json_add_hex(o, "base", m->base);
		json_add_integer(o, "size", (int64_t)m->size);
		if (m->has_base && m->colors != UINT64_MAX)
			json_add_hex(o, "colors", m->colors);
		json_add(list, NULL, o);
	}
	if (g->n_devices > 0 || g->has_virtual) {
		list = json_add_array(to, "devices");
		irqs = json_add_array(to, "irqs");
	}
	for (size_t i = 0; i < g->n_devices; i++) {
		const struct platform_device *d = platform_device(p, g->devices[i]);

		json_add_string(list, NULL, g->devices[i]);
		for (size_t k = 0; d != NULL && k < d->irqs.n; k++)
			json_add_integer(irqs, NULL, ((const struct platform_irq *)d->irqs.items)[k].spi + GIC_SPI);
	}
	for (int64_t k = 0; k < 4 && g->has_virtual; k++)
		json_add_integer(irqs, NULL, g->virtual_spi + k + GIC_SPI);
	list = g->n_remote > 0 ? json_add_array(to, "remote_processors") : NULL;
	for (size_t i = 0; i < g->n_remote; i++)
		json_add_string(list, NULL, g->remote[i]);
	list = g->n_links > 0 ? json_add_array(to, "links") : NULL;
	for (size_t i = 0; i < g->n_links; i++) {
		struct json *o = json_object();

		json_add_string(o, "name", g->links[i].name);
		json_add_integer(o, "slot", g->links[i].slot);
		json_add_integer(o, "id", g->links[i].id);
		json_add_hex(o, "base", g->links[i].base);
		json_add_integer(o, "size", (int64_t)g->links[i].size);
		json_add(list, NULL, o);
	}
}

char *view_allocations(struct phid *p, struct phi_error *e)
{
	_clean_(alloc_view_free_p) struct alloc_view *v = alloc_view_new(&p->platform);
	_clean_json_ struct json *j = json_object();
	struct json *list;

	if (store_vector_read(p->store, STORE_READ, v, e) < 0)
		return NULL;
	json_add_integer(j, "generation", v->generation);
	list = json_add_array(j, "cpus");
	for (unsigned i = 0; i < v->n_cpus; i++) {
		const struct alloc_cpu *c = &v->cpus[i];
		struct json *o;

		if (!c->exists)
			continue;
		o = json_object();
		json_add_integer(o, "id", i);
		json_add_string(o, "owner", c->host ? "host" : c->owner[0] ? c->owner : NULL);
		json_add_string(o, "state", cpu_state(c));
		json_add(list, NULL, o);
	}
	list = json_add_array(j, "memory");
	for (size_t i = 0; i < v->n_ranges; i++) {
		const struct alloc_range *r = &v->ranges[i];
		struct json *o = json_object();

		json_add_string(o, "pool", r->pool);
		if (r->has_base)
			json_add_hex(o, "base", r->base);
		else
			json_add_null(o, "base");
		json_add_integer(o, "size", (int64_t)r->size);
		if (r->has_base && r->colors != UINT64_MAX)
			json_add_hex(o, "colors", r->colors);
		else
			json_add_null(o, "colors");
		json_add_string(o, "owner", r->owner);
		json_add(list, NULL, o);
	}
	add_units(&p->platform, v, j);
	list = json_add_array(j, "links");
	for (size_t i = 0; i < v->n_links; i++)
		json_add(list, NULL, link_json(&v->links[i]));
	return json_print(j);
}

char *view_capacity(struct phid *p, struct phi_error *e)
{
	_clean_(alloc_view_free_p) struct alloc_view *v = alloc_view_new(&p->platform);
	_clean_json_ struct json *j = json_object();
	const struct platform_pool *pools = p->platform.memory.items;
	unsigned all, unowned;
	struct json *o, *list;

	if (store_vector_read(p->store, STORE_READ, v, e) < 0)
		return NULL;
	alloc_capacity(v, &all, &unowned);
	o = json_add_object(j, "cpus");
	json_add_integer(o, "total", all);
	json_add_integer(o, "free", unowned);
	list = json_add_array(j, "memory");
	for (size_t i = 0; i < p->platform.memory.n; i++) {
		o = json_object();
		json_add_string(o, "pool", pools[i].name);
		json_add_string(o, "kind", platform_pool_kinds[pools[i].kind]);
		json_add_integer(o, "total", (int64_t)pools[i].size);
		json_add_integer(o, "free", (int64_t)alloc_pool_free(v, &pools[i]));
		json_add(list, NULL, o);
	}
	return json_print(j);
}
