/* runphi: the OCI runtime that containerd, CRI-O, podman and docker call. It decides whether a container is ours; if not,
 * it becomes runc or crun, with the very same words; if so, it asks phid. This file reads the command line. */
#include "runphi.h"

#include "clean.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Each command with those of its options that take a value (of runc 1.1 and crun 1.8), so that the id is found. */
static const struct command {
	const char *name, *with_value;
} commands[] = {
	{"create", " --bundle -b --console-socket --pid-file --preserve-fds --config -f "},
	{"run", " --bundle -b --console-socket --pid-file --preserve-fds --config -f "},
	{"start", ""},
	{"state", ""},
	{"kill", ""},
	{"delete", " --regex "},
	{"list", " --format -f "},
	{"ps", " --format -f "},
	{"pause", ""},
	{"resume", ""},
	{"update", " --resources -r --blkio-weight --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime --cpu-share "
		   "--cpuset-cpus --cpuset-mems --kernel-memory --kernel-memory-tcp --memory --memory-reservation "
		   "--memory-swap --pids-limit --l3-cache-schema --mem-bw-schema "},
	{"events", " --interval "},
	{"exec", " --process -p --cwd --env -e --user -u --additional-gids -g --pid-file --process-label --apparmor --cap -c "
		 "--preserve-fds --console-socket --cgroup "},
	{"features", ""},
	{"spec", " --bundle -b --config -f "},
	{"checkpoint", " --image-path --work-path --parent-path --page-server --manage-cgroups-mode --status-fd --lsm-profile "},
	{"restore", " --image-path --work-path --manage-cgroups-mode --bundle -b --pid-file --console-socket --empty-ns "
		    "--status-fd --lsm-profile --lsm-mount-context "},
};

static const struct command *command_find(const char *word)
{
	for (size_t i = 0; i < PHI_COUNT(commands); i++)
		if (word != NULL && strcmp(commands[i].name, word) == 0)
			return &commands[i];
	return NULL;
}

/* Is argv[*i] the option `name`, in either form? Then its value; *i moves to its last word. */
static bool option(char **argv, int *i, const char *name, const char **ret)
{
	size_t n = strlen(name);

	if (strcmp(argv[*i], name) == 0 && argv[*i + 1] != NULL) {
		*ret = argv[++*i];
		return true;
	}
	if (strncmp(argv[*i], name, n) == 0 && argv[*i][n] == '=' && name[1] == '-') {
		*ret = argv[*i] + n + 1;
		return true;
	}
	return false;
}

/* The options before the command; answers where the command is, or the end. */
static int read_globals(struct invocation *v)
{
	const char *ignored;
	int i = 1;

	for (; v->argv[i] != NULL; i++) {
		if (option(v->argv, &i, "--root", &v->root) || option(v->argv, &i, "--log", &v->log) ||
		    option(v->argv, &i, "--log-format", &v->log_format) || option(v->argv, &i, "--rootless", &ignored) ||
		    option(v->argv, &i, "--criu", &ignored))
			continue;
		if (v->argv[i][0] != '-')
			break;
		/* An option of the forwarded runtime's own: with a value unless the next word is a command. */
		if (strchr(v->argv[i], '=') == NULL && v->argv[i + 1] != NULL && v->argv[i + 1][0] != '-' &&
		    command_find(v->argv[i + 1]) == NULL && strcmp(v->argv[i], "--debug") != 0 &&
		    strcmp(v->argv[i], "--systemd-cgroup") != 0)
			i++;
	}
	return i;
}

static void read_command(struct invocation *v, const struct command *c, int i)
{
	const char *ignored;

	for (i++; v->argv[i] != NULL; i++) {
		char word[64];

		if (option(v->argv, &i, "--bundle", &v->bundle) || option(v->argv, &i, "-b", &v->bundle) ||
		    option(v->argv, &i, "--pid-file", &v->pid_file) || option(v->argv, &i, "--console-socket", &v->console_socket) ||
		    option(v->argv, &i, "--format", &v->format))
			continue;
		if (strcmp(v->argv[i], "-f") == 0 && strcmp(c->name, "list") == 0 && v->argv[i + 1] != NULL) {
			v->format = v->argv[++i];
			continue;
		}
		if (v->argv[i][0] != '-' || strcmp(v->argv[i], "-") == 0) {
			if (v->n_words < (int)PHI_COUNT(v->words))
				v->words[v->n_words++] = v->argv[i];
			continue;
		}
		if (strcmp(v->argv[i], "--force") == 0 || strcmp(v->argv[i], "-f") == 0)
			v->force = true;
		else if (strcmp(v->argv[i], "--all") == 0 || strcmp(v->argv[i], "-a") == 0)
			v->all = true;
		else if (strcmp(v->argv[i], "--detach") == 0 || strcmp(v->argv[i], "-d") == 0)
			v->detach = true;
		else if (strcmp(v->argv[i], "--keep") == 0)
			v->keep = true;
		else if (strcmp(v->argv[i], "--quiet") == 0 || strcmp(v->argv[i], "-q") == 0)
			v->quiet = true;
		snprintf(word, sizeof(word), " %.50s ", v->argv[i]);
		if (strstr(c->with_value, word) != NULL)
			option(v->argv, &i, v->argv[i], &ignored);
	}
}

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

static void help(void)
{
	printf("runphi: an OCI runtime for hard partitions; what is not for phid goes to runc or crun as it is.\n\n"
	       "usage: runphi [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND [options] [id]\n\ncommands:");
	for (size_t i = 0; i < PHI_COUNT(commands); i++)
		printf(" %s", commands[i].name);
	printf("\n\nSee runphi(8).\n");
}

static const struct {
	const char *name;
	int (*run)(const struct invocation *v, const struct marker *m, struct phi_error *e);
} verbs[] = {{"start", verb_start}, {"state", verb_state},   {"kill", verb_kill},
	     {"delete", verb_delete}, {"pause", verb_pause}, {"resume", verb_resume}};

static int on_container(const struct invocation *v, struct phi_error *e)
{
	struct marker m;

	if (!container_is_managed(v, v->words[0], &m))
		return forward(v, e);
	for (size_t i = 0; i < PHI_COUNT(verbs); i++)
		if (strcmp(verbs[i].name, v->command) == 0)
			return verbs[i].run(v, &m, e);
	return phi_error_set(e, PHI_NOT_BUILT, 0, "", "%s is not built yet for a cell", v->command);
}

int main(int argc, char **argv)
{
	struct invocation v = {.argv = argv};
	const struct command *c;
	struct phi_error e = {0};
	int i, r, status = 0;

	(void)argc;
	read_config(&v);
	i = read_globals(&v);
	v.root = plain_root(v.root);
	v.command = argv[i];
	c = command_find(v.command);
	if (argv[1] != NULL && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-v") == 0)) {
		printf("runphi version %s\nspec: 1.0.2\n", PACKAGE_VERSION);
		return 0;
	}
	if (argv[1] == NULL || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		help();
		return argv[1] == NULL;
	}
	if (c == NULL) {
		phi_error_set(&e, PHI_INVALID, EINVAL, "", "there is no command \"%s\"; see runphi --help",
			      v.command ? v.command : "");
		report(&v, &e);
		return 3; /* as runc */
	}
	read_command(&v, c, i);
	if (strcmp(v.command, "list") == 0)
		r = verb_list(&v, &e);
	else if (strcmp(v.command, "spec") == 0 || strcmp(v.command, "features") == 0 || v.n_words == 0)
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
