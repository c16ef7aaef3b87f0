/* The command line of runc 1.1 with what crun 1.8 has more, as a table: so that the id is found among any options, and
 * so that a cell's command refuses an option that nobody knows. What is forwarded is forwarded as it was given. */
#include "runphi.h"

#include "clean.h"

#include <stddef.h>
#include <string.h>

#define AT(member) offsetof(struct invocation, member)

enum kind { FLAG, TEXT };

/* offset 0: accepted, and without meaning for a cell. "global" stands for the options before the command. */
static const struct option_row {
	const char *commands, *name;
	char letter;
	enum kind kind;
	size_t offset;
} options[] = {
	{" global ", "root", 0, TEXT, AT(root)},
	{" global ", "log", 0, TEXT, AT(log)},
	{" global ", "log-format", 0, TEXT, AT(log_format)},
	{" global ", "log-level", 0, TEXT, 0},
	{" global ", "debug", 0, FLAG, 0},
	{" global ", "rootless", 0, TEXT, 0},
	{" global ", "criu", 0, TEXT, 0},
	{" global ", "systemd-cgroup", 0, FLAG, 0},
	{" global ", "cgroup-manager", 0, TEXT, 0},
	{" global ", "config", 0, TEXT, 0},
	{" global ", "version", 'v', FLAG, AT(version)},
	{" global ", "help", 'h', FLAG, AT(help)},

	{" create run restore spec ", "bundle", 'b', TEXT, AT(bundle)},
	{" create run restore exec ", "console-socket", 0, TEXT, AT(console_socket)},
	{" create run restore exec ", "pid-file", 0, TEXT, AT(pid_file)},
	{" create run exec ", "preserve-fds", 0, TEXT, AT(preserve_fds)},
	{" create run restore ", "no-pivot", 0, FLAG, 0},
	{" create run ", "no-new-keyring", 0, FLAG, 0},
	{" create run ", "config", 'f', TEXT, 0},
	{" run restore ", "no-subreaper", 0, FLAG, 0},
	{" run restore exec ", "detach", 'd', FLAG, AT(detach)},
	{" run ", "keep", 0, FLAG, AT(keep)},
	{" kill ", "all", 'a', FLAG, AT(all)},
	{" delete ", "force", 'f', FLAG, AT(force)},
	{" kill delete ", "regex", 'r', FLAG, 0},
	{" list ps ", "format", 'f', TEXT, AT(format)},
	{" list ", "quiet", 'q', FLAG, AT(quiet)},
	{" events ", "interval", 0, TEXT, AT(interval)},
	{" events ", "stats", 0, FLAG, AT(stats)},

	{" update ", "resources", 'r', TEXT, AT(resources)},
	{" update ", "blkio-weight", 0, TEXT, AT(limits[LIMIT_BLKIO_WEIGHT])},
	{" update ", "cpu-period", 0, TEXT, AT(limits[LIMIT_CPU_PERIOD])},
	{" update ", "cpu-quota", 0, TEXT, AT(limits[LIMIT_CPU_QUOTA])},
	{" update ", "cpu-share", 0, TEXT, AT(limits[LIMIT_CPU_SHARE])},
	{" update ", "cpu-rt-period", 0, TEXT, AT(limits[LIMIT_CPU_RT_PERIOD])},
	{" update ", "cpu-rt-runtime", 0, TEXT, AT(limits[LIMIT_CPU_RT_RUNTIME])},
	{" update ", "cpu-idle", 0, TEXT, AT(limits[LIMIT_CPU_IDLE])},
	{" update ", "cpuset-cpus", 0, TEXT, AT(limits[LIMIT_CPUSET_CPUS])},
	{" update ", "cpuset-mems", 0, TEXT, AT(limits[LIMIT_CPUSET_MEMS])},
	{" update ", "kernel-memory", 0, TEXT, 0}, /* gone from kernel and specification */
	{" update ", "kernel-memory-tcp", 0, TEXT, 0},
	{" update ", "memory", 0, TEXT, AT(limits[LIMIT_MEMORY])},
	{" update ", "memory-reservation", 0, TEXT, AT(limits[LIMIT_MEMORY_RESERVATION])},
	{" update ", "memory-swap", 0, TEXT, AT(limits[LIMIT_MEMORY_SWAP])},
	{" update ", "pids-limit", 0, TEXT, AT(limits[LIMIT_PIDS])},
	{" update ", "l3-cache-schema", 0, TEXT, AT(limits[LIMIT_L3_CACHE])},
	{" update ", "mem-bw-schema", 0, TEXT, AT(limits[LIMIT_MEM_BW])},

	{" exec ", "process", 'p', TEXT, 0},
	{" exec ", "cwd", 0, TEXT, 0},
	{" exec ", "env", 'e', TEXT, 0},
	{" exec ", "tty", 't', FLAG, 0},
	{" exec ", "user", 'u', TEXT, 0},
	{" exec ", "additional-gids", 'g', TEXT, 0},
	{" exec ", "process-label", 0, TEXT, 0},
	{" exec ", "apparmor", 0, TEXT, 0},
	{" exec ", "no-new-privs", 0, FLAG, 0},
	{" exec ", "cap", 'c', TEXT, 0},
	{" exec ", "cgroup", 0, TEXT, 0},
	{" exec ", "ignore-paused", 0, FLAG, 0},

	{" checkpoint restore ", "image-path", 0, TEXT, 0},
	{" checkpoint restore ", "work-path", 0, TEXT, 0},
	{" checkpoint ", "parent-path", 0, TEXT, 0},
	{" checkpoint ", "leave-running", 0, FLAG, 0},
	{" checkpoint restore ", "tcp-established", 0, FLAG, 0},
	{" checkpoint restore ", "ext-unix-sk", 0, FLAG, 0},
	{" checkpoint restore ", "shell-job", 0, FLAG, 0},
	{" checkpoint ", "lazy-pages", 0, FLAG, 0},
	{" checkpoint ", "status-fd", 0, TEXT, 0},
	{" checkpoint ", "page-server", 0, TEXT, 0},
	{" checkpoint restore ", "file-locks", 0, FLAG, 0},
	{" checkpoint ", "pre-dump", 0, FLAG, 0},
	{" checkpoint restore ", "manage-cgroups-mode", 0, TEXT, 0},
	{" checkpoint restore ", "empty-ns", 0, TEXT, 0},
	{" checkpoint restore ", "auto-dedup", 0, FLAG, 0},
	{" restore ", "lsm-profile", 0, TEXT, 0},
	{" restore ", "lsm-mount-context", 0, TEXT, 0},
};

static const char *const commands[] = {"create", "run", "start", "state", "kill", "delete", "list", "ps", "pause", "resume",
				       "update", "events", "exec", "features", "spec", "checkpoint", "restore", NULL};

bool args_is_command(const char *word)
{
	for (size_t i = 0; commands[i] != NULL; i++)
		if (word != NULL && strcmp(commands[i], word) == 0)
			return true;
	return false;
}

void args_print_commands(void)
{
	for (size_t i = 0; commands[i] != NULL; i++)
		printf(" %s", commands[i]);
}

/* The row of "--name", "--name=value", "-name" (which runc takes too) or "-n"; NULL if nobody knows it. */
static const struct option_row *find(const char *command, const char *word)
{
	const char *name = word + (word[1] == '-' ? 2 : 1);
	size_t n = strcspn(name, "=");
	char of[16];

	snprintf(of, sizeof(of), " %.12s ", command);
	for (size_t i = 0; i < PHI_COUNT(options); i++) {
		const struct option_row *o = &options[i];

		if (strstr(o->commands, of) == NULL)
			continue;
		if ((strlen(o->name) == n && strncmp(o->name, name, n) == 0) ||
		    (word[1] != '-' && n == 1 && o->letter != 0 && o->letter == name[0]))
			return o;
	}
	return NULL;
}

/* Takes the option at argv[i]; answers the index of its last word. */
static int take(struct invocation *v, const char *command, int i)
{
	const struct option_row *o = find(command, v->argv[i]);
	const char *value = strchr(v->argv[i], '=');

	if (o == NULL) {
		v->unknown = v->argv[i];
		return i;
	}
	if (o->kind == FLAG) {
		bool *to = (bool *)(void *)((char *)v + o->offset);

		if (o->offset != 0)
			*to = value == NULL || strcmp(value + 1, "false") != 0;
		return i;
	}
	if (value == NULL && v->argv[i + 1] == NULL) {
		v->unknown = v->argv[i];
		return i;
	}
	if (o->offset != 0)
		*(const char **)(void *)((char *)v + o->offset) = value != NULL ? value + 1 : v->argv[i + 1];
	return value != NULL ? i : i + 1;
}

void args_read(struct invocation *v)
{
	bool literal = false;
	int i = 1;

	for (; v->argv[i] != NULL && v->argv[i][0] == '-'; i++) {
		int last = take(v, "global", i);

		/* An option of a runtime that we have never seen: with a value, unless a command follows. */
		if (last == i && v->unknown == v->argv[i] && strchr(v->argv[i], '=') == NULL && v->argv[i + 1] != NULL &&
		    v->argv[i + 1][0] != '-' && !args_is_command(v->argv[i + 1]))
			last++;
		i = last;
		if (v->argv[i] == NULL)
			return;
	}
	v->command = v->argv[i];
	if (!args_is_command(v->command))
		return;
	for (i++; v->argv[i] != NULL; i++) {
		const char *word = v->argv[i];

		/* What follows the id of exec and ps is not ours. */
		if (v->n_words > 0 && (strcmp(v->command, "exec") == 0 || strcmp(v->command, "ps") == 0))
			return;
		if (!literal && strcmp(word, "--") == 0) {
			literal = true;
		} else if (!literal && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
			v->help = true;
		} else if (!literal && word[0] == '-' && word[1] != '\0') {
			i = take(v, v->command, i);
		} else if (v->n_words < (int)PHI_COUNT(v->words)) {
			v->words[v->n_words++] = word;
		} else {
			v->unknown = word;
		}
	}
}
