/* Is the host fit? The facts are read in a job, since files may block; what they mean is pure. */
#pragma once

#include "cpuset.h"
#include "error.h"
#include "iomem.h"
#include "jailhouse/cell.h"

#include <stdbool.h>

struct json;
struct platform;

enum check_answer { CHECK_UNKNOWN = -1, CHECK_NO, CHECK_YES };

struct check_facts {
	struct cpuset online, present, isolated, nohz_full;
	uint64_t memory; /* bytes that Linux has; 0: not known */
	char governor[32];		  /* of the first CPU; "": no frequency scaling */
	enum check_answer rt_group_sched; /* is the kernel built with it */
	enum check_answer ttwu_queue;	  /* does the scheduler queue wake-ups for other CPUs */
	bool preempt_rt;
	struct iomem iomem;
	struct phi_error iomem_error; /* why it could not be read, else PHI_OK */
	/* Of Jailhouse, where the platform speaks of it. */
	bool has_device, has_sysfs, enabled;
	char root_name[JH_NAME_SIZE];	  /* of the root cell that runs; "" */
	enum check_answer remote_of_cells; /* does sysfs show remote processors of cells: Omnivisor's does */
	struct jh_system system;
	bool has_system;
	struct phi_error system_error; /* why it could not be read, else PHI_OK */
};

/* Blocks. root: of the machine's files (hostfiles.h). */
void checks_gather(const struct platform *p, const char *root, struct check_facts *ret);
void checks_free(struct check_facts *f);
/* Adds {name, ok, known, severity, detail, remedy} for each check to the list. */
void checks_judge(const struct platform *p, const struct check_facts *f, struct json *list);
