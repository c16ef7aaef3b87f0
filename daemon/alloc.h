/* The allocator: which CPUs and which memory a new container gets. Pure: data in, data out, no clock, no calls; what
 * it answers for a view and a wish is always the same. */
#pragma once

#include "cpuset.h"
#include "error.h"
#include "grant.h"
#include "limits.h"
#include "platform.h"
#include "spec.h"

#define ALLOC_BLOCKERS_MAX 16

struct alloc_cpu {
	bool exists, host, quarantined, observed;
	uint16_t domain;  /* the first CPU of its NUMA node, package and cluster */
	uint16_t sibling; /* the next CPU of its core, after the last the first */
	char owner[PHI_ID_MAX + 1]; /* container id, "" if free, or "backend:cell" of a cell nobody explains */
	int64_t package, cluster, core, node;
};

struct alloc_unit { /* a device, ...: by its index in the platform */
	char owner[PHI_ID_MAX + 1]; /* "" if free */
	bool quarantined;
};

struct alloc_range { /* memory that is granted: by range (has_base) or by amount */
	char pool[PHI_NAME_MAX + 1];
	bool has_base, quarantined;
	uint64_t base, size;
	uint64_t colors; /* mask; all ones: all */
	char owner[PHI_ID_MAX + 1];
};

struct alloc_end {
	int64_t id;
	char owner[PHI_ID_MAX + 1];
	bool quarantined;
};

struct alloc_open_link { /* one that has an end */
	struct alloc_link link; /* without id */
	size_t n_ends;
	struct alloc_end ends[PHI_LINK_PEERS_MAX];
};

/* What there is and who has it. */
struct alloc_view {
	const struct platform *platform;
	unsigned n_cpus; /* highest CPU + 1 */
	struct alloc_cpu cpus[PHI_CPUS_MAX];
	struct alloc_range *ranges; /* owned; by base */
	size_t n_ranges, room;
	int64_t generation; /* of the vector in the database that it was filled from */
	struct alloc_unit *devices, *remote, *virtual; /* owned */
	size_t n_links;
	struct alloc_open_link links[PHI_SLOTS];
};

/* Why a wish was refused, for the answer's `wanted`, `free` and `blockers`. */
struct alloc_refusal {
	const char *kind; /* "cpus", "memory", "devices", "remote_processors", "links" or "irqs"; NULL: none */
	uint64_t wanted, available; /* CPUs, bytes or pieces */
	size_t n_blockers;
	struct {
		char unit[64], owner[PHI_ID_MAX + 1];
	} blockers[ALLOC_BLOCKERS_MAX];
};

/* A view of an unowned platform. The caller frees it with alloc_view_free. */
struct alloc_view *alloc_view_new(const struct platform *p);
void alloc_view_free(struct alloc_view *v);
static inline void alloc_view_free_p(struct alloc_view **v)
{
	alloc_view_free(*v);
}
/* Adds a granted range. */
void alloc_view_add(struct alloc_view *v, const struct alloc_range *r);

/* CPUs: an explicit set as it is; a count from one NUMA node and cluster where one has enough (the fullest that still
 * fits, so that large holes stay), whole cores first where cores have several CPUs. Memory: a range by best fit in a
 * pool (lowest address among equals), an amount from a pool with enough; an explicit pool or address is obeyed.
 * A device comes with all of its group. A link that has an end already is joined (its size, peers and protocol must be those wished);
 * else it gets the lowest free slot and memory of the pool for links, or, with the host, a slot that the root has an end in.
 * *ret is a grant, which is replaced where there is one, and left as it is where not.
 * by_amount: only pools without addresses are thought of (backends that cannot place a guest).
 * PHI_NO_RESOURCES with *refusal filled, or PHI_INVALID where a unit does not exist at all. */
int alloc_fit(const struct alloc_view *v, const struct spec *spec, bool by_amount, struct alloc_grant *ret,
	      struct alloc_refusal *refusal, struct phi_error *e);

/* CPUs and bytes that could be granted at all, and those that are free now. */
void alloc_capacity(const struct alloc_view *v, unsigned *ret_cpus, unsigned *ret_cpus_free);
uint64_t alloc_pool_free(const struct alloc_view *v, const struct platform_pool *pool);

/* alloc_units.c, alloc_links.c: the parts of alloc_fit. */
void alloc_blocked(struct alloc_refusal *r, const char *owner, const char *format, ...) __attribute__((format(printf, 3, 4)));
int alloc_fit_device(const struct alloc_view *v, const struct spec *s, size_t index, struct alloc_grant *g, struct alloc_refusal *refusal,
		     struct phi_error *e);
int alloc_fit_remote(const struct alloc_view *v, const struct spec *s, struct alloc_grant *g, struct alloc_refusal *refusal, struct phi_error *e);
int alloc_fit_links(const struct alloc_view *v, const struct spec *s, struct alloc_grant *g, struct alloc_refusal *refusal, struct phi_error *e);
