/* The allocation vector in the database: devices, remote processors, interrupts of virtual PCI buses, links. */
#include "store_sql.h"

#include "clean.h"
#include "platform.h"

#include <errno.h>
#include <string.h>

/* ---- the whole vector ---- */

/* What is granted of a platform that was another stays a grant, and is seen by its row. */
static void mark(struct alloc_unit *u, sqlite3_stmt *st)
{
	snprintf(u->owner, sizeof(u->owner), "%s", sql_text(st, 1));
	u->quarantined = strcmp(sql_text(st, 2), "quarantined") == 0;
}

static int read_devices(struct store *s, enum store_side side, struct alloc_view *v, struct phi_error *e)
{
	const struct platform_device *devices = v->platform->devices.items;
	sqlite3_stmt *st = sql_begin(s, side, e, "SELECT g.name, c.id, g.state FROM device_grants g JOIN containers c USING (row)", "");
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0)
		for (size_t i = 0; i < v->platform->devices.n; i++)
			if (strcmp(devices[i].name, sql_text(st, 0)) == 0)
				mark(&v->devices[i], st);
	sql_end(st);
	return r;
}

static int read_remote(struct store *s, enum store_side side, struct alloc_view *v, struct phi_error *e)
{
	const struct platform_remote *remote = v->platform->remote.items;
	sqlite3_stmt *st = sql_begin(s, side, e, "SELECT g.name, c.id, g.state FROM remote_grants g JOIN containers c USING (row)", "");
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0)
		for (size_t i = 0; i < v->platform->remote.n; i++)
			if (strcmp(remote[i].name, sql_text(st, 0)) == 0)
				mark(&v->remote[i], st);
	sql_end(st);
	return r;
}

static int read_irqs(struct store *s, enum store_side side, struct alloc_view *v, struct phi_error *e)
{
	const struct platform_irq *virtual = v->platform->interrupts.virtual.items;
	sqlite3_stmt *st = sql_begin(s, side, e, "SELECT g.spi, c.id, g.state FROM irq_grants g JOIN containers c USING (row)", "");
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0)
		for (size_t i = 0; i < v->platform->interrupts.virtual.n; i++) {
			int64_t spi = sqlite3_column_int64(st, 0);

			/* Any of the four in common: the platform file may have been another. */
			if (virtual[i].spi < spi + 4 && spi < virtual[i].spi + 4)
				mark(&v->virtual[i], st);
		}
	sql_end(st);
	return r;
}

#define LINK_COLUMNS "l.name, l.slot, l.peers, l.protocol, l.host, l.base, l.size, l.common, l.output, n.id"

static void read_link(sqlite3_stmt *st, struct alloc_link *l)
{
	*l = (struct alloc_link){.slot = sqlite3_column_int64(st, 1),
				 .peers = sqlite3_column_int64(st, 2),
				 .protocol = strcmp(sql_text(st, 3), link_protocols[LINK_NETWORK]) == 0 ? LINK_NETWORK : LINK_RAW,
				 .host = sqlite3_column_int(st, 4) != 0,
				 .base = (uint64_t)sqlite3_column_int64(st, 5),
				 .size = (uint64_t)sqlite3_column_int64(st, 6),
				 .common = (uint64_t)sqlite3_column_int64(st, 7),
				 .output = (uint64_t)sqlite3_column_int64(st, 8),
				 .id = sqlite3_column_int64(st, 9)};
	snprintf(l->name, sizeof(l->name), "%s", sql_text(st, 0));
}

static int read_links(struct store *s, enum store_side side, struct alloc_view *v, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, side, e, "SELECT " LINK_COLUMNS ", c.id, n.state FROM links l JOIN link_ends n ON n.link = l.name "
						 "JOIN containers c USING (row) ORDER BY l.name, n.id", "");
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0) {
		struct alloc_open_link *last = v->n_links > 0 ? &v->links[v->n_links - 1] : NULL;
		struct alloc_end *end;

		if (last == NULL || strcmp(last->link.name, sql_text(st, 0)) != 0) {
			if (v->n_links == PHI_SLOTS)
				break; /* there are no more slots */
			last = &v->links[v->n_links++];
			*last = (struct alloc_open_link){0};
			read_link(st, &last->link);
		}
		if (last->n_ends == PHI_LINK_PEERS_MAX)
			continue;
		end = &last->ends[last->n_ends++];
		end->id = sqlite3_column_int64(st, 9);
		snprintf(end->owner, sizeof(end->owner), "%s", sql_text(st, 10));
		end->quarantined = strcmp(sql_text(st, 11), "quarantined") == 0;
	}
	sql_end(st);
	return r < 0 ? r : 0;
}

int store_units_vector(struct store *s, enum store_side side, struct alloc_view *v, struct phi_error *e)
{
	int r = read_devices(s, side, v, e);

	if (r == 0)
		r = read_remote(s, side, v, e);
	if (r == 0)
		r = read_irqs(s, side, v, e);
	return r < 0 ? r : read_links(s, side, v, e);
}

/* ---- one container's ---- */

static int insert_link(struct store *s, int64_t row, const struct alloc_link *l, size_t place, struct phi_error *e)
{
	int r = 0;

	if (l->alone)
		r = sql_run(s, e, "INSERT INTO links VALUES (?,?,?,?,?,?,?,?,?)", "tiitiiiii", l->name, l->slot, l->peers, link_protocols[l->protocol],
			    (int64_t)l->host, (int64_t)l->base, (int64_t)l->size, (int64_t)l->common, (int64_t)l->output);
	return r < 0 ? r
		     : sql_run(s, e, "INSERT INTO link_ends (link, id, row, place) VALUES (?,?,?,?)", "tiii", l->name, l->id, row, (int64_t)place);
}

int store_units_insert(struct store *s, int64_t row, const struct alloc_grant *g, struct phi_error *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < g->n_devices; i++)
		r = sql_run(s, e, "INSERT INTO device_grants (name, row, place) VALUES (?,?,?)", "tii", g->devices[i], row, (int64_t)i);
	for (size_t i = 0; r == 0 && i < g->n_remote; i++)
		r = sql_run(s, e, "INSERT INTO remote_grants (name, row, place) VALUES (?,?,?)", "tii", g->remote[i], row, (int64_t)i);
	for (size_t i = 0; r == 0 && i < g->n_links; i++)
		r = insert_link(s, row, &g->links[i], i, e);
	if (r == 0 && g->has_virtual)
		r = sql_run(s, e, "INSERT INTO irq_grants (spi, row) VALUES (?,?)", "ii", g->virtual_spi, row);
	return r;
}

static int read_names(sqlite3_stmt *st, void (*add)(struct alloc_grant *g, const char *name), struct alloc_grant *g, const size_t *n, size_t max,
		      struct phi_error *e)
{
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0 && *n < max)
		add(g, sql_text(st, 0));
	sql_end(st);
	return r < 0 ? r : 0;
}

static int read_own_links(struct store *s, enum store_side side, int64_t row, struct alloc_grant *g, struct phi_error *e)
{
	sqlite3_stmt *st = sql_begin(s, side, e, "SELECT " LINK_COLUMNS ", (SELECT count(*) FROM link_ends o WHERE o.link = l.name) "
						 "FROM link_ends n JOIN links l ON n.link = l.name WHERE n.row = ? ORDER BY n.place", "i", row);
	int r;

	if (st == NULL)
		return -EIO;
	while ((r = sql_step(st, e)) > 0 && g->n_links < PHI_LINKS_MAX) {
		struct alloc_link *l = alloc_grant_add_link(g);

		read_link(st, l);
		l->alone = sqlite3_column_int(st, 10) == 1;
	}
	sql_end(st);
	return r < 0 ? r : 0;
}

int store_units_read(struct store *s, enum store_side side, int64_t row, struct alloc_grant *g, struct phi_error *e)
{
	sqlite3_stmt *st;
	int r = read_names(sql_begin(s, side, e, "SELECT name FROM device_grants WHERE row = ? ORDER BY place", "i", row),
			   alloc_grant_add_device, g, &g->n_devices, PHI_DEVICES_MAX, e);

	if (r == 0)
		r = read_names(sql_begin(s, side, e, "SELECT name FROM remote_grants WHERE row = ? ORDER BY place", "i", row),
			       alloc_grant_add_remote, g, &g->n_remote, PHI_REMOTE_MAX, e);
	if (r == 0)
		r = read_own_links(s, side, row, g, e);
	if (r < 0)
		return r;
	st = sql_begin(s, side, e, "SELECT spi FROM irq_grants WHERE row = ?", "i", row);
	if (st == NULL)
		return -EIO;
	r = sql_step(st, e);
	if (r > 0) {
		g->has_virtual = true;
		g->virtual_spi = sqlite3_column_int64(st, 0);
	}
	sql_end(st);
	return r < 0 ? r : 0;
}

int store_units_release(struct store *s, int64_t row, struct phi_error *e)
{
	int r = sql_run(s, e, "DELETE FROM device_grants WHERE row = ?", "i", row);

	if (r == 0)
		r = sql_run(s, e, "DELETE FROM remote_grants WHERE row = ?", "i", row);
	if (r == 0)
		r = sql_run(s, e, "DELETE FROM irq_grants WHERE row = ?", "i", row);
	return r < 0 ? r : sql_run(s, e, "DELETE FROM link_ends WHERE row = ?", "i", row);
}

int store_units_quarantine(struct store *s, int64_t row, struct phi_error *e)
{
	int r = sql_run(s, e, "UPDATE device_grants SET state = 'quarantined' WHERE row = ?", "i", row);

	if (r == 0)
		r = sql_run(s, e, "UPDATE remote_grants SET state = 'quarantined' WHERE row = ?", "i", row);
	if (r == 0)
		r = sql_run(s, e, "UPDATE irq_grants SET state = 'quarantined' WHERE row = ?", "i", row);
	return r < 0 ? r : sql_run(s, e, "UPDATE link_ends SET state = 'quarantined' WHERE row = ?", "i", row);
}
