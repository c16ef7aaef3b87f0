/*
 * Owns the commands: their table, their arguments and the state that they leave behind (the counter, the
 * echo).
 *
 * One command runs at a time, in the only thread there is; `count` is run from every place that waits, so
 * that its lines never fall into another's. Reads no input: guest.c does.
 *
 * Sources: QEMU hw/misc/debugexit.c (QEMU exits with (value << 1) | 1) and docs/specs/pvpanic.txt (reading
 * the port gives the events that the device knows, bit 0 is "panicked").
 */
#include "command.h"

#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "console.h"
#include "io.h"
#include "irq.h"

enum {
	DEBUG_EXIT_PORT = 0xf4,
	DEBUG_EXIT_MAX = 127, /* more does not survive the shift into an exit status */

	PVPANIC_PORT = 0x505,
	PVPANIC_PANICKED = 0x01,
	PORT_FLOATING = 0xff, /* no device answers */

	MS_MAX = 24 * 60 * 60 * 1000
};

struct command {
	const char *name;
	bool (*run)(const char *argument); /* false: the argument is wrong and nothing was done */
	const char *usage;
};

static struct {
	uint32_t period_ms; /* 0: off */
	uint32_t next_ms;
	uint32_t number;
} counter;

static bool echo_wanted;

void command_run_background(void)
{
	uint32_t now_ms = clock_now_ms();

	while (counter.period_ms && clock_reached(now_ms, counter.next_ms)) {
		console_print("count ");
		console_print_number(++counter.number);
		console_put('\n');
		counter.next_ms += counter.period_ms;
	}
}

bool command_echo_wanted(void)
{
	return echo_wanted;
}

static bool parse_number(const char *text, uint32_t max, uint32_t *ret_number)
{
	uint32_t number = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		number = number * 10 + (uint32_t)(*text - '0');
		if (number > max)
			return false;
	}
	*ret_number = number;
	return true;
}

static bool run_echo(const char *argument)
{
	console_print(argument);
	console_put('\n');
	return true;
}

static bool run_ping(const char *argument)
{
	if (*argument)
		return false;
	console_print("pong\n");
	return true;
}

static bool run_count(const char *argument)
{
	uint32_t period_ms;

	if (!parse_number(argument, MS_MAX, &period_ms))
		return false;
	counter.period_ms = period_ms;
	counter.next_ms = clock_now_ms() + period_ms;
	counter.number = 0;
	return true;
}

static bool run_sleep(const char *argument)
{
	uint32_t ms;
	uint32_t deadline_ms;

	if (!parse_number(argument, MS_MAX, &ms))
		return false;
	for (deadline_ms = clock_now_ms() + ms; !clock_reached(clock_now_ms(), deadline_ms);) {
		cpu_irq_enable_and_sleep();
		command_run_background();
	}
	return true;
}

static bool run_spin(const char *argument)
{
	uint32_t ms;
	uint32_t deadline_ms;

	if (!parse_number(argument, MS_MAX, &ms))
		return false;
	for (deadline_ms = clock_now_ms() + ms; !clock_reached(clock_now_ms(), deadline_ms);)
		command_run_background();
	return true;
}

static bool run_uptime(const char *argument)
{
	if (*argument)
		return false;
	console_print_number(clock_now_ms());
	console_put('\n');
	return true;
}

static bool run_tty(const char *argument)
{
	if (*argument)
		return false;
	echo_wanted = true;
	return true;
}

static bool run_exit(const char *argument)
{
	uint32_t value;

	if (!parse_number(argument, DEBUG_EXIT_MAX, &value))
		return false;
	console_drain();
	io_out32(DEBUG_EXIT_PORT, value);
	console_print("exit: no isa-debug-exit device at 0xf4\n");
	return true;
}

static bool run_panic(const char *argument)
{
	uint8_t events = io_in8(PVPANIC_PORT);

	if (*argument)
		return false;
	if (events == PORT_FLOATING || !(events & PVPANIC_PANICKED)) {
		console_print("panic: no pvpanic device at 0x505\n");
		return true;
	}
	console_drain();
	io_out8(PVPANIC_PORT, PVPANIC_PANICKED);
	for (;;) {
		cpu_irq_disable();
		__asm__ volatile("hlt");
	}
}

static bool run_hang(const char *argument)
{
	if (*argument)
		return false;
	console_drain();
	cpu_irq_disable();
	for (;;)
		__asm__ volatile("");
}

/* Both `crash` and `reset`: a PC has other ways to reset, but microvm has not (no i8042, no port 0xcf9). */
static bool run_triple_fault(const char *argument)
{
	if (*argument)
		return false;
	console_drain();
	irq_triple_fault();
}

static const struct command commands[] = {
    {"count", run_count, "count MS"}, {"crash", run_triple_fault, "crash"},
    {"echo", run_echo, "echo TEXT"},  {"exit", run_exit, "exit 0..127"},
    {"hang", run_hang, "hang"},       {"panic", run_panic, "panic"},
    {"ping", run_ping, "ping"},       {"reset", run_triple_fault, "reset"},
    {"sleep", run_sleep, "sleep MS"}, {"spin", run_spin, "spin MS"},
    {"tty", run_tty, "tty"},          {"uptime", run_uptime, "uptime"},
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

static bool equal(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* The text without the spaces around it; cuts them off in place. */
static char *trim(char *text)
{
	char *end;

	while (is_space(*text))
		text++;
	for (end = text; *end; end++)
		;
	while (end > text && is_space(end[-1]))
		end--;
	*end = '\0';
	return text;
}

/* Ends the text at the first character for which `stops` is true and returns what follows, or the empty rest.
 */
static char *cut(char *text, bool (*stops)(char c))
{
	while (*text && !stops(*text))
		text++;
	if (*text)
		*text++ = '\0';
	return text;
}

static bool is_separator(char c)
{
	return c == ';';
}

static void command_run(char *text)
{
	char *word = trim(text);
	char *argument = trim(cut(word, is_space));

	if (!*word)
		return;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!equal(word, commands[i].name))
			continue;
		if (!commands[i].run(argument)) {
			console_print("usage: ");
			console_print(commands[i].usage);
			console_put('\n');
		}
		return;
	}
	console_print("unknown command: ");
	console_print(word);
	console_put('\n');
}

void command_run_line(char *line)
{
	while (*line) {
		char *rest = cut(line, is_separator);

		command_run(line);
		command_run_background();
		line = rest;
	}
}
