/* The verbs on containers as a caller gives them: checked against the record, turned into operations. */
#pragma once

#include "bundle.h"
#include "operation.h"
#include "peer.h"

struct call {
	struct phid *p;
	struct peer peer;
	enum container_verb verb;
	char id[PHI_ID_MAX + 1];
	char incarnation[PHI_UUID_LEN + 1]; /* of the container that is meant; "" any. For create: the one to use */
	char *key;			    /* Idempotency-Key, or NULL */
	char request[80];		    /* method, path and body in short, to tell a reused key */
	int signal;			    /* of kill */
	int64_t timeout_ms;		    /* of kill: SIGKILL after that; -1 never */
	/* create */
	struct bundle bundle;
	char *oci_id, *oci_root;
	bool external_keeper, refuse_existing, dry_run;
	char *plan; /* the answer to a dry run, JSON */
	/* outcome */
	struct waiter *waiter;
	int status;
	bool again; /* forced delete: there is another record than the stopped one that it looked at */
	bool claimed; /* create: got a kept cell; start: of such a one, which runs already */
	struct alloc_refusal refusal;
	struct cell_image taken[CELL_IMAGES_MAX];
	int64_t row, join_row;
	struct container record;  /* of a create: as it was inserted, with what was granted */
	struct alloc_grant grant;
};

/* Takes the call over; its waiter hears once. A dry run's reply finds `plan` in the waiter's ud's hands: see on_plan. */
void call_create(struct call *c, void (*on_plan)(void *ud, const char *plan));
void call_verb(struct call *c);
void call_free(struct call *c);
/* For create.c: the waiter hears, the call is freed. */
void call_reply(struct call *c, int status, const struct phi_error *e);
/* An outcome on record for the call's key: 1 with *ret_status or *e; 0 if there is none. */
int call_replay(struct store *s, enum store_side side, struct call *c, int *ret_status, struct phi_error *e);

/* The container that is meant, in the right incarnation. *row must be zeroed. */
int call_find(const struct call *c, struct store *s, enum store_side side, struct container *row, struct phi_error *e);

/* release.c: gives up a container whose units are quarantined, or whose backend is not enabled. Takes the call over. */
void call_release(struct call *c);

/* claim.c. */
/* Is the cell of that record kept, without a keeper? */
bool claim_possible(struct phid *p, const struct container *old);
/* The record that this create may claim, -ENOENT if there is none; *ret must be zeroed. */
int claim_find(struct call *c, struct store *s, const char *spec, const char *payload, struct container *ret, struct phi_error *e);
/* In the transaction, a durable one (batch.h): the record becomes the call's container. */
int claim(struct call *c, struct store *s, struct container *old, struct phi_error *e);
/* After it: the handle, and the keeper; or nothing came of it. */
void claim_done(struct call *c);
void claim_failed(struct call *c);
/* In the transaction of a start: c->claimed says whether it is the first of a claimed cell, and done therefore. */
int claim_start(struct call *c, struct store *s, struct container *row, struct phi_error *e);

/* reconcile.c: compares the database with what is there; done(p) when phid may answer. */
void reconcile(struct phid *p, void (*done)(struct phid *p));
