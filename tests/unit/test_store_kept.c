/* The vector that is kept in memory between creates is always the one that would be read. */
#include "store_unit.h"

static const char PLATFORM[] = "{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-63\"},\"memory\":["
			       "{\"name\":\"ram\",\"kind\":\"carveout\",\"base\":\"0x10000\",\"size\":\"1M\"},"
			       "{\"name\":\"ddr\",\"kind\":\"host\",\"size\":\"64K\"}],"
			       "\"devices\":[{\"name\":\"uart0\",\"kind\":\"uart\",\"host\":{\"handover\":\"absent\"}}]}";

static void platform(struct platform *p)
{
	struct phi_error e;

	*p = (struct platform){0};
	assert_done(platform_read(PLATFORM, strlen(PLATFORM), p, &e), e);
}

/* What the store keeps, held against what it reads. */
static struct alloc_view *look(struct box *b, const struct platform *p)
{
	struct alloc_view *kept, *fresh = alloc_view_new(p);
	struct phi_error e;

	assert_done(store_vector(b->s, p, &kept, &e), e);
	assert_done(store_vector_read(b->s, STORE_WRITE, fresh, &e), e);
	for (unsigned c = 0; c < PHI_CPUS_MAX; c++)
		assert_string_equal(kept->cpus[c].owner, fresh->cpus[c].owner);
	assert_int_equal(kept->n_ranges, fresh->n_ranges);
	for (size_t i = 0; i < kept->n_ranges; i++) {
		assert_string_equal(kept->ranges[i].owner, fresh->ranges[i].owner);
		assert_int_equal(kept->ranges[i].base, fresh->ranges[i].base);
		assert_int_equal(kept->ranges[i].quarantined, fresh->ranges[i].quarantined);
	}
	assert_string_equal(kept->devices[0].owner, fresh->devices[0].owner);
	alloc_view_free(fresh);
	return kept;
}

static void grants_and_releases_are_carried_on(void **state)
{
	struct box *b = *state;
	struct alloc_grant uart = grant_of(1 << 9, "ram", 0x80000, 0x1000, UINT64_MAX);
	struct alloc_view *first;
	struct phi_error e;
	struct platform p;
	int64_t rows[4];

	platform(&p);
	reopen(b);
	begin(b);
	assert_done(store_pools_write(b->s, &p, &e), e);
	first = look(b, &p);
	for (int i = 0; i < 4; i++) {
		char id[] = {'a' + (char)i, '\0'};

		rows[i] = insert(b, id);
	}
	assert_done(grant(b, rows[0], grant_of(1 << 1, "ram", 0x40000, 0x1000, UINT64_MAX), &e), e);
	assert_done(grant(b, rows[1], grant_of(1 << 2, "ram", 0x20000, 0x1000, 3), &e), e); /* below the first */
	assert_done(grant(b, rows[2], grant_of(1 << 3, "ddr", 0, 0x1000, 0), &e), e);
	assert_ptr_equal(look(b, &p), first); /* not read again */
	assert_string_equal(first->cpus[2].owner, "b");
	assert_done(store_grant_release(b->s, rows[1], &e), e);
	assert_ptr_equal(look(b, &p), first);
	assert_int_equal(first->n_ranges, 2);
	commit(b);
	begin(b);
	assert_ptr_equal(look(b, &p), first); /* over transactions */
	/* What cannot be carried on is read: units of the platform, and what is quarantined. */
	alloc_grant_add_device(&uart, "uart0");
	assert_done(grant(b, rows[3], uart, &e), e);
	assert_string_equal(look(b, &p)->devices[0].owner, "d");
	assert_done(store_grant_release(b->s, rows[3], &e), e);
	assert_string_equal(look(b, &p)->devices[0].owner, "");
	assert_done(store_grant_quarantine(b->s, rows[0], &e), e);
	assert_true(look(b, &p)->cpus[1].quarantined);
	commit(b);
	platform_free(&p);
}

static void a_cpu_on_which_a_cell_without_record_is_seen_stays_held(void **state)
{
	struct box *b = *state;
	struct phi_error e;
	struct platform p;
	int64_t row;

	platform(&p);
	reopen(b);
	begin(b);
	assert_done(store_pools_write(b->s, &p, &e), e);
	row = insert(b, "a");
	assert_done(grant(b, row, grant_of(1 << 1, "ddr", 0, 0x1000, 0), &e), e);
	assert_done(store_observed_insert(b->s, "sim", "other", "", "1-2", false, &e), e);
	assert_string_equal(look(b, &p)->cpus[1].owner, "a");
	assert_string_equal(look(b, &p)->cpus[2].owner, "sim:other");
	assert_done(store_grant_release(b->s, row, &e), e);
	assert_string_equal(look(b, &p)->cpus[1].owner, "sim:other");
	/* One of phid's own whose record is lost: what memory it has nobody knows. */
	assert_int_equal(look(b, &p)->n_ranges, 0);
	assert_done(store_observed_insert(b->s, "sim", "phid-7", "", "3", true, &e), e);
	assert_string_equal(look(b, &p)->ranges[0].owner, "sim:phid-7");
	assert_int_equal(look(b, &p)->ranges[0].size, 1 << 20);
	assert_done(store_observed_remove(b->s, "sim", "phid-7", &e), e);
	assert_done(store_observed_insert(b->s, "qemu", "phid-8", "", "3", false, &e), e);
	assert_int_equal(look(b, &p)->n_ranges, 0);
	assert_done(store_observed_clear(b->s, "sim", &e), e);
	assert_string_equal(look(b, &p)->cpus[1].owner, "");
	commit(b);
	platform_free(&p);
}

static void what_is_taken_back_was_never_there(void **state)
{
	struct box *b = *state;
	struct platform p, other;
	struct alloc_view *kept;
	struct phi_error e;
	int64_t row;

	platform(&p);
	platform(&other);
	reopen(b);
	begin(b);
	assert_done(store_pools_write(b->s, &p, &e), e);
	row = insert(b, "a");
	kept = look(b, &p);
	/* A refusal that changed nothing costs nothing. */
	assert_done(store_save(b->s, &e), e);
	store_rollback_to(b->s);
	assert_ptr_equal(look(b, &p), kept);
	assert_done(store_save(b->s, &e), e);
	assert_done(grant(b, row, grant_of(1 << 1, "ram", 0x40000, 0x1000, UINT64_MAX), &e), e);
	assert_string_equal(look(b, &p)->cpus[1].owner, "a");
	store_rollback_to(b->s);
	assert_string_equal(look(b, &p)->cpus[1].owner, "");
	commit(b);
	begin(b);
	assert_done(grant(b, row, grant_of(1 << 1, "ram", 0x40000, 0x1000, UINT64_MAX), &e), e);
	assert_string_equal(look(b, &p)->cpus[1].owner, "a");
	store_rollback(b->s);
	begin(b);
	assert_string_equal(look(b, &p)->cpus[1].owner, "");
	/* Of another platform, of another name, changed behind the store's back: read. */
	assert_ptr_equal(look(b, &other)->platform, &other);
	assert_done(grant(b, row, grant_of(1 << 4, "ddr", 0, 0x1000, 0), &e), e);
	commit(b);
	with_sql(b, "INSERT INTO cpu_grants (cpu, row) VALUES (5, 1)");
	begin(b);
	assert_string_equal(look(b, &other)->cpus[5].owner, "a");
	assert_true(grant(b, 999, grant_of(1 << 6, "", 0, 0, 0), &e) < 0); /* of nobody */
	assert_string_equal(look(b, &other)->cpus[6].owner, "");
	store_rollback(b->s);
	platform_free(&p);
	platform_free(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(grants_and_releases_are_carried_on),
		store_test(a_cpu_on_which_a_cell_without_record_is_seen_stays_held),
		store_test(what_is_taken_back_was_never_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
