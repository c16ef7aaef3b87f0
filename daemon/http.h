/* HTTP on the Unix socket: the only file that knows libmicrohttpd. It reads a request whole, hands it to the routes,
 * and sends what they answer, now or later. Connections are bounded a user: where one has too many, its oldest idle one
 * makes room. */
#pragma once

#include "peer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct http;
struct phid;
struct phi_error;
struct request;

int http_new(struct phid *p, int listen_fd, struct http **ret, struct phi_error *e);
void http_free(struct http *h);
/* Begins to accept. */
void http_open(struct http *h);

const char *request_method(const struct request *r);
const char *request_path(const struct request *r); /* without the query, percent-decoded */
const struct peer *request_peer(const struct request *r);
const char *request_header(const struct request *r, const char *name);
const char *request_query(const struct request *r, const char *name);
/* A query parameter that is not among `known` (ends in NULL, at most 32), has no value or is there twice: its name, and
 * what is wrong with it; else NULL. */
const char *request_wrong_query(const struct request *r, const char *const *known, const char **ret_rule);
const char *request_body(const struct request *r, size_t *ret_n);

/* Answers, once. body (may be NULL) is taken over and must come from malloc. */
void request_reply(struct request *r, int status, const char *type, char *body);
/* A header for the answer to come; before request_reply. */
void request_reply_header(struct request *r, const char *name, const char *value);
/* Answers with a stream: read puts up to max bytes and answers how many, 0 for none now (request_wake when there are
 * some), -1 for the end. done runs once, when the stream is over or the client gone. */
void request_stream(struct request *r, const char *type, ssize_t (*read)(void *ud, char *buf, size_t max),
		    void (*done)(void *ud), void *ud);
void request_wake(struct request *r);
/* Switches the connection to another protocol (RFC 9110, 7.8): begun gets its socket, and what the client said already. The
 * socket stays ours until request_close; done runs once, in the end, whether it came to that or not. */
void request_upgrade(struct request *r, const char *protocol, void (*begun)(void *ud, int fd, const char *more, size_t n),
		     void (*done)(void *ud), void *ud);
void request_close(struct request *r);
/* The client of a suspended request closed its end. */
bool request_client_gone(const struct request *r);

/* routes.c: finds who answers and lets them. */
void routes_dispatch(struct phid *p, struct request *r);
/* The answer to a request that was not read to its end. */
void routes_refuse(struct request *r, const struct phi_error *e);
