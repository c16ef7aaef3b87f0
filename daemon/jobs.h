/* Work that may block (files, hashing), on threads that touch nothing of the daemon's but what the job carries. */
#pragma once

struct jobs;
struct loop;

int jobs_new(struct loop *l, struct jobs **ret);
/* Waits for jobs that run; those that did not begin are dropped with their `done` uncalled. */
void jobs_free(struct jobs *j);
/* run on a worker, then done on the loop, always, in no fixed order among jobs. */
void jobs_submit(struct jobs *j, void (*run)(void *ud), void (*done)(void *ud), void *ud);
