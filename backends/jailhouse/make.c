/* See make.h. */
#include "make.h"

#include "clean.h"
#include "error.h"
#include "handover.h"
#include "plan.h"
#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <termios.h>
#include <unistd.h>

/* ---- the plan ---- */

static struct jh_bytes to_bytes(const struct jh_cell *cell)
{
	struct jh_bytes b = {.n = jh_cell_size(cell)};

	b.bytes = malloc(b.n);
	if (b.bytes == NULL)
		abort();
	jh_cell_write(cell, b.bytes);
	return b;
}

/* All of its memory, and what it writes of its links. */
static void plan_clearing(struct jh_make *m, const struct cell *c)
{
	for (size_t i = 0; i < c->grant.n_memory; i++)
		m->cleared[m->n_cleared++] = (struct jh_memory){.virt = jh_guest_address(&c->grant, m->payload.ram, i), .size = c->grant.memory[i].size};
	for (size_t i = 0; i < c->grant.n_links; i++) {
		const struct alloc_link *l = &c->grant.links[i];
		struct jh_cell whole;

		m->cleared[m->n_cleared++] =
			(struct jh_memory){.virt = l->base + ALLOC_LINK_STATES + l->common + (uint64_t)l->id * l->output, .size = l->output};
		if (!l->alone || l->host)
			continue;
		jh_plan_clearing(c, m->platform, l, &whole);
		m->clearing[i] = to_bytes(&whole);
		jh_cell_free(&whole);
	}
}

int jh_make_plan(struct jh_make *m, const struct cell *c, const struct platform *p, const struct jh_paths *paths, const struct jh_system *system,
		 struct phi_error *e)
{
	struct jh_cell cell;
	int r;

	*m = (struct jh_make){.paths = paths, .platform = p, .firmware = -1, .console = -1};
	alloc_grant_copy(&m->grant, &c->grant);
	snprintf(m->name, sizeof(m->name), "%s", c->name);
	r = jh_payload_plan(&m->payload, c, p, system, e);
	if (r < 0)
		return r;
	r = jh_plan(c, m->payload.ram, m->payload.entry, p, system, &cell, e);
	if (r == 0)
		m->config = to_bytes(&cell);
	jh_cell_free(&cell);
	if (r < 0)
		return r;
	plan_clearing(m, c);
	for (size_t i = 0; i < c->n_images; i++)
		if (strcmp(c->images[i].role, "firmware") == 0) {
			m->firmware = fcntl(c->images[i].fd, F_DUPFD_CLOEXEC, 3);
			m->firmware_size = c->images[i].size;
		}
	if (m->payload.n == 0 && m->firmware < 0)
		return phi_error_set(e, PHI_INTERNAL, EBADF, "", "the image is not there");
	return 0;
}

void jh_make_done(struct jh_make *m)
{
	alloc_grant_done(&m->grant);
	free(m->config.bytes);
	for (size_t i = 0; i < PHI_LINKS_MAX; i++)
		free(m->clearing[i].bytes);
	jh_payload_done(&m->payload);
	phi_close(&m->firmware);
	phi_close(&m->console);
}

/* ---- loading ---- */

/* Zeros over what another had before, then the payload. */
static int fill(const struct jh_make *m, int id, const struct jh_remote_image *remote, uint32_t n_remote, struct phi_error *e)
{
	struct jh_image images[PHI_COUNT(m->cleared) + JH_PIECES_MAX];
	uint64_t largest = 0;
	void *zeros = NULL;
	int r;

	for (size_t i = 0; i < m->n_cleared; i++)
		largest = m->cleared[i].size > largest ? m->cleared[i].size : largest;
	/* One page of zeros of the kernel's, read as often as there are pages. */
	zeros = mmap(NULL, largest, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (zeros == MAP_FAILED)
		return phi_error_set(e, PHI_INTERNAL, errno, "", "mmap: %s", strerror(errno));
	for (size_t i = 0; i < m->n_cleared; i++)
		images[i] = (struct jh_image){zeros, m->cleared[i].size, m->cleared[i].virt};
	memcpy(images + m->n_cleared, m->payload.pieces, m->payload.n * sizeof(images[0]));
	r = jh_driver_load(m->paths, id, images, (uint32_t)m->n_cleared + m->payload.n, remote, n_remote, e);
	munmap(zeros, largest);
	return r;
}

/* The driver reads a remote processor's image from the firmware directory, by a name of at most 31 bytes. */
static void firmware_path(const struct platform *p, const char *name, const struct platform_remote *r, char *ret, size_t size)
{
	snprintf(ret, size, "%s/%s-%d.elf", p->jailhouse.firmware ? p->jailhouse.firmware : "/lib/firmware", name, (int)r->id);
}

static int write_firmware(const struct jh_make *m, struct jh_remote_image *ret, uint32_t *ret_n, struct phi_error *e)
{
	for (size_t i = 0; i < m->grant.n_remote; i++) {
		const struct platform_remote *r = platform_remote(m->platform, m->grant.remote[i]);
		char path[PHI_PATH_MAX + 64];
		_clean_close_ int fd = -1;
		off_t at = 0;

		if (r == NULL)
			continue;
		firmware_path(m->platform, m->name, r, path, sizeof(path));
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
		while (fd >= 0 && (uint64_t)at < m->firmware_size && sendfile(fd, m->firmware, &at, m->firmware_size - (uint64_t)at) > 0)
			;
		if (fd < 0 || (uint64_t)at < m->firmware_size)
			return phi_error_set(e, PHI_BACKEND, errno, "/spec/boot/firmware", "%s: %s", path, strerror(errno));
		ret[*ret_n] = (struct jh_remote_image){.processor = (uint32_t)r->id};
		snprintf(ret[(*ret_n)++].name, sizeof(ret->name), "%.20s-%d.elf", m->name, (int)r->id);
	}
	return 0;
}

/* ---- one cell ---- */

static int create(const struct jh_make *m, const struct jh_bytes *config, struct jh_seen *seen, struct phi_error *e)
{
	int r = jh_driver_create(m->paths, config->bytes, config->n, e);

	if (r < 0)
		return r;
	/* Its answer counts for nothing: a cell of another architecture is taken, and not made. */
	r = jh_driver_find(m->paths, m->name, seen, e);
	if (r == 0)
		return phi_error_set(e, PHI_BACKEND, ENOENT, "", "jailhouse answered well and made no cell: is it of another architecture?");
	return r < 0 ? r : 0;
}

/* A link's memory may have been another link's: a cell that has it all gets zeros and goes. */
static int clear_link(const struct jh_make *m, size_t i, struct phi_error *e)
{
	const struct alloc_link *l = &m->grant.links[i];
	struct jh_image zeros = {.size = l->size, .target = l->base};
	struct jh_seen seen;
	void *p = mmap(NULL, l->size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int r;

	if (p == MAP_FAILED)
		return phi_error_set(e, PHI_INTERNAL, errno, "", "mmap: %s", strerror(errno));
	zeros.bytes = p;
	r = create(m, &m->clearing[i], &seen, e);
	if (r == 0)
		r = jh_driver_load(m->paths, seen.id, &zeros, 1, NULL, 0, e);
	if (r == 0)
		r = jh_driver_destroy(m->paths, seen.id, e);
	munmap(p, l->size);
	return r;
}

static int open_line(const struct platform_device *d, struct phi_error *e)
{
	static const struct {
		int64_t baud;
		speed_t speed;
	} speeds[] = {{9600, B9600},	 {19200, B19200},   {38400, B38400},   {57600, B57600},	    {115200, B115200}, {230400, B230400},
		      {460800, B460800}, {921600, B921600}, {1000000, B1000000}, {1500000, B1500000}, {3000000, B3000000}, {4000000, B4000000}};
	int64_t baud = d->host.has_baud ? d->host.baud : 115200;
	_clean_close_ int fd = open(d->host.tty, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	struct termios t;
	speed_t speed = B0;

	for (size_t i = 0; i < PHI_COUNT(speeds); i++)
		if (speeds[i].baud == baud)
			speed = speeds[i].speed;
	if (speed == B0)
		return phi_error_set(e, PHI_INVALID, EINVAL, "", "device \"%s\": %lld is no rate of a tty", d->name, (long long)baud);
	if (fd < 0 || tcgetattr(fd, &t) < 0)
		return phi_error_set(e, PHI_BACKEND, errno, "", "device \"%s\": %s: %s", d->name, d->host.tty, strerror(errno));
	cfmakeraw(&t);
	t.c_cflag = (t.c_cflag & ~(tcflag_t)(CRTSCTS | CSTOPB)) | CLOCAL | CREAD;
	cfsetspeed(&t, speed);
	if (tcsetattr(fd, TCSANOW, &t) < 0)
		return phi_error_set(e, PHI_BACKEND, errno, "", "device \"%s\": %s: %s", d->name, d->host.tty, strerror(errno));
	tcflush(fd, TCIOFLUSH); /* what an earlier cell said */
	return PHI_TAKE_FD(fd);
}

int jh_open_tty(const struct platform *p, const struct alloc_grant *g, int *ret, struct phi_error *e)
{
	*ret = -1;
	for (size_t i = 0; i < g->n_devices; i++) {
		const struct platform_device *d = platform_device(p, g->devices[i]);

		if (d == NULL || d->host.tty == NULL)
			continue;
		*ret = open_line(d, e);
		return *ret < 0 ? *ret : 0;
	}
	return 0;
}

int jh_make(struct jh_make *m, struct phi_error *e)
{
	const struct alloc_grant *g = &m->grant;
	struct jh_remote_image remote[PHI_REMOTE_MAX];
	uint32_t n_remote = 0;
	struct jh_seen seen;
	int r = jh_open_tty(m->platform, g, &m->console, e);

	if (r == 0)
		r = write_firmware(m, remote, &n_remote, e);
	if (r == 0)
		r = jh_take_devices(m->platform, g->devices, g->n_devices, e);
	for (size_t i = 0; r == 0 && i < g->n_links; i++)
		if (m->clearing[i].n > 0)
			r = clear_link(m, i, e);
	if (r == 0)
		r = create(m, &m->config, &seen, e);
	return r < 0 ? r : fill(m, seen.id, remote, n_remote, e);
}

int jh_unmake(const struct jh_paths *paths, const struct platform *p, const char *name, const struct alloc_grant *g, struct phi_error *e)
{
	struct jh_seen seen;
	int r = jh_driver_find(paths, name, &seen, e);

	if (r > 0) {
		r = jh_driver_destroy(paths, seen.id, e);
		if (r == 0)
			r = jh_driver_find(paths, name, &seen, e);
		if (r > 0)
			return phi_error_set(e, PHI_BACKEND, EBUSY, "", "jailhouse still shows %s", name);
	}
	if (r < 0)
		return r;
	for (size_t i = 0; i < g->n_remote; i++) {
		const struct platform_remote *remote = platform_remote(p, g->remote[i]);
		char path[PHI_PATH_MAX + 64];

		if (remote == NULL)
			continue;
		firmware_path(p, name, remote, path, sizeof(path));
		unlink(path);
	}
	return jh_give_devices(p, g->devices, g->n_devices, e);
}
