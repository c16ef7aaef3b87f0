/* The file that holds a cell's console output: a page of header, then a ring addressed by absolute offsets. The
 * keeper is its only writer (mapped); phid reads it with pread, also when nobody writes any more. The file is
 * allocated whole when it is made, so that a full disk cannot stop a guest. */
#pragma once

#include <stdint.h>

#define CONSOLE_LOG_MAGIC  "phidcon1"
#define CONSOLE_LOG_HEADER 4096

struct console_log {
	char magic[8];
	uint64_t size;	  /* bytes of the ring */
	uint64_t end;	  /* bytes ever written; the ring holds [end - min(end, size), end). Stored after the bytes */
	uint64_t writing; /* where end will be: stored before the bytes. What a reader took is good while it is behind
			   * neither: offset >= writing - size, looked at after the read */
};
