/* QEMU's command line for a cell. Pure. Options as of QEMU 7.2 (docs/system/i386/microvm.rst, qemu(1)). */
#include "qemu.h"

#include "clean.h"
#include "keeper_proto.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

const char *qemu_machine(const struct spec *s)
{
	if (s->boot.machine == MACHINE_MICROVM)
		return "microvm";
	if (s->boot.machine == MACHINE_Q35)
		return "q35";
	/* Linux hangs in microvm's clock calibration on a loaded host without KVM; an initrd means Linux. */
	return s->boot.initrd.path != NULL ? "q35" : "microvm";
}

static void add(struct qemu_args *a, const char *word)
{
	if (a->n == QEMU_ARGS_MAX)
		abort();
	a->argv[a->n++] = word;
}

__attribute__((format(printf, 2, 3))) static void add_format(struct qemu_args *a, const char *format, ...)
{
	char *word;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&word, format, ap) < 0)
		abort();
	va_end(ap);
	a->owned[a->n_owned++] = word;
	add(a, word);
}

void qemu_args_make(struct qemu_args *a, const char *binary, const struct cell *c, const char *accel,
		    const struct qemu_fds *fds)
{
	bool kvm = strcmp(accel, "kvm") == 0;
	const struct spec *s = &c->spec;
	uint64_t memory = 0;

	for (size_t i = 0; i < c->grant.n_memory; i++)
		memory += c->grant.memory[i].size;
	*a = (struct qemu_args){0};
	add(a, binary);
	/* Nothing that was not asked for: no devices, no configuration files, no display, no helper processes. */
	add(a, "-nodefaults");
	add(a, "-no-user-config");
	add(a, "-display");
	add(a, "none");
	add(a, "-S"); /* the guest begins at start */
	add(a, "-no-reboot");
	add(a, "-name");
	add_format(a, "%s,process=%s,debug-threads=on", c->name, c->name);
	add(a, "-sandbox");
	add(a, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	add(a, "-M");
	if (strcmp(qemu_machine(s), "microvm") == 0)
		add(a, "microvm,acpi=off,rtc=off,x-option-roms=off,isa-serial=on");
	else
		add(a, "q35,smbus=off,sata=off,usb=off");
	add(a, "-accel");
	add(a, kvm ? "kvm" : "tcg,thread=multi");
	add(a, "-cpu");
	add(a, kvm ? "host" : "max");
	add(a, "-smp");
	add_format(a, "%u", cpuset_count(&c->grant.cpus));
	add(a, "-m");
	add_format(a, "%" PRIu64 "K", memory / 1024);
	if (fds->kernel >= 0) {
		add(a, "-kernel");
		add_format(a, "/proc/self/fd/%d", fds->kernel);
	}
	if (fds->initrd >= 0) {
		add(a, "-initrd");
		add_format(a, "/proc/self/fd/%d", fds->initrd);
	}
	if (s->boot.cmdline != NULL) {
		add(a, "-append");
		add(a, s->boot.cmdline);
	}
	add(a, "-chardev");
	add_format(a, "socket,id=console,fd=%d", KEEPER_CONSOLE_FD);
	add(a, "-serial");
	add(a, "chardev:console");
	add(a, "-chardev");
	add_format(a, "socket,id=control,fd=%d", KEEPER_QMP_FD);
	add(a, "-mon");
	add(a, "chardev=control,mode=control");
	if (fds->watch >= 0) {
		add(a, "-chardev");
		add_format(a, "socket,id=watch,fd=%d,server=on,wait=off", fds->watch);
		add(a, "-mon");
		add(a, "chardev=watch,mode=control");
	}
	/* How a bare-metal guest ends with a code, and how a Linux tells of its panic. */
	add(a, "-device");
	add(a, "isa-debug-exit,iobase=0xf4,iosize=4");
	add(a, "-device");
	add(a, "pvpanic,ioport=0x505");
	add(a, "-action");
	add(a, "panic=exit-failure");
	a->argv[a->n] = NULL;
}

void qemu_args_free(struct qemu_args *a)
{
	for (size_t i = 0; i < a->n_owned; i++)
		free(a->owned[i]);
}
