/*
 * standin.h: what the files of phid-sim share. phid-sim is a stand-in, not a hypervisor: no guest runs in it.
 *
 * One process, one thread, one `struct sim` that is all of its state. Nothing here blocks, everything has a
 * bound. Times are milliseconds of CLOCK_MONOTONIC, or, where a name says `ran`, milliseconds that a cell has
 * been running.
 */
#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define STANDIN_WORDS "stand-in, not a hypervisor"

enum {
	PACKET_MAX_BYTES = 4096,
	CONNECTIONS_MAX = 64,
	CONNECTION_QUEUE_MAX = 1024, /* packets that a connection does not read; one more and it is closed */
	DEFERRED_MAX = 4096,
	FAULTS_MAX = 256,
	CELLS_MAX = 4096,
	CELL_NAME_MAX = 31,
	CELL_CPUS_TEXT_MAX = 1024,
	CELL_TAG_MAX = 512,
	CPUS_MAX = 4096,
	CPUS_WORDS = CPUS_MAX / 64,
	CONSOLE_LINE_MAX = 1024, /* of input, without the newline; what is longer is cut */
};

#define NEVER_MS UINT64_MAX

/* First member of whatever an epoll event may point to. */
struct watch {
	enum watch_kind {
		WATCH_LISTENER,
		WATCH_SIGNALS,
		WATCH_CONNECTION,
		WATCH_CONSOLE
	} kind;
};

/* ---- standin_cells.c: cells, their programs and consoles ---- */

enum cell_state {
	CELL_CREATED,
	CELL_RUNNING,
	CELL_PAUSED,
	CELL_ENDED
};

struct program {
	uint64_t count_ms;                        /* 0: does not count */
	uint64_t exit_ms, panic_ms, powerdown_ms; /* NEVER_MS: does not */
	int exit_code;
	bool echo;
};

struct cell_config {
	const char *name, *cpus_text, *tag;
	uint64_t cpus[CPUS_WORDS];
	uint64_t mem_bytes, mem_base;
	bool mem_has_base;
	struct program program;
};

struct cell {
	struct watch watch; /* of the console */
	enum cell_state state;
	bool started;
	char name[CELL_NAME_MAX + 1];
	char *cpus_text, *tag;
	uint64_t cpus[CPUS_WORDS];
	uint64_t mem_bytes, mem_base;
	bool mem_has_base;

	struct program program;
	uint64_t ran_ms;   /* up to the last pause */
	uint64_t since_ms; /* when it last began to run; holds in CELL_RUNNING only */
	uint64_t counted, count_ran_ms, powerdown_ran_ms;
	int code;
	const char *reason;

	int console; /* -1: nobody has the other end */
	bool console_at_eof;
	char line[CONSOLE_LINE_MAX];
	size_t line_len;
	uint64_t dropped_bytes;
};

struct cells {
	int epoll;
	void (*push)(void *userdata, const char *event); /* "NAME started" */
	void *userdata;

	struct cell *items[CELLS_MAX]; /* sorted by name */
	size_t count;
	uint64_t due_ms; /* no program has anything to do before; may be too early, never too late */

	unsigned cpu_users[CPUS_MAX];
	size_t shared_cpus, shared_memories; /* CPUs with several cells; pairs of cells that share RAM */
	uint64_t creates, destroys, cpu_overlaps, mem_overlaps;
};

/* 0, or -EINVAL with a sentence in *ret_why. */
int program_parse(const char *text, struct program *ret_program, const char **ret_why);

const char *cell_state_name(enum cell_state state);
struct cell *cells_find(const struct cells *cells, const char *name);
/* Index of the first cell whose name sorts after `name`. */
size_t cells_after(const struct cells *cells, const char *name);

/* Copies the config. *ret_console is the caller's. -EEXIST, -ENOSPC, -ENOMEM, or what socketpair says. */
int cells_create(struct cells *cells, const struct cell_config *config, int *ret_console);
/* A fresh console; the older one is closed. *ret_console is the caller's. */
int cell_console(struct cells *cells, struct cell *cell, int *ret_console);
/* -EINVAL when the state does not allow it. */
int cell_start(struct cells *cells, struct cell *cell, uint64_t now_ms);
int cell_pause(struct cells *cells, struct cell *cell, uint64_t now_ms);
int cell_resume(struct cells *cells, struct cell *cell, uint64_t now_ms);
int cell_powerdown(struct cells *cells, struct cell *cell, uint64_t now_ms);
void cells_destroy(struct cells *cells, struct cell *cell);

void cell_console_ready(struct cells *cells, struct cell *cell, uint32_t epoll_events);
void cells_run_due(struct cells *cells, uint64_t now_ms);
void cells_done(struct cells *cells);

/* ---- standin_proto.c: packets, verbs, faults ---- */

struct verb;

struct fault {
	const struct verb *verb;
	enum fault_kind {
		FAULT_NONE,
		FAULT_DELAY,
		FAULT_ERROR,
		FAULT_LIE,
		FAULT_HANG,
		FAULT_LATE
	} kind;
	uint64_t ms;
	uint64_t count; /* UINT64_MAX: until cleared */
	char error[32];
};

struct faults {
	struct fault items[FAULTS_MAX];
	size_t count;
};

struct sim;

/* One request as it came from a connection: parses, applies faults, performs, answers. */
void proto_receive(struct sim *sim, uint64_t connection, const char *bytes, size_t len);
/* A request that a fault has delayed: performs and answers. */
void proto_perform(struct sim *sim, uint64_t connection, const char *bytes, size_t len);

/* ---- standin_loop.c: connections, what waits for its time, the loop ---- */

/* Something to send, or a delayed request. Owns its descriptor. */
struct packet {
	struct packet *next;
	int fd; /* -1: none */
	size_t len;
	char bytes[];
};

struct packet *packet_new(const char *bytes, size_t len, int fd); /* takes fd, even on failure (NULL) */
struct packet *packet_free(struct packet *packet);

struct connection {
	struct watch watch;
	int fd;          /* -1: a free slot */
	uint64_t serial; /* never used twice, so that a late answer never reaches another client */
	bool subscribed, hung_up;
	struct packet *queue, **queue_end;
	size_t queue_count;
};

struct deferred {
	struct deferred *next; /* by due_ms */
	uint64_t due_ms, connection;
	bool perform; /* the packet is a request to perform, not an answer to send */
	struct packet *packet;
};

struct sim {
	int epoll, listener, signals, lock, spare;
	struct watch listener_watch, signals_watch;
	char *socket_path; /* absolute */
	dev_t socket_dev;
	ino_t socket_ino;
	bool quitting;

	struct connection connections[CONNECTIONS_MAX];
	uint64_t last_serial;
	struct deferred *deferred;
	size_t deferred_count;

	struct cells cells;
	struct faults faults;
};

uint64_t now_ms(void);
/* Both take the packet; to a connection that is gone it is dropped. NULL, for want of memory, closes the
 * connection. */
void sim_send(struct sim *sim, uint64_t connection, struct packet *packet);
/* The caller has seen that deferred_count is below its bound. */
void sim_defer(struct sim *sim, uint64_t connection, uint64_t due_ms, bool perform, struct packet *packet);
void sim_subscribe(struct sim *sim, uint64_t connection);
/* Frees the name at once, so that the next phid-sim may start when it sees the answer. */
void sim_quit(struct sim *sim);
struct sim *sim_new(void);
/* Until quit. A listener must have been watched. */
int sim_run(struct sim *sim);
int sim_watch(struct sim *sim, int fd, struct watch *watch);
void sim_done(struct sim *sim);
