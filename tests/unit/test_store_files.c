/* The files of the database: new, damaged, newer, another program's, held, cut off. */
#include "store_unit.h"

static void a_new_directory_gets_a_new_database(void **state)
{
	struct box *b = *state;

	assert_null(reopen(b));
	assert_int_equal(store_containers_count(b->s, STORE_READ), 0);
	assert_int_equal(store_generation(b->s, STORE_READ), 1);
	assert_int_equal(store_events_last(b->s, STORE_READ), 0);
	assert_null(reopen(b));
	assert_int_equal(files_like(b, "phid.db"), 1);
	store_close(NULL);
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

/* The number that a query answers. */
static int number(const struct box *b, const char *sql)
{
	char path[100];
	sqlite3_stmt *st;
	sqlite3 *db;
	int n;

	snprintf(path, sizeof(path), "%s/phid.db", b->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	n = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return n;
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

static void an_older_schema_is_migrated_and_a_copy_kept(void **state)
{
	struct box *b = *state;
	char path[100];
	sqlite3 *db;

	make_older(b);
	assert_null(reopen(b));
	assert_int_equal(number(b, "SELECT count(*) FROM links"), 0);
	assert_int_equal(files_like(b, "phid.db.schema-1"), 1);
	snprintf(path, sizeof(path), "%s/phid.db.schema-1", b->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "SELECT name FROM pools", NULL, NULL, NULL), SQLITE_OK);
	assert_int_not_equal(sqlite3_exec(db, "SELECT * FROM links", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	assert_null(reopen(b)); /* and not again */
	assert_int_equal(files_like(b, "phid.db.schema-"), 1);
}

static void tables_of_another_program_stay_its_own(void **state)
{
	struct box *b = *state;
	char path[100];
	sqlite3 *db;

	store_close(PHI_TAKE(b->s));
	snprintf(path, sizeof(path), "%s/phid.db", b->dir);
	unlink(path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "CREATE TABLE notes (text)", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	assert_contains(reopen(b), "damaged");
	assert_int_equal(files_like(b, "phid.db.damaged-"), 1);
}

/* What the schema forbids can be in a file all the same, written by who switched the rules off. */
static void rows_that_break_the_rules_are_damage(void **state)
{
	static const char *const rows[] = {
		"UPDATE containers SET state = 'flying'",
		"INSERT INTO cpu_grants (cpu, row) VALUES (-1, 1)",
		"INSERT INTO cpu_grants (cpu, row) VALUES (1, 4711)",
	};
	struct box *b = *state;

	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		char sql[200];

		fill(b);
		store_close(PHI_TAKE(b->s));
		snprintf(sql, sizeof(sql), "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; %s", rows[i]);
		with_sql(b, sql);
		assert_contains(reopen(b), "damaged");
		assert_int_equal(files_like(b, "phid.db.damaged-"), i + 1);
	}
}

/* What another program may still want is set aside byte for byte: no pragma, no checkpoint of ours on the way. */
static void what_is_not_ours_is_not_written_to(void **state)
{
	struct box *b = *state;
	char command[300];

	with_sql(b, "PRAGMA journal_mode = DELETE; CREATE TABLE notes (text); PRAGMA user_version = 99");
	snprintf(command, sizeof(command), "cp %s/phid.db %s/before", b->dir, b->dir);
	assert_int_equal(system(command), 0);
	assert_non_null(reopen(b));
	snprintf(command, sizeof(command), "cmp -s %s/before %s/phid.db.*-[0-9]*[0-9]", b->dir, b->dir);
	assert_int_equal(system(command), 0);
}

static void a_migration_that_does_not_fit_is_taken_back_and_phid_starts(void **state)
{
	struct box *b = *state;

	make_older(b);
	with_sql(b, "CREATE TABLE links (in_the_way)");
	assert_contains(reopen(b), "damaged");
	assert_int_equal(files_like(b, "phid.db.schema-1"), 1);
	assert_int_equal(files_like(b, "phid.db.damaged-"), 1);
}

/* The rules are the schema's, so they are there whoever had the file meanwhile; the records stay. */
static void a_rule_that_was_dropped_or_changed_is_made_again(void **state)
{
	static const char *const changes[] = {
		"DROP TRIGGER memory_range_once",
		"DROP TRIGGER memory_range_once; CREATE TRIGGER memory_range_once BEFORE INSERT ON memory_grants BEGIN SELECT 1; END",
		"DROP INDEX memory_grants_base",
		"DROP INDEX memory_grants_base; CREATE INDEX memory_grants_base ON memory_grants(size)",
	};
	struct box *b = *state;

	for (size_t i = 0; i < PHI_COUNT(changes); i++) {
		struct phi_error e;
		int64_t row;

		fill(b);
		with_sql(b, changes[i]);
		assert_null(reopen(b));
		begin(b);
		pools(b);
		row = insert(b, "two");
		assert_done(grant(b, row, grant_of(0, "ram", 0x14000, 0x3000, UINT64_MAX), &e), e);
		assert_refused(grant(b, row, grant_of(0, "ram", 0x16000, 0x3000, UINT64_MAX), &e), e, PHI_INTERNAL, "");
		store_rollback(b->s);
		assert_int_equal(store_containers_count(b->s, STORE_READ), 1);
		store_close(PHI_TAKE(b->s));
		assert_int_equal(number(b, "SELECT sql LIKE '%memory_grants(base)' FROM sqlite_schema WHERE name = 'memory_grants_base'"), 1);
		with_sql(b, "DELETE FROM containers");
		assert_int_equal(files_like(b, "phid.db.damaged-"), 0);
	}
}

static void a_table_that_is_not_as_it_should_be_is_damage(void **state)
{
	static const char *const changes[] = {
		"DROP TABLE observed_cells",
		"ALTER TABLE events DROP COLUMN detail",
		"ALTER TABLE containers RENAME COLUMN exit TO ended",
		"DROP TABLE irq_grants; CREATE TABLE irq_grants (spi TEXT, row INTEGER, state TEXT)",
		"DROP TABLE pools; CREATE VIEW pools AS SELECT * FROM nowhere",
		/* and a rule that cannot be made again */
		"DROP INDEX memory_grants_base; CREATE TABLE memory_grants_base (a)",
	};
	struct box *b = *state;

	for (size_t i = 0; i < PHI_COUNT(changes); i++) {
		fill(b);
		with_sql(b, changes[i]);
		assert_contains(reopen(b), "damaged");
		assert_int_equal(files_like(b, "phid.db.damaged-"), i + 1);
	}
}

/* What somebody added is theirs. */
static void what_is_there_beyond_the_schema_stays(void **state)
{
	struct box *b = *state;

	fill(b);
	with_sql(b, "CREATE TABLE notes (text); CREATE INDEX containers_backend ON containers(backend); INSERT INTO notes VALUES ('mine')");
	assert_null(reopen(b));
	assert_int_equal(store_containers_count(b->s, STORE_READ), 1);
	store_close(PHI_TAKE(b->s));
	assert_int_equal(number(b, "SELECT count(*) FROM notes"), 1);
	assert_int_equal(number(b, "SELECT count(*) FROM sqlite_schema WHERE name = 'containers_backend'"), 1);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(a_new_directory_gets_a_new_database),
		store_test(a_damaged_file_is_set_aside_with_a_note_and_a_fresh_one_begun),
		store_test(damaged_files_of_one_second_do_not_replace_each_other),
		store_test(an_older_schema_is_migrated_and_a_copy_kept),
		store_test(tables_of_another_program_stay_its_own),
		store_test(a_file_with_a_newer_schema_is_set_aside_whole),
		store_test(rows_that_break_the_rules_are_damage),
		store_test(what_is_not_ours_is_not_written_to),
		store_test(a_migration_that_does_not_fit_is_taken_back_and_phid_starts),
		store_test(a_rule_that_was_dropped_or_changed_is_made_again),
		store_test(a_table_that_is_not_as_it_should_be_is_damage),
		store_test(what_is_there_beyond_the_schema_stays),
		store_test(a_database_of_another_program_is_set_aside),
		store_test(a_whole_file_that_somebody_else_holds_is_not_set_aside),
		store_test(a_directory_that_is_not_there_is_an_error_and_leaks_nothing),
		store_test(what_was_committed_is_there_also_without_a_clean_end),
		cmocka_unit_test(now_is_rfc_3339_in_utc_with_milliseconds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
