/* What both fuzz programs have: promises that are held in any build, and FUZZ_TARGET, which names the target of this run; without it the
 * targets are listed. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define must(condition)                                                                                      \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);        \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

struct target {
	const char *name;
	void (*run)(const char *bytes, size_t n);
};

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* targets ends in a row without name. Does not return where there is none to run. */
static inline const struct target *target_chosen(const struct target *targets)
{
	const char *name = getenv("FUZZ_TARGET");

	for (; targets->name != NULL; targets++) {
		if (name == NULL)
			puts(targets->name);
		else if (strcmp(name, targets->name) == 0)
			return targets;
	}
	exit(name != NULL);
}
