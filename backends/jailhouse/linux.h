/* Linux in a cell of arm64: where kernel, initrd and device tree go, the few instructions that start it, and the device tree itself. Pure.
 * Facts: Linux Documentation/arch/arm64/booting.rst; the bindings of Linux for each node. */
#pragma once

#include "backend.h"
#include "cell.h"
#include "platform.h"

struct jh_linux {
	uint64_t boot, dtb, kernel, initrd; /* addresses in the cell */
	uint64_t end;			    /* of all of it; below the end of the region */
};

#define JH_LINUX_BOOT_SIZE 40
#define JH_LINUX_DTB_MAX   (1u << 20)

/* Within [base, base + size), the cell's first memory. `kernel`: the first 64 bytes of the file, that has kernel_size. */
int jh_linux_lay_out(uint64_t base, uint64_t size, const void *kernel, uint64_t kernel_size, uint64_t initrd_size, struct jh_linux *ret,
		     struct phi_error *e);
/* The code at `boot`: the registers as the kernel wants them, and on to it. */
void jh_linux_boot_code(const struct jh_linux *l, uint8_t ret[JH_LINUX_BOOT_SIZE]);

struct jh_tree_wish {
	const struct cell *cell;
	const struct platform *platform;
	const struct jh_system *system; /* or NULL */
	const struct jh_linux *layout;
	uint64_t initrd_size; /* 0: none */
};
/* A device tree of the cell: CPUs, memory, interrupt controller, timer, its UARTs, its virtual PCI bus. malloc'd. */
int jh_tree_make(const struct jh_tree_wish *w, void **ret, size_t *ret_size, struct phi_error *e);
/* The caller's own, with memory, command line and initrd put right. malloc'd. */
int jh_tree_edit(const struct jh_tree_wish *w, const void *tree, size_t size, void **ret, size_t *ret_size, struct phi_error *e);
