/* What a backend is, and what the daemon does for it. A backend drives one hypervisor; it includes api/ and this.
 *
 * The contract. Actions begin now and end once, on the loop, by cell_acted with the token they were begun with; the
 * daemon has the deadlines and ignores late answers. An action is idempotent: it may be begun again after a kill -9 of
 * the daemon. A backend never believes a return code: what is there is told by observe, which asks the hypervisor.
 * Everything that can block goes to a job (daemon/jobs.h), never into a callback. */
#pragma once

#include "grant.h"
#include "limits.h"
#include "spec.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct jobs;
struct json;
struct loop;
struct phi_error;
struct platform;

#define CELL_NAME_MAX 31 /* of a Jailhouse cell, the shortest of all (cell-config.h JAILHOUSE_CELL_NAME_MAXLEN) */
#define CELL_IMAGES_MAX 5

enum backend_can {
	CAN_PAUSE = 1,
	CAN_POWERDOWN = 2,	/* can ask the guest to end */
	CAN_PLACE = 4,		/* can put a guest at a given physical address */
	CELL_IS_PROCESS = 8,	/* the cell is a child of the keeper and lives no longer than it */
	IS_STAND_IN = 16,	/* no hypervisor: for tests */
};

enum cell_presence { CELL_ABSENT, CELL_CREATED, CELL_RUNNING, CELL_PAUSED, CELL_ENDED };

/* How a guest ended. */
struct cell_end {
	int code, signal;  /* exit status 0..255; the signal of a killed one, else 0 */
	char reason[24];   /* guest-shutdown, guest-exit, guest-panic, guest-reset, killed, failed, keeper-lost, lost */
	char detail[256];
};

struct observation {
	enum cell_presence presence;
	struct cell_end end; /* of CELL_ENDED */
};

/* What a cell has used since it was created. */
struct cell_stats {
	uint64_t user_ns, system_ns; /* CPU time, of all CPUs together */
	uint64_t resident;	     /* bytes of memory that it holds now */
	unsigned threads;
};

struct cell_image { /* an opened file of the bundle, sealed: what was hashed is what boots */
	const char *role; /* "kernel", "initrd", "inmate" */
	char *path;
	int fd;
	uint64_t size;
	char sha256[65];
};

/* One container that is not stopped, as long as it has or may have a cell. The daemon makes and frees it. */
struct cell {
	int64_t row;
	char id[PHI_ID_MAX + 1], incarnation[PHI_UUID_LEN + 1];
	char name[CELL_NAME_MAX + 1]; /* "phid-<row>" */
	const struct backend *backend;
	struct spec spec;
	struct alloc_grant grant;
	uid_t owner_uid;
	gid_t owner_gid;
	struct cell_image images[CELL_IMAGES_MAX]; /* only while it is being created */
	size_t n_images;
	char accel[8]; /* "kvm", "tcg"; "" where there is none */
	bool started;  /* it was, by the record or since */
	pid_t pid;     /* of the cell's process, 0: none */
	int console;   /* from create on, until the keeper has it; -1 */
	void *of_backend;
	/* The daemon's side; backends leave these alone. */
	struct keeper *keeper;
	struct operation *op;
	struct cell *next, *next_named;
	struct loop_source *watch;
	struct loop_source *escalation;
	char *end_text;
	struct cell_end end;
	bool made; /* its create was committed */
	bool ended, keeper_was_here, external_keeper, claimed;
	uint64_t promised_until; /* loop_now_ms: a claimant's keeper is on its way */
	pid_t keeper_pid;
	uint64_t keeper_start;
};

/* What the daemon tells a backend once. */
struct backend_env {
	struct loop *loop;
	struct jobs *jobs; /* not yet in init */
	const struct platform *platform;
	struct cpuset host_cpus; /* where emulator threads run */
	const char *runtime_dir;
	bool root; /* phid is privileged: guests drop to a user of their own */
	uid_t vm_uid_base; /* uid of a root-owned guest: base + row % 65536 */
};

struct backend {
	const char *name;
	unsigned can; /* enum backend_can */
	/* Looks whether it works here; the verdict is for describe. An error only where phid's own set-up is broken. */
	int (*init)(const struct backend_env *env, struct phi_error *e);
	/* Adds members to the host document: available, why not, versions, accel. */
	void (*describe)(struct json *to);
	/* Pure: can this spec be run at all? */
	int (*validate)(const struct spec *s, const struct platform *p, struct phi_error *e);
	/* Actions. create: of a process, with its keeper there; of another cell, while the keeper is on its way, and the cell's console is
	 * left in c->console for hand. attach: the daemon was started anew and meets a living cell. destroy: of any state, also of none;
	 * never overtakes a create. */
	void (*create)(struct cell *c, uint64_t token);
	/* The cell was created and its keeper is there, which gets the presence lock and the console, by cell_spawn. At once. NULL: cells
	 * are processes. */
	int (*hand)(struct cell *c, struct phi_error *e);
	void (*attach)(struct cell *c, uint64_t token);
	void (*start)(struct cell *c, uint64_t token);
	void (*pause)(struct cell *c, uint64_t token);
	void (*resume)(struct cell *c, uint64_t token);
	void (*powerdown)(struct cell *c, uint64_t token);
	void (*destroy)(struct cell *c, uint64_t token);
	/* Ends by cell_observed. */
	void (*observe)(struct cell *c, uint64_t token);
	/* Names and tags of all cells that the hypervisor shows, by each(name, tag, cpus); done once. NULL: there is no
	 * such list beyond the presence locks. */
	void (*list)(void (*each)(void *ud, const char *name, const char *tag, const char *cpus),
		     void (*done)(void *ud, const struct phi_error *e), void *ud);
	/* From the keeper: its answer to cell_spawn, what the process's control channel said. */
	void (*spawned)(struct cell *c, int err);
	void (*control)(struct cell *c, const char *bytes, size_t n);
	/* Says how a process ended, from its wait status and the exit file's text. */
	void (*explain)(const struct cell *c, int wstatus, bool killed, int code, const char *exit_text, struct cell_end *ret);
	/* Never blocks. NULL: nothing of it is measured. */
	int (*stats)(const struct cell *c, struct cell_stats *ret, struct phi_error *e);
	/* The cell's handle goes away: free of_backend, forget pending tokens. */
	void (*forget)(struct cell *c);
};

extern const struct backend backend_qemu, backend_sim, backend_jailhouse;

/* --- what the daemon does for backends --- */

void cell_acted(struct cell *c, uint64_t token, const struct phi_error *e); /* e NULL: done */
void cell_observed(struct cell *c, uint64_t token, const struct observation *o, const struct phi_error *e);
/* The hypervisor said that the guest ended. */
void cell_ended(struct cell *c, const struct cell_end *end);
/* By row; NULL if that container has no cell (any more). */
struct cell *cell_by_name(const char *name);

/* What the keeper is to run. Arrays end in NULL. */
struct cell_process {
	const char *const *argv;  /* argv[0]: absolute path */
	const char *const *rules; /* pairs (decimal exit status, text in the last control output) */
	unsigned flags;		  /* KEEPER_AS_USER, KEEPER_ODD_IS_GUESTS */
	uid_t uid;
	gid_t gid, group;
	int fds[CELL_IMAGES_MAX]; /* found at KEEPER_IMAGE_FD on; not taken over */
	size_t n_fds;
};
bool cell_has_keeper(const struct cell *c);
/* A listening stream socket `name` in the cell's directory, for the caller to pass on and close; -1 if there is none. */
int cell_listen(const struct cell *c, const char *name);
/* Sends the process, or (p NULL) the console of a cell without one (taken over; -1: cell_output brings what it says), to the
 * keeper. It answers by spawned for a process. Negative with the error where there is no keeper. */
int cell_spawn(struct cell *c, const struct cell_process *p, int console, struct phi_error *e);
/* What the console of a cell said that has no descriptor for it. Lost where there is no keeper. */
void cell_output(struct cell *c, const char *bytes, size_t n);
int cell_control(struct cell *c, const char *text, size_t n);
/* SIGKILL for the cell's process: by the keeper, or by the pids in the presence lock where the keeper is silent. */
void cell_kill_process(struct cell *c);
/* Is the presence lock held? Of cells that are processes: is it there? */
bool cell_lock_held(const struct cell *c);
