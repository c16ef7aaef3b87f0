/* The vector in memory, as the writing connection sees it: read once, then kept in step with grants and releases, so that a create costs
 * the same however many containers there are. What else changes the vector makes it be read anew. */
#include "store_sql.h"

#include "clean.h"
#include "platform.h"

#include <errno.h>
#include <string.h>

void store_kept_drop(struct store *s)
{
	alloc_view_free(PHI_TAKE(s->kept));
}

static bool has_units(const struct alloc_grant *g)
{
	return g->n_devices + g->n_remote + g->n_links > 0 || g->has_virtual;
}

static bool is_owner(const struct alloc_unit *units, size_t n, const char *id)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(units[i].owner, id) == 0)
			return true;
	return false;
}

static bool owns_units(const struct alloc_view *v, const char *id)
{
	for (size_t i = 0; i < v->n_links; i++)
		for (size_t n = 0; n < v->links[i].n_ends; n++)
			if (strcmp(v->links[i].ends[n].owner, id) == 0)
				return true;
	return is_owner(v->devices, v->platform->devices.n, id) || is_owner(v->remote, v->platform->remote.n, id) ||
	       is_owner(v->virtual, v->platform->interrupts.virtual.n, id);
}

static void take(struct alloc_view *v, const char *id, const struct alloc_grant *g)
{
	for (int c = cpuset_next(&g->cpus, 0); c >= 0; c = cpuset_next(&g->cpus, (unsigned)c + 1))
		snprintf(v->cpus[c].owner, sizeof(v->cpus[c].owner), "%s", id);
	for (size_t i = 0; i < g->n_memory; i++) {
		const struct alloc_memory *m = &g->memory[i];
		struct alloc_range r = {.has_base = m->has_base, .base = m->base, .size = m->size, .colors = m->has_base ? m->colors : UINT64_MAX};

		snprintf(r.pool, sizeof(r.pool), "%s", m->pool);
		snprintf(r.owner, sizeof(r.owner), "%s", id);
		alloc_view_add(v, &r);
	}
}

/* False where what is left cannot be told from here: a cell that nobody explains is seen on such a CPU. */
static bool give_back(struct alloc_view *v, const char *id)
{
	size_t kept = 0;

	for (size_t c = 0; c < PHI_CPUS_MAX; c++)
		if (strcmp(v->cpus[c].owner, id) == 0) {
			if (v->cpus[c].observed)
				return false;
			v->cpus[c].owner[0] = '\0';
			v->cpus[c].quarantined = false;
		}
	for (size_t i = 0; i < v->n_ranges; i++)
		if (strcmp(v->ranges[i].owner, id) != 0) {
			if (kept != i)
				v->ranges[kept] = v->ranges[i];
			kept++;
		}
	v->n_ranges = kept;
	return true;
}

/* g: what is granted; NULL: all of it is released. The database has it already. */
void store_kept_change(struct store *s, int64_t row, const struct alloc_grant *g)
{
	sqlite3_stmt *st;
	bool known = false;

	s->kept_changed = true;
	if (s->kept == NULL)
		return;
	st = sql_begin(s, STORE_WRITE, NULL, "SELECT id FROM containers WHERE row = ?", "i", row);
	if (st != NULL && sql_step(st, NULL) > 0) {
		const char *id = sql_text(st, 0);

		if (g != NULL && !has_units(g)) {
			take(s->kept, id, g);
			known = true;
		} else if (g == NULL && !owns_units(s->kept, id)) {
			known = give_back(s->kept, id);
		}
	}
	if (st != NULL)
		sql_end(st);
	if (known)
		s->kept->generation = store_generation(s, STORE_WRITE);
	else
		store_kept_drop(s);
}

#ifdef __SANITIZE_ADDRESS__
static bool is_same(const struct alloc_view *a, const struct alloc_view *b)
{
	bool same = a->n_ranges == b->n_ranges && a->n_links == b->n_links;

	for (size_t i = 0; same && i < PHI_CPUS_MAX; i++)
		same = strcmp(a->cpus[i].owner, b->cpus[i].owner) == 0 && a->cpus[i].quarantined == b->cpus[i].quarantined &&
		       a->cpus[i].observed == b->cpus[i].observed;
	for (size_t i = 0; same && i < a->n_ranges; i++) {
		const struct alloc_range *x = &a->ranges[i], *y = &b->ranges[i];

		same = strcmp(x->pool, y->pool) == 0 && strcmp(x->owner, y->owner) == 0 && x->has_base == y->has_base && x->base == y->base &&
		       x->size == y->size && x->colors == y->colors && x->quarantined == y->quarantined;
	}
	for (size_t i = 0; same && i < a->platform->devices.n; i++)
		same = strcmp(a->devices[i].owner, b->devices[i].owner) == 0;
	for (size_t i = 0; same && i < a->platform->remote.n; i++)
		same = strcmp(a->remote[i].owner, b->remote[i].owner) == 0;
	for (size_t i = 0; same && i < a->platform->interrupts.virtual.n; i++)
		same = strcmp(a->virtual[i].owner, b->virtual[i].owner) == 0;
	for (size_t i = 0; same && i < a->n_links; i++)
		same = a->links[i].n_ends == b->links[i].n_ends && strcmp(a->links[i].link.name, b->links[i].link.name) == 0;
	return same;
}

/* What is kept is what would be read: all tests of a build with sanitizers hold it against that. */
static void check(struct store *s)
{
	_clean_(alloc_view_free_p) struct alloc_view *v = alloc_view_new(s->kept->platform);

	if (store_vector_read(s, STORE_WRITE, v, NULL) == 0 && !is_same(v, s->kept))
		abort();
}
#else
static void check(struct store *s)
{
	(void)s;
}
#endif

int store_vector(struct store *s, const struct platform *p, struct alloc_view **ret, struct phi_error *e)
{
	int r;

	if (s->kept != NULL && (s->kept->platform != p || s->kept->generation != store_generation(s, STORE_WRITE)))
		store_kept_drop(s);
	if (s->kept == NULL) {
		s->kept = alloc_view_new(p);
		r = store_vector_read(s, STORE_WRITE, s->kept, e);
		if (r < 0) {
			store_kept_drop(s);
			return r;
		}
	} else {
		check(s);
	}
	*ret = s->kept;
	return 0;
}
