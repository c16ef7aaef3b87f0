/* The database's schema: its numbered parts, whose a file is, and whether it still is what its version says. See store_sql.h. */
#include "store_sql.h"

#include "clean.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define APPLICATION_ID 0x70686964 /* "phid" */

/* schema/NNN-*.sql, by embed.c */
extern const char schema_001[], schema_001_end[], schema_002[], schema_002_end[], schema_003[], schema_003_end[],
	schema_004[], schema_004_end[], schema_005[], schema_005_end[];

/* Numbered migrations; user_version is the number of those that were applied. */
static const struct {
	const char *sql, *end;
} migrations[] = {
	{schema_001, schema_001_end},
	{schema_002, schema_002_end},
	{schema_003, schema_003_end},
	{schema_004, schema_004_end},
	{schema_005, schema_005_end},
};

static bool sync_file(const char *path)
{
	_clean_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd >= 0 && fsync(fd) == 0;
}

/* As it was before a newer phid changed it, for one who wants to go back. */
static int keep_copy(sqlite3 *db, const char *path, int version, struct phi_error *e)
{
	_clean_free_ char *dir = phi_strdup(path);
	char copy[PHI_PATH_MAX + 64];
	sqlite3_stmt *st;
	bool done;

	snprintf(copy, sizeof(copy), "%s.schema-%d", path, version);
	unlink(copy); /* of a try that was cut off */
	if (sqlite3_prepare_v2(db, "VACUUM INTO ?", -1, &st, NULL) != SQLITE_OK)
		return sql_error(db, e);
	sqlite3_bind_text(st, 1, copy, -1, SQLITE_STATIC);
	done = sqlite3_step(st) == SQLITE_DONE;
	if (!done)
		sql_error(db, e);
	sqlite3_finalize(st);
	if (!done)
		return -EIO;
	*strrchr(dir, '/') = '\0';
	if (!sync_file(copy) || !sync_file(dir)) /* SQLite does not */
		return phi_error_set(e, PHI_STORAGE, EIO, "", "%s cannot be synced: %m", copy);
	return 0;
}

static int run_migrations(sqlite3 *db, int version)
{
	char pragma[100];
	int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

	for (; rc == SQLITE_OK && version < (int)PHI_COUNT(migrations); version++) {
		_clean_free_ char *sql = strndup(migrations[version].sql, (size_t)(migrations[version].end - migrations[version].sql));

		rc = sql != NULL ? sqlite3_exec(db, sql, NULL, NULL, NULL) : SQLITE_NOMEM;
	}
	snprintf(pragma, sizeof(pragma), "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT", APPLICATION_ID, version);
	return rc == SQLITE_OK ? sqlite3_exec(db, pragma, NULL, NULL, NULL) : rc;
}

int schema_whose(sqlite3 *db, int *ret_version, struct phi_error *e)
{
	sqlite3_stmt *st;
	int app, version;

	if (sqlite3_prepare_v2(db, "SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id),"
			       " (SELECT count(*) FROM sqlite_schema)", -1, &st, NULL) != SQLITE_OK)
		return sql_error(db, e);
	if (sqlite3_step(st) != SQLITE_ROW) {
		int r = sql_error(db, e);

		sqlite3_finalize(st);
		return r;
	}
	version = sqlite3_column_int(st, 0);
	app = sqlite3_column_int(st, 1);
	if (sqlite3_column_int(st, 2) == 0 && version == 0 && app == 0)
		app = APPLICATION_ID; /* an empty one: to be ours */
	sqlite3_finalize(st);
	if (app != APPLICATION_ID || version < 0)
		return phi_error_set(e, PHI_STORAGE, EBADMSG, "", "this is not a database of phid");
	if (version > (int)PHI_COUNT(migrations))
		return phi_error_set(e, PHI_STORAGE, EPROTO, "", "the schema has version %d, this phid knows %zu", version,
				     PHI_COUNT(migrations));
	*ret_version = version;
	return 0;
}

int schema_migrate(sqlite3 *db, const char *path, int version, struct phi_error *e)
{
	int r, rc;

	if (version == (int)PHI_COUNT(migrations))
		return 0;
	r = version > 0 ? keep_copy(db, path, version, e) : 0;
	if (r < 0)
		return r;
	rc = run_migrations(db, version);
	if (rc == SQLITE_OK)
		return 0;
	r = sql_error(db, e);
	sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	/* Where our own SQL does not fit what is there, the file is not what its version says. */
	return rc == SQLITE_ERROR || rc == SQLITE_CONSTRAINT ? -EBADMSG : r;
}

/* ---- is it still so? ---- */

/* The first column of the first row as text, copied; NULL: there is none. */
static int ask(sqlite3 *db, const char *sql, const char *name, char **ret, struct phi_error *e)
{
	sqlite3_stmt *st = NULL;
	int r = 0, rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	*ret = NULL;
	if (rc == SQLITE_OK) {
		sqlite3_bind_text(st, 1, name, -1, SQLITE_STATIC);
		rc = sqlite3_step(st);
	}
	if (rc == SQLITE_ROW && sqlite3_column_text(st, 0) != NULL)
		*ret = phi_strdup((const char *)sqlite3_column_text(st, 0));
	else if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		r = rc == SQLITE_ERROR ? (sql_error(db, e), -EBADMSG) : sql_error(db, e);
	sqlite3_finalize(st);
	return r;
}

/* A table holds what it holds: where it is not as it should be, the file is not what its version says. */
static int compare_table(sqlite3 *db, sqlite3 *model, const char *name, struct phi_error *e)
{
	static const char sql[] = "SELECT group_concat(name || ' ' || type || ' ' || \"notnull\" || ' ' || pk) FROM pragma_table_info(?)";
	_clean_free_ char *is = NULL, *should = NULL;
	int r = ask(model, sql, name, &should, e);

	if (r == 0)
		r = ask(db, sql, name, &is, e);
	if (r == 0 && (is == NULL || should == NULL || strcmp(is, should) != 0))
		r = phi_error_set(e, PHI_STORAGE, EBADMSG, "", "table %s is not as this phid made it", name);
	return r;
}

/* An index or a trigger is made again from its text, which SQLite keeps as it was written. */
static int compare_rule(sqlite3 *db, const char *type, const char *name, const char *sql, struct phi_error *e)
{
	_clean_free_ char *is = NULL, *drop = NULL;
	int r = ask(db, "SELECT sql FROM sqlite_schema WHERE name = ?", name, &is, e);

	if (r < 0 || (is != NULL && strcmp(is, sql) == 0))
		return r;
	log_error(NULL, "phid.db: %s %s %s; it is made again as it should be", type, name, is != NULL ? "was changed" : "is missing");
	if (asprintf(&drop, "DROP %s IF EXISTS \"%s\"", type, name) < 0)
		abort();
	if (sqlite3_exec(db, drop, NULL, NULL, NULL) == SQLITE_OK && sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	r = sql_error(db, e);
	return sqlite3_errcode(db) == SQLITE_ERROR || sqlite3_errcode(db) == SQLITE_CONSTRAINT ? -EBADMSG : r;
}

static int compare(sqlite3 *db, sqlite3 *model, struct phi_error *e)
{
	sqlite3_stmt *st;
	int r = 0, rc;

	if (sqlite3_prepare_v2(model, "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
			       "ORDER BY type = 'table' DESC", -1, &st, NULL) != SQLITE_OK)
		return sql_error(model, e);
	while (r == 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		const char *type = (const char *)sqlite3_column_text(st, 0), *name = (const char *)sqlite3_column_text(st, 1);

		r = strcmp(type, "table") == 0 ? compare_table(db, model, name, e)
					       : compare_rule(db, type, name, (const char *)sqlite3_column_text(st, 2), e);
	}
	if (r == 0 && rc != SQLITE_DONE)
		r = sql_error(model, e);
	sqlite3_finalize(st);
	return r;
}

int schema_put_right(sqlite3 *db, struct phi_error *e)
{
	sqlite3 *model = NULL;
	int r = 0;

	if (sqlite3_open(":memory:", &model) != SQLITE_OK || run_migrations(model, 0) != SQLITE_OK)
		r = sql_error(model, e);
	if (r == 0 && sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
		r = sql_error(db, e);
	if (r == 0)
		r = compare(db, model, e);
	if (r == 0 && sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
		r = sql_error(db, e);
	if (r < 0)
		sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	sqlite3_close(model);
	return r;
}
