/* The running host: what the platform file leaves out is read from sysfs and /proc (kernel: Documentation/ABI/stable/
 * sysfs-devices-system-cpu). Also where phid itself runs, and the host document of the API. */
#include "phid.h"

#include "clean.h"
#include "error.h"
#include "json.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "id.h"

static ssize_t read_small(const char *path, char *buf, size_t size)
{
	_clean_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, buf, size - 1) : -1;

	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return n;
}

static int64_t read_cpu_number(int cpu, const char *file, int64_t absent)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, file);
	/* Where the firmware says nothing, the kernel shows -1, for clusters as an unsigned short. */
	return read_small(path, text, sizeof(text)) > 0 && atoll(text) >= 0 && atoll(text) < 65535 ? atoll(text) : absent;
}

static int64_t cpu_node(int cpu)
{
	for (int node = 0; node < 64; node++) {
		char path[128];

		snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/node%d", cpu, node);
		if (access(path, F_OK) == 0)
			return node;
	}
	return 0;
}

static void discover_topology(struct platform *p)
{
	struct platform_cpu *rows = calloc(cpuset_count(&p->cpus.ids) + 1, sizeof(*rows));
	size_t n = 0;

	if (rows == NULL)
		abort();
	for (int c = cpuset_next(&p->cpus.ids, 0); c >= 0; c = cpuset_next(&p->cpus.ids, (unsigned)c + 1))
		rows[n++] = (struct platform_cpu){.id = c,
						  .package = read_cpu_number(c, "physical_package_id", 0),
						  .cluster = read_cpu_number(c, "cluster_id", 0),
						  .core = read_cpu_number(c, "core_id", c),
						  .node = cpu_node(c)};
	p->cpus.topology = (struct field_array){n, rows};
}

static uint64_t memory_total(void)
{
	char text[512];
	const char *p;

	read_small("/proc/meminfo", text, sizeof(text));
	p = strstr(text, "MemTotal:");
	return p != NULL ? strtoull(p + 9, NULL, 10) * 1024 : 0;
}

/* Three quarters of the memory by amount; the host keeps the rest. */
static void discover_memory(struct platform *p)
{
	struct platform_pool *pool = calloc(1, sizeof(*pool));

	if (pool == NULL || (pool->name = strdup("host")) == NULL)
		abort();
	pool->kind = POOL_HOST;
	pool->size = memory_total() / 4 * 3 & ~(uint64_t)0x1fffff;
	p->memory = (struct field_array){1, pool};
}

static int read_platform(struct platform *p, const char *file, bool must, struct phi_error *e)
{
	_clean_fclose_ FILE *f = fopen(file, "re");
	_clean_free_ char *text = NULL;
	size_t n;
	int r;

	if (f == NULL)
		return !must && errno == ENOENT ? 0 : phi_error_set(e, PHI_INVALID, errno, "/platform", "%s: %s", file, strerror(errno));
	text = malloc(PHI_PLATFORM_MAX + 1);
	if (text == NULL)
		abort();
	n = fread(text, 1, PHI_PLATFORM_MAX + 1, f);
	if (n > PHI_PLATFORM_MAX)
		return phi_error_set(e, PHI_INVALID, EFBIG, "/platform", "%s is larger than %u bytes", file, PHI_PLATFORM_MAX);
	r = platform_read(text, n, p, e);
	if (r < 0)
		phi_error_wrap(e, "%s%s%s", file, e->pointer[0] ? " at " : "", e->pointer);
	return r;
}

int host_discover(struct platform *p, const char *file, struct phi_error *e)
{
	char online[4096];
	int r = read_platform(p, file ? file : "/etc/phid/platform.json", file != NULL, e);

	if (r < 0)
		return r;
	if (!p->cpus.has_ids) {
		read_small("/sys/devices/system/cpu/online", online, sizeof(online));
		r = cpuset_parse(online, "/cpus/ids", &p->cpus.ids, e);
		if (r < 0)
			return r;
		p->cpus.has_ids = true;
	}
	if (!p->cpus.has_host) { /* somebody must run Linux: its first CPU, where there is a second one */
		if (cpuset_count(&p->cpus.ids) > 1)
			cpuset_add(&p->cpus.host, (unsigned)cpuset_next(&p->cpus.ids, 0));
		p->cpus.has_host = true;
	}
	if (p->cpus.topology.n == 0)
		discover_topology(p);
	if (p->memory.n == 0)
		discover_memory(p);
	return platform_check(p, e);
}

void host_boot_id(char ret[PHI_UUID_LEN + 1])
{
	read_small("/proc/sys/kernel/random/boot_id", ret, PHI_UUID_LEN + 1);
}

void host_uuid(char ret[PHI_UUID_LEN + 1])
{
	uint8_t random[16];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		abort();
	id_uuid_format(random, ret);
}

void host_stay(const struct platform *p, struct cpuset *ret)
{
	cpu_set_t set, all;

	*ret = (struct cpuset){0};
	CPU_ZERO(&set);
	if (sched_getaffinity(0, sizeof(all), &all) < 0)
		return;
	for (int c = cpuset_next(&p->cpus.host, 0); c >= 0; c = cpuset_next(&p->cpus.host, (unsigned)c + 1))
		if (c < CPU_SETSIZE) {
			CPU_SET((size_t)c, &set);
			cpuset_add(ret, (unsigned)c);
		}
	/* A platform whose host CPUs are not those of this machine (a test's) leaves us where we are. */
	if (CPU_COUNT(&set) > 0 && sched_setaffinity(0, sizeof(set), &set) < 0)
		*ret = (struct cpuset){0};
}

/* ---- the host document ---- */

static void add_check(struct json *list, const char *name, bool ok, const char *detail, const char *remedy)
{
	struct json *o = json_object();

	json_add_string(o, "name", name);
	json_add_bool(o, "ok", ok);
	json_add_string(o, "detail", detail);
	json_add_string(o, "remedy", ok ? NULL : remedy);
	json_add(list, NULL, o);
}

static void add_checks(const struct phid *p, struct json *j)
{
	struct json *list = json_add_array(j, "checks");
	char text[256], features[4096];
	bool isolated, budgets, unqueued;

	isolated = read_small("/sys/devices/system/cpu/isolated", text, sizeof(text)) > 1 && text[0] != '\0';
	add_check(list, "isolated-cpus", isolated, isolated ? text : "no CPU is isolated from the host's tasks",
		  "boot with isolcpus= (or nohz_full=) for the CPUs that cells get");
	read_small("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", text, sizeof(text));
	add_check(list, "cpu-governor", text[0] == '\0' || strcmp(text, "performance") == 0, text[0] ? text : "no frequency scaling",
		  "set the governor to performance");
	/* With it a task of a cgroup without a budget cannot be real-time at all (sched-rt-group.rst). */
	budgets = access("/sys/fs/cgroup/cpu/cpu.rt_runtime_us", F_OK) == 0;
	add_check(list, "rt-group-sched", !budgets,
		  budgets ? "CONFIG_RT_GROUP_SCHED: real-time tasks in cgroups without a budget fail" : "real-time tasks need no budget of their cgroup",
		  "a kernel without CONFIG_RT_GROUP_SCHED, or a budget (cpu.rt_runtime_us) for each cgroup");
	if (!p->platform.jailhouse.present)
		return;
	/* Jailhouse takes two software interrupts of a GICv2 with the same number for one: a lost one stalls Linux. */
	unqueued = read_small("/sys/kernel/debug/sched/features", features, sizeof(features)) > 0 && strstr(features, "NO_TTWU_QUEUE") != NULL;
	add_check(list, "jailhouse-gicv2", !p->platform.interrupts.present || p->platform.interrupts.controller != 0 || unqueued,
		  unqueued ? "the scheduler does not queue wake-ups" : "a GICv2 under Jailhouse may lose interrupts between CPUs of Linux",
		  "echo NO_TTWU_QUEUE >/sys/kernel/debug/sched/features at each boot, or a kernel with PREEMPT_RT");
}

struct json *host_to_json(const struct phid *p)
{
	struct json *j = json_object(), *list, *o;
	const struct platform_cpu *rows = p->platform.cpus.topology.items;

	json_add_string(j, "board", p->platform.board);
	json_add_string(j, "boot_id", p->boot_id);
	json_add(j, "platform", platform_to_json(&p->platform));
	list = json_add_array(j, "cpus");
	for (size_t i = 0; i < p->platform.cpus.topology.n; i++) {
		o = json_object();
		json_add_integer(o, "id", rows[i].id);
		json_add_integer(o, "package", rows[i].package);
		json_add_integer(o, "cluster", rows[i].cluster);
		json_add_integer(o, "core", rows[i].core);
		json_add_integer(o, "node", rows[i].node);
		json_add_bool(o, "host", cpuset_has(&p->platform.cpus.host, (unsigned)rows[i].id));
		json_add(list, NULL, o);
	}
	list = json_add_array(j, "backends");
	for (size_t i = 0; i < p->n_backends; i++) {
		const struct backend *b = p->backends[i];
		struct json *can;

		o = json_object();
		json_add_string(o, "name", b->name);
		can = json_add_array(o, "capabilities");
		if (b->can & CAN_PAUSE)
			json_add_string(can, NULL, "pause");
		if (b->can & CAN_POWERDOWN)
			json_add_string(can, NULL, "powerdown");
		if (b->can & CAN_PLACE)
			json_add_string(can, NULL, "place");
		b->describe(o);
		json_add(list, NULL, o);
	}
	add_checks(p, j);
	return j;
}
