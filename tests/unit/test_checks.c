/* What the facts of a host mean: each finding with the fact that makes it, and with its remedy. */
#include "unit.h"

#include "checks.h"
#include "json.h"
#include "platform.h"

/* ids 0-3, host 0, a pool at 0x70000000, a GICv2, Jailhouse of upstream-14 with a root cell of the CPUs 0-3. */
struct scene {
	struct platform platform;
	struct check_facts facts;
	struct iomem_range map[2];
};

static void set_cpus(struct cpuset *s, const char *list)
{
	struct phi_error e;

	assert_done(cpuset_parse(list, "", s, &e), e);
}

static void begin(struct scene *s)
{
	static struct platform_pool pools[] = {{.name = (char *)"cells", .kind = POOL_CARVEOUT, .base = 0x70000000, .size = 0x1000000, .has_base = true},
					       {.name = (char *)"host", .kind = POOL_HOST, .size = 0x40000000}};

	*s = (struct scene){.map = {{0x40000000, 0x6fffffff, 0, "System RAM"}, {0x70000000, 0x7fffffff, 0, "reserved"}}};
	s->platform.memory = (struct field_array){2, pools};
	s->platform.interrupts.present = true; /* controller 0: gicv2 */
	s->platform.jailhouse.present = true;
	s->platform.jailhouse.arch = JH_ARM64;
	s->platform.jailhouse.root_cell = (char *)"/etc/root.cell";
	set_cpus(&s->platform.cpus.ids, "0-3");
	set_cpus(&s->platform.cpus.host, "0");
	set_cpus(&s->facts.online, "0-3");
	set_cpus(&s->facts.present, "0-3");
	s->facts.memory = 1ull << 40;
	set_cpus(&s->facts.isolated, "1-3");
	set_cpus(&s->facts.nohz_full, "1-3");
	s->facts.ttwu_queue = CHECK_NO;
	s->facts.remote_of_cells = CHECK_NO;
	s->facts.iomem = (struct iomem){2, s->map};
	s->facts.has_device = s->facts.has_sysfs = s->facts.enabled = s->facts.has_system = true;
	s->facts.system.hypervisor = (struct jh_memory){.phys = 0x7fc00000, .size = 0x400000};
	s->facts.system.root = (struct jh_cell){.arch = JH_ARM64, .name = "root", .n_cpus = 8, .cpus = {0xf}};
	strcpy(s->facts.root_name, "root");
}

static void expect_row(const struct json *j, const char *name, bool ok, bool known, const char *detail)
{
	bool is_ok = !ok, is_known = !known;

	for (const struct json *c = json_first(j); c != NULL; c = json_next(c)) {
		if (strcmp(json_get_string(c, "name"), name) != 0)
			continue;
		json_is_bool(json_get(c, "ok"), &is_ok);
		json_is_bool(json_get(c, "known"), &is_known);
		if (is_ok != ok || is_known != known)
			fail_msg("%s: ok %d, known %d: %s", name, is_ok, is_known, json_get_string(c, "detail"));
		if (ok && known)
			assert_true(json_is_null(json_get(c, "remedy")));
		else
			assert_true(json_get_string(c, "remedy")[0] != '\0');
		assert_contains(json_get_string(c, "detail"), detail);
		return;
	}
	fail_msg("there is no %s", name);
}

/* That this check finds this, and that no other finds anything. */
static void expect(struct scene *s, const char *name, enum check_answer answer, const char *detail)
{
	_clean_json_ struct json *j = json_array();
	bool ok = false, known = false;

	checks_judge(&s->platform, &s->facts, j);
	expect_row(j, name, answer != CHECK_NO, answer != CHECK_UNKNOWN, detail);
	for (const struct json *c = json_first(j); c != NULL; c = json_next(c)) {
		json_is_bool(json_get(c, "ok"), &ok);
		json_is_bool(json_get(c, "known"), &known);
		if ((!ok || !known) && strcmp(json_get_string(c, "name"), name) != 0)
			fail_msg("%s: %s, too", json_get_string(c, "name"), json_get_string(c, "detail"));
	}
}

static void a_fit_host_has_no_findings(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	expect(&s, "isolated-cpus", CHECK_YES, "1-3");
	s.facts.enabled = false; /* then what the hypervisor shows is not known */
	s.facts.remote_of_cells = CHECK_UNKNOWN;
	s.facts.root_name[0] = '\0';
	s.platform.jailhouse.present = false;
	expect(&s, "pool-memory", CHECK_YES, "1");
}

static void a_host_that_is_smaller_than_its_platform(void **state)
{
	struct platform_pool pools[] = {{.name = (char *)"host", .kind = POOL_HOST, .size = 3 << 20}};
	struct scene s;

	(void)state;
	begin(&s);
	set_cpus(&s.facts.present, "0,2");
	expect(&s, "cpus-present", CHECK_NO, "besides: 1,3");
	set_cpus(&s.facts.present, "");
	expect(&s, "cpus-present", CHECK_UNKNOWN, "");
	begin(&s);
	s.platform.memory = (struct field_array){1, pools};
	s.facts.memory = 3 << 20;
	expect(&s, "pool-size", CHECK_YES, "3 MiB");
	s.facts.memory--;
	expect(&s, "pool-size", CHECK_NO, "have 3 MiB");
	s.facts.memory = 0;
	expect(&s, "pool-size", CHECK_UNKNOWN, "");
}

static void cpus_of_cells_that_are_not_isolated(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	set_cpus(&s.facts.isolated, "0-1,3");
	expect(&s, "isolated-cpus", CHECK_NO, ": 2");
	begin(&s);
	set_cpus(&s.facts.nohz_full, "");
	expect(&s, "nohz-full-cpus", CHECK_NO, ": 1-3");
}

static void scheduling(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	strcpy(s.facts.governor, "powersave");
	expect(&s, "cpu-governor", CHECK_NO, "powersave");
	strcpy(s.facts.governor, "performance");
	expect(&s, "cpu-governor", CHECK_YES, "performance");
	s.facts.rt_group_sched = CHECK_YES;
	expect(&s, "rt-group-sched", CHECK_NO, "CONFIG_RT_GROUP_SCHED");
	s.facts.rt_group_sched = CHECK_UNKNOWN;
	expect(&s, "rt-group-sched", CHECK_UNKNOWN, "nothing says");
}

static void a_pool_that_linux_or_the_hypervisor_uses(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	s.map[0].end = 0x70000000; /* one byte */
	expect(&s, "pool-memory", CHECK_NO, "Linux uses");
	begin(&s);
	s.facts.system.hypervisor.phys = 0x70fff000;
	expect(&s, "pool-memory", CHECK_NO, "hypervisor itself");
	begin(&s);
	s.facts.system.hypervisor.phys = 0x71000000;
	expect(&s, "pool-memory", CHECK_YES, "1");
	begin(&s);
	s.facts.iomem.n = 0;
	phi_error_set(&s.facts.iomem_error, PHI_FORBIDDEN, 0, "", "hidden");
	expect(&s, "pool-memory", CHECK_UNKNOWN, "hidden");
	s.platform.memory.n = 0;
	expect(&s, "pool-memory", CHECK_YES, "0");
}

static void the_driver(void **state)
{
	struct scene s;
	_clean_json_ struct json *j = json_array();

	(void)state;
	begin(&s);
	s.facts.has_device = false;
	expect(&s, "jailhouse-driver", CHECK_NO, "/dev/jailhouse is not there");
	s.facts.has_sysfs = s.facts.enabled = false;
	checks_judge(&s.platform, &s.facts, j);
	expect_row(j, "jailhouse-driver", false, true, "/sys/devices/jailhouse is not there");
	expect_row(j, "jailhouse-enabled", true, false, "driver");
}

static void the_root_cells_file(void **state)
{
	struct scene s;
	_clean_json_ struct json *j = json_array();

	(void)state;
	begin(&s);
	s.facts.system.root.arch = JH_X86;
	expect(&s, "jailhouse-root-cell", CHECK_NO, "x86");
	begin(&s);
	s.facts.has_system = false;
	phi_error_set(&s.facts.system_error, PHI_INVALID, 0, "", "at offset 0x0: cut");
	s.platform.jailhouse.root_cell = (char *)"/x";
	checks_judge(&s.platform, &s.facts, j);
	expect_row(j, "jailhouse-root-cell", false, true, "at offset");
	expect_row(j, "jailhouse-flavour", true, false, "does not tell");
	json_free(PHI_TAKE(j));
	j = json_array();
	phi_error_set(&s.facts.system_error, PHI_UNSUPPORTED, 0, "", "not known");
	checks_judge(&s.platform, &s.facts, j);
	expect_row(j, "jailhouse-root-cell", true, false, "not known");
	json_free(PHI_TAKE(j));
	j = json_array();
	begin(&s);
	strcpy(s.facts.root_name, "other");
	checks_judge(&s.platform, &s.facts, j);
	expect_row(j, "jailhouse-root-cell", false, true, "\"other\"");
	json_free(PHI_TAKE(j));
	j = json_array();
	s.facts.has_system = false;
	s.platform.jailhouse.root_cell = NULL;
	checks_judge(&s.platform, &s.facts, j);
	expect_row(j, "jailhouse-root-cell", true, false, "names no root cell");
}

static void the_flavour(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	expect(&s, "jailhouse-flavour", CHECK_YES, "upstream-14");
	s.facts.remote_of_cells = CHECK_YES;
	expect(&s, "jailhouse-flavour", CHECK_NO, "Omnivisor");
	s.platform.jailhouse.flavour = JH_OMNIVISOR;
	expect(&s, "jailhouse-flavour", CHECK_YES, "omnivisor-14");
	s.facts.remote_of_cells = CHECK_NO;
	expect(&s, "jailhouse-flavour", CHECK_UNKNOWN, "another flavour");
}

static void cpus_that_enable_wants(void **state)
{
	_clean_json_ struct json *j = json_array();
	struct scene s;

	(void)state;
	begin(&s);
	set_cpus(&s.facts.online, "0-1"); /* cells have the others */
	expect(&s, "jailhouse-cpus", CHECK_YES, "on");
	s.facts.enabled = false;
	checks_judge(&s.platform, &s.facts, j);
	expect_row(j, "jailhouse-cpus", false, true, "0-3 online; 0-1 are");
	json_free(PHI_TAKE(j));
	j = json_array();
	set_cpus(&s.facts.online, "0-4");
	checks_judge(&s.platform, &s.facts, j);
	expect_row(j, "jailhouse-cpus", false, true, "0-4");
	json_free(PHI_TAKE(j));
	j = json_array();
	set_cpus(&s.facts.online, "0-3");
	checks_judge(&s.platform, &s.facts, j);
	expect_row(j, "jailhouse-cpus", true, true, "0-3");
	expect_row(j, "jailhouse-enabled", false, true, "off");
}

static void the_gicv2_and_its_switch(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	expect(&s, "jailhouse-gicv2", CHECK_YES, "does not queue");
	s.facts.ttwu_queue = CHECK_YES;
	expect(&s, "jailhouse-gicv2", CHECK_NO, "lose interrupts");
	s.facts.ttwu_queue = CHECK_UNKNOWN;
	expect(&s, "jailhouse-gicv2", CHECK_UNKNOWN, "does not say");
	s.facts.preempt_rt = true;
	expect(&s, "jailhouse-gicv2", CHECK_YES, "PREEMPT_RT");
	s.facts.preempt_rt = false;
	s.platform.interrupts.controller = 1;
	expect(&s, "jailhouse-gicv2", CHECK_YES, "no GICv2");
	s.platform.interrupts.present = false;
	s.facts.system.gic_version = 2;
	expect(&s, "jailhouse-gicv2", CHECK_UNKNOWN, "does not say");
	s.facts.system.gic_version = 3;
	expect(&s, "jailhouse-gicv2", CHECK_YES, "no GICv2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fit_host_has_no_findings),
		cmocka_unit_test(a_host_that_is_smaller_than_its_platform),
		cmocka_unit_test(cpus_of_cells_that_are_not_isolated),
		cmocka_unit_test(scheduling),
		cmocka_unit_test(a_pool_that_linux_or_the_hypervisor_uses),
		cmocka_unit_test(the_driver),
		cmocka_unit_test(the_root_cells_file),
		cmocka_unit_test(the_flavour),
		cmocka_unit_test(cpus_that_enable_wants),
		cmocka_unit_test(the_gicv2_and_its_switch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
