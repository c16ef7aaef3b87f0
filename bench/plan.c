/* How long the plan of a Jailhouse cell takes on a full host: the allocator's choice and the checked configuration. 256 CPUs, 64 memory
 * ranges, 64 cells. Prints JSON: microseconds, median and 99th percentile. */
#include "alloc.h"
#include "jailhouse/cell.h"
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CELLS 64
#define TURNS 2000

static void found(void *ud, const struct jh_finding *f)
{
	fprintf(stderr, "%d: %s %s\n", *(int *)ud, f->code, f->detail);
	exit(1);
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void make_cell(int n, const struct alloc_grant *g, struct jh_cell *ret)
{
	struct jh_memory *m;

	*ret = (struct jh_cell){.flavour = JH_UPSTREAM, .arch = JH_ARM64, .flags = JH_PASSIVE, .n_cpus = 32};
	snprintf(ret->name, sizeof(ret->name), "phid-%d", n);
	for (int c = cpuset_next(&g->cpus, 0); c >= 0; c = cpuset_next(&g->cpus, (unsigned)c + 1))
		ret->cpus[c / 8] |= (uint8_t)(1u << c % 8);
	m = jh_append(ret, JH_MEMORY, 2);
	m[0] = (struct jh_memory){g->memory[0].base, 0, g->memory[0].size, JH_READ | JH_WRITE | JH_EXECUTE | JH_LOADABLE, 0};
	m[1] = (struct jh_memory){0, 0x80000000, 0x1000, JH_READ | JH_WRITE | JH_COMM, 0};
}

int main(void)
{
	static const char text[] = "{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-255\",\"host\":\"0\"},"
				   "\"memory\":[{\"name\":\"ddr\",\"kind\":\"carveout\",\"base\":\"0x100000000\",\"size\":\"16G\"}]}";
	static struct jh_cell cells[CELLS];
	static double took[TURNS];
	struct platform p = {0};
	struct phi_error e;
	struct alloc_view *v;
	struct spec s;
	int turn = 0;

	if (platform_read(text, strlen(text), &p, &e) < 0)
		return 1;
	v = alloc_view_new(&p);
	spec_init(&s);
	s.cpus.count = 2;
	s.cpus.has_count = true;
	spec_set_memory(&s, 64 << 20);
	for (turn = 0; turn < CELLS + TURNS; turn++) {
		struct alloc_refusal refusal;
		_clean_grant_ struct alloc_grant g = {0};
		struct jh_cell cell;
		struct jh_check k = {.cells = &cell, .n = 1, .found = found, .ud = &turn};
		double begin = now_us();
		uint8_t bytes[1024];

		if (alloc_fit(v, &s, false, &g, &refusal, &e) < 0) {
			fprintf(stderr, "%s\n", e.detail);
			return 1;
		}
		make_cell(turn, &g, &cell);
		jh_check(&k);
		jh_cell_write(&cell, bytes);
		if (turn >= CELLS) {
			took[turn - CELLS] = now_us() - begin;
			jh_cell_free(&cell);
			continue;
		}
		/* One of those that are there. */
		cells[turn] = cell;
		for (int c = cpuset_next(&g.cpus, 0); c >= 0; c = cpuset_next(&g.cpus, (unsigned)c + 1))
			snprintf(v->cpus[c].owner, sizeof(v->cpus[c].owner), "c%d", turn);
		struct alloc_range r = {.has_base = true, .base = g.memory[0].base, .size = g.memory[0].size, .colors = UINT64_MAX};

		snprintf(r.pool, sizeof(r.pool), "ddr");
		snprintf(r.owner, sizeof(r.owner), "c%d", turn);
		alloc_view_add(v, &r);
	}
	qsort(took, TURNS, sizeof(took[0]), compare);
	printf("{\"plan_us\":{\"p50\":%.1f,\"p99\":%.1f}", took[TURNS / 2], took[TURNS * 99 / 100]);
	for (turn = 0; turn < 20; turn++) {
		struct jh_check k = {.cells = cells, .n = CELLS, .found = found, .ud = &turn};
		double begin = now_us();

		jh_check(&k);
		took[turn] = now_us() - begin;
	}
	qsort(took, 20, sizeof(took[0]), compare);
	printf(",\"check_64_cells_us\":{\"p50\":%.1f,\"p99\":%.1f}}\n", took[10], took[19]);
	return 0;
}
