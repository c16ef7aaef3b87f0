/* libmicrohttpd in the loop. See http.h; the traps that are avoided here were measured beforehand (ARCHITECTURE.md). */
#include "http.h"

#include "clean.h"
#include "error.h"
#include "limits.h"
#include "log.h"
#include "loop.h"
#include "phid.h"
#include "view.h"

#include <ctype.h>
#include <errno.h>
#include <microhttpd.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define PER_USER_MAX	 256
#define CONNECTIONS_MAX	 2048
#define OTHERS_MAX	 1024 /* and no more where the next is no administrator: many users together keep none out */
#define IDLE_TIMEOUT_S	 30
#define HEADERS_MAX	 4

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
	const char *header_names[HEADERS_MAX];
	char *header_values[HEADERS_MAX];
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

/* ---- running libmicrohttpd ---- */

static void run(struct http *h)
{
	MHD_UNSIGNED_LONG_LONG ms;

	MHD_run(h->mhd);
	if (MHD_get_timeout(h->mhd, &ms) == MHD_YES)
		loop_rearm(h->timer, ms);
}

static void on_io(void *ud, uint32_t revents)
{
	(void)revents;
	run(ud);
}

static void on_run(void *ud)
{
	run(ud);
}

/* ---- connections ---- */

static void unlink_connection(struct connection *c)
{
	c->next->previous = c->previous;
	c->previous->next = c->next;
}

static void link_youngest(struct connection *c)
{
	struct connection *head = &c->http->oldest;

	c->previous = head->previous;
	c->next = head;
	head->previous->next = c;
	head->previous = c;
}

static void on_connection(void *ud, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode code)
{
	struct http *h = ud;
	struct connection *c = *context;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

		c = calloc(1, sizeof(*c));
		if (c == NULL)
			abort();
		c->http = h;
		c->fd = info->connect_fd;
		peer_read(c->fd, &c->peer);
		link_youngest(c);
		h->n++;
		*context = c;
	} else if (c != NULL) {
		unlink_connection(c);
		h->n--;
		free(c);
		*context = NULL;
		loop_arm(h->run); /* a place got free: accept does not notice by itself */
	}
}

/* Room for one more of this user: true, perhaps at the cost of its oldest idle connection. */
static bool make_room(struct http *h, uid_t uid)
{
	struct connection *idle = NULL;
	unsigned n = 0;
	int unread;

	for (struct connection *c = h->oldest.next; c != &h->oldest; c = c->next) {
		if (c->peer.uid != uid)
			continue;
		n++;
		if (!c->busy && idle == NULL && c->fd >= 0 && !(ioctl(c->fd, FIONREAD, &unread) == 0 && unread > 0))
			idle = c;
	}
	if (n < PER_USER_MAX)
		return true;
	if (idle == NULL)
		return false;
	shutdown(idle->fd, SHUT_RDWR);
	idle->fd = -1; /* not twice; libmicrohttpd closes it when it sees the end */
	run(h);
	return true;
}

/* Too many of one user, none of them idle: told in one write, whatever the client was about to send. */
static void turn_away(int fd)
{
	struct phi_error e;
	_clean_free_ char *problem = NULL, *text = NULL;
	int n;

	phi_error_set(&e, PHI_TOO_MANY, 0, "", "this user has %d connections with requests under way", PER_USER_MAX);
	problem = view_problem(&e, NULL);
	n = asprintf(&text,
		     "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
		     "Content-Length: %zu\r\n\r\n%s",
		     strlen(problem), problem);
	if (n < 0 || send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug(NULL, "a connection was turned away");
	close(fd);
}

static void on_accept(void *ud, uint32_t revents)
{
	struct http *h = ud;

	(void)revents;
	for (int turn = 0; turn < 32; turn++) {
		struct sockaddr_un a = {.sun_family = AF_UNIX};
		struct peer peer;
		int fd = accept4(h->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			break;
		if (peer_read(fd, &peer) < 0 || h->n >= (peer.role == ROLE_ADMIN ? CONNECTIONS_MAX : OTHERS_MAX) || !make_room(h, peer.uid))
			turn_away(fd);
		else if (MHD_add_connection(h->mhd, fd, (struct sockaddr *)&a, sizeof(a)) != MHD_YES)
			log_warn(NULL, "a connection could not be taken: %s", strerror(errno));
	}
	loop_arm(h->run);
}

/* ---- requests ---- */

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

void request_reply_header(struct request *r, const char *name, const char *value)
{
	if (r->n_headers == HEADERS_MAX)
		abort();
	r->header_names[r->n_headers] = name;
	r->header_values[r->n_headers++] = phi_strdup(value);
}

static void resume(struct request *r)
{
	if (!r->suspended)
		return;
	r->suspended = false;
	MHD_resume_connection(r->mhd);
	loop_arm(r->http->run); /* resuming wakes nothing by itself */
}

static void answer(struct request *r, int status, const char *type, struct MHD_Response *response)
{
	r->response = response;
	r->status = status;
	if (type != NULL)
		MHD_add_response_header(response, "Content-Type", type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	for (size_t i = 0; i < r->n_headers; i++)
		MHD_add_response_header(response, r->header_names[i], r->header_values[i]);
	resume(r);
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

void request_wake(struct request *r)
{
	resume(r);
}

bool request_client_gone(const struct request *r)
{
	char byte;

	/* A suspended connection is not watched by libmicrohttpd. */
	return recv(r->connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void on_completed(void *ud, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode code)
{
	struct request *r = *context;

	(void)ud;
	(void)mhd;
	(void)code;
	if (r == NULL)
		return;
	if (r->stream_done != NULL)
		r->stream_done(r->stream_ud);
	if (r->response != NULL)
		MHD_destroy_response(r->response);
	if (r->connection != NULL) {
		r->connection->busy = false;
		unlink_connection(r->connection);
		link_youngest(r->connection);
	}
	*r->at = r->next;
	if (r->next != NULL)
		r->next->at = r->at;
	for (size_t i = 0; i < r->n_headers; i++)
		free(r->header_values[i]);
	free(r->path);
	free(r->body);
	free(r);
	*context = NULL;
}

static struct request *request_new(struct http *h, struct MHD_Connection *mhd, const char *path, const char *method)
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

static bool append(struct request *r, const char *bytes, size_t n)
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

static void refuse_size(struct request *r)
{
	struct phi_error e;

	phi_error_set(&e, PHI_TOO_LARGE, EFBIG, "", "a request has at most %u bytes", PHI_BODY_MAX);
	routes_refuse(r, &e);
}

static enum MHD_Result count_framing(void *ud, enum MHD_ValueKind kind, const char *name, const char *value)
{
	unsigned *n = ud;

	(void)kind;
	(void)value;
	*n += strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Transfer-Encoding") == 0;
	return MHD_YES;
}

/* RFC 9112, 6.1 and 6.3: one reader goes by the one, another by the other, and what is body to one is the next request to the other. */
static void refuse_framing(struct request *r)
{
	struct phi_error e;

	phi_error_set(&e, PHI_BAD_REQUEST, EBADMSG, "", "a request has one Content-Length or one Transfer-Encoding");
	routes_refuse(r, &e);
}

static void refuse_stopping(struct request *r)
{
	struct phi_error e;

	phi_error_set(&e, PHI_SHUTDOWN, 0, "", "phid is stopping; ask again, with the same Idempotency-Key, when it is back");
	routes_refuse(r, &e);
}

/* Percent-decoding, but for %00, which would end the text, and %2F, which would make one name two; both stay as they are
 * and no id has a %. */
static size_t unescape(void *ud, struct MHD_Connection *mhd, char *text)
{
	char *out = text;

	(void)ud;
	(void)mhd;
	for (const char *in = text; *in != '\0'; in++) {
		unsigned v;

		if (in[0] == '%' && isxdigit((unsigned char)in[1]) && isxdigit((unsigned char)in[2]) &&
		    sscanf(in + 1, "%2x", &v) == 1 && v != 0 && v != '/') {
			*out++ = (char)v;
			in += 2;
		} else {
			*out++ = *in;
		}
	}
	*out = '\0';
	return (size_t)(out - text);
}

static enum MHD_Result on_request(void *ud, struct MHD_Connection *mhd, const char *path, const char *method,
				  const char *version, const char *upload, size_t *upload_n, void **context)
{
	struct http *h = ud;
	struct request *r = *context;
	unsigned framing = 0;
	const char *length;

	(void)version;
	if (r == NULL) {
		r = *context = request_new(h, mhd, path, method);
		length = request_header(r, "Content-Length");
		MHD_get_connection_values(mhd, MHD_HEADER_KIND, count_framing, &framing);
		if (framing > 1)
			refuse_framing(r);
		else if (length != NULL && strtoull(length, NULL, 10) > PHI_BODY_MAX)
			refuse_size(r);
		/* Answered before its body: libmicrohttpd closes the connection after it. */
		return r->response != NULL ? MHD_queue_response(mhd, (unsigned)r->status, r->response) : MHD_YES;
	}
	if (*upload_n > 0) {
		/* Swallowed, so that the client reads the answer: what is too large, and what will be refused whatever it says. */
		if (r->connection->peer.role == ROLE_ADMIN && !append(r, upload, *upload_n))
			r->too_large = true;
		*upload_n = 0;
		return MHD_YES;
	}
	if (!r->dispatched) {
		r->dispatched = true;
		if (r->too_large)
			refuse_size(r);
		else if (h->stopping)
			refuse_stopping(r);
		else
			routes_dispatch(h->p, r);
	}
	if (r->response != NULL)
		return MHD_queue_response(mhd, (unsigned)r->status, r->response);
	r->suspended = true;
	MHD_suspend_connection(mhd);
	return MHD_YES;
}

/* ---- beginning and end ---- */

static int bind_socket(const char *path, struct phi_error *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_clean_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof(a.sun_path))
		return phi_error_set(e, PHI_INVALID, ENAMETOOLONG, "/socket", "%s is longer than %zu bytes", path,
				     sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	unlink(path); /* the lock on the state directory says that nobody else is us */
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(path, 0666) < 0 || listen(fd, 4096) < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, "", "%s: %s", path, strerror(errno));
	return PHI_TAKE_FD(fd);
}

int http_new(struct phid *p, int listen_fd, struct http **ret, struct phi_error *e)
{
	struct http *h = calloc(1, sizeof(*h));
	const union MHD_DaemonInfo *info;

	if (h == NULL)
		abort();
	h->p = p;
	h->oldest.next = h->oldest.previous = &h->oldest;
	h->fd = listen_fd >= 0 ? listen_fd : bind_socket(p->config.socket, e);
	if (h->fd < 0) {
		free(h);
		return -EADDRINUSE;
	}
	h->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE,
				  0, NULL, NULL, on_request, h, MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL,
				  MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
				  MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX + 16, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S,
				  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16384, MHD_OPTION_STRICT_FOR_CLIENT, 1,
				  MHD_OPTION_END);
	info = h->mhd != NULL ? MHD_get_daemon_info(h->mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (info == NULL) {
		close(h->fd);
		free(h);
		return phi_error_set(e, PHI_INTERNAL, errno, "", "libmicrohttpd does not start");
	}
	h->io = loop_io(p->loop, "http", info->epoll_fd, EPOLLIN, on_io, h);
	h->run = loop_soon(p->loop, "http", on_run, h);
	h->timer = loop_timer(p->loop, "http", 1000, on_run, h);
	*ret = h;
	return 0;
}

void http_open(struct http *h)
{
	h->accept = loop_io(h->p->loop, "accept", h->fd, EPOLLIN, on_accept, h);
}

void http_free(struct http *h)
{
	if (h == NULL)
		return;
	h->stopping = true;
	loop_source_free(h->accept);
	/* libmicrohttpd must not be stopped with suspended connections. */
	for (struct request *r = h->requests; r != NULL; r = r->next) {
		if (r->suspended && r->response == NULL)
			refuse_stopping(r);
		else
			resume(r);
	}
	MHD_run(h->mhd);
	MHD_run(h->mhd);
	MHD_stop_daemon(h->mhd);
	loop_source_free(h->timer);
	loop_source_free(h->io);
	loop_source_free(h->run);
	close(h->fd);
	free(h);
}
