/* What a QEMU has used, by the kernel's account of its process (proc_pid_stat(5)): vCPUs and emulator threads together. */
#include "qemu.h"

#include "clean.h"
#include "error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

int qemu_stats_of_stat(const char *text, pid_t keeper, struct cell_stats *ret)
{
	/* The name may have blanks and parentheses of its own. Fields 4 ppid, 14 utime, 15 stime, 20 threads, 24 rss. */
	const char *rest = strrchr(text, ')');
	uint64_t user, system, hz = (uint64_t)sysconf(_SC_CLK_TCK);
	long threads, rss;
	int parent;

	if (rest == NULL || sscanf(rest + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %*d %*d %*d %*d %ld %*d %*u %*u %ld",
				   &parent, &user, &system, &threads, &rss) != 5)
		return -EBADMSG;
	if (parent != keeper)
		return -ESRCH; /* the number is another's by now */
	*ret = (struct cell_stats){.user_ns = user * (1000000000 / hz),
				   .system_ns = system * (1000000000 / hz),
				   .resident = (uint64_t)rss * (uint64_t)sysconf(_SC_PAGESIZE),
				   .threads = (unsigned)threads};
	return 0;
}

int qemu_stats(const struct cell *c, struct cell_stats *ret, struct phi_error *e)
{
	char path[40], text[1024];
	_clean_close_ int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)c->pid);
	fd = c->pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	text[n > 0 ? n : 0] = '\0';
	if (n <= 0 || qemu_stats_of_stat(text, c->keeper_pid, ret) < 0)
		return phi_error_set(e, PHI_STATE, ESRCH, "/state", "container not running: the process of %s is gone", c->id);
	return 0;
}
