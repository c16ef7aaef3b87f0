/* What the unit tests share: cmocka, and the checks of our errors. Included first by each test program. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "clean.h"
#include "error.h"

#include <stdio.h>
#include <string.h>

/* The call answers 0. The error's sentence is shown where it does not. */
#define assert_done(call, e)                                                                                 \
	do {                                                                                                 \
		(e) = (struct phi_error){0};                                                                 \
		if ((call) < 0)                                                                              \
			fail_msg("%s: %s: %s", phi_code_name((e).code), (e).pointer, (e).detail);            \
	} while (0)

/* The call is refused with this code at this JSON pointer, with a sentence. */
#define assert_refused(call, e, want, where)                                                                 \
	do {                                                                                                 \
		(e) = (struct phi_error){0};                                                                 \
		if ((call) >= 0)                                                                             \
			fail_msg("%s was accepted", #call);                                                  \
		assert_string_equal(phi_code_name((e).code), phi_code_name(want));                           \
		assert_string_equal((e).pointer, where);                                                     \
		assert_true((e).detail[0] != '\0');                                                          \
	} while (0)

#define assert_contains(text, part)                                                                          \
	do {                                                                                                 \
		if (strstr((text), (part)) == NULL)                                                          \
			fail_msg("\"%s\" does not contain \"%s\"", (text), (part));                          \
	} while (0)

/* xorshift64*: the same numbers at every run. */
static inline uint64_t unit_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * UINT64_C(2685821657736338717);
}
