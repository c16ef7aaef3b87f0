/* See iomem.h. A line is "BEGIN-END : NAME" in hex, indented by two spaces for each range it is within (kernel/resource.c). */
#include "iomem.h"

#include "clean.h"
#include "error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool parse_line(const char *line, struct iomem_range *ret)
{
	size_t spaces = strspn(line, " "), n;
	int name = 0;

	if (sscanf(line + spaces, "%" SCNx64 "-%" SCNx64 " : %n", &ret->base, &ret->end, &name) != 2 || name == 0 || ret->end < ret->base)
		return false;
	ret->depth = (unsigned)spaces / 2;
	line += spaces + (size_t)name;
	n = strcspn(line, "\n");
	snprintf(ret->name, sizeof(ret->name), "%.*s", (int)(n < sizeof(ret->name) ? n : sizeof(ret->name) - 1), line);
	return true;
}

int iomem_parse(const char *text, struct iomem *ret, struct phi_error *e)
{
	bool shown = false;

	*ret = (struct iomem){0};
	for (const char *line = text; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
		struct iomem_range range, *more;

		if (!parse_line(line, &range))
			continue;
		more = realloc(ret->ranges, (ret->n + 1) * sizeof(*more));
		if (more == NULL)
			abort();
		ret->ranges = more;
		ret->ranges[ret->n++] = range;
		shown = shown || range.end > 0;
	}
	if (ret->n == 0 || shown)
		return 0;
	iomem_free(ret);
	return phi_error_set(e, PHI_INVALID, EACCES, "", "the kernel hides the addresses of /proc/iomem: read it as root");
}

void iomem_free(struct iomem *m)
{
	free(m->ranges);
	*m = (struct iomem){0};
}

const struct iomem_range *iomem_find(const struct iomem *m, const char *name, uint64_t base, uint64_t size)
{
	for (size_t i = 0; i < m->n && size > 0; i++)
		if (m->ranges[i].base <= base + (size - 1) && base <= m->ranges[i].end && strcmp(m->ranges[i].name, name) == 0)
			return &m->ranges[i];
	return NULL;
}
