"""Are the answers about a name those of one container, one after another in some order that respects time?

The search goes through beginnings and ends of operations in time and keeps every state that the container could be in, each with the
operations under way that have happened in it already. An end that none of them explains is an answer without an explanation. Pure."""
import collections

Op = collections.namedtuple("Op", "begin end verb name status code cpus incarnation wanted")

CONFIGURATIONS_MAX = 100000  # more of them at once: the search gives up, and says so
EFFECTS = {("start", "created"): "running", ("kill", "created"): "stopped", ("kill", "running"): "stopped", ("delete", "stopped"): "absent"}
REFUSED = {"start": ("running", "stopped"), "kill": ("stopped",), "delete": ("created", "running", "doomed")}  # api/lifecycle.c

# What a container can be: its state, the number of CPUs it was made with, and which forced deletes under way may have joined one that
# has happened, or found that it had.
State = collections.namedtuple("State", "state wanted joined")


def refusal_holds(op, s, meets):
    """Is it an answer that changes nothing and that this state gives? meets: what others did that met it in time."""
    if op.status == 404:
        return s.state == "absent" and op.verb != "put"
    if op.code == "busy":
        return "worked" in meets and op.verb != "force"
    if op.code == "no-resources":
        return s.state == "absent"
    if op.code == "exists":
        return s.state != "absent" and s.wanted != op.wanted
    if op.code == "wrong-state":
        return s.state in REFUSED.get(op.verb, ())
    return op.verb == "put" and op.status == 200 and s.state != "absent" and s.wanted == op.wanted


def is_superseded(op, meets):
    """A delete came in between. It may have changed something, which others could see until that was done."""
    return "removed" in meets and (op.code == "wrong-state" or (op.verb == "put" and op.status == 404))


def is_refusal(op, meets):
    """Does it surely change nothing?"""
    return (op.status >= 400 and not is_superseded(op, meets)) or (op.verb == "put" and op.status == 200)


def effects(number, op, s, under_way):
    """The states after it, if it changed something; under_way: numbers of forced deletes that are."""
    if op.verb == "put":
        if s.state == "absent":  # doomed: there for a forced delete to take away, and for others to see: made, perhaps
            yield State("doomed" if op.code == "wrong-state" else "created", op.wanted, s.joined - {number})
    elif op.verb == "force":
        if s.state != "absent":
            yield State("absent", 0, (s.joined | under_way) - {number})
        if number in s.joined:
            yield s._replace(joined=s.joined - {number})
    elif (op.verb, s.state) in EFFECTS:
        after = EFFECTS[op.verb, s.state]
        yield s._replace(state=after, joined=s.joined | under_way) if after == "absent" else s._replace(state=after)


def close(configurations, open_ops, target, meets):
    """Every configuration that is reached by operations under way until the target has happened, without the target."""
    reached, todo, seen = set(), list(configurations), set()
    forces = frozenset(n for n, op in open_ops.items() if op.verb == "force" and op.status == 204)
    while todo:
        s, happened = todo.pop()
        if (s, happened) in seen:
            continue
        seen.add((s, happened))
        if len(seen) > CONFIGURATIONS_MAX:
            raise OverflowError("too many orders")
        # What changes nothing is best told at once: it takes no possibility away.
        happened |= {n for n, op in open_ops.items() if n not in happened and is_refusal(op, meets[n]) and refusal_holds(op, s, meets[n])}
        if target in happened:
            reached.add((s, happened - {target}))
            continue
        if is_superseded(open_ops[target], meets[target]):
            reached.add((s, happened))  # before it did anything
        for n, op in open_ops.items():
            if n not in happened and not is_refusal(op, meets[n]):
                todo += [(after, happened | {n}) for after in effects(n, op, s, forces - happened)]
    return reached


def meetings(ops):
    """For each operation the numbers of those that met it in time."""
    met, now = [[] for _ in ops], set()
    for _, begins, n in sorted([(op.begin, 1, n) for n, op in enumerate(ops)] + [(op.end, 0, n) for n, op in enumerate(ops)]):
        if not begins:
            now.discard(n)
            continue
        for other in now:
            met[n].append(other)
            met[other].append(n)
        now.add(n)
    return met


def unexplained_of(ops):
    """The first answer about one name that no order explains, or None."""
    met = meetings(ops)
    meets = [{"removed"} if any(ops[o].status == 204 for o in others) else set() for others in met]
    # What was superseded is answered at once; what it did is seen until the forced delete is done.
    until = [max([op.end] + [ops[o].end for o in others if ops[o].status == 204]) if is_superseded(op, m) else op.end
             for op, m, others in zip(ops, meets, met)]
    for n, others in enumerate(meetings([op._replace(end=end) for op, end in zip(ops, until)])):
        if any(not is_refusal(ops[o], meets[o]) for o in others):
            meets[n].add("worked")
    configurations, open_ops = {(State("absent", 0, frozenset()), frozenset())}, {}
    for _, ends, n in sorted([(op.begin, 0, n) for n, op in enumerate(ops)] + [(end, 1, n) for n, end in enumerate(until)]):
        if not ends:
            open_ops[n] = ops[n]
            continue
        configurations = close(configurations, open_ops, n, meets)
        del open_ops[n]
        if not configurations:
            return ops[n]
    return None


def unexplained(log):
    by_name = collections.defaultdict(list)
    for op in log:
        by_name[op.name].append(op)
    return [wrong for ops in by_name.values() if (wrong := unexplained_of(ops)) is not None]
