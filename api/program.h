/* Where the project's other programs are: in the build tree beside this one, else where they were installed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* sibling: the folder of `name` as seen from this program's own in the build tree. False if it is in neither. */
bool program_find(const char *sibling, const char *name, char *ret, size_t size);
