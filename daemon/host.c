/* The running host: what the platform file leaves out is read from sysfs and /proc (kernel: Documentation/ABI/stable/
 * sysfs-devices-system-cpu). Also where phid itself runs, and the host document of the API. */
#include "phid.h"

#include "checks.h"
#include "clean.h"
#include "error.h"
#include "hostfiles.h"
#include "json.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/random.h>

#include "id.h"

#define NODES_MAX 64

static int64_t read_cpu_number(const char *root, int cpu, const char *file, int64_t absent)
{
	char text[32];

	/* Where the firmware says nothing, the kernel shows -1, for clusters as an unsigned short. */
	return host_line(root, text, sizeof(text), "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, file) && text[0] != '\0' && atoll(text) >= 0 &&
			       atoll(text) < 65535
		       ? atoll(text)
		       : absent;
}

/* On arm the unit address of its node in the device tree (bindings, arm/cpus.yaml: reg is MPIDR's affinity); where there is none, its number. */
static uint32_t read_affinity(const char *root, int cpu)
{
	char node[PHI_PATH_MAX];
	const char *at = host_link(root, node, sizeof(node), "/sys/devices/system/cpu/cpu%d/of_node", cpu) ? strrchr(node, '@') : NULL;

	return at != NULL ? (uint32_t)strtoul(at + 1, NULL, 16) : (uint32_t)cpu;
}

static void discover_nodes(struct platform_cpu *rows, size_t n, const char *root)
{
	char text[CPUSET_TEXT_MAX];
	struct cpuset cpus;

	for (int node = 0; node < NODES_MAX; node++) {
		if (!host_line(root, text, sizeof(text), "/sys/devices/system/node/node%d/cpulist", node) || cpuset_parse(text, "", &cpus, NULL) < 0)
			continue;
		for (size_t i = 0; i < n; i++)
			if (cpuset_has(&cpus, (unsigned)rows[i].id))
				rows[i].node = node;
	}
}

static void discover_topology(struct platform *p, const char *root)
{
	struct platform_cpu *rows = calloc(cpuset_count(&p->cpus.ids) + 1, sizeof(*rows));
	size_t n = 0;

	if (rows == NULL)
		abort();
	for (int c = cpuset_next(&p->cpus.ids, 0); c >= 0; c = cpuset_next(&p->cpus.ids, (unsigned)c + 1))
		rows[n++] = (struct platform_cpu){.id = c,
						  .package = read_cpu_number(root, c, "physical_package_id", 0),
						  .cluster = read_cpu_number(root, c, "cluster_id", 0),
						  .core = read_cpu_number(root, c, "core_id", c),
						  .mpidr = read_affinity(root, c),
						  .has_mpidr = true};
	discover_nodes(rows, n, root);
	p->cpus.topology = (struct field_array){n, rows};
}

static void discover_pool(struct platform *p, const char *root)
{
	struct platform_pool *pool = calloc(1, sizeof(*pool));

	if (pool == NULL || (pool->name = strdup("host")) == NULL)
		abort();
	pool->kind = POOL_HOST;
	pool->size = host_pool_size(root);
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

int host_discover(struct platform *p, const struct config *c, struct phi_error *e)
{
	const char *root = c->host_root;
	char online[CPUSET_TEXT_MAX];
	int r = read_platform(p, c->platform ? c->platform : "/etc/phid/platform.json", c->platform != NULL, e);

	if (r < 0)
		return r;
	if (!p->cpus.has_ids) {
		host_line(root, online, sizeof(online), "/sys/devices/system/cpu/online");
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
		discover_topology(p, root);
	if (p->memory.n == 0)
		discover_pool(p, root);
	return platform_check(p, e);
}

void host_boot_id(char ret[PHI_UUID_LEN + 1])
{
	host_line("", ret, PHI_UUID_LEN + 1, "/proc/sys/kernel/random/boot_id");
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
	*ret = p->cpus.host;
	/* A platform whose host CPUs are not those of this machine (a test's) leaves us where we are. */
	if (cpuset_count(ret) > 0 && cpuset_apply(0, ret) < 0)
		*ret = (struct cpuset){0};
}

/* ---- the host document ---- */

struct json *host_to_json(const struct phid *p, const struct check_facts *facts)
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
	checks_judge(&p->platform, facts, json_add_array(j, "checks"));
	return j;
}
