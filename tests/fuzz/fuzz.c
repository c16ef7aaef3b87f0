/* Coverage-guided fuzzing (libFuzzer) of everything that reads what others wrote. One program; FUZZ_TARGET names the reader.
 * Beside what the sanitizers see, each target holds: a refusal has a code, a sentence and the pointer of a member, and what was
 * accepted is the same when it is written and read again. */
#include "cpuset.h"
#include "error.h"
#include "jailhouse/cell.h"
#include "jailhouse/elf.h"
#include "jailhouse/linux.h"
#include "json.h"
#include "oci.h"
#include "platform.h"
#include "spec.h"
#include "target.h"

#include <libfdt.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must_explain(int r, const struct phi_error *e)
{
	must(r < 0 && e->code > PHI_OK && e->code < PHI_CODE_MAX);
	must(e->detail[0] != '\0');
	must(e->pointer[0] == '\0' || e->pointer[0] == '/');
}

static struct json *parsed(const char *text)
{
	struct json *j = NULL;
	struct phi_error e = {0};

	if (json_parse(text, strlen(text), &j, &e) < 0)
		fprintf(stderr, "our own text is refused: %s\n%s\n", e.detail, text), abort();
	return j;
}

static void fuzz_json(const char *text, size_t n)
{
	_clean_json_ struct json *a = NULL, *b = NULL;
	_clean_free_ char *once = NULL, *twice = NULL;
	struct phi_error e = {0};
	int r = json_parse(text, n, &a, &e);

	if (r < 0) {
		must_explain(r, &e);
		return;
	}
	once = json_print(a);
	b = parsed(once);
	twice = json_print(b);
	must(strcmp(once, twice) == 0);
}

/* A spec is written as the API shows it, and read again from there. */
static void spec_comes_back(const struct spec *s)
{
	_clean_json_ struct json *a = spec_to_json(s), *b = NULL, *c = NULL;
	_clean_free_ char *once = json_print(a), *twice = NULL;
	_clean_spec_ struct spec again = {0};
	struct phi_error e = {0};

	b = parsed(once);
	if (spec_read(b, FIELD_WIRE, "", &again, &e) < 0)
		fprintf(stderr, "a spec of ours is refused: %s: %s\n%s\n", e.pointer, e.detail, once), abort();
	c = spec_to_json(&again);
	twice = json_print(c);
	must(strcmp(once, twice) == 0);
}

static void complete(struct spec *s)
{
	struct phi_error e = {0};
	int r = spec_complete(s, "/spec", &e);

	if (r < 0)
		must_explain(r, &e);
	else
		spec_comes_back(s);
}

static void fuzz_spec(const char *text, size_t n)
{
	_clean_json_ struct json *j = NULL;
	_clean_spec_ struct spec s = {0};
	struct phi_error e = {0};
	int r;

	if (json_parse(text, n, &j, &e) < 0)
		return;
	r = spec_read(j, FIELD_WIRE, "/spec", &s, &e);
	if (r < 0)
		must_explain(r, &e);
	else
		complete(&s);
}

static void fuzz_boot(const char *text, size_t n)
{
	_clean_spec_ struct spec s;
	struct phi_error e = {0};
	int r;

	spec_init(&s);
	r = spec_read_boot_config(text, n, &s, &e);
	if (r < 0)
		must_explain(r, &e);
	else
		complete(&s);
}

/* What bundle.c does with a config.json, in its order. */
static void fuzz_oci(const char *text, size_t n)
{
	_clean_oci_ struct oci_config c = {0};
	_clean_spec_ struct spec s;
	struct phi_error e = {0};
	int r = oci_config_read(text, n, &c, &e);

	spec_init(&s);
	oci_in_pod(&c);
	oci_is_sandbox(&c);
	if (r >= 0)
		r = oci_check_mounts(&c, &e);
	if (r >= 0 && c.has_vm)
		r = oci_vm_to_spec(c.vm, &s, &e);
	if (r >= 0)
		r = oci_annotations_to_spec(&c, &s, &e);
	if (r >= 0)
		r = oci_resources_to_spec(&c, &s, &e);
	if (r < 0)
		must_explain(r, &e);
	else
		complete(&s);
}

static void fuzz_platform(const char *text, size_t n)
{
	struct platform p = {0}, again = {0};
	struct phi_error e = {0};
	int r = platform_read(text, n, &p, &e);

	if (r < 0) {
		must_explain(r, &e);
	} else {
		_clean_json_ struct json *a = platform_to_json(&p), *b = NULL;
		_clean_free_ char *once = json_print(a), *twice = NULL;

		if (platform_read(once, strlen(once), &again, &e) < 0)
			fprintf(stderr, "a platform of ours is refused: %s: %s\n%s\n", e.pointer, e.detail, once), abort();
		b = platform_to_json(&again);
		twice = json_print(b);
		must(strcmp(once, twice) == 0);
	}
	platform_free(&p);
	platform_free(&again);
}

static void fuzz_cpuset(const char *text, size_t n)
{
	_clean_free_ char *copy = strndup(text, n);
	char out[CPUSET_TEXT_MAX];
	struct cpuset a = {0}, b = {0};
	struct phi_error e = {0};
	int r = cpuset_parse(copy, "/cpus", &a, &e);

	if (r < 0) {
		must_explain(r, &e);
		return;
	}
	must(cpuset_format(&a, out, sizeof(out)) < sizeof(out));
	must(cpuset_parse(out, "", &b, &e) == 0 && cpuset_equal(&a, &b));
}

static void count_finding(void *ud, const struct jh_finding *f)
{
	must(f->code != NULL && f->detail[0] != '\0' && f->pointer[0] == '/');
	++*(size_t *)ud;
}

static void check_cells(const struct jh_cell *cells, size_t n, const struct jh_system *system)
{
	size_t found = 0;
	struct jh_check k = {.cells = cells, .n = n, .system = system, .w_xor_x = true, .found = count_finding, .ud = &found};

	must(jh_check(&k) == found);
}

/* As each flavour; twice in one check, so that its parts meet. */
static void fuzz_cell(const char *bytes, size_t n)
{
	static const enum jh_flavour flavours[] = {JH_UPSTREAM, JH_RUNPHI, JH_OMNIVISOR};
	struct phi_error e = {0};
	int guess = jh_cell_guess(bytes, n, &e), r;

	if (guess < 0)
		must_explain(guess, &e);
	for (size_t i = 0; i < sizeof(flavours) / sizeof(flavours[0]); ++i) {
		struct jh_cell pair[2] = {{0}, {0}};

		e = (struct phi_error){0};
		r = jh_cell_read(bytes, n, flavours[i], &pair[0], &e);
		if (r < 0) {
			must_explain(r, &e);
		} else {
			_clean_free_ char *written = malloc(n), *text = jh_cell_to_text(&pair[0]);
			_clean_json_ struct json *j = jh_cell_to_json(&pair[0]);

			must(text[0] != '\0' && jh_cell_size(&pair[0]) == n);
			jh_cell_write(&pair[0], written);
			must(memcmp(written, bytes, n) == 0);
			/* A document says less than bytes can: a list that is too long for it, a number without a name. */
			r = jh_cell_from_json(j, &pair[1], &e);
			if (r < 0)
				must_explain(r, &e);
			else
				check_cells(pair, 2, NULL);
			check_cells(pair, 1, NULL);
		}
		jh_cell_free(&pair[0]);
		jh_cell_free(&pair[1]);
	}
}

static void fuzz_cell_json(const char *text, size_t n)
{
	_clean_json_ struct json *j = NULL;
	struct jh_cell c = {0}, again = {0};
	struct phi_error e = {0};
	int r;

	if (json_parse(text, n, &j, &e) < 0)
		return;
	r = jh_cell_from_json(j, &c, &e);
	if (r < 0) {
		must_explain(r, &e);
	} else {
		size_t size = jh_cell_size(&c);
		_clean_free_ char *bytes = malloc(size);

		jh_cell_write(&c, bytes);
		if (jh_cell_read(bytes, size, (enum jh_flavour)c.flavour, &again, &e) < 0)
			fprintf(stderr, "a cell of ours is refused: %s: %s\n", e.pointer, e.detail), abort();
	}
	jh_cell_free(&c);
	jh_cell_free(&again);
}

static void fuzz_system(const char *bytes, size_t n)
{
	struct jh_system s = {0};
	struct phi_error e = {0};
	int r = jh_system_read(bytes, n, JH_UPSTREAM, &s, &e);

	if (r < 0)
		must_explain(r, &e);
	else
		check_cells(&s.root, 1, &s);
	jh_system_free(&s);
}

/* As a kernel's payload and as an inmate of each architecture. */
static void fuzz_elf(const char *bytes, size_t n)
{
	struct jh_linux layout;
	struct phi_error e = {0};

	for (int arch = 0; arch < JH_ARCHS; ++arch) {
		struct jh_elf elf;
		int r = jh_elf_read(bytes, n, (enum jh_arch)arch, &elf, &e);

		if (r < 0) {
			must_explain(r, &e);
			continue;
		}
		must(elf.n > 0 && elf.entry >= elf.low && elf.entry < elf.high);
		for (size_t i = 0; i < elf.n; ++i)
			must(elf.segments[i].offset <= n && elf.segments[i].size <= n - elf.segments[i].offset && elf.segments[i].size <= elf.segments[i].memory &&
			     (i == 0 || elf.segments[i - 1].address + elf.segments[i - 1].memory <= elf.segments[i].address));
	}
	if (n >= 64 && jh_linux_lay_out(0x40000000, 64 << 20, bytes, n, n, &layout, &e) == 0)
		must(layout.dtb > layout.boot && layout.kernel > layout.dtb && layout.initrd >= layout.kernel + n && layout.end <= 0x44000000);
}

static void fuzz_dtb(const char *bytes, size_t n)
{
	struct alloc_memory memory = {.has_base = true, .base = 0x900000000, .size = 1 << 20};
	struct cell cell = {.grant = {.n_memory = 1, .memory = &memory}};
	struct platform p = {0};
	struct jh_linux layout = {.initrd = 0x900100000};
	struct jh_tree_wish wish = {&cell, &p, NULL, &layout, 4096};
	struct phi_error e = {0};
	void *tree, *again = NULL;
	size_t size;
	int r;

	cell.spec.boot.cmdline = (char[]){"quiet"};
	r = jh_tree_edit(&wish, bytes, n, &tree, &size, &e);
	if (r < 0)
		must_explain(r, &e);
	else
		if (jh_tree_edit(&wish, tree, size, &again, &size, &e) < 0)
			fprintf(stderr, "a tree of ours is refused: %s\n", e.detail), abort();
	free(again);
	free(tree);
}

static const struct target targets[] = {
	{"json", fuzz_json}, {"spec", fuzz_spec},     {"boot", fuzz_boot}, {"oci", fuzz_oci},		  {"platform", fuzz_platform},
	{"cpuset", fuzz_cpuset}, {"cell", fuzz_cell}, {"cell-json", fuzz_cell_json}, {"system", fuzz_system},
	{"elf", fuzz_elf}, {"dtb", fuzz_dtb}, {0},
};

static const struct target *chosen;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	chosen = target_chosen(targets);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	chosen->run((const char *)data, n);
	return 0;
}
