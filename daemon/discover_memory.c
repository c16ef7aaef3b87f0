/* phid --discover: memory. What cells may have is what nobody else has: reserved in the device tree and mapped by no one, or, where the
 * root cell's file tells what the hypervisor uses, installed and not Linux's. */
#include "discover.h"

#include "hostfiles.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE UINT64_C(4096)

/* ---- sets of addresses ---- */

struct range {
	uint64_t base, end; /* end: behind the last byte */
};
struct ranges {
	size_t n;
	struct range *r;
};

static void add(struct ranges *s, uint64_t base, uint64_t end)
{
	if (base >= end)
		return;
	s->r = realloc(s->r, (s->n + 1) * sizeof(*s->r));
	if (s->r == NULL)
		abort();
	s->r[s->n++] = (struct range){base, end};
}

static void take_away(struct ranges *s, uint64_t base, uint64_t end)
{
	struct ranges left = {0};

	for (size_t i = 0; i < s->n; i++) {
		struct range r = s->r[i];

		if (base >= r.end || end <= r.base || base >= end) {
			add(&left, r.base, r.end);
			continue;
		}
		add(&left, r.base, base);
		add(&left, end, r.end);
	}
	free(s->r);
	*s = left;
}

/* ---- what is not for cells ---- */

static const struct jh_pci *root_links(const struct discovery *d, uint32_t *ret_n)
{
	*ret_n = d->has_system ? d->system.root.lists[JH_PCI].n : 0;
	return d->has_system ? d->system.root.lists[JH_PCI].items : NULL;
}

/* The hypervisor's own memory, as far as anything says where it is, and that of the root's links. */
static void take_away_hypervisor(const struct discovery *d, struct ranges *s)
{
	uint32_t n;
	const struct jh_pci *pci = root_links(d, &n);

	for (size_t i = 0; i < d->iomem.n; i++)
		if (strcmp(d->iomem.ranges[i].name, "Jailhouse hypervisor") == 0)
			take_away(s, d->iomem.ranges[i].base, d->iomem.ranges[i].end + 1);
	if (d->has_system)
		take_away(s, d->system.hypervisor.phys, d->system.hypervisor.phys + d->system.hypervisor.size);
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; pci[i].type == JH_PCI_IVSHMEM && k < 2u + pci[i].shmem_peers; k++) {
			const struct jh_memory *m = JH_ITEM(&d->system.root, JH_MEMORY, jh_memory, pci[i].shmem_start + k);

			if (pci[i].shmem_start + k < d->system.root.lists[JH_MEMORY].n)
				take_away(s, m->phys, m->phys + m->size);
		}
}

/* ---- pools ---- */

static void add_pools(struct json *pools, const char *name, const struct ranges *s, const char *source)
{
	for (size_t i = 0; i < s->n; i++) {
		uint64_t base = (s->r[i].base + PAGE - 1) & ~(PAGE - 1), end = s->r[i].end & ~(PAGE - 1);
		struct json *o;

		if (base >= end)
			continue;
		o = json_object();
		discover_name(o, pools, name);
		json_add_string(o, "kind", "carveout");
		json_add_hex(o, "base", base);
		discover_size(o, "size", end - base);
		discover_note(o, "%s", source);
		json_add(pools, NULL, o);
	}
}

/* A node that says that this memory is its own. */
static const struct dt_node *user_of(const struct dt_node *root, const struct dt_node *region)
{
	uint32_t phandle, v;

	if (!dt_cell(region, "phandle", 0, &phandle))
		return NULL;
	for (const struct dt_node *n = root; n != NULL; n = dt_next(n))
		for (size_t i = 0; dt_cell(n, "memory-region", i, &v); i++)
			if (v == phandle)
				return n;
	return NULL;
}

/* Why a reserved region is none for cells; false if it is one. */
static bool is_anothers(const struct discovery *d, const struct dt_node *n, uint64_t base, uint64_t size, char *ret, size_t ret_size)
{
	const struct dt_node *user = user_of(d->tree, n);

	if (dt_get(n, "no-map") == NULL)
		snprintf(ret, ret_size, "without no-map Linux maps it");
	else if (dt_text(n, "compatible") != NULL)
		snprintf(ret, ret_size, "it is for a driver (compatible %.60s)", dt_text(n, "compatible"));
	else if (user != NULL)
		snprintf(ret, ret_size, "it is the memory-region of %.100s", user->name);
	else if (d->has_iomem && iomem_find(&d->iomem, "System RAM", base, size) != NULL)
		snprintf(ret, ret_size, "Linux uses it all the same (\"System RAM\" in /proc/iomem)");
	else
		return false;
	return true;
}

/* /reserved-memory: what Linux does not map, and nobody claims. */
static void add_reserved(struct discovery *d, struct json *pools)
{
	const struct dt_node *parent = dt_find(d->tree, "/reserved-memory");
	char why[160], source[200], name[64];
	uint64_t base, size;

	for (const struct dt_node *n = parent != NULL ? parent->children : NULL; n != NULL; n = n->next) {
		for (size_t i = 0; dt_available(n) && dt_reg(n, i, &base, &size) > 0; i++) {
			struct ranges free_ranges = {0};
			size_t length = strcspn(n->name, "@");

			if (is_anothers(d, n, base, size, why, sizeof(why))) {
				discover_left_out(d, "memory 0x%" PRIx64 " + 0x%" PRIx64 " (/reserved-memory/%s): %s", base, size, n->name, why);
				continue;
			}
			snprintf(name, sizeof(name), "%.*s", length > 0 && length < 60 ? (int)length : 59, n->name);
			snprintf(source, sizeof(source), "device tree /reserved-memory/%.100s, no-map; that no firmware uses it nothing says: see to it",
				 n->name);
			add(&free_ranges, base, base + size);
			take_away_hypervisor(d, &free_ranges);
			add_pools(pools, name, &free_ranges, source);
			free(free_ranges.r);
		}
	}
}

/* Installed, and Linux was told to leave it ("mem="). */
static void add_unused(struct discovery *d, struct json *pools)
{
	const struct dt_node *reserved = dt_find(d->tree, "/reserved-memory");
	const char *why = NULL; /* it is left out */
	struct ranges s = {0};
	uint64_t base, size;

	for (const struct dt_node *n = d->tree->children; n != NULL; n = n->next) {
		const char *type = dt_text(n, "device_type");

		for (size_t i = 0; type != NULL && strcmp(type, "memory") == 0 && dt_available(n) && dt_reg(n, i, &base, &size) > 0; i++)
			add(&s, base, base + size);
	}
	for (const struct dt_node *n = reserved != NULL ? reserved->children : NULL; n != NULL; n = n->next)
		for (size_t i = 0; dt_reg(n, i, &base, &size) > 0; i++)
			take_away(&s, base, base + size);
	for (size_t i = 0; i < d->iomem.n; i++)
		if (d->iomem.ranges[i].depth == 0)
			take_away(&s, d->iomem.ranges[i].base, d->iomem.ranges[i].end + 1);
	take_away_hypervisor(d, &s);
	if (!d->has_system)
		why = "without --root-cell nothing says what the hypervisor uses";
	else if (host_exists(d->root, "/sys/firmware/efi"))
		why = "under EFI it may be the firmware's";
	else
		add_pools(pools, "cells", &s, "device tree /memory, without Linux's (/proc/iomem), the hypervisor's and the links' (root cell's file)");
	for (size_t i = 0; i < s.n && why != NULL; i++)
		discover_left_out(d, "memory 0x%" PRIx64 " + 0x%" PRIx64 " is installed and not Linux's: %s", s.r[i].base, s.r[i].end - s.r[i].base, why);
	free(s.r);
}

/* The host's own memory, by amount. */
static void add_host(const struct discovery *d, struct json *pools)
{
	uint64_t size = host_pool_size(d->root);
	struct json *o;

	if (size == 0)
		return;
	o = json_object();
	json_add_string(o, "name", "host");
	json_add_string(o, "kind", "host");
	discover_size(o, "size", size);
	discover_note(o, "three quarters of MemTotal in /proc/meminfo, the rest is Linux's: phid's default, yours to set");
	json_add(pools, NULL, o);
}

void discover_memory(struct discovery *d)
{
	struct json *pools = json_add_array(d->doc, "memory");

	add_host(d, pools);
	if (d->tree == NULL) {
		discover_left_out(d, "memory by address: without a device tree nothing says what is free for cells");
		return;
	}
	if (!d->has_iomem)
		discover_left_out(d, "memory that Linux does not use: /proc/iomem shows no addresses (read it as root), so no pool was compared with it");
	add_reserved(d, pools);
	if (d->has_iomem)
		add_unused(d, pools);
	if (!d->has_system && host_exists(d->root, "/sys/devices/jailhouse"))
		discover_left_out(d, "without --root-cell nothing says where the hypervisor's memory is: take it out of the pools");
}

/* ---- links ---- */

/* One end: sections that follow each other as the platform file has them, or not at all. */
static bool add_slot(const struct discovery *d, const struct jh_pci *p, struct json *slots)
{
	const struct jh_cell *root = &d->system.root;
	const struct jh_memory *m = JH_ITEM(root, JH_MEMORY, jh_memory, p->shmem_start);
	uint64_t at;
	struct json *o;

	if (p->shmem_start + 2u + p->shmem_peers > root->lists[JH_MEMORY].n || p->shmem_peers < 2 || p->shmem_peers > PHI_LINK_PEERS_MAX ||
	    p->shmem_id >= p->shmem_peers || p->shmem_protocol > 1 || p->bdf >> 3 >= PHI_SLOTS || (p->bdf & 7) != 0 || m[0].size != PAGE ||
	    m[1].size % PAGE != 0 || m[2].size < PAGE || m[2].size % PAGE != 0)
		return false;
	at = m[0].phys + PAGE;
	for (uint32_t i = 1; i < 2u + p->shmem_peers; i++) {
		if ((m[i].size > 0 && m[i].phys != at) || (i > 2 && m[i].size != m[2].size))
			return false;
		at += m[i].size;
	}
	o = json_object();
	json_add_integer(o, "slot", p->bdf >> 3);
	json_add_hex(o, "base", m[0].phys);
	discover_size(o, "common", m[1].size);
	discover_size(o, "output", m[2].size);
	json_add_integer(o, "peers", p->shmem_peers);
	json_add_integer(o, "id", p->shmem_id);
	json_add_string(o, "protocol", p->shmem_protocol == 1 ? "network" : "raw");
	discover_note(o, "root cell's file: ivshmem device of bdf 0x%x", p->bdf);
	json_add(slots, NULL, o);
	return true;
}

void discover_links(struct discovery *d)
{
	struct json *links = json_object(), *slots;
	uint32_t n;
	const struct jh_pci *pci = root_links(d, &n);
	int domain = -1;

	for (uint32_t i = 0; i < n && domain < 0; i++)
		domain = pci[i].type == JH_PCI_IVSHMEM ? pci[i].domain : -1;
	json_add_integer(links, "domain", domain);
	slots = json_add_array(links, "host_slots");
	discover_note(links, "root cell's file. \"memory\", the pool that links between cells are made from, is yours to choose");
	for (uint32_t i = 0; i < n; i++)
		if (pci[i].type == JH_PCI_IVSHMEM && (pci[i].domain != domain || !add_slot(d, &pci[i], slots)))
			discover_left_out(d, "the root's link of bdf 0x%x: its sections or protocol are none that phid makes", pci[i].bdf);
	if (domain >= 0)
		json_add(d->doc, "links", links);
	else
		json_free(links);
}
