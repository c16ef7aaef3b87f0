/* Sets of CPU numbers and their text form, the kernel's list format ("0,2-3"). Pure. */
#pragma once

#include "limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct phi_error;

struct cpuset {
	uint64_t bits[PHI_CPUS_MAX / 64];
};

/* More than the longest text of a set, which is one of pairs: "0-1,3-4,...". */
#define CPUSET_TEXT_MAX (PHI_CPUS_MAX / 3 * 10 + 16)

/* The thread runs on these CPUs from now on; 0: the caller. A negative errno as of sched_setaffinity(2). */
int cpuset_apply(pid_t tid, const struct cpuset *s);
void cpuset_add(struct cpuset *s, unsigned cpu); /* cpu < PHI_CPUS_MAX */
void cpuset_remove(struct cpuset *s, unsigned cpu);
bool cpuset_equal(const struct cpuset *a, const struct cpuset *b);
bool cpuset_has(const struct cpuset *s, unsigned cpu);
unsigned cpuset_count(const struct cpuset *s);
/* The lowest member >= from, or -1. */
int cpuset_next(const struct cpuset *s, unsigned from);
bool cpuset_meets(const struct cpuset *a, const struct cpuset *b);

/* Parses a list; "" is the empty set. Ranges must ascend, spaces are refused, numbers < PHI_CPUS_MAX.
 * Writes *ret_s only on success; -EINVAL with the reason and the pointer else. */
int cpuset_parse(const char *text, const char *pointer, struct cpuset *ret_s, struct phi_error *e);
/* Writes the shortest list; answers its length, cut at size - 1. */
size_t cpuset_format(const struct cpuset *s, char *buf, size_t size);
