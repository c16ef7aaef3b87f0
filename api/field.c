/* Reading, writing and freeing structs by tables. See field.h. */
#include "field.h"

#include "cpuset.h"
#include "error.h"
#include "id.h"
#include "json.h"
#include "limits.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define AT(base, type, off) ((type *)(void *)((char *)(base) + (off)))
#define CONST_AT(base, type, off) ((const type *)(const void *)((const char *)(base) + (off)))

bool field_parse_size(const char *text, uint64_t *ret)
{
	char *end;
	int shift = 0;
	unsigned long long v;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	v = strtoull(text, &end, text[0] == '0' && text[1] == 'x' ? 16 : 10);
	switch (*end) {
	case 'K':
		shift = 10;
		break;
	case 'M':
		shift = 20;
		break;
	case 'G':
		shift = 30;
		break;
	case 'T':
		shift = 40;
		break;
	}
	if (shift != 0)
		end++;
	if (errno != 0 || *end != '\0' || v > UINT64_MAX >> shift)
		return false;
	*ret = (uint64_t)v << shift;
	return true;
}

bool field_parse_address(const char *text, uint64_t *ret)
{
	size_t digits = text[0] == '0' && text[1] == 'x' ? strspn(text + 2, "0123456789abcdefABCDEF") : 0;
	unsigned long long v;

	if (digits == 0 || text[2 + digits] != '\0')
		return false;
	errno = 0;
	v = strtoull(text + 2, NULL, 16);
	if (errno != 0 || v >= PHI_ADDRESS_MAX)
		return false;
	*ret = v;
	return true;
}

void field_pointer_join(char *out, size_t size, const char *base, const char *name)
{
	size_t n = (size_t)snprintf(out, size, "%s/", base);

	for (; *name != '\0' && n + 3 < size; name++) {
		if (*name == '~' || *name == '/') {
			out[n++] = '~';
			out[n++] = *name == '~' ? '0' : '1';
		} else {
			out[n++] = *name;
		}
	}
	if (n < size)
		out[n] = '\0';
}

static int wrong_type(const struct json *j, const char *want, const char *pointer, struct phi_error *e)
{
	return phi_error_set(e, PHI_INVALID, EINVAL, pointer, "%s was expected, not %s", want, json_kind(j));
}

static char *dup_or_die(const char *s)
{
	char *d = strdup(s);

	if (d == NULL)
		abort();
	return d;
}

static void *zeroed_or_die(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (p == NULL)
		abort();
	return p;
}

/* An absolute path in which no component is "..", so that what is asked for is what is written. */
int field_check_path(const char *s, const char *pointer, struct phi_error *e)
{
	size_t n = strlen(s);

	if (s[0] != '/' || n > PHI_PATH_MAX || n < 2)
		return phi_error_set(e, PHI_INVALID, EINVAL, pointer,
				     "\"%.60s\" is not an absolute path of a file (at most %d bytes)", s,
				     PHI_PATH_MAX);
	for (const char *p = s; (p = strstr(p, "/..")) != NULL; p += 3)
		if (p[3] == '/' || p[3] == '\0')
			return phi_error_set(e, PHI_INVALID, EINVAL, pointer, "\"%.60s\": a path must not have \"..\"",
					     s);
	return 0;
}

static int read_string(const struct json *j, const struct field *f, const char *pointer, char **ret,
		       struct phi_error *e)
{
	const char *s = json_string(j);
	int r = 0;

	if (s == NULL)
		return wrong_type(j, "a string", pointer, e);
	if (f->type == FIELD_PATH)
		r = field_check_path(s, pointer, e);
	else if (f->type == FIELD_ID)
		r = id_check(s, pointer, e);
	else if (strlen(s) < f->min || strlen(s) > f->max)
		r = phi_error_set(e, PHI_INVALID, EINVAL, pointer,
				  "the text has %zu bytes; %" PRIu64 " to %" PRIu64 " are allowed", strlen(s), f->min,
				  f->max);
	if (r == 0)
		*ret = dup_or_die(s);
	return r;
}

static int read_size(const struct json *j, const struct field *f, enum field_form form, const char *pointer,
		     uint64_t *ret, struct phi_error *e)
{
	const char *text = json_string(j);
	int64_t v = 0;
	uint64_t u;

	if (form == FIELD_FILE && text != NULL) {
		if (!field_parse_size(text, &u))
			return phi_error_set(e, PHI_INVALID, EINVAL, pointer,
					     "\"%.40s\" is not a size: bytes, \"16M\" or \"0x1000000\" were expected",
					     text);
	} else if (!json_integer(j, &v)) {
		return json_number(j) ? phi_error_set(e, PHI_INVALID, ERANGE, pointer,
						      "the number is not a whole number of bytes below 2^53")
				      : wrong_type(j, "a number of bytes", pointer, e);
	} else if (v < 0) {
		return phi_error_set(e, PHI_INVALID, ERANGE, pointer, "%" PRId64 " is negative", v);
	} else {
		u = (uint64_t)v;
	}
	if (u < f->min || u > f->max)
		return phi_error_set(e, PHI_INVALID, ERANGE, pointer,
				     "%" PRIu64 " bytes are outside of %" PRIu64 " to %" PRIu64, u, f->min, f->max);
	*ret = u;
	return 0;
}

static int read_enum(const struct json *j, const struct field *f, const char *pointer, int *ret,
		     struct phi_error *e)
{
	const char *s = json_string(j);
	char words[200] = "";

	if (s == NULL)
		return wrong_type(j, "a string", pointer, e);
	for (int i = 0; f->words[i] != NULL; i++) {
		if (strcmp(f->words[i], s) == 0) {
			*ret = i;
			return 0;
		}
		if (f->words[i][0] != '\0') {
			size_t n = strlen(words);

			snprintf(words + n, sizeof(words) - n, "%s%s", n ? ", " : "", f->words[i]);
		}
	}
	return phi_error_set(e, PHI_INVALID, EINVAL, pointer, "\"%.40s\" is none of: %s", s, words);
}

static int read_array(const struct json *j, const struct field *f, enum field_form form, const char *pointer,
		      struct field_array *ret, struct phi_error *e)
{
	size_t n = 0;

	if (!json_is_array(j))
		return wrong_type(j, "an array", pointer, e);
	if (json_length(j) > f->max)
		return phi_error_set(e, PHI_INVALID, ERANGE, pointer, "%zu items; at most %" PRIu64 " are allowed",
				     json_length(j), f->max);
	if (json_length(j) == 0)
		return 0;
	ret->items = zeroed_or_die(json_length(j), f->sub->size);
	for (const struct json *i = json_first(j); i != NULL; i = json_next(i)) {
		char number[24], where[160];
		int r;

		snprintf(number, sizeof(number), "%zu", n);
		field_pointer_join(where, sizeof(where), pointer, number);
		ret->n = ++n; /* counted before it is read, so that a failed one is freed as well */
		r = fields_read(i, f->sub, form, where, (char *)ret->items + (n - 1) * f->sub->size, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_strings(const struct json *j, const struct field *f, const char *pointer,
			struct field_strings *ret, struct phi_error *e)
{
	bool named = f->type == FIELD_STRINGS;
	size_t n = 0;

	if (named ? !json_is_object(j) : !json_is_array(j))
		return wrong_type(j, named ? "an object" : "an array", pointer, e);
	if (json_length(j) > f->max)
		return phi_error_set(e, PHI_INVALID, ERANGE, pointer, "%zu members; at most %" PRIu64 " are allowed",
				     json_length(j), f->max);
	ret->names = zeroed_or_die(json_length(j), sizeof(char *));
	ret->values = zeroed_or_die(json_length(j), sizeof(char *));
	for (const struct json *i = json_first(j); i != NULL; i = json_next(i), n++) {
		const char *s = json_string(i);
		char number[24], where[160];

		snprintf(number, sizeof(number), "%zu", n);
		field_pointer_join(where, sizeof(where), pointer, named ? json_name(i) : number);
		if (s == NULL)
			return wrong_type(i, "a string", where, e);
		if (strlen(s) > PHI_LABEL_VALUE_MAX || (named && (json_name(i)[0] == '\0' || strlen(json_name(i)) > 255)))
			return phi_error_set(e, PHI_INVALID, ERANGE, where,
					     "names have 1 to 255 bytes, values at most %d", PHI_LABEL_VALUE_MAX);
		ret->names[n] = named ? dup_or_die(json_name(i)) : NULL;
		ret->values[n] = dup_or_die(s);
		ret->n = n + 1;
	}
	return 0;
}

static int read_blob(const struct json *j, const char *pointer, struct field_blob *ret, struct phi_error *e)
{
	const struct field path = {.type = FIELD_PATH};
	char where[160];

	if (json_string(j) != NULL)
		return read_string(j, &path, pointer, &ret->path, e);
	if (!json_is_object(j))
		return wrong_type(j, "a path or an object with one", pointer, e);
	for (const struct json *m = json_first(j); m != NULL; m = json_next(m)) {
		const char *name = json_name(m), *s = json_string(m);

		field_pointer_join(where, sizeof(where), pointer, name);
		if (strcmp(name, "path") == 0) {
			int r = read_string(m, &path, where, &ret->path, e);

			if (r < 0)
				return r;
		} else if (strcmp(name, "sha256") == 0) {
			if (s != NULL && strncmp(s, "sha256:", 7) == 0)
				s += 7;
			if (s == NULL || strlen(s) != 64 || strspn(s, "0123456789abcdef") != 64)
				return phi_error_set(e, PHI_INVALID, EINVAL, where,
						     "64 lower-case hex digits were expected");
			ret->sha256 = dup_or_die(s);
		} else if (strcmp(name, "at") == 0) {
			if (s == NULL || !field_parse_address(s, &ret->at))
				return phi_error_set(e, PHI_INVALID, EINVAL, where,
						     "an address like \"0x80000\" below 2^62 was expected");
			ret->has_at = true;
		} else {
			return phi_error_set(e, PHI_UNKNOWN_MEMBER, EINVAL, where,
					     "there is no such member; path, sha256 and at are known");
		}
	}
	if (ret->path == NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, pointer, "the member \"path\" is missing");
	return 0;
}

static int read_integer(const struct json *j, const struct field *f, const char *pointer, int64_t *ret,
			struct phi_error *e)
{
	int64_t v;

	if (!json_integer(j, &v))
		return json_number(j) ? phi_error_set(e, PHI_INVALID, ERANGE, pointer,
						      "the number is not a whole number below 2^53")
				      : wrong_type(j, "a whole number", pointer, e);
	if (v < (int64_t)f->min || v > (int64_t)f->max)
		return phi_error_set(e, PHI_INVALID, ERANGE, pointer,
				     "%" PRId64 " is outside of %" PRId64 " to %" PRId64, v, (int64_t)f->min,
				     (int64_t)f->max);
	*ret = v;
	return 0;
}

void field_blob_free(struct field_blob *b)
{
	free(b->path);
	free(b->sha256);
	*b = (struct field_blob){0};
}

/* Frees what one member holds and leaves it zero. */
static void free_field(void *s, const struct field *f)
{
	switch (f->type) {
	case FIELD_STRING:
	case FIELD_PATH:
	case FIELD_ID:
		free(*AT(s, char *, f->offset));
		*AT(s, char *, f->offset) = NULL;
		break;
	case FIELD_OBJECT:
		fields_free(AT(s, char, f->offset), f->sub);
		break;
	case FIELD_ARRAY: {
		struct field_array *a = AT(s, struct field_array, f->offset);

		for (size_t i = 0; i < a->n; i++)
			fields_free((char *)a->items + i * f->sub->size, f->sub);
		free(a->items);
		*a = (struct field_array){0};
		break;
	}
	case FIELD_STRINGS:
	case FIELD_TEXTS: {
		struct field_strings *a = AT(s, struct field_strings, f->offset);

		for (size_t i = 0; i < a->n; i++) {
			free(a->names[i]);
			free(a->values[i]);
		}
		free(a->names);
		free(a->values);
		*a = (struct field_strings){0};
		break;
	}
	case FIELD_BLOB:
		field_blob_free(AT(s, struct field_blob, f->offset));
		break;
	default:
		break;
	}
}

void fields_free(void *s, const struct field_table *t)
{
	for (const struct field *f = t->fields; f->name != NULL; f++)
		free_field(s, f);
}

/* In place of what the member had. */
static int read_field(const struct json *j, const struct field *f, enum field_form form, const char *pointer,
		      void *out, struct phi_error *e)
{
	const char *s = json_string(j);

	if (f->type != FIELD_OBJECT) /* whose members are replaced one by one */
		free_field(out, f);
	switch (f->type) {
	case FIELD_STRING:
	case FIELD_PATH:
	case FIELD_ID:
		return read_string(j, f, pointer, AT(out, char *, f->offset), e);
	case FIELD_INTEGER:
		return read_integer(j, f, pointer, AT(out, int64_t, f->offset), e);
	case FIELD_SIZE:
		return read_size(j, f, form, pointer, AT(out, uint64_t, f->offset), e);
	case FIELD_ADDRESS:
		if (s == NULL || !field_parse_address(s, AT(out, uint64_t, f->offset)))
			return phi_error_set(e, PHI_INVALID, EINVAL, pointer,
					     "an address like \"0x80000\" below 2^62 was expected");
		return 0;
	case FIELD_BOOL:
		return json_is_bool(j, AT(out, bool, f->offset)) ? 0 : wrong_type(j, "true or false", pointer, e);
	case FIELD_ENUM:
		return read_enum(j, f, pointer, AT(out, int, f->offset), e);
	case FIELD_CPUS:
		return s != NULL ? cpuset_parse(s, pointer, AT(out, struct cpuset, f->offset), e)
				 : wrong_type(j, "a list of CPUs in a string", pointer, e);
	case FIELD_OBJECT:
		return fields_read(j, f->sub, form, pointer, AT(out, char, f->offset), e);
	case FIELD_ARRAY:
		return read_array(j, f, form, pointer, AT(out, struct field_array, f->offset), e);
	case FIELD_STRINGS:
	case FIELD_TEXTS:
		return read_strings(j, f, pointer, AT(out, struct field_strings, f->offset), e);
	case FIELD_BLOB:
		return read_blob(j, pointer, AT(out, struct field_blob, f->offset), e);
	case FIELD_ANY:
		return 0;
	case FIELD_NOT_BUILT:
		return phi_error_set(e, PHI_NOT_BUILT, EOPNOTSUPP, pointer,
				     "\"%s\" is defined but not built yet; leave it out", f->name);
	}
	return -EINVAL;
}

int fields_read(const struct json *j, const struct field_table *t, enum field_form form, const char *pointer,
		void *out, struct phi_error *e)
{
	if (!json_is_object(j))
		return wrong_type(j, "an object", pointer, e);
	for (const struct json *m = json_first(j); m != NULL; m = json_next(m)) {
		const struct field *f = t->fields;
		char where[160];
		int r;

		while (f->name != NULL && strcmp(f->name, json_name(m)) != 0)
			f++;
		field_pointer_join(where, sizeof(where), pointer, json_name(m));
		if (f->name == NULL)
			return phi_error_set(e, PHI_UNKNOWN_MEMBER, EINVAL, where, "there is no member \"%.60s\" here",
					     json_name(m));
		if (json_is_null(m) && !f->required && f->type != FIELD_NOT_BUILT)
			continue;
		r = read_field(m, f, form, where, out, e);
		if (r < 0)
			return r;
		if (f->present != 0)
			*AT(out, bool, f->present) = true;
	}
	for (const struct field *f = t->fields; f->name != NULL; f++)
		if (f->required && json_get(j, f->name) == NULL)
			return phi_error_set(e, PHI_INVALID, EINVAL, pointer, "the member \"%s\" is missing", f->name);
	return 0;
}

int fields_read_text(const char *path, const char *text, const struct field_table *t, const char *pointer, void *out, struct phi_error *e)
{
	size_t n = strcspn(path, ".");
	const struct field *f = t->fields;
	_clean_json_ struct json *j = NULL, *list = json_array();
	int r;

	while (f->name != NULL && (strlen(f->name) != n || strncmp(f->name, path, n) != 0))
		f++;
	if (f->name != NULL && path[n] == '.' && f->type == FIELD_OBJECT)
		return fields_read_text(path + n + 1, text, f->sub, pointer, out != NULL ? AT(out, char, f->offset) : NULL, e);
	if (f->name == NULL || path[n] == '.' || f->type == FIELD_OBJECT)
		return phi_error_set(e, PHI_UNKNOWN_MEMBER, EINVAL, pointer, "there is no such member");
	if (out == NULL)
		return 0;
	if (f->type == FIELD_INTEGER || f->type == FIELD_BOOL || (f->type != FIELD_STRING && (text[0] == '{' || text[0] == '['))) {
		r = json_parse(text, strlen(text), &j, e);
		if (r < 0)
			return phi_error_set(e, PHI_INVALID, EINVAL, pointer, "\"%.60s\" is not the JSON of this member", text);
	} else {
		json_add_string(list, NULL, text);
	}
	r = read_field(j != NULL ? j : json_first(list), f, FIELD_FILE, pointer, out, e);
	if (r == 0 && f->present != 0)
		*AT(out, bool, f->present) = true;
	return r;
}

static void write_blob(const struct field_blob *b, const char *name, struct json *to)
{
	struct json *o;

	if (b->path == NULL)
		return;
	if (b->sha256 == NULL && !b->has_at) {
		json_add_string(to, name, b->path);
		return;
	}
	o = json_add_object(to, name);
	json_add_string(o, "path", b->path);
	if (b->sha256 != NULL)
		json_add_string(o, "sha256", b->sha256);
	if (b->has_at)
		json_add_hex(o, "at", b->at);
}

static void write_field(const void *in, const struct field *f, struct json *to)
{
	switch (f->type) {
	case FIELD_STRING:
	case FIELD_PATH:
	case FIELD_ID:
		if (*CONST_AT(in, char *, f->offset) != NULL)
			json_add_string(to, f->name, *CONST_AT(in, char *, f->offset));
		return;
	case FIELD_INTEGER:
		json_add_integer(to, f->name, *CONST_AT(in, int64_t, f->offset));
		return;
	case FIELD_SIZE:
		json_add_integer(to, f->name, (int64_t)*CONST_AT(in, uint64_t, f->offset));
		return;
	case FIELD_ADDRESS:
		json_add_hex(to, f->name, *CONST_AT(in, uint64_t, f->offset));
		return;
	case FIELD_BOOL:
		json_add_bool(to, f->name, *CONST_AT(in, bool, f->offset));
		return;
	case FIELD_ENUM: {
		const char *word = f->words[*CONST_AT(in, int, f->offset)];

		if (word[0] != '\0')
			json_add_string(to, f->name, word);
		return;
	}
	case FIELD_CPUS: {
		char text[CPUSET_TEXT_MAX];

		cpuset_format(CONST_AT(in, struct cpuset, f->offset), text, sizeof(text));
		json_add_string(to, f->name, text);
		return;
	}
	case FIELD_OBJECT: {
		struct json *o = json_object();

		fields_write(CONST_AT(in, char, f->offset), f->sub, o);
		if (json_first(o) != NULL)
			json_add(to, f->name, o);
		else
			json_free(o);
		return;
	}
	case FIELD_ARRAY: {
		const struct field_array *a = CONST_AT(in, struct field_array, f->offset);
		struct json *list;

		if (a->n == 0)
			return;
		list = json_add_array(to, f->name);
		for (size_t i = 0; i < a->n; i++) {
			struct json *o = json_object();

			fields_write((const char *)a->items + i * f->sub->size, f->sub, o);
			json_add(list, NULL, o);
		}
		return;
	}
	case FIELD_STRINGS:
	case FIELD_TEXTS: {
		const struct field_strings *s = CONST_AT(in, struct field_strings, f->offset);
		struct json *o;

		if (s->n == 0)
			return;
		o = f->type == FIELD_STRINGS ? json_add_object(to, f->name) : json_add_array(to, f->name);
		for (size_t i = 0; i < s->n; i++)
			json_add_string(o, s->names[i], s->values[i]);
		return;
	}
	case FIELD_BLOB:
		write_blob(CONST_AT(in, struct field_blob, f->offset), f->name, to);
		return;
	case FIELD_ANY:
	case FIELD_NOT_BUILT:
		return;
	}
}

void fields_write(const void *in, const struct field_table *t, struct json *to)
{
	for (const struct field *f = t->fields; f->name != NULL; f++)
		if (f->present == 0 || *CONST_AT(in, bool, f->present))
			write_field(in, f, to);
}
