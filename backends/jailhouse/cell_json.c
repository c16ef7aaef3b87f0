/* A cell as a document, and back; and in words. See cell.h. */
#include "cell.h"
#include "cell_tables.h"

#include "clean.h"
#include "cpuset.h"
#include "error.h"
#include "field.h"
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define C(member) offsetof(struct jh_cell, member)
#define K(member) offsetof(struct jh_console, member)

static const char *const cell_flags[] = {
	"passive_commreg", "test_device", "aarch32", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "",
	"", "", "", "", "virtual_console_permitted", "virtual_console_active", NULL};
static const char *const console_flags[] = {"mmio", "regdist_4", "fb", "", "", "", "", "", "", "", "", "", "inverted_gate", "mdr_quirk", NULL};

static const struct jh_member header[] = {
	{"id", 0, 4, C(id), JH_DECIMAL, NULL},
	{"flags", 0, 4, C(flags), JH_HEX, cell_flags},
	{"vpci_irq_base", 0, 4, C(vpci_irq_base), JH_DECIMAL, NULL},
	{"reset_address", 0, 8, C(reset_address), JH_HEX, NULL},
	{"reply_timeout", 0, 8, C(reply_timeout), JH_DECIMAL, NULL},
	{0}};
static const struct jh_member console[] = {
	{"address", 0, 8, K(address), JH_HEX, NULL},	 {"size", 0, 4, K(size), JH_HEX, NULL},
	{"type", 0, 2, K(type), JH_DECIMAL, NULL},	 {"flags", 0, 2, K(flags), JH_HEX, console_flags},
	{"divider", 0, 4, K(divider), JH_DECIMAL, NULL}, {"gate_nr", 0, 4, K(gate_nr), JH_DECIMAL, NULL},
	{"clock_reg", 0, 8, K(clock_reg), JH_HEX, NULL}, {0}};

static const struct {
	const char *name, *size_name;
	size_t bytes, n;
} sets[] = {{"cpus", "cpu_set_size", C(cpus), C(n_cpus)},
	    {"remote_cpus", "remote_cpu_set_size", C(rcpus), C(n_rcpus)},
	    {"fpga_regions", "fpga_set_size", C(fpga), C(n_fpga)}};

/* ---- bitmaps ---- */

static void bits_to_set(const uint8_t *bytes, uint32_t n, struct cpuset *ret)
{
	*ret = (struct cpuset){0};
	for (uint32_t i = 0; i < n * 8; i++)
		if (bytes[i / 8] >> i % 8 & 1)
			cpuset_add(ret, i);
}

/* The interrupt numbers of an entry; false where they are beyond what a set can have. */
static bool pins_to_set(const struct jh_irqchip *chip, struct cpuset *ret)
{
	*ret = (struct cpuset){0};
	if (chip->pin_base > PHI_CPUS_MAX - JH_PINS)
		return false;
	for (unsigned i = 0; i < JH_PINS; i++)
		if (chip->pins[i / 32] >> i % 32 & 1)
			cpuset_add(ret, chip->pin_base + i);
	return true;
}

static bool is_pins(const char *name)
{
	return strncmp(name, "pins_", 5) == 0;
}

/* ---- to a document ---- */

static void add_number(struct json *to, const struct jh_member *m, uint64_t v)
{
	if (m->form == JH_HEX || v >= UINT64_C(1) << 53)
		json_add_hex(to, m->name, v);
	else
		json_add_integer(to, m->name, (int64_t)v);
}

static void add_flags(struct json *to, const struct jh_member *m, uint64_t v)
{
	struct json *list = json_add_array(to, m->name);

	for (unsigned i = 0; m->words[i] != NULL; i++)
		if (v >> i & 1 && m->words[i][0] != '\0') {
			json_add_string(list, NULL, m->words[i]);
			v &= ~(UINT64_C(1) << i);
		}
	if (v != 0) /* bits that nobody named */
		json_add_hex(list, NULL, v);
}

static void add_members(struct json *to, const struct jh_member *m, const void *s)
{
	for (; m->name != NULL; m++) {
		uint64_t v = jh_member_get(s, m);

		if (m->words != NULL)
			add_flags(to, m, v);
		else
			add_number(to, m, v);
	}
}

static void add_irqchip(struct json *to, const struct jh_irqchip *chip)
{
	char text[CPUSET_TEXT_MAX];
	struct cpuset pins;

	add_members(to, jh_lists[JH_IRQCHIP].members, chip);
	if (!pins_to_set(chip, &pins))
		return;
	for (const struct jh_member *m = jh_lists[JH_IRQCHIP].members; m->name != NULL; m++)
		if (is_pins(m->name))
			json_remove(to, m->name);
	cpuset_format(&pins, text, sizeof(text));
	json_add_string(to, "pins", text);
}

struct json *jh_cell_to_json(const struct jh_cell *c)
{
	struct json *j = json_object();
	char name[JH_NAME_SIZE];

	memcpy(name, c->name, sizeof(name));
	for (size_t i = 0; i < sizeof(name); i++) /* JSON is UTF-8 */
		if ((unsigned char)name[i] > 126 || (name[i] != '\0' && (unsigned char)name[i] < 32))
			name[i] = '?';
	json_add_string(j, "format", "phid-cell/1");
	json_add_string(j, "flavour", jh_flavours[c->flavour]);
	json_add_string(j, "architecture", jh_archs[c->arch]);
	json_add_string(j, "name", name);
	add_members(j, header, c);
	add_members(json_add_object(j, "console"), console, &c->console);
	for (size_t i = 0; i < PHI_COUNT(sets); i++) {
		uint32_t n = *(const uint32_t *)(const void *)((const char *)c + sets[i].n);
		char text[CPUSET_TEXT_MAX];
		struct cpuset set;

		if (n == 0 && i > 0)
			continue;
		bits_to_set((const uint8_t *)c + sets[i].bytes, n, &set);
		cpuset_format(&set, text, sizeof(text));
		json_add_string(j, sets[i].name, text);
		json_add_integer(j, sets[i].size_name, n);
	}
	for (int l = 0; l < JH_LISTS; l++) {
		struct json *list = json_add_array(j, jh_lists[l].name);

		for (uint32_t i = 0; i < c->lists[l].n; i++) {
			struct json *o = json_object();
			const char *item = (const char *)c->lists[l].items + i * jh_lists[l].in_memory;

			if (l == JH_IRQCHIP)
				add_irqchip(o, (const struct jh_irqchip *)(const void *)item);
			else
				add_members(o, jh_lists[l].members, item);
			if (l == JH_MEMORY && c->flavour == JH_UPSTREAM)
				json_remove(o, "colors");
			json_add(list, NULL, o);
		}
	}
	return j;
}

/* ---- from a document ---- */

static int read_number(const struct json *j, size_t size, const char *where, uint64_t *ret, struct phi_error *e)
{
	const char *text = json_string(j);
	char *end;
	int64_t n;

	errno = 0;
	if (text != NULL && strncmp(text, "0x", 2) == 0) {
		*ret = strtoull(text + 2, &end, 16);
		if (text[2] == '\0' || *end != '\0' || errno != 0)
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "\"%.40s\" is no number", text);
	} else if (json_integer(j, &n) && n >= 0) {
		*ret = (uint64_t)n;
	} else {
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "a number was expected (12 or \"0x...\"), not %s", json_kind(j));
	}
	if (size < 8 && *ret >> 8 * size != 0)
		return phi_error_set(e, PHI_INVALID, ERANGE, where, "the number does not fit into %zu bytes", size);
	return 0;
}

static int read_flags(const struct json *j, const struct jh_member *m, const char *where, uint64_t *ret, struct phi_error *e)
{
	*ret = 0;
	if (!json_is_array(j))
		return read_number(j, m->size, where, ret, e);
	for (const struct json *f = json_first(j); f != NULL; f = json_next(f)) {
		const char *word = json_string(f);
		uint64_t bits = 0;

		for (unsigned i = 0; word != NULL && m->words[i] != NULL; i++)
			if (word[0] != '\0' && strcmp(word, m->words[i]) == 0)
				bits = UINT64_C(1) << i;
		if (bits == 0) {
			int r = word != NULL && strncmp(word, "0x", 2) == 0 ? read_number(f, m->size, where, &bits, e) : -EINVAL;

			if (r < 0)
				return phi_error_set(e, PHI_INVALID, EINVAL, where, "there is no flag \"%.40s\" here", word ? word : "");
		}
		*ret |= bits;
	}
	return 0;
}

/* 1 if the member is one of the table's. */
static int read_member(const struct json *j, const struct jh_member *m, const char *where, void *s, struct phi_error *e)
{
	for (; m->name != NULL; m++) {
		uint64_t v;
		int r;

		if (strcmp(m->name, json_name(j)) != 0)
			continue;
		r = m->words != NULL ? read_flags(j, m, where, &v, e) : read_number(j, m->size, where, &v, e);
		if (r < 0)
			return r;
		jh_member_set(s, m, v);
		return 1;
	}
	return 0;
}

static int unknown(const char *where, struct phi_error *e)
{
	return phi_error_set(e, PHI_UNKNOWN_MEMBER, EINVAL, where, "there is no such member in a cell");
}

static int read_pins(const struct json *j, const char *where, struct jh_irqchip *chip, struct phi_error *e)
{
	struct cpuset pins = {0};
	int r = cpuset_parse(json_string(j) ? json_string(j) : "x", where, &pins, e);

	for (int i = cpuset_next(&pins, 0); r == 0 && i >= 0; i = cpuset_next(&pins, (unsigned)i + 1)) {
		unsigned bit = (unsigned)i - chip->pin_base;

		if ((unsigned)i < chip->pin_base || bit >= JH_PINS)
			return phi_error_set(e, PHI_INVALID, ERANGE, where, "interrupt %d is not one of the %d from pin_base %u on", i, JH_PINS,
					     chip->pin_base);
		chip->pins[bit / 32] |= 1u << bit % 32;
	}
	return r;
}

static int read_item(const struct json *j, int list, const char *where, void *item, struct phi_error *e)
{
	char member[160];
	int r;

	if (!json_is_object(j))
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "an object was expected, not %s", json_kind(j));
	for (const struct json *m = json_first(j); m != NULL; m = json_next(m)) {
		field_pointer_join(member, sizeof(member), where, json_name(m));
		if (list == JH_IRQCHIP && strcmp(json_name(m), "pins") == 0)
			continue; /* they count from pin_base */
		r = read_member(m, jh_lists[list].members, member, item, e);
		if (r <= 0)
			return r < 0 ? r : unknown(member, e);
	}
	field_pointer_join(member, sizeof(member), where, "pins");
	return list == JH_IRQCHIP && json_get(j, "pins") != NULL ? read_pins(json_get(j, "pins"), member, item, e) : 0;
}

static int read_list(const struct json *j, int list, const char *where, struct jh_cell *c, struct phi_error *e)
{
	char number[24], item[120];
	uint32_t i = 0;

	if (!json_is_array(j) || json_length(j) > JH_FILE_MAX / 4)
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "an array was expected, not %s", json_kind(j));
	for (const struct json *m = json_first(j); m != NULL; m = json_next(m)) {
		int r;

		snprintf(number, sizeof(number), "%u", i++);
		field_pointer_join(item, sizeof(item), where, number);
		r = read_item(m, list, item, jh_append(c, (enum jh_list)list, 1), e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* A set and, if it is given, the bytes that it takes; else as many longs as it needs. */
static int read_set(const struct json *j, size_t i, const char *where, struct jh_cell *c, struct phi_error *e)
{
	uint8_t *bytes = (uint8_t *)c + sets[i].bytes;
	uint32_t *n = (uint32_t *)(void *)((char *)c + sets[i].n);
	struct cpuset set = {0};
	int r = cpuset_parse(json_string(j) ? json_string(j) : "x", where, &set, e);

	if (r < 0)
		return r;
	if (*n == 0)
		*n = 8;
	for (int b = cpuset_next(&set, 0); b >= 0; b = cpuset_next(&set, (unsigned)b + 1)) {
		bytes[b / 8] |= (uint8_t)(1u << b % 8);
		if ((uint32_t)b / 8 >= *n)
			*n = (uint32_t)b / 64 * 8 + 8;
	}
	return 0;
}

static int read_word(const struct json *j, const char *const *words, const char *where, int *ret, struct phi_error *e)
{
	for (int i = 0; words[i] != NULL; i++)
		if (json_string(j) != NULL && strcmp(json_string(j), words[i]) == 0) {
			*ret = i;
			return 0;
		}
	return phi_error_set(e, PHI_INVALID, EINVAL, where, "\"%.40s\" is none of %s, %s, %s", json_string(j) ? json_string(j) : "", words[0],
			     words[1], words[2]);
}

/* One member of the document; 0 or negative. */
static int read_top(const struct json *m, struct jh_cell *c, struct phi_error *e)
{
	const char *name = json_name(m), *text = json_string(m);
	char where[80], member[160];
	uint64_t n;
	int r;

	field_pointer_join(where, sizeof(where), "", name);
	if (strcmp(name, "format") == 0)
		return text != NULL && strcmp(text, "phid-cell/1") == 0 ? 0 :
			phi_error_set(e, PHI_INVALID, EINVAL, where, "\"phid-cell/1\" was expected");
	if (strcmp(name, "flavour") == 0)
		return read_word(m, jh_flavours, where, &c->flavour, e);
	if (strcmp(name, "architecture") == 0)
		return read_word(m, jh_archs, where, &c->arch, e);
	if (strcmp(name, "name") == 0) {
		if (text == NULL || text[0] == '\0' || strlen(text) >= JH_NAME_SIZE)
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "a name of 1 to %d bytes was expected", JH_NAME_SIZE - 1);
		strcpy(c->name, text);
		return 0;
	}
	if (strcmp(name, "console") == 0) {
		if (!json_is_object(m))
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "an object was expected, not %s", json_kind(m));
		for (const struct json *k = json_first(m); k != NULL; k = json_next(k)) {
			field_pointer_join(member, sizeof(member), where, json_name(k));
			r = read_member(k, console, member, &c->console, e);
			if (r <= 0)
				return r < 0 ? r : unknown(member, e);
		}
		return 0;
	}
	for (size_t i = 0; i < PHI_COUNT(sets); i++) {
		if (strcmp(name, sets[i].name) == 0)
			return read_set(m, i, where, c, e);
		if (strcmp(name, sets[i].size_name) == 0) {
			r = read_number(m, 4, where, &n, e);
			if (r == 0 && (n > JH_CPU_BYTES || n % 8 != 0))
				return phi_error_set(e, PHI_INVALID, ERANGE, where, "a multiple of 8 up to %d was expected", JH_CPU_BYTES);
			if (r == 0 && *(uint32_t *)(void *)((char *)c + sets[i].n) < n)
				*(uint32_t *)(void *)((char *)c + sets[i].n) = (uint32_t)n;
			return r;
		}
	}
	for (int l = 0; l < JH_LISTS; l++)
		if (strcmp(name, jh_lists[l].name) == 0)
			return read_list(m, l, where, c, e);
	r = read_member(m, header, where, c, e);
	return r < 0 ? r : r == 0 ? unknown(where, e) : 0;
}

int jh_cell_from_json(const struct json *j, struct jh_cell *c, struct phi_error *e)
{
	*c = (struct jh_cell){.arch = JH_ARM64};
	if (!json_is_object(j))
		return phi_error_set(e, PHI_INVALID, EINVAL, "", "an object was expected, not %s", json_kind(j));
	for (const struct json *m = json_first(j); m != NULL; m = json_next(m)) {
		int r = read_top(m, c, e);

		if (r < 0)
			return r;
	}
	if (c->name[0] == '\0')
		return phi_error_set(e, PHI_INVALID, EINVAL, "", "the member \"name\" is missing");
	if (c->flavour != JH_OMNIVISOR && (c->n_rcpus > 0 || c->n_fpga > 0))
		return phi_error_set(e, PHI_INVALID, EINVAL, "/remote_cpus", "only omnivisor-14 has remote processors");
	for (uint32_t i = 0; c->flavour == JH_UPSTREAM && i < c->lists[JH_MEMORY].n; i++)
		if (JH_ITEM(c, JH_MEMORY, jh_memory, i)->colors != 0)
			return phi_error_set(e, PHI_INVALID, EINVAL, "/memory", "upstream-14 has no colours");
	if (jh_cell_size(c) > JH_FILE_MAX)
		return phi_error_set(e, PHI_INVALID, EFBIG, "", "the cell has %zu bytes; the driver takes at most %u", jh_cell_size(c), JH_FILE_MAX);
	return 0;
}

/* ---- in words ---- */

struct text {
	char *buf;
	size_t n;
};

static void __attribute__((format(printf, 2, 3))) put(struct text *t, const char *format, ...)
{
	_clean_free_ char *piece = NULL;
	va_list args;
	int n;

	va_start(args, format);
	n = vasprintf(&piece, format, args);
	va_end(args);
	t->buf = n < 0 ? NULL : realloc(t->buf, t->n + (size_t)n + 1);
	if (t->buf == NULL)
		abort();
	memcpy(t->buf + t->n, piece, (size_t)n + 1);
	t->n += (size_t)n;
}

static void put_flags(struct text *t, const char *const *words, uint64_t v)
{
	for (unsigned i = 0; words[i] != NULL; i++)
		if (v >> i & 1 && words[i][0] != '\0') {
			put(t, " %s", words[i]);
			v &= ~(UINT64_C(1) << i);
		}
	if (v != 0)
		put(t, " 0x%" PRIx64, v);
}

static void put_item(struct text *t, int list, uint32_t i, const void *item)
{
	char pins[CPUSET_TEXT_MAX];
	struct cpuset set;

	put(t, "  %-16s %u:", jh_lists[list].name, i);
	for (const struct jh_member *m = jh_lists[list].members; m->name != NULL; m++) {
		uint64_t v = jh_member_get(item, m);

		if (m->words != NULL)
			put_flags(t, m->words, v);
		else if ((v != 0 || m->at < 16) && !(list == JH_IRQCHIP && is_pins(m->name)))
			put(t, m->form == JH_HEX ? " %s 0x%" PRIx64 : " %s %" PRIu64, m->name, v);
	}
	if (list == JH_IRQCHIP && pins_to_set(item, &set)) {
		cpuset_format(&set, pins, sizeof(pins));
		put(t, " pins %s", pins);
	}
	put(t, "\n");
}

char *jh_cell_to_text(const struct jh_cell *c)
{
	static const char *const uarts[] = {"none", "efifb", "8250", "pl011", "xuartps", "mvebu", "hscif", "scifa", "imx", "imx-lpuart", "scif"};
	struct text t = {0};
	char cpus[CPUSET_TEXT_MAX];
	struct cpuset set;

	put(&t, "cell %.31s: %s, %s, %zu bytes\n  flags           ", c->name, jh_flavours[c->flavour], jh_archs[c->arch], jh_cell_size(c));
	put_flags(&t, cell_flags, c->flags);
	bits_to_set(c->cpus, c->n_cpus, &set);
	cpuset_format(&set, cpus, sizeof(cpus));
	put(&t, "\n  CPUs             %s\n  reset address    0x%" PRIx64 "\n  reply timeout    %" PRIu64 "%s\n  vPCI interrupts  from %u\n", cpus,
	    c->reset_address, c->reply_timeout, c->reply_timeout == 0 ? " (waits for ever)" : "", c->vpci_irq_base);
	put(&t, "  console          %s at 0x%" PRIx64, c->console.type < PHI_COUNT(uarts) ? uarts[c->console.type] : "unknown", c->console.address);
	put_flags(&t, console_flags, c->console.flags);
	put(&t, "\n");
	for (int l = 0; l < JH_LISTS; l++)
		for (uint32_t i = 0; i < c->lists[l].n; i++)
			put_item(&t, l, i, (const char *)c->lists[l].items + i * jh_lists[l].in_memory);
	return t.buf;
}
