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

struct alloc_grant {
	struct cpuset cpus;
	size_t n_memory;
	struct alloc_memory memory[PHI_MEMORY_REGIONS_MAX];
	size_t n_devices;
	char devices[PHI_DEVICES_MAX][PHI_NAME_MAX + 1]; /* names in the platform */
};
