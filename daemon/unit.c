/* Keepers of API containers as transient services of systemd, so that they and their guests outlive phid's own unit and
 * inherit nothing of its sandbox (org.freedesktop.systemd1.Manager.StartTransientUnit). */
#include "operation.h"

#include "clean.h"
#include "error.h"
#include "jobs.h"
#include "log.h"

#include <errno.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>

struct unit_job {
	char id[PHI_ID_MAX + 1], name[64], *argv[8];
	size_t n;
	int r;
};

bool unit_wanted(void)
{
	return geteuid() == 0 && sd_booted() > 0 && getenv("INVOCATION_ID") != NULL;
}

static int append(sd_bus_message *m, const struct unit_job *j)
{
	int r = sd_bus_message_append(m, "ss", j->name, "fail");

	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "(sv)");
	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)(sv)(sv)(sv)", "Description", "s", "phid keeper", "Slice", "s",
					  "phid.slice", "CollectMode", "s", "inactive-or-failed", "KillMode", "s", "mixed");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'r', "sv");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", "ExecStart");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'v', "a(sasb)");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "(sasb)");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'r', "sasb");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", j->argv[0]);
	if (r >= 0)
		r = sd_bus_message_append_strv(m, (char **)(uintptr_t)j->argv);
	if (r >= 0)
		r = sd_bus_message_append(m, "b", 0);
	for (int i = 0; r >= 0 && i < 5; i++) /* exec, its list, the variant, the pair, the properties */
		r = sd_bus_message_close_container(m);
	return r < 0 ? r : sd_bus_message_append(m, "a(sa(sv))", 0);
}

static void unit_run(void *ud)
{
	struct unit_job *j = ud;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *m = NULL;
	sd_bus *bus = NULL;

	j->r = sd_bus_open_system(&bus);
	if (j->r >= 0)
		j->r = sd_bus_message_new_method_call(bus, &m, "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
						      "org.freedesktop.systemd1.Manager", "StartTransientUnit");
	if (j->r >= 0)
		j->r = append(m, j);
	if (j->r >= 0)
		j->r = sd_bus_call(bus, m, 10000000, &error, NULL);
	if (j->r < 0)
		log_error(j->id, "its keeper's unit cannot be started: %s", error.message ? error.message : strerror(-j->r));
	sd_bus_error_free(&error);
	sd_bus_message_unref(m);
	sd_bus_flush_close_unref(bus);
}

static void unit_done(void *ud)
{
	struct unit_job *j = ud;

	for (size_t i = 0; i < j->n; i++)
		free(j->argv[i]);
	free(j); /* a failure shows as a keeper that does not come */
}

int unit_start(struct phid *p, const struct cell *c, char *const argv[], struct phi_error *e)
{
	struct unit_job *j = calloc(1, sizeof(*j));

	(void)e;
	if (j == NULL)
		abort();
	snprintf(j->id, sizeof(j->id), "%s", c->id);
	snprintf(j->name, sizeof(j->name), "phid-keeper-%lld.service", (long long)c->row);
	for (; argv[j->n] != NULL && j->n + 1 < PHI_COUNT(j->argv); j->n++)
		j->argv[j->n] = phi_strdup(argv[j->n]);
	jobs_submit(p->jobs, unit_run, unit_done, j);
	return 0;
}
