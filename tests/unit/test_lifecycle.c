/* The state x verb table. */
#include "unit.h"

#include "lifecycle.h"

/* Written out a second time: columns creating, created, running, paused, stopped; '+' goes on, 's' wrong-state, 'b' busy, 'e' exists. */
static const struct {
	enum container_verb verb;
	const char *columns;
} table[] = {
	{VERB_CREATE, "eeeee"}, {VERB_START, "b+sss"}, {VERB_PAUSE, "bs+ss"},	     {VERB_RESUME, "bss+s"},
	{VERB_KILL, "b+++s"},	{VERB_DELETE, "bsss+"}, {VERB_DELETE_FORCE, "+++++"}, {VERB_END, "+++++"},
};

static void every_verb_in_every_state_is_as_the_table_says(void **state)
{
	(void)state;
	assert_int_equal(PHI_COUNT(table), VERB_MAX);
	for (size_t v = 0; v < PHI_COUNT(table); v++)
		for (int s = 0; s < STATE_MAX; s++) {
			char want = table[v].columns[s];
			enum phi_code code = want == '+' ? PHI_OK : want == 's' ? PHI_STATE : want == 'b' ? PHI_BUSY : PHI_EXISTS;
			struct phi_error e = {0};
			int r = lifecycle_check((enum container_state)s, table[v].verb, "web", &e);

			assert_int_equal(lifecycle_may((enum container_state)s, table[v].verb), code);
			assert_int_equal(r == 0, code == PHI_OK);
			assert_int_equal(e.code, code);
			if (r < 0) {
				assert_true(r < 0);
				assert_contains(e.detail, "web");
				assert_contains(e.detail, lifecycle_states[s]);
				assert_string_equal(e.pointer, "/state");
			}
			assert_int_equal(lifecycle_check((enum container_state)s, table[v].verb, "web", NULL) == 0, code == PHI_OK);
		}
}

static void containerd_finds_the_words_that_it_looks_for(void **state)
{
	struct phi_error e;

	(void)state;
	/* containerd's shim: strings.Contains(err, "container not running") means: there is nothing left to kill. */
	assert_refused(lifecycle_check(STATE_STOPPED, VERB_KILL, "web", &e), e, PHI_STATE, "/state");
	assert_contains(e.detail, "container not running");
	assert_refused(lifecycle_check(STATE_RUNNING, VERB_DELETE, "web", &e), e, PHI_STATE, "/state");
	assert_contains(e.detail, "cannot delete container web that is not stopped: running");
	/* And none of the words that would mean that it is gone. */
	for (int s = 0; s < STATE_MAX; s++)
		for (int v = 0; v < VERB_MAX; v++) {
			e = (struct phi_error){0};
			lifecycle_check((enum container_state)s, (enum container_verb)v, "web", &e);
			assert_null(strstr(e.detail, "does not exist"));
			if (!(s == STATE_STOPPED && v == VERB_KILL))
				assert_null(strstr(e.detail, "not running"));
		}
}

static void every_word_is_its_state_or_verb_and_no_other(void **state)
{
	(void)state;
	for (int s = 0; s < STATE_MAX; s++)
		assert_int_equal(lifecycle_state(lifecycle_states[s]), s);
	for (int v = 0; v < VERB_MAX; v++)
		assert_int_equal(lifecycle_verb(lifecycle_verbs[v]), v);
	assert_null(lifecycle_states[STATE_MAX]);
	assert_null(lifecycle_verbs[VERB_MAX]);
	static const char *const none[] = {"", "Running", "run", "runningg", "stop"};
	for (size_t i = 0; i < PHI_COUNT(none); i++) {
		assert_int_equal(lifecycle_state(none[i]), STATE_MAX);
		assert_int_equal(lifecycle_verb(none[i]), VERB_MAX);
	}
}

static void what_is_no_state_or_verb_may_nothing(void **state)
{
	(void)state;
	assert_int_equal(lifecycle_may(STATE_MAX, VERB_START), PHI_INTERNAL);
	assert_int_equal(lifecycle_may(STATE_RUNNING, VERB_MAX), PHI_INTERNAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_verb_in_every_state_is_as_the_table_says),
		cmocka_unit_test(containerd_finds_the_words_that_it_looks_for),
		cmocka_unit_test(every_word_is_its_state_or_verb_and_no_other),
		cmocka_unit_test(what_is_no_state_or_verb_may_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
