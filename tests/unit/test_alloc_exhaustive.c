/* The allocator on a small host, exhaustively: every sequence of eight operations of three owners on four CPUs and three pages of memory,
 * against an oracle that tries all assignments. An operation is a wish (any number or set of CPUs, with any number of pages, anywhere or at
 * any place) or the release of all that an owner has. What it does depends on the state alone, so each is tried once a state. */
#include "alloc_unit.h"

#define OWNERS 3
#define CPUS   4
#define PAGES  3
#define DEPTH  8
#define STATES (1 << 14) /* an owner or nobody for each of seven units */

static const char board[] = "{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-3\"},"
			    "\"memory\":[{\"name\":\"m\",\"kind\":\"carveout\",\"base\":\"0x10000000\",\"size\":\"12K\"}]}";

struct state {
	uint8_t cpu[CPUS], page[PAGES]; /* owner + 1 */
};

struct small_wish {
	unsigned count;	   /* of CPUs, or */
	unsigned set;	   /* a mask */
	unsigned pages;	   /* in one piece */
	int at;		   /* first page, -1: any */
};

#define COUNTS 4  /* 1 to 4 */
#define SETS   15 /* every mask but 0 */
#define PLACES 9  /* 1 to 3 pages: anywhere, or at a page */
#define WISHES ((COUNTS + SETS) * PLACES)

static struct small_wish wish_of(unsigned n)
{
	static const struct {
		unsigned pages;
		int at;
	} places[PLACES] = {{1, -1}, {1, 0}, {1, 1}, {1, 2}, {2, -1}, {2, 0}, {2, 1}, {3, -1}, {3, 0}};
	unsigned cpus = n / PLACES;

	return (struct small_wish){cpus < COUNTS ? cpus + 1 : 0, cpus < COUNTS ? 0 : cpus - COUNTS + 1, places[n % PLACES].pages,
				   places[n % PLACES].at};
}

static unsigned number_of(const struct state *s)
{
	unsigned n = 0;

	for (int i = 0; i < CPUS; i++)
		n = n * 4 + s->cpu[i];
	for (int i = 0; i < PAGES; i++)
		n = n * 4 + s->page[i];
	return n;
}

static struct state state_of(unsigned n)
{
	struct state s;

	for (int i = PAGES - 1; i >= 0; i--, n /= 4)
		s.page[i] = n % 4;
	for (int i = CPUS - 1; i >= 0; i--, n /= 4)
		s.cpu[i] = n % 4;
	return s;
}

static bool holds(const struct state *s, int owner)
{
	for (int i = 0; i < CPUS; i++)
		if (s->cpu[i] == owner + 1)
			return true;
	return false;
}

/* Is there any assignment at all? By trying every set of CPUs and every first page. */
static bool possible(const struct state *s, const struct small_wish *w)
{
	bool cpus = false, memory = false;

	for (unsigned set = 0; set < 1 << CPUS; set++) {
		bool good = w->set != 0 ? set == w->set : pop(set) == w->count;

		for (int i = 0; i < CPUS; i++)
			good = good && !(set >> i & 1 && s->cpu[i] != 0);
		cpus = cpus || good;
	}
	for (int first = 0; first + (int)w->pages <= PAGES; first++) {
		bool good = w->at < 0 || first == w->at;

		for (int i = 0; i < (int)w->pages; i++)
			good = good && s->page[first + i] == 0;
		memory = memory || good;
	}
	return cpus && memory;
}

static struct alloc_view *view_of(const struct platform *p, const struct state *s)
{
	struct alloc_view *v = alloc_view_new(p);

	for (int i = 0; i < CPUS; i++)
		if (s->cpu[i] != 0)
			snprintf(v->cpus[i].owner, sizeof(v->cpus[i].owner), "%d", s->cpu[i]);
	for (int i = 0; i < PAGES; i++) {
		struct alloc_range r = {.pool = "m", .has_base = true, .base = 0x10000000 + 4096u * (unsigned)i, .size = 4096, .colors = UINT64_MAX};

		if (s->page[i] == 0)
			continue;
		snprintf(r.owner, sizeof(r.owner), "%d", s->page[i]);
		alloc_view_add(v, &r);
	}
	return v;
}

/* Every blocker holds what it is said to hold, and is no stranger to the wish. */
static void check_blockers(const struct state *s, const struct alloc_refusal *r)
{
	assert_true(r->n_blockers > 0);
	for (size_t i = 0; i < r->n_blockers; i++) {
		unsigned cpu;
		unsigned long base, size;

		if (sscanf(r->blockers[i].unit, "cpu %u", &cpu) == 1) {
			assert_true(cpu < CPUS && s->cpu[cpu] == (uint8_t)atoi(r->blockers[i].owner));
			continue;
		}
		assert_int_equal(sscanf(r->blockers[i].unit, "memory 0x%lx+0x%lx", &base, &size), 2);
		for (unsigned long at = base; at < base + size; at += 4096)
			assert_true(s->page[(at - 0x10000000) / 4096] == (uint8_t)atoi(r->blockers[i].owner));
	}
}

struct granted {
	uint8_t cpus, pages; /* masks; 0: refused */
};

static struct granted ask(const struct alloc_view *v, const struct state *s, unsigned number)
{
	const struct small_wish w = wish_of(number);
	struct spec_memory memory = {.size = w.pages * 4096, .at = 0x10000000 + 4096u * (unsigned)(w.at > 0 ? w.at : 0), .has_at = w.at >= 0};
	struct spec spec = w.set != 0 ? wish_set(w.set) : wish_count(w.count);
	struct granted granted = {0};
	struct alloc_refusal refusal;
	_clean_grant_ struct alloc_grant g = {0};
	struct phi_error e = {0};
	int r;

	spec.memory = (struct field_array){1, &memory};
	r = alloc_fit(v, &spec, false, &g, &refusal, &e);
	if ((r == 0) != possible(s, &w))
		fail_msg("state %u, wish %u: the allocator says %d (%s)", number_of(s), number, r, e.detail);
	if (r < 0) {
		assert_int_equal(e.code, PHI_NO_RESOURCES);
		check_blockers(s, &refusal);
		return granted;
	}
	assert_int_equal(cpuset_count(&g.cpus), w.set != 0 ? pop(w.set) : w.count);
	for (int c = cpuset_next(&g.cpus, 0); c >= 0; c = cpuset_next(&g.cpus, (unsigned)c + 1)) {
		assert_true(c < CPUS && s->cpu[c] == 0 && (w.set == 0 || w.set >> c & 1));
		granted.cpus |= (uint8_t)(1 << c);
	}
	assert_true(g.n_memory == 1 && g.memory[0].size == w.pages * 4096 && g.memory[0].base >= 0x10000000);
	for (unsigned i = 0; i < w.pages; i++) {
		size_t page = (g.memory[0].base - 0x10000000) / 4096 + i;

		assert_true(page < PAGES && s->page[page] == 0 && (w.at < 0 || page == (size_t)w.at + i));
		granted.pages |= (uint8_t)(1 << page);
	}
	return granted;
}

static struct state take(struct state s, int owner, struct granted g)
{
	for (int i = 0; i < CPUS; i++)
		s.cpu[i] = g.cpus >> i & 1 ? (uint8_t)(owner + 1) : s.cpu[i];
	for (int i = 0; i < PAGES; i++)
		s.page[i] = g.pages >> i & 1 ? (uint8_t)(owner + 1) : s.page[i];
	return s;
}

static struct state give(struct state s, int owner)
{
	for (int i = 0; i < CPUS; i++)
		s.cpu[i] = s.cpu[i] == owner + 1 ? 0 : s.cpu[i];
	for (int i = 0; i < PAGES; i++)
		s.page[i] = s.page[i] == owner + 1 ? 0 : s.page[i];
	return s;
}

static void every_sequence_of_eight_operations(void **state)
{
	static struct granted granted[STATES][WISHES];
	static bool tried[STATES];
	static double ways[DEPTH + 1][STATES]; /* sequences that lead there */
	unsigned states = 0, operations = 0, refused = 0;
	double sequences = 0;
	struct platform p;

	(void)state;
	host_read(board, &p);
	ways[0][0] = 1;
	for (int depth = 0; depth <= DEPTH; depth++)
		for (unsigned n = 0; n < STATES; n++) {
			struct state s = state_of(n);

			if (ways[depth][n] == 0)
				continue;
			if (!tried[n]) {
				struct alloc_view *v = view_of(&p, &s);

				for (unsigned w = 0; w < WISHES; w++) {
					granted[n][w] = ask(v, &s, w);
					refused += granted[n][w].cpus == 0;
				}
				operations += WISHES;
				tried[n] = ++states;
				alloc_view_free(v);
			}
			for (int owner = 0; depth < DEPTH && owner < OWNERS; owner++)
				for (unsigned w = 0; w < (holds(&s, owner) ? 1 : WISHES); w++) {
					struct state after = holds(&s, owner) ? give(s, owner) : take(s, owner, granted[n][w]);

					ways[depth + 1][number_of(&after)] += ways[depth][n];
				}
		}
	for (unsigned n = 0; n < STATES; n++)
		sequences += ways[DEPTH][n];
	print_message("%.3g sequences of %d operations: %u states, %u wishes in them, %u refused\n", sequences, DEPTH, states, operations, refused);
	assert_true(states > 1000 && sequences > 1e15 && refused > 1000 && operations - refused > 1000);
	platform_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_sequence_of_eight_operations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
