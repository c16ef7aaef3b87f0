/* The parts of phictl. */
#pragma once

#include "error.h"
#include "http_client.h"
#include "limits.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct json;

/* phictl_attach.c */
struct attach_options {
	const char *detach_keys; /* NULL: ctrl-p,ctrl-q */
	const char *tail;	 /* bytes of the log first, a number; NULL: none */
	bool no_stdin;
};
/* 0 when the console was closed (the guest ended, or phid did), 1 when the keys detached. */
int attach(const char *socket, const char *id, const struct attach_options *o, struct phi_error *e);

/* phictl_cell.c: needs no phid. */
struct cell_options {
	const char *flavour; /* NULL: by the file */
	const char *root;    /* the system configuration, or NULL */
	const char *iomem;   /* a file like /proc/iomem, or NULL */
	bool w_xor_x, json;
};
/* args: show FILE, check FILE..., write SPEC FILE. Negative with the error, else the exit status. */
int cell_command(char **args, const struct cell_options *o, struct phi_error *e);
/* A whole file of at most max bytes; *ret is owned. */
int read_file(const char *path, size_t max, char **ret, size_t *ret_n, struct phi_error *e);

/* phictl_host.c */
struct host_options {
	const char *platform; /* NULL: where phid has it */
	bool at_boot, force;  /* enable only if the platform says so; disable whatever cells there are */
	int (*ask)(const char *method, const char *path, const char *body, struct json **ret, struct phi_error *e);
};
int host_command(const char *what, const struct host_options *o, struct phi_error *e);
