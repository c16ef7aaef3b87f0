/* The parts of the keeper. One process a container: parent of the cell's process, carrier of its console. */
#pragma once

#include "keeper_proto.h"

#include <stdbool.h>
#include <sys/types.h>

struct console_log;

/* keeper_cell.c: the cell's process. */
struct cell {
	enum keeper_cell state;
	pid_t pid;
	uint64_t start;
	int pidfd, lock, dir;
	int qmp, diagnostics; /* our ends; -1: none or at their end */
	uint32_t flags;
	bool killed, has_process;
	int wstatus, code;
	char *rules_text;
	const char *rules[32];
	uint32_t n_rules;
	/* The last bytes of what the process said, for the exit file. */
	char qmp_tail[4096], diagnostics_tail[2048];
	size_t qmp_tail_n, diagnostics_tail_n;
};

/* Begins the process that SPAWN describes (fds are taken over). Answers 0 or -errno; ret_console is our end of the
 * cell's console. */
int cell_spawn(struct cell *c, const struct keeper_spawn *m, size_t length, int *fds, int n_fds, int *ret_console);
void cell_kill(struct cell *c);
/* Reads what the control channel and the diagnostics have; forward gets the former. */
void cell_read_qmp(struct cell *c, void (*forward)(const char *bytes, size_t n));
void cell_read_diagnostics(struct cell *c);
/* The process was seen dead: reaps it, writes the exit file, lets go of the lock. */
void cell_finish(struct cell *c);
/* The text of the exit file. Answers its length. */
size_t cell_exit_text(const struct cell *c, char *buf, size_t size);

/* keeper_console.c: from the cell to the ring and our stdout, from our stdin to the cell. */
struct console {
	int cell, in, out; /* -1: none */
	struct console_log *log;
	char *ring;
	uint64_t size, written; /* written: offset up to which out has it */
	char input[4 * KEEPER_INPUT_MAX]; /* of stdin up to a quarter, the rest of phid */
	size_t input_n;
	bool taking; /* phid waits for TAKEN; stdin waits meanwhile */
};

int console_map(struct console *c, int log_fd);
void console_put(struct console *c, const char *bytes, size_t n); /* into the log's ring, which is there */
void console_read_cell(struct console *c);
void console_read_stdin(struct console *c);
/* Input that phid sent; what does not fit (of a phid that was killed and started again and again) is left out. */
void console_take(struct console *c, const char *bytes, size_t n);
void console_write_cell(struct console *c);
void console_write_out(struct console *c);
bool console_has_output(const struct console *c);
