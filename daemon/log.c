/* Logging. See log.h. */
#include "log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-journal.h>

static int max_level = LOG_INFO;
static bool to_journal;

void log_init(int level)
{
	max_level = level;
	to_journal = getenv("JOURNAL_STREAM") != NULL;
}

void log_at(int level, const char *container, const char *format, ...)
{
	char text[1024];
	va_list ap;

	if (level > max_level)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (to_journal && sd_journal_send("PRIORITY=%d", level, "MESSAGE=%s%s%s", container ? container : "",
					  container ? ": " : "", text, "PHI_CONTAINER=%s", container ? container : "",
					  NULL) >= 0)
		return;
	fprintf(stderr, "phid: %s%s%s\n", container ? container : "", container ? ": " : "", text);
}
