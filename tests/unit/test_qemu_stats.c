/* What a QEMU has used, from /proc/<pid>/stat (proc_pid_stat(5)). */
#include "unit.h"

#include "qemu/qemu.h"

#include <errno.h>
#include <unistd.h>

#define STAT(name, parent) \
	"4711 (" name ") S " parent " 4711 4711 0 -1 4194304 999 888 7 6 250 50 1 2 20 0 5 0 123456 987654321 300 18446744073709551615 1 1 0"

static void times_memory_and_threads_are_read(void **state)
{
	static const char *const names[] = {STAT("qemu-system-x86", "42"), STAT("a) b (c", "42"), STAT("", "42")};
	struct cell_stats s;

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(names); i++) {
		assert_int_equal(qemu_stats_of_stat(names[i], 42, &s), 0);
		assert_int_equal(s.user_ns, 250 * (UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK)));
		assert_int_equal(s.system_ns, 50 * (UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK)));
		assert_int_equal(s.threads, 5);
		assert_int_equal(s.resident, 300 * (uint64_t)sysconf(_SC_PAGESIZE));
	}
}

static void a_process_of_somebody_else_is_told_apart(void **state)
{
	struct cell_stats s;

	(void)state;
	assert_int_equal(qemu_stats_of_stat(STAT("qemu", "1"), 42, &s), -ESRCH);
	assert_int_equal(qemu_stats_of_stat("", 42, &s), -EBADMSG);
	assert_int_equal(qemu_stats_of_stat("4711 (qemu) S 42 1 2", 42, &s), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(times_memory_and_threads_are_read),
		cmocka_unit_test(a_process_of_somebody_else_is_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
