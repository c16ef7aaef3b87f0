/* LD_PRELOAD: the N-th allocation of memory fails, once. The file that MEMORY_FAULT names says when: three 64-bit numbers that are
 * shared with the test: is it counted at all, how many there were, which of them fails (0: none). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct {
	uint64_t counting, n, fails;
} *fault;

static void *(*real_malloc)(size_t), *(*real_calloc)(size_t, size_t), *(*real_realloc)(void *, size_t);

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("MEMORY_FAULT");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p = fd >= 0 ? mmap(NULL, sizeof(*fault), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (fd >= 0)
		close(fd);
	unsetenv("LD_PRELOAD"); /* what phid starts has all the memory it wants */
	if (p != MAP_FAILED)
		fault = p;
}

static bool fails(void)
{
	if (fault == NULL || !__atomic_load_n(&fault->counting, __ATOMIC_SEQ_CST))
		return false;
	if (__atomic_add_fetch(&fault->n, 1, __ATOMIC_SEQ_CST) != fault->fails)
		return false;
	errno = ENOMEM;
	return true;
}

void *malloc(size_t n)
{
	if (real_malloc == NULL)
		real_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
	return fails() ? NULL : real_malloc(n);
}

void *calloc(size_t n, size_t size)
{
	if (real_calloc == NULL)
		real_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
	return fails() ? NULL : real_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
	if (real_realloc == NULL)
		real_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
	return fails() ? NULL : real_realloc(p, n);
}

/* AddressSanitizer's own do not come by here. */
char *strndup(const char *s, size_t max)
{
	size_t n = strnlen(s, max);
	char *d = malloc(n + 1);

	if (d != NULL) {
		memcpy(d, s, n);
		d[n] = '\0';
	}
	return d;
}

char *strdup(const char *s)
{
	return strndup(s, strlen(s));
}
