/* Jailhouse's cell files: each member at its offset, whole files byte by byte, malformed ones refused. */
#include "unit.h"

#include "jailhouse/cell.h"
#include "json.h"

#include <errno.h>
#include <stdlib.h>

static const char *const runphi_cells[] = {"qemu-arm64-inmate-demo", "qemu-arm64-linux-demo", "qemu-arm64-zephyr-demo"};

static size_t load(const char *name, uint8_t *bytes, size_t size)
{
	_clean_fclose_ FILE *f = NULL;
	char path[400];
	size_t n;

	snprintf(path, sizeof(path), "%s/tests/data/runphi/%s.cell", getenv("srcdir") ? getenv("srcdir") : ".", name);
	f = fopen(path, "re");
	assert_non_null(f);
	n = fread(bytes, 1, size, f);
	return n;
}

static void assert_same_again(const struct jh_cell *c, const uint8_t *bytes, size_t n)
{
	_clean_free_ uint8_t *again = malloc(n);

	assert_int_equal(jh_cell_size(c), n);
	jh_cell_write(c, again);
	assert_memory_equal(again, bytes, n);
}

static void runphi_s_cells_are_the_same_bytes_again(void **state)
{
	(void)state;
	for (size_t i = 0; i < PHI_COUNT(runphi_cells); i++) {
		_clean_json_ struct json *j = NULL, *parsed = NULL;
		_clean_free_ char *text = NULL;
		uint8_t bytes[4096];
		size_t n = load(runphi_cells[i], bytes, sizeof(bytes));
		struct jh_cell c, d;
		struct phi_error e;

		assert_int_equal(jh_cell_guess(bytes, n, &e), JH_RUNPHI);
		assert_done(jh_cell_read(bytes, n, JH_RUNPHI, &c, &e), e);
		assert_same_again(&c, bytes, n);
		j = jh_cell_to_json(&c);
		text = json_print(j);
		assert_done(json_parse(text, strlen(text), &parsed, &e), e);
		assert_done(jh_cell_from_json(parsed, &d, &e), e);
		assert_same_again(&d, bytes, n);
		jh_cell_free(&c);
		jh_cell_free(&d);
	}
}

static void runphi_s_inmate_is_read_as_it_is(void **state)
{
	uint8_t bytes[4096];
	size_t n = load(runphi_cells[0], bytes, sizeof(bytes));
	const struct jh_memory *ram;
	const struct jh_pci *p;
	struct jh_cell c;
	struct phi_error e;

	(void)state;
	assert_done(jh_cell_read(bytes, n, JH_RUNPHI, &c, &e), e);
	assert_string_equal(c.name, "inmate-demo");
	assert_int_equal(c.flags, JH_PASSIVE);
	assert_int_equal(c.cpus[0], 2);
	assert_int_equal(c.vpci_irq_base, 112);
	assert_int_equal(c.console.address, 0x9000000);
	assert_int_equal(c.console.type, 3);
	assert_int_equal(c.lists[JH_MEMORY].n, 8);
	ram = JH_ITEM(&c, JH_MEMORY, jh_memory, 6);
	assert_int_equal(ram->phys, 0x7fa00000);
	assert_int_equal(ram->virt, 0);
	assert_int_equal(ram->size, 0x10000);
	assert_int_equal(ram->flags, JH_READ | JH_WRITE | JH_EXECUTE | JH_LOADABLE);
	assert_int_equal(JH_ITEM(&c, JH_IRQCHIP, jh_irqchip, 0)->pins[3], 0x10000);
	p = JH_ITEM(&c, JH_PCI, jh_pci, 0);
	assert_int_equal(p->type, JH_PCI_IVSHMEM);
	assert_int_equal(p->domain, 1);
	assert_int_equal(p->shmem_id, 1);
	assert_int_equal(p->shmem_peers, 3);
	assert_int_equal(p->bar_mask[0], 0xfffff000);
	jh_cell_free(&c);
}

/* ---- every member at its offset: upstream, revision 14 ---- */

struct at {
	size_t at, size;
	uint64_t value;
};

static void assert_at(const uint8_t *bytes, const struct at *a, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v = 0;

		for (size_t k = a[i].size; k-- > 0;)
			v = v << 8 | bytes[a[i].at + k];
		if (v != a[i].value)
			fail_msg("at 0x%zx: 0x%llx, not 0x%llx", a[i].at, (unsigned long long)v, (unsigned long long)a[i].value);
	}
}

static void fill(struct jh_cell *c)
{
	strcpy(c->name, "n");
	c->id = 0x01020304;
	c->flags = 0x11121314;
	c->vpci_irq_base = 0x21222324;
	c->reset_address = 0x3132333435363738;
	c->reply_timeout = 0x4142434445464748;
	c->console = (struct jh_console){.address = 0x5152535455565758, .size = 0x61626364, .type = 0x7172, .flags = 0x8182, .divider = 0x91929394,
					 .gate_nr = 0xa1a2a3a4, .clock_reg = 0xb1b2b3b4b5b6b7b8};
	c->n_cpus = 16;
	c->cpus[0] = 0xc1;
	c->cpus[15] = 0xc2;
	((struct jh_memory *)jh_append(c, JH_MEMORY, 2))[1] = (struct jh_memory){0x0101, 0x0202, 0x0303, 0x0404, 0};
	*(struct jh_cache *)jh_append(c, JH_CACHE, 1) = (struct jh_cache){0x0505, 0x0606, 0x07, 0x08, 0x0909};
	*(struct jh_irqchip *)jh_append(c, JH_IRQCHIP, 1) = (struct jh_irqchip){0x0a0a, 0x0b0b, 0x0c0c, {0x0d, 0x0e, 0x0f, 0x10}};
	*(struct jh_pio *)jh_append(c, JH_PIO, 1) = (struct jh_pio){0x1111, 0x1212};
	*(struct jh_pci *)jh_append(c, JH_PCI, 1) = (struct jh_pci){.type = 0x13, .iommu = 0x14, .domain = 0x1515, .bdf = 0x1616,
		.bar_mask = {0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c}, .caps_start = 0x1d1d, .num_caps = 0x1e1e, .msi_vectors = 0x1f, .msi_flags = 0x20,
		.msix_vectors = 0x2121, .msix_region_size = 0x2222, .msix_address = 0x2323232323232323, .shmem_start = 0x24242424, .shmem_id = 0x25,
		.shmem_peers = 0x26, .shmem_protocol = 0x2727};
	*(struct jh_capability *)jh_append(c, JH_CAPABILITY, 1) = (struct jh_capability){0x2828, 0x2929, 0x2a2a, 0x2b2b};
	*(struct jh_stream *)jh_append(c, JH_STREAM, 1) = (struct jh_stream){0x2c2c2c2c};
}

static void upstream_s_members_are_at_their_offsets(void **state)
{
	static const struct at want[] = {
		{0x05, 1, 2}, {0x06, 2, 14}, {0x08, 1, 'n'}, {0x28, 4, 0x01020304}, {0x2c, 4, 0x11121314}, {0x30, 4, 16}, {0x34, 4, 2},
		{0x38, 4, 1}, {0x3c, 4, 1}, {0x40, 4, 1}, {0x44, 4, 1}, {0x48, 4, 1}, {0x4c, 4, 1}, {0x50, 4, 0x21222324},
		{0x54, 8, 0x3132333435363738}, {0x5c, 8, 0x4142434445464748},
		/* the console at 0x64 */
		{0x64, 8, 0x5152535455565758}, {0x6c, 4, 0x61626364}, {0x70, 2, 0x7172}, {0x72, 2, 0x8182}, {0x74, 4, 0x91929394},
		{0x78, 4, 0xa1a2a3a4}, {0x7c, 8, 0xb1b2b3b4b5b6b7b8},
		/* behind 132 bytes: 16 of CPUs, memory of 32 each */
		{132, 1, 0xc1}, {147, 1, 0xc2}, {148, 8, 0}, {180, 8, 0x0101}, {188, 8, 0x0202}, {196, 8, 0x0303}, {204, 8, 0x0404},
		/* cache 12, irqchip 32, pio 4 */
		{212, 4, 0x0505}, {216, 4, 0x0606}, {220, 1, 0x07}, {221, 1, 0x08}, {222, 2, 0x0909},
		{224, 8, 0x0a0a}, {232, 4, 0x0b0b}, {236, 4, 0x0c0c}, {240, 4, 0x0d}, {244, 4, 0x0e}, {248, 4, 0x0f}, {252, 4, 0x10},
		{256, 2, 0x1111}, {258, 2, 0x1212},
		/* pci 56 */
		{260, 1, 0x13}, {261, 1, 0x14}, {262, 2, 0x1515}, {264, 2, 0x1616}, {266, 4, 0x17}, {270, 4, 0x18}, {274, 4, 0x19}, {278, 4, 0x1a},
		{282, 4, 0x1b}, {286, 4, 0x1c}, {290, 2, 0x1d1d}, {292, 2, 0x1e1e}, {294, 1, 0x1f}, {295, 1, 0x20}, {296, 2, 0x2121},
		{298, 2, 0x2222}, {300, 8, 0x2323232323232323}, {308, 4, 0x24242424}, {312, 1, 0x25}, {313, 1, 0x26}, {314, 2, 0x2727},
		/* capability 8, stream id 4 */
		{316, 2, 0x2828}, {318, 2, 0x2929}, {320, 2, 0x2a2a}, {322, 2, 0x2b2b}, {324, 4, 0x2c2c2c2c},
	};
	struct jh_cell c = {.flavour = JH_UPSTREAM, .arch = JH_ARM64}, d;
	uint8_t bytes[328];
	struct phi_error e;

	(void)state;
	fill(&c);
	assert_int_equal(jh_cell_size(&c), sizeof(bytes));
	jh_cell_write(&c, bytes);
	assert_memory_equal(bytes, "JHCLL", 5);
	assert_at(bytes, want, PHI_COUNT(want));
	assert_done(jh_cell_read(bytes, sizeof(bytes), JH_UPSTREAM, &d, &e), e);
	assert_same_again(&d, bytes, sizeof(bytes));
	jh_cell_free(&c);
	jh_cell_free(&d);
}

static void the_other_flavours_differ_where_they_should(void **state)
{
	static const struct at runphi[] = {{0x00, 6, 0x4c4c4543484a}, {0x06, 2, 13}, {0x30, 4, 16}, {0x34, 4, 2}, {0x4c, 4, 1}, {0x50, 4, 0},
					   {0x54, 4, 0x21222324}, {0x58, 8, 0x3132333435363738}, {0x60, 8, 0x4142434445464748},
					   {0x68, 8, 0x5152535455565758}, {136, 1, 0xc1}, {192, 8, 0x0101}, {224, 8, 0x3333}};
	static const struct at omnivisor[] = {{0x05, 1, 2}, {0x06, 2, 14}, {0x30, 4, 16}, {0x34, 4, 8}, {0x38, 4, 0}, {0x3c, 4, 2}, {0x54, 4, 1},
					      {0x58, 4, 0}, {0x5c, 4, 0}, {0x60, 4, 0}, {0x64, 4, 0x21222324}, {0x68, 8, 0x3132333435363738},
					      {0x70, 8, 0x4142434445464748}, {0x78, 8, 0x5152535455565758}, {152, 1, 0xc1}, {168, 1, 0x03},
					      {216, 8, 0x0101}, {248, 8, 0x3333}};
	static const struct {
		enum jh_flavour flavour;
		const struct at *want;
		size_t n, size;
	} cases[] = {{JH_RUNPHI, runphi, PHI_COUNT(runphi), 328 + 4 + 16}, {JH_OMNIVISOR, omnivisor, PHI_COUNT(omnivisor), 328 + 20 + 16 + 8}};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(cases); i++) {
		struct jh_cell c = {.flavour = cases[i].flavour, .arch = JH_ARM64}, d;
		uint8_t bytes[400];
		struct phi_error e;

		fill(&c);
		((struct jh_memory *)c.lists[JH_MEMORY].items)[1].colors = 0x3333;
		if (cases[i].flavour == JH_OMNIVISOR) {
			c.n_rcpus = 8;
			c.rcpus[0] = 3;
		}
		assert_int_equal(jh_cell_size(&c), cases[i].size);
		jh_cell_write(&c, bytes);
		assert_at(bytes, cases[i].want, cases[i].n);
		assert_int_equal(jh_cell_guess(bytes, cases[i].size, &e), (int)cases[i].flavour);
		assert_done(jh_cell_read(bytes, cases[i].size, cases[i].flavour, &d, &e), e);
		assert_same_again(&d, bytes, cases[i].size);
		jh_cell_free(&c);
		jh_cell_free(&d);
	}
}

/* ---- what is malformed ---- */

static void refuse(const uint8_t *bytes, size_t n, enum jh_flavour flavour, const char *word)
{
	struct jh_cell c;
	struct phi_error e = {0};
	int r = jh_cell_read(bytes, n, flavour, &c, &e);

	jh_cell_free(&c);
	if (r >= 0)
		fail_msg("%zu bytes were accepted", n);
	assert_contains(e.detail, "at offset 0x");
	assert_contains(e.detail, word);
}

static void malformed_files_are_refused_with_offset_and_reason(void **state)
{
	static const struct {
		size_t at, size;
		uint32_t value;
		const char *word;
	} cases[] = {
		{0, 1, 'X', "offset 0x0: the signature"}, {6, 2, 12, "offset 0x6: the revision is 12"}, {5, 1, 3, "offset 0x5: the architecture"},
		{0x30, 4, 24, "ask for 336 bytes"}, {0x30, 4, 0xffffffff, "more than"}, {0x34, 4, 3, "ask for"}, {0x34, 4, 0xffffffff, "ask for"},
		{0x38, 4, 0x80000000, "ask for"}, {0x4c, 4, 0, "ask for"},
	};
	struct jh_cell c = {.flavour = JH_UPSTREAM, .arch = JH_ARM64};
	uint8_t bytes[328], broken[400] = {0};

	(void)state;
	fill(&c);
	jh_cell_write(&c, bytes);
	jh_cell_free(&c);
	for (size_t i = 0; i < PHI_COUNT(cases); i++) {
		memcpy(broken, bytes, sizeof(bytes));
		for (size_t k = 0; k < cases[i].size; k++)
			broken[cases[i].at + k] = (uint8_t)(cases[i].value >> 8 * k);
		refuse(broken, sizeof(bytes), JH_UPSTREAM, cases[i].word);
	}
	for (size_t n = 0; n < sizeof(bytes); n++) /* the hypervisor hangs on a file that is cut */
		refuse(bytes, n, JH_UPSTREAM, n < 132 ? "bytes are no cell" : "ask for 328 bytes");
	memcpy(broken, bytes, sizeof(bytes));
	refuse(broken, sizeof(bytes) + 1, JH_UPSTREAM, "ask for 328 bytes, there are 329");
	memset(broken + 8, 'x', 32);
	refuse(broken, sizeof(bytes), JH_UPSTREAM, "offset 0x8: the name");
	refuse(bytes, sizeof(bytes), JH_RUNPHI, "signature is not JHCELL");
	refuse(bytes, sizeof(bytes), JH_OMNIVISOR, "offset 0x");
}

static void whatever_is_accepted_is_written_as_it_was(void **state)
{
	uint64_t random = 88172645463325252;
	uint8_t seeds[4][4096];
	size_t sizes[4], accepted = 0;
	struct jh_cell c = {.flavour = JH_UPSTREAM, .arch = JH_ARM64};

	(void)state;
	for (size_t i = 0; i < 3; i++)
		sizes[i] = load(runphi_cells[i], seeds[i], sizeof(seeds[i]));
	fill(&c);
	sizes[3] = jh_cell_size(&c);
	jh_cell_write(&c, seeds[3]);
	jh_cell_free(&c);
	for (int turn = 0; turn < 60000; turn++) {
		size_t which = unit_random(&random) % 4, n = sizes[which];
		uint8_t bytes[4096];
		struct phi_error e;
		int flips = 1 + (int)(unit_random(&random) % 4), f;

		memcpy(bytes, seeds[which], n);
		for (int i = 0; i < flips; i++)
			bytes[unit_random(&random) % (i % 2 ? n : 0x88)] = (uint8_t)unit_random(&random);
		if (unit_random(&random) % 8 == 0)
			n = unit_random(&random) % (n + 1);
		f = jh_cell_guess(bytes, n, &e);
		if (f < 0)
			continue;
		assert_int_equal(jh_cell_read(bytes, n, (enum jh_flavour)f, &c, &e), 0);
		assert_same_again(&c, bytes, n);
		free(jh_cell_to_text(&c));
		json_free(jh_cell_to_json(&c));
		jh_cell_free(&c);
		accepted++;
	}
	assert_true(accepted > 1000);
}

/* ---- documents ---- */

static int from(const char *text, struct jh_cell *c, struct phi_error *e)
{
	_clean_json_ struct json *j = NULL;

	if (json_parse(text, strlen(text), &j, e) < 0)
		fail_msg("%s: %s", text, e->detail);
	return jh_cell_from_json(j, c, e);
}

static void a_cell_from_a_document(void **state)
{
	struct jh_cell c;
	struct phi_error e;

	(void)state;
	assert_done(from("{\"format\":\"phid-cell/1\",\"flavour\":\"upstream-14\",\"name\":\"rt\",\"flags\":[\"passive_commreg\",\"0x8\"],\"cpus\":\"1,65\","
			 "\"reset_address\":\"0x80000\",\"memory\":[{\"phys\":\"0x70000000\",\"virt\":0,\"size\":65536,\"flags\":[\"read\",\"write\"]},{}],"
			 "\"irqchips\":[{\"address\":\"0x8000000\",\"pin_base\":160,\"pins\":\"160,287\"}],\"console\":{\"type\":3,\"flags\":[\"mmio\"]}}", &c, &e), e);
	assert_int_equal(c.flags, 9);
	assert_int_equal(c.n_cpus, 16);
	assert_true(c.cpus[0] == 2 && c.cpus[8] == 2);
	assert_int_equal(c.lists[JH_MEMORY].n, 2);
	assert_int_equal(JH_ITEM(&c, JH_IRQCHIP, jh_irqchip, 0)->pins[0], 1);
	assert_int_equal(JH_ITEM(&c, JH_IRQCHIP, jh_irqchip, 0)->pins[3], 1u << 31);
	assert_int_equal(c.console.flags, 1);
	jh_cell_free(&c);
}

static void a_wrong_document_is_refused_by_its_place(void **state)
{
	static const struct {
		const char *text, *where;
	} cases[] = {
		{"{}", ""},
		{"{\"name\":\"\"}", "/name"},
		{"{\"name\":\"0123456789012345678901234567890x\"}", "/name"},
		{"{\"name\":\"a\",\"colour\":1}", "/colour"},
		{"{\"name\":\"a\",\"format\":\"x\"}", "/format"},
		{"{\"name\":\"a\",\"flavour\":\"upstream-13\"}", "/flavour"},
		{"{\"name\":\"a\",\"cpus\":\"2-1\"}", "/cpus"},
		{"{\"name\":\"a\",\"cpus\":2}", "/cpus"},
		{"{\"name\":\"a\",\"console\":[]}", "/console"},
		{"{\"name\":\"a\",\"cpu_set_size\":7}", "/cpu_set_size"},
		{"{\"name\":\"a\",\"flags\":[\"passive\"]}", "/flags"},
		{"{\"name\":\"a\",\"reset_address\":\"0xg\"}", "/reset_address"},
		{"{\"name\":\"a\",\"vpci_irq_base\":4294967296}", "/vpci_irq_base"},
		{"{\"name\":\"a\",\"vpci_irq_base\":-1}", "/vpci_irq_base"},
		{"{\"name\":\"a\",\"memory\":{}}", "/memory"},
		{"{\"name\":\"a\",\"memory\":[1]}", "/memory/0"},
		{"{\"name\":\"a\",\"memory\":[{\"at\":1}]}", "/memory/0/at"},
		{"{\"name\":\"a\",\"memory\":[{\"colors\":1}]}", "/memory"},
		{"{\"name\":\"a\",\"pci\":[{\"bdf\":65536}]}", "/pci/0/bdf"},
		{"{\"name\":\"a\",\"irqchips\":[{\"pin_base\":32,\"pins\":\"31\"}]}", "/irqchips/0/pins"},
		{"{\"name\":\"a\",\"irqchips\":[{\"pin_base\":32,\"pins\":\"160\"}]}", "/irqchips/0/pins"},
		{"{\"name\":\"a\",\"console\":{\"x\":1}}", "/console/x"},
		{"{\"name\":\"a\",\"remote_cpus\":\"0\"}", "/remote_cpus"},
	};

	(void)state;
	for (size_t i = 0; i < PHI_COUNT(cases); i++) {
		struct jh_cell c;
		struct phi_error e = {0};
		int r = from(cases[i].text, &c, &e);

		jh_cell_free(&c);
		if (r >= 0 || strcmp(e.pointer, cases[i].where) != 0)
			fail_msg("%s: %d at \"%s\": %s", cases[i].text, r, e.pointer, e.detail);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runphi_s_cells_are_the_same_bytes_again),
		cmocka_unit_test(runphi_s_inmate_is_read_as_it_is),
		cmocka_unit_test(upstream_s_members_are_at_their_offsets),
		cmocka_unit_test(the_other_flavours_differ_where_they_should),
		cmocka_unit_test(malformed_files_are_refused_with_offset_and_reason),
		cmocka_unit_test(whatever_is_accepted_is_written_as_it_was),
		cmocka_unit_test(a_cell_from_a_document),
		cmocka_unit_test(a_wrong_document_is_refused_by_its_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
