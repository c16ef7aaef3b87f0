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

/* *c must be zeroed; it is freeable whatever the answer. */
int oci_config_read(const char *text, size_t len, struct oci_config *c, struct phi_error *e);
void oci_config_free(struct oci_config *c);
static inline void oci_config_free_p(struct oci_config *c)
{
	oci_config_free(c);
}
#define _clean_oci_ _clean_(oci_config_free_p)

/* Lays the `vm` section (config-vm.md) into a spec, in place of what it says of them: kernel, initrd, parameters, hwConfig.vcpus and .memory.
 * What cannot be honoured is refused by name. */
int oci_vm_to_spec(const struct json *vm, struct spec *s, struct phi_error *e);
/* The value of an annotation, or NULL. */
const char *oci_annotation(const struct oci_config *c, const char *name);
