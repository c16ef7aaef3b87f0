/* What a container is asked to be: the `spec` of the API, of an image's boot configuration and of the OCI `vm`
 * section. One struct, one table. Pure. */
#pragma once

#include "cpuset.h"
#include "field.h"
#include "grant.h"
#include "limits.h"

#include <stdbool.h>
#include <stdint.h>

struct json;

enum spec_backend {
	BACKEND_AUTO, /* the first enabled backend that can run it */
	BACKEND_QEMU,
	BACKEND_JAILHOUSE,
	BACKEND_XEN,
	BACKEND_REMOTEPROC,
	BACKEND_MICA,
	BACKEND_SIM,
};
extern const char *const spec_backend_words[];

enum spec_machine { MACHINE_ANY, MACHINE_MICROVM, MACHINE_Q35 };
enum spec_keeper_lost { KEEPER_LOST_STOP, KEEPER_LOST_KEEP };
enum spec_stop_then { STOP_THEN_KILL, STOP_THEN_NOTHING };

struct spec_memory {
	uint64_t size;	 /* bytes, page multiple */
	uint64_t at;	 /* host-physical base wanted */
	uint64_t colors; /* cache colour mask, 0: all */
	char *pool;	 /* NULL: the pool that fits best */
	bool has_at, has_colors;
};

struct spec_device { /* of the platform's; one of the two */
	char *name;
	char *kind; /* any that is free */
};

struct spec_link { /* an end of a link: shared memory with whoever names the same */
	char *name;	/* NULL with host: the slot's, "host-<slot>" */
	uint64_t size;	/* bytes of all of it; !has_size: as it is there, or as the platform has it */
	int64_t peers, role; /* ends that it has at most, 2 if !has_peers; the id of this end, any if !has_role */
	int protocol;	     /* enum link_protocol */
	bool has_size, has_peers, has_role;
	bool host; /* one of the ends is the host's */
};

struct spec {
	char *name;
	int backend; /* enum spec_backend */
	char *criticality;
	struct {
		struct field_blob kernel, initrd, dtb, inmate, firmware;
		char *cmdline;
		uint64_t entry; /* where it begins; has_entry: not where its file says */
		bool has_entry;
		int machine; /* enum spec_machine */
	} boot;
	struct {
		int64_t count;
		struct cpuset set;
		bool has_count, has_set;
	} cpus;
	struct field_array memory; /* struct spec_memory */
	struct field_array devices; /* struct spec_device */
	struct field_array links;   /* struct spec_link */
	struct {
		int64_t count; /* any that are free, or */
		struct field_strings names;
		bool has_count;
	} remote; /* processors */
	uint64_t log_max; /* bytes of console output kept */
	struct {
		int64_t grace_ms;
		int then; /* enum spec_stop_then */
	} stop;
	int keeper_lost; /* enum spec_keeper_lost */
	struct field_strings labels;
};

extern const struct field_table spec_table;

void spec_init(struct spec *s); /* the defaults that are not zero */
void spec_free(struct spec *s);
bool spec_boots(const struct spec *s); /* it names something to run */
/* Reads a spec over its defaults and checks it; what was left open is so still. *s is always freeable. */
int spec_read(const struct json *j, enum field_form form, const char *pointer, struct spec *s, struct phi_error *e);
/* The rules between members; also for a spec that was made by other means than spec_read. */
int spec_check(const struct spec *s, const char *pointer, struct phi_error *e);
/* One region of so many bytes, in place of what there was. */
void spec_set_memory(struct spec *s, uint64_t size);
/* Fills in what was left open by all who may say it (one CPU, 64 MiB), and checks. */
int spec_complete(struct spec *s, const char *pointer, struct phi_error *e);
struct json *spec_to_json(const struct spec *s);
static inline void spec_free_p(struct spec *s)
{
	spec_free(s);
}
#define _clean_spec_ _clean_(spec_free_p)

/* The boot configuration of an image, /boot/config.json: ours ("format": "phid-boot/1", strict) or runPHI's
 * (its fields as runphi_manager 0.5.x reads them; what cannot be honoured is refused by name). */
int spec_read_boot_config(const char *text, size_t len, struct spec *s, struct phi_error *e);
