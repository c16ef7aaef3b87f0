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
	struct alloc_grant g;
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
	struct alloc_grant g;
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
	struct alloc_grant g;
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
	struct alloc_grant g;
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_second_finds_the_first_by_name_and_gets_the_other_end),
		cmocka_unit_test(a_wish_is_its_own_and_disagreement_is_refused),
		cmocka_unit_test(with_the_host_it_is_where_the_host_has_its_end),
		cmocka_unit_test(remote_processors_by_number_and_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
