/* phictl attach: this terminal is the console of a cell, until the guest ends or the detach keys come. */
#include "phictl.h"

#include "clean.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#define KEYS_MAX 8

struct keys {
	char bytes[KEYS_MAX];
	size_t n, met; /* how many of them were typed just now */
};

/* "ctrl-p,ctrl-q", "a,b", as docker and podman write them. */
static int read_keys(const char *text, struct keys *ret, struct phi_error *e)
{
	*ret = (struct keys){0};
	for (const char *p = text; *p != '\0';) {
		size_t len = strcspn(p, ",");
		bool control = len == 6 && strncmp(p, "ctrl-", 5) == 0 && (isalpha((unsigned char)p[5]) || strchr("@[\\]^_", p[5]) != NULL);

		if (ret->n == KEYS_MAX || (len != 1 && !control))
			return phi_error_set(e, PHI_INVALID, EINVAL, "--detach-keys",
					     "\"%.60s\": up to %d keys were expected, with commas between, each a character or ctrl-X", text,
					     KEYS_MAX);
		ret->bytes[ret->n++] = control ? (char)(toupper((unsigned char)p[5]) & 0x1f) : p[0];
		p += len + (p[len] == ',');
	}
	return 0;
}

static int send_all(int fd, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t w = send(fd, bytes, n, MSG_NOSIGNAL);

		if (w < 0 && errno != EINTR)
			return -errno;
		bytes += w > 0 ? w : 0;
		n -= w > 0 ? (size_t)w : 0;
	}
	return 0;
}

/* Sends what was typed. 1: the detach keys came. Keys that only began to be them are held back until the next. */
static int send_typed(int fd, struct keys *k, const char *typed, size_t n)
{
	char out[KEYS_MAX + 1];

	for (size_t i = 0; i < n; i++) {
		size_t held = k->met;
		int r;

		if (k->n > 0 && typed[i] == k->bytes[k->met]) {
			if (++k->met == k->n)
				return 1;
			continue;
		}
		k->met = k->n > 0 && typed[i] == k->bytes[0] ? 1 : 0;
		memcpy(out, k->bytes, held);
		out[held] = typed[i];
		r = send_all(fd, out, held + (k->met == 0));
		if (r < 0)
			return r;
	}
	return 0;
}

static int write_out(const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t w = write(1, bytes, n);

		if (w < 0 && errno != EINTR)
			return -errno;
		bytes += w > 0 ? w : 0;
		n -= w > 0 ? (size_t)w : 0;
	}
	return 0;
}

/* 0 at the end of the connection, 1 if detached, negative if stdout is gone. */
static int carry(int fd, bool input, struct keys *keys)
{
	for (;;) {
		struct pollfd p[2] = {{fd, POLLIN, 0}, {input ? 0 : -1, POLLIN, 0}};
		char buf[16384];
		ssize_t n;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return -errno;
		if (p[0].revents != 0) {
			n = read(fd, buf, sizeof(buf));
			if (n <= 0)
				return 0;
			n = write_out(buf, (size_t)n);
			if (n < 0)
				return (int)n;
		}
		if (p[1].revents != 0) {
			n = read(0, buf, sizeof(buf));
			if (n > 0 && send_typed(fd, keys, buf, (size_t)n) == 1)
				return 1;
			if (n <= 0 && (n == 0 || errno != EINTR)) {
				input = false;
				shutdown(fd, SHUT_WR);
			}
		}
	}
}

static struct termios before;

/* A signal that ends phictl leaves the terminal as it was. */
static void on_deadly(int sig)
{
	tcsetattr(0, TCSANOW, &before);
	raise(sig); /* SA_RESETHAND: the default by now */
}

static void make_raw(void)
{
	static const int deadly[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGPIPE};
	struct sigaction act = {.sa_handler = on_deadly, .sa_flags = (int)SA_RESETHAND};
	struct termios raw = before;

	for (size_t i = 0; i < PHI_COUNT(deadly); i++)
		sigaction(deadly[i], &act, NULL);
	cfmakeraw(&raw);
	tcsetattr(0, TCSANOW, &raw);
}

int attach(const char *socket, const char *id, const struct attach_options *o, struct phi_error *e)
{
	struct keys keys;
	struct http_stream s;
	char path[PHI_ID_MAX + 80];
	struct http_call call = {.socket = socket, .method = "GET", .path = path};
	bool tty;
	int r = read_keys(o->detach_keys != NULL ? o->detach_keys : "ctrl-p,ctrl-q", &keys, e);

	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/v1/containers/%s/console?tail=%.20s", id, o->tail != NULL ? o->tail : "0");
	r = http_upgrade(&call, "phid-console", &s, e);
	if (r < 0)
		return r;
	tty = !o->no_stdin && tcgetattr(0, &before) == 0;
	if (tty) {
		fprintf(stderr, "[attached to %s; %s detaches]\n", id, o->detach_keys != NULL ? o->detach_keys : "ctrl-p,ctrl-q");
		make_raw();
	} else {
		keys.n = 0; /* no keys in a file */
	}
	if (o->no_stdin)
		shutdown(s.fd, SHUT_WR);
	r = write_out(s.more, s.n);
	if (r == 0)
		r = carry(s.fd, !o->no_stdin, &keys);
	close(s.fd);
	if (tty) {
		tcsetattr(0, TCSADRAIN, &before);
		fprintf(stderr, "\n[%s]\n", r == 1 ? "detached" : "the console is closed");
	}
	return r < 0 ? phi_error_set(e, PHI_INTERNAL, -r, "", "standard output: %s", strerror(-r)) : r;
}
