/* phictl: what an operator types. A table of commands; each is a request or two and their answer in words. */
#include "clean.h"
#include "error.h"
#include "http_client.h"
#include "id.h"
#include "json.h"
#include "phictl.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static struct {
	const char *socket, *tail, *detach_keys, *flavour, *root, *iomem;
	const char *platform;
	bool at_boot, w_xor_x, json, follow, kill, force, no_stdin;
	int timeout_s;
} opt = {.timeout_s = -1};

/* A request; with an answer below 300 its document (NULL if it has none). */
static int ask(const char *method, const char *path, const char *body, struct json **ret, struct phi_error *e)
{
	struct http_call c = {.socket = opt.socket, .method = method, .path = path, .body = body};
	char key[PHI_UUID_LEN + 1];
	struct http_answer a;
	uint8_t random[16];
	int r;

	if (strcmp(method, "GET") != 0 && getrandom(random, sizeof(random), 0) == sizeof(random)) {
		id_uuid_format(random, key);
		c.key = key;
	}
	r = http_call(&c, &a, e);
	if (r < 0)
		return r;
	if (a.status >= 300)
		r = http_problem(&a, e);
	else if (ret != NULL && a.status != 204)
		r = json_parse(a.body, a.n, ret, e);
	free(a.body);
	return r;
}

static int print_json(const struct json *j)
{
	_clean_free_ char *text = json_print(j);

	puts(text);
	return 0;
}

static const char *text_of(const struct json *j, const char *name)
{
	const char *s = json_get_string(j, name);

	return s ? s : "-";
}

static int64_t number_of(const struct json *j, const char *name)
{
	int64_t n = 0;

	json_integer(json_get(j, name), &n);
	return n;
}

/* Calls each for every container; stops at a negative answer. */
static int each_container(int (*each)(const struct json *c, void *ud), void *ud, struct phi_error *e)
{
	char path[PHI_ID_MAX + 60] = "/v1/containers?limit=1000";

	for (;;) {
		_clean_json_ struct json *page = NULL;
		int r = ask("GET", path, NULL, &page, e);

		if (r < 0)
			return r;
		for (const struct json *c = json_first(json_get(page, "items")); c != NULL; c = json_next(c))
			if ((r = each(c, ud)) < 0)
				return r;
		if (json_get_string(page, "next") == NULL)
			return 0;
		snprintf(path, sizeof(path), "/v1/containers?limit=1000&after=%s", json_get_string(page, "next"));
	}
}

/* ---- an id, or anything of it that is unambiguous ---- */

struct resolve {
	const char *word;
	char id[PHI_ID_MAX + 1];
	int exact, begins;
};

static int resolve_each(const struct json *c, void *ud)
{
	struct resolve *r = ud;
	const char *id = text_of(c, "id"), *names[] = {id, text_of(c, "name"), text_of(json_get(c, "oci"), "id")};
	bool exact = false, begins = false;

	for (size_t i = 0; i < PHI_COUNT(names); i++) {
		exact = exact || strcmp(names[i], r->word) == 0;
		begins = begins || strncmp(names[i], r->word, strlen(r->word)) == 0;
	}
	if (exact || (begins && r->exact == 0))
		snprintf(r->id, sizeof(r->id), "%s", id);
	r->exact += exact;
	r->begins += begins;
	return 0;
}

static int resolve(const char *word, char ret[PHI_ID_MAX + 1], struct phi_error *e)
{
	struct resolve r = {.word = word};
	int rc = word[0] != '\0' ? each_container(resolve_each, &r, e) : 0; /* every id begins with nothing */

	if (rc < 0)
		return rc;
	if (r.exact == 1 || (r.exact == 0 && r.begins == 1)) {
		memcpy(ret, r.id, sizeof(r.id));
		return 0;
	}
	if (r.begins == 0)
		return phi_error_set(e, PHI_NOT_FOUND, ENOENT, "", "there is no container \"%s\"", word);
	return phi_error_set(e, PHI_INVALID, EINVAL, "", "\"%s\" may be %d containers; give more of the id (phictl ps)", word,
			     r.exact ? r.exact : r.begins);
}

static int get_container(const char *word, struct json **ret, struct phi_error *e)
{
	char id[PHI_ID_MAX + 1], path[PHI_ID_MAX + 32];
	int r = resolve(word, id, e);

	snprintf(path, sizeof(path), "/v1/containers/%s", id);
	return r < 0 ? r : ask("GET", path, NULL, ret, e);
}

/* ---- the commands ---- */

static void print_header(void)
{
	printf("%-28s %-9s %-8s %-8s %-12s %s\n", "ID", "STATE", "BACKEND", "ACCEL", "CPUS", "EXIT");
}

static int print_row(const struct json *c, void *ud)
{
	bool *header = ud;
	const struct json *cell = json_get(c, "cell");
	char cpus[128] = "-";
	size_t n = 0;

	if (opt.json)
		return print_json(c);
	if (!*header)
		print_header();
	*header = true;
	for (const struct json *i = json_first(json_get(cell, "cpus")); i != NULL && n + 8 < sizeof(cpus); i = json_next(i)) {
		int64_t v = 0;

		json_integer(i, &v);
		n += (size_t)snprintf(cpus + n, sizeof(cpus) - n, "%s%" PRId64, n ? "," : "", v);
	}
	printf("%-28s %-9s %-8s %-8s %-12s %s\n", text_of(c, "id"), text_of(c, "state"), text_of(c, "backend"), text_of(cell, "accel"),
	       cpus, json_get_string(json_get(c, "exit"), "reason") ? json_get_string(json_get(c, "exit"), "reason") : "");
	return 0;
}

static int cmd_ps(char **args, struct phi_error *e)
{
	bool header = false;
	int r = each_container(print_row, &header, e);

	(void)args;
	if (r == 0 && !opt.json && !header)
		print_header();
	return r;
}

static int cmd_inspect(char **args, struct phi_error *e)
{
	_clean_json_ struct json *c = NULL;
	int r = get_container(args[0], &c, e);

	return r < 0 ? r : print_json(c);
}

/* Devices and remote processors, if there are any. */
static void print_units(const struct json *list, const char *title)
{
	if (json_first(list) != NULL)
		printf("\n%-28s %-12s %s\n", title, "STATE", "OWNER");
	for (const struct json *u = json_first(list); u != NULL; u = json_next(u)) {
		const char *owner = json_string(json_first(json_get(u, "owners")));

		printf("%-28s %-12s %s\n", text_of(u, "name"), text_of(u, "state"), owner ? owner : "-");
	}
}

static void print_links(const struct json *list)
{
	if (json_first(list) != NULL)
		printf("\n%-20s %-4s %-18s %-10s %-8s %s\n", "LINK", "SLOT", "BASE", "BYTES", "PROTOCOL", "ENDS");
	for (const struct json *l = json_first(list); l != NULL; l = json_next(l)) {
		printf("%-20s %-4" PRId64 " %-18s %-10" PRId64 " %-8s", text_of(l, "name"), number_of(l, "slot"), text_of(l, "base"), number_of(l, "size"),
		       text_of(l, "protocol"));
		for (const struct json *end = json_first(json_get(l, "ends")); end != NULL; end = json_next(end))
			printf(" %" PRId64 ":%s", number_of(end, "id"), text_of(end, "owner"));
		printf("\n");
	}
}

static int cmd_cpus(char **args, struct phi_error *e)
{
	_clean_json_ struct json *v = NULL;
	int r = ask("GET", "/v1/allocations", NULL, &v, e);

	(void)args;
	if (r < 0)
		return r;
	if (opt.json)
		return print_json(v);
	printf("%-5s %-12s %s\n", "CPU", "STATE", "OWNER");
	for (const struct json *c = json_first(json_get(v, "cpus")); c != NULL; c = json_next(c))
		printf("%-5" PRId64 " %-12s %s\n", number_of(c, "id"), text_of(c, "state"), text_of(c, "owner"));
	printf("\n%-12s %-18s %-14s %s\n", "POOL", "BASE", "BYTES", "OWNER");
	for (const struct json *m = json_first(json_get(v, "memory")); m != NULL; m = json_next(m))
		printf("%-12s %-18s %-14" PRId64 " %s\n", text_of(m, "pool"), text_of(m, "base"), number_of(m, "size"),
		       text_of(m, "owner"));
	print_units(json_get(v, "devices"), "DEVICE");
	print_units(json_get(v, "remote_processors"), "REMOTE PROCESSOR");
	print_links(json_get(v, "links"));
	return 0;
}

static int to_stdout(void *ud, const char *bytes, size_t n)
{
	(void)ud;
	if (n == 0)
		return 0;
	return fwrite(bytes, 1, n, stdout) == n && fflush(stdout) == 0 ? 0 : -EPIPE;
}

static int cmd_logs(char **args, struct phi_error *e)
{
	char id[PHI_ID_MAX + 1], path[PHI_ID_MAX + 96];
	struct http_call c = {.socket = opt.socket, .method = "GET", .path = path, .sink = to_stdout};
	struct http_answer a;
	int r = resolve(args[0], id, e);

	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/v1/containers/%s/console?follow=%s%s%.20s", id, opt.follow ? "true" : "false",
		 opt.tail ? "&tail=" : "", opt.tail ? opt.tail : "");
	r = http_call(&c, &a, e);
	if (r == 0 && a.status >= 300)
		r = http_problem(&a, e);
	free(a.body);
	return r;
}

/* Ends with the guest's exit code where the guest ended. */
static int cmd_attach(char **args, struct phi_error *e)
{
	const struct attach_options o = {.detach_keys = opt.detach_keys, .tail = opt.tail, .no_stdin = opt.no_stdin};
	_clean_json_ struct json *c = NULL;
	char id[PHI_ID_MAX + 1], path[PHI_ID_MAX + 32];
	int r = resolve(args[0], id, e);

	if (r == 0)
		r = attach(opt.socket, id, &o, e);
	if (r != 0)
		return r < 0 ? r : 0;
	snprintf(path, sizeof(path), "/v1/containers/%s", id);
	r = ask("GET", path, NULL, &c, e);
	if (r < 0)
		return r;
	if (json_get_string(c, "stopped_at") == NULL)
		return phi_error_set(e, PHI_NO_DAEMON, ECONNRESET, "", "phid closed the console, and %s goes on: attach again", id);
	return (int)number_of(json_get(c, "exit"), "code");
}

static int cmd_cell(char **args, struct phi_error *e)
{
	const struct cell_options o = {opt.flavour, opt.root, opt.iomem, opt.w_xor_x, opt.json};

	return cell_command(args, &o, e);
}

static int cmd_host(char **args, struct phi_error *e)
{
	const struct host_options o = {opt.platform, opt.at_boot, opt.force, ask};

	return host_command(args[0], &o, e);
}

/* Whether this host is fit: what each backend says of itself, and the readiness checks. Ends with 1 if anything is not. */
static int cmd_doctor(char **args, struct phi_error *e)
{
	_clean_json_ struct json *host = NULL, *health = NULL;
	bool fit = true, ok;
	int r = ask("GET", "/v1/host", NULL, &host, e);

	(void)args;
	if (r < 0)
		return r;
	if (opt.json)
		return print_json(json_get(host, "checks"));
	for (const struct json *b = json_first(json_get(host, "backends")); b != NULL; b = json_next(b)) {
		ok = false;
		json_is_bool(json_get(b, "available"), &ok);
		fit = fit && ok;
		printf("%-4s backend %-14s %s\n", ok ? "ok" : "NO", text_of(b, "name"), ok ? "" : text_of(b, "reason"));
	}
	for (const struct json *c = json_first(json_get(host, "checks")); c != NULL; c = json_next(c)) {
		bool known = true;

		ok = false;
		json_is_bool(json_get(c, "ok"), &ok);
		json_is_bool(json_get(c, "known"), &known);
		fit = fit && ok;
		printf("%-4s %-22s %s\n", !known ? "?" : ok ? "ok" : strcmp(text_of(c, "severity"), "grave") == 0 ? "NO!" : "NO", text_of(c, "name"),
		       text_of(c, "detail"));
		if (!ok || !known)
			printf("     %-22s -> %s\n", "", text_of(c, "remedy"));
	}
	r = ask("GET", "/v1/health", NULL, &health, e);
	for (const struct json *id = r == 0 ? json_first(json_get(health, "quarantined")) : NULL; id != NULL; id = json_next(id)) {
		fit = false;
		printf("NO   quarantined: %s        its cell could not be seen to end; its units are held\n"
		       "     %-22s -> phictl rm --force %s tries again; phictl release %s, if you know that nothing of it runs\n",
		       json_string(id), "", json_string(id), json_string(id));
	}
	if (r == 0 && json_get_string(health, "note") != NULL) {
		fit = false;
		printf("NO   %-22s %s\n     %-22s -> the old file is in phid's state directory\n", "database", json_get_string(health, "note"), "");
	}
	for (const struct json *name = r == 0 ? json_first(json_get(health, "unexplained")) : NULL; name != NULL; name = json_next(name)) {
		fit = false;
		printf("NO   unexplained: %s        no record says what it has; its CPUs are not granted\n"
		       "     %-22s -> end it: a guest of QEMU is a process of this name, a cell is the hypervisor's\n",
		       json_string(name), "");
	}
	return r < 0 ? r : !fit;
}

static int cmd_rm(char **args, struct phi_error *e)
{
	char id[PHI_ID_MAX + 1], path[PHI_ID_MAX + 48];
	int r = resolve(args[0], id, e);

	snprintf(path, sizeof(path), "/v1/containers/%s%s", id, opt.force ? "?force=true" : "");
	return r < 0 ? r : ask("DELETE", path, NULL, NULL, e);
}

static int cmd_release(char **args, struct phi_error *e)
{
	char id[PHI_ID_MAX + 1], path[PHI_ID_MAX + 48];
	int r = resolve(args[0], id, e);

	snprintf(path, sizeof(path), "/v1/containers/%s/release", id);
	return r < 0 ? r : ask("POST", path, NULL, NULL, e);
}

static int cmd_events(char **args, struct phi_error *e)
{
	int64_t after = 0;

	(void)args;
	for (;;) {
		_clean_json_ struct json *page = NULL;
		char path[96];
		int r;

		snprintf(path, sizeof(path), "/v1/events?limit=1000&after=%" PRId64 "&wait=%d", after, opt.follow ? 60 : 0);
		r = ask("GET", path, NULL, &page, e);
		if (r < 0 && e->code == PHI_GONE && sscanf(e->detail, "%*[^;]; begin with after=%" SCNd64, &after) == 1)
			continue;
		if (r < 0)
			return r;
		for (const struct json *i = json_first(json_get(page, "items")); i != NULL; i = json_next(i)) {
			_clean_free_ char *detail = json_print(json_get(i, "detail"));

			if (opt.json)
				print_json(i);
			else
				printf("%s  %-24s %s %s\n", text_of(i, "at"), text_of(i, "type"), text_of(i, "container"), detail);
		}
		fflush(stdout);
		if (!opt.follow && json_first(json_get(page, "items")) == NULL)
			return 0;
		after = number_of(page, "next");
	}
}

static int cmd_plan(char **args, struct phi_error *e)
{
	_clean_json_ struct json *request = json_object(), *plan = NULL;
	_clean_free_ char *body = NULL, *bundle = realpath(args[0], NULL);
	int r;

	if (bundle == NULL)
		return phi_error_set(e, PHI_INVALID, errno, "/bundle", "%s: %s", args[0], strerror(errno));
	json_add_string(request, "bundle", bundle);
	body = json_print(request);
	r = ask("PUT", "/v1/containers/plan?dry_run=true", body, &plan, e);
	return r < 0 ? r : print_json(plan);
}

/* Asks for a power-down, waits, and, where the spec says so (stop.then), kills. */
static int cmd_stop(char **args, struct phi_error *e)
{
	_clean_json_ struct json *c = NULL, *end = NULL;
	char path[PHI_ID_MAX + 64], body[64];
	const struct json *stop;
	int64_t grace_ms;
	int r = get_container(args[0], &c, e);

	if (r < 0)
		return r;
	stop = json_get(json_get(c, "spec"), "stop");
	grace_ms = opt.timeout_s >= 0 ? (int64_t)opt.timeout_s * 1000 : number_of(stop, "grace_ms");
	if (opt.kill)
		snprintf(body, sizeof(body), "{\"signal\":\"SIGKILL\"}");
	else if (strcmp(text_of(stop, "then"), "nothing") == 0)
		snprintf(body, sizeof(body), "{\"signal\":\"SIGTERM\"}");
	else
		snprintf(body, sizeof(body), "{\"signal\":\"SIGTERM\",\"timeout_ms\":%" PRId64 "}", grace_ms);
	snprintf(path, sizeof(path), "/v1/containers/%s/kill", text_of(c, "id"));
	r = ask("POST", path, body, NULL, e);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/v1/containers/%s/wait?for=stopped&timeout=%" PRId64, text_of(c, "id"),
		 (grace_ms + 20000) / 1000 < 600 ? (grace_ms + 20000) / 1000 : 600);
	r = ask("GET", path, NULL, &end, e);
	if (r < 0)
		return r;
	if (end == NULL)
		return phi_error_set(e, PHI_DEADLINE, ETIMEDOUT, "", "%s still runs; phictl stop --kill ends it", text_of(c, "id"));
	printf("%s: %s, exit code %" PRId64 "\n", text_of(end, "id"), text_of(json_get(end, "exit"), "reason"),
	       number_of(json_get(end, "exit"), "code"));
	return 0;
}

static const struct {
	const char *name, *arguments, *help;
	int n; /* of arguments; -1: the command counts them */
	int (*run)(char **args, struct phi_error *e);
} commands[] = {
	{"ps", "", "the containers", 0, cmd_ps},
	{"inspect", "ID", "all of a container, as JSON", 1, cmd_inspect},
	{"cpus", "", "the allocation vector: who owns which CPU, memory, device and link", 0, cmd_cpus},
	{"logs", "[--follow] [--tail BYTES] ID", "what the guest wrote to its console", 1, cmd_logs},
	{"attach", "[--detach-keys KEYS] [--tail BYTES] [--no-stdin] ID", "the console, in both directions", 1, cmd_attach},
	{"events", "[--follow]", "what happened, oldest first", 0, cmd_events},
	{"plan", "BUNDLE", "what a create of the bundle would get; changes nothing", 1, cmd_plan},
	{"cell", "show FILE | check [--root FILE] FILE... | write SPEC FILE", "Jailhouse cells as files", -1, cmd_cell},
	{"doctor", "", "is this host fit: backends and readiness, with remedies", 0, cmd_doctor},
	{"host", "enable | disable [--force]", "turn Jailhouse on and off", 1, cmd_host},
	{"release", "ID", "your word that the cell of a quarantined container is gone: its units are free", 1, cmd_release},
	{"rm", "[--force] ID", "delete a stopped container; with --force any, which is ended first", 1, cmd_rm},
	{"stop", "[--timeout S] [--kill] ID", "power down, kill after the grace period, wait for the end", 1, cmd_stop},
};

static int usage(FILE *to)
{
	fprintf(to, "phictl: looks at phid, talks to guests, stops containers.\n\nusage: phictl [--host unix:PATH] [--json] COMMAND\n\n");
	for (size_t i = 0; i < PHI_COUNT(commands); i++)
		fprintf(to, "  %-8s %-30s %s\n", commands[i].name, commands[i].arguments, commands[i].help);
	fprintf(to, "\nID: an id, a name, or as much of one as no other begins with. See phictl(1).\n");
	return to == stderr ? 2 : 0;
}

/* Negative with the error, else the exit status. */
static int run(char **args, int n, struct phi_error *e)
{
	for (size_t i = 0; i < PHI_COUNT(commands); i++) {
		if (strcmp(commands[i].name, args[0]) != 0)
			continue;
		if (commands[i].n >= 0 && n - 1 != commands[i].n)
			return phi_error_set(e, PHI_INVALID, EINVAL, "", "usage: phictl %s %s", commands[i].name,
					     commands[i].arguments);
		return commands[i].run(args + 1, e);
	}
	return phi_error_set(e, PHI_INVALID, EINVAL, "", "there is no command \"%s\"; see phictl --help", args[0]);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"host", required_argument, NULL, 'H'}, {"json", no_argument, NULL, 'j'},   {"follow", no_argument, NULL, 'f'},
		{"tail", required_argument, NULL, 'n'}, {"timeout", required_argument, NULL, 't'}, {"kill", no_argument, NULL, 'k'},
		{"detach-keys", required_argument, NULL, 'd'}, {"no-stdin", no_argument, NULL, 'N'}, {"flavour", required_argument, NULL, 'V'},
		{"root", required_argument, NULL, 'R'}, {"iomem", required_argument, NULL, 'I'}, {"platform", required_argument, NULL, 'P'}, {"at-boot", no_argument, NULL, 'B'},
		 {"w-xor-x", no_argument, NULL, 'W'}, {"force", no_argument, NULL, 'F'},
		{"help", no_argument, NULL, 'h'},	{"version", no_argument, NULL, 'v'}, {0}};
	struct phi_error e = {0};
	char *end;
	int c, r;

	opt.socket = getenv("PHID_SOCKET") ? getenv("PHID_SOCKET") : "/run/phid/phid.sock";
	while ((c = getopt_long(argc, argv, "H:fhjkn:t:v", options, NULL)) >= 0) {
		switch (c) {
		case 'H':
			opt.socket = optarg;
			break;
		case 'j':
			opt.json = true;
			break;
		case 'f':
			opt.follow = true;
			break;
		case 'n':
			opt.tail = optarg;
			break;
		case 't':
			opt.timeout_s = (int)strtol(optarg, &end, 10);
			if (*end != '\0' || end == optarg || opt.timeout_s < 0 || opt.timeout_s > 3600) {
				fprintf(stderr, "phictl: --timeout \"%s\": 0 to 3600 seconds were expected\n", optarg);
				return 2;
			}
			break;
		case 'k':
			opt.kill = true;
			break;
		case 'd':
			opt.detach_keys = optarg;
			break;
		case 'V':
			opt.flavour = optarg;
			break;
		case 'R':
			opt.root = optarg;
			break;
		case 'P':
			opt.platform = optarg;
			break;
		case 'B':
			opt.at_boot = true;
			break;
		case 'I':
			opt.iomem = optarg;
			break;
		case 'W':
			opt.w_xor_x = true;
			break;
		case 'N':
			opt.no_stdin = true;
			break;
		case 'F':
			opt.force = true;
			break;
		case 'h':
			return usage(stdout);
		case 'v':
			printf("phictl %s\n", PACKAGE_VERSION);
			return 0;
		default:
			return usage(stderr);
		}
	}
	if (strncmp(opt.socket, "unix:", 5) == 0)
		opt.socket += 5;
	if (optind == argc)
		return usage(stderr);
	r = run(argv + optind, argc - optind, &e);
	if (r >= 0)
		return r;
	fprintf(stderr, "phictl: %s%s%s%s\n", e.detail, e.pointer[0] ? " (" : "", e.pointer, e.pointer[0] ? ")" : "");
	return phi_code_exit(e.code);
}
