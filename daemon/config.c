/* Options: the command line over the file over the defaults. The file's keys are the long options. */
#include "phid.h"

#include "clean.h"
#include "error.h"
#include "field.h"
#include "limits.h"
#include "program.h"

#include <errno.h>
#include <string.h>
#include <syslog.h>

/* Indices are syslog's levels; those without a name cannot be asked for. */
static const char *const levels[] = {"", "", "", "err", "warning", "", "info", "debug", NULL};

static const struct {
	const char *name, *argument, *help;
} options[] = {
	{"config", "FILE", "read options from FILE (/etc/phid/phid.conf)"},
	{"socket", "PATH", "where to listen (/run/phid/phid.sock)"},
	{"state-dir", "DIR", "database and cells' directories (/var/lib/phid)"},
	{"runtime-dir", "DIR", "what a reboot may forget (/run/phid)"},
	{"platform", "FILE", "the platform file (/etc/phid/platform.json; what it leaves out is taken from the running host)"},
	{"backend", "NAME", "enable a backend: qemu, sim; in order of preference, may be repeated (qemu)"},
	{"keeper", "PATH", "the keeper's program"},
	{"action-timeout-ms", "N", "how long a hypervisor may take for one action (15000)"},
	{"vm-uid-base", "N", "root's guests run as users from N on (2000000000)"},
	{"log-level", "L", "err, warning, info or debug (info)"},
	{"host-root", "DIR", "read /proc and /sys of the machine beneath DIR"},
	{"root-cell", "FILE", "for --discover: Jailhouse's system configuration"},
	{"discover", NULL, "write a first platform file for this machine on standard output, and end"},
	{"check-config", NULL, "read options and platform, say what is wrong, and end"},
	{"version", NULL, "print the version"},
	{"help", NULL, "print this"},
};

static void set_text(char **to, const char *value)
{
	free(*to);
	*to = strdup(value);
	if (*to == NULL)
		abort();
}

static int wrong(const char *name, const char *value, const char *rule, struct phi_error *e)
{
	char pointer[60];

	snprintf(pointer, sizeof(pointer), "/%.40s", name);
	return phi_error_set(e, PHI_INVALID, EINVAL, pointer, "option %s: \"%.60s\" %s", name, value, rule);
}

static int set_number(const char *name, const char *value, int64_t min, int64_t max, int64_t *ret, struct phi_error *e)
{
	char *end;
	long long v;

	errno = 0;
	v = strtoll(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || v < min || v > max)
		return wrong(name, value, "is not a number in range", e);
	*ret = v;
	return 0;
}

/* Those that are built. */
static int set_backend(struct config *c, const char *value, struct phi_error *e)
{
	static const char *const built[] = {"qemu", "jailhouse", "sim"};

	for (size_t i = 0; i < PHI_COUNT(built); i++) {
		if (strcmp(value, built[i]) != 0)
			continue;
		for (size_t k = 0; k < c->n_backends; k++)
			if (c->backends[k] == built[i])
				return 0;
		c->backends[c->n_backends++] = built[i];
		return 0;
	}
	return wrong("backend", value, "is not built; qemu, jailhouse and sim are", e);
}

static int set_option(struct config *c, const char *name, const char *value, struct phi_error *e)
{
	struct {
		const char *name;
		char **to;
	} paths[] = {{"socket", &c->socket},	       {"state-dir", &c->state_dir}, {"runtime-dir", &c->runtime_dir},
		     {"platform", &c->platform}, {"keeper", &c->keeper},       {"config", &c->file},
		     {"host-root", &c->host_root},	{"root-cell", &c->root_cell}};

	for (size_t i = 0; i < PHI_COUNT(paths); i++)
		if (strcmp(name, paths[i].name) == 0) {
			if (value[0] != '/' || strlen(value) > PHI_PATH_MAX - 64)
				return wrong(name, value, "is not an absolute path", e);
			set_text(paths[i].to, value);
			return 0;
		}
	if (strcmp(name, "backend") == 0)
		return set_backend(c, value, e);
	if (strcmp(name, "action-timeout-ms") == 0)
		return set_number(name, value, 100, 600000, &c->action_timeout_ms, e);
	if (strcmp(name, "vm-uid-base") == 0)
		return set_number(name, value, 1000, 4294900000, &c->vm_uid_base, e);
	if (strcmp(name, "log-level") == 0) {
		for (int i = 0; levels[i] != NULL; i++)
			if (levels[i][0] != '\0' && strcmp(levels[i], value) == 0) {
				c->log_level = i;
				return 0;
			}
		return wrong(name, value, "is none of err, warning, info, debug", e);
	}
	return phi_error_set(e, PHI_INVALID, EINVAL, "", "there is no option %s; see --help", name);
}

static char *trim(char *s)
{
	size_t n;

	s += strspn(s, " \t");
	n = strcspn(s, "\n");
	while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	s[n] = '\0';
	return s;
}

static int read_file(struct config *c, const char *path, bool must, struct phi_error *e)
{
	_clean_fclose_ FILE *f = fopen(path, "re");
	char line[PHI_PATH_MAX + 64];

	if (f == NULL)
		return must ? phi_error_set(e, PHI_INVALID, errno, "/config", "%s: %s", path, strerror(errno)) : 0;
	for (int n = 1; fgets(line, sizeof(line), f) != NULL; n++) {
		char *name = trim(line), *equals = strchr(name, '=');
		int r;

		if (name[0] == '\0' || name[0] == '#')
			continue;
		if (equals == NULL)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/config", "%s, line %d: \"key = value\" was expected", path, n);
		*equals = '\0';
		r = set_option(c, trim(name), trim(equals + 1), e);
		if (r < 0) {
			phi_error_wrap(e, "%s, line %d", path, n);
			return r;
		}
	}
	return 0;
}

static void help(void)
{
	printf("phid owns what the hypervisors of this host have: containers, cells, CPUs, memory.\n\n"
	       "usage: phid [options]\n\n");
	for (size_t i = 0; i < PHI_COUNT(options); i++)
		printf("  --%-18s %-5s %s\n", options[i].name, options[i].argument ? options[i].argument : "", options[i].help);
	printf("\nSee phid(8).\n");
}

/* The value of option i of argv: behind "=", or the next word. */
static int option_at(char **argv, int *i, const char **ret_name, const char **ret_value, char name[64], struct phi_error *e)
{
	const char *word = argv[*i], *equals = strchr(word, '=');

	if (strncmp(word, "--", 2) != 0)
		return wrong(word, word, "is no option: they begin with --, and there are no other arguments", e);
	snprintf(name, 64, "%.*s", equals ? (int)(equals - word - 2) : 60, word + 2);
	*ret_name = name;
	for (size_t k = 0; k < PHI_COUNT(options); k++) {
		if (strcmp(options[k].name, name) != 0)
			continue;
		*ret_value = equals ? equals + 1 : NULL;
		if (options[k].argument == NULL || equals != NULL)
			return 0;
		if (argv[*i + 1] == NULL)
			return phi_error_set(e, PHI_INVALID, EINVAL, "", "option --%s needs a value", name);
		*ret_value = argv[++*i];
		return 0;
	}
	return phi_error_set(e, PHI_INVALID, EINVAL, "", "there is no option %s; see --help", word);
}

int config_read(struct config *c, int argc, char **argv, struct phi_error *e)
{
	const char *name, *value, *file = NULL;
	char buf[64], keeper[PHI_PATH_MAX];
	struct config line = {0};
	int r;

	c->log_level = LOG_INFO;
	c->action_timeout_ms = 15000;
	c->vm_uid_base = 2000000000;
	set_text(&c->socket, "/run/phid/phid.sock");
	set_text(&c->state_dir, "/var/lib/phid");
	set_text(&c->runtime_dir, "/run/phid");
	program_find("../client", "phid-keeper", keeper, sizeof(keeper));
	set_text(&c->keeper, keeper);
	set_text(&c->host_root, "");
	for (int i = 1; i < argc; i++) { /* the file first, whatever the order of the words */
		r = option_at(argv, &i, &name, &value, buf, e);
		if (r < 0)
			return r;
		if (strcmp(name, "version") == 0) {
			printf("phid %s\n", PACKAGE_VERSION);
			return 1;
		}
		if (strcmp(name, "help") == 0) {
			help();
			return 1;
		}
		if (strcmp(name, "config") == 0)
			file = value;
		if (strcmp(name, "backend") == 0)
			line.n_backends++;
	}
	r = read_file(c, file ? file : "/etc/phid/phid.conf", file != NULL, e);
	if (line.n_backends > 0)
		c->n_backends = 0; /* those of the command line replace the file's */
	for (int i = 1; r == 0 && i < argc; i++) {
		r = option_at(argv, &i, &name, &value, buf, e);
		if (r == 0 && strcmp(name, "check-config") == 0)
			c->check_only = true;
		else if (r == 0 && strcmp(name, "discover") == 0)
			c->discover = true;
		else if (r == 0)
			r = set_option(c, name, value, e);
	}
	if (c->n_backends == 0)
		set_backend(c, "qemu", e);
	return r;
}

void config_free(struct config *c)
{
	free(c->file);
	free(c->socket);
	free(c->state_dir);
	free(c->runtime_dir);
	free(c->platform);
	free(c->keeper);
	free(c->host_root);
	free(c->root_cell);
}
