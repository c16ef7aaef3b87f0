/* Peers' identity and role. See peer.h. */
#include "peer.h"

#include "clean.h"

#include <errno.h>
#include <grp.h>
#include <sys/socket.h>

static gid_t admin_group = (gid_t)-1, view_group = (gid_t)-1;

void peer_init(void)
{
	struct group *g = getgrnam("phid");

	if (g != NULL)
		admin_group = g->gr_gid;
	g = getgrnam("phid-view");
	if (g != NULL)
		view_group = g->gr_gid;
}

static enum role role_of_group(gid_t g)
{
	return g == (gid_t)-1 ? ROLE_NONE : g == admin_group ? ROLE_ADMIN : g == view_group ? ROLE_VIEW : ROLE_NONE;
}

int peer_read(int fd, struct peer *ret)
{
	struct ucred u;
	socklen_t n = sizeof(u);
	_clean_free_ gid_t *groups = NULL;
	enum role role;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &n) < 0)
		return -errno;
	role = u.uid == 0 || u.uid == geteuid() ? ROLE_ADMIN : role_of_group(u.gid);
	n = 0;
	if (role != ROLE_ADMIN && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &n) < 0 && errno == ERANGE) {
		groups = malloc(n);
		if (groups == NULL || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n) < 0)
			n = 0;
		for (size_t i = 0; i < n / sizeof(gid_t); i++)
			if (role_of_group(groups[i]) > role)
				role = role_of_group(groups[i]);
	}
	*ret = (struct peer){.pid = u.pid, .uid = u.uid, .gid = u.gid, .role = role};
	return 0;
}
