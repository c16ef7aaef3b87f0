/* /proc/iomem. */
#include "unit.h"

#include "iomem.h"

#include <errno.h>

static void ranges_have_names_and_depths(void **state)
{
	static const char text[] = "00000000-0009ffff : reserved\n"
				   "40000000-6fffffff : System RAM\n"
				   "  40200000-410effff : Kernel code\n"
				   "    40300000-40300fff : inner\n"
				   "7fc00000-7fffffff : Jailhouse hypervisor\n"
				   "800000000-87fffffff : System RAM";
	struct iomem m;
	struct phi_error e;

	(void)state;
	assert_done(iomem_parse(text, &m, &e), e);
	assert_int_equal(m.n, 6);
	assert_string_equal(m.ranges[2].name, "Kernel code");
	assert_int_equal(m.ranges[2].depth, 1);
	assert_int_equal(m.ranges[3].depth, 2);
	assert_true(m.ranges[5].base == 0x800000000 && m.ranges[5].end == 0x87fffffff && m.ranges[5].depth == 0);
	iomem_free(&m);
	iomem_free(&m);
}

static void a_range_is_found_by_name_and_any_byte(void **state)
{
	struct iomem m;
	struct phi_error e;

	(void)state;
	assert_done(iomem_parse("1000-1fff : System RAM\n3000-3fff : reserved\n3000-ffffffffffffffff : System RAM\n", &m, &e), e);
	assert_null(iomem_find(&m, "System RAM", 0, 0x1000));
	assert_ptr_equal(iomem_find(&m, "System RAM", 0, 0x1001), &m.ranges[0]);
	assert_ptr_equal(iomem_find(&m, "System RAM", 0x1fff, 1), &m.ranges[0]);
	assert_null(iomem_find(&m, "System RAM", 0x2000, 0x1000));
	assert_null(iomem_find(&m, "System RAM", 0x1000, 0));
	assert_ptr_equal(iomem_find(&m, "reserved", 0x3000, 1), &m.ranges[1]);
	assert_ptr_equal(iomem_find(&m, "System RAM", UINT64_MAX, 1), &m.ranges[2]);
	iomem_free(&m);
}

static void zeros_are_what_the_kernel_hides(void **state)
{
	struct iomem m;
	struct phi_error e;

	(void)state;
	assert_refused(iomem_parse("00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n", &m, &e), e, PHI_INVALID, "");
	assert_int_equal(e.err, EACCES);
	assert_int_equal(m.n, 0);
}

static void what_is_no_range_is_passed_over(void **state)
{
	static const char *const texts[] = {"", "\n\n", "x", "10-0f : backwards", "10 : no end", "10-20", "-", "10-20 System RAM\n"};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(texts); i++) {
		struct iomem m;
		struct phi_error e;

		assert_done(iomem_parse(texts[i], &m, &e), e);
		assert_int_equal(m.n, 0);
	}
}

static void a_long_name_is_cut(void **state)
{
	char text[300];
	struct iomem m;
	struct phi_error e;

	(void)state;
	snprintf(text, sizeof(text), "10-1f : %0200d\n20-2f : next", 0);
	assert_done(iomem_parse(text, &m, &e), e);
	assert_int_equal(m.n, 2);
	assert_int_equal(strlen(m.ranges[0].name), sizeof(m.ranges[0].name) - 1);
	assert_string_equal(m.ranges[1].name, "next");
	iomem_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_have_names_and_depths), cmocka_unit_test(a_range_is_found_by_name_and_any_byte),
		cmocka_unit_test(zeros_are_what_the_kernel_hides), cmocka_unit_test(what_is_no_range_is_passed_over),
		cmocka_unit_test(a_long_name_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
