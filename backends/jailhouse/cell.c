/* The codec, by tables: one for each struct of the file says at which offset each member is. See cell.h. */
#include "cell.h"
#include "cell_tables.h"

#include "clean.h"
#include "error.h"

#include <errno.h>
#include <string.h>

#define C(member) offsetof(struct jh_cell, member)
#define K(member) offsetof(struct jh_cell, console.member)
#define COUNT(list) offsetof(struct jh_cell, lists[list].n)

/* The console is the last of each header. */
#define CONSOLE_AT(at) \
	{"address", (at), 8, K(address), JH_DECIMAL, NULL}, {"size", (at) + 8, 4, K(size), JH_DECIMAL, NULL}, {"type", (at) + 12, 2, K(type), JH_DECIMAL, NULL}, \
	{"flags", (at) + 14, 2, K(flags), JH_DECIMAL, NULL}, {"divider", (at) + 16, 4, K(divider), JH_DECIMAL, NULL}, {"gate_nr", (at) + 20, 4, K(gate_nr), JH_DECIMAL, NULL}, \
	{"clock_reg", (at) + 24, 8, K(clock_reg), JH_DECIMAL, NULL}
/* What precedes it and what precedes that is the same but for where it begins. */
#define REST_AT(at) \
	{"vpci_irq_base", (at), 4, C(vpci_irq_base), JH_DECIMAL, NULL}, {"reset_address", (at) + 4, 8, C(reset_address), JH_DECIMAL, NULL}, \
	{"reply_timeout", (at) + 12, 8, C(reply_timeout), JH_DECIMAL, NULL}, CONSOLE_AT((at) + 20)
#define COUNTS_AT(at) \
	{"num_memory_regions", (at), 4, COUNT(JH_MEMORY), JH_DECIMAL, NULL}, {"num_cache_regions", (at) + 4, 4, COUNT(JH_CACHE), JH_DECIMAL, NULL}, \
	{"num_irqchips", (at) + 8, 4, COUNT(JH_IRQCHIP), JH_DECIMAL, NULL}, {"num_pio_regions", (at) + 12, 4, COUNT(JH_PIO), JH_DECIMAL, NULL}, \
	{"num_pci_devices", (at) + 16, 4, COUNT(JH_PCI), JH_DECIMAL, NULL}, {"num_pci_caps", (at) + 20, 4, COUNT(JH_CAPABILITY), JH_DECIMAL, NULL}, \
	{"num_stream_ids", (at) + 24, 4, COUNT(JH_STREAM), JH_DECIMAL, NULL}
#define ID_FLAGS_CPUS {"id", 0x28, 4, C(id), JH_DECIMAL, NULL}, {"flags", 0x2c, 4, C(flags), JH_DECIMAL, NULL}, {"cpu_set_size", 0x30, 4, C(n_cpus), JH_DECIMAL, NULL}

#define NAME_AT 8

static const struct layout {
	const char *signature;
	size_t signature_n;
	uint16_t revision;
	bool has_arch; /* a byte behind the signature */
	size_t header, memory; /* bytes */
	size_t must_be_zero[3], n_must_be_zero; /* counts of arrays that we do not know; 4 bytes each */
	size_t system, root_at; /* bytes of a system configuration's own part; 0: not known */
	size_t iommu_at, arch_at;
	struct jh_member members[24]; /* of the header */
} layouts[JH_FLAVOURS] = {
	[JH_UPSTREAM] = {"JHCLL", 5, 14, true, 132, 32, {0}, 0, 0x164, 0x164, 0x58, 0x138,
			 {ID_FLAGS_CPUS, COUNTS_AT(0x34), REST_AT(0x50), {0}}},
	[JH_RUNPHI] = {"JHCELL", 6, 13, false, 136, 40, {0x50}, 1, 0, 0, 0, 0,
		       {ID_FLAGS_CPUS, COUNTS_AT(0x34), REST_AT(0x54), {0}}},
	[JH_OMNIVISOR] = {"JHCLL", 5, 14, true, 152, 40, {0x58, 0x5c, 0x60}, 3, 0, 0, 0, 0,
			  {ID_FLAGS_CPUS, {"rcpu_set_size", 0x34, 4, C(n_rcpus), JH_DECIMAL, NULL}, {"fpga_regions_size", 0x38, 4, C(n_fpga), JH_DECIMAL, NULL},
			   COUNTS_AT(0x3c), REST_AT(0x64), {0}}},
};

/* ---- numbers ---- */

static uint64_t get_number(const uint8_t *p, size_t size)
{
	uint64_t v = 0;

	for (size_t i = size; i-- > 0;)
		v = v << 8 | p[i];
	return v;
}

static void put_number(uint8_t *p, size_t size, uint64_t v)
{
	for (size_t i = 0; i < size; i++, v >>= 8)
		p[i] = (uint8_t)v;
}

uint64_t jh_member_get(const void *s, const struct jh_member *m)
{
	const void *p = (const char *)s + m->to;

	return m->size == 1   ? *(const uint8_t *)p
	       : m->size == 2 ? *(const uint16_t *)p
	       : m->size == 4 ? *(const uint32_t *)p
			      : *(const uint64_t *)p;
}

void jh_member_set(void *s, const struct jh_member *m, uint64_t v)
{
	void *p = (char *)s + m->to;

	switch (m->size) {
	case 1:
		*(uint8_t *)p = (uint8_t)v;
		break;
	case 2:
		*(uint16_t *)p = (uint16_t)v;
		break;
	case 4:
		*(uint32_t *)p = (uint32_t)v;
		break;
	default:
		*(uint64_t *)p = v;
		break;
	}
}

static void read_members(const uint8_t *bytes, const struct jh_member *m, size_t limit, void *s)
{
	for (; m->name != NULL; m++)
		if (m->at + m->size <= limit)
			jh_member_set(s, m, get_number(bytes + m->at, m->size));
}

static void write_members(uint8_t *bytes, const struct jh_member *m, size_t limit, const void *s)
{
	for (; m->name != NULL; m++)
		if (m->at + m->size <= limit)
			put_number(bytes + m->at, m->size, jh_member_get(s, m));
}

/* Bytes of one item in the file. */
static size_t item_size(const struct layout *l, enum jh_list list)
{
	return list == JH_MEMORY ? l->memory : jh_lists[list].size;
}

/* ---- reading ---- */

static int malformed(struct phi_error *e, size_t at, const char *what)
{
	return phi_error_set(e, PHI_INVALID, EBADMSG, "", "at offset 0x%zx: %s", at, what);
}

/* The header's members and the arrays behind it. base: where the header is in the file, for offsets in errors. */
static int read_body(const uint8_t *bytes, size_t n, size_t base, const struct layout *l, struct jh_cell *c, struct phi_error *e)
{
	uint8_t *const sets[] = {c->cpus, c->rcpus, c->fpga};
	uint32_t counts[JH_LISTS];
	uint64_t wanted;
	size_t at = l->header;
	char what[160];

	memcpy(c->name, bytes + NAME_AT, sizeof(c->name));
	if (memchr(c->name, '\0', sizeof(c->name)) == NULL)
		return malformed(e, base + NAME_AT, "the name has no end within its 32 bytes");
	read_members(bytes, l->members, l->header, c);
	for (size_t i = 0; i < JH_LISTS; i++) { /* no items yet: it must stay freeable */
		counts[i] = c->lists[i].n;
		c->lists[i].n = 0;
	}
	for (size_t i = 0; i < l->n_must_be_zero; i++)
		if (get_number(bytes + l->must_be_zero[i], 4) != 0)
			return malformed(e, base + l->must_be_zero[i], "a number of QoS, remote processor or FPGA devices, which this phid cannot read");
	if (c->n_cpus > JH_CPU_BYTES || c->n_rcpus > JH_CPU_BYTES || c->n_fpga > JH_CPU_BYTES) {
		c->n_cpus = c->n_rcpus = c->n_fpga = 0;
		snprintf(what, sizeof(what), "a set of CPUs has more than %d bytes", JH_CPU_BYTES);
		return malformed(e, base + 0x30, what);
	}
	wanted = l->header + c->n_cpus + c->n_rcpus + c->n_fpga;
	for (int i = 0; i < JH_LISTS; i++)
		wanted += (uint64_t)counts[i] * item_size(l, (enum jh_list)i);
	if (wanted != n) {
		snprintf(what, sizeof(what), "the counts of the header ask for %llu bytes, there are %zu", (unsigned long long)wanted, n);
		return malformed(e, base + 0x30, what);
	}
	for (size_t i = 0; i < PHI_COUNT(sets); i++) {
		uint32_t size = i == 0 ? c->n_cpus : i == 1 ? c->n_rcpus : c->n_fpga;

		memcpy(sets[i], bytes + at, size);
		at += size;
	}
	for (int i = 0; i < JH_LISTS; i++) {
		size_t size = item_size(l, (enum jh_list)i);
		char *item = jh_append(c, (enum jh_list)i, counts[i]);

		for (uint32_t k = 0; k < counts[i]; k++, at += size, item += jh_lists[i].in_memory)
			read_members(bytes + at, jh_lists[i].members, size, item);
	}
	return 0;
}

int jh_cell_read(const void *data, size_t n, enum jh_flavour flavour, struct jh_cell *c, struct phi_error *e)
{
	const struct layout *l = &layouts[flavour];
	const uint8_t *bytes = data;
	char what[160];

	*c = (struct jh_cell){.flavour = flavour, .arch = JH_ARM64};
	if (n < l->header || n > JH_FILE_MAX) {
		snprintf(what, sizeof(what), "%zu bytes are no cell of %s: its header has %zu, and at most %u are possible", n, jh_flavours[flavour],
			 l->header, JH_FILE_MAX);
		return malformed(e, 0, what);
	}
	if (memcmp(bytes, l->signature, l->signature_n) != 0) {
		snprintf(what, sizeof(what), "the signature is not %s", l->signature);
		return malformed(e, 0, what);
	}
	if (get_number(bytes + 6, 2) != l->revision) {
		snprintf(what, sizeof(what), "the revision is %u, that of %s is %u", (unsigned)get_number(bytes + 6, 2), jh_flavours[flavour],
			 l->revision);
		return malformed(e, 6, what);
	}
	if (l->has_arch)
		c->arch = bytes[5];
	if (c->arch >= JH_ARCHS) {
		c->arch = JH_ARM64;
		return malformed(e, 5, "the architecture is none of x86, arm, arm64");
	}
	return read_body(bytes, n, 0, l, c, e);
}

int jh_cell_guess(const void *bytes, size_t n, struct phi_error *e)
{
	bool known = false;

	for (int f = 0; f < JH_FLAVOURS; f++) {
		struct jh_cell c;
		struct phi_error wrong;
		int r = jh_cell_read(bytes, n, (enum jh_flavour)f, &c, &wrong);

		jh_cell_free(&c);
		if (r == 0)
			return f;
		/* The words of the first that has the signature. */
		bool has = n >= layouts[f].signature_n && memcmp(bytes, layouts[f].signature, layouts[f].signature_n) == 0;

		if (f == 0 || (has && !known))
			*e = wrong;
		known = known || has;
	}
	return -EBADMSG;
}

/* ---- writing ---- */

size_t jh_cell_size(const struct jh_cell *c)
{
	const struct layout *l = &layouts[c->flavour];
	size_t n = l->header + c->n_cpus + c->n_rcpus + c->n_fpga;

	for (int i = 0; i < JH_LISTS; i++)
		n += c->lists[i].n * item_size(l, (enum jh_list)i);
	return n;
}

void jh_cell_write(const struct jh_cell *c, void *data)
{
	const struct layout *l = &layouts[c->flavour];
	const uint8_t *const sets[] = {c->cpus, c->rcpus, c->fpga};
	uint8_t *bytes = data, *at = bytes + l->header;

	memset(bytes, 0, l->header);
	memcpy(bytes, l->signature, l->signature_n);
	if (l->has_arch)
		bytes[5] = (uint8_t)c->arch;
	put_number(bytes + 6, 2, l->revision);
	memcpy(bytes + NAME_AT, c->name, sizeof(c->name));
	write_members(bytes, l->members, l->header, c);
	for (size_t i = 0; i < PHI_COUNT(sets); i++) {
		uint32_t size = i == 0 ? c->n_cpus : i == 1 ? c->n_rcpus : c->n_fpga;

		memcpy(at, sets[i], size);
		at += size;
	}
	for (int i = 0; i < JH_LISTS; i++) {
		size_t size = item_size(l, (enum jh_list)i);
		const char *item = c->lists[i].items;

		for (uint32_t k = 0; k < c->lists[i].n; k++, at += size, item += jh_lists[i].in_memory) {
			memset(at, 0, size);
			write_members(at, jh_lists[i].members, size, item);
		}
	}
}

void *jh_append(struct jh_cell *c, enum jh_list list, uint32_t n)
{
	struct jh_array *a = &c->lists[list];
	size_t size = jh_lists[list].in_memory;
	char *items = realloc(a->items, (a->n + n + 1) * size); /* never of 0 bytes */

	if (items == NULL)
		abort();
	memset(items + a->n * size, 0, n * size);
	a->items = items;
	a->n += n;
	return items + (a->n - n) * size;
}

void jh_cell_free(struct jh_cell *c)
{
	for (int i = 0; i < JH_LISTS; i++) {
		free(c->lists[i].items);
		c->lists[i] = (struct jh_array){0};
	}
}

/* ---- the system ---- */

int jh_system_read(const void *data, size_t n, enum jh_flavour flavour, struct jh_system *s, struct phi_error *e)
{
	const struct layout *l = &layouts[flavour];
	const uint8_t *bytes = data, *p;
	size_t memory = l->memory;

	*s = (struct jh_system){.root = {.flavour = flavour, .arch = JH_ARM64}};
	if (l->system == 0)
		return phi_error_set(e, PHI_UNSUPPORTED, EOPNOTSUPP, "", "the layout of a root cell of %s is not known", jh_flavours[flavour]);
	if (n < l->system + l->header)
		return malformed(e, 0, "too short for a system configuration");
	if (memcmp(bytes, "JHSYS", 5) != 0)
		return malformed(e, 0, "the signature is not JHSYS");
	if (get_number(bytes + 6, 2) != l->revision)
		return malformed(e, 6, "another revision than that of the flavour");
	if (bytes[5] >= JH_ARCHS)
		return malformed(e, 5, "the architecture is none of x86, arm, arm64");
	s->root.arch = bytes[5];
	s->flags = (uint32_t)get_number(bytes + 8, 4);
	read_members(bytes + 0xc, jh_lists[JH_MEMORY].members, memory, &s->hypervisor);
	p = bytes + 0xc + memory; /* the debug console; layout as that of a cell's */
	s->console = (struct jh_console){.address = get_number(p, 8), .size = (uint32_t)get_number(p + 8, 4), .type = (uint16_t)get_number(p + 12, 2)};
	p += 32;
	s->mmconfig_base = get_number(p, 8);
	s->mmconfig_end_bus = p[8];
	s->pci_domain = (uint16_t)get_number(p + 10, 2);
	for (int i = 0; i < JH_IOMMUS; i++) {
		p = bytes + l->iommu_at + 28 * i;
		s->iommus[i] = (struct jh_iommu){.type = (uint32_t)get_number(p, 4), .base = get_number(p + 4, 8), .size = (uint32_t)get_number(p + 12, 4)};
	}
	if (s->root.arch != JH_X86) {
		uint64_t *const bases[] = {&s->gicd, &s->gicc, &s->gich, &s->gicv, &s->gicr};

		s->gic_version = bytes[l->arch_at + 1];
		for (size_t i = 0; i < PHI_COUNT(bases); i++)
			*bases[i] = get_number(bytes + l->arch_at + 4 + 8 * i, 8);
	}
	return read_body(bytes + l->root_at, n - l->root_at, l->root_at, l, &s->root, e);
}

void jh_system_free(struct jh_system *s)
{
	jh_cell_free(&s->root);
}
