/* Which verb is possible in which state of a container: the one table that the daemon, the documents and the
 * tests read. Pure. */
#pragma once

#include "error.h"

enum container_state {
	STATE_CREATING, /* reserved; the cell is being made */
	STATE_CREATED,	/* the cell is there, the guest has not begun */
	STATE_RUNNING,
	STATE_PAUSED,
	STATE_STOPPED, /* no cell, nothing held */
	STATE_MAX,
};

enum container_verb {
	VERB_CREATE, /* of the same id again */
	VERB_START,
	VERB_PAUSE,
	VERB_RESUME,
	VERB_KILL,
	VERB_DELETE,
	VERB_DELETE_FORCE,
	VERB_END, /* the guest ended by itself; no request */
	VERB_MAX,
};

extern const char *const lifecycle_states[STATE_MAX + 1];
extern const char *const lifecycle_verbs[VERB_MAX + 1];

/* PHI_OK where the verb may go on, else the code to answer. */
enum phi_code lifecycle_may(enum container_state s, enum container_verb v);
/* The same with a sentence, in the words that containerd and its like look for (the shim of runc, v2). */
int lifecycle_check(enum container_state s, enum container_verb v, const char *id, struct phi_error *e);
enum container_state lifecycle_state(const char *word); /* STATE_MAX if unknown */
enum container_verb lifecycle_verb(const char *word);	/* VERB_MAX if unknown */
