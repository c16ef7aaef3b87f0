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

/* The unix VFS, but that reads of the database's file fail: at the n-th of them (`left`). */
static sqlite3_vfs failing;
static sqlite3_io_methods failing_methods;
static const sqlite3_io_methods *methods;

static int failing_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
	return left > 0 && --left == 0 ? SQLITE_IOERR_READ : methods->xRead(f, to, n, at);
}

static int failing_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
	int rc = ((sqlite3_vfs *)vfs->pAppData)->xOpen(vfs->pAppData, name, f, flags, ret_flags);

	if (rc != SQLITE_OK || !(flags & SQLITE_OPEN_MAIN_DB))
		return rc;
	methods = f->pMethods;
	failing_methods = *methods;
	failing_methods.iVersion = 2; /* with shared memory, without mappings */
	failing_methods.xRead = failing_read;
	f->pMethods = &failing_methods;
	return rc;
}

/* SQLite's check tells of such a page as a finding. */
static void a_page_that_cannot_be_read_now_is_no_damage(void **state)
{
	struct box *b = *state;
	int failed = 0;
	bool more = true;
	char id[20];

	empty(b);
	assert_null(reopen(b));
	begin(b);
	for (int i = 0; i < 100; i++) {
		snprintf(id, sizeof(id), "c%d", i);
		insert(b, id);
	}
	commit(b);
	store_close(PHI_TAKE(b->s));
	failing = *sqlite3_vfs_find(NULL);
	failing.pAppData = sqlite3_vfs_find(NULL);
	failing.zName = "failing";
	failing.xOpen = failing_open;
	assert_int_equal(sqlite3_vfs_register(&failing, 1), SQLITE_OK);
	for (int point = 1; more; point++) {
		more = opens_but_for(b, point);
		left = 0;
		assert_null(reopen(b));
		assert_int_equal(store_containers_count(b->s, STORE_READ), 100);
		store_close(PHI_TAKE(b->s));
		failed += more;
	}
	sqlite3_vfs_unregister(&failing);
	assert_true(failed > 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(what_cannot_be_read_now_is_not_taken_for_damage),
		store_test(a_page_that_cannot_be_read_now_is_no_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
