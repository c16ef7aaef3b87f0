/* Names on the wire. */
#include "unit.h"

#include "id.h"

#include <errno.h>

static void every_first_and_every_later_character_is_held_to_its_rule(void **state)
{
	(void)state;
	for (int c = 1; c < 256; c++) {
		bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
		bool later = alnum || c == '_' || c == '.' || c == '+' || c == '-';
		char first[] = {(char)c, '\0'}, second[] = {'a', (char)c, '\0'}, middle[] = {'a', (char)c, 'b', '\0'};
		struct phi_error e = {0};

		assert_int_equal(id_check(first, "/id", &e) == 0, alnum);
		assert_int_equal(id_check(second, "/id", &e) == 0, later);
		assert_int_equal(id_check(middle, "/id", &e) == 0, later);
	}
}

static void an_id_has_1_to_128_bytes(void **state)
{
	char id[PHI_ID_MAX + 2];
	struct phi_error e;

	(void)state;
	memset(id, 'a', sizeof(id));
	id[PHI_ID_MAX + 1] = '\0';
	assert_refused(id_check(id, "/id", &e), e, PHI_INVALID, "/id");
	id[PHI_ID_MAX] = '\0';
	assert_done(id_check(id, "/id", &e), e);
	memcpy(id + PHI_ID_MAX - 9, "~0123abcd", 9);
	assert_done(id_check(id, "/id", &e), e);
	assert_refused(id_check("", "/id", &e), e, PHI_INVALID, "/id");
	assert_int_equal(id_check("", "/id", NULL), -EINVAL);
}

static void nothing_that_could_leave_a_directory_or_a_line_is_an_id(void **state)
{
	static const char *const bad[] = {".", "..", "a/b", "/a", "a/", "../a", "a b", "a\n", "\na", "a\tb", "a\\b", "a%2fb", "a\xc3\xa9",
					  "-a", "_a", "+a", "~a", "a:b", "a,b", "a=b", "a\"b", "a'b", "a;b", "a$b", "a*"};
	struct phi_error e;

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(bad); i++)
		assert_refused(id_check(bad[i], "/id", &e), e, PHI_INVALID, "/id");
}

static void the_mark_of_a_root_is_a_tilde_and_8_lower_case_hex_digits_at_the_end(void **state)
{
	static const char *const good[] = {"a~00000000", "a.b-c~deadbeef", "0~01234567"};
	static const char *const bad[] = {"~00000000",	"a~",	     "a~0000000",	  "a~000000000", "a~0000000g", "a~DEADBEEF",
					  "a~0000000-", "a~0000~000", "a~00000000~00000000", "a~00000000b", "a~~0000000"};
	struct phi_error e;

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(good); i++)
		assert_done(id_check(good[i], "/id", &e), e);
	for (size_t i = 0; i < PHI_COUNT(bad); i++)
		assert_refused(id_check(bad[i], "/id", &e), e, PHI_INVALID, "/id");
}

static void an_incarnation_is_a_uuid_of_version_4_whatever_the_16_bytes_are(void **state)
{
	uint64_t seed = 4;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		uint8_t random[16];
		char text[PHI_UUID_LEN + 1];

		for (int k = 0; k < 16; k++)
			random[k] = i == 0 ? 0 : i == 1 ? 0xff : (uint8_t)(unit_random(&seed) >> 32);
		id_uuid_format(random, text);
		assert_int_equal(strlen(text), PHI_UUID_LEN);
		assert_true(id_is_uuid(text));
		assert_int_equal(text[14], '4');
		assert_non_null(strchr("89ab", text[19]));
	}
	const uint8_t counted[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	char text[PHI_UUID_LEN + 1];

	id_uuid_format(counted, text);
	assert_string_equal(text, "00010203-0405-4607-8809-0a0b0c0d0e0f");
}

static void a_uuid_with_one_wrong_character_is_none(void **state)
{
	const char *good = "0123abcd-0123-4123-8123-0123456789ab";

	(void)state;
	assert_true(id_is_uuid(good));
	for (size_t at = 0; at < PHI_UUID_LEN; at++) {
		char bad[PHI_UUID_LEN + 2];
		static const char wrong[] = {'g', 'A', ' ', '/', '\n'};

		for (size_t i = 0; i < sizeof(wrong); i++) {
			snprintf(bad, sizeof(bad), "%s", good);
			bad[at] = wrong[i];
			assert_false(id_is_uuid(bad));
		}
		bad[at] = good[at] == '-' ? '0' : '-';
		assert_false(id_is_uuid(bad));
		bad[at] = '\0';
		assert_false(id_is_uuid(bad));
	}
	assert_false(id_is_uuid(""));
	assert_false(id_is_uuid("0123abcd-0123-4123-8123-0123456789ab0"));
}

static void one_oci_id_under_two_roots_has_two_ids_and_always_the_same(void **state)
{
	char a[PHI_ID_MAX + 1], b[PHI_ID_MAX + 1], again[PHI_ID_MAX + 1];
	struct phi_error e;

	(void)state;
	assert_done(id_of_oci("web", "/run/containerd/runc/k8s.io", a, &e), e);
	assert_done(id_of_oci("web", "/run/docker/runtime-runc/moby", b, &e), e);
	assert_done(id_of_oci("web", "/run/containerd/runc/k8s.io", again, &e), e);
	assert_string_equal(a, again);
	assert_string_not_equal(a, b);
	assert_int_equal(strncmp(a, "web~", 4), 0);
	assert_int_equal(strlen(a), 12);
	assert_done(id_check(a, "", &e), e);
	/* FNV-1a, its published values. */
	assert_true(id_hash64("") == UINT64_C(0xcbf29ce484222325));
	assert_true(id_hash64("a") == UINT64_C(0xaf63dc4c8601ec8c));
	assert_true(id_hash64("foobar") == UINT64_C(0x85944171f73967e8));
}

static void an_oci_id_that_leaves_no_room_for_the_mark_is_refused_as_too_long(void **state)
{
	char oci[PHI_ID_MAX + 1], id[PHI_ID_MAX + 1];
	struct phi_error e;

	(void)state;
	memset(oci, 'a', sizeof(oci));
	oci[PHI_ID_MAX - 9] = '\0';
	assert_done(id_of_oci(oci, "/run/runc", id, &e), e);
	assert_int_equal(strlen(id), PHI_ID_MAX);
	oci[PHI_ID_MAX - 9] = 'a';
	oci[PHI_ID_MAX - 8] = '\0';
	assert_refused(id_of_oci(oci, "/run/runc", id, &e), e, PHI_INVALID, "/id");
	assert_int_equal(id_of_oci(oci, "/run/runc", id, NULL), -ENAMETOOLONG);
}

static void an_oci_id_is_held_to_the_rule_of_ids(void **state)
{
	static const char *const bad[] = {"", "a~b", "a~00000000", "../x", "a/b", "-a", "a b"};
	char id[PHI_ID_MAX + 1];
	struct phi_error e;

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(bad); i++)
		assert_refused(id_of_oci(bad[i], "/run/runc", id, &e), e, PHI_INVALID, "/id");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_first_and_every_later_character_is_held_to_its_rule),
		cmocka_unit_test(an_id_has_1_to_128_bytes),
		cmocka_unit_test(nothing_that_could_leave_a_directory_or_a_line_is_an_id),
		cmocka_unit_test(the_mark_of_a_root_is_a_tilde_and_8_lower_case_hex_digits_at_the_end),
		cmocka_unit_test(an_incarnation_is_a_uuid_of_version_4_whatever_the_16_bytes_are),
		cmocka_unit_test(a_uuid_with_one_wrong_character_is_none),
		cmocka_unit_test(one_oci_id_under_two_roots_has_two_ids_and_always_the_same),
		cmocka_unit_test(an_oci_id_that_leaves_no_room_for_the_mark_is_refused_as_too_long),
		cmocka_unit_test(an_oci_id_is_held_to_the_rule_of_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
