/* Errors as values, and the table of codes. */
#include "unit.h"

#include "json.h"

#include <errno.h>

static void the_table_of_codes_is_whole_and_its_names_are_unique(void **state)
{
	(void)state;
	for (int c = 0; c < PHI_CODE_MAX; c++) {
		const char *name = phi_code_name((enum phi_code)c);

		assert_non_null(name);
		assert_int_equal(phi_code_from_name(name), c);
		assert_true(phi_code_title((enum phi_code)c)[0] != '\0');
		assert_in_range(phi_code_http((enum phi_code)c), 200, 599);
		assert_int_equal(phi_code_http((enum phi_code)c) < 400, c == PHI_OK);
		assert_int_equal(phi_code_exit((enum phi_code)c) == 0, c == PHI_OK);
	}
	assert_int_equal(phi_code_from_name("nonsense"), PHI_INTERNAL);
	assert_int_equal(phi_code_from_name(NULL), PHI_INTERNAL);
	assert_int_equal(phi_code_http(PHI_CODE_MAX), 500);
	assert_string_equal(phi_code_name(PHI_CODE_MAX), "internal");
}

static void an_error_answers_its_negative_errno_or_one_that_fits_its_code(void **state)
{
	struct phi_error e;

	(void)state;
	assert_int_equal(phi_error_set(&e, PHI_BACKEND, EIO, "/a", "%d", 7), -EIO);
	assert_int_equal(e.code, PHI_BACKEND);
	assert_int_equal(e.err, EIO);
	assert_string_equal(e.pointer, "/a");
	assert_string_equal(e.detail, "7");
	assert_int_equal(phi_error_set(NULL, PHI_NOT_FOUND, 0, NULL, "x"), -ENOENT);
	assert_int_equal(phi_error_set(&e, PHI_NO_RESOURCES, 0, NULL, "x"), -ENOSPC);
	assert_string_equal(e.pointer, "");
	for (int c = 1; c < PHI_CODE_MAX; c++)
		assert_true(phi_error_set(NULL, (enum phi_code)c, 0, NULL, "x") < 0);
}

/* What was made of the error's sentence can be sent: our own reader takes it. */
static void assert_sendable(const struct phi_error *e)
{
	_clean_json_ struct json *j = json_object(), *back = NULL;
	_clean_free_ char *text = NULL;
	struct phi_error why;

	json_add_string(j, "detail", e->detail);
	json_add_string(j, "pointer", e->pointer);
	text = json_print(j);
	assert_done(json_parse(text, strlen(text), &back, &why), why);
}

static void whatever_a_client_sent_the_sentence_is_utf8_without_control_characters(void **state)
{
	static const char *const parts[] = {"\x01\x1b[2J\n", "\xff\xfe", "\xc3", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80",
					    "\xe2\x82", "\x7f"};
	struct phi_error e;

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(parts); i++) {
		phi_error_set(&e, PHI_INVALID, 0, parts[i], "a%sb", parts[i]);
		assert_sendable(&e);
		for (const char *p = e.detail; *p != '\0'; p++)
			assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
	}
	phi_error_set(&e, PHI_INVALID, 0, "/\xc3\xa9", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
	assert_string_equal(e.pointer, "/\xc3\xa9");
	assert_string_equal(e.detail, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
}

static void a_sentence_that_is_cut_is_still_utf8(void **state)
{
	char text[600];

	(void)state;
	for (size_t shift = 0; shift < 4; shift++) {
		struct phi_error e;
		size_t n = shift;

		memset(text, 'a', sizeof(text));
		for (; n + 4 < sizeof(text); n += 4)
			memcpy(text + n, "\xf0\x9f\x98\x80", 4);
		text[n] = '\0';
		phi_error_set(&e, PHI_INVALID, 0, text, "%s", text);
		assert_sendable(&e);
	}
}

static void a_wrapped_sentence_has_its_prefix_and_is_still_utf8(void **state)
{
	char text[600];
	struct phi_error e;

	(void)state;
	phi_error_set(&e, PHI_INVALID, 0, "/a", "no");
	phi_error_wrap(&e, "while %s", "reading");
	assert_string_equal(e.detail, "while reading: no");
	assert_string_equal(e.pointer, "/a");
	assert_int_equal(e.code, PHI_INVALID);
	phi_error_wrap(NULL, "x");
	memset(text, 'p', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	phi_error_wrap(&e, "%s", text);
	assert_int_equal(strlen(e.detail), sizeof(e.detail) - 1);
	for (size_t shift = 0; shift < 4; shift++) {
		size_t n = 0;

		for (; n + 4 < sizeof(text); n += 4)
			memcpy(text + n, "\xf0\x9f\x98\x80", 4);
		text[n] = '\0';
		phi_error_set(&e, PHI_INVALID, 0, "", "%s", text);
		phi_error_wrap(&e, "%.*s", (int)shift + 1, "xxxx");
		assert_sendable(&e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table_of_codes_is_whole_and_its_names_are_unique),
		cmocka_unit_test(an_error_answers_its_negative_errno_or_one_that_fits_its_code),
		cmocka_unit_test(whatever_a_client_sent_the_sentence_is_utf8_without_control_characters),
		cmocka_unit_test(a_sentence_that_is_cut_is_still_utf8),
		cmocka_unit_test(a_wrapped_sentence_has_its_prefix_and_is_still_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
