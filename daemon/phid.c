/* phid: the beginning and the end of the daemon. */
#include "phid.h"

#include "batch.h"
#include "clean.h"
#include "container.h"
#include "discover.h"
#include "error.h"
#include "http.h"
#include "jobs.h"
#include "keepers.h"
#include "log.h"
#include "loop.h"
#include "peer.h"
#include "routes.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

static const struct backend *const built[] = {&backend_qemu, &backend_jailhouse, &backend_sim};

/* DIR and its parents. */
static int make_dirs(const char *dir, mode_t mode, struct phi_error *e)
{
	_clean_free_ char *path = strdup(dir);

	if (path == NULL)
		abort();
	for (char *p = path + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(path, c == '\0' ? mode : 0755) < 0 && errno != EEXIST)
			return phi_error_set(e, PHI_INVALID, errno, "", "%s: %s", path, strerror(errno));
		*p = c;
		if (c == '\0')
			return 0;
	}
}

/* One phid a state directory: the descriptor stays open as long as we live. */
static int lock_state(const char *dir, struct phi_error *e)
{
	char path[PHI_PATH_MAX];
	_clean_close_ int fd = -1;

	snprintf(path, sizeof(path), "%s/lock", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return phi_error_set(e, PHI_INVALID, errno, "", "%s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return phi_error_set(e, PHI_BUSY, errno, "/state-dir", "another phid has %s", dir);
	return PHI_TAKE_FD(fd);
}

static int prepare_dirs(struct phid *p, struct phi_error *e)
{
	_clean_free_ char *cells = NULL, *of_socket = strdup(p->config.socket);
	int r;

	if (of_socket == NULL || asprintf(&cells, "%s/cells", p->config.state_dir) < 0)
		abort();
	*strrchr(of_socket, '/') = '\0';
	r = make_dirs(p->config.state_dir, 0700, e);
	if (r == 0)
		r = make_dirs(cells, 0700, e);
	if (r == 0)
		r = make_dirs(p->config.runtime_dir, 0755, e);
	if (r == 0 && of_socket[0] != '\0')
		r = make_dirs(of_socket, 0755, e);
	return r;
}

static int init_backends(struct phid *p, struct backend_env *env, struct phi_error *e)
{
	for (size_t i = 0; i < p->config.n_backends; i++)
		for (size_t k = 0; k < PHI_COUNT(built); k++) {
			int r;

			if (strcmp(built[k]->name, p->config.backends[i]) != 0)
				continue;
			r = built[k]->init(env, e);
			if (r < 0)
				return r;
			p->backends[p->n_backends++] = built[k];
		}
	return 0;
}

/* Sockets from systemd, by their type: the API's is a stream, the keepers' a sequence of packets. */
static void take_sockets(struct config *c, int *ret_http, int *ret_keepers)
{
	struct sockaddr_un a = {0};
	socklen_t size = sizeof(a) - 1;
	int n = sd_listen_fds(1);

	*ret_http = *ret_keepers = -1;
	for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + n; fd++) {
		if (sd_is_socket_unix(fd, SOCK_STREAM, 1, NULL, 0) > 0)
			*ret_http = fd;
		else if (sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, NULL, 0) > 0)
			*ret_keepers = fd;
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	}
	/* Where it really is, keepers are told. */
	if (*ret_http >= 0 && getsockname(*ret_http, (struct sockaddr *)&a, &size) == 0 && a.sun_path[0] == '/') {
		free(c->socket);
		c->socket = phi_strdup(a.sun_path);
	}
}

static void on_reconciled(struct phid *p)
{
	http_open(p->http);
	p->ready = true;
	ticks_start(p->loop);
	sd_notifyf(0, "READY=1\nSTATUS=%lld containers", (long long)store_containers_count(p->store, STORE_READ));
	log_info(NULL, "ready on %s", p->config.socket);
}

static int write_start(struct store *s, void *ud, struct phi_error *e)
{
	struct phid *p = ud;
	int r = store_pools_write(s, &p->platform, e);

	if (r == 0)
		r = store_boot(s, p->boot_id, e);
	if (r == 0)
		r = lost_rows(p, s, e);
	return r < 0 ? r : store_event_insert(s, p->store_note ? "phid.started-degraded" : "phid.started", NULL, NULL, NULL, e);
}

static void on_started(void *ud, const struct phi_error *e)
{
	if (e != NULL)
		log_error(NULL, "%s", e->detail);
	reconcile(ud, on_reconciled);
}

static void on_stop(void *ud)
{
	struct phid *p = ud;

	log_info(NULL, "stopping; cells go on");
	sd_notify(0, "STOPPING=1");
	loop_stop(p->loop);
}

static int serve(struct phid *p, struct phi_error *e)
{
	static struct backend_env env;
	struct loop_source *term, *interrupt;
	int http_fd, keepers_fd, r;

	env = (struct backend_env){.loop = p->loop,
				   .platform = &p->platform,
				   .runtime_dir = p->config.runtime_dir,
				   .root = geteuid() == 0,
				   .vm_uid_base = (uid_t)p->config.vm_uid_base};
	take_sockets(&p->config, &http_fd, &keepers_fd);
	host_stay(&p->platform, &env.host_cpus);
	r = init_backends(p, &env, e); /* the probe forks: before there are threads */
	if (r < 0)
		return r;
	signal(SIGCHLD, SIG_IGN);
	r = store_open(p->config.state_dir, &p->store, &p->store_note, e);
	if (r < 0)
		return r;
	if (p->store_note != NULL)
		log_error(NULL, "%s", p->store_note);
	batch_new(p->loop, p->store, &p->batch);
	r = jobs_new(p->loop, &p->jobs);
	env.jobs = p->jobs;
	if (r == 0)
		r = keepers_new(p, keepers_fd, &p->keepers, e);
	if (r == 0)
		r = http_new(p, http_fd, &p->http, e);
	if (r < 0)
		return r;
	term = loop_signal(p->loop, "signal", SIGTERM, on_stop, p);
	interrupt = loop_signal(p->loop, "signal", SIGINT, on_stop, p);
	loop_watchdog(p->loop);
	batch_submit(p->batch, write_start, on_started, p);
	r = loop_run(p->loop);
	waits_end(p);
	attach_end(p);
	http_free(PHI_TAKE(p->http));
	waits_free(p);
	loop_source_free(p->links);
	loop_source_free(term);
	loop_source_free(interrupt);
	return r;
}

static int print_discovered(const struct config *c, struct phi_error *e)
{
	_clean_free_ char *text = NULL;
	int r = discover(c->host_root, c->root_cell, &text, e);

	if (r == 0 && (puts(text) < 0 || fflush(stdout) != 0))
		r = phi_error_set(e, PHI_INTERNAL, errno, "", "standard output cannot be written: %s", strerror(errno));
	return r;
}

static int run(struct phid *p, struct phi_error *e)
{
	struct rlimit files;
	sigset_t blocked;
	int r;

	if (p->config.discover)
		return print_discovered(&p->config, e);
	r = host_discover(&p->platform, &p->config, e);
	if (r == 0 && access(p->config.keeper, X_OK) < 0)
		r = phi_error_set(e, PHI_INVALID, errno, "/keeper", "the keeper's program %s: %s", p->config.keeper, strerror(errno));
	if (r < 0 || p->config.check_only)
		return r;
	r = prepare_dirs(p, e);
	if (r < 0)
		return r;
	umask(0077); /* from here on: database, locks, consoles */
	r = lock_state(p->config.state_dir, e);
	if (r < 0)
		return r;
	/* The heap is not trimmed once a request. */
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	mallopt(M_TOP_PAD, 1 << 20);
	mallopt(M_MMAP_THRESHOLD, 4 << 20);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	peer_init();
	host_boot_id(p->boot_id);
	r = loop_new(&p->loop);
	return r < 0 ? r : serve(p, e);
}

int main(int argc, char **argv)
{
	static struct phid p;
	struct phi_error e = {0};
	int r;

	the_phid = &p;
	p.next_token = (uint64_t)getpid() << 32; /* an answer to an earlier phid's question is not ours */
	r = config_read(&p.config, argc, argv, &e);
	if (r > 0) {
		config_free(&p.config);
		return 0;
	}
	log_init(p.config.log_level);
	if (r == 0)
		r = run(&p, &e);
	/* What was not committed yet is dropped, as by a kill -9: its callers were told to ask again. */
	jobs_stop(p.jobs);
	if (r < 0)
		log_error(NULL, "%s", e.detail[0] ? e.detail : strerror(-r));
	if (r == 0 && p.config.check_only && !p.config.discover)
		printf("the configuration is good\n");
	return r < 0 ? phi_code_exit(e.code) ? phi_code_exit(e.code) : 1 : 0;
}
