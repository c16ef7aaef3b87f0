/* The allocator against a naive model: an owner for each CPU, a mask for each page, a sum for each amount. */
#include "alloc_unit.h"
#include "grant_unit.h"

#define MODEL_LOW 64
#define MODEL_HIGH 4096
#define HELD_MAX 24

struct model {
	int cpu[8]; /* holder + 1 */
	uint64_t low[MODEL_LOW], high[MODEL_HIGH]; /* colours in use */
	uint64_t ddr;
};

static uint64_t *model_pages(struct model *m, const char *pool, uint64_t *base, size_t *n)
{
	bool low = strcmp(pool, "low") == 0;

	*base = low ? 0x10001000 : 0x40000000;
	*n = low ? MODEL_LOW : MODEL_HIGH;
	return low ? m->low : m->high;
}

static bool model_fits(struct model *m, const char *pool, uint64_t size, uint64_t colors)
{
	uint64_t base, *pages, step = size >= 2 * MIB ? 2 * MIB : PAGE;
	size_t n, need = (size_t)(size / PAGE), run = 0;

	pages = model_pages(m, pool, &base, &n);
	/* From the end: run is the number of free pages from here on. */
	for (size_t i = n; i-- > 0;) {
		run = pages[i] & colors ? 0 : run + 1;
		if (run >= need && (base + i * PAGE) % step == 0)
			return true;
	}
	return false;
}

static void model_take(struct model *m, const struct alloc_memory *g)
{
	uint64_t base, *pages;
	size_t n;

	if (!g->has_base) {
		assert_string_equal(g->pool, "ddr");
		m->ddr += g->size;
		assert_true(m->ddr <= MIB);
		return;
	}
	pages = model_pages(m, g->pool, &base, &n);
	assert_true(g->base >= base && g->base + g->size <= base + n * PAGE);
	assert_int_equal(g->base % (g->size >= 2 * MIB ? 2 * MIB : PAGE), 0);
	for (size_t i = (size_t)((g->base - base) / PAGE); i < (g->base - base + g->size) / PAGE; i++) {
		assert_true((pages[i] & g->colors) == 0);
		pages[i] |= g->colors;
	}
}

static void model_give(struct model *m, const struct alloc_memory *g)
{
	uint64_t base, *pages;
	size_t n;

	if (!g->has_base) {
		m->ddr -= g->size;
		return;
	}
	pages = model_pages(m, g->pool, &base, &n);
	for (size_t i = (size_t)((g->base - base) / PAGE); i < (g->base - base + g->size) / PAGE; i++)
		pages[i] &= ~g->colors;
}

static void random_grants_and_releases_agree_with_a_naive_model(void **state)
{
	static struct model m;
	static struct alloc_grant held[HELD_MAX];
	static const char *const pools[] = {"low", "high", "ddr", NULL};
	bool used[HELD_MAX] = {0};
	struct platform p;
	uint64_t seed = 20240229;
	unsigned granted = 0, refused = 0;

	(void)state;
	host_read(ram, &p);
	p.cpus.host.bits[0] = 1;
	for (int step = 0; step < 6000; step++) {
		size_t slot = unit_random(&seed) % HELD_MAX;
		struct alloc_view *v;
		struct wish w = {0};
		_clean_grant_ struct alloc_grant g = {0};
		struct alloc_refusal why;
		struct phi_error e = {0};
		bool by_amount = unit_random(&seed) % 4 == 0, can = true;
		unsigned free_mask = 0, cpus;
		int r;

		if (used[slot]) {
			for (size_t i = 0; i < held[slot].n_memory; i++)
				model_give(&m, &held[slot].memory[i]);
			for (int c = 0; c < 8; c++)
				if (m.cpu[c] == (int)slot + 1)
					m.cpu[c] = 0;
			alloc_grant_done(&held[slot]);
			used[slot] = false;
			continue;
		}
		/* The view, from what is held. */
		v = alloc_view_new(&p);
		for (size_t i = 0; i < HELD_MAX; i++)
			if (used[i])
				hold_grant(v, &held[i], "x");
		for (unsigned c = 1; c < 8; c++) {
			if (m.cpu[c])
				snprintf(v->cpus[c].owner, sizeof(v->cpus[c].owner), "c%d", m.cpu[c]);
			else
				free_mask |= 1u << c;
		}
		/* A wish of one region, so that the model can say whether it must fit. */
		const char *pool = pools[unit_random(&seed) % 4];
		uint64_t pages = unit_random(&seed) % 8 == 0 ? 512 + unit_random(&seed) % 700 : 1 + unit_random(&seed) % 40;
		uint64_t colors = unit_random(&seed) % 3 == 0 ? 1 + unit_random(&seed) % 15 : UINT64_MAX;

		if (by_amount && pool != NULL && strcmp(pool, "ddr") != 0)
			pool = NULL;
		wish_memory(&w, pages * PAGE, pool);
		w.m[0].has_colors = colors != UINT64_MAX;
		w.m[0].colors = colors;
		if (unit_random(&seed) % 3 == 0) {
			cpus = 1u << unit_random(&seed) % 7 << 1;
			w.spec.cpus = wish_set(cpus).cpus;
			can = (cpus & ~free_mask) == 0;
		} else {
			w.spec.cpus.count = (int64_t)(1 + unit_random(&seed) % 2);
			can = pop(free_mask) >= (unsigned)w.spec.cpus.count;
		}
		if (can) {
			bool amount = (pool == NULL || strcmp(pool, "ddr") == 0) && m.ddr + pages * PAGE <= MIB;
			bool low = !by_amount && (pool == NULL || strcmp(pool, "low") == 0) && model_fits(&m, "low", pages * PAGE, colors);
			bool high = !by_amount && (pool == NULL || strcmp(pool, "high") == 0) && model_fits(&m, "high", pages * PAGE, colors);

			can = amount || low || high;
		}
		r = alloc_fit(v, &w.spec, by_amount, &g, &why, &e);
		if ((r == 0) != can)
			fail_msg("step %d: %llu pages of %s, colours %llx: %s", step, (unsigned long long)pages, pool ? pool : "any",
				 (unsigned long long)colors, r == 0 ? "granted" : e.detail);
		if (r == 0) {
			granted++;
			assert_int_equal(g.n_memory, 1);
			assert_true(g.memory[0].size == pages * PAGE);
			assert_true(!g.memory[0].has_base || g.memory[0].colors == colors);
			assert_true(!by_amount || !g.memory[0].has_base);
			assert_false(cpuset_has(&g.cpus, 0));
			model_take(&m, &g.memory[0]);
			for (int c = cpuset_next(&g.cpus, 0); c >= 0; c = cpuset_next(&g.cpus, (unsigned)c + 1)) {
				assert_int_equal(m.cpu[c], 0);
				m.cpu[c] = (int)slot + 1;
			}
			alloc_grant_copy(&held[slot], &g);
			used[slot] = true;
		} else {
			refused++;
			assert_int_equal(e.code, PHI_NO_RESOURCES);
			assert_non_null(why.kind);
			assert_true(why.wanted > 0);
		}
		alloc_view_free(v);
	}
	assert_true(granted > 1000 && refused > 300); /* both paths are walked */
	platform_free(&p);
}

static void the_same_wish_in_the_same_view_has_the_same_answer(void **state)
{
	struct alloc_view *v = *state;
	struct wish w = {0};
	_clean_grant_ struct alloc_grant a = {0}, b = {0};
	struct alloc_refusal why;
	struct phi_error e;

	hold(v, "low", 0x10005000, PAGE, UINT64_MAX, "x");
	wish_memory(&w, 3 * PAGE, NULL);
	wish_memory(&w, 2 * MIB, NULL);
	assert_done(alloc_fit(v, &w.spec, false, &a, &why, &e), e);
	assert_done(alloc_fit(v, &w.spec, false, &b, &why, &e), e);
	assert_same_grant(&a, &b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_grants_and_releases_agree_with_a_naive_model),
		ram_test(the_same_wish_in_the_same_view_has_the_same_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
