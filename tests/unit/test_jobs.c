/* The workers: every job is run, and those that hang hold up no other. */
#include "unit.h"

#include "jobs.h"
#include "loop.h"

#include <unistd.h>

#define HANGING 12 /* fewer than there may be threads */
#define LONG_MS 20000

struct bench;

struct job {
	struct bench *b;
	int hangs_on; /* a pipe; -1: it does nothing */
};

struct bench {
	struct loop *loop;
	struct jobs *jobs;
	struct job many[500];
	int done, wanted, pipe[2];
	void (*next)(struct bench *b); /* when one more is done */
	bool late;
};

static void run(void *ud)
{
	const struct job *j = ud;
	char byte;

	if (j->hangs_on >= 0 && read(j->hangs_on, &byte, 1) < 0)
		abort();
}

static void done(void *ud)
{
	struct bench *b = ((struct job *)ud)->b;

	b->done++;
	if (b->next != NULL)
		b->next(b);
	if (b->done == b->wanted)
		loop_stop(b->loop);
}

static void submit(struct bench *b, size_t i, int hangs_on)
{
	b->many[i] = (struct job){b, hangs_on};
	jobs_submit(b->jobs, run, done, &b->many[i]);
}

static void on_late(void *ud)
{
	struct bench *b = ud;

	b->late = true;
	loop_stop(b->loop);
}

static int begin(void **state)
{
	static struct bench benches[2], *b = benches; /* a test's each: what jobs_stop leaves stays in sight */

	*state = b;
	return loop_new(&b->loop) == 0 && jobs_new(b->loop, &b->jobs) == 0 ? pipe((b++)->pipe) : -1;
}

static int end(void **state)
{
	struct bench *b = *state;

	close(b->pipe[1]); /* whoever still hangs, ends */
	jobs_stop(b->jobs);
	loop_free(b->loop);
	close(b->pipe[0]);
	return 0;
}

static void await(struct bench *b, int wanted)
{
	struct loop_source *late = loop_timer(b->loop, "late", LONG_MS, on_late, b);

	b->wanted = wanted;
	loop_run(b->loop);
	loop_source_free(late);
	if (b->late)
		fail_msg("%d of %d jobs are done", b->done, wanted);
}

static void every_job_is_run_and_told_once(void **state)
{
	struct bench *b = *state;

	for (size_t i = 0; i < PHI_COUNT(b->many); i++)
		submit(b, i, -1);
	await(b, PHI_COUNT(b->many));
}

/* The first is done: its thread is idle, and gets all of these in one turn of the loop. When the quick ones are done, the others may. */
static void go_on(struct bench *b)
{
	for (size_t i = 0; b->done == 1 && i < HANGING; i++) {
		submit(b, 1 + 2 * i, b->pipe[0]);
		submit(b, 2 + 2 * i, -1);
	}
	for (size_t i = 0; b->done == 1 + HANGING && i < HANGING; i++)
		assert_int_equal(write(b->pipe[1], "x", 1), 1);
}

static void jobs_that_hang_hold_up_no_other(void **state)
{
	struct bench *b = *state;

	b->next = go_on;
	submit(b, 0, -1);
	await(b, 1 + 2 * HANGING);
}

#define jobs_test(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		jobs_test(every_job_is_run_and_told_once),
		jobs_test(jobs_that_hang_hold_up_no_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
