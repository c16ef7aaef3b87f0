/* See devicetree.h. */
#include "devicetree.h"

#include "clean.h"
#include "error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define PROPERTY_MAX (1u << 20)
#define DEPTH_MAX    32
#define NODES_MAX    16384

/* ---- reading ---- */

static int load_property(int dir, const char *name, size_t size, struct dt_node *to)
{
	_clean_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	struct dt_property *p;
	ssize_t n = 0;

	if (fd < 0 || size > PROPERTY_MAX)
		return 0; /* of one that cannot be read nothing is known */
	p = realloc(to->properties, (to->n_properties + 1) * sizeof(*p));
	if (p == NULL)
		abort();
	to->properties = p;
	p += to->n_properties++;
	*p = (struct dt_property){.name = strdup(name), .value = calloc(1, size + 1)}; /* a NUL behind it */
	if (p->name == NULL || p->value == NULL)
		abort();
	while (p->n < size && (n = read(fd, p->value + p->n, size - p->n)) > 0)
		p->n += (size_t)n;
	return n < 0 ? -errno : 0;
}

static void insert_child(struct dt_node *parent, struct dt_node *child)
{
	struct dt_node **at = &parent->children;

	while (*at != NULL && strcmp((*at)->name, child->name) < 0)
		at = &(*at)->next;
	child->parent = parent;
	child->next = *at;
	*at = child;
}

static int load_node(int fd, struct dt_node *to, unsigned depth, unsigned *nodes)
{
	_clean_closedir_ DIR *d = fdopendir(fd);
	int r = 0;

	if (d == NULL) {
		close(fd);
		return -errno;
	}
	if (depth == DEPTH_MAX || ++*nodes > NODES_MAX)
		return -ELOOP;
	for (struct dirent *f = readdir(d); f != NULL && r == 0; f = readdir(d)) {
		struct dt_node *child;
		struct stat st;

		if (strcmp(f->d_name, ".") == 0 || strcmp(f->d_name, "..") == 0 || fstatat(dirfd(d), f->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISREG(st.st_mode))
			r = load_property(dirfd(d), f->d_name, (size_t)st.st_size, to);
		if (!S_ISDIR(st.st_mode))
			continue;
		fd = openat(dirfd(d), f->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		child = calloc(1, sizeof(*child));
		if (child == NULL || (child->name = strdup(f->d_name)) == NULL)
			abort();
		insert_child(to, child);
		r = load_node(fd, child, depth + 1, nodes);
	}
	return r;
}

int dt_load(const char *path, struct dt_node **ret, struct phi_error *e)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;
	struct dt_node *root;
	unsigned nodes = 0;

	*ret = NULL;
	if (fd < 0)
		return errno == ENOENT ? 0 : phi_error_set(e, PHI_INTERNAL, errno, "", "%s: %s", path, strerror(errno));
	root = calloc(1, sizeof(*root));
	if (root == NULL || (root->name = strdup("")) == NULL)
		abort();
	r = load_node(fd, root, 0, &nodes);
	if (r < 0) {
		dt_free(root);
		return phi_error_set(e, PHI_INTERNAL, -r, "", "%s cannot be read: %s", path, strerror(-r));
	}
	*ret = root;
	return 0;
}

void dt_free(struct dt_node *n)
{
	if (n == NULL)
		return;
	while (n->children != NULL) {
		struct dt_node *child = n->children;

		n->children = child->next;
		dt_free(child);
	}
	for (size_t i = 0; i < n->n_properties; i++) {
		free(n->properties[i].name);
		free(n->properties[i].value);
	}
	free(n->properties);
	free(n->name);
	free(n);
}

/* ---- nodes ---- */

const struct dt_node *dt_next(const struct dt_node *n)
{
	if (n->children != NULL)
		return n->children;
	while (n != NULL && n->next == NULL)
		n = n->parent;
	return n != NULL ? n->next : NULL;
}

void dt_path(const struct dt_node *n, char *ret, size_t size)
{
	size_t at;

	if (n->parent == NULL) {
		snprintf(ret, size, "/");
		return;
	}
	dt_path(n->parent, ret, size);
	at = strlen(ret);
	snprintf(ret + at, size - at, "%s%s", n->parent->parent == NULL ? "" : "/", n->name);
}

static const struct dt_node *child_of(const struct dt_node *n, const char *name, size_t length)
{
	for (const struct dt_node *c = n->children; c != NULL; c = c->next)
		if (strncmp(c->name, name, length) == 0 && c->name[length] == '\0')
			return c;
	return NULL;
}

const struct dt_node *dt_find(const struct dt_node *root, const char *path)
{
	const struct dt_node *n = root;
	size_t whole = strcspn(path, ":");

	if (path[0] != '/') {
		char alias[64];

		n = child_of(root, "aliases", strlen("aliases"));
		snprintf(alias, sizeof(alias), "%.*s", whole < sizeof(alias) ? (int)whole : 0, path);
		path = n != NULL ? dt_text(n, alias) : NULL;
		return path != NULL && path[0] == '/' ? dt_find(root, path) : NULL;
	}
	for (size_t at = 0; n != NULL && at < whole;) {
		size_t length = strcspn(path + at, "/:");

		if (length > 0)
			n = child_of(n, path + at, length);
		at += length + (path[at + length] == '/');
	}
	return n;
}

const struct dt_node *dt_by_phandle(const struct dt_node *root, uint32_t phandle)
{
	uint32_t v;

	for (const struct dt_node *n = root; n != NULL; n = dt_next(n))
		if (dt_cell(n, "phandle", 0, &v) && v == phandle)
			return n;
	return NULL;
}

/* ---- properties ---- */

const struct dt_property *dt_get(const struct dt_node *n, const char *name)
{
	for (size_t i = 0; i < n->n_properties; i++)
		if (strcmp(n->properties[i].name, name) == 0)
			return &n->properties[i];
	return NULL;
}

static uint32_t cell_at(const struct dt_property *p, size_t i)
{
	const uint8_t *b = p->value + 4 * i;

	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

bool dt_cell(const struct dt_node *n, const char *name, size_t i, uint32_t *ret)
{
	const struct dt_property *p = dt_get(n, name);

	if (p == NULL || i >= p->n / 4)
		return false;
	*ret = cell_at(p, i);
	return true;
}

const char *dt_text(const struct dt_node *n, const char *name)
{
	const struct dt_property *p = dt_get(n, name);

	return p != NULL && p->n > 0 ? (const char *)p->value : NULL;
}

bool dt_is(const struct dt_node *n, const char *compatible)
{
	const struct dt_property *p = dt_get(n, "compatible");

	for (size_t at = 0; p != NULL && at < p->n; at += strlen((const char *)p->value + at) + 1)
		if (strcmp((const char *)p->value + at, compatible) == 0)
			return true;
	return false;
}

bool dt_available(const struct dt_node *n)
{
	for (; n != NULL; n = n->parent) {
		const char *status = dt_text(n, "status");

		if (status != NULL && strcmp(status, "okay") != 0 && strcmp(status, "ok") != 0)
			return false;
	}
	return true;
}

/* ---- addresses ---- */

static uint32_t cells_of(const struct dt_node *n, const char *name, uint32_t absent)
{
	uint32_t v;

	return dt_cell(n, name, 0, &v) ? v : absent;
}

/* A number of so many cells from the i-th on. */
static uint64_t number_at(const struct dt_property *p, size_t i, uint32_t cells)
{
	uint64_t v = 0;

	for (uint32_t k = 0; k < cells; k++)
		v = v << 32 | cell_at(p, i + k);
	return v;
}

/* From an address on the bus to one of the bus above. */
static bool translate(const struct dt_node *bus, uint64_t size, uint64_t *address)
{
	const struct dt_property *ranges = dt_get(bus, "ranges");
	uint32_t child = cells_of(bus, "#address-cells", 2), parent = cells_of(bus->parent, "#address-cells", 2),
		 length = cells_of(bus, "#size-cells", 1);
	size_t entry = child + parent + length;

	if (ranges == NULL || child > 2 || parent > 2 || length > 2)
		return false;
	if (ranges->n == 0)
		return true;
	for (size_t i = 0; entry > 0 && i + entry <= ranges->n / 4; i += entry) {
		uint64_t from = number_at(ranges, i, child), n = number_at(ranges, i + child + parent, length);

		if (*address >= from && *address - from < n && size <= n - (*address - from)) {
			*address += number_at(ranges, i + child, parent) - from;
			return true;
		}
	}
	return false;
}

int dt_reg(const struct dt_node *n, size_t i, uint64_t *ret_base, uint64_t *ret_size)
{
	const struct dt_property *reg = dt_get(n, "reg");
	uint32_t address, length;

	if (n->parent == NULL || reg == NULL)
		return 0;
	address = cells_of(n->parent, "#address-cells", 2);
	length = cells_of(n->parent, "#size-cells", 1);
	if (address == 0 || address > 2 || length > 2)
		return -1;
	if ((i + 1) * (address + length) > reg->n / 4)
		return 0;
	*ret_base = number_at(reg, i * (address + length), address);
	*ret_size = number_at(reg, i * (address + length) + address, length);
	for (const struct dt_node *bus = n->parent; bus->parent != NULL; bus = bus->parent)
		if (!translate(bus, *ret_size, ret_base))
			return -1;
	return 1;
}

/* ---- interrupts ---- */

static bool set_interrupt(const struct dt_node *controller, const struct dt_property *p, size_t at, struct dt_interrupt *ret)
{
	uint32_t cells;

	if (controller == NULL || dt_get(controller, "interrupt-controller") == NULL || !dt_cell(controller, "#interrupt-cells", 0, &cells) ||
	    cells == 0 || at + cells > p->n / 4)
		return false;
	*ret = (struct dt_interrupt){.controller = controller, .n = cells < 4 ? cells : 4};
	for (size_t k = 0; k < ret->n; k++)
		ret->cells[k] = cell_at(p, at + k);
	return true;
}

/* interrupts-extended: each with its own controller. */
static int extended_interrupt(const struct dt_node *root, const struct dt_property *p, size_t i, struct dt_interrupt *ret)
{
	for (size_t at = 0, k = 0; at < p->n / 4; k++) {
		const struct dt_node *controller = dt_by_phandle(root, cell_at(p, at));
		uint32_t cells;

		if (k == i)
			return set_interrupt(controller, p, at + 1, ret) ? 1 : -1;
		if (controller == NULL || !dt_cell(controller, "#interrupt-cells", 0, &cells) || cells > p->n / 4)
			return -1; /* and where the next begins is not known */
		at += 1 + cells;
	}
	return 0;
}

int dt_interrupt(const struct dt_node *root, const struct dt_node *n, size_t i, struct dt_interrupt *ret)
{
	const struct dt_property *p = dt_get(n, "interrupts-extended");
	const struct dt_node *controller = NULL;
	uint32_t phandle, cells;

	if (p != NULL)
		return extended_interrupt(root, p, i, ret);
	p = dt_get(n, "interrupts");
	if (p == NULL)
		return 0;
	for (const struct dt_node *above = n; above != NULL && controller == NULL; above = above->parent) {
		if (dt_cell(above, "interrupt-parent", 0, &phandle))
			controller = dt_by_phandle(root, phandle);
		else if (above != n && dt_get(above, "interrupt-controller") != NULL)
			controller = above;
	}
	if (controller == NULL || !dt_cell(controller, "#interrupt-cells", 0, &cells) || cells == 0)
		return -1;
	if ((i + 1) * cells > p->n / 4)
		return 0;
	return set_interrupt(controller, p, i * cells, ret) ? 1 : -1;
}
