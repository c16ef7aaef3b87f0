/* What a cell boots: from the images and the wish to pieces of memory, the address where it begins, and where its first memory is. */
#pragma once

#include "backend.h"
#include "cell.h"
#include "driver.h"
#include "platform.h"

#define JH_PIECES_MAX 24

struct jh_payload {
	uint64_t ram;	/* where the first memory of the grant is in the cell */
	uint64_t entry; /* of the first CPU */
	struct jh_image pieces[JH_PIECES_MAX];
	uint32_t n;
	/* owned: mappings of the images, and what was made */
	struct {
		void *at;
		size_t size;
	} maps[CELL_IMAGES_MAX];
	size_t n_maps;
	void *tree;
	char *arguments;
	uint8_t boot[64];
};

/* Maps the images and reads their headers: they are sealed memory, so nothing blocks. jh_payload_done frees it whatever the answer. */
int jh_payload_plan(struct jh_payload *ret, const struct cell *c, const struct platform *p, const struct jh_system *system, struct phi_error *e);
void jh_payload_done(struct jh_payload *l);
/* Pure: can such a payload be at all? */
int jh_payload_validate(const struct spec *s, const struct platform *p, struct phi_error *e);
