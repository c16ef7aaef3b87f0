/* JSON, strictly: the one place that knows cJSON. Everything else sees `struct json` and these functions.
 * Reading refuses what cJSON lets pass: bytes behind the document, duplicate members, \u0000, bad UTF-8,
 * numbers that are not RFC 8259's, too deep nesting, too many members. Pure (allocates). */
#pragma once

#include "clean.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json;
struct phi_error;

/* Parses len bytes. The error's sentence gives line and column, that of a duplicate its name. The caller frees *ret. */
int json_parse(const char *text, size_t len, struct json **ret, struct phi_error *e);
void json_free(struct json *j);
static inline void json_free_p(struct json **j)
{
	json_free(*j);
}
#define _clean_json_ _clean_(json_free_p)

/* Reading. All take NULL for j and answer "not that". */
bool json_is_object(const struct json *j);
bool json_is_array(const struct json *j);
bool json_is_null(const struct json *j);
bool json_is_bool(const struct json *j, bool *ret);
const char *json_string(const struct json *j);			/* NULL if it is none; lives as long as j */
bool json_integer(const struct json *j, int64_t *ret);		/* only integral, |v| < 2^53 */
bool json_number(const struct json *j);
struct json *json_get(const struct json *object, const char *name); /* case matters; NULL if absent */
struct json *json_first(const struct json *j);			/* first member or element */
struct json *json_next(const struct json *j);
const char *json_name(const struct json *member);
const char *json_kind(const struct json *j);			/* "a string", "an object", ... */
size_t json_length(const struct json *j);
/* Takes a member out of a document; NULL if there is none. The caller frees it. */
struct json *json_take(struct json *object, const char *name);
/* Deletes a member of a document that we hold; nothing happens if there is none. */
void json_remove(struct json *object, const char *name);
/* json_get and json_string in one. */
const char *json_get_string(const struct json *object, const char *name);

/* Writing. A NULL name adds to an array. A failed allocation ends the process: nothing sensible is left. */
struct json *json_object(void);
struct json *json_array(void);
void json_add(struct json *to, const char *name, struct json *item); /* takes item */
void json_add_string(struct json *to, const char *name, const char *value); /* NULL value: null */
void json_add_integer(struct json *to, const char *name, int64_t value);    /* |value| < 2^53 */
void json_add_hex(struct json *to, const char *name, uint64_t value);	    /* "0x..." */
void json_add_bool(struct json *to, const char *name, bool value);
void json_add_null(struct json *to, const char *name);
/* text is JSON that we made ourselves before (a column of the database); NULL adds null. */
void json_add_raw(struct json *to, const char *name, const char *text);
struct json *json_add_object(struct json *to, const char *name);
struct json *json_add_array(struct json *to, const char *name);
/* The document without spaces; the caller frees it. Numbers that were read keep 15 digits; those that json_add_integer
 * wrote, all. */
char *json_print(const struct json *j);
/* The same for people, a member a line. */
char *json_print_lines(const struct json *j);
