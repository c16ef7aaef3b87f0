/* The worker's side of a Jailhouse cell: made, with all that goes before and behind it, and unmade. What blocks is here, and nothing
 * of the daemon's is: a struct jh_make carries what it needs. */
#pragma once

#include "backend.h"
#include "cell.h"
#include "driver.h"
#include "payload.h"

struct jh_bytes {
	uint8_t *bytes; /* owned */
	size_t n;
};

struct jh_make {
	const struct jh_paths *paths;
	const struct platform *platform;
	char name[CELL_NAME_MAX + 1];
	struct alloc_grant grant;
	struct jh_bytes config;
	struct jh_bytes clearing[PHI_LINKS_MAX]; /* by the grant's links; empty: nothing to be cleared */
	struct jh_memory cleared[PHI_MEMORY_REGIONS_MAX + PHI_LINKS_MAX * 2]; /* by virt and size, before the images */
	size_t n_cleared;
	struct jh_payload payload;
	int firmware; /* a descriptor of our own; -1: none */
	uint64_t firmware_size;
	int console; /* answer: the other end of its UART's line, or -1 */
};

/* Fills in what the cell's container was granted. Negative with the error; jh_make_done frees it whatever the answer. */
int jh_make_plan(struct jh_make *m, const struct cell *c, const struct platform *p, const struct jh_paths *paths, const struct jh_system *system,
		 struct phi_error *e);
void jh_make_done(struct jh_make *m);
/* Takes its devices from Linux, creates and loads the cell: there is none of that name, since no row comes twice. */
int jh_make(struct jh_make *m, struct phi_error *e);
/* Destroys the cell if it is there; once it is gone, removes its firmware and gives its devices back. */
int jh_unmake(const struct jh_paths *paths, const struct platform *p, const char *name, const struct alloc_grant *g, struct phi_error *e);
/* The tty at the other end of the first UART that has one, as bytes come; -1 where there is none. Does not block. */
int jh_open_tty(const struct platform *p, const struct alloc_grant *g, int *ret, struct phi_error *e);
