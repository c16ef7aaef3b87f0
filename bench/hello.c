/* The least that a server of libmicrohttpd does: the same short answer to each request. What phid's GETs are measured against.
 *
 *   hello SOCKET      until it is killed */
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static enum MHD_Result on_request(void *ud, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *data,
				  size_t *n, void **state)
{
	static char text[] = "{\"hello\":\"world\"}";
	struct MHD_Response *r;
	enum MHD_Result ok;

	(void)ud, (void)url, (void)method, (void)version, (void)data, (void)n;
	if (*state == NULL) { /* the headers alone */
		*state = text;
		return MHD_YES;
	}
	r = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_PERSISTENT);
	MHD_add_response_header(r, "Content-Type", "application/json");
	ok = MHD_queue_response(c, 200, r);
	MHD_destroy_response(r);
	return ok;
}

int main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (argc != 2 || strlen(argv[1]) >= sizeof(a.sun_path))
		return 2;
	strcpy(a.sun_path, argv[1]);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, SOMAXCONN) < 0 ||
	    MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, on_request, NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_END) == NULL) {
		perror("hello");
		return 1;
	}
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
