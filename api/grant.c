/* See grant.h. */
#include "grant.h"

#include <string.h>

/* The array with an item more. */
static void *append(void *items, size_t *n, size_t size)
{
	char *more = realloc(items, (*n + 1) * size);

	if (more == NULL)
		abort();
	memset(more + *n * size, 0, size);
	++*n;
	return more;
}

struct alloc_memory *alloc_grant_add_memory(struct alloc_grant *g)
{
	g->memory = append(g->memory, &g->n_memory, sizeof(g->memory[0]));
	return &g->memory[g->n_memory - 1];
}

struct alloc_link *alloc_grant_add_link(struct alloc_grant *g)
{
	g->links = append(g->links, &g->n_links, sizeof(g->links[0]));
	return &g->links[g->n_links - 1];
}

void alloc_grant_add_device(struct alloc_grant *g, const char *name)
{
	g->devices = append(g->devices, &g->n_devices, sizeof(g->devices[0]));
	snprintf(g->devices[g->n_devices - 1], sizeof(g->devices[0]), "%s", name);
}

void alloc_grant_add_remote(struct alloc_grant *g, const char *name)
{
	g->remote = append(g->remote, &g->n_remote, sizeof(g->remote[0]));
	snprintf(g->remote[g->n_remote - 1], sizeof(g->remote[0]), "%s", name);
}

static void *duplicate(const void *items, size_t n, size_t size)
{
	void *copy = n > 0 ? malloc(n * size) : NULL;

	if (n > 0 && copy == NULL)
		abort();
	return n > 0 ? memcpy(copy, items, n * size) : NULL;
}

void alloc_grant_copy(struct alloc_grant *to, const struct alloc_grant *from)
{
	struct alloc_grant copy = *from;

	copy.memory = duplicate(from->memory, from->n_memory, sizeof(from->memory[0]));
	copy.devices = duplicate(from->devices, from->n_devices, sizeof(from->devices[0]));
	copy.remote = duplicate(from->remote, from->n_remote, sizeof(from->remote[0]));
	copy.links = duplicate(from->links, from->n_links, sizeof(from->links[0]));
	alloc_grant_done(to);
	*to = copy;
}

void alloc_grant_done(struct alloc_grant *g)
{
	free(g->memory);
	free(g->devices);
	free(g->remote);
	free(g->links);
	*g = (struct alloc_grant){0};
}
