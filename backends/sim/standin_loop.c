/*
 * standin_loop.c owns the epoll loop of phid-sim (a stand-in, not a hypervisor), its connections, and the
 * answers that wait for their time. It never parses a request.
 *
 * Invariants: one event is taken from epoll a turn, so no event can point to what an earlier one has freed;
 * while a connection does not read its answers, its requests are not read; a serial is never used twice.
 */
#include "standin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	REQUESTS_A_TURN = 64
};

uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- packets ---- */

struct packet *packet_free(struct packet *packet)
{
	if (packet && packet->fd >= 0)
		close(packet->fd);
	free(packet);
	return NULL;
}

struct packet *packet_new(const char *bytes, size_t len, int fd)
{
	struct packet *packet = malloc(sizeof(*packet) + len);

	if (!packet) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	*packet = (struct packet){.fd = fd, .len = len};
	memcpy(packet->bytes, bytes, len);
	return packet;
}

/* 0, or a negative errno. */
static int packet_send(int fd, struct packet *packet)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec bytes = {packet->bytes, packet->len};
	struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};

	if (packet->fd >= 0) {
		message.msg_control = control.space;
		message.msg_controllen = sizeof(control.space);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		*header = (struct cmsghdr){
		    .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(header), &packet->fd, sizeof(int));
	}
	return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* ---- connections ---- */

static struct connection *sim_connection(struct sim *sim, uint64_t serial)
{
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		if (sim->connections[i].fd >= 0 && sim->connections[i].serial == serial)
			return &sim->connections[i];
	return NULL;
}

static void connection_drop_queue(struct connection *connection)
{
	struct packet *next;

	for (struct packet *packet = connection->queue; packet; packet = next) {
		next = packet->next;
		packet_free(packet);
	}
	connection->queue = NULL;
	connection->queue_count = 0;
}

static void connection_close(struct connection *connection)
{
	if (connection->fd >= 0)
		close(connection->fd);
	connection_drop_queue(connection);
	*connection = (struct connection){.watch.kind = WATCH_CONNECTION, .fd = -1};
}

static void connection_watch(struct sim *sim, struct connection *connection)
{
	struct epoll_event event = {
	    .events = connection->queue ? EPOLLOUT : EPOLLIN,
	    .data.ptr = &connection->watch,
	};

	if (epoll_ctl(sim->epoll, EPOLL_CTL_MOD, connection->fd, &event) < 0)
		connection_close(connection);
}

static void connection_send(struct sim *sim, struct connection *connection, struct packet *packet)
{
	int r = connection->queue ? -EAGAIN : packet_send(connection->fd, packet);

	if (r == -EAGAIN && connection->queue_count < CONNECTION_QUEUE_MAX) {
		bool first = !connection->queue;

		*(first ? &connection->queue : connection->queue_end) = packet;
		connection->queue_end = &packet->next;
		connection->queue_count++;
		if (first)
			connection_watch(sim, connection);
		return;
	}
	packet_free(packet);
	if (r == -EPIPE || r == -ECONNRESET)
		connection->hung_up = true; /* what it asked for before it went is still done */
	else if (r < 0)
		connection_close(connection);
}

void sim_send(struct sim *sim, uint64_t serial, struct packet *packet)
{
	struct connection *connection = sim_connection(sim, serial);

	if (!connection || connection->hung_up)
		packet_free(packet);
	else if (!packet) /* no memory: better no connection than an answer that never comes */
		connection_close(connection);
	else
		connection_send(sim, connection, packet);
}

/* Once its queue is empty, or nobody is there to read it, its requests are read again. */
static void connection_flush(struct sim *sim, struct connection *connection)
{
	while (connection->queue && !connection->hung_up) {
		struct packet *packet = connection->queue;
		int r = packet_send(connection->fd, packet);

		if (r == -EAGAIN)
			return;
		connection->hung_up = r < 0;
		connection->queue = packet->next;
		connection->queue_count--;
		packet_free(packet);
	}
	connection_drop_queue(connection);
	connection_watch(sim, connection);
}

/* recv() says 0 for an empty packet as for the end. */
static bool connection_at_end(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static void connection_read(struct sim *sim, struct connection *connection)
{
	uint64_t serial = connection->serial;
	char bytes[PACKET_MAX_BYTES + 1]; /* one more shows that a packet is too long */

	for (int i = 0; i < REQUESTS_A_TURN && !sim->quitting; i++) {
		/* No room for control data: descriptors that a client sends are closed by the kernel. */
		ssize_t n = recv(connection->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		/* It went with answers unread; its requests come after this. */
		if (n < 0 && errno == ECONNRESET)
			continue;
		if (n < 0 || (n == 0 && connection_at_end(connection->fd))) {
			connection_close(connection);
			return;
		}
		proto_receive(sim, serial, bytes, (size_t)n);
		if (connection->serial != serial || connection->queue)
			return;
	}
}

static void connection_ready(struct sim *sim, struct connection *connection, uint32_t epoll_events)
{
	if (epoll_events & (EPOLLHUP | EPOLLERR))
		connection->hung_up = true;
	if (connection->queue)
		connection_flush(sim, connection);
	else
		connection_read(sim, connection);
}

/* A full descriptor table must not leave a connection that is always ready and never accepted. */
static void sim_accept(struct sim *sim)
{
	int fd = accept4(sim->listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
		close(sim->spare);
		fd = accept4(sim->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			close(fd);
		sim->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
		return;
	}
	if (fd < 0)
		return;
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *connection = &sim->connections[i];
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connection->watch};

		if (connection->fd >= 0)
			continue;
		if (epoll_ctl(sim->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
			break;
		connection->fd = fd;
		connection->serial = ++sim->last_serial;
		return;
	}
	close(fd);
}

void sim_subscribe(struct sim *sim, uint64_t serial)
{
	struct connection *connection = sim_connection(sim, serial);

	if (connection)
		connection->subscribed = true;
}

static void sim_push(void *userdata, const char *text)
{
	struct sim *sim = userdata;
	char bytes[160];
	int len = snprintf(bytes, sizeof(bytes), "0 event %s", text);

	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		if (sim->connections[i].fd >= 0 && sim->connections[i].subscribed)
			sim_send(sim, sim->connections[i].serial, packet_new(bytes, (size_t)len, -1));
}

/* ---- what waits for its time ---- */

void sim_defer(struct sim *sim, uint64_t connection, uint64_t due_ms, bool perform, struct packet *packet)
{
	struct deferred **place = &sim->deferred, *deferred = packet ? malloc(sizeof(*deferred)) : NULL;

	if (!deferred) {
		packet_free(packet);
		sim_send(sim, connection, NULL);
		return;
	}
	while (*place && (*place)->due_ms <= due_ms)
		place = &(*place)->next;
	*deferred = (struct deferred){*place, due_ms, connection, perform, packet};
	*place = deferred;
	sim->deferred_count++;
}

static struct deferred *sim_take_deferred(struct sim *sim)
{
	struct deferred *deferred = sim->deferred;

	sim->deferred = deferred->next;
	sim->deferred_count--;
	return deferred;
}

static void sim_run_deferred(struct sim *sim, uint64_t now)
{
	while (sim->deferred && sim->deferred->due_ms <= now && !sim->quitting) {
		struct deferred *deferred = sim_take_deferred(sim);

		if (deferred->perform) {
			proto_perform(sim, deferred->connection, deferred->packet->bytes,
				      deferred->packet->len);
			packet_free(deferred->packet);
		} else
			sim_send(sim, deferred->connection, deferred->packet);
		free(deferred);
	}
}

/* ---- the loop ---- */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void sim_quit(struct sim *sim)
{
	struct stat st;

	sim->quitting = true;
	if (sim->socket_path && stat(sim->socket_path, &st) == 0 && st.st_dev == sim->socket_dev &&
	    st.st_ino == sim->socket_ino)
		unlink(sim->socket_path);
	close_fd(&sim->listener);
	close_fd(&sim->lock);
}

int sim_watch(struct sim *sim, int fd, struct watch *watch)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = watch};

	return epoll_ctl(sim->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int sim_wait_ms(const struct sim *sim, uint64_t now)
{
	uint64_t due_ms = sim->cells.due_ms;

	if (sim->deferred && sim->deferred->due_ms < due_ms)
		due_ms = sim->deferred->due_ms;
	if (due_ms == NEVER_MS)
		return -1;
	if (due_ms <= now)
		return 0;
	return due_ms - now < 60000 ? (int)(due_ms - now) : 60000;
}

int sim_run(struct sim *sim)
{
	while (!sim->quitting) {
		struct epoll_event event;
		int n = epoll_wait(sim->epoll, &event, 1, sim_wait_ms(sim, now_ms()));

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			struct watch *watch = event.data.ptr;

			if (watch->kind == WATCH_LISTENER)
				sim_accept(sim);
			else if (watch->kind == WATCH_SIGNALS)
				sim_quit(sim);
			else if (watch->kind == WATCH_CONNECTION)
				connection_ready(sim, (struct connection *)watch, event.events);
			else
				cell_console_ready(&sim->cells, (struct cell *)watch, event.events);
		}
		sim_run_deferred(sim, now_ms());
		cells_run_due(&sim->cells, now_ms());
	}
	return 0;
}

void sim_done(struct sim *sim)
{
	sim_quit(sim);
	while (sim->deferred) {
		struct deferred *deferred = sim_take_deferred(sim);

		packet_free(deferred->packet);
		free(deferred);
	}
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		connection_close(&sim->connections[i]);
	cells_done(&sim->cells);
	close_fd(&sim->signals);
	close_fd(&sim->spare);
	close_fd(&sim->epoll);
	free(sim->socket_path);
	free(sim);
}

struct sim *sim_new(void)
{
	struct sim *sim = calloc(1, sizeof(*sim));

	if (!sim)
		return NULL;
	sim->listener = sim->signals = sim->lock = -1;
	sim->listener_watch.kind = WATCH_LISTENER;
	sim->signals_watch.kind = WATCH_SIGNALS;
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		sim->connections[i] = (struct connection){.watch.kind = WATCH_CONNECTION, .fd = -1};
	sim->epoll = epoll_create1(EPOLL_CLOEXEC);
	sim->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sim->cells.epoll = sim->epoll;
	sim->cells.push = sim_push;
	sim->cells.userdata = sim;
	sim->cells.due_ms = NEVER_MS;
	return sim;
}
