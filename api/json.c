/* The strict scanner, and cJSON behind it. See json.h. */
#include "json.h"

#include "error.h"
#include "limits.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- the scanner: RFC 8259 grammar, RFC 3629 UTF-8, our bounds ---- */

struct scan {
	const unsigned char *text, *p, *end;
	const char *wrong; /* what the rule is, once something broke it */
};

static bool fail(struct scan *s, const char *why)
{
	if (s->wrong == NULL)
		s->wrong = why;
	return false;
}

static void skip_space(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
		s->p++;
}

/* One UTF-8 sequence of two bytes or more; no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool scan_utf8(struct scan *s)
{
	unsigned char c = *s->p, low = 0x80, high = 0xbf;
	int more = c >= 0xc2 && c <= 0xdf ? 1 : c >= 0xe0 && c <= 0xef ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0;

	if (more == 0 || s->end - s->p <= more)
		return fail(s, "the text is not UTF-8");
	if (c == 0xe0)
		low = 0xa0;
	else if (c == 0xed)
		high = 0x9f;
	else if (c == 0xf0)
		low = 0x90;
	else if (c == 0xf4)
		high = 0x8f;
	for (int i = 1; i <= more; i++, low = 0x80, high = 0xbf)
		if (s->p[i] < low || s->p[i] > high)
			return fail(s, "the text is not UTF-8");
	s->p += more + 1;
	return true;
}

/* Four hex digits behind \u; -1 if they are none. */
static int scan_hex4(struct scan *s)
{
	int v = 0;

	if (s->end - s->p < 4)
		return -1;
	for (int i = 0; i < 4; i++, s->p++) {
		unsigned char c = *s->p;
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : c >= 'A' && c <= 'F' ? c - 'A' + 10
						   : -1;
		if (digit < 0)
			return -1;
		v = v * 16 + digit;
	}
	return v;
}

static bool scan_escape(struct scan *s)
{
	int v;

	s->p++;
	if (s->p >= s->end)
		return fail(s, "the string has no end");
	if (*s->p != 'u') {
		if (strchr("\"\\/bfnrt", *s->p) == NULL || *s->p == '\0')
			return fail(s, "there is no such escape");
		s->p++;
		return true;
	}
	s->p++;
	v = scan_hex4(s);
	if (v < 0)
		return fail(s, "\\u needs four hex digits");
	if (v == 0)
		return fail(s, "\\u0000 is not allowed in a string");
	if (v >= 0xdc00 && v <= 0xdfff)
		return fail(s, "a low surrogate stands alone");
	if (v >= 0xd800 && v <= 0xdbff) {
		if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u')
			return fail(s, "a high surrogate stands alone");
		s->p += 2;
		v = scan_hex4(s);
		if (v < 0xdc00 || v > 0xdfff)
			return fail(s, "a high surrogate stands alone");
	}
	return true;
}

static bool scan_string(struct scan *s)
{
	s->p++; /* the opening quote */
	while (s->p < s->end) {
		if (*s->p == '"') {
			s->p++;
			return true;
		}
		if (*s->p < 0x20)
			return fail(s, "a control character in a string must be escaped");
		if (*s->p == '\\') {
			if (!scan_escape(s))
				return false;
		} else if (*s->p < 0x80) {
			s->p++;
		} else if (!scan_utf8(s)) {
			return false;
		}
	}
	return fail(s, "the string has no end");
}

static bool scan_digits(struct scan *s)
{
	if (s->p >= s->end || *s->p < '0' || *s->p > '9')
		return fail(s, "this is not a JSON number");
	while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
		s->p++;
	return true;
}

static bool scan_number(struct scan *s)
{
	if (*s->p == '-')
		s->p++;
	if (s->p < s->end && *s->p == '0') {
		s->p++;
		if (s->p < s->end && *s->p >= '0' && *s->p <= '9')
			return fail(s, "a number must not begin with 0");
	} else if (!scan_digits(s)) {
		return false;
	}
	if (s->p < s->end && *s->p == '.') {
		s->p++;
		if (!scan_digits(s))
			return false;
	}
	if (s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
		s->p++;
		if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
			s->p++;
		return scan_digits(s);
	}
	return true;
}

static bool scan_word(struct scan *s, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
		return fail(s, "a value was expected here");
	s->p += n;
	return true;
}

static bool scan_value(struct scan *s, int depth);

static bool scan_container(struct scan *s, int depth, bool object)
{
	const unsigned char close = object ? '}' : ']';
	unsigned members = 0;

	if (depth >= PHI_JSON_DEPTH_MAX)
		return fail(s, "the document is nested too deeply");
	s->p++;
	skip_space(s);
	if (s->p < s->end && *s->p == close) {
		s->p++;
		return true;
	}
	for (;;) {
		if (object) {
			if (++members > PHI_JSON_MEMBERS_MAX)
				return fail(s, "an object has too many members");
			skip_space(s);
			if (s->p >= s->end || *s->p != '"')
				return fail(s, "a member name in quotes was expected here");
			if (!scan_string(s))
				return false;
			skip_space(s);
			if (s->p >= s->end || *s->p != ':')
				return fail(s, "a colon was expected here");
			s->p++;
		}
		if (!scan_value(s, depth + 1))
			return false;
		skip_space(s);
		if (s->p < s->end && *s->p == ',') {
			s->p++;
			continue;
		}
		if (s->p < s->end && *s->p == close) {
			s->p++;
			return true;
		}
		return fail(s, object ? "a comma or } was expected here" : "a comma or ] was expected here");
	}
}

static bool scan_value(struct scan *s, int depth)
{
	skip_space(s);
	if (s->p >= s->end)
		return fail(s, "the document ends too early");
	switch (*s->p) {
	case '{':
		return scan_container(s, depth, true);
	case '[':
		return scan_container(s, depth, false);
	case '"':
		return scan_string(s);
	case 't':
		return scan_word(s, "true");
	case 'f':
		return scan_word(s, "false");
	case 'n':
		return scan_word(s, "null");
	default:
		if (*s->p == '-' || (*s->p >= '0' && *s->p <= '9'))
			return scan_number(s);
		return fail(s, "a value was expected here");
	}
}

/* Line and column (in bytes) of the place, both from 1. */
static void scan_place(const struct scan *s, unsigned *line, unsigned *column)
{
	*line = *column = 1;
	for (const unsigned char *p = s->text; p < s->p; p++) {
		if (*p == '\n') {
			(*line)++;
			*column = 1;
		} else {
			(*column)++;
		}
	}
}

/* ---- cJSON ---- */

static cJSON *c(const struct json *j)
{
	return (cJSON *)(uintptr_t)j;
}

static struct json *made(cJSON *item)
{
	if (item == NULL)
		abort(); /* out of memory */
	return (struct json *)item;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A name that an object below item has twice, or NULL. */
static const char *find_duplicate(const cJSON *item)
{
	const char *names[PHI_JSON_MEMBERS_MAX];
	size_t n = 0;

	for (const cJSON *m = item->child; m != NULL; m = m->next) {
		const char *below = m->child != NULL ? find_duplicate(m) : NULL;

		if (below != NULL)
			return below;
		if (cJSON_IsObject(item) && n < PHI_COUNT(names))
			names[n++] = m->string;
	}
	qsort(names, n, sizeof(names[0]), compare_names);
	for (size_t i = 1; i < n; i++)
		if (strcmp(names[i - 1], names[i]) == 0)
			return names[i];
	return NULL;
}

int json_parse(const char *text, size_t len, struct json **ret, struct phi_error *e)
{
	struct scan s = {.text = (const unsigned char *)text,
			 .p = (const unsigned char *)text,
			 .end = (const unsigned char *)text + len};
	const char *twice;
	cJSON *tree;

	if (scan_value(&s, 0)) {
		skip_space(&s);
		if (s.p < s.end)
			fail(&s, "there is more text behind the document");
	}
	if (s.wrong != NULL) {
		unsigned line, column;

		scan_place(&s, &line, &column);
		return phi_error_set(e, PHI_BAD_REQUEST, EBADMSG, "", "not JSON at line %u, column %u: %s", line,
				     column, s.wrong);
	}
	tree = cJSON_ParseWithLengthOpts(text, len, NULL, false);
	if (tree == NULL)
		return phi_error_set(e, PHI_INTERNAL, ENOMEM, "", "there is no memory for the JSON document");
	twice = find_duplicate(tree);
	if (twice != NULL) {
		int r = phi_error_set(e, PHI_BAD_REQUEST, EBADMSG, "", "an object has the member \"%.100s\" twice",
				      twice);
		cJSON_Delete(tree);
		return r;
	}
	*ret = (struct json *)tree;
	return 0;
}

void json_free(struct json *j)
{
	cJSON_Delete(c(j));
}

bool json_is_object(const struct json *j)
{
	return cJSON_IsObject(c(j));
}

bool json_is_array(const struct json *j)
{
	return cJSON_IsArray(c(j));
}

bool json_is_null(const struct json *j)
{
	return cJSON_IsNull(c(j));
}

bool json_is_bool(const struct json *j, bool *ret)
{
	if (!cJSON_IsBool(c(j)))
		return false;
	*ret = cJSON_IsTrue(c(j));
	return true;
}

bool json_number(const struct json *j)
{
	return cJSON_IsNumber(c(j));
}

const char *json_string(const struct json *j)
{
	return cJSON_GetStringValue(c(j));
}

bool json_integer(const struct json *j, int64_t *ret)
{
	double v;

	if (!cJSON_IsNumber(c(j)))
		return false;
	v = c(j)->valuedouble;
	if (!(fabs(v) < 9007199254740992.0) || v != floor(v))
		return false;
	*ret = (int64_t)v;
	return true;
}

struct json *json_get(const struct json *object, const char *name)
{
	return (struct json *)cJSON_GetObjectItemCaseSensitive(c(object), name);
}

struct json *json_first(const struct json *j)
{
	return j != NULL ? (struct json *)c(j)->child : NULL;
}

struct json *json_next(const struct json *j)
{
	return j != NULL ? (struct json *)c(j)->next : NULL;
}

const char *json_name(const struct json *member)
{
	return member != NULL ? c(member)->string : NULL;
}

size_t json_length(const struct json *j)
{
	return (size_t)cJSON_GetArraySize(c(j));
}

const char *json_get_string(const struct json *object, const char *name)
{
	return json_string(json_get(object, name));
}

const char *json_kind(const struct json *j)
{
	const cJSON *i = c(j);

	return cJSON_IsString(i)   ? "a string"
	       : cJSON_IsNumber(i) ? "a number"
	       : cJSON_IsBool(i)   ? "a boolean"
	       : cJSON_IsNull(i)   ? "null"
	       : cJSON_IsArray(i)  ? "an array"
	       : cJSON_IsObject(i) ? "an object"
				   : "nothing";
}

struct json *json_object(void)
{
	return made(cJSON_CreateObject());
}

struct json *json_array(void)
{
	return made(cJSON_CreateArray());
}

void json_add(struct json *to, const char *name, struct json *item)
{
	if (!(name ? cJSON_AddItemToObject(c(to), name, c(item)) : cJSON_AddItemToArray(c(to), c(item))))
		abort();
}

void json_add_string(struct json *to, const char *name, const char *value)
{
	json_add(to, name, made(value ? cJSON_CreateString(value) : cJSON_CreateNull()));
}

void json_add_integer(struct json *to, const char *name, int64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, value);
	json_add_raw(to, name, text);
}

void json_add_hex(struct json *to, const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%" PRIx64, value);
	json_add_string(to, name, text);
}

void json_add_bool(struct json *to, const char *name, bool value)
{
	json_add(to, name, made(cJSON_CreateBool(value)));
}

void json_add_null(struct json *to, const char *name)
{
	json_add(to, name, made(cJSON_CreateNull()));
}

void json_add_raw(struct json *to, const char *name, const char *text)
{
	json_add(to, name, made(text ? cJSON_CreateRaw(text) : cJSON_CreateNull()));
}

struct json *json_add_object(struct json *to, const char *name)
{
	struct json *o = json_object();

	json_add(to, name, o);
	return o;
}

struct json *json_add_array(struct json *to, const char *name)
{
	struct json *a = json_array();

	json_add(to, name, a);
	return a;
}

char *json_print(const struct json *j)
{
	char *text = cJSON_PrintUnformatted(c(j));

	if (text == NULL)
		abort();
	return text;
}

char *json_print_lines(const struct json *j)
{
	char *text = cJSON_Print(c(j));

	if (text == NULL)
		abort();
	return text;
}

void json_remove(struct json *object, const char *name)
{
	cJSON_DeleteItemFromObjectCaseSensitive(c(object), name);
}

struct json *json_take(struct json *object, const char *name)
{
	return (struct json *)cJSON_DetachItemFromObjectCaseSensitive(c(object), name);
}
