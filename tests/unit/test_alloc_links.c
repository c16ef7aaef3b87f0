/* Links: who gets which end, slot, memory and interrupts; remote processors. */
#include "alloc_unit.h"

static const char *const board =
	"{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-3\"},\"memory\":[{\"name\":\"m\",\"kind\":\"host\",\"size\":\"1G\"},"
	"{\"name\":\"shared\",\"kind\":\"carveout\",\"base\":\"0x10000000\",\"size\":\"128K\"}],"
	"\"interrupts\":{\"controller\":\"gicv3\",\"base\":\"0x8000000\",\"virtual\":[{\"spi\":100},{\"spi\":104}]},"
	"\"remote_processors\":[{\"name\":\"r0\",\"id\":0},{\"name\":\"r1\",\"id\":1}],"
	"\"links\":{\"memory\":\"shared\",\"host_slots\":[{\"slot\":0,\"base\":\"0x20000000\",\"output\":4096,\"peers\":3,\"id\":1}]}}";

static int fit(struct alloc_view *v, const struct spec_link *wishes, size_t n, struct alloc_grant *g, struct alloc_refusal *refusal, struct phi_error *e)
{
	struct spec s = wish_count(1);

	s.links = (struct field_array){n, (void *)(uintptr_t)wishes};
	*e = (struct phi_error){0};
	return alloc_fit(v, &s, true, g, refusal, e);
}

/* As the vector shows it once it is granted. */
static void grant(struct alloc_view *v, const struct alloc_link *l, const char *owner)
{
	size_t i = 0;

	while (i < v->n_links && strcmp(v->links[i].link.name, l->name) != 0)
		i++;
	if (i == v->n_links)
		v->links[v->n_links++].link = *l;
	struct alloc_end *end = &v->links[i].ends[v->links[i].n_ends++];
	end->id = l->id;
	strcpy(end->owner, owner);
}

static void the_second_finds_the_first_by_name_and_gets_the_other_end(void **state)
{
	const struct spec_link raw = {.name = (char[]){"bus"}, .size = 65536, .has_size = true}, any = {.name = (char[]){"bus"}};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;

	(void)state;
	host_read(board, &p);
	struct alloc_view *v = alloc_view_new(&p);
	assert_done(fit(v, &raw, 1, &g, &refusal, &e), e);
	struct alloc_link a = g.links[0];
	assert_true(a.alone && !a.host && a.slot == 1 && a.id == 0 && a.peers == 2 && a.base == 0x10000000 && a.size == 65536);
	assert_true(a.common == 28672 && a.output == 16384 && ALLOC_LINK_STATES + a.common + 2 * a.output <= a.size);
	assert_true(g.has_virtual && g.virtual_spi == 100);
	grant(v, &a, "a");
	strcpy(v->virtual[0].owner, "a");
	assert_done(fit(v, &any, 1, &g, &refusal, &e), e);
	assert_true(!g.links[0].alone && g.links[0].id == 1 && g.links[0].base == a.base && g.virtual_spi == 104);
	grant(v, &g.links[0], "b");
	assert_refused(fit(v, &any, 1, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/links/0");
	assert_string_equal(refusal.kind, "links");
	assert_int_equal(refusal.n_blockers, 2);
	assert_string_equal(refusal.blockers[1].unit, "link bus end 1");
	assert_string_equal(refusal.blockers[1].owner, "b");
	alloc_view_free(v);
	platform_free(&p);
}

static void a_wish_is_its_own_and_disagreement_is_refused(void **state)
{
	const struct spec_link two[] = {{.name = (char[]){"a"}, .size = 65536, .has_size = true, .role = 1, .has_role = true},
					{.name = (char[]){"b"}, .size = 65536, .has_size = true, .protocol = LINK_NETWORK, .peers = 3, .has_peers = true}},
			       wrong[] = {{.name = (char[]){"a"}, .size = 32768, .has_size = true}, {.name = (char[]){"a"}, .protocol = LINK_NETWORK},
					  {.name = (char[]){"a"}, .peers = 3, .has_peers = true}, {.name = (char[]){"a"}, .host = true}},
			       third = {.name = (char[]){"c"}, .size = 16384, .has_size = true},
			       small = {.name = (char[]){"d"}, .size = 16384, .has_size = true, .peers = 8, .has_peers = true};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;

	(void)state;
	host_read(board, &p);
	struct alloc_view *v = alloc_view_new(&p);
	assert_done(fit(v, two, 2, &g, &refusal, &e), e);
	assert_true(g.n_links == 2 && g.links[0].id == 1 && g.links[1].id == 0 && g.links[0].slot == 1 && g.links[1].slot == 2);
	assert_true(g.links[1].base == 0x10010000 && g.links[1].common == 0 && g.links[1].output == 20480);
	grant(v, &g.links[0], "x");
	grant(v, &g.links[1], "x");
	for (size_t i = 0; i < PHI_COUNT(wrong); i++)
		assert_refused(fit(v, &wrong[i], 1, &g, &refusal, &e), e, PHI_INVALID, "/spec/links/0");
	assert_refused(fit(v, &third, 1, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/links/0");
	assert_refused(fit(v, &small, 1, &g, &refusal, &e), e, PHI_INVALID, "/spec/links/0");
	v->links[0] = v->links[1]; /* "a" goes: its memory and its slot are free again */
	v->n_links = 1;
	assert_done(fit(v, &third, 1, &g, &refusal, &e), e);
	assert_true(g.links[0].slot == 1 && g.links[0].base == 0x10000000);
	alloc_view_free(v);
	platform_free(&p);
}

static void with_the_host_it_is_where_the_host_has_its_end(void **state)
{
	const struct spec_link host = {.name = (char[]){"h"}, .host = true}, own = {.name = (char[]){"h"}, .host = true, .role = 1, .has_role = true},
			       other = {.name = (char[]){"i"}, .host = true}, net = {.name = (char[]){"n"}, .host = true, .protocol = LINK_NETWORK};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;

	(void)state;
	host_read(board, &p);
	struct alloc_view *v = alloc_view_new(&p);
	assert_done(fit(v, &host, 1, &g, &refusal, &e), e);
	assert_true(g.links[0].host && g.links[0].slot == 0 && g.links[0].id == 0 && g.links[0].base == 0x20000000 && g.links[0].size == 4 * 4096);
	assert_refused(fit(v, &own, 1, &g, &refusal, &e), e, PHI_INVALID, "/spec/links/0");
	assert_refused(fit(v, &net, 1, &g, &refusal, &e), e, PHI_INVALID, "/spec/links/0");
	assert_done(fit(v, &host, 1, &g, &refusal, &e), e);
	grant(v, &g.links[0], "a");
	assert_done(fit(v, &host, 1, &g, &refusal, &e), e);
	assert_int_equal(g.links[0].id, 2); /* 1 is the host's */
	assert_refused(fit(v, &other, 1, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/links/0");
	alloc_view_free(v);
	platform_free(&p);
}

static void remote_processors_by_number_and_by_name(void **state)
{
	struct spec s = wish_count(0);
	char *names[] = {(char[]){"r1"}}, *strange[] = {(char[]){"r7"}}, *twice[] = {(char[]){"r1"}, (char[]){"r1"}};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e = {0};

	(void)state;
	host_read(board, &p);
	struct alloc_view *v = alloc_view_new(&p);
	s.remote.names = (struct field_strings){.n = 1, .values = names};
	assert_done(alloc_fit(v, &s, true, &g, &refusal, &e), e);
	assert_int_equal(cpuset_count(&g.cpus), 0);
	assert_string_equal(g.remote[0], "r1");
	s.remote.names.values = strange;
	assert_refused(alloc_fit(v, &s, true, &g, &refusal, &e), e, PHI_INVALID, "/spec/remote_processors/names");
	s.remote.names = (struct field_strings){.n = 2, .values = twice};
	assert_refused(alloc_fit(v, &s, true, &g, &refusal, &e), e, PHI_INVALID, "/spec/remote_processors/names");
	s.remote.names.n = 0;
	s.remote.has_count = true;
	s.remote.count = 3;
	assert_refused(alloc_fit(v, &s, true, &g, &refusal, &e), e, PHI_INVALID, "/spec/remote_processors");
	strcpy(v->remote[0].owner, "a");
	s.remote.count = 1;
	assert_done(alloc_fit(v, &s, true, &g, &refusal, &e), e);
	assert_string_equal(g.remote[0], "r1");
	s.remote.count = 2;
	assert_refused(alloc_fit(v, &s, true, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/remote_processors");
	assert_true(refusal.available == 1 && refusal.n_blockers == 1 && strcmp(refusal.blockers[0].owner, "a") == 0);
	alloc_view_free(v);
	platform_free(&p);
}

static void a_remote_processor_that_another_has_is_refused_by_its_name(void **state)
{
	struct spec s = wish_count(0);
	char *names[] = {(char[]){"r0"}};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;

	(void)state;
	host_read(board, &p);
	struct alloc_view *v = alloc_view_new(&p);
	strcpy(v->remote[0].owner, "a");
	s.remote.names = (struct field_strings){.n = 1, .values = names};
	assert_refused(alloc_fit(v, &s, true, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/remote_processors");
	assert_string_equal(refusal.blockers[0].unit, "remote processor r0");
	strcpy(v->remote[0].owner, "");
	s.remote.names.n = 0;
	s.remote.has_count = true;
	s.remote.count = 1;
	assert_done(alloc_fit(v, &s, true, &g, &refusal, &e), e);
	assert_true(g.n_remote == 1 && strcmp(g.remote[0], "r0") == 0); /* no more than are wanted */
	alloc_view_free(v);
	platform_free(&p);
}

static void the_pool_for_links_is_for_nothing_else(void **state)
{
	struct wish any = {0}, named = {0}, placed = {0}, large = {0};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;

	(void)state;
	host_read(board, &p);
	struct alloc_view *v = alloc_view_new(&p);
	wish_memory(&any, PAGE, NULL);
	assert_done(alloc_fit(v, &any.spec, false, &g, &refusal, &e), e);
	assert_string_equal(g.memory[0].pool, "m");
	wish_memory(&named, PAGE, "shared");
	assert_refused(alloc_fit(v, &named.spec, false, &g, &refusal, &e), e, PHI_INVALID, "/spec/memory/0");
	wish_memory(&placed, PAGE, NULL);
	placed.m[0].has_at = true;
	placed.m[0].at = 0x10000000;
	assert_refused(alloc_fit(v, &placed.spec, false, &g, &refusal, &e), e, PHI_INVALID, "/spec/memory/0");
	wish_memory(&large, UINT64_C(1) << 30, NULL);
	wish_memory(&large, PAGE, NULL);
	assert_refused(alloc_fit(v, &large.spec, false, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/memory/1");
	assert_int_equal(refusal.available, 0);
	alloc_view_free(v);
	platform_free(&p);
}

static void a_role_is_given_where_it_is_free_and_below_the_number_of_peers(void **state)
{
	const struct spec_link first = {.name = (char[]){"a"}, .size = 65536, .has_size = true, .peers = 3, .has_peers = true, .role = 2, .has_role = true},
			       same = {.name = (char[]){"a"}, .size = 65536, .has_size = true, .peers = 3, .has_peers = true, .role = 2, .has_role = true},
			       free_ = {.name = (char[]){"a"}, .size = 65536, .has_size = true, .peers = 3, .has_peers = true, .role = 1, .has_role = true},
			       beyond = {.name = (char[]){"b"}, .size = 16384, .has_size = true, .role = 2, .has_role = true},
			       unsized_ = {.name = (char[]){"c"}};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;

	(void)state;
	host_read(board, &p);
	struct alloc_view *v = alloc_view_new(&p);
	assert_done(fit(v, &first, 1, &g, &refusal, &e), e);
	assert_int_equal(g.links[0].id, 2);
	grant(v, &g.links[0], "x");
	assert_refused(fit(v, &same, 1, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/links/0");
	assert_done(fit(v, &free_, 1, &g, &refusal, &e), e);
	assert_int_equal(g.links[0].id, 1);
	assert_refused(fit(v, &beyond, 1, &g, &refusal, &e), e, PHI_INVALID, "/spec/links/0");
	assert_refused(fit(v, &unsized_, 1, &g, &refusal, &e), e, PHI_INVALID, "/spec/links/0");
	assert_contains(e.detail, "give a \"size\"");
	alloc_view_free(v);
	platform_free(&p);
}

static void a_link_with_the_host_has_the_hosts_shape_and_a_name_of_its_slot(void **state)
{
	static const char *const two =
		"{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-3\"},\"memory\":[{\"name\":\"m\",\"kind\":\"host\",\"size\":\"1G\"}],"
		"\"links\":{\"host_slots\":[{\"slot\":4,\"base\":\"0x20000000\",\"output\":4096,\"peers\":3,\"id\":1},"
		"{\"slot\":7,\"base\":\"0x21000000\",\"output\":8192,\"peers\":2,\"id\":0}]}}";
	const struct spec_link nameless = {.host = true}, three = {.host = true, .peers = 3, .has_peers = true, .size = 4 * 4096, .has_size = true},
			       larger = {.host = true, .peers = 2, .has_peers = true, .size = 5 * 4096, .has_size = true},
			       wrong_size = {.host = true, .size = 12345, .has_size = true}, of_none = {.name = (char[]){"x"}, .size = 65536, .has_size = true},
			       both[] = {{.host = true}, {.host = true}, {.host = true}};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;

	(void)state;
	host_read(two, &p);
	struct alloc_view *v = alloc_view_new(&p);
	assert_done(fit(v, &nameless, 1, &g, &refusal, &e), e);
	assert_string_equal(g.links[0].name, "host-4");
	assert_false(g.has_virtual); /* without a GIC they speak by MSI */
	assert_done(fit(v, &three, 1, &g, &refusal, &e), e);
	assert_int_equal(g.links[0].slot, 4);
	assert_done(fit(v, &larger, 1, &g, &refusal, &e), e);
	assert_true(g.links[0].slot == 7 && g.links[0].id == 1);
	assert_refused(fit(v, &wrong_size, 1, &g, &refusal, &e), e, PHI_INVALID, "/spec/links/0");
	assert_refused(fit(v, &of_none, 1, &g, &refusal, &e), e, PHI_UNSUPPORTED, "/spec/links/0");
	assert_done(fit(v, both, 2, &g, &refusal, &e), e);
	assert_true(g.links[0].slot == 4 && g.links[1].slot == 7);
	assert_refused(fit(v, both, 3, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/links/2");
	grant(v, &g.links[0], "a");
	alloc_view_free(v);
	platform_free(&p);
}

static void slots_memory_and_interrupts_of_links_end(void **state)
{
	static const char *const large =
		"{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-3\"},\"memory\":[{\"name\":\"m\",\"kind\":\"host\",\"size\":\"1G\"},"
		"{\"name\":\"shared\",\"kind\":\"carveout\",\"base\":\"0x10000000\",\"size\":\"1M\"}],"
		"\"interrupts\":{\"controller\":\"gicv3\",\"base\":\"0x8000000\",\"virtual\":[{\"spi\":100}]},\"links\":{\"memory\":\"shared\"}}";
	struct spec_link wish = {.size = 16384, .has_size = true};
	struct platform p;
	_clean_grant_ struct alloc_grant g = {0};
	struct alloc_refusal refusal;
	struct phi_error e;
	char name[8];

	(void)state;
	host_read(large, &p);
	struct alloc_view *v = alloc_view_new(&p);
	wish.name = name;
	for (int i = 0; i < PHI_SLOTS; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		assert_done(fit(v, &wish, 1, &g, &refusal, &e), e);
		assert_true(g.links[0].slot == i && g.links[0].base == 0x10000000 + 16384u * (unsigned)i);
		grant(v, &g.links[0], "a");
	}
	snprintf(name, sizeof(name), "more");
	assert_refused(fit(v, &wish, 1, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/links/0");
	assert_contains(e.detail, "no slot");
	assert_int_equal(refusal.n_blockers, ALLOC_BLOCKERS_MAX);
	v->links[3].link.host = true; /* is the host's, not in the way */
	v->n_links = 31;
	wish.size = 2 * MIB;
	assert_refused(fit(v, &wish, 1, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/links/0");
	assert_contains(e.detail, "no memory in one piece");
	wish.size = 16384;
	strcpy(v->virtual[0].owner, "b");
	assert_refused(fit(v, &wish, 1, &g, &refusal, &e), e, PHI_NO_RESOURCES, "/spec/links");
	assert_string_equal(refusal.kind, "irqs");
	assert_string_equal(refusal.blockers[0].unit, "irqs 132 to 135");
	alloc_view_free(v);
	platform_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_second_finds_the_first_by_name_and_gets_the_other_end),
		cmocka_unit_test(a_wish_is_its_own_and_disagreement_is_refused),
		cmocka_unit_test(with_the_host_it_is_where_the_host_has_its_end),
		cmocka_unit_test(remote_processors_by_number_and_by_name),
		cmocka_unit_test(a_remote_processor_that_another_has_is_refused_by_its_name),
		cmocka_unit_test(the_pool_for_links_is_for_nothing_else),
		cmocka_unit_test(a_role_is_given_where_it_is_free_and_below_the_number_of_peers),
		cmocka_unit_test(a_link_with_the_host_has_the_hosts_shape_and_a_name_of_its_slot),
		cmocka_unit_test(slots_memory_and_interrupts_of_links_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
