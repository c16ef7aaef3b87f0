/* libmicrohttpd in the loop: connections and their bounds, requests as they come in. What is done with a request is http_request.c's. See
 * http.h; the traps that are avoided here were measured beforehand (ARCHITECTURE.md). */
#include "http_inner.h"

#include "clean.h"
#include "error.h"
#include "limits.h"
#include "log.h"
#include "loop.h"
#include "phid.h"
#include "view.h"

#include <ctype.h>
#include <errno.h>
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

/* ---- requests come in ---- */

static void refuse_size(struct request *r)
{
	struct phi_error e;

	phi_error_set(&e, PHI_TOO_LARGE, EFBIG, "", "a request has at most %u bytes", PHI_BODY_MAX);
	routes_refuse(r, &e);
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
	const char *length;

	(void)version;
	if (r == NULL) {
		r = *context = request_new(h, mhd, path, method);
		length = request_header(r, "Content-Length");
		if (request_is_ambiguous(r))
			refuse_framing(r);
		else if (length != NULL && strtoull(length, NULL, 10) > PHI_BODY_MAX)
			refuse_size(r);
		/* Answered before its body: libmicrohttpd closes the connection after it. */
		return r->response != NULL ? MHD_queue_response(mhd, (unsigned)r->status, r->response) : MHD_YES;
	}
	if (*upload_n > 0) {
		/* Swallowed, so that the client reads the answer: what is too large, and what will be refused whatever it says. */
		if (r->connection->peer.role == ROLE_ADMIN && !request_append(r, upload, *upload_n))
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

static void on_completed(void *ud, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode code)
{
	struct request *r = *context;

	(void)ud;
	(void)mhd;
	(void)code;
	if (r == NULL)
		return;
	if (r->connection != NULL) {
		r->connection->busy = false;
		unlink_connection(r->connection);
		link_youngest(r->connection);
	}
	request_free(r);
	*context = NULL;
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
			request_wake(r);
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
