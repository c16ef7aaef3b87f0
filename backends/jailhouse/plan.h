/* From what a container was granted to the configuration of its cell. Pure. */
#pragma once

#include "backend.h"
#include "cell.h"
#include "platform.h"

/* Where region i of the grant is in the cell: the first where its payload wants it (ram), the others where they are on the host. */
uint64_t jh_guest_address(const struct alloc_grant *g, uint64_t ram, size_t i);
/* The cell of a container that begins at `entry`, checked against the system (or NULL: not known). *ret is freeable whatever the answer. */
int jh_plan(const struct cell *c, uint64_t ram, uint64_t entry, const struct platform *p, const struct jh_system *system, struct jh_cell *ret,
	    struct phi_error *e);
/* A cell of the same name and CPUs that has all of a link's memory, to be created, loaded with zeros and destroyed before the link's first
 * end is made: it may have been another link's. */
void jh_plan_clearing(const struct cell *c, const struct platform *p, const struct alloc_link *l, struct jh_cell *ret);
bool jh_is_hypervisor_console(const struct platform_device *d);
