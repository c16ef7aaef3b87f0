/* Group commit: mutations of a turn of the loop are one transaction, whose COMMIT runs on the store's thread. */
#pragma once

struct batch;
struct loop;
struct phi_error;
struct store;

/* An apply's answer: what it found can only be done in a transaction that outlives a loss of power. It is taken back and comes again. */
#define BATCH_DURABLE 1

int batch_new(struct loop *l, struct store *s, struct batch **ret);

/* apply runs on the loop inside the transaction, in a savepoint of its own; a negative answer takes back what it
 * did. done runs on the loop: with NULL once the transaction is durable, else with why not. Both always run, but
 * apply is left out if the transaction could not begin. */
void batch_submit(struct batch *b, int (*apply)(struct store *s, void *ud, struct phi_error *e),
		  void (*done)(void *ud, const struct phi_error *e), void *ud);
/* As batch_submit, for an intent: after a loss of power there is no cell that it could be of, so that nobody waits for the disk.
 * store_is_durable tells apply whether the transaction is so all the same. */
void batch_intend(struct batch *b, int (*apply)(struct store *s, void *ud, struct phi_error *e),
		  void (*done)(void *ud, const struct phi_error *e), void *ud);
