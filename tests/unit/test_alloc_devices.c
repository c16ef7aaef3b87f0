/* Devices of the platform: what a wish gets, what is refused and who has it. */
#include "alloc_unit.h"

static const char *const board =
	"{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-3\"},\"memory\":[{\"name\":\"m\",\"kind\":\"host\",\"size\":\"1G\"}],"
	"\"interrupts\":{\"controller\":\"gicv3\",\"base\":\"0x8000000\"},\"devices\":["
	"{\"name\":\"uart0\",\"kind\":\"uart\",\"type\":\"pl011\",\"mmio\":[{\"base\":\"0x9000000\",\"size\":4096}],\"irqs\":[{\"spi\":1}],\"host\":{\"handover\":\"absent\"}},"
	"{\"name\":\"uart1\",\"kind\":\"uart\",\"mmio\":[{\"base\":\"0x9001000\",\"size\":4096}],\"irqs\":[{\"spi\":2}],\"host\":{\"handover\":\"none\"}},"
	"{\"name\":\"can0\",\"kind\":\"can\",\"host\":{\"handover\":\"absent\"}}]}";

static int fit(struct alloc_view *v, const struct spec_device *wishes, size_t n, struct alloc_grant *g, struct alloc_refusal *refusal, struct phi_error *e)
{
	struct spec s = wish_count(1);

	s.devices = (struct field_array){n, (void *)(uintptr_t)wishes};
	*e = (struct phi_error){0};
	return alloc_fit(v, &s, true, g, refusal, e);
}

static void devices_are_given_by_name_and_by_kind_in_the_order_of_the_wish(void **state)
{
	const struct spec_device both[] = {{NULL, (char[]){"uart"}}, {(char[]){"can0"}, NULL}, {NULL, (char[]){"uart"}}};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;

	(void)state;
	host_read(board, &p);
	struct alloc_view *v = alloc_view_new(&p);
	assert_done(fit(v, both, 3, &g, &refusal, &e), e);
	assert_int_equal(g.n_devices, 3);
	assert_string_equal(g.devices[0], "uart0");
	assert_string_equal(g.devices[1], "can0");
	assert_string_equal(g.devices[2], "uart1");
	alloc_view_free(v);
	platform_free(&p);
}

static void what_is_taken_is_refused_with_its_holders(void **state)
{
	const struct spec_device name[] = {{(char[]){"uart0"}, NULL}}, kind[] = {{NULL, (char[]){"uart"}}},
					twice[] = {{(char[]){"can0"}, NULL}, {(char[]){"can0"}, NULL}}, three[] = {kind[0], kind[0], kind[0]},
					nobody[] = {{(char[]){"uart7"}, NULL}}, strange[] = {{NULL, (char[]){"spi"}}};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;

	(void)state;
	host_read(board, &p);
	struct alloc_view *v = alloc_view_new(&p);
	strcpy(v->devices[0].owner, "a");
	assert_refused(fit(v, name, 1, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/devices/0");
	assert_string_equal(refusal.kind, "devices");
	assert_int_equal(refusal.n_blockers, 1);
	assert_string_equal(refusal.blockers[0].unit, "device uart0");
	assert_string_equal(refusal.blockers[0].owner, "a");
	assert_done(fit(v, kind, 1, &g, &refusal, &e), e);
	assert_string_equal(g.devices[0], "uart1");
	assert_refused(fit(v, twice, 2, &g, &refusal, &e), e, PHI_INVALID, "/spec/devices/1");
	assert_refused(fit(v, three, 3, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/devices/1");
	assert_refused(fit(v, nobody, 1, &g, &refusal, &e), e, PHI_INVALID, "/spec/devices/0");
	assert_refused(fit(v, strange, 1, &g, &refusal, &e), e, PHI_INVALID, "/spec/devices/0");
	alloc_view_free(v);
	platform_free(&p);
}

static void refuse_board(const char *devices, const char *where)
{
	struct platform p = {0};
	struct phi_error e = {0};
	_clean_free_ char *text = NULL;
	int r;

	assert_true(asprintf(&text, "{\"format\":\"phid-platform/1\",%s}", devices) > 0);
	r = platform_read(text, strlen(text), &p, &e);
	platform_free(&p);
	if (r >= 0 || strcmp(e.pointer, where) != 0)
		fail_msg("%s: %d at %s: %s", devices, r, e.pointer, e.detail);
}

#define GIC "\"interrupts\":{\"controller\":\"gicv2\",\"base\":\"0x1000\"},"
#define HOST ",\"host\":{\"handover\":\"absent\"}}"

static void devices_that_could_not_be_given_apart_are_refused(void **state)
{
	(void)state;
	refuse_board("\"devices\":[{\"name\":\"a\",\"kind\":\"k\"}]", "/devices/0");
	refuse_board("\"devices\":[{\"name\":\"a\",\"kind\":\"k\",\"host\":{\"handover\":\"unbind\"}}]", "/devices/0");
	refuse_board("\"devices\":[{\"name\":\"a\",\"kind\":\"k\",\"irqs\":[{\"spi\":1}]" HOST "]", "/devices/0");
	refuse_board("\"devices\":[{\"name\":\"a\",\"kind\":\"k\"" HOST ",{\"name\":\"a\",\"kind\":\"k\"" HOST "]", "/devices/1");
	refuse_board(GIC "\"devices\":[{\"name\":\"a\",\"kind\":\"k\",\"irqs\":[{\"spi\":1}]" HOST ",{\"name\":\"b\",\"kind\":\"k\",\"irqs\":[{\"spi\":1}]" HOST "]",
		     "/devices/1");
	refuse_board("\"devices\":[{\"name\":\"a\",\"kind\":\"k\",\"mmio\":[{\"base\":\"0x1000\",\"size\":256}]" HOST
		     ",{\"name\":\"b\",\"kind\":\"k\",\"mmio\":[{\"base\":\"0x1f00\",\"size\":16}]" HOST "]", "/devices/1");
	refuse_board("\"devices\":[{\"name\":\"a\",\"kind\":\"k\",\"mmio\":[{\"base\":\"0x3fffffffffffffff\",\"size\":4096}]" HOST "]", "/devices/0");
	refuse_board("\"devices\":[{\"name\":\"a\",\"kind\":\"k\",\"dma\":true" HOST "]", "/devices/0");
}

/* ---- groups ---- */

static const char *const grouped =
	"{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-3\"},\"memory\":[{\"name\":\"m\",\"kind\":\"host\",\"size\":\"1G\"}],\"devices\":["
	"{\"name\":\"a\",\"kind\":\"timer\",\"group\":\"g\"" HOST ",{\"name\":\"b\",\"kind\":\"timer\",\"group\":\"g\"" HOST
	",{\"name\":\"c\",\"kind\":\"timer\"" HOST "]}";

static void a_group_goes_whole_or_not_at_all(void **state)
{
	const struct spec_device kinds[] = {{NULL, (char[]){"timer"}}, {NULL, (char[]){"timer"}}}, both[] = {{(char[]){"b"}, NULL}, {(char[]){"a"}, NULL}};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;

	(void)state;
	host_read(grouped, &p);
	struct alloc_view *v = alloc_view_new(&p);
	assert_done(fit(v, kinds, 2, &g, &refusal, &e), e); /* the group, then the one that is alone */
	assert_int_equal(g.n_devices, 3);
	assert_string_equal(g.devices[2], "c");
	assert_done(fit(v, both, 2, &g, &refusal, &e), e); /* two of one group are one wish */
	assert_int_equal(g.n_devices, 2);
	strcpy(v->devices[1].owner, "x");
	assert_done(fit(v, kinds, 1, &g, &refusal, &e), e);
	assert_string_equal(g.devices[0], "c");
	assert_refused(fit(v, both + 1, 1, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/devices/0");
	assert_int_equal(refusal.n_blockers, 1);
	assert_string_equal(refusal.blockers[0].unit, "device b");
	alloc_view_free(v);
	platform_free(&p);
}

static void a_group_that_is_larger_than_a_container_may_have_is_refused(void **state)
{
	const struct spec_device wish = {(char[]){"d0"}, NULL}, other = {(char[]){"e"}, NULL};
	char text[4000];
	size_t n = (size_t)snprintf(text, sizeof(text), "{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-3\"},\"memory\":["
					    "{\"name\":\"m\",\"kind\":\"host\",\"size\":\"1G\"}],\"devices\":["
					    "{\"name\":\"e\",\"kind\":\"x\",\"group\":\"h\",\"host\":{\"handover\":\"absent\"}},"
					    "{\"name\":\"f\",\"kind\":\"x\",\"host\":{\"handover\":\"absent\"}}");
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;

	(void)state;
	for (int i = 0; i <= PHI_DEVICES_MAX; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, ",{\"name\":\"d%d\",\"kind\":\"x\",\"group\":\"g\",\"host\":{\"handover\":\"absent\"}}", i);
	snprintf(text + n, sizeof(text) - n, "]}");
	host_read(text, &p);
	struct alloc_view *v = alloc_view_new(&p);
	assert_refused(fit(v, &wish, 1, &g, &refusal, &e), e, PHI_INVALID, "/spec/devices/0");
	assert_contains(e.detail, "group \"g\"");
	assert_done(fit(v, &other, 1, &g, &refusal, &e), e); /* of another group, which is small */
	assert_int_equal(g.n_devices, 1);
	alloc_view_free(v);
	platform_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(devices_are_given_by_name_and_by_kind_in_the_order_of_the_wish),
		cmocka_unit_test(what_is_taken_is_refused_with_its_holders),
		cmocka_unit_test(devices_that_could_not_be_given_apart_are_refused),
		cmocka_unit_test(a_group_goes_whole_or_not_at_all),
		cmocka_unit_test(a_group_that_is_larger_than_a_container_may_have_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
