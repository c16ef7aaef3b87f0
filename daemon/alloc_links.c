/* The allocator's part for links: shared memory between cells, or with the host, and the interrupts of a cell's virtual PCI bus. Pure. */
#include "alloc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct alloc_open_link *open_link(const struct alloc_view *v, const char *name)
{
	for (size_t i = 0; i < v->n_links; i++)
		if (strcmp(v->links[i].link.name, name) == 0)
			return &v->links[i];
	return NULL;
}

static bool slot_taken(const struct alloc_view *v, const struct alloc_grant *g, int64_t slot)
{
	for (size_t i = 0; i < v->n_links; i++)
		if (v->links[i].link.slot == slot)
			return true;
	for (size_t i = 0; i < g->n_links; i++)
		if (g->links[i].slot == slot)
			return true;
	return false;
}

static const struct platform_host_slot *host_slots(const struct alloc_view *v)
{
	return v->platform->links.host_slots.items;
}

/* The id of a wished end: the one asked for, else the lowest; -1 if it is not free. */
static int64_t free_id(const struct spec_link *w, const struct alloc_link *l, const struct alloc_open_link *open, int64_t host_id)
{
	bool taken[PHI_LINK_PEERS_MAX] = {false};

	if (host_id >= 0)
		taken[host_id] = true;
	for (size_t i = 0; open != NULL && i < open->n_ends; i++)
		taken[open->ends[i].id] = true;
	if (w->has_role)
		return w->role < l->peers && !taken[w->role] ? w->role : -1;
	for (int64_t id = 0; id < l->peers; id++)
		if (!taken[id])
			return id;
	return -1;
}

static int64_t host_id_of(const struct alloc_view *v, const struct alloc_link *l)
{
	for (size_t i = 0; l->host && i < v->platform->links.host_slots.n; i++)
		if (host_slots(v)[i].slot == l->slot)
			return host_slots(v)[i].id;
	return -1;
}

/* ---- a link that is there ---- */

static int join(const struct alloc_view *v, const struct spec_link *w, const struct alloc_open_link *open, const char *where,
		struct alloc_link *ret, struct alloc_refusal *refusal, struct phi_error *e)
{
	const struct alloc_link *l = &open->link;

	*ret = *l;
	ret->alone = false;
	if (w->host != l->host || w->protocol != l->protocol || (w->has_peers && w->peers != l->peers) ||
	    (w->has_size && w->size != l->size))
		return phi_error_set(e, PHI_INVALID, EEXIST, where,
				     "the link \"%.40s\" is there with %" PRIu64 " bytes, %" PRIi64 " peers, protocol %s, %s the host; its first end is %.60s's",
				     w->name, l->size, l->peers, link_protocols[l->protocol], l->host ? "with" : "without",
				     open->ends[0].owner);
	ret->id = free_id(w, l, open, host_id_of(v, l));
	if (ret->id >= 0)
		return 0;
	refusal->kind = "links";
	refusal->wanted = 1;
	for (size_t i = 0; i < open->n_ends; i++)
		alloc_blocked(refusal, open->ends[i].owner, "link %.40s end %" PRIi64, l->name, open->ends[i].id);
	return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, where, "the wanted end of link \"%.40s\" is taken; see blockers for by whom", w->name);
}

/* ---- a new one ---- */

/* Raw: half of it is common to all, half of it is written by one end each. A network has no common part. In whole pages. */
static bool lay_out(struct alloc_link *l)
{
	uint64_t rest = l->size - ALLOC_LINK_STATES;

	l->common = l->protocol == LINK_NETWORK ? 0 : rest / 2 / 4096 * 4096;
	l->output = (rest - l->common) / (uint64_t)l->peers / 4096 * 4096;
	return l->output > 0;
}

/* First fit in the pool for links: they are few, and of few sizes. */
static bool find_memory(const struct alloc_view *v, const struct alloc_grant *g, struct alloc_link *l)
{
	const struct platform_pool *pool = platform_pool(v->platform, v->platform->links.memory);
	uint64_t size = l->size, base = pool->base;

	while (size <= pool->size && base - pool->base <= pool->size - size) {
		const struct alloc_link *in_way = NULL;

		for (size_t i = 0; i < v->n_links + g->n_links; i++) {
			const struct alloc_link *o = i < v->n_links ? &v->links[i].link : &g->links[i - v->n_links];

			if (o->base < base + size && base < o->base + o->size)
				in_way = o;
		}
		if (in_way == NULL) {
			l->base = base;
			return true;
		}
		base = in_way->base + in_way->size;
	}
	return false;
}

static void block_by_all(const struct alloc_view *v, bool host, struct alloc_refusal *refusal)
{
	refusal->kind = "links";
	refusal->wanted = 1;
	for (size_t i = 0; i < v->n_links; i++)
		if (v->links[i].link.host == host)
			alloc_blocked(refusal, v->links[i].ends[0].owner, "link %.50s", v->links[i].link.name);
}

static int make(const struct alloc_view *v, const struct alloc_grant *g, const struct spec_link *w, const char *where, struct alloc_link *l,
		struct alloc_refusal *refusal, struct phi_error *e)
{
	*l = (struct alloc_link){.slot = -1, .peers = w->has_peers ? w->peers : 2, .protocol = w->protocol, .alone = true, .size = w->size};
	snprintf(l->name, sizeof(l->name), "%s", w->name);
	if (v->platform->links.memory == NULL)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, where, "the platform file names no pool for links (links.memory)");
	if (!w->has_size)
		return phi_error_set(e, PHI_INVALID, ENOENT, where, "there is no link \"%.40s\" yet; give a \"size\" to make it", w->name);
	if (!lay_out(l))
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "%" PRIi64 " peers do not fit into %" PRIu64 " bytes", l->peers, l->size);
	for (int64_t slot = 0; slot < PHI_SLOTS && l->slot < 0; slot++) {
		bool of_host = false;

		for (size_t i = 0; i < v->platform->links.host_slots.n; i++)
			of_host = of_host || host_slots(v)[i].slot == slot;
		if (!of_host && !slot_taken(v, g, slot))
			l->slot = slot;
	}
	if (l->slot < 0 || !find_memory(v, g, l)) {
		block_by_all(v, false, refusal);
		return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, where, "there is no %s for another link; see blockers for who has links",
				     l->slot < 0 ? "slot" : "memory in one piece");
	}
	return 0;
}

static int make_with_host(const struct alloc_view *v, const struct alloc_grant *g, const struct spec_link *w, const char *where,
			  struct alloc_link *l, struct alloc_refusal *refusal, struct phi_error *e)
{
	bool any = false;

	for (size_t i = 0; i < v->platform->links.host_slots.n; i++) {
		const struct platform_host_slot *h = &host_slots(v)[i];

		*l = (struct alloc_link){.slot = h->slot, .peers = h->peers, .protocol = h->protocol, .host = true, .alone = true, .base = h->base,
					 .size = ALLOC_LINK_STATES + h->common + h->output * (uint64_t)h->peers, .common = h->common, .output = h->output};
		if (h->protocol != w->protocol || (w->has_peers && w->peers != h->peers) || (w->has_size && w->size != l->size))
			continue;
		any = true;
		if (!slot_taken(v, g, h->slot)) {
			if (w->name != NULL)
				snprintf(l->name, sizeof(l->name), "%s", w->name);
			else
				snprintf(l->name, sizeof(l->name), "host-%" PRIi64, h->slot);
			return 0;
		}
	}
	if (!any)
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "this host has no end of such a link (links.host_slots of the platform file)");
	block_by_all(v, true, refusal);
	return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, where, "the host's ends are all taken; see blockers for by whom");
}

static int fit_link(const struct alloc_view *v, const struct spec *s, size_t index, struct alloc_grant *g, struct alloc_refusal *refusal,
		    struct phi_error *e)
{
	const struct spec_link *w = (const struct spec_link *)s->links.items + index;
	const struct alloc_open_link *open = w->name != NULL ? open_link(v, w->name) : NULL;
	struct alloc_link l = {0};
	char where[40];
	int r;

	snprintf(where, sizeof(where), "/spec/links/%zu", index);
	if (open != NULL)
		r = join(v, w, open, where, &l, refusal, e);
	else
		r = w->host ? make_with_host(v, g, w, where, &l, refusal, e) : make(v, g, w, where, &l, refusal, e);
	if (r < 0)
		return r;
	if (open == NULL)
		l.id = free_id(w, &l, NULL, host_id_of(v, &l));
	if (l.id < 0)
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "the role %" PRIi64 " is the host's, or is not below the number of peers", w->role);
	*alloc_grant_add_link(g) = l;
	return 0;
}

int alloc_fit_links(const struct alloc_view *v, const struct spec *s, struct alloc_grant *g, struct alloc_refusal *refusal, struct phi_error *e)
{
	const struct platform_irq *virtual = v->platform->interrupts.virtual.items;

	for (size_t i = 0; i < s->links.n; i++) {
		int r = fit_link(v, s, i, g, refusal, e);

		if (r < 0)
			return r;
	}
	if (s->links.n == 0 || !v->platform->interrupts.present) /* without a GIC they speak by MSI */
		return 0;
	for (size_t i = 0; i < v->platform->interrupts.virtual.n; i++) {
		if (v->virtual[i].owner[0] == '\0') {
			g->has_virtual = true;
			g->virtual_spi = virtual[i].spi;
			return 0;
		}
		alloc_blocked(refusal, v->virtual[i].owner, "irqs %" PRIi64 " to %" PRIi64, virtual[i].spi + 32, virtual[i].spi + 35);
	}
	refusal->kind = "irqs";
	refusal->wanted = 4;
	return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, "/spec/links",
			     "links need four interrupts that no device has (interrupts.virtual of the platform file), and none are free");
}
