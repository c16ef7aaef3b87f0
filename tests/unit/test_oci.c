/* What is read of an OCI bundle's config.json. */
#include "unit.h"

#include "oci.h"

#include <errno.h>

static int read_config(const char *text, struct oci_config *c, struct phi_error *e)
{
	*c = (struct oci_config){0};
	return oci_config_read(text, strlen(text), c, e);
}

/* Lays a vm section into a spec that has what an image gave. */
static int lay(const char *vm, struct spec *s, struct phi_error *e)
{
	_clean_json_ struct json *j = NULL;
	int r;

	spec_init(s);
	assert_int_equal(json_parse(vm, strlen(vm), &j, e), 0);
	r = oci_vm_to_spec(j, s, e);
	return r < 0 ? r : spec_complete(s, "/vm", e);
}

static void refuse_vm(const char *vm, enum phi_code code, const char *where)
{
	_clean_spec_ struct spec s;
	struct phi_error e = {0};

	if (lay(vm, &s, &e) >= 0)
		fail_msg("%s was accepted", vm);
	if (e.code != code || strcmp(e.pointer, where) != 0)
		fail_msg("%s: %s at %s: %s", vm, phi_code_name(e.code), e.pointer, e.detail);
}

static void a_bundle_is_read_and_its_unknown_members_are_ignored(void **state)
{
	_clean_oci_ struct oci_config c;
	struct phi_error e;

	(void)state;
	assert_done(read_config("{\"ociVersion\":\"1.0.2-dev\",\"root\":{\"path\":\"rootfs\",\"readonly\":true},\"process\":{\"terminal\":true,"
				"\"args\":[\"sh\"]},\"hostname\":\"h\",\"linux\":{\"x\":1},\"annotations\":{\"a.b\":\"c\",\"e\":\"\"},\"zzz\":[]}",
				&c, &e), e);
	assert_string_equal(c.root_path, "rootfs");
	assert_true(c.has_process && c.terminal && !c.has_vm);
	assert_null(c.vm);
	assert_int_equal(c.annotations.n, 2);
	assert_string_equal(oci_annotation(&c, "a.b"), "c");
	assert_string_equal(oci_annotation(&c, "e"), "");
	assert_null(oci_annotation(&c, "a"));
	assert_null(oci_annotation(&c, "A.B"));
}

static void the_least_bundle_is_a_version(void **state)
{
	static const char *const good[] = {"1.0.0", "1.0.2", "1.1.0", "1.2.0-rc.1", "1.99.0+x"};
	static const char *const bad[] = {"\"0.9.0\"", "\"2.0.0\"", "\"10.0.0\"", "\"1\"", "\"\"", "1", "null", "\"v1.0.0\""};
	char text[80];

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(good); i++) {
		_clean_oci_ struct oci_config c;
		struct phi_error e;

		snprintf(text, sizeof(text), "{\"ociVersion\":\"%s\"}", good[i]);
		assert_done(read_config(text, &c, &e), e);
		assert_null(c.root_path);
		assert_true(!c.has_process && !c.terminal && !c.has_vm && c.annotations.n == 0);
	}
	for (size_t i = 0; i < PHI_COUNT(bad); i++) {
		_clean_oci_ struct oci_config c;
		struct phi_error e;

		snprintf(text, sizeof(text), "{\"ociVersion\":%s}", bad[i]);
		assert_refused(read_config(text, &c, &e), e, PHI_INVALID, "/ociVersion");
	}
}

static void a_broken_bundle_is_refused_and_freeable(void **state)
{
	static const struct {
		const char *text, *where;
		enum phi_code code;
	} rows[] = {
		{"{", "", PHI_BAD_REQUEST},
		{"[]", "/ociVersion", PHI_INVALID},
		{"{}", "/ociVersion", PHI_INVALID},
		{"{\"ociVersion\":\"1.0.0\",\"root\":{}}", "/root/path", PHI_INVALID},
		{"{\"ociVersion\":\"1.0.0\",\"root\":\"x\"}", "/root/path", PHI_INVALID},
		{"{\"ociVersion\":\"1.0.0\",\"root\":{\"path\":\"\"}}", "/root/path", PHI_INVALID},
		{"{\"ociVersion\":\"1.0.0\",\"root\":{\"path\":1}}", "/root/path", PHI_INVALID},
		{"{\"ociVersion\":\"1.0.0\",\"annotations\":[]}", "/annotations", PHI_INVALID},
		{"{\"ociVersion\":\"1.0.0\",\"annotations\":{\"a\":\"b\",\"c\":1}}", "/annotations", PHI_INVALID},
		{"{\"ociVersion\":\"1.0.0\",\"annotations\":{\"a\":\"b\",\"\":\"c\"}}", "/annotations", PHI_INVALID},
		{"{\"ociVersion\":\"1.0.0\",\"root\":{\"path\":\"r\"},\"annotations\":{\"a\":null}}", "/annotations", PHI_INVALID},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		struct oci_config c;
		struct phi_error e;

		assert_refused(read_config(rows[i].text, &c, &e), e, rows[i].code, rows[i].where);
		oci_config_free(&c);
		oci_config_free(&c);
	}
}

static void a_vm_section_is_laid_into_the_spec(void **state)
{
	_clean_oci_ struct oci_config c;
	_clean_spec_ struct spec s;
	struct phi_error e;

	(void)state;
	spec_init(&s);
	assert_done(read_config("{\"ociVersion\":\"1.2.0\",\"vm\":{\"hypervisor\":{\"path\":\"/usr/bin/x\",\"parameters\":[]},"
				"\"kernel\":{\"path\":\"/boot/k\",\"parameters\":[\"foo=bar\",\"hello\"],\"initrd\":\"/boot/r\"},"
				"\"hwConfig\":{\"vcpus\":2,\"memory\":33554432,\"dtdevs\":[],\"irqs\":[],\"iomems\":[]}}}",
				&c, &e), e);
	assert_true(c.has_vm);
	assert_done(oci_vm_to_spec(c.vm, &s, &e), e);
	assert_done(spec_complete(&s, "/vm", &e), e);
	assert_string_equal(s.boot.kernel.path, "/boot/k");
	assert_string_equal(s.boot.initrd.path, "/boot/r");
	assert_string_equal(s.boot.cmdline, "foo=bar hello");
	assert_true(s.cpus.has_count && s.cpus.count == 2);
	assert_int_equal(s.memory.n, 1);
	assert_true(((struct spec_memory *)s.memory.items)->size == 32 << 20);
}

static void the_section_replaces_what_the_spec_had(void **state)
{
	const char *old = "{\"boot\":{\"kernel\":\"/old\",\"initrd\":\"/oldr\",\"cmdline\":\"old\"},\"cpus\":{\"set\":\"0-3\"},"
			  "\"memory\":[{\"size\":4096,\"pool\":\"p\",\"at\":\"0x1000\"},{\"size\":4096,\"pool\":\"q\"}]}";
	const char *vm = "{\"kernel\":{\"path\":\"/new\",\"parameters\":[\"new\"],\"initrd\":\"/newr\"},\"hwConfig\":{\"vcpus\":3,\"memory\":8192}}";
	_clean_json_ struct json *j = NULL, *v = NULL;
	_clean_spec_ struct spec s;
	const struct spec_memory *m;
	struct phi_error e;

	(void)state;
	spec_init(&s);
	assert_done(json_parse(old, strlen(old), &j, &e), e);
	assert_done(spec_read(j, FIELD_WIRE, "", &s, &e), e);
	assert_done(json_parse(vm, strlen(vm), &v, &e), e);
	assert_done(oci_vm_to_spec(v, &s, &e), e);
	assert_done(spec_complete(&s, "/vm", &e), e);
	assert_string_equal(s.boot.kernel.path, "/new");
	assert_string_equal(s.boot.initrd.path, "/newr");
	assert_string_equal(s.boot.cmdline, "new");
	assert_true(s.cpus.has_count && !s.cpus.has_set && s.cpus.count == 3);
	m = s.memory.items;
	assert_int_equal(s.memory.n, 1);
	assert_true(m->size == 8192 && !m->has_at && m->pool == NULL);
}

static void what_a_vm_section_asks_for_and_cannot_get_is_refused_by_name(void **state)
{
#define KERNEL "\"kernel\":{\"path\":\"/k\"}"
	static const struct {
		const char *vm, *where;
		enum phi_code code;
	} rows[] = {
		{"[]", "/vm", PHI_INVALID},
		{"null", "/vm", PHI_INVALID},
		{"{}", "/vm/kernel/path", PHI_INVALID},
		{"{\"kernel\":\"/k\"}", "/vm/kernel/path", PHI_INVALID},
		{"{\"kernel\":{\"path\":\"k\"}}", "/vm/kernel/path", PHI_INVALID},
		{"{\"kernel\":{\"path\":1}}", "/vm/kernel/path", PHI_INVALID},
		{"{\"kernel\":{\"path\":\"/k\",\"initrd\":\"r\"}}", "/vm/kernel/initrd", PHI_INVALID},
		{"{\"kernel\":{\"path\":\"/k\",\"initrd\":1}}", "/vm/kernel/initrd", PHI_INVALID},
		{"{\"kernel\":{\"path\":\"/k\",\"parameters\":[1]}}", "/vm/kernel/parameters", PHI_INVALID},
		{"{" KERNEL ",\"image\":{\"path\":\"/i\",\"format\":\"raw\"}}", "/vm/image", PHI_NOT_BUILT},
		{"{" KERNEL ",\"hypervisor\":{\"path\":\"/q\",\"parameters\":[\"-x\"]}}", "/vm/hypervisor/parameters", PHI_UNSUPPORTED},
		{"{" KERNEL ",\"hwConfig\":{\"deviceTree\":\"/d\"}}", "/vm/hwConfig/deviceTree", PHI_NOT_BUILT},
		{"{" KERNEL ",\"hwConfig\":{\"dtdevs\":[\"x\"]}}", "/vm/hwConfig/dtdevs", PHI_NOT_BUILT},
		{"{" KERNEL ",\"hwConfig\":{\"iomems\":[{}]}}", "/vm/hwConfig/iomems", PHI_NOT_BUILT},
		{"{" KERNEL ",\"hwConfig\":{\"irqs\":[4]}}", "/vm/hwConfig/irqs", PHI_NOT_BUILT},
		{"{" KERNEL ",\"hwConfig\":{\"vcpus\":0}}", "/vm/hwConfig/vcpus", PHI_INVALID},
		{"{" KERNEL ",\"hwConfig\":{\"vcpus\":4097}}", "/vm/hwConfig/vcpus", PHI_INVALID},
		{"{" KERNEL ",\"hwConfig\":{\"vcpus\":\"2\"}}", "/vm/hwConfig/vcpus", PHI_INVALID},
		{"{" KERNEL ",\"hwConfig\":{\"memory\":0}}", "/vm/hwConfig/memory", PHI_INVALID},
		{"{" KERNEL ",\"hwConfig\":{\"memory\":-4096}}", "/vm/hwConfig/memory", PHI_INVALID},
		{"{" KERNEL ",\"hwConfig\":{\"memory\":\"64M\"}}", "/vm/hwConfig/memory", PHI_INVALID},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++)
		refuse_vm(rows[i].vm, rows[i].code, rows[i].where);
}

static void a_member_of_the_wrong_type_is_refused_and_not_taken_for_absent(void **state)
{
	(void)state;
	refuse_vm("{" KERNEL ",\"hwConfig\":5}", PHI_INVALID, "/vm/hwConfig");
}

static void parameters_that_are_no_array_are_refused(void **state)
{
	(void)state;
	refuse_vm("{\"kernel\":{\"path\":\"/k\",\"parameters\":\"quiet\"}}", PHI_INVALID, "/vm/kernel/parameters");
}

static void parameters_have_together_at_most_the_bytes_of_a_command_line(void **state)
{
	char text[PHI_CMDLINE_MAX + 200], word[PHI_CMDLINE_MAX + 2];

	(void)state;
	for (int n = PHI_CMDLINE_MAX - 2; n <= PHI_CMDLINE_MAX + 1; n++)
		for (int words = 1; words <= 2; words++) {
			_clean_spec_ struct spec s;
			struct phi_error e = {0};
			int r;

			memset(word, 'a', sizeof(word));
			word[words == 1 ? n : n - 2] = '\0';
			snprintf(text, sizeof(text), "{\"kernel\":{\"path\":\"/k\",\"parameters\":[%s\"%s\"]}}", words == 1 ? "" : "\"b\",",
				 word);
			r = lay(text, &s, &e);
			if (n <= PHI_CMDLINE_MAX && r < 0)
				fail_msg("%d bytes in %d words: %s", n, words, e.detail);
			if (n > PHI_CMDLINE_MAX)
				assert_true(r < 0);
			else
				assert_int_equal(strlen(s.boot.cmdline), n);
		}
}

/* What was accepted is stored as a spec and read again when phid starts anew. */
static void assert_storable(const char *vm)
{
	_clean_spec_ struct spec s, t;
	struct phi_error e = {0};

	spec_init(&t);
	if (lay(vm, &s, &e) == 0) {
		_clean_json_ struct json *j = spec_to_json(&s), *back = NULL;
		_clean_free_ char *stored = json_print(j);

		assert_done(json_parse(stored, strlen(stored), &back, &e), e);
		if (spec_read(back, FIELD_WIRE, "/spec", &t, &e) < 0)
			fail_msg("%s was accepted, but its stored spec is refused: %s: %s", vm, e.pointer, e.detail);
	}
}

static void a_path_that_is_accepted_can_be_stored_and_read_again(void **state)
{
	(void)state;
	assert_storable("{\"kernel\":{\"path\":\"/boot/../k\"}}");
	assert_storable("{\"kernel\":{\"path\":\"/\"}}");
	assert_storable("{\"kernel\":{\"path\":\"/k\",\"initrd\":\"/a/..\"}}");
}

static void an_amount_of_memory_that_is_accepted_can_be_stored_and_read_again(void **state)
{
	(void)state;
	assert_storable("{" KERNEL ",\"hwConfig\":{\"memory\":4096}}");
	assert_storable("{" KERNEL ",\"hwConfig\":{\"memory\":1125899906842624}}");
	assert_storable("{" KERNEL ",\"hwConfig\":{\"memory\":2251799813685248}}");
}

static void a_section_that_is_refused_leaks_nothing(void **state)
{
	(void)state;
	refuse_vm("{\"kernel\":{\"path\":\"/k\",\"initrd\":\"/r\",\"parameters\":[\"a\"]},\"hwConfig\":{\"memory\":8192,\"vcpus\":0}}", PHI_INVALID,
		  "/vm/hwConfig/vcpus");
	refuse_vm("{" KERNEL ",\"hwConfig\":{\"memory\":4097}}", PHI_INVALID, "/vm/hwConfig/memory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bundle_is_read_and_its_unknown_members_are_ignored),
		cmocka_unit_test(the_least_bundle_is_a_version),
		cmocka_unit_test(a_broken_bundle_is_refused_and_freeable),
		cmocka_unit_test(a_vm_section_is_laid_into_the_spec),
		cmocka_unit_test(the_section_replaces_what_the_spec_had),
		cmocka_unit_test(what_a_vm_section_asks_for_and_cannot_get_is_refused_by_name),
		cmocka_unit_test(a_member_of_the_wrong_type_is_refused_and_not_taken_for_absent),
		cmocka_unit_test(parameters_that_are_no_array_are_refused),
		cmocka_unit_test(parameters_have_together_at_most_the_bytes_of_a_command_line),
		cmocka_unit_test(a_path_that_is_accepted_can_be_stored_and_read_again),
		cmocka_unit_test(an_amount_of_memory_that_is_accepted_can_be_stored_and_read_again),
		cmocka_unit_test(a_section_that_is_refused_leaks_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
