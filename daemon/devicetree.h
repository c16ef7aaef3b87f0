/* The device tree as the kernel shows it: a directory a node, a file a property. Read whole; the rest is pure. Facts: Devicetree
 * Specification 0.4, 2.2 to 2.4; Linux Documentation/devicetree/bindings. Numbers are big endian. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct phi_error;

struct dt_property {
	char *name;
	uint8_t *value;
	size_t n;
};

struct dt_node {
	char *name; /* "serial@9000000"; "" of the root */
	struct dt_node *parent, *children, *next; /* children by name: the directory does not know the tree's order */
	struct dt_property *properties;
	size_t n_properties;
};

struct dt_interrupt {
	const struct dt_node *controller;
	uint32_t cells[4]; /* the first of them; what they mean is the controller's */
	unsigned n;
};

/* Reads a directory (/proc/device-tree). *ret is NULL where there is none. */
int dt_load(const char *path, struct dt_node **ret, struct phi_error *e);
void dt_free(struct dt_node *n);

/* The node behind n in a walk over all, parents first; NULL at the end. */
const struct dt_node *dt_next(const struct dt_node *n);
/* "/soc/serial@9000000" */
void dt_path(const struct dt_node *n, char *ret, size_t size);
/* By a path or an alias, which a ':' may end (as in stdout-path); by phandle. NULL if there is none. */
const struct dt_node *dt_find(const struct dt_node *root, const char *path);
const struct dt_node *dt_by_phandle(const struct dt_node *root, uint32_t phandle);

const struct dt_property *dt_get(const struct dt_node *n, const char *name);
/* The i-th cell of 32 bits of a property. */
bool dt_cell(const struct dt_node *n, const char *name, size_t i, uint32_t *ret);
/* The first string of a property, or NULL. Lives as long as the node. */
const char *dt_text(const struct dt_node *n, const char *name);
/* Is the word among its "compatible"? */
bool dt_is(const struct dt_node *n, const char *compatible);
/* Neither it nor a node above is disabled. */
bool dt_available(const struct dt_node *n);

/* The i-th of its register ranges, as an address of the CPUs: 1; 0 if it has no such one, -1 if it is on a bus whose addresses are not
 * the CPUs'. */
int dt_reg(const struct dt_node *n, size_t i, uint64_t *ret_base, uint64_t *ret_size);
/* The i-th of its interrupts: 1; 0 if it has no such one, -1 if it goes by a controller that cannot be told. */
int dt_interrupt(const struct dt_node *root, const struct dt_node *n, size_t i, struct dt_interrupt *ret);
