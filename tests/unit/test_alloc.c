/* The allocator, by enumeration of small hosts and against a naive model. */
#include "unit.h"

#include "alloc.h"
#include "json.h"

#include <errno.h>

#define PAGE UINT64_C(4096)
#define MIB (UINT64_C(1) << 20)

/* ---- hosts and wishes ---- */

static void host_read(const char *text, struct platform *p)
{
	struct phi_error e;

	*p = (struct platform){0};
	assert_done(platform_read(text, strlen(text), p, &e), e);
}

static struct spec wish_count(unsigned n)
{
	struct spec s;

	spec_init(&s);
	s.cpus.count = n;
	s.cpus.has_count = true;
	return s;
}

static struct spec wish_set(unsigned mask)
{
	struct spec s;

	spec_init(&s);
	s.cpus.set.bits[0] = mask;
	s.cpus.has_set = true;
	return s;
}

/* CPUs 0-7 by index; which share core, cluster and node. */
static const struct topology {
	const char *name;
	int64_t core[8], cluster[8], package[8], node[8];
	unsigned threads;
} topologies[] = {
	{"flat", {0, 1, 2, 3, 4, 5, 6, 7}, {0}, {0}, {0}, 1},
	{"SMT", {0, 0, 1, 1, 2, 2, 3, 3}, {0}, {0}, {0}, 2},
	{"SMT, far siblings", {0, 1, 2, 3, 0, 1, 2, 3}, {0}, {0}, {0}, 2},
	{"two clusters", {0, 1, 2, 3, 4, 5, 6, 7}, {0, 0, 0, 0, 1, 1, 1, 1}, {0}, {0}, 1},
	{"two clusters of SMT", {0, 0, 1, 1, 0, 0, 1, 1}, {0, 0, 0, 0, 1, 1, 1, 1}, {0}, {0}, 2},
	{"two interleaved clusters", {0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 0, 1, 0, 1, 0, 1}, {0}, {0}, 1},
	{"uneven clusters", {0, 1, 2, 3, 4, 5, 6, 7}, {0, 0, 1, 1, 1, 1, 1, 2}, {0}, {0}, 1},
	{"two nodes of two clusters", {0, 1, 2, 3, 4, 5, 6, 7}, {0, 0, 1, 1, 0, 0, 1, 1}, {0, 0, 0, 0, 1, 1, 1, 1}, {0, 0, 0, 0, 1, 1, 1, 1}, 1},
	{"two packages of SMT, far siblings", {0, 0, 1, 1, 0, 0, 1, 1}, {0}, {0, 1, 0, 1, 0, 1, 0, 1}, {0, 1, 0, 1, 0, 1, 0, 1}, 2},
	{"four threads a core", {0, 0, 0, 0, 1, 1, 1, 1}, {0}, {0}, {0}, 4},
};

static struct alloc_view *view_of(const struct topology *t, unsigned host, struct platform *p)
{
	char text[1600];
	size_t n = (size_t)snprintf(text, sizeof(text), "{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-7\",\"topology\":[");

	for (int c = 0; c < 8; c++)
		n += (size_t)snprintf(text + n, sizeof(text) - n,
				      "%s{\"id\":%d,\"core\":%d,\"cluster\":%d,\"package\":%d,\"node\":%d}", c ? "," : "", c,
				      (int)t->core[c], (int)t->cluster[c], (int)t->package[c], (int)t->node[c]);
	snprintf(text + n, sizeof(text) - n, "]},\"memory\":[{\"name\":\"ram\",\"kind\":\"host\",\"size\":\"1G\"}]}");
	host_read(text, p);
	p->cpus.host.bits[0] = host;
	return alloc_view_new(p);
}

static void own(struct alloc_view *v, unsigned free_mask, unsigned host)
{
	for (unsigned c = 0; c < 8; c++)
		snprintf(v->cpus[c].owner, sizeof(v->cpus[c].owner), "%s",
			 (free_mask >> c & 1) || (host >> c & 1) ? "" : c % 2 ? "odd" : "even");
}

static bool same_domain(const struct topology *t, unsigned a, unsigned b)
{
	return t->node[a] == t->node[b] && t->package[a] == t->package[b] && t->cluster[a] == t->cluster[b];
}

static unsigned domain_mask(const struct topology *t, unsigned c)
{
	unsigned m = 0;

	for (unsigned k = 0; k < 8; k++)
		if (same_domain(t, c, k))
			m |= 1u << k;
	return m;
}

static unsigned core_mask(const struct topology *t, unsigned c)
{
	unsigned m = 0;

	for (unsigned k = 0; k < 8; k++)
		if (t->package[c] == t->package[k] && t->cluster[c] == t->cluster[k] && t->core[c] == t->core[k])
			m |= 1u << k;
	return m;
}

static unsigned pop(unsigned m)
{
	return (unsigned)__builtin_popcount(m);
}

/* Every host of 8 CPUs above, with every set of free CPUs, every count, with and without CPUs of the host. */
static void for_all_counts(void (*check)(const struct topology *t, unsigned free_mask, unsigned wanted, int r,
					 const struct alloc_grant *g, const struct alloc_refusal *why))
{
	static const unsigned hosts[] = {0, 1, 0x12};

	for (size_t i = 0; i < PHI_COUNT(topologies); i++)
		for (size_t h = 0; h < PHI_COUNT(hosts); h++) {
			struct platform p;
			struct alloc_view *v = view_of(&topologies[i], hosts[h], &p);

			for (unsigned mask = 0; mask < 256; mask++) {
				unsigned free_mask = mask & ~hosts[h];

				if (mask & hosts[h])
					continue;
				own(v, free_mask, hosts[h]);
				for (unsigned wanted = 1; wanted <= 9; wanted++) {
					struct spec s = wish_count(wanted);
					struct alloc_grant g = {0};
					struct alloc_refusal why;
					struct phi_error e = {0};
					int r = alloc_fit(v, &s, true, &g, &why, &e);

					if (r < 0)
						assert_int_equal(e.code, PHI_NO_RESOURCES);
					check(&topologies[i], free_mask, wanted, r, &g, &why);
				}
			}
			alloc_view_free(v);
			platform_free(&p);
		}
}

/* Ends the test and says in which of the many cases. */
#define fail_case(what)                                                                                      \
	fail_msg("%s: %s, free %02x, %u wanted, given %02x", what, t->name, free_mask, wanted, (unsigned)g->cpus.bits[0])

static void check_right(const struct topology *t, unsigned free_mask, unsigned wanted, int r, const struct alloc_grant *g,
			const struct alloc_refusal *why)
{
	unsigned given = (unsigned)g->cpus.bits[0];

	(void)why;
	if ((r == 0) != (wanted <= pop(free_mask)))
		fail_case(r == 0 ? "granted" : "refused");
	if (r == 0 && (cpuset_count(&g->cpus) != wanted || (given & ~free_mask) != 0))
		fail_case("wrong CPUs");
}

static void a_count_is_granted_exactly_where_so_many_are_free_and_only_free_ones(void **state)
{
	(void)state;
	for_all_counts(check_right);
}

static void check_domain(const struct topology *t, unsigned free_mask, unsigned wanted, int r, const struct alloc_grant *g,
			 const struct alloc_refusal *why)
{
	unsigned given = (unsigned)g->cpus.bits[0], fullest = 99, first;

	(void)why;
	if (r < 0)
		return;
	for (unsigned c = 0; c < 8; c++) {
		unsigned n = pop(domain_mask(t, c) & free_mask);

		if (n >= wanted && n < fullest)
			fullest = n;
	}
	if (fullest == 99)
		return;
	first = (unsigned)__builtin_ctz(given);
	if (given & ~domain_mask(t, first))
		fail_case("spread");
	if (pop(domain_mask(t, first) & free_mask) != fullest)
		fail_case("not the fullest");
	/* Of equals the first. */
	for (unsigned c = 0; c < first; c++)
		if ((free_mask >> c & 1) && !same_domain(t, c, first) && pop(domain_mask(t, c) & free_mask) == fullest &&
		    (free_mask & domain_mask(t, first) & ((1u << c) - 1)) == 0)
			fail_case("not the first");
}

static void a_count_stays_in_the_fullest_domain_that_can_hold_it(void **state)
{
	(void)state;
	for_all_counts(check_domain);
}

static void check_cores(const struct topology *t, unsigned free_mask, unsigned wanted, int r, const struct alloc_grant *g,
			const struct alloc_refusal *why)
{
	unsigned given = (unsigned)g->cpus.bits[0], scope = free_mask, whole_free = 0, whole_given = 0, loose = 0, loose_given = 0;

	(void)why;
	if (r < 0)
		return;
	for (unsigned c = 0; c < 8; c++)
		if (pop(domain_mask(t, c) & free_mask) >= wanted && (given & ~domain_mask(t, c)) == 0)
			scope = free_mask & domain_mask(t, c);
	for (unsigned c = 0; c < 8; c++) {
		unsigned core = core_mask(t, c);
		bool whole = (core & ~free_mask) == 0, first = (core & ((1u << c) - 1)) == 0;

		if ((scope >> c & 1) && whole && first)
			whole_free++;
		if ((given >> c & 1) && (core & ~given) == 0 && first)
			whole_given++;
		if ((scope >> c & 1) && !whole)
			loose++;
		if ((given >> c & 1) && !whole)
			loose_given++;
	}
	unsigned want_whole = wanted / t->threads < whole_free ? wanted / t->threads : whole_free;
	unsigned rest = wanted - want_whole * t->threads;

	if (whole_given != want_whole)
		fail_case("not as many whole cores as possible");
	if (loose_given != (rest < loose ? rest : loose))
		fail_case("a free core is broken though used ones have room");
}

static void whole_cores_come_first_then_cores_that_are_in_use_anyway(void **state)
{
	(void)state;
	for_all_counts(check_cores);
}

static void check_refusal(const struct topology *t, unsigned free_mask, unsigned wanted, int r, const struct alloc_grant *g,
			  const struct alloc_refusal *why)
{
	if (r == 0) {
		assert_null(why->kind);
		assert_int_equal(why->n_blockers, 0);
		return;
	}
	assert_string_equal(why->kind, "cpus");
	assert_int_equal(why->wanted, wanted);
	assert_int_equal(why->available, pop(free_mask));
	if (cpuset_count(&g->cpus) != 0)
		fail_case("a refusal wrote a grant");
	for (size_t i = 0; i < why->n_blockers; i++) {
		unsigned c = 99;

		assert_int_equal(sscanf(why->blockers[i].unit, "cpu %u", &c), 1);
		assert_true(c < 8 && !(free_mask >> c & 1));
		assert_string_equal(why->blockers[i].owner, c % 2 ? "odd" : "even");
	}
}

static void a_refused_count_says_what_was_wanted_what_is_free_and_who_holds_the_others(void **state)
{
	(void)state;
	for_all_counts(check_refusal);
}

static void every_holder_is_among_the_blockers_but_not_the_hosts_cpus(void **state)
{
	struct platform p;
	struct alloc_view *v = view_of(&topologies[0], 1, &p);
	struct spec s = wish_count(5);
	struct alloc_grant g;
	struct alloc_refusal why;
	struct phi_error e;

	(void)state;
	own(v, 0x0e, 1);
	assert_refused(alloc_fit(v, &s, true, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/cpus");
	assert_int_equal(why.n_blockers, 4);
	assert_string_equal(why.blockers[0].unit, "cpu 4");
	assert_string_equal(why.blockers[3].unit, "cpu 7");
	alloc_view_free(v);
	platform_free(&p);
}

static void an_explicit_set_is_granted_as_it_is_or_not_at_all(void **state)
{
	static const unsigned hosts[] = {0, 0x11};

	(void)state;
	for (size_t h = 0; h < PHI_COUNT(hosts); h++) {
		struct platform p;
		struct alloc_view *v = view_of(&topologies[4], hosts[h], &p);

		for (unsigned free_mask = 0; free_mask < 256; free_mask++) {
			if (free_mask & hosts[h])
				continue;
			own(v, free_mask, hosts[h]);
			for (unsigned set = 1; set < 256; set++) {
				struct spec s = wish_set(set);
				struct alloc_grant g = {0};
				struct alloc_refusal why;
				struct phi_error e = {0};
				int r = alloc_fit(v, &s, true, &g, &why, &e);

				assert_int_equal(r == 0, (set & ~free_mask) == 0);
				if (r == 0) {
					assert_int_equal(g.cpus.bits[0], set);
					assert_null(why.kind);
					continue;
				}
				assert_int_equal(cpuset_count(&g.cpus), 0);
				assert_string_equal(e.pointer, "/spec/cpus/set");
				if (set & hosts[h]) {
					assert_int_equal(e.code, PHI_INVALID);
					continue;
				}
				assert_int_equal(e.code, PHI_NO_RESOURCES);
				assert_string_equal(why.kind, "cpus");
				assert_int_equal(why.wanted, pop(set));
				assert_int_equal(why.available, pop(set & free_mask));
				assert_int_equal(why.n_blockers, pop(set & ~free_mask));
			}
		}
		alloc_view_free(v);
		platform_free(&p);
	}
}

static void a_cpu_that_the_host_has_not_is_an_invalid_wish(void **state)
{
	static const unsigned cpus[] = {8, 63, 64, 1023};
	struct platform p;
	struct alloc_view *v = view_of(&topologies[0], 0, &p);

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(cpus); i++) {
		struct spec s = wish_set(1);
		struct alloc_grant g;
		struct alloc_refusal why;
		struct phi_error e;

		cpuset_add(&s.cpus.set, cpus[i]);
		assert_refused(alloc_fit(v, &s, true, &g, &why, &e), e, PHI_INVALID, "/spec/cpus/set");
		assert_null(why.kind);
	}
	alloc_view_free(v);
	platform_free(&p);
}

static void a_cpu_in_quarantine_or_of_a_cell_that_nobody_explains_is_not_granted(void **state)
{
	struct platform p;
	struct alloc_view *v = view_of(&topologies[0], 0, &p);
	struct spec all = wish_count(8), one = wish_set(4), seven = wish_count(6);
	struct alloc_grant g;
	struct alloc_refusal why;
	struct phi_error e;
	unsigned there, unowned;

	(void)state;
	v->cpus[2].quarantined = true;
	snprintf(v->cpus[2].owner, sizeof(v->cpus[2].owner), "dead");
	v->cpus[5].observed = true;
	snprintf(v->cpus[5].owner, sizeof(v->cpus[5].owner), "jailhouse:foreign");
	assert_refused(alloc_fit(v, &all, true, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/cpus");
	assert_int_equal(why.n_blockers, 2);
	assert_string_equal(why.blockers[1].owner, "jailhouse:foreign");
	assert_refused(alloc_fit(v, &one, true, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/cpus/set");
	assert_done(alloc_fit(v, &seven, true, &g, &why, &e), e);
	assert_int_equal(g.cpus.bits[0], 0xdb);
	alloc_capacity(v, &there, &unowned);
	assert_int_equal(there, 8);
	assert_int_equal(unowned, 6);
	alloc_view_free(v);
	platform_free(&p);
}

static void a_host_with_gaps_in_its_numbers_grants_what_is_there(void **state)
{
	struct platform p;
	struct alloc_view *v;
	struct spec s = wish_count(3), four = wish_count(4);
	struct alloc_grant g;
	struct alloc_refusal why;
	struct phi_error e;

	(void)state;
	host_read("{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0,5,64,1023\",\"host\":\"0\"}}", &p);
	v = alloc_view_new(&p);
	assert_done(alloc_fit(v, &s, true, &g, &why, &e), e);
	assert_true(cpuset_has(&g.cpus, 5) && cpuset_has(&g.cpus, 64) && cpuset_has(&g.cpus, 1023));
	assert_refused(alloc_fit(v, &four, true, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/cpus");
	alloc_view_free(v);
	platform_free(&p);
}

/* ---- memory ---- */

static const char *const ram =
	"{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-7\"},\"memory\":["
	"{\"name\":\"low\",\"kind\":\"carveout\",\"base\":\"0x10001000\",\"size\":\"256K\"},"
	"{\"name\":\"high\",\"kind\":\"carveout\",\"base\":\"0x40000000\",\"size\":\"16M\"},"
	"{\"name\":\"ddr\",\"kind\":\"host\",\"size\":\"1M\"}]}";

struct wish {
	struct spec spec;
	struct spec_memory m[PHI_MEMORY_REGIONS_MAX];
};

static void wish_memory(struct wish *w, uint64_t size, const char *pool)
{
	struct spec_memory *m = &w->m[w->spec.memory.n];

	if (w->spec.memory.n == 0)
		w->spec = wish_count(1);
	w->spec.memory.items = w->m;
	w->spec.memory.n++;
	*m = (struct spec_memory){.size = size, .pool = (char *)(uintptr_t)pool};
}

static void hold(struct alloc_view *v, const char *pool, uint64_t base, uint64_t size, uint64_t colors, const char *owner)
{
	struct alloc_range r = {.has_base = base != 0, .base = base, .size = size, .colors = colors};

	snprintf(r.pool, sizeof(r.pool), "%s", pool);
	snprintf(r.owner, sizeof(r.owner), "%s", owner);
	alloc_view_add(v, &r);
}

static void hold_grant(struct alloc_view *v, const struct alloc_grant *g, const char *owner)
{
	for (size_t i = 0; i < g->n_memory; i++)
		hold(v, g->memory[i].pool, g->memory[i].has_base ? g->memory[i].base : 0, g->memory[i].size, g->memory[i].colors, owner);
}

/* Every pattern of 8 pages that are held, every size: the smallest hole that fits, of equals the lowest. */
static void a_range_is_the_best_fit_of_lowest_address(void **state)
{
	struct platform p;

	(void)state;
	host_read("{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0\"},\"memory\":["
		  "{\"name\":\"p\",\"kind\":\"carveout\",\"base\":\"0x7ffff000\",\"size\":40960}]}",
		  &p);
	for (unsigned held = 0; held < 1 << 10; held++) {
		struct alloc_view *v = alloc_view_new(&p);

		/* From the end, so that the order of the list is not the order of addresses. */
		for (int i = 9; i >= 0; i--)
			if (held >> i & 1)
				hold(v, "p", 0x7ffff000 + (uint64_t)i * PAGE, PAGE, UINT64_MAX, "x");
		for (unsigned n = 1; n <= 11; n++) {
			struct wish w = {0};
			struct alloc_grant g;
			struct alloc_refusal why;
			struct phi_error e = {0};
			int best = -1, best_hole = 99, r;

			for (int i = 0; i < 10;) {
				int end = i;

				while (end < 10 && !(held >> end & 1))
					end++;
				if (end - i >= (int)n && end - i < best_hole) {
					best = i;
					best_hole = end - i;
				}
				i = end + 1;
			}
			wish_memory(&w, n * PAGE, "p");
			r = alloc_fit(v, &w.spec, false, &g, &why, &e);
			if ((r == 0) != (best >= 0) || (r == 0 && g.memory[0].base != 0x7ffff000 + (uint64_t)best * PAGE))
				fail_msg("held %03x, %u pages: %d, page %d, not %d", held, n, r,
					 r == 0 ? (int)((g.memory[0].base - 0x7ffff000) / PAGE) : -1, best);
			if (r == 0) {
				assert_int_equal(g.n_memory, 1);
				assert_true(g.memory[0].has_base && g.memory[0].size == n * PAGE && g.memory[0].colors == UINT64_MAX);
				assert_string_equal(g.memory[0].pool, "p");
				continue;
			}
			assert_int_equal(e.code, PHI_NO_RESOURCES);
			assert_string_equal(why.kind, "memory");
			assert_int_equal(why.wanted, n * PAGE);
			assert_int_equal(why.available, (10 - pop(held)) * PAGE);
			assert_int_equal(why.n_blockers, pop(held));
		}
		alloc_view_free(v);
	}
	platform_free(&p);
}

static void two_mib_and_more_begin_at_two_mib_and_less_at_a_page(void **state)
{
	static const uint64_t sizes[] = {PAGE, 2 * MIB - PAGE, 2 * MIB, 2 * MIB + PAGE, 4 * MIB};
	struct platform p;

	(void)state;
	host_read("{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0\"},\"memory\":["
		  "{\"name\":\"p\",\"kind\":\"carveout\",\"base\":\"0x10001000\",\"size\":\"8M\"}]}",
		  &p);
	for (size_t i = 0; i < PHI_COUNT(sizes); i++) {
		struct alloc_view *v = alloc_view_new(&p);
		struct wish w = {0};
		struct alloc_grant g;
		struct alloc_refusal why;
		struct phi_error e;

		wish_memory(&w, sizes[i], NULL);
		assert_done(alloc_fit(v, &w.spec, false, &g, &why, &e), e);
		assert_true(g.memory[0].base == (sizes[i] >= 2 * MIB ? 0x10200000 : 0x10001000));
		alloc_view_free(v);
	}
	/* 8 MiB from 0x10001000 hold three aligned regions of 2 MiB, no fourth. */
	struct alloc_view *v = alloc_view_new(&p);
	struct wish w = {0};
	struct alloc_grant g;
	struct alloc_refusal why;
	struct phi_error e;

	for (int i = 0; i < 3; i++)
		wish_memory(&w, 2 * MIB, NULL);
	assert_done(alloc_fit(v, &w.spec, false, &g, &why, &e), e);
	wish_memory(&w, 2 * MIB, NULL);
	assert_refused(alloc_fit(v, &w.spec, false, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/3");
	alloc_view_free(v);
	platform_free(&p);
}

static void ranges_overlap_only_with_disjoint_colours(void **state)
{
	struct platform p;

	(void)state;
	host_read("{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0\"},\"memory\":["
		  "{\"name\":\"p\",\"kind\":\"carveout\",\"base\":\"0x10000000\",\"size\":8192}]}",
		  &p);
	for (uint64_t held = 1; held < 16; held++)
		for (uint64_t wanted = 1; wanted < 16; wanted++)
			for (int at = 0; at < 2; at++) {
				struct alloc_view *v = alloc_view_new(&p);
				struct wish w = {0};
				struct alloc_grant g;
				struct alloc_refusal why;
				struct phi_error e = {0};
				int r;

				hold(v, "p", 0x10000000, 8192, held, "x");
				wish_memory(&w, 8192, NULL);
				w.m[0].has_colors = true;
				w.m[0].colors = wanted;
				w.m[0].has_at = at;
				w.m[0].at = 0x10000000;
				r = alloc_fit(v, &w.spec, false, &g, &why, &e);
				assert_int_equal(r == 0, (held & wanted) == 0);
				if (r == 0)
					assert_true(g.memory[0].base == 0x10000000 && g.memory[0].colors == wanted);
				else
					assert_string_equal(why.blockers[0].owner, "x");
				/* Without a mask all colours are meant. */
				w.m[0].has_colors = false;
				assert_true(alloc_fit(v, &w.spec, false, &g, &why, &e) < 0);
				alloc_view_free(v);
			}
	platform_free(&p);
}

static void an_address_is_obeyed_or_refused_with_its_holder(void **state)
{
	struct platform p;
	struct alloc_view *v;

	(void)state;
	host_read(ram, &p);
	v = alloc_view_new(&p);
	hold(v, "high", 0x40002000, 2 * PAGE, UINT64_MAX, "web");
	for (uint64_t at = 0x3ffff000; at <= 0x40005000; at += PAGE)
		for (uint64_t n = 1; n <= 3; n++) {
			struct wish w = {0};
			struct alloc_grant g = {0};
			struct alloc_refusal why;
			struct phi_error e = {0};
			bool inside = at >= 0x40000000, meets = at < 0x40004000 && at + n * PAGE > 0x40002000;
			int r;

			wish_memory(&w, n * PAGE, NULL);
			w.m[0].has_at = true;
			w.m[0].at = at;
			r = alloc_fit(v, &w.spec, false, &g, &why, &e);
			assert_int_equal(r == 0, inside && !meets);
			if (r == 0) {
				assert_true(g.memory[0].base == at && g.memory[0].size == n * PAGE);
				assert_string_equal(g.memory[0].pool, "high");
			} else if (inside) {
				assert_int_equal(e.code, PHI_NO_RESOURCES);
				assert_string_equal(why.kind, "memory");
				assert_true(why.wanted == n * PAGE);
				assert_int_equal(why.n_blockers, 1);
				assert_string_equal(why.blockers[0].owner, "web");
				assert_string_equal(why.blockers[0].unit, "memory 0x40002000+0x2000");
			} else {
				assert_int_equal(e.code, PHI_INVALID);
				assert_string_equal(e.pointer, "/spec/memory/0");
			}
		}
	static const struct {
		uint64_t at, size;
		const char *pool;
		enum phi_code code;
	} rows[] = {
		{0x41000000 - PAGE, PAGE, NULL, PHI_OK},
		{0x41000000 - PAGE, 2 * PAGE, NULL, PHI_INVALID},
		{0x41000000, PAGE, NULL, PHI_INVALID},
		{0x40800000, PAGE, "high", PHI_OK},
		{0x40800000, PAGE, "low", PHI_INVALID},
		{0x40800000, PAGE, "ddr", PHI_INVALID},
		{0x40800000, PAGE, "none", PHI_INVALID},
		{0, PAGE, NULL, PHI_INVALID},
		{PHI_ADDRESS_MAX - PAGE, PAGE, NULL, PHI_INVALID},
		{0x40000000, 1ull << 50, NULL, PHI_INVALID},
	};
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		struct wish w = {0};
		struct alloc_grant g;
		struct alloc_refusal why;
		struct phi_error e = {0};

		wish_memory(&w, rows[i].size, rows[i].pool);
		w.m[0].has_at = true;
		w.m[0].at = rows[i].at;
		alloc_fit(v, &w.spec, false, &g, &why, &e);
		assert_string_equal(phi_code_name(e.code), phi_code_name(rows[i].code));
	}
	alloc_view_free(v);
	platform_free(&p);
}

static void regions_of_one_request_never_overlap(void **state)
{
	struct platform p;
	struct alloc_view *v;
	struct wish w = {0};
	struct alloc_grant g;
	struct alloc_refusal why;
	struct phi_error e;

	(void)state;
	host_read(ram, &p);
	v = alloc_view_new(&p);
	for (int i = 0; i < PHI_MEMORY_REGIONS_MAX; i++)
		wish_memory(&w, 4 * PAGE, "low");
	assert_done(alloc_fit(v, &w.spec, false, &g, &why, &e), e);
	assert_int_equal(g.n_memory, PHI_MEMORY_REGIONS_MAX);
	for (size_t i = 0; i < g.n_memory; i++)
		for (size_t k = 0; k < i; k++)
			assert_true(g.memory[i].base >= g.memory[k].base + g.memory[k].size ||
				    g.memory[k].base >= g.memory[i].base + g.memory[i].size);
	w.m[15].size = 5 * PAGE;
	assert_refused(alloc_fit(v, &w.spec, false, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/15");
	/* Two addresses that meet each other. */
	struct wish twice = {0};

	wish_memory(&twice, 2 * PAGE, NULL);
	wish_memory(&twice, 2 * PAGE, NULL);
	twice.m[0].has_at = twice.m[1].has_at = true;
	twice.m[0].at = 0x40000000;
	twice.m[1].at = 0x40001000;
	assert_refused(alloc_fit(v, &twice.spec, false, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/1");
	twice.m[1].at = 0x40002000;
	assert_done(alloc_fit(v, &twice.spec, false, &g, &why, &e), e);
	/* Disjoint colours may. */
	twice.m[1].at = 0x40000000;
	twice.m[0].has_colors = twice.m[1].has_colors = true;
	twice.m[0].colors = 5;
	twice.m[1].colors = 10;
	assert_done(alloc_fit(v, &twice.spec, false, &g, &why, &e), e);
	alloc_view_free(v);
	platform_free(&p);
}

static void an_amount_is_granted_until_the_pool_is_exhausted(void **state)
{
	struct platform p;
	struct alloc_view *v;
	const struct platform_pool *ddr;
	struct wish w = {0};
	struct alloc_grant g;
	struct alloc_refusal why;
	struct phi_error e;

	(void)state;
	host_read(ram, &p);
	v = alloc_view_new(&p);
	ddr = platform_pool(&p, "ddr");
	wish_memory(&w, 256 << 10, "ddr");
	for (uint64_t n = 0; n < 4; n++) {
		assert_int_equal(alloc_pool_free(v, ddr), MIB - n * (256 << 10));
		assert_done(alloc_fit(v, &w.spec, true, &g, &why, &e), e);
		assert_false(g.memory[0].has_base);
		assert_string_equal(g.memory[0].pool, "ddr");
		hold_grant(v, &g, "web");
	}
	assert_int_equal(alloc_pool_free(v, ddr), 0);
	w.m[0].size = PAGE;
	assert_refused(alloc_fit(v, &w.spec, true, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/0");
	assert_string_equal(why.kind, "memory");
	assert_int_equal(why.wanted, PAGE);
	assert_int_equal(why.available, 0);
	assert_int_equal(why.n_blockers, 4);
	assert_string_equal(why.blockers[0].unit, "memory 262144 bytes");
	assert_string_equal(why.blockers[0].owner, "web");
	alloc_view_free(v);
	platform_free(&p);
}

static void regions_of_one_request_share_an_amount(void **state)
{
	struct platform p;
	struct alloc_view *v;
	struct wish w = {0};
	struct alloc_grant g;
	struct alloc_refusal why;
	struct phi_error e;

	(void)state;
	host_read(ram, &p);
	v = alloc_view_new(&p);
	wish_memory(&w, 512 << 10, "ddr");
	wish_memory(&w, 512 << 10, NULL);
	assert_done(alloc_fit(v, &w.spec, true, &g, &why, &e), e);
	w.m[1].size += PAGE;
	assert_refused(alloc_fit(v, &w.spec, true, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/1");
	alloc_view_free(v);
	platform_free(&p);
}

static void a_refused_amount_does_not_say_that_more_is_free_than_is_wanted(void **state)
{
	struct platform p;
	struct alloc_view *v;
	struct wish w = {0};
	struct alloc_grant g;
	struct alloc_refusal why;
	struct phi_error e;

	(void)state;
	host_read(ram, &p);
	v = alloc_view_new(&p);
	wish_memory(&w, 768 << 10, "ddr");
	wish_memory(&w, 512 << 10, "ddr");
	assert_refused(alloc_fit(v, &w.spec, true, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/1");
	assert_int_equal(why.wanted, 512 << 10);
	assert_int_equal(why.available, 256 << 10);
	alloc_view_free(v);
	platform_free(&p);
}

static void a_backend_that_cannot_place_gets_amounts_only(void **state)
{
	struct platform p;
	struct alloc_view *v;
	struct wish w = {0}, named = {0}, big = {0};
	struct alloc_grant g;
	struct alloc_refusal why;
	struct phi_error e;

	(void)state;
	host_read(ram, &p);
	v = alloc_view_new(&p);
	wish_memory(&w, 4 * PAGE, NULL);
	assert_done(alloc_fit(v, &w.spec, true, &g, &why, &e), e);
	assert_string_equal(g.memory[0].pool, "ddr");
	assert_done(alloc_fit(v, &w.spec, false, &g, &why, &e), e);
	assert_true(g.memory[0].has_base); /* a range, where one fits, comes first */
	wish_memory(&named, 4 * PAGE, "low");
	assert_refused(alloc_fit(v, &named.spec, true, &g, &why, &e), e, PHI_UNSUPPORTED, "/spec/memory/0");
	wish_memory(&big, 2 * MIB, NULL); /* only "high" has so much */
	assert_refused(alloc_fit(v, &big.spec, true, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/0");
	assert_int_equal(why.available, MIB);
	alloc_view_free(v);
	platform_free(&p);
}

static void a_backend_that_cannot_place_gets_no_address_either(void **state)
{
	struct platform p;
	struct alloc_view *v;
	struct wish w = {0};
	struct alloc_grant g;
	struct alloc_refusal why;
	struct phi_error e;

	(void)state;
	host_read(ram, &p);
	v = alloc_view_new(&p);
	wish_memory(&w, PAGE, NULL);
	w.m[0].has_at = true;
	w.m[0].at = 0x40000000;
	assert_refused(alloc_fit(v, &w.spec, true, &g, &why, &e), e, PHI_UNSUPPORTED, "/spec/memory/0");
	alloc_view_free(v);
	platform_free(&p);
}

static void a_pool_that_the_host_has_not_is_an_invalid_wish(void **state)
{
	struct platform p;
	struct alloc_view *v;
	struct wish w = {0};
	struct alloc_grant g;
	struct alloc_refusal why;
	struct phi_error e;

	(void)state;
	host_read(ram, &p);
	v = alloc_view_new(&p);
	wish_memory(&w, PAGE, "ddr");
	wish_memory(&w, PAGE, "DDR");
	assert_refused(alloc_fit(v, &w.spec, true, &g, &why, &e), e, PHI_INVALID, "/spec/memory/1");
	assert_null(why.kind);
	alloc_view_free(v);
	platform_free(&p);
}

static void a_refusal_names_at_most_sixteen_blockers_and_writes_no_grant(void **state)
{
	struct platform p;
	struct alloc_view *v;
	struct wish w = {0};
	struct alloc_grant g, before;
	struct alloc_refusal why;
	struct phi_error e;
	char owner[PHI_ID_MAX + 1];

	(void)state;
	host_read(ram, &p);
	v = alloc_view_new(&p);
	memset(owner, 'o', PHI_ID_MAX);
	owner[PHI_ID_MAX] = '\0';
	for (uint64_t i = 0; i < 40; i++)
		hold(v, "low", 0x10001000 + i * PAGE, PAGE, UINT64_MAX, owner);
	wish_memory(&w, PAGE, "low");
	wish_memory(&w, 60 * PAGE, "low");
	memset(&g, 0x5a, sizeof(g));
	before = g;
	assert_refused(alloc_fit(v, &w.spec, false, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/1");
	assert_int_equal(why.n_blockers, ALLOC_BLOCKERS_MAX);
	assert_string_equal(why.blockers[15].owner, owner);
	assert_memory_equal(&g, &before, sizeof(g));
	alloc_view_free(v);
	platform_free(&p);
}

/* ---- a naive model: an owner for each CPU, a mask for each page, a sum for each amount ---- */

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
		struct alloc_grant g = {0};
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
			held[slot] = g;
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
	struct platform p;
	struct alloc_view *v;
	struct wish w = {0};
	struct alloc_grant a, b;
	struct alloc_refusal why;
	struct phi_error e;

	(void)state;
	host_read(ram, &p);
	v = alloc_view_new(&p);
	hold(v, "low", 0x10005000, PAGE, UINT64_MAX, "x");
	wish_memory(&w, 3 * PAGE, NULL);
	wish_memory(&w, 2 * MIB, NULL);
	assert_done(alloc_fit(v, &w.spec, false, &a, &why, &e), e);
	assert_done(alloc_fit(v, &w.spec, false, &b, &why, &e), e);
	assert_memory_equal(&a, &b, sizeof(a));
	alloc_view_free(v);
	platform_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_count_is_granted_exactly_where_so_many_are_free_and_only_free_ones),
		cmocka_unit_test(a_count_stays_in_the_fullest_domain_that_can_hold_it),
		cmocka_unit_test(whole_cores_come_first_then_cores_that_are_in_use_anyway),
		cmocka_unit_test(a_refused_count_says_what_was_wanted_what_is_free_and_who_holds_the_others),
		cmocka_unit_test(every_holder_is_among_the_blockers_but_not_the_hosts_cpus),
		cmocka_unit_test(an_explicit_set_is_granted_as_it_is_or_not_at_all),
		cmocka_unit_test(a_cpu_that_the_host_has_not_is_an_invalid_wish),
		cmocka_unit_test(a_cpu_in_quarantine_or_of_a_cell_that_nobody_explains_is_not_granted),
		cmocka_unit_test(a_host_with_gaps_in_its_numbers_grants_what_is_there),
		cmocka_unit_test(a_range_is_the_best_fit_of_lowest_address),
		cmocka_unit_test(two_mib_and_more_begin_at_two_mib_and_less_at_a_page),
		cmocka_unit_test(ranges_overlap_only_with_disjoint_colours),
		cmocka_unit_test(an_address_is_obeyed_or_refused_with_its_holder),
		cmocka_unit_test(regions_of_one_request_never_overlap),
		cmocka_unit_test(an_amount_is_granted_until_the_pool_is_exhausted),
		cmocka_unit_test(regions_of_one_request_share_an_amount),
		cmocka_unit_test(a_refused_amount_does_not_say_that_more_is_free_than_is_wanted),
		cmocka_unit_test(a_backend_that_cannot_place_gets_amounts_only),
		cmocka_unit_test(a_backend_that_cannot_place_gets_no_address_either),
		cmocka_unit_test(a_pool_that_the_host_has_not_is_an_invalid_wish),
		cmocka_unit_test(a_refusal_names_at_most_sixteen_blockers_and_writes_no_grant),
		cmocka_unit_test(random_grants_and_releases_agree_with_a_naive_model),
		cmocka_unit_test(the_same_wish_in_the_same_view_has_the_same_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
