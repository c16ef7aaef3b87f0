/* Finding the project's other programs. The one file of api/ that looks at the file system. */
#include "program.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool program_find(const char *sibling, const char *name, char *ret, size_t size)
{
	char self[1024];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		if (slash != NULL) {
			*slash = '\0';
			snprintf(ret, size, "%s/%s/%s", self, sibling, name);
			if (access(ret, X_OK) == 0)
				return true;
		}
	}
	snprintf(ret, size, "%s/%s", PKGLIBEXECDIR, name);
	return access(ret, X_OK) == 0;
}
