/* The documents that the API answers with. */
#pragma once

#include "alloc.h"
#include "phid.h"

char *view_container(struct phid *p, const struct container *c); /* malloc'd JSON */
void view_container_into(struct phid *p, const struct container *c, struct json *to);
char *view_stats(const struct cell *c, const struct cell_stats *s);
char *view_problem(const struct phi_error *e, const struct alloc_refusal *r);
char *view_allocations(struct phid *p, struct phi_error *e);
/* All links, or the one of that name; NULL with the error. */
char *view_links(struct phid *p, const char *name, struct phi_error *e);
/* What was granted, as members of an object. */
void view_grant(const struct platform *p, const struct alloc_grant *g, struct json *to);
char *view_capacity(struct phid *p, struct phi_error *e);
char *view_health(struct phid *p);
char *view_host(struct phid *p, const struct check_facts *facts);
char *view_event(const struct event *ev);
