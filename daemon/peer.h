/* Who is at the other end of a socket, read once, at accept. */
#pragma once

#include <sys/types.h>

enum role { ROLE_NONE, ROLE_VIEW, ROLE_ADMIN };

struct peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
	enum role role;
};

/* SO_PEERCRED and SO_PEERGROUPS. Administrators: root, phid's own user, group "phid"; viewers: group "phid-view". */
int peer_read(int fd, struct peer *ret);
/* Looks the groups up; once, before clients come (NSS may block). */
void peer_init(void);
