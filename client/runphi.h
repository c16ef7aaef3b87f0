/* The parts of runphi, the OCI runtime. */
#pragma once

#include "error.h"
#include "id.h"
#include "limits.h"

#include <stdbool.h>
#include <sys/types.h>

/* What the command line says. */
struct invocation {
	char **argv; /* as given: what a forwarded runtime gets */
	const char *root, *log, *log_format;
	const char *command; /* NULL if there is none */
	/* of the command */
	const char *bundle, *pid_file, *console_socket, *format;
	bool force, all, detach, keep, quiet;
	bool images_ask; /* an image may ask for a cell by carrying /boot/config.json */
	const char *words[4]; /* that are no options: the id, a signal */
	int n_words;
	/* where things are */
	char socket[108], runtime[PHI_PATH_MAX + 1], state_dir[PHI_PATH_MAX + 1];
};

/* A managed container as its marker tells. */
struct marker {
	char incarnation[PHI_UUID_LEN + 1], record[PHI_ID_MAX + 1];
	pid_t keeper;
};

/* runphi_forward.c */
int marker_read(const struct invocation *v, const char *id, struct marker *ret);
int marker_write(const struct invocation *v, const char *id, const struct marker *m, bool fresh, struct phi_error *e);
void marker_remove(const struct invocation *v, const char *id);
void marker_path(const struct invocation *v, const char *id, char *ret, size_t size);
/* Becomes the forwarded runtime; only comes back with an error. */
int forward(const struct invocation *v, struct phi_error *e);
/* Is the bundle of a create ours? 1, 0, or negative. */
int bundle_is_managed(const struct invocation *v, const char *bundle, bool *ret_terminal, struct phi_error *e);
/* Is the container of a later command ours? Fills *m. */
bool container_is_managed(const struct invocation *v, const char *id, struct marker *m);

/* One verb each. 0, or negative with the error. */
int verb_create(const struct invocation *v, struct phi_error *e);
int verb_run(const struct invocation *v, int *ret_status, struct phi_error *e);
int verb_pause(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_resume(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_start(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_state(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_kill(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_delete(const struct invocation *v, const struct marker *m, struct phi_error *e);
int verb_list(const struct invocation *v, struct phi_error *e);

/* runphi_verbs.c: a request about the container; 0 if the answer is below 300. *ret_body (NULL allowed) is owned. */
int request(const struct invocation *v, const struct marker *m, const char *method, const char *suffix, const char *body,
	    char **ret_body, struct phi_error *e);
void new_uuid(char ret[PHI_UUID_LEN + 1]);
