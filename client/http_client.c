/* The HTTP client. See http_client.h; grammar: RFC 9112. */
#include "http_client.h"

#include "clean.h"
#include "json.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#define AGAIN_MAX_MS 20000 /* how long a phid that was there is waited for: a restart */
#define ANSWER_MAX   (64u << 20)

struct reader {
	int fd;
	char buf[16384];
	size_t at, n;
	bool any; /* a byte of the answer came */
};

static int fill(struct reader *r)
{
	ssize_t n;

	do
		n = read(r->fd, r->buf, sizeof(r->buf));
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : -ECONNRESET;
	r->at = 0;
	r->n = (size_t)n;
	r->any = true;
	return 0;
}

/* A line without its CRLF. */
static int read_line(struct reader *r, char *line, size_t size)
{
	for (size_t n = 0;;) {
		int rc = r->at == r->n ? fill(r) : 0;
		char c;

		if (rc < 0)
			return rc;
		c = r->buf[r->at++];
		if (c == '\n') {
			line[n > 0 && line[n - 1] == '\r' ? n - 1 : n] = '\0';
			return 0;
		}
		if (n + 1 >= size)
			return -EMSGSIZE;
		line[n++] = c;
	}
}

static int put(const struct http_call *c, struct http_answer *a, const char *bytes, size_t n)
{
	if (c->sink != NULL && a->status == 200)
		return c->sink(c->ud, bytes, n);
	if (a->n + n > ANSWER_MAX)
		return -EMSGSIZE;
	a->body = realloc(a->body, a->n + n + 1);
	if (a->body == NULL)
		abort();
	memcpy(a->body + a->n, bytes, n);
	a->n += n;
	a->body[a->n] = '\0';
	return 0;
}

static int read_bytes(struct reader *r, const struct http_call *c, struct http_answer *a, size_t left)
{
	while (left > 0) {
		int rc = r->at == r->n ? fill(r) : 0;
		size_t n;

		if (rc < 0)
			return rc;
		n = r->n - r->at < left ? r->n - r->at : left;
		rc = put(c, a, r->buf + r->at, n);
		if (rc < 0)
			return rc;
		r->at += n;
		left -= n;
	}
	return 0;
}

static int read_answer(struct reader *r, const struct http_call *c, struct http_answer *a)
{
	char line[4096];
	size_t length = 0;
	bool chunked = false, bounded = false;
	int rc = read_line(r, line, sizeof(line));

	if (rc < 0)
		return rc;
	if (sscanf(line, "HTTP/1.1 %d", &a->status) != 1)
		return -EPROTO;
	for (;;) {
		rc = read_line(r, line, sizeof(line));
		if (rc < 0)
			return rc;
		if (line[0] == '\0')
			break;
		if (strncasecmp(line, "Content-Length:", 15) == 0) {
			length = strtoull(line + 15, NULL, 10);
			bounded = true;
		}
		if (strncasecmp(line, "Transfer-Encoding: chunked", 26) == 0)
			chunked = true;
	}
	rc = put(c, a, "", 0);
	if (a->status == 204 || a->status == 101 || rc < 0)
		return rc;
	if (!chunked && bounded)
		return read_bytes(r, c, a, length);
	while (chunked) {
		rc = read_line(r, line, sizeof(line));
		length = rc < 0 ? 0 : strtoull(line, NULL, 16);
		if (rc < 0 || length == 0)
			return rc;
		rc = read_bytes(r, c, a, length);
		if (rc == 0)
			rc = read_line(r, line, sizeof(line));
		if (rc < 0)
			return rc;
	}
	while ((rc = r->at == r->n ? fill(r) : 0) == 0) {
		rc = put(c, a, r->buf + r->at, r->n - r->at);
		r->at = r->n;
		if (rc < 0)
			return rc;
	}
	return rc == -ECONNRESET ? 0 : rc;
}

static int connect_to(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_clean_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	strcpy(a.sun_path, path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -errno;
	return PHI_TAKE_FD(fd);
}

static int send_all(int fd, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t w = send(fd, bytes, n, MSG_NOSIGNAL);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -errno;
		bytes += w;
		n -= (size_t)w;
	}
	return 0;
}

/* One try. *ret_sent: the request may have been read. */
static int try_once(const struct http_call *c, const char *text, size_t n, struct http_answer *a, bool *ret_sent)
{
	struct reader r = {.fd = connect_to(c->socket)};
	_clean_close_ int fd = r.fd;
	int rc;

	*ret_sent = false;
	if (fd < 0)
		return fd;
	*ret_sent = true;
	rc = send_all(fd, text, n);
	/* A daemon that refuses a body early has answered already. */
	return rc < 0 && rc != -EPIPE ? rc : read_answer(&r, c, a);
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int http_call(const struct http_call *c, struct http_answer *ret, struct phi_error *e)
{
	_clean_free_ char *text = NULL;
	size_t body = c->body ? strlen(c->body) : 0;
	long begin = now_ms(), patience = 2000; /* a restart's gap; a host without phid has no socket file */
	bool was_there = false; /* then its socket is made anew at any moment */
	struct timespec pause = {0, 20000000};
	int n = asprintf(&text, "%s %s HTTP/1.1\r\nHost: phid\r\nConnection: close\r\n%s%s%s%s%s%s%sContent-Length: %zu\r\n\r\n%s",
			 c->method, c->path, c->key ? "Idempotency-Key: " : "", c->key ? c->key : "", c->key ? "\r\n" : "",
			 c->if_none_match ? "If-None-Match: " : "", c->if_none_match ? c->if_none_match : "",
			 c->if_none_match ? "\r\n" : "", c->body ? "Content-Type: application/json\r\n" : "", body,
			 c->body ? c->body : "");

	if (n < 0)
		abort();
	for (;;) {
		bool sent;
		int r;

		*ret = (struct http_answer){0};
		r = try_once(c, text, (size_t)n, ret, &sent);
		if (r == 0 && !(ret->status == 503 && c->key != NULL))
			return 0;
		free(ret->body);
		ret->body = NULL;
		if (sent && c->key != NULL) {
			patience = AGAIN_MAX_MS;
			was_there = true;
		}
		if ((sent && c->key == NULL) || now_ms() - begin > patience ||
		    (r != 0 && !sent && r != -ECONNREFUSED && !(r == -ENOENT && was_there)))
			return phi_error_set(e, PHI_NO_DAEMON, r ? -r : ECONNREFUSED, "",
					     "phid cannot be reached at %s: %s; is phid.service running?", c->socket,
					     strerror(r ? -r : ECONNREFUSED));
		nanosleep(&pause, NULL);
	}
}

int http_upgrade(const struct http_call *c, const char *protocol, struct http_stream *ret, struct phi_error *e)
{
	struct reader r = {.fd = connect_to(c->socket)};
	_clean_close_ int fd = r.fd;
	_clean_free_ char *text = NULL;
	struct http_answer a = {0};
	int rc, n = asprintf(&text, "%s %s HTTP/1.1\r\nHost: phid\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", c->method, c->path, protocol);

	if (n < 0)
		abort();
	rc = fd < 0 ? fd : send_all(fd, text, (size_t)n);
	if (rc == 0)
		rc = read_answer(&r, c, &a);
	if (rc < 0) {
		free(a.body);
		return phi_error_set(e, PHI_NO_DAEMON, -rc, "", "phid cannot be reached at %s: %s; is phid.service running?", c->socket,
				     strerror(-rc));
	}
	if (a.status != 101) {
		rc = http_problem(&a, e);
		free(a.body);
		return rc;
	}
	free(a.body);
	ret->n = r.n - r.at;
	memcpy(ret->more, r.buf + r.at, ret->n);
	ret->fd = PHI_TAKE_FD(fd);
	return 0;
}

int http_problem(const struct http_answer *a, struct phi_error *e)
{
	_clean_json_ struct json *j = NULL;
	const char *detail, *pointer = NULL;
	char holders[200] = "";

	if (a->body == NULL || json_parse(a->body, a->n, &j, NULL) < 0 || json_get_string(j, "code") == NULL)
		return phi_error_set(e, PHI_INTERNAL, EPROTO, "", "phid answered %d", a->status);
	detail = json_get_string(j, "detail");
	pointer = json_get_string(json_first(json_get(j, "errors")), "pointer");
	/* Who holds what, as far as it fits. */
	for (const struct json *b = json_first(json_get(j, "blockers")); b != NULL; b = json_next(b)) {
		size_t n = strlen(holders);

		snprintf(holders + n, sizeof(holders) - n, "%s%s: %s", n ? ", " : "; ", json_get_string(b, "unit"),
			 json_get_string(b, "owner"));
	}
	return phi_error_set(e, phi_code_from_name(json_get_string(j, "code")), 0, pointer, "%s%s", detail ? detail : "", holders);
}
