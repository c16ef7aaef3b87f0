/* The state x verb table. Pure. */
#include "lifecycle.h"

#include <string.h>

const char *const lifecycle_states[] = {"creating", "created", "running", "paused", "stopped", NULL};
const char *const lifecycle_verbs[] = {"create", "start", "pause", "resume", "kill", "delete", "force-delete", "end",
				       NULL};

/* Rows: verbs; columns: creating, created, running, paused, stopped. */
#define ok PHI_OK
#define no PHI_STATE
static const enum phi_code table[VERB_MAX][STATE_MAX] = {
	/*                     creating  created running paused stopped */
	[VERB_CREATE] =       {PHI_EXISTS, PHI_EXISTS, PHI_EXISTS, PHI_EXISTS, PHI_EXISTS},
	[VERB_START] =        {PHI_BUSY, ok, no, no, no},
	[VERB_PAUSE] =        {PHI_BUSY, no, ok, no, no},
	[VERB_RESUME] =       {PHI_BUSY, no, no, ok, no},
	[VERB_KILL] =         {PHI_BUSY, ok, ok, ok, no},
	[VERB_DELETE] =       {PHI_BUSY, no, no, no, ok},
	[VERB_DELETE_FORCE] = {ok, ok, ok, ok, ok},
	[VERB_END] =          {ok, ok, ok, ok, ok},
};
#undef ok
#undef no

enum phi_code lifecycle_may(enum container_state s, enum container_verb v)
{
	return s < STATE_MAX && v < VERB_MAX ? table[v][s] : PHI_INTERNAL;
}

int lifecycle_check(enum container_state s, enum container_verb v, const char *id, struct phi_error *e)
{
	enum phi_code c = lifecycle_may(s, v);

	if (c == PHI_OK)
		return 0;
	if (v == VERB_KILL && s == STATE_STOPPED)
		return phi_error_set(e, c, 0, "/state", "container not running: %s is stopped", id);
	if (v == VERB_DELETE)
		return phi_error_set(e, c, 0, "/state", "cannot delete container %s that is not stopped: %s", id,
				     lifecycle_states[s]);
	return phi_error_set(e, c, 0, "/state", "cannot %s container %s: it is %s", lifecycle_verbs[v], id,
			     lifecycle_states[s]);
}

static int find(const char *const *words, int n, const char *word)
{
	int i = 0;

	while (i < n && strcmp(words[i], word) != 0)
		i++;
	return i;
}

enum container_state lifecycle_state(const char *word)
{
	return (enum container_state)find(lifecycle_states, STATE_MAX, word);
}

enum container_verb lifecycle_verb(const char *word)
{
	return (enum container_verb)find(lifecycle_verbs, VERB_MAX, word);
}
