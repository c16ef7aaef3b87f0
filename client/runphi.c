/* runphi: the OCI runtime that containerd, CRI-O, podman and docker call. It decides whether a container is ours; if not,
 * it becomes runc or crun, with the very same words; if so, it asks phid. */
#include "runphi.h"

#include "clean.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* /etc/phid/runphi.conf: "key = value", keys socket, runtime, state-dir, images-ask. The environment wins. */
static void read_config(struct invocation *v)
{
	static const char *const variables[] = {"PHID_SOCKET", "RUNPHI_RUNTIME", "RUNPHI_STATE_DIR"};
	static const char *const keys[] = {"socket", "runtime", "state-dir"};
	struct {
		char *to;
		size_t size;
	} places[] = {{v->socket, sizeof(v->socket)}, {v->runtime, sizeof(v->runtime)}, {v->state_dir, sizeof(v->state_dir)}};
	const char *file = getenv("RUNPHI_CONFIG");
	_clean_fclose_ FILE *f = fopen(file ? file : "/etc/phid/runphi.conf", "re");
	char line[PHI_PATH_MAX + 64], key[32], value[PHI_PATH_MAX + 1];

	strcpy(v->socket, "/run/phid/phid.sock");
	strcpy(v->state_dir, "/run/runphi");
	v->images_ask = true;
	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		if (sscanf(line, " images-ask = %4095s", value) == 1)
			v->images_ask = strcmp(value, "no") != 0;
		for (size_t i = 0; i < PHI_COUNT(keys); i++)
			if (sscanf(line, " %31[a-z-] = %4095s", key, value) == 2 && strcmp(key, keys[i]) == 0)
				snprintf(places[i].to, places[i].size, "%s", value);
	}
	for (size_t i = 0; i < PHI_COUNT(keys); i++)
		if (getenv(variables[i]) != NULL)
			snprintf(places[i].to, places[i].size, "%s", getenv(variables[i]));
	if (strncmp(v->socket, "unix:", 5) == 0)
		memmove(v->socket, v->socket + 5, strlen(v->socket + 5) + 1);
}

/* The way of --root that the hash is made of: no trailing slashes. */
static const char *plain_root(const char *root)
{
	static char plain[PHI_PATH_MAX + 1];
	size_t n;

	if (root == NULL) {
		const char *dir = getenv("XDG_RUNTIME_DIR");

		if (geteuid() == 0 || dir == NULL)
			return "/run/runc";
		snprintf(plain, sizeof(plain), "%s/runc", dir);
		return plain;
	}
	if (realpath(root, plain) == NULL)
		snprintf(plain, sizeof(plain), "%s", root);
	for (n = strlen(plain); n > 1 && plain[n - 1] == '/'; n--)
		plain[n - 1] = '\0';
	return plain;
}

/* The error, on stderr and as the last line of --log (what containerd and conmon read). */
static void report(const struct invocation *v, const struct phi_error *e)
{
	_clean_fclose_ FILE *f = v->log != NULL ? fopen(v->log, "ae") : NULL;
	char now[40];
	time_t t = time(NULL);
	struct tm tm;

	fprintf(stderr, "runphi: %s%s%s%s\n", e->detail, e->pointer[0] ? " (" : "", e->pointer, e->pointer[0] ? ")" : "");
	if (f == NULL)
		return;
	gmtime_r(&t, &tm);
	strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (v->log_format != NULL && strcmp(v->log_format, "json") == 0) {
		fprintf(f, "{\"level\":\"error\",\"msg\":\"");
		for (const char *p = e->detail; *p != '\0'; p++) {
			if (*p == '"' || *p == '\\')
				fputc('\\', f);
			if ((unsigned char)*p < 0x20)
				fprintf(f, "\\u%04x", (unsigned char)*p);
			else
				fputc(*p, f);
		}
		fprintf(f, "\",\"time\":\"%s\"}\n", now);
	} else {
		fprintf(f, "time=\"%s\" level=error msg=\"%s\"\n", now, e->detail);
	}
}

void warn(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "runphi: warning: ");
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

static void help(void)
{
	printf("runphi: an OCI runtime for hard partitions; what is not for phid goes to runc or crun as it is.\n\n"
	       "usage: runphi [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND [options] [id]\n\ncommands:");
	args_print_commands();
	printf("\n\nSee runphi(8).\n");
}

static const struct {
	const char *name;
	int (*run)(const struct invocation *v, const struct marker *m, struct phi_error *e);
} verbs[] = {{"start", verb_start}, {"state", verb_state},   {"kill", verb_kill},
	     {"delete", verb_delete}, {"pause", verb_pause}, {"resume", verb_resume}, {"ps", verb_ps},
	     {"exec", verb_exec},     {"checkpoint", verb_checkpoint}, {"restore", verb_checkpoint}, {"events", verb_events}, {"update", verb_update}};

static int on_container(const struct invocation *v, struct phi_error *e)
{
	_clean_marker_ struct marker m = {0};

	int r = container_is_managed(v, v->words[0], &m, e);

	if (r <= 0)
		return r < 0 ? r : forward(v, e);
	if (v->unknown != NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, "", "runphi %s has no option %.100s; see runphi(8)", v->command, v->unknown);
	for (size_t i = 0; i < PHI_COUNT(verbs); i++)
		if (strcmp(verbs[i].name, v->command) == 0)
			return verbs[i].run(v, &m, e);
	return phi_error_set(e, PHI_INTERNAL, ENOSYS, "", "runphi %s has no code", v->command);
}

int main(int argc, char **argv)
{
	struct invocation v = {.argv = argv};
	struct phi_error e = {0};
	int r, status = 0;

	(void)argc;
	read_config(&v);
	args_read(&v);
	v.root = plain_root(v.root);
	if (v.command == NULL && v.version) {
		printf("runphi version %s\nspec: 1.0.2\n", PACKAGE_VERSION);
		return 0;
	}
	if (argv[1] == NULL || (v.command == NULL && v.help) || (v.command != NULL && strcmp(v.command, "help") == 0)) {
		help();
		return argv[1] == NULL;
	}
	if (!args_is_command(v.command)) {
		phi_error_set(&e, PHI_INVALID, EINVAL, "", "there is no %s \"%s\"; see runphi --help",
			      v.command == NULL && v.unknown ? "option" : "command",
			      v.command ? v.command : v.unknown ? v.unknown : "");
		report(&v, &e);
		return 3; /* as runc */
	}
	if (strcmp(v.command, "list") == 0 && !v.help)
		r = verb_list(&v, &e);
	else if (strcmp(v.command, "features") == 0 && !v.help)
		r = verb_features(&v, &e);
	else if (v.help || strcmp(v.command, "spec") == 0 || v.n_words == 0)
		r = forward(&v, &e); /* which also says that an id is missing */
	else if (strcmp(v.command, "create") == 0)
		r = verb_create(&v, &e);
	else if (strcmp(v.command, "run") == 0)
		r = verb_run(&v, &status, &e);
	else
		r = on_container(&v, &e);
	if (r < 0) {
		report(&v, &e);
		return 1;
	}
	return status;
}
