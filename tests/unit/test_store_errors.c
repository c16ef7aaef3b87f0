/* A database that fails at any point: every call of the store is made to fail at each statement that it prepares and at each instruction of
 * SQLite's machine that it runs, says so, and leaves a store that works. Devices, remote processors, interrupts and links besides. */
#include "store_unit.h"

#include "store_sql.h"

static const char board[] =
	"{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-7\"},\"memory\":[{\"name\":\"ram\",\"kind\":\"carveout\",\"base\":\"0x10000\",\"size\":\"1M\"},"
	"{\"name\":\"ddr\",\"kind\":\"host\",\"size\":\"1M\"},{\"name\":\"shared\",\"kind\":\"carveout\",\"base\":\"0x10000000\",\"size\":\"1M\"}],"
	"\"interrupts\":{\"controller\":\"gicv3\",\"base\":\"0x8000000\",\"virtual\":[{\"spi\":100},{\"spi\":104}]},"
	"\"devices\":[{\"name\":\"u0\",\"kind\":\"uart\",\"mmio\":[{\"base\":\"0xff000000\",\"size\":4096}],\"host\":{\"handover\":\"none\"}},"
	"{\"name\":\"u1\",\"kind\":\"uart\",\"mmio\":[{\"base\":\"0xff001000\",\"size\":4096}],\"host\":{\"handover\":\"none\"}}],"
	"\"remote_processors\":[{\"name\":\"r0\",\"id\":0},{\"name\":\"r1\",\"id\":1}],\"links\":{\"memory\":\"shared\"}}";

static struct platform platform;
static int64_t one, two, stopped; /* rows: one and two hold one of everything and share a link */

static struct alloc_grant all_of(unsigned n)
{
	struct alloc_grant g = grant_of(UINT64_C(3) << (2 * n), "ram", 0x10000 + 0x4000 * n, 8192, UINT64_MAX);

	g.memory[g.n_memory++] = (struct alloc_memory){.pool = "ddr", .size = 4096, .colors = UINT64_MAX};
	snprintf(g.devices[g.n_devices++], sizeof(g.devices[0]), "u%u", n);
	snprintf(g.remote[g.n_remote++], sizeof(g.remote[0]), "r%u", n);
	g.has_virtual = true;
	g.virtual_spi = 100 + 4 * n;
	for (unsigned i = 0; i < 2; i++) {
		struct alloc_link *l = &g.links[g.n_links++];

		*l = (struct alloc_link){.slot = i, .id = n, .peers = 3, .protocol = i ? LINK_NETWORK : LINK_RAW, .host = i, .alone = n == 0,
					 .base = 0x10000000 + 0x10000 * i, .size = 0x10000, .common = 0x4000, .output = 0x1000};
		snprintf(l->name, sizeof(l->name), "l%u", i);
	}
	return g;
}

static void furnish(struct box *b)
{
	struct alloc_grant g = all_of(0), h = all_of(1);
	struct phi_error e;

	reopen(b);
	begin(b);
	assert_done(store_pools_write(b->s, &platform, &e), e);
	one = insert(b, "one");
	two = insert(b, "two");
	stopped = insert(b, "stopped");
	assert_done(store_grant_insert(b->s, one, &g, &e), e);
	assert_done(store_grant_insert(b->s, two, &h, &e), e);
	assert_done(store_observed_insert(b->s, "sim", "x", "t", "5", false, &e), e);
	assert_done(store_event_insert(b->s, "a.b", "one", NULL, NULL, &e), e);
	assert_done(store_key_insert(b->s, 1, "k", "PUT /", NULL, &e), e);
	commit(b);
}

/* ---- the units that are one of a kind ---- */

static void what_was_granted_is_read_back_and_seen_in_the_vector(void **state)
{
	struct box *b = *state;
	struct alloc_grant g = all_of(0), h = all_of(1), back;
	struct alloc_view *v = alloc_view_new(&platform);
	struct phi_error e;

	furnish(b);
	assert_done(store_grant_read(b->s, STORE_READ, two, &back, &e), e);
	assert_memory_equal(&back, &h, sizeof(h));
	assert_done(store_grant_read(b->s, STORE_READ, one, &back, &e), e);
	assert_true(!back.links[0].alone && !back.links[1].alone); /* another has joined */
	back.links[0].alone = back.links[1].alone = true;
	assert_memory_equal(&back, &g, sizeof(g));
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
	struct alloc_grant back;
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
	struct alloc_grant back;
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

/* ---- every call, failing at each point ---- */

static void each_container(void *ud, const struct container *c)
{
	(void)c;
	++*(int *)ud;
}

static void each_event(void *ud, const struct event *ev)
{
	(void)ev;
	++*(int *)ud;
}

static void each_id(void *ud, const char *id)
{
	(void)id;
	++*(int *)ud;
}

static int count;

static int by_id(struct store *s, struct phi_error *e)
{
	_clean_container_ struct container c = {0};

	return store_container_by_id(s, STORE_WRITE, "one", &c, e);
}

static int by_row(struct store *s, struct phi_error *e)
{
	_clean_container_ struct container c = {0};

	return store_container_by_row(s, STORE_READ, one, &c, e);
}

static int by_incarnation(struct store *s, struct phi_error *e)
{
	_clean_container_ struct container c = {0};
	int r = store_container_by_incarnation(s, STORE_READ, "nobody's", &c, e);

	return r == -ENOENT ? 0 : r;
}

static int list(struct store *s, struct phi_error *e)
{
	return store_containers(s, STORE_READ, NULL, NULL, NULL, 10, each_container, &count, e);
}

static int alike(struct store *s, struct phi_error *e)
{
	return store_containers_alike(s, "{}", "[]", 1000, each_container, &count, e);
}

static int insert_container(struct store *s, struct phi_error *e)
{
	_clean_container_ struct container c = draft("three");

	return store_container_insert(s, &c, e);
}

static int update(struct store *s, struct phi_error *e)
{
	_clean_container_ struct container c = draft("one");

	c.row = one;
	c.state = STATE_RUNNING;
	c.op = VERB_MAX;
	store_now(c.started_at);
	return store_container_update(s, &c, e);
}

static int rename_container(struct store *s, struct phi_error *e)
{
	_clean_container_ struct container c = draft("four");

	c.row = one;
	c.keeper_by_phid = true;
	return store_container_rename(s, &c, "/b", "o", "/r", NULL, e);
}

static int rename_with_annotations(struct store *s, struct phi_error *e)
{
	_clean_container_ struct container c = draft("four");

	c.row = one;
	return store_container_rename(s, &c, NULL, NULL, NULL, "{\"x\":\"y\"}", e);
}

static int delete(struct store *s, struct phi_error *e)
{
	return store_container_delete(s, stopped, e);
}

static int pools_write(struct store *s, struct phi_error *e)
{
	return store_pools_write(s, &platform, e);
}

static int vector(struct store *s, struct phi_error *e)
{
	_clean_(alloc_view_free_p) struct alloc_view *v = alloc_view_new(&platform);

	return store_vector_read(s, STORE_READ, v, e);
}

static int grant_all(struct store *s, struct phi_error *e)
{
	struct alloc_grant g = all_of(2);

	snprintf(g.links[0].name, sizeof(g.links[0].name), "new");
	g.links[0].alone = true;
	g.links[0].slot = 9;
	g.links[0].base = 0x10080000;
	return store_grant_insert(s, stopped, &g, e);
}

static int grant_read(struct store *s, struct phi_error *e)
{
	struct alloc_grant g;

	return store_grant_read(s, STORE_WRITE, one, &g, e);
}

static int release(struct store *s, struct phi_error *e)
{
	return store_grant_release(s, one, e);
}

static int quarantine(struct store *s, struct phi_error *e)
{
	return store_grant_quarantine(s, one, e);
}

static int quarantined(struct store *s, struct phi_error *e)
{
	return store_quarantined(s, STORE_WRITE, each_id, &count, e);
}

static int observed_clear(struct store *s, struct phi_error *e)
{
	return store_observed_clear(s, "sim", e);
}

static int observed_insert(struct store *s, struct phi_error *e)
{
	return store_observed_insert(s, "sim", "z", NULL, "1", true, e);
}

static int event_insert(struct store *s, struct phi_error *e)
{
	return store_event_insert(s, "a.c", NULL, NULL, "{}", e);
}

static int events(struct store *s, struct phi_error *e)
{
	return store_events(s, 0, 10, each_event, &count, e);
}

static int key_get(struct store *s, struct phi_error *e)
{
	struct idempotency k = {0};
	int r = store_key_get(s, STORE_READ, 1, "k", &k, e);

	free(k.problem);
	return r;
}

static int key_insert(struct store *s, struct phi_error *e)
{
	return store_key_insert(s, 1, "new", "PUT /", NULL, e);
}

static int key_outcome(struct store *s, struct phi_error *e)
{
	return store_key_outcome(s, 1, "k", 201, NULL, e);
}

static int boot(struct store *s, struct phi_error *e)
{
	static unsigned serial;
	char id[PHI_UUID_LEN + 1];

	snprintf(id, sizeof(id), "%08x-0000-4000-8000-000000000000", ++serial);
	return store_boot(s, id, e);
}

static int rows_beyond(struct store *s, struct phi_error *e)
{
	return store_rows_beyond(s, 7, e);
}

static int kept_vector(struct store *s, struct phi_error *e)
{
	struct alloc_view *v;

	store_kept_drop(s);
	return store_vector(s, &platform, &v, e);
}

static void each_name(void *ud, const char *name, const char *tag)
{
	(void)ud;
	(void)name;
	(void)tag;
}

static int save(struct store *s, struct phi_error *e)
{
	return store_save(s, e);
}

static const struct {
	const char *name;
	int (*call)(struct store *s, struct phi_error *e);
} calls[] = {
	{"by_id", by_id}, {"by_row", by_row}, {"by_incarnation", by_incarnation}, {"list", list}, {"alike", alike}, {"insert", insert_container},
	{"update", update}, {"rename", rename_container}, {"rename", rename_with_annotations}, {"delete", delete}, {"pools_write", pools_write},
	{"vector", vector}, {"grant_insert", grant_all}, {"grant_read", grant_read}, {"release", release}, {"quarantine", quarantine},
	{"quarantined", quarantined}, {"observed_clear", observed_clear}, {"observed_insert", observed_insert}, {"event_insert", event_insert},
	{"events", events}, {"key_get", key_get}, {"key_insert", key_insert}, {"key_outcome", key_outcome}, {"boot", boot}, {"rows_beyond", rows_beyond},
	{"kept_vector", kept_vector}, {"save", save},
};

static int left; /* until it fails; 0: it has */

static int on_instruction(void *ud)
{
	(void)ud;
	return left > 0 && --left == 0;
}

static int on_prepare(void *ud, int action, const char *a, const char *b, const char *c, const char *d)
{
	(void)ud;
	(void)action;
	(void)a;
	(void)b;
	(void)c;
	(void)d;
	return left > 0 && --left == 0 ? SQLITE_DENY : SQLITE_OK;
}

/* In a batch of its own, which is then taken back. True if there was a point that far. */
static bool failed_at(struct box *b, size_t i, int point, bool prepare)
{
	struct phi_error e = {0};
	int r;

	begin(b);
	for (int side = STORE_WRITE; side <= STORE_READ; side++) {
		if (prepare)
			sqlite3_set_authorizer(b->s->db[side], on_prepare, NULL);
		else
			sqlite3_progress_handler(b->s->db[side], 1, on_instruction, NULL);
	}
	left = point;
	r = calls[i].call(b->s, &e);
	for (int side = STORE_WRITE; side <= STORE_READ; side++) {
		sqlite3_set_authorizer(b->s->db[side], NULL, NULL);
		sqlite3_progress_handler(b->s->db[side], 0, NULL, NULL);
	}
	if (left == 0 && (r >= 0 || e.code != PHI_STORAGE))
		fail_msg("%s, failing at %s %d, answers %d (%s)", calls[i].name, prepare ? "statement" : "instruction", point, r, e.detail);
	if (left > 0)
		assert_done(r, e);
	if (store_in_transaction(b->s)) /* else SQLite has taken it back by itself */
		store_rollback(b->s);
	return left == 0;
}

static void every_call_says_that_the_database_failed_wherever_it_does(void **state)
{
	struct box *b = *state;

	furnish(b);
	for (size_t i = 0; i < PHI_COUNT(calls); i++) {
		int points = 1, statements = 1;

		do
			reopen(b); /* statements are prepared once */
		while (failed_at(b, i, statements, true) && ++statements);
		while (failed_at(b, i, points, false))
			points++;
		assert_true(points > 2 || strcmp(calls[i].name, "save") == 0);
		print_message("%s: %d and %d points\n", calls[i].name, statements - 1, points - 1);
	}
	/* Nothing of all that is there. */
	assert_int_equal(store_containers_count(b->s, STORE_READ), 3);
	assert_int_equal(store_events_last(b->s, STORE_READ), 1);
	with_sql(b, "PRAGMA integrity_check");
}

/* Whether it is to survive a loss of power cannot be said: there is no transaction. A savepoint that cannot be ended takes all with it. */
static int on_word(void *ud, int action, const char *a, const char *b, const char *c, const char *d)
{
	(void)c;
	(void)d;
	if (action == SQLITE_PRAGMA && strcmp(ud, "PRAGMA") == 0)
		return SQLITE_DENY;
	return action == SQLITE_SAVEPOINT && strcmp(a, ud) == 0 && b != NULL ? SQLITE_DENY : SQLITE_OK;
}

static void a_batch_of_which_a_word_is_refused_is_no_batch(void **state)
{
	static const char *const words[] = {"PRAGMA", "RELEASE", "ROLLBACK"};
	struct box *b = *state;
	struct alloc_view *v;
	struct phi_error e;

	furnish(b);
	for (size_t i = 0; i < PHI_COUNT(words); i++) {
		reopen(b);
		sqlite3_set_authorizer(b->s->db[STORE_WRITE], on_word, (void *)(uintptr_t)words[i]);
		if (i == 0) {
			assert_refused(store_begin(b->s, false, &e), e, PHI_STORAGE, "");
			assert_true(store_is_durable(b->s));
			continue;
		}
		begin(b);
		assert_done(store_vector(b->s, &platform, &v, &e), e);
		assert_done(store_save(b->s, &e), e);
		insert(b, "lost");
		if (i == 1) {
			store_release(b->s);
			assert_null(b->s->kept);
			store_rollback(b->s);
		} else {
			store_rollback_to(b->s);
			assert_false(store_in_transaction(b->s));
		}
		assert_int_equal(store_containers_count(b->s, STORE_READ), 3);
	}
	reopen(b);
	assert_done(store_begin(b->s, false, &e), e);
	assert_false(store_is_durable(b->s));
	insert(b, "soft");
	commit(b);
	begin(b);
	assert_true(store_is_durable(b->s));
	assert_int_equal(store_containers_count(b->s, STORE_WRITE), 4);
	commit(b);
}

static void what_is_kept_goes_where_it_cannot_be_carried_on(void **state)
{
	struct box *b = *state;
	struct alloc_grant none = {0};
	struct alloc_view *v;
	struct phi_error e;

	furnish(b);
	/* Units that are one of a kind: whoever held one is looked up anew. */
	for (int kind = 0; kind < 4; kind++) {
		struct alloc_grant all = all_of(1), g = {.cpus = all.cpus};

		if (kind == 0) {
			memcpy(g.links, all.links, sizeof(g.links));
			g.n_links = all.n_links;
		} else if (kind == 1) {
			memcpy(g.devices, all.devices, sizeof(g.devices));
			g.n_devices = all.n_devices;
		} else if (kind == 2) {
			memcpy(g.remote, all.remote, sizeof(g.remote));
			g.n_remote = all.n_remote;
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
	for (int prepare = 0; prepare < 2; prepare++) {
		reopen(b);
		begin(b);
		assert_done(store_vector(b->s, &platform, &v, &e), e);
		if (prepare)
			sqlite3_set_authorizer(b->s->db[STORE_WRITE], on_prepare, NULL);
		else
			sqlite3_progress_handler(b->s->db[STORE_WRITE], 1, on_instruction, NULL);
		left = 1;
		store_kept_change(b->s, one, &none);
		assert_int_equal(left, 0);
		assert_null(b->s->kept);
		left = 1;
		assert_true(store_observed(b->s, STORE_WRITE, "sim", each_name, NULL) < 0);
		reopen(b);
	}
}

static void a_number_that_cannot_be_read_is_none(void **state)
{
	struct box *b = *state;

	furnish(b);
	reopen(b);
	for (int prepare = 0; prepare < 2; prepare++) {
		for (int side = STORE_WRITE; side <= STORE_READ; side++) {
			sqlite3_set_authorizer(b->s->db[side], prepare ? on_prepare : NULL, NULL);
			sqlite3_progress_handler(b->s->db[side], prepare ? 0 : 1, on_instruction, NULL);
		}
		left = 1;
		assert_int_equal(store_grant_quarantined(b->s, one), 0);
		assert_int_equal(left, 0);
		left = 1;
		assert_int_equal(store_containers_count(b->s, STORE_READ), 0);
		assert_int_equal(left, 0);
		reopen(b);
	}
	assert_int_equal(store_containers_count(b->s, STORE_READ), 3);
}

static int on_commit(void *ud)
{
	return ++*(int *)ud == 1;
}

/* A COMMIT that fails: nothing of the batch is there, the next one goes on. SQLite takes it back itself, or is told to. */
static void a_commit_that_fails_takes_its_batch_back(void **state)
{
	struct box *b = *state;
	struct pollfd p;
	struct phi_error e;
	int commits = 0;

	furnish(b);
	p = (struct pollfd){store_commit_fd(b->s), POLLIN, 0};
	for (int deferred = 0; deferred < 2; deferred++) {
		begin(b);
		insert(b, "lost");
		if (deferred) /* a foreign key that is looked at by COMMIT alone, which then leaves the transaction open */
			assert_int_equal(sqlite3_exec(b->s->db[STORE_WRITE], "PRAGMA defer_foreign_keys = ON; INSERT INTO cpu_grants (cpu, row) VALUES (7, 999)",
						      NULL, NULL, NULL),
					 SQLITE_OK);
		else
			sqlite3_commit_hook(b->s->db[STORE_WRITE], on_commit, &commits);
		store_commit_start(b->s);
		assert_int_equal(poll(&p, 1, 30000), 1);
		assert_refused(store_commit_result(b->s, &e), e, PHI_STORAGE, "");
		assert_false(store_in_transaction(b->s));
		assert_int_equal(store_containers_count(b->s, STORE_WRITE), 3);
		sqlite3_commit_hook(b->s->db[STORE_WRITE], NULL, NULL);
	}
	begin(b);
	insert(b, "kept");
	commit(b);
	assert_int_equal(store_containers_count(b->s, STORE_READ), 4);
	assert_done(store_commit_result(b->s, &e), e); /* asked once too often */
}

static int with_board(void **state)
{
	struct phi_error e;

	(void)state;
	if (platform_read(board, strlen(board), &platform, &e) == 0)
		return 0;
	print_error("%s: %s\n", e.pointer, e.detail);
	return -1;
}

static int without_board(void **state)
{
	(void)state;
	platform_free(&platform);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(what_was_granted_is_read_back_and_seen_in_the_vector),
		store_test(a_quarantine_holds_all_of_one_and_none_of_the_other_and_ends_by_release),
		store_test(a_vector_of_another_platform_is_read_as_far_as_this_one_goes),
		store_test(more_in_the_database_than_a_struct_has_room_for_is_cut),
		store_test(every_call_says_that_the_database_failed_wherever_it_does),
		store_test(a_batch_of_which_a_word_is_refused_is_no_batch),
		store_test(what_is_kept_goes_where_it_cannot_be_carried_on),
		store_test(a_number_that_cannot_be_read_is_none),
		store_test(a_commit_that_fails_takes_its_batch_back),
	};

	return cmocka_run_group_tests(tests, with_board, without_board);
}
