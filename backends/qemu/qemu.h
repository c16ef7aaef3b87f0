/* The parts of the QEMU backend. */
#pragma once

#include "backend.h"

/* Machines, devices, exit codes and the probe are x86-64's. On another host the backend is there to say so and runs
 * nothing: a QEMU that emulates x86 there would be a machine that nobody asked for. */
#define QEMU_X86_ONLY "the qemu backend is built for x86-64 hosts only"

/* probe.c: does a guest really run on /dev/kvm? A guest's loop is timed against the CPU time that it took; a hypervisor
 * that emulates each instruction answers, but hundreds of times too slow, and is no KVM to us. Forks; call it before
 * there are threads. *ret_why is a sentence for the host document. */
bool kvm_works(char *ret_why, size_t size);

/* args.c: the command line. */
#define QEMU_ARGS_MAX 64
struct qemu_args {
	const char *argv[QEMU_ARGS_MAX + 1];
	size_t n;
	char *owned[QEMU_ARGS_MAX];
	size_t n_owned;
};
/* The numbers that QEMU finds its descriptors at; -1: none. */
struct qemu_fds {
	int kernel, initrd;
	int watch; /* listening socket of a second control channel, for people and checkers; phid does not use it */
};
/* Pure. binary: absolute path. */
void qemu_args_make(struct qemu_args *a, const char *binary, const struct cell *c, const char *accel,
		    const struct qemu_fds *fds);
void qemu_args_free(struct qemu_args *a);
/* The machine of a spec: what it says, else q35 for a kernel with an initrd, else microvm. */
const char *qemu_machine(const struct spec *s);

/* stats.c: of a cell with a process. */
int qemu_stats(const struct cell *c, struct cell_stats *ret, struct phi_error *e);
/* Pure: the text of /proc/<pid>/stat. -ESRCH if its parent is not the keeper, -EBADMSG if it is none. */
int qemu_stats_of_stat(const char *text, pid_t keeper, struct cell_stats *ret);

/* end.c: how QEMU's end is told apart (measured with QEMU 7.2). */
extern const char *const qemu_exit_rules[];
void qemu_explain(const struct cell *c, int wstatus, bool killed, int code, const char *exit_text, struct cell_end *ret);
