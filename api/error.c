/* The error table and the making of errors. Pure. */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name, *title;
	int http, exit_status;
} codes[PHI_CODE_MAX] = {
#define X(name, wire, http, exit, title) [PHI_##name] = {wire, title, http, exit},
	PHI_ERROR_TABLE(X)
#undef X
};

static int errno_of(enum phi_code c)
{
	switch (c) {
	case PHI_OK:
		return 0;
	case PHI_NOT_FOUND:
	case PHI_GONE:
		return ENOENT;
	case PHI_FORBIDDEN:
		return EACCES;
	case PHI_EXISTS:
		return EEXIST;
	case PHI_BUSY:
		return EBUSY;
	case PHI_NO_RESOURCES:
		return ENOSPC;
	case PHI_DEADLINE:
		return ETIMEDOUT;
	case PHI_UNSUPPORTED:
	case PHI_NOT_BUILT:
		return EOPNOTSUPP;
	default:
		return EINVAL;
	}
}

/* Makes a text fit to be shown and sent: bytes that are not UTF-8 (a client's, or a sequence that was cut) and control
 * characters become '?'. */
static void mend(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p != '\0';) {
		int more = *p >= 0xc2 && *p <= 0xdf ? 1 : *p >= 0xe0 && *p <= 0xef ? 2 : *p >= 0xf0 && *p <= 0xf4 ? 3 : 0;
		bool good = *p < 0x80 ? *p >= 0x20 && *p != 0x7f : more > 0;

		for (int i = 1; i <= more && good; i++)
			good = (p[i] & 0xc0) == 0x80;
		if (good && more == 2) /* overlong forms and surrogates */
			good = !(p[0] == 0xe0 && p[1] < 0xa0) && !(p[0] == 0xed && p[1] > 0x9f);
		if (good && more == 3)
			good = !(p[0] == 0xf0 && p[1] < 0x90) && !(p[0] == 0xf4 && p[1] > 0x8f);
		if (!good)
			*p = '?';
		p += good ? more + 1 : 1;
	}
}

int phi_error_set(struct phi_error *e, enum phi_code code, int err, const char *pointer, const char *format, ...)
{
	if (err == 0)
		err = errno_of(code);
	if (e != NULL) {
		va_list ap;

		e->code = code;
		e->err = err;
		snprintf(e->pointer, sizeof(e->pointer), "%s", pointer ? pointer : "");
		va_start(ap, format);
		vsnprintf(e->detail, sizeof(e->detail), format, ap);
		va_end(ap);
		mend(e->pointer);
		mend(e->detail);
	}
	return -err;
}

void phi_error_wrap(struct phi_error *e, const char *format, ...)
{
	char old[sizeof(e->detail)];
	va_list ap;
	int n;

	if (e == NULL)
		return;
	memcpy(old, e->detail, sizeof(old));
	va_start(ap, format);
	n = vsnprintf(e->detail, sizeof(e->detail), format, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(e->detail))
		snprintf(e->detail + n, sizeof(e->detail) - (size_t)n, ": %s", old);
	mend(e->detail);
}

const char *phi_code_name(enum phi_code c)
{
	return c < PHI_CODE_MAX ? codes[c].name : "internal";
}

const char *phi_code_title(enum phi_code c)
{
	return c < PHI_CODE_MAX ? codes[c].title : codes[PHI_INTERNAL].title;
}

int phi_code_http(enum phi_code c)
{
	return c < PHI_CODE_MAX ? codes[c].http : 500;
}

int phi_code_exit(enum phi_code c)
{
	return c < PHI_CODE_MAX ? codes[c].exit_status : 1;
}

enum phi_code phi_code_from_name(const char *name)
{
	for (int c = 0; c < PHI_CODE_MAX; c++)
		if (name != NULL && strcmp(codes[c].name, name) == 0)
			return (enum phi_code)c;
	return PHI_INTERNAL;
}
