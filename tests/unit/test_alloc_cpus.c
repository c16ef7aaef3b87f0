/* The allocator's choice of CPUs, by enumeration of small hosts. */
#include "alloc_unit.h"

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
	{"two packages of a node", {0, 1, 2, 3, 0, 1, 2, 3}, {0}, {0, 0, 0, 0, 1, 1, 1, 1}, {0}, 1},
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
					_clean_grant_ struct alloc_grant g = {0};
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
	_clean_grant_ struct alloc_grant g = {0};
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
				_clean_grant_ struct alloc_grant g = {0};
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
	static const unsigned cpus[] = {8, 63, 64, 4095};
	struct platform p;
	struct alloc_view *v = view_of(&topologies[0], 0, &p);

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(cpus); i++) {
		struct spec s = wish_set(1);
		_clean_grant_ struct alloc_grant g = {0};
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
	_clean_grant_ struct alloc_grant g = {0};
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
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal why;
	struct phi_error e;

	(void)state;
	host_read("{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0,5,64,4095\",\"host\":\"0\"}}", &p);
	v = alloc_view_new(&p);
	assert_done(alloc_fit(v, &s, true, &g, &why, &e), e);
	assert_true(cpuset_has(&g.cpus, 5) && cpuset_has(&g.cpus, 64) && cpuset_has(&g.cpus, 4095));
	assert_refused(alloc_fit(v, &four, true, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/cpus");
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
