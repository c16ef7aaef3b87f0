/* SQLite's failing at a point of one's choice: at the n-th statement that is prepared, or at the n-th instruction of its machine. */
#pragma once

#include <sqlite3.h>

static int left; /* until it fails; 0: it has */

static inline int on_instruction(void *ud)
{
	(void)ud;
	return left > 0 && --left == 0;
}

static inline int on_prepare(void *ud, int action, const char *a, const char *b, const char *c, const char *d)
{
	(void)ud;
	(void)action;
	(void)a;
	(void)b;
	(void)c;
	(void)d;
	return left > 0 && --left == 0 ? SQLITE_DENY : SQLITE_OK;
}
