/* Cleanup attributes and the one way to move ownership. */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define _clean_(f) __attribute__((cleanup(f)))

/* Moves a pointer out of its variable, which is NULL afterwards. */
#define PHI_TAKE(p)                                                                                          \
	__extension__({                                                                                      \
		__typeof__(p) _taken = (p);                                                                  \
		(p) = NULL;                                                                                  \
		_taken;                                                                                      \
	})
/* The same for a descriptor, which is -1 afterwards. */
#define PHI_TAKE_FD(fd)                                                                                      \
	__extension__({                                                                                      \
		int _taken = (fd);                                                                           \
		(fd) = -1;                                                                                   \
		_taken;                                                                                      \
	})

/* A copy of a text, NULL of NULL. Without memory phid aborts, is started again and settles what it was at: a text that is only
 * missing would say something else. */
static inline char *phi_strdup(const char *s)
{
	char *copy = s != NULL ? strdup(s) : NULL;

	if (s != NULL && copy == NULL)
		abort();
	return copy;
}

static inline void phi_free_p(void *p)
{
	free(*(void **)p);
}

static inline void phi_close_p(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void phi_close(int *fd)
{
	phi_close_p(fd);
	*fd = -1;
}

static inline void phi_fclose_p(FILE **f)
{
	if (*f != NULL)
		fclose(*f);
}

static inline void phi_closedir_p(DIR **d)
{
	if (*d != NULL)
		closedir(*d);
}

#define _clean_free_  _clean_(phi_free_p)
#define _clean_close_ _clean_(phi_close_p)
#define _clean_fclose_ _clean_(phi_fclose_p)
#define _clean_closedir_ _clean_(phi_closedir_p)

#define PHI_COUNT(a) (sizeof(a) / sizeof((a)[0]))
