/* The daemon's one struct, and the calls between its parts. No other state is global but what a backend keeps. */
#pragma once

#include "backend.h"
#include "cpuset.h"
#include "lifecycle.h"
#include "platform.h"
#include "store.h"

#include <stdbool.h>

struct batch;
struct check_facts;
struct http;
struct jobs;
struct keepers;
struct loop;

struct config {
	char *file, *socket, *state_dir, *runtime_dir, *platform, *keeper, *host_root, *root_cell;
	const char *backends[8]; /* names, in order of preference */
	size_t n_backends;
	int log_level; /* syslog's */
	int64_t action_timeout_ms;
	int64_t vm_uid_base;
	bool check_only, discover;
};

#define INCARNATION_BUCKETS 1024
size_t incarnation_bucket(const char *incarnation);

struct phid {
	struct config config;
	struct platform platform;
	struct loop *loop;
	struct store *store;
	struct batch *batch;
	struct jobs *jobs;
	struct http *http;
	struct keepers *keepers;
	const struct backend *backends[8];
	size_t n_backends;
	struct cell *cells[1024]; /* by row, chained */
	struct cell *named[INCARNATION_BUCKETS]; /* the same ones, by incarnation */
	char boot_id[PHI_UUID_LEN + 1];
	const char *store_note;
	uint64_t next_token;
	struct loop_source *changed; /* records changed: look who waits */
	struct loop_source *links;   /* operation_links_changed */
	struct wait *waits;
	struct attach *attaches;
	bool ready, stopping;
};

/* config.c: command line and file. Answers 0, 1 to exit well (--version), or negative. */
int config_read(struct config *c, int argc, char **argv, struct phi_error *e);
void config_free(struct config *c);

/* host.c: what the running machine has. */
int host_discover(struct platform *p, const struct config *c, struct phi_error *e);
void host_boot_id(char ret[PHI_UUID_LEN + 1]);
void host_uuid(char ret[PHI_UUID_LEN + 1]);
/* phid itself moves to the host's CPUs; *ret is where emulators run. */
void host_stay(const struct platform *p, struct cpuset *ret);
struct json *host_to_json(const struct phid *p, const struct check_facts *facts);

/* cells.c: handles of living cells, and their directories. */
/* Of a container of an enabled backend; its spec is taken over. */
struct cell *cell_new(struct phid *p, const struct container *row, struct spec *spec);
void cell_free(struct phid *p, struct cell *c);
/* It is another container's from now on. */
void cell_rename(struct phid *p, struct cell *c, const char *id, const char *incarnation);
struct cell *cell_of_row(struct phid *p, int64_t row);
/* The row of a cell that phid named; 0: its name is not one of phid's. */
#define CELL_NAME "phid-%lld"
int64_t cell_row_of_name(const char *name);
/* <state_dir>/cells/<row>/<file> ("" for the directory). */
void cell_path(const struct phid *p, int64_t row, const char *file, char *ret, size_t size);
/* Makes directory, lock and console file; blocking, for a job. */
int cell_dir_make(const char *dir, uid_t uid, gid_t gid, uint64_t log_size, struct phi_error *e);
void cell_dir_remove(struct phid *p, int64_t row); /* in a job */

/* lost.c: guests whose records are lost. */
/* Is an unknown keeper's guest one of them? Then it is noted and its CPUs are held. */
bool lost_hold(struct phid *p, const char *incarnation, pid_t pid);
/* It is gone, if it is one. */
void lost_ended(struct phid *p, const char *incarnation);
/* After a start, before keepers come: those that ended meanwhile are held no more. */
void lost_settle(struct phid *p);
/* The database was lost, and a keeper that holds a directory has not come yet: what its guest has is not known. */
bool lost_awaited(const struct phid *p);
/* New rows come behind every directory of a cell: no two cells have one name. */
int lost_rows(struct phid *p, struct store *s, struct phi_error *e);
/* Is the directory of that row one of theirs? */
bool lost_has(const struct phid *p, int64_t row);
/* Is it one that goes on without its keeper, as its spec says? */
bool cell_is_kept(const struct cell *c);
/* The text of the exit file, or NULL. */
char *cell_exit_text(const struct phid *p, int64_t row);
const struct backend *backend_find(const struct phid *p, const char *name);
extern struct phid *the_phid; /* for the calls of backends, which carry no daemon */

/* attach.c: the keeper has passed on what it was given last. */
void attach_taken(struct phid *p, const struct cell *c);

/* Hooks of tests: kill points (dies by SIGKILL where PHID_KILL_AT names the point), faults, ticks; see hooks.c. */
#ifdef PHID_TEST_HOOKS
void killpoint(const char *verb, const char *step);
bool fault(const char *name);
void ticks_start(struct loop *l);
#else
static inline void ticks_start(struct loop *l)
{
	(void)l;
}
static inline void killpoint(const char *verb, const char *step)
{
	(void)verb;
	(void)step;
}
static inline bool fault(const char *name)
{
	(void)name;
	return false;
}
#endif
