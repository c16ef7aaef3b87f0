/* Reading bundles and opening images. See bundle.h. */
#include "bundle.h"

#include "clean.h"
#include "json.h"
#include "oci.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <nettle/sha2.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Opens a path as a process whose root is `root` would, but never through a magic link. Non-blocking, so that a FIFO
 * does not hold us. */
static int open_beneath(int root, const char *path, int flags)
{
	/* With O_PATH nothing is opened, and openat2 takes no other flags. */
	int more = O_CLOEXEC | (flags & O_PATH ? 0 : O_NONBLOCK | O_NOCTTY);
	struct open_how how = {.flags = (uint64_t)(unsigned)(flags | more),
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};

	return (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
}

/* A regular file of at most max bytes. */
static int open_regular(int root, const char *path, uint64_t max, const char *pointer, struct stat *st,
			struct phi_error *e)
{
	/* By its path first: a device or FIFO is not even opened. */
	_clean_close_ int at = open_beneath(root, path, O_PATH), fd = -1;

	if (at < 0)
		return phi_error_set(e, PHI_PAYLOAD, errno, pointer, "%s: %s", path,
				     errno == ELOOP ? "a symbolic link in it leads nowhere allowed" : strerror(errno));
	if (fstat(at, st) < 0 || !S_ISREG(st->st_mode))
		return phi_error_set(e, PHI_PAYLOAD, EINVAL, pointer, "%s is not a regular file", path);
	if ((uint64_t)st->st_size > max)
		return phi_error_set(e, PHI_PAYLOAD, EFBIG, pointer, "%s has %lld bytes; at most %" PRIu64 " are taken", path,
				     (long long)st->st_size, max);
	fd = open_beneath(root, path, O_RDONLY);
	if (fd < 0 || fstat(fd, st) < 0 || !S_ISREG(st->st_mode))
		return phi_error_set(e, PHI_PAYLOAD, errno, pointer, "%s: %s", path, strerror(errno));
	return PHI_TAKE_FD(fd);
}

static int read_text(int root, const char *path, uint64_t max, const char *pointer, char **ret, size_t *ret_n,
		     struct phi_error *e)
{
	struct stat st;
	_clean_close_ int fd = open_regular(root, path, max, pointer, &st, e);
	_clean_free_ char *text = NULL;
	size_t n = 0;

	if (fd < 0)
		return fd;
	text = malloc((size_t)max + 1);
	if (text == NULL)
		abort();
	for (;;) { /* what is there now counts, not what stat said */
		ssize_t got = read(fd, text + n, (size_t)max + 1 - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return phi_error_set(e, PHI_PAYLOAD, errno, pointer, "%s: %s", path, strerror(errno));
		if (got == 0)
			break;
		n += (size_t)got;
		if (n > max)
			return phi_error_set(e, PHI_PAYLOAD, EFBIG, pointer, "%s grew beyond %" PRIu64 " bytes", path, max);
	}
	*ret = PHI_TAKE(text);
	*ret_n = n;
	return 0;
}

/* Copies the file into a sealed memory file while it is hashed: the bytes that were hashed are the bytes that boot,
 * whoever owns the file and whatever becomes of it. */
static int seal(int fd, struct cell_image *image, const char *pointer, struct phi_error *e)
{
	_clean_close_ int memory = memfd_create(image->role, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct sha256_ctx ctx;
	uint8_t digest[SHA256_DIGEST_SIZE], buf[65536];

	if (memory < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, pointer, "memfd_create: %s", strerror(errno));
	sha256_init(&ctx);
	for (;;) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return phi_error_set(e, PHI_PAYLOAD, errno, pointer, "%s: %s", image->path, strerror(errno));
		if (n == 0)
			break;
		image->size += (uint64_t)n;
		if (image->size > PHI_IMAGE_MAX)
			return phi_error_set(e, PHI_PAYLOAD, EFBIG, pointer, "%s is too large", image->path);
		sha256_update(&ctx, (size_t)n, buf);
		for (ssize_t done = 0; done < n;) {
			ssize_t w = write(memory, buf + done, (size_t)(n - done));

			if (w < 0)
				return phi_error_set(e, PHI_INTERNAL, errno, pointer, "no memory for %s: %s", image->path,
						     strerror(errno));
			done += w;
		}
	}
	sha256_digest(&ctx, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(image->sha256 + 2 * i, 3, "%02x", digest[i]);
	/* Readable for whatever user the guest's process becomes, through /proc/self/fd. */
	if (fchmod(memory, 0444) < 0 || fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return phi_error_set(e, PHI_INTERNAL, errno, pointer, "sealing: %s", strerror(errno));
	image->fd = PHI_TAKE_FD(memory);
	return 0;
}

static int load_image(struct bundle *b, int root, const struct field_blob *blob, const char *role, struct phi_error *e)
{
	struct cell_image *image = &b->images[b->n_images];
	_clean_close_ int fd = -1;
	struct stat st;
	char pointer[40];
	int r;

	if (blob->path == NULL)
		return 0;
	snprintf(pointer, sizeof(pointer), "/spec/boot/%s", role);
	fd = open_regular(root, blob->path, PHI_IMAGE_MAX, pointer, &st, e);
	if (fd < 0)
		return fd;
	*image = (struct cell_image){.role = role, .path = strdup(blob->path), .fd = -1};
	if (image->path == NULL)
		abort();
	b->n_images++;
	r = seal(fd, image, pointer, e);
	if (r < 0)
		return r;
	if (image->size == 0)
		return phi_error_set(e, PHI_PAYLOAD, EINVAL, pointer, "%s is empty", blob->path);
	if (blob->sha256 != NULL && strcmp(blob->sha256, image->sha256) != 0)
		return phi_error_set(e, PHI_PAYLOAD, EBADMSG, pointer, "%s has the digest %s, not the %s that was asked for",
				     blob->path, image->sha256, blob->sha256);
	return 0;
}

static char *annotations_json(const struct oci_config *c)
{
	_clean_json_ struct json *j = json_object();

	for (size_t i = 0; i < c->annotations.n; i++)
		json_add_string(j, c->annotations.names[i], c->annotations.values[i]);
	return json_print(j);
}

/* Where the rootfs of the bundle is: relative to the bundle, or absolute in the caller's root. */
static int open_rootfs(int root, const char *bundle, const char *path, struct phi_error *e)
{
	_clean_free_ char *whole = NULL;
	int fd;

	if (path[0] == '/')
		whole = strdup(path);
	else if (asprintf(&whole, "%s/%s", bundle, path) < 0)
		whole = NULL;
	if (whole == NULL)
		abort();
	fd = open_beneath(root, whole, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return phi_error_set(e, PHI_PAYLOAD, errno, "/root/path", "%s: %s", whole, strerror(errno));
	return fd;
}

/* What the image says of itself, /boot/config.json, into the spec: 1, or 0 where it says nothing. *ret_images is the
 * directory that the spec's paths are beneath. */
static int load_image_config(struct bundle *b, int root, const char *root_path, int *ret_images, struct phi_error *e)
{
	_clean_close_ int rootfs = open_rootfs(root, b->path, root_path, e);
	_clean_free_ char *text = NULL;
	struct phi_error missing = {0};
	size_t n;
	int r;

	if (rootfs < 0)
		return rootfs;
	r = read_text(rootfs, "/boot/config.json", PHI_BUNDLE_CONFIG_MAX, "/boot/config.json", &text, &n, &missing);
	if (r < 0 && missing.err != ENOENT) {
		*e = missing;
		return r;
	}
	*ret_images = PHI_TAKE_FD(rootfs);
	if (r < 0)
		return 0;
	r = spec_read_boot_config(text, n, &b->spec, e);
	if (r < 0)
		phi_error_wrap(e, "the image's /boot/config.json");
	return r < 0 ? r : 1;
}

/* config.json, and from it a spec: of the `vm` section, whose paths are in the caller's root (config-vm.md), else of the image;
 * then annotations; then the limits of the bundle where nothing else was said. */
static int load_bundle(struct bundle *b, int root, int *ret_images, struct phi_error *e)
{
	_clean_free_ char *text = NULL, *path = NULL;
	_clean_oci_ struct oci_config c = {0};
	bool said;
	size_t n;
	int r;

	if (asprintf(&path, "%s/config.json", b->path) < 0)
		abort();
	r = read_text(root, path, PHI_BUNDLE_CONFIG_MAX, "/bundle", &text, &n, e);
	if (r == 0)
		r = oci_config_read(text, n, &c, e);
	if (r == 0)
		r = oci_check_mounts(&c, e);
	if (r < 0) {
		phi_error_wrap(e, "the bundle's config.json");
		return r;
	}
	b->annotations = annotations_json(&c);
	if (b->has_spec) /* the request's spec wins */
		return 0;
	if (c.has_vm)
		r = oci_vm_to_spec(c.vm, &b->spec, e);
	else if (c.root_path != NULL)
		r = load_image_config(b, root, c.root_path, ret_images, e);
	if (r < 0)
		return r;
	said = c.has_vm || r > 0;
	r = oci_annotations_to_spec(&c, &b->spec, e);
	if (r == 0)
		r = oci_resources_to_spec(&c, &b->spec, e);
	if (r == 0 && !said && !spec_boots(&b->spec))
		r = phi_error_set(e, PHI_INVALID, EINVAL, "/bundle",
				  "neither a vm section nor /boot/config.json in the image nor an annotation says what to boot");
	return r;
}

void bundle_load(struct bundle *b)
{
	_clean_close_ int root = -1, images = -1;
	struct phi_error *e = &b->error;
	char path[64];
	int r = 0;

	spec_init(&b->spec);
	if (b->spec_json != NULL) {
		b->has_spec = true;
		r = spec_read(b->spec_json, FIELD_WIRE, "/spec", &b->spec, e);
		if (r == 0)
			r = spec_complete(&b->spec, "/spec", e);
		if (r < 0 || (b->path == NULL && !spec_boots(&b->spec)))
			return; /* wrong, or without a file */
	}
	snprintf(path, sizeof(path), "/proc/%d/root", (int)b->peer);
	root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0) {
		bool refused = errno == EACCES || errno == EPERM || errno == ENOENT; /* ENOENT: it went away */

		phi_error_set(e, refused ? PHI_FORBIDDEN : PHI_INTERNAL, errno, "", "the caller's root cannot be opened: %s", strerror(errno));
		return;
	}
	if (b->path != NULL)
		r = load_bundle(b, root, &images, e);
	if (r == 0)
		r = spec_complete(&b->spec, "/spec", e);
	if (r == 0)
		r = load_image(b, images >= 0 ? images : root, &b->spec.boot.kernel, "kernel", e);
	if (r == 0)
		r = load_image(b, images >= 0 ? images : root, &b->spec.boot.initrd, "initrd", e);
	if (r == 0)
		r = load_image(b, images >= 0 ? images : root, &b->spec.boot.dtb, "dtb", e);
	if (r == 0)
		r = load_image(b, images >= 0 ? images : root, &b->spec.boot.inmate, "inmate", e);
	if (r == 0)
		load_image(b, images >= 0 ? images : root, &b->spec.boot.firmware, "firmware", e);
}

void bundle_done(struct bundle *b)
{
	for (size_t i = 0; i < b->n_images; i++) {
		phi_close(&b->images[i].fd);
		free(b->images[i].path);
	}
	b->n_images = 0;
	spec_free(&b->spec);
	json_free(b->spec_json);
	free(b->path);
	free(b->annotations);
	b->spec_json = NULL;
	b->path = b->annotations = NULL;
}

char *bundle_payload_json(const struct bundle *b)
{
	_clean_json_ struct json *j = json_array();

	for (size_t i = 0; i < b->n_images; i++) {
		struct json *o = json_object();

		json_add_string(o, "role", b->images[i].role);
		json_add_string(o, "path", b->images[i].path);
		json_add_string(o, "sha256", b->images[i].sha256);
		json_add_integer(o, "size", (int64_t)b->images[i].size);
		json_add(j, NULL, o);
	}
	return json_print(j);
}
