/* The worker pool. See jobs.h. */
#include "jobs.h"

#include "loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* One blocked file system must not stop the others: as many as can hang before phid is out of workers. */
#define THREADS_MAX 16

struct job {
	struct job *next;
	void (*run)(void *ud), (*done)(void *ud);
	void *ud;
};

struct jobs {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct job *first, **last, *finished;
	pthread_t threads[THREADS_MAX];
	int n_threads, n_idle, n_waiting, fd; /* n_waiting: jobs that no thread has taken */
	bool quit;
	struct loop_source *source;
};

static void *worker(void *ud)
{
	struct jobs *j = ud;
	const uint64_t one = 1;

	pthread_mutex_lock(&j->lock);
	j->n_idle++;
	for (;;) {
		struct job *job;

		while (j->first == NULL && !j->quit)
			pthread_cond_wait(&j->wake, &j->lock);
		if (j->quit)
			break;
		job = j->first;
		j->first = job->next;
		j->n_waiting--;
		j->n_idle--;
		if (j->first == NULL)
			j->last = &j->first;
		pthread_mutex_unlock(&j->lock);
		job->run(job->ud);
		pthread_mutex_lock(&j->lock);
		job->next = j->finished;
		j->finished = job;
		j->n_idle++;			/* whoever hears of this job may count on this thread for the next */
		pthread_mutex_unlock(&j->lock); /* nobody is woken to wait for it */
		if (write(j->fd, &one, sizeof(one)) < 0)
			abort();
		pthread_mutex_lock(&j->lock);
	}
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

static void on_finished(void *ud, uint32_t revents)
{
	struct jobs *j = ud;
	struct job *job;
	uint64_t n;

	(void)revents;
	if (read(j->fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		abort();
	pthread_mutex_lock(&j->lock);
	job = j->finished;
	j->finished = NULL;
	pthread_mutex_unlock(&j->lock);
	while (job != NULL) {
		struct job *next = job->next;

		job->done(job->ud);
		free(job);
		job = next;
	}
}

int jobs_new(struct loop *l, struct jobs **ret)
{
	struct jobs *j = calloc(1, sizeof(*j));

	if (j == NULL)
		abort();
	j->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (j->fd < 0) {
		free(j);
		return -errno;
	}
	j->last = &j->first;
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->wake, NULL);
	j->source = loop_io(l, "jobs", j->fd, EPOLLIN, on_finished, j);
	*ret = j;
	return 0;
}

void jobs_submit(struct jobs *j, void (*run)(void *ud), void (*done)(void *ud), void *ud)
{
	struct job *job = calloc(1, sizeof(*job));

	if (job == NULL)
		abort();
	job->run = run;
	job->done = done;
	job->ud = ud;
	pthread_mutex_lock(&j->lock);
	*j->last = job;
	j->last = &job->next;
	/* A thread that is woken for a job is idle until it runs. */
	if (++j->n_waiting > j->n_idle && j->n_threads < THREADS_MAX &&
	    pthread_create(&j->threads[j->n_threads], NULL, worker, j) == 0)
		j->n_threads++;
	pthread_mutex_unlock(&j->lock);
	pthread_cond_signal(&j->wake);
}

void jobs_stop(struct jobs *j)
{
	if (j == NULL)
		return;
	pthread_mutex_lock(&j->lock);
	j->quit = true;
	pthread_cond_broadcast(&j->wake);
	pthread_mutex_unlock(&j->lock);
	for (int i = 0; i < j->n_threads; i++)
		pthread_join(j->threads[i], NULL);
	loop_source_free(j->source);
}
