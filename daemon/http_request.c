/* One request: what it says, and how it is answered: at once, later, by a stream, or by handing over its connection. */
#include "http_inner.h"

#include "clean.h"
#include "limits.h"
#include "loop.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* ---- beginning and end ---- */

struct request *request_new(struct http *h, struct MHD_Connection *mhd, const char *path, const char *method)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct request *r = calloc(1, sizeof(*r));

	if (r == NULL)
		abort();
	r->http = h;
	r->mhd = mhd;
	r->connection = info->socket_context;
	r->connection->busy = true;
	r->path = phi_strdup(path);
	r->next = h->requests;
	r->at = &h->requests;
	if (r->next != NULL)
		r->next->at = &r->next;
	h->requests = r;
	snprintf(r->method, sizeof(r->method), "%s", method);
	return r;
}

bool request_append(struct request *r, const char *bytes, size_t n)
{
	if (n > PHI_BODY_MAX - r->n)
		return false;
	if (r->n + n > r->room) {
		r->room = r->n + n > r->room * 2 ? r->n + n : r->room * 2;
		r->body = realloc(r->body, r->room);
		if (r->body == NULL)
			abort();
	}
	memcpy(r->body + r->n, bytes, n);
	r->n += n;
	return true;
}

void request_free(struct request *r)
{
	if (r->stream_done != NULL)
		r->stream_done(r->stream_ud);
	if (r->response != NULL)
		MHD_destroy_response(r->response);
	*r->at = r->next;
	if (r->next != NULL)
		r->next->at = r->at;
	for (size_t i = 0; i < r->n_headers; i++)
		free(r->header_values[i]);
	free(r->path);
	free(r->body);
	free(r);
}

/* ---- what it says ---- */

const char *request_method(const struct request *r)
{
	return r->method;
}

const char *request_path(const struct request *r)
{
	return r->path;
}

const struct peer *request_peer(const struct request *r)
{
	return &r->connection->peer;
}

const char *request_header(const struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

const char *request_query(const struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->mhd, MHD_GET_ARGUMENT_KIND, name);
}

struct query_check {
	const char *const *known;
	unsigned seen; /* bit i: known[i] */
	const char *wrong, *rule;
};

static enum MHD_Result check_query(void *ud, enum MHD_ValueKind kind, const char *key, const char *value)
{
	struct query_check *q = ud;

	(void)kind;
	q->wrong = key;
	for (size_t i = 0; q->known[i] != NULL; i++) {
		if (strcmp(q->known[i], key) != 0)
			continue;
		q->rule = value == NULL ? "needs a value" : q->seen & 1u << i ? "is there twice" : NULL;
		q->seen |= 1u << i;
		if (q->rule != NULL)
			return MHD_NO;
		q->wrong = NULL;
		return MHD_YES;
	}
	q->rule = "is not known here";
	return MHD_NO;
}

const char *request_wrong_query(const struct request *r, const char *const *known, const char **ret_rule)
{
	struct query_check q = {.known = known};

	MHD_get_connection_values(r->mhd, MHD_GET_ARGUMENT_KIND, check_query, &q);
	*ret_rule = q.rule;
	return q.wrong;
}

const char *request_body(const struct request *r, size_t *ret_n)
{
	*ret_n = r->n;
	return r->body;
}

static enum MHD_Result count_framing(void *ud, enum MHD_ValueKind kind, const char *name, const char *value)
{
	unsigned *n = ud;

	(void)kind;
	(void)value;
	*n += strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Transfer-Encoding") == 0;
	return MHD_YES;
}

bool request_is_ambiguous(const struct request *r)
{
	unsigned n = 0;

	MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, count_framing, &n);
	return n > 1;
}

/* ---- its answer ---- */

void request_reply_header(struct request *r, const char *name, const char *value)
{
	if (r->n_headers == HTTP_HEADERS_MAX)
		abort();
	r->header_names[r->n_headers] = name;
	r->header_values[r->n_headers++] = phi_strdup(value);
}

void request_wake(struct request *r)
{
	if (!r->suspended)
		return;
	r->suspended = false;
	MHD_resume_connection(r->mhd);
	loop_arm(r->http->run); /* resuming wakes nothing by itself */
}

static void answer(struct request *r, int status, const char *type, struct MHD_Response *response)
{
	if (response == NULL)
		abort(); /* no memory */
	r->response = response;
	r->status = status;
	if (type != NULL)
		MHD_add_response_header(response, "Content-Type", type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	for (size_t i = 0; i < r->n_headers; i++)
		MHD_add_response_header(response, r->header_names[i], r->header_values[i]);
	request_wake(r);
}

void request_reply(struct request *r, int status, const char *type, char *body)
{
	answer(r, status, type,
	       MHD_create_response_from_buffer(body ? strlen(body) : 0, body ? body : (char[]){""},
					       body ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT));
}

static ssize_t read_stream(void *ud, uint64_t offset, char *buf, size_t max)
{
	struct request *r = ud;
	ssize_t n = r->stream(r->stream_ud, buf, max);

	(void)offset;
	if (n < 0)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (n == 0 && !r->suspended) {
		r->suspended = true;
		MHD_suspend_connection(r->mhd);
	}
	return n;
}

void request_stream(struct request *r, const char *type, ssize_t (*read)(void *ud, char *buf, size_t max),
		    void (*done)(void *ud), void *ud)
{
	r->stream = read;
	r->stream_done = done;
	r->stream_ud = ud;
	answer(r, 200, type, MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_stream, r, NULL));
}

static void on_upgrade(void *ud, struct MHD_Connection *mhd, void *context, const char *more, size_t n, MHD_socket fd,
		       struct MHD_UpgradeResponseHandle *handle)
{
	struct request *r = ud;

	(void)mhd;
	(void)context;
	r->upgraded = handle;
	r->begun(r->stream_ud, fd, more, n);
}

void request_upgrade(struct request *r, const char *protocol, void (*begun)(void *ud, int fd, const char *more, size_t n),
		     void (*done)(void *ud), void *ud)
{
	r->begun = begun;
	r->stream_done = done;
	r->stream_ud = ud;
	request_reply_header(r, "Upgrade", protocol);
	answer(r, 101, NULL, MHD_create_response_for_upgrade(on_upgrade, r));
}

void request_close(struct request *r)
{
	MHD_upgrade_action(r->upgraded, MHD_UPGRADE_ACTION_CLOSE);
	loop_arm(r->http->run);
}

bool request_client_gone(const struct request *r)
{
	char byte;

	/* A suspended connection is not watched by libmicrohttpd. */
	return recv(r->connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}
