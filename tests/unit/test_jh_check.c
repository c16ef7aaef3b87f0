/* Cells beside each other: two that are safe, and each thing that would not be, by one change to them. */
#include "unit.h"

#include "jailhouse/cell.h"

#include <stdlib.h>

#define GICD 0x8000000

struct host {
	struct jh_cell cells[2];
	struct jh_system system;
	struct jh_memory ram[1];
	bool w_xor_x;
};

static struct jh_memory *memory(struct host *h, int cell, int i)
{
	return (struct jh_memory *)h->cells[cell].lists[JH_MEMORY].items + i;
}

static struct jh_pci *pci(struct host *h, int cell)
{
	return h->cells[cell].lists[JH_PCI].items;
}

static struct jh_irqchip *chip(struct host *h, int cell)
{
	return h->cells[cell].lists[JH_IRQCHIP].items;
}

/* RAM, communication region, an UART lent by the root, one end of a link of two. */
static void make_cell(struct jh_cell *c, int which)
{
	struct jh_memory *m;
	uint64_t shared = 0x7fb00000;

	*c = (struct jh_cell){.flavour = JH_OMNIVISOR, .arch = JH_ARM64, .flags = JH_PASSIVE, .n_cpus = 8};
	snprintf(c->name, sizeof(c->name), "cell%d", which);
	c->cpus[0] = (uint8_t)(2 << which);
	m = jh_append(c, JH_MEMORY, 7);
	m[0] = (struct jh_memory){0x70000000 + (uint64_t)which * 0x1000000, 0, 0x100000, JH_READ | JH_WRITE | JH_EXECUTE | JH_LOADABLE, 0};
	m[1] = (struct jh_memory){0, 0x80000000, 0x1000, JH_READ | JH_WRITE | JH_COMM, 0};
	m[2] = (struct jh_memory){0x9000000, 0x9000000, 0x1000, JH_READ | JH_WRITE | JH_IO | JH_ROOTSHARED, 0};
	m[3] = (struct jh_memory){shared, shared, 0x1000, JH_READ | JH_ROOTSHARED, 0};
	m[4] = (struct jh_memory){0};
	for (int peer = 0; peer < 2; peer++)
		m[5 + peer] = (struct jh_memory){shared + 0x1000 + (uint64_t)peer * 0x1000, shared + 0x1000 + (uint64_t)peer * 0x1000, 0x1000,
						 JH_READ | JH_ROOTSHARED | (peer == which ? JH_WRITE : 0), 0};
	*(struct jh_irqchip *)jh_append(c, JH_IRQCHIP, 1) = (struct jh_irqchip){GICD, 0, 32, {1u << which}};
	*(struct jh_pci *)jh_append(c, JH_PCI, 1) = (struct jh_pci){.type = JH_PCI_IVSHMEM, .domain = 1, .bdf = 8, .shmem_start = 3,
								    .shmem_id = (uint8_t)which, .shmem_peers = 2};
	((struct jh_stream *)jh_append(c, JH_STREAM, 1))->id = 0x870 + (uint32_t)which;
}

static void setup(struct host *h)
{
	*h = (struct host){0};
	for (int i = 0; i < 2; i++)
		make_cell(&h->cells[i], i);
	h->system = (struct jh_system){.hypervisor = {.phys = 0x7fc00000, .size = 0x400000}, .mmconfig_base = 0x8e00000, .mmconfig_end_bus = 0,
				       .gic_version = 3, .gicd = GICD, .gicr = 0x80a0000,
				       .iommus[0] = {.type = 3, .base = 0x9050000, .size = 0x20000}};
	h->system.root = (struct jh_cell){.flavour = JH_OMNIVISOR, .arch = JH_ARM64, .name = "root", .n_cpus = 8, .cpus = {0x0f}};
	h->ram[0] = (struct jh_memory){.phys = 0x40000000, .size = 0x30000000};
}

static void teardown(struct host *h)
{
	for (int i = 0; i < 2; i++)
		jh_cell_free(&h->cells[i]);
}

struct seen {
	char text[4096];
	size_t n;
};

static void found(void *ud, const struct jh_finding *f)
{
	struct seen *s = ud;

	assert_true(f->detail[0] != '\0' && f->cell >= 0);
	s->n += (size_t)snprintf(s->text + s->n, sizeof(s->text) - s->n, "%s%d%s%s ", f->other >= 0 ? "" : ":", f->cell, f->code, f->pointer);
}

static size_t check(struct host *h, struct seen *s)
{
	const struct jh_check k = {.cells = h->cells, .n = 2, .system = &h->system, .w_xor_x = h->w_xor_x, .linux_ram = h->ram, .n_linux_ram = 1,
				   .found = found, .ud = s};

	*s = (struct seen){0};
	return jh_check(&k);
}

static void two_cells_with_a_link_are_safe(void **state)
{
	struct host h;
	struct seen s;

	(void)state;
	setup(&h);
	if (check(&h, &s) != 0)
		fail_msg("%s", s.text);
	teardown(&h);
}

/* One change each, and the finding that it must give (among others, where it cannot be alone). */
static void change(struct host *h, int which)
{
	switch (which) {
	case 0: h->cells[1].name[0] = '\0'; break;
	case 1: memset(h->cells[1].cpus, 0, 8); break;
	case 2: h->cells[1].n_cpus = 4; break;
	case 3: h->cells[1].flags = 0; break;
	case 4: memory(h, 1, 0)->flags |= 0x100000; break;
	case 5: h->w_xor_x = true; break;
	case 6: memory(h, 1, 0)->phys = UINT64_MAX - 0xfff; break;
	case 7: memory(h, 1, 0)->size = 0x100800; break;
	case 8: memory(h, 1, 2)->virt = 0x1000; break;
	case 9: memory(h, 1, 2)->phys = 0x71000000; break;
	case 10: memory(h, 1, 1)->flags = JH_READ; memory(h, 1, 1)->phys = 0x72000000; break;
	case 11: memory(h, 1, 0)->flags = JH_READ | JH_WRITE; break;
	case 12: h->cells[1].reset_address = 0x200000; break;
	case 13: pci(h, 1)->num_caps = 1; break;
	case 14: pci(h, 1)->type = 4; break;
	case 15: pci(h, 1)->shmem_start = 4; break;
	case 16: pci(h, 1)->shmem_id = 2; break;
	case 17: chip(h, 1)->pin_base = 33; break;
	case 18: chip(h, 1)->address = GICD + 0x1000; break;
	case 19: strcpy(h->cells[1].name, "cell0"); break;
	case 20: h->cells[1].arch = JH_ARM; break;
	case 21: h->cells[1].cpus[0] = 2; break;
	case 22: memory(h, 1, 0)->phys = 0x700ff000; break;
	case 23: chip(h, 1)->pins[0] = 1; break;
	case 24: pci(h, 1)->type = JH_PCI_DEVICE; break;
	case 25: pci(h, 1)->shmem_id = 0; break;
	case 26: pci(h, 1)->shmem_protocol = 1; break;
	case 27: memory(h, 1, 5)->phys = memory(h, 1, 5)->virt = 0x7fd00000 - 0x200000; break;
	case 28: memory(h, 1, 5)->flags |= JH_WRITE; break;
	case 29: ((struct jh_stream *)h->cells[1].lists[JH_STREAM].items)->id = 0x870; break;
	case 30: h->system.root.flavour = JH_UPSTREAM; break;
	case 31: strcpy(h->cells[1].name, "root"); break;
	case 32: h->cells[1].cpus[0] = 0x10; break;
	case 33: memory(h, 1, 0)->phys = 0x7fb80000; break;
	case 34: memory(h, 1, 2)->phys = 0x9060000; break;
	case 35: memory(h, 1, 2)->phys = 0x8e00000; break;
	case 36: memory(h, 1, 2)->phys = GICD; break;
	case 37: memory(h, 1, 0)->phys = 0x6ff80000; break;
	case 38: h->cells[0].n_rcpus = h->cells[1].n_rcpus = 8; h->cells[0].rcpus[0] = h->cells[1].rcpus[0] = 1; break;
	case 39: memory(h, 1, 2)->flags &= ~(uint64_t)JH_ROOTSHARED; break;
	case 40: h->cells[0].arch = h->cells[1].arch = h->system.root.arch = JH_X86; h->cells[1].cpus[0] = 1; break;
	case 41: pci(h, 1)->bdf = 16; break;
	}
}

static void each_change_that_is_not_safe_is_found(void **state)
{
	static const char *const want[] = {
		":1name/name", ":1no-cpu/cpus", ":1cpu-set-size/cpu_set_size", ":1silent-cell/reply_timeout", ":1memory-flags/memory/0/flags",
		":1writable-and-executable/memory/0/flags", ":1memory-wraps/memory/0/size", ":1memory-alignment/memory/0/size",
		":1memory-virtual-overlap/memory/2/virt", ":1memory-self-overlap/memory/2/phys", ":1no-comm-region/memory", ":1no-memory/memory",
		":1reset-address/reset_address", ":1pci-capabilities/pci/0", ":1pci-type/pci/0", ":1link-regions/pci/0", ":1link-id/pci/0",
		":1irq-base/irqchips/0", ":1irq-address/irqchips/0", "1name-twice/name", "1flavour-mismatch/flavour", "1cpu-overlap/cpus",
		"1memory-overlap/memory/0/phys", "1irq-overlap/irqchips/0", "1pci-overlap/pci/0", "1link-id-twice/pci/0", "1link-mismatch/pci/0",
		"1link-mismatch/pci/0", "1link-section/pci/0", "1stream-overlap/stream_ids", ":1flavour-mismatch/flavour", ":1name-twice/name",
		":1cpu-not-of-root/cpus", ":1memory-reserved/memory/0/phys", ":1memory-reserved/memory/2/phys", ":1memory-reserved/memory/2/phys",
		":1memory-reserved/memory/2/phys", ":1memory-of-linux/memory/0/phys", "1remote-cpu-overlap/remote_cpus", "1memory-overlap/memory/2/phys",
		":1cpu-0/cpus", "1memory-overlap/memory/3/phys",
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(want); i++) {
		struct host h;
		struct seen s;

		setup(&h);
		change(&h, (int)i);
		if (check(&h, &s) == 0 || strstr(s.text, want[i]) == NULL)
			fail_msg("change %zu: \"%s\" is not among: %s", i, want[i], s.text);
		teardown(&h);
	}
}

static void colours_that_do_not_meet_share_a_range(void **state)
{
	struct host h;
	struct seen s;

	(void)state;
	for (int same = 0; same < 2; same++) {
		setup(&h);
		for (int i = 0; i < 2; i++) {
			memory(&h, i, 0)->phys = 0x70000000;
			memory(&h, i, 0)->flags |= JH_COLORED;
			memory(&h, i, 0)->colors = same ? 0x3 : 0x1u << i;
		}
		assert_int_equal(check(&h, &s) != 0, same);
		teardown(&h);
	}
}

static void ranges_at_the_edges_do_not_meet(void **state)
{
	struct host h;
	struct seen s;

	(void)state;
	setup(&h);
	memory(&h, 1, 0)->phys = 0x70100000; /* right behind the other's */
	assert_int_equal(check(&h, &s), 0);
	memory(&h, 1, 0)->phys = 0x70000000 - 0x100000 + 0x1000;
	h.ram[0].size = 0x2f000000;
	assert_true(check(&h, &s) > 0);
	memory(&h, 1, 0)->phys = 0x7fc00000 - 0x400000; /* up to the hypervisor */
	memory(&h, 1, 0)->size = 0x300000;
	assert_int_equal(check(&h, &s), 0);
	teardown(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_cells_with_a_link_are_safe),
		cmocka_unit_test(each_change_that_is_not_safe_is_found),
		cmocka_unit_test(colours_that_do_not_meet_share_a_range),
		cmocka_unit_test(ranges_at_the_edges_do_not_meet),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
