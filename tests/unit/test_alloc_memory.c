/* The allocator's choice of memory: ranges by best fit, amounts, colours, addresses; what a refusal says. */
#include "alloc_unit.h"

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
			_clean_grant_ struct alloc_grant g = {0};
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
		_clean_grant_ struct alloc_grant g = {0};
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
	_clean_grant_ struct alloc_grant g = {0};
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
				_clean_grant_ struct alloc_grant g = {0};
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
	struct alloc_view *v = *state;

	hold(v, "high", 0x40002000, 2 * PAGE, UINT64_MAX, "web");
	for (uint64_t at = 0x3ffff000; at <= 0x40005000; at += PAGE)
		for (uint64_t n = 1; n <= 3; n++) {
			struct wish w = {0};
			_clean_grant_ struct alloc_grant g = {0};
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
		_clean_grant_ struct alloc_grant g = {0};
		struct alloc_refusal why;
		struct phi_error e = {0};

		wish_memory(&w, rows[i].size, rows[i].pool);
		w.m[0].has_at = true;
		w.m[0].at = rows[i].at;
		alloc_fit(v, &w.spec, false, &g, &why, &e);
		assert_string_equal(phi_code_name(e.code), phi_code_name(rows[i].code));
	}
}

static void regions_of_one_request_never_overlap(void **state)
{
	struct alloc_view *v = *state;
	struct wish w = {0};
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal why;
	struct phi_error e;

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
}

static void the_hole_of_a_region_ends_where_another_of_the_request_begins(void **state)
{
	static const struct {
		uint64_t colors, at; /* of the first region, in "high"; 0: it is an amount, by no address */
		const char *pool;
		uint64_t want; /* base of the second, a page of colour 2 */
	} rows[] = {
		{UINT64_MAX, 0x40004000, NULL, 0x40000000}, /* four pages are left there, "low" has sixty-four */
		{1, 0x40004000, NULL, 0x10001000},	    /* no colour in common: the hole is all of "high" */
		{UINT64_MAX, 0x40000000, NULL, 0x10001000}, /* what is before it is no end */
		{UINT64_MAX, 0x40004000, "low", 0x10001000},
		{UINT64_MAX, 0, NULL, 0x10001000},
	};
	struct alloc_view *v = *state;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal why;
	struct phi_error e;

	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		struct wish w = {0};

		wish_memory(&w, PAGE, rows[i].at ? NULL : "ddr");
		w.m[0].has_at = rows[i].at != 0;
		w.m[0].at = rows[i].at;
		w.m[0].has_colors = rows[i].at != 0 && rows[i].colors != UINT64_MAX;
		w.m[0].colors = rows[i].colors;
		wish_memory(&w, PAGE, rows[i].pool);
		w.m[1].has_colors = true;
		w.m[1].colors = 2;
		assert_done(alloc_fit(v, &w.spec, false, &g, &why, &e), e);
		assert_true(g.memory[1].has_base && g.memory[1].base == rows[i].want);
	}
}

static void what_is_free_is_the_most_of_one_pool_that_the_wish_could_have(void **state)
{
	static const struct {
		const char *pool, *taken; /* all of `taken` is held */
		bool by_amount;
		uint64_t available;
	} rows[] = {
		{NULL, NULL, false, 16 * MIB}, {NULL, NULL, true, MIB},	    {"low", NULL, false, 256 << 10},
		{"low", "low", false, 0},      {NULL, "high", false, MIB}, {"ddr", "ddr", true, 0},
	};
	struct alloc_refusal why;
	_clean_grant_ struct alloc_grant g = {0};
	struct phi_error e;

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		struct alloc_view *v;
		struct wish w = {0};
		void *fresh;

		with_ram(&fresh);
		v = fresh;
		if (rows[i].taken != NULL) {
			const struct platform_pool *pool = platform_pool(v->platform, rows[i].taken);

			hold(v, pool->name, pool->base, pool->size, UINT64_MAX, "web");
		}
		wish_memory(&w, 32 * MIB, rows[i].pool);
		assert_refused(alloc_fit(v, &w.spec, rows[i].by_amount, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/0");
		assert_int_equal(why.available, rows[i].available);
		assert_int_equal(why.n_blockers, rows[i].taken != NULL);
		without_ram(&fresh);
	}
	alloc_view_free(NULL);
}

static void an_amount_is_granted_until_the_pool_is_exhausted(void **state)
{
	struct alloc_view *v = *state;
	const struct platform_pool *ddr;
	struct wish w = {0};
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal why;
	struct phi_error e;

	ddr = platform_pool(v->platform, "ddr");
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
}

static void regions_of_one_request_share_an_amount(void **state)
{
	struct alloc_view *v = *state;
	struct wish w = {0};
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal why;
	struct phi_error e;

	wish_memory(&w, 512 << 10, "ddr");
	wish_memory(&w, 512 << 10, NULL);
	assert_done(alloc_fit(v, &w.spec, true, &g, &why, &e), e);
	w.m[1].size += PAGE;
	assert_refused(alloc_fit(v, &w.spec, true, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/1");
}

static void a_refused_amount_does_not_say_that_more_is_free_than_is_wanted(void **state)
{
	struct alloc_view *v = *state;
	struct wish w = {0};
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal why;
	struct phi_error e;

	wish_memory(&w, 768 << 10, "ddr");
	wish_memory(&w, 512 << 10, "ddr");
	assert_refused(alloc_fit(v, &w.spec, true, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/1");
	assert_int_equal(why.wanted, 512 << 10);
	assert_int_equal(why.available, 256 << 10);
}

static void a_backend_that_cannot_place_gets_amounts_only(void **state)
{
	struct alloc_view *v = *state;
	struct wish w = {0}, named = {0}, big = {0};
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal why;
	struct phi_error e;

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
}

static void a_backend_that_cannot_place_gets_no_address_either(void **state)
{
	struct alloc_view *v = *state;
	struct wish w = {0};
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal why;
	struct phi_error e;

	wish_memory(&w, PAGE, NULL);
	w.m[0].has_at = true;
	w.m[0].at = 0x40000000;
	assert_refused(alloc_fit(v, &w.spec, true, &g, &why, &e), e, PHI_UNSUPPORTED, "/spec/memory/0");
}

static void a_pool_that_the_host_has_not_is_an_invalid_wish(void **state)
{
	struct alloc_view *v = *state;
	struct wish w = {0};
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal why;
	struct phi_error e;

	wish_memory(&w, PAGE, "ddr");
	wish_memory(&w, PAGE, "DDR");
	assert_refused(alloc_fit(v, &w.spec, true, &g, &why, &e), e, PHI_INVALID, "/spec/memory/1");
	assert_null(why.kind);
}

static void a_refusal_names_at_most_sixteen_blockers_and_writes_no_grant(void **state)
{
	struct alloc_view *v = *state;
	struct wish w = {0};
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal why;
	struct phi_error e;
	char owner[PHI_ID_MAX + 1];

	memset(owner, 'o', PHI_ID_MAX);
	owner[PHI_ID_MAX] = '\0';
	for (uint64_t i = 0; i < 40; i++)
		hold(v, "low", 0x10001000 + i * PAGE, PAGE, UINT64_MAX, owner);
	wish_memory(&w, PAGE, "low");
	wish_memory(&w, 60 * PAGE, "low");
	cpuset_add(&g.cpus, 9);
	alloc_grant_add_device(&g, "kept");
	assert_refused(alloc_fit(v, &w.spec, false, &g, &why, &e), e, PHI_NO_RESOURCES, "/spec/memory/1");
	assert_int_equal(why.n_blockers, ALLOC_BLOCKERS_MAX);
	assert_string_equal(why.blockers[15].owner, owner);
	assert_true(cpuset_has(&g.cpus, 9) && g.n_devices == 1 && g.n_memory == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_range_is_the_best_fit_of_lowest_address),
		cmocka_unit_test(two_mib_and_more_begin_at_two_mib_and_less_at_a_page),
		cmocka_unit_test(ranges_overlap_only_with_disjoint_colours),
		ram_test(an_address_is_obeyed_or_refused_with_its_holder),
		ram_test(regions_of_one_request_never_overlap),
		ram_test(the_hole_of_a_region_ends_where_another_of_the_request_begins),
		cmocka_unit_test(what_is_free_is_the_most_of_one_pool_that_the_wish_could_have),
		ram_test(an_amount_is_granted_until_the_pool_is_exhausted),
		ram_test(regions_of_one_request_share_an_amount),
		ram_test(a_refused_amount_does_not_say_that_more_is_free_than_is_wanted),
		ram_test(a_backend_that_cannot_place_gets_amounts_only),
		ram_test(a_backend_that_cannot_place_gets_no_address_either),
		ram_test(a_pool_that_the_host_has_not_is_an_invalid_wish),
		ram_test(a_refusal_names_at_most_sixteen_blockers_and_writes_no_grant),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
