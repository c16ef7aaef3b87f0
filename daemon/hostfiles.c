/* See hostfiles.h. */
#include "hostfiles.h"

#include "clean.h"
#include "error.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

/* root and what the caller's format says, in `path`. */
#define EXPAND(path, root, format)                                                                           \
	do {                                                                                                 \
		va_list args_;                                                                               \
		int n_ = snprintf(path, sizeof(path), "%s", root);                                           \
		va_start(args_, format);                                                                     \
		if ((size_t)n_ < sizeof(path))                                                               \
			vsnprintf((path) + n_, sizeof(path) - (size_t)n_, format, args_);                    \
		va_end(args_);                                                                               \
	} while (0)

bool host_line(const char *root, char *ret, size_t size, const char *format, ...)
{
	_clean_close_ int fd = -1;
	char path[PHI_PATH_MAX];
	ssize_t n;

	EXPAND(path, root, format);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, ret, size - 1) : -1;
	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return n >= 0;
}

char *host_text(const char *root, size_t max, const char *format, ...)
{
	_clean_close_ int fd = -1;
	_clean_free_ char *text = NULL;
	char path[PHI_PATH_MAX];
	size_t n = 0, room = 0;
	ssize_t got;

	EXPAND(path, root, format);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	do { /* these files say no size before they are read */
		if (n == room) {
			room += 16384;
			text = realloc(text, room + 1);
			if (text == NULL)
				abort();
		}
		got = read(fd, text + n, room - n);
		n += got > 0 ? (size_t)got : 0;
	} while (got > 0 && n <= max);
	if (got < 0 || n > max)
		return NULL;
	text[n] = '\0';
	return PHI_TAKE(text);
}

bool host_cpus(const char *root, struct cpuset *ret, const char *format, ...)
{
	char path[PHI_PATH_MAX], list[CPUSET_TEXT_MAX];
	struct phi_error e;

	EXPAND(path, root, format);
	*ret = (struct cpuset){0};
	return host_line("", list, sizeof(list), "%s", path) && cpuset_parse(list, "", ret, &e) == 0;
}

bool host_exists(const char *root, const char *format, ...)
{
	char path[PHI_PATH_MAX];

	EXPAND(path, root, format);
	return access(path, F_OK) == 0;
}

bool host_link(const char *root, char *ret, size_t size, const char *format, ...)
{
	char path[PHI_PATH_MAX];
	ssize_t n;

	EXPAND(path, root, format);
	n = readlink(path, ret, size - 1);
	ret[n > 0 ? n : 0] = '\0';
	return n > 0;
}

uint64_t host_memory(const char *root)
{
	uint64_t kib;
	char line[128];

	return host_line(root, line, sizeof(line), "/proc/meminfo") && sscanf(line, "MemTotal: %" SCNu64, &kib) == 1 ? kib << 10 : 0;
}

uint64_t host_pool_size(const char *root)
{
	return host_memory(root) / 4 * 3 & ~(uint64_t)0x1fffff;
}
