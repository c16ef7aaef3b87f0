/* Hosts and wishes for the tests of the allocator. */
#pragma once

#include "unit.h"

#include "alloc.h"
#include "json.h"

#include <errno.h>

#define PAGE UINT64_C(4096)
#define MIB (UINT64_C(1) << 20)

static inline void host_read(const char *text, struct platform *p)
{
	struct phi_error e;

	*p = (struct platform){0};
	assert_done(platform_read(text, strlen(text), p, &e), e);
}

static inline struct spec wish_count(unsigned n)
{
	struct spec s;

	spec_init(&s);
	s.cpus.count = n;
	s.cpus.has_count = true;
	return s;
}

static inline struct spec wish_set(unsigned mask)
{
	struct spec s;

	spec_init(&s);
	s.cpus.set.bits[0] = mask;
	s.cpus.has_set = true;
	return s;
}

static inline unsigned pop(unsigned m)
{
	return (unsigned)__builtin_popcount(m);
}

static const char *const ram =
	"{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-7\"},\"memory\":["
	"{\"name\":\"low\",\"kind\":\"carveout\",\"base\":\"0x10001000\",\"size\":\"256K\"},"
	"{\"name\":\"high\",\"kind\":\"carveout\",\"base\":\"0x40000000\",\"size\":\"16M\"},"
	"{\"name\":\"ddr\",\"kind\":\"host\",\"size\":\"1M\"}]}";

struct wish {
	struct spec spec;
	struct spec_memory m[PHI_MEMORY_REGIONS_MAX];
};

static inline void wish_memory(struct wish *w, uint64_t size, const char *pool)
{
	struct spec_memory *m = &w->m[w->spec.memory.n];

	if (w->spec.memory.n == 0)
		w->spec = wish_count(1);
	w->spec.memory.items = w->m;
	w->spec.memory.n++;
	*m = (struct spec_memory){.size = size, .pool = (char *)(uintptr_t)pool};
}

static inline void hold(struct alloc_view *v, const char *pool, uint64_t base, uint64_t size, uint64_t colors, const char *owner)
{
	struct alloc_range r = {.has_base = base != 0, .base = base, .size = size, .colors = colors};

	snprintf(r.pool, sizeof(r.pool), "%s", pool);
	snprintf(r.owner, sizeof(r.owner), "%s", owner);
	alloc_view_add(v, &r);
}

static inline void hold_grant(struct alloc_view *v, const struct alloc_grant *g, const char *owner)
{
	for (size_t i = 0; i < g->n_memory; i++)
		hold(v, g->memory[i].pool, g->memory[i].has_base ? g->memory[i].base : 0, g->memory[i].size, g->memory[i].colors, owner);
}

/* For cmocka_unit_test_setup_teardown: *state is a fresh view of the host of `ram`. */
static inline int with_ram(void **state)
{
	static struct platform p;

	host_read(ram, &p);
	*state = alloc_view_new(&p);
	return 0;
}

static inline int without_ram(void **state)
{
	struct alloc_view *v = *state;
	struct platform p = *v->platform;

	alloc_view_free(v);
	platform_free(&p);
	return 0;
}

#define ram_test(f) cmocka_unit_test_setup_teardown(f, with_ram, without_ram)
