/* What a bundle's config.json asks of a cell: annotations, linux.resources, mounts. (The vm section: test_oci.c.) */
#include "unit.h"

#include "json.h"
#include "oci.h"

#include <errno.h>

#define CONTAINERD "\"io.kubernetes.cri.container-type\":\"container\",\"io.kubernetes.cri.container-name\":\"plc\""

/* A spec with what an image gave: a kernel with an initrd, CPUs 2-3, 16 MiB. */
static void image_spec(struct spec *s)
{
	struct phi_error e;
	static const char text[] = "{\"format\":\"phid-boot/1\",\"boot\":{\"kernel\":\"/boot/k\",\"initrd\":\"/boot/i\"},\"cpus\":{\"set\":\"2-3\"},"
				   "\"memory\":[{\"size\":\"16M\",\"pool\":\"fast\"}]}";

	assert_done(spec_read_boot_config(text, strlen(text), s, &e), e);
}

/* Lays annotations ('members of the object') into s, which is freeable whatever comes of it. */
static int annotate(const char *members, struct spec *s, struct phi_error *e)
{
	_clean_oci_ struct oci_config c = {0};
	_clean_free_ char *text = NULL;
	int r;

	assert_true(asprintf(&text, "{\"ociVersion\":\"1.0.2\",\"annotations\":{%s}}", members) > 0);
	assert_int_equal(oci_config_read(text, strlen(text), &c, e), 0);
	r = oci_annotations_to_spec(&c, s, e);
	return r < 0 ? r : spec_complete(s, "/spec", e);
}

static void refuse(const char *members, enum phi_code code, const char *word)
{
	_clean_spec_ struct spec s;
	struct phi_error e = {0};

	image_spec(&s);
	if (annotate(members, &s, &e) >= 0)
		fail_msg("%s was accepted", members);
	if (e.code != code)
		fail_msg("%s: %s: %s", members, phi_code_name(e.code), e.detail);
	if (strstr(e.pointer, word) == NULL)
		assert_contains(e.detail, word);
}

static const struct spec_memory *region(const struct spec *s, size_t i)
{
	assert_true(i < s->memory.n);
	return (const struct spec_memory *)s->memory.items + i;
}

static void annotations_replace_what_the_image_says(void **state)
{
	_clean_spec_ struct spec s;
	struct phi_error e;

	(void)state;
	image_spec(&s);
	assert_done(annotate("\"org.runphi.cpus.count\":\"3\",\"org.runphi.memory\":\"64M\",\"org.runphi.name\":\"press\",\"other\":\"x\","
			     "\"org.runphi.runtime\":\"runphi\",\"org.runphi.lifecycle.keeper_lost\":\"keep\","
			     "\"org.runphi.boot.inmate\":\"/boot/rt.bin\",\"org.runphi.labels\":\"{\\\"a\\\":\\\"b\\\"}\","
			     "\"org.runphi.backend\":\"sim\",\"org.runphi.console.log.max\":\"8K\"", &s, &e), e);
	assert_true(s.cpus.has_count && !s.cpus.has_set);
	assert_int_equal(s.cpus.count, 3);
	assert_int_equal(s.memory.n, 1);
	assert_int_equal(region(&s, 0)->size, 64 << 20);
	assert_null(region(&s, 0)->pool);
	assert_string_equal(s.name, "press");
	assert_int_equal(s.keeper_lost, KEEPER_LOST_KEEP);
	assert_string_equal(s.boot.inmate.path, "/boot/rt.bin");
	assert_null(s.boot.kernel.path);
	assert_null(s.boot.initrd.path);
	assert_int_equal(s.labels.n, 1);
	assert_int_equal(s.backend, BACKEND_SIM);
	assert_int_equal(s.log_max, 8192);
}

static void a_text_is_taken_as_it_is(void **state)
{
	_clean_spec_ struct spec s;
	struct phi_error e;

	(void)state;
	image_spec(&s);
	assert_done(annotate("\"org.runphi.boot.cmdline\":\"{a} b\",\"org.runphi.name\":\"[press]\"", &s, &e), e);
	assert_string_equal(s.boot.cmdline, "{a} b");
	assert_string_equal(s.name, "[press]");
}

static void regions_of_memory_are_json(void **state)
{
	_clean_spec_ struct spec s;
	struct phi_error e;

	(void)state;
	image_spec(&s);
	assert_done(annotate("\"org.runphi.memory\":\"[{\\\"size\\\":\\\"1M\\\",\\\"pool\\\":\\\"ddr\\\"},{\\\"size\\\":8192}]\",\"org.runphi.cpus.set\":\"0,5\"",
			     &s, &e), e);
	assert_int_equal(s.memory.n, 2);
	assert_string_equal(region(&s, 0)->pool, "ddr");
	assert_int_equal(region(&s, 1)->size, 8192);
	assert_true(s.cpus.has_set && !s.cpus.has_count && cpuset_has(&s.cpus.set, 5));
	assert_string_equal(s.boot.kernel.path, "/boot/k");
}

static void an_annotation_that_nobody_knows_is_refused_by_its_name(void **state)
{
	(void)state;
	refuse("\"org.runphi.cpu.count\":\"2\"", PHI_UNKNOWN_MEMBER, "org.runphi.cpu.count");
	refuse("\"org.runphi.cpus\":\"2\"", PHI_UNKNOWN_MEMBER, "org.runphi.cpus");
	refuse("\"org.runphi.cpus.count.x\":\"2\"", PHI_UNKNOWN_MEMBER, "org.runphi.cpus.count.x");
	refuse("\"org.runphi.\":\"2\"", PHI_UNKNOWN_MEMBER, "org.runphi.");
	refuse("\"org.runphi.cpus.\":\"2\"", PHI_UNKNOWN_MEMBER, "org.runphi.cpus.");
	refuse(CONTAINERD ",\"org.runphi.container.other.cpu\":\"2\"", PHI_UNKNOWN_MEMBER, "org.runphi.container.other.cpu");
	refuse(CONTAINERD ",\"org.runphi.container.plc\":\"2\"", PHI_UNKNOWN_MEMBER, "org.runphi.container.plc");
	refuse("\"org.runphi.health\":\"{}\"", PHI_NOT_BUILT, "org.runphi.health");
	refuse("\"org.runphi.boot.args\":\"[]\"", PHI_NOT_BUILT, "org.runphi.boot.args");
}

static void a_wrong_value_is_refused_at_its_annotation(void **state)
{
	(void)state;
	refuse("\"org.runphi.cpus.count\":\"0\"", PHI_INVALID, "/spec/cpus/count");
	refuse("\"org.runphi.cpus.count\":\"two\"", PHI_INVALID, "/annotations/org.runphi.cpus.count");
	refuse("\"org.runphi.cpus.count\":\"\"", PHI_INVALID, "/annotations/org.runphi.cpus.count");
	refuse("\"org.runphi.cpus.count\":\"1 1\"", PHI_INVALID, "/annotations/org.runphi.cpus.count");
	refuse("\"org.runphi.cpus.set\":\"3-1\"", PHI_INVALID, "/annotations/org.runphi.cpus.set");
	refuse("\"org.runphi.memory\":\"lots\"", PHI_INVALID, "/annotations/org.runphi.memory");
	refuse("\"org.runphi.memory\":\"4097\"", PHI_INVALID, "/annotations/org.runphi.memory");
	refuse("\"org.runphi.memory\":\"[{}]\"", PHI_INVALID, "/annotations/org.runphi.memory");
	refuse("\"org.runphi.memory\":\"[\"", PHI_INVALID, "/annotations/org.runphi.memory");
	refuse("\"org.runphi.boot.kernel\":\"boot/k\"", PHI_INVALID, "/annotations/org.runphi.boot.kernel");
	refuse("\"org.runphi.backend\":\"kvm\"", PHI_INVALID, "/annotations/org.runphi.backend");
	refuse("\"org.runphi.cpus.count\":\"1\",\"org.runphi.cpus.set\":\"1\"", PHI_INVALID, "/spec/cpus");
	refuse("\"org.runphi.boot.kernel\":\"/k\",\"org.runphi.boot.inmate\":\"/i\"", PHI_INVALID, "/spec/boot/inmate");
}

static void a_pod_s_annotation_can_be_for_one_of_its_containers(void **state)
{
	static const char both[] = "\"org.runphi.container.plc.cpus.count\":\"4\",\"org.runphi.cpus.count\":\"2\","
				   "\"org.runphi.container.web.memory\":\"1M\"";
	struct phi_error e;
	_clean_free_ char *text = NULL;
	_clean_spec_ struct spec s;

	(void)state;
	assert_true(asprintf(&text, CONTAINERD ",%s", both) > 0);
	image_spec(&s);
	assert_done(annotate(text, &s, &e), e);
	assert_int_equal(s.cpus.count, 4);
	assert_int_equal(region(&s, 0)->size, 16 << 20);
	refuse(both, PHI_INVALID, "org.runphi.container.plc.cpus.count"); /* in no pod */
	refuse("\"io.kubernetes.cri-o.ContainerType\":\"container\",\"io.kubernetes.container.name\":\"plc\","
	       "\"org.runphi.container.plc.memory\":\"x\"", PHI_INVALID, "org.runphi.container.plc.memory");
}

static void a_sandbox_and_the_runtime_asked_for(void **state)
{
	static const struct {
		const char *members;
		bool sandbox, pod;
		const char *runtime;
	} cases[] = {
		{"", false, false, NULL},
		{"\"org.runphi.runtime\":\"runc\"", false, false, "runc"},
		{"\"io.kubernetes.cri.container-type\":\"sandbox\",\"org.runphi.runtime\":\"runphi\"", true, true, "runphi"},
		{"\"io.kubernetes.cri-o.ContainerType\":\"sandbox\"", true, true, NULL},
		{CONTAINERD ",\"org.runphi.container.plc.runtime\":\"runphi\",\"org.runphi.runtime\":\"runc\"", false, true, "runphi"},
		{CONTAINERD ",\"org.runphi.container.pl.runtime\":\"runphi\"", false, true, NULL},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(cases); i++) {
		_clean_oci_ struct oci_config c = {0};
		_clean_free_ char *text = NULL;
		const char *runtime;
		struct phi_error e;

		assert_true(asprintf(&text, "{\"ociVersion\":\"1.0.2\",\"annotations\":{%s}}", cases[i].members) > 0);
		assert_done(oci_config_read(text, strlen(text), &c, &e), e);
		assert_int_equal(oci_is_sandbox(&c), cases[i].sandbox);
		assert_int_equal(oci_in_pod(&c), cases[i].pod);
		runtime = oci_own_annotation(&c, "runtime");
		assert_int_equal(runtime == NULL, cases[i].runtime == NULL);
		if (runtime != NULL)
			assert_string_equal(runtime, cases[i].runtime);
	}
}

static void a_vm_section_and_an_annotation_do_not_both_say_what_boots(void **state)
{
	static const char text[] = "{\"ociVersion\":\"1.0.2\",\"vm\":{\"kernel\":{\"path\":\"/k\"}},\"annotations\":{\"org.runphi.boot.kernel\":\"/x\"}}";
	_clean_oci_ struct oci_config c = {0};
	_clean_spec_ struct spec s;
	struct phi_error e;

	(void)state;
	spec_init(&s);
	assert_done(oci_config_read(text, strlen(text), &c, &e), e);
	assert_refused(oci_annotations_to_spec(&c, &s, &e), e, PHI_INVALID, "/annotations");
}

static void another_container_s_boot_is_not_the_vm_section_s_business(void **state)
{
	static const char text[] = "{\"ociVersion\":\"1.0.2\",\"vm\":{\"kernel\":{\"path\":\"/k\"}},\"annotations\":{" CONTAINERD
				   ",\"org.runphi.container.other.boot.cmdline\":\"x\"}}";
	_clean_oci_ struct oci_config c = {0};
	_clean_spec_ struct spec s;
	struct phi_error e;

	(void)state;
	spec_init(&s);
	assert_done(oci_config_read(text, strlen(text), &c, &e), e);
	assert_done(oci_annotations_to_spec(&c, &s, &e), e);
	assert_null(s.boot.cmdline);
}

/* ---- linux.resources ---- */

static int limit(const char *resources, const char *annotations, struct spec *s, struct phi_error *e)
{
	_clean_oci_ struct oci_config c = {0};
	_clean_free_ char *text = NULL;
	int r;

	assert_true(asprintf(&text, "{\"ociVersion\":\"1.0.2\",\"annotations\":{%s},\"linux\":{\"resources\":%s}}", annotations, resources) > 0);
	assert_int_equal(oci_config_read(text, strlen(text), &c, e), 0);
	r = oci_resources_to_spec(&c, s, e);
	return r < 0 ? r : spec_complete(s, "/spec", e);
}

static void limits_of_the_bundle_fill_in_what_nobody_said(void **state)
{
	static const struct {
		const char *resources, *annotations;
		int64_t count; /* 0: the set "1,3" */
		uint64_t memory;
	} cases[] = {
		{"{}", "", 1, 64 << 20},
		{"{\"cpu\":{\"cpus\":\"1,3\",\"quota\":100000},\"memory\":{\"limit\":33554432}}", "", 0, 32 << 20},
		{"{\"cpu\":{\"cpus\":\"\",\"quota\":150000,\"period\":100000}}", "", 2, 64 << 20},
		{"{\"cpu\":{\"quota\":200000}}", "", 2, 64 << 20},
		{"{\"cpu\":{\"quota\":1,\"period\":50000}}", "", 1, 64 << 20},
		{"{\"cpu\":{\"quota\":-1,\"shares\":1024},\"memory\":{\"limit\":-1}}", "", 1, 64 << 20},
		{"{\"memory\":{\"limit\":10000}}", "", 1, 8192},
		{"{\"memory\":{\"limit\":9223372036854771712}}", "", 1, 64 << 20},
		{"{\"cpu\":{\"cpus\":\"1,3\",\"quota\":400000},\"memory\":{\"limit\":33554432},\"hugepageLimits\":[{\"pageSize\":\"2MB\",\"limit\":0}]}",
		 CONTAINERD, 1, 32 << 20},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(cases); i++) {
		_clean_spec_ struct spec s;
		struct phi_error e;

		spec_init(&s);
		assert_done(limit(cases[i].resources, cases[i].annotations, &s, &e), e);
		assert_int_equal(s.cpus.has_set, cases[i].count == 0);
		if (cases[i].count != 0)
			assert_int_equal(s.cpus.count, cases[i].count);
		else
			assert_true(cpuset_count(&s.cpus.set) == 2 && cpuset_has(&s.cpus.set, 1) && cpuset_has(&s.cpus.set, 3));
		assert_int_equal(region(&s, 0)->size, cases[i].memory);
	}
}

static void limits_of_the_bundle_do_not_change_what_the_image_says(void **state)
{
	_clean_spec_ struct spec s;
	struct phi_error e;

	(void)state;
	image_spec(&s);
	assert_done(limit("{\"cpu\":{\"cpus\":\"0-7\",\"quota\":900000},\"memory\":{\"limit\":4096}}", "", &s, &e), e);
	assert_true(s.cpus.has_set && !s.cpus.has_count && cpuset_count(&s.cpus.set) == 2);
	assert_int_equal(region(&s, 0)->size, 16 << 20);
}

static void limits_that_no_cell_can_have_are_refused(void **state)
{
	_clean_spec_ struct spec s;
	struct phi_error e = {0};

	(void)state;
	spec_init(&s);
	assert_refused(limit("{\"hugepageLimits\":[{\"limit\":0},{\"pageSize\":\"2MB\",\"limit\":4194304}]}", "", &s, &e), e, PHI_NOT_BUILT,
		       "/linux/resources/hugepageLimits/1");
	assert_refused(limit("{\"cpu\":{\"cpus\":\"x\"}}", "", &s, &e), e, PHI_INVALID, "/linux/resources/cpu/cpus");
	assert_refused(limit("{\"cpu\":{\"quota\":99999999999,\"period\":1000}}", "", &s, &e), e, PHI_INVALID, "/linux/resources/cpu/quota");
}

/* ---- mounts ---- */

static void the_mounts_of_every_client_are_passed_over_and_others_refused(void **state)
{
	static const struct {
		const char *destination;
		bool usual;
	} cases[] = {
		{"/proc", true},	 {"/dev/shm", true},	 {"/sys/fs/cgroup", true},   {"/etc/hosts", true},
		{"/run/secrets", true},	 {"/var/run/secrets/kubernetes.io/serviceaccount", true},
		{"/dev/termination-log", true}, {"/run/.containerenv", true},
		{"/procs", false},	 {"/device", false},	 {"/etc", false},	     {"/etc/hosts.d", false},
		{"/data", false},	 {"/", false},		 {"", false},		     {"/run", false},
		{"/proc/../data", false},
		/* and their types */
		{"/run\",\"type\":\"tmpfs", true}, {"/run\",\"type\":\"bind", false}, {"/data\",\"type\":\"tmpfs", false},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(cases); i++) {
		_clean_oci_ struct oci_config c = {0};
		_clean_free_ char *text = NULL;
		struct phi_error e = {0};

		assert_true(asprintf(&text, "{\"ociVersion\":\"1.0.2\",\"mounts\":[{\"destination\":\"/proc\"},{\"destination\":\"%s\"}]}",
				     cases[i].destination) > 0);
		assert_done(oci_config_read(text, strlen(text), &c, &e), e);
		if ((oci_check_mounts(&c, &e) == 0) != cases[i].usual)
			fail_msg("\"%s\": %s", cases[i].destination, e.detail);
		if (!cases[i].usual)
			assert_string_equal(e.pointer, "/mounts/1");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(annotations_replace_what_the_image_says),
		cmocka_unit_test(a_text_is_taken_as_it_is),
		cmocka_unit_test(regions_of_memory_are_json),
		cmocka_unit_test(an_annotation_that_nobody_knows_is_refused_by_its_name),
		cmocka_unit_test(a_wrong_value_is_refused_at_its_annotation),
		cmocka_unit_test(a_pod_s_annotation_can_be_for_one_of_its_containers),
		cmocka_unit_test(a_sandbox_and_the_runtime_asked_for),
		cmocka_unit_test(a_vm_section_and_an_annotation_do_not_both_say_what_boots),
		cmocka_unit_test(another_container_s_boot_is_not_the_vm_section_s_business),
		cmocka_unit_test(limits_of_the_bundle_fill_in_what_nobody_said),
		cmocka_unit_test(limits_of_the_bundle_do_not_change_what_the_image_says),
		cmocka_unit_test(limits_that_no_cell_can_have_are_refused),
		cmocka_unit_test(the_mounts_of_every_client_are_passed_over_and_others_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
