/* See payload.h. */
#include "payload.h"

#include "clean.h"
#include "elf.h"
#include "error.h"
#include "linux.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE UINT64_C(4096)
/* Where upstream's inmates look for their command line, from the start of their memory (inmates/lib, cmdline). */
#define ARGUMENTS_AT  0x1000
#define ARGUMENTS_MAX 255

static const struct cell_image *image_of(const struct cell *c, const char *role)
{
	for (size_t i = 0; i < c->n_images; i++)
		if (strcmp(c->images[i].role, role) == 0)
			return &c->images[i];
	return NULL;
}

/* The bytes of an image; NULL with the error. */
static const void *map(struct jh_payload *l, const struct cell_image *i, struct phi_error *e)
{
	void *p = mmap(NULL, i->size, PROT_READ, MAP_PRIVATE, i->fd, 0);

	if (p == MAP_FAILED) {
		phi_error_set(e, PHI_INTERNAL, errno, "", "%s: mmap: %s", i->path, strerror(errno));
		return NULL;
	}
	l->maps[l->n_maps].at = p;
	l->maps[l->n_maps++].size = i->size;
	return p;
}

static void add(struct jh_payload *l, const void *bytes, uint64_t size, uint64_t target)
{
	l->pieces[l->n++] = (struct jh_image){bytes, size, target};
}

/* Every piece within one region of the cell: the driver refuses others, after the cell was made. */
static int check_pieces(const struct jh_payload *l, const struct cell *c, const char *pointer, struct phi_error *e)
{
	for (uint32_t i = 0; i < l->n; i++) {
		bool inside = false;

		for (size_t k = 0; k < c->grant.n_memory; k++) {
			uint64_t base = k == 0 ? l->ram : c->grant.memory[k].base, size = c->grant.memory[k].size;

			inside = inside || (l->pieces[i].target >= base && l->pieces[i].target - base <= size &&
					    l->pieces[i].size <= size - (l->pieces[i].target - base));
		}
		if (!inside)
			return phi_error_set(e, PHI_INVALID, ENOSPC, pointer,
					     "0x%" PRIx64 " bytes at 0x%" PRIx64 " are not within the cell's memory (0x%" PRIx64 " bytes at 0x%" PRIx64 ")",
					     l->pieces[i].size, l->pieces[i].target, c->grant.memory[0].size, l->ram);
	}
	return 0;
}

/* ---- inmates ---- */

static int plan_inmate(struct jh_payload *l, const struct cell *c, const struct platform *p, struct phi_error *e)
{
	const struct cell_image *image = image_of(c, "inmate");
	const struct field_blob *wish = &c->spec.boot.inmate;
	const uint8_t *bytes = map(l, image, e);
	struct jh_elf elf;

	if (bytes == NULL)
		return -EIO;
	if (!jh_is_elf(bytes, image->size)) {
		l->ram = wish->has_at ? wish->at & ~(PAGE - 1) : 0;
		l->entry = wish->has_at ? wish->at : 0;
		add(l, bytes, image->size, l->entry);
	} else {
		int r = jh_elf_read(bytes, image->size, (enum jh_arch)p->jailhouse.arch, &elf, e);

		if (r < 0)
			return r;
		if (wish->has_at)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/boot/inmate/at", "an ELF file says itself where it is; leave \"at\" out");
		l->ram = elf.low & ~(PAGE - 1);
		l->entry = elf.entry;
		for (size_t i = 0; i < elf.n; i++) {
			/* The rest of its memory is zero, as all of the cell's; it must be there all the same. */
			if (elf.segments[i].size > 0)
				add(l, bytes + elf.segments[i].offset, elf.segments[i].size, elf.segments[i].address);
			if (elf.segments[i].address - l->ram + elf.segments[i].memory > c->grant.memory[0].size && c->grant.n_memory == 1)
				return phi_error_set(e, PHI_INVALID, ENOSPC, "/spec/memory/0/size",
						     "the ELF file takes 0x%" PRIx64 " bytes from 0x%" PRIx64 " on; the cell has 0x%" PRIx64, elf.high - l->ram, l->ram,
						     c->grant.memory[0].size);
		}
	}
	if (c->spec.boot.has_entry)
		l->entry = c->spec.boot.entry;
	if (c->spec.boot.cmdline == NULL)
		return 0;
	if (strlen(c->spec.boot.cmdline) > ARGUMENTS_MAX)
		return phi_error_set(e, PHI_INVALID, ERANGE, "/spec/boot/cmdline", "an inmate's command line has at most %d bytes", ARGUMENTS_MAX);
	l->arguments = strdup(c->spec.boot.cmdline);
	if (l->arguments == NULL)
		abort();
	add(l, l->arguments, strlen(l->arguments) + 1, l->ram + ARGUMENTS_AT);
	return 0;
}

/* ---- Linux ---- */

static int plan_linux(struct jh_payload *l, const struct cell *c, const struct platform *p, const struct jh_system *system, struct phi_error *e)
{
	const struct cell_image *kernel = image_of(c, "kernel"), *initrd = image_of(c, "initrd"), *dtb = image_of(c, "dtb");
	const uint64_t initrd_size = initrd != NULL ? initrd->size : 0;
	const void *k = map(l, kernel, e), *i = initrd != NULL ? map(l, initrd, e) : NULL, *d = dtb != NULL ? map(l, dtb, e) : NULL;
	struct jh_linux layout;
	struct jh_tree_wish wish = {c, p, system, &layout, initrd_size};
	size_t size;
	int r;

	if (k == NULL || (initrd != NULL && i == NULL) || (dtb != NULL && d == NULL))
		return -EIO;
	l->ram = c->grant.memory[0].base; /* where it is on the host: DMA and links need that */
	r = jh_linux_lay_out(l->ram, c->grant.memory[0].size, k, kernel->size, initrd_size, &layout, e);
	if (r < 0)
		return r;
	r = d != NULL ? jh_tree_edit(&wish, d, dtb->size, &l->tree, &size, e) : jh_tree_make(&wish, &l->tree, &size, e);
	if (r < 0)
		return r;
	jh_linux_boot_code(&layout, l->boot);
	l->entry = layout.boot;
	add(l, k, kernel->size, layout.kernel);
	if (i != NULL)
		add(l, i, initrd_size, layout.initrd);
	add(l, l->tree, size, layout.dtb);
	add(l, l->boot, JH_LINUX_BOOT_SIZE, layout.boot);
	return 0;
}

int jh_payload_plan(struct jh_payload *ret, const struct cell *c, const struct platform *p, const struct jh_system *system, struct phi_error *e)
{
	int r = 0;

	*ret = (struct jh_payload){0};
	if (image_of(c, "kernel") != NULL)
		r = plan_linux(ret, c, p, system, e);
	else if (image_of(c, "inmate") != NULL)
		r = plan_inmate(ret, c, p, e);
	return r < 0 ? r : check_pieces(ret, c, image_of(c, "kernel") != NULL ? "/spec/boot/kernel" : "/spec/boot/inmate", e);
}

void jh_payload_done(struct jh_payload *l)
{
	for (size_t i = 0; i < l->n_maps; i++)
		munmap(l->maps[i].at, l->maps[i].size);
	l->n_maps = 0;
	free(PHI_TAKE(l->tree));
	free(PHI_TAKE(l->arguments));
}

int jh_payload_validate(const struct spec *s, const struct platform *p, struct phi_error *e)
{
	const struct field_blob *placed[] = {&s->boot.kernel, &s->boot.initrd, &s->boot.dtb, &s->boot.firmware};

	if (!spec_boots(s))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/boot/inmate", "a Jailhouse cell needs an inmate or a kernel; the spec names none");
	for (size_t i = 0; i < PHI_COUNT(placed); i++)
		if (placed[i]->has_at)
			return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "/spec/boot", "only an inmate can be given an address (\"at\")");
	if (s->boot.kernel.path != NULL && p->jailhouse.arch != JH_ARM64)
		return phi_error_set(e, PHI_NOT_BUILT, EOPNOTSUPP, "/spec/boot/kernel", "Linux in a cell is built for arm64; this host is %s",
				     jh_archs[p->jailhouse.arch]);
	if (s->boot.kernel.path != NULL && s->boot.has_entry)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/boot/entry", "a kernel begins where its header says; leave \"entry\" out");
	return 0;
}
