/* Units that are one of a kind, as the store has them: devices, remote processors, interrupts, links. */
#include "store_board.h"

static void what_was_granted_is_read_back_and_seen_in_the_vector(void **state)
{
	struct box *b = *state;
	_clean_grant_ struct alloc_grant g = all_of(0), h = all_of(1), back = {0};
	struct alloc_view *v = alloc_view_new(&platform);
	struct phi_error e;

	furnish(b);
	assert_done(store_grant_read(b->s, STORE_READ, two, &back, &e), e);
	assert_same_grant(&back, &h);
	assert_done(store_grant_read(b->s, STORE_READ, one, &back, &e), e);
	assert_true(!back.links[0].alone && !back.links[1].alone); /* another has joined */
	back.links[0].alone = back.links[1].alone = true;
	assert_same_grant(&back, &g);
	assert_done(store_grant_read(b->s, STORE_READ, stopped, &back, &e), e);
	assert_true(back.n_memory == 0 && back.n_links == 0 && !back.has_virtual);

	assert_done(store_vector_read(b->s, STORE_READ, v, &e), e);
	for (unsigned i = 0; i < 2; i++) {
		const char *owner = i ? "two" : "one";

		assert_string_equal(v->devices[i].owner, owner);
		assert_string_equal(v->remote[i].owner, owner);
		assert_string_equal(v->virtual[i].owner, owner);
		assert_string_equal(v->links[i].link.name, i ? "l1" : "l0");
		assert_int_equal(v->links[i].link.protocol, i ? LINK_NETWORK : LINK_RAW);
		assert_int_equal(v->links[i].n_ends, 2);
		assert_string_equal(v->links[1].ends[i].owner, owner);
		assert_false(v->devices[i].quarantined || v->links[0].ends[i].quarantined);
	}
	assert_int_equal(v->n_links, 2);
	alloc_view_free(v);
}

static void note(void *ud, const char *id)
{
	strcat(ud, id);
}

static void a_quarantine_holds_all_of_one_and_none_of_the_other_and_ends_by_release(void **state)
{
	struct box *b = *state;
	struct alloc_view *v = alloc_view_new(&platform);
	_clean_grant_ struct alloc_grant back = {0};
	char ids[32] = "";
	struct phi_error e;

	furnish(b);
	assert_int_equal(store_grant_quarantined(b->s, two), 0);
	begin(b);
	assert_done(store_grant_quarantine(b->s, two, &e), e);
	commit(b);
	assert_int_equal(store_grant_quarantined(b->s, two), 2 + 2 + 1 + 1 + 2); /* CPUs, ranges, device, remote processor, ends */
	assert_int_equal(store_grant_quarantined(b->s, one), 0);
	assert_done(store_quarantined(b->s, STORE_READ, note, ids, &e), e);
	assert_string_equal(ids, "two");
	assert_done(store_vector_read(b->s, STORE_READ, v, &e), e);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(v->devices[i].quarantined, i);
		assert_int_equal(v->remote[i].quarantined, i);
		assert_int_equal(v->virtual[i].quarantined, i);
		assert_int_equal(v->links[0].ends[i].quarantined, i);
	}
	alloc_view_free(v);
	for (int n = 0; n < 2; n++) {
		begin(b);
		assert_done(store_grant_release(b->s, n ? one : two, &e), e);
		commit(b);
		v = alloc_view_new(&platform);
		assert_done(store_vector_read(b->s, STORE_READ, v, &e), e);
		assert_int_equal(v->n_links, n ? 0 : 2); /* a link lives as long as an end does */
		assert_string_equal(v->devices[0].owner, n ? "" : "one");
		assert_string_equal(v->devices[1].owner, "");
		alloc_view_free(v);
	}
	assert_done(store_grant_read(b->s, STORE_READ, one, &back, &e), e);
	assert_true(back.n_devices == 0 && back.n_remote == 0 && back.n_links == 0 && !back.has_virtual);
}

static void a_vector_of_another_platform_is_read_as_far_as_this_one_goes(void **state)
{
	static const char small[] = "{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0\"},\"memory\":[{\"name\":\"ddr\",\"kind\":\"host\",\"size\":\"1M\"}],"
				    "\"interrupts\":{\"controller\":\"gicv3\",\"base\":\"0x8000000\",\"virtual\":[{\"spi\":102},{\"spi\":200}]}}";
	struct box *b = *state;
	struct platform p = {0};
	struct alloc_view *v;
	struct phi_error e;
	char sql[200];

	furnish(b);
	store_close(PHI_TAKE(b->s));
	snprintf(sql, sizeof(sql), "INSERT INTO cpu_grants (cpu, row) VALUES (%d, 1), (70000, 1); INSERT INTO observed_cells VALUES ('sim', 'y', '', 'wrong', 0)",
		 PHI_CPUS_MAX);
	with_sql(b, sql);
	reopen(b);
	assert_done(platform_read(small, strlen(small), &p, &e), e);
	v = alloc_view_new(&p);
	assert_done(store_vector_read(b->s, STORE_READ, v, &e), e);
	assert_string_equal(v->cpus[0].owner, "one");
	assert_string_equal(v->virtual[0].owner, "two"); /* 102 to 105 meet 100 to 103 and 104 to 107: the later one is told */
	assert_string_equal(v->virtual[1].owner, "");
	assert_int_equal(v->n_links, 2);
	alloc_view_free(v);
	platform_free(&p);
}

static void more_in_the_database_than_a_struct_has_room_for_is_cut(void **state)
{
	struct box *b = *state;
	struct alloc_view *v = alloc_view_new(&platform);
	_clean_grant_ struct alloc_grant back = {0};
	struct phi_error e;

	furnish(b);
	store_close(PHI_TAKE(b->s));
	with_sql(b, "PRAGMA foreign_keys = ON;"
		    "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 199) INSERT INTO device_grants SELECT 'd' || i, 1, i, 'granted' FROM n;"
		    "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 199) INSERT INTO remote_grants SELECT 'd' || i, 1, i, 'granted' FROM n;"
		    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO memory_grants (row, pool, size) SELECT 1, 'ddr', 4096 FROM n;"
		    "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 31) INSERT INTO links SELECT 'm' || i, i, 64, 'raw', 0, "
		    "1 << 40 | i << 16, 4096, 0, 0 FROM n;"
		    "INSERT INTO link_ends SELECT name, 0, 1, slot, 'granted' FROM links WHERE name LIKE 'm%';"
		    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) INSERT INTO containers (id, incarnation, state, backend, spec, owner_uid, "
		    "owner_gid, keeper_by, boot_id, created_at) SELECT 'c' || i, 'c' || i, 'creating', 'sim', '{}', 0, 0, 'phid', '', '' FROM n;"
		    "INSERT INTO link_ends SELECT 'm2', row - 3, row, 0, 'granted' FROM containers WHERE id LIKE 'c%';");
	reopen(b);
	assert_done(store_grant_read(b->s, STORE_READ, 1, &back, &e), e);
	assert_int_equal(back.n_memory, PHI_MEMORY_REGIONS_MAX);
	assert_int_equal(back.n_devices, PHI_DEVICES_MAX);
	assert_int_equal(back.n_remote, PHI_REMOTE_MAX);
	assert_int_equal(back.n_links, PHI_LINKS_MAX);
	assert_done(store_vector_read(b->s, STORE_READ, v, &e), e);
	assert_int_equal(v->n_links, PHI_SLOTS);
	for (size_t i = 0; i < v->n_links; i++)
		assert_int_equal(v->links[i].n_ends, strcmp(v->links[i].link.name, "m2") == 0 ? PHI_LINK_PEERS_MAX : i < 2 ? 2 : 1);
	alloc_view_free(v);
}

/* Whoever held one is looked up anew, not carried on. */
static void the_vector_in_memory_goes_with_a_unit_that_is_given_or_released(void **state)
{
	struct box *b = *state;
	struct alloc_view *v;
	struct phi_error e;

	furnish(b);
	for (int kind = 0; kind < 4; kind++) {
		_clean_grant_ struct alloc_grant all = all_of(1), g = {.cpus = all.cpus};

		if (kind == 0) {
			for (size_t i = 0; i < all.n_links; i++)
				*alloc_grant_add_link(&g) = all.links[i];
		} else if (kind == 1) {
			alloc_grant_add_device(&g, all.devices[0]);
		} else if (kind == 2) {
			alloc_grant_add_remote(&g, all.remote[0]);
		} else {
			g.has_virtual = true;
			g.virtual_spi = all.virtual_spi;
		}
		begin(b);
		assert_done(store_vector(b->s, &platform, &v, &e), e);
		assert_done(store_grant_release(b->s, two, &e), e);
		assert_null(b->s->kept);
		assert_done(store_vector(b->s, &platform, &v, &e), e);
		assert_string_equal(v->cpus[2].owner, "");
		assert_done(store_grant_insert(b->s, two, &g, &e), e);
		assert_null(b->s->kept);
		assert_done(store_vector(b->s, &platform, &v, &e), e);
		assert_string_equal(v->cpus[2].owner, "two");
		commit(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(what_was_granted_is_read_back_and_seen_in_the_vector),
		store_test(a_quarantine_holds_all_of_one_and_none_of_the_other_and_ends_by_release),
		store_test(a_vector_of_another_platform_is_read_as_far_as_this_one_goes),
		store_test(more_in_the_database_than_a_struct_has_room_for_is_cut),
		store_test(the_vector_in_memory_goes_with_a_unit_that_is_given_or_released),
	};

	return cmocka_run_group_tests(tests, with_board, without_board);
}
