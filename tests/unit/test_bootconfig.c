/* /boot/config.json of both formats: honoured, or refused by name. */
#include "unit.h"

#include "json.h"
#include "spec.h"

#include <errno.h>

static int read_boot(const char *text, struct spec *s, struct phi_error *e)
{
	int r = spec_read_boot_config(text, strlen(text), s, e);

	return r < 0 ? r : spec_complete(s, "", e);
}

static void refuse(const char *text, enum phi_code code, const char *where)
{
	struct spec s;
	struct phi_error e = {0};
	int r = read_boot(text, &s, &e);

	spec_free(&s);
	if (r >= 0)
		fail_msg("%s was accepted", text);
	if (e.code != code || strcmp(e.pointer, where) != 0)
		fail_msg("%s: %s at \"%s\": %s", text, phi_code_name(e.code), e.pointer, e.detail);
}

static struct spec accept(const char *text)
{
	struct spec s;
	struct phi_error e = {0};

	if (read_boot(text, &s, &e) < 0)
		fail_msg("%s: %s at \"%s\": %s", text, phi_code_name(e.code), e.pointer, e.detail);
	return s;
}

static void assert_text(const char *is, const char *want)
{
	if (want == NULL)
		assert_null(is);
	else {
		assert_non_null(is);
		assert_string_equal(is, want);
	}
}

static void our_format_is_strict(void **state)
{
	(void)state;
	refuse("{\"format\":\"phid-boot/2\"}", PHI_INVALID, "/format");
	refuse("{\"format\":\"phid-boot/1 \"}", PHI_INVALID, "/format");
	refuse("{\"format\":null}", PHI_INVALID, "/format");
	refuse("{\"format\":1}", PHI_INVALID, "/format");
	refuse("{\"format\":\"phid-boot/1\",\"Memory\":[]}", PHI_UNKNOWN_MEMBER, "/Memory");
	refuse("{\"format\":\"phid-boot/1\",\"vcpus\":1}", PHI_UNKNOWN_MEMBER, "/vcpus");
	refuse("{\"format\":\"phid-boot/1\",\"health\":{}}", PHI_NOT_BUILT, "/health");
	refuse("{\"format\":\"phid-boot/1\",\"boot\":{\"dtb\":\"/d\"}}", PHI_INVALID, "/boot/dtb");
	refuse("{\"format\":\"phid-boot/1\",\"cpus\":{\"count\":1,\"set\":\"0\"}}", PHI_INVALID, "/cpus");
	refuse("{\"format\":\"phid-boot/1\",\"format\":\"phid-boot/1\"}", PHI_BAD_REQUEST, "");
	refuse("{\"format\":\"phid-boot/1\"", PHI_BAD_REQUEST, "");
}

static void our_format_is_read_in_the_form_of_files(void **state)
{
	_clean_spec_ struct spec s = accept("{\"format\":\"phid-boot/1\",\"name\":\"n\",\"backend\":\"qemu\",\"boot\":{\"kernel\":\"/boot/k\","
					    "\"initrd\":\"/boot/r\",\"cmdline\":\"quiet\",\"machine\":\"q35\"},\"cpus\":{\"set\":\"1-2\"},"
					    "\"memory\":[{\"size\":\"16M\"}],\"console\":{\"log\":{\"max\":\"64K\"}}}");

	(void)state;
	assert_text(s.name, "n");
	assert_int_equal(s.backend, BACKEND_QEMU);
	assert_text(s.boot.kernel.path, "/boot/k");
	assert_text(s.boot.initrd.path, "/boot/r");
	assert_text(s.boot.cmdline, "quiet");
	assert_int_equal(s.boot.machine, MACHINE_Q35);
	assert_int_equal(cpuset_count(&s.cpus.set), 2);
	assert_true(((struct spec_memory *)s.memory.items)->size == 16 << 20);
	assert_int_equal(s.log_max, 64 << 10);
}

static void what_is_no_object_is_refused_and_does_no_harm(void **state)
{
	static const char *const rows[] = {"[]", "[1]", "[{\"format\":\"phid-boot/1\"}]", "\"format\"", "1", "null", "true"};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++)
		refuse(rows[i], PHI_INVALID, "");
	refuse("", PHI_BAD_REQUEST, "");
}

static void a_runphi_image_names_what_it_boots(void **state)
{
	static const struct {
		const char *text, *kernel, *initrd, *inmate;
	} rows[] = {
		{"{}", NULL, NULL, "/boot/boot.bin"},
		{"{\"inmate\":\"\"}", NULL, NULL, "/boot/boot.bin"},
		{"{\"inmate\":null,\"kernel\":null}", NULL, NULL, "/boot/boot.bin"},
		{"{\"os_var\":\"zephyr\",\"inmate\":\"/boot/z.bin\"}", NULL, NULL, "/boot/z.bin"},
		{"{\"os_var\":\"zephyr\",\"inmate\":\"boot/z.bin\"}", NULL, NULL, "/boot/z.bin"},
		{"{\"os_var\":\"linux\",\"kernel\":\"/boot/Image\",\"ramdisk\":\"boot/r\"}", "/boot/Image", "/boot/r", NULL},
		{"{\"os_var\":\"linux\",\"kernel\":\"Image\",\"initrd\":\"/i\"}", "/Image", "/i", NULL},
		{"{\"os_var\":\"linux\",\"kernel\":\"/k\",\"cpio\":\"/c\"}", "/k", "/c", NULL},
		{"{\"os_var\":\"linux\",\"kernel\":\"/k\",\"ramdisk\":\"\",\"initrd\":null,\"cpio\":\"/c\"}", "/k", "/c", NULL},
		{"{\"kernel\":\"/k\"}", "/k", NULL, NULL},
		{"{\"os_var\":\"\",\"kernel\":\"/k\"}", "/k", NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		_clean_spec_ struct spec s = accept(rows[i].text);

		assert_text(s.boot.kernel.path, rows[i].kernel);
		assert_text(s.boot.initrd.path, rows[i].initrd);
		assert_text(s.boot.inmate.path, rows[i].inmate);
	}
}

static void a_runphi_image_names_its_address_memory_and_cpus(void **state)
{
	_clean_spec_ struct spec s = accept("{\"os_var\":\"zephyr\",\"inmate\":\"/z\",\"starting_vaddress\":\"0x70000000\",\"memory\":32,"
					    "\"vcpus\":3,\"cmdline\":\"a b\",\"net\":\"none\"}");
	const struct spec_memory *m = s.memory.items;

	(void)state;
	assert_true(s.boot.inmate.has_at && s.boot.inmate.at == 0x70000000);
	assert_int_equal(s.memory.n, 1);
	assert_true(m->size == 32 << 20);
	assert_true(s.cpus.has_count && s.cpus.count == 3);
	assert_text(s.boot.cmdline, "a b");
	{
		_clean_spec_ struct spec pinned =
			accept("{\"inmate\":\"/z\",\"vcpus\":2,\"vcpu_pinning\":[{\"vcpu\":0,\"pcpu\":2},{\"vcpu\":1,\"pcpu\":3}]}");

		assert_true(pinned.cpus.has_set && !pinned.cpus.has_count);
		assert_int_equal(cpuset_count(&pinned.cpus.set), 2);
		assert_true(cpuset_has(&pinned.cpus.set, 2) && cpuset_has(&pinned.cpus.set, 3));
	}
	{
		_clean_spec_ struct spec open = accept("{\"inmate\":\"/z\",\"memory\":0,\"vcpus\":0,\"vcpu_pinning\":[]}");

		assert_true(open.cpus.has_count && open.cpus.count == 1);
		assert_true(((struct spec_memory *)open.memory.items)->size == 64 << 20);
	}
}

/* The number of CPUs that was asked for is the number that is given, or the image is refused. */
static void pins_that_do_not_cover_the_vcpus_are_refused_or_the_number_is_kept(void **state)
{
	static const char *const rows[] = {
		"{\"inmate\":\"/z\",\"vcpus\":4,\"vcpu_pinning\":[{\"vcpu\":0,\"pcpu\":2}]}",
		"{\"inmate\":\"/z\",\"vcpus\":2,\"vcpu_pinning\":[{\"vcpu\":0,\"pcpu\":2},{\"vcpu\":1,\"pcpu\":2}]}",
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		_clean_spec_ struct spec s;
		struct phi_error e = {0};

		if (read_boot(rows[i], &s, &e) == 0)
			fail_msg("%s became %u CPUs", rows[i], cpuset_count(&s.cpus.set));
		assert_string_equal(e.pointer, "/vcpu_pinning");
	}
}

static void a_runphi_field_that_cannot_be_honoured_is_refused_by_name(void **state)
{
	static const char *const rows[][2] = {
		{"accelerators", "[{\"core\":\"a\"}]"}, {"accelerators", "{\"core\":\"a\"}"},
		{"bitstream", "\"/b\""},   {"region", "\"r0\""},	 {"region", "1"},
		{"disk_type", "\"file\""},	 {"disk_type", "\"lvm\""},  {"disk_image", "\"/i\""},
		{"disk_size", "512"},	   {"isolcpu", "true"},		 {"nohz_full", "true"},	    {"steer_irq", "[1]"},
		{"irq_steering", "[1]"},   {"emulator_pinning", "[0]"},	 {"emulatorpin", "[0]"},
		{"net", "\"user\""},		 {"net", "\"slirp\""},	    {"net", "\"bridge\""},
		{"net", "\"bridge:br0\""}, {"net", "\"network:default\""}, {"net", "\"eth0\""},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		char text[120], where[40];

		snprintf(text, sizeof(text), "{\"inmate\":\"/z\",\"%s\":%s}", rows[i][0], rows[i][1]);
		snprintf(where, sizeof(where), "/%s", rows[i][0]);
		refuse(text, PHI_UNSUPPORTED, where);
	}
}

static void a_runphi_field_that_asks_for_nothing_is_accepted(void **state)
{
	static const char *const names[] = {"accelerators", "bitstream", "region",  "rpu_req",	"disk_type",    "disk_image",
					    "disk_size",    "isolcpu",	 "nohz_full", "steer_irq", "irq_steering", "emulator_pinning",
					    "emulatorpin",  "net"};
	static const char *const nothings[] = {"null", "\"\"", "0", "false", "[]"};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(names); i++)
		for (size_t k = 0; k < PHI_COUNT(nothings); k++) {
			char text[80];

			snprintf(text, sizeof(text), "{\"inmate\":\"/z\",\"%s\":%s}", names[i], nothings[k]);
			struct spec s = accept(text);

			spec_free(&s);
		}
	for (int i = 0; i < 2; i++) {
		struct spec s = accept(i ? "{\"net\":\"no\",\"inmate\":\"/z\"}" : "{\"net\":\"none\",\"netconf\":\"\",\"inmate\":\"/z\"}");

		spec_free(&s);
	}
}

static void what_jailhouse_gives_is_asked_for_as_runphi_does(void **state)
{
	static const char *const nets[] = {"true", "\"yes\"", "\"ivshmem\""};
	struct spec s;

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(nets); i++) {
		char text[80];

		snprintf(text, sizeof(text), "{\"inmate\":\"/z\",\"net\":%s}", nets[i]);
		s = accept(text);
		assert_int_equal(s.links.n, 1);
		const struct spec_link *l = s.links.items;
		assert_true(l->host && l->name == NULL && l->protocol == LINK_NETWORK);
		spec_free(&s);
	}
	s = accept("{\"os_var\":\"linux\",\"kernel\":\"boot/Image\",\"dtb\":\"boot/cell.dtb\"}");
	assert_string_equal(s.boot.dtb.path, "/boot/cell.dtb");
	spec_free(&s);
	s = accept("{\"os_var\":\"zephyr\",\"inmate\":\"/z\",\"dtb\":\"boot/cell.dtb\"}");
	assert_null(s.boot.dtb.path);
	spec_free(&s);
	s = accept("{\"rpu_req\":true}");
	assert_string_equal(s.boot.firmware.path, "/boot/boot.bin");
	assert_true(s.boot.inmate.path == NULL && s.remote.has_count && s.remote.count == 1 && s.cpus.has_count && s.cpus.count == 0);
	spec_free(&s);
	s = accept("{\"rpu_req\":true,\"inmate\":\"/r5.elf\",\"vcpus\":2}");
	assert_int_equal(s.remote.count, 2);
	spec_free(&s);
	refuse("{\"inmate\":\"/z\",\"rpu_req\":\"yes\"}", PHI_INVALID, "/rpu_req");
	refuse("{\"kernel\":\"/k\",\"rpu_req\":true}", PHI_INVALID, "/rpu_req");
}

static void wrong_types_in_a_runphi_image_are_refused_at_their_field(void **state)
{
	static const char *const rows[][2] = {
		{"{\"kernel\":1}", "/kernel"},
		{"{\"kernel\":[]}", "/kernel"},
		{"{\"inmate\":{}}", "/inmate"},
		{"{\"os_var\":1}", "/os_var"},
		{"{\"kernel\":\"/k\",\"ramdisk\":1}", "/ramdisk"},
		{"{\"kernel\":\"/k\",\"initrd\":1}", "/initrd"},
		{"{\"kernel\":\"/k\",\"cpio\":true}", "/cpio"},
		{"{\"kernel\":\"/../k\"}", "/kernel"},
		{"{\"kernel\":\"../k\"}", "/kernel"},
		{"{\"inmate\":\"/boot/../../x\"}", "/inmate"},
		{"{\"starting_vaddress\":1879048192}", "/starting_vaddress"},
		{"{\"starting_vaddress\":\"70000000\"}", "/starting_vaddress"},
		{"{\"starting_vaddress\":\"0x\"}", "/starting_vaddress"},
		{"{\"cmdline\":[\"a\"]}", "/cmdline"},
		{"{\"memory\":\"64\"}", "/memory"},
		{"{\"memory\":-1}", "/memory"},
		{"{\"memory\":1.5}", "/memory"},
		{"{\"memory\":1073741825}", "/memory"},
		{"{\"vcpus\":-1}", "/vcpus"},
		{"{\"vcpus\":4097}", "/vcpus"},
		{"{\"vcpus\":\"2\"}", "/vcpus"},
		{"{\"vcpu_pinning\":{\"vcpu\":0,\"pcpu\":1}}", "/vcpu_pinning"},
		{"{\"vcpu_pinning\":[1]}", "/vcpu_pinning"},
		{"{\"vcpu_pinning\":[{\"vcpu\":0}]}", "/vcpu_pinning"},
		{"{\"vcpu_pinning\":[{\"vcpu\":0,\"pcpu\":4096}]}", "/vcpu_pinning"},
		{"{\"vcpu_pinning\":[{\"vcpu\":0,\"pcpu\":-1}]}", "/vcpu_pinning"},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++)
		refuse(rows[i][0], PHI_INVALID, rows[i][1]);
}

static void an_empty_path_of_a_runphi_image_is_the_default_and_a_root_is_no_file(void **state)
{
	(void)state;
	refuse("{\"inmate\":\"/\"}", PHI_INVALID, "/inmate");
	refuse("{\"kernel\":\"/\"}", PHI_INVALID, "/kernel");
}

/* What was accepted is stored as a spec and read again when phid starts anew. */
static void whatever_is_accepted_can_be_stored_and_read_again(void **state)
{
	char line[PHI_CMDLINE_MAX + 40], text[PHI_CMDLINE_MAX + 100];

	(void)state;
	for (int n = PHI_CMDLINE_MAX - 1; n <= PHI_CMDLINE_MAX + 2; n++) {
		_clean_spec_ struct spec s;
		struct phi_error e = {0};
		int r;

		memset(line, 'a', sizeof(line));
		line[n] = '\0';
		snprintf(text, sizeof(text), "{\"inmate\":\"/z\",\"memory\":1073741824,\"vcpus\":4096,\"cmdline\":\"%s\"}", line);
		r = read_boot(text, &s, &e);
		assert_true(n > PHI_CMDLINE_MAX || r == 0);
		if (r == 0) {
			_clean_json_ struct json *j = spec_to_json(&s);
			_clean_free_ char *stored = json_print(j);
			_clean_json_ struct json *back = NULL;
			_clean_spec_ struct spec t;

			spec_init(&t);
			assert_done(json_parse(stored, strlen(stored), &back, &e), e);
			assert_done(spec_read(back, FIELD_WIRE, "", &t, &e), e);
		} else {
			assert_string_equal(e.pointer, "/cmdline");
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(our_format_is_strict),
		cmocka_unit_test(our_format_is_read_in_the_form_of_files),
		cmocka_unit_test(what_is_no_object_is_refused_and_does_no_harm),
		cmocka_unit_test(a_runphi_image_names_what_it_boots),
		cmocka_unit_test(a_runphi_image_names_its_address_memory_and_cpus),
		cmocka_unit_test(pins_that_do_not_cover_the_vcpus_are_refused_or_the_number_is_kept),
		cmocka_unit_test(a_runphi_field_that_cannot_be_honoured_is_refused_by_name),
		cmocka_unit_test(a_runphi_field_that_asks_for_nothing_is_accepted),
		cmocka_unit_test(what_jailhouse_gives_is_asked_for_as_runphi_does),
		cmocka_unit_test(wrong_types_in_a_runphi_image_are_refused_at_their_field),
		cmocka_unit_test(an_empty_path_of_a_runphi_image_is_the_default_and_a_root_is_no_file),
		cmocka_unit_test(whatever_is_accepted_can_be_stored_and_read_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
