/* Structs from JSON and back, by tables. */
#include "unit.h"

#include "cpuset.h"
#include "field.h"
#include "json.h"
#include "limits.h"

#include <errno.h>

struct inner {
	int64_t number;
	char *text;
};

struct all {
	char *text, *path, *id;
	int64_t integer, signed_integer;
	uint64_t size, address;
	bool yes, has_integer, has_address, has_yes, has_cpus, has_size;
	int word;
	struct cpuset cpus;
	struct inner inner;
	struct field_array list;
	struct field_strings labels, texts;
	struct field_blob blob;
};

#define A(m) offsetof(struct all, m)
#define I(m) offsetof(struct inner, m)

static const char *const words[] = {"", "one", "two", NULL};

static const struct field_table inner_table = {
	sizeof(struct inner), (const struct field[]){
		{.name = "number", .type = FIELD_INTEGER, .offset = I(number), .max = 9, .required = true},
		{.name = "text", .type = FIELD_STRING, .offset = I(text), .max = 8},
		{.name = "later", .type = FIELD_NOT_BUILT},
		{0},
	}};

/* An object inside shares its owner's offsets. */
static const struct field_table object_table = {
	0, (const struct field[]){
		{.name = "number", .type = FIELD_INTEGER, .offset = I(number), .max = 9},
		{.name = "text", .type = FIELD_STRING, .offset = I(text), .max = 8},
		{0},
	}};

static const struct field_table table = {
	sizeof(struct all), (const struct field[]){
		{.name = "text", .type = FIELD_STRING, .offset = A(text), .min = 2, .max = 5},
		{.name = "path", .type = FIELD_PATH, .offset = A(path)},
		{.name = "id", .type = FIELD_ID, .offset = A(id)},
		{.name = "integer", .type = FIELD_INTEGER, .offset = A(integer), .min = 1, .max = 1024, .present = A(has_integer)},
		{.name = "signed", .type = FIELD_INTEGER, .offset = A(signed_integer), .min = (uint64_t)-5, .max = 5},
		{.name = "size", .type = FIELD_SIZE, .offset = A(size), .min = 4096, .max = 1ull << 50, .present = A(has_size)},
		{.name = "address", .type = FIELD_ADDRESS, .offset = A(address), .present = A(has_address)},
		{.name = "yes", .type = FIELD_BOOL, .offset = A(yes), .present = A(has_yes)},
		{.name = "word", .type = FIELD_ENUM, .offset = A(word), .words = words},
		{.name = "cpus", .type = FIELD_CPUS, .offset = A(cpus), .present = A(has_cpus)},
		{.name = "inner", .type = FIELD_OBJECT, .offset = A(inner), .sub = &object_table},
		{.name = "list", .type = FIELD_ARRAY, .offset = A(list), .max = 3, .sub = &inner_table},
		{.name = "labels", .type = FIELD_STRINGS, .offset = A(labels), .max = 3},
		{.name = "texts", .type = FIELD_TEXTS, .offset = A(texts), .max = 2},
		{.name = "blob", .type = FIELD_BLOB, .offset = A(blob)},
		{.name = "note", .type = FIELD_ANY},
		{.name = "later", .type = FIELD_NOT_BUILT},
		{.name = "a/b~c", .type = FIELD_NOT_BUILT},
		{0},
	}};

static int read_text(const char *text, enum field_form form, struct all *a, struct phi_error *e)
{
	_clean_json_ struct json *j = NULL;

	*a = (struct all){0};
	assert_int_equal(json_parse(text, strlen(text), &j, e), 0);
	return fields_read(j, &table, form, "", a, e);
}

static void done(struct all *a)
{
	fields_free(a, &table);
}

static void refuse(const char *text, enum field_form form, enum phi_code code, const char *where)
{
	struct all a;
	struct phi_error e = {0};
	int r = read_text(text, form, &a, &e);

	done(&a); /* half of it was read: the sanitizer counts */
	if (r >= 0)
		fail_msg("%s was accepted", text);
	if (e.code != code || strcmp(e.pointer, where) != 0)
		fail_msg("%s: %s at %s: %s", text, phi_code_name(e.code), e.pointer, e.detail);
}

static void sizes_are_bytes_or_powers_of_1024(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{"0", 0},
		{"1", 1},
		{"4096", 4096},
		{"0x1000", 4096},
		{"0xfF", 255},
		{"1K", 1024},
		{"16M", 16ull << 20},
		{"3G", 3ull << 30},
		{"2T", 2ull << 40},
		{"0x10M", 16ull << 20},
		{"010", 10},
		{"18446744073709551615", UINT64_MAX},
		{"0xffffffffffffffff", UINT64_MAX},
		{"18014398509481983K", 18014398509481983ull << 10},
		{"16777215T", 16777215ull << 40},
	};
	static const char *const bad[] = {"",	 "K",	 "M16",	  "-1",	  "+1",	   " 1",   "1 ",   "1k",  "1m",	  "1KB", "1KiB",
					  "1.5G", "0x",	 "0xg",	  "0X10", "x10",   "1e3",  "1MM",  "16777216T", "18014398509481984K",
					  "18446744073709551616", "0x10000000000000000", "0x-1", "0x 1", "0x+1", "0x0x1", "1P", "\xef\xbc\x91"};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(good); i++) {
		uint64_t v = 7;

		if (!field_parse_size(good[i].text, &v) || v != good[i].bytes)
			fail_msg("%s: %llu", good[i].text, (unsigned long long)v);
	}
	for (size_t i = 0; i < PHI_COUNT(bad); i++) {
		uint64_t v = 7;

		if (field_parse_size(bad[i], &v) || v != 7)
			fail_msg("\"%s\" was accepted", bad[i]);
	}
}

static void an_address_is_hexadecimal_and_below_2_to_the_62(void **state)
{
	static const struct {
		const char *text;
		uint64_t value;
	} good[] = {{"0x0", 0},
		    {"0x80000", 0x80000},
		    {"0xABCDEFabcdef", 0xabcdefabcdef},
		    {"0x00000000000000000000001000", 0x1000},
		    {"0x3fffffffffffffff", 0x3fffffffffffffff}};
	static const char *const bad[] = {"",	"0x",  "0",    "4096", "0X10", "x10", "0x1g", "0x1 ", " 0x1", "0x-1", "0x+1", "0x0x1",
					  "0x4000000000000000", "0xffffffffffffffff", "0x10000000000000000", "0x1K", "-0x1"};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(good); i++) {
		uint64_t v = 7;

		assert_true(field_parse_address(good[i].text, &v));
		assert_true(v == good[i].value);
	}
	for (size_t i = 0; i < PHI_COUNT(bad); i++) {
		uint64_t v = 7;

		if (field_parse_address(bad[i], &v) || v != 7)
			fail_msg("\"%s\" was accepted", bad[i]);
	}
}

static void pointers_escape_tilde_and_slash_and_are_cut_whole(void **state)
{
	char out[200];

	(void)state;
	field_pointer_join(out, sizeof(out), "", "a");
	assert_string_equal(out, "/a");
	field_pointer_join(out, sizeof(out), "/x", "a/b~c");
	assert_string_equal(out, "/x/a~1b~0c");
	field_pointer_join(out, sizeof(out), "/x", "~1");
	assert_string_equal(out, "/x/~01");
	field_pointer_join(out, sizeof(out), "/x", "");
	assert_string_equal(out, "/x/");
	for (size_t size = 1; size < 24; size++) {
		char *cut = malloc(size); /* the sanitizer watches its end */
		size_t n;

		assert_non_null(cut);
		field_pointer_join(cut, size, "/base", "~~~~//x//~");
		n = strlen(cut);
		assert_true(n < size);
		assert_int_equal(strncmp(cut, "/base/~0~0~0~0~1~1x~1~1~0", n), 0);
		assert_true(n <= 6 || cut[n - 1] != '~'); /* never half an escape */
		free(cut);
	}
}

static void an_unknown_member_is_refused_by_an_escaped_pointer(void **state)
{
	(void)state;
	refuse("{\"nobody\":1}", FIELD_WIRE, PHI_UNKNOWN_MEMBER, "/nobody");
	refuse("{\"nobody\":null}", FIELD_WIRE, PHI_UNKNOWN_MEMBER, "/nobody");
	refuse("{\"Text\":\"abc\"}", FIELD_WIRE, PHI_UNKNOWN_MEMBER, "/Text");
	refuse("{\"\":1}", FIELD_WIRE, PHI_UNKNOWN_MEMBER, "/");
	refuse("{\"x/y~z\":1}", FIELD_WIRE, PHI_UNKNOWN_MEMBER, "/x~1y~0z");
	refuse("{\"text\":\"abc\",\"inner\":{\"odd\":1}}", FIELD_WIRE, PHI_UNKNOWN_MEMBER, "/inner/odd");
	refuse("{\"list\":[{\"number\":1,\"text\":\"a\"},{\"number\":1,\"text\":\"b\",\"o~d\":1}]}", FIELD_WIRE, PHI_UNKNOWN_MEMBER,
	       "/list/1/o~0d");
	refuse("{\"blob\":{\"path\":\"/a\",\"x\":1}}", FIELD_WIRE, PHI_UNKNOWN_MEMBER, "/blob/x");
}

static void what_is_defined_but_not_built_is_refused_by_name_even_as_null(void **state)
{
	(void)state;
	refuse("{\"later\":1}", FIELD_WIRE, PHI_NOT_BUILT, "/later");
	refuse("{\"later\":null}", FIELD_WIRE, PHI_NOT_BUILT, "/later");
	refuse("{\"a/b~c\":{}}", FIELD_FILE, PHI_NOT_BUILT, "/a~1b~0c");
	refuse("{\"list\":[{\"number\":1},{\"number\":2},{\"later\":[]}]}", FIELD_WIRE, PHI_NOT_BUILT, "/list/2/later");
}

static void each_type_refuses_every_other_type_at_its_pointer(void **state)
{
	static const struct {
		const char *name, *takes; /* which values pass the type check */
	} rows[] = {
		{"text", "s"}, {"path", "s"}, {"id", "s"},    {"integer", "n"}, {"size", "n"}, {"address", "s"}, {"yes", "b"},
		{"word", "s"}, {"cpus", "s"}, {"inner", "o"}, {"list", "a"},	{"labels", "o"}, {"texts", "a"}, {"blob", "so"},
	};
	static const struct {
		char kind;
		const char *text;
	} values[] = {{'s', "\"\\u0020\""}, {'n', "1"}, {'b', "true"}, {'o', "{}"}, {'a', "[]"}};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++)
		for (size_t k = 0; k < PHI_COUNT(values); k++) {
			char text[60], where[20];

			if (strchr(rows[i].takes, values[k].kind) != NULL)
				continue;
			snprintf(text, sizeof(text), "{\"%s\":%s}", rows[i].name, values[k].text);
			snprintf(where, sizeof(where), "/%s", rows[i].name);
			refuse(text, FIELD_WIRE, PHI_INVALID, where);
		}
	refuse("[]", FIELD_WIRE, PHI_INVALID, "");
	refuse("null", FIELD_WIRE, PHI_INVALID, "");
	refuse("{\"list\":[1]}", FIELD_WIRE, PHI_INVALID, "/list/0");
	refuse("{\"texts\":[\"a\",1]}", FIELD_WIRE, PHI_INVALID, "/texts/1");
	refuse("{\"labels\":{\"a\":\"b\",\"x/y\":1}}", FIELD_WIRE, PHI_INVALID, "/labels/x~1y");
	refuse("{\"labels\":{\"a\":null}}", FIELD_WIRE, PHI_INVALID, "/labels/a");
}

static void bounds_are_held_and_their_ends_are_inside(void **state)
{
	static const struct {
		const char *text;
		bool ok;
	} rows[] = {
		{"{\"integer\":1}", true},
		{"{\"integer\":1024}", true},
		{"{\"integer\":0}", false},
		{"{\"integer\":1025}", false},
		{"{\"integer\":-1}", false},
		{"{\"integer\":1.5}", false},
		{"{\"integer\":1e300}", false},
		{"{\"integer\":9007199254740992}", false},
		{"{\"signed\":-5}", true},
		{"{\"signed\":5}", true},
		{"{\"signed\":-6}", false},
		{"{\"signed\":6}", false},
		{"{\"size\":4096}", true},
		{"{\"size\":1125899906842624}", true},
		{"{\"size\":4095}", false},
		{"{\"size\":1125899906842625}", false},
		{"{\"size\":-4096}", false},
		{"{\"size\":4096.5}", false},
		{"{\"text\":\"ab\"}", true},
		{"{\"text\":\"abcde\"}", true},
		{"{\"text\":\"a\"}", false},
		{"{\"text\":\"\"}", false},
		{"{\"text\":\"abcdef\"}", false},
		{"{\"word\":\"one\"}", true},
		{"{\"word\":\"\"}", true},
		{"{\"word\":\"ONE\"}", false},
		{"{\"word\":\"three\"}", false},
		{"{\"address\":\"0x3fffffffffffffff\"}", true},
		{"{\"address\":\"0x4000000000000000\"}", false},
		{"{\"cpus\":\"0-4095\"}", true},
		{"{\"cpus\":\"4096\"}", false},
		{"{\"list\":[{\"number\":0},{\"number\":9},{\"number\":5}]}", true},
		{"{\"list\":[{\"number\":0},{\"number\":9},{\"number\":5},{\"number\":5}]}", false},
		{"{\"texts\":[\"\",\"\"]}", true},
		{"{\"texts\":[\"\",\"\",\"\"]}", false},
		{"{\"labels\":{\"a\":\"\",\"b\":\"\",\"c\":\"\"}}", true},
		{"{\"labels\":{\"a\":\"\",\"b\":\"\",\"c\":\"\",\"d\":\"\"}}", false},
		{"{\"labels\":{\"\":\"x\"}}", false},
		{"{\"id\":\"web-1\"}", true},
		{"{\"id\":\"../web\"}", false},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		struct all a;
		struct phi_error e = {0};
		int r = read_text(rows[i].text, FIELD_WIRE, &a, &e);

		done(&a);
		if ((r == 0) != rows[i].ok)
			fail_msg("%s: %s", rows[i].text, r == 0 ? "accepted" : e.detail);
		if (r < 0)
			assert_int_equal(e.code, PHI_INVALID);
	}
}

static void a_path_is_absolute_bounded_and_without_dotdot(void **state)
{
	static const char *const good[] = {"/a", "/a/b", "/..a", "/a..", "/a/..b/c", "/...", "/a/./b", "/a b\xc3\xa9"};
	static const char *const bad[] = {"", "/", "a", "./a", "../a", "/..", "/../a", "/a/..", "/a/../b", "/a/..b/.."};
	char text[PHI_PATH_MAX + 30], path[PHI_PATH_MAX + 2];

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(good); i++) {
		struct all a;
		struct phi_error e;

		snprintf(text, sizeof(text), "{\"path\":\"%s\"}", good[i]);
		assert_done(read_text(text, FIELD_WIRE, &a, &e), e);
		assert_string_equal(a.path, good[i]);
		done(&a);
	}
	for (size_t i = 0; i < PHI_COUNT(bad); i++) {
		snprintf(text, sizeof(text), "{\"path\":\"%s\"}", bad[i]);
		refuse(text, FIELD_WIRE, PHI_INVALID, "/path");
		snprintf(text, sizeof(text), "{\"blob\":\"%s\"}", bad[i]);
		refuse(text, FIELD_WIRE, PHI_INVALID, "/blob");
		snprintf(text, sizeof(text), "{\"blob\":{\"path\":\"%s\"}}", bad[i]);
		refuse(text, FIELD_WIRE, PHI_INVALID, "/blob/path");
	}
	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[PHI_PATH_MAX + 1] = '\0';
	snprintf(text, sizeof(text), "{\"path\":\"%s\"}", path);
	refuse(text, FIELD_WIRE, PHI_INVALID, "/path");
}

static void sizes_in_words_are_for_files_only(void **state)
{
	struct all a;
	struct phi_error e;

	(void)state;
	assert_done(read_text("{\"size\":\"16M\"}", FIELD_FILE, &a, &e), e);
	assert_true(a.size == 16 << 20 && a.has_size);
	assert_done(read_text("{\"size\":8192}", FIELD_FILE, &a, &e), e);
	assert_true(a.size == 8192);
	refuse("{\"size\":\"16M\"}", FIELD_WIRE, PHI_INVALID, "/size");
	refuse("{\"size\":\"16MB\"}", FIELD_FILE, PHI_INVALID, "/size");
	refuse("{\"size\":\"1K\"}", FIELD_FILE, PHI_INVALID, "/size");
	refuse("{\"size\":\"2048T\"}", FIELD_FILE, PHI_INVALID, "/size");
	refuse("{\"address\":4096}", FIELD_FILE, PHI_INVALID, "/address");
}

static void a_required_member_must_be_there_and_not_null(void **state)
{
	(void)state;
	refuse("{\"list\":[{\"number\":1},{}]}", FIELD_WIRE, PHI_INVALID, "/list/1");
	refuse("{\"list\":[{\"number\":null}]}", FIELD_WIRE, PHI_INVALID, "/list/0/number");
	refuse("{\"blob\":{}}", FIELD_WIRE, PHI_INVALID, "/blob");
	refuse("{\"blob\":{\"at\":\"0x0\"}}", FIELD_WIRE, PHI_INVALID, "/blob");
}

static void null_is_the_same_as_leaving_a_member_out(void **state)
{
	static const char *const names[] = {"text", "path", "id",   "integer", "size",	 "address", "yes",  "word",
					    "cpus", "inner", "list", "labels",  "texts", "blob",    "note"};
	struct all zero = {0};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(names); i++) {
		char text[40];
		struct all a;
		struct phi_error e;

		snprintf(text, sizeof(text), "{\"%s\":null}", names[i]);
		assert_done(read_text(text, FIELD_WIRE, &a, &e), e);
		assert_memory_equal(&a, &zero, sizeof(a));
	}
}

static void an_image_is_a_path_or_a_path_with_digest_and_address(void **state)
{
	const char *hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	char text[200];
	struct all a;
	struct phi_error e;

	(void)state;
	snprintf(text, sizeof(text), "{\"blob\":{\"path\":\"/k\",\"sha256\":\"sha256:%s\",\"at\":\"0x0\"}}", hex);
	assert_done(read_text(text, FIELD_WIRE, &a, &e), e);
	assert_string_equal(a.blob.path, "/k");
	assert_string_equal(a.blob.sha256, hex);
	assert_true(a.blob.has_at && a.blob.at == 0);
	done(&a);
	assert_done(read_text("{\"blob\":\"/k\"}", FIELD_WIRE, &a, &e), e);
	assert_null(a.blob.sha256);
	assert_false(a.blob.has_at);
	done(&a);
	static const char *const bad[] = {"", "00", "sha256:", "sha512:0", "0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
					  "g123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
					  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0"};
	for (size_t i = 0; i < PHI_COUNT(bad); i++) {
		snprintf(text, sizeof(text), "{\"blob\":{\"path\":\"/k\",\"sha256\":\"%s\"}}", bad[i]);
		refuse(text, FIELD_WIRE, PHI_INVALID, "/blob/sha256");
	}
	refuse("{\"blob\":{\"path\":\"/k\",\"at\":0}}", FIELD_WIRE, PHI_INVALID, "/blob/at");
	refuse("{\"blob\":{\"path\":\"/k\",\"at\":\"4096\"}}", FIELD_WIRE, PHI_INVALID, "/blob/at");
}

static void what_is_written_is_read_back_the_same(void **state)
{
	const char *text = "{\"text\":\"\xc3\xa9\xc3\xa9\",\"path\":\"/a/b\",\"id\":\"web~0123abcd\",\"integer\":7,\"signed\":-5,"
			   "\"size\":1125899906842624,\"address\":\"0x3fffffffffffffff\",\"yes\":false,\"word\":\"two\","
			   "\"cpus\":\"0,2-3,4095\",\"inner\":{\"number\":9,\"text\":\"x\"},"
			   "\"list\":[{\"number\":0},{\"number\":1,\"text\":\"\\\"\"}],\"labels\":{\"a/b~c\":\"v\",\"z\":\"\"},"
			   "\"texts\":[\"kvm\",\"\"],\"blob\":{\"path\":\"/k\",\"at\":\"0x80000\"}}";
	_clean_json_ struct json *j = json_object();
	_clean_free_ char *again = NULL;
	struct all a;
	struct phi_error e;

	(void)state;
	assert_done(read_text(text, FIELD_WIRE, &a, &e), e);
	fields_write(&a, &table, j);
	again = json_print(j);
	assert_string_equal(again, text);
	done(&a);
}

static void what_was_not_given_is_not_written(void **state)
{
	static const char *const absent[] = {"text", "path", "id",    "integer", "size",   "address", "yes",
					     "word", "cpus", "list", "labels",  "texts", "blob",    "note", "later"};
	_clean_json_ struct json *j = json_object();
	struct all a = {0};

	(void)state;
	fields_write(&a, &table, j);
	for (size_t i = 0; i < PHI_COUNT(absent); i++)
		if (json_get(j, absent[i]) != NULL)
			fail_msg("%s", absent[i]);
}

static void freeing_twice_or_half_built_does_no_harm(void **state)
{
	struct all a = {0};
	struct phi_error e;

	(void)state;
	done(&a);
	assert_int_equal(read_text("{\"text\":\"abc\",\"path\":\"/a\",\"list\":[{\"number\":1,\"text\":\"a\"},{\"number\":99}],\"x\":1}", FIELD_WIRE,
				   &a, &e), -ERANGE);
	done(&a);
	done(&a);
	assert_int_equal(read_text("{\"labels\":{\"a\":\"b\",\"c\":1}}", FIELD_WIRE, &a, &e), -EINVAL);
	done(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_bytes_or_powers_of_1024),
		cmocka_unit_test(an_address_is_hexadecimal_and_below_2_to_the_62),
		cmocka_unit_test(pointers_escape_tilde_and_slash_and_are_cut_whole),
		cmocka_unit_test(an_unknown_member_is_refused_by_an_escaped_pointer),
		cmocka_unit_test(what_is_defined_but_not_built_is_refused_by_name_even_as_null),
		cmocka_unit_test(each_type_refuses_every_other_type_at_its_pointer),
		cmocka_unit_test(bounds_are_held_and_their_ends_are_inside),
		cmocka_unit_test(a_path_is_absolute_bounded_and_without_dotdot),
		cmocka_unit_test(sizes_in_words_are_for_files_only),
		cmocka_unit_test(a_required_member_must_be_there_and_not_null),
		cmocka_unit_test(null_is_the_same_as_leaving_a_member_out),
		cmocka_unit_test(an_image_is_a_path_or_a_path_with_digest_and_address),
		cmocka_unit_test(what_is_written_is_read_back_the_same),
		cmocka_unit_test(what_was_not_given_is_not_written),
		cmocka_unit_test(freeing_twice_or_half_built_does_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
