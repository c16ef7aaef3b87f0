/* ELF files and Linux in a cell: what is loaded where, and what is refused. */
#include "unit.h"

#include "jailhouse/elf.h"
#include "jailhouse/linux.h"

#include <elf.h>
#include <libfdt.h>

/* ---- ELF ---- */

struct file {
	Elf64_Ehdr h;
	Elf64_Phdr p[3];
	char bytes[64];
};

static struct file elf(void)
{
	struct file f = {.h = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB}, .e_type = ET_EXEC, .e_machine = EM_AARCH64,
			       .e_entry = 0x70000010, .e_phoff = offsetof(struct file, p), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 3},
			 .p = {{.p_type = PT_LOAD, .p_offset = offsetof(struct file, bytes) + 32, .p_paddr = 0x70002000, .p_filesz = 32, .p_memsz = 0x1000},
			       {.p_type = PT_NOTE, .p_offset = 1 << 30, .p_filesz = 1},
			       {.p_type = PT_LOAD, .p_offset = offsetof(struct file, bytes), .p_paddr = 0x70000000, .p_filesz = 32, .p_memsz = 32}}};

	return f;
}

static void a_program_is_its_segments_in_order(void **state)
{
	struct file f = elf();
	struct jh_elf r;
	struct phi_error e = {0};

	(void)state;
	assert_done(jh_elf_read(&f, sizeof(f), JH_ARM64, &r, &e), e);
	assert_true(r.n == 2 && r.low == 0x70000000 && r.high == 0x70003000 && r.entry == 0x70000010);
	assert_true(r.segments[0].address == 0x70000000 && r.segments[0].offset == offsetof(struct file, bytes));
	assert_true(r.segments[1].address == 0x70002000 && r.segments[1].size == 32 && r.segments[1].memory == 0x1000);
}

static void refuse_elf(const struct file *f, size_t n, const char *word)
{
	struct jh_elf r;
	struct phi_error e = {0};

	assert_refused(jh_elf_read(f, n, JH_ARM64, &r, &e), e, PHI_PAYLOAD, "/spec/boot/inmate");
	if (strstr(e.detail, word) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", e.detail, word);
}

static void a_file_that_is_not_right_is_refused_by_its_place(void **state)
{
	struct file f;

	(void)state;
	for (size_t n = 0; n < offsetof(struct file, p) + 3 * sizeof(f.p[0]); n++) {
		f = elf();
		refuse_elf(&f, n, "offset");
	}
	f = elf(), f.h.e_ident[EI_CLASS] = ELFCLASS32, refuse_elf(&f, sizeof(f), "64-bit");
	f = elf(), f.h.e_ident[EI_DATA] = ELFDATA2MSB, refuse_elf(&f, sizeof(f), "little-endian");
	f = elf(), f.h.e_machine = EM_X86_64, refuse_elf(&f, sizeof(f), "the cell is arm64");
	f = elf(), f.h.e_type = ET_DYN, refuse_elf(&f, sizeof(f), "ET_EXEC");
	f = elf(), f.h.e_phentsize = 8, refuse_elf(&f, sizeof(f), "program headers");
	f = elf(), f.h.e_phnum = 0xffff, refuse_elf(&f, sizeof(f), "program headers");
	f = elf(), f.h.e_phoff = UINT64_MAX - 8, refuse_elf(&f, sizeof(f), "program headers");
	f = elf(), f.p[0].p_offset = UINT64_MAX, refuse_elf(&f, sizeof(f), "within the file");
	f = elf(), f.p[0].p_filesz = 0x2000, refuse_elf(&f, sizeof(f), "within the file");
	f = elf(), f.p[0].p_filesz = 0x800, refuse_elf(&f, sizeof(f), "within the file");
	f = elf(), f.p[0].p_paddr = UINT64_MAX - 8, refuse_elf(&f, sizeof(f), "2^62");
	f = elf(), f.p[0].p_memsz = UINT64_MAX - 8, refuse_elf(&f, sizeof(f), "2^62");
	f = elf(), f.p[0].p_paddr = 0x7000001f, refuse_elf(&f, sizeof(f), "overlap");
	f = elf(), f.h.e_entry = 0x70003000, refuse_elf(&f, sizeof(f), "where nothing of it is");
	f = elf(), f.p[0].p_type = f.p[2].p_type = PT_NULL, refuse_elf(&f, sizeof(f), "nothing of it is loaded");
}

/* ---- Linux ---- */

#define MiB (UINT64_C(1) << 20)

static void kernel_header(uint8_t k[64], uint64_t text_offset, uint64_t image_size)
{
	memset(k, 0, 64);
	memcpy(k + 8, &text_offset, 8);
	memcpy(k + 16, &image_size, 8);
	memcpy(k + 56, "ARM\x64", 4);
}

static void kernel_initrd_and_tree_have_their_places(void **state)
{
	struct jh_linux l;
	struct phi_error e = {0};
	uint8_t k[64], code[JH_LINUX_BOOT_SIZE];
	uint64_t word;

	(void)state;
	kernel_header(k, 0, 30 * MiB);
	assert_done(jh_linux_lay_out(0x900000000, 64 * MiB, k, 20 * MiB, 5 * MiB, &l, &e), e);
	assert_true(l.boot == 0x900000000 && l.dtb == 0x900001000 && l.kernel == 0x900200000 && l.initrd == 0x900200000 + 30 * MiB &&
		    l.end == l.initrd + 5 * MiB);
	jh_linux_boot_code(&l, code);
	memcpy(&word, code + 24, 8);
	assert_true(word == l.dtb);
	memcpy(&word, code + 32, 8);
	assert_true(word == l.kernel);
	kernel_header(k, 0x80000, 0); /* an old one: no size, an offset */
	assert_done(jh_linux_lay_out(0x40000000, 64 * MiB, k, 20 * MiB, 0, &l, &e), e);
	assert_true(l.kernel == 0x40280000 && l.end == 0x40280000 + 20 * MiB);
	assert_refused(jh_linux_lay_out(0x40000000, 22 * MiB, k, 20 * MiB, 0, &l, &e), e, PHI_INVALID, "/spec/memory/0/size");
	assert_refused(jh_linux_lay_out(0x40001000, 64 * MiB, k, 20 * MiB, 0, &l, &e), e, PHI_INVALID, "/spec/memory/0/size");
	assert_refused(jh_linux_lay_out(0x40000000, 64 * MiB, k, 63, 0, &l, &e), e, PHI_PAYLOAD, "/spec/boot/kernel");
	kernel_header(k, 3 * MiB, 0);
	assert_refused(jh_linux_lay_out(0x40000000, 64 * MiB, k, 64, 0, &l, &e), e, PHI_PAYLOAD, "/spec/boot/kernel");
	kernel_header(k, 0, UINT64_MAX);
	assert_refused(jh_linux_lay_out(0x40000000, 64 * MiB, k, 64, 0, &l, &e), e, PHI_PAYLOAD, "/spec/boot/kernel");
	memset(k, 0, 64);
	k[0] = 0x1f, k[1] = 0x8b;
	assert_refused(jh_linux_lay_out(0x40000000, 64 * MiB, k, 64, 0, &l, &e), e, PHI_PAYLOAD, "/spec/boot/kernel");
	assert_non_null(strstr(e.detail, "gunzip"));
}

/* ---- device trees ---- */

static const char board[] =
	"{\"format\":\"phid-platform/1\",\"interrupts\":{\"controller\":\"gicv3\",\"base\":\"0x8000000\"},\"links\":{\"domain\":1},\"devices\":["
	"{\"name\":\"u\",\"kind\":\"uart\",\"type\":\"pl011\",\"mmio\":[{\"base\":\"0x9000000\",\"size\":4096}],\"irqs\":[{\"spi\":1}],\"host\":{\"handover\":\"absent\"}}]}";

static uint32_t cell_at(const void *fdt, const char *path, const char *name, int i)
{
	int len, node = fdt_path_offset(fdt, path);
	const fdt32_t *p = node >= 0 ? fdt_getprop(fdt, node, name, &len) : NULL;

	if (p == NULL || len < 4 * (i + 1))
		fail_msg("%s has no %s[%d]", path, name, i);
	return fdt32_to_cpu(p[i]);
}

static const char *text_at(const void *fdt, const char *path, const char *name)
{
	int node = fdt_path_offset(fdt, path);

	return node >= 0 ? fdt_getprop(fdt, node, name, NULL) : NULL;
}

static void wish(struct platform *p, struct cell *c, struct jh_system *s, struct jh_linux *l, struct jh_tree_wish *w)
{
	static char cmdline[] = "console=ttyAMA0";
	struct phi_error e = {0};

	*p = (struct platform){0};
	assert_done(platform_read(board, strlen(board), p, &e), e);
	*c = (struct cell){.name = "phid-7", .spec.boot.cmdline = cmdline};
	cpuset_add(&c->grant.cpus, 2);
	cpuset_add(&c->grant.cpus, 3);
	*alloc_grant_add_memory(&c->grant) = (struct alloc_memory){.has_base = true, .base = 0x10000000, .size = 64 * MiB};
	alloc_grant_add_device(&c->grant, "u");
	alloc_grant_add_link(&c->grant);
	c->grant.has_virtual = true;
	c->grant.virtual_spi = 100;
	*s = (struct jh_system){.gic_version = 3, .gicd = 0x8000000, .gicr = 0x80a0000, .mmconfig_base = 0x8e00000, .root = {.arch = JH_ARM64}};
	*l = (struct jh_linux){.initrd = 0x12000000};
	*w = (struct jh_tree_wish){c, p, s, l, 0x1000};
}

static void a_tree_says_what_the_cell_has(void **state)
{
	struct platform p;
	struct cell c;
	struct jh_system s;
	struct jh_linux l;
	struct jh_tree_wish w;
	struct phi_error e = {0};
	void *fdt;
	size_t size;

	(void)state;
	wish(&p, &c, &s, &l, &w);
	assert_done(jh_tree_make(&w, &fdt, &size, &e), e);
	assert_int_equal(fdt_check_full(fdt, size), 0);
	assert_string_equal(text_at(fdt, "/chosen", "bootargs"), "console=ttyAMA0");
	assert_string_equal(text_at(fdt, "/chosen", "stdout-path"), "/serial@9000000");
	assert_int_equal(cell_at(fdt, "/chosen", "linux,initrd-end", 1), 0x12001000);
	assert_int_equal(cell_at(fdt, "/memory@10000000", "reg", 1), 0x10000000);
	assert_int_equal(cell_at(fdt, "/memory@10000000", "reg", 3), 64 * MiB);
	assert_int_equal(cell_at(fdt, "/cpus/cpu@3", "reg", 0), 3);
	assert_true(fdt_path_offset(fdt, "/cpus/cpu@1") < 0);
	assert_string_equal(text_at(fdt, "/psci", "method"), "smc");
	assert_int_equal(cell_at(fdt, "/interrupt-controller@8000000", "reg", 5), 0x80a0000);
	assert_int_equal(cell_at(fdt, "/interrupt-controller@8000000", "reg", 7), 4 * 0x20000);
	assert_int_equal(cell_at(fdt, "/serial@9000000", "interrupts", 1), 1);
	assert_int_equal(cell_at(fdt, "/pci@8e00000", "interrupt-map", 6), 100);
	assert_int_equal(cell_at(fdt, "/pci@8e00000", "ranges", 2), 0x14000000); /* behind the memory */
	free(fdt);
	s.gic_version = 2;
	s.gicc = 0xf9020000;
	assert_done(jh_tree_make(&w, &fdt, &size, &e), e);
	assert_string_equal(text_at(fdt, "/interrupt-controller@8000000", "compatible"), "arm,gic-400");
	assert_int_equal(cell_at(fdt, "/interrupt-controller@8000000", "reg", 5), 0xf9020000);
	free(fdt);
	w.system = NULL;
	assert_refused(jh_tree_make(&w, &fdt, &size, &e), e, PHI_INVALID, "/spec/boot/dtb");
	free(fdt);
	alloc_grant_done(&c.grant);
	platform_free(&p);
}

static void an_images_own_tree_gets_memory_and_command_line(void **state)
{
	struct platform p;
	struct cell c;
	struct jh_system s;
	struct jh_linux l;
	struct jh_tree_wish w;
	struct phi_error e = {0};
	char own[1024], bad[1024];
	void *fdt;
	size_t size;

	(void)state;
	wish(&p, &c, &s, &l, &w);
	fdt_create_empty_tree(own, sizeof(own));
	fdt_setprop_u32(own, 0, "#address-cells", 1);
	fdt_setprop_u32(own, 0, "#size-cells", 1);
	fdt_setprop_string(own, fdt_add_subnode(own, 0, "mine"), "compatible", "x,y");
	assert_done(jh_tree_edit(&w, own, fdt_totalsize(own), &fdt, &size, &e), e);
	assert_int_equal(cell_at(fdt, "/memory", "reg", 0), 0x10000000);
	assert_int_equal(cell_at(fdt, "/memory", "reg", 1), 64 * MiB);
	assert_string_equal(text_at(fdt, "/chosen", "bootargs"), "console=ttyAMA0");
	assert_string_equal(text_at(fdt, "/mine", "compatible"), "x,y");
	free(fdt);
	c.grant.memory[0].base = 0x900000000;
	assert_refused(jh_tree_edit(&w, own, fdt_totalsize(own), &fdt, &size, &e), e, PHI_PAYLOAD, "/spec/boot/dtb");
	free(fdt);
	fdt_setprop_u32(own, 0, "#address-cells", 2);
	assert_done(jh_tree_edit(&w, own, fdt_totalsize(own), &fdt, &size, &e), e);
	assert_int_equal(cell_at(fdt, "/memory", "reg", 0), 9);
	free(fdt);
	for (size_t n = 0; n < fdt_totalsize(own); n += 7) { /* cut anywhere */
		assert_refused(jh_tree_edit(&w, own, n, &fdt, &size, &e), e, PHI_PAYLOAD, "/spec/boot/dtb");
		free(fdt);
	}
	for (size_t at = 0; at < fdt_totalsize(own); at++) { /* wrong anywhere: refused or taken, never more */
		memcpy(bad, own, sizeof(bad));
		bad[at] = (char)~bad[at];
		jh_tree_edit(&w, bad, fdt_totalsize(own), &fdt, &size, &e);
		free(fdt);
	}
	alloc_grant_done(&c.grant);
	platform_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_program_is_its_segments_in_order),
		cmocka_unit_test(a_file_that_is_not_right_is_refused_by_its_place),
		cmocka_unit_test(kernel_initrd_and_tree_have_their_places),
		cmocka_unit_test(a_tree_says_what_the_cell_has),
		cmocka_unit_test(an_images_own_tree_gets_memory_and_command_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
