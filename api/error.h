/* What can go wrong, as values: the code table and the error that a function hands up.
 * Owns: the list of codes with their HTTP status, title and exit status. Does no I/O and allocates nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* One row a code: enum name, wire name, HTTP status, exit status of the command line, title. This table is
 * the only source of all four; the manual pages and the OpenAPI document are checked against it. */
#define PHI_ERROR_TABLE(X)                                                                                   \
	X(OK, "ok", 200, 0, "Success")                                                                       \
	X(BAD_REQUEST, "bad-request", 400, 2, "The request cannot be understood")                            \
	X(INVALID, "invalid", 422, 2, "A value breaks a rule")                                               \
	X(UNKNOWN_MEMBER, "unknown-member", 422, 2, "The request has a member that nobody defined")          \
	X(PAYLOAD, "payload", 422, 2, "A file of the image cannot be used")                                  \
	X(FORBIDDEN, "forbidden", 403, 4, "The caller may not do this")                                      \
	X(NOT_FOUND, "not-found", 404, 5, "There is no such thing")                                          \
	X(METHOD, "method-not-allowed", 405, 2, "The resource does not have this method")                    \
	X(EXISTS, "exists", 409, 6, "The id is taken by another container")                                  \
	X(STATE, "wrong-state", 409, 6, "The container's state does not allow this")                         \
	X(BUSY, "busy", 409, 6, "Another operation on the container is under way")                           \
	X(NO_RESOURCES, "no-resources", 409, 7, "The host cannot grant what was asked")                      \
	X(GONE, "gone", 410, 5, "It was there and is no longer")                                             \
	X(TOO_LARGE, "too-large", 413, 2, "The request is too large")                                        \
	X(KEY_REUSED, "key-reused", 422, 2, "The idempotency key was used for another request")              \
	X(TOO_MANY, "too-many", 429, 8, "Too many at once")                                                  \
	X(INTERNAL, "internal", 500, 1, "phid failed")                                                       \
	X(NOT_BUILT, "not-built", 501, 3, "This is defined but not built")                                   \
	X(UNSUPPORTED, "unsupported", 501, 3, "The backend cannot do this")                                  \
	X(BACKEND, "backend", 502, 1, "The hypervisor refused or failed")                                    \
	X(SHUTDOWN, "shutting-down", 503, 8, "phid is stopping")                                             \
	X(DEADLINE, "deadline", 504, 8, "The hypervisor did not answer in time")                             \
	X(STORAGE, "storage", 507, 1, "The database could not be written")                                   \
	X(NO_DAEMON, "no-daemon", 503, 9, "phid cannot be reached")

enum phi_code {
#define X(name, wire, http, exit, title) PHI_##name,
	PHI_ERROR_TABLE(X)
#undef X
	PHI_CODE_MAX,
};

/* An error on its way up. Lives on a caller's stack; only the first error of a chain is kept, wrapping adds
 * words in front. code PHI_OK means none. */
struct phi_error {
	enum phi_code code;
	int err;           /* errno where one was the cause, else 0 */
	char pointer[160]; /* RFC 6901 JSON pointer to the member at fault, "" if none; or the name of a step */
	char detail[400];  /* a sentence: the value, the rule, what to do */
};

/* Fills *e (NULL is allowed) and answers the negative errno to return: -err, or a fitting one for the code.
 * The pointer may be NULL. */
int phi_error_set(struct phi_error *e, enum phi_code code, int err, const char *pointer, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

/* Puts "prefix: " before the sentence. */
void phi_error_wrap(struct phi_error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

const char *phi_code_name(enum phi_code c);
const char *phi_code_title(enum phi_code c);
int phi_code_http(enum phi_code c);
int phi_code_exit(enum phi_code c);
/* The code of a wire name, PHI_INTERNAL if unknown. */
enum phi_code phi_code_from_name(const char *name);
