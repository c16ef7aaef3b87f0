/* From a request to a spec and opened images: the bundle is read through the caller's own root, and nothing in an image
 * can lead out of it (openat2). Everything here blocks and runs on a worker. */
#pragma once

#include "backend.h"
#include "error.h"
#include "spec.h"

struct bundle {
	/* in */
	pid_t peer;
	char *path;	   /* of the bundle, or NULL */
	struct json *spec_json; /* of the request, or NULL; read here only */
	/* out */
	struct spec spec;
	bool has_spec;
	char *annotations; /* JSON object text */
	struct cell_image images[CELL_IMAGES_MAX];
	size_t n_images;
	struct phi_error error; /* code PHI_OK if it is good */
};

void bundle_load(struct bundle *b);
void bundle_done(struct bundle *b);
/* [{role, path, sha256, size}] */
char *bundle_payload_json(const struct bundle *b);
