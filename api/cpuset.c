/* CPU sets. Pure, but for cpuset_apply. */
#include "cpuset.h"

#include "error.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

void cpuset_add(struct cpuset *s, unsigned cpu)
{
	s->bits[cpu / 64] |= UINT64_C(1) << cpu % 64;
}

void cpuset_remove(struct cpuset *s, unsigned cpu)
{
	s->bits[cpu / 64] &= ~(UINT64_C(1) << cpu % 64);
}

bool cpuset_equal(const struct cpuset *a, const struct cpuset *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

bool cpuset_has(const struct cpuset *s, unsigned cpu)
{
	return cpu < PHI_CPUS_MAX && (s->bits[cpu / 64] >> cpu % 64 & 1);
}

unsigned cpuset_count(const struct cpuset *s)
{
	unsigned n = 0;

	for (size_t i = 0; i < PHI_CPUS_MAX / 64; i++)
		n += (unsigned)__builtin_popcountll(s->bits[i]);
	return n;
}

int cpuset_next(const struct cpuset *s, unsigned from)
{
	for (unsigned c = from; c < PHI_CPUS_MAX; c++)
		if (cpuset_has(s, c))
			return (int)c;
	return -1;
}

bool cpuset_meets(const struct cpuset *a, const struct cpuset *b)
{
	for (size_t i = 0; i < PHI_CPUS_MAX / 64; i++)
		if (a->bits[i] & b->bits[i])
			return true;
	return false;
}

/* Reads a decimal CPU number at *p and moves behind it; -1 if there is none or it is too large. */
static int parse_cpu(const char **p)
{
	int v = 0;

	if (**p < '0' || **p > '9')
		return -1;
	for (; **p >= '0' && **p <= '9'; (*p)++) {
		v = v * 10 + (**p - '0');
		if (v >= PHI_CPUS_MAX)
			return -1;
	}
	return v;
}

int cpuset_parse(const char *text, const char *pointer, struct cpuset *ret_s, struct phi_error *e)
{
	struct cpuset s = {0};
	const char *p = text;

	while (*p != '\0') {
		int first = parse_cpu(&p), last = first;

		if (first >= 0 && *p == '-') {
			p++;
			last = parse_cpu(&p);
		}
		if (first < 0 || last < first || (*p != ',' && *p != '\0') || (*p == ',' && p[1] == '\0'))
			return phi_error_set(e, PHI_INVALID, EINVAL, pointer,
					     "\"%.60s\" is not a list of CPUs like \"0,2-3\" with numbers below %d",
					     text, PHI_CPUS_MAX);
		for (int c = first; c <= last; c++)
			cpuset_add(&s, (unsigned)c);
		if (*p == ',')
			p++;
	}
	*ret_s = s;
	return 0;
}

size_t cpuset_format(const struct cpuset *s, char *buf, size_t size)
{
	size_t n = 0;

	buf[0] = '\0';
	for (int c = cpuset_next(s, 0); c >= 0;) {
		int last = c, w;

		while (cpuset_has(s, (unsigned)last + 1))
			last++;
		w = last == c ? snprintf(buf + n, size - n, "%s%d", n ? "," : "", c)
			      : snprintf(buf + n, size - n, "%s%d-%d", n ? "," : "", c, last);
		if (w < 0 || (size_t)w >= size - n) {
			buf[n] = '\0'; /* half a number would be another CPU */
			break;
		}
		n += (size_t)w;
		c = cpuset_next(s, (unsigned)last + 1);
	}
	return n;
}

int cpuset_apply(pid_t tid, const struct cpuset *s)
{
	/* The kernel's mask has words of a long, ours of 64 bits: the same bytes on a machine of 64 bits or of little endian. */
	return sched_setaffinity(tid, sizeof(s->bits), (const cpu_set_t *)s->bits) < 0 ? -errno : 0;
}
