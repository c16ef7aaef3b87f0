#!/usr/bin/python3
"""Many clients at once on the stand-in, and a model that has to explain what each of them was told (linearize.py, vector.py).

    history.py [OPERATIONS [CLIENTS]]     3000 and 64; the long form is 1000000

Each client has two names of its own, and all fight for four; an observer reads the allocation vector meanwhile. Checked: the answers about
each name are those of one container in some order that respects time; no unit is two containers' at once; a refusal comes only when so
much could be held at some instant of it; each vector that was seen is one of its generation, and shows who could be, and who must be, an
owner; in the end everything is free. "ok" and "FAIL" lines, "N passed, N failed" last."""
import http.client
import json
import pathlib
import random
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import linearize  # noqa: E402
import vector  # noqa: E402
from phidtest.daemon import Phid  # noqa: E402

CPUS = 129  # one of them is the host's
PLATFORM = {"format": "phid-platform/1", "cpus": {"ids": f"0-{CPUS - 1}", "host": "0"}, "memory": [{"name": "host", "kind": "host", "size": "1G"}]}
REQUEST = {"put": ("PUT", ""), "start": ("POST", "/start"), "kill": ("POST", "/kill"), "delete": ("DELETE", ""), "force": ("DELETE", "?force=true")}
# What a client tries for most of the time, by what it was told last; else anything.
LIKELY = {"absent": ("put",), "created": ("start", "start", "kill", "force"), "running": ("kill", "force"), "stopped": ("delete", "force")}
AFTER = {"put": "created", "start": "running", "kill": "stopped", "delete": "absent", "force": "absent"}
passed = failed = 0


def check(name, wrong):
    global passed, failed
    passed += not wrong
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

    def ask(self, method, path, body=None):
        """(begin, end, status, document)"""
        begin = time.monotonic()
        self.request(method, path, json.dumps(body) if body else None)
        answer = self.getresponse()
        text = answer.read()
        return begin, time.monotonic(), answer.status, json.loads(text) if text else {}


def call(connection, verb, name, wanted=0):
    body = {"put": {"spec": {"cpus": {"count": wanted}, "memory": [{"size": 4096}]}}, "kill": {"signal": "KILL"}}.get(verb)
    method, path = REQUEST[verb]
    begin, end, status, document = connection.ask(method, f"/v1/containers/{name}{path}", body)
    cpus = (document.get("cell") or {}).get("cpus", ())
    return linearize.Op(begin, end, verb, name, status, document.get("code"), tuple(cpus), document.get("incarnation"), wanted)


def client(path, number, operations, log, errors):
    rng, connection, guess = random.Random(number), Connection(path), {}
    try:
        while len(log) < operations:
            name = f"c{number}-{rng.randrange(2)}" if rng.random() < .7 else f"s{rng.randrange(4)}"
            verb = rng.choice(LIKELY[guess.get(name, "absent")] if rng.random() < .8 else tuple(REQUEST))
            op = call(connection, verb, name, rng.choice((1, 1, 2, 3)) if verb == "put" else 0)
            log.append(op)
            if op.status in (200, 201, 204):
                guess[name] = AFTER[verb]
            elif op.status == 404:
                guess[name] = "absent"
            elif op.code in ("wrong-state", "exists"):
                guess[name] = rng.choice(tuple(LIKELY))
        for name in [n for n in guess if n[0] == "c"]:
            log.append(call(connection, "force", name))
    except Exception as e:  # told, and counted
        errors.append(f"client {number}: {e!r}")


def observe(path, stop, seen, errors):
    connection = Connection(path)
    try:
        while not stop.wait(0.005):
            begin, end, _, v = connection.ask("GET", "/v1/allocations")
            seen.append(vector.Seen(begin, end, v["generation"], {c["id"]: c["owner"] for c in v["cpus"] if c["state"] not in ("free", "host")}))
    except Exception as e:
        errors.append(f"observer: {e!r}")


def play(phid, operations, clients):
    """(the operations, the vectors seen, what broke)"""
    logs, seen, errors, stop = [[] for _ in range(clients)], [], [], threading.Event()
    path = str(phid.socket)
    observer = threading.Thread(target=observe, args=(path, stop, seen, errors))
    threads = [threading.Thread(target=client, args=(path, n, max(1, operations // clients), logs[n], errors)) for n in range(clients)]
    for t in (observer, *threads):
        t.start()
    for t in threads:
        t.join()
    stop.set()
    observer.join()
    last = Connection(path)
    return [op for one in logs for op in one] + [call(last, "force", f"s{n}") for n in range(4)], seen, errors


def show_around(log, wrong):
    """What met an answer that nothing explains, or was close: milliseconds from its beginning."""
    for w in wrong:
        for op in sorted(op for op in log if op.name == w.name and op.end > w.begin - 0.3 and op.begin < w.end + 0.1):
            print(f"     {(op.begin - w.begin) * 1000:9.2f} {(op.end - w.begin) * 1000:9.2f} {op.verb:6} {op.status} {op.code or ''} {op.incarnation or ''} "
                  f"{op.wanted}{'  <-' if op is w else ''}")


def main():
    operations, clients = (int(a) for a in sys.argv[1:] + ["3000", "64"][len(sys.argv) - 1:])
    with Phid(platform=PLATFORM) as phid:
        begun = time.monotonic()
        log, seen, errors = play(phid, operations, clients)
        took, made = time.monotonic() - begun, vector.lives(log)
        print(f"{len(log)} operations in {took:.0f} s, {len(made)} containers, {sum(o.code == 'no-resources' for o in log)} refusals, "
              f"{sum(o.code == 'busy' for o in log)} busy, {len(seen)} vectors of {len({s.generation for s in seen})} generations", flush=True)
        check("every client was answered", errors)
        check("no answer is an error of phid", [op for op in log if op.status >= 500])
        wrong = linearize.unexplained(log)
        check("the answers about each name are those of one container, in some order", wrong)
        show_around(log, wrong)
        check("no CPU is two containers' at once", vector.overlaps((cpu, x.surely) for x in made for cpu in x.cpus))
        check("no two lives of one name at once", vector.overlaps((x.name, x.surely) for x in made))
        check("a refusal comes only when so much could be held", vector.unexplained_refusals(log, made, CPUS - 1))
        check("each vector is that of its generation", vector.of_two_kinds(seen))
        check("each owner that a vector shows could be it, and none is missing", vector.untrue(seen, log, made))
        end = phid.client().get("/v1/allocations").json
        check("in the end everything is free", [c for c in end["cpus"] if c["state"] not in ("free", "host")] + end["memory"] + phid.sim.cells())
        phid.delete_all(phid.client())
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
