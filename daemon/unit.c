/* Keepers of API containers as transient services of systemd, so that they and their guests outlive phid's own unit and
 * inherit nothing of its sandbox (org.freedesktop.systemd1.Manager.StartTransientUnit). */
#include "operation.h"

#include "error.h"

#include <errno.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>

bool unit_wanted(void)
{
	return geteuid() == 0 && sd_booted() > 0 && getenv("INVOCATION_ID") != NULL;
}

static int append(sd_bus_message *m, const char *name, char *const argv[])
{
	int r = sd_bus_message_append(m, "ss", name, "fail");

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
		r = sd_bus_message_append(m, "s", argv[0]);
	if (r >= 0)
		r = sd_bus_message_append_strv(m, (char **)(uintptr_t)argv);
	if (r >= 0)
		r = sd_bus_message_append(m, "b", 0);
	for (int i = 0; r >= 0 && i < 5; i++) /* exec, its list, the variant, the pair, the properties */
		r = sd_bus_message_close_container(m);
	return r < 0 ? r : sd_bus_message_append(m, "a(sa(sv))", 0);
}

int unit_start(int64_t row, char *const argv[], struct phi_error *e)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *m = NULL;
	sd_bus *bus = NULL;
	char name[64];
	int r = sd_bus_open_system(&bus);

	snprintf(name, sizeof(name), "phid-keeper-%lld.service", (long long)row);
	if (r >= 0)
		r = sd_bus_message_new_method_call(bus, &m, "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
						   "org.freedesktop.systemd1.Manager", "StartTransientUnit");
	if (r >= 0)
		r = append(m, name, argv);
	if (r >= 0)
		r = sd_bus_call(bus, m, 10000000, &error, NULL);
	if (r < 0)
		phi_error_set(e, PHI_INTERNAL, -r, "", "the keeper's unit %s cannot be started: %s", name, error.message ? error.message : strerror(-r));
	sd_bus_error_free(&error);
	sd_bus_message_unref(m);
	sd_bus_flush_close_unref(bus);
	return r < 0 ? r : 0;
}
