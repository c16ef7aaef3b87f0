/* Coverage-guided fuzzing (libFuzzer) of the running daemon: all of phid but its main, with a database on a disk of memory, in a thread
 * of its own; the fuzzer is a client. FUZZ_TARGET names what is hostile:
 *
 *   http      the input is what a client writes to the API's socket; the containers it makes run on the stand-in backend below
 *   keeper    packets of a keeper, of a container of that backend
 *   qmp       packets of a keeper behind the SPAWN of a container of the QEMU backend, most of them QMP; no QEMU is started
 *
 * FUZZ_DIR: an empty directory, best of memory. Packets: a byte of flags (1: the header's length is made right; 2: HELLO gets the
 * container's incarnation), their length in two bytes, and what they hold. Behind each input the daemon must answer, and let all that
 * was made be deleted. */
#include "batch.h"
#include "clean.h"
#include "container.h"
#include "error.h"
#include "http.h"
#include "jobs.h"
#include "json.h"
#include "keepers.h"
#include "log.h"
#include "loop.h"
#include "operation.h"
#include "phid.h"
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define PATIENCE_MS 20	  /* for the answer to an input: some wait for what never comes */
#define ALIVE_MS    10000 /* for the answer to a request of our own */
#define INCARNATION "6b2e5f0c-8d4a-4c39-9b1f-0a7d3e5c2f41"

/* ---- the stand-in backend: cells are numbers ---- */

static void set(struct cell *c, enum cell_presence p)
{
	c->of_backend = (void *)(uintptr_t)p;
}

static int fuzz_init(const struct backend_env *env, struct phi_error *e)
{
	(void)env;
	(void)e;
	return 0;
}

static void fuzz_describe(struct json *to)
{
	json_add_bool(to, "available", true);
}

static int fuzz_validate(const struct spec *s, const struct platform *p, struct phi_error *e)
{
	(void)s;
	(void)p;
	(void)e;
	return 0;
}

static void fuzz_create(struct cell *c, uint64_t token)
{
	set(c, CELL_CREATED);
	cell_acted(c, token, NULL);
}

static int fuzz_hand(struct cell *c, struct phi_error *e)
{
	return cell_spawn(c, NULL, -1, e);
}

static void fuzz_attach(struct cell *c, uint64_t token)
{
	if (token != 0)
		cell_acted(c, token, NULL);
}

static void fuzz_start(struct cell *c, uint64_t token)
{
	set(c, CELL_RUNNING);
	cell_acted(c, token, NULL);
}

static void fuzz_pause(struct cell *c, uint64_t token)
{
	set(c, CELL_PAUSED);
	cell_acted(c, token, NULL);
}

static void fuzz_destroy(struct cell *c, uint64_t token)
{
	set(c, CELL_ABSENT);
	cell_acted(c, token, NULL);
}

static void fuzz_powerdown(struct cell *c, uint64_t token)
{
	static const struct cell_end end = {.reason = "guest-shutdown"};

	set(c, CELL_ABSENT);
	cell_acted(c, token, NULL);
	cell_ended(c, &end);
}

static void fuzz_observe(struct cell *c, uint64_t token)
{
	struct observation o = {.presence = (enum cell_presence)(uintptr_t)c->of_backend};

	cell_observed(c, token, &o, NULL);
}

static int fuzz_stats(const struct cell *c, struct cell_stats *ret, struct phi_error *e)
{
	(void)c;
	(void)e;
	*ret = (struct cell_stats){.threads = 1};
	return 0;
}

static void fuzz_forget(struct cell *c)
{
	c->of_backend = NULL;
}

static const struct backend backend_fuzz = {
	.name = "sim", /* specs know no other names; the real one is not in here */
	.can = CAN_PAUSE | CAN_POWERDOWN | CAN_PLACE,
	.init = fuzz_init,
	.describe = fuzz_describe,
	.validate = fuzz_validate,
	.create = fuzz_create,
	.hand = fuzz_hand,
	.attach = fuzz_attach,
	.start = fuzz_start,
	.pause = fuzz_pause,
	.resume = fuzz_start,
	.powerdown = fuzz_powerdown,
	.destroy = fuzz_destroy,
	.observe = fuzz_observe,
	.stats = fuzz_stats,
	.forget = fuzz_forget,
};

/* ---- clients ---- */

static struct phid the_daemon;
static char api_path[64], keeper_path[64], kernel_path[64];

static int connect_to(const char *path, int type)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
	must(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

/* libFuzzer's timer interrupts whom it likes. */
static bool readable(int fd, int ms)
{
	struct pollfd p = {fd, POLLIN, 0};
	int r;

	do
		r = poll(&p, 1, ms);
	while (r < 0 && errno == EINTR);
	return r > 0;
}

/* Reads to the end; the bytes in buf, cut at its size. False if the end did not come in time. */
static bool read_all(int fd, int ms, char *buf, size_t size)
{
	size_t n = 0;

	for (;;) {
		char rest[4096];
		ssize_t r;

		buf[n] = '\0';
		if (!readable(fd, ms))
			return false;
		r = n + 1 < size ? read(fd, buf + n, size - n - 1) : read(fd, rest, sizeof(rest));
		if (r <= 0)
			return true;
		if (n + 1 < size)
			n += (size_t)r;
	}
}

/* A request of our own, which must be answered well, or by 404 or 409. The whole answer in `answer`. */
static void request(const char *method, const char *path, const char *body, char *answer, size_t size)
{
	int fd = connect_to(api_path, SOCK_STREAM), status = 0;

	dprintf(fd, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", method, path, body ? strlen(body) : 0,
		body ? body : "");
	must(read_all(fd, ALIVE_MS, answer, size));
	close(fd);
	if (sscanf(answer, "HTTP/1.1 %d", &status) != 1 || (status / 100 != 2 && status != 404 && status != 409))
		fprintf(stderr, "%s %s: %s\n", method, path, answer), abort();
}

/* Answers how many there were. One that was reserved in this very moment is busy (409), and there the next time. */
static int delete_all(void)
{
	static char answer[1 << 20], deleted[65536];
	_clean_json_ struct json *j = NULL;
	const char *body;
	int n = 0;

	request("GET", "/v1/containers?limit=1000", NULL, answer, sizeof(answer));
	body = strstr(answer, "\r\n\r\n");
	must(body != NULL && json_parse(body + 4, strlen(body + 4), &j, NULL) == 0);
	for (const struct json *c = json_first(json_get(j, "items")); c != NULL; c = json_next(c), n++) {
		char path[400];

		snprintf(path, sizeof(path), "/v1/containers/%s?force=true", json_get_string(c, "id"));
		request("DELETE", path, NULL, deleted, sizeof(deleted));
	}
	return n;
}

/* ---- keepers ---- */

static pthread_mutex_t keepers_lock = PTHREAD_MUTEX_INITIALIZER;
static int keepers[64], n_keepers;

static int greet(const char *incarnation, bool by_caller)
{
	struct keeper_hello m = {.h = {.length = sizeof(m), .type = KEEPER_HELLO}, .version = KEEPER_VERSION, .pid = getpid(), .by_caller = by_caller};
	int fd = connect_to(keeper_path, SOCK_SEQPACKET);

	memcpy(m.incarnation, incarnation, PHI_UUID_LEN);
	must(send(fd, &m, sizeof(m), MSG_NOSIGNAL) == sizeof(m));
	return fd;
}

/* In keeper_start's place (ld --wrap): no process, but one that says HELLO and then nothing. */
__typeof__(keeper_start) __wrap_keeper_start;
int __wrap_keeper_start(const struct keeper_wish *w, struct phi_error *e)
{
	int r = 0;

	pthread_mutex_lock(&keepers_lock);
	if (n_keepers < (int)PHI_COUNT(keepers))
		keepers[n_keepers++] = greet(w->incarnation, false);
	else
		r = phi_error_set(e, PHI_INTERNAL, ENFILE, "", "enough keepers for one input");
	pthread_mutex_unlock(&keepers_lock);
	return r;
}

static void end_keepers(void)
{
	pthread_mutex_lock(&keepers_lock);
	while (n_keepers > 0)
		close(keepers[--n_keepers]);
	pthread_mutex_unlock(&keepers_lock);
}

static void send_packets(int fd, const uint8_t *data, size_t n)
{
	while (n >= 3) {
		size_t length = data[1] | (size_t)data[2] << 8;
		char packet[65536];
		struct keeper_header h;

		length = length < n - 3 ? length : n - 3;
		memcpy(packet, data + 3, length);
		if ((data[0] & 1) && length >= sizeof(h)) {
			memcpy(&h, packet, sizeof(h));
			h.length = (uint32_t)length;
			memcpy(packet, &h, sizeof(h));
		}
		if ((data[0] & 2) && length >= sizeof(struct keeper_hello))
			memcpy(packet + offsetof(struct keeper_hello, incarnation), INCARNATION, PHI_UUID_LEN);
		if (length > 0 && send(fd, packet, length, MSG_NOSIGNAL) < 0)
			return; /* it was hung up on */
		data += 3 + length;
		n -= 3 + length;
	}
}

/* ---- the targets ---- */

static void fuzz_http(const char *data, size_t n)
{
	static char answer[65536];
	int fd = connect_to(api_path, SOCK_STREAM);

	if (send(fd, data, n, MSG_NOSIGNAL) >= 0)
		shutdown(fd, SHUT_WR);
	read_all(fd, PATIENCE_MS, answer, sizeof(answer));
	close(fd);
	must(answer[0] == '\0' || strncmp(answer, "HTTP/1.", 7) == 0);
}

static void fuzz_keeper(const char *data, size_t n)
{
	static char answer[65536];
	int fd;

	request("PUT", "/v1/containers/k", "{\"incarnation\":\"" INCARNATION "\",\"spec\":{\"backend\":\"sim\"}}", answer, sizeof(answer));
	fd = connect_to(keeper_path, SOCK_SEQPACKET);
	send_packets(fd, (const uint8_t *)data, n);
	close(fd);
}

static void fuzz_qmp(const char *data, size_t n)
{
	static char answer[65536], body[300];
	int fd = greet(INCARNATION, true), api;

	snprintf(body, sizeof(body), "{\"incarnation\":\"" INCARNATION "\",\"keeper\":\"caller\",\"spec\":{\"backend\":\"qemu\",\"boot\":{\"kernel\":\"%s\"}}}",
		 kernel_path);
	api = connect_to(api_path, SOCK_STREAM);
	dprintf(api, "PUT /v1/containers/q HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
	must(readable(fd, ALIVE_MS));
	send_packets(fd, (const uint8_t *)data, n);
	close(fd);
	must(read_all(api, ALIVE_MS, answer, sizeof(answer)));
	close(api);
}

static const struct target targets[] = {{"http", fuzz_http}, {"keeper", fuzz_keeper}, {"qmp", fuzz_qmp}, {0}};

static const struct target *chosen;

/* ---- the daemon, as phid.c has it ---- */

static int write_start(struct store *s, void *ud, struct phi_error *e)
{
	return store_pools_write(s, &((struct phid *)ud)->platform, e);
}

static void on_reconciled(struct phid *p)
{
	http_open(p->http);
}

static void on_started(void *ud, const struct phi_error *e)
{
	must(e == NULL);
	reconcile(ud, on_reconciled);
}

static void *daemon_main(void *ud)
{
	must(loop_run(((struct phid *)ud)->loop) == 0);
	return NULL;
}

static void begin_daemon(void)
{
	static const char platform[] = "{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-7\",\"host\":\"\"},\"memory\":"
				       "[{\"name\":\"host\",\"kind\":\"host\",\"size\":\"1G\"}]}";
	static char cells[64];
	static struct backend_env env;
	struct phid *p = the_phid = &the_daemon;
	char *dir = getenv("FUZZ_DIR");
	struct phi_error e = {0};
	pthread_t thread;
	int fd;

	must(dir != NULL && strlen(dir) < 40);
	snprintf(cells, sizeof(cells), "%s/cells", dir);
	snprintf(api_path, sizeof(api_path), "%s/s", dir);
	snprintf(keeper_path, sizeof(keeper_path), "%s/" KEEPER_SOCKET_NAME, dir);
	snprintf(kernel_path, sizeof(kernel_path), "%s/kernel", dir);
	fd = open(kernel_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	must(mkdir(cells, 0700) == 0 && fd >= 0 && write(fd, "kernel", 6) == 6);
	close(fd);
	p->config = (struct config){.socket = api_path, .state_dir = dir, .runtime_dir = dir, .keeper = (char[]){"/none"}, .host_root = (char[]){""},
				    .action_timeout_ms = 15000, .vm_uid_base = 2000000000};
	must(platform_read(platform, strlen(platform), &p->platform, &e) == 0);
	host_boot_id(p->boot_id);
	signal(SIGPIPE, SIG_IGN);
	must(loop_new(&p->loop) == 0);
	env = (struct backend_env){.loop = p->loop, .platform = &p->platform, .runtime_dir = dir};
	p->backends[p->n_backends++] = &backend_fuzz;
	p->backends[p->n_backends++] = &backend_qemu;
	for (size_t i = 0; i < p->n_backends; i++)
		must(p->backends[i]->init(&env, &e) == 0);
	must(store_open(dir, &p->store, &p->store_note, &e) == 0);
	batch_new(p->loop, p->store, &p->batch);
	must(jobs_new(p->loop, &p->jobs) == 0 && keepers_new(p, -1, &p->keepers, &e) == 0 && http_new(p, -1, &p->http, &e) == 0);
	env.jobs = p->jobs;
	batch_submit(p->batch, write_start, on_started, p);
	must(pthread_create(&thread, NULL, daemon_main, p) == 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	chosen = target_chosen(targets);
	log_init(3); /* errors; the fuzzer makes many warnings */
	begin_daemon();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	int turns = 0;

	chosen->run((const char *)data, n);
	while (delete_all() > 0)
		must(++turns < 1000);
	end_keepers();
	return 0;
}
