/* The spec: defaults, rules between members, both forms, and its way through the database and back. */
#include "unit.h"

#include "json.h"
#include "spec.h"

#include <errno.h>

static int read_as(const char *text, enum field_form form, struct spec *s, struct phi_error *e)
{
	_clean_json_ struct json *j = NULL;
	int r;

	assert_int_equal(json_parse(text, strlen(text), &j, e), 0);
	r = spec_read(j, form, "/spec", s, e);
	return r < 0 ? r : spec_complete(s, "/spec", e);
}

static void refuse(const char *text, enum phi_code code, const char *where)
{
	for (enum field_form form = FIELD_WIRE; form <= FIELD_FILE; form++) {
		struct spec s;
		struct phi_error e = {0};
		int r = read_as(text, form, &s, &e);

		spec_free(&s);
		if (r >= 0)
			fail_msg("%s was accepted", text);
		if (e.code != code || strcmp(e.pointer, where) != 0)
			fail_msg("%s: %s at %s: %s", text, phi_code_name(e.code), e.pointer, e.detail);
	}
}

static void an_empty_spec_is_one_cpu_64_mib_and_the_documented_defaults(void **state)
{
	_clean_spec_ struct spec s;
	struct phi_error e;
	const struct spec_memory *m;

	(void)state;
	assert_done(read_as("{}", FIELD_WIRE, &s, &e), e);
	assert_null(s.name);
	assert_int_equal(s.backend, BACKEND_AUTO);
	assert_int_equal(s.boot.machine, MACHINE_ANY);
	assert_true(s.cpus.has_count && !s.cpus.has_set && s.cpus.count == 1);
	assert_int_equal(s.memory.n, 1);
	m = s.memory.items;
	assert_true(m->size == 64 << 20 && !m->has_at && !m->has_colors && m->pool == NULL);
	assert_int_equal(s.log_max, PHI_LOG_DEFAULT);
	assert_int_equal(s.stop.grace_ms, 10000);
	assert_int_equal(s.stop.then, STOP_THEN_KILL);
	assert_int_equal(s.keeper_lost, KEEPER_LOST_STOP);
	assert_int_equal(s.labels.n, 0);
}

static void rules_between_members_are_refused_where_they_break(void **state)
{
	static const char *const rows[][2] = {
		{"{\"cpus\":{\"count\":1,\"set\":\"1\"}}", "/spec/cpus"},
		{"{\"cpus\":{\"set\":\"\"}}", "/spec/cpus/set"},
		{"{\"boot\":{\"kernel\":\"/k\",\"inmate\":\"/i\"}}", "/spec/boot/inmate"},
		{"{\"boot\":{\"initrd\":\"/r\"}}", "/spec/boot/initrd"},
		{"{\"boot\":{\"inmate\":\"/i\",\"initrd\":\"/r\"}}", "/spec/boot/initrd"},
		{"{\"memory\":[{\"size\":4097}]}", "/spec/memory/0/size"},
		{"{\"memory\":[{\"size\":4096},{\"size\":8191}]}", "/spec/memory/1/size"},
		{"{\"memory\":[{\"size\":4096,\"at\":\"0x1001\"}]}", "/spec/memory/0/at"},
		{"{\"memory\":[{\"size\":8192,\"at\":\"0x3ffffffffffff000\"}]}", "/spec/memory/0/at"},
		{"{\"memory\":[{\"size\":4096,\"colors\":\"0x0\"}]}", "/spec/memory/0/colors"},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++)
		refuse(rows[i][0], PHI_INVALID, rows[i][1]);
	_clean_spec_ struct spec s;
	struct phi_error e;

	assert_done(read_as("{\"memory\":[{\"size\":4096,\"at\":\"0x3ffffffffffff000\"}]}", FIELD_WIRE, &s, &e), e);
}

static void bounds_of_each_member_are_held(void **state)
{
	static const char *const rows[][2] = {
		{"{\"name\":\"\"}", "/spec/name"},
		{"{\"name\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}", "/spec/name"},
		{"{\"backend\":\"kvm\"}", "/spec/backend"},
		{"{\"criticality\":\"\"}", "/spec/criticality"},
		{"{\"boot\":{\"machine\":\"pc\"}}", "/spec/boot/machine"},
		{"{\"boot\":{\"kernel\":\"k\"}}", "/spec/boot/kernel"},
		{"{\"boot\":{\"kernel\":\"/../k\"}}", "/spec/boot/kernel"},
		{"{\"cpus\":{\"count\":0}}", "/spec/cpus/count"},
		{"{\"cpus\":{\"count\":4097}}", "/spec/cpus/count"},
		{"{\"cpus\":{\"count\":1.5}}", "/spec/cpus/count"},
		{"{\"cpus\":{\"set\":\"1-0\"}}", "/spec/cpus/set"},
		{"{\"memory\":[{}]}", "/spec/memory/0"},
		{"{\"memory\":[{\"size\":0}]}", "/spec/memory/0/size"},
		{"{\"memory\":[{\"size\":1125899906846720}]}", "/spec/memory/0/size"},
		{"{\"memory\":[{\"size\":4096,\"pool\":\"\"}]}", "/spec/memory/0/pool"},
		{"{\"console\":{\"log\":{\"max\":4095}}}", "/spec/console/log/max"},
		{"{\"console\":{\"log\":{\"max\":67108865}}}", "/spec/console/log/max"},
		{"{\"stop\":{\"grace_ms\":-1}}", "/spec/stop/grace_ms"},
		{"{\"stop\":{\"grace_ms\":3600001}}", "/spec/stop/grace_ms"},
		{"{\"stop\":{\"then\":\"wait\"}}", "/spec/stop/then"},
		{"{\"lifecycle\":{\"keeper_lost\":\"go\"}}", "/spec/lifecycle/keeper_lost"},
		{"{\"labels\":[]}", "/spec/labels"},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++)
		refuse(rows[i][0], PHI_INVALID, rows[i][1]);
	char text[600] = "{\"memory\":[";

	for (int i = 0; i <= PHI_MEMORY_REGIONS_MAX; i++)
		strcat(text, i ? ",{\"size\":4096}" : "{\"size\":4096}");
	strcat(text, "]}");
	refuse(text, PHI_INVALID, "/spec/memory");
}

static void every_member_that_is_not_built_is_refused_by_name(void **state)
{
	static const char *const rows[][2] = {
		{"health", "/spec/health"},	 
		{"boot.args", "/spec/boot/args"},		    {"cpus.class", "/spec/cpus/class"},
		{"console.via", "/spec/console/via"}, {"stop.ask", "/spec/stop/ask"},		    {"lifecycle.autostart", "/spec/lifecycle/autostart"},
		{"lifecycle.restart", "/spec/lifecycle/restart"},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		const char *dot = strchr(rows[i][0], '.');
		char text[100];

		if (dot != NULL)
			snprintf(text, sizeof(text), "{\"%.*s\":{\"%s\":{}}}", (int)(dot - rows[i][0]), rows[i][0], dot + 1);
		else
			snprintf(text, sizeof(text), "{\"%s\":{}}", rows[i][0]);
		refuse(text, PHI_NOT_BUILT, rows[i][1]);
	}
	refuse("{\"memory\":[{\"size\":4096,\"access\":\"r\"}]}", PHI_NOT_BUILT, "/spec/memory/0/access");
	refuse("{\"console\":{\"log\":{\"keep_on_failure\":true}}}", PHI_NOT_BUILT, "/spec/console/log/keep_on_failure");
	refuse("{\"format\":\"phid-boot/1\"}", PHI_UNKNOWN_MEMBER, "/spec/format");
}

static void sizes_in_words_are_for_files_only(void **state)
{
	const char *text = "{\"memory\":[{\"size\":\"16M\"}],\"console\":{\"log\":{\"max\":\"64K\"}}}";
	_clean_spec_ struct spec s, wire;
	struct phi_error e;

	(void)state;
	assert_done(read_as(text, FIELD_FILE, &s, &e), e);
	assert_true(((struct spec_memory *)s.memory.items)->size == 16 << 20);
	assert_int_equal(s.log_max, 64 << 10);
	assert_refused(read_as(text, FIELD_WIRE, &wire, &e), e, PHI_INVALID, "/spec/memory/0/size");
}

/* What is stored is read again after a restart: twice written it must be the same text. */
static void assert_round_trip(const struct spec *s)
{
	_clean_json_ struct json *j = spec_to_json(s), *back = NULL, *j2 = NULL;
	_clean_free_ char *text = json_print(j), *again = NULL;
	_clean_spec_ struct spec t;
	struct phi_error e;

	spec_init(&t);
	assert_done(json_parse(text, strlen(text), &back, &e), e);
	assert_done(spec_read(back, FIELD_WIRE, "/spec", &t, &e), e);
	j2 = spec_to_json(&t);
	again = json_print(j2);
	assert_string_equal(again, text);
	assert_memory_equal(&t.cpus.set, &s->cpus.set, sizeof(t.cpus.set));
}

static void a_spec_survives_its_way_through_the_database(void **state)
{
	static const char *const rows[] = {
		"{}",
		"{\"name\":\"a\",\"backend\":\"sim\",\"criticality\":\"high\"}",
		"{\"boot\":{\"kernel\":{\"path\":\"/k\",\"at\":\"0x0\"},\"initrd\":\"/r\",\"cmdline\":\"\",\"machine\":\"q35\"}}",
		"{\"boot\":{\"inmate\":{\"path\":\"/i\",\"sha256\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}}}",
		"{\"cpus\":{\"set\":\"0,2-3,4095\"}}",
		"{\"cpus\":{\"count\":4096}}",
		"{\"memory\":[{\"size\":4096,\"at\":\"0x0\"},{\"size\":1125899906842624,\"pool\":\"p\",\"colors\":\"0x3fffffffffffffff\"}]}",
		"{\"console\":{\"log\":{\"max\":4096}},\"stop\":{\"grace_ms\":0,\"then\":\"nothing\"},\"lifecycle\":{\"keeper_lost\":\"keep\"}}",
		"{\"labels\":{\"a/b\":\"c\",\"x\":\"\"}}",
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		_clean_spec_ struct spec s;
		struct phi_error e;

		assert_done(read_as(rows[i], FIELD_WIRE, &s, &e), e);
		assert_round_trip(&s);
	}
}

static void a_spec_with_any_set_of_cpus_keeps_all_of_them(void **state)
{
	(void)state;
	for (unsigned period = 1; period <= 6; period++) {
		_clean_spec_ struct spec s;
		struct phi_error e;

		spec_init(&s);
		for (unsigned c = 0; c < PHI_CPUS_MAX; c++)
			if (c % period < (period + 1) / 2)
				cpuset_add(&s.cpus.set, c);
		s.cpus.has_set = true;
		assert_done(spec_complete(&s, "/spec", &e), e);
		assert_round_trip(&s);
	}
}

static void a_refused_spec_is_freeable_at_every_member(void **state)
{
	const char *head = "{\"name\":\"n\",\"criticality\":\"c\",\"boot\":{\"kernel\":{\"path\":\"/k\","
			   "\"sha256\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"},\"cmdline\":\"x\"},"
			   "\"labels\":{\"a\":\"b\"},\"memory\":[{\"size\":4096,\"pool\":\"p\"},{\"size\":4096,\"pool\":\"q\",";
	static const char *const tails[] = {"\"odd\":1}]}", "\"at\":1}]}", "\"at\":\"0x1\"}]}", "\"colors\":\"0x0\"}],\"zzz\":1}"};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(tails); i++) {
		char text[600];
		struct spec s;
		struct phi_error e;

		snprintf(text, sizeof(text), "%s%s", head, tails[i]);
		assert_true(read_as(text, FIELD_WIRE, &s, &e) < 0);
		spec_free(&s);
		spec_free(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_spec_is_one_cpu_64_mib_and_the_documented_defaults),
		cmocka_unit_test(rules_between_members_are_refused_where_they_break),
		cmocka_unit_test(bounds_of_each_member_are_held),
		cmocka_unit_test(every_member_that_is_not_built_is_refused_by_name),
		cmocka_unit_test(sizes_in_words_are_for_files_only),
		cmocka_unit_test(a_spec_survives_its_way_through_the_database),
		cmocka_unit_test(a_spec_with_any_set_of_cpus_keeps_all_of_them),
		cmocka_unit_test(a_refused_spec_is_freeable_at_every_member),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
