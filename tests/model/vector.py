"""Who could own what, and when: what the answers say of the allocation vector. An owner has its units surely from the answer to its create
until the first request that may end it; perhaps from the request to the answer of one that surely has. Pure."""
import bisect
import collections

Life = collections.namedtuple("Life", "name cpus surely perhaps")
Seen = collections.namedtuple("Seen", "begin end generation owners")
NEVER = float("inf")


def suffix_min(values):
    least, found = NEVER, []
    for v in reversed(values):
        least = min(least, v)
        found.append(least)
    return found[::-1] + [NEVER]


def lives(log):
    """Each container that was made."""
    found, by_name = [], collections.defaultdict(list)
    for op in log:
        by_name[op.name].append(op)
    for name, ops in by_name.items():
        enders = sorted((op for op in ops if op.verb in ("kill", "delete", "force")), key=lambda op: op.end)
        ends, begins = [op.end for op in enders], suffix_min([op.begin for op in enders])
        done = sorted((op for op in enders if op.status in (200, 204)), key=lambda op: op.begin)
        done_begins, done_ends = [op.begin for op in done], suffix_min([op.end for op in done])
        made = sorted((op for op in ops if op.verb == "put" and op.status == 201), key=lambda op: op.end)
        for op, after in zip(made, made[1:] + [None]):
            gone = min(done_ends[bisect.bisect_right(done_begins, op.end)], after.end if after else NEVER)
            found.append(Life(name, op.cpus, (op.end, begins[bisect.bisect_right(ends, op.begin)]), (op.begin, gone)))
    return found


def overlaps(keyed):
    """Of (key, (from, to)): pairs of one key that meet."""
    wrong, by_key = [], collections.defaultdict(list)
    for key, (begin, end) in keyed:
        if begin < end:
            by_key[key].append((begin, end))
    for key, intervals in by_key.items():
        intervals.sort()
        wrong += [(key, a, b) for a, b in zip(intervals, intervals[1:]) if b[0] < a[1]]
    return wrong


def begun(log):
    """(name, from, to, CPUs) of creates that a delete took away before they were answered: held until that was done."""
    forces = collections.defaultdict(list)
    for op in log:
        if op.verb in ("delete", "force"):
            forces[op.name].append(op)
    return [(op.name, op.begin, max([op.end, *(f.end for f in forces[op.name] if f.begin < op.end and op.begin < f.end)]), op.wanted)
            for op in log if op.verb == "put" and op.code in ("wrong-state", "not-found")]


class Sum:
    """How much could be held at an instant, and the most within a while."""

    def __init__(self, intervals):
        changes = collections.Counter()
        for begin, end, n in intervals:
            changes[begin] += n
            changes[end] -= n
        self.times, self.sums, now = sorted(changes), [], 0
        for t in self.times:
            now += changes[t]
            self.sums.append(now)

    def most(self, begin, end):
        first, behind = bisect.bisect_right(self.times, begin) - 1, bisect.bisect_left(self.times, end)
        return max([0] + self.sums[max(first, 0):behind])


def unexplained_refusals(log, made, cpus):
    """Those at no instant of which so many CPUs could be held that what was wanted did not fit."""
    held = Sum([(*x.perhaps, len(x.cpus)) for x in made] + [x[1:] for x in begun(log)])
    return [(most, op) for op in log if op.code == "no-resources" and (most := held.most(op.begin, op.end)) + op.wanted <= cpus]


def of_two_kinds(seen):
    """Vectors of one generation that differ, and generations that go back."""
    by_generation = {}
    wrong = [(a, b) for a, b in zip(seen, seen[1:]) if b.generation < a.generation]
    return wrong + [(by_generation[s.generation], s.owners) for s in seen if by_generation.setdefault(s.generation, s.owners) != s.owners]


def untrue(seen, log, made):
    """What vectors show of an owner that could not be, or do not show of one that must."""
    wrong, could, taken_away = [], collections.defaultdict(list), collections.defaultdict(list)
    for life in made:
        could[life.name].append(life)
    for name, begin, end, _ in begun(log):
        taken_away[name].append((begin, end))
    for name in could:
        could[name].sort(key=lambda life: life.perhaps)
    starts = {name: [life.perhaps[0] for life in lives_] for name, lives_ in could.items()}
    sure = sorted((life.surely[0], n) for n, life in enumerate(made) if life.surely[0] < life.surely[1])
    active, at = {}, 0
    for s in seen:
        while at < len(sure) and sure[at][0] < s.begin:
            active[sure[at][1]] = made[sure[at][1]]
            at += 1
        active = {n: life for n, life in active.items() if life.surely[1] > s.begin}
        wrong += [("missing", life, s) for life in active.values() if life.surely[1] > s.end and any(s.owners.get(c) != life.name for c in life.cpus)]
        for cpu, owner in s.owners.items():
            behind = bisect.bisect_left(starts.get(owner, []), s.end)
            near = could.get(owner, [])[max(0, behind - 8):behind]  # lives of one name follow one another
            if not any(life.perhaps[1] > s.begin and cpu in life.cpus for life in near) and \
               not any(b < s.end and e > s.begin for b, e in taken_away[owner]):
                wrong.append(("unexplained", cpu, owner, s))
    return wrong
