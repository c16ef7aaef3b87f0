#!/usr/bin/python3
"""Containers that come and go for long, on the stand-in: phid's memory, descriptors, threads and files stay what they were.

    longrun.py [LIVES [CLIENTS]]     1000 and 8; the long form is 100000

A life is a create, a start and a forced delete, each with a key of its own. The first half is the warm-up, with which the end is
compared: where it was long enough to fill what is kept of events and keys, and with them SQLite's caches, memory must be within 1 % and
the database within 5 %. In a shorter run, and with sanitizers, these two are only printed. "ok" and "FAIL" lines, "N passed, N failed"
last."""
import json
import os
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from history import PLATFORM, Connection  # noqa: E402
from phidtest.daemon import Phid, is_instrumented  # noqa: E402

EVENTS_KEPT, KEYS_KEPT = 20000, 50000  # daemon/store_rows.c
THREADS_MAX = 16 + 4  # workers (daemon/jobs.c); the loop, the commit thread, libmicrohttpd's, a sanitizer's
FULL = 40000  # lives, half of which fill both: a life has four events and three keys
passed = failed = 0


def check(name, good, figure):
    global passed, failed
    passed += bool(good)
    failed += not good
    print(f"{'ok  ' if good else 'FAIL'} {name}: {figure}", flush=True)


def live(path, number, lives, errors):
    connection = Connection(path)
    body = json.dumps({"spec": {"cpus": {"count": 1}, "memory": [{"size": 4096}]}})
    try:
        for n in lives:
            for verb, (method, target, text, status) in enumerate((("PUT", "", body, 201), ("POST", "/start", None, 200), ("DELETE", "?force=true", None, 204))):
                connection.request(method, f"/v1/containers/c{number}{target}", text, {"Idempotency-Key": f"{number}-{n}-{verb}"})
                answer = connection.getresponse()
                said = answer.read()
                if answer.status != status:
                    raise RuntimeError(f"{method}{target} of life {n}: {answer.status} {said.decode()[:300]}")
    except Exception as e:  # told, and counted
        errors.append(f"client {number}: {e!r}")


def run(phid, numbers, clients):
    errors = []
    threads = [threading.Thread(target=live, args=(str(phid.socket), n, numbers[n::clients], errors)) for n in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return errors


def figures(phid, client, at_most=0):
    """What phid has, with nothing under way: keepers that were told to go may take a moment for it."""
    proc, until = pathlib.Path(f"/proc/{phid.process.pid}"), time.monotonic() + 20
    while True:
        client.get("/v1/health").expect(200)
        descriptors = len(os.listdir(proc / "fd"))
        if time.monotonic() > until or (not phid.sim.cells() and descriptors <= (at_most or descriptors)):
            break
        time.sleep(0.05)
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    return {"memory_kib": int(status["VmRSS"].split()[0]), "threads": int(status["Threads"]), "descriptors": descriptors,
            "database": (phid.state / "phid.db").stat().st_size, "log": (phid.state / "phid.db-wal").stat().st_size,
            "files": sum(1 for d in (phid.state, phid.runtime) for _ in d.rglob("*"))}


def judge(samples, rows, full):
    warm, last = samples[1], samples[-1]
    for what in ("descriptors", "files"):
        check(f"{what} stay", last[what] == warm[what], f"{warm[what]}, then {last[what]}")
    check("threads are the pool's", last["threads"] <= THREADS_MAX, f"{warm['threads']}, then {last['threads']}")
    check("events and keys are bounded", rows[0] <= EVENTS_KEPT and rows[1] <= KEYS_KEPT, f"{rows[0]} and {rows[1]} rows")
    check("the write-ahead log is bounded", last["log"] <= 16 << 20, f"{last['log']} bytes")
    grown = {what: last[what] / warm[what] - 1 for what in ("memory_kib", "database")}
    for what, bound in (("memory_kib", 0.01), ("database", 0.05)):
        said = f"{warm[what]}, then {last[what]}: {grown[what]:+.2%}"
        if full:
            check(f"{what} stays", grown[what] <= bound, said)
        else:
            print(f"     {what}, not judged: {said}")


def main():
    lives, clients = (int(a) for a in sys.argv[1:] + ["1000", "8"][len(sys.argv) - 1:])
    with Phid(platform=PLATFORM, args=["--log-level", "warning"]) as phid, phid.client() as client:
        begun, errors, samples = time.monotonic(), [], []
        for part in range(3):
            samples.append(figures(phid, client, samples[0]["descriptors"] if samples else 0))
            print(f"{part * lives // 2} lives, {time.monotonic() - begun:.0f} s: {samples[-1]}", flush=True)
            if part < 2:
                errors += run(phid, range(part * lives // 2, (part + 1) * lives // 2), clients)
        check("every life went well", not errors, errors[:1] or f"{lives} lives")
        rows = [phid.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("events", "idempotency")]
        judge(samples, rows, lives >= FULL and not is_instrumented())
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
