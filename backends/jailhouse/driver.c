/* See driver.h. */
#include "driver.h"

#include "cell.h"
#include "clean.h"
#include "error.h"
#include "platform.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* The arguments, as the driver's header lays them out for 64 bits. */
struct cell_id {
	int32_t id;
	uint32_t padding;
	char name[32];
};
struct create {
	uint64_t config;
	uint32_t size, padding;
};
struct image {
	uint64_t source, size, target, padding;
};
struct load {
	struct cell_id cell;
	uint32_t n_images, padding;
	struct image images[];
};
struct omnivisor_load { /* DanieleOttaviano/jailhouse 58d3b40c, driver/jailhouse.h */
	struct cell_id cell;
	uint32_t n_images, n_remote;
	uint64_t remote; /* pointer to struct jh_remote_image */
	struct image images[];
};

#define ENABLE	     0x40080000u
#define DISABLE	     0x00000001u
#define CELL_CREATE  0x40100002u
#define CELL_LOAD    0x40300003u
#define OMNIVISOR_CELL_LOAD 0x40380003u
#define CELL_START   0x40280004u
#define CELL_DESTROY 0x40280005u
#define STAND_IN_CONSOLE 0x80000000u /* no ioctl: read() */

#ifdef PHID_TEST_HOOKS
/* The stand-in of the tests: a stream socket in the device's place. A request is {operation, bytes}, then the bytes: of create the
 * configuration, of the others the id, of load besides the images, each {target, size} and its bytes. The answer is an errno. */
static int stand_in(const char *path, uint32_t operation, const void *head, uint32_t head_n, const struct jh_image *images, uint32_t n)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_clean_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	_clean_fclose_ FILE *f = NULL;
	uint32_t request[2] = {operation, head_n};
	int32_t answer = EIO;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -errno;
	f = fdopen(dup(fd), "we");
	for (uint32_t i = 0; i < n; i++)
		request[1] += (uint32_t)images[i].size + 16;
	if (f == NULL || fwrite(request, sizeof(request), 1, f) != 1 || fwrite(head, 1, head_n, f) != head_n)
		return -EIO;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t where[2] = {images[i].target, images[i].size};

		if (fwrite(where, sizeof(where), 1, f) != 1 || fwrite(images[i].bytes, 1, images[i].size, f) != images[i].size)
			return -EIO;
	}
	if (fflush(f) != 0 || recv(fd, &answer, sizeof(answer), MSG_WAITALL) != sizeof(answer))
		return -EIO;
	return -answer;
}

/* A connection on which the stand-in sends what the hypervisor prints. */
static int stand_in_console(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_clean_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint32_t request[2] = {STAND_IN_CONSOLE, 0};
	char ready;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || write(fd, request, sizeof(request)) != sizeof(request) ||
	    read(fd, &ready, 1) != 1 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return -1;
	return PHI_TAKE_FD(fd);
}

static bool is_stand_in(const struct jh_paths *p)
{
	struct stat st;

	return stat(p->device, &st) == 0 && S_ISSOCK(st.st_mode);
}
#endif

static int call(const struct jh_paths *p, const char *what, unsigned long request, void *argument, struct phi_error *e)
{
	_clean_close_ int fd = open(p->device, O_RDWR | O_CLOEXEC);
	int r;

	if (fd < 0)
		return phi_error_set(e, PHI_BACKEND, errno, "", "%s: %s; is the jailhouse module loaded?", p->device, strerror(errno));
	do
		r = ioctl(fd, request, argument);
	while (r < 0 && errno == EINTR);
	return r < 0 ? phi_error_set(e, PHI_BACKEND, errno, "", "jailhouse refused %s: %s", what, strerror(errno)) : 0;
}

static int open_console(const struct jh_paths *p)
{
#ifdef PHID_TEST_HOOKS
	if (is_stand_in(p))
		return stand_in_console(p->device);
#endif
	return open(p->device, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static int refused(const char *what, int r, struct phi_error *e)
{
	return r < 0 ? phi_error_set(e, PHI_BACKEND, -r, "", "jailhouse refused %s: %s", what, strerror(-r)) : 0;
}

void jh_paths_of(const struct platform *p, struct jh_paths *ret)
{
	*ret = (struct jh_paths){p->jailhouse.device ? p->jailhouse.device : "/dev/jailhouse",
				 p->jailhouse.sysfs ? p->jailhouse.sysfs : "/sys/devices/jailhouse", p->jailhouse.flavour};
}

int jh_driver_enable(const struct jh_paths *p, const void *config, size_t n, struct phi_error *e)
{
#ifdef PHID_TEST_HOOKS
	if (is_stand_in(p))
		return refused("enable", stand_in(p->device, ENABLE, config, (uint32_t)n, NULL, 0), e);
#endif
	(void)n; /* the configuration says its own size */
	return call(p, "enable", ENABLE, (void *)(uintptr_t)config, e);
}

int jh_driver_disable(const struct jh_paths *p, struct phi_error *e)
{
#ifdef PHID_TEST_HOOKS
	if (is_stand_in(p))
		return refused("disable", stand_in(p->device, DISABLE, "", 0, NULL, 0), e);
#endif
	return call(p, "disable", DISABLE, NULL, e);
}

int jh_driver_create(const struct jh_paths *p, const void *config, size_t n, struct phi_error *e)
{
	struct create c = {.config = (uintptr_t)config, .size = (uint32_t)n};

#ifdef PHID_TEST_HOOKS
	if (is_stand_in(p))
		return refused("create", stand_in(p->device, CELL_CREATE, config, (uint32_t)n, NULL, 0), e);
#endif
	(void)refused;
	return call(p, "create", CELL_CREATE, &c, e);
}

static int by_id(const struct jh_paths *p, const char *what, unsigned long request, int id, struct phi_error *e)
{
	struct cell_id c = {.id = id};

#ifdef PHID_TEST_HOOKS
	if (is_stand_in(p))
		return refused(what, stand_in(p->device, (uint32_t)request, &c.id, sizeof(c.id), NULL, 0), e);
#endif
	return call(p, what, request, &c, e);
}

#ifdef PHID_TEST_HOOKS
/* As Omnivisor's driver is told: the id, then the processors' images. */
static int omnivisor_stand_in(const struct jh_paths *p, int id, const struct jh_image *images, uint32_t n, const struct jh_remote_image *remote,
			      uint32_t n_remote)
{
	_clean_free_ char *head = malloc(8 + n_remote * sizeof(*remote));

	if (head == NULL)
		abort();
	memcpy(head, &id, sizeof(id));
	memcpy(head + 4, &n_remote, sizeof(n_remote));
	if (n_remote > 0)
		memcpy(head + 8, remote, n_remote * sizeof(*remote));
	return stand_in(p->device, OMNIVISOR_CELL_LOAD, head, 8 + n_remote * (uint32_t)sizeof(*remote), images, n);
}
#endif

int jh_driver_load(const struct jh_paths *p, int id, const struct jh_image *images, uint32_t n, const struct jh_remote_image *remote,
		   uint32_t n_remote, struct phi_error *e)
{
	bool omnivisor = p->flavour == JH_OMNIVISOR;
	_clean_free_ struct omnivisor_load *o = calloc(1, sizeof(*o) + n * sizeof(o->images[0]));
	_clean_free_ struct load *l = calloc(1, sizeof(*l) + n * sizeof(l->images[0]));

	if (l == NULL || o == NULL)
		abort();
	l->cell.id = o->cell.id = id;
	l->n_images = o->n_images = n;
	o->n_remote = n_remote;
	o->remote = (uintptr_t)remote;
	for (uint32_t i = 0; i < n; i++)
		o->images[i] = l->images[i] =
			(struct image){.source = (uintptr_t)images[i].bytes, .size = images[i].size, .target = images[i].target};
#ifdef PHID_TEST_HOOKS
	if (is_stand_in(p) && omnivisor)
		return refused("load", omnivisor_stand_in(p, id, images, n, remote, n_remote), e);
	if (is_stand_in(p))
		return refused("load", stand_in(p->device, CELL_LOAD, &l->cell.id, sizeof(l->cell.id), images, n), e);
#endif
	return omnivisor ? call(p, "load", OMNIVISOR_CELL_LOAD, o, e) : call(p, "load", CELL_LOAD, l, e);
}

int jh_driver_start(const struct jh_paths *p, int id, struct phi_error *e)
{
	return by_id(p, "start", CELL_START, id, e);
}

int jh_driver_destroy(const struct jh_paths *p, int id, struct phi_error *e)
{
	return by_id(p, "destroy", CELL_DESTROY, id, e);
}

ssize_t jh_driver_console(const struct jh_paths *p, int *fd, char *ret, size_t size, struct phi_error *e)
{
	ssize_t n;

	if (*fd < 0)
		*fd = open_console(p);
	n = *fd >= 0 ? read(*fd, ret, size) : -1;
	if (n >= 0 || errno == EAGAIN || errno == EINTR)
		return n >= 0 ? n : 0;
	return phi_error_set(e, PHI_BACKEND, errno, "", "the hypervisor's console cannot be read: %s%s", strerror(errno),
			     errno == EPERM ? "; the system configuration must have the flag virtual_debug_console" : "");
}

/* ---- sysfs ---- */

/* The first line of a file below a directory. */
static bool read_line(int dir, const char *name, char *ret, size_t size)
{
	_clean_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, ret, size - 1) : -1;

	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return n >= 0;
}

int jh_driver_enabled(const struct jh_paths *p, struct phi_error *e)
{
	_clean_close_ int dir = open(p->sysfs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char text[8];

	if (dir < 0)
		return phi_error_set(e, PHI_BACKEND, errno, "", "%s: %s; load the jailhouse module", p->sysfs, strerror(errno));
	return read_line(dir, "enabled", text, sizeof(text)) && text[0] == '1';
}

static bool read_cell(int cells, const char *id, struct jh_seen *ret)
{
	_clean_close_ int dir = openat(cells, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char list[CPUSET_TEXT_MAX];
	struct phi_error e;

	*ret = (struct jh_seen){.id = atoi(id)};
	if (dir < 0 || !read_line(dir, "name", ret->name, sizeof(ret->name)) || !read_line(dir, "state", ret->state, sizeof(ret->state)))
		return false; /* it went while we looked */
	if (read_line(dir, "cpus_assigned_list", list, sizeof(list)))
		cpuset_parse(list, "", &ret->cpus, &e);
	if (read_line(dir, "cpus_failed_list", list, sizeof(list)))
		cpuset_parse(list, "", &ret->failed, &e);
	return true;
}

static int open_cells(const struct jh_paths *p, DIR **ret, struct phi_error *e)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/cells", p->sysfs);
	*ret = opendir(path);
	return *ret != NULL ? 0 : phi_error_set(e, PHI_BACKEND, errno, "", "%s: %s", path, strerror(errno));
}

static bool next_cell(DIR *d, struct jh_seen *ret)
{
	for (struct dirent *f = readdir(d); f != NULL; f = readdir(d))
		if (isdigit((unsigned char)f->d_name[0]) && read_cell(dirfd(d), f->d_name, ret))
			return true;
	return false;
}

int jh_driver_list(const struct jh_paths *p, struct jh_seen *ret, size_t max, struct phi_error *e)
{
	_clean_closedir_ DIR *d = NULL;
	int r = open_cells(p, &d, e);

	while (r >= 0 && (size_t)r < max && next_cell(d, &ret[r]))
		r++;
	return r;
}

int jh_driver_find(const struct jh_paths *p, const char *name, struct jh_seen *ret, struct phi_error *e)
{
	_clean_closedir_ DIR *d = NULL;
	int r = open_cells(p, &d, e);

	while (r == 0 && next_cell(d, ret))
		r = strcmp(ret->name, name) == 0;
	return r;
}
