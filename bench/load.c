/* Requests over a Unix socket from many clients at once, each of which waits for its answer before it asks again; prints what they took.
 *
 *   load [--close] [--body FILE] [--from N] SOCKET METHOD TARGET REQUESTS CLIENTS
 *
 * A '#' of TARGET becomes the number of the request, from N on. --close: a connection for each. SIGTERM ends it early. Prints a line of
 * JSON: requests, seconds, rate (1/s), p50, p99 and max (us), and the count of each status. */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 4096
#define STATUS_MAX  600
#define ANSWER_MAX  (1 << 20)

static struct {
	struct sockaddr_un address;
	const char *method, *target;
	char *body;
	size_t body_n;
	unsigned long from, requests;
	bool close;
	atomic_ulong next, done;
	double *took; /* us, of each request that was answered */
	atomic_ulong statuses[STATUS_MAX];
	atomic_bool stop;
} load;

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int dial(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	while (connect(fd, (struct sockaddr *)&load.address, sizeof(load.address)) < 0) {
		if (errno != EAGAIN) /* its backlog is full */
			die("connect");
		usleep(100);
	}
	return fd;
}

static size_t compose(char **ret, unsigned long number)
{
	const char *mark = strchr(load.target, '#');
	size_t n;
	FILE *f = open_memstream(ret, &n);

	if (f == NULL)
		die("memory");
	if (mark != NULL)
		fprintf(f, "%s %.*s%lu%s", load.method, (int)(mark - load.target), load.target, number, mark + 1);
	else
		fprintf(f, "%s %s", load.method, load.target);
	fprintf(f, " HTTP/1.1\r\nHost: phid\r\n%s", load.close ? "Connection: close\r\n" : "");
	if (load.body != NULL)
		fprintf(f, "Content-Type: application/json\r\nContent-Length: %zu\r\n", load.body_n);
	fputs("\r\n", f);
	if (load.body != NULL)
		fwrite(load.body, 1, load.body_n, f);
	fclose(f);
	return n;
}

/* Reads one whole answer; its status. */
static unsigned read_answer(int fd, char *buffer)
{
	size_t have = 0, body = 0;
	char *end = NULL, *length;
	unsigned status = 0;

	while (end == NULL || have < (size_t)(end - buffer) + body) {
		ssize_t n = have < ANSWER_MAX ? read(fd, buffer + have, ANSWER_MAX - have) : 0;

		if (n <= 0)
			die(n < 0 ? "read" : "the answer ended early, or is too long");
		have += (size_t)n;
		buffer[have] = '\0';
		if (end != NULL || (end = strstr(buffer, "\r\n\r\n")) == NULL)
			continue;
		end += 4;
		length = strcasestr(buffer, "\r\ncontent-length:");
		if (length != NULL && length < end)
			body = strtoul(length + strlen("\r\ncontent-length:"), NULL, 10);
		if (sscanf(buffer, "HTTP/1.%*c %u", &status) != 1 || status >= STATUS_MAX) {
			errno = EPROTO;
			die("answer");
		}
	}
	return status;
}

static void *client(void *ud)
{
	char *buffer = malloc(ANSWER_MAX + 1);
	int fd = load.close ? -1 : dial();
	unsigned long i;

	(void)ud;
	if (buffer == NULL)
		die("memory");
	while (!load.stop && (i = load.next++) < load.requests) {
		char *request;
		size_t n = compose(&request, load.from + i);
		double begin = now_us();

		if (load.close)
			fd = dial();
		if (send(fd, request, n, MSG_NOSIGNAL) != (ssize_t)n)
			die("send");
		load.statuses[read_answer(fd, buffer)]++;
		load.took[load.done++] = now_us() - begin;
		if (load.close)
			close(fd);
		free(request);
	}
	if (!load.close)
		close(fd);
	free(buffer);
	return NULL;
}

static void on_term(int signal)
{
	(void)signal;
	load.stop = true;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void read_body(const char *path)
{
	FILE *f = fopen(path, "re");

	if (f == NULL)
		die(path);
	load.body = malloc(1 << 20);
	if (load.body == NULL)
		die("memory");
	load.body_n = fread(load.body, 1, 1 << 20, f);
	fclose(f);
}

static void print(double seconds)
{
	unsigned long n = load.done;
	const char *comma = "";

	qsort(load.took, n, sizeof(*load.took), by_size);
	printf("{\"requests\": %lu, \"seconds\": %.6f, \"rate\": %.1f, \"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f, \"statuses\": {", n, seconds,
	       (double)n / seconds, n > 0 ? load.took[n / 2] : 0, n > 0 ? load.took[n * 99 / 100] : 0, n > 0 ? load.took[n - 1] : 0);
	for (unsigned s = 0; s < STATUS_MAX; s++)
		if (load.statuses[s] > 0) {
			printf("%s\"%u\": %lu", comma, s, (unsigned long)load.statuses[s]);
			comma = ", ";
		}
	puts("}}");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"close", no_argument, NULL, 'c'}, {"body", required_argument, NULL, 'b'},
						{"from", required_argument, NULL, 'f'}, {0}};
	pthread_t threads[CLIENTS_MAX];
	unsigned long clients;
	double begin;

	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (o == 'c')
			load.close = true;
		else if (o == 'b')
			read_body(optarg);
		else if (o == 'f')
			load.from = strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	if (argc - optind != 5 || strlen(argv[optind]) >= sizeof(load.address.sun_path)) {
		fputs("usage: load [--close] [--body FILE] [--from N] SOCKET METHOD TARGET REQUESTS CLIENTS\n", stderr);
		return 2;
	}
	load.address.sun_family = AF_UNIX;
	strcpy(load.address.sun_path, argv[optind]);
	load.method = argv[optind + 1];
	load.target = argv[optind + 2];
	load.requests = strtoul(argv[optind + 3], NULL, 10);
	clients = strtoul(argv[optind + 4], NULL, 10);
	if (clients < 1 || clients > CLIENTS_MAX)
		return 2;
	load.took = malloc((load.requests + 1) * sizeof(*load.took));
	if (load.took == NULL)
		die("memory");
	signal(SIGTERM, on_term);
	begin = now_us();
	for (unsigned long i = 0; i < clients; i++)
		if ((errno = pthread_create(&threads[i], NULL, client, NULL)) != 0)
			die("thread");
	for (unsigned long i = 0; i < clients; i++)
		pthread_join(threads[i], NULL);
	print((now_us() - begin) / 1e6);
	free(load.took);
	free(load.body);
	return 0;
}
