/* The console's way through the keeper. The cell is always drained into the ring; our stdout follows at its own pace
 * and gets a notice where it fell behind; the guest never waits for a reader. */
#include "keeper.h"

#include "console_log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int console_map(struct console *c, int log_fd)
{
	struct console_log head;
	void *p;

	if (pread(log_fd, &head, sizeof(head), 0) != sizeof(head))
		return -EIO;
	if (memcmp(head.magic, CONSOLE_LOG_MAGIC, 8) != 0 || head.size < PHI_LOG_MIN || head.size > PHI_LOG_MAX)
		return -EBADMSG;
	p = mmap(NULL, CONSOLE_LOG_HEADER + head.size, PROT_READ | PROT_WRITE, MAP_SHARED, log_fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	c->log = p;
	c->ring = (char *)p + CONSOLE_LOG_HEADER;
	c->size = head.size;
	c->written = head.end;
	return 0;
}

void console_put(struct console *c, const char *bytes, size_t n)
{
	uint64_t end = c->log->end;

	__atomic_store_n(&c->log->writing, end + n, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (size_t done = 0; done < n;) {
		size_t at = (size_t)((end + done) % c->size), run = (size_t)c->size - at;

		if (run > n - done)
			run = n - done;
		memcpy(c->ring + at, bytes + done, run);
		done += run;
	}
	__atomic_store_n(&c->log->end, end + n, __ATOMIC_RELEASE);
}

void console_read_cell(struct console *c)
{
	char buf[4096];

	for (int turn = 0; turn < 16; turn++) { /* bounded: a flooding guest does not starve the rest */
		ssize_t n = read(c->cell, buf, sizeof(buf));

		if (n > 0) {
			console_put(c, buf, (size_t)n);
			continue;
		}
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		close(c->cell);
		c->cell = -1;
		return;
	}
}

void console_read_stdin(struct console *c)
{
	ssize_t n = read(c->in, c->input + c->input_n, KEEPER_INPUT_MAX - c->input_n);

	if (n > 0)
		c->input_n += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		c->in = -1; /* the caller has no more to say; the cell goes on */
}

void console_take(struct console *c, const char *bytes, size_t n)
{
	if (n > sizeof(c->input) - c->input_n)
		n = sizeof(c->input) - c->input_n;
	memcpy(c->input + c->input_n, bytes, n);
	c->input_n += n;
	c->taking = true;
}

void console_write_cell(struct console *c)
{
	ssize_t n = write(c->cell, c->input, c->input_n);

	if (n > 0) {
		c->input_n -= (size_t)n;
		memmove(c->input, c->input + n, c->input_n);
	} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		c->input_n = 0;
	}
}

bool console_has_output(const struct console *c)
{
	return c->out >= 0 && c->log != NULL && c->written < c->log->end;
}

void console_write_out(struct console *c)
{
	uint64_t end = c->log->end;
	size_t at, run;
	ssize_t n;

	if (end - c->written > c->size) {
		char notice[80];
		int len = snprintf(notice, sizeof(notice), "\n[phid: %llu bytes of the console were lost here]\n",
				   (unsigned long long)(end - c->size - c->written));

		n = write(c->out, notice, (size_t)len);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		c->written = end - c->size;
	}
	at = (size_t)(c->written % c->size);
	run = (size_t)(end - c->written);
	if (run > c->size - at)
		run = (size_t)c->size - at;
	n = write(c->out, c->ring + at, run);
	if (n > 0)
		c->written += (uint64_t)n;
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		c->out = -1; /* nobody reads any more; the ring goes on */
}
