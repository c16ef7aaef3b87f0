/* Devices between Linux and cells: taken from Linux's driver before a cell is created, made safe, reset and given back when it is gone.
 * Writes to sysfs and to registers, which may block: only in a job. Idempotent: after a kill -9 all of it may be done again. */
#pragma once

#include "limits.h"

#include <stddef.h>

struct phi_error;
struct platform;

/* Unbinds each device of handover "unbind" from its driver and sees it free; none else may bind it from then on. */
int jh_take_devices(const struct platform *p, const char (*names)[PHI_NAME_MAX + 1], size_t n, struct phi_error *e);
/* Of devices that are in no cell: writes safe_state, resets what can be reset, binds again and sees it bound. The first that is not given
 * back is the error; the others are all the same. */
int jh_give_devices(const struct platform *p, const char (*names)[PHI_NAME_MAX + 1], size_t n, struct phi_error *e);
/* Are they with Linux, those of handover "unbind"? Else the first that is not is the error. */
int jh_devices_given(const struct platform *p, const char (*names)[PHI_NAME_MAX + 1], size_t n, struct phi_error *e);
