/* See process.h. */
#include "process.h"

#include "clean.h"
#include "keeper_proto.h"

#include <fcntl.h>

uint64_t process_start(pid_t pid)
{
	char path[40], text[512];
	_clean_close_ int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	return keeper_start_of_stat(text);
}
