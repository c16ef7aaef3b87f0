/* A database in a directory of its own, for the tests of the store. */
#pragma once

#include "unit.h"

#include "platform.h"
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sqlite3.h>
#include <sys/stat.h>

struct box {
	char dir[64];
	struct store *s;
};

static inline int setup(void **state)
{
	struct box *b = calloc(1, sizeof(*b));

	if (b == NULL)
		return -1;
	snprintf(b->dir, sizeof(b->dir), "/tmp/phid-unit-store-XXXXXX");
	if (mkdtemp(b->dir) == NULL)
		return -1;
	*state = b;
	return 0;
}

static inline void empty(const struct box *b)
{
	_clean_closedir_ DIR *d = opendir(b->dir);

	for (struct dirent *f; d != NULL && (f = readdir(d)) != NULL;)
		if (f->d_name[0] != '.')
			unlinkat(dirfd(d), f->d_name, 0);
}

static inline int teardown(void **state)
{
	struct box *b = *state;

	store_close(b->s);
	empty(b);
	rmdir(b->dir);
	free(b);
	return 0;
}

/* Opens the store of the box (closing it before, if it is open), and answers its note. */
static const char *reopen(struct box *b)
{
	const char *note;
	struct phi_error e;

	store_close(PHI_TAKE(b->s));
	assert_done(store_open(b->dir, &b->s, &note, &e), e);
	return note;
}

static inline void begin(struct box *b)
{
	struct phi_error e;

	assert_done(store_begin(b->s, true, &e), e);
}

static inline void commit(struct box *b)
{
	struct pollfd p = {store_commit_fd(b->s), POLLIN, 0};
	struct phi_error e;

	store_commit_start(b->s);
	assert_int_equal(poll(&p, 1, 30000), 1);
	assert_done(store_commit_result(b->s, &e), e);
	assert_int_equal(poll(&p, 1, 0), 0); /* once for each commit */
}

static inline unsigned files_like(const struct box *b, const char *part)
{
	_clean_closedir_ DIR *d = opendir(b->dir);
	unsigned n = 0;

	assert_non_null(d);
	for (struct dirent *f; (f = readdir(d)) != NULL;)
		n += strstr(f->d_name, part) != NULL && strstr(f->d_name, "-wal") == NULL && strstr(f->d_name, "-shm") == NULL;
	return n;
}

static inline void with_sql(const struct box *b, const char *sql)
{
	char path[100];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/phid.db", b->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	sqlite3_close(db);
}

/* One of the first schema, with a pool that tells it, where there is none. */
static inline void make_older(const struct box *b)
{
	extern const char schema_001[], schema_001_end[];
	_clean_free_ char *sql = strndup(schema_001, (size_t)(schema_001_end - schema_001));

	assert_non_null(sql);
	with_sql(b, sql);
	with_sql(b, "PRAGMA user_version = 1; PRAGMA application_id = 1885890916; INSERT INTO pools VALUES ('old', 4096, 4096)");
}

static inline struct container draft(const char *id)
{
	struct container c = {.state = STATE_CREATING, .op = VERB_CREATE, .op_uid = 1000, .owner_uid = 1000, .owner_gid = 100};
	static unsigned serial;

	snprintf(c.id, sizeof(c.id), "%s", id);
	snprintf(c.incarnation, sizeof(c.incarnation), "%08x-0000-4000-8000-000000000000", ++serial);
	snprintf(c.backend, sizeof(c.backend), "sim");
	snprintf(c.boot_id, sizeof(c.boot_id), "11111111-1111-4111-8111-111111111111");
	c.spec = strdup("{}");
	c.payload = strdup("[]");
	c.annotations = strdup("{\"a\":\"b\"}");
	return c;
}

/* Inserts a container in the batch under way; answers its row. */
static inline int64_t insert(struct box *b, const char *id)
{
	_clean_container_ struct container c = draft(id);
	struct phi_error e;

	assert_done(store_container_insert(b->s, &c, &e), e);
	assert_true(c.row > 0);
	return c.row;
}

static inline struct alloc_grant grant_of(uint64_t cpus, const char *pool, uint64_t base, uint64_t size, uint64_t colors)
{
	struct alloc_grant g = {.cpus = {.bits = {cpus}}};
	struct alloc_memory *m;

	if (size == 0)
		return g;
	m = alloc_grant_add_memory(&g);
	*m = (struct alloc_memory){.has_base = base != 0, .base = base, .size = size, .colors = colors};
	snprintf(m->pool, sizeof(m->pool), "%s", pool);
	return g;
}

static inline void pools(struct box *b)
{
	static const char text[] = "{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-63\"},\"memory\":["
				   "{\"name\":\"ram\",\"kind\":\"carveout\",\"base\":\"0x10000\",\"size\":\"1M\"},"
				   "{\"name\":\"ddr\",\"kind\":\"host\",\"size\":\"64K\"}]}";
	struct platform p = {0};
	struct phi_error e;

	assert_done(platform_read(text, strlen(text), &p, &e), e);
	assert_done(store_pools_write(b->s, &p, &e), e);
	assert_done(store_pools_write(b->s, &p, &e), e); /* rewritten, not doubled */
	platform_free(&p);
}

/* Takes the grant over. */
static inline int grant(struct box *b, int64_t row, struct alloc_grant g, struct phi_error *e)
{
	int r = store_grant_insert(b->s, row, &g, e);

	alloc_grant_done(&g);
	return r;
}

#define store_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
