/* Facts about a process of this host, for runphi and the keeper. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/* When it was begun, in clock ticks since boot (field 22 of /proc/<pid>/stat): with it a pid names one process for ever. 0 if
 * there is no such process. */
uint64_t process_start(pid_t pid);
