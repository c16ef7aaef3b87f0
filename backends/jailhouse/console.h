/* The hypervisor's console: one for all cells, so one cell has it (a device of the platform). What it prints is read and handed to that
 * cell's keeper. */
#pragma once

#include "backend.h"
#include "driver.h"

bool jh_has_console(const struct platform *p, const struct alloc_grant *g);
/* From when a cell that was granted it is there; `anew`: it ran before phid was started. */
void jh_console_begin(struct cell *c, const struct backend_env *env, const struct jh_paths *paths, bool anew);
/* Opens the device before a cell is created: what is in the ring then is of others, and passed over. In a job. */
void jh_console_skip(const struct jh_paths *paths);
void jh_console_end(struct cell *c);
