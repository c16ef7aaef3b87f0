/* CPU sets and their text form. */
#include "unit.h"

#include "cpuset.h"

#include <errno.h>

static struct cpuset set_of(const char *text)
{
	struct cpuset s = {0};
	struct phi_error e;

	assert_done(cpuset_parse(text, "/x", &s, &e), e);
	return s;
}

static void assert_round_trip(const struct cpuset *s)
{
	char text[CPUSET_TEXT_MAX];
	struct cpuset back;
	struct phi_error e;
	size_t n = cpuset_format(s, text, sizeof(text));

	assert_int_equal(n, strlen(text));
	assert_done(cpuset_parse(text, "", &back, &e), e);
	assert_memory_equal(&back, s, sizeof(back));
}

static void lists_are_read_as_the_kernel_writes_them(void **state)
{
	static const struct {
		const char *text;
		unsigned count;
		int first, last;
	} rows[] = {
		{"", 0, -1, -1},	    {"0", 1, 0, 0},	       {"4095", 1, 4095, 4095},
		{"0,2-3", 3, 0, 3},	    {"0-4095", 4096, 0, 4095}, {"5-5", 1, 5, 5},
		{"63-64", 2, 63, 64},	    {"0,0,0-1", 2, 0, 1},      {"8,4", 2, 4, 8},
		{"127,128,191-192", 4, 127, 192}, {"00,007", 2, 0, 7},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		struct cpuset s = set_of(rows[i].text);
		int last = -1;

		assert_int_equal(cpuset_count(&s), rows[i].count);
		assert_int_equal(cpuset_next(&s, 0), rows[i].first);
		for (int c = cpuset_next(&s, 0); c >= 0; c = cpuset_next(&s, (unsigned)c + 1))
			last = c;
		assert_int_equal(last, rows[i].last);
	}
}

static void every_malformed_list_is_refused_with_its_pointer_and_changes_nothing(void **state)
{
	static const char *const bad[] = {
		",",	  "0,",	   ",0",     "0,,1",  "-",	"-1",	 "1-",	  "1--2",   "2-1",    "1-2-3",	"0 ",	 " 0",
		"0, 1",	  "0\n",   "+1",     "0x1",   "a",	"1a",	 "a1",	  "4096",   "0-4096", "4294967296", "4294967295-4294967296",
		"18446744073709551616", "99999999999999999999999", "1.5", "0;1", "0/2", "0-7:2/4", "all",    "1-a",	 "\xef\xbc\x91",
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(bad); i++) {
		struct cpuset s = {.bits = {42}};
		struct phi_error e = {0};

		if (cpuset_parse(bad[i], "/spec/cpus/set", &s, &e) != -EINVAL)
			fail_msg("\"%s\" was accepted", bad[i]);
		assert_int_equal(e.code, PHI_INVALID);
		assert_string_equal(e.pointer, "/spec/cpus/set");
		assert_int_equal(s.bits[0], 42);
		assert_int_equal(cpuset_parse(bad[i], NULL, &s, NULL), -EINVAL);
	}
}

static void every_set_of_twelve_cpus_survives_its_text_at_every_word_boundary(void **state)
{
	static const unsigned bases[] = {0, 58, 122, 1012};

	(void)state;
	for (size_t b = 0; b < PHI_COUNT(bases); b++)
		for (unsigned mask = 0; mask < 1 << 12; mask++) {
			struct cpuset s = {0};

			for (unsigned i = 0; i < 12; i++)
				if (mask >> i & 1)
					cpuset_add(&s, bases[b] + i);
			assert_int_equal(cpuset_count(&s), (unsigned)__builtin_popcount(mask));
			assert_round_trip(&s);
		}
}

static void every_periodic_set_fits_into_the_longest_text(void **state)
{
	(void)state;
	for (unsigned period = 1; period <= 8; period++)
		for (unsigned pattern = 0; pattern < 1u << period; pattern++) {
			struct cpuset s = {0};

			for (unsigned c = 0; c < PHI_CPUS_MAX; c++)
				if (pattern >> c % period & 1)
					cpuset_add(&s, c);
			assert_round_trip(&s);
		}
}

static void the_shortest_list_is_written(void **state)
{
	static const char *const rows[][2] = {
		{"3,2,1,0", "0-3"}, {"0,1,1,2,5", "0-2,5"}, {"0-3,2-6", "0-6"}, {"4095", "4095"}, {"7", "7"}, {"", ""},
	};
	char text[CPUSET_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		struct cpuset s = set_of(rows[i][0]);

		cpuset_format(&s, text, sizeof(text));
		assert_string_equal(text, rows[i][1]);
	}
}

static void a_short_buffer_is_never_overrun_and_the_answer_is_the_length_of_its_text(void **state)
{
	struct cpuset s = set_of("0-3,10,20-29,1000-4095");

	(void)state;
	for (size_t size = 1; size < 32; size++) {
		char *text = malloc(size); /* the sanitizer watches its end */
		size_t n;

		assert_non_null(text);
		n = cpuset_format(&s, text, size);
		assert_true(n < size);
		assert_int_equal(strlen(text), n);
		free(text);
	}
}

static void members_are_added_removed_and_found_one_by_one(void **state)
{
	struct cpuset s = {0};

	(void)state;
	for (unsigned c = 0; c < PHI_CPUS_MAX; c++) {
		assert_false(cpuset_has(&s, c));
		cpuset_add(&s, c);
		cpuset_add(&s, c);
		assert_true(cpuset_has(&s, c));
		assert_int_equal(cpuset_count(&s), c + 1);
		assert_int_equal(cpuset_next(&s, c), (int)c);
		assert_int_equal(cpuset_next(&s, c + 1), -1);
	}
	for (unsigned c = 0; c < PHI_CPUS_MAX; c++) {
		cpuset_remove(&s, c);
		cpuset_remove(&s, c);
		assert_false(cpuset_has(&s, c));
		assert_int_equal(cpuset_count(&s), PHI_CPUS_MAX - 1 - c);
	}
	assert_false(cpuset_has(&s, PHI_CPUS_MAX));
	assert_false(cpuset_has(&s, UINT32_MAX));
	assert_int_equal(cpuset_next(&s, UINT32_MAX), -1);
}

static void two_sets_meet_only_where_they_share_a_cpu(void **state)
{
	(void)state;
	for (unsigned a = 0; a < 64; a++)
		for (unsigned b = 0; b < 64; b++) {
			struct cpuset x = {0}, y = {0};

			for (unsigned i = 0; i < 6; i++) {
				if (a >> i & 1)
					cpuset_add(&x, i * 200);
				if (b >> i & 1)
					cpuset_add(&y, i * 200);
			}
			assert_int_equal(cpuset_meets(&x, &y), (a & b) != 0);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_are_read_as_the_kernel_writes_them),
		cmocka_unit_test(every_malformed_list_is_refused_with_its_pointer_and_changes_nothing),
		cmocka_unit_test(every_set_of_twelve_cpus_survives_its_text_at_every_word_boundary),
		cmocka_unit_test(every_periodic_set_fits_into_the_longest_text),
		cmocka_unit_test(the_shortest_list_is_written),
		cmocka_unit_test(a_short_buffer_is_never_overrun_and_the_answer_is_the_length_of_its_text),
		cmocka_unit_test(members_are_added_removed_and_found_one_by_one),
		cmocka_unit_test(two_sets_meet_only_where_they_share_a_cpu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
