/* A small HTTP/1.1 client for phid's Unix socket: one request a connection. libcurl would cost 7 ms a call. */
#pragma once

#include "error.h"

#include <stdbool.h>
#include <stddef.h>

struct http_answer {
	int status;
	char *body; /* NUL-terminated; owned */
	size_t n;
};

struct http_call {
	const char *socket, *method, *path;
	const char *body;	  /* JSON, or NULL */
	const char *key;	  /* Idempotency-Key, or NULL: with one, a lost answer is asked for again */
	const char *if_none_match;
	/* Where the answer's body goes as it comes (status 200 only), or NULL to collect it. Negative ends it. */
	int (*sink)(void *ud, const char *bytes, size_t n);
	void *ud;
};

/* 0 with the answer, whatever its status; PHI_NO_DAEMON if there is none. Free the body. */
int http_call(const struct http_call *c, struct http_answer *ret, struct phi_error *e);
/* An upgraded connection (RFC 9110, 7.8): its socket, and what came behind the answer's head already. */
struct http_stream {
	int fd; /* the caller closes it */
	char more[16384];
	size_t n;
};
/* A GET that switches to that protocol; tried once. Negative also where the answer is another. */
int http_upgrade(const struct http_call *c, const char *protocol, struct http_stream *ret, struct phi_error *e);
/* The error that a problem document tells. Answers its negative errno. */
int http_problem(const struct http_answer *a, struct phi_error *e);
