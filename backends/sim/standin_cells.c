/*
 * standin_cells.c owns the cells of phid-sim (a stand-in, not a hypervisor), their programs and their
 * consoles.
 *
 * Like a real partitioning hypervisor it refuses no overlap of CPUs or memory; it counts them. An ended cell
 * exists, and holds what it was given, until it is destroyed. It never parses requests and never sees a
 * client. Invariants: items are sorted by name; due_ms is never later than the first thing any program has to
 * do; what goes to a console goes as whole lines or not at all, and never blocks.
 */
#include "standin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	CODE_PANIC = 134,
	CODE_DESTROYED = 137
}; /* as a shell shows SIGABRT and SIGKILL */

#define PROGRAM_MS_MAX UINT64_C(86400000)

/* ---- programs ---- */

/* "12" or "12:" -> 12, *text behind it. */
static bool number_take(const char **text, uint64_t max, uint64_t *ret_value)
{
	uint64_t value = 0;
	const char *p = *text;

	if (*p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++) {
		value = value * 10 + (uint64_t)(*p - '0');
		if (value > max)
			return false;
	}
	if (*p == ':')
		p++;
	else if (*p != '\0')
		return false;
	*text = p;
	*ret_value = value;
	return true;
}

static bool program_word_parse(const char *word, struct program *program)
{
	const char *args = strchr(word, ':');
	size_t name_len = args ? (size_t)(args - word) : strlen(word);
	uint64_t code;

#define WORD_IS(s) (name_len == sizeof(s) - 1 && memcmp(word, s, sizeof(s) - 1) == 0)
	if (!args) {
		if (!WORD_IS("echo"))
			return false;
		program->echo = true;
		return true;
	}
	args++;
	if (WORD_IS("count"))
		return number_take(&args, PROGRAM_MS_MAX, &program->count_ms) && program->count_ms > 0 &&
		       !*args;
	if (WORD_IS("panic"))
		return number_take(&args, PROGRAM_MS_MAX, &program->panic_ms) && !*args;
	if (WORD_IS("exit")) {
		if (!number_take(&args, 255, &code) ||
		    !number_take(&args, PROGRAM_MS_MAX, &program->exit_ms) || *args)
			return false;
		program->exit_code = (int)code;
		return true;
	}
	if (WORD_IS("powerdown")) {
		if (strcmp(args, "ignore") == 0) {
			program->powerdown_ms = NEVER_MS;
			return true;
		}
		return number_take(&args, PROGRAM_MS_MAX, &program->powerdown_ms) && !*args;
	}
#undef WORD_IS
	return false;
}

int program_parse(const char *text, struct program *ret_program, const char **ret_why)
{
	struct program program = {.exit_ms = NEVER_MS, .panic_ms = NEVER_MS, .powerdown_ms = 0};

	while (text && *text) {
		const char *comma = strchr(text, ',');
		size_t len = comma ? (size_t)(comma - text) : strlen(text);
		char word[64];

		if (len >= sizeof(word)) {
			*ret_why = "prog: a word is too long";
			return -EINVAL;
		}
		memcpy(word, text, len);
		word[len] = '\0';
		if (!program_word_parse(word, &program)) {
			*ret_why = "prog: not count:MS, exit:CODE:MS, panic:MS, echo, powerdown:MS or "
				   "powerdown:ignore";
			return -EINVAL;
		}
		text += len + (comma ? 1 : 0);
	}
	*ret_program = program;
	return 0;
}

/* ---- consoles ---- */

/* Input that was never read would give the reader ECONNRESET in place of the end, so it is taken out first.
 */
static void console_close(struct cell *cell)
{
	char unread[4096];

	if (cell->console < 0)
		return;
	shutdown(cell->console, SHUT_RD); /* no more comes: the loop ends */
	while (recv(cell->console, unread, sizeof(unread), MSG_DONTWAIT) > 0)
		;
	close(cell->console); /* leaves the epoll set with it: no duplicate exists */
	cell->console = -1;
}

/* A guest that does not run does not read: its input waits in the socket. */
static void console_watch(const struct cells *cells, struct cell *cell)
{
	struct epoll_event event = {
	    .events = cell->state == CELL_RUNNING && !cell->console_at_eof ? EPOLLIN : 0,
	    .data.ptr = &cell->watch,
	};

	if (cell->console >= 0 && epoll_ctl(cells->epoll, EPOLL_CTL_MOD, cell->console, &event) < 0)
		console_close(cell);
}

/* The kernel takes a line of this size into a Unix stream as one buffer: all of it or nothing. */
static void console_write_line(struct cell *cell, const char *line, size_t len)
{
	ssize_t n = cell->console < 0 ? -1 : send(cell->console, line, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n == (ssize_t)len)
		return;
	cell->dropped_bytes += len;
	if (n >= 0)
		console_close(cell); /* should a kernel ever split it: no line may follow a half one */
}

int cell_console(struct cells *cells, struct cell *cell, int *ret_console)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	struct epoll_event event = {.events = 0, .data.ptr = &cell->watch};
	if (epoll_ctl(cells->epoll, EPOLL_CTL_ADD, ends[0], &event) < 0) {
		int r = -errno;

		close(ends[0]);
		close(ends[1]);
		return r;
	}
	console_close(cell);
	cell->console = ends[0];
	cell->console_at_eof = false;
	cell->line_len = 0;
	console_watch(cells, cell);
	*ret_console = ends[1];
	return 0;
}

/* ---- the life of a cell ---- */

const char *cell_state_name(enum cell_state state)
{
	static const char *const names[] = {[CELL_CREATED] = "created",
					    [CELL_RUNNING] = "running",
					    [CELL_PAUSED] = "paused",
					    [CELL_ENDED] = "ended"};

	return names[state];
}

static void cell_push(struct cells *cells, const struct cell *cell, const char *what)
{
	char event[128];

	snprintf(event, sizeof(event), "%s %s", cell->name, what);
	cells->push(cells->userdata, event);
}

static uint64_t min_ms(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* When its program next has something to do. */
static uint64_t cell_due_ms(const struct cell *cell)
{
	uint64_t ran_ms = min_ms(cell->count_ran_ms, cell->powerdown_ran_ms);

	ran_ms = min_ms(ran_ms, min_ms(cell->program.exit_ms, cell->program.panic_ms));
	if (cell->state != CELL_RUNNING || ran_ms == NEVER_MS)
		return NEVER_MS;
	return ran_ms <= cell->ran_ms ? cell->since_ms : cell->since_ms + (ran_ms - cell->ran_ms);
}

static void cell_run_from(struct cells *cells, struct cell *cell, uint64_t now)
{
	cell->state = CELL_RUNNING;
	cell->since_ms = now;
	cells->due_ms = min_ms(cells->due_ms, cell_due_ms(cell));
	console_watch(cells, cell);
}

static void cell_end(struct cells *cells, struct cell *cell, int code, const char *reason)
{
	char what[64];

	cell->state = CELL_ENDED;
	cell->code = code;
	cell->reason = reason;
	console_watch(cells, cell);
	snprintf(what, sizeof(what), "ended code=%d reason=%s", code, reason);
	cell_push(cells, cell, what);
}

static void cells_count_overlaps(struct cells *cells)
{
	if (cells->shared_cpus > 0)
		cells->cpu_overlaps++;
	if (cells->shared_memories > 0)
		cells->mem_overlaps++;
}

int cell_start(struct cells *cells, struct cell *cell, uint64_t now)
{
	char hello[64];

	if (cell->state != CELL_CREATED)
		return -EINVAL;
	cell->started = true;
	if (cell->program.count_ms > 0)
		cell->count_ran_ms = cell->program.count_ms;
	cells_count_overlaps(cells);
	int len = snprintf(hello, sizeof(hello), "phid-sim: cell %s started\n", cell->name);
	console_write_line(cell, hello, (size_t)len);
	cell_run_from(cells, cell, now);
	cell_push(cells, cell, "started");
	return 0;
}

int cell_pause(struct cells *cells, struct cell *cell, uint64_t now)
{
	if (cell->state != CELL_RUNNING)
		return -EINVAL;
	cell->state = CELL_PAUSED;
	cell->ran_ms += now - cell->since_ms;
	console_watch(cells, cell);
	cell_push(cells, cell, "paused");
	return 0;
}

int cell_resume(struct cells *cells, struct cell *cell, uint64_t now)
{
	if (cell->state != CELL_PAUSED)
		return -EINVAL;
	cell_run_from(cells, cell, now);
	cell_push(cells, cell, "resumed");
	return 0;
}

int cell_powerdown(struct cells *cells, struct cell *cell, uint64_t now)
{
	uint64_t ran_ms = cell->ran_ms;

	if (cell->state == CELL_RUNNING)
		ran_ms += now - cell->since_ms;
	else if (cell->state != CELL_PAUSED)
		return -EINVAL;
	if (cell->program.powerdown_ms != NEVER_MS && cell->powerdown_ran_ms == NEVER_MS) {
		cell->powerdown_ran_ms = ran_ms + cell->program.powerdown_ms;
		cells->due_ms = min_ms(cells->due_ms, cell_due_ms(cell));
	}
	return 0;
}

static void cell_run_due(struct cells *cells, struct cell *cell, uint64_t now)
{
	uint64_t ran_ms = cell->ran_ms + (now - cell->since_ms);

	if (ran_ms >= cell->count_ran_ms) {
		char line[64];
		int len = snprintf(line, sizeof(line), "count %" PRIu64 "\n", ++cell->counted);

		console_write_line(cell, line, (size_t)len);
		cell->count_ran_ms += cell->program.count_ms;
		if (cell->count_ran_ms <= ran_ms) /* we were late: no burst */
			cell->count_ran_ms = ran_ms + cell->program.count_ms;
	}
	if (ran_ms >= cell->program.panic_ms)
		cell_end(cells, cell, CODE_PANIC, "guest-panic");
	else if (ran_ms >= cell->program.exit_ms)
		cell_end(cells, cell, cell->program.exit_code, "guest-shutdown");
	else if (ran_ms >= cell->powerdown_ran_ms)
		cell_end(cells, cell, 0, "guest-shutdown");
}

void cells_run_due(struct cells *cells, uint64_t now)
{
	uint64_t due_ms = NEVER_MS;

	if (now < cells->due_ms)
		return;
	for (size_t i = 0; i < cells->count; i++) {
		struct cell *cell = cells->items[i];

		if (cell_due_ms(cell) <= now)
			cell_run_due(cells, cell, now);
		due_ms = min_ms(due_ms, cell_due_ms(cell));
	}
	cells->due_ms = due_ms;
}

/* ---- console input ---- */

static void cell_take_line(struct cells *cells, struct cell *cell, const char *line, size_t len)
{
	char text[CONSOLE_LINE_MAX + 16];
	const char *code_text = text + strlen("exit ");
	uint64_t code;

	if (len > 0 && line[len - 1] == '\r')
		len--;
	memcpy(text, line, len);
	text[len] = '\0';
	if (strlen(text) == len && strncmp(text, "exit ", 5) == 0 && !strchr(text, ':') &&
	    number_take(&code_text, 255, &code)) {
		cell_end(cells, cell, (int)code, "guest-shutdown");
		return;
	}
	if (cell->program.echo) {
		memcpy(text, "echo: ", 6);
		memcpy(text + 6, line, len);
		text[6 + len] = '\n';
		console_write_line(cell, text, len + 7);
	}
}

/* false: nothing more to read now. */
static bool cell_console_read(struct cells *cells, struct cell *cell)
{
	char bytes[4096];
	ssize_t n = recv(cell->console, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n == 0)
		cell->console_at_eof = true;
	if (n <= 0)
		return false;
	for (ssize_t i = 0; i < n && cell->state == CELL_RUNNING && cell->console >= 0; i++) {
		if (bytes[i] == '\n') {
			cell_take_line(cells, cell, cell->line, cell->line_len);
			cell->line_len = 0;
		} else if (cell->line_len < sizeof(cell->line))
			cell->line[cell->line_len++] = bytes[i];
	}
	return true;
}

void cell_console_ready(struct cells *cells, struct cell *cell, uint32_t epoll_events)
{
	bool hung_up = epoll_events & (EPOLLHUP | EPOLLERR);

	if (cell->state == CELL_RUNNING && (hung_up || (epoll_events & EPOLLIN)))
		while (cell_console_read(cells, cell) && hung_up && cell->state == CELL_RUNNING &&
		       cell->console >= 0)
			;
	if (hung_up)
		console_close(cell);
	else if (cell->console_at_eof)
		console_watch(cells, cell);
}

/* ---- the set of cells ---- */

size_t cells_after(const struct cells *cells, const char *name)
{
	size_t low = 0, high = cells->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(cells->items[middle]->name, name) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct cell *cells_find(const struct cells *cells, const char *name)
{
	size_t i = cells_after(cells, name);

	return i > 0 && strcmp(cells->items[i - 1]->name, name) == 0 ? cells->items[i - 1] : NULL;
}

static bool cells_share_memory(const struct cell *a, const struct cell *b)
{
	return a->mem_has_base && b->mem_has_base && a->mem_base < b->mem_base + b->mem_bytes &&
	       b->mem_base < a->mem_base + a->mem_bytes;
}

static size_t cells_memory_neighbours(const struct cells *cells, const struct cell *cell)
{
	size_t n = 0;

	for (size_t i = 0; i < cells->count; i++)
		n += cells->items[i] != cell && cells_share_memory(cells->items[i], cell);
	return n;
}

static void cells_hold_cpus(struct cells *cells, const struct cell *cell, bool hold)
{
	for (size_t cpu = 0; cpu < CPUS_MAX; cpu++) {
		if (!(cell->cpus[cpu / 64] >> (cpu % 64) & 1))
			continue;
		if (hold && ++cells->cpu_users[cpu] == 2)
			cells->shared_cpus++;
		if (!hold && --cells->cpu_users[cpu] == 1)
			cells->shared_cpus--;
	}
}

static struct cell *cell_free(struct cell *cell)
{
	if (!cell)
		return NULL;
	console_close(cell);
	free(cell->cpus_text);
	free(cell->tag);
	free(cell);
	return NULL;
}

int cells_create(struct cells *cells, const struct cell_config *config, int *ret_console)
{
	size_t place = cells_after(cells, config->name);

	if (cells_find(cells, config->name))
		return -EEXIST;
	if (cells->count >= CELLS_MAX)
		return -ENOSPC;

	struct cell *cell = calloc(1, sizeof(*cell));
	if (!cell)
		return -ENOMEM;
	cell->watch.kind = WATCH_CONSOLE;
	cell->console = -1;
	cell->reason = "none";
	cell->count_ran_ms = cell->powerdown_ran_ms = NEVER_MS;
	snprintf(cell->name, sizeof(cell->name), "%s", config->name);
	cell->cpus_text = strdup(config->cpus_text);
	cell->tag = strdup(config->tag);
	memcpy(cell->cpus, config->cpus, sizeof(cell->cpus));
	cell->mem_bytes = config->mem_bytes;
	cell->mem_base = config->mem_base;
	cell->mem_has_base = config->mem_has_base;
	cell->program = config->program;
	int r = cell->cpus_text && cell->tag ? cell_console(cells, cell, ret_console) : -ENOMEM;
	if (r < 0) {
		cell_free(cell);
		return r;
	}

	memmove(cells->items + place + 1, cells->items + place,
		(cells->count - place) * sizeof(cells->items[0]));
	cells->items[place] = cell;
	cells->count++;
	cells->creates++;
	cells_hold_cpus(cells, cell, true);
	cells->shared_memories += cells_memory_neighbours(cells, cell);
	cells_count_overlaps(cells);
	cell_push(cells, cell, "created");
	return 0;
}

void cells_destroy(struct cells *cells, struct cell *cell)
{
	size_t place = cells_after(cells, cell->name) - 1;

	if (cell->state != CELL_ENDED)
		cell_end(cells, cell, CODE_DESTROYED, "destroyed");
	cells_hold_cpus(cells, cell, false);
	cells->shared_memories -= cells_memory_neighbours(cells, cell);
	cells->count--;
	memmove(cells->items + place, cells->items + place + 1,
		(cells->count - place) * sizeof(cells->items[0]));
	cells->destroys++;
	cell_free(cell);
}

void cells_done(struct cells *cells)
{
	for (size_t i = 0; i < cells->count; i++)
		cell_free(cells->items[i]);
	cells->count = 0;
}
