/* How QEMU's end is told apart: the table that was measured on QEMU 7.2, through the same two
 * functions that keeper and phid use. */
#include "unit.h"

#include "qemu/qemu.h"

#include "keeper_proto.h"

#include <signal.h>

#define GREETING "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n{\"return\": {}}\r\n"
#define RESUMED GREETING "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"RESUME\"}\r\n{\"return\": {}}\r\n"
#define SHUTDOWN(guest, reason) \
	"{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"SHUTDOWN\", \"data\": {\"guest\": " guest ", \"reason\": \"" reason "\"}}\r\n"
#define PANICKED \
	"{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"GUEST_PANICKED\", \"data\": {\"action\": \"poweroff\"}}\r\n"

/* The exit file as the keeper writes it, and phid's reading of it. */
static struct cell_end end_of(int wstatus, bool killed, const char *diagnostics, const char *control)
{
	const struct cell c = {.name = "phid-7"};
	uint32_t n_rules = 0;
	struct cell_end end;
	char text[4096];
	int code;

	while (qemu_exit_rules[2 * n_rules] != NULL)
		n_rules++;
	code = keeper_exit_code(wstatus, KEEPER_AS_USER | KEEPER_ODD_IS_GUESTS, control, qemu_exit_rules, n_rules);
	snprintf(text, sizeof(text), "phid-exit 1\nwstatus %d\ncode %d\nkilled %d\n--- diagnostics\n%s\n--- control\n%s\n", wstatus, code,
		 killed, diagnostics, control);
	qemu_explain(&c, wstatus, killed, code, text, &end);
	return end;
}

static void assert_end(const struct cell_end *end, int code, int sig, const char *reason)
{
	if (end->code != code || end->signal != sig || strcmp(end->reason, reason) != 0)
		fail_msg("code %d, signal %d, %s; wanted %d, %d, %s", end->code, end->signal, end->reason, code, sig, reason);
}

static void every_code_of_a_guest_by_the_debug_port_is_its_own_end(void **state)
{
	(void)state;
	for (int v = 0; v < 128; v++) {
		struct cell_end end = end_of((v << 1 | 1) << 8, false, "", RESUMED);

		assert_end(&end, v, 0, "guest-exit");
		assert_string_equal(end.detail, "");
	}
}

static void a_code_of_a_guest_is_its_own_also_after_a_warning_of_qemu(void **state)
{
	(void)state;
	for (int v = 0; v < 128; v++) {
		struct cell_end end = end_of((v << 1 | 1) << 8, false,
					     "qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID.01H:ECX.x2apic [bit 21]\n", RESUMED);

		assert_end(&end, v, 0, "guest-exit");
	}
}

static void the_table_of_ends_holds(void **state)
{
	static const struct {
		int wstatus;
		bool killed;
		const char *control;
		int code, sig;
		const char *reason;
	} rows[] = {
		{0, false, RESUMED SHUTDOWN("true", "guest-shutdown"), 0, 0, "guest-shutdown"},
		{0, false, RESUMED SHUTDOWN("true", "guest-reset"), 1, 0, "guest-reset"}, /* a triple fault looks the same: no success */
		{1 << 8, false, RESUMED PANICKED SHUTDOWN("true", "guest-panic"), 134, 0, "guest-panic"},
		{0, false, RESUMED PANICKED SHUTDOWN("true", "guest-panic"), 134, 0, "guest-panic"},
		{SIGKILL, true, RESUMED, 137, SIGKILL, "killed"},
		{SIGKILL, false, RESUMED, 137, SIGKILL, "failed"},
		{SIGSEGV | 0x80, false, RESUMED, 139, SIGSEGV, "failed"},
		/* Killed because it did not get done after the guest's own end. */
		{SIGKILL, true, RESUMED SHUTDOWN("true", "guest-shutdown"), 0, 0, "guest-shutdown"},
		{SIGKILL, true, RESUMED PANICKED SHUTDOWN("true", "guest-panic"), 134, 0, "guest-panic"},
		{SIGKILL, false, RESUMED SHUTDOWN("true", "guest-shutdown"), 137, SIGKILL, "failed"},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		struct cell_end end = end_of(rows[i].wstatus, rows[i].killed, "", rows[i].control);

		assert_end(&end, rows[i].code, rows[i].sig, rows[i].reason);
	}
}

static void a_qemu_that_the_host_ended_is_not_said_to_be_the_guests_end(void **state)
{
	static const char *const controls[] = {RESUMED SHUTDOWN("false", "host-signal"), RESUMED SHUTDOWN("false", "host-qmp-quit")};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(controls); i++) {
		struct cell_end end = end_of(0, false, "", controls[i]);

		if (strncmp(end.reason, "guest-", 6) == 0)
			fail_msg("%s: %s", strstr(controls[i], "host-"), end.reason);
	}
}

static void a_qemu_that_refuses_to_begin_has_failed_and_its_words_are_kept(void **state)
{
	static const char *const said[] = {
		"qemu-system-x86_64: could not load kernel '/proc/self/fd/6': Invalid argument\n",
		"qemu-system-x86_64: -m 4K: invalid RAM size\nmore\n",
		"qemu: could not load PC BIOS 'qboot.rom'\n",
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(said); i++) {
		struct cell_end end = end_of(1 << 8, false, said[i], i == 0 ? GREETING : "");
		size_t n = strcspn(said[i], "\n");

		assert_end(&end, 1, 0, "failed");
		assert_int_equal(strlen(end.detail), n);
		assert_int_equal(strncmp(end.detail, said[i], n), 0);
	}
}

static void whatever_qemu_said_the_detail_is_one_bounded_line(void **state)
{
	char said[600];
	struct cell_end end;

	(void)state;
	memset(said, 'x', sizeof(said));
	said[sizeof(said) - 1] = '\0';
	end = end_of(0, false, said, "");
	assert_in_range(strlen(end.detail), 1, sizeof(end.detail) - 1);
	end = end_of(0, false, "", "");
	assert_string_equal(end.detail, "");
	/* An exit file of a keeper that could not write it whole. */
	const struct cell c = {.name = "phid-7"};
	static const char *const parts[] = {"", "phid-exit 1\n", "phid-exit 1\nwstatus 0\n--- diagnostics", "--- diagnostics\n", "--- control\n"};

	for (size_t i = 0; i < PHI_COUNT(parts); i++) {
		qemu_explain(&c, 0, false, 0, parts[i], &end);
		assert_end(&end, 0, 0, "guest-exit");
		assert_string_equal(end.detail, "");
	}
}

static void every_reason_is_one_of_the_documented_words(void **state)
{
	static const char *const known[] = {"guest-shutdown", "guest-exit", "guest-panic", "guest-reset", "killed", "failed"};
	static const char *const controls[] = {"", RESUMED, RESUMED SHUTDOWN("true", "guest-shutdown"), RESUMED PANICKED,
					       RESUMED SHUTDOWN("false", "host-signal"), "garbage"};

	(void)state;
	for (int wstatus = 0; wstatus < 0x10000; wstatus++) {
		bool found = false;
		struct cell_end end;

		if ((wstatus & 0x7f) == 0x7f || ((wstatus & 0x7f) != 0 && wstatus > 0xff))
			continue; /* stopped, or not possible */
		end = end_of(wstatus, wstatus & 1, "", controls[wstatus % 6]);
		for (size_t i = 0; i < PHI_COUNT(known); i++)
			found = found || strcmp(end.reason, known[i]) == 0;
		assert_true(found);
		assert_in_range(end.code, 0, 255);
		if (strncmp(end.reason, "guest-", 6) == 0) {
			assert_int_equal(end.signal, 0);
		} else if (end.signal != (wstatus & 0x7f)) { /* QEMU exits 0 when it is asked to by SIGTERM */
			assert_string_equal(end.reason, "killed");
			assert_int_equal(end.signal, SIGTERM);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code_of_a_guest_by_the_debug_port_is_its_own_end),
		cmocka_unit_test(a_code_of_a_guest_is_its_own_also_after_a_warning_of_qemu),
		cmocka_unit_test(the_table_of_ends_holds),
		cmocka_unit_test(a_qemu_that_the_host_ended_is_not_said_to_be_the_guests_end),
		cmocka_unit_test(a_qemu_that_refuses_to_begin_has_failed_and_its_words_are_kept),
		cmocka_unit_test(whatever_qemu_said_the_detail_is_one_bounded_line),
		cmocka_unit_test(every_reason_is_one_of_the_documented_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
