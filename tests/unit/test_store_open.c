/* A database that cannot be read or written while it is opened, at any instruction of SQLite's machine: the store does not open, says so,
 * and takes none of it for damage. The next try finds all as it was. */
#include "store_failing.h"
#include "store_unit.h"

/* Of every connection, by sqlite3_auto_extension (c3ref/auto_extension.html). */
static int on_open(sqlite3 *db, const char **message, const struct sqlite3_api_routines *api)
{
	(void)message;
	(void)api;
	sqlite3_progress_handler(db, 1, on_instruction, NULL);
	return SQLITE_OK;
}

/* False: there are not so many points. */
static bool opens_but_for(struct box *b, int point)
{
	const char *note;
	struct phi_error e = {0};
	int r;

	left = point;
	r = store_open(b->dir, &b->s, &note, &e);
	if (r == 0 && left == 0)
		store_close(PHI_TAKE(b->s)); /* what failed is tried by SQLite again, or not needed */
	if (left > 0) {
		assert_done(r, e);
		store_close(PHI_TAKE(b->s));
		return false;
	}
	if (r < 0)
		assert_int_equal(e.code, PHI_STORAGE);
	left = 0;
	assert_int_equal(files_like(b, "damaged"), 0);
	assert_int_equal(files_like(b, "newer"), 0);
	return true;
}

/* Points further on are further apart. */
static void what_cannot_be_read_now_is_not_taken_for_damage(void **state)
{
	static const struct {
		bool older, current;
	} kinds[] = {{0}, {.older = true}, {.current = true}};
	struct box *b = *state;

	for (size_t i = 0; i < PHI_COUNT(kinds); i++) {
		int failed = 0;
		bool more = true;

		for (int point = 1; more; point += 1 + point / 8) {
			left = 0;
			empty(b);
			if (kinds[i].older)
				make_older(b); /* so that it is copied and migrated, too */
			if (kinds[i].current) {
				assert_null(reopen(b));
				store_close(PHI_TAKE(b->s));
			}
			assert_int_equal(sqlite3_auto_extension((void (*)(void))on_open), SQLITE_OK);
			more = opens_but_for(b, point);
			sqlite3_cancel_auto_extension((void (*)(void))on_open);
			assert_null(reopen(b)); /* all is there, however far the try came */
			store_close(PHI_TAKE(b->s));
			if (kinds[i].older)
				with_sql(b, "UPDATE pools SET size = 1 / (SELECT count(*) FROM pools WHERE name = 'old')");
			failed += more;
		}
		assert_true(failed > 20);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(what_cannot_be_read_now_is_not_taken_for_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
