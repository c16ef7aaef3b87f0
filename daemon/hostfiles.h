/* Small files of the machine (/proc, /sys) beneath a root: "" is the running machine, a directory a copy of another one's. All of it
 * may block. Paths are formats of printf and begin with a slash. */
#pragma once

#include "cpuset.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The first line; "" where there is none. Answers whether the file could be read. */
bool host_line(const char *root, char *ret, size_t size, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The whole file, at most max bytes, with a NUL behind it; NULL where it cannot be read. The caller frees it. */
char *host_text(const char *root, size_t max, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A list of CPUs; the empty set and false where there is none. */
bool host_cpus(const char *root, struct cpuset *ret, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool host_exists(const char *root, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What a symbolic link says; false where it is none. */
bool host_link(const char *root, char *ret, size_t size, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Bytes that Linux has; 0: not known. */
uint64_t host_memory(const char *root);
/* Bytes of the pool that a host without a platform file has: three quarters of its memory; the host keeps the rest. 0 if not known. */
uint64_t host_pool_size(const char *root);
