/* Opening the database, its statements, its transactions. See store.h; the schema is store_schema.c's. */
#include "store_sql.h"

#include "clean.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int sql_error(sqlite3 *db, struct phi_error *e)
{
	int rc = sqlite3_errcode(db);

	return phi_error_set(e, PHI_STORAGE, rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB ? EBADMSG : EIO, "", "SQLite: %s (%d)",
			     sqlite3_errmsg(db), sqlite3_extended_errcode(db));
}

static sqlite3_stmt *begin(struct store *s, enum store_side side, struct phi_error *e, const char *sql, const char *types, va_list ap)
{
	int rc = SQLITE_OK;
	sqlite3_stmt *st;
	size_t i = 0;

	/* Else the rest of a transaction that is lost would be written, each statement as a transaction of its own. */
	if (side == STORE_WRITE && s->begun && !store_in_transaction(s)) {
		phi_error_set(e, PHI_STORAGE, EIO, "", "SQLite has taken the transaction back");
		return NULL;
	}
	while (i < STORE_STATEMENTS_MAX && s->cache[side][i].sql != NULL && s->cache[side][i].sql != sql)
		i++;
	if (i == STORE_STATEMENTS_MAX)
		abort(); /* a statement was added without room for it */
	if (s->cache[side][i].sql == NULL) {
		if (sqlite3_prepare_v3(s->db[side], sql, -1, SQLITE_PREPARE_PERSISTENT, &s->cache[side][i].stmt, NULL) !=
		    SQLITE_OK) {
			sql_error(s->db[side], e);
			return NULL;
		}
		s->cache[side][i].sql = sql;
	}
	st = s->cache[side][i].stmt;
	for (int n = 1; rc == SQLITE_OK && types[n - 1] != '\0'; n++) {
		if (types[n - 1] == 'i')
			rc = sqlite3_bind_int64(st, n, va_arg(ap, int64_t));
		else
			rc = sqlite3_bind_text(st, n, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
	}
	if (rc == SQLITE_OK)
		return st;
	sql_error(s->db[side], e); /* else a text would be written as NULL */
	sql_end(st);
	return NULL;
}

sqlite3_stmt *sql_begin(struct store *s, enum store_side side, struct phi_error *e, const char *sql, const char *types, ...)
{
	sqlite3_stmt *st;
	va_list ap;

	va_start(ap, types);
	st = begin(s, side, e, sql, types, ap);
	va_end(ap);
	return st;
}

int sql_step(sqlite3_stmt *st, struct phi_error *e)
{
	int rc = sqlite3_step(st);

	if (rc == SQLITE_ROW)
		return 1;
	if (rc == SQLITE_DONE)
		return 0;
	if ((rc & 0xff) == SQLITE_CONSTRAINT) /* the schema refused what the code above let through */
		return phi_error_set(e, PHI_INTERNAL, EEXIST, "", "the database refused it: %s",
				     sqlite3_errmsg(sqlite3_db_handle(st)));
	return sql_error(sqlite3_db_handle(st), e);
}

void sql_end(sqlite3_stmt *st)
{
	if (st == NULL)
		return;
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
}

int sql_run(struct store *s, struct phi_error *e, const char *sql, const char *types, ...)
{
	sqlite3_stmt *st;
	va_list ap;
	int r;

	va_start(ap, types);
	st = begin(s, STORE_WRITE, e, sql, types, ap);
	va_end(ap);
	if (st == NULL)
		return -EIO;
	r = sql_step(st, e);
	sql_end(st);
	return r < 0 ? r : 0;
}

int64_t sql_int(struct store *s, enum store_side side, const char *sql)
{
	sqlite3_stmt *st = sql_begin(s, side, NULL, sql, "");
	int64_t v = 0;

	if (st != NULL && sqlite3_step(st) == SQLITE_ROW)
		v = sqlite3_column_int64(st, 0);
	sql_end(st);
	return v;
}

const char *sql_text(sqlite3_stmt *st, int column)
{
	const char *t = (const char *)sqlite3_column_text(st, column);

	if (t == NULL && sqlite3_errcode(sqlite3_db_handle(st)) == SQLITE_NOMEM)
		abort(); /* there is a text, but no memory for it */
	return t ? t : "";
}

void store_now(char ret[32])
{
	struct timespec t;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &t);
	gmtime_r(&t.tv_sec, &tm);
	n = strftime(ret, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret + n, 32 - n, ".%03ldZ", t.tv_nsec / 1000000);
}

/* ---- opening ---- */

static int open_db(const char *path, int flags, sqlite3 **ret, struct phi_error *e)
{
	if (sqlite3_open_v2(path, ret, flags | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK)
		return 0;
	int r = sql_error(*ret, e);

	sqlite3_close(*ret);
	*ret = NULL;
	return r;
}

static int configure(sqlite3 *db, struct phi_error *e)
{
	static const char pragmas[] = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
				      "PRAGMA busy_timeout = 2000; PRAGMA wal_autocheckpoint = 1000;"
				      "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON";

	return sqlite3_exec(db, pragmas, NULL, NULL, NULL) == SQLITE_OK ? 0 : sql_error(db, e);
}

/* SQLite's check tells of a page that could not be read as of one that is wrong, but for the code in its text. */
static bool is_unread(const char *finding)
{
	const char *code = strstr(finding, "error code=");
	int primary = code != NULL ? atoi(code + strlen("error code=")) & 0xff : SQLITE_CORRUPT;

	return primary != SQLITE_CORRUPT && primary != SQLITE_NOTADB;
}

/* Pages, indexes, the schema's own rules (types, CHECK, NOT NULL, UNIQUE), references. */
static int check(sqlite3 *db, struct phi_error *e)
{
	static const char *const checks[] = {
		"SELECT integrity_check FROM pragma_integrity_check(1) WHERE integrity_check <> 'ok'",
		"SELECT 'a row of ' || \"table\" || ' belongs to nothing' FROM pragma_foreign_key_check LIMIT 1",
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < PHI_COUNT(checks); i++) {
		sqlite3_stmt *st = NULL;
		int rc = sqlite3_prepare_v2(db, checks[i], -1, &st, NULL);

		if (rc == SQLITE_OK)
			rc = sqlite3_step(st);
		if (rc == SQLITE_ROW && is_unread(sql_text(st, 0)))
			r = phi_error_set(e, PHI_STORAGE, EIO, "", "the database cannot be read: %.100s", sql_text(st, 0));
		else if (rc == SQLITE_ROW)
			r = phi_error_set(e, PHI_STORAGE, EBADMSG, "", "the database is damaged: %.100s", sql_text(st, 0));
		else if (rc != SQLITE_DONE)
			r = rc == SQLITE_ERROR ? (sql_error(db, e), -EBADMSG) : sql_error(db, e);
		sqlite3_finalize(st);
	}
	return r;
}

static int open_and_check(const char *path, sqlite3 **ret, struct phi_error *e)
{
	sqlite3 *db = NULL;
	int version = 0, r = open_db(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &db, e);

	if (r < 0)
		return r;
	sqlite3_busy_timeout(db, 2000);
	sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL); /* what is set aside stays as it was */
	r = schema_whose(db, &version, e);
	if (r == 0)
		r = configure(db, e);
	if (r == 0)
		r = check(db, e);
	if (r == 0)
		r = schema_migrate(db, path, version, e);
	if (r == 0)
		r = schema_put_right(db, e);
	if (r < 0) {
		sqlite3_close(db);
		return r;
	}
	sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	*ret = db;
	return 0;
}

/* Renames phid.db and its companions so that nothing of them is lost. */
static void set_aside(const char *dir, const char *why)
{
	static const char *const parts[] = {"", "-wal", "-shm"};
	char from[PHI_PATH_MAX + 64], to[PHI_PATH_MAX + 64];
	long long now = (long long)time(NULL);

	do /* a name that is not taken */
		snprintf(to, sizeof(to), "%s/phid.db.%s-%lld", dir, why, now);
	while (access(to, F_OK) == 0 && now++ > 0);
	for (size_t i = 0; i < PHI_COUNT(parts); i++) {
		snprintf(from, sizeof(from), "%s/phid.db%s", dir, parts[i]);
		snprintf(to, sizeof(to), "%s/phid.db.%s-%lld%s", dir, why, now, parts[i]);
		if (rename(from, to) < 0 && i == 0)
			return;
	}
}

static void *commit_main(void *arg)
{
	struct store *s = arg;
	const uint64_t one = 1;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		while (!s->commit_asked && !s->quit)
			pthread_cond_wait(&s->wake, &s->lock);
		if (!s->commit_asked)
			break;
		pthread_mutex_unlock(&s->lock);
		s->commit_rc = sqlite3_exec(s->db[STORE_WRITE], "COMMIT", NULL, NULL, NULL);
		if (s->commit_rc != SQLITE_OK) {
			snprintf(s->commit_message, sizeof(s->commit_message), "%s", sqlite3_errmsg(s->db[STORE_WRITE]));
			if (!sqlite3_get_autocommit(s->db[STORE_WRITE]))
				sqlite3_exec(s->db[STORE_WRITE], "ROLLBACK", NULL, NULL, NULL);
		}
		pthread_mutex_lock(&s->lock);
		s->commit_asked = false;
		pthread_mutex_unlock(&s->lock); /* nobody is woken to wait for it */
		if (write(s->done_fd, &one, sizeof(one)) < 0)
			abort();
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int store_open(const char *dir, struct store **ret, const char **ret_note, struct phi_error *e)
{
	char path[PHI_PATH_MAX + 16];
	struct store *s;
	struct stat st;
	int r;

	*ret_note = NULL;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		abort();
	s->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->wake, NULL);
	snprintf(path, sizeof(path), "%s/phid.db", dir);
	r = stat(path, &st) == 0 && !S_ISREG(st.st_mode) ? -EBADMSG : open_and_check(path, &s->db[STORE_WRITE], e);
	if (r == -EBADMSG || r == -EPROTO) {
		bool newer = r == -EPROTO;

		set_aside(dir, newer ? "newer" : "damaged");
		*ret_note = newer ? "the database has a newer schema; it was set aside and a new one begun"
				  : "the database is damaged; it was set aside and a new one begun";
		r = open_and_check(path, &s->db[STORE_WRITE], e);
	}
	if (r == 0)
		r = open_db(path, SQLITE_OPEN_READONLY, &s->db[STORE_READ], e);
	if (r == 0)
		r = configure(s->db[STORE_READ], e);
	s->durable = true; /* by configure */
	if (r == 0 && pthread_create(&s->thread, NULL, commit_main, s) != 0)
		r = phi_error_set(e, PHI_INTERNAL, errno, "", "cannot start the commit thread");
	if (r < 0) {
		sqlite3_close(s->db[STORE_WRITE]);
		sqlite3_close(s->db[STORE_READ]);
		close(s->done_fd);
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (s == NULL)
		return;
	pthread_mutex_lock(&s->lock);
	s->quit = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	for (int side = STORE_READ; side >= STORE_WRITE; side--) { /* the writer last: it checkpoints */
		for (size_t i = 0; i < STORE_STATEMENTS_MAX; i++)
			sqlite3_finalize(s->cache[side][i].stmt);
		sqlite3_close(s->db[side]);
	}
	close(s->done_fd);
	store_kept_drop(s);
	free(s);
}

/* ---- transactions ---- */

int store_begin(struct store *s, bool durable, struct phi_error *e)
{
	int r;

	s->begun = false;
	/* With a write-ahead log, NORMAL leaves out the sync of a COMMIT and nothing else (pragma.html#pragma_synchronous). */
	if (durable != s->durable &&
	    sqlite3_exec(s->db[STORE_WRITE], durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", NULL, NULL, NULL) != SQLITE_OK)
		return sql_error(s->db[STORE_WRITE], e);
	s->durable = durable;
	r = sql_run(s, e, "BEGIN IMMEDIATE", "");
	s->begun = r == 0;
	return r;
}

bool store_is_durable(const struct store *s)
{
	return s->durable;
}

int store_save(struct store *s, struct phi_error *e)
{
	s->kept_changed = false;
	return sql_run(s, e, "SAVEPOINT one", "");
}

void store_release(struct store *s)
{
	if (sql_run(s, NULL, "RELEASE one", "") < 0)
		store_kept_drop(s);
}

void store_rollback_to(struct store *s)
{
	if (s->kept_changed)
		store_kept_drop(s);
	if (sql_run(s, NULL, "ROLLBACK TO one", "") < 0 || sql_run(s, NULL, "RELEASE one", "") < 0)
		store_rollback(s); /* all of it then: nothing half done is committed */
}

bool store_in_transaction(const struct store *s)
{
	return !sqlite3_get_autocommit(s->db[STORE_WRITE]);
}

void store_rollback(struct store *s)
{
	store_kept_drop(s);
	s->begun = false;
	sqlite3_exec(s->db[STORE_WRITE], "ROLLBACK", NULL, NULL, NULL);
	if (store_in_transaction(s))
		abort();
}

void store_commit_start(struct store *s)
{
	pthread_mutex_lock(&s->lock);
	s->commit_asked = true;
	pthread_mutex_unlock(&s->lock);
	pthread_cond_signal(&s->wake);
}

int store_commit_fd(const struct store *s)
{
	return s->done_fd;
}

int store_commit_result(struct store *s, struct phi_error *e)
{
	uint64_t n;

	if (read(s->done_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		abort();
	s->begun = false;
	if (s->commit_rc == SQLITE_OK)
		return 0;
	store_kept_drop(s);
	return phi_error_set(e, PHI_STORAGE, EIO, "", "the database could not be written: %s", s->commit_message);
}
