/* How QEMU's end is told apart: by its wait status and the last events on its control channel. Pure.
 * Measured on QEMU 7.2: isa-debug-exit v ends with (v << 1 | 1) and no event; a shutdown of the guest with 0 and SHUTDOWN
 * guest-shutdown; a triple fault or reset with 0 and guest-reset; pvpanic with 1 and GUEST_PANICKED. */
#include "qemu.h"

#include "clean.h"
#include "keeper_proto.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* A panicked guest is 128 + SIGABRT. A reset cannot be told from a crash (triple fault), so it is no success. */
const char *const qemu_exit_rules[] = {"134", "GUEST_PANICKED", "1", "guest-reset", "143", "host-signal", "143", "host-qmp-quit", NULL};

/* The guest's own end, as QEMU told it on the control channel. */
static const struct guest_end {
	const char *event, *reason;
	int code;
} guest_ends[] = {{"GUEST_PANICKED", "guest-panic", 134}, {"guest-reset", "guest-reset", 1}, {"guest-shutdown", "guest-shutdown", 0}};

static const struct guest_end *guest_end(const char *exit_text)
{
	for (size_t i = 0; i < PHI_COUNT(guest_ends); i++)
		if (strstr(exit_text, guest_ends[i].event) != NULL)
			return &guest_ends[i];
	return NULL;
}

void qemu_explain(const struct cell *c, int wstatus, bool killed, int code, const char *exit_text, struct cell_end *ret)
{
	static const char diagnostics[] = "--- diagnostics\n";
	const char *said = strstr(exit_text, diagnostics);
	const char *reason = "guest-exit";
	const struct guest_end *own = guest_end(exit_text);
	size_t n;

	(void)c;
	*ret = (struct cell_end){.code = code};
	if (WIFSIGNALED(wstatus) && killed && own != NULL) { /* a QEMU that did not get done: see qemu.c, on_event */
		reason = own->reason;
		ret->code = own->code;
	} else if (WIFSIGNALED(wstatus)) {
		ret->signal = WTERMSIG(wstatus);
		reason = killed ? "killed" : "failed";
	} else if (own != NULL) {
		reason = own->reason;
	} else if (strstr(exit_text, "host-signal") != NULL || strstr(exit_text, "host-qmp-quit") != NULL) {
		reason = "killed"; /* somebody's SIGTERM to QEMU, or quit on its second control channel */
		ret->signal = SIGTERM;
	} else if (WEXITSTATUS(wstatus) != 0 && strstr(exit_text, "\"RESUME\"") == NULL && said != NULL &&
		   (strncmp(said + strlen(diagnostics), "qemu", 4) == 0 || strncmp(said + strlen(diagnostics), "phid-keeper", 11) == 0)) {
		reason = "failed"; /* the guest never ran: QEMU, or the keeper before it, refused to begin and said why */
		ret->code = 1;
	}
	snprintf(ret->reason, sizeof(ret->reason), "%s", reason);
	if (said == NULL)
		return;
	said += strlen(diagnostics);
	n = strcspn(said, "\n");
	snprintf(ret->detail, sizeof(ret->detail), "%.*s", (int)(n < 200 ? n : 200), said);
	if (strncmp(ret->detail, "---", 3) == 0)
		ret->detail[0] = '\0';
}
