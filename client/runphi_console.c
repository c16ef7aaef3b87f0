/* The pseudo-terminal of a cell. What real clients do (the shim, conmon, dockerd): they listen on a Unix socket and take one
 * message with one descriptor, the master; nothing is answered. */
#include "runphi.h"

#include "clean.h"
#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>

static int send_master(const char *path, int master, struct phi_error *e)
{
	static const char name[] = "/dev/ptmx";
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)name, sizeof(name) - 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	_clean_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(a.sun_path))
		return phi_error_set(e, PHI_INVALID, ENAMETOOLONG, "/console-socket", "%s is longer than a socket's path may be", path);
	strcpy(a.sun_path, path);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &master, sizeof(int));
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || sendmsg(fd, &m, MSG_NOSIGNAL) < 0)
		return phi_error_set(e, PHI_INVALID, errno, "/console-socket", "%s: %s", path, strerror(errno));
	return 0;
}

int console_open(const struct json *size, const char *socket, int *ret_slave, struct phi_error *e)
{
	_clean_close_ int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave = -1;
	struct termios t;
	char name[64];
	int64_t height = 0, width = 0;
	int r;

	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, name, sizeof(name)) != 0 ||
	    (slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0 || tcgetattr(slave, &t) < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, "/process/terminal", "a pseudo-terminal: %s", strerror(errno));
	/* A serial line: the guest has its own idea of echo, lines and ^C. */
	cfmakeraw(&t);
	tcsetattr(slave, TCSANOW, &t);
	if (json_integer(json_get(size, "height"), &height) && json_integer(json_get(size, "width"), &width) && height > 0 &&
	    height < 65536 && width > 0 && width < 65536) {
		struct winsize w = {.ws_row = (unsigned short)height, .ws_col = (unsigned short)width};

		ioctl(master, TIOCSWINSZ, &w);
	}
	r = send_master(socket, master, e);
	if (r == 0)
		*ret_slave = PHI_TAKE_FD(slave);
	return r;
}

static struct termios before;
static bool is_raw;

void console_raw(void)
{
	struct termios t;

	if (tcgetattr(0, &before) < 0)
		return;
	t = before;
	cfmakeraw(&t);
	is_raw = tcsetattr(0, TCSANOW, &t) == 0;
}

void console_restore(void)
{
	if (is_raw)
		tcsetattr(0, TCSADRAIN, &before);
	is_raw = false;
}
