/* ELF files of inmates: what is loaded where, and where it begins. Pure; the file is a stranger's. Facts: System V ABI, "Object Files" and
 * "Program Loading". */
#pragma once

#include "cell.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct phi_error;

#define JH_ELF_SEGMENTS_MAX 16

struct jh_segment {
	uint64_t offset, size; /* in the file, bytes; size > 0 */
	uint64_t address;      /* p_paddr, in the cell */
	uint64_t memory;       /* bytes that it takes there; what the file does not give is zero */
};

struct jh_elf {
	struct jh_segment segments[JH_ELF_SEGMENTS_MAX]; /* by address; they do not overlap */
	size_t n;
	uint64_t low, high; /* the first address and the one behind the last */
	uint64_t entry;
};

bool jh_is_elf(const void *bytes, size_t n);
/* A statically linked program (ET_EXEC) for that architecture. Refuses what is malformed by its offset. */
int jh_elf_read(const void *bytes, size_t n, enum jh_arch arch, struct jh_elf *ret, struct phi_error *e);
