/*
 * A guest to try a machine monitor with: the order of the start, then lines from the console for ever.
 *
 * Owns the line being typed. Sleeps in HLT whenever it has nothing to do.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "command.h"
#include "console.h"
#include "io.h"
#include "irq.h"
#include "pvh.h"

enum {
	BACKSPACE = '\b',
	DELETE = 0x7f
};

void guest_main(const struct pvh_start_info *info);

static char line[COMMAND_LINE_MAX + 1];

static void line_run(bool too_long)
{
	if (too_long)
		console_print("line too long\n");
	else
		command_run_line(line);
}

static void run_cmdline(const struct pvh_start_info *info)
{
	const char *text;
	size_t length = 0;

	if (info->magic != PVH_START_MAGIC || !info->cmdline_paddr || info->cmdline_paddr > UINT32_MAX)
		return;
	text = (const char *)(uintptr_t)info->cmdline_paddr;
	while (length < COMMAND_LINE_MAX && text[length]) {
		line[length] = text[length];
		length++;
	}
	line[length] = '\0';
	line_run(text[length] != '\0');
}

/* The next character typed; the background goes on meanwhile. */
static char read_character(void)
{
	for (;;) {
		int c;

		command_run_background();
		cpu_irq_disable();
		c = console_take();
		if (c >= 0) {
			cpu_irq_enable();
			return (char)c;
		}
		cpu_irq_enable_and_sleep();
	}
}

static void echo(const char *text)
{
	if (command_echo_wanted())
		console_print(text);
}

/* Reads up to CR or LF; CR LF is a line and an empty one, which does nothing. Returns false if the line was
 * cut. */
static bool read_line(void)
{
	size_t length = 0;
	bool fits = true;

	for (;;) {
		char c = read_character();

		if (c == '\r' || c == '\n') {
			echo("\n");
			line[length] = '\0';
			return fits;
		}
		if (c == BACKSPACE || c == DELETE) {
			if (length) {
				length--;
				echo("\b \b");
			}
		} else if (length < COMMAND_LINE_MAX) {
			line[length++] = c;
			echo((const char[]){c, '\0'});
		} else {
			fits = false;
		}
	}
}

void guest_main(const struct pvh_start_info *info)
{
	irq_init();
	clock_init();
	console_init();
	cpu_irq_enable();

	console_print("phid-guest: ready\n");
	run_cmdline(info);
	for (;;)
		line_run(!read_line());
}
