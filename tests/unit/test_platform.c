/* The platform file. */
#include "unit.h"

#include "json.h"
#include "platform.h"

#include <errno.h>

#define HEAD "{\"format\":\"phid-platform/1\""

static int read_file(const char *text, struct platform *p, struct phi_error *e)
{
	*p = (struct platform){0};
	return platform_read(text, strlen(text), p, e);
}

static void refuse(const char *text, enum phi_code code, const char *where)
{
	struct platform p;
	struct phi_error e = {0};
	int r = read_file(text, &p, &e);

	platform_free(&p);
	platform_free(&p);
	if (r >= 0)
		fail_msg("%s was accepted", text);
	if (e.code != code || strcmp(e.pointer, where) != 0)
		fail_msg("%s: %s at %s: %s", text, phi_code_name(e.code), e.pointer, e.detail);
}

static void the_least_file_is_its_format(void **state)
{
	struct platform p;
	struct phi_error e;

	(void)state;
	assert_done(read_file(HEAD "}", &p, &e), e);
	assert_true(!p.cpus.has_ids && !p.cpus.has_host && p.memory.n == 0 && p.qemu_accel.n == 0);
	assert_null(platform_cpu(&p, 0));
	assert_null(platform_pool(&p, "ram"));
	platform_free(&p);
	refuse("{}", PHI_INVALID, "");
	refuse("{\"format\":null}", PHI_INVALID, "/format");
	refuse("{\"format\":\"phid-platform/2\"}", PHI_INVALID, "/format");
	refuse("{\"format\":\"\"}", PHI_INVALID, "/format");
	refuse("[]", PHI_INVALID, "");
	refuse("", PHI_BAD_REQUEST, "");
}

static void a_whole_file_is_read_and_written_back(void **state)
{
	const char *text =
		HEAD ",\"board\":\"Kria\",\"cpus\":{\"ids\":\"0-3\",\"host\":\"0\",\"unused\":\"host\",\"topology\":["
		     "{\"id\":1,\"package\":0,\"cluster\":2,\"core\":3,\"node\":4}]},"
		     "\"memory\":[{\"name\":\"ram\",\"kind\":\"carveout\",\"base\":\"0x70000000\",\"size\":16777216,\"node\":1},"
		     "{\"name\":\"ddr\",\"kind\":\"host\",\"size\":1073741824,\"node\":0}],\"backends\":{\"qemu\":{\"accel\":[\"tcg\"]}}}";
	_clean_json_ struct json *j = NULL;
	_clean_free_ char *again = NULL;
	struct platform p;
	struct phi_error e;

	(void)state;
	assert_done(read_file(text, &p, &e), e);
	assert_int_equal(cpuset_count(&p.cpus.ids), 4);
	assert_true(cpuset_has(&p.cpus.host, 0) && cpuset_count(&p.cpus.host) == 1);
	assert_int_equal(platform_cpu(&p, 1)->cluster, 2);
	assert_int_equal(platform_cpu(&p, 1)->core, 3);
	assert_null(platform_cpu(&p, 0));
	assert_true(platform_pool(&p, "ram")->base == 0x70000000 && platform_pool(&p, "ram")->has_base);
	assert_int_equal(platform_pool(&p, "ddr")->kind, POOL_HOST);
	assert_null(platform_pool(&p, "RAM"));
	assert_string_equal(p.qemu_accel.values[0], "tcg");
	j = platform_to_json(&p);
	again = json_print(j);
	assert_string_equal(again, text);
	platform_free(&p);
}

static void a_note_is_for_people_in_any_object(void **state)
{
	struct platform p;
	struct phi_error e;

	(void)state;
	assert_done(read_file(HEAD ",\"note\":[1],\"cpus\":{\"note\":{},\"topology\":[{\"id\":0,\"note\":null}]},"
				   "\"memory\":[{\"name\":\"a\",\"kind\":\"host\",\"size\":\"4K\",\"note\":\"x\"}],"
				   "\"backends\":{\"note\":1,\"qemu\":{\"note\":true}}}",
			      &p, &e), e);
	platform_free(&p);
}

static void rules_between_members_are_held(void **state)
{
#define POOL(name, kind, rest) "{\"name\":\"" name "\",\"kind\":\"" kind "\"," rest "}"
	static const char *const rows[][2] = {
		{HEAD ",\"cpus\":{\"ids\":\"0-3\",\"host\":\"4\"}}", "/cpus/host"},
		{HEAD ",\"cpus\":{\"ids\":\"\",\"host\":\"0\"}}", "/cpus/host"},
		{HEAD ",\"memory\":[" POOL("a", "carveout", "\"size\":4096") "]}", "/memory/0"},
		{HEAD ",\"memory\":[" POOL("a", "tcm", "\"size\":4096") "]}", "/memory/0"},
		{HEAD ",\"memory\":[" POOL("a", "ocm", "\"size\":4096") "]}", "/memory/0"},
		{HEAD ",\"memory\":[" POOL("a", "host", "\"size\":4096,\"base\":\"0x0\"") "]}", "/memory/0"},
		{HEAD ",\"memory\":[" POOL("a", "hugepages", "\"size\":4096,\"base\":\"0x1000\"") "]}", "/memory/0"},
		{HEAD ",\"memory\":[" POOL("a", "host", "\"size\":4097") "]}", "/memory/0"},
		{HEAD ",\"memory\":[" POOL("a", "carveout", "\"size\":4096,\"base\":\"0x800\"") "]}", "/memory/0"},
		{HEAD ",\"memory\":[" POOL("a", "carveout", "\"size\":8192,\"base\":\"0x3ffffffffffff000\"") "]}", "/memory/0"},
		{HEAD ",\"memory\":[" POOL("a", "host", "\"size\":4096") "," POOL("a", "host", "\"size\":4096") "]}", "/memory/1"},
		{HEAD ",\"memory\":[" POOL("a", "carveout", "\"size\":8192,\"base\":\"0x1000\"") "," POOL("b", "tcm", "\"size\":4096,\"base\":\"0x2000\"") "]}",
		 "/memory/1"},
		{HEAD ",\"backends\":{\"qemu\":{\"accel\":[\"hvf\"]}}}", "/backends/qemu/accel"},
		{HEAD ",\"backends\":{\"qemu\":{\"accel\":[\"kvm\",\"\"]}}}", "/backends/qemu/accel"},
		{HEAD ",\"backends\":{\"qemu\":{\"accel\":[\"kvm\",\"tcg\",\"kvm\"]}}}", "/backends/qemu/accel"},
		{HEAD ",\"memory\":[" POOL("a", "ram", "\"size\":4096") "]}", "/memory/0/kind"},
		{HEAD ",\"memory\":[" POOL("a", "host", "\"size\":0") "]}", "/memory/0/size"},
		{HEAD ",\"memory\":[" POOL("", "host", "\"size\":4096") "]}", "/memory/0/name"},
		{HEAD ",\"memory\":[{\"name\":\"a\",\"kind\":\"host\"}]}", "/memory/0"},
		{HEAD ",\"cpus\":{\"topology\":[{\"core\":1}]}}", "/cpus/topology/0"},
		{HEAD ",\"cpus\":{\"topology\":[{\"id\":4096}]}}", "/cpus/topology/0/id"},
		{HEAD ",\"cpus\":{\"unused\":\"offline\"}}", "/cpus/unused"},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++)
		refuse(rows[i][0], PHI_INVALID, rows[i][1]);
	struct platform p;
	struct phi_error e;

	assert_done(read_file(HEAD ",\"memory\":[" POOL("a", "carveout", "\"size\":4096,\"base\":\"0x3ffffffffffff000\"") "," POOL(
				      "b", "carveout", "\"size\":4096,\"base\":\"0x3fffffffffffe000\"") "]}",
			      &p, &e), e);
	platform_free(&p);
}

static void ranges_overlap_where_they_share_a_page_and_nowhere_else(void **state)
{
	(void)state;
	for (unsigned a = 0; a < 6; a++)
		for (unsigned an = 1; an < 4; an++)
			for (unsigned b = 0; b < 6; b++)
				for (unsigned bn = 1; bn < 4; bn++) {
					char text[300];
					struct platform p;
					int r;

					snprintf(text, sizeof(text),
						 HEAD ",\"memory\":[{\"name\":\"a\",\"kind\":\"carveout\",\"base\":\"0x%x000\",\"size\":%u},"
						      "{\"name\":\"b\",\"kind\":\"carveout\",\"base\":\"0x%x000\",\"size\":%u}]}",
						 a, an * 4096, b, bn * 4096);
					r = read_file(text, &p, NULL);
					platform_free(&p);
					assert_int_equal(r < 0, a < b + bn && b < a + an);
				}
}

static void the_rules_are_checked_again_after_gaps_were_filled(void **state)
{
	struct platform p;
	struct phi_error e;

	(void)state;
	assert_done(read_file(HEAD ",\"cpus\":{\"host\":\"5\"}}", &p, &e), e);
	cpuset_add(&p.cpus.ids, 0);
	p.cpus.has_ids = true;
	assert_refused(platform_check(&p, &e), e, PHI_INVALID, "/cpus/host");
	cpuset_add(&p.cpus.ids, 5);
	assert_done(platform_check(&p, &e), e);
	platform_free(&p);
}

static void what_is_not_built_is_refused_by_name_and_the_unknown_as_unknown(void **state)
{
	static const char *const top[] = {"include", "expect"};
	char text[200], where[40];

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(top); i++) {
		snprintf(text, sizeof(text), HEAD ",\"%s\":[]}", top[i]);
		snprintf(where, sizeof(where), "/%s", top[i]);
		refuse(text, PHI_NOT_BUILT, where);
	}
	refuse(HEAD ",\"cpus\":{\"classes\":{}}}", PHI_NOT_BUILT, "/cpus/classes");
	refuse(HEAD ",\"cpus\":{\"domains\":{}}}", PHI_NOT_BUILT, "/cpus/domains");
	static const char *const pool[] = {"access", "use", "scrub", "seen_at"};
	for (size_t i = 0; i < PHI_COUNT(pool); i++) {
		snprintf(text, sizeof(text), HEAD ",\"memory\":[{\"name\":\"a\",\"kind\":\"host\",\"size\":4096,\"%s\":1}]}", pool[i]);
		snprintf(where, sizeof(where), "/memory/0/%s", pool[i]);
		refuse(text, PHI_NOT_BUILT, where);
	}
	refuse(HEAD ",\"backends\":{\"jailhouse\":{\"flavour\":\"upstream-14\",\"architecture\":\"arm\",\"host_enable\":1}}}", PHI_INVALID,
	       "/backends/jailhouse/host_enable");
	refuse(HEAD ",\"backends\":{\"jailhouse\":{\"flavour\":\"upstream-14\"}}}", PHI_INVALID, "/backends/jailhouse");
	refuse(HEAD ",\"backends\":{\"jailhouse\":{\"flavour\":\"upstream-13\"}}}", PHI_INVALID, "/backends/jailhouse/flavour");
	refuse(HEAD ",\"backends\":{\"xen\":{}}}", PHI_NOT_BUILT, "/backends/xen");
	refuse(HEAD ",\"Board\":\"x\"}", PHI_UNKNOWN_MEMBER, "/Board");
	refuse(HEAD ",\"backends\":{\"kvm\":{}}}", PHI_UNKNOWN_MEMBER, "/backends/kvm");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_least_file_is_its_format),
		cmocka_unit_test(a_whole_file_is_read_and_written_back),
		cmocka_unit_test(a_note_is_for_people_in_any_object),
		cmocka_unit_test(rules_between_members_are_held),
		cmocka_unit_test(ranges_overlap_where_they_share_a_page_and_nowhere_else),
		cmocka_unit_test(the_rules_are_checked_again_after_gaps_were_filled),
		cmocka_unit_test(what_is_not_built_is_refused_by_name_and_the_unknown_as_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
