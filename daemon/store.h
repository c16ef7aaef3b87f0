/* The database: the only file (with store_rows.c, store_vector.c) that speaks SQL. Two connections: one writes, one
 * reads. A batch of mutations is one transaction; its COMMIT runs on a thread of the store's own, so that the loop
 * never waits for a disk. Between hand-off and completion nobody touches the write connection. */
#pragma once

#include "alloc.h"
#include "cpuset.h"
#include "error.h"
#include "lifecycle.h"
#include "limits.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct json;
struct store;
struct platform;

/* Opens or makes DIR/phid.db. A damaged file is kept as phid.db.damaged-<time>, one with a newer schema as
 * phid.db.newer-<time>, and a fresh one is begun; *ret_note then says so in a sentence (static, else NULL). One with an older schema is
 * migrated in one transaction, a copy of it stays as phid.db.schema-<version>. */
int store_open(const char *dir, struct store **ret, const char **ret_note, struct phi_error *e);
void store_close(struct store *s);

/* In the first transaction of a start. What was not durable may be lost where boot_id is not the last one: rows, events and generations
 * go on behind any that somebody may have seen. */
int store_boot(struct store *s, const char *boot_id, struct phi_error *e);

/* --- a batch: begin, mutations each between save and release or rollback, then commit on the thread --- */
/* durable: the COMMIT is done when the disk has it, with all that came before. Else when others see it: it outlives any end of phid, not
 * a loss of power. */
int store_begin(struct store *s, bool durable, struct phi_error *e);
bool store_is_durable(const struct store *s); /* is the one that is open? */
int store_save(struct store *s, struct phi_error *e);
void store_release(struct store *s);
void store_rollback_to(struct store *s);
void store_rollback(struct store *s);
/* SQLite may end a transaction by itself when a statement fails (lang_transaction.html, "Response To Errors"). */
bool store_in_transaction(const struct store *s);
/* Begins COMMIT; store_commit_fd gets readable when it is done, then store_commit_result answers. */
void store_commit_start(struct store *s);
int store_commit_fd(const struct store *s);
int store_commit_result(struct store *s, struct phi_error *e);

/* --- containers --- */
struct container {
	int64_t row, generation;
	char id[PHI_ID_MAX + 1], incarnation[PHI_UUID_LEN + 1];
	enum container_state state;
	enum container_verb op; /* VERB_MAX: none */
	int64_t op_uid;
	char *op_key;
	int op_signal;
	char backend[16];
	char *spec, *payload, *cell, *exit, *bundle, *oci_id, *oci_root, *annotations;
	uid_t owner_uid;
	gid_t owner_gid;
	bool keeper_by_phid;
	pid_t keeper_pid;
	uint64_t keeper_start;
	char boot_id[PHI_UUID_LEN + 1];
	char created_at[32], started_at[32], stopped_at[32];
};
void container_done(struct container *c); /* frees what it holds */
#define _clean_container_ _clean_(container_done)

/* From which connection a read is made: inside of a batch from the writing one, else from the reading one. */
enum store_side { STORE_WRITE, STORE_READ };

/* -ENOENT with PHI_NOT_FOUND if there is none. *c must be zeroed. */
int store_container_by_id(struct store *s, enum store_side side, const char *id, struct container *c, struct phi_error *e);
int store_container_by_row(struct store *s, enum store_side side, int64_t row, struct container *c, struct phi_error *e);
int store_container_by_incarnation(struct store *s, enum store_side side, const char *incarnation, struct container *c,
				   struct phi_error *e);
/* Calls each for containers in id order behind `after`, at most limit; state or backend NULL: any. */
int store_containers(struct store *s, enum store_side side, const char *state, const char *backend, const char *after,
		     unsigned limit, void (*each)(void *ud, const struct container *c), void *ud, struct phi_error *e);
/* Running ones of that user without an open intent, with exactly this spec and payload; oldest first. Of the writing side. */
int store_containers_alike(struct store *s, const char *spec, const char *payload, uid_t uid,
			   void (*each)(void *ud, const struct container *c), void *ud, struct phi_error *e);
int64_t store_containers_count(struct store *s, enum store_side side);
/* Inserts with op create and state creating; fills row, generation and created_at. */
int store_container_insert(struct store *s, struct container *c, struct phi_error *e);
/* Writes state, op, cell, exit, keeper and times back; generation goes up by one. */
int store_container_update(struct store *s, struct container *c, struct phi_error *e);
/* Writes id, incarnation, keeper_by and what else names a container: whose bundle and OCI container it is. */
int store_container_rename(struct store *s, const struct container *c, const char *bundle, const char *oci_id, const char *oci_root,
			   const char *annotations, struct phi_error *e);
int store_container_delete(struct store *s, int64_t row, struct phi_error *e);

/* --- the vector --- */
int store_pools_write(struct store *s, const struct platform *p, struct phi_error *e);
int64_t store_generation(struct store *s, enum store_side side);
/* Fills in who owns what, all of one moment: marks the view's CPUs, appends its grants. */
int store_vector_read(struct store *s, enum store_side side, struct alloc_view *v, struct phi_error *e);
/* The same for the open transaction, kept between transactions; the store's, until its next change or end. */
int store_vector(struct store *s, const struct platform *p, struct alloc_view **ret, struct phi_error *e);
int store_grant_insert(struct store *s, int64_t row, const struct alloc_grant *g, struct phi_error *e);
/* *g is a grant, which is replaced. */
int store_grant_read(struct store *s, enum store_side side, int64_t row, struct alloc_grant *g, struct phi_error *e);
int store_grant_release(struct store *s, int64_t row, struct phi_error *e);
int store_grant_quarantine(struct store *s, int64_t row, struct phi_error *e);
/* How many of its CPUs, ranges and other units are quarantined. */
int64_t store_grant_quarantined(struct store *s, int64_t row);
/* The containers that have such, by id; every one of them has memory. */
int store_quarantined(struct store *s, enum store_side side, void (*each)(void *ud, const char *id), void *ud, struct phi_error *e);
/* Rows of containers that are inserted from now on are above n. */
int store_rows_beyond(struct store *s, int64_t n, struct phi_error *e);
/* Calls each for the observed cells of a backend. */
int store_observed(struct store *s, enum store_side side, const char *backend, void (*each)(void *ud, const char *name, const char *tag), void *ud);
int store_observed_remove(struct store *s, const char *backend, const char *name, struct phi_error *e);
int store_observed_clear(struct store *s, const char *backend, struct phi_error *e);
/* placed: phid gave it memory with an address, which is not known; then none such is free. */
int store_observed_insert(struct store *s, const char *backend, const char *name, const char *tag, const char *cpus,
			  bool placed, struct phi_error *e);

/* --- events --- */
struct event {
	int64_t seq;
	const char *at, *type, *container, *incarnation, *detail;
};
/* detail: JSON object text, or NULL. */
int store_event_insert(struct store *s, const char *type, const char *container, const char *incarnation,
		       const char *detail, struct phi_error *e);
/* Events behind `after`; -ENOENT with PHI_GONE if some behind it are no longer kept. limit 0: only that is looked at. */
int store_events(struct store *s, int64_t after, unsigned limit, void (*each)(void *ud, const struct event *ev),
		 void *ud, struct phi_error *e);
int64_t store_events_last(struct store *s, enum store_side side);

/* --- idempotency keys --- */
struct idempotency {
	char request[80], incarnation[PHI_UUID_LEN + 1];
	int status; /* 0: no outcome is on record */
	char *problem;
};
/* -ENOENT if the key is new. */
int store_key_get(struct store *s, enum store_side side, uid_t uid, const char *key, struct idempotency *ret, struct phi_error *e);
/* Notes what the key is used for; nothing happens where it is noted already. Forgets keys that are older than a day, and of more than
 * 50,000 the oldest that have an outcome. */
int store_key_insert(struct store *s, uid_t uid, const char *key, const char *request, const char *incarnation,
		     struct phi_error *e);
int store_key_outcome(struct store *s, int64_t uid, const char *key, int status, const char *problem,
		      struct phi_error *e);

/* RFC 3339 UTC with milliseconds. */
void store_now(char ret[32]);
