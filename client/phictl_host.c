/* phictl host: the operator turns Jailhouse on and off. phid never does; it need not even run. */
#include "phictl.h"

#include "clean.h"
#include "jailhouse/cell.h"
#include "jailhouse/driver.h"
#include "json.h"
#include "platform.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define PLATFORM_FILE "/etc/phid/platform.json"

static int read_platform(const struct host_options *o, struct platform *p, struct jh_paths *paths, struct phi_error *e)
{
	const char *path = o->platform != NULL ? o->platform : PLATFORM_FILE;
	_clean_free_ char *text = NULL;
	size_t n;
	int r = read_file(path, PHI_PLATFORM_MAX, &text, &n, e);

	if (r == 0)
		r = platform_read(text, n, p, e);
	if (r < 0) {
		phi_error_wrap(e, "%s", path);
		return r;
	}
	if (!p->jailhouse.present)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/backends/jailhouse", "%s says nothing of Jailhouse", path);
	jh_paths_of(p, paths);
	return 0;
}

static int enable(const struct host_options *o, struct phi_error *e)
{
	_clean_(platform_free) struct platform p = {0};
	_clean_free_ char *config = NULL;
	struct jh_system system = {0};
	struct jh_paths paths;
	size_t n;
	int r = read_platform(o, &p, &paths, e);

	if (r < 0 || (o->at_boot && !p.jailhouse.host_enable))
		return r;
	if (p.jailhouse.root_cell == NULL)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/backends/jailhouse/root_cell", "the platform names no root cell to enable");
	r = jh_driver_enabled(&paths, e);
	if (r < 0)
		return r;
	if (r > 0) {
		printf("Jailhouse is enabled already\n");
		return 0;
	}
	r = read_file(p.jailhouse.root_cell, JH_FILE_MAX, &config, &n, e);
	/* A file of another layout hangs the machine; where we know the layout, it is read first. */
	if (r == 0 && p.jailhouse.flavour == JH_UPSTREAM)
		r = jh_system_read(config, n, JH_UPSTREAM, &system, e);
	jh_system_free(&system);
	if (r < 0) {
		phi_error_wrap(e, "%s", p.jailhouse.root_cell);
		return r;
	}
	return jh_driver_enable(&paths, config, n, e);
}

/* Ends phid's own cells by phid, where it runs: so that their containers hear of it. */
static void stop_ours(const struct host_options *o)
{
	char path[PHI_ID_MAX + 80];
	struct phi_error e;
	_clean_json_ struct json *page = NULL;

	if (o->ask("GET", "/v1/containers?backend=jailhouse&limit=1000", NULL, &page, &e) < 0)
		return; /* phid does not run */
	for (const struct json *c = json_first(json_get(page, "items")); c != NULL; c = json_next(c)) {
		const char *id = json_get_string(c, "id"), *state = json_get_string(c, "state");

		if (id == NULL || state == NULL || strcmp(state, "stopped") == 0)
			continue;
		snprintf(path, sizeof(path), "/v1/containers/%s/kill", id);
		if (o->ask("POST", path, "{\"signal\":\"SIGKILL\"}", NULL, &e) < 0)
			fprintf(stderr, "phictl: warning: %s\n", e.detail);
	}
}

static int disable(const struct host_options *o, struct phi_error *e)
{
	_clean_(platform_free) struct platform p = {0};
	struct jh_seen cells[64];
	struct jh_paths paths;
	char names[200] = "";
	int r = read_platform(o, &p, &paths, e), n;

	if (r == 0)
		r = jh_driver_enabled(&paths, e);
	if (r <= 0) /* off already */
		return r;
	n = jh_driver_list(&paths, cells, PHI_COUNT(cells), e);
	for (int i = 0; i < n; i++)
		if (cells[i].id != 0) {
			size_t at = strlen(names);

			snprintf(names + at, sizeof(names) - at, " %s", cells[i].name);
		}
	if (names[0] != '\0' && !o->force)
		return phi_error_set(e, PHI_STATE, EBUSY, "", "there are cells:%s; --force ends them", names);
	stop_ours(o);
	return jh_driver_disable(&paths, e); /* which ends all that are left */
}

int host_command(const char *what, const struct host_options *o, struct phi_error *e)
{
	if (strcmp(what, "enable") == 0)
		return enable(o, e);
	if (strcmp(what, "disable") == 0)
		return disable(o, e);
	return phi_error_set(e, PHI_INVALID, EINVAL, "", "usage: phictl host enable [--at-boot] | disable [--force]  [--platform FILE]");
}
