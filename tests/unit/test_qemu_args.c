/* QEMU's command line. */
#include "unit.h"

#include "qemu/qemu.h"

#include "keeper_proto.h"

static const struct qemu_fds no_fds = {.kernel = -1, .initrd = -1, .watch = -1};

static void drop(struct cell *c)
{
	alloc_grant_done(&c->grant);
}

static struct cell cell_of(unsigned cpus, uint64_t memory)
{
	struct cell c = {.row = 7, .name = "phid-7"};

	for (unsigned i = 0; i < cpus; i++)
		cpuset_add(&c.grant.cpus, 2 * i + 1);
	alloc_grant_add_memory(&c.grant)->size = memory;
	return c;
}

/* The word behind an option, of the n-th time it is there; NULL if it is not. */
static const char *value_of(const struct qemu_args *a, const char *option, int n)
{
	for (size_t i = 1; i + 1 < a->n; i++)
		if (strcmp(a->argv[i], option) == 0 && n-- == 0)
			return a->argv[i + 1];
	return NULL;
}

static int count_of(const struct qemu_args *a, const char *option)
{
	int n = 0;

	for (size_t i = 0; i < a->n; i++)
		n += strcmp(a->argv[i], option) == 0;
	return n;
}

static void the_machine_is_what_the_spec_says_else_q35_for_an_initrd_else_microvm(void **state)
{
	(void)state;
	for (int machine = 0; machine < 3; machine++)
		for (int initrd = 0; initrd < 2; initrd++) {
			_clean_(drop) struct cell c = cell_of(1, 64 << 20);
			struct qemu_args a;
			const char *want = machine == MACHINE_MICROVM ? "microvm" : machine == MACHINE_Q35 || initrd ? "q35" : "microvm";

			c.spec.boot.machine = machine;
			c.spec.boot.initrd.path = initrd ? (char *)(uintptr_t) "/r" : NULL;
			assert_string_equal(qemu_machine(&c.spec), want);
			qemu_args_make(&a, "/usr/bin/qemu", &c, "tcg", &no_fds);
			assert_int_equal(strncmp(value_of(&a, "-M", 0), want, strlen(want)), 0);
			assert_int_equal(value_of(&a, "-M", 0)[strlen(want)], ',');
			qemu_args_free(&a);
		}
}

static void what_was_granted_is_what_qemu_is_given(void **state)
{
	static const struct {
		unsigned cpus;
		uint64_t sizes[3];
		const char *smp, *m;
	} rows[] = {
		{1, {4096}, "1", "4K"},
		{2, {64 << 20}, "2", "65536K"},
		{3, {64 << 20, 32 << 20, 4096}, "3", "98308K"},
		{512, {1ull << 50}, "512", "1099511627776K"},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		_clean_(drop) struct cell c = cell_of(rows[i].cpus, 0);
		struct qemu_args a;

		/* What was asked for does not count. */
		c.spec.cpus.count = 99;
		c.grant.memory[0].size = rows[i].sizes[0];
		for (int k = 1; k < 3; k++)
			alloc_grant_add_memory(&c.grant)->size = rows[i].sizes[k];
		qemu_args_make(&a, "/usr/bin/qemu", &c, "tcg", &no_fds);
		assert_string_equal(value_of(&a, "-smp", 0), rows[i].smp);
		assert_string_equal(value_of(&a, "-m", 0), rows[i].m);
		assert_int_equal(count_of(&a, "-smp") + count_of(&a, "-m"), 2);
		qemu_args_free(&a);
	}
}

static void the_accelerator_decides_the_cpu_model(void **state)
{
	static const char *const rows[][3] = {{"kvm", "kvm", "host"}, {"tcg", "tcg,thread=multi", "max"}};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		_clean_(drop) struct cell c = cell_of(1, 4096);
		struct qemu_args a;

		qemu_args_make(&a, "/usr/bin/qemu", &c, rows[i][0], &no_fds);
		assert_string_equal(value_of(&a, "-accel", 0), rows[i][1]);
		assert_string_equal(value_of(&a, "-cpu", 0), rows[i][2]);
		qemu_args_free(&a);
	}
}

static void images_and_channels_are_descriptors_and_never_paths(void **state)
{
	(void)state;
	for (int mask = 0; mask < 8; mask++) {
		_clean_(drop) struct cell c = cell_of(1, 4096);
		struct qemu_args a;
		struct qemu_fds fds = {mask & 1 ? 6 : -1, mask & 2 ? 7 : -1, mask & 4 ? 8 : -1};
		char text[40];

		c.spec.boot.kernel.path = (char *)(uintptr_t) "/boot/k";
		c.spec.boot.initrd.path = (char *)(uintptr_t) "/boot/r";
		qemu_args_make(&a, "/usr/bin/qemu", &c, "tcg", &fds);
		assert_int_equal(count_of(&a, "-kernel"), (mask & 1) != 0);
		assert_int_equal(count_of(&a, "-initrd"), (mask & 2) != 0);
		if (mask & 1)
			assert_string_equal(value_of(&a, "-kernel", 0), "/proc/self/fd/6");
		if (mask & 2)
			assert_string_equal(value_of(&a, "-initrd", 0), "/proc/self/fd/7");
		snprintf(text, sizeof(text), "socket,id=console,fd=%d", KEEPER_CONSOLE_FD);
		assert_string_equal(value_of(&a, "-chardev", 0), text);
		snprintf(text, sizeof(text), "socket,id=control,fd=%d", KEEPER_QMP_FD);
		assert_string_equal(value_of(&a, "-chardev", 1), text);
		assert_int_equal(count_of(&a, "-chardev"), mask & 4 ? 3 : 2);
		assert_int_equal(count_of(&a, "-mon"), mask & 4 ? 2 : 1);
		if (mask & 4)
			assert_string_equal(value_of(&a, "-chardev", 2), "socket,id=watch,fd=8,server=on,wait=off");
		for (size_t i = 0; i < a.n; i++)
			assert_null(strstr(a.argv[i], "/boot/"));
		qemu_args_free(&a);
	}
}

static void qemu_begins_stopped_confined_and_with_nothing_that_was_not_asked_for(void **state)
{
	static const char *const words[] = {"-nodefaults", "-no-user-config", "-S", "-no-reboot", "-sandbox", "-display"};
	_clean_(drop) struct cell c = cell_of(1, 4096);
	struct qemu_args a;

	(void)state;
	qemu_args_make(&a, "/usr/bin/qemu", &c, "tcg", &no_fds);
	assert_string_equal(a.argv[0], "/usr/bin/qemu");
	assert_null(a.argv[a.n]);
	assert_true(a.n <= QEMU_ARGS_MAX);
	for (size_t i = 0; i < PHI_COUNT(words); i++)
		assert_int_equal(count_of(&a, words[i]), 1);
	assert_string_equal(value_of(&a, "-display", 0), "none");
	assert_contains(value_of(&a, "-sandbox", 0), "spawn=deny");
	assert_contains(value_of(&a, "-sandbox", 0), "elevateprivileges=deny");
	assert_string_equal(value_of(&a, "-name", 0), "phid-7,process=phid-7,debug-threads=on");
	assert_int_equal(count_of(&a, "-append"), 0);
	/* Why a guest ended is told by these. */
	assert_contains(value_of(&a, "-device", 0), "isa-debug-exit,iobase=0xf4");
	assert_contains(value_of(&a, "-device", 1), "pvpanic,ioport=0x505");
	assert_string_equal(value_of(&a, "-action", 0), "panic=exit-failure");
	qemu_args_free(&a);
}

/* Whatever a client writes, the words are the same but for the one that is its own. */
static void no_string_of_the_spec_can_become_another_option(void **state)
{
	static const char *const evil[] = {"-device",	   "x -device y", "a,b=c",  "-append",	"\n-S", "%s%n%d", "",	    "a\"b'c;$(d)`e`",
					   "--", "-kernel /etc/shadow", ",readonly=on,file=/etc/shadow", "\xc3\xa9"};
	_clean_(drop) struct cell plain = cell_of(2, 64 << 20);
	struct qemu_args want;
	const struct qemu_fds fds = {6, 7, 8};

	(void)state;
	plain.spec.boot.cmdline = (char *)(uintptr_t) "quiet";
	plain.spec.boot.initrd.path = (char *)(uintptr_t) "/r";
	qemu_args_make(&want, "/usr/bin/qemu", &plain, "tcg", &fds);
	for (size_t i = 0; i < PHI_COUNT(evil); i++) {
		struct cell c = plain;
		struct qemu_args a;
		char *s = (char *)(uintptr_t)evil[i];
		char *names[] = {s}, *values[] = {s};

		snprintf(c.id, sizeof(c.id), "%s", s);
		snprintf(c.incarnation, sizeof(c.incarnation), "%s", s);
		c.spec.name = c.spec.criticality = c.spec.boot.cmdline = s;
		c.spec.boot.kernel.path = c.spec.boot.initrd.path = c.spec.boot.inmate.path = s;
		c.spec.boot.kernel.sha256 = s;
		c.spec.labels = (struct field_strings){1, names, values};
		snprintf(c.grant.memory[0].pool, sizeof(c.grant.memory[0].pool), "%s", s);
		qemu_args_make(&a, "/usr/bin/qemu", &c, "tcg", &fds);
		assert_int_equal(a.n, want.n);
		for (size_t k = 0; k < a.n; k++)
			if (k > 0 && strcmp(want.argv[k - 1], "-append") == 0)
				assert_string_equal(a.argv[k], s); /* one word, taken as it is by -append */
			else
				assert_string_equal(a.argv[k], want.argv[k]);
		qemu_args_free(&a);
	}
	qemu_args_free(&want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_machine_is_what_the_spec_says_else_q35_for_an_initrd_else_microvm),
		cmocka_unit_test(what_was_granted_is_what_qemu_is_given),
		cmocka_unit_test(the_accelerator_decides_the_cpu_model),
		cmocka_unit_test(images_and_channels_are_descriptors_and_never_paths),
		cmocka_unit_test(qemu_begins_stopped_confined_and_with_nothing_that_was_not_asked_for),
		cmocka_unit_test(no_string_of_the_spec_can_become_another_option),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
