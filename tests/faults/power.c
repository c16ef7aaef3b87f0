/* Power loss: a VFS of SQLite writes down all that the store does to its files, and each disk that a loss of power could have left is
 * opened by the store again.
 *
 *   power [--lie] [--seed N] POINTS
 *
 * At a point, what a file was synced with is there. Of what was written since, all, nothing, some writes, or some sectors of some writes
 * are (dropped, reordered and torn writes). Then the store must open it without a word of damage, SQLite must find it whole, and its
 * content must be that after the last durable commit, or after one of those since. --lie: syncs are not
 * believed, as if the store did none; then losses must be found. "N passed, N failed" last. */
#include "clean.h"
#include "error.h"
#include "platform.h"
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COMMITS  400
#define SECTOR   512
#define FILE_MAX   (32u << 20)
#define LIVE     12 /* containers at a time */

/* ---- what was done ---- */

enum file { DB, WAL, N_FILES, OTHER };
static const char *const suffixes[] = {"phid.db", "phid.db-wal"};

struct act {
	enum { WRITE, TRUNCATE, SYNC, DELETE, COMMITTED } kind;
	enum file file;
	size_t at, size; /* COMMITTED: the number of the commit; whether it is durable */
	unsigned char *bytes;
};

static struct act *acts;
static size_t n_acts, room;
static bool recording, lie;

static struct act *note(int kind, enum file file, size_t at, size_t size)
{
	struct act *v;

	if (n_acts == room) {
		room = room > 0 ? room * 2 : 1024;
		acts = realloc(acts, room * sizeof(*acts));
		if (acts == NULL)
			abort();
	}
	v = &acts[n_acts++];
	*v = (struct act){.kind = kind, .file = file, .at = at, .size = size};
	return v;
}

/* ---- the VFS: as the one below it, and writes down ---- */

struct recorded {
	sqlite3_file base;
	enum file which;
	sqlite3_file *real; /* behind this */
};

static sqlite3_vfs vfs, *below;

#define REAL(f) (((struct recorded *)(f))->real)
#define CALL(f, method, ...) (REAL(f)->pMethods->method(REAL(f), ##__VA_ARGS__))

static bool is_recorded(const sqlite3_file *f)
{
	return recording && ((const struct recorded *)f)->which != OTHER;
}

static int on_close(sqlite3_file *f)
{
	return CALL(f, xClose);
}

static int on_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
	return CALL(f, xRead, to, n, at);
}

static int on_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at)
{
	if (is_recorded(f)) {
		struct act *v = note(WRITE, ((struct recorded *)f)->which, (size_t)at, (size_t)n);

		v->bytes = malloc((size_t)n);
		if (v->bytes == NULL || v->at + v->size > FILE_MAX)
			abort();
		memcpy(v->bytes, from, (size_t)n);
	}
	return CALL(f, xWrite, from, n, at);
}

static int on_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	if (is_recorded(f))
		note(TRUNCATE, ((struct recorded *)f)->which, 0, (size_t)size);
	return CALL(f, xTruncate, size);
}

static int on_sync(sqlite3_file *f, int flags)
{
	if (is_recorded(f) && !lie)
		note(SYNC, ((struct recorded *)f)->which, 0, 0);
	return CALL(f, xSync, flags);
}

static int on_size(sqlite3_file *f, sqlite3_int64 *size)
{
	return CALL(f, xFileSize, size);
}

static int on_lock(sqlite3_file *f, int level)
{
	return CALL(f, xLock, level);
}

static int on_unlock(sqlite3_file *f, int level)
{
	return CALL(f, xUnlock, level);
}

static int on_check_lock(sqlite3_file *f, int *is_held)
{
	return CALL(f, xCheckReservedLock, is_held);
}

static int on_control(sqlite3_file *f, int op, void *arg)
{
	return op == SQLITE_FCNTL_SIZE_HINT || op == SQLITE_FCNTL_CHUNK_SIZE ? SQLITE_OK : CALL(f, xFileControl, op, arg);
}

static int on_sector_size(sqlite3_file *f)
{
	return CALL(f, xSectorSize);
}

static int on_characteristics(sqlite3_file *f)
{
	return CALL(f, xDeviceCharacteristics);
}

static int on_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **to)
{
	return CALL(f, xShmMap, page, size, extend, to);
}

static int on_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
	return CALL(f, xShmLock, offset, n, flags);
}

static void on_shm_barrier(sqlite3_file *f)
{
	CALL(f, xShmBarrier);
}

static int on_shm_unmap(sqlite3_file *f, int and_delete)
{
	return CALL(f, xShmUnmap, and_delete);
}

static const sqlite3_io_methods methods = {
	.iVersion = 2, /* no mapped reads */
	.xClose = on_close,
	.xRead = on_read,
	.xWrite = on_write,
	.xTruncate = on_truncate,
	.xSync = on_sync,
	.xFileSize = on_size,
	.xLock = on_lock,
	.xUnlock = on_unlock,
	.xCheckReservedLock = on_check_lock,
	.xFileControl = on_control,
	.xSectorSize = on_sector_size,
	.xDeviceCharacteristics = on_characteristics,
	.xShmMap = on_shm_map,
	.xShmLock = on_shm_lock,
	.xShmBarrier = on_shm_barrier,
	.xShmUnmap = on_shm_unmap,
};

static enum file file_of(const char *path)
{
	const char *name = path != NULL ? strrchr(path, '/') : NULL;

	for (int i = 0; name != NULL && i < N_FILES; i++)
		if (strcmp(name + 1, suffixes[i]) == 0)
			return (enum file)i;
	return OTHER;
}

static int on_open(sqlite3_vfs *v, const char *path, sqlite3_file *f, int flags, int *ret_flags)
{
	struct recorded *r = (struct recorded *)f;
	int rc;

	(void)v;
	*r = (struct recorded){.which = file_of(path), .real = (sqlite3_file *)(r + 1)};
	rc = below->xOpen(below, path, r->real, flags, ret_flags);
	if (r->real->pMethods != NULL)
		r->base.pMethods = &methods;
	return rc;
}

static int on_delete(sqlite3_vfs *v, const char *path, int sync_dir)
{
	(void)v;
	if (recording && file_of(path) != OTHER)
		note(DELETE, file_of(path), 0, 0);
	return below->xDelete(below, path, sync_dir);
}

static void vfs_register(void)
{
	below = sqlite3_vfs_find(NULL);
	vfs = *below;
	vfs.zName = "power";
	vfs.szOsFile = (int)sizeof(struct recorded) + below->szOsFile;
	vfs.xOpen = on_open;
	vfs.xDelete = on_delete;
	if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK)
		abort();
}

/* ---- what the database says ---- */

static void hash(uint64_t *h, const void *bytes, size_t n)
{
	for (const unsigned char *p = bytes; n > 0; n--)
		*h = (*h ^ *p++) * 0x100000001b3; /* FNV-1a */
}

static void hash_table(sqlite3 *db, const char *name, uint64_t *h)
{
	_clean_free_ char *sql = NULL;
	sqlite3_stmt *st;

	if (asprintf(&sql, "SELECT * FROM \"%s\" ORDER BY 1, 2", name) < 0 || sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK)
		abort();
	while (sqlite3_step(st) == SQLITE_ROW)
		for (int i = 0; i < sqlite3_column_count(st); i++) {
			const char *text = (const char *)sqlite3_column_text(st, i);

			hash(h, text ? text : "\1", text ? strlen(text) + 1 : 2);
		}
	sqlite3_finalize(st);
}

/* Of every row of every table; 0 if SQLite does not find the file whole. */
static uint64_t content(const char *dir)
{
	_clean_free_ char *path = NULL;
	uint64_t h = 0xcbf29ce484222325;
	sqlite3_stmt *st;
	bool whole;
	sqlite3 *db;

	if (asprintf(&path, "%s/phid.db", dir) < 0 || sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		abort();
	whole = sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW &&
		strcmp((const char *)sqlite3_column_text(st, 0), "ok") == 0;
	sqlite3_finalize(st);
	whole = whole && sqlite3_prepare_v2(db, "PRAGMA foreign_key_check", -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_DONE;
	sqlite3_finalize(st);
	if (whole && sqlite3_prepare_v2(db, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1", -1, &st, NULL) == SQLITE_OK) {
		while (sqlite3_step(st) == SQLITE_ROW)
			hash_table(db, (const char *)sqlite3_column_text(st, 0), &h);
		sqlite3_finalize(st);
	}
	sqlite3_close(db);
	return whole ? h : 0;
}

/* ---- what is done: containers come and go ---- */

static void must(int r, const struct phi_error *e)
{
	if (r < 0) {
		fprintf(stderr, "power: %s\n", e->detail);
		exit(1);
	}
}

static void commit(struct store *s)
{
	struct pollfd fd = {.fd = store_commit_fd(s), .events = POLLIN};
	struct phi_error e = {0};

	store_commit_start(s);
	if (poll(&fd, 1, -1) < 0)
		abort();
	must(store_commit_result(s, &e), &e);
}

static void pools(struct store *s)
{
	static const char text[] = "{\"format\":\"phid-platform/1\",\"cpus\":{\"ids\":\"0-63\"},\"memory\":["
				   "{\"name\":\"ddr\",\"kind\":\"carveout\",\"base\":\"0x100000\",\"size\":\"64M\"}]}";
	struct platform p = {0};
	struct phi_error e = {0};

	must(platform_read(text, strlen(text), &p, &e), &e);
	must(store_begin(s, true, &e), &e);
	must(store_pools_write(s, &p, &e), &e);
	commit(s);
	platform_free(&p);
}

static void change(struct store *s, int64_t rows[LIVE], unsigned n, bool durable)
{
	char spec[3000]; /* of some pages' size, so that the log goes round */
	struct container c = {.state = STATE_CREATING, .op = VERB_CREATE, .spec = spec, .payload = spec, .annotations = spec, .keeper_by_phid = true};
	_clean_grant_ struct alloc_grant g = {0};
	int64_t *slot = &rows[n % LIVE];
	struct phi_error e = {0};

	snprintf(spec, sizeof(spec), "{\"n\":\"%0*u\"}", 100 + (int)(n * 37 % 2500), n);
	must(store_begin(s, durable, &e), &e);
	if (*slot != 0) {
		must(store_grant_release(s, *slot, &e), &e);
		must(store_container_delete(s, *slot, &e), &e);
	}
	snprintf(c.id, sizeof(c.id), "c%u", n);
	snprintf(c.incarnation, sizeof(c.incarnation), "00000000-0000-4000-8000-%012u", n);
	snprintf(c.backend, sizeof(c.backend), "sim");
	must(store_container_insert(s, &c, &e), &e);
	*slot = c.row;
	cpuset_add(&g.cpus, 1 + n % LIVE);
	*alloc_grant_add_memory(&g) = (struct alloc_memory){.has_base = true, .base = (uint64_t)(1 + n % LIVE) << 20, .size = 1 << 20, .colors = UINT64_MAX};
	snprintf(g.memory[0].pool, sizeof(g.memory[0].pool), "ddr");
	must(store_grant_insert(s, c.row, &g, &e), &e);
	must(store_event_insert(s, "container.created", c.id, c.incarnation, NULL, &e), &e);
	commit(s);
}

/* ---- the disk after a loss ---- */

struct image {
	unsigned char *bytes;
	size_t size;
	bool there;
};

static void image_apply(struct image *m, const struct act *v, size_t from, size_t n)
{
	if (v->kind == DELETE) {
		m->size = 0;
		m->there = false;
		return;
	}
	m->there = true;
	if (v->kind == TRUNCATE) {
		if (v->size > m->size)
			memset(m->bytes + m->size, 0, v->size - m->size);
		m->size = v->size;
		return;
	}
	if (v->at + from > m->size)
		memset(m->bytes + m->size, 0, v->at + from - m->size);
	memcpy(m->bytes + v->at + from, v->bytes + from, n);
	if (v->at + from + n > m->size)
		m->size = v->at + from + n;
}

enum loss { NONE, ALL, WRITES, SECTORS, N_LOSSES };

static bool coin(void)
{
	return random() & 1;
}

static void lose(struct image *m, const struct act *v, enum loss loss)
{
	if (loss == ALL || (loss == WRITES && coin()))
		return;
	if (loss != SECTORS || v->kind != WRITE) {
		if (loss != SECTORS || coin())
			image_apply(m, v, 0, v->size);
		return;
	}
	for (size_t from = 0, n; from < v->size; from += n) {
		n = SECTOR - (v->at + from) % SECTOR;
		if (n > v->size - from)
			n = v->size - from;
		if (coin())
			image_apply(m, v, from, n);
	}
}

static void write_image(const char *dir, enum file file, const struct image *m)
{
	_clean_free_ char *path = NULL;
	_clean_close_ int fd = -1;

	if (asprintf(&path, "%s/%s", dir, suffixes[file]) < 0)
		abort();
	unlink(path);
	if (!m->there)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, m->bytes, m->size) != (ssize_t)m->size)
		abort();
}

static void clear(const char *dir)
{
	_clean_free_ char *command = NULL;

	if (asprintf(&command, "rm -rf '%s' && mkdir -m 700 '%s'", dir, dir) < 0 || system(command) != 0)
		abort();
}

/* NULL: all is well. */
static const char *reopen(const char *dir, const uint64_t hashes[COMMITS + 2], size_t durable, size_t last)
{
	struct phi_error e = {0};
	const char *told;
	struct store *s;
	uint64_t h;

	if (store_open(dir, &s, &told, &e) < 0)
		return "the store does not open";
	store_close(s);
	if (told != NULL && durable != 0)
		return "the store says that it is damaged";
	h = content(dir);
	if (h == 0)
		return "SQLite finds it damaged";
	for (size_t n = durable; n <= last; n++)
		if (h == hashes[n] || n == 0)
			return NULL;
	return "a durable commit is lost, or there is half of one";
}

/* What a power loss leaves of each file: what was synced, and of what came since (from act `since` on) a part. */
static struct disk {
	struct image synced, now;
	size_t since;
} disks[N_FILES];

static void disks_new(void)
{
	for (int f = 0; f < N_FILES; f++) {
		disks[f].synced.bytes = malloc(FILE_MAX);
		disks[f].now.bytes = malloc(FILE_MAX);
		if (disks[f].synced.bytes == NULL || disks[f].now.bytes == NULL)
			abort();
	}
}

static void disks_free(void)
{
	for (int f = 0; f < N_FILES; f++) {
		free(disks[f].synced.bytes);
		free(disks[f].now.bytes);
	}
}

/* Goes on to act `cut`. *last is the last commit before it, *durable the last durable one. */
static void go_on(size_t *next, size_t cut, size_t *last, size_t *durable)
{
	for (; *next < cut; ++*next) {
		const struct act *v = &acts[*next];
		struct disk *d;

		if (v->kind == COMMITTED)
			*last = v->at;
		if (v->kind == COMMITTED && v->size)
			*durable = v->at;
		if (v->kind != SYNC)
			continue;
		d = &disks[v->file];
		for (; d->since < *next; d->since++)
			if (acts[d->since].file == v->file && acts[d->since].kind != SYNC)
				image_apply(&d->synced, &acts[d->since], 0, acts[d->since].size);
	}
}

static void lose_power(const char *dir, size_t cut, enum loss loss)
{
	clear(dir);
	for (int f = 0; f < N_FILES; f++) {
		struct disk *d = &disks[f];

		memcpy(d->now.bytes, d->synced.bytes, d->synced.size);
		d->now.size = d->synced.size;
		d->now.there = d->synced.there;
		for (size_t k = d->since; k < cut; k++)
			if (acts[k].file == (enum file)f && acts[k].kind != SYNC)
				lose(&d->now, &acts[k], loss);
		write_image(dir, (enum file)f, &d->now);
	}
}

/* hashes[n]: the content after commit n - 1; [0]: there is none. */
static void record(const char *dir, uint64_t hashes[COMMITS + 2])
{
	int64_t rows[LIVE] = {0};
	struct phi_error e = {0};
	const char *told;
	struct store *s;

	recording = true;
	must(store_open(dir, &s, &told, &e), &e);
	for (unsigned n = 0; n <= COMMITS; n++) {
		bool durable = n == 0 || coin();

		n > 0 ? change(s, rows, n, durable) : pools(s);
		note(COMMITTED, OTHER, n + 1, durable);
		recording = false; /* its connection is a reader, that writes nothing */
		hashes[n + 1] = content(dir);
		recording = true;
	}
	store_close(s);
	recording = false;
}

static unsigned replay(const char *dir, const uint64_t hashes[COMMITS + 2], unsigned points)
{
	size_t next = 0, last = 0, durable = 0;
	unsigned failed = 0;

	for (unsigned p = 0; p < points; p++) {
		size_t cut = (size_t)((double)n_acts * (p + (double)random() / RAND_MAX) / points);
		enum loss loss = (enum loss)(random() % N_LOSSES);
		const char *wrong;

		go_on(&next, cut, &last, &durable);
		lose_power(dir, cut, loss);
		wrong = reopen(dir, hashes, durable, last <= COMMITS ? last + 1 : last);
		if (wrong != NULL && failed++ < 10)
			printf("%s point %u: after act %zu and commit %zu, %zu durable, loss %d: %s\n", lie ? "seen" : "FAIL", p, cut, last, durable, (int)loss, wrong);
	}
	return failed;
}

int main(int argc, char **argv)
{
	char dir[] = "/tmp/phid-power-XXXXXX";
	uint64_t hashes[COMMITS + 2] = {0};
	unsigned seed = (unsigned)getpid(), wrong, points;
	bool good;
	int i = 1;

	for (; i < argc - 1; i++) {
		lie = lie || strcmp(argv[i], "--lie") == 0;
		if (strcmp(argv[i], "--seed") == 0 && i + 2 < argc)
			seed = (unsigned)atoi(argv[++i]);
	}
	points = i < argc ? (unsigned)atoi(argv[i]) : 0;
	if (points == 0 || mkdtemp(dir) == NULL) {
		fputs("usage: power [--lie] [--seed N] POINTS\n", stderr);
		return 2;
	}
	srandom(seed);
	disks_new();
	vfs_register();
	record(dir, hashes);
	printf("%zu writes, syncs and commits of %d transactions; seed %u\n", n_acts, COMMITS, seed);
	wrong = replay(dir, hashes, points);
	clear(dir);
	rmdir(dir);
	disks_free();
	good = lie == (wrong > 0);
	printf("%s points at which a durable commit is lost, or something torn%s: %u of %u\n", good ? "ok  " : "FAIL",
	       lie ? ", without syncs" : "", wrong, points);
	printf("%d passed, %d failed\n", good, !good);
	return !good;
}
