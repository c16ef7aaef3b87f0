/* See checks.h. */
#include "checks.h"

#include "clean.h"
#include "hostfiles.h"
#include "jailhouse/driver.h"
#include "json.h"
#include "platform.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

/* ---- the facts ---- */

static enum check_answer rt_group_sched(const char *root)
{
	_clean_free_ char *config = NULL;
	struct utsname u;

	/* The file of a cgroup of version 1 is there only with it; of version 2 there is none. */
	if (host_exists(root, "/sys/fs/cgroup/cpu/cpu.rt_runtime_us"))
		return CHECK_YES;
	if (uname(&u) == 0)
		config = host_text(root, 4u << 20, "/boot/config-%s", u.release);
	if (config == NULL)
		return host_exists(root, "/sys/fs/cgroup/cpu/cpu.shares") ? CHECK_NO : CHECK_UNKNOWN;
	return strstr(config, "\nCONFIG_RT_GROUP_SCHED=y") != NULL ? CHECK_YES : CHECK_NO;
}

static void gather_root_cell(const char *path, enum jh_flavour flavour, struct check_facts *f)
{
	_clean_fclose_ FILE *file = fopen(path, "re");
	_clean_free_ char *bytes = malloc(JH_FILE_MAX + 1);
	size_t n;

	if (bytes == NULL)
		abort();
	if (file == NULL) {
		phi_error_set(&f->system_error, PHI_INVALID, errno, "", "%s: %s", path, strerror(errno));
		return;
	}
	n = fread(bytes, 1, JH_FILE_MAX + 1, file);
	f->has_system = jh_system_read(bytes, n, flavour, &f->system, &f->system_error) == 0;
	if (!f->has_system) {
		jh_system_free(&f->system);
		phi_error_wrap(&f->system_error, "%s", path);
	}
}

static void gather_jailhouse(const struct platform *p, struct check_facts *f)
{
	struct jh_paths paths;
	struct phi_error e;
	int on;

	jh_paths_of(p, &paths);
	f->has_device = access(paths.device, F_OK) == 0;
	on = jh_driver_enabled(&paths, &e);
	f->has_sysfs = on >= 0;
	f->enabled = on > 0;
	if (f->enabled) {
		host_line("", f->root_name, sizeof(f->root_name), "%s/cells/0/name", paths.sysfs);
		if (f->root_name[0] != '\0')
			f->remote_of_cells = host_exists("", "%s/cells/0/rcpus_assigned", paths.sysfs) ? CHECK_YES : CHECK_NO;
	}
	if (p->jailhouse.root_cell != NULL)
		gather_root_cell(p->jailhouse.root_cell, (enum jh_flavour)p->jailhouse.flavour, f);
}

void checks_gather(const struct platform *p, const char *root, struct check_facts *f)
{
	_clean_free_ char *map = host_text(root, 1u << 20, "/proc/iomem");
	char features[4096], text[8];

	*f = (struct check_facts){.ttwu_queue = CHECK_UNKNOWN, .remote_of_cells = CHECK_UNKNOWN};
	host_cpus(root, &f->online, "/sys/devices/system/cpu/online");
	host_cpus(root, &f->present, "/sys/devices/system/cpu/present");
	f->memory = host_memory(root);
	host_cpus(root, &f->isolated, "/sys/devices/system/cpu/isolated");
	host_cpus(root, &f->nohz_full, "/sys/devices/system/cpu/nohz_full");
	host_line(root, f->governor, sizeof(f->governor), "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
	f->rt_group_sched = rt_group_sched(root);
	f->preempt_rt = host_line(root, text, sizeof(text), "/sys/kernel/realtime") && text[0] == '1';
	if (host_line(root, features, sizeof(features), "/sys/kernel/debug/sched/features") && strstr(features, "TTWU_QUEUE") != NULL)
		f->ttwu_queue = strstr(features, "NO_TTWU_QUEUE") != NULL ? CHECK_NO : CHECK_YES;
	if (map == NULL)
		phi_error_set(&f->iomem_error, PHI_INTERNAL, 0, "", "/proc/iomem cannot be read");
	else
		iomem_parse(map, &f->iomem, &f->iomem_error);
	if (p->jailhouse.present)
		gather_jailhouse(p, f);
}

void checks_free(struct check_facts *f)
{
	iomem_free(&f->iomem);
	if (f->has_system)
		jh_system_free(&f->system);
	f->has_system = false;
}

/* ---- what they mean ---- */

/* grave: cells cannot be made, or they and the host destroy each other. */
enum severity { ADVICE, GRAVE };

static void __attribute__((format(printf, 6, 7))) tell(struct json *list, const char *name, enum severity severity, enum check_answer ok,
						       const char *remedy, const char *format, ...)
{
	struct json *o = json_object();
	char detail[400];
	va_list args;

	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	json_add_string(o, "name", name);
	json_add_bool(o, "ok", ok != CHECK_NO);
	json_add_bool(o, "known", ok != CHECK_UNKNOWN);
	json_add_string(o, "severity", severity == GRAVE ? "grave" : "advice");
	json_add_string(o, "detail", detail);
	json_add_string(o, "remedy", ok == CHECK_YES ? NULL : remedy);
	json_add(list, NULL, o);
}

static enum check_answer yes_if(bool yes)
{
	return yes ? CHECK_YES : CHECK_NO;
}

static struct cpuset without(const struct cpuset *a, const struct cpuset *b)
{
	struct cpuset left = *a;

	for (size_t i = 0; i < PHI_COUNT(left.bits); i++)
		left.bits[i] &= ~b->bits[i];
	return left;
}

/* The CPUs that cells can get, and not all of which are in the set. */
static void judge_isolation(const struct platform *p, const struct check_facts *f, struct json *list)
{
	const struct {
		const char *name, *option, *what;
		const struct cpuset *has;
	} kinds[] = {{"isolated-cpus", "isolcpus", "are isolated from the host's tasks", &f->isolated},
		     {"nohz-full-cpus", "nohz_full", "have no periodic tick of the host", &f->nohz_full}};
	struct cpuset cells = without(&p->cpus.ids, &p->cpus.host);
	char all[CPUSET_TEXT_MAX], missing[CPUSET_TEXT_MAX], remedy[200];

	for (size_t i = 0; i < PHI_COUNT(kinds); i++) {
		struct cpuset left = without(&cells, kinds[i].has);

		cpuset_format(&cells, all, sizeof(all));
		cpuset_format(&left, missing, sizeof(missing));
		snprintf(remedy, sizeof(remedy), "boot with %s=%.100s", kinds[i].option, all);
		if (missing[0] == '\0')
			tell(list, kinds[i].name, ADVICE, CHECK_YES, NULL, "all CPUs for cells (%.100s) %s", all, kinds[i].what);
		else
			tell(list, kinds[i].name, ADVICE, CHECK_NO, remedy, "of the CPUs for cells (%.100s) not all %s: %.100s", all, kinds[i].what, missing);
	}
}

/* Is what the platform file gives away there still? */
static void judge_platform(const struct platform *p, const struct check_facts *f, struct json *list)
{
	const struct platform_pool *pools = p->memory.items;
	struct cpuset gone = without(&p->cpus.ids, &f->present);
	char text[CPUSET_TEXT_MAX], present[CPUSET_TEXT_MAX];
	uint64_t amount = 0;

	cpuset_format(&gone, text, sizeof(text));
	cpuset_format(&f->present, present, sizeof(present));
	tell(list, "cpus-present", GRAVE, present[0] == '\0' ? CHECK_UNKNOWN : yes_if(text[0] == '\0'),
	     "correct cpus.ids of the platform file, or bring the CPUs back", "the CPUs %.100s are present%s%.100s", present,
	     text[0] != '\0' ? "; the platform has others besides: " : "", text);
	for (size_t i = 0; i < p->memory.n; i++)
		amount += pools[i].has_base ? 0 : pools[i].size;
	tell(list, "pool-size", GRAVE, f->memory == 0 ? CHECK_UNKNOWN : yes_if(amount <= f->memory), "make the pool of kind host smaller",
	     "pools without addresses have %" PRIu64 " MiB, Linux has %" PRIu64 " MiB", amount >> 20, f->memory >> 20);
}

static void judge_scheduling(const struct platform *p, const struct check_facts *f, struct json *list)
{
	static const char *const budgets[] = {"nothing says whether the kernel has CONFIG_RT_GROUP_SCHED", "real-time tasks need no budget of their cgroup",
					      "CONFIG_RT_GROUP_SCHED: real-time tasks in cgroups without a budget fail"};

	judge_isolation(p, f, list);
	tell(list, "cpu-governor", ADVICE, yes_if(f->governor[0] == '\0' || strcmp(f->governor, "performance") == 0),
	     "set the governor to performance", "%s", f->governor[0] != '\0' ? f->governor : "no frequency scaling");
	/* With it a task of a cgroup without a budget cannot be real-time at all (sched-rt-group.rst). */
	tell(list, "rt-group-sched", ADVICE, f->rt_group_sched == CHECK_UNKNOWN ? CHECK_UNKNOWN : yes_if(f->rt_group_sched == CHECK_NO),
	     "a kernel without CONFIG_RT_GROUP_SCHED, or a budget (cpu.rt_runtime_us) for each cgroup", "%s", budgets[f->rt_group_sched + 1]);
}

/* A pool with addresses is for cells alone. Answers how many findings. */
static size_t judge_pool(const struct platform_pool *pool, const struct check_facts *f, struct json *list)
{
	const struct iomem_range *ram = iomem_find(&f->iomem, "System RAM", pool->base, pool->size);
	const struct jh_memory *own = &f->system.hypervisor;
	size_t n = 0;

	if (ram != NULL && ++n > 0)
		tell(list, "pool-memory", GRAVE, CHECK_NO, "reserve it in the device tree with no-map, or boot with mem= (x86: memmap=) below it",
		     "pool \"%s\" (0x%" PRIx64 " + 0x%" PRIx64 ") is memory that Linux uses: System RAM 0x%" PRIx64 "-0x%" PRIx64, pool->name,
		     pool->base, pool->size, ram->base, ram->end);
	if (f->has_system && pool->base < own->phys + own->size && own->phys < pool->base + pool->size && ++n > 0)
		tell(list, "pool-memory", GRAVE, CHECK_NO, "take it out of the pool",
		     "pool \"%s\" (0x%" PRIx64 " + 0x%" PRIx64 ") has memory of the hypervisor itself: 0x%" PRIx64 " + 0x%" PRIx64, pool->name,
		     pool->base, pool->size, own->phys, own->size);
	return n;
}

static void judge_pools(const struct platform *p, const struct check_facts *f, struct json *list)
{
	const struct platform_pool *pools = p->memory.items;
	size_t with_base = 0, findings = 0;

	for (size_t i = 0; i < p->memory.n; i++)
		if (pools[i].has_base) {
			with_base++;
			findings += judge_pool(&pools[i], f, list);
		}
	if (findings > 0)
		return;
	if (with_base > 0 && f->iomem_error.code != PHI_OK)
		tell(list, "pool-memory", GRAVE, CHECK_UNKNOWN, "run phid as root", "%s", f->iomem_error.detail);
	else
		tell(list, "pool-memory", GRAVE, CHECK_YES, NULL, "pools with addresses: %zu, and Linux uses no memory of theirs", with_base);
}

/* ---- Jailhouse ---- */

static bool same_root(const struct check_facts *f)
{
	return f->has_system && f->enabled && strcmp(f->root_name, f->system.root.name) == 0;
}

static void judge_driver(const struct platform *p, const struct check_facts *f, struct json *list)
{
	struct jh_paths paths;

	jh_paths_of(p, &paths);
	tell(list, "jailhouse-driver", GRAVE, yes_if(f->has_device && f->has_sysfs), "load the jailhouse module that was built for this kernel",
	     "%.100s is %s, %.100s is %s", paths.device, f->has_device ? "there" : "not there", paths.sysfs, f->has_sysfs ? "there" : "not there");
	if (!f->has_sysfs)
		tell(list, "jailhouse-enabled", GRAVE, CHECK_UNKNOWN, "see jailhouse-driver", "the driver is not there");
	else
		tell(list, "jailhouse-enabled", GRAVE, yes_if(f->enabled),
		     p->jailhouse.root_cell != NULL ? "phictl host enable" : "name the root cell's file in the platform file, then phictl host enable",
		     "the hypervisor is %s", f->enabled ? "on" : "off");
}

/* The file that the platform names: does it fit this machine, and is it what the hypervisor runs by? */
static void judge_root_cell(const struct platform *p, const struct check_facts *f, struct json *list)
{
	static const char name[] = "jailhouse-root-cell";

	if (p->jailhouse.root_cell == NULL)
		tell(list, name, GRAVE, CHECK_UNKNOWN, "name it: backends.jailhouse.root_cell in the platform file",
		     "the platform names no root cell, so flavour, CPUs and the hypervisor's memory are compared with nothing");
	else if (!f->has_system && f->system_error.code == PHI_UNSUPPORTED)
		tell(list, name, GRAVE, CHECK_UNKNOWN, "none: compare it by hand", "%s", f->system_error.detail);
	else if (!f->has_system)
		tell(list, name, GRAVE, CHECK_NO, "name a root cell of the platform's flavour", "%s", f->system_error.detail);
	else if (f->system.root.arch != p->jailhouse.arch)
		tell(list, name, GRAVE, CHECK_NO, "name this machine's root cell, or correct the platform's architecture",
		     "the file is for %s, the platform says %s", jh_archs[f->system.root.arch], jh_archs[p->jailhouse.arch]);
	else if (f->enabled && !same_root(f))
		tell(list, name, GRAVE, CHECK_NO, "name the file that it was enabled with, or phictl host disable and enable",
		     "the hypervisor runs with the root cell \"%s\", the file's is \"%s\"", f->root_name, f->system.root.name);
	else
		tell(list, name, GRAVE, CHECK_YES, NULL, "%s, %s, \"%s\"%s", jh_flavours[f->system.root.flavour], jh_archs[f->system.root.arch],
		     f->system.root.name, f->enabled ? ", which runs" : "");
}

/* Nothing asks the driver or the hypervisor for revision or flavour; what can be known is known from what it accepted and shows. */
static void judge_flavour(const struct platform *p, const struct check_facts *f, struct json *list)
{
	const char *wanted = jh_flavours[p->jailhouse.flavour];
	bool omnivisor = p->jailhouse.flavour == JH_OMNIVISOR;
	enum check_answer ok = CHECK_UNKNOWN;
	const char *detail = "the driver does not say its flavour; what it is shows when it is on";

	if (f->remote_of_cells == CHECK_YES) {
		ok = yes_if(omnivisor);
		detail = "sysfs shows remote processors of cells: Omnivisor";
	} else if (f->enabled && omnivisor) {
		detail = "sysfs shows no remote processors of cells: Omnivisor built without them, or another flavour";
	} else if (same_root(f)) {
		ok = CHECK_YES;
		detail = "the hypervisor took the root cell's file, and shows no sign of Omnivisor";
	} else if (f->enabled) {
		detail = "no sign of Omnivisor; revisions 13 and 14 sysfs does not tell apart. The first create will";
	}
	tell(list, "jailhouse-flavour", GRAVE, ok, "say the hypervisor's flavour in the platform file: backends.jailhouse.flavour",
	     "%s expected: %s", wanted, detail);
}

static void judge_cpus(const struct check_facts *f, struct json *list)
{
	static const char name[] = "jailhouse-cpus";
	char wanted[CPUSET_TEXT_MAX], online[CPUSET_TEXT_MAX], more[CPUSET_TEXT_MAX], less[CPUSET_TEXT_MAX], remedy[400];
	struct cpuset mask = {0}, to_add, to_remove;

	if (f->enabled) {
		tell(list, name, GRAVE, CHECK_YES, NULL, "the hypervisor is on: it has its CPUs");
		return;
	}
	if (!f->has_system) {
		tell(list, name, GRAVE, CHECK_UNKNOWN, "see jailhouse-root-cell", "no root cell's file says which CPUs must be online");
		return;
	}
	for (unsigned c = 0; c < f->system.root.n_cpus * 8; c++)
		if (f->system.root.cpus[c / 8] >> c % 8 & 1)
			cpuset_add(&mask, c);
	to_add = without(&mask, &f->online);
	to_remove = without(&f->online, &mask);
	cpuset_format(&mask, wanted, sizeof(wanted));
	cpuset_format(&f->online, online, sizeof(online));
	cpuset_format(&to_add, more, sizeof(more));
	cpuset_format(&to_remove, less, sizeof(less));
	snprintf(remedy, sizeof(remedy), "write to /sys/devices/system/cpu/cpu<n>/online:%s%.100s%s%.100s", more[0] ? " 1 for " : "", more,
		 less[0] ? " 0 for " : "", less);
	tell(list, name, GRAVE, yes_if(cpuset_equal(&mask, &f->online)), remedy, "to be enabled, Jailhouse wants the CPUs %.100s online; %.100s are",
	     wanted, online);
}

/* Jailhouse takes two software interrupts of a GICv2 with the same number for one: a lost one stalls Linux. */
static void judge_gicv2(const struct platform *p, const struct check_facts *f, struct json *list)
{
	enum { GICV2 }; /* of platform_controllers */
	static const char hazard[] = "a GICv2 under Jailhouse may lose interrupts between CPUs of Linux, which then stalls";
	bool known = p->interrupts.present || f->has_system || p->jailhouse.arch == JH_X86;
	bool v2 = p->interrupts.present ? p->interrupts.controller == GICV2 : f->has_system && f->system.gic_version == 2;
	enum check_answer ok = !known ? CHECK_UNKNOWN : CHECK_YES;
	const char *detail = !known ? "nothing says which interrupt controller this is" : "no GICv2";

	if (v2 && f->preempt_rt) {
		detail = "a GICv2, and a kernel with PREEMPT_RT, which does not queue wake-ups";
	} else if (v2 && f->ttwu_queue == CHECK_NO) {
		detail = "a GICv2, and the scheduler does not queue wake-ups";
	} else if (v2) {
		ok = f->ttwu_queue == CHECK_YES ? CHECK_NO : CHECK_UNKNOWN;
		detail = hazard;
	}
	tell(list, "jailhouse-gicv2", GRAVE, ok, "echo NO_TTWU_QUEUE >/sys/kernel/debug/sched/features at each boot, or a kernel with PREEMPT_RT",
	     "%s%s", detail, v2 && ok == CHECK_UNKNOWN ? "; whether the scheduler queues wake-ups /sys/kernel/debug/sched/features does not say" : "");
}

void checks_judge(const struct platform *p, const struct check_facts *f, struct json *list)
{
	judge_platform(p, f, list);
	judge_scheduling(p, f, list);
	judge_pools(p, f, list);
	if (!p->jailhouse.present)
		return;
	judge_driver(p, f, list);
	judge_root_cell(p, f, list);
	judge_flavour(p, f, list);
	judge_cpus(f, list);
	judge_gicv2(p, f, list);
}
