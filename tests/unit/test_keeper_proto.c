/* What phid and keeper must agree on. */
#include "unit.h"

#include "keeper_proto.h"

#include <signal.h>
#include <unistd.h>

static int exited(int status)
{
	return status << 8;
}

static void every_exit_status_is_the_containers(void **state)
{
	(void)state;
	for (int n = 0; n < 256; n++)
		assert_int_equal(keeper_exit_code(exited(n), 0, "", NULL, 0), n);
}

static void an_odd_status_is_the_guests_own_code_halved_where_that_is_agreed(void **state)
{
	(void)state;
	for (int code = 0; code < 128; code++)
		assert_int_equal(keeper_exit_code(exited((code << 1 | 1) & 255), KEEPER_ODD_IS_GUESTS, "", NULL, 0), code);
	for (int n = 0; n < 256; n += 2)
		assert_int_equal(keeper_exit_code(exited(n), KEEPER_ODD_IS_GUESTS | KEEPER_AS_USER, "", NULL, 0), n);
	assert_int_equal(keeper_exit_code(exited(11), KEEPER_AS_USER, "", NULL, 0), 11);
}

static void a_signal_is_128_and_its_number_whatever_was_said_before(void **state)
{
	static const char *const rules[] = {"134", "PANIC"};

	(void)state;
	for (int sig = 1; sig < 65; sig++)
		for (int core = 0; core < 2; core++) {
			assert_int_equal(keeper_exit_code(sig | (core ? 0x80 : 0), KEEPER_ODD_IS_GUESTS, "PANIC", rules, 1), 128 + sig);
		}
	assert_int_equal(keeper_exit_code(SIGKILL, 0, "", NULL, 0), 137);
	assert_int_equal(keeper_exit_code(SIGTERM, 0, "", NULL, 0), 143);
}

static void the_first_rule_whose_text_was_said_decides(void **state)
{
	static const char *const rules[] = {"134", "PANICKED", "1", "reset", "7", "PAN"};

	(void)state;
	assert_int_equal(keeper_exit_code(exited(0), 0, "{\"event\":\"GUEST_PANICKED\"}", rules, 3), 134);
	assert_int_equal(keeper_exit_code(exited(0), 0, "x reset y", rules, 3), 1);
	assert_int_equal(keeper_exit_code(exited(0), 0, "reset, then PANICKED", rules, 3), 134);
	assert_int_equal(keeper_exit_code(exited(0), 0, "PANIC", rules, 3), 7);
	assert_int_equal(keeper_exit_code(exited(0), 0, "PANIC", rules, 2), 0);
	assert_int_equal(keeper_exit_code(exited(5), KEEPER_ODD_IS_GUESTS, "reset", rules, 3), 1);
	assert_int_equal(keeper_exit_code(exited(5), KEEPER_ODD_IS_GUESTS, "Reset", rules, 3), 2);
	assert_int_equal(keeper_exit_code(exited(5), 0, "", rules, 3), 5);
	assert_int_equal(keeper_exit_code(exited(5), 0, "reset", rules, 0), 5);
}

static void the_start_time_is_found_behind_a_name_of_any_characters(void **state)
{
	static const char *const names[] = {"qemu", "a b", "a) b", ") S 1 2 3 (", "(", ")", "((()))", "", "a\nb", ") R 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9"};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(names); i++) {
		char stat[300];

		snprintf(stat, sizeof(stat),
			 "4242 (%s) S 1 4242 4242 0 -1 4194560 100 0 0 0 5 6 0 0 20 0 3 0 18446744073709551614 12345 67 18446744073709551615 1 1\n",
			 names[i]);
		assert_true(keeper_start_of_stat(stat) == UINT64_C(18446744073709551614));
	}
}

static void the_start_time_of_a_living_process_is_the_same_each_time_and_not_zero(void **state)
{
	char text[1024] = "";
	FILE *f;

	(void)state;
	for (uint64_t before = 0, i = 0; i < 3; i++) {
		uint64_t start;

		f = fopen("/proc/self/stat", "r");
		assert_non_null(f);
		assert_non_null(fgets(text, sizeof(text), f));
		fclose(f);
		start = keeper_start_of_stat(text);
		assert_true(start != 0 && (before == 0 || start == before));
		before = start;
	}
}

static void a_text_that_is_no_stat_line_has_no_start_time(void **state)
{
	static const char *const rows[] = {"", "1", "1 (a", ")", "1 (a)", "1 (a) S", "1 (a) S 1 2 3", "No such process",
					   "1 (a) S 1 1 1 0 -1 4 1 0 0 0 5 6 0 0 20 0 3 0", "1 (a) S 1 1 1 0 -1 4 1 0 0 0 5 6 0 0 20 0 3 0 "};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++)
		assert_true(keeper_start_of_stat(rows[i]) == 0);
}

/* A keeper may be years older than the phid that it talks to: what was agreed does not move. */
static void the_messages_layout_is_as_the_first_keepers_was(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct keeper_header), 8);
	assert_int_equal(offsetof(struct keeper_hello, version), 8);
	assert_int_equal(offsetof(struct keeper_hello, start), 24);
	assert_int_equal(offsetof(struct keeper_hello, incarnation), 40);
	assert_int_equal(offsetof(struct keeper_spawned, start), 16);
	assert_int_equal(offsetof(struct keeper_ended, killed), 16);
	assert_int_equal(offsetof(struct keeper_spawn, n_args), 24);
	assert_int_equal(offsetof(struct keeper_spawn, strings_at), 32);
	assert_int_equal(offsetof(struct keeper_spawn, cpus), 40);
	assert_int_equal(KEEPER_ENDED, 3);
	assert_int_equal(KEEPER_UNDO, 5);
	assert_int_equal(KEEPER_SPAWN, 64);
	assert_int_equal(KEEPER_GONE, 69);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_exit_status_is_the_containers),
		cmocka_unit_test(an_odd_status_is_the_guests_own_code_halved_where_that_is_agreed),
		cmocka_unit_test(a_signal_is_128_and_its_number_whatever_was_said_before),
		cmocka_unit_test(the_first_rule_whose_text_was_said_decides),
		cmocka_unit_test(the_start_time_is_found_behind_a_name_of_any_characters),
		cmocka_unit_test(the_start_time_of_a_living_process_is_the_same_each_time_and_not_zero),
		cmocka_unit_test(a_text_that_is_no_stat_line_has_no_start_time),
		cmocka_unit_test(the_messages_layout_is_as_the_first_keepers_was),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
