/* See handover.h. sysfs: Documentation/ABI/testing/sysfs-bus-platform (driver_override), sysfs-bus-pci (reset), and
 * Documentation/driver-api/driver-model (bind, unbind, drivers_probe). */
#include "handover.h"

#include "clean.h"
#include "error.h"
#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SEEN_MS 2000 /* a driver takes and leaves a device while its file is written, or soon after */
#define STEP_MS 10
#define NO_DRIVER "phid" /* what driver_override names while a cell has the device: no driver is called so */

static int write_file(const char *path, const char *text)
{
	_clean_close_ int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static bool is_bound(const struct platform_device *d)
{
	char path[PHI_PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/driver", d->host.sysfs);
	return access(path, F_OK) == 0;
}

static bool wait_bound(const struct platform_device *d, bool bound)
{
	for (int ms = 0; is_bound(d) != bound; ms += STEP_MS) {
		struct timespec step = {0, STEP_MS * 1000000L};

		if (ms >= SEEN_MS)
			return false;
		nanosleep(&step, NULL);
	}
	return true;
}

/* A driver's files want the name under which the bus knows the device. */
static int bus_name(const struct platform_device *d, char *ret, size_t size, struct phi_error *e)
{
	_clean_free_ char *real = realpath(d->host.sysfs, NULL);

	if (real == NULL)
		return phi_error_set(e, PHI_BACKEND, errno, "/spec/devices", "device \"%s\": %s: %s", d->name, d->host.sysfs, strerror(errno));
	snprintf(ret, size, "%s", strrchr(real, '/') + 1);
	return 0;
}

/* Keeps every driver away from it, or ends that. Not every bus has the file; where it is not there, only the unbinding counts. */
static int keep_free(const struct platform_device *d, bool on)
{
	char path[PHI_PATH_MAX + 20], old[64];
	_clean_close_ int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/driver_override", d->host.sysfs);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, old, sizeof(old) - 1) : -1;
	if (n < 0)
		return errno == ENOENT ? 0 : -errno;
	old[n] = '\0';
	old[strcspn(old, "\n")] = '\0';
	if (!on && strcmp(old, NO_DRIVER) != 0)
		return 0; /* it is not ours */
	return write_file(path, on ? NO_DRIVER : "\n");
}

static int take(const struct platform_device *d, struct phi_error *e)
{
	char path[PHI_PATH_MAX + 24], name[256];
	int r = bus_name(d, name, sizeof(name), e);

	if (r < 0)
		return r;
	r = keep_free(d, true);
	if (r == 0 && is_bound(d)) {
		snprintf(path, sizeof(path), "%s/driver/unbind", d->host.sysfs);
		r = write_file(path, name);
	}
	if (r < 0)
		return phi_error_set(e, PHI_BACKEND, -r, "/spec/devices", "device \"%s\" cannot be taken from Linux: %s", d->name, strerror(-r));
	if (!wait_bound(d, false))
		return phi_error_set(e, PHI_BACKEND, EBUSY, "/spec/devices", "device \"%s\": Linux's driver does not let it go", d->name);
	return 0;
}

int jh_take_devices(const struct platform *p, const char (*names)[PHI_NAME_MAX + 1], size_t n, struct phi_error *e)
{
	for (size_t i = 0; i < n; i++) {
		const struct platform_device *d = platform_device(p, names[i]);
		int r = d != NULL && d->host.handover == HANDOVER_UNBIND ? take(d, e) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

static void put(volatile void *at, const struct platform_write *w)
{
	switch (w->width) {
	case 8:
		*(volatile uint8_t *)at = (uint8_t)w->value;
		return;
	case 16:
		*(volatile uint16_t *)at = (uint16_t)w->value;
		return;
	case 32:
		*(volatile uint32_t *)at = (uint32_t)w->value;
		return;
	default:
		*(volatile uint64_t *)at = w->value;
	}
}

static int make_safe(const struct platform *p, const struct platform_device *d, struct phi_error *e)
{
	const char *path = p->jailhouse.mem ? p->jailhouse.mem : "/dev/mem";
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	_clean_close_ int fd = d->safe_state.n > 0 ? open(path, O_RDWR | O_SYNC | O_CLOEXEC) : -1;

	if (d->safe_state.n > 0 && fd < 0)
		return phi_error_set(e, PHI_BACKEND, errno, "", "device \"%s\" cannot be put into its safe state: %s: %s", d->name, path, strerror(errno));
	for (size_t i = 0; i < d->safe_state.n; i++) {
		const struct platform_write *w = (const struct platform_write *)d->safe_state.items + i;
		uint64_t offset = w->address % page;
		void *m = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(w->address - offset));

		if (m == MAP_FAILED)
			return phi_error_set(e, PHI_BACKEND, errno, "", "device \"%s\" cannot be put into its safe state: 0x%" PRIx64 ": %s", d->name,
					     w->address, strerror(errno));
		put((char *)m + offset, w);
		munmap(m, page);
	}
	return 0;
}

static int give(const struct platform *p, const struct platform_device *d, struct phi_error *e)
{
	char path[PHI_PATH_MAX + 32], name[256];
	int r;

	/* Bound: it was never taken, or is given back already. Its registers are its driver's. */
	if (d->host.handover == HANDOVER_UNBIND && is_bound(d)) {
		r = keep_free(d, false);
		return r < 0 ? phi_error_set(e, PHI_BACKEND, -r, "", "device \"%s\": driver_override: %s", d->name, strerror(-r)) : 0;
	}
	r = make_safe(p, d, e);
	if (r < 0 || d->host.handover != HANDOVER_UNBIND)
		return r;
	r = bus_name(d, name, sizeof(name), e);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/reset", d->host.sysfs);
	r = write_file(path, "1");
	if (r < 0 && r != -ENOENT)
		return phi_error_set(e, PHI_BACKEND, -r, "", "device \"%s\" cannot be reset: %s", d->name, strerror(-r));
	r = keep_free(d, false);
	if (r == 0) {
		snprintf(path, sizeof(path), "%s/subsystem/drivers_probe", d->host.sysfs);
		r = write_file(path, name);
	}
	if (r < 0)
		return phi_error_set(e, PHI_BACKEND, -r, "", "device \"%s\" cannot be given back to Linux: %s", d->name, strerror(-r));
	if (!wait_bound(d, true))
		return phi_error_set(e, PHI_BACKEND, ENODEV, "", "device \"%s\": no driver of Linux takes it back", d->name);
	return 0;
}

int jh_give_devices(const struct platform *p, const char (*names)[PHI_NAME_MAX + 1], size_t n, struct phi_error *e)
{
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		const struct platform_device *d = platform_device(p, names[i]);
		struct phi_error own = {0};
		int k = d != NULL ? give(p, d, &own) : 0;

		if (k < 0 && r == 0) {
			r = k;
			*e = own;
		}
	}
	return r;
}

int jh_devices_given(const struct platform *p, const char (*names)[PHI_NAME_MAX + 1], size_t n, struct phi_error *e)
{
	for (size_t i = 0; i < n; i++) {
		const struct platform_device *d = platform_device(p, names[i]);

		if (d != NULL && d->host.handover == HANDOVER_UNBIND && !is_bound(d))
			return phi_error_set(e, PHI_BACKEND, ENODEV, "", "device \"%s\" is not back with a driver of Linux", d->name);
	}
	return 0;
}
