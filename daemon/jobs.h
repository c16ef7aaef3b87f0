/* Work that may block (files, hashing), on threads that touch nothing of the daemon's but what the job carries. */
#pragma once

struct jobs;
struct loop;

int jobs_new(struct loop *l, struct jobs **ret);
/* At the end of the process: waits for jobs that run. Those that did not begin, and every `done`, are left undone. */
void jobs_stop(struct jobs *j);
/* run on a worker, then done on the loop, always, in no fixed order among jobs. */
void jobs_submit(struct jobs *j, void (*run)(void *ud), void (*done)(void *ud), void *ud);
