/* Ids and incarnations. Pure. */
#include "id.h"

#include "error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_lower_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

int id_check(const char *id, const char *pointer, struct phi_error *e)
{
	size_t n = strlen(id), i = 1;

	if (n == 0 || !is_alnum(id[0]))
		goto bad;
	while (i < n && (is_alnum(id[i]) || strchr("_.+-", id[i]) != NULL))
		i++;
	if (i < n && id[i] == '~' && n - i == 9) {
		for (i++; i < n && is_lower_hex(id[i]); i++)
			;
	}
	if (i == n && n <= PHI_ID_MAX)
		return 0;
bad:
	return phi_error_set(e, PHI_INVALID, EINVAL, pointer,
			     "\"%.40s\" is not a container id: 1 to %d of A-Z a-z 0-9 _ . + -, the first a letter or digit",
			     id, PHI_ID_MAX);
}

bool id_is_uuid(const char *s)
{
	for (int i = 0; i < PHI_UUID_LEN; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? s[i] != '-' : !is_lower_hex(s[i]))
			return false;
	}
	return s[PHI_UUID_LEN] == '\0';
}

void id_uuid_format(const uint8_t random[16], char ret[PHI_UUID_LEN + 1])
{
	char *p = ret;

	for (int i = 0; i < 16; i++) {
		uint8_t b = random[i];

		if (i == 6)
			b = (uint8_t)((b & 0x0f) | 0x40);
		if (i == 8)
			b = (uint8_t)((b & 0x3f) | 0x80);
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		p += snprintf(p, 3, "%02x", b);
	}
}

uint64_t id_hash64(const char *s)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
	return h;
}

int id_of_oci(const char *oci_id, const char *root, char *ret, struct phi_error *e)
{
	int n = snprintf(ret, PHI_ID_MAX + 1, "%s~%08x", oci_id, (unsigned)(id_hash64(root) >> 32));

	if (n > PHI_ID_MAX || strchr(oci_id, '~') != NULL)
		return phi_error_set(e, PHI_INVALID, n > PHI_ID_MAX ? ENAMETOOLONG : EINVAL, "/id", "container id \"%.40s...\" is too long or has a ~",
				     oci_id);
	return id_check(ret, "/id", e);
}
