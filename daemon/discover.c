/* See discover.h: what is read, and what is neither memory nor device. */
#include "discover.h"

#include "clean.h"
#include "error.h"
#include "hostfiles.h"
#include "platform.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

/* ---- writing ---- */

void discover_left_out(struct discovery *d, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	json_add_string(d->notes, NULL, text);
}

void discover_note(struct json *to, const char *format, ...)
{
	char text[PHI_PATH_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	json_add_string(to, "note", text);
}

void discover_size(struct json *to, const char *name, uint64_t size)
{
	static const char units[] = {'G', 'M', 'K'};
	char text[32];

	for (int i = 0; i < 3; i++) {
		uint64_t unit = UINT64_C(1) << (30 - 10 * i);

		if (size == 0 || size % unit != 0)
			continue;
		snprintf(text, sizeof(text), "%" PRIu64 "%c", size / unit, units[i]);
		json_add_string(to, name, text);
		return;
	}
	json_add_integer(to, name, (int64_t)size);
}

void discover_name(struct json *item, const struct json *list, const char *wanted)
{
	char name[PHI_NAME_MAX + 1];

	for (unsigned n = 1;; n++) {
		bool taken = false;

		snprintf(name, sizeof(name), n == 1 ? "%.*s" : "%.*s-%u", PHI_NAME_MAX - 4, wanted, n);
		for (const struct json *i = json_first(list); i != NULL && !taken; i = json_next(i))
			taken = strcmp(json_get_string(i, "name"), name) == 0;
		if (!taken)
			break;
	}
	json_add_string(item, "name", name);
}

/* ---- board and CPUs ---- */

static void add_board(struct discovery *d)
{
	const char *model = d->tree != NULL ? dt_text(d->tree, "model") : NULL;
	char vendor[128], product[128], text[129];

	host_line(d->root, vendor, sizeof(vendor), "/sys/class/dmi/id/sys_vendor");
	host_line(d->root, product, sizeof(product), "/sys/class/dmi/id/product_name");
	if (model != NULL)
		snprintf(text, sizeof(text), "%s", model);
	else
		snprintf(text, sizeof(text), "%.60s%s%.60s", vendor, vendor[0] && product[0] ? " " : "", product);
	if (text[0] != '\0')
		json_add_string(d->doc, "board", text);
}

static void add_cpus(struct discovery *d)
{
	struct cpuset ids, online, present, isolated, host = {0};
	struct json *o = json_add_object(d->doc, "cpus");
	char list[CPUSET_TEXT_MAX], source[PHI_PATH_MAX + 40] = "/sys/devices/system/cpu/online";
	bool has_isolated;

	host_cpus(d->root, &online, "/sys/devices/system/cpu/online");
	host_cpus(d->root, &present, "/sys/devices/system/cpu/present");
	host_cpus(d->root, &isolated, "/sys/devices/system/cpu/isolated");
	ids = online;
	if (d->has_system) {
		snprintf(source, sizeof(source), "the root cell's, in %s", d->root_cell);
		ids = (struct cpuset){0};
		for (unsigned c = 0; c < d->system.root.n_cpus * 8 && c < PHI_CPUS_MAX; c++)
			if (d->system.root.cpus[c / 8] >> c % 8 & 1)
				cpuset_add(&ids, c);
	}
	/* Linux runs on what it does not isolate; else on the first, as phid has it by default. */
	for (int c = cpuset_next(&ids, 0); c >= 0; c = cpuset_next(&ids, (unsigned)c + 1)) {
		if (cpuset_has(&online, (unsigned)c) && !cpuset_has(&isolated, (unsigned)c))
			cpuset_add(&host, (unsigned)c);
		if (!host_exists(d->root, "/sys/devices/system/cpu/cpu%d/topology", c))
			discover_left_out(d, "the topology of CPU %d: sysfs shows none, it is offline", c);
	}
	has_isolated = cpuset_meets(&ids, &isolated);
	if (!has_isolated) {
		host = (struct cpuset){0};
		if (cpuset_count(&ids) > 1)
			cpuset_add(&host, (unsigned)cpuset_next(&ids, 0));
	}
	for (int c = cpuset_next(&present, 0); c >= 0; c = cpuset_next(&present, (unsigned)c + 1))
		if (!cpuset_has(&ids, (unsigned)c))
			discover_left_out(d, "CPU %d: it is there and offline. If a cell has it now, add it", c);
	cpuset_format(&ids, list, sizeof(list));
	json_add_string(o, "ids", list);
	cpuset_format(&host, list, sizeof(list));
	json_add_string(o, "host", list);
	discover_note(o, "ids: %s; host: %s. The topology is sysfs's at each start", source,
		      has_isolated ? "those that the kernel does not isolate, /sys/devices/system/cpu/isolated"
				   : "the first, since the kernel isolates none (isolcpus=): yours to set");
}

/* ---- Jailhouse ---- */

/* By which of the layouts that phid knows the file can be read. */
static void read_root_cell(struct discovery *d, const char *bytes, size_t n)
{
	struct phi_error e;
	int r;

	for (int f = 0; f < JH_FLAVOURS && !d->has_system; f++) {
		r = jh_system_read(bytes, n, (enum jh_flavour)f, &d->system, &e);
		d->has_system = r == 0;
		if (r < 0)
			jh_system_free(&d->system);
		if (r < 0 && e.code != PHI_UNSUPPORTED)
			discover_left_out(d, "the root cell's file %s is none of %s: %s", d->root_cell, jh_flavours[f], e.detail);
	}
}

/* Of the machine; -1 if nothing says. */
static int arch_of(const struct discovery *d)
{
	static const struct {
		const char *machine;
		int arch;
	} known[] = {{"aarch64", JH_ARM64}, {"x86_64", JH_X86}, {"armv7l", JH_ARM}};
	struct utsname u;
	char machine[65];

	if (!host_line(d->root, machine, sizeof(machine), "/proc/sys/kernel/arch") && d->root[0] == '\0' && uname(&u) == 0)
		snprintf(machine, sizeof(machine), "%s", u.machine);
	for (size_t i = 0; i < PHI_COUNT(known); i++)
		if (strcmp(machine, known[i].machine) == 0)
			return known[i].arch;
	return -1;
}

static void add_jailhouse(struct discovery *d)
{
	bool driver = host_exists(d->root, "/sys/devices/jailhouse"), on = host_exists(d->root, "/sys/devices/jailhouse/cells/0"),
	     omnivisor = host_exists(d->root, "/sys/devices/jailhouse/cells/0/rcpus_assigned");
	int arch = d->has_system ? d->system.root.arch : arch_of(d);
	struct json *o;

	if (!driver && d->root_cell == NULL)
		return;
	/* Of the flavours Omnivisor alone shows remote processors of its cells; the driver says nothing else of itself. */
	if ((!d->has_system && !omnivisor) || arch < 0) {
		discover_left_out(d, "backends.jailhouse: nothing says the %s%s", arch < 0 ? "architecture" : "flavour",
				  d->root_cell == NULL ? "; --root-cell may" : "");
		return;
	}
	if (d->has_system && on && omnivisor != (d->system.root.flavour == JH_OMNIVISOR)) {
		discover_left_out(d, "backends.jailhouse: the root cell's file is of %s, the hypervisor that is on %s", jh_flavours[d->system.root.flavour],
				  omnivisor ? "is Omnivisor" : "is not");
		return;
	}
	o = json_add_object(json_add_object(d->doc, "backends"), "jailhouse");
	json_add_string(o, "flavour", jh_flavours[d->has_system ? d->system.root.flavour : JH_OMNIVISOR]);
	json_add_string(o, "architecture", jh_archs[arch]);
	if (d->has_system)
		json_add_string(o, "root_cell", d->root_cell);
	discover_note(o, "flavour, architecture: %s", d->has_system ? "the root cell's file" : "cells/0/rcpus_assigned in sysfs; the kernel's");
}

/* Where upstream's inmates look for the communication region: left to phid's default unless something is there. */
static void check_comm_region(struct discovery *d, const struct platform *p)
{
	const uint64_t at = 0x80000000, end = at + 0x1000;
	const struct platform_pool *pools = p->memory.items;

	for (size_t i = 0; i < p->memory.n && p->jailhouse.present; i++)
		if (pools[i].has_base && pools[i].base < end && at < pools[i].base + pools[i].size)
			discover_left_out(d, "backends.jailhouse.comm_region: its default, 0x80000000, is within pool \"%s\": give another, which your inmates know",
					  pools[i].name);
}

/* ---- all of it ---- */

static int read_machine(struct discovery *d, struct phi_error *e)
{
	_clean_free_ char *map = host_text(d->root, 1u << 20, "/proc/iomem"), *bytes = NULL;
	_clean_fclose_ FILE *f = NULL;
	char path[PHI_PATH_MAX];
	struct phi_error hidden;
	int r;

	snprintf(path, sizeof(path), "%s/proc/device-tree", d->root);
	r = dt_load(path, &d->tree, e);
	if (r < 0)
		return r;
	d->has_iomem = map != NULL && iomem_parse(map, &d->iomem, &hidden) == 0 && d->iomem.n > 0;
	if (d->root_cell == NULL)
		return 0;
	f = fopen(d->root_cell, "re");
	bytes = malloc(JH_FILE_MAX + 1);
	if (bytes == NULL)
		abort();
	if (f == NULL)
		return phi_error_set(e, PHI_INVALID, errno, "/root-cell", "%s: %s", d->root_cell, strerror(errno));
	read_root_cell(d, bytes, fread(bytes, 1, JH_FILE_MAX + 1, f));
	return 0;
}

static int write_platform(struct discovery *d, char **ret, struct phi_error *e)
{
	_clean_free_ char *text = NULL;
	_clean_(platform_free) struct platform p = {0};
	int r;

	add_board(d);
	add_cpus(d);
	discover_memory(d);
	discover_devices(d);
	discover_links(d);
	add_jailhouse(d);
	text = json_print_lines(d->doc);
	r = platform_read(text, strlen(text), &p, e);
	if (r < 0) {
		phi_error_wrap(e, "what was found is no platform, at %s", e->pointer);
		return r;
	}
	check_comm_region(d, &p);
	*ret = json_print_lines(d->doc);
	return 0;
}

int discover(const char *root, const char *root_cell, char **ret, struct phi_error *e)
{
	_clean_free_ char *real = realpath(root[0] != '\0' ? root : "/", NULL);
	struct discovery d = {.root_cell = root_cell};
	int r;

	if (real == NULL)
		return phi_error_set(e, PHI_INVALID, errno, "/host-root", "%s: %s", root, strerror(errno));
	d.root = strcmp(real, "/") == 0 ? "" : real;
	d.doc = json_object();
	json_add_string(d.doc, "format", "phid-platform/1");
	d.notes = json_add_array(d.doc, "note");
	json_add_string(d.notes, NULL, "phid --discover found this. What it left out, and why, is said here; see phid(8)");
	r = read_machine(&d, e);
	if (r == 0)
		r = write_platform(&d, ret, e);
	dt_free(d.tree);
	iomem_free(&d.iomem);
	if (d.has_system)
		jh_system_free(&d.system);
	json_free(d.doc);
	return r;
}
