/* JSON, strictly: what is refused, and where. */
#include "unit.h"

#include "json.h"
#include "limits.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

static struct json *parsed(const char *text)
{
	struct json *j = NULL;
	struct phi_error e;

	assert_done(json_parse(text, strlen(text), &j, &e), e);
	assert_non_null(j);
	return j;
}

static void assert_place(const char *text, size_t len, unsigned line, unsigned column)
{
	struct phi_error e = {0};
	struct json *j = NULL;
	char place[40];

	if (json_parse(text, len, &j, &e) != -EBADMSG)
		fail_msg("\"%s\" was accepted", text);
	assert_null(j);
	assert_int_equal(e.code, PHI_BAD_REQUEST);
	snprintf(place, sizeof(place), "line %u, column %u", line, column);
	if (strstr(e.detail, place) == NULL)
		fail_msg("\"%s\": \"%s\" does not say %s", text, e.detail, place);
}

static void every_breach_of_the_grammar_is_refused_with_line_and_column(void **state)
{
	static const struct {
		const char *text;
		unsigned line, column;
	} rows[] = {
		{"", 1, 1},
		{"  ", 1, 3},
		{"\n\n", 3, 1},
		{"{", 1, 2},
		{"[", 1, 2},
		{"[1", 1, 3},
		{"[1,", 1, 4},
		{"[1,]", 1, 4},
		{"[,1]", 1, 2},
		{"[1 2]", 1, 4},
		{"[1}", 1, 3},
		{"{\"a\":1]", 1, 7},
		{"{\"a\"}", 1, 5},
		{"{\"a\" 1}", 1, 6},
		{"{\"a\":}", 1, 6},
		{"{\"a\":1,}", 1, 8},
		{"{a:1}", 1, 2},
		{"{'a':1}", 1, 2},
		{"{1:1}", 1, 2},
		{"{\"a\":1 \"b\":2}", 1, 8},
		{"{\n  \"a\": 1,\n  \"b\" 2\n}", 3, 7},
		{"[\r\n\ttru]", 2, 2},
		{"tru", 1, 1},
		{"True", 1, 1},
		{"nul", 1, 1},
		{"NaN", 1, 1},
		{"Infinity", 1, 1},
		{"undefined", 1, 1},
		{"// no\n1", 1, 1},
		{"/* no */ 1", 1, 1},
		{"[1] x", 1, 5},
		{"{} {}", 1, 4},
		{"1 2", 1, 3},
		{"truefalse", 1, 5},
		{"}", 1, 1},
		{"\xef\xbb\xbf{}", 1, 1}, /* a byte order mark */
		{"\v1", 1, 1},
		{"\xc2\xa0" "1", 1, 1},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++)
		assert_place(rows[i].text, strlen(rows[i].text), rows[i].line, rows[i].column);
}

static void every_number_that_is_not_of_rfc_8259_is_refused(void **state)
{
	static const char *const bad[] = {"-",	  "+1",	  "01",	   "-01",  "00",   "1.",   ".5",   "-.5",  "1e",  "1e+",
					  "1E-", "0x10", "1_000", "--1", "1.e3", "1.5.5", "1e5.5", "-a",  "1,0", "1a",
					  "-Infinity", "-NaN", "0b1", "1\xd9\xa0"};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(bad); i++) {
		char text[40];
		struct json *j = NULL;
		struct phi_error e = {0};
		size_t n = (size_t)snprintf(text, sizeof(text), "[[%s]]", bad[i]);

		if (json_parse(bad[i], strlen(bad[i]), &j, &e) != -EBADMSG)
			fail_msg("\"%s\" was accepted", bad[i]);
		assert_contains(e.detail, "line 1, column ");
		if (strchr(bad[i], ',') == NULL && json_parse(text, n, &j, &e) != -EBADMSG)
			fail_msg("\"%s\" was accepted", text);
	}
}

static void every_string_that_is_not_of_rfc_8259_is_refused_with_its_column(void **state)
{
	static const struct {
		const char *text;
		unsigned column;
	} rows[] = {
		{"\"", 2},
		{"\"abc", 5},
		{"\"abc\\\"", 7},
		{"\"\\", 3},
		{"\"a\nb\"", 3},
		{"\"a\tb\"", 3},
		{"\"\x1f\"", 2},
		{"\"\x01\"", 2},
		{"\"\\x41\"", 3},
		{"\"\\a\"", 3},
		{"\"\\'\"", 3},
		{"\"\\u\"", 4},
		{"\"\\u12\"", 4},
		{"\"\\u12g4\"", 6},
		{"\"\\U0041\"", 3},
	};
	struct phi_error e;
	struct json *j;

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++)
		assert_place(rows[i].text, strlen(rows[i].text), 1, rows[i].column);
	/* u0000 would cut the string for every reader of C strings. */
	assert_refused(json_parse("[\"a\\u0000b\"]", 12, &j, &e), e, PHI_BAD_REQUEST, "");
	assert_contains(e.detail, "line 1, column ");
	assert_contains(e.detail, "u0000");
	assert_refused(json_parse("{\"a\\u0000b\":1}", 14, &j, &e), e, PHI_BAD_REQUEST, "");
}

static void a_zero_byte_is_refused_wherever_it_stands(void **state)
{
	const char text[] = "{ \"a\" : \"b\" } ";
	const size_t n = sizeof(text) - 1;

	(void)state;
	for (size_t at = 0; at < n; at++) {
		char copy[sizeof(text)];

		memcpy(copy, text, sizeof(copy));
		copy[at] = '\0';
		struct json *j = NULL;
		struct phi_error e = {0};

		assert_int_equal(json_parse(copy, n, &j, &e), -EBADMSG);
	}
	assert_place("\"\\\0\"", 4, 1, 3);
}

static void a_surrogate_must_be_in_a_pair(void **state)
{
	static const char *const bad[] = {
		"\"\\ud800\"",	       "\"\\udbff\"",	     "\"\\udc00\"",	    "\"\\udfff\"",	  "\"\\ud800x\"",
		"\"\\ud800\\n\"",      "\"\\ud800\\ud800\"", "\"\\ud800\\u0041\"",  "\"\\udc00\\ud800\"", "\"\\ud800\\udbff\"",
		"\"\\ud800\\ue000\"",  "\"\\ud800\\u\"",     "\"\\ud800\\udc0\"",   "\"\\uD800\\uE000\"",
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(bad); i++) {
		struct json *j = NULL;
		struct phi_error e = {0};

		if (json_parse(bad[i], strlen(bad[i]), &j, &e) != -EBADMSG)
			fail_msg("%s was accepted", bad[i]);
		assert_contains(e.detail, "surrogate");
	}
	static const char *const good[][2] = {
		{"\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80"}, {"\"\\uD800\\uDC00\"", "\xf0\x90\x80\x80"},
		{"\"\\udbff\\udfff\"", "\xf4\x8f\xbf\xbf"}, {"\"\\ud7ff\\ue000\"", "\xed\x9f\xbf\xee\x80\x80"},
		{"\"\\u0001\\u00e9\\u20ac\"", "\x01\xc3\xa9\xe2\x82\xac"},
	};
	for (size_t i = 0; i < PHI_COUNT(good); i++) {
		_clean_json_ struct json *j = parsed(good[i][0]);

		assert_string_equal(json_string(j), good[i][1]);
	}
}

/* RFC 3629, by arithmetic: the code point that two to four bytes mean, -1 if they mean none. */
static int utf8_value(const unsigned char *b, size_t n)
{
	int v = n == 2 ? b[0] & 0x1f : n == 3 ? b[0] & 0x0f : b[0] & 0x07;

	if (n == 2 ? b[0] >> 5 != 6 : n == 3 ? b[0] >> 4 != 14 : b[0] >> 3 != 30)
		return -1;
	for (size_t i = 1; i < n; i++) {
		if (b[i] >> 6 != 2)
			return -1;
		v = v << 6 | (b[i] & 0x3f);
	}
	if (v < (n == 2 ? 0x80 : n == 3 ? 0x800 : 0x10000) || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
		return -1;
	return v;
}

static void only_utf8_passes_and_each_code_point_in_one_form_only(void **state)
{
	/* Every first byte with each pair of interesting followers, at lengths 1 to 4. */
	static const unsigned char edge[] = {0x00 + 0x20, 0x41, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0x9f, 0xa0, 0xa1, 0xbf, 0xc0, 0xff};

	(void)state;
	for (unsigned first = 0x80; first < 256; first++)
		for (size_t n = 1; n <= 4; n++)
			for (size_t a = 0; a < PHI_COUNT(edge); a++)
				for (size_t b = 0; b < PHI_COUNT(edge); b++) {
					const unsigned char follow = 0x80;
					unsigned char bytes[] = {(unsigned char)first, edge[a], edge[b], follow};
					char text[8] = "\"";
					struct json *j = NULL;
					bool ok;

					if ((n < 3 && b > 0) || (n < 2 && a > 0))
						continue;
					memcpy(text + 1, bytes, n);
					text[n + 1] = '"';
					ok = json_parse(text, n + 2, &j, NULL) == 0;
					/* A shorter valid sequence with plain bytes behind is valid as well. */
					bool want = n > 1 && utf8_value(bytes, n) >= 0;
					for (size_t k = 2; k < n && !want; k++) {
						want = utf8_value(bytes, k) >= 0;
						for (size_t r = k; r < n && want; r++)
							want = bytes[r] < 0x80;
					}
					if (ok != want)
						fail_msg("%02x %02x %02x %02x, %zu bytes: %s", bytes[0], bytes[1], bytes[2],
							 bytes[3], n, ok ? "accepted" : "refused");
					json_free(j);
				}
	/* Bytes that end before the sequence does. */
	assert_place("\"\xe2\x82", 3, 1, 2);
	assert_place("\"\xf0\x9f\x98", 4, 1, 2);
	assert_place("\"\xc3", 2, 1, 2);
	assert_place("{\"\xc0\xaf\":1}", 8, 1, 3); /* an overlong slash in a name */
	assert_place("\xc3\xa9", 2, 1, 1);
}

static void a_member_twice_in_one_object_is_refused_by_name_however_deep(void **state)
{
	static const char *const bad[] = {
		"{\"twin\":1,\"twin\":1}",
		"{\"twin\":1,\"a\":2,\"b\":3,\"twin\":null}",
		"[[{\"x\":{\"twin\":{},\"twin\":[]}}]]",
		"{\"a\":{\"twin\":1},\"b\":[1,{\"twin\":1,\"\\u0074win\":2}]}",
		"{\"a\":[{\"b\":[{\"c\":{\"z\":1,\"twin\":{\"twin\":0},\"twin\":2}}]}]}",
	};
	struct json *j;
	struct phi_error e;

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(bad); i++) {
		assert_refused(json_parse(bad[i], strlen(bad[i]), &j, &e), e, PHI_BAD_REQUEST, "");
		assert_contains(e.detail, "\"twin\"");
	}
	static const char *const good[] = {
		"{\"a\":1,\"A\":2}",
		"{\"a\":{\"a\":{\"a\":1}}}",
		"[{\"a\":1},{\"a\":1}]",
		"{\"\":1,\" \":2}",
		"[\"a\",\"a\"]",
	};
	for (size_t i = 0; i < PHI_COUNT(good); i++)
		json_free(parsed(good[i]));
}

static void nesting_is_bounded(void **state)
{
	char text[PHI_JSON_DEPTH_MAX * 8 + 40];

	(void)state;
	for (int kind = 0; kind < 2; kind++)
		for (int depth = PHI_JSON_DEPTH_MAX - 1; depth <= PHI_JSON_DEPTH_MAX + 1; depth++) {
			struct json *j = NULL;
			struct phi_error e = {0};
			size_t n = 0;
			int r;

			for (int i = 0; i < depth; i++)
				n += (size_t)snprintf(text + n, sizeof(text) - n, kind ? "[" : "{\"a\":");
			n += (size_t)snprintf(text + n, sizeof(text) - n, "1");
			for (int i = 0; i < depth; i++)
				n += (size_t)snprintf(text + n, sizeof(text) - n, kind ? "]" : "}");
			r = json_parse(text, n, &j, &e);
			assert_int_equal(r == 0, depth <= PHI_JSON_DEPTH_MAX);
			if (r < 0)
				assert_contains(e.detail, "deep");
			json_free(j);
		}
	/* A megabyte of brackets costs neither stack nor time. */
	char *brackets = malloc(PHI_BODY_MAX);
	struct json *j = NULL;

	assert_non_null(brackets);
	memset(brackets, '[', PHI_BODY_MAX);
	assert_int_equal(json_parse(brackets, PHI_BODY_MAX, &j, NULL), -EBADMSG);
	free(brackets);
}

static void the_members_of_one_object_are_bounded_and_the_elements_of_an_array_are_not(void **state)
{
	(void)state;
	for (int extra = 0; extra < 2; extra++)
		for (int array = 0; array < 2; array++) {
			char *text = malloc(40000);
			struct json *j = NULL;
			struct phi_error e = {0};
			size_t n = 0;
			int r;

			assert_non_null(text);
			text[n++] = array ? '[' : '{';
			for (int i = 0; i < PHI_JSON_MEMBERS_MAX + extra; i++)
				n += (size_t)snprintf(text + n, 40000 - n, array ? "%s%d" : "%s\"m%d\":1", i ? "," : "", i);
			text[n++] = array ? ']' : '}';
			r = json_parse(text, n, &j, &e);
			assert_int_equal(r == 0, array || !extra);
			if (r < 0)
				assert_contains(e.detail, "too many members");
			else
				assert_int_equal(json_length(j), PHI_JSON_MEMBERS_MAX + extra);
			json_free(j);
			free(text);
		}
	/* The twin is found among as many members as are possible. */
	char *text = malloc(40000);
	struct json *j = NULL;
	size_t n = 1;

	assert_non_null(text);
	text[0] = '{';
	for (int i = 0; i < PHI_JSON_MEMBERS_MAX - 1; i++)
		n += (size_t)snprintf(text + n, 40000 - n, "\"m%d\":1,", i);
	n += (size_t)snprintf(text + n, 40000 - n, "\"m0\":1}");
	assert_int_equal(json_parse(text, n, &j, NULL), -EBADMSG);
	free(text);
}

static void an_integer_is_exact_or_none(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		int64_t value;
	} rows[] = {
		{"0", true, 0},
		{"-0", true, 0},
		{"1e3", true, 1000},
		{"1.0", true, 1},
		{"-12", true, -12},
		{"2147483648", true, 2147483648},
		{"4294967296", true, 4294967296},
		{"-2147483649", true, -2147483649},
		{"9007199254740991", true, 9007199254740991},
		{"-9007199254740991", true, -9007199254740991},
		{"9007199254740992", false, 0},
		{"9007199254740993", false, 0},
		{"-9007199254740992", false, 0},
		{"18446744073709551615", false, 0},
		{"1e300", false, 0},
		{"1e999", false, 0},
		{"-1e999", false, 0},
		{"0.5", false, 0},
		{"1.0000001", false, 0},
		{"1e-3", false, 0},
		{"\"1\"", false, 0},
		{"true", false, 0},
		{"null", false, 0},
		{"[1]", false, 0},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		_clean_json_ struct json *j = parsed(rows[i].text);
		int64_t v = 77;

		if (json_integer(j, &v) != rows[i].ok)
			fail_msg("%s", rows[i].text);
		assert_int_equal(v, rows[i].ok ? rows[i].value : 77);
	}
}

static void a_number_of_many_digits_is_read_whole(void **state)
{
	/* cJSON looks at 63 bytes of a number. */
	char text[120];
	int64_t v = 0;

	(void)state;
	snprintf(text, sizeof(text), "[1.%080d, 2]", 0);
	{
		_clean_json_ struct json *j = parsed(text);

		assert_int_equal(json_length(j), 2);
		assert_true(json_integer(json_first(j), &v));
		assert_int_equal(v, 1);
	}
	/* At the top nothing stands behind the number to trip over: 10^80 must not come out as 10^63 with a tail. */
	snprintf(text, sizeof(text), "0.%080d1e81", 0);
	{
		_clean_json_ struct json *j = parsed(text);

		assert_true(json_integer(j, &v));
		assert_int_equal(v, 1);
	}
}

static void readers_take_null_and_answer_not_that(void **state)
{
	int64_t v;
	bool b;

	(void)state;
	assert_false(json_is_object(NULL));
	assert_false(json_is_array(NULL));
	assert_false(json_is_null(NULL));
	assert_false(json_is_bool(NULL, &b));
	assert_false(json_integer(NULL, &v));
	assert_false(json_number(NULL));
	assert_null(json_string(NULL));
	assert_null(json_get(NULL, "a"));
	assert_null(json_get_string(NULL, "a"));
	assert_null(json_first(NULL));
	assert_int_equal(json_length(NULL), 0);
	assert_string_equal(json_kind(NULL), "nothing");
	json_free(NULL);
}

static void also_next_and_name_take_null(void **state)
{
	int status;
	pid_t child = fork(); /* the sanitizer would end the tests behind this one */

	(void)state;
	assert_true(child >= 0);
	if (child == 0) {
		close(2);
		_exit(json_next(NULL) == NULL && json_name(NULL) == NULL ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void members_are_found_by_their_exact_name_and_walked_in_order(void **state)
{
	_clean_json_ struct json *j = parsed("{\"b\":1,\"a\":\"x\",\"B\":[true,false,null,{}],\"\":0}");
	static const char *const names[] = {"b", "a", "B", ""};
	struct json *m = json_first(j), *taken;
	bool b = false;

	(void)state;
	for (size_t i = 0; i < 4; i++, m = json_next(m))
		assert_string_equal(json_name(m), names[i]);
	assert_null(m);
	assert_int_equal(json_length(j), 4);
	assert_null(json_get(j, "A"));
	assert_non_null(json_get(j, ""));
	assert_string_equal(json_get_string(j, "a"), "x");
	assert_null(json_get_string(j, "b"));
	m = json_first(json_get(j, "B"));
	assert_null(json_name(m));
	assert_true(json_is_bool(m, &b) && b);
	m = json_next(m);
	assert_true(json_is_bool(m, &b) && !b);
	m = json_next(m);
	assert_true(json_is_null(m));
	assert_false(json_is_bool(m, &b));
	m = json_next(m);
	assert_true(json_is_object(m) && !json_is_array(m));
	assert_null(json_next(m));
	json_remove(j, "nobody");
	json_remove(j, "b");
	assert_null(json_get(j, "b"));
	assert_null(json_take(j, "b"));
	taken = json_take(j, "a");
	assert_string_equal(json_string(taken), "x");
	json_free(taken);
	assert_int_equal(json_length(j), 2);
}

static void every_kind_is_named_for_people(void **state)
{
	static const char *const rows[][2] = {{"\"\"", "a string"}, {"0", "a number"},	{"true", "a boolean"},
					      {"null", "null"},	    {"[]", "an array"}, {"{}", "an object"}};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(rows); i++) {
		_clean_json_ struct json *j = parsed(rows[i][0]);

		assert_string_equal(json_kind(j), rows[i][1]);
	}
}

static void what_is_written_is_read_back_the_same(void **state)
{
	_clean_json_ struct json *j = json_object(), *back = NULL;
	_clean_free_ char *text = NULL, *again = NULL;
	struct json *list, *inner;
	struct phi_error e;

	(void)state;
	json_add_string(j, "text", "\"\\/\b\f\n\r\t\x01\x7f \xc3\xa9\xf0\x9f\x98\x80");
	json_add_string(j, "none", NULL);
	json_add_integer(j, "big", 4503599627370496);
	json_add_integer(j, "small", -4503599627370496);
	json_add_hex(j, "hex", UINT64_MAX);
	json_add_bool(j, "yes", true);
	json_add_null(j, "null");
	json_add_raw(j, "raw", "{\"a\":[1]}");
	json_add_raw(j, "rawless", NULL);
	list = json_add_array(j, "list");
	json_add_integer(list, NULL, 1);
	json_add_string(list, NULL, "two");
	inner = json_add_object(list, NULL);
	json_add_string(inner, "a/b~c", "");
	text = json_print(j);
	assert_string_equal(text, "{\"text\":\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\x7f \xc3\xa9\xf0\x9f\x98\x80\",\"none\":null,"
				  "\"big\":4503599627370496,\"small\":-4503599627370496,\"hex\":\"0xffffffffffffffff\","
				  "\"yes\":true,\"null\":null,\"raw\":{\"a\":[1]},\"rawless\":null,"
				  "\"list\":[1,\"two\",{\"a/b~c\":\"\"}]}");
	assert_done(json_parse(text, strlen(text), &back, &e), e);
	again = json_print(back);
	assert_string_equal(again, text);
}

static void every_integer_that_is_written_is_read_back(void **state)
{
	uint64_t seed = 5;

	(void)state;
	for (int i = 0; i < 4000; i++) {
		int64_t want = (int64_t)(unit_random(&seed) >> (11 + i % 53)) * (i % 2 ? 1 : -1), v = 0;
		_clean_json_ struct json *j = json_array(), *back = NULL;
		_clean_free_ char *text = NULL;

		json_add_integer(j, NULL, want);
		text = json_print(j);
		assert_int_equal(json_parse(text, strlen(text), &back, NULL), 0);
		assert_true(json_integer(json_first(back), &v));
		assert_true(v == want);
	}
}

static void every_prefix_of_a_document_is_refused(void **state)
{
	const char *text = "{\"a\":[1,-2.5e+3,\"\\ud83d\\ude00\xc3\xa9\",true,null],\"b\":{\"c\":false}}";

	(void)state;
	for (size_t n = 0; n < strlen(text); n++) {
		char *cut = malloc(n + 1); /* exactly as long: the sanitizer watches its end */
		struct json *j = NULL;

		assert_non_null(cut);
		memcpy(cut, text, n);
		assert_int_equal(json_parse(cut, n, &j, NULL), -EBADMSG);
		free(cut);
	}
	json_free(parsed(text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_breach_of_the_grammar_is_refused_with_line_and_column),
		cmocka_unit_test(every_number_that_is_not_of_rfc_8259_is_refused),
		cmocka_unit_test(every_string_that_is_not_of_rfc_8259_is_refused_with_its_column),
		cmocka_unit_test(a_zero_byte_is_refused_wherever_it_stands),
		cmocka_unit_test(a_surrogate_must_be_in_a_pair),
		cmocka_unit_test(only_utf8_passes_and_each_code_point_in_one_form_only),
		cmocka_unit_test(a_member_twice_in_one_object_is_refused_by_name_however_deep),
		cmocka_unit_test(nesting_is_bounded),
		cmocka_unit_test(the_members_of_one_object_are_bounded_and_the_elements_of_an_array_are_not),
		cmocka_unit_test(an_integer_is_exact_or_none),
		cmocka_unit_test(a_number_of_many_digits_is_read_whole),
		cmocka_unit_test(readers_take_null_and_answer_not_that),
		cmocka_unit_test(also_next_and_name_take_null),
		cmocka_unit_test(members_are_found_by_their_exact_name_and_walked_in_order),
		cmocka_unit_test(every_kind_is_named_for_people),
		cmocka_unit_test(what_is_written_is_read_back_the_same),
		cmocka_unit_test(every_integer_that_is_written_is_read_back),
		cmocka_unit_test(every_prefix_of_a_document_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
