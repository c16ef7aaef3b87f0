/* Rows that are read back, batches, the vector, events, keys. */
#include "store_unit.h"

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
	_clean_grant_ struct alloc_grant g = grant_of(0x8000000000000005, "ram", 0x10000, 4096, UINT64_C(1) << 63), back = {0};
	struct platform p = {0};
	struct alloc_view *v;
	struct phi_error e;
	int64_t row, before;

	reopen(b);
	begin(b);
	pools(b);
	row = insert(b, "one");
	before = store_generation(b->s, STORE_WRITE);
	*alloc_grant_add_memory(&g) = (struct alloc_memory){.pool = "ddr", .size = 8192, .colors = UINT64_MAX};
	assert_done(store_grant_insert(b->s, row, &g, &e), e);
	assert_true(store_generation(b->s, STORE_WRITE) > before);
	assert_done(store_observed_insert(b->s, "jailhouse", "linux", NULL, "7-8", false, &e), e);
	assert_done(store_observed_insert(b->s, "jailhouse", "linux", "x", "8", false, &e), e); /* seen again */
	assert_done(store_observed_insert(b->s, "sim", "phid-1", "x", "0", false, &e), e);
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
	assert_int_equal(v->generation, store_generation(b->s, STORE_READ));
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
	assert_int_equal(store_events(b->s, MORE - 1, 0, NULL, NULL, &e), -ENOENT); /* is anything missing? nothing is told */
	assert_done(store_events(b->s, MORE, 0, NULL, NULL, &e), e);
	s = (struct seen){0};
	assert_done(store_events(b->s, -1, 10, note_event, &s, &e), e); /* whatever there is */
	assert_true(s.n == 10 && s.first == MORE + 1);
	s = (struct seen){0};
	assert_done(store_events(b->s, MORE, KEPT * 2, note_event, &s, &e), e);
	assert_true(s.n == KEPT && s.first == MORE + 1 && s.last == KEPT + MORE);
	s = (struct seen){0};
	assert_done(store_events(b->s, KEPT + MORE, 10, note_event, &s, &e), e);
	assert_int_equal(s.n, 0);
}

static void another_boot_goes_on_behind_whatever_was_seen(void **state)
{
	struct box *b = *state;
	int64_t row, generation = 0;
	struct phi_error e;

	reopen(b);
	for (int boot = 0; boot < 3; boot++) { /* the second start is of the same boot */
		begin(b);
		assert_done(store_boot(b->s, boot < 2 ? "0123abcd-0000-4000-8000-000000000000" : "f123abcd-0000-4000-8000-000000000000", &e), e);
		if (boot > 0)
			assert_true(boot == 1 ? store_generation(b->s, STORE_WRITE) == generation : store_generation(b->s, STORE_WRITE) > generation + 2000);
		generation = store_generation(b->s, STORE_WRITE);
		row = insert(b, boot == 0 ? "a" : boot == 1 ? "b" : "c");
		assert_true(boot < 2 ? row == boot + 1 : row > 2000);
		assert_done(store_event_insert(b->s, "t", NULL, NULL, NULL, &e), e);
		assert_true(boot < 2 ? store_events_last(b->s, STORE_WRITE) == boot + 1 : store_events_last(b->s, STORE_WRITE) > 2000);
		commit(b);
	}
	assert_int_equal(store_events(b->s, 2, 10, NULL, NULL, &e), -ENOENT); /* who saw the last must look at all again */
	assert_int_equal(e.code, PHI_GONE);
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
	assert_done(store_key_insert(b->s, 1002, "k", "POST /d", NULL, &e), e);
	commit(b);
	assert_int_equal(store_key_get(b->s, STORE_READ, 1000, "k", &k, &e), -ENOENT);
	assert_done(store_key_get(b->s, STORE_READ, 1001, "k", &k, &e), e);
}

static void of_many_keys_the_oldest_are_forgotten_but_not_those_under_way(void **state)
{
	enum { KEPT = 50000, MORE = 7, OPEN = 2 };
	struct box *b = *state;
	struct phi_error e;

	reopen(b);
	begin(b);
	for (int i = 0; i < KEPT + MORE; i++) {
		char key[20];

		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(store_key_insert(b->s, 1000, key, "PUT /a", NULL, NULL), 0);
		if (i != OPEN)
			assert_int_equal(store_key_outcome(b->s, 1000, key, 201, NULL, NULL), 0);
	}
	commit(b);
	for (int i = 0; i < KEPT + MORE; i++) {
		struct idempotency k = {0};
		char key[20];

		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(store_key_get(b->s, STORE_READ, 1000, key, &k, &e), i >= MORE || i == OPEN ? 0 : -ENOENT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(containers_are_listed_in_the_order_of_their_ids_page_by_page),
		store_test(a_batch_is_seen_by_readers_only_once_it_is_committed),
		store_test(one_mutation_is_taken_back_alone_and_the_others_of_its_batch_stay),
		store_test(a_batch_that_is_rolled_back_leaves_nothing_and_the_next_one_goes_on),
		store_test(the_vector_is_who_owns_what_and_its_generation_counts_changes),
		store_test(events_are_numbered_without_gaps_and_the_forgotten_are_named),
		store_test(another_boot_goes_on_behind_whatever_was_seen),
		store_test(a_key_has_one_request_and_one_outcome_for_each_user),
		store_test(of_many_keys_the_oldest_are_forgotten_but_not_those_under_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
