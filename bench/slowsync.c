/* LD_PRELOAD: a disk that takes SLOWSYNC_MS longer for each fdatasync and fsync. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int slow(const char *name, int fd)
{
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
	const char *ms = getenv("SLOWSYNC_MS");

	if (ms != NULL)
		usleep((useconds_t)atoi(ms) * 1000);
	return real(fd);
}

int fdatasync(int fd)
{
	return slow("fdatasync", fd);
}

int fsync(int fd)
{
	return slow("fsync", fd);
}
