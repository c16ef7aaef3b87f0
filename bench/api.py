#!/usr/bin/python3
"""phid's API by figures: creates beside an append that is made durable, GETs beside a hello of libmicrohttpd, both under load; growth to
10,000 containers; what phid takes at rest. The backend is the simulator.

    bench/api.py [--rounds N] [--most N] [--json FILE]     PHID_BUILD: a build with --enable-test-hooks, without sanitizers

Ratios are of things measured in turns. Never fails but where a call fails."""
import argparse
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(SOURCE / "tests"), str(SOURCE / "bench")]
from measure import goal, percentile, write  # noqa: E402
from phidtest.daemon import TMP, Phid, build_dir  # noqa: E402

LOAD, HELLO = str(build_dir() / "bench/load"), str(build_dir() / "bench/hello")
CPUS = 4096       # of the platform; phid itself runs on all of the machine
PLATFORM = {"format": "phid-platform/1", "cpus": {"ids": f"0-{CPUS - 1}", "host": f"0-{os.cpu_count() - 1}"},
            "memory": [{"name": "ddr", "kind": "carveout", "base": "0x100000000", "size": "64G"}]}
APPEND = 24 << 10  # bytes: what a create appends to the database's log
LIVE = 3500        # containers with a cell; what there are more is stopped


class Load:
    """bench/load, and what it answers."""

    def __init__(self, socket, method, target, requests, clients=1, body=None, close=False, start=0):
        argv = [LOAD, "--from", str(start)] + ["--close"] * close + (["--body", str(body)] if body else [])
        self.process = subprocess.Popen(argv + [str(socket), method, target, str(requests), str(clients)], stdout=subprocess.PIPE, text=True)

    def result(self, *expected):
        out = self.process.communicate()[0]
        assert self.process.returncode == 0, out
        r = json.loads(out)
        wrong = {s: n for s, n in r["statuses"].items() if int(s) not in expected}
        assert not wrong, f"answers {wrong}"
        return r

    def stop(self, *expected):
        self.process.send_signal(signal.SIGTERM)
        return self.result(*expected)


class Host:
    """A phid with containers c0, c1, ..."""

    def __init__(self, phid):
        self.phid, self.n = phid, 0
        (phid.dir / "body").write_text(json.dumps({"spec": {"backend": "sim", "memory": [{"size": 1 << 20}]}}))

    def put(self, n, clients=1):
        r = Load(self.phid.socket, "PUT", "/v1/containers/c#", n, clients, self.phid.dir / "body", start=self.n)
        self.n += n
        return r

    def delete(self, n, clients=1):
        """The last n."""
        self.n -= n
        return Load(self.phid.socket, "DELETE", "/v1/containers/c#?force=true", n, clients, start=self.n)

    def post(self, verb, n, clients, body=None):
        """The last n."""
        return Load(self.phid.socket, "POST", f"/v1/containers/c#/{verb}", n, clients, body=body, start=self.n - n)

    def get(self, target, n, **rest):
        return Load(self.phid.socket, "GET", target, n, **rest)

    def proc(self, name, key):
        text = pathlib.Path(f"/proc/{self.phid.process.pid}/{name}").read_text()
        return int(next(line for line in text.splitlines() if line.startswith(key + ":")).split()[1])


@contextlib.contextmanager
def host(env=None):
    with Phid(platform=PLATFORM, env=env) as phid:
        h = Host(phid)
        yield h
        h.delete(h.n, 16).result(200, 204) if h.n else None


@contextlib.contextmanager
def hello(dir):
    path = str(dir / "hello")
    server = subprocess.Popen([HELLO, path], stdout=subprocess.PIPE, text=True)
    try:
        server.stdout.readline()
        yield path
    finally:
        server.kill()
        server.wait()


def append_ms(dir, n):
    took = []
    fd = os.open(dir / "append", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    for _ in range(n):
        begin = time.perf_counter()
        os.write(fd, b"x" * APPEND)
        os.fdatasync(fd)
        took.append((time.perf_counter() - begin) * 1000)
    os.close(fd)
    return percentile(took, 50)


def medians(rounds):
    """[{name: figure}] to {name: median}."""
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}


def creates(rounds, tmp):
    print("\ncreate: validate, plan, durable commit, cell of the simulator")
    with host() as h:
        def once():
            r = {"append": append_ms(h.phid.dir, 60), "one": h.put(60).result(201)["p50"] / 1000}
            h.delete(60, 16).result(200, 204)
            one = h.put(60).result(201)
            h.delete(60, 16).result(200, 204)
            many = h.put(640, 64).result(201)
            h.delete(640, 16).result(200, 204)
            return {**r, "rate_1": one["rate"], "rate_64": many["rate"]}
        m = medians([once() for _ in range(rounds)])
    rows = {"append_p50_ms": m["append"], "create_p50_ms": m["one"], "rate_1": m["rate_1"], "rate_64": m["rate_64"]}
    rows["to_append"] = goal("create, p50, to append of 24 KB + fdatasync", m["one"] / m["append"], most=3)
    rows["rate_64_to_1"] = goal("creates a second of 64 clients, to one client's", m["rate_64"] / m["rate_1"], least=4)
    with host(slow_disk(tmp)) as h:
        def once():
            one = h.put(20).result(201)
            h.delete(20, 16).result(200, 204)
            many = h.put(640, 64).result(201)
            h.delete(640, 16).result(200, 204)
            return {"one": one["rate"], "many": many["rate"]}
        m = medians([once() for _ in range(max(rounds // 2, 1))])
    rows["slow_rate_64_to_1"] = goal("the same with 10 ms more in each fdatasync", m["many"] / m["one"], least=16)
    return rows


def slow_disk(tmp):
    so = tmp / "slowsync.so"
    if not so.exists():
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", so, SOURCE / "bench/slowsync.c"], check=True)
    return {"LD_PRELOAD": str(so), "SLOWSYNC_MS": "10"}


def ticks(path, since, until):
    """Lateness (ms) of the timer's ticks between two moments of the monotonic clock."""
    lines = (line.split() for line in pathlib.Path(path).read_text().splitlines()[:-1])  # the last may be half
    return [int(late) / 1000 for when, late in lines if since * 1e6 <= int(when) <= until * 1e6]


def reads(rounds, tmp):
    print("\nGET of a container")
    rows = {}
    file = tmp / "ticks"
    with host({"PHID_TICKS": str(file)}) as h, hello(tmp) as other:
        h.put(1).result(201)

        def once():
            r = {}
            for name, close in (("kept", False), ("new", True)):
                r["hello_" + name] = Load(other, "GET", "/", 2000, close=close).result(200)["p50"]
                r["get_" + name] = h.get("/v1/containers/c0", 2000, close=close).result(200)["p50"]
            return r
        m = medians([once() for _ in range(rounds)])
        rows.update({k + "_p50_us": v for k, v in m.items()})
        rows["get_to_hello"] = goal("kept connection, p50, to a hello of libmicrohttpd", m["get_kept"] / m["hello_kept"], most=2.5)
        rows["get_to_hello_new"] = goal("a connection for each, the same", m["get_new"] / m["hello_new"], most=2.5)
        since = time.monotonic()
        busy = under_writers(h, 1920)
        rows["writers_p50_us"] = busy["p50"]
        rows["writers_p50"] = goal("while 64 clients create, p50, to alone", busy["p50"] / m["get_kept"], most=4)
        until = time.monotonic()
    late = ticks(file, since, until)
    rows["tick_late_p99_ms"] = goal("lateness of phid's 1 ms timer meanwhile, p99, ms", percentile(late, 99), most=5)
    file.unlink()
    with host({**slow_disk(tmp), "PHID_TICKS": str(file)}) as h:
        h.put(1).result(201)
        since = time.monotonic()
        busy = under_writers(h, 1280)
        until = time.monotonic()
    rows["slow_writers_p99_ms"] = goal("while 64 create and fdatasync takes 10 ms more, p99, ms", busy["p99"] / 1000, most=1)
    rows["slow_tick_late_p99_ms"] = goal("lateness of the timer meanwhile, p99, ms", percentile(ticks(file, since, until), 99), most=5)
    return rows


def under_writers(h, creates):
    reader = h.get("/v1/containers/c0", 10_000_000)
    writers = h.put(creates, 64)
    writers.result(201)
    return reader.stop(200)


def fill(h, n):
    """To n containers, of which no more than LIVE have a cell."""
    while h.n < n:
        step = min(n - h.n, 500)
        h.put(step, 32).result(201)
        if h.n > LIVE:
            (h.phid.dir / "kill").write_text('{"signal": 9}')
            h.post("kill", step, 32, h.phid.dir / "kill").result(200, 202)


def growth(rounds, most):
    print(f"\ngrowth: p50 beside a phid that has 10 containers, on {CPUS} CPUs")
    rows = {}
    calls = {"create": lambda h: h.put(30).result(201), "state": lambda h: h.get("/v1/containers/c3", 300).result(200),
             "list": lambda h: h.get("/v1/containers?limit=10", 100).result(200), "delete": lambda h: h.delete(30).result(200, 204)}
    with host() as small, host() as large:
        fill(small, 10)
        for n in [n for n in (100, 1000, 10000) if n <= most]:
            fill(large, n)
            took = {name: ([], []) for name in calls}
            for _ in range(rounds):
                for name, call in calls.items():
                    for h, t in zip((small, large), took[name]):
                        t.append(call(h)["p50"])
            for name, (a, b) in took.items():
                a, b = statistics.median(a), statistics.median(b)
                rows[f"{name}_{n}"] = {"p50_us_10": a, "p50_us": b, "ratio": goal(f"{name}, {n}", b / a, most=2)}
    return rows


def rest():
    print("\nat rest")
    rows = {}
    with host() as h:
        for n in (0, 1000):
            fill(h, n)
            h.phid.stop()
            begin = time.monotonic()
            h.phid.start()
            rows[f"ready_{n}_ms"] = (time.monotonic() - begin) * 1000
            print(f"  start to READY with {n:5} containers, ms {rows[f'ready_{n}_ms']:32.1f}")
            rows[f"rss_{n}_kib"] = h.proc("status", "VmRSS")
            goal(f"resident with {n} containers, MiB", rows[f"rss_{n}_kib"] / 1024, most=16)
            time.sleep(3)  # of what follows a start
            before = wakeups(h), h.proc("io", "write_bytes")
            time.sleep(10)
            rows[f"idle_wakeups_{n}"] = goal(f"wake-ups in 10 s with {n} containers", wakeups(h) - before[0], most=0)
            rows[f"idle_written_{n}"] = goal(f"bytes written in 10 s with {n} containers", h.proc("io", "write_bytes") - before[1], most=0)
        before = h.proc("io", "write_bytes")
        h.put(200).result(201)
        rows["create_written"] = (h.proc("io", "write_bytes") - before) / 200
        print(f"  bytes written to disk for a create {rows['create_written']:34.0f}")
    return rows


def wakeups(h):
    return sum(int(line.split()[1]) for task in pathlib.Path(f"/proc/{h.phid.process.pid}/task").iterdir()
               for line in (task / "status").read_text().splitlines() if line.startswith("voluntary_ctxt_switches"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=int, default=1000, help="containers of the growth's last step; 10000 takes some minutes")
    parser.add_argument("--json")
    parser.add_argument("parts", nargs="*", default=["creates", "reads", "growth", "rest"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="phid-bench-", dir=TMP) as d:
        tmp = pathlib.Path(d)
        parts = {"creates": lambda: creates(args.rounds, tmp), "reads": lambda: reads(args.rounds, tmp),
                 "growth": lambda: growth(args.rounds, args.most), "rest": rest}
        write(args.json, {name: parts[name]() for name in args.parts})


if __name__ == "__main__":
    main()
