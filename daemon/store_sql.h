/* The store's own innards: connections, prepared statements, errors, the schema. Only the store's files include this. */
#pragma once

#include "store.h"

#include <pthread.h>
#include <sqlite3.h>

#define STORE_STATEMENTS_MAX 96

struct store {
	sqlite3 *db[2]; /* by enum store_side */
	struct {
		const char *sql; /* the literal's address is the key */
		sqlite3_stmt *stmt;
	} cache[2][STORE_STATEMENTS_MAX];
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool commit_asked, quit;
	bool begun;   /* a transaction, which SQLite may have taken back meanwhile */
	bool durable; /* that one */
	int commit_rc, done_fd;
	char commit_message[200];
	struct alloc_view *kept; /* store_kept.c; NULL: to be read */
	bool kept_changed;	 /* since the savepoint */
};

/* A ready statement with its arguments bound: one of "itnb"... per argument: i int64_t, t const char * (NULL is
 * NULL), n nothing (NULL). NULL with the error set if it cannot be prepared. Reset it with sql_end. */
sqlite3_stmt *sql_begin(struct store *s, enum store_side side, struct phi_error *e, const char *sql, const char *types, ...);
/* SQLITE_ROW 1, SQLITE_DONE 0, else the negative errno with the error set. */
int sql_step(sqlite3_stmt *st, struct phi_error *e);
void sql_end(sqlite3_stmt *st);
/* begin, one step, end. */
int sql_run(struct store *s, struct phi_error *e, const char *sql, const char *types, ...);
int64_t sql_int(struct store *s, enum store_side side, const char *sql);
/* A column as text, never NULL. */
const char *sql_text(sqlite3_stmt *st, int column);

/* What the connection says of its last call. EBADMSG: the file is no database, or no whole one. Everything else, EIO, may be otherwise the
 * next time. */
int sql_error(sqlite3 *db, struct phi_error *e);

/* store_schema.c */
/* Whose the file is, before anything is written to it. EBADMSG: not phid's, EPROTO: of a newer phid. */
int schema_whose(sqlite3 *db, int *ret_version, struct phi_error *e);
/* To the newest version, with a copy of the older kept beside it. EBADMSG: what is there is not what its version says. */
int schema_migrate(sqlite3 *db, const char *path, int version, struct phi_error *e);
/* Indexes and triggers that somebody dropped or changed are made again; EBADMSG: a table is not as it should be, or holds what an index
 * refuses. Other tables, indexes and triggers stay. */
int schema_put_right(sqlite3 *db, struct phi_error *e);

/* store_kept.c */
void store_kept_change(struct store *s, int64_t row, const struct alloc_grant *g);
void store_kept_drop(struct store *s);

/* store_units.c: the part of the vector for devices, remote processors, interrupts and links. */
int store_units_vector(struct store *s, enum store_side side, struct alloc_view *v, struct phi_error *e);
int store_units_insert(struct store *s, int64_t row, const struct alloc_grant *g, struct phi_error *e);
int store_units_read(struct store *s, enum store_side side, int64_t row, struct alloc_grant *g, struct phi_error *e);
int store_units_release(struct store *s, int64_t row, struct phi_error *e);
int store_units_quarantine(struct store *s, int64_t row, struct phi_error *e);
