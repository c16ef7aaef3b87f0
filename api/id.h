/* Names on the wire: container ids and incarnations. Pure. */
#pragma once

#include "limits.h"

#include <stdbool.h>
#include <stdint.h>

struct phi_error;

/* [A-Za-z0-9][A-Za-z0-9_.+-]{0,127}, with an optional "~" and 8 lower-case hex digits that mark the id of an
 * OCI container under one --root (DESIGN §6). */
int id_check(const char *id, const char *pointer, struct phi_error *e);
bool id_is_uuid(const char *s);
/* Writes the text of a random UUID (RFC 9562 version 4) made of 16 random bytes. */
void id_uuid_format(const uint8_t random[16], char ret[PHI_UUID_LEN + 1]);
/* "<oci id>~<8 hex of root>"; ret needs PHI_ID_MAX + 1 bytes. -ENAMETOOLONG if it does not fit. */
int id_of_oci(const char *oci_id, const char *root, char *ret, struct phi_error *e);
/* FNV-1a, 64 bit: where a short stable name of a path is needed, never for security. */
uint64_t id_hash64(const char *s);
