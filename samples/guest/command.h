/* The commands: see command.c. */
#ifndef GUEST_COMMAND_H
#define GUEST_COMMAND_H

#include <stdbool.h>

enum {
	COMMAND_LINE_MAX = 1024
}; /* characters of one line, without the NUL */

/* Runs the commands of a line, separated by ';'. Cuts the line up in place. Returns when all have run. */
void command_run_line(char *line);

/* What goes on beside the commands, as the counter of `count`: to be called whenever the guest woke up. */
void command_run_background(void);

/* Whether typed characters are to be echoed (`tty`). */
bool command_echo_wanted(void);

#endif
