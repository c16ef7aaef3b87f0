/* The device tree: of a directory that is written here as the kernel shows one. */
#include "unit.h"

#include "devicetree.h"

#include <errno.h>
#include <ftw.h>
#include <sys/stat.h>

static char dir[64];

static void write_bytes(const char *path, const void *bytes, size_t n)
{
	char whole[256];
	FILE *f;

	snprintf(whole, sizeof(whole), "%s", dir);
	for (const char *p = path; (p = strchr(p, '/')) != NULL; p++) { /* the nodes on the way */
		snprintf(whole, sizeof(whole), "%s/%.*s", dir, (int)(p - path), path);
		if (mkdir(whole, 0755) < 0 && errno != EEXIST)
			fail_msg("%s: %s", whole, strerror(errno));
	}
	snprintf(whole, sizeof(whole), "%s/%s", dir, path);
	f = fopen(whole, "we");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	fclose(f);
}

static void write_text(const char *path, const char *text)
{
	write_bytes(path, text, strlen(text) + 1);
}

#define write_cells(path, ...) write_cells_n(path, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4)
static void write_cells_n(const char *path, const uint32_t *cells, size_t n)
{
	uint8_t bytes[256];

	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < 4; k++)
			bytes[4 * i + k] = (uint8_t)(cells[i] >> (24 - 8 * k));
	write_bytes(path, bytes, 4 * n);
}

static int begin(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/phid-dt-XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	write_cells("#address-cells", 2);
	write_cells("#size-cells", 2);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	(void)st;
	(void)type;
	(void)f;
	return remove(path);
}

static int end(void **state)
{
	(void)state;
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct dt_node *load(void)
{
	struct dt_node *root;
	struct phi_error e;

	assert_done(dt_load(dir, &root, &e), e);
	assert_non_null(root);
	return root;
}

static void no_directory_is_no_tree(void **state)
{
	struct dt_node *root;
	struct phi_error e;

	(void)state;
	assert_done(dt_load("/nowhere/device-tree", &root, &e), e);
	assert_null(root);
	dt_free(NULL);
}

static void nodes_are_walked_found_and_named(void **state)
{
	static const char *const order[] = {"/", "/aliases", "/chosen", "/soc", "/soc/a@1", "/soc/b@2", "/soc/b@2/inner"};
	struct dt_node *root;
	const struct dt_node *n;
	char path[64];
	size_t i = 0;

	(void)state;
	write_text("soc/b@2/inner/compatible", "x");
	write_cells("soc/a@1/phandle", 7);
	write_text("aliases/serial0", "/soc/a@1");
	write_text("aliases/loop", "loop");
	write_text("chosen/stdout-path", "serial0:115200n8");
	root = load();
	for (n = root; n != NULL; n = dt_next(n), i++) {
		dt_path(n, path, sizeof(path));
		assert_string_equal(path, order[i]);
		assert_ptr_equal(dt_find(root, path), n);
	}
	assert_int_equal(i, PHI_COUNT(order));
	n = dt_find(root, "/soc/a@1");
	assert_ptr_equal(dt_find(root, "serial0"), n);
	assert_ptr_equal(dt_find(root, dt_text(dt_find(root, "/chosen"), "stdout-path")), n);
	assert_ptr_equal(dt_find(root, "/soc/a@1:115200"), n);
	assert_ptr_equal(dt_by_phandle(root, 7), n);
	assert_null(dt_find(root, "/soc/a"));
	assert_null(dt_find(root, "/soc/b@2/none"));
	assert_null(dt_find(root, "loop"));
	assert_null(dt_find(root, ""));
	assert_null(dt_by_phandle(root, 8));
	dt_free(root);
}

static void properties_are_big_endian_cells_and_lists_of_strings(void **state)
{
	static const char words[] = "arm,pl011\0arm,primecell"; /* and the last NUL */
	struct dt_node *root;
	const struct dt_node *n;
	uint32_t v = 1;

	(void)state;
	write_bytes("n/compatible", words, sizeof(words));
	write_bytes("n/unended", "ab", 2);
	write_bytes("n/five", "\x12\x34\x56\x78\x9a", 5);
	write_bytes("n/empty", "", 0);
	root = load();
	n = dt_find(root, "/n");
	assert_true(dt_is(n, "arm,pl011") && dt_is(n, "arm,primecell"));
	assert_false(dt_is(n, "arm,pl0") || dt_is(n, "primecell") || dt_is(root, "x") || dt_is(n, ""));
	assert_string_equal(dt_text(n, "compatible"), "arm,pl011");
	assert_string_equal(dt_text(n, "unended"), "ab");
	assert_null(dt_text(n, "empty"));
	assert_non_null(dt_get(n, "empty"));
	assert_true(dt_cell(n, "five", 0, &v));
	assert_int_equal(v, 0x12345678);
	assert_false(dt_cell(n, "five", 1, &v) || dt_cell(n, "empty", 0, &v) || dt_cell(n, "none", 0, &v));
	dt_free(root);
}

static void a_node_is_available_with_all_above_it(void **state)
{
	struct dt_node *root;

	(void)state;
	write_text("on/status", "okay");
	write_text("also/status", "ok");
	write_text("off/status", "disabled");
	write_text("off/child/status", "okay");
	write_text("plain/x", "");
	root = load();
	assert_true(dt_available(dt_find(root, "/on")) && dt_available(dt_find(root, "/also")) && dt_available(dt_find(root, "/plain")));
	assert_false(dt_available(dt_find(root, "/off")) || dt_available(dt_find(root, "/off/child")));
	dt_free(root);
}

static void expect_reg(const struct dt_node *root, const char *path, size_t i, int answer, uint64_t base, uint64_t size)
{
	uint64_t b = 0, s = 0;
	int r = dt_reg(dt_find(root, path), i, &b, &s);

	if (r != answer || (r > 0 && (b != base || s != size)))
		fail_msg("%s[%zu]: %d, 0x%llx + 0x%llx", path, i, r, (unsigned long long)b, (unsigned long long)s);
}

static void registers_are_addresses_of_the_cpus(void **state)
{
	struct dt_node *root;

	(void)state;
	write_cells("top@0/reg", 0x8, 0x0, 0x1, 0x0, 0, 0x1000, 0, 0x10); /* of two cells each */
	/* a bus whose addresses are ours */
	write_cells("same/#address-cells", 1);
	write_cells("same/#size-cells", 1);
	write_bytes("same/ranges", "", 0);
	write_cells("same/a/reg", 0x9000000, 0x1000);
	/* a bus with a window, and one below it */
	write_cells("bus/#address-cells", 1);
	write_cells("bus/#size-cells", 1);
	write_cells("bus/ranges", 0x0, 0x0, 0x10000000, 0x1000, 0x7e000000, 0xf, 0xfe000000, 0x1800000);
	write_cells("bus/a/reg", 0x7e201000, 0x200);
	write_cells("bus/last/reg", 0x7f7ff000, 0x1000);
	write_cells("bus/across/reg", 0x7f7ff000, 0x1001);
	write_cells("bus/out/reg", 0x2000, 0x10);
	write_cells("bus/in/#address-cells", 1);
	write_cells("bus/in/#size-cells", 0);
	write_cells("bus/in/reg/reg", 3);
	/* a bus that says nothing of ours: i2c */
	write_cells("i2c/#address-cells", 1);
	write_cells("i2c/#size-cells", 0);
	write_cells("i2c/a/reg", 0x50);
	/* as of PCI */
	write_cells("pci/#address-cells", 3);
	write_cells("pci/#size-cells", 2);
	write_bytes("pci/ranges", "", 0);
	write_cells("pci/a/reg", 0, 0, 0, 0, 0);
	write_cells("short/reg", 0, 0, 0);
	root = load();
	expect_reg(root, "/top@0", 0, 1, 0x800000000, 0x100000000);
	expect_reg(root, "/top@0", 1, 1, 0x1000, 0x10);
	expect_reg(root, "/top@0", 2, 0, 0, 0);
	expect_reg(root, "/same/a", 0, 1, 0x9000000, 0x1000);
	expect_reg(root, "/bus/a", 0, 1, 0xffe201000, 0x200);
	expect_reg(root, "/bus/last", 0, 1, 0xfff7ff000, 0x1000);
	expect_reg(root, "/bus/across", 0, -1, 0, 0);
	expect_reg(root, "/bus/out", 0, -1, 0, 0);
	expect_reg(root, "/bus/in/reg", 0, -1, 0, 0);
	expect_reg(root, "/i2c/a", 0, -1, 0, 0);
	expect_reg(root, "/pci/a", 0, -1, 0, 0);
	expect_reg(root, "/short", 0, 0, 0, 0);
	expect_reg(root, "/bus", 0, 0, 0, 0);
	expect_reg(root, "/", 0, 0, 0, 0);
	dt_free(root);
}

static void expect_interrupt(const struct dt_node *root, const char *path, size_t i, int answer, const char *controller, uint32_t a, uint32_t b)
{
	struct dt_interrupt irq = {0};
	int r = dt_interrupt(root, dt_find(root, path), i, &irq);

	if (r != answer || (r > 0 && (irq.controller != dt_find(root, controller) || irq.cells[0] != a || irq.cells[1] != b)))
		fail_msg("%s[%zu]: %d of %s, %u %u", path, i, r, irq.controller ? irq.controller->name : "none", irq.cells[0], irq.cells[1]);
}

static void interrupts_go_by_the_next_parent_that_is_named(void **state)
{
	struct dt_node *root;

	(void)state;
	write_cells("interrupt-parent", 1);
	write_cells("gic/phandle", 1);
	write_cells("gic/#interrupt-cells", 3);
	write_bytes("gic/interrupt-controller", "", 0);
	write_cells("gpio/phandle", 2);
	write_cells("gpio/#interrupt-cells", 2);
	write_bytes("gpio/interrupt-controller", "", 0);
	write_cells("nexus/phandle", 3); /* an interrupt-map, not a controller */
	write_cells("nexus/#interrupt-cells", 1);
	write_cells("uart/interrupts", 0, 1, 4, 1, 14, 8);
	write_cells("soc/interrupt-parent", 2);
	write_cells("soc/key/interrupts", 5, 1);
	write_cells("soc/own/interrupt-parent", 1);
	write_cells("soc/own/interrupts", 0, 22, 4);
	write_cells("both/interrupts", 9, 9, 9);
	write_cells("both/interrupts-extended", 2, 6, 1, 1, 0, 30, 4);
	write_cells("mapped/interrupt-parent", 3);
	write_cells("mapped/interrupts", 1);
	write_cells("lost/interrupt-parent", 77);
	write_cells("lost/interrupts-extended", 77, 1, 2, 3);
	write_cells("cut/interrupts", 0, 1);
	write_cells("cut2/interrupts-extended", 1, 0, 30);
	root = load();
	expect_interrupt(root, "/uart", 0, 1, "/gic", 0, 1);
	expect_interrupt(root, "/uart", 1, 1, "/gic", 1, 14);
	expect_interrupt(root, "/uart", 2, 0, NULL, 0, 0);
	expect_interrupt(root, "/soc/key", 0, 1, "/gpio", 5, 1);
	expect_interrupt(root, "/soc/own", 0, 1, "/gic", 0, 22);
	expect_interrupt(root, "/both", 0, 1, "/gpio", 6, 1);
	expect_interrupt(root, "/both", 1, 1, "/gic", 0, 30);
	expect_interrupt(root, "/both", 2, 0, NULL, 0, 0);
	expect_interrupt(root, "/mapped", 0, -1, NULL, 0, 0);
	expect_interrupt(root, "/lost", 0, -1, NULL, 0, 0);
	expect_interrupt(root, "/lost", 1, -1, NULL, 0, 0);
	expect_interrupt(root, "/cut", 0, 0, NULL, 0, 0);
	expect_interrupt(root, "/cut2", 0, -1, NULL, 0, 0);
	expect_interrupt(root, "/gic", 0, 0, NULL, 0, 0);
	dt_free(root);
}

static void too_deep_is_refused(void **state)
{
	char path[400] = "";
	struct dt_node *root;
	struct phi_error e;

	(void)state;
	for (int i = 0; i < 40; i++)
		snprintf(path + strlen(path), sizeof(path) - strlen(path), "d/");
	strcat(path, "x");
	write_text(path, "");
	assert_refused(dt_load(dir, &root, &e), e, PHI_INTERNAL, "");
	assert_null(root);
}

int main(void)
{
#define IN_A_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, begin, end)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_directory_is_no_tree),
		IN_A_DIRECTORY(nodes_are_walked_found_and_named),
		IN_A_DIRECTORY(properties_are_big_endian_cells_and_lists_of_strings),
		IN_A_DIRECTORY(a_node_is_available_with_all_above_it),
		IN_A_DIRECTORY(registers_are_addresses_of_the_cpus),
		IN_A_DIRECTORY(interrupts_go_by_the_next_parent_that_is_named),
		IN_A_DIRECTORY(too_deep_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
