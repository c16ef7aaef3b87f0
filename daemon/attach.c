/* A console in both directions: GET /console with "Upgrade: phid-console". Output comes from the log's ring, as for every reader; input
 * goes to the keeper in pieces, each of which it acknowledges when the cell has taken it, so that nothing is held without
 * bound. A client that is slow hears of the bytes it missed; the guest never waits for it. */
#include "routes.h"

#include "clean.h"
#include "console_log.h"
#include "error.h"
#include "keepers.h"
#include "log.h"
#include "loop.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define LOOK_MS 20 /* how often the ring is looked at */

struct attach {
	struct attach *next;
	struct phid *p;
	struct request *request;
	int fd; /* libmicrohttpd's; -1 before and after */
	int64_t row;
	struct loop_source *io, *timer;
	uint64_t offset; /* of the console's log */
	char out[8192], in[16384];
	size_t out_at, out_n, in_at, in_n;
	bool input_over;
};

static void finish(struct attach *a)
{
	if (a->fd < 0)
		return;
	loop_source_clear(&a->io);
	loop_source_clear(&a->timer);
	a->fd = -1;
	request_close(a->request); /* and on_done when libmicrohttpd has let go */
}

static void on_done(void *ud)
{
	struct attach *a = ud;

	for (struct attach **at = &a->p->attaches; *at != NULL; at = &(*at)->next)
		if (*at == a) {
			*at = a->next;
			break;
		}
	loop_source_free(a->io);
	loop_source_free(a->timer);
	free(a);
}

/* What the client said, as far as the keeper takes it now. */
static void feed(struct attach *a)
{
	struct cell *c = cell_of_row(a->p, a->row);
	size_t n = a->in_n - a->in_at;

	if (n > KEEPER_INPUT_MAX)
		n = KEEPER_INPUT_MAX;
	if (n == 0 || c == NULL || keeper_input(c, a->in + a->in_at, n) < 0)
		return;
	a->in_at += n;
	if (a->in_at == a->in_n)
		a->in_at = a->in_n = 0;
}

/* Fills `out` from the ring. False: there is nothing new. */
static bool refill(struct attach *a)
{
	struct console_log head;
	_clean_close_ int fd = console_open(a->p, a->row, &head, NULL);
	uint64_t begin = fd >= 0 && head.end > head.size ? head.end - head.size : 0;
	ssize_t n;

	a->out_at = a->out_n = 0;
	if (fd < 0)
		return false;
	if (a->offset < begin)
		a->out_n = (size_t)snprintf(a->out, sizeof(a->out), "\r\n[phid: %llu bytes of the console were lost here]\r\n",
					    (unsigned long long)(begin - a->offset));
	n = console_read(fd, &head, &a->offset, a->out + a->out_n, sizeof(a->out) - a->out_n);
	if (n > 0)
		a->out_n += (size_t)n;
	return a->out_n > 0;
}

/* Negative: the client is gone. */
static int pump(struct attach *a)
{
	while (a->out_at < a->out_n || refill(a)) {
		ssize_t n = send(a->fd, a->out + a->out_at, a->out_n - a->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		a->out_at += (size_t)n;
	}
	return 0;
}

static void set_events(struct attach *a)
{
	loop_io_events(a->io, (a->in_n == 0 && !a->input_over ? (uint32_t)EPOLLIN : 0) | (a->out_at < a->out_n ? (uint32_t)EPOLLOUT : 0));
}

/* The client is gone; its last words are passed on, if that can be at once. */
static void hang_up(struct attach *a)
{
	ssize_t n = a->in_n == 0 ? recv(a->fd, a->in, KEEPER_INPUT_MAX, MSG_DONTWAIT) : 0;

	if (n > 0)
		a->in_n = (size_t)n;
	feed(a);
	finish(a);
}

static void turn(struct attach *a)
{
	bool ended = cell_of_row(a->p, a->row) == NULL; /* before the ring is read to its end */

	feed(a);
	if (pump(a) < 0)
		hang_up(a);
	else if (ended && a->out_at == a->out_n)
		finish(a);
	else
		set_events(a);
}

static void on_look(void *ud)
{
	struct attach *a = ud;

	loop_rearm(a->timer, LOOK_MS);
	turn(a);
}

static void on_io(void *ud, uint32_t revents)
{
	struct attach *a = ud;

	if (revents & (EPOLLHUP | EPOLLERR)) {
		hang_up(a);
		return;
	}
	if ((revents & EPOLLIN) && a->in_n == 0) {
		ssize_t n = recv(a->fd, a->in, KEEPER_INPUT_MAX, MSG_DONTWAIT);

		if (n > 0)
			a->in_n = (size_t)n;
		else if (n == 0)
			a->input_over = true; /* it may listen on */
		else if (errno != EAGAIN && errno != EINTR) {
			finish(a);
			return;
		}
	}
	turn(a);
}

void attach_taken(struct phid *p, const struct cell *c)
{
	for (struct attach *a = p->attaches; a != NULL; a = a->next)
		if (a->row == c->row && a->fd >= 0) {
			feed(a);
			set_events(a);
		}
}

static void on_begun(void *ud, int fd, const char *more, size_t n)
{
	struct attach *a = ud;

	a->fd = fd;
	a->in_n = n < sizeof(a->in) ? n : sizeof(a->in); /* libmicrohttpd's buffer is no larger */
	memcpy(a->in, more, a->in_n);
	a->io = loop_io(a->p->loop, "attach", fd, 0, on_io, a);
	a->timer = loop_timer(a->p->loop, "attach", LOOK_MS, on_look, a);
	turn(a);
}

static int check(struct phid *p, struct request *r, const struct container *c, struct phi_error *e)
{
	const struct cell *cell = cell_of_row(p, c->row);
	const char *connection = request_header(r, "Connection");

	if (strcasecmp(request_header(r, "Upgrade"), ATTACH_PROTOCOL) != 0 || connection == NULL || strcasestr(connection, "upgrade") == NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/Upgrade", "only \"" ATTACH_PROTOCOL "\" is known, with \"Connection: Upgrade\"");
	if (request_peer(r)->role < ROLE_ADMIN)
		return phi_error_set(e, PHI_FORBIDDEN, 0, "", "only root and the group phid may write to a console; it can be read without Upgrade");
	if (cell == NULL || c->state == STATE_STOPPED || c->state == STATE_CREATING)
		return phi_error_set(e, PHI_STATE, ESRCH, "/state", "container not running: %s is %s", c->id, lifecycle_states[c->state]);
	return keeper_check_input(cell, e);
}

void attach_begin(struct phid *p, struct request *r, const struct container *c, uint64_t offset)
{
	struct phi_error e;
	struct attach *a;

	if (check(p, r, c, &e) < 0) {
		reply_problem(r, &e, NULL);
		return;
	}
	a = calloc(1, sizeof(*a));
	if (a == NULL)
		abort();
	a->p = p;
	a->request = r;
	a->fd = -1;
	a->row = c->row;
	a->offset = offset;
	a->next = p->attaches;
	p->attaches = a;
	log_info(c->id, "user %u attaches to the console", (unsigned)request_peer(r)->uid);
	request_upgrade(r, ATTACH_PROTOCOL, on_begun, on_done, a);
}

void attach_end(struct phid *p)
{
	for (struct attach *a = p->attaches; a != NULL; a = a->next)
		finish(a);
}
