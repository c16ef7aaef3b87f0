/*
 * What the loader hands over: the part of hvm_start_info that we read (Xen
 * include/public/arch-x86/hvm/start_info.h). All addresses are physical; 0 is "not there".
 */
#ifndef GUEST_PVH_H
#define GUEST_PVH_H

#include <stddef.h>
#include <stdint.h>

#define PVH_START_MAGIC 0x336ec578U

struct pvh_start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t modules;
	uint64_t modules_paddr;
	uint64_t cmdline_paddr; /* NUL-terminated */
};

_Static_assert(offsetof(struct pvh_start_info, cmdline_paddr) == 24, "the layout is the loader's");

#endif
