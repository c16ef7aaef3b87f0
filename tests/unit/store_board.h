/* A board that has a unit of every kind, twice, and a database in which two containers have them all: for the tests of the store. */
#pragma once

#include "grant_unit.h"
#include "store_unit.h"

#include "store_sql.h"

static const char board[] =
	"{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-7\"},\"memory\":[{\"name\":\"ram\",\"kind\":\"carveout\",\"base\":\"0x10000\",\"size\":\"1M\"},"
	"{\"name\":\"ddr\",\"kind\":\"host\",\"size\":\"1M\"},{\"name\":\"shared\",\"kind\":\"carveout\",\"base\":\"0x10000000\",\"size\":\"1M\"}],"
	"\"interrupts\":{\"controller\":\"gicv3\",\"base\":\"0x8000000\",\"virtual\":[{\"spi\":100},{\"spi\":104}]},"
	"\"devices\":[{\"name\":\"u0\",\"kind\":\"uart\",\"mmio\":[{\"base\":\"0xff000000\",\"size\":4096}],\"host\":{\"handover\":\"none\"}},"
	"{\"name\":\"u1\",\"kind\":\"uart\",\"mmio\":[{\"base\":\"0xff001000\",\"size\":4096}],\"host\":{\"handover\":\"none\"}}],"
	"\"remote_processors\":[{\"name\":\"r0\",\"id\":0},{\"name\":\"r1\",\"id\":1}],\"links\":{\"memory\":\"shared\"}}";

static struct platform platform;
static int64_t one, two, stopped; /* rows: one and two hold one of everything and share a link */

static inline struct alloc_grant all_of(unsigned n)
{
	struct alloc_grant g = grant_of(UINT64_C(3) << (2 * n), "ram", 0x10000 + 0x4000 * n, 8192, UINT64_MAX);

	*alloc_grant_add_memory(&g) = (struct alloc_memory){.pool = "ddr", .size = 4096, .colors = UINT64_MAX};
	alloc_grant_add_device(&g, n == 0 ? "u0" : n == 1 ? "u1" : "u2");
	alloc_grant_add_remote(&g, n == 0 ? "r0" : n == 1 ? "r1" : "r2");
	g.has_virtual = true;
	g.virtual_spi = 100 + 4 * n;
	for (unsigned i = 0; i < 2; i++) {
		struct alloc_link *l = alloc_grant_add_link(&g);

		*l = (struct alloc_link){.slot = i, .id = n, .peers = 3, .protocol = i ? LINK_NETWORK : LINK_RAW, .host = i, .alone = n == 0,
					 .base = 0x10000000 + 0x10000 * i, .size = 0x10000, .common = 0x4000, .output = 0x1000};
		snprintf(l->name, sizeof(l->name), "l%u", i);
	}
	return g;
}

static inline void furnish(struct box *b)
{
	_clean_grant_ struct alloc_grant g = all_of(0), h = all_of(1);
	struct phi_error e;

	reopen(b);
	begin(b);
	assert_done(store_pools_write(b->s, &platform, &e), e);
	one = insert(b, "one");
	two = insert(b, "two");
	stopped = insert(b, "stopped");
	assert_done(store_grant_insert(b->s, one, &g, &e), e);
	assert_done(store_grant_insert(b->s, two, &h, &e), e);
	assert_done(store_observed_insert(b->s, "sim", "x", "t", "5", false, &e), e);
	assert_done(store_event_insert(b->s, "a.b", "one", NULL, NULL, &e), e);
	assert_done(store_key_insert(b->s, 1, "k", "PUT /", NULL, &e), e);
	commit(b);
}

static inline int with_board(void **state)
{
	struct phi_error e;

	(void)state;
	if (platform_read(board, strlen(board), &platform, &e) == 0)
		return 0;
	print_error("%s: %s\n", e.pointer, e.detail);
	return -1;
}

static inline int without_board(void **state)
{
	(void)state;
	platform_free(&platform);
	return 0;
}
