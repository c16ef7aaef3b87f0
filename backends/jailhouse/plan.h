/* From what a container was granted to the configuration of its cell. Pure. */
#pragma once

#include "backend.h"
#include "cell.h"

/* Where region i of the grant is in the cell: the first where the inmate is linked to run (its "at", else 0), the others where they are
 * on the host. */
uint64_t jh_guest_address(const struct cell *c, size_t i);
/* The cell of a container, checked against the system (or NULL: not known). *ret is freeable whatever the answer. */
int jh_plan(const struct cell *c, const struct platform *p, const struct jh_system *system, struct jh_cell *ret, struct phi_error *e);
