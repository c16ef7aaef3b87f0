/* A database that fails at any point: every call of the store is made to fail at each statement that it prepares and at each instruction of
 * SQLite's machine that it runs, says so, and leaves a store that works. What fails while it is opened is test_store_open.c's. */
#include "store_board.h"
#include "store_failing.h"

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
	_clean_grant_ struct alloc_grant g = all_of(2);

	snprintf(g.links[0].name, sizeof(g.links[0].name), "new");
	g.links[0].alone = true;
	g.links[0].slot = 9;
	g.links[0].base = 0x10080000;
	return store_grant_insert(s, stopped, &g, e);
}

static int grant_read(struct store *s, struct phi_error *e)
{
	_clean_grant_ struct alloc_grant g = {0};

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

/* As it does where it has no memory, or no disk, in the middle of a statement. */
static void what_comes_behind_a_transaction_that_sqlite_took_back_is_not_written_by_itself(void **state)
{
	struct box *b = *state;
	_clean_container_ struct container c = draft("late");
	_clean_grant_ struct alloc_grant g = all_of(2);
	struct alloc_view *v;
	struct phi_error e = {0};

	furnish(b);
	begin(b);
	assert_done(store_save(b->s, &e), e);
	insert(b, "early");
	assert_int_equal(sqlite3_exec(b->s->db[STORE_WRITE], "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(store_generation(b->s, STORE_WRITE), 0);
	assert_refused(store_vector(b->s, &platform, &v, &e), e, PHI_STORAGE, "");
	assert_refused(store_container_insert(b->s, &c, &e), e, PHI_STORAGE, "");
	assert_refused(store_grant_insert(b->s, stopped, &g, &e), e, PHI_STORAGE, "");
	assert_refused(store_event_insert(b->s, "a.b", NULL, NULL, NULL, &e), e, PHI_STORAGE, "");
	store_release(b->s);
	assert_false(store_in_transaction(b->s));
	assert_int_equal(store_containers_count(b->s, STORE_READ), 3);
	begin(b);
	insert(b, "late");
	commit(b);
	assert_int_equal(store_containers_count(b->s, STORE_WRITE), 4);
}

static void what_is_kept_goes_where_the_database_does_not_tell_its_owner(void **state)
{
	struct box *b = *state;
	_clean_grant_ struct alloc_grant none = {0};
	struct alloc_view *v;
	struct phi_error e;

	furnish(b);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(every_call_says_that_the_database_failed_wherever_it_does),
		store_test(a_batch_of_which_a_word_is_refused_is_no_batch),
		store_test(what_comes_behind_a_transaction_that_sqlite_took_back_is_not_written_by_itself),
		store_test(what_is_kept_goes_where_the_database_does_not_tell_its_owner),
		store_test(a_number_that_cannot_be_read_is_none),
		store_test(a_commit_that_fails_takes_its_batch_back),
	};

	return cmocka_run_group_tests(tests, with_board, without_board);
}
