/* Structs from JSON and back, by tables. One table a struct says name, type, place and bounds of each member;
 * reading, writing, freeing and the OpenAPI check walk the same table. Pure (allocates strings and arrays). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json;
struct phi_error;

enum field_type {
	FIELD_STRING,	/* char * (owned), min..max bytes */
	FIELD_PATH,	/* char * (owned), absolute, no "..", at most PHI_PATH_MAX */
	FIELD_ID,	/* char *, a container id */
	FIELD_INTEGER,	/* int64_t, min..max */
	FIELD_SIZE,	/* uint64_t bytes, min..max; in files also "16M" or "0x..." */
	FIELD_ADDRESS,	/* uint64_t below 2^62, a hex string "0x..." */
	FIELD_BOOL,	/* bool */
	FIELD_ENUM,	/* int, index into `words` */
	FIELD_CPUS,	/* struct cpuset, a list "0,2-3" */
	FIELD_OBJECT,	/* a struct inside, by `sub` */
	FIELD_ARRAY,	/* struct field_array of structs by `sub`, at most max */
	FIELD_STRINGS,	/* struct field_strings: object of strings, at most max members */
	FIELD_TEXTS,	/* struct field_strings without names: array of strings */
	FIELD_BLOB,	/* struct field_blob: a path, or {path, sha256, at} */
	FIELD_ANY,	/* accepted and dropped: a note for people */
	FIELD_NOT_BUILT,/* defined by the design, not built: 501 by name */
};

struct field {
	const char *name;
	enum field_type type;
	size_t offset;
	uint64_t min, max;		/* see type */
	const char *const *words;	/* FIELD_ENUM, ends in NULL */
	const struct field_table *sub;	/* FIELD_OBJECT, FIELD_ARRAY */
	size_t present;			/* offset of a bool that says it was given, or 0 */
	bool required;
};

struct field_table {
	size_t size; /* of the struct */
	const struct field *fields; /* ends in a NULL name */
};

struct field_array {
	size_t n;
	void *items;
};

struct field_strings {
	size_t n;
	char **names, **values;
};

struct field_blob {
	char *path;
	char *sha256; /* 64 lower-case hex digits, or NULL */
	uint64_t at;
	bool has_at;
};

enum field_form {
	FIELD_WIRE, /* the API: sizes are integers */
	FIELD_FILE, /* a file that people write: sizes may be texts too */
};

/* Reads an object into a struct that is zeroed or was read before: a member it names takes the place of what was there.
 * Members that no row names are an error. On error what was read so far
 * is still in *out and freed by fields_free. pointer is the place of j in its document ("" for the root). */
int fields_read(const struct json *j, const struct field_table *t, enum field_form form, const char *pointer,
		void *out, struct phi_error *e);
/* Reads one member from a text that stands alone: numbers, true, false, objects and arrays are JSON, all else is the
 * string itself. path: names joined by dots ("cpus.count"); in arrays there is none. out NULL: only whether it exists. */
int fields_read_text(const char *path, const char *text, const struct field_table *t, const char *pointer, void *out,
		     struct phi_error *e);
/* Adds the struct's members to an object; absent ones (NULL, !present, empty) are left out. */
void fields_write(const void *in, const struct field_table *t, struct json *to);
void fields_free(void *s, const struct field_table *t);

void field_blob_free(struct field_blob *b); /* and zeroes it */

/* The rule of FIELD_PATH: absolute, names a file, no "..", at most PHI_PATH_MAX bytes. */
int field_check_path(const char *path, const char *pointer, struct phi_error *e);
/* "16M", "0x1000", "4096" (K, M, G, T are powers of 1024) as bytes. */
bool field_parse_size(const char *text, uint64_t *ret);
/* base + "/" + name with the escapes of RFC 6901; what does not fit is cut. */
void field_pointer_join(char *out, size_t size, const char *base, const char *name);
/* "0x..." below 2^62. */
bool field_parse_address(const char *text, uint64_t *ret);
