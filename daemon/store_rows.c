/* Containers, events and idempotency keys in the database. */
#include "store_sql.h"

#include "clean.h"
#include "id.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define EVENTS_KEPT 20000
#define KEYS_KEPT   50000
#define KEYS_KEPT_S 86400
#define COLUMNS                                                                                              \
	"row, id, incarnation, generation, state, op, op_uid, op_key, backend, spec, payload, cell, exit, bundle, " \
	"oci_id, oci_root, annotations, owner_uid, owner_gid, keeper_by, keeper_pid, keeper_start, boot_id, "     \
	"created_at, started_at, stopped_at, op_signal"

void container_done(struct container *c)
{
	char *owned[] = {c->op_key, c->spec, c->payload, c->cell, c->exit, c->bundle, c->oci_id, c->oci_root, c->annotations};

	for (size_t i = 0; i < PHI_COUNT(owned); i++)
		free(owned[i]);
	*c = (struct container){0};
}

static char *column_dup(sqlite3_stmt *st, int column)
{
	return sqlite3_column_type(st, column) != SQLITE_NULL ? phi_strdup(sql_text(st, column)) : NULL;
}

static void read_row(sqlite3_stmt *st, struct container *c)
{
	*c = (struct container){
		.row = sqlite3_column_int64(st, 0),
		.generation = sqlite3_column_int64(st, 3),
		.state = lifecycle_state(sql_text(st, 4)),
		.op = sqlite3_column_type(st, 5) == SQLITE_NULL ? VERB_MAX : lifecycle_verb(sql_text(st, 5)),
		.op_uid = sqlite3_column_int64(st, 6),
		.op_key = column_dup(st, 7),
		.spec = column_dup(st, 9),
		.payload = column_dup(st, 10),
		.cell = column_dup(st, 11),
		.exit = column_dup(st, 12),
		.bundle = column_dup(st, 13),
		.oci_id = column_dup(st, 14),
		.oci_root = column_dup(st, 15),
		.annotations = column_dup(st, 16),
		.owner_uid = (uid_t)sqlite3_column_int64(st, 17),
		.owner_gid = (gid_t)sqlite3_column_int64(st, 18),
		.keeper_by_phid = strcmp(sql_text(st, 19), "phid") == 0,
		.keeper_pid = sqlite3_column_int(st, 20),
		.keeper_start = (uint64_t)sqlite3_column_int64(st, 21),
	};
	c->op_signal = sqlite3_column_int(st, 26);
	snprintf(c->id, sizeof(c->id), "%s", sql_text(st, 1));
	snprintf(c->incarnation, sizeof(c->incarnation), "%s", sql_text(st, 2));
	snprintf(c->backend, sizeof(c->backend), "%s", sql_text(st, 8));
	snprintf(c->boot_id, sizeof(c->boot_id), "%s", sql_text(st, 22));
	snprintf(c->created_at, sizeof(c->created_at), "%s", sql_text(st, 23));
	snprintf(c->started_at, sizeof(c->started_at), "%s", sql_text(st, 24));
	snprintf(c->stopped_at, sizeof(c->stopped_at), "%s", sql_text(st, 25));
}

static int read_one(sqlite3_stmt *st, struct container *c, const char *what, struct phi_error *e)
{
	int r;

	if (st == NULL)
		return -EIO;
	r = sql_step(st, e);
	if (r > 0)
		read_row(st, c);
	sql_end(st);
	if (r == 0)
		return phi_error_set(e, PHI_NOT_FOUND, ENOENT, "", "container does not exist: %s", what);
	return r < 0 ? r : 0;
}

int store_container_by_id(struct store *s, enum store_side side, const char *id, struct container *c, struct phi_error *e)
{
	return read_one(sql_begin(s, side, e, "SELECT " COLUMNS " FROM containers WHERE id = ?", "t", id), c, id, e);
}

int store_container_by_row(struct store *s, enum store_side side, int64_t row, struct container *c, struct phi_error *e)
{
	return read_one(sql_begin(s, side, e, "SELECT " COLUMNS " FROM containers WHERE row = ?", "i", row), c,
			"(by row)", e);
}

int store_container_by_incarnation(struct store *s, enum store_side side, const char *incarnation, struct container *c,
				   struct phi_error *e)
{
	return read_one(sql_begin(s, side, e, "SELECT " COLUMNS " FROM containers WHERE incarnation = ?", "t", incarnation),
			c, incarnation, e);
}

static int read_all(sqlite3_stmt *st, void (*each)(void *ud, const struct container *c), void *ud, struct phi_error *e)
{
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0) {
		_clean_container_ struct container c = {0};

		read_row(st, &c);
		each(ud, &c);
	}
	sql_end(st);
	return r;
}

int store_containers(struct store *s, enum store_side side, const char *state, const char *backend, const char *after,
		     unsigned limit, void (*each)(void *ud, const struct container *c), void *ud, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, side, e,
				     "SELECT " COLUMNS " FROM containers WHERE id > ?1 AND (?2 IS NULL OR state = ?2) "
				     "AND (?3 IS NULL OR backend = ?3) ORDER BY id LIMIT ?4",
				     "ttti", after ? after : "", state, backend, (int64_t)limit);

	return read_all(st, each, ud, e);
}

int store_containers_alike(struct store *s, const char *spec, const char *payload, uid_t uid,
			   void (*each)(void *ud, const struct container *c), void *ud, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, STORE_WRITE, e,
				     "SELECT " COLUMNS " FROM containers WHERE state = 'running' AND op IS NULL AND spec = ? AND payload = ? "
				     "AND owner_uid = ? ORDER BY row",
				     "tti", spec, payload, (int64_t)uid);

	return read_all(st, each, ud, e);
}

int64_t store_containers_count(struct store *s, enum store_side side)
{
	return sql_int(s, side, "SELECT count(*) FROM containers");
}

static const char *op_word(const struct container *c)
{
	return c->op < VERB_MAX ? lifecycle_verbs[c->op] : NULL;
}

static const char *or_null(const char *text)
{
	return text[0] != '\0' ? text : NULL;
}

int store_container_insert(struct store *s, struct container *c, struct phi_error *e)
{
	int r;

	c->generation = 1;
	store_now(c->created_at);
	r = sql_run(s, e,
		    "INSERT INTO containers (id, incarnation, state, op, op_uid, op_key, backend, spec, payload, bundle, "
		    "oci_id, oci_root, annotations, owner_uid, owner_gid, keeper_by, boot_id, created_at) "
		    "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
		    "ttttittttttttiittt", c->id, c->incarnation, lifecycle_states[c->state], op_word(c), c->op_uid, c->op_key,
		    c->backend, c->spec, c->payload, c->bundle, c->oci_id, c->oci_root, c->annotations,
		    (int64_t)c->owner_uid, (int64_t)c->owner_gid, c->keeper_by_phid ? "phid" : "caller", c->boot_id,
		    c->created_at);
	c->row = sqlite3_last_insert_rowid(s->db[STORE_WRITE]);
	return r;
}

int store_container_update(struct store *s, struct container *c, struct phi_error *e)
{
	c->generation++;
	return sql_run(s, e,
		       "UPDATE containers SET generation = ?, state = ?, op = ?, op_uid = ?, op_key = ?, op_signal = ?, cell = ?, exit = ?, "
		       "keeper_pid = ?, keeper_start = ?, boot_id = ?, started_at = ?, stopped_at = ? WHERE row = ?",
		       "ittitittiittti", c->generation, lifecycle_states[c->state], op_word(c), c->op_uid, c->op_key,
		       (int64_t)c->op_signal, c->cell,
		       c->exit, (int64_t)c->keeper_pid, (int64_t)c->keeper_start, c->boot_id, or_null(c->started_at),
		       or_null(c->stopped_at), c->row);
}

int store_container_rename(struct store *s, const struct container *c, const char *bundle, const char *oci_id, const char *oci_root,
			   const char *annotations, struct phi_error *e)
{
	store_kept_drop(s); /* an owner has another name */
	return sql_run(s, e,
		       "UPDATE containers SET id = ?, incarnation = ?, keeper_by = ?, bundle = ?, oci_id = ?, oci_root = ?, annotations = ? "
		       "WHERE row = ?",
		       "ttttttti", c->id, c->incarnation, c->keeper_by_phid ? "phid" : "caller", bundle, oci_id, oci_root,
		       annotations ? annotations : "{}", c->row);
}

int store_container_delete(struct store *s, int64_t row, struct phi_error *e)
{
	return sql_run(s, e, "DELETE FROM containers WHERE row = ?", "i", row);
}

/* ---- events ---- */

int store_event_insert(struct store *s, const char *type, const char *container, const char *incarnation,
		       const char *detail, struct phi_error *e)
{
	char at[32];
	int r;

	store_now(at);
	r = sql_run(s, e, "INSERT INTO events (at, type, container, incarnation, detail) VALUES (?,?,?,?,?)", "ttttt", at, type,
		    container, incarnation, detail ? detail : "{}");
	if (r < 0)
		return r;
	return sql_run(s, e, "DELETE FROM events WHERE seq <= last_insert_rowid() - ?", "i", (int64_t)EVENTS_KEPT);
}

int64_t store_events_last(struct store *s, enum store_side side)
{
	return sql_int(s, side, "SELECT coalesce(max(seq), 0) FROM events");
}

int store_events(struct store *s, int64_t after, unsigned limit, void (*each)(void *ud, const struct event *ev),
		 void *ud, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, STORE_READ, e,
				     "SELECT seq, at, type, container, incarnation, detail FROM events WHERE seq > ? ORDER BY seq LIMIT ?", "ii",
				     after, (int64_t)(limit > 0 ? limit : 1));
	bool any = false;
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0) {
		long long seq = sqlite3_column_int64(st, 0);

		if (!any && after >= 0 && seq > after + 1) { /* they are numbered without gaps */
			sql_end(st);
			return phi_error_set(e, PHI_GONE, ENOENT, "/after", "events up to %lld are no longer kept; begin with after=%lld", seq - 1,
					     seq - 1);
		}
		any = true;
		struct event ev = {
			.seq = seq,
			.at = sql_text(st, 1),
			.type = sql_text(st, 2),
			.container = (const char *)sqlite3_column_text(st, 3),
			.incarnation = (const char *)sqlite3_column_text(st, 4),
			.detail = sql_text(st, 5),
		};

		if (limit > 0)
			each(ud, &ev);
	}
	sql_end(st);
	return r;
}

/* ---- idempotency keys ---- */

int store_key_get(struct store *s, enum store_side side, uid_t uid, const char *key, struct idempotency *ret, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, side, e,
				     "SELECT request, incarnation, status, problem FROM idempotency WHERE uid = ? AND key = ?", "it",
				     (int64_t)uid, key);
	int r;

	if (st == NULL)
		return -EIO;
	r = sql_step(st, e);
	if (r > 0) {
		*ret = (struct idempotency){.status = sqlite3_column_int(st, 2), .problem = column_dup(st, 3)};
		snprintf(ret->request, sizeof(ret->request), "%s", sql_text(st, 0));
		snprintf(ret->incarnation, sizeof(ret->incarnation), "%s", sql_text(st, 1));
	}
	sql_end(st);
	return r < 0 ? r : r == 0 ? -ENOENT : 0;
}

/* Those of more than a day ago, and the oldest beyond KEYS_KEPT; one whose outcome is not known yet goes by its age alone. */
static int prune_keys(struct store *s, struct phi_error *e)
{
	return sql_run(s, e,
		       "DELETE FROM idempotency WHERE at < ? OR (rowid <= (SELECT max(rowid) FROM idempotency) - ? AND status IS NOT NULL)", "ii",
		       (int64_t)time(NULL) - KEYS_KEPT_S, (int64_t)KEYS_KEPT);
}

int store_key_insert(struct store *s, uid_t uid, const char *key, const char *request, const char *incarnation,
		     struct phi_error *e)
{
	int r = sql_run(s, e, "INSERT OR IGNORE INTO idempotency (uid, key, request, incarnation, at) VALUES (?,?,?,?,?)", "ittti",
			(int64_t)uid, key, request, incarnation, (int64_t)time(NULL));

	return r < 0 ? r : prune_keys(s, e);
}

int store_key_outcome(struct store *s, int64_t uid, const char *key, int status, const char *problem,
		      struct phi_error *e)
{
	if (key == NULL)
		return 0;
	return sql_run(s, e, "UPDATE idempotency SET status = ?, problem = ? WHERE uid = ? AND key = ?", "itit",
		       (int64_t)status, problem, uid, key);
}
