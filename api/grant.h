/* What a cell was granted: the allocator's answer, a backend's order. */
#pragma once

#include "clean.h"
#include "cpuset.h"
#include "limits.h"

#include <stdbool.h>
#include <stdint.h>

struct alloc_memory {
	char pool[PHI_NAME_MAX + 1];
	bool has_base;
	uint64_t base, size, colors;
};

enum link_protocol { LINK_RAW, LINK_NETWORK };
extern const char *const link_protocols[]; /* end in NULL */

/* An end of a link. Its memory: a page of states, `common` bytes that every end may write, `output` bytes of each end in the order of ids. */
struct alloc_link {
	char name[PHI_ID_MAX + 1];
	int64_t slot, id, peers; /* slot: device number on the ends' virtual PCI bus */
	int protocol;		 /* enum link_protocol */
	bool host;
	bool alone; /* what is in it is nobody's. When granted: the link is new; when the cell is made: no other that was made is at it */
	uint64_t base, size, common, output; /* bytes; what is behind the last output is not used */
};
#define ALLOC_LINK_STATES 4096

/* Owns its arrays, which are as long as what was granted: a host has thousands of cells, and most have a range and nothing else.
 * All zeros: nothing is granted. */
struct alloc_grant {
	struct cpuset cpus;
	size_t n_memory, n_devices, n_remote, n_links;
	struct alloc_memory *memory; /* at most PHI_MEMORY_REGIONS_MAX */
	char (*devices)[PHI_NAME_MAX + 1]; /* names in the platform, at most PHI_DEVICES_MAX */
	char (*remote)[PHI_NAME_MAX + 1];  /* the same, PHI_REMOTE_MAX */
	struct alloc_link *links;	   /* at most PHI_LINKS_MAX */
	bool has_virtual;
	int64_t virtual_spi; /* the first of four interrupts of its virtual PCI bus */
};

struct alloc_memory *alloc_grant_add_memory(struct alloc_grant *g); /* the new one of each is zeroed */
struct alloc_link *alloc_grant_add_link(struct alloc_grant *g);
void alloc_grant_add_device(struct alloc_grant *g, const char *name);
void alloc_grant_add_remote(struct alloc_grant *g, const char *name);
/* *to is one of its own; what it held is freed. */
void alloc_grant_copy(struct alloc_grant *to, const struct alloc_grant *from);
void alloc_grant_done(struct alloc_grant *g); /* nothing is granted then */
#define _clean_grant_ _clean_(alloc_grant_done)
