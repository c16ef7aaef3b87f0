/* update: what clients send of linux.resources, against what the cell has. The CPUs and the memory of a cell are fixed as long as
 * it exists, and it has no other limits; so what changes nothing is done, and anything else is refused by its name. */
#include "runphi.h"

#include "clean.h"
#include "cpuset.h"
#include "field.h"
#include "json.h"
#include "oci.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* The flags of runc, as members of LinuxResources (config-linux.md). By their index in invocation.limits. */
static const struct {
	const char *section, *name;
} flags[LIMITS] = {
	[LIMIT_BLKIO_WEIGHT] = {"blockIO", "weight"},
	[LIMIT_CPU_PERIOD] = {"cpu", "period"},
	[LIMIT_CPU_QUOTA] = {"cpu", "quota"},
	[LIMIT_CPU_SHARE] = {"cpu", "shares"},
	[LIMIT_CPU_RT_PERIOD] = {"cpu", "realtimePeriod"},
	[LIMIT_CPU_RT_RUNTIME] = {"cpu", "realtimeRuntime"},
	[LIMIT_CPU_IDLE] = {"cpu", "idle"},
	[LIMIT_CPUSET_CPUS] = {"cpu", "cpus"},
	[LIMIT_CPUSET_MEMS] = {"cpu", "mems"},
	[LIMIT_MEMORY] = {"memory", "limit"},
	[LIMIT_MEMORY_RESERVATION] = {"memory", "reservation"},
	[LIMIT_MEMORY_SWAP] = {"memory", "swap"},
	[LIMIT_PIDS] = {"pids", "limit"},
	[LIMIT_L3_CACHE] = {"intelRdt", "l3CacheSchema"},
	[LIMIT_MEM_BW] = {"intelRdt", "memBwSchema"},
};

/* Sizes as runc takes them: "64m", "1GiB", "4096". */
static bool flag_number(const char *text, char ret[24])
{
	static const char units[] = "bkmgt";
	char *end;
	int64_t v;
	const char *unit;

	errno = 0;
	v = strtoll(text, &end, 10);
	unit = *end != '\0' ? strchr(units, tolower((unsigned char)*end)) : NULL;
	if (errno != 0 || end == text || (*end != '\0' && (unit == NULL || v < 0 || v > INT64_MAX >> 40)))
		return false;
	for (const char *u = units; unit != NULL && u < unit; u++)
		v *= 1024;
	if (unit != NULL && end[1] != '\0' && strcasecmp(end + 1, "b") != 0 && strcasecmp(end + 1, "ib") != 0)
		return false;
	snprintf(ret, 24, "%" PRId64, v);
	return true;
}

/* The flags as a document. */
static int from_flags(const struct invocation *v, struct json **ret, struct phi_error *e)
{
	_clean_json_ struct json *j = json_object();
	_clean_free_ char *text = NULL;

	for (size_t i = 0; i < LIMITS; i++) {
		struct json *section;
		char number[24], where[80];

		if (v->limits[i] == NULL)
			continue;
		section = json_get(j, flags[i].section);
		if (section == NULL)
			section = json_add_object(j, flags[i].section);
		snprintf(where, sizeof(where), "/%s/%s", flags[i].section, flags[i].name);
		if (i == LIMIT_CPUSET_CPUS || i == LIMIT_CPUSET_MEMS || i == LIMIT_L3_CACHE || i == LIMIT_MEM_BW)
			json_add_string(section, flags[i].name, v->limits[i]);
		else if (flag_number(v->limits[i], number))
			json_add_raw(section, flags[i].name, number);
		else
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "\"%.40s\" is not a number", v->limits[i]);
	}
	text = json_print(j);
	return json_parse(text, strlen(text), ret, e);
}

/* --resources FILE, or - for stdin (what containerd does). */
static int from_file(const char *path, struct json **ret, struct phi_error *e)
{
	_clean_fclose_ FILE *f = strcmp(path, "-") == 0 ? fdopen(dup(0), "re") : fopen(path, "re");
	_clean_free_ char *text = malloc(PHI_BODY_MAX + 1);
	size_t n;
	int r;

	if (text == NULL)
		abort();
	if (f == NULL)
		return phi_error_set(e, PHI_INVALID, errno, "/resources", "%.200s: %s", path, strerror(errno));
	n = fread(text, 1, PHI_BODY_MAX + 1, f);
	if (n > PHI_BODY_MAX)
		return phi_error_set(e, PHI_INVALID, EFBIG, "/resources", "the resources have more than %u bytes", PHI_BODY_MAX);
	r = json_parse(text, n, ret, e);
	if (r < 0) {
		phi_error_wrap(e, "the resources");
		return r;
	}
	return json_is_object(*ret) ? 0 : phi_error_set(e, PHI_INVALID, EINVAL, "/resources", "an object was expected, not %s", json_kind(*ret));
}

/* What the cell has, and what its bundle said at create. */
struct present {
	const struct json *container;
	const struct json *resources; /* of config.json */
	bool in_pod;
	const struct json *wanted;
};

static bool asks_for_nothing(const struct json *j)
{
	const char *s = json_string(j);
	int64_t n;
	bool b;

	return json_is_null(j) || (s != NULL && s[0] == '\0') || (json_integer(j, &n) && n <= 0) || (json_is_bool(j, &b) && !b) ||
	       ((json_is_array(j) || json_is_object(j)) && json_first(j) == NULL);
}

static bool same(const struct json *a, const struct json *b)
{
	_clean_free_ char *x = a != NULL ? json_print(a) : NULL, *y = b != NULL ? json_print(b) : NULL;

	return x != NULL && y != NULL && strcmp(x, y) == 0;
}

static void cell_cpus(const struct present *p, struct cpuset *ret)
{
	int64_t n;

	*ret = (struct cpuset){0};
	for (const struct json *c = json_first(json_get(json_get(p->container, "cell"), "cpus")); c != NULL; c = json_next(c))
		if (json_integer(c, &n) && n >= 0 && n < PHI_CPUS_MAX)
			cpuset_add(ret, (unsigned)n);
}

static int64_t cell_memory(const struct present *p)
{
	int64_t sum = 0, n;

	for (const struct json *m = json_first(json_get(json_get(p->container, "cell"), "memory")); m != NULL; m = json_next(m))
		if (json_integer(json_get(m, "size"), &n))
			sum += n;
	return sum;
}

static int check_cpus(const struct present *p, const char *cpus, struct phi_error *e)
{
	char text[CPUSET_TEXT_MAX];
	struct cpuset has, wants = {0};
	int r = cpuset_parse(cpus, "/cpu/cpus", &wants, e);

	if (r < 0)
		return r;
	cell_cpus(p, &has);
	if (cpuset_equal(&has, &wants))
		return 0;
	cpuset_format(&has, text, sizeof(text));
	return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/cpu/cpus",
			     "the CPUs of a cell do not change while it exists: it has %.60s; create it anew for others", text);
}

/* One member that asks for something. */
static int check_member(const struct present *p, const char *section, const struct json *j, struct phi_error *e)
{
	char where[80], pair[80];
	int64_t n = 0, count, limit = 0;
	struct cpuset has;

	snprintf(pair, sizeof(pair), "%.30s/%.40s", section, json_name(j));
	snprintf(where, sizeof(where), "/%s", pair);
	json_integer(j, &n);
	if (strcmp(pair, "cpu/cpus") == 0 && json_string(j) != NULL)
		return check_cpus(p, json_string(j), e);
	if (strcmp(pair, "cpu/period") == 0) /* the other half of quota */
		return 0;
	if (strcmp(pair, "cpu/quota") == 0 && oci_quota_cpus(json_get(p->wanted, "cpu"), &count)) {
		cell_cpus(p, &has);
		return count == cpuset_count(&has) ? 0 :
			phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, where,
				      "the CPUs of a cell do not change while it exists: it has %u, the quota is for %" PRId64, cpuset_count(&has),
				      count);
	}
	json_integer(json_get(json_get(p->wanted, "memory"), "limit"), &limit);
	if (strcmp(pair, "memory/swap") == 0 && n == limit) /* memory and swap together: no swap beyond the limit */
		return 0;
	if (strcmp(pair, "memory/limit") == 0)
		return n == cell_memory(p) ? 0 :
			phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, where,
				      "the memory of a cell does not change while it exists: it has %" PRId64 " bytes; create it anew for more or less",
				      cell_memory(p));
	return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, where, "a cell has no %s.%s that could be set", section, json_name(j));
}

static int check_section(const struct present *p, const struct json *section, struct phi_error *e)
{
	const char *name = json_name(section);
	char where[64];
	int r = 0;

	/* Devices are sent with every update, and the kubelet's shares and cpusets are not for cells. */
	if (strcmp(name, "devices") == 0 || (p->in_pod && strcmp(name, "cpu") == 0) || asks_for_nothing(section) ||
	    same(section, json_get(p->resources, name)))
		return 0;
	snprintf(where, sizeof(where), "/%.60s", name);
	if (!json_is_object(section))
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, where, "a cell has no %.60s that could be set", name);
	for (const struct json *m = json_first(section); r == 0 && m != NULL; m = json_next(m))
		if (!asks_for_nothing(m) && !same(m, json_get(json_get(p->resources, name), json_name(m))))
			r = check_member(p, name, m, e);
	return r;
}

int verb_update(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	_clean_json_ struct json *wanted = NULL, *container = NULL;
	_clean_oci_ struct oci_config c = {0};
	struct present p = {0};
	const char *state;
	int r = v->resources != NULL ? from_file(v->resources, &wanted, e) : from_flags(v, &wanted, e);

	if (r == 0)
		r = fetch(v, m, &container, e);
	if (r < 0)
		return r;
	state = json_get_string(container, "state");
	if (state == NULL || strcmp(state, "stopped") == 0)
		return phi_error_set(e, PHI_STATE, ESRCH, "/state", "container not running: %s is %s", v->words[0], state ? state : "unknown");
	if (json_get_string(container, "bundle") != NULL)
		bundle_read(json_get_string(container, "bundle"), &c, &(struct phi_error){0}); /* else nothing is as it was */
	p = (struct present){container, json_get(json_get(c.document, "linux"), "resources"), oci_in_pod(&c), wanted};
	for (const struct json *s = json_first(wanted); r == 0 && s != NULL; s = json_next(s))
		r = check_section(&p, s, e);
	return r;
}
