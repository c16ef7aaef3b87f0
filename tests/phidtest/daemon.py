"""A phid of the test's own: private directories and socket, a stand-in hypervisor, nothing left behind."""
import contextlib
import ctypes
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time

from .client import Client
from .openapi import ROOT

PR_SET_CHILD_SUBREAPER = 36
READY_S = 60  # a bound against hanging for ever, not a promise
SANITIZER_WORDS = ("AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "runtime error:", "UndefinedBehaviorSanitizer", "SUMMARY:")

# 16 CPUs to grant whose numbers are none of this machine's host CPUs, so that no test depends on the machine.
PLATFORM = {
    "format": "phid-platform/1",
    "board": "test",
    "cpus": {"ids": "0-16", "host": "0", "topology": [{"id": i, "core": i} for i in range(17)]},
    "memory": [
        {"name": "carve", "kind": "carveout", "base": "0x100000000", "size": "4G"},
        {"name": "host", "kind": "host", "size": "8G"},
    ],
}

TMP = os.environ.get("PHID_TEST_DIR", "/tmp")  # where each phid has its files


def build_dir():
    """PHID_BUILD, else build-san below the sources, else the sources."""
    named = os.environ.get("PHID_BUILD")
    for d in [pathlib.Path(named)] if named else [ROOT / "build-san", ROOT]:
        if (d / "daemon" / "phid").exists():
            return d.resolve()
    raise RuntimeError(f"no phid in {named or 'build-san or the source tree'}: build it, or set PHID_BUILD")


def is_instrumented(*marks):
    """Does the build's phid carry one of these (a sanitizer, or counters of coverage)? It is slow then, and large."""
    program = (build_dir() / "daemon" / "phid").read_bytes()
    return any(mark in program for mark in marks or (b"__asan_init", b"__tsan_init", b"__gcov_init"))


def become_subreaper():
    """Keepers and the stand-in reparent to the test, which reaps them."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def process_alive(pid):
    """Is it there, and not a zombie?"""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def await_gone(pid, seconds=20):
    """Until the process is gone. It is reaped if it is our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready = select.select([fd], [], [], seconds)[0]
    finally:
        os.close(fd)
    assert ready, f"process {pid} is there still"
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def kill_and_await(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    await_gone(pid)


class Sim:
    """phid-sim's own socket: statistics and faults."""

    def __init__(self, path):
        self.path = str(path)

    def ctl(self, request):
        """Sends a request without its number; answers a dict of what came. Raises what the stand-in refused."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(20)
            s.connect(self.path)
            s.send(("1 " + request).encode())
            words = s.recv(4096).decode().split(" ")
        assert words[0] == "1", words
        if words[1] != "ok":
            raise RuntimeError(f"phid-sim: {request}: {' '.join(words[1:])}")
        return dict(w.partition("=")[::2] for w in words[2:])

    def stat(self):
        return {k: int(v) for k, v in self.ctl("stat").items()}

    def cells(self):
        names, after = [], ""
        while True:
            page = self.ctl("list" + after)
            names += [n for n in page["cells"].split(",") if n]
            if page["more"] != "1":
                return names
            after = " after=" + names[-1]

    def fault(self, verb, kind, ms=None, errno=None, count=None):
        words = [f"fault {verb} kind={kind}"]
        words += [f"{k}={v}" for k, v in (("ms", ms), ("errno", errno), ("count", count)) if v is not None]
        self.ctl(" ".join(words))

    def clear(self):
        self.ctl("fault clear")


class Phid:
    """Started by start() (or `with`); stop() checks that it ended well; close() takes everything away."""

    def __init__(self, backends=("sim",), platform=PLATFORM, args=(), env=None):
        become_subreaper()
        self.backends, self.platform, self.args = backends, platform, list(args)
        self.build = build_dir()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="phid-", dir=TMP))
        os.chmod(self.dir, 0o755)  # another user reaches the socket
        self.socket, self.state, self.runtime = self.dir / "s", self.dir / "state", self.dir / "run"
        self.mark = f"PHIDTEST={self.dir}"
        self.env = {k: v for k, v in os.environ.items()
                    if k not in ("JOURNAL_STREAM", "INVOCATION_ID", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")}
        self.env["PHIDTEST"] = str(self.dir)
        self.env["ASAN_OPTIONS"] = f"log_path={self.dir}/san:detect_leaks=1:handle_abort=1:detect_stack_use_after_return=1"
        self.env["TSAN_OPTIONS"] = f"log_path={self.dir}/san:second_deadlock_stack=1"
        self.env["UBSAN_OPTIONS"] = f"log_path={self.dir}/san:print_stacktrace=1"
        self.env.update(env or {})
        self.process = None
        self.starts = 0
        self.told = ""  # reports that stop() has raised already
        self.clients = []
        self.sim = Sim(self.runtime / "sim.sock")

    # ---- beginning and end ----

    def argv(self):
        argv = [str(self.build / "daemon" / "phid"), "--socket", str(self.socket), "--state-dir", str(self.state),
                "--runtime-dir", str(self.runtime)]
        if self.platform is not None:
            file = self.dir / "platform.json"
            file.write_text(json.dumps(self.platform))
            argv += ["--platform", str(file)]
        for b in self.backends:
            argv += ["--backend", b]
        return argv + self.args

    def start(self):
        """Returns when it says READY=1, which is when its socket answers."""
        assert self.process is None
        self.starts += 1
        notify = self.dir / "notify"
        with contextlib.suppress(FileNotFoundError):
            notify.unlink()
        self.log_path = self.dir / f"log{self.starts}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open(self.log_path, "wb") as log:
            ready.bind(str(notify))
            notify.chmod(0o777)
            self.process = subprocess.Popen(self.argv(), env={**self.env, "NOTIFY_SOCKET": str(notify)}, stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL, cwd="/", start_new_session=True)
            pidfd = os.pidfd_open(self.process.pid)
            try:
                until = time.monotonic() + READY_S
                while True:
                    got = select.select([ready, pidfd], [], [], max(0, until - time.monotonic()))[0]
                    if ready in got:
                        if b"READY=1" in ready.recv(4096):
                            break
                        continue
                    why = f"phid ended with {self.process.wait()}" if got else "phid does not get ready"
                    self.kill9()
                    raise AssertionError(f"{why}\n{self.log()}{self.sanitizer_reports()}")
            finally:
                os.close(pidfd)
        return self

    def __enter__(self):
        try:
            return self.start() if self.process is None else self
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind, *_):
        try:
            if self.process is not None and kind is None:
                self.stop()
        finally:
            self.close()

    def stop(self, seconds=30):
        """SIGTERM; it ends well, and says nothing of a sanitizer."""
        process, self.process = self.process, None
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"phid does not stop on SIGTERM\n{self.log()}") from None
        reports = self.told = self.sanitizer_reports()
        assert status == 0 and not reports, f"phid ended with {status}\n{reports}\n{self.log()[-4000:]}"

    def kill9(self):
        process, self.process = self.process, None
        process.kill()
        process.wait()

    def restart(self):
        self.stop()
        return self.start()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def log(self):
        return "".join(f"--- {p.name}\n" + p.read_text(errors="replace") for p in sorted(self.dir.glob("log*")))

    def sanitizer_reports(self):
        """What ASan, LSan and UBSan of any process of ours reported; not what they say of themselves."""
        texts = [(p.name, p.read_text(errors="replace")) for p in sorted(self.dir.glob("san.*"))]
        text = "".join(f"--- {name}\n{t}" for name, t in texts if any(w in t for w in SANITIZER_WORDS))
        lines = [line for line in self.log().splitlines() if any(w in line for w in SANITIZER_WORDS)]
        return text + "\n".join(lines)

    def processes(self):
        """Pids of what runs with our mark in its environment or our directory in its arguments."""
        mine, found = os.getpid(), []
        for d in os.listdir("/proc"):
            if not d.isdigit() or int(d) == mine:
                continue
            try:
                environ = pathlib.Path(f"/proc/{d}/environ").read_bytes().split(b"\0")
                cmdline = pathlib.Path(f"/proc/{d}/cmdline").read_bytes()
            except OSError:
                continue
            if self.mark.encode() in environ or (str(self.dir) + "/").encode() in cmdline:
                found.append(int(d))
        return found

    def close(self):
        """Ends what is left of ours, reaps it, removes the directory. Fails if a sanitizer spoke meanwhile."""
        for c in self.clients:
            c.close()
        if self.process is not None and is_instrumented(b"__gcov_init"):
            with contextlib.suppress(AssertionError):
                self.stop()  # by SIGKILL its counters would be lost
        if self.process is not None:
            self.kill9()
        with contextlib.suppress(OSError, RuntimeError):
            self.sim.ctl("quit")
        # A keeper without its cell ends by itself soon; one that does not is killed.
        for pid in self.processes():
            kill_and_await(pid)
        reports = self.sanitizer_reports()
        self.reap()
        if os.environ.get("PHIDTEST_KEEP"):
            print(f"kept: {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        assert reports == self.told, reports
        assert not self.processes()

    @staticmethod
    def reap():
        """Zombies that reparented to us; not the children that somebody waits for."""
        for pid in children():
            try:
                text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
                if text.rpartition(")")[2].split()[0] == "Z" and pid not in _awaited():
                    os.waitpid(pid, os.WNOHANG)
            except (OSError, ChildProcessError):
                continue

    # ---- looking at it ----

    def client(self, timeout=90):
        c = Client(str(self.socket), timeout)
        self.clients.append(c)
        return c

    @contextlib.contextmanager
    def database(self):
        db = sqlite3.connect(f"file:{self.state}/phid.db?mode=ro", uri=True, timeout=20)
        try:
            yield db
        finally:
            db.close()

    def rows(self, sql, *args):
        with self.database() as db:
            return db.execute(sql, args).fetchall()

    def leftovers(self, client):
        """What must be equal before and after something that changes nothing: records, vector, cells, directories."""
        allocations = client.get("/v1/allocations").expect(200).json
        allocations.pop("generation")
        cells = self.state / "cells"
        return {
            "allocations": allocations,
            "records": self.rows("SELECT row, id, incarnation, state FROM containers ORDER BY row"),
            "cpu_grants": self.rows("SELECT cpu, row, state FROM cpu_grants ORDER BY cpu"),
            "memory_grants": self.rows("SELECT row, pool, base, size FROM memory_grants ORDER BY number"),
            "cells": sorted(self.sim.cells()) if "sim" in self.backends else None,
            "directories": sorted(p.name for p in cells.iterdir()) if cells.exists() else [],
        }

    def delete_all(self, client):
        for c in client.containers():
            client.delete(c["id"], force=True).expect(204)


def _awaited():
    return {p.pid for p in subprocess._active if p is not None}


def children():
    mine = os.getpid()
    pids = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{mine}/task/{task}/children").read_text()
            pids.update(map(int, text.split()))
    return pids
