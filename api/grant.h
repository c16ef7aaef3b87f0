/* What a cell was granted: the allocator's answer, a backend's order. */
#pragma once

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
	bool alone; /* nobody else is there: what is in it is nobody's */
	uint64_t base, size, common, output; /* bytes; what is behind the last output is not used */
};
#define ALLOC_LINK_STATES 4096

struct alloc_grant {
	struct cpuset cpus;
	size_t n_memory;
	struct alloc_memory memory[PHI_MEMORY_REGIONS_MAX];
	size_t n_devices;
	char devices[PHI_DEVICES_MAX][PHI_NAME_MAX + 1]; /* names in the platform */
	size_t n_remote;
	char remote[PHI_REMOTE_MAX][PHI_NAME_MAX + 1];
	size_t n_links;
	struct alloc_link links[PHI_LINKS_MAX];
	bool has_virtual;
	int64_t virtual_spi; /* the first of four interrupts of its virtual PCI bus */
};
