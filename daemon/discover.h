/* phid --discover: a first platform file from the running machine. Each value found says in a note where it is from; what nothing
 * decides is left out, and a sentence at the top says so. */
#pragma once

#include "devicetree.h"
#include "iomem.h"
#include "jailhouse/cell.h"
#include "json.h"

#include <stdbool.h>

struct discovery {
	const char *root;      /* of the machine's files (hostfiles.h) */
	const char *root_cell; /* path of the root cell's file, or NULL */
	struct json *doc;
	struct json *notes; /* of doc: what was not decided */
	struct dt_node *tree; /* NULL: there is none */
	struct iomem iomem;
	bool has_iomem;
	struct jh_system system;
	bool has_system;
};

/* The platform file as a text that platform_read accepts; the caller frees it. */
int discover(const char *root, const char *root_cell, char **ret, struct phi_error *e);

/* Adds a sentence to d->notes. */
void discover_left_out(struct discovery *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "note" of an object. */
void discover_note(struct json *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Bytes, as people write them: "16M". */
void discover_size(struct json *to, const char *name, uint64_t size);
/* A name that no item of the list has: `wanted`, or that with a number behind it. */
void discover_name(struct json *item, const struct json *list, const char *wanted);

/* discover_memory.c: pools; ends of links that the root cell has. */
void discover_memory(struct discovery *d);
void discover_links(struct discovery *d);
/* discover_devices.c: interrupt controller, devices, remote processors. */
void discover_devices(struct discovery *d);
