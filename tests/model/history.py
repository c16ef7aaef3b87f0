#!/usr/bin/python3
"""Many clients at once on the stand-in, and a model that has to explain what each of them was told.

    history.py [OPERATIONS [CLIENTS]]     3000 and 64; the long form is 1000000

Each client has names of its own, whose answers must be those of one container after another, and four names that all fight for. Checked:
no CPU is two containers' at once; a refusal for want of CPUs comes only when so many could have been held at some instant of it; of the
names that are fought for, no two lives overlap; in the end everything is free. "ok" and "FAIL" lines, "N passed, N failed" last."""
import collections
import http.client
import json
import pathlib
import random
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from phidtest.daemon import Phid  # noqa: E402

CPUS = 16  # one of them is the host's
Op = collections.namedtuple("Op", "begin end verb name status code cpus incarnation wanted")
failed = 0


def check(name, wrong):
    global failed
    failed += bool(wrong)
    print(f"ok   {name}" if not wrong else f"FAIL {name}: {len(wrong)}, as {wrong[0]}", flush=True)


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("phid", timeout=120)
        self.unix = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(self.unix)


def call(connection, log, verb, name, wanted=0):
    method, path, body = {"put": ("PUT", "", {"spec": {"cpus": {"count": wanted}, "memory": [{"size": 4096}]}}), "start": ("POST", "/start", None),
                          "kill": ("POST", "/kill", {"signal": "KILL"}), "delete": ("DELETE", "", None), "force": ("DELETE", "?force=true", None)}[verb]
    begin = time.monotonic()
    connection.request(method, f"/v1/containers/{name}{path}", json.dumps(body) if body else None)
    answer = connection.getresponse()
    text = answer.read()
    document = json.loads(text) if text else {}
    cell = document.get("cell") or {}
    log.append(Op(begin, time.monotonic(), verb, name, answer.status, document.get("code"), tuple(cell.get("cpus", ())), document.get("incarnation"), wanted))
    return log[-1]


def client(path, number, operations, logs, errors):
    rng, connection, log = random.Random(number), Connection(path), logs[number]
    state, wanted = {}, {}
    try:
        while len(log) < operations:
            own = rng.random() < .7
            name = f"c{number}-{rng.randrange(2)}" if own else f"s{rng.randrange(4)}"
            verb = rng.choice(("put", "start", "kill", "delete", "force", "force"))
            op = call(connection, log, verb, name, rng.choice((1, 1, 2, 3)) if verb == "put" else 0)
            if own:
                explain(op, state, wanted, errors)
        for name in [n for n in state if state[n] != "absent"]:
            call(connection, log, "force", name)
    except Exception as e:  # told, and counted
        errors.append(f"client {number}: {e!r}")


def explain(op, state, wanted, errors):
    """What one client alone with its name must be told (api/lifecycle.c)."""
    now = state.get(op.name, "absent")
    allowed = {
        ("put", "absent"): {(201, None): "created", (409, "no-resources"): "absent"},
        ("start", "created"): {(200, None): "running"}, ("kill", "created"): {(200, None): "stopped"}, ("kill", "running"): {(200, None): "stopped"},
        ("delete", "stopped"): {(204, None): "absent"}, ("force", "stopped"): {(204, None): "absent"}, ("force", "created"): {(204, None): "absent"},
        ("force", "running"): {(204, None): "absent"},
    }.get((op.verb, now))
    if allowed is None:
        if op.verb == "put":
            allowed = {(200, None): now} if op.wanted == wanted[op.name] else {(409, "exists"): now}
        elif now == "absent":
            allowed = {(404, "not-found"): now}
        else:
            allowed = {(409, "wrong-state"): now}
    if (op.status, op.code) not in allowed:
        errors.append(f"{op.verb} of {now}: {op}")
        return
    state[op.name] = allowed[op.status, op.code]
    if op.verb == "put" and op.status == 201:
        wanted[op.name] = op.wanted


def lives(log):
    """(name, CPUs, surely from, surely to, perhaps from, perhaps to) of each container that was made."""
    found, by_name = [], collections.defaultdict(list)
    for op in log:
        by_name[op.name].append(op)
    for name, ops in by_name.items():
        ends = [op for op in ops if op.verb in ("kill", "delete", "force")]
        for made in (op for op in ops if op.verb == "put" and op.status == 201):
            after = [op for op in ends if op.end > made.begin]
            done = [op.end for op in after if op.status in (200, 204)]
            found.append((name, made.cpus, made.end, min((op.begin for op in after), default=float("inf")), made.begin,
                          min((end for end in done if end > made.end), default=float("inf"))))
    return found


def overlaps(intervals):
    """Of (key, from, to): pairs of one key that meet."""
    wrong, by_key = [], collections.defaultdict(list)
    for key, begin, end in intervals:
        if begin < end:
            by_key[key].append((begin, end))
    for key, list_ in by_key.items():
        list_.sort()
        wrong += [(key, a, b) for a, b in zip(list_, list_[1:]) if b[0] < a[1]]
    return wrong


def unexplained_refusals(log, made):
    """Those at whose time the CPUs that others may have held were too few to refuse."""
    wrong, held = [], [(x[4], x[5], len(x[1])) for x in made]
    # A create that a forced delete superseded held its CPUs until that was done.
    for op in (o for o in log if o.verb == "put" and o.code == "wrong-state"):
        held.append((op.begin, max([op.end, *(o.end for o in log if o.name == op.name and o.verb == "force" and o.begin < op.end < o.end)]), op.wanted))
    for op in (o for o in log if o.code == "no-resources"):
        most = sum(n for begin, end, n in held if begin < op.end and end > op.begin)
        if most + op.wanted <= CPUS - 1:
            wrong.append((most, op))
    return wrong


def main():
    operations, clients = (int(a) for a in (sys.argv[1:] + ["3000", "64"])[:2]) if len(sys.argv) != 2 else (int(sys.argv[1]), 64)
    platform = {"format": "phid-platform/1", "cpus": {"ids": f"0-{CPUS - 1}", "host": "0"}, "memory": [{"name": "host", "kind": "host", "size": "1G"}]}
    with Phid(platform=platform) as phid:
        logs, errors = [[] for _ in range(clients)], []
        threads = [threading.Thread(target=client, args=(str(phid.socket), n, max(1, operations // clients), logs, errors)) for n in range(clients)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        last = Connection(str(phid.socket))
        for n in range(4):
            call(last, logs[0], "force", f"s{n}")
        log = [op for one in logs for op in one]
        made = lives(log)
        print(f"{len(log)} operations, {len(made)} containers, {sum(o.code == 'no-resources' for o in log)} refusals", flush=True)
        check("each answer about a name of one client is a container's, step by step", errors)
        check("no CPU is two containers' at once", overlaps((cpu, x[2], x[3]) for x in made for cpu in x[1]))
        check("no two lives of one name at once", overlaps((x[0], x[2], x[3]) for x in made))
        check("a refusal comes only when so much could be held", unexplained_refusals(log, made))
        check("no answer is an error of phid", [op for op in log if op.status >= 500])
        vector = phid.client().get("/v1/allocations").json
        check("in the end everything is free", [c for c in vector["cpus"] if c["state"] not in ("free", "host")] + vector["memory"] + phid.sim.cells())
        for c in phid.client().containers():
            phid.client().delete(c["id"], force=True)
    print(f"{6 - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
