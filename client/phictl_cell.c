/* phictl cell: Jailhouse's configuration files shown, checked and written, without phid and without a compiler. */
#include "phictl.h"

#include "clean.h"
#include "iomem.h"
#include "jailhouse/cell.h"
#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define CELLS_MAX 64

int read_file(const char *path, size_t max, char **ret, size_t *ret_n, struct phi_error *e)
{
	_clean_fclose_ FILE *f = fopen(path, "re");
	_clean_free_ char *text = malloc(max + 1);

	if (text == NULL)
		abort();
	if (f == NULL)
		return phi_error_set(e, PHI_INVALID, errno, "", "%s: %s", path, strerror(errno));
	*ret_n = fread(text, 1, max + 1, f);
	if (ferror(f))
		return phi_error_set(e, PHI_INVALID, EIO, "", "%s cannot be read", path);
	if (*ret_n > max)
		return phi_error_set(e, PHI_INVALID, EFBIG, "", "%s has more than %zu bytes", path, max);
	*ret = PHI_TAKE(text);
	return 0;
}

static int flavour_of(const char *word, struct phi_error *e)
{
	for (int f = 0; f < JH_FLAVOURS; f++)
		if (strcmp(word, jh_flavours[f]) == 0)
			return f;
	return phi_error_set(e, PHI_INVALID, EINVAL, "--flavour", "\"%.40s\" is none of upstream-14, runphi-13, omnivisor-14", word);
}

static int read_cell(const char *path, const char *flavour, struct jh_cell *c, struct phi_error *e)
{
	_clean_free_ char *bytes = NULL;
	size_t n;
	int r = read_file(path, JH_FILE_MAX, &bytes, &n, e), f;

	if (r < 0)
		return r;
	f = flavour != NULL ? flavour_of(flavour, e) : jh_cell_guess(bytes, n, e);
	if (f >= 0)
		r = jh_cell_read(bytes, n, (enum jh_flavour)f, c, e);
	if (f < 0 || r < 0)
		phi_error_wrap(e, "%s", path);
	return f < 0 ? f : r;
}

static int show(const char *path, const struct cell_options *o, struct phi_error *e)
{
	struct jh_cell c = {0};
	int r = read_cell(path, o->flavour, &c, e);

	if (r == 0) {
		_clean_json_ struct json *j = o->json ? jh_cell_to_json(&c) : NULL;
		_clean_free_ char *text = o->json ? json_print(j) : jh_cell_to_text(&c);

		printf("%s%s", text, o->json ? "\n" : "");
	}
	jh_cell_free(&c);
	return r;
}

/* ---- check ---- */

/* The top level's "System RAM". */
static int read_iomem(const char *path, struct jh_memory **ret, size_t *ret_n, struct phi_error *e)
{
	_clean_free_ char *text = NULL;
	struct iomem map;
	size_t n;
	int r = read_file(path, 1u << 20, &text, &n, e);

	if (r < 0)
		return r;
	text[n] = '\0'; /* there is room for one byte more */
	r = iomem_parse(text, &map, e);
	if (r < 0) {
		phi_error_wrap(e, "%s", path);
		return r;
	}
	*ret = calloc(map.n + 1, sizeof(**ret));
	if (*ret == NULL)
		abort();
	for (size_t i = 0; i < map.n; i++)
		if (map.ranges[i].depth == 0 && strcmp(map.ranges[i].name, "System RAM") == 0)
			(*ret)[(*ret_n)++] = (struct jh_memory){.phys = map.ranges[i].base, .size = map.ranges[i].end - map.ranges[i].base + 1};
	iomem_free(&map);
	return 0;
}

struct printing {
	char **paths;
	bool json;
};

static void found(void *ud, const struct jh_finding *f)
{
	const struct printing *p = ud;
	_clean_json_ struct json *j = json_object();
	_clean_free_ char *text = NULL;

	if (!p->json) {
		printf("%s: %s: %s (%s)\n", p->paths[f->cell], f->code, f->detail, f->pointer);
		return;
	}
	json_add_string(j, "file", p->paths[f->cell]);
	json_add_string(j, "code", f->code);
	json_add_string(j, "pointer", f->pointer);
	json_add_string(j, "detail", f->detail);
	json_add_string(j, "other", f->other >= 0 ? p->paths[f->other] : NULL);
	text = json_print(j);
	puts(text);
}

static int read_system(const struct cell_options *o, int flavour, struct jh_system *s, struct phi_error *e)
{
	_clean_free_ char *bytes = NULL;
	size_t n;
	int r = read_file(o->root, JH_FILE_MAX, &bytes, &n, e);

	if (r == 0)
		r = jh_system_read(bytes, n, (enum jh_flavour)flavour, s, e);
	if (r < 0)
		phi_error_wrap(e, "%s", o->root);
	return r;
}

/* 0 without a finding, PHI_INVALID's exit status with one. */
static int check(char **paths, const struct cell_options *o, struct phi_error *e)
{
	static struct jh_cell cells[CELLS_MAX];
	_clean_free_ struct jh_memory *ram = NULL;
	struct jh_system system = {0};
	struct printing printing = {paths, o->json};
	struct jh_check k = {.cells = cells, .w_xor_x = o->w_xor_x, .found = found, .ud = &printing};
	size_t n = 0;
	int r = 0;

	for (; r == 0 && paths[n] != NULL; n++) {
		if (n == CELLS_MAX)
			return phi_error_set(e, PHI_INVALID, E2BIG, "", "at most %d cells can be checked at once", CELLS_MAX);
		r = read_cell(paths[n], o->flavour, &cells[n], e);
	}
	k.n = n;
	if (r == 0 && o->root != NULL)
		r = read_system(o, cells[0].flavour, &system, e);
	if (r == 0 && o->root != NULL)
		k.system = &system;
	if (r == 0 && o->iomem != NULL)
		r = read_iomem(o->iomem, &ram, &k.n_linux_ram, e);
	k.linux_ram = ram;
	if (r == 0 && jh_check(&k) > 0)
		r = phi_code_exit(PHI_INVALID);
	for (size_t i = 0; i < n; i++)
		jh_cell_free(&cells[i]);
	jh_system_free(&system);
	return r;
}

/* ---- write ---- */

static int write_cell(const char *spec, const char *path, struct phi_error *e)
{
	_clean_json_ struct json *j = NULL;
	_clean_free_ char *text = NULL, *bytes = NULL;
	struct jh_cell c = {0};
	size_t n;
	int r = read_file(spec, PHI_BUNDLE_CONFIG_MAX, &text, &n, e);

	if (r == 0)
		r = json_parse(text, n, &j, e);
	if (r == 0)
		r = jh_cell_from_json(j, &c, e);
	if (r < 0) {
		phi_error_wrap(e, "%s", spec);
	} else {
		_clean_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

		n = jh_cell_size(&c);
		bytes = malloc(n);
		if (bytes == NULL)
			abort();
		jh_cell_write(&c, bytes);
		if (fd < 0 || write(fd, bytes, n) != (ssize_t)n)
			r = phi_error_set(e, PHI_INTERNAL, errno, "", "%s: %s", path, strerror(errno));
	}
	jh_cell_free(&c);
	return r;
}

int cell_command(char **args, const struct cell_options *o, struct phi_error *e)
{
	size_t n = 0;

	while (args[n] != NULL)
		n++;
	if (n == 2 && strcmp(args[0], "show") == 0)
		return show(args[1], o, e);
	if (n >= 2 && strcmp(args[0], "check") == 0)
		return check(args + 1, o, e);
	if (n == 3 && strcmp(args[0], "write") == 0)
		return write_cell(args[1], args[2], e);
	return phi_error_set(e, PHI_INVALID, EINVAL, "",
			     "usage: phictl cell show [--json] FILE | check [--root FILE] [--iomem FILE] [--w-xor-x] FILE... | write SPEC FILE");
}
