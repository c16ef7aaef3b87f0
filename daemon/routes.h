/* What routes.c, routes_verbs.c and waits.c share. */
#pragma once

#include "alloc.h"
#include "http.h"
#include "phid.h"

void reply_json(struct request *r, int status, char *text); /* takes text */
void reply_problem(struct request *r, const struct phi_error *e, const struct alloc_refusal *refusal);
int query_number(struct request *r, const char *name, int64_t min, int64_t max, int64_t absent, int64_t *ret,
		 struct phi_error *e);
bool find_container(struct phid *p, struct request *r, const char *id, struct container *c);

/* routes_verbs.c */
void put_container(struct phid *p, struct request *r, const char *id);
void delete_container(struct phid *p, struct request *r, const char *id);
void post_start(struct phid *p, struct request *r, const char *id);
void post_pause(struct phid *p, struct request *r, const char *id);
void post_resume(struct phid *p, struct request *r, const char *id);
void post_release(struct phid *p, struct request *r, const char *id);
void post_kill(struct phid *p, struct request *r, const char *id);

/* waits.c: what is answered when something happens. */
void get_wait(struct phid *p, struct request *r, const char *id);
void get_console(struct phid *p, struct request *r, const char *id);
void get_events(struct phid *p, struct request *r, const char *id);
/* The container's console log and its head; negative with the error. */
struct console_log;
int console_open(const struct phid *p, int64_t row, struct console_log *head, struct phi_error *e);
/* Up to max bytes from *offset on; moves *offset behind them, over what the ring lost. */
ssize_t console_read(int fd, const struct console_log *head, uint64_t *offset, char *buf, size_t max);

/* attach.c: the console in both directions. */
#define ATTACH_PROTOCOL "phid-console"
void attach_begin(struct phid *p, struct request *r, const struct container *c, uint64_t offset);
/* Closes them all; before http_free. */
void attach_end(struct phid *p);
/* Records changed: looks who waits for that, when the loop is idle. */
void phid_changed(struct phid *p);
/* Streams end at their next read; before http_free. Then, behind it, waits_free. */
void waits_end(struct phid *p);
void waits_free(struct phid *p);
