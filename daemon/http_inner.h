/* What http.c and http_request.c share: a connection, a request, the server. Only those two include this. */
#pragma once

#include "http.h"

#include "peer.h"

#include <microhttpd.h>
#include <stdbool.h>
#include <sys/types.h>

#define HTTP_HEADERS_MAX 4

struct connection {
	struct connection *next, *previous; /* oldest idle first */
	struct http *http;
	struct peer peer;
	int fd;
	bool busy;
};

struct request {
	struct request *next, **at; /* in http's list */
	struct http *http;
	struct MHD_Connection *mhd;
	struct connection *connection;
	char method[12], *path;
	char *body;
	size_t n, room;
	bool dispatched, suspended, too_large;
	struct MHD_Response *response;
	int status;
	const char *header_names[HTTP_HEADERS_MAX];
	char *header_values[HTTP_HEADERS_MAX];
	size_t n_headers;
	ssize_t (*stream)(void *ud, char *buf, size_t max);
	void (*stream_done)(void *ud);
	void *stream_ud;
	void (*begun)(void *ud, int fd, const char *more, size_t n);
	struct MHD_UpgradeResponseHandle *upgraded;
};

struct http {
	struct phid *p;
	struct MHD_Daemon *mhd;
	int fd;
	struct loop_source *accept, *io, *run, *timer;
	bool stopping;
	struct connection oldest; /* ring's head */
	struct request *requests;
	unsigned n;
};

/* http_request.c */
struct request *request_new(struct http *h, struct MHD_Connection *mhd, const char *path, const char *method);
void request_free(struct request *r);
/* Adds to the body; false where it gets larger than PHI_BODY_MAX. */
bool request_append(struct request *r, const char *bytes, size_t n);
/* Has it more than one header that says where its body ends? */
bool request_is_ambiguous(const struct request *r);
