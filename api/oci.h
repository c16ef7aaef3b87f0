/* What phid and runphi read of an OCI bundle's config.json (runtime-spec 1.x). Unknown members are ignored, as
 * that document asks (config.md "Extensibility"). Pure. */
#pragma once

#include "field.h"
#include "json.h"
#include "spec.h"

#include <stdbool.h>

struct oci_config {
	char *root_path;		  /* NULL if there is no root */
	bool has_process, terminal, has_vm;
	struct field_strings annotations;
	struct json *vm; /* the section, or NULL */
	struct json *document;
};

/* *c must be zeroed; it is freeable whatever the answer. With an error it has what could be read all the same; no document if
 * the text is no JSON. */
int oci_config_read(const char *text, size_t len, struct oci_config *c, struct phi_error *e);
void oci_config_free(struct oci_config *c);
static inline void oci_config_free_p(struct oci_config *c)
{
	oci_config_free(c);
}
#define _clean_oci_ _clean_(oci_config_free_p)

/* The value of an annotation, or NULL. */
const char *oci_annotation(const struct oci_config *c, const char *name);

/* oci_spec.c: what config.json asks of a cell, laid into a spec. What cannot be honoured is refused by name. */

/* A container of a pod: made through CRI. */
bool oci_in_pod(const struct oci_config *c);
/* The pod's own, which holds its namespaces. */
bool oci_is_sandbox(const struct oci_config *c);
/* The value of "org.runphi.PATH", or of "org.runphi.container.NAME.PATH" if the pod's name for this container is NAME;
 * NULL if there is neither. */
const char *oci_own_annotation(const struct oci_config *c, const char *path);
/* In place of what the spec says: the `vm` section (config-vm.md: kernel, initrd, parameters, hwConfig.vcpus and .memory), */
int oci_vm_to_spec(const struct json *vm, struct spec *s, struct phi_error *e);
/* and annotations "org.runphi.PATH", PATH a member of the spec with dots between names ("cpus.set"). */
int oci_annotations_to_spec(const struct oci_config *c, struct spec *s, struct phi_error *e);
/* Where the spec says nothing: linux.resources' cpu.cpus, or cpu.quota and .period, and memory.limit. In a pod never CPUs. */
int oci_resources_to_spec(const struct oci_config *c, struct spec *s, struct phi_error *e);
/* The CPUs that quota and period of linux.resources.cpu let run at once, rounded up; false without a quota. */
bool oci_quota_cpus(const struct json *cpu, int64_t *ret);
/* A cell can have no mounts: those that every client makes are passed over, any other is an error. */
int oci_check_mounts(const struct oci_config *c, struct phi_error *e);
