/* events: the cell's statistics, in the form of runc 1.1 (types/events.go of runc names the members). */
#include "runphi.h"

#include "clean.h"
#include "json.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <time.h>

static void copy_number(struct json *to, const char *name, const struct json *object, const char *member)
{
	int64_t n = 0;

	json_integer(json_get(object, member), &n);
	json_add_integer(to, name, n);
}

static void print_stats(const char *id, const struct json *stats)
{
	_clean_json_ struct json *j = json_object();
	_clean_free_ char *text = NULL;
	const struct json *cpu = json_get(stats, "cpu"), *memory = json_get(stats, "memory");
	struct json *data, *usage;

	json_add_string(j, "type", "stats");
	json_add_string(j, "id", id);
	data = json_add_object(j, "data");
	usage = json_add_object(json_add_object(data, "cpu"), "usage");
	copy_number(usage, "total", cpu, "total_ns");
	copy_number(usage, "kernel", cpu, "system_ns");
	copy_number(usage, "user", cpu, "user_ns");
	usage = json_add_object(json_add_object(data, "memory"), "usage");
	copy_number(usage, "limit", memory, "granted");
	copy_number(usage, "usage", memory, "resident");
	copy_number(json_add_object(data, "pids"), "current", stats, "threads");
	text = json_print(j);
	puts(text);
	fflush(stdout);
}

/* "5s", "500ms", "1m30s": what Go's time.ParseDuration reads of them. */
static int read_interval(const char *text, struct timespec *ret, struct phi_error *e)
{
	static const struct {
		const char *unit;
		double seconds;
	} units[] = {{"ms", 1e-3}, {"h", 3600}, {"m", 60}, {"s", 1}};
	double sum = 0;

	for (const char *p = text; *p != '\0';) {
		char *end;
		double n = isdigit((unsigned char)*p) ? strtod(p, &end) : -1;
		size_t i = 0;

		while (n >= 0 && i < PHI_COUNT(units) && strncmp(end, units[i].unit, strlen(units[i].unit)) != 0)
			i++;
		if (n < 0 || i == PHI_COUNT(units)) {
			sum = -1;
			break;
		}
		sum += n * units[i].seconds;
		p = end + strlen(units[i].unit);
	}
	if (sum < 1e-3 || sum > 86400)
		return phi_error_set(e, PHI_INVALID, EINVAL, "/interval", "\"%.40s\" is not a duration from 1ms to 24h, like \"5s\"", text);
	ret->tv_sec = (time_t)sum;
	ret->tv_nsec = (long)((sum - (double)ret->tv_sec) * 1e9);
	return 0;
}

/* Once with --stats, else at each interval until the cell has ended. */
int verb_events(const struct invocation *v, const struct marker *m, struct phi_error *e)
{
	struct timespec interval;
	int r = read_interval(v->interval != NULL ? v->interval : "5s", &interval, e);

	for (bool first = true; r == 0; first = false) {
		_clean_json_ struct json *stats = NULL;
		_clean_free_ char *body = NULL;

		r = request(v, m, "GET", "/stats", NULL, &body, e);
		if (r < 0 && !first && (e->code == PHI_STATE || e->code == PHI_NOT_FOUND))
			return 0;
		if (r == 0)
			r = json_parse(body, strlen(body), &stats, e);
		if (r == 0)
			print_stats(v->words[0], stats);
		if (v->stats)
			break;
		if (r == 0)
			nanosleep(&interval, NULL);
	}
	return r;
}
