/* The KVM probe: a child runs a small loop in a guest and looks how much CPU time that took.
 * KVM API: Documentation/virt/kvm/api.rst (KVM_CREATE_VM, KVM_SET_USER_MEMORY_REGION, KVM_RUN). */
#include "qemu.h"

#ifndef __x86_64__
#include <stdio.h>

bool kvm_works(char *ret_why, size_t size)
{
	snprintf(ret_why, size, "not looked at: " QEMU_X86_ONLY);
	return false;
}
#else

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOOPS	    60000
#define LIMIT_CPU_MS 20 /* hardware needs some 0.06 ms; emulation of each instruction 250 ms and more */

/* Exit statuses of the child. */
enum { WORKS = 0, NO_DEVICE, NO_VM, NO_RUN, TOO_SLOW };

/* Real mode (a KVM that emulates real mode is so old that TCG is the better choice): mov cx, LOOPS; l: dec cx; jnz l; hlt. */
static const unsigned char code[] = {0xb9, LOOPS & 0xff, LOOPS >> 8, 0x49, 0x75, 0xfd, 0xf4};

static long cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void on_alarm(int sig)
{
	(void)sig; /* only to interrupt KVM_RUN */
}

static int child(void)
{
	struct kvm_userspace_memory_region region = {.guest_phys_addr = 0x1000, .memory_size = 0x1000};
	struct sigaction interrupt = {.sa_handler = on_alarm};
	struct itimerspec every = {{0, 5000000}, {0, 5000000}};
	struct kvm_sregs sregs;
	struct kvm_regs regs = {.rip = 0x1000, .rflags = 2};
	struct kvm_run *run;
	timer_t timer;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, vcpu, size;
	void *memory;
	long begin;

	if (kvm < 0)
		return NO_DEVICE;
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	memory = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (vm < 0 || memory == MAP_FAILED)
		return NO_VM;
	memcpy(memory, code, sizeof(code));
	region.userspace_addr = (unsigned long)memory;
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 || vcpu < 0 || size < (int)sizeof(*run))
		return NO_VM;
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED || ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		return NO_VM;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
		return NO_VM;
	sigaction(SIGALRM, &interrupt, NULL);
	if (timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0)
		timer_settime(timer, 0, &every, NULL);
	for (begin = cpu_ms(); cpu_ms() - begin < LIMIT_CPU_MS;) {
		if (ioctl(vcpu, KVM_RUN, 0) < 0) {
			if (errno == EINTR)
				continue;
			return NO_RUN;
		}
		if (run->exit_reason != KVM_EXIT_HLT)
			return NO_RUN;
		/* It came to its end; in what time? A KVM_RUN may not have let itself be interrupted. */
		return cpu_ms() - begin < LIMIT_CPU_MS ? WORKS : TOO_SLOW;
	}
	return TOO_SLOW;
}

bool kvm_works(char *ret_why, size_t size)
{
	static const char *const why[] = {
		[WORKS] = "a guest ran at the speed of the hardware",
		[NO_DEVICE] = "/dev/kvm cannot be opened",
		[NO_VM] = "/dev/kvm makes no virtual machine",
		[NO_RUN] = "a guest on /dev/kvm does not run",
		[TOO_SLOW] = "/dev/kvm runs guests hundreds of times too slowly (each instruction is emulated)",
	};
	pid_t pid = fork();
	struct pollfd p = {-1, POLLIN, 0};
	int status = -1, verdict;

	if (pid == 0)
		_exit(child());
	if (pid > 0) {
		p.fd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (p.fd < 0 || poll(&p, 1, 2000) <= 0)
			kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		close(p.fd);
	}
	verdict = pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) <= TOO_SLOW ? WEXITSTATUS(status) : NO_RUN;
	snprintf(ret_why, size, "%s", why[verdict]);
	return verdict == WORKS;
}
#endif
