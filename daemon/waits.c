/* Requests that are answered when something happens: wait, the events, a console that is followed. Each is looked at when
 * records changed, and ends at its time limit. */
#include "routes.h"

#include "clean.h"
#include "console_log.h"
#include "error.h"
#include "json.h"
#include "loop.h"
#include "view.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define FOLLOW_MS    50	   /* how often a followed console is looked at */
#define GONE_MS      2000  /* how often it is looked whether the client is still there */
#define HEARTBEAT_MS 15000 /* a comment in an event stream, so that a gone client is noticed */

struct wait {
	struct wait *next;
	struct phid *p;
	struct request *request;
	struct loop_source *timer;
	uint64_t until; /* loop_now_ms */
	/* Looks again; true: it is answered or over. late: its time is up. */
	bool (*look)(struct wait *w, bool late);
	/* of wait */
	char id[PHI_ID_MAX + 1], incarnation[PHI_UUID_LEN + 1];
	bool for_created;
	/* of events */
	int64_t after, limit;
	bool gone; /* a stream whose client went away or that is at its end */
	/* of a console */
	int64_t row;
	uint64_t offset;
};

static void wait_free(struct wait *w)
{
	loop_source_free(w->timer);
	free(w);
}

static void on_time(void *ud)
{
	struct wait *w = ud;

	uint64_t now = loop_now_ms();

	loop_source_clear(&w->timer);
	if (now < w->until)
		w->timer = loop_timer(w->p->loop, "wait", w->until - now < GONE_MS ? w->until - now : GONE_MS, on_time, w);
	if (!w->look(w, now >= w->until))
		return;
	for (struct wait **at = &w->p->waits; *at != NULL; at = &(*at)->next)
		if (*at == w) {
			*at = w->next;
			break;
		}
	wait_free(w);
}

static struct wait *wait_new(struct phid *p, struct request *r, uint64_t ms, bool (*look)(struct wait *w, bool late))
{
	struct wait *w = calloc(1, sizeof(*w));

	if (w == NULL)
		abort();
	w->p = p;
	w->request = r;
	w->look = look;
	w->until = loop_now_ms() + ms;
	w->timer = loop_timer(p->loop, "wait", ms < GONE_MS ? ms : GONE_MS, on_time, w);
	w->next = p->waits;
	p->waits = w;
	return w;
}

static void on_changed(void *ud)
{
	struct phid *p = ud;

	for (struct wait **at = &p->waits; *at != NULL;) {
		struct wait *w = *at;

		if (w->look(w, false)) {
			*at = w->next;
			wait_free(w);
		} else {
			at = &w->next;
		}
	}
}

void phid_changed(struct phid *p)
{
	if (p->changed == NULL)
		p->changed = loop_soon(p->loop, "changed", on_changed, p);
	loop_arm(p->changed);
}

void waits_end(struct phid *p)
{
	/* Plain waits are answered by http_free, as every request that is open; streams end at their next read. */
	for (struct wait *w = p->waits; w != NULL; w = w->next)
		w->gone = true;
}

void waits_free(struct phid *p)
{
	while (p->waits != NULL) {
		struct wait *w = p->waits;

		p->waits = w->next;
		wait_free(w);
	}
	loop_source_clear(&p->changed);
}

/* ---- wait ---- */

static bool look_wait(struct wait *w, bool late)
{
	_clean_container_ struct container c = {0};
	struct phi_error e = {0};

	if (store_container_by_id(w->p->store, STORE_READ, w->id, &c, &e) < 0 || strcmp(c.incarnation, w->incarnation) != 0) {
		phi_error_set(&e, PHI_GONE, ENOENT, "", "container %s was deleted", w->id);
		reply_problem(w->request, &e, NULL);
		return true;
	}
	if (w->for_created ? c.state != STATE_CREATING : c.state == STATE_STOPPED) {
		reply_json(w->request, 200, view_container(w->p, &c));
		return true;
	}
	late = late || request_client_gone(w->request);
	if (late)
		request_reply(w->request, 204, NULL, NULL);
	return late;
}

void get_wait(struct phid *p, struct request *r, const char *id)
{
	const char *what = request_query(r, "for");
	_clean_container_ struct container c = {0};
	struct phi_error e = {0};
	struct wait *w;
	int64_t timeout;
	int rc = query_number(r, "timeout", 0, 600, PHI_WAIT_MAX_S, &timeout, &e);

	if (rc == 0 && what != NULL && strcmp(what, "created") != 0 && strcmp(what, "stopped") != 0)
		rc = phi_error_set(&e, PHI_INVALID, EINVAL, "?for", "\"%.40s\" is neither created nor stopped", what);
	if (rc < 0) {
		reply_problem(r, &e, NULL);
		return;
	}
	if (!find_container(p, r, id, &c))
		return;
	w = wait_new(p, r, (uint64_t)timeout * 1000, look_wait);
	memcpy(w->id, c.id, sizeof(w->id));
	memcpy(w->incarnation, c.incarnation, sizeof(w->incarnation));
	w->for_created = what != NULL && strcmp(what, "created") == 0;
	phid_changed(p);
}

/* ---- events ---- */

struct page {
	struct json *items;
	int64_t last;
};

static void page_each(void *ud, const struct event *ev)
{
	struct page *page = ud;
	_clean_free_ char *text = view_event(ev);

	json_add_raw(page->items, NULL, text);
	page->last = ev->seq;
}

static bool look_events(struct wait *w, bool late)
{
	_clean_json_ struct json *j = json_object();
	struct page page = {.items = json_add_array(j, "items"), .last = w->after};
	struct phi_error e;

	if (store_events(w->p->store, w->after, (unsigned)w->limit, page_each, &page, &e) < 0) {
		reply_problem(w->request, &e, NULL);
		return true;
	}
	if (page.last == w->after && !late && !request_client_gone(w->request))
		return false;
	json_add_integer(j, "next", page.last);
	reply_json(w->request, 200, json_print(j));
	return true;
}

/* A stream of server-sent events (HTML Living Standard, 9.2): look only wakes it, its reader reads. */
static bool look_stream(struct wait *w, bool late)
{
	if (w->request == NULL)
		return true;
	if (request_client_gone(w->request))
		w->gone = true;
	if (late) {
		w->offset = 1; /* a heartbeat is due */
		w->until = loop_now_ms() + HEARTBEAT_MS;
		w->timer = loop_timer(w->p->loop, "wait", HEARTBEAT_MS, on_time, w);
	}
	request_wake(w->request);
	return false;
}

struct stream_buffer {
	char *buf;
	size_t n, max;
	int64_t last;
};

static void stream_each(void *ud, const struct event *ev)
{
	struct stream_buffer *b = ud;
	_clean_free_ char *text = view_event(ev);
	int n;

	if (b->n == b->max)
		return; /* no more room: the next read goes on there */
	n = snprintf(b->buf + b->n, b->max - b->n, "id: %" PRId64 "\nevent: %s\ndata: %s\n\n", ev->seq, ev->type, text);
	if (n < 0 || (size_t)n >= b->max - b->n) {
		b->max = b->n;
		return;
	}
	b->n += (size_t)n;
	b->last = ev->seq;
}

static ssize_t read_stream(void *ud, char *buf, size_t max)
{
	struct wait *w = ud;
	struct stream_buffer b = {.buf = buf, .max = max, .last = w->after};

	if (w->gone || store_events(w->p->store, w->after, 64, stream_each, &b, NULL) < 0)
		return -1;
	w->after = b.last;
	if (b.n == 0 && w->offset != 0 && max > 8) {
		w->offset = 0;
		memcpy(buf, ":\n\n", 3);
		return 3;
	}
	return (ssize_t)b.n;
}

static void stream_done(void *ud)
{
	struct wait *w = ud;

	w->gone = true;
	w->request = NULL;
	phid_changed(w->p); /* the list lets go of it */
}

void get_events(struct phid *p, struct request *r, const char *id)
{
	const char *accept = request_header(r, "Accept"), *last = request_header(r, "Last-Event-ID");
	struct phi_error e = {0};
	int64_t after, seconds, limit;
	struct wait *w;
	int rc = query_number(r, "after", 0, INT64_MAX / 2, 0, &after, &e);

	(void)id;
	if (rc == 0)
		rc = query_number(r, "wait", 0, 600, 0, &seconds, &e);
	if (rc == 0)
		rc = query_number(r, "limit", 1, PHI_PAGE_MAX, 100, &limit, &e);
	if (rc == 0 && accept != NULL && strstr(accept, "text/event-stream") != NULL) {
		if (last != NULL)
			after = atoll(last);
		rc = store_events(p->store, after, 0, NULL, NULL, &e);
		if (rc == 0) {
			w = wait_new(p, r, HEARTBEAT_MS, look_stream);
			w->after = after;
			request_stream(r, "text/event-stream", read_stream, stream_done, w);
			return;
		}
	}
	if (rc < 0) {
		reply_problem(r, &e, NULL);
		return;
	}
	w = wait_new(p, r, (uint64_t)seconds * 1000, look_events);
	w->after = after;
	w->limit = limit;
	phid_changed(p);
}

/* ---- the console's log ---- */

int console_open(const struct phid *p, int64_t row, struct console_log *head, struct phi_error *e)
{
	char path[PHI_PATH_MAX];
	_clean_close_ int fd = -1;

	cell_path(p, row, "console", path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || pread(fd, head, sizeof(*head), 0) != sizeof(*head) || head->size < PHI_LOG_MIN || head->size > PHI_LOG_MAX)
		return phi_error_set(e, PHI_NOT_FOUND, ENOENT, "", "the container has no console log");
	return PHI_TAKE_FD(fd);
}

ssize_t console_read(int fd, const struct console_log *head, uint64_t *offset, char *buf, size_t max)
{
	uint64_t begin = head->end > head->size ? head->end - head->size : 0;
	struct console_log now;
	size_t at, run;
	ssize_t n;

	if (*offset < begin)
		*offset = begin;
	if (*offset >= head->end)
		return 0;
	at = (size_t)(*offset % head->size);
	run = (size_t)(head->end - *offset);
	if (run > head->size - at)
		run = (size_t)(head->size - at);
	if (run > max)
		run = max;
	n = pread(fd, buf, run, (off_t)(CONSOLE_LOG_HEADER + at));
	/* The keeper writes on: bytes that were overwritten meanwhile are lost, not new ones. */
	if (n > 0 && pread(fd, &now, sizeof(now), 0) == sizeof(now) && now.writing > now.size && *offset < now.writing - now.size) {
		size_t lost = now.writing - now.size - *offset < (uint64_t)n ? (size_t)(now.writing - now.size - *offset) : (size_t)n;

		memmove(buf, buf + lost, (size_t)n - lost);
		*offset += lost;
		n -= (ssize_t)lost;
	}
	if (n > 0)
		*offset += (uint64_t)n;
	return n;
}

static bool look_console(struct wait *w, bool late)
{
	if (w->request == NULL)
		return true;
	if (request_client_gone(w->request))
		w->gone = true;
	if (late)
		w->timer = loop_timer(w->p->loop, "wait", FOLLOW_MS, on_time, w);
	request_wake(w->request);
	return false;
}

static ssize_t read_console(void *ud, char *buf, size_t max)
{
	struct wait *w = ud;
	_clean_container_ struct container c = {0};
	struct console_log head;
	_clean_close_ int fd = console_open(w->p, w->row, &head, NULL);
	ssize_t n;

	if (w->gone || fd < 0)
		return -1;
	n = console_read(fd, &head, &w->offset, buf, max);
	if (n != 0)
		return n;
	/* At the end, and the guest is no more: over. */
	if (store_container_by_row(w->p->store, STORE_READ, w->row, &c, NULL) < 0 || c.state == STATE_STOPPED)
		return -1;
	return 0;
}

void get_console(struct phid *p, struct request *r, const char *id)
{
	const char *follow = request_query(r, "follow");
	_clean_container_ struct container c = {0};
	_clean_close_ int fd = -1;
	struct console_log head;
	struct phi_error e = {0};
	uint64_t offset = 0;
	size_t n = 0, room;
	int64_t tail;
	ssize_t got;
	char *text;
	int rc = query_number(r, "tail", 0, PHI_LOG_MAX, PHI_LOG_MAX, &tail, &e);

	if (rc == 0 && follow != NULL && strcmp(follow, "true") != 0 && strcmp(follow, "false") != 0)
		rc = phi_error_set(&e, PHI_INVALID, EINVAL, "?follow", "\"%.40s\" is neither true nor false", follow);
	if (rc == 0 && !find_container(p, r, id, &c))
		return;
	if (rc == 0)
		fd = console_open(p, c.row, &head, &e);
	if (rc < 0 || fd < 0) {
		reply_problem(r, &e, NULL);
		return;
	}
	if (head.end > (uint64_t)tail)
		offset = head.end - (uint64_t)tail;
	if (request_header(r, "Upgrade") != NULL) {
		attach_begin(p, r, &c, offset);
		return;
	}
	if (follow != NULL && strcmp(follow, "true") == 0) {
		struct wait *w = wait_new(p, r, FOLLOW_MS, look_console);

		w->row = c.row;
		w->offset = offset;
		request_stream(r, "text/plain; charset=utf-8", read_console, stream_done, w);
		return;
	}
	room = (size_t)(head.size < (uint64_t)tail ? head.size : (uint64_t)tail) + 1;
	text = malloc(room);
	if (text == NULL)
		abort();
	while (n + 1 < room && (got = console_read(fd, &head, &offset, text + n, room - 1 - n)) > 0)
		n += (size_t)got;
	for (size_t i = 0; i < n; i++) /* a NUL of the guest's would end the text */
		if (text[i] == '\0')
			text[i] = ' ';
	text[n] = '\0';
	request_reply(r, 200, "text/plain; charset=utf-8", text);
}
