/* Runs a program and prints its peak of resident memory in KiB, last on stderr. Static and small: what it holds itself is below what
 * any program to be measured holds. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct rusage usage;
	int status;
	pid_t pid = argc > 1 ? vfork() : -1;

	if (pid == 0) {
		execv(argv[1], argv + 1);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &usage) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return 1;
	fprintf(stderr, "%ld\n", usage.ru_maxrss);
	return 0;
}
