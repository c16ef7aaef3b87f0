/* The allocator's part for what is one of its kind: devices and remote processors. Pure. */
#include "alloc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool has_name(char list[][PHI_NAME_MAX + 1], size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i], name) == 0)
			return true;
	return false;
}

/* ---- devices ---- */

static const struct platform_device *devices(const struct alloc_view *v)
{
	return v->platform->devices.items;
}

static bool goes_with(const struct platform_device *a, const struct platform_device *b)
{
	return a == b || (a->group != NULL && b->group != NULL && strcmp(a->group, b->group) == 0);
}

/* Is the whole group of device i free? Its members that are not are blockers. */
static bool group_free(const struct alloc_view *v, size_t i, struct alloc_refusal *refusal)
{
	bool all = true;

	for (size_t k = 0; k < v->platform->devices.n; k++)
		if (goes_with(&devices(v)[i], &devices(v)[k]) && v->devices[k].owner[0] != '\0') {
			alloc_blocked(refusal, v->devices[k].owner, "device %.56s", devices(v)[k].name);
			all = false;
		}
	return all;
}

static int take_group(const struct alloc_view *v, size_t i, const char *where, struct alloc_grant *g, struct phi_error *e)
{
	for (size_t k = 0; k < v->platform->devices.n; k++) {
		if (!goes_with(&devices(v)[i], &devices(v)[k]))
			continue;
		if (g->n_devices == PHI_DEVICES_MAX)
			return phi_error_set(e, PHI_INVALID, ERANGE, where, "with its group \"%s\" there are more than %d devices", devices(v)[i].group,
					     PHI_DEVICES_MAX);
		alloc_grant_add_device(g, devices(v)[k].name);
	}
	return 0;
}

static bool asked_before(const struct spec *s, size_t index, const char *name)
{
	const struct spec_device *wishes = s->devices.items;

	for (size_t i = 0; i < index; i++)
		if (wishes[i].name != NULL && strcmp(wishes[i].name, name) == 0)
			return true;
	return false;
}

/* Devices are few and each is one of its kind: the first that is free, with its group. */
int alloc_fit_device(const struct alloc_view *v, const struct spec *s, size_t index, struct alloc_grant *g, struct alloc_refusal *refusal,
		     struct phi_error *e)
{
	const struct spec_device *d = (const struct spec_device *)s->devices.items + index;
	const char *how = d->name ? "called" : "of kind", *what = d->name ? d->name : d->kind;
	bool any = false;
	char where[40];

	snprintf(where, sizeof(where), "/spec/devices/%zu", index);
	for (size_t i = 0; i < v->platform->devices.n; i++) {
		if (strcmp(d->name ? devices(v)[i].name : devices(v)[i].kind, what) != 0)
			continue;
		any = true;
		if (d->name != NULL && asked_before(s, index, what))
			return phi_error_set(e, PHI_INVALID, EINVAL, where, "device \"%s\" is asked for twice", what);
		if (has_name(g->devices, g->n_devices, devices(v)[i].name)) {
			/* By its name: it came with a group. By its kind: that one is taken, by this very wish. */
			if (d->name != NULL)
				return 0;
			continue;
		}
		if (group_free(v, i, refusal))
			return take_group(v, i, where, g, e);
	}
	if (!any)
		return phi_error_set(e, PHI_INVALID, EINVAL, where, "this host has no device %s \"%s\"", how, what);
	refusal->kind = "devices";
	refusal->wanted = 1;
	return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, where, "no device %s \"%s\" is free; see blockers for who has it", how, what);
}

/* ---- remote processors ---- */

static void take_remote(const struct alloc_view *v, size_t i, struct alloc_grant *g)
{
	alloc_grant_add_remote(g, ((const struct platform_remote *)v->platform->remote.items)[i].name);
}

static int refuse_remote(const struct alloc_view *v, uint64_t wanted, struct alloc_refusal *refusal, struct phi_error *e)
{
	refusal->kind = "remote_processors";
	refusal->wanted = wanted;
	refusal->available = 0;
	refusal->n_blockers = 0;
	for (size_t i = 0; i < v->platform->remote.n; i++)
		if (v->remote[i].owner[0] == '\0')
			refusal->available++;
		else
			alloc_blocked(refusal, v->remote[i].owner, "remote processor %.44s",
				      ((const struct platform_remote *)v->platform->remote.items)[i].name);
	return phi_error_set(e, PHI_NO_RESOURCES, ENOSPC, "/spec/remote_processors",
			     "%llu remote processors are wanted, and those of this host are not free; see blockers for who has them",
			     (unsigned long long)wanted);
}

int alloc_fit_remote(const struct alloc_view *v, const struct spec *s, struct alloc_grant *g, struct alloc_refusal *refusal, struct phi_error *e)
{
	const struct platform_remote *remote = v->platform->remote.items;
	uint64_t wanted = s->remote.has_count ? (uint64_t)s->remote.count : s->remote.names.n;

	if (wanted > v->platform->remote.n)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/remote_processors", "%llu are wanted; this host has %zu",
				     (unsigned long long)wanted, v->platform->remote.n);
	for (size_t n = 0; n < s->remote.names.n; n++) {
		size_t i = 0;

		while (i < v->platform->remote.n && strcmp(remote[i].name, s->remote.names.values[n]) != 0)
			i++;
		if (i == v->platform->remote.n || has_name(g->remote, g->n_remote, remote[i].name))
			return phi_error_set(e, PHI_INVALID, EINVAL, "/spec/remote_processors/names", "\"%.40s\" is %s", s->remote.names.values[n],
					     i == v->platform->remote.n ? "no remote processor of this host" : "there twice");
		if (v->remote[i].owner[0] != '\0')
			return refuse_remote(v, wanted, refusal, e);
		take_remote(v, i, g);
	}
	for (size_t i = 0; s->remote.has_count && i < v->platform->remote.n && g->n_remote < wanted; i++)
		if (v->remote[i].owner[0] == '\0')
			take_remote(v, i, g);
	return g->n_remote < wanted ? refuse_remote(v, wanted, refusal, e) : 0;
}
