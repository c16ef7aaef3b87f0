/* See linux.h: the layout and the boot code. */
#include "linux.h"

#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define BLOCK (UINT64_C(2) << 20) /* the kernel begins at a multiple of it, and the device tree is within one */

static uint64_t get64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

int jh_linux_lay_out(uint64_t base, uint64_t size, const void *kernel, uint64_t kernel_size, uint64_t initrd_size, struct jh_linux *ret,
		     struct phi_error *e)
{
	const uint8_t *k = kernel;
	uint64_t text_offset, image_size;

	if (kernel_size < 64 || (memcmp(k + 56, "ARM\x64", 4) != 0 && memcmp(k, "\x1f\x8b", 2) != 0))
		return phi_error_set(e, PHI_PAYLOAD, ENOEXEC, "/spec/boot/kernel", "it is no arm64 kernel: \"ARM\\x64\" is not at offset 56");
	if (memcmp(k + 56, "ARM\x64", 4) != 0)
		return phi_error_set(e, PHI_PAYLOAD, ENOEXEC, "/spec/boot/kernel", "it is compressed; give the plain Image (gunzip it)");
	text_offset = get64(k + 8);
	image_size = get64(k + 16); /* with its bss; 0 of kernels before 3.17 */
	if (image_size < kernel_size)
		image_size = kernel_size;
	if (text_offset >= BLOCK || image_size > PHI_IMAGE_MAX * 2)
		return phi_error_set(e, PHI_PAYLOAD, ENOEXEC, "/spec/boot/kernel", "its header is not right: text_offset 0x%" PRIx64 ", image_size 0x%" PRIx64,
				     text_offset, image_size);
	ret->boot = base;
	ret->dtb = base + 4096; /* up to the end of the first block */
	ret->kernel = (base + 2 * BLOCK - 1) / BLOCK * BLOCK + text_offset;
	ret->initrd = (ret->kernel + image_size + BLOCK - 1) / BLOCK * BLOCK;
	ret->end = initrd_size > 0 ? ret->initrd + initrd_size : ret->kernel + image_size;
	if (base % BLOCK != 0 || ret->end > base + size)
		return phi_error_set(e, PHI_INVALID, ENOSPC, "/spec/memory/0/size",
				     "the first memory has %" PRIu64 " bytes; kernel, initrd and device tree need %" PRIu64 " from a multiple of 2 MiB on", size,
				     ret->end - base);
	return 0;
}

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

void jh_linux_boot_code(const struct jh_linux *l, uint8_t ret[JH_LINUX_BOOT_SIZE])
{
	static const uint32_t code[] = {
		0x580000c0, /* ldr x0, [pc + 24]: the device tree */
		0xaa1f03e1, /* mov x1, xzr */
		0xaa1f03e2, /* mov x2, xzr */
		0xaa1f03e3, /* mov x3, xzr */
		0x58000084, /* ldr x4, [pc + 16]: the kernel */
		0xd61f0080, /* br x4 */
	};

	for (size_t i = 0; i < 6; i++)
		put32(ret + 4 * i, code[i]);
	put32(ret + 24, (uint32_t)l->dtb);
	put32(ret + 28, (uint32_t)(l->dtb >> 32));
	put32(ret + 32, (uint32_t)l->kernel);
	put32(ret + 36, (uint32_t)(l->kernel >> 32));
}
