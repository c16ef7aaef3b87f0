/* Jailhouse's driver: its ioctls on /dev/jailhouse and its sysfs tree. All of it may block, for seconds: only in a job. Facts:
 * siemens/jailhouse e57d1eff, include/... jailhouse.h, driver/{main,cell,sysfs}.c; measured answers. */
#pragma once

#include "cpuset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct phi_error;
struct platform;

struct jh_paths {
	const char *device; /* /dev/jailhouse */
	const char *sysfs;  /* /sys/devices/jailhouse */
	int flavour;	    /* enum jh_flavour: Omnivisor's load is another */
};

struct jh_image {
	const void *bytes;
	uint64_t size, target; /* address in the cell */
};

/* What a remote processor of the cell runs (Omnivisor). */
struct jh_remote_image {
	uint32_t processor, padding;
	char name[32]; /* of a file in the firmware directory */
};

/* A cell as sysfs shows it. */
struct jh_seen {
	int id; /* of the moment: reused at once after a destroy */
	char name[32];
	char state[24]; /* "running", "running/locked", "shut down", "failed", ... */
	struct cpuset cpus, failed;
};

/* The places of the platform, else those of the driver. *ret points into the platform. */
void jh_paths_of(const struct platform *p, struct jh_paths *ret);
/* With a system configuration. Never by phid: the operator turns a hypervisor on and off. disable ends all cells. */
int jh_driver_enable(const struct jh_paths *p, const void *config, size_t n, struct phi_error *e);
int jh_driver_disable(const struct jh_paths *p, struct phi_error *e);
/* Is the hypervisor on? Negative with the reason where there is no driver. */
int jh_driver_enabled(const struct jh_paths *p, struct phi_error *e);
/* Answers 0 also where the driver made no cell (it does so for another architecture): look with jh_driver_find. */
int jh_driver_create(const struct jh_paths *p, const void *config, size_t n, struct phi_error *e);
/* Stops the cell first. Images are copied in their order; remote processors get theirs when the cell is started. */
int jh_driver_load(const struct jh_paths *p, int id, const struct jh_image *images, uint32_t n, const struct jh_remote_image *remote,
		   uint32_t n_remote, struct phi_error *e);
int jh_driver_start(const struct jh_paths *p, int id, struct phi_error *e);
int jh_driver_destroy(const struct jh_paths *p, int id, struct phi_error *e);
/* 1 with *ret, 0 if there is none of that name, negative if sysfs cannot be read. */
int jh_driver_find(const struct jh_paths *p, const char *name, struct jh_seen *ret, struct phi_error *e);
/* Up to max cells, the root's (id 0) included; their number. */
int jh_driver_list(const struct jh_paths *p, struct jh_seen *ret, size_t max, struct phi_error *e);

/* The hypervisor's console, of the hypervisor itself and of all cells that print by it. *fd is -1 at first and then the open device;
 * each opening begins with the last 2048 bytes. Never blocks: 0 where there is nothing new. Negative with the error, EPERM where the
 * system configuration does not allow it. */
ssize_t jh_driver_console(const struct jh_paths *p, int *fd, char *ret, size_t size, struct phi_error *e);
