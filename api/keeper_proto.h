/* What phid and a keeper say to each other: SOCK_SEQPACKET on <directory of phid's socket>/keeper.sock, one
 * message a packet, host byte order (both are on one host). A keeper may be years older than the phid that it
 * talks to, so: a message begins with its own length; unknown types are ignored; structs only grow at their end
 * (a reader takes what it knows and treats the rest as zero); strings are found by an offset. Pure. */
#pragma once

#include "limits.h"

#include <stddef.h>
#include <stdint.h>

#define KEEPER_VERSION	   4 /* 2: INPUT and TAKEN; 3: OUTPUT, and SPAWN without a console; 4: 4096 CPUs */
#define KEEPER_SOCKET_NAME "keeper.sock"
#define KEEPER_MESSAGE_MAX 65536
#define KEEPER_FDS_MAX	   8
#define KEEPER_INPUT_MAX   1024
#define KEEPER_ANSWER_MS   5000 /* an ended keeper waits so long for phid's commit, then exits by itself */

enum keeper_type {
	/* keeper to phid */
	KEEPER_HELLO = 1, /* struct keeper_hello; first on every connection */
	KEEPER_SPAWNED,	  /* struct keeper_spawned: the answer to SPAWN */
	KEEPER_ENDED,	  /* struct keeper_ended, then the text of the exit file */
	KEEPER_QMP_OUT,	  /* bytes that the cell's process wrote to its control channel */
	KEEPER_UNDO,	  /* whoever asked for the container went away before it was told of it */
	KEEPER_TAKEN,	  /* the cell has all of the INPUT */
	/* phid to keeper */
	KEEPER_SPAWN = 64, /* struct keeper_spawn, strings; descriptors as listed there */
	KEEPER_QMP_IN,	   /* bytes for the control channel */
	KEEPER_KILL,	   /* SIGKILL to the cell's process */
	KEEPER_CELL_ENDED, /* struct keeper_ended: a cell without a process of ours ended */
	KEEPER_COMMITTED,  /* struct keeper_ended: the end is on record; write out the console and exit with code */
	KEEPER_GONE,	   /* no such container: kill the cell's process, exit 137 */
	KEEPER_INPUT,	   /* up to KEEPER_INPUT_MAX bytes for the cell's console; one at a time, until TAKEN */
	KEEPER_OUTPUT,	   /* bytes of the console of a cell whose console is no descriptor */
};

struct keeper_header {
	uint32_t length; /* of the whole message */
	uint16_t type;
	uint16_t reserved;
};

enum keeper_cell { KEEPER_CELL_NONE, KEEPER_CELL_ALIVE, KEEPER_CELL_DEAD };

struct keeper_hello {
	struct keeper_header h;
	uint32_t version;
	uint32_t cell; /* enum keeper_cell */
	int32_t pid;
	int32_t cell_pid; /* 0: none */
	uint64_t start, cell_start; /* field 22 of /proc/<pid>/stat, clock ticks since boot */
	char incarnation[PHI_UUID_LEN + 4];
	uint32_t by_caller; /* 1: started by whoever creates the container, who may not have asked phid yet */
};

struct keeper_spawned {
	struct keeper_header h;
	int32_t err; /* errno, 0: it runs */
	int32_t pid;
	uint64_t start;
};

struct keeper_ended {
	struct keeper_header h;
	int32_t wstatus; /* as waitpid gives it, of a process; else 0 */
	int32_t code;	 /* exit status of the container, 0..255 */
	uint32_t killed; /* 1: by a KILL of phid */
};

/* Descriptors of SPAWN, in this order; with n_args the rest are images, which the process gets from
 * KEEPER_IMAGE_FD on; without a process (n_args 0) the fourth, if there is one, is the cell's console. */
enum { KEEPER_FD_LOCK, KEEPER_FD_DIR, KEEPER_FD_LOG, KEEPER_FD_MORE };

/* What the spawned process finds. */
#define KEEPER_LOCK_FD	  3
#define KEEPER_CONSOLE_FD 4
#define KEEPER_QMP_FD	  5
#define KEEPER_IMAGE_FD	  6

#define KEEPER_AS_USER	     1u /* flags: drop to uid, gid and the one supplementary group */
#define KEEPER_ODD_IS_GUESTS 2u /* an odd exit status n of the process is the guest's own code n >> 1 */

struct keeper_spawn {
	struct keeper_header h;
	uint32_t flags, uid, gid, group;
	uint32_t n_args;
	uint32_t n_rules;    /* pairs (decimal code, text) behind the arguments: keeper_exit_code */
	uint32_t strings_at; /* offset in the message: NUL-terminated arguments, then rules */
	uint32_t n_cpus_words;
	uint64_t cpus[PHI_CPUS_MAX / 64]; /* where keeper and process run; all zero: anywhere */
};

/* The exit status of a container whose process ended with wstatus: 128 + signal; else, where the control
 * channel's last output contains the text of a rule, that rule's code (first match); else the status, halved
 * by KEEPER_ODD_IS_GUESTS if it is odd. rules: n pairs of strings. Used by phid and keeper alike. */
int keeper_exit_code(int wstatus, uint32_t flags, const char *tail, const char *const *rules, uint32_t n_rules);

/* The name of a process's start time, or 0: field 22 of the text of /proc/<pid>/stat. */
uint64_t keeper_start_of_stat(const char *stat_text);
