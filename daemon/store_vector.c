/* The allocation vector in the database: pools, grants, what hypervisors show. */
#include "store_sql.h"

#include "clean.h"
#include "platform.h"

#include <errno.h>
#include <string.h>

/* SQLite integers are signed: a mask is stored bit for bit. */
static int64_t mask_to_sql(uint64_t mask)
{
	int64_t v;

	memcpy(&v, &mask, sizeof(v));
	return v;
}

static uint64_t mask_from_sql(int64_t v)
{
	uint64_t mask;

	memcpy(&mask, &v, sizeof(mask));
	return mask;
}

int store_pools_write(struct store *s, const struct platform *p, struct phi_error *e)
{
	const struct platform_pool *pools = p->memory.items;
	int r = sql_run(s, e, "DELETE FROM pools", "");

	for (size_t i = 0; r == 0 && i < p->memory.n; i++)
		r = pools[i].has_base ? sql_run(s, e, "INSERT INTO pools VALUES (?,?,?)", "tii", pools[i].name,
						(int64_t)pools[i].base, (int64_t)pools[i].size)
				      : sql_run(s, e, "INSERT INTO pools VALUES (?,NULL,?)", "ti", pools[i].name,
						(int64_t)pools[i].size);
	return r;
}

int64_t store_generation(struct store *s, enum store_side side)
{
	return sql_int(s, side, "SELECT value FROM meta WHERE name = 'generation'");
}

static int read_cpus(struct store *s, enum store_side side, struct alloc_view *v, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, side, e,
				     "SELECT g.cpu, c.id, g.state FROM cpu_grants g JOIN containers c USING (row)", "");
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0) {
		int64_t cpu = sqlite3_column_int64(st, 0);

		if (cpu >= PHI_CPUS_MAX)
			continue;
		snprintf(v->cpus[cpu].owner, sizeof(v->cpus[cpu].owner), "%s", sql_text(st, 1));
		v->cpus[cpu].quarantined = strcmp(sql_text(st, 2), "quarantined") == 0;
	}
	sql_end(st);
	return r;
}

static int read_ranges(struct store *s, enum store_side side, struct alloc_view *v, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, side, e,
				     "SELECT g.pool, g.base, g.size, g.colors, c.id, g.state FROM memory_grants g "
				     "JOIN containers c USING (row) ORDER BY g.base, g.number",
				     "");
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0) {
		struct alloc_range a = {
			.has_base = sqlite3_column_type(st, 1) != SQLITE_NULL,
			.base = (uint64_t)sqlite3_column_int64(st, 1),
			.size = (uint64_t)sqlite3_column_int64(st, 2),
			.colors = mask_from_sql(sqlite3_column_int64(st, 3)),
			.quarantined = strcmp(sql_text(st, 5), "quarantined") == 0,
		};

		snprintf(a.pool, sizeof(a.pool), "%s", sql_text(st, 0));
		snprintf(a.owner, sizeof(a.owner), "%s", sql_text(st, 4));
		alloc_view_add(v, &a);
	}
	sql_end(st);
	return r;
}

/* What memory a cell has that phid placed and of which the record is lost, nobody knows: none with an address is granted. */
static void hold_pools(struct alloc_view *v, const char *owner)
{
	const struct platform_pool *pools = v->platform->memory.items;

	for (size_t i = 0; i < v->platform->memory.n; i++) {
		struct alloc_range r = {.has_base = true, .quarantined = true, .base = pools[i].base, .size = pools[i].size, .colors = UINT64_MAX};

		if (!pools[i].has_base)
			continue;
		snprintf(r.pool, sizeof(r.pool), "%s", pools[i].name);
		snprintf(r.owner, sizeof(r.owner), "%s", owner);
		alloc_view_add(v, &r);
	}
}

/* CPUs of cells that no record explains block new grants of them. */
static int read_observed(struct store *s, enum store_side side, struct alloc_view *v, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, side, e, "SELECT backend, name, cpus, placed FROM observed_cells", "");
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0) {
		char owner[PHI_ID_MAX + 1];
		struct cpuset cpus;

		snprintf(owner, sizeof(owner), "%s:%s", sql_text(st, 0), sql_text(st, 1));
		if (sqlite3_column_int(st, 3) != 0)
			hold_pools(v, owner);
		if (cpuset_parse(sql_text(st, 2), "", &cpus, NULL) < 0)
			continue;
		for (int c = cpuset_next(&cpus, 0); c >= 0; c = cpuset_next(&cpus, (unsigned)c + 1)) {
			v->cpus[c].observed = true;
			if (v->cpus[c].owner[0] == '\0')
				snprintf(v->cpus[c].owner, sizeof(v->cpus[c].owner), "%s", owner);
		}
	}
	sql_end(st);
	return r;
}

int store_vector_read(struct store *s, enum store_side side, struct alloc_view *v, struct phi_error *e)
{
	/* As long as this statement is not reset, all others of the connection read what it does: one moment. */
	sqlite3_stmt *st = sql_begin(s, side, e, "SELECT value FROM meta WHERE name = 'generation'", "");
	int r;

	if (st == NULL)
		return -EIO;
	r = sql_step(st, e);
	if (r > 0) {
		v->generation = sqlite3_column_int64(st, 0);
		r = read_cpus(s, side, v, e);
	}
	if (r == 0)
		r = read_ranges(s, side, v, e);
	if (r == 0)
		r = store_units_vector(s, side, v, e);
	if (r == 0)
		r = read_observed(s, side, v, e);
	sql_end(st);
	return r;
}

int store_grant_insert(struct store *s, int64_t row, const struct alloc_grant *g, struct phi_error *e)
{
	int r = 0;

	for (int c = cpuset_next(&g->cpus, 0); r == 0 && c >= 0; c = cpuset_next(&g->cpus, (unsigned)c + 1))
		r = sql_run(s, e, "INSERT INTO cpu_grants (cpu, row) VALUES (?,?)", "ii", (int64_t)c, row);
	for (size_t i = 0; r == 0 && i < g->n_memory; i++) {
		const struct alloc_memory *m = &g->memory[i];

		r = m->has_base ? sql_run(s, e, "INSERT INTO memory_grants (row, pool, base, size, colors) VALUES (?,?,?,?,?)",
					  "itiii", row, m->pool, (int64_t)m->base, (int64_t)m->size, mask_to_sql(m->colors))
				: sql_run(s, e, "INSERT INTO memory_grants (row, pool, size) VALUES (?,?,?)", "iti", row,
					  m->pool, (int64_t)m->size);
	}
	if (r == 0)
		r = store_units_insert(s, row, g, e);
	store_kept_change(s, row, g);
	return r;
}

int store_grant_read(struct store *s, enum store_side side, int64_t row, struct alloc_grant *g, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, side, e, "SELECT cpu FROM cpu_grants WHERE row = ?", "i", row);
	int r;

	alloc_grant_done(g);
	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0)
		cpuset_add(&g->cpus, (unsigned)sqlite3_column_int(st, 0));
	sql_end(st);
	if (r < 0)
		return r;
	st = sql_begin(s, side, e, "SELECT pool, base, size, colors FROM memory_grants WHERE row = ? ORDER BY number", "i", row);
	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0 && g->n_memory < PHI_MEMORY_REGIONS_MAX) {
		struct alloc_memory *m = alloc_grant_add_memory(g);

		m->has_base = sqlite3_column_type(st, 1) != SQLITE_NULL;
		m->base = (uint64_t)sqlite3_column_int64(st, 1);
		m->size = (uint64_t)sqlite3_column_int64(st, 2);
		m->colors = mask_from_sql(sqlite3_column_int64(st, 3));
		snprintf(m->pool, sizeof(m->pool), "%s", sql_text(st, 0));
	}
	sql_end(st);
	if (r < 0)
		return r;
	return store_units_read(s, side, row, g, e);
}

int store_grant_release(struct store *s, int64_t row, struct phi_error *e)
{
	int r = sql_run(s, e, "DELETE FROM cpu_grants WHERE row = ?", "i", row);

	if (r == 0)
		r = sql_run(s, e, "DELETE FROM memory_grants WHERE row = ?", "i", row);
	if (r == 0)
		r = store_units_release(s, row, e);
	store_kept_change(s, row, NULL);
	return r;
}

int store_grant_quarantine(struct store *s, int64_t row, struct phi_error *e)
{
	int r;

	store_kept_drop(s);
	r = sql_run(s, e, "UPDATE cpu_grants SET state = 'quarantined' WHERE row = ?", "i", row);

	if (r == 0)
		r = sql_run(s, e, "UPDATE memory_grants SET state = 'quarantined' WHERE row = ?", "i", row);
	return r < 0 ? r : store_units_quarantine(s, row, e);
}

int64_t store_grant_quarantined(struct store *s, int64_t row)
{
	static const char sql[] = "SELECT sum(n) FROM (SELECT count(*) AS n FROM cpu_grants WHERE row = ?1 AND state = 'quarantined' UNION ALL "
				  "SELECT count(*) FROM memory_grants WHERE row = ?1 AND state = 'quarantined' UNION ALL "
				  "SELECT count(*) FROM device_grants WHERE row = ?1 AND state = 'quarantined' UNION ALL "
				  "SELECT count(*) FROM remote_grants WHERE row = ?1 AND state = 'quarantined' UNION ALL "
				  "SELECT count(*) FROM link_ends WHERE row = ?1 AND state = 'quarantined')";
	sqlite3_stmt *st = sql_begin(s, STORE_WRITE, NULL, sql, "i", row);
	int64_t n = st != NULL && sql_step(st, NULL) > 0 ? sqlite3_column_int64(st, 0) : 0;

	if (st != NULL)
		sql_end(st);
	return n;
}

int store_quarantined(struct store *s, enum store_side side, void (*each)(void *ud, const char *id), void *ud, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, side, e, "SELECT DISTINCT c.id FROM memory_grants g JOIN containers c USING (row) WHERE g.state = 'quarantined' "
						 "ORDER BY c.id", "");
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0)
		each(ud, sql_text(st, 0));
	sql_end(st);
	return r;
}

int store_rows_beyond(struct store *s, int64_t n, struct phi_error *e)
{
	int r = sql_run(s, e, "INSERT INTO sqlite_sequence (name, seq) SELECT 'containers', 0 WHERE NOT EXISTS "
			      "(SELECT 1 FROM sqlite_sequence WHERE name = 'containers')", "");

	return r < 0 ? r : sql_run(s, e, "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'containers'", "i", n);
}

#define UNSEEN 4096 /* more than may be open at a time, each with a row and an event */

/* 60 bits of it, as meta has numbers. */
static int64_t boot_number(const char *id)
{
	int64_t n = 0;

	for (int digits = 0; *id != '\0' && digits < 15; id++)
		if (*id != '-') {
			n = n << 4 | (*id <= '9' ? *id - '0' : *id - 'a' + 10);
			digits++;
		}
	return n;
}

int store_boot(struct store *s, const char *boot_id, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, STORE_WRITE, e, "SELECT value FROM meta WHERE name = 'boot'", "");
	int r = st != NULL ? sql_step(st, e) : -EIO;
	int64_t last = r > 0 ? sqlite3_column_int64(st, 0) : 0, boot = boot_number(boot_id);

	if (st != NULL)
		sql_end(st);
	if (r < 0 || last == boot)
		return r < 0 ? r : 0;
	if (last != 0) {
		r = sql_run(s, e, "UPDATE sqlite_sequence SET seq = seq + ?", "i", (int64_t)UNSEEN);
		if (r == 0)
			r = sql_run(s, e, "UPDATE meta SET value = value + ? WHERE name = 'generation'", "i", (int64_t)UNSEEN);
		if (r < 0)
			return r;
	}
	return sql_run(s, e, "INSERT OR REPLACE INTO meta (name, value) VALUES ('boot', ?)", "i", boot);
}

int store_observed(struct store *s, enum store_side side, const char *backend, void (*each)(void *ud, const char *name, const char *tag), void *ud)
{
	sqlite3_stmt *st = sql_begin(s, side, NULL, "SELECT name, tag FROM observed_cells WHERE backend = ? ORDER BY name", "t", backend);
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, NULL)) > 0)
		each(ud, sql_text(st, 0), sql_text(st, 1));
	sql_end(st);
	return r;
}

int store_observed_remove(struct store *s, const char *backend, const char *name, struct phi_error *e)
{
	store_kept_drop(s);
	return sql_run(s, e, "DELETE FROM observed_cells WHERE backend = ? AND name = ?", "tt", backend, name);
}

int store_observed_clear(struct store *s, const char *backend, struct phi_error *e)
{
	store_kept_drop(s);
	return sql_run(s, e, "DELETE FROM observed_cells WHERE backend = ?", "t", backend);
}

int store_observed_insert(struct store *s, const char *backend, const char *name, const char *tag, const char *cpus,
			  bool placed, struct phi_error *e)
{
	store_kept_drop(s);
	return sql_run(s, e, "INSERT OR REPLACE INTO observed_cells VALUES (?,?,?,?,?)", "tttti", backend, name, tag, cpus, (int64_t)placed);
}
