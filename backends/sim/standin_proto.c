/*
 * standin_proto.c owns the packets of phid-sim (a stand-in, not a hypervisor): their grammar, the table of
 * verbs, and the faults that a test has asked for.
 *
 *     request   <reqid> <verb> [<argument>] [key=value ...]
 *     answer    <reqid> ok [key=value ...]    or    <reqid> err <ERRNO> <sentence>
 *
 * It never touches a socket. A packet whose reqid cannot be read is answered under reqid 0.
 */
#include "standin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEYS_MAX        6
#define DELAY_MS_MAX    UINT64_C(3600000)
#define LIST_PAGE_CELLS 100

struct request {
	char text[PACKET_MAX_BYTES + 1];
	uint64_t id, connection;
	const struct verb *verb;
	const char *argument;         /* NULL: none */
	const char *values[KEYS_MAX]; /* by place in verb->keys; NULL: not given */
};

struct answer {
	uint64_t id;
	char text[PACKET_MAX_BYTES];
	size_t len;
	int fd;
};

typedef int (*verb_run)(struct sim *sim, const struct request *request, struct answer *answer);

struct verb {
	const char *name;
	enum {
		NO_ARGUMENT,
		A_CELL,
		A_WORD
	} argument;
	const char *keys[KEYS_MAX];
	verb_run run;
	bool never_faulty;
};

static const struct verb *verb_find(const char *name);

/* ---- answers ---- */

__attribute__((format(printf, 2, 3))) static void answer_add(struct answer *answer, const char *format, ...)
{
	size_t room = sizeof(answer->text) - answer->len;
	va_list args;

	va_start(args, format);
	int n = vsnprintf(answer->text + answer->len, room, format, args);
	va_end(args);
	if (n > 0)
		answer->len += (size_t)n < room ? (size_t)n : room - 1;
}

static void answer_begin(struct answer *answer, uint64_t id)
{
	answer->id = id;
	answer->len = 0;
	answer->fd = -1;
	answer_add(answer, "%" PRIu64 " ok", id);
}

/* Makes it an error and gives the error back. */
__attribute__((format(printf, 3, 4))) static int refuse(struct answer *answer, int error, const char *format,
							...)
{
	const char *name = strerrorname_np(error);
	char why[256];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	answer->len = 0;
	answer_add(answer, "%" PRIu64 " err %s %s", answer->id, name ? name : "EIO", why);
	return -error;
}

static struct packet *answer_packet(struct answer *answer)
{
	return packet_new(answer->text, answer->len, answer->fd);
}

/* ---- grammar ---- */

static bool u64_parse(const char *text, int base, uint64_t max, uint64_t *ret_value)
{
	const char *digits = base == 16 ? "0123456789abcdefABCDEF" : "0123456789";
	char *end;

	if (base == 16 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
		text += 2;
	if (text[0] == '\0' || strspn(text, digits) != strlen(text))
		return false;
	errno = 0;
	unsigned long long value = strtoull(text, &end, base);
	if (errno != 0 || *end != '\0' || value > max)
		return false;
	*ret_value = value;
	return true;
}

static bool cell_name_ok(const char *name)
{
	size_t len = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");

	return len >= 1 && len <= CELL_NAME_MAX && name[len] == '\0';
}

static bool cpu_take(const char **text, uint64_t *ret_cpu)
{
	char digits[8];
	size_t len = strspn(*text, "0123456789");

	if (len == 0 || len >= sizeof(digits))
		return false;
	memcpy(digits, *text, len);
	digits[len] = '\0';
	*text += len;
	return u64_parse(digits, 10, CPUS_MAX - 1, ret_cpu);
}

/* "2-3,5" */
static bool cpus_parse(const char *text, uint64_t ret_cpus[static CPUS_WORDS])
{
	memset(ret_cpus, 0, CPUS_WORDS * sizeof(ret_cpus[0]));
	for (;;) {
		uint64_t first, last;

		if (!cpu_take(&text, &first))
			return false;
		last = first;
		if (*text == '-' && (text++, !cpu_take(&text, &last) || last < first))
			return false;
		for (uint64_t cpu = first; cpu <= last; cpu++)
			ret_cpus[cpu / 64] |= UINT64_C(1) << (cpu % 64);
		if (*text == '\0')
			return true;
		if (*text++ != ',')
			return false;
	}
}

/* The next word, cut out of the text; NULL at its end. Words are parted by one or more spaces. */
static char *word_take(char **text)
{
	char *word = *text + strspn(*text, " ");
	size_t len = strcspn(word, " ");

	if (len == 0)
		return NULL;
	*text = word + len;
	if (**text == ' ')
		*(*text)++ = '\0';
	return word;
}

static int request_take_pair(struct request *request, char *word, struct answer *answer)
{
	char *equals = strchr(word, '=');

	if (!equals)
		return refuse(answer, EINVAL, "not key=value: %.60s", word);
	*equals = '\0';
	for (size_t i = 0; i < KEYS_MAX && request->verb->keys[i]; i++) {
		if (strcmp(request->verb->keys[i], word) != 0)
			continue;
		if (request->values[i])
			return refuse(answer, EINVAL, "%s: given twice", word);
		request->values[i] = equals + 1;
		return 0;
	}
	return refuse(answer, EINVAL, "%s: no such key: %.60s", request->verb->name, word);
}

static int request_parse(const char *bytes, size_t len, struct request *request, struct answer *answer)
{
	char *rest = request->text, *word;

	memset(request->values, 0, sizeof(request->values));
	request->id = 0;
	request->argument = NULL;
	answer_begin(answer, 0);
	if (len > PACKET_MAX_BYTES)
		return refuse(answer, EINVAL, "a packet has at most %d bytes", PACKET_MAX_BYTES);
	if (len > 0 && bytes[len - 1] == '\n')
		len--;
	for (size_t i = 0; i < len; i++)
		if (bytes[i] < ' ' || bytes[i] > '~')
			return refuse(answer, EINVAL, "byte %zu is not printable ASCII", i);
	memcpy(request->text, bytes, len);
	request->text[len] = '\0';

	word = word_take(&rest);
	if (!word || !u64_parse(word, 10, UINT64_MAX, &request->id) || request->id == 0)
		return refuse(answer, EINVAL, "a request begins with its number, which is not 0");
	answer_begin(answer, request->id);
	word = word_take(&rest);
	request->verb = word ? verb_find(word) : NULL;
	if (!request->verb)
		return refuse(answer, EINVAL, "no such verb: %.60s", word ? word : "");
	if (request->verb->argument != NO_ARGUMENT) {
		request->argument = word_take(&rest);
		if (!request->argument)
			return refuse(answer, EINVAL, "%s what?", request->verb->name);
		if (request->verb->argument == A_CELL && !cell_name_ok(request->argument))
			return refuse(answer, EINVAL, "not a cell name: %.60s", request->argument);
	}
	while ((word = word_take(&rest))) {
		int r = request_take_pair(request, word, answer);

		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- verbs ---- */

enum {
	CREATE_CPUS,
	CREATE_MEM,
	CREATE_BASE,
	CREATE_TAG,
	CREATE_PROG
};

static int run_create(struct sim *sim, const struct request *request, struct answer *answer)
{
	const char *const *values = request->values;
	const char *why = NULL;
	struct cell_config config = {
	    .name = request->argument, .cpus_text = values[CREATE_CPUS], .tag = values[CREATE_TAG]};

	if (!values[CREATE_CPUS] || strlen(values[CREATE_CPUS]) > CELL_CPUS_TEXT_MAX ||
	    !cpus_parse(values[CREATE_CPUS], config.cpus))
		why = "cpus: a list like 2-3,5, below 4096";
	else if (!values[CREATE_MEM] || !u64_parse(values[CREATE_MEM], 10, INT64_MAX, &config.mem_bytes) ||
		 config.mem_bytes == 0)
		why = "mem: bytes";
	else if (values[CREATE_BASE] && !u64_parse(values[CREATE_BASE], 16, INT64_MAX, &config.mem_base))
		why = "base: a hexadecimal address below 2^63";
	else if (!values[CREATE_TAG] || values[CREATE_TAG][0] == '\0' ||
		 strlen(values[CREATE_TAG]) > CELL_TAG_MAX)
		why = "tag: 1 to 512 characters";
	else
		program_parse(values[CREATE_PROG], &config.program, &why);
	if (why)
		return refuse(answer, EINVAL, "%s", why);

	config.mem_has_base = values[CREATE_BASE] != NULL;
	int r = cells_create(&sim->cells, &config, &answer->fd);
	if (r == -EEXIST)
		return refuse(answer, EEXIST, "cell %s exists", request->argument);
	if (r < 0)
		return refuse(answer, -r, "cell %s is not made", request->argument);
	return 0;
}

static struct cell *request_cell(struct sim *sim, const struct request *request, struct answer *answer)
{
	struct cell *cell = cells_find(&sim->cells, request->argument);

	if (!cell)
		refuse(answer, ENOENT, "no cell %s", request->argument);
	return cell;
}

static int run_console(struct sim *sim, const struct request *request, struct answer *answer)
{
	struct cell *cell = request_cell(sim, request, answer);

	if (!cell)
		return -ENOENT;
	int r = cell_console(&sim->cells, cell, &answer->fd);
	return r < 0 ? refuse(answer, -r, "no console") : 0;
}

static int run_change(struct sim *sim, const struct request *request, struct answer *answer,
		      int (*change)(struct cells *cells, struct cell *cell, uint64_t now))
{
	struct cell *cell = request_cell(sim, request, answer);

	if (!cell)
		return -ENOENT;
	int r = change(&sim->cells, cell, now_ms());
	return r < 0 ? refuse(answer, -r, "cell %s is %s", cell->name, cell_state_name(cell->state)) : 0;
}

static int run_start(struct sim *sim, const struct request *request, struct answer *answer)
{
	return run_change(sim, request, answer, cell_start);
}

static int run_pause(struct sim *sim, const struct request *request, struct answer *answer)
{
	return run_change(sim, request, answer, cell_pause);
}

static int run_resume(struct sim *sim, const struct request *request, struct answer *answer)
{
	return run_change(sim, request, answer, cell_resume);
}

static int run_powerdown(struct sim *sim, const struct request *request, struct answer *answer)
{
	return run_change(sim, request, answer, cell_powerdown);
}

static int run_destroy(struct sim *sim, const struct request *request, struct answer *answer)
{
	struct cell *cell = request_cell(sim, request, answer);

	if (!cell)
		return -ENOENT;
	cells_destroy(&sim->cells, cell);
	return 0;
}

static int run_observe(struct sim *sim, const struct request *request, struct answer *answer)
{
	const struct cell *cell = request_cell(sim, request, answer);

	if (!cell)
		return -ENOENT;
	answer_add(answer,
		   " state=%s code=%d reason=%s cpus=%s mem=%" PRIu64 " tag=%s started=%d dropped=%" PRIu64,
		   cell_state_name(cell->state), cell->code, cell->reason, cell->cpus_text, cell->mem_bytes,
		   cell->tag, cell->started, cell->dropped_bytes);
	if (cell->mem_has_base)
		answer_add(answer, " base=0x%" PRIx64, cell->mem_base);
	return 0;
}

enum {
	LIST_AFTER
};

static int run_list(struct sim *sim, const struct request *request, struct answer *answer)
{
	const char *after = request->values[LIST_AFTER];
	size_t first = after ? cells_after(&sim->cells, after) : 0, i;

	answer_add(answer, " cells=");
	for (i = first; i < sim->cells.count && i < first + LIST_PAGE_CELLS; i++)
		answer_add(answer, "%s%s", i > first ? "," : "", sim->cells.items[i]->name);
	answer_add(answer, " more=%d", i < sim->cells.count);
	return 0;
}

static int run_stat(struct sim *sim, const struct request *request, struct answer *answer)
{
	const struct cells *cells = &sim->cells;

	(void)request;
	answer_add(answer,
		   " cells=%zu creates=%" PRIu64 " destroys=%" PRIu64 " cpu_overlaps=%" PRIu64
		   " mem_overlaps=%" PRIu64 " pid=%ld",
		   cells->count, cells->creates, cells->destroys, cells->cpu_overlaps, cells->mem_overlaps,
		   (long)getpid());
	return 0;
}

static int run_subscribe(struct sim *sim, const struct request *request, struct answer *answer)
{
	(void)answer;
	sim_subscribe(sim, request->connection);
	return 0;
}

static int run_quit(struct sim *sim, const struct request *request, struct answer *answer)
{
	(void)request;
	(void)answer;
	sim_quit(sim);
	return 0;
}

/* ---- faults ---- */

enum {
	FAULT_KEY_KIND,
	FAULT_KEY_MS,
	FAULT_KEY_ERRNO,
	FAULT_KEY_COUNT
};

static const char *const fault_kind_names[] = {
    [FAULT_NONE] = "",   [FAULT_DELAY] = "delay", [FAULT_ERROR] = "error",
    [FAULT_LIE] = "lie", [FAULT_HANG] = "hang",   [FAULT_LATE] = "late",
};

static const char *fault_parse(const struct request *request, struct fault *ret_fault)
{
	const char *const *values = request->values;
	struct fault fault = {.verb = verb_find(request->argument), .count = UINT64_MAX};

	if (!fault.verb || fault.verb->never_faulty)
		return "no such verb, or one that never fails";
	for (size_t i = 1;
	     values[FAULT_KEY_KIND] && i < sizeof(fault_kind_names) / sizeof(fault_kind_names[0]); i++)
		if (strcmp(values[FAULT_KEY_KIND], fault_kind_names[i]) == 0)
			fault.kind = (enum fault_kind)i;
	if (fault.kind == FAULT_NONE)
		return "kind: delay, error, lie, hang or late";

	bool timed = fault.kind == FAULT_DELAY || fault.kind == FAULT_LATE;
	if (timed != (values[FAULT_KEY_MS] != NULL) ||
	    (timed && !u64_parse(values[FAULT_KEY_MS], 10, DELAY_MS_MAX, &fault.ms)))
		return "ms: at most an hour, with delay and late only";

	const char *name = values[FAULT_KEY_ERRNO];
	if ((fault.kind == FAULT_ERROR) != (name != NULL) ||
	    (name && (name[0] != 'E' || strlen(name) < 2 || strlen(name) >= sizeof(fault.error) ||
		      strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != strlen(name))))
		return "errno: a name like EBUSY, with error only";
	if (name)
		memcpy(fault.error, name, strlen(name) + 1);

	const char *count = values[FAULT_KEY_COUNT];
	if (count && (!u64_parse(count, 10, UINT64_MAX - 1, &fault.count) || fault.count == 0))
		return "count: 1 or more";
	*ret_fault = fault;
	return NULL;
}

static int run_fault(struct sim *sim, const struct request *request, struct answer *answer)
{
	struct faults *faults = &sim->faults;
	struct fault fault;
	const char *why;

	if (strcmp(request->argument, "clear") == 0) {
		faults->count = 0;
		return 0;
	}
	if ((why = fault_parse(request, &fault)))
		return refuse(answer, EINVAL, "%s", why);
	if (faults->count >= FAULTS_MAX)
		return refuse(answer, ENOSPC, "at most %d faults", FAULTS_MAX);
	faults->items[faults->count++] = fault;
	return 0;
}

/* The fault that applies to this call, used up by one; kind FAULT_NONE if there is none. */
static struct fault faults_take(struct faults *faults, const struct verb *verb)
{
	for (size_t i = 0; i < faults->count; i++) {
		struct fault fault = faults->items[i];

		if (fault.verb != verb)
			continue;
		if (fault.count != UINT64_MAX && --faults->items[i].count == 0) {
			faults->count--;
			memmove(faults->items + i, faults->items + i + 1,
				(faults->count - i) * sizeof(faults->items[0]));
		}
		return fault;
	}
	return (struct fault){.kind = FAULT_NONE};
}

/* ---- the table, and the way of a request ---- */

static const struct verb verbs[] = {
    {"create", A_CELL, {"cpus", "mem", "base", "tag", "prog"}, run_create, false},
    {"console", A_CELL, {0}, run_console, false},
    {"start", A_CELL, {0}, run_start, false},
    {"pause", A_CELL, {0}, run_pause, false},
    {"resume", A_CELL, {0}, run_resume, false},
    {"powerdown", A_CELL, {0}, run_powerdown, false},
    {"destroy", A_CELL, {0}, run_destroy, false},
    {"observe", A_CELL, {0}, run_observe, false},
    {"list", NO_ARGUMENT, {"after"}, run_list, false},
    {"stat", NO_ARGUMENT, {0}, run_stat, false},
    {"subscribe", NO_ARGUMENT, {0}, run_subscribe, false},
    {"fault", A_WORD, {"kind", "ms", "errno", "count"}, run_fault, true},
    {"quit", NO_ARGUMENT, {0}, run_quit, true},
};

static const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

void proto_receive(struct sim *sim, uint64_t connection, const char *bytes, size_t len)
{
	struct request request;
	struct answer answer;
	struct fault fault = {.kind = FAULT_NONE};
	bool performs = request_parse(bytes, len, &request, &answer) >= 0;

	request.connection = connection;
	if (performs && !request.verb->never_faulty)
		fault = faults_take(&sim->faults, request.verb);
	bool waits = fault.kind == FAULT_DELAY || fault.kind == FAULT_LATE;
	if (waits && sim->deferred_count >= DEFERRED_MAX) {
		refuse(&answer, ENOBUFS, "%d answers are waiting", DEFERRED_MAX);
		waits = performs = false;
	}
	if (fault.kind == FAULT_HANG)
		return;
	if (waits && fault.kind == FAULT_DELAY) {
		sim_defer(sim, connection, now_ms() + fault.ms, true, packet_new(bytes, len, -1));
		return;
	}
	if (fault.kind == FAULT_ERROR) {
		answer.len = 0;
		answer_add(&answer, "%" PRIu64 " err %s a fault that was asked for", request.id, fault.error);
	} else if (performs && fault.kind != FAULT_LIE)
		request.verb->run(sim, &request, &answer);
	if (waits)
		sim_defer(sim, connection, now_ms() + fault.ms, false, answer_packet(&answer));
	else
		sim_send(sim, connection, answer_packet(&answer));
}

void proto_perform(struct sim *sim, uint64_t connection, const char *bytes, size_t len)
{
	struct request request;
	struct answer answer;

	request.connection = connection;
	if (request_parse(bytes, len, &request, &answer) >= 0)
		request.verb->run(sim, &request, &answer);
	sim_send(sim, connection, answer_packet(&answer));
}
