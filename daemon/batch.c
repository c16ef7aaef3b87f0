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
	int r;
	struct phi_error error;
};

struct batch {
	struct store *store;
	struct mutation *first, **last; /* queued */
	struct mutation *running;	/* in the transaction that is being committed */
	struct loop_source *flush, *committed;
};

static void finish(struct mutation *list, const struct phi_error *failed)
{
	while (list != NULL) {
		struct mutation *m = list;

		list = m->next;
		m->done(m->ud, m->r < 0 ? &m->error : failed);
		free(m);
	}
}

static void run_one(struct batch *b, struct mutation *m)
{
	m->r = store_save(b->store, &m->error);
	if (m->r < 0)
		return;
	m->r = m->apply(b->store, m->ud, &m->error);
	if (m->r < 0)
		store_rollback_to(b->store);
	else
		store_release(b->store);
}

static void on_flush(void *ud)
{
	struct batch *b = ud;
	struct mutation *list = b->first;
	struct phi_error e;
	bool any = false;

	if (b->running != NULL || list == NULL)
		return; /* on_committed arms again */
	b->first = NULL;
	b->last = &b->first;
	if (store_begin(b->store, &e) < 0) {
		finish(list, &e);
		return;
	}
	for (struct mutation *m = list; m != NULL; m = m->next) {
		run_one(b, m);
		any = any || m->r >= 0;
		if (!store_in_transaction(b->store)) { /* an I/O error or a full disk made SQLite take all of it back */
			phi_error_set(&e, PHI_STORAGE, EIO, "", "the database gave up the transaction: %.200s",
				      m->r < 0 ? m->error.detail : "no reason is known");
			finish(list, &e);
			return;
		}
	}
	if (!any) {
		store_rollback(b->store);
		finish(list, NULL);
		return;
	}
	b->running = list;
	store_commit_start(b->store);
}

static void on_committed(void *ud, uint32_t revents)
{
	struct batch *b = ud;
	struct mutation *list = b->running;
	struct phi_error e;
	int r = store_commit_result(b->store, &e);

	(void)revents;
	b->running = NULL;
	finish(list, r < 0 ? &e : NULL);
	if (b->first != NULL)
		loop_arm(b->flush);
}

int batch_new(struct loop *l, struct store *s, struct batch **ret)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (b == NULL)
		abort();
	b->store = s;
	b->last = &b->first;
	b->flush = loop_idle(l, "batch", on_flush, b);
	b->committed = loop_io(l, "committed", store_commit_fd(s), EPOLLIN, on_committed, b);
	*ret = b;
	return 0;
}

void batch_submit(struct batch *b, int (*apply)(struct store *s, void *ud, struct phi_error *e),
		  void (*done)(void *ud, const struct phi_error *e), void *ud)
{
	struct mutation *m = calloc(1, sizeof(*m));

	if (m == NULL)
		abort();
	m->apply = apply;
	m->done = done;
	m->ud = ud;
	*b->last = m;
	b->last = &m->next;
	if (b->running == NULL)
		loop_arm(b->flush);
}
