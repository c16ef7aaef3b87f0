/* What the database refuses by its schema, whatever the code above does. */
#include "store_unit.h"

static void a_cpu_has_one_owner_whatever_the_code_above_does(void **state)
{
	struct box *b = *state;
	struct phi_error e;
	int64_t one, two;

	reopen(b);
	begin(b);
	one = insert(b, "one");
	two = insert(b, "two");
	assert_done(grant(b, one, grant_of(6, "", 0, 0, 0), &e), e);
	for (unsigned c = 0; c < 8; c++) {
		int r;

		assert_done(store_save(b->s, &e), e);
		r = grant(b, two, grant_of(1u << c, "", 0, 0, 0), &e);
		assert_int_equal(r < 0, c == 1 || c == 2);
		if (r < 0)
			assert_int_equal(e.code, PHI_INTERNAL);
		store_rollback_to(b->s);
	}
	assert_refused(grant(b, one, grant_of(2, "", 0, 0, 0), &e), e, PHI_INTERNAL, "");
	store_rollback(b->s);
}

static void overlapping_ranges_are_refused_unless_their_colours_are_disjoint(void **state)
{
	struct box *b = *state;
	struct phi_error e;
	int64_t one, two;

	reopen(b);
	begin(b);
	pools(b);
	one = insert(b, "one");
	two = insert(b, "two");
	assert_done(grant(b, one, grant_of(0, "ram", 0x14000, 0x3000, 5), &e), e);
	for (uint64_t page = 0x10; page < 0x1a; page++)
		for (uint64_t n = 1; n < 5; n++)
			for (int mask = 0; mask < 4; mask++) {
				static const uint64_t masks[] = {UINT64_MAX, 1, 10, UINT64_C(1) << 63};
				int r;

				assert_done(store_save(b->s, &e), e);
				r = grant(b, two, grant_of(0, "ram", page << 12, n << 12, masks[mask]), &e);
				assert_int_equal(r < 0, page < 0x17 && page + n > 0x14 && (masks[mask] & 5) != 0);
				if (r < 0)
					assert_contains(e.detail, "memory range has an owner");
				store_rollback_to(b->s);
			}
	/* Two regions of one container neither. */
	_clean_grant_ struct alloc_grant both = grant_of(0, "ram", 0x20000, 0x2000, UINT64_MAX);

	alloc_grant_add_memory(&both);
	both.memory[1] = both.memory[0];
	both.memory[1].base = 0x21000;
	assert_refused(store_grant_insert(b->s, two, &both, &e), e, PHI_INTERNAL, "");
	store_rollback(b->s);
}

/* Against the rule itself: hundreds of ranges, with all colours and with some. */
static void any_range_is_refused_that_meets_another_in_a_colour(void **state)
{
	enum { FIRST = 0x10, PAGES = 256, TRIES = 3000 };
	static const uint64_t masks[] = {UINT64_MAX, UINT64_MAX, 1, 2, 3, 6, UINT64_C(1) << 63};
	struct box *b = *state;
	unsigned taken = 0, refused = 0;
	uint64_t pages[PAGES] = {0}; /* the colours that have an owner */
	struct phi_error e;
	int64_t row;

	srand(5);
	reopen(b);
	begin(b);
	pools(b);
	row = insert(b, "one");
	for (int i = 0; i < TRIES; i++) {
		uint64_t colors = masks[(size_t)rand() % PHI_COUNT(masks)];
		unsigned n = rand() % 8 == 0 ? 16 : (unsigned)rand() % 3 + 1, at = (unsigned)rand() % (PAGES - n + 1);
		bool free = true;
		int r;

		for (unsigned k = at; k < at + n; k++)
			free = free && (pages[k] & colors) == 0;
		assert_done(store_save(b->s, &e), e);
		r = grant(b, row, grant_of(0, "ram", (uint64_t)(FIRST + at) << 12, (uint64_t)n << 12, colors), &e);
		assert_int_equal(r == 0, free);
		if (r < 0)
			store_rollback_to(b->s);
		else
			store_release(b->s);
		for (unsigned k = at; free && k < at + n; k++)
			pages[k] |= colors;
		taken += free;
		refused += !free;
	}
	assert_true(taken > 100 && refused > 1000);
	store_rollback(b->s);
}

static void an_amount_beyond_its_pool_is_refused(void **state)
{
	struct box *b = *state;
	struct phi_error e;
	int64_t row;

	reopen(b);
	begin(b);
	pools(b);
	row = insert(b, "one");
	assert_refused(grant(b, row, grant_of(0, "ddr", 0, 65537, 0), &e), e, PHI_INTERNAL, "");
	assert_contains(e.detail, "memory pool is exhausted");
	for (int i = 0; i < 4; i++)
		assert_done(grant(b, row, grant_of(0, "ddr", 0, 16384, 0), &e), e);
	assert_refused(grant(b, row, grant_of(0, "ddr", 0, 4096, 0), &e), e, PHI_INTERNAL, "");
	assert_refused(grant(b, row, grant_of(0, "nobody", 0, 4096, 0), &e), e, PHI_INTERNAL, "");
	assert_done(store_grant_release(b->s, row, &e), e);
	assert_done(grant(b, row, grant_of(0, "ddr", 0, 65536, 0), &e), e);
	store_rollback(b->s);
}

static void a_container_with_grants_cannot_become_stopped_or_be_deleted(void **state)
{
	static const struct {
		uint64_t cpus, base, size;
	} rows[] = {{1, 0, 0}, {0, 0x10000, 4096}, {0, 0, 4096}, {4, 0x20000, 4096}};
	struct box *b = *state;

	reopen(b);
	begin(b);
	pools(b);
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		_clean_container_ struct container c = draft(i == 0 ? "a" : i == 1 ? "b" : i == 2 ? "c" : "d");
		struct phi_error e;

		assert_done(store_container_insert(b->s, &c, &e), e);
		assert_done(grant(b, c.row, grant_of(rows[i].cpus, rows[i].base || !rows[i].size ? "ram" : "ddr", rows[i].base, rows[i].size, 1), &e), e);
		c.state = STATE_STOPPED;
		assert_refused(store_container_update(b->s, &c, &e), e, PHI_INTERNAL, "");
		assert_contains(e.detail, "a stopped container holds units");
		assert_refused(store_container_delete(b->s, c.row, &e), e, PHI_INTERNAL, "");
		assert_done(store_grant_quarantine(b->s, c.row, &e), e);
		assert_true(store_container_update(b->s, &c, &e) < 0); /* quarantined is held as well */
		assert_done(store_grant_release(b->s, c.row, &e), e);
		assert_done(store_container_update(b->s, &c, &e), e);
		assert_done(store_container_delete(b->s, c.row, &e), e);
	}
	store_rollback(b->s);
}

static void a_stopped_container_cannot_be_granted_anything(void **state)
{
	struct box *b = *state;
	_clean_container_ struct container c = draft("one");
	struct phi_error e;

	reopen(b);
	begin(b);
	pools(b);
	assert_done(store_container_insert(b->s, &c, &e), e);
	c.state = STATE_STOPPED;
	assert_done(store_container_update(b->s, &c, &e), e);
	assert_refused(grant(b, c.row, grant_of(1, "", 0, 0, 0), &e), e, PHI_INTERNAL, "");
	assert_refused(grant(b, c.row, grant_of(0, "ram", 0x10000, 4096, 1), &e), e, PHI_INTERNAL, "");
	assert_refused(grant(b, c.row, grant_of(0, "ddr", 0, 4096, 0), &e), e, PHI_INTERNAL, "");
	store_rollback(b->s);
}

static void a_grant_does_not_change_and_needs_a_container(void **state)
{
	static const char *const bad[] = {
		"UPDATE cpu_grants SET cpu = 9",
		"UPDATE cpu_grants SET row = 2",
		"UPDATE memory_grants SET base = 8192",
		"UPDATE memory_grants SET size = 8192",
		"UPDATE memory_grants SET pool = 'x'",
		"UPDATE memory_grants SET colors = 1",
		"UPDATE memory_grants SET row = 2",
		"UPDATE cpu_grants SET state = 'free'",
		"INSERT INTO cpu_grants (cpu, row) VALUES (-1, 1)",
		"INSERT INTO cpu_grants (cpu, row) VALUES ('x', 1)",
		"INSERT INTO cpu_grants (cpu, row) VALUES (9, 99)",
		"INSERT INTO memory_grants (row, pool, base, size) VALUES (1, 'ram', -4096, 4096)",
		"INSERT INTO memory_grants (row, pool, base, size) VALUES (1, 'ram', 4611686018427387904, 4096)",
		"INSERT INTO memory_grants (row, pool, base, size) VALUES (1, 'ram', 0, 0)",
		"INSERT INTO memory_grants (row, pool, size) VALUES (1, 'ddr', -4096)",
		"UPDATE containers SET state = 'asleep'",
		"UPDATE containers SET op = 'delete'",
		"UPDATE containers SET id = 'two' WHERE row = 1",
		"DELETE FROM containers WHERE row = 1",
	};
	struct box *b = *state;
	struct phi_error e;
	char path[100];
	sqlite3 *db;
	int64_t one;

	reopen(b);
	begin(b);
	pools(b);
	one = insert(b, "one");
	insert(b, "two");
	assert_int_equal(one, 1);
	assert_done(grant(b, one, grant_of(1, "ram", 0x10000, 4096, UINT64_MAX), &e), e);
	commit(b);
	snprintf(path, sizeof(path), "%s/phid.db", b->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_exec(db, "PRAGMA foreign_keys = ON", NULL, NULL, NULL);
	for (size_t i = 0; i < PHI_COUNT(bad); i++)
		if (sqlite3_exec(db, bad[i], NULL, NULL, NULL) == SQLITE_OK)
			fail_msg("%s was accepted", bad[i]);
	sqlite3_close(db);
}

static void two_containers_share_neither_id_nor_incarnation_and_a_row_is_never_used_again(void **state)
{
	struct box *b = *state;
	_clean_container_ struct container same_id = draft("one"), same_incarnation = draft("two");
	struct container old = {0};
	struct phi_error e;
	int64_t row;

	reopen(b);
	begin(b);
	row = insert(b, "one");
	assert_refused(store_container_insert(b->s, &same_id, &e), e, PHI_INTERNAL, "");
	assert_done(store_container_by_id(b->s, STORE_WRITE, "one", &old, &e), e);
	snprintf(same_incarnation.incarnation, sizeof(same_incarnation.incarnation), "%s", old.incarnation);
	container_done(&old);
	assert_refused(store_container_insert(b->s, &same_incarnation, &e), e, PHI_INTERNAL, "");
	assert_done(store_container_delete(b->s, row, &e), e);
	assert_true(insert(b, "one") > row);
	commit(b);
	reopen(b);
	begin(b);
	assert_done(store_container_delete(b->s, row + 1, &e), e);
	assert_true(insert(b, "one") > row + 1);
	store_rollback(b->s);
}

static void a_device_has_one_owner_and_goes_with_its_container(void **state)
{
	struct box *b = *state;
	_clean_grant_ struct alloc_grant g = {0}, again = {0}, read = {0};
	struct container c = {0};
	struct phi_error e;
	int64_t one, two;

	alloc_grant_add_device(&g, "uart1");
	alloc_grant_add_device(&g, "can0");
	alloc_grant_add_device(&again, "can0");
	reopen(b);
	begin(b);
	one = insert(b, "one");
	two = insert(b, "two");
	assert_done(store_grant_insert(b->s, one, &g, &e), e);
	assert_refused(store_grant_insert(b->s, two, &again, &e), e, PHI_INTERNAL, "");
	assert_done(store_grant_read(b->s, STORE_WRITE, one, &read, &e), e);
	assert_int_equal(read.n_devices, 2);
	assert_string_equal(read.devices[0], "uart1"); /* in the order of the wish */
	assert_done(store_container_by_row(b->s, STORE_WRITE, one, &c, &e), e);
	c.state = STATE_STOPPED;
	assert_true(store_container_update(b->s, &c, &e) < 0);
	assert_contains(e.detail, "holds devices");
	assert_done(store_grant_quarantine(b->s, one, &e), e);
	assert_done(store_grant_release(b->s, one, &e), e);
	assert_done(store_container_update(b->s, &c, &e), e);
	assert_true(store_grant_insert(b->s, one, &again, &e) < 0);
	assert_done(store_grant_insert(b->s, two, &again, &e), e);
	container_done(&c);
	store_rollback(b->s);
}

static void a_container_is_read_back_as_it_was_written(void **state)
{
	struct box *b = *state;
	_clean_container_ struct container c = draft("one"), back = {0}, by_row = {0}, by_incarnation = {0}, none = {0};
	struct phi_error e;

	reopen(b);
	begin(b);
	c.op_key = strdup("key");
	c.bundle = strdup("/b");
	c.oci_id = strdup("oci");
	c.oci_root = strdup("/run/runc");
	c.keeper_by_phid = true;
	c.owner_uid = 4294967294u;
	assert_done(store_container_insert(b->s, &c, &e), e);
	assert_int_equal(c.generation, 1);
	c.state = STATE_RUNNING;
	c.op = VERB_KILL;
	c.op_signal = 15;
	c.cell = strdup("{\"pid\":1}");
	c.keeper_pid = 4242;
	c.keeper_start = 9007199254740993;
	store_now(c.started_at);
	assert_done(store_container_update(b->s, &c, &e), e);
	assert_int_equal(c.generation, 2);
	commit(b);
	reopen(b);
	assert_done(store_container_by_id(b->s, STORE_READ, "one", &back, &e), e);
	assert_true(back.row == c.row && back.generation == 2 && back.state == STATE_RUNNING && back.op == VERB_KILL && back.op_signal == 15);
	assert_true(back.op_uid == 1000 && back.owner_uid == 4294967294u && back.owner_gid == 100 && back.keeper_by_phid);
	assert_true(back.keeper_pid == 4242 && back.keeper_start == 9007199254740993);
	assert_string_equal(back.op_key, "key");
	assert_string_equal(back.backend, "sim");
	assert_string_equal(back.spec, "{}");
	assert_string_equal(back.payload, "[]");
	assert_string_equal(back.cell, "{\"pid\":1}");
	assert_null(back.exit);
	assert_string_equal(back.bundle, "/b");
	assert_string_equal(back.oci_id, "oci");
	assert_string_equal(back.oci_root, "/run/runc");
	assert_string_equal(back.annotations, "{\"a\":\"b\"}");
	assert_string_equal(back.boot_id, c.boot_id);
	assert_string_equal(back.created_at, c.created_at);
	assert_string_equal(back.started_at, c.started_at);
	assert_string_equal(back.stopped_at, "");
	assert_done(store_container_by_row(b->s, STORE_READ, c.row, &by_row, &e), e);
	assert_string_equal(by_row.id, "one");
	assert_done(store_container_by_incarnation(b->s, STORE_READ, c.incarnation, &by_incarnation, &e), e);
	assert_string_equal(by_incarnation.id, "one");
	assert_int_equal(store_container_by_id(b->s, STORE_READ, "One", &none, &e), -ENOENT);
	assert_int_equal(e.code, PHI_NOT_FOUND);
	assert_contains(e.detail, "does not exist"); /* containerd looks for these words */
	assert_int_equal(store_container_by_row(b->s, STORE_READ, 99, &none, &e), -ENOENT);
	assert_int_equal(store_container_by_incarnation(b->s, STORE_READ, "", &none, &e), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(a_cpu_has_one_owner_whatever_the_code_above_does),
		store_test(overlapping_ranges_are_refused_unless_their_colours_are_disjoint),
		store_test(any_range_is_refused_that_meets_another_in_a_colour),
		store_test(an_amount_beyond_its_pool_is_refused),
		store_test(a_container_with_grants_cannot_become_stopped_or_be_deleted),
		store_test(a_stopped_container_cannot_be_granted_anything),
		store_test(a_grant_does_not_change_and_needs_a_container),
		store_test(two_containers_share_neither_id_nor_incarnation_and_a_row_is_never_used_again),
		store_test(a_device_has_one_owner_and_goes_with_its_container),
		store_test(a_container_is_read_back_as_it_was_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
