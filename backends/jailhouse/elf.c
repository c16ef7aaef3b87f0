/* See elf.h. */
#include "elf.h"

#include "error.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define WHERE "/spec/boot/inmate"

bool jh_is_elf(const void *bytes, size_t n)
{
	return n >= SELFMAG && memcmp(bytes, ELFMAG, SELFMAG) == 0;
}

static int refuse(struct phi_error *e, uint64_t offset, const char *what)
{
	return phi_error_set(e, PHI_PAYLOAD, ENOEXEC, WHERE, "the ELF file is not right at offset %" PRIu64 ": %s", offset, what);
}

/* One program header of either class, in the words of the other's wider one. */
static Elf64_Phdr program_header(const uint8_t *p, bool wide)
{
	Elf64_Phdr h;
	Elf32_Phdr n;

	if (wide) {
		memcpy(&h, p, sizeof(h));
		return h;
	}
	memcpy(&n, p, sizeof(n));
	return (Elf64_Phdr){.p_type = n.p_type, .p_offset = n.p_offset, .p_paddr = n.p_paddr, .p_filesz = n.p_filesz, .p_memsz = n.p_memsz};
}

static void insert(struct jh_elf *f, const struct jh_segment *s)
{
	size_t i = f->n++;

	for (; i > 0 && f->segments[i - 1].address > s->address; i--)
		f->segments[i] = f->segments[i - 1];
	f->segments[i] = *s;
}

static int check_overlap(const struct jh_elf *f, struct phi_error *e)
{
	for (size_t i = 1; i < f->n; i++)
		if (f->segments[i].address < f->segments[i - 1].address + f->segments[i - 1].memory)
			return phi_error_set(e, PHI_PAYLOAD, ENOEXEC, WHERE, "two segments of the ELF file overlap at 0x%" PRIx64, f->segments[i].address);
	return 0;
}

int jh_elf_read(const void *bytes, size_t n, enum jh_arch arch, struct jh_elf *ret, struct phi_error *e)
{
	static const struct {
		uint8_t class;
		uint16_t machine;
	} wanted[JH_ARCHS] = {[JH_X86] = {ELFCLASS64, EM_X86_64}, [JH_ARM] = {ELFCLASS32, EM_ARM}, [JH_ARM64] = {ELFCLASS64, EM_AARCH64}};
	const bool wide = wanted[arch].class == ELFCLASS64;
	const size_t entry_size = wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	const uint8_t *file = bytes;
	Elf64_Ehdr h = {0};
	Elf32_Ehdr narrow;

	*ret = (struct jh_elf){.low = UINT64_MAX};
	if (n < (wide ? sizeof(h) : sizeof(narrow)) || !jh_is_elf(bytes, n))
		return refuse(e, 0, "it is shorter than its header");
	if (file[EI_CLASS] != wanted[arch].class || file[EI_DATA] != ELFDATA2LSB)
		return refuse(e, EI_CLASS, wide ? "a 64-bit little-endian file is needed" : "a 32-bit little-endian file is needed");
	if (wide) {
		memcpy(&h, file, sizeof(h));
	} else {
		memcpy(&narrow, file, sizeof(narrow));
		h = (Elf64_Ehdr){.e_type = narrow.e_type, .e_machine = narrow.e_machine, .e_entry = narrow.e_entry, .e_phoff = narrow.e_phoff,
				 .e_phentsize = narrow.e_phentsize, .e_phnum = narrow.e_phnum};
	}
	if (h.e_machine != wanted[arch].machine)
		return phi_error_set(e, PHI_PAYLOAD, ENOEXEC, WHERE, "the ELF file is for machine %u, the cell is %s (machine %u)", h.e_machine,
				     jh_archs[arch], wanted[arch].machine);
	if (h.e_type != ET_EXEC)
		return refuse(e, offsetof(Elf64_Ehdr, e_type), "only a program that is linked to its addresses (ET_EXEC) can be loaded");
	if (h.e_phentsize != entry_size || h.e_phnum == 0 || h.e_phoff > n || (n - h.e_phoff) / entry_size < h.e_phnum)
		return refuse(e, offsetof(Elf64_Ehdr, e_phoff), "the program headers are not in the file");
	for (size_t i = 0; i < h.e_phnum; i++) {
		uint64_t at = h.e_phoff + i * entry_size;
		Elf64_Phdr p = program_header(file + at, wide);

		if (p.p_type != PT_LOAD || p.p_memsz == 0)
			continue;
		if (p.p_filesz > p.p_memsz || p.p_offset > n || p.p_filesz > n - p.p_offset)
			return refuse(e, at, "a segment is not within the file");
		if (p.p_paddr >= PHI_ADDRESS_MAX || p.p_memsz > PHI_ADDRESS_MAX - p.p_paddr)
			return refuse(e, at, "a segment ends beyond 2^62");
		if (ret->n == JH_ELF_SEGMENTS_MAX)
			return refuse(e, at, "there are more than 16 segments");
		insert(ret, &(struct jh_segment){p.p_offset, p.p_filesz, p.p_paddr, p.p_memsz});
		ret->low = p.p_paddr < ret->low ? p.p_paddr : ret->low;
		ret->high = p.p_paddr + p.p_memsz > ret->high ? p.p_paddr + p.p_memsz : ret->high;
	}
	if (ret->n == 0)
		return refuse(e, h.e_phoff, "nothing of it is loaded");
	ret->entry = h.e_entry;
	if (ret->entry < ret->low || ret->entry >= ret->high)
		return phi_error_set(e, PHI_PAYLOAD, ENOEXEC, WHERE, "the ELF file begins at 0x%" PRIx64 ", where nothing of it is", ret->entry);
	return check_overlap(ret, e);
}
