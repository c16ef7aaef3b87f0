/* The members of a cell file's structs: where each is in the file and in our struct, and how people see it. Shared by the codec and
 * the document. */
#pragma once

#include "cell.h"

enum jh_form { JH_DECIMAL, JH_HEX };

struct jh_member {
	const char *name;
	size_t at, size; /* in the file; 1, 2, 4 or 8 bytes */
	size_t to;	 /* offset in the struct */
	enum jh_form form;
	const char *const *words; /* flags: bit i is words[i]; ends in NULL */
};

struct jh_list_table {
	const char *name;
	size_t size;	  /* of an item in the file; memory's is the flavour's */
	size_t in_memory; /* of an item */
	const struct jh_member *members; /* ends in a NULL name */
};
extern const struct jh_list_table jh_lists[JH_LISTS];

uint64_t jh_member_get(const void *s, const struct jh_member *m);
void jh_member_set(void *s, const struct jh_member *m, uint64_t v);
