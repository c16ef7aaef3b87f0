/* The daemon's side of the keepers: their socket, their connections, starting those of API containers. */
#pragma once

#include "keeper_proto.h"
#include "phid.h"

struct keeper;

/* Listens on DIR/keeper.sock (or takes a descriptor that systemd gave). */
int keepers_new(struct phid *p, int listen_fd, struct keepers **ret, struct phi_error *e);
/* Begins to accept. Not before the cells' handles are made: a keeper of a container that nobody knows is told to end. */
void keepers_open(struct keepers *k);
void keepers_free(struct keepers *k);
/* How many are connected whose guests' records are lost. */
unsigned keepers_lost(const struct keepers *all);
/* A keeper of that incarnation waits unclaimed: it is the cell's from now on. False if there is none yet. */
bool keeper_claim(struct phid *p, struct cell *c);
/* The keeper of that incarnation said, before phid had the create, that its creator is gone: there is to be no cell. */
bool keeper_undone(struct phid *p, const struct cell *c);
/* One for a container that was made through the API. */
struct keeper_wish {
	const struct config *config;
	int64_t row;
	char incarnation[PHI_UUID_LEN + 1];
};
struct keeper_wish keeper_wish(const struct phid *p, const struct cell *c);
/* Starts it; it connects by itself. Blocks until its program runs or systemd has answered: a worker's, and touches nothing of the daemon's. */
int keeper_start(const struct keeper_wish *w, struct phi_error *e);
int keeper_send(struct keeper *k, void *message, size_t size, uint16_t type, const void *body, size_t n, const int *fds,
		size_t n_fds);
/* The container ended with code (or, GONE, is no more): the keeper may go, and is no longer the cell's. */
void keeper_release(struct cell *c, enum keeper_type type, int code);
/* The container is undone, but its creator will ask again: a keeper that has begun nothing waits for that. */
void keeper_unclaim(struct cell *c);
/* Input for the cell's console, at most KEEPER_INPUT_MAX bytes; attach_taken when it was passed on. -EBUSY until then. */
int keeper_input(struct cell *c, const char *bytes, size_t n);
/* Can it be given any? Keepers of the first protocol cannot. */
int keeper_check_input(const struct cell *c, struct phi_error *e);
/* The pids in a presence lock's file. */
struct keeper_holders {
	pid_t keeper, cell;
	uint64_t keeper_start, cell_start;
};
bool keeper_holders_read(const struct phid *p, int64_t row, struct keeper_holders *ret);
