/* Four log verbs. To the journal with fields where stderr is the journal, else to stderr. */
#pragma once

#include <syslog.h>

void log_init(int level);
void log_at(int level, const char *container, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* container: its id, or NULL. */
#define log_error(container, ...) log_at(LOG_ERR, container, __VA_ARGS__)
#define log_warn(container, ...)  log_at(LOG_WARNING, container, __VA_ARGS__)
#define log_info(container, ...)  log_at(LOG_INFO, container, __VA_ARGS__)
#define log_debug(container, ...) log_at(LOG_DEBUG, container, __VA_ARGS__)
