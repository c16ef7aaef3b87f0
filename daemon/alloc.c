/* The allocator. Pure; see alloc.h. */
#include "alloc.h"

#include "clean.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- the view ---- */

static int64_t compare(int64_t a, int64_t b)
{
	return (a > b) - (a < b);
}

static int by_core(const void *a, const void *b, void *ud)
{
	const struct alloc_cpu *cpus = ud, *x = &cpus[*(const uint16_t *)a], *y = &cpus[*(const uint16_t *)b];
	int64_t r = compare(x->package, y->package);

	if (r == 0)
		r = compare(x->cluster, y->cluster);
	if (r == 0)
		r = compare(x->core, y->core);
	return (int)(r != 0 ? r : x - y);
}

static bool same_core(const struct alloc_cpu *a, const struct alloc_cpu *b)
{
	return a->package == b->package && a->cluster == b->cluster && a->core == b->core;
}

static void link_cores(struct alloc_view *v)
{
	uint16_t order[PHI_CPUS_MAX];
	size_t n = 0;

	for (unsigned c = 0; c < v->n_cpus; c++)
		if (v->cpus[c].exists)
			order[n++] = (uint16_t)c;
	qsort_r(order, n, sizeof(order[0]), by_core, v->cpus);
	for (size_t first = 0, i = 0; i < n; i++) {
		bool last = i + 1 == n || !same_core(&v->cpus[order[i]], &v->cpus[order[i + 1]]);

		v->cpus[order[i]].sibling = order[last ? first : i + 1];
		if (last)
			first = i + 1;
	}
}

static void find_domains(struct alloc_view *v)
{
	uint16_t firsts[PHI_CPUS_MAX];
	size_t n = 0, at = 0;

	for (unsigned c = 0; c < v->n_cpus; c++) {
		struct alloc_cpu *cpu = &v->cpus[c];
		size_t tried = 0;

		if (!cpu->exists)
			continue;
		for (; tried < n; tried++, at = (at + 1) % n) { /* most often that of the CPU before */
			const struct alloc_cpu *d = &v->cpus[firsts[at]];

			if (d->node == cpu->node && d->package == cpu->package && d->cluster == cpu->cluster)
				break;
		}
		if (tried == n) {
			at = n;
			firsts[n++] = (uint16_t)c;
		}
		cpu->domain = firsts[at];
	}
}

struct alloc_view *alloc_view_new(const struct platform *p)
{
	struct alloc_view *v = calloc(1, sizeof(*v));

	if (v == NULL)
		abort();
	v->platform = p;
	v->devices = calloc(p->devices.n + 1, sizeof(*v->devices));
	v->remote = calloc(p->remote.n + 1, sizeof(*v->remote));
	v->virtual = calloc(p->interrupts.virtual.n + 1, sizeof(*v->virtual));
	if (v->devices == NULL || v->remote == NULL || v->virtual == NULL)
		abort();
	for (int c = cpuset_next(&p->cpus.ids, 0); c >= 0; c = cpuset_next(&p->cpus.ids, (unsigned)c + 1)) {
		struct alloc_cpu *cpu = &v->cpus[c];

		cpu->exists = true;
		v->n_cpus = (unsigned)c + 1;
		cpu->host = cpuset_has(&p->cpus.host, (unsigned)c);
		cpu->core = c; /* without topology every CPU is a core of its own */
	}
	for (size_t i = 0; i < p->cpus.topology.n; i++) {
		const struct platform_cpu *row = (const struct platform_cpu *)p->cpus.topology.items + i;
		struct alloc_cpu *cpu = &v->cpus[row->id];

		cpu->package = row->package;
		cpu->cluster = row->cluster;
		cpu->core = row->core;
		cpu->node = row->node;
	}
	link_cores(v);
	find_domains(v);
	return v;
}

void alloc_view_free(struct alloc_view *v)
{
	if (v == NULL)
		return;
	free(v->ranges);
	free(v->devices);
	free(v->remote);
	free(v->virtual);
	free(v);
}

void alloc_view_add(struct alloc_view *v, const struct alloc_range *r)
{
	size_t i = v->n_ranges;

	if (v->n_ranges == v->room) {
		v->room = v->room ? v->room * 2 : 32;
		v->ranges = realloc(v->ranges, v->room * sizeof(*r));
		if (v->ranges == NULL)
			abort();
	}
	while (i > 0 && v->ranges[i - 1].base > r->base)
		i--;
	memmove(v->ranges + i + 1, v->ranges + i, (v->n_ranges++ - i) * sizeof(*r));
	v->ranges[i] = *r;
}

void alloc_blocked(struct alloc_refusal *r, const char *owner, const char *format, ...)
{
	va_list args;

	if (r->n_blockers == ALLOC_BLOCKERS_MAX)
		return;
	va_start(args, format);
	vsnprintf(r->blockers[r->n_blockers].unit, sizeof(r->blockers[0].unit), format, args);
	va_end(args);
	snprintf(r->blockers[r->n_blockers++].owner, sizeof(r->blockers[0].owner), "%s", owner);
}

/* ---- CPUs ---- */

static bool cpu_free(const struct alloc_cpu *c)
{
	return c->exists && !c->host && c->owner[0] == '\0';
}

void alloc_capacity(const struct alloc_view *v, unsigned *ret_cpus, unsigned *ret_cpus_free)
{
	*ret_cpus = *ret_cpus_free = 0;
	for (unsigned c = 0; c < v->n_cpus; c++) {
		*ret_cpus += v->cpus[c].exists && !v->cpus[c].host;
		*ret_cpus_free += cpu_free(&v->cpus[c]);
	}
}

static int refuse_cpus(const struct alloc_view *v, unsigned wanted, struct alloc_refusal *refusal, struct phi_error *e)
{
	unsigned all, unowned;

	alloc_capacity(v, &all, &unowned);
	refusal->kind = "cpus";
	refusal->wanted = wanted;
	refusal->available = unowned;
	for (unsigned c = 0; c < v->n_cpus; c++)
		if (v->cpus[c].exists && !v->cpus[c].host && v->cpus[c].owner[0] != '\0')
			alloc_blocked(refusal, v->cpus[c].owner, "cpu %u", c);
	return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, "/spec/cpus",
			     "%u CPUs are wanted and %u of %u are free; see blockers for who holds the others", wanted,
			     unowned, all);
}

static int fit_set(const struct alloc_view *v, const struct cpuset *set, struct cpuset *ret,
		   struct alloc_refusal *refusal, struct phi_error *e)
{
	unsigned available = 0;

	for (int c = cpuset_next(set, 0); c >= 0; c = cpuset_next(set, (unsigned)c + 1)) {
		if (!v->cpus[c].exists)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/cpus/set", "this host has no CPU %d", c);
		if (v->cpus[c].host)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/cpus/set",
					     "CPU %d is kept for the host (cpus.host of the platform)", c);
		if (cpu_free(&v->cpus[c]))
			available++;
		else
			alloc_blocked(refusal, v->cpus[c].owner, "cpu %d", c);
	}
	if (refusal->n_blockers == 0) {
		*ret = *set;
		return 0;
	}
	refusal->kind = "cpus";
	refusal->wanted = cpuset_count(set);
	refusal->available = available;
	return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, "/spec/cpus/set", "%s is held by %s",
			     refusal->blockers[0].unit, refusal->blockers[0].owner);
}

/* The number of CPUs of c's core if the whole core is free, else 0. */
static unsigned whole_core(const struct alloc_view *v, unsigned c)
{
	unsigned n = 0, k = c;

	do {
		if (!cpu_free(&v->cpus[k]))
			return 0;
		n++;
		k = v->cpus[k].sibling;
	} while (k != c);
	return n;
}

/* Takes `wanted` from the domain, or with -1 from the whole host, which has them: whole cores first, then CPUs of cores that are in use
 * anyway, then the rest. */
static void take(const struct alloc_view *v, int domain, unsigned wanted, struct cpuset *ret)
{
	unsigned taken = 0;

	for (int pass = 0; pass < 3 && taken < wanted; pass++) {
		for (unsigned c = 0; c < v->n_cpus && taken < wanted; c++) {
			unsigned core;

			if (!cpu_free(&v->cpus[c]) || cpuset_has(ret, c) || (domain >= 0 && v->cpus[c].domain != domain))
				continue;
			core = whole_core(v, c);
			if ((pass == 0 && (core == 0 || core > wanted - taken)) || (pass == 1 && core != 0))
				continue;
			for (unsigned k = c, n = pass == 0 ? core : 1; n > 0; n--, k = v->cpus[k].sibling) {
				cpuset_add(ret, k);
				taken++;
			}
		}
	}
}

static int fit_count(const struct alloc_view *v, unsigned wanted, struct cpuset *ret, struct alloc_refusal *refusal,
		     struct phi_error *e)
{
	uint16_t unowned[PHI_CPUS_MAX] = {0}, domains[PHI_CPUS_MAX]; /* by a domain's first CPU; those with a free one, in their order */
	unsigned n = 0, all = 0;
	int best = -1;

	for (unsigned c = 0; c < v->n_cpus; c++) {
		if (!cpu_free(&v->cpus[c]))
			continue;
		if (unowned[v->cpus[c].domain]++ == 0)
			domains[n++] = v->cpus[c].domain;
		all++;
	}
	if (all < wanted)
		return refuse_cpus(v, wanted, refusal, e);
	for (unsigned i = 0; i < n; i++)
		if (unowned[domains[i]] >= wanted && (best < 0 || unowned[domains[i]] < unowned[best]))
			best = domains[i];
	*ret = (struct cpuset){0};
	take(v, best, wanted, ret);
	return 0;
}

/* ---- memory ---- */

static uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

/* Large regions begin at 2 MiB so that a hypervisor can map them in large pages. */
static uint64_t alignment_of(uint64_t size)
{
	return size >= 2u << 20 ? 2u << 20 : 4096;
}

static bool in_way(const struct alloc_range *r, uint64_t base, uint64_t size, uint64_t colors)
{
	return r->has_base && (r->colors & colors) != 0 && r->base < base + size && base < r->base + r->size;
}

/* The first range in the way of [base, base + size), among granted ones and those of this very wish. */
static bool find_in_way(const struct alloc_view *v, const struct alloc_grant *g, uint64_t base, uint64_t size,
			uint64_t colors, struct alloc_range *ret)
{
	for (size_t i = 0; i < v->n_ranges; i++)
		if (in_way(&v->ranges[i], base, size, colors)) {
			*ret = v->ranges[i];
			return true;
		}
	for (size_t i = 0; i < g->n_memory; i++) {
		struct alloc_range r = {.has_base = g->memory[i].has_base, .base = g->memory[i].base,
					.size = g->memory[i].size, .colors = g->memory[i].colors, .owner = "this request"};

		if (in_way(&r, base, size, colors)) {
			*ret = r;
			return true;
		}
	}
	return false;
}

/* The first range in the way of what begins at base: the granted ones are looked at from *i on, as base only grows. One of this very
 * wish that begins lower comes before it. */
static bool next_range(const struct alloc_view *v, const struct alloc_grant *g, uint64_t base, uint64_t colors, size_t *i, uint64_t *ret_base,
		       uint64_t *ret_end)
{
	bool found;

	while (*i < v->n_ranges && (!v->ranges[*i].has_base || (v->ranges[*i].colors & colors) == 0 || v->ranges[*i].base + v->ranges[*i].size <= base))
		++*i;
	found = *i < v->n_ranges;
	if (found) {
		*ret_base = v->ranges[*i].base;
		*ret_end = *ret_base + v->ranges[*i].size;
	}
	for (size_t n = 0; n < g->n_memory; n++) {
		const struct alloc_memory *m = &g->memory[n];

		if (m->has_base && (m->colors & colors) != 0 && m->base + m->size > base && (!found || m->base < *ret_base)) {
			found = true;
			*ret_base = m->base;
			*ret_end = m->base + m->size;
		}
	}
	return found;
}

static bool fit_range(const struct alloc_view *v, const struct alloc_grant *g, const struct platform_pool *pool,
		      const struct spec_memory *m, uint64_t colors, uint64_t *ret_base, uint64_t *ret_hole)
{
	const uint64_t end = pool->base + pool->size, step = alignment_of(m->size);
	uint64_t base = align_up(pool->base, step);
	bool found = false;
	size_t i = 0;

	while (base < end && m->size <= end - base) {
		uint64_t next = end, next_end = end, hole;

		if (next_range(v, g, base, colors, &i, &next, &next_end) && next < base + m->size) {
			base = align_up(next_end, step);
			continue;
		}
		hole = (next < end ? next : end) - base;
		if (!found || hole < *ret_hole) {
			found = true;
			*ret_base = base;
			*ret_hole = hole;
		}
		base = align_up(base + hole, step);
	}
	return found;
}

uint64_t alloc_pool_free(const struct alloc_view *v, const struct platform_pool *pool)
{
	uint64_t used = 0;

	for (size_t i = 0; i < v->n_ranges; i++)
		if (strcmp(v->ranges[i].pool, pool->name) == 0)
			used += v->ranges[i].size;
	return used < pool->size ? pool->size - used : 0;
}

static bool is_for_links(const struct alloc_view *v, const char *pool)
{
	return v->platform->links.memory != NULL && strcmp(v->platform->links.memory, pool) == 0;
}

static uint64_t wished_from_pool(const struct alloc_grant *g, const char *pool)
{
	uint64_t n = 0;

	for (size_t i = 0; i < g->n_memory; i++)
		if (strcmp(g->memory[i].pool, pool) == 0)
			n += g->memory[i].size;
	return n;
}

static void refuse_memory(const struct alloc_view *v, const struct alloc_grant *g, const struct spec_memory *m, const char *pool,
			  bool by_amount, struct alloc_refusal *refusal)
{
	const struct platform_pool *pools = v->platform->memory.items;

	refusal->kind = "memory";
	refusal->wanted = m->size;
	for (size_t i = 0; i < v->platform->memory.n; i++) {
		uint64_t unowned = alloc_pool_free(v, &pools[i]), wished = wished_from_pool(g, pools[i].name);

		if ((pool == NULL || strcmp(pools[i].name, pool) == 0) && !(by_amount && pools[i].has_base) && !is_for_links(v, pools[i].name) &&
		    unowned > wished && unowned - wished > refusal->available)
			refusal->available = unowned - wished;
	}
	for (size_t i = 0; i < v->n_ranges; i++)
		if (pool == NULL || strcmp(v->ranges[i].pool, pool) == 0) {
			if (v->ranges[i].has_base)
				alloc_blocked(refusal, v->ranges[i].owner, "memory 0x%" PRIx64 "+0x%" PRIx64, v->ranges[i].base, v->ranges[i].size);
			else
				alloc_blocked(refusal, v->ranges[i].owner, "memory %" PRIu64 " bytes", v->ranges[i].size);
		}
}

static int fit_at(const struct alloc_view *v, const struct spec_memory *m, uint64_t colors, const char *where,
		  struct alloc_grant *g, struct alloc_refusal *refusal, struct phi_error *e)
{
	const struct platform_pool *pools = v->platform->memory.items;
	struct alloc_range r;
	size_t i = 0;

	while (i < v->platform->memory.n &&
	       !(pools[i].has_base && !is_for_links(v, pools[i].name) && m->at >= pools[i].base && m->size <= pools[i].size &&
		 m->at - pools[i].base <= pools[i].size - m->size && (m->pool == NULL || strcmp(pools[i].name, m->pool) == 0)))
		i++;
	if (i == v->platform->memory.n)
		return phi_error_set(e, PHI_INVALID, EINVAL, where,
				     "no pool of this host holds 0x%" PRIx64 " with %" PRIu64 " bytes", m->at, m->size);
	if (find_in_way(v, g, m->at, m->size, colors, &r)) {
		refusal->kind = "memory";
		refusal->wanted = m->size;
		alloc_blocked(refusal, r.owner, "memory 0x%" PRIx64 "+0x%" PRIx64, r.base, r.size);
		return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, where, "the range meets %s of %s",
				     refusal->blockers[0].unit, r.owner);
	}
	struct alloc_memory *out = alloc_grant_add_memory(g);

	*out = (struct alloc_memory){.has_base = true, .base = m->at, .size = m->size, .colors = colors};
	snprintf(out->pool, sizeof(out->pool), "%s", pools[i].name);
	return 0;
}

static int fit_memory(const struct alloc_view *v, const struct spec_memory *m, size_t index, bool by_amount,
		      struct alloc_grant *g, struct alloc_refusal *refusal, struct phi_error *e)
{
	const struct platform_pool *pools = v->platform->memory.items;
	uint64_t colors = m->has_colors ? m->colors : UINT64_MAX, best_hole = UINT64_MAX;
	struct alloc_memory best = {.size = m->size, .colors = colors};
	char where[40];
	bool found = false;

	snprintf(where, sizeof(where), "/spec/memory/%zu", index);
	if (m->pool != NULL && platform_pool(v->platform, m->pool) == NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "this host has no memory pool \"%s\"", m->pool);
	if (m->pool != NULL && by_amount && platform_pool(v->platform, m->pool)->has_base)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, where,
				     "the backend cannot place a guest in pool \"%s\", which is given by address", m->pool);
	if (m->pool != NULL && is_for_links(v, m->pool))
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "pool \"%s\" is for links", m->pool);
	if (m->has_at && by_amount)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, where, "the backend cannot place a guest at an address");
	if (m->has_at)
		return fit_at(v, m, colors, where, g, refusal, e);
	for (size_t i = 0; i < v->platform->memory.n; i++) {
		const struct platform_pool *pool = &pools[i];
		uint64_t base = 0, hole = 0;

		if ((m->pool != NULL && strcmp(pool->name, m->pool) != 0) || (by_amount && pool->has_base) || is_for_links(v, pool->name))
			continue;
		if (!pool->has_base) {
			if (alloc_pool_free(v, pool) < wished_from_pool(g, pool->name) + m->size)
				continue;
			hole = UINT64_MAX - 1; /* a range, where one fits, comes first */
		} else if (!fit_range(v, g, pool, m, colors, &base, &hole)) {
			continue;
		}
		if (hole < best_hole) {
			found = true;
			best_hole = hole;
			best.has_base = pool->has_base;
			best.base = base;
			snprintf(best.pool, sizeof(best.pool), "%s", pool->name);
		}
	}
	if (!found) {
		refuse_memory(v, g, m, m->pool, by_amount, refusal);
		return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, where,
				     "%" PRIu64 " bytes are wanted in one piece and at most %" PRIu64
				     " are free; see blockers for who holds the others",
				     m->size, refusal->available);
	}
	*alloc_grant_add_memory(g) = best;
	return 0;
}

int alloc_fit(const struct alloc_view *v, const struct spec *spec, bool by_amount, struct alloc_grant *ret,
	      struct alloc_refusal *refusal, struct phi_error *e)
{
	_clean_grant_ struct alloc_grant g = {0};
	int r;

	*refusal = (struct alloc_refusal){0};
	r = spec->cpus.has_set ? fit_set(v, &spec->cpus.set, &g.cpus, refusal, e)
			       : fit_count(v, (unsigned)spec->cpus.count, &g.cpus, refusal, e);
	for (size_t i = 0; r == 0 && i < spec->memory.n; i++)
		r = fit_memory(v, (const struct spec_memory *)spec->memory.items + i, i, by_amount, &g, refusal, e);
	for (size_t i = 0; r == 0 && i < spec->devices.n; i++)
		r = alloc_fit_device(v, spec, i, &g, refusal, e);
	if (r == 0)
		r = alloc_fit_remote(v, spec, &g, refusal, e);
	if (r == 0)
		r = alloc_fit_links(v, spec, &g, refusal, e);
	if (r == 0) {
		alloc_grant_done(ret);
		*ret = g;
		g = (struct alloc_grant){0};
	}
	return r;
}
