/* What is under way on one container: the steps of a verb, each begun, observed and committed. One at a time a
 * container. See ARCHITECTURE.md, "The life of a request". */
#pragma once

#include "alloc.h"
#include "phid.h"

/* How a caller hears of the outcome. Called once, on the loop. e NULL: done, with the HTTP status. */
struct waiter {
	struct waiter *next;
	void (*reply)(void *ud, int status, const struct phi_error *e, const struct alloc_refusal *refusal);
	void *ud;
};

struct operation {
	struct phid *p;
	struct cell *cell;
	enum container_verb verb;
	enum op_step {
		OP_INTENT,  /* what is to be destroyed is written down; goes on after a second, disk or no disk */
		OP_KEEPER,  /* waits for the keeper */
		OP_LINKS,   /* waits for the creates of older cells at its links, operation_make.c */
		OP_MAKE,    /* the parts of a create come together, operation_make.c */
		OP_ACT,
		OP_OBSERVE,
		OP_COMMIT,
		OP_UNWRITTEN, /* the outcome could not be committed; its callers were told, and it is tried again */
	} step;
	unsigned missing;    /* enum op_part, in OP_MAKE */
	struct make_job *job; /* under way */
	bool looked; /* of a create taken up: whether there is a cell at all */
	bool resuming, failing; /* taken up after a start of phid; being undone */
	uint64_t token;
	struct loop_source *deadline, *again, *patience;
	struct waiter *waiters;
	struct phi_error error;
	int64_t uid;
	char *key;
	char request[80];
	int signal; /* of kill */
	bool ask;   /* of kill: the guest is asked to power down; nothing else changes, and that is the outcome */
	const char *reason; /* of kill, where it is not "killed" */
	bool intent_open;   /* the transaction of the intent is on its way */
	bool detached;	    /* superseded: another operation has the cell */
	bool seen_gone;	    /* observe showed no cell: the units may be released */
	bool quarantine;    /* the cell was to go and was not seen gone in time */
	unsigned looks;	    /* at a cell that is to go */
	char seen[256];	    /* what the last of them saw */
	int status;	    /* HTTP, of a good outcome */
};

enum op_part { PART_DIR = 1, PART_KEEPER = 2, PART_CELL = 4 };

/* cells.c */
struct cell *cell_of_incarnation(struct phid *p, const char *incarnation);

/* Makes the operation the cell's; NULL if there is one already that is not only unwritten. waiter may be NULL (it is taken over). */
struct operation *operation_new(struct phid *p, struct cell *c, enum container_verb verb, struct waiter *waiter);
void operation_go(struct operation *op);
/* Ends it at once with an error to its callers and no change; another comes in its place. */
void operation_supersede(struct operation *op);
void operation_join(struct operation *op, struct waiter *w);
/* Takes up what the database says was begun, after a start. done(p) when it is decided. */
void operation_resume(struct phid *p, struct cell *c, const struct container *row);
void operation_fail(struct operation *op, const struct phi_error *e);
void operation_act(struct operation *op);
void operation_observe(struct operation *op);

/* operation_make.c */
void operation_make(struct operation *op);
/* It is there; or, with e, will not be. */
void operation_part(struct operation *op, enum op_part part, const struct phi_error *e);
void operation_make_forget(struct operation *op); /* op is about to be freed */
/* A cell with links was made, or is gone: who waited for it looks again, on the next turn of the loop. */
void operation_links_changed(struct phid *p);

/* From the keepers. */
void operation_keeper_came(struct phid *p, struct cell *c);
void operation_keeper_left(struct cell *c);
/* The creator died before it heard: the container goes, whatever it does. */
void operation_undo(struct phid *p, struct cell *c);
/* Looks every now and then whether a cell without a keeper is still there. */
void operation_watch(struct phid *p, struct cell *c);

/* commit.c: the transactions of an operation. The intent's calls intent_done; it may fail without harm. */
void operation_write_intent(struct operation *op, void (*intent_done)(void *ud, const struct phi_error *e));
void operation_commit(struct operation *op);
void operation_free(struct operation *op);
/* Is the cell to be gone in the end? */
bool operation_destroys(const struct operation *op);
/* A guest's end as the record has it, from its JSON. */
void operation_read_end(const char *text, struct cell_end *ret);
void waiter_reply(struct waiter *w, int status, const struct phi_error *e, const struct alloc_refusal *r);

/* unit.c: keepers as transient services of systemd. */
bool unit_wanted(void);
int unit_start(int64_t row, char *const argv[], struct phi_error *e); /* blocks until systemd has answered */

/* waits.c */
void phid_changed(struct phid *p);
