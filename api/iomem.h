/* The physical address map as the kernel shows it in /proc/iomem. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct phi_error;

struct iomem_range {
	uint64_t base, end; /* the last byte */
	unsigned depth;	    /* 0: not within another */
	char name[48];
};

struct iomem {
	size_t n;
	struct iomem_range *ranges; /* in the file's order */
};

/* Reads its text. Refused with EACCES where the kernel hides the addresses: it shows zeros to who is not root. */
int iomem_parse(const char *text, struct iomem *ret, struct phi_error *e);
void iomem_free(struct iomem *m);
/* The first of that name that has a byte of base..base+size, or NULL. */
const struct iomem_range *iomem_find(const struct iomem *m, const char *name, uint64_t base, uint64_t size);
