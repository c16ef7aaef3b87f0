/* The parts of runphi, the OCI runtime. */
#pragma once

#include "clean.h"
#include "error.h"
#include "id.h"
#include "limits.h"

#include <stdbool.h>
#include <sys/types.h>

struct json;
struct oci_config;

/* The limits that update takes as flags; runphi_update.c says what they are. */
enum {
	LIMIT_BLKIO_WEIGHT, LIMIT_CPU_PERIOD, LIMIT_CPU_QUOTA, LIMIT_CPU_SHARE, LIMIT_CPU_RT_PERIOD, LIMIT_CPU_RT_RUNTIME, LIMIT_CPU_IDLE,
	LIMIT_CPUSET_CPUS, LIMIT_CPUSET_MEMS, LIMIT_MEMORY, LIMIT_MEMORY_RESERVATION, LIMIT_MEMORY_SWAP, LIMIT_PIDS, LIMIT_L3_CACHE,
	LIMIT_MEM_BW, LIMITS,
};

/* What the command line says. Texts are argv's. */
struct invocation {
	char **argv; /* as given: what a forwarded runtime gets */
	const char *root, *log, *log_format;
	bool version, help;
	const char *command; /* NULL if there is none */
	const char *unknown; /* an option that nobody knows */
	/* of the command */
	const char *bundle, *pid_file, *console_socket, *preserve_fds, *format, *interval, *resources, *limits[LIMITS];
	bool force, all, detach, keep, quiet, stats;
	bool images_ask; /* an image may ask for a cell by carrying /boot/config.json */
	const char *words[4]; /* that are no options: the id, a signal */
	int n_words;
	/* where things are */
	char socket[108], runtime[PHI_PATH_MAX + 1], state_dir[PHI_PATH_MAX + 1];
};

/* runphi_args.c */
void args_read(struct invocation *v);
bool args_is_command(const char *word);
void args_print_commands(void);

/* runphi_marker.c: what is remembered of a managed container, STATE-DIR/<16 hex of --root>/<id>. It is complete when it
 * is there, but for a create that was killed within it: then it has no incarnation, and nothing was made. */
struct marker {
	char incarnation[PHI_UUID_LEN + 1], record[PHI_ID_MAX + 1];
	pid_t keeper;
	uint64_t keeper_start; /* clock ticks since boot, field 22 of /proc/<pid>/stat */
	char *cgroup;	       /* what we made for the keeper, or NULL */
	char *hooks;	       /* JSON: `hooks` of the bundle at create, or NULL */
};
/* 0; -ENOENT; -EBADMSG of one that was cut off; -EPERM of one that is neither root's nor the caller's. */
int marker_read(const struct invocation *v, const char *id, struct marker *ret);
int marker_write(const struct invocation *v, const char *id, const struct marker *m, struct phi_error *e);
void marker_remove(const struct invocation *v, const char *id);
void marker_path(const struct invocation *v, const char *id, char *ret, size_t size);
void marker_free(struct marker *m);
#define _clean_marker_ _clean_(marker_free)

/* runphi_forward.c */
/* Becomes the forwarded runtime; only comes back with an error. */
int forward(const struct invocation *v, struct phi_error *e);
/* What it prints for this very command; "" if it cannot be asked or fails. The caller frees it. */
char *forwarded_output(const struct invocation *v);
/* config.json of the bundle. c is freed by the caller. */
int bundle_read(const char *bundle, struct oci_config *c, struct phi_error *e);
/* Is the bundle of a create ours? 1 with *ret to be freed, 0, or negative. */
int bundle_is_managed(const struct invocation *v, const char *bundle, struct oci_config *ret, struct phi_error *e);
/* Is the container of a later command ours? 1 with *m filled, 0, or negative: it is another user's. */
int container_is_managed(const struct invocation *v, const char *id, struct marker *m, struct phi_error *e);
/* Is something of that id in the forwarded runtime's directory? */
bool forwarded_has(const struct invocation *v, const char *id);

/* runphi_keeper.c */
/* Begins the keeper of an incarnation. It keeps our stdio (or has the terminal, if that is not -1), what the caller wants kept,
 * and nothing else that leaked into us. own_network: it gets an empty network namespace, where we may make one. *ret_sync: our end
 * of its pipe; closed without a byte, it undoes the create and ends. Answers its pid. */
int keeper_begin(const struct invocation *v, const char *incarnation, int terminal, bool own_network, int *ret_sync, struct phi_error *e);
/* Waits for a keeper that is to go (it writes out the console first), and kills one that does not. */
void keeper_end(const struct marker *m);

/* runphi_hooks.c: `hooks` of config.json (runtime-spec config.md "POSIX-platform Hooks"). */
int hooks_check(const struct json *hooks, struct phi_error *e);
/* Runs those of one kind in their order, each with the state document on its stdin. The first failure ends it; of
 * poststop a failure is a warning and the rest go on. hooks: JSON text or NULL. */
int hooks_run(const char *hooks, const char *kind, const char *state, struct phi_error *e);

/* runphi_program.c: runs it with input on its stdin, in a process group of its own, and waits. An error tells its status and the first
 * words that it said. timeout_s 0: none. */
int program_run(const char *path, char **argv, char **env, const char *input, int64_t timeout_s, struct phi_error *e);

/* runphi_cgroup.c: the cgroup of the keeper, `linux.cgroupsPath`; all hierarchies of v1, or v2. */
/* A path: a hierarchy that refuses (read-only, a controller that is not delegated) is left out; all of them is an error.
 * "slice:prefix:name": a scope of systemd, which goes with its last process. */
int cgroup_check(const char *path, struct phi_error *e);
int cgroup_join(const char *path, pid_t pid, struct phi_error *e);
void cgroup_remove(const char *path);

/* runphi_console.c: a pseudo-terminal whose slave is the cell's console; the master goes to the caller's socket. */
/* The caller's own terminal, raw from now on; console_restore gives it back as it was. */
void console_raw(void);
void console_restore(void);
int console_open(const struct json *size, const char *socket, int *ret_slave, struct phi_error *e);

/* One verb each. 0, or negative with the error. */
int verb_create(const struct invocation *v, struct phi_error *e);
int verb_run(const struct invocation *v, int *ret_status, struct phi_error *e);
int verb_pause(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_resume(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_start(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_state(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_kill(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_delete(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_list(const struct invocation *v, struct phi_error *e);
/* runphi_info.c: also of what a cell cannot do. */
int verb_ps(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_exec(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_checkpoint(const struct invocation *v, const struct marker *m, struct phi_error *e);
/* runphi_events.c, runphi_update.c */
int verb_events(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_update(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_features(const struct invocation *v, struct phi_error *e);

/* runphi_verbs.c: a request about the container; 0 if the answer is below 300. *ret_body (NULL allowed) is owned. */
int request(const struct invocation *v, const struct marker *m, const char *method, const char *suffix, const char *body,
	    char **ret_body, struct phi_error *e);
/* The container as phid has it, and as the OCI side has to see it: where the keeper is lost and the cell was kept all the same it is
 * "stopped", with the member "kept". */
int fetch(const struct invocation *v, const struct marker *m, struct json **ret, struct phi_error *e);
/* The state document of runtime.md, with another status if it is not NULL. The caller frees it. */
char *state_text(const char *id, const struct json *container, const char *status);
/* Deletes the container and all that create made for it. -ENOENT where phid did not have it, but then, too. */
int take_away(const struct invocation *v, const struct marker *m, bool force, struct phi_error *e);
/* The part of it behind the cell and the keeper: cgroup, poststop hooks (not with state NULL), marker. */
void clear_away(const struct invocation *v, const struct marker *m, const char *state);
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void new_uuid(char ret[PHI_UUID_LEN + 1]);
