/* The rules that phid and keeper must agree on. Pure. */
#include "keeper_proto.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

int keeper_exit_code(int wstatus, uint32_t flags, const char *tail, const char *const *rules, uint32_t n_rules)
{
	int status;

	if (WIFSIGNALED(wstatus))
		return 128 + WTERMSIG(wstatus);
	status = WEXITSTATUS(wstatus);
	for (uint32_t i = 0; i < n_rules; i++)
		if (strstr(tail, rules[2 * i + 1]) != NULL)
			return atoi(rules[2 * i]);
	return (flags & KEEPER_ODD_IS_GUESTS) && (status & 1) ? status >> 1 : status;
}

uint64_t keeper_start_of_stat(const char *stat_text)
{
	const char *p = strrchr(stat_text, ')'); /* the name may hold anything, so from its end */

	/* Behind the name come " state ppid ...": starttime is field 22, the 20th from there. */
	for (int field = 2; p != NULL && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p != NULL ? strtoull(p + 1, NULL, 10) : 0;
}
