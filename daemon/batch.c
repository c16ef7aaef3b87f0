/* Group commit. See batch.h. */
#include "batch.h"

#include "error.h"
#include "loop.h"
#include "store.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>

struct mutation {
	struct mutation *next;
	int (*apply)(struct store *s, void *ud, struct phi_error *e);
	void (*done)(void *ud, const struct phi_error *e);
	void *ud;
	bool durable;
	int r;
	struct phi_error error;
};

struct batch {
	struct store *store;
	struct mutation *first, **last; /* queued */
	struct mutation *running, *next; /* in the transaction, or to be told; the next of them to be applied */
	enum {
		BATCH_IDLE,
		BATCH_APPLY,
		BATCH_COMMIT,
		BATCH_TELL,
	} phase;
	bool any;    /* something is to be committed */
	bool failed; /* all of it, because of: */
	struct phi_error error;
	struct loop_source *turn, *committed;
};

static void queue(struct batch *b, struct mutation *m)
{
	m->next = NULL;
	*b->last = m;
	b->last = &m->next;
}

static void tell(struct batch *b, int r)
{
	b->phase = BATCH_TELL;
	b->failed = r < 0;
	loop_arm(b->turn);
}

static void run_one(struct batch *b, struct mutation *m)
{
	m->r = store_save(b->store, &m->error);
	if (m->r < 0)
		return;
	m->r = m->apply(b->store, m->ud, &m->error);
	if (m->r != 0)
		store_rollback_to(b->store);
	else
		store_release(b->store);
	b->any = b->any || m->r == 0;
}

static void begin(struct batch *b)
{
	bool durable = false;
	int r;

	for (const struct mutation *m = b->first; m != NULL; m = m->next)
		durable = durable || m->durable;
	r = store_begin(b->store, durable, &b->error);
	b->running = b->next = b->first;
	b->first = NULL;
	b->last = &b->first;
	b->any = false;
	b->phase = BATCH_APPLY;
	if (r < 0)
		tell(b, r);
}

static void apply_next(struct batch *b)
{
	struct mutation *m = b->next;

	run_one(b, m);
	b->next = m->next;
	if (!store_in_transaction(b->store)) { /* an I/O error or a full disk made SQLite take all of it back */
		tell(b, phi_error_set(&b->error, PHI_STORAGE, EIO, "", "the database gave up the transaction: %.200s",
				      m->r < 0 ? m->error.detail : "no reason is known"));
	} else if (b->next != NULL) {
		loop_arm(b->turn);
	} else if (b->any) {
		b->phase = BATCH_COMMIT;
		store_commit_start(b->store);
	} else {
		store_rollback(b->store);
		tell(b, 0);
	}
}

static void tell_next(struct batch *b)
{
	struct mutation *m = b->running;

	b->running = m->next;
	if (b->running == NULL)
		b->phase = BATCH_IDLE;
	if (m->r == BATCH_DURABLE && !b->failed) {
		m->durable = true;
		queue(b, m);
		loop_arm(b->turn);
		return;
	}
	if (b->running != NULL || b->first != NULL)
		loop_arm(b->turn);
	m->done(m->ud, m->r < 0 ? &m->error : b->failed ? &b->error : NULL);
	free(m);
}

/* One mutation in a turn of the loop: however many wait, others are served in between. */
static void on_turn(void *ud)
{
	struct batch *b = ud;

	if (b->phase == BATCH_IDLE && b->first != NULL)
		begin(b);
	if (b->phase == BATCH_APPLY)
		apply_next(b);
	else if (b->phase == BATCH_TELL)
		tell_next(b);
}

static void on_committed(void *ud, uint32_t revents)
{
	struct batch *b = ud;

	(void)revents;
	tell(b, store_commit_result(b->store, &b->error));
}

int batch_new(struct loop *l, struct store *s, struct batch **ret)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (b == NULL)
		abort();
	b->store = s;
	b->last = &b->first;
	b->turn = loop_soon(l, "batch", on_turn, b);
	b->committed = loop_io(l, "committed", store_commit_fd(s), EPOLLIN, on_committed, b);
	*ret = b;
	return 0;
}

static void submit(struct batch *b, bool durable, int (*apply)(struct store *s, void *ud, struct phi_error *e),
		   void (*done)(void *ud, const struct phi_error *e), void *ud)
{
	struct mutation *m = calloc(1, sizeof(*m));

	if (m == NULL)
		abort();
	m->apply = apply;
	m->done = done;
	m->ud = ud;
	m->durable = durable;
	queue(b, m);
	if (b->phase == BATCH_IDLE)
		loop_arm(b->turn);
}

void batch_submit(struct batch *b, int (*apply)(struct store *s, void *ud, struct phi_error *e),
		  void (*done)(void *ud, const struct phi_error *e), void *ud)
{
	submit(b, true, apply, done, ud);
}

void batch_intend(struct batch *b, int (*apply)(struct store *s, void *ud, struct phi_error *e),
		  void (*done)(void *ud, const struct phi_error *e), void *ud)
{
	submit(b, false, apply, done, ud);
}
