/* The database: what its schema refuses, batches, and files that cannot be used. */
#include "unit.h"

#include "platform.h"
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sqlite3.h>
#include <sys/stat.h>

struct box {
	char dir[64];
	struct store *s;
};

static int setup(void **state)
{
	struct box *b = calloc(1, sizeof(*b));

	if (b == NULL)
		return -1;
	snprintf(b->dir, sizeof(b->dir), "/tmp/phid-unit-store-XXXXXX");
	if (mkdtemp(b->dir) == NULL)
		return -1;
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct box *b = *state;
	_clean_closedir_ DIR *d = opendir(b->dir);

	store_close(b->s);
	for (struct dirent *f; d != NULL && (f = readdir(d)) != NULL;)
		if (f->d_name[0] != '.')
			unlinkat(dirfd(d), f->d_name, 0);
	rmdir(b->dir);
	free(b);
	return 0;
}

/* Opens the store of the box (closing it before, if it is open), and answers its note. */
static const char *reopen(struct box *b)
{
	const char *note;
	struct phi_error e;

	store_close(PHI_TAKE(b->s));
	assert_done(store_open(b->dir, &b->s, &note, &e), e);
	return note;
}

static void begin(struct box *b)
{
	struct phi_error e;

	assert_done(store_begin(b->s, &e), e);
}

static void commit(struct box *b)
{
	struct pollfd p = {store_commit_fd(b->s), POLLIN, 0};
	struct phi_error e;

	store_commit_start(b->s);
	assert_int_equal(poll(&p, 1, 30000), 1);
	assert_done(store_commit_result(b->s, &e), e);
	assert_int_equal(poll(&p, 1, 0), 0); /* once for each commit */
}

static unsigned files_like(const struct box *b, const char *part)
{
	_clean_closedir_ DIR *d = opendir(b->dir);
	unsigned n = 0;

	assert_non_null(d);
	for (struct dirent *f; (f = readdir(d)) != NULL;)
		n += strstr(f->d_name, part) != NULL && strstr(f->d_name, "-wal") == NULL && strstr(f->d_name, "-shm") == NULL;
	return n;
}

static void with_sql(const struct box *b, const char *sql)
{
	char path[100];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/phid.db", b->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	sqlite3_close(db);
}

static struct container draft(const char *id)
{
	struct container c = {.state = STATE_CREATING, .op = VERB_CREATE, .op_uid = 1000, .owner_uid = 1000, .owner_gid = 100};
	static unsigned serial;

	snprintf(c.id, sizeof(c.id), "%s", id);
	snprintf(c.incarnation, sizeof(c.incarnation), "%08x-0000-4000-8000-000000000000", ++serial);
	snprintf(c.backend, sizeof(c.backend), "sim");
	snprintf(c.boot_id, sizeof(c.boot_id), "11111111-1111-4111-8111-111111111111");
	c.spec = strdup("{}");
	c.payload = strdup("[]");
	c.annotations = strdup("{\"a\":\"b\"}");
	return c;
}

/* Inserts a container in the batch under way; answers its row. */
static int64_t insert(struct box *b, const char *id)
{
	_clean_container_ struct container c = draft(id);
	struct phi_error e;

	assert_done(store_container_insert(b->s, &c, &e), e);
	assert_true(c.row > 0);
	return c.row;
}

static struct alloc_grant grant_of(uint64_t cpus, const char *pool, uint64_t base, uint64_t size, uint64_t colors)
{
	struct alloc_grant g = {.cpus = {.bits = {cpus}}, .n_memory = size > 0};

	snprintf(g.memory[0].pool, sizeof(g.memory[0].pool), "%s", pool);
	g.memory[0].has_base = base != 0;
	g.memory[0].base = base;
	g.memory[0].size = size;
	g.memory[0].colors = colors;
	return g;
}

static void pools(struct box *b)
{
	static const char text[] = "{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-63\"},\"memory\":["
				   "{\"name\":\"ram\",\"kind\":\"carveout\",\"base\":\"0x10000\",\"size\":\"1M\"},"
				   "{\"name\":\"ddr\",\"kind\":\"host\",\"size\":\"64K\"}]}";
	struct platform p = {0};
	struct phi_error e;

	assert_done(platform_read(text, strlen(text), &p, &e), e);
	assert_done(store_pools_write(b->s, &p, &e), e);
	assert_done(store_pools_write(b->s, &p, &e), e); /* rewritten, not doubled */
	platform_free(&p);
}

static int grant(struct box *b, int64_t row, struct alloc_grant g, struct phi_error *e)
{
	return store_grant_insert(b->s, row, &g, e);
}

static void a_new_directory_gets_a_new_database(void **state)
{
	struct box *b = *state;

	assert_null(reopen(b));
	assert_int_equal(store_containers_count(b->s, STORE_READ), 0);
	assert_int_equal(store_generation(b->s, STORE_READ), 1);
	assert_int_equal(store_events_last(b->s, STORE_READ), 0);
	assert_null(reopen(b));
	assert_int_equal(files_like(b, "phid.db"), 1);
}

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
	struct alloc_grant both = grant_of(0, "ram", 0x20000, 0x2000, UINT64_MAX);

	both.n_memory = 2;
	both.memory[1] = both.memory[0];
	both.memory[1].base = 0x21000;
	assert_refused(store_grant_insert(b->s, two, &both, &e), e, PHI_INTERNAL, "");
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

static void note_id(void *ud, const struct container *c)
{
	strcat(ud, c->id);
	strcat(ud, " ");
}

static void containers_are_listed_in_the_order_of_their_ids_page_by_page(void **state)
{
	static const char *const ids[] = {"b", "a", "B", "c.1", "a~00000000", "10", "9"};
	static const struct {
		const char *state, *backend, *after;
		unsigned limit;
		const char *want;
	} rows[] = {
		{NULL, NULL, NULL, 100, "10 9 B a a~00000000 b c.1 "},
		{NULL, NULL, "a", 2, "a~00000000 b "},
		{NULL, NULL, "c.1", 2, ""},
		{NULL, NULL, NULL, 1, "10 "},
		{"creating", "sim", NULL, 100, "10 9 B a a~00000000 b c.1 "},
		{"running", NULL, NULL, 100, ""},
		{NULL, "qemu", NULL, 100, ""},
	};
	struct box *b = *state;

	reopen(b);
	begin(b);
	for (size_t i = 0; i < PHI_COUNT(ids); i++)
		insert(b, ids[i]);
	commit(b);
	assert_int_equal(store_containers_count(b->s, STORE_READ), PHI_COUNT(ids));
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		char list[200] = "";
		struct phi_error e;

		assert_done(store_containers(b->s, STORE_READ, rows[i].state, rows[i].backend, rows[i].after, rows[i].limit, note_id, list, &e), e);
		assert_string_equal(list, rows[i].want);
	}
}

static void a_batch_is_seen_by_readers_only_once_it_is_committed(void **state)
{
	struct box *b = *state;

	reopen(b);
	begin(b);
	insert(b, "one");
	assert_int_equal(store_containers_count(b->s, STORE_WRITE), 1);
	assert_int_equal(store_containers_count(b->s, STORE_READ), 0);
	commit(b);
	assert_int_equal(store_containers_count(b->s, STORE_READ), 1);
	for (int i = 0; i < 20; i++) {
		char id[20];

		snprintf(id, sizeof(id), "c%d", i);
		begin(b);
		insert(b, id);
		commit(b);
		assert_int_equal(store_containers_count(b->s, STORE_READ), i + 2);
	}
}

static void one_mutation_is_taken_back_alone_and_the_others_of_its_batch_stay(void **state)
{
	struct box *b = *state;
	char list[100] = "";
	struct phi_error e;

	reopen(b);
	begin(b);
	assert_done(store_save(b->s, &e), e);
	insert(b, "a");
	store_release(b->s);
	assert_done(store_save(b->s, &e), e);
	insert(b, "b");
	assert_true(grant(b, 99, grant_of(1, "", 0, 0, 0), &e) < 0); /* its second half is refused */
	store_rollback_to(b->s);
	assert_done(store_save(b->s, &e), e);
	insert(b, "c");
	store_release(b->s);
	commit(b);
	reopen(b);
	assert_done(store_containers(b->s, STORE_READ, NULL, NULL, NULL, 9, note_id, list, &e), e);
	assert_string_equal(list, "a c ");
}

static void a_batch_that_is_rolled_back_leaves_nothing_and_the_next_one_goes_on(void **state)
{
	struct box *b = *state;
	int64_t generation;
	struct phi_error e;

	reopen(b);
	generation = store_generation(b->s, STORE_READ);
	begin(b);
	assert_done(grant(b, insert(b, "one"), grant_of(1, "", 0, 0, 0), &e), e);
	store_rollback(b->s);
	assert_int_equal(store_containers_count(b->s, STORE_WRITE), 0);
	assert_int_equal(store_generation(b->s, STORE_WRITE), generation);
	begin(b);
	insert(b, "two");
	commit(b);
	assert_int_equal(store_containers_count(b->s, STORE_READ), 1);
}

static void the_vector_is_who_owns_what_and_its_generation_counts_changes(void **state)
{
	struct box *b = *state;
	struct alloc_grant g = grant_of(0x8000000000000005, "ram", 0x10000, 4096, UINT64_C(1) << 63), back;
	struct platform p = {0};
	struct alloc_view *v;
	struct phi_error e;
	int64_t row, before;

	reopen(b);
	begin(b);
	pools(b);
	row = insert(b, "one");
	before = store_generation(b->s, STORE_WRITE);
	g.n_memory = 2;
	g.memory[1] = (struct alloc_memory){.pool = "ddr", .size = 8192, .colors = UINT64_MAX};
	assert_done(store_grant_insert(b->s, row, &g, &e), e);
	assert_true(store_generation(b->s, STORE_WRITE) > before);
	assert_done(store_observed_insert(b->s, "jailhouse", "linux", NULL, "7-8", &e), e);
	assert_done(store_observed_insert(b->s, "jailhouse", "linux", "x", "8", &e), e); /* seen again */
	assert_done(store_observed_insert(b->s, "sim", "phid-1", "x", "0", &e), e);
	commit(b);
	reopen(b);
	assert_done(store_grant_read(b->s, STORE_READ, row, &back, &e), e);
	assert_memory_equal(&back.cpus, &g.cpus, sizeof(g.cpus));
	assert_int_equal(back.n_memory, 2);
	assert_true(back.memory[0].has_base && back.memory[0].base == 0x10000 && back.memory[0].colors == UINT64_C(1) << 63);
	assert_true(!back.memory[1].has_base && back.memory[1].size == 8192 && back.memory[1].colors == UINT64_MAX);
	cpuset_parse("0-63", "", &p.cpus.ids, NULL);
	v = alloc_view_new(&p);
	assert_done(store_vector_read(b->s, STORE_READ, v, &e), e);
	for (unsigned c = 0; c < 64; c++)
		assert_string_equal(v->cpus[c].owner, cpuset_has(&g.cpus, c) ? "one" : c == 8 ? "jailhouse:linux" : "");
	assert_true(v->cpus[8].observed && v->cpus[0].observed && !v->cpus[7].observed && !v->cpus[0].quarantined);
	assert_int_equal(v->n_ranges, 2);
	assert_string_equal(v->ranges[0].owner, "one");
	alloc_view_free(v);
	begin(b);
	assert_done(store_grant_quarantine(b->s, row, &e), e);
	assert_done(store_observed_clear(b->s, "jailhouse", &e), e);
	commit(b);
	v = alloc_view_new(&p);
	assert_done(store_vector_read(b->s, STORE_READ, v, &e), e);
	assert_true(v->cpus[0].quarantined && v->ranges[0].quarantined && v->ranges[1].quarantined);
	assert_string_equal(v->cpus[8].owner, "");
	alloc_view_free(v);
	before = store_generation(b->s, STORE_READ);
	begin(b);
	assert_done(store_grant_release(b->s, row, &e), e);
	commit(b);
	assert_true(store_generation(b->s, STORE_READ) > before);
	assert_done(store_grant_read(b->s, STORE_READ, row, &back, &e), e);
	assert_true(cpuset_count(&back.cpus) == 0 && back.n_memory == 0);
}

struct seen {
	int64_t first, last;
	unsigned n;
};

static void note_event(void *ud, const struct event *ev)
{
	struct seen *s = ud;

	if (s->n++ == 0)
		s->first = ev->seq;
	else
		assert_int_equal(ev->seq, s->last + 1);
	s->last = ev->seq;
	assert_true(ev->detail[0] == '{');
}

static void events_are_numbered_without_gaps_and_the_forgotten_are_named(void **state)
{
	enum { KEPT = 20000, MORE = 5 };
	struct box *b = *state;
	struct seen s = {0};
	struct phi_error e;

	reopen(b);
	assert_done(store_events(b->s, 0, 10, note_event, &s, &e), e);
	assert_int_equal(s.n, 0);
	begin(b);
	for (int i = 0; i < KEPT; i++)
		assert_int_equal(store_event_insert(b->s, "t", i % 2 ? "c" : NULL, NULL, i % 3 ? NULL : "{\"a\":1}", NULL), 0);
	commit(b);
	assert_done(store_events(b->s, 0, 3, note_event, &s, &e), e);
	assert_true(s.n == 3 && s.first == 1);
	begin(b);
	for (int i = 0; i < MORE; i++)
		assert_done(store_event_insert(b->s, "t", NULL, NULL, NULL, &e), e);
	commit(b);
	assert_int_equal(store_events_last(b->s, STORE_READ), KEPT + MORE);
	assert_int_equal(store_events(b->s, MORE - 1, 10, note_event, &s, &e), -ENOENT);
	assert_int_equal(e.code, PHI_GONE);
	s = (struct seen){0};
	assert_done(store_events(b->s, MORE, KEPT * 2, note_event, &s, &e), e);
	assert_true(s.n == KEPT && s.first == MORE + 1 && s.last == KEPT + MORE);
	s = (struct seen){0};
	assert_done(store_events(b->s, KEPT + MORE, 10, note_event, &s, &e), e);
	assert_int_equal(s.n, 0);
}

static void a_key_has_one_request_and_one_outcome_for_each_user(void **state)
{
	struct box *b = *state;
	struct idempotency k = {0};
	struct phi_error e;

	reopen(b);
	begin(b);
	assert_int_equal(store_key_get(b->s, STORE_WRITE, 1000, "k", &k, &e), -ENOENT);
	assert_done(store_key_insert(b->s, 1000, "k", "POST /a", "inc", &e), e);
	assert_done(store_key_insert(b->s, 1000, "k", "POST /b", "other", &e), e); /* noted already */
	assert_done(store_key_insert(b->s, 1001, "k", "POST /c", NULL, &e), e);
	assert_done(store_key_get(b->s, STORE_WRITE, 1000, "k", &k, &e), e);
	assert_string_equal(k.request, "POST /a");
	assert_string_equal(k.incarnation, "inc");
	assert_int_equal(k.status, 0);
	assert_null(k.problem);
	assert_done(store_key_outcome(b->s, 1000, "k", 409, "{}", &e), e);
	assert_done(store_key_outcome(b->s, 1000, NULL, 409, "{}", &e), e);
	commit(b);
	reopen(b);
	assert_done(store_key_get(b->s, STORE_READ, 1000, "k", &k, &e), e);
	assert_int_equal(k.status, 409);
	assert_string_equal(k.problem, "{}");
	free(k.problem);
	assert_done(store_key_get(b->s, STORE_READ, 1001, "k", &k, &e), e);
	assert_int_equal(k.status, 0);
	store_close(PHI_TAKE(b->s));
	with_sql(b, "UPDATE idempotency SET at = at - 86500 WHERE uid = 1000");
	reopen(b);
	begin(b);
	assert_done(store_keys_prune(b->s, &e), e);
	commit(b);
	assert_int_equal(store_key_get(b->s, STORE_READ, 1000, "k", &k, &e), -ENOENT);
	assert_done(store_key_get(b->s, STORE_READ, 1001, "k", &k, &e), e);
}

/* A file in which something is, to be told from a fresh one; without a log that could mend it. */
static void fill(struct box *b)
{
	assert_null(reopen(b));
	begin(b);
	insert(b, "one");
	commit(b);
	store_close(PHI_TAKE(b->s));
	with_sql(b, "PRAGMA wal_checkpoint(TRUNCATE)");
}

static void overwrite(const struct box *b, off_t at, size_t n, int byte)
{
	char path[100], junk[4096];
	_clean_close_ int fd = -1;

	snprintf(path, sizeof(path), "%s/phid.db", b->dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	memset(junk, byte, sizeof(junk));
	for (; n > 0; n -= n < sizeof(junk) ? n : sizeof(junk), at += (off_t)sizeof(junk))
		assert_true(pwrite(fd, junk, n < sizeof(junk) ? n : sizeof(junk), at) > 0);
}

static void a_damaged_file_is_set_aside_with_a_note_and_a_fresh_one_begun(void **state)
{
	static const struct {
		off_t at;
		size_t n;
	} rows[] = {{0, 16}, {0, 4096}, {4096, 4096}, {100, 40000}};
	struct box *b = *state;

	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		const char *note;

		fill(b);
		overwrite(b, rows[i].at, rows[i].n, 0xa5);
		note = reopen(b);
		assert_non_null(note);
		assert_contains(note, "damaged");
		assert_int_equal(store_containers_count(b->s, STORE_READ), 0);
		assert_true(files_like(b, "phid.db.damaged-") >= 1);
		assert_null(reopen(b)); /* only once */
		store_close(PHI_TAKE(b->s));
		with_sql(b, "DELETE FROM containers");
	}
}

static void damaged_files_of_one_second_do_not_replace_each_other(void **state)
{
	struct box *b = *state;

	for (unsigned i = 1; i <= 4; i++) {
		fill(b);
		overwrite(b, 0, 4096, (int)i);
		assert_non_null(reopen(b));
		assert_int_equal(files_like(b, "phid.db.damaged-"), i);
	}
}

static void a_file_with_a_newer_schema_is_set_aside_whole(void **state)
{
	struct box *b = *state;
	const char *note;
	char path[400] = "";
	_clean_closedir_ DIR *d = NULL;

	fill(b);
	with_sql(b, "PRAGMA user_version = 99");
	note = reopen(b);
	assert_non_null(note);
	assert_contains(note, "newer");
	assert_int_equal(store_containers_count(b->s, STORE_READ), 0);
	assert_int_equal(files_like(b, "phid.db.newer-"), 1);
	assert_int_equal(files_like(b, "phid.db.damaged-"), 0);
	d = opendir(b->dir);
	for (struct dirent *f; (f = readdir(d)) != NULL;)
		if (strncmp(f->d_name, "phid.db.newer-", 14) == 0 && strchr(f->d_name + 14, '-') == NULL)
			snprintf(path, sizeof(path), "%s/%s", b->dir, f->d_name);
	sqlite3 *db;
	sqlite3_stmt *st;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT id FROM containers", -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	assert_string_equal((const char *)sqlite3_column_text(st, 0), "one");
	sqlite3_finalize(st);
	sqlite3_close(db);
}

static void a_database_of_another_program_is_set_aside(void **state)
{
	struct box *b = *state;

	fill(b);
	with_sql(b, "PRAGMA application_id = 1");
	assert_non_null(reopen(b));
	assert_int_equal(files_like(b, "phid.db.damaged-"), 1);
}

static void a_whole_file_that_somebody_else_holds_is_not_set_aside(void **state)
{
	struct box *b = *state;
	char path[100];
	sqlite3 *db;
	const char *note = NULL;
	struct phi_error e = {0};
	struct store *s = NULL;
	int r;

	fill(b);
	snprintf(path, sizeof(path), "%s/phid.db", b->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT", NULL, NULL, NULL), SQLITE_OK);
	r = store_open(b->dir, &s, &note, &e);
	store_close(s);
	sqlite3_close(db);
	assert_int_equal(files_like(b, "phid.db.damaged-"), 0);
	assert_true(r < 0);
	assert_int_equal(e.code, PHI_STORAGE);
	assert_null(reopen(b));
	assert_int_equal(store_containers_count(b->s, STORE_READ), 1);
}

static void a_directory_that_is_not_there_is_an_error_and_leaks_nothing(void **state)
{
	struct box *b = *state;
	char dir[100];
	const char *note;
	struct store *s = NULL;
	struct phi_error e;

	snprintf(dir, sizeof(dir), "%s/nowhere", b->dir);
	assert_refused(store_open(dir, &s, &note, &e), e, PHI_STORAGE, "");
	assert_null(s);
	assert_null(note);
}

static void what_was_committed_is_there_also_without_a_clean_end(void **state)
{
	struct box *b = *state;
	char path[200], copy[200], command[500];
	struct box other = {.dir = ""};

	reopen(b);
	begin(b);
	insert(b, "one");
	commit(b);
	begin(b);
	insert(b, "two"); /* under way */
	snprintf(other.dir, sizeof(other.dir), "/tmp/phid-unit-copy-XXXXXX");
	assert_non_null(mkdtemp(other.dir));
	static const char *const parts[] = {"phid.db", "phid.db-wal"};
	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", b->dir, parts[i]);
		snprintf(copy, sizeof(copy), "%s/%s", other.dir, parts[i]);
		snprintf(command, sizeof(command), "cp '%s' '%s'", path, copy);
		assert_int_equal(system(command), 0);
	}
	store_rollback(b->s);
	assert_null(reopen(&other));
	assert_int_equal(store_containers_count(other.s, STORE_READ), 1);
	store_close(PHI_TAKE(other.s));
	snprintf(command, sizeof(command), "rm -r '%s'", other.dir);
	assert_int_equal(system(command), 0);
}

static void now_is_rfc_3339_in_utc_with_milliseconds(void **state)
{
	char text[32];
	int year, month, day, hour, minute, second, ms, n = 0;

	(void)state;
	store_now(text);
	assert_int_equal(sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute, &second, &ms, &n), 7);
	assert_int_equal(n, 24);
	assert_int_equal(strlen(text), 24);
}

#define store_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(a_new_directory_gets_a_new_database),
		store_test(a_cpu_has_one_owner_whatever_the_code_above_does),
		store_test(overlapping_ranges_are_refused_unless_their_colours_are_disjoint),
		store_test(an_amount_beyond_its_pool_is_refused),
		store_test(a_container_with_grants_cannot_become_stopped_or_be_deleted),
		store_test(a_stopped_container_cannot_be_granted_anything),
		store_test(a_grant_does_not_change_and_needs_a_container),
		store_test(two_containers_share_neither_id_nor_incarnation_and_a_row_is_never_used_again),
		store_test(a_container_is_read_back_as_it_was_written),
		store_test(containers_are_listed_in_the_order_of_their_ids_page_by_page),
		store_test(a_batch_is_seen_by_readers_only_once_it_is_committed),
		store_test(one_mutation_is_taken_back_alone_and_the_others_of_its_batch_stay),
		store_test(a_batch_that_is_rolled_back_leaves_nothing_and_the_next_one_goes_on),
		store_test(the_vector_is_who_owns_what_and_its_generation_counts_changes),
		store_test(events_are_numbered_without_gaps_and_the_forgotten_are_named),
		store_test(a_key_has_one_request_and_one_outcome_for_each_user),
		store_test(a_damaged_file_is_set_aside_with_a_note_and_a_fresh_one_begun),
		store_test(damaged_files_of_one_second_do_not_replace_each_other),
		store_test(a_file_with_a_newer_schema_is_set_aside_whole),
		store_test(a_database_of_another_program_is_set_aside),
		store_test(a_whole_file_that_somebody_else_holds_is_not_set_aside),
		store_test(a_directory_that_is_not_there_is_an_error_and_leaks_nothing),
		store_test(what_was_committed_is_there_also_without_a_clean_end),
		cmocka_unit_test(now_is_rfc_3339_in_utc_with_milliseconds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
