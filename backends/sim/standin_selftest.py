#!/usr/bin/python3
"""standin_selftest.py [PHID-SIM]: drives a real phid-sim (a stand-in, not a hypervisor) over its socket.

Without an argument it builds one with sanitizers from the sources beside it. Each test has a phid-sim of its own, which
must end with 0 and say nothing more than its first line; what a sanitizer finds fails the test it happened in.
"""
import contextlib
import ctypes
import os
import pathlib
import random
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = ["standin.c", "standin_loop.c", "standin_cells.c", "standin_proto.c"]
LONG = 10.0   # for what must come
SHORT = 0.08  # for what must not come
TESTS = []
PHID_SIM = ""


def test(function):
    TESTS.append(function)
    return function


class Refused(Exception):
    def __init__(self, name, text):
        super().__init__(f"{name} {text}")
        self.name = name


class Console:
    def __init__(self, fd):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd)
        self.sock.settimeout(LONG)
        self.pending = b""

    def line(self):
        while b"\n" not in self.pending:
            got = self.sock.recv(65536)
            if not got:
                raise EOFError
            self.pending += got
        line, self.pending = self.pending.split(b"\n", 1)
        return line.decode()

    def rest(self):
        """Everything to the end of the stream."""
        while got := self.sock.recv(1 << 20):
            self.pending += got
        return self.pending

    def silent(self):
        return not self.pending and not select.select([self.sock], [], [], SHORT)[0]

    def write(self, data):
        self.sock.sendall(data)

    def close(self):
        self.sock.close()


class Client:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(LONG)
        self.sock.connect(path)
        self.last_id = 0
        self.replies, self.events = {}, []

    def close(self):
        self.sock.close()

    def send(self, text):
        self.last_id += 1
        self.sock.send(f"{self.last_id} {text}".encode())
        return self.last_id

    def send_until_blocked(self, request, limit):
        """Reads nothing; the number of requests after which phid-sim reads no more."""
        for i in range(limit):
            if not select.select([], [self.sock], [], SHORT)[1]:
                return i
            self.sock.send(request(i).encode())
        raise AssertionError("never blocked")

    def receive(self):
        data, fds, flags, _ = socket.recv_fds(self.sock, 8192, 4)
        assert not flags & socket.MSG_TRUNC
        if not data:
            raise EOFError("phid-sim closed the connection")
        reqid, rest = data.decode().split(" ", 1)
        if reqid == "0" and rest.startswith("event "):
            self.events.append(rest[6:])
        else:
            assert int(reqid) not in self.replies, f"two answers to {reqid}"
            self.replies[int(reqid)] = (rest, fds)
        return int(reqid)

    def take(self, reqid):
        """The answer to a request: dict of its fields ('fd' if it brought one), or Refused."""
        while reqid not in self.replies:
            self.receive()
        rest, fds = self.replies.pop(reqid)
        words = rest.split(" ")
        if words[0] == "err":
            assert not fds
            raise Refused(words[1], " ".join(words[2:]))
        assert words[0] == "ok", rest
        fields = dict(word.split("=", 1) for word in words[1:])
        if fds:
            assert len(fds) == 1
            fields["fd"] = fds[0]
        return fields

    def call(self, text):
        return self.take(self.send(text))

    def create(self, name, prog=None, cpus="1", mem=1 << 20, tag="t", base=None):
        fields = self.call(f"create {name} cpus={cpus} mem={mem} tag={tag}" + (f" prog={prog}" if prog else "") +
                           (f" base={base}" if base else ""))
        return Console(fields["fd"])

    def raw(self, data):
        """Sends any bytes; the first answer as text."""
        self.sock.send(data)
        return self.sock.recv(8192).decode()

    def event(self):
        while not self.events:
            self.receive()
        return self.events.pop(0)

    def wait_state(self, name, state):
        end = time.monotonic() + LONG
        while True:
            fields = None
            with contextlib.suppress(Refused):
                fields = self.call(f"observe {name}")
            if fields and fields["state"] == state:
                return fields
            assert time.monotonic() < end, fields
            select.select([], [], [], 0.002)

    def quiet(self):
        return not select.select([self.sock], [], [], SHORT)[0]


@contextlib.contextmanager
def refused(name):
    try:
        yield
    except Refused as e:
        assert e.name == name, f"{e} instead of {name}"
    else:
        raise AssertionError(f"not refused with {name}")


def wait_for_socket(path, process):
    end = time.monotonic() + LONG
    while True:
        assert process.poll() is None, process.stderr.read()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s, contextlib.suppress(OSError):
            s.connect(path)
            return
        assert time.monotonic() < end
        select.select([], [], [], 0.005)


class Sim:
    """One phid-sim in the foreground."""

    def __init__(self, directory):
        self.path = f"{directory}/sim.sock"
        self.clients = []
        self.process = self.spawn()

    def spawn(self):
        process = subprocess.Popen([PHID_SIM, "serve", "--socket", self.path, "--foreground"],
                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for_socket(self.path, process)
        return process

    def client(self):
        client = Client(self.path)
        self.clients.append(client)
        return client

    def ctl(self, request):
        return subprocess.run([PHID_SIM, "ctl", "--socket", self.path, request], capture_output=True, text=True,
                              timeout=60)

    def end(self):
        """Quit by request, then it must be gone, with its socket, having complained of nothing."""
        try:
            if self.process.poll() is None:
                with contextlib.suppress(OSError, EOFError):
                    client = Client(self.path)
                    client.call("quit")
                    client.close()
            for client in self.clients:
                client.close()
            _, err = self.process.communicate(timeout=LONG)
        except BaseException:
            self.process.kill()
            self.process.communicate()
            raise
        lines = err.decode().splitlines()
        assert self.process.returncode == 0, (self.process.returncode, lines)
        assert len(lines) == 1 and "stand-in, not a hypervisor" in lines[0], lines
        assert not os.path.exists(self.path)


# ---- verbs

@test
def life_of_a_cell(sim):
    c, watcher = sim.client(), sim.client()
    assert watcher.call("subscribe") == {}
    console = c.create("a.b_c-1", cpus="2-3,5", mem=4096, tag="row:17/x", base="0x40000000")
    seen = c.call("observe a.b_c-1")
    assert seen == {"state": "created", "code": "0", "reason": "none", "cpus": "2-3,5", "mem": "4096",
                    "tag": "row:17/x", "started": "0", "dropped": "0", "base": "0x40000000"}, seen
    for verb in ("pause", "resume", "powerdown"):
        with refused("EINVAL"):
            c.call(f"{verb} a.b_c-1")
    assert c.call("start a.b_c-1") == {}
    assert console.line() == "phid-sim: cell a.b_c-1 started"
    with refused("EINVAL"):
        c.call("start a.b_c-1")
    with refused("EINVAL"):
        c.call("resume a.b_c-1")
    c.call("pause a.b_c-1")
    assert c.call("observe a.b_c-1")["state"] == "paused"
    with refused("EINVAL"):
        c.call("pause a.b_c-1")
    c.call("resume a.b_c-1")
    seen = c.call("observe a.b_c-1")
    assert (seen["state"], seen["started"]) == ("running", "1")
    c.call("destroy a.b_c-1")
    assert console.rest() == b""
    for verb in ("observe", "destroy", "start", "pause", "resume", "powerdown", "console"):
        with refused("ENOENT"):
            c.call(f"{verb} a.b_c-1")
    for what in ("created", "started", "paused", "resumed", "ended code=137 reason=destroyed"):
        got = watcher.event()
        assert got == f"a.b_c-1 {what}", got
    assert watcher.quiet() and not c.events
    console.close()


@test
def create_refuses(sim):
    c = sim.client()
    c.create("a").close()
    with refused("EEXIST"):
        c.create("a")
    for bad in ("create", "create b", "create b cpus=1", "create b cpus=1 mem=1", "create b cpus=1 tag=t",
                "create b mem=1 tag=t", "create b cpus= mem=1 tag=t", "create b cpus=3-2 mem=1 tag=t",
                "create b cpus=1, mem=1 tag=t", "create b cpus=1- mem=1 tag=t", "create b cpus=1024 mem=1 tag=t",
                "create b cpus=99999999999 mem=1 tag=t", "create b cpus=1 mem=0 tag=t", "create b cpus=1 mem=-1 tag=t",
                "create b cpus=1 mem=99999999999999999999 tag=t", "create b cpus=1 mem=1x tag=t",
                "create b cpus=1 mem=1 base=0x tag=t", "create b cpus=1 mem=1 base=zz tag=t",
                "create b cpus=1 mem=1 base=ffffffffffffffff tag=t", "create b cpus=1 mem=1 tag=",
                "create b cpus=1 mem=1 tag=" + "x" * 513, "create b cpus=1 mem=1 tag=t tag=u",
                "create b cpus=1 mem=1 tag=t colour=red", "create b cpus=1 mem=1 tag=t word",
                "create b/c cpus=1 mem=1 tag=t", "create " + "n" * 32 + " cpus=1 mem=1 tag=t"):
        with refused("EINVAL"):
            c.call(bad)
    for prog in ("count", "count:", "count:0", "count:x", "count:1:2", "exit:1", "exit:256:1", "exit:1:2:3", "panic",
                 "panic:-1", "echo:1", "hello", "powerdown", "powerdown:never", ",", "count:99999999999999999999",
                 "z" * 200):
        with refused("EINVAL"):
            c.create("b", prog=prog)
    assert c.call("stat")["cells"] == "1"
    c.create("n" * 31).close()


@test
def list_pages(sim):
    c = sim.client()
    assert c.call("list") == {"cells": "", "more": "0"}
    names = sorted(f"{i:03d}-{'n' * 27}" for i in range(250))
    for name in reversed(names):
        c.create(name).close()
    got, after, pages = [], "", 0
    while True:
        page = c.call("list" + (f" after={after}" if after else ""))
        got += page["cells"].split(",")
        pages += 1
        if page["more"] == "0":
            break
        after = got[-1]
    assert got == names and pages == 3, (len(got), pages)
    assert c.call("list after=zzz") == {"cells": "", "more": "0"}
    for name in names:
        c.call(f"destroy {name}")
    assert c.call("list") == {"cells": "", "more": "0"}


@test
def counts_overlaps(sim):
    c = sim.client()

    def overlaps():
        s = c.call("stat")
        return int(s["cpu_overlaps"]), int(s["mem_overlaps"])

    c.create("a", cpus="1-2", mem=0x1000, base="0x1000").close()
    c.create("b", cpus="3", mem=0x1000, base="2000").close()
    c.call("start a")
    c.create("nobase", cpus="4", mem=1 << 40).close()
    assert overlaps() == (0, 0)
    c.create("c", cpus="2", mem=0x1000, base="0x8000").close()
    assert overlaps() == (1, 0)
    c.create("d", cpus="6", mem=2, base="0x1fff").close()
    assert overlaps() == (2, 1)
    c.call("start b")
    assert overlaps() == (3, 2)
    c.call("destroy c")
    c.call("destroy a")
    c.call("start nobase")
    assert overlaps() == (3, 3)
    c.call("destroy d")
    c.create("e", cpus="1-2,1000", mem=0x1000, base="0x1000").close()
    assert overlaps() == (3, 3)
    s = c.call("stat")
    assert (s["cells"], s["creates"], s["destroys"], int(s["pid"])) == ("3", "6", "3", sim.process.pid), s


@test
def an_ended_cell_stays_and_holds(sim):
    c, watcher = sim.client(), sim.client()
    watcher.call("subscribe")
    console = c.create("a", prog="exit:7:1")
    c.call("start a")
    seen = c.wait_state("a", "ended")
    assert (seen["code"], seen["reason"], seen["started"]) == ("7", "guest-shutdown", "1")
    for verb in ("start", "pause", "resume", "powerdown"):
        with refused("EINVAL"):
            c.call(f"{verb} a")
    with refused("EEXIST"):
        c.create("a")
    c.create("b").close()
    assert c.call("stat")["cpu_overlaps"] == "1"
    c.call("destroy a")
    assert console.rest() == b"phid-sim: cell a started\n"
    assert [watcher.event() for _ in range(4)] == ["a created", "a started", "a ended code=7 reason=guest-shutdown",
                                                  "b created"]
    assert watcher.quiet()
    console.close()


# ---- programs and consoles

@test
def count_goes_on_after_a_pause(sim):
    c = sim.client()
    console = c.create("a", prog="count:2")
    assert console.silent()
    c.call("start a")
    assert console.line() == "phid-sim: cell a started"
    for i in range(1, 6):
        assert console.line() == f"count {i}"
    c.call("pause a")
    n = 6
    while not console.silent():
        assert console.line() == f"count {n}"
        n += 1
    assert c.call("observe a")["state"] == "paused"
    c.call("resume a")
    for i in range(n, n + 5):
        assert console.line() == f"count {i}"
    console.close()


@test
def exit_does_not_count_a_pause(sim):
    c = sim.client()
    console = c.create("a", prog="exit:0:150")
    c.call("start a")
    c.call("pause a")
    select.select([], [], [], 0.2)
    assert c.call("observe a")["state"] == "paused"
    c.call("resume a")
    resumed = time.monotonic()
    c.wait_state("a", "ended")
    assert time.monotonic() - resumed > 0.1
    console.close()


@test
def panic(sim):
    c = sim.client()
    c.call("subscribe")
    c.create("a", prog="panic:1,count:1000,exit:3:900").close()
    c.call("start a")
    assert [c.event() for _ in range(3)] == ["a created", "a started", "a ended code=134 reason=guest-panic"]


@test
def powerdown(sim):
    c = sim.client()
    for name, prog in (("default", None), ("soon", "powerdown:20"), ("count", "count:5,powerdown:0")):
        c.create(name, prog=prog).close()
        c.call(f"start {name}")
        c.call(f"powerdown {name}")
        seen = c.wait_state(name, "ended")
        assert (seen["code"], seen["reason"]) == ("0", "guest-shutdown")
    c.create("deaf", prog="powerdown:ignore").close()
    c.call("start deaf")
    c.call("powerdown deaf")
    c.create("paused").close()
    c.call("start paused")
    c.call("pause paused")
    c.call("powerdown paused")
    select.select([], [], [], SHORT)
    assert c.call("observe deaf")["state"] == "running"
    assert c.call("observe paused")["state"] == "paused"
    c.call("resume paused")
    c.wait_state("paused", "ended")
    c.create("slow", prog="powerdown:100").close()  # a second ask does not put it off
    c.call("start slow")
    c.call("powerdown slow")
    asked = time.monotonic()
    while time.monotonic() < asked + LONG and c.call("observe slow")["state"] == "running":
        with contextlib.suppress(Refused):
            c.call("powerdown slow")
    assert c.call("observe slow")["state"] == "ended"


@test
def echo_and_exit_by_console(sim):
    c = sim.client()
    console = c.create("a", prog="echo")
    c.call("start a")
    console.line()
    console.write(b"one\ntw")
    assert console.line() == "echo: one"
    console.write(b"o\r\n\n" + b"x" * 5000 + b"\nexit\nexit 256\nexit x\n")
    assert [console.line() for _ in range(3)] == ["echo: two", "echo: ", "echo: " + "x" * 1024]
    assert [console.line() for _ in range(3)] == ["echo: exit", "echo: exit 256", "echo: exit x"]
    console.write(b"a\0b\n")
    assert console.line() == "echo: a\0b"
    console.write(b"exit 42\nmore\n")
    seen = c.wait_state("a", "ended")
    assert (seen["code"], seen["reason"]) == ("42", "guest-shutdown")
    assert console.silent()
    console.close()

    mute = c.create("mute")  # any guest hears exit; a paused one when it runs again; and from a writer that has gone
    c.call("start mute")
    mute.line()
    mute.write(b"hello\n")
    assert mute.silent()
    c.call("pause mute")
    mute.write(b"exit 3\n")
    select.select([], [], [], SHORT)
    assert c.call("observe mute")["state"] == "paused"
    c.call("resume mute")
    assert c.wait_state("mute", "ended")["code"] == "3"
    mute.close()
    gone = c.create("gone")
    c.call("start gone")
    gone.write(b"exit 4\n")
    gone.close()
    assert c.wait_state("gone", "ended")["code"] == "4"


@test
def unread_input_spoils_no_end(sim):
    c = sim.client()
    console = c.create("a")
    console.write(b"z" * 50000)
    second = Console(c.call("console a")["fd"])
    assert console.rest() == b""
    second.write(b"z" * 50000)
    c.call("start a")
    c.call("pause a")
    second.write(b"z" * 50000)
    c.call("destroy a")
    assert second.rest() == b"phid-sim: cell a started\n"
    console.close()
    second.close()


@test
def half_closed_console(sim):
    c = sim.client()
    console = c.create("a", prog="echo,count:5")
    console.write(b"last\n")
    console.sock.shutdown(socket.SHUT_WR)
    c.call("start a")
    assert console.line() == "phid-sim: cell a started"
    got = [console.line() for _ in range(4)]
    assert "echo: last" in got and "count 3" in got, got
    before = cpu_seconds(sim.process.pid)
    select.select([], [], [], 0.3)
    assert cpu_seconds(sim.process.pid) - before < 0.15
    console.close()


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@test
def a_fresh_console_replaces_the_older(sim):
    c = sim.client()
    old = c.create("a", prog="count:5,echo")
    c.call("start a")
    new = Console(c.call("console a")["fd"])
    old.rest()
    new.write(b"hi\n")
    lines = [new.line() for _ in range(5)]
    assert "echo: hi" in lines, lines
    new.close()
    again = Console(c.call("console a")["fd"])
    assert again.line().startswith("count ")
    for console in (old, again):
        console.close()


@test
def console_drops_whole_lines(sim):
    c = sim.client()
    console = c.create("a", prog="echo,count:1")
    c.call("start a")
    console.sock.settimeout(LONG)
    end = time.monotonic() + LONG
    while int(c.call("observe a")["dropped"]) < 5000:  # nobody reads
        assert time.monotonic() < end
        with contextlib.suppress(BlockingIOError):
            console.sock.send(b"y" * 900 + b"\n", socket.MSG_DONTWAIT)
    dropped = int(c.call("observe a")["dropped"])
    assert c.call("observe a")["state"] == "running"
    first = [console.line() for _ in range(50)]
    c.call("powerdown a")
    c.wait_state("a", "ended")
    c.call("destroy a")
    lines = first + console.rest().decode().split("\n")
    assert lines.pop() == ""
    assert lines.pop(0) == "phid-sim: cell a started"
    counts = [int(line[6:]) for line in lines if line.startswith("count ")]
    assert all(line == "echo: " + "y" * 900 for line in lines if not line.startswith("count ")), lines
    assert counts == sorted(set(counts)) and dropped >= 5000
    console.close()
    c.create("b", prog="count:1").close()  # no reader at all
    c.call("start b")
    end = time.monotonic() + LONG
    while int(c.call("observe b")["dropped"]) < len("phid-sim: cell b started\n") + 5:
        assert time.monotonic() < end


# ---- faults

def took(function):
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


@test
def fault_error(sim):
    c = sim.client()
    c.call("fault create kind=error errno=EBUSY count=2")
    c.call("fault create kind=error errno=ENOMEM count=1")
    for name in ("EBUSY", "EBUSY", "ENOMEM"):
        with refused(name):
            c.create("a")
    c.create("a").close()
    c.call("fault start kind=error errno=EIO")
    for _ in range(5):
        with refused("EIO"):
            c.call("start a")
    assert c.call("observe a")["state"] == "created"
    c.call("fault clear")
    c.call("start a")
    c.call("fault list kind=error errno=EIO count=1")
    with refused("EIO"):
        c.call("list")
    assert c.call("list")["cells"] == "a"


@test
def fault_delay_delays_nothing_else(sim):
    c, other = sim.client(), sim.client()
    c.call("fault create kind=delay ms=200 count=1")
    begin = time.monotonic()
    slow = c.send("create a cpus=1 mem=1 tag=t")
    fast = [c.send("stat") for _ in range(20)]
    for reqid in fast:
        assert c.take(reqid)["cells"] == "0"
    assert other.call("list")["cells"] == ""
    assert time.monotonic() - begin < 0.2
    got = c.take(slow)
    assert time.monotonic() - begin >= 0.199
    os.close(got["fd"])
    assert took(lambda: c.create("b").close()) < 0.15
    c.call("fault destroy kind=delay ms=60")
    begin = time.monotonic()
    both = [c.send("destroy a"), c.send("destroy nobody")]
    c.take(both[0])
    with refused("ENOENT"):
        c.take(both[1])
    assert 0.059 <= time.monotonic() - begin < 0.12 + 0.5


@test
def fault_late(sim):
    c, other = sim.client(), sim.client()
    other.call("subscribe")
    c.call("fault create kind=late ms=150 count=1")
    c.call("fault create kind=late ms=1 count=1")
    begin = time.monotonic()
    late = c.send("create a cpus=1 mem=1 tag=t")
    assert other.event() == "a created"
    assert other.call("observe a")["state"] == "created"
    assert time.monotonic() - begin < 0.15
    other.call("start a")
    with refused("EEXIST"):
        c.create("a")
    console = Console(c.take(late)["fd"])
    assert time.monotonic() - begin >= 0.149
    assert console.line() == "phid-sim: cell a started"
    console.close()


@test
def fault_lie(sim):
    c = sim.client()
    c.call("fault create kind=lie count=1")
    assert c.call("create a cpus=1 mem=1 tag=t") == {}
    with refused("ENOENT"):
        c.call("observe a")
    c.create("a").close()
    for verb in ("start", "destroy", "console", "powerdown", "observe"):
        c.call(f"fault {verb} kind=lie count=1")
        assert c.call(f"{verb} a") == {}
    assert c.call("observe a")["state"] == "created"
    assert c.call("stat")["creates"] == "1"


@test
def fault_hang(sim):
    c = sim.client()
    c.call("fault create kind=hang count=1")
    c.call("fault observe kind=hang")
    hung = [c.send("create a cpus=1 mem=1 tag=t"), c.send("observe b"), c.send("observe c")]
    assert c.call("list")["cells"] == ""
    assert c.quiet() and not set(hung) & set(c.replies)
    c.call("fault clear")
    with refused("ENOENT"):
        c.call("observe b")


@test
def faults_refused(sim):
    c = sim.client()
    for bad in ("fault", "fault nothing kind=lie", "fault create", "fault create kind=sulk", "fault create kind=delay",
                "fault create kind=delay ms=x", "fault create kind=late ms=3600001", "fault create kind=lie ms=1",
                "fault create kind=error", "fault create kind=error errno=busy", "fault create kind=lie errno=EIO",
                "fault create kind=lie count=0", "fault create kind=lie count=-1", "fault quit kind=hang",
                "fault fault kind=hang", "fault create kind=error errno=E" + "X" * 40):
        with refused("EINVAL"):
            c.call(bad)
    for _ in range(256):
        c.call("fault pause kind=lie count=1")
    with refused("ENOSPC"):
        c.call("fault pause kind=lie")
    c.call("fault clear")


@test
def bounded_delays(sim):
    c = sim.client()
    c.call("fault stat kind=late ms=3000000")
    for i in range(4096):
        c.send("stat")
    with refused("ENOBUFS"):
        c.call("stat")
    assert c.call("list")["cells"] == ""
    c.call("fault clear")
    assert c.call("stat")["cells"] == "0"


# ---- packets and clients

@test
def malformed_packets(sim):
    c = sim.client()
    for data in (b"", b" ", b"\n", b"x", b"stat", b"-1 stat", b"0 stat", b"1.5 stat", b"1\tstat", b"1 stat\0",
                 b"18446744073709551616 stat", b"1 stat \xff", b"\0" * 4096, b"A" * 4096, b"1 " + b"A" * 4095,
                 b"1 stat" + b" " * 60000, "1 stät".encode(), b"%s%n", b"1 stat\n\n"):
        got = c.raw(data)
        assert got.startswith("0 err EINVAL "), (data[:20], got)
    for data in (b"7", b"7 ", b"7 dance", b"7 stat now", b"7 stat a=b", b"7 observe", b"7 observe a b=c", b"7 list =",
                 b"7 observe ../x", b"7 " + b"%n" * 2000, b"7 create a =" + b"=" * 4000, b"7 list after=a after=b"):
        got = c.raw(data)
        assert got.startswith("7 err EINVAL ") and len(got) < 400, (data[:20], got)
    assert c.raw(b"18446744073709551615 stat\n").startswith("18446744073709551615 ok cells=0 ")
    assert c.raw(b"  007   list  ") == "7 ok cells= more=0"
    assert c.raw(b"1 list after=" + b"z" * 4083) == "1 ok cells= more=0"
    assert c.raw(b"1 observe a").startswith("1 err ENOENT ")


@test
def random_packets(sim):
    dice = random.Random(20)
    words = ["create", "start", "pause", "resume", "destroy", "observe", "console", "powerdown", "list", "stat", "fault",
             "subscribe", "a", "b", "clear", "cpus=1", "mem=1", "tag=t", "base=0x1", "prog=count:1,echo", "kind=lie",
             "kind=late", "kind=delay", "ms=1", "count=1", "after=a", "=", "", "\x7f", "1"]
    c = sim.client()
    c.sock.settimeout(0.5)
    for i in range(3000):
        words_now = [dice.choice(words) for _ in range(dice.randrange(1, 8))]
        if dice.random() < 0.2:
            words_now[:1] = ["create", "a", "cpus=1", "mem=1", "tag=t"]
        data = f"{i + 1} {' '.join(words_now)}".encode()
        if dice.random() < 0.1:
            data = bytes(dice.randrange(256) for _ in range(dice.randrange(40)))
        c.sock.send(data)
        if i % 16 == 0:
            while select.select([c.sock], [], [], 0)[0]:
                _, fds, _, _ = socket.recv_fds(c.sock, 8192, 4)
                for fd in fds:
                    os.close(fd)
    other = sim.client()
    other.call("fault clear")
    assert "cells" in other.call("stat")


@test
def descriptors_of_clients_are_not_kept(sim):
    c = sim.client()
    r, w = os.pipe()
    socket.send_fds(c.sock, [b"9 stat"], [w])
    os.close(w)
    assert c.take(9)["cells"] == "0"
    assert os.read(r, 1) == b""  # the last writer is gone
    os.close(r)


@test
def two_clients(sim):
    a, b = sim.client(), sim.client()
    b.call("subscribe")
    a.create("x").close()
    b.create("y").close()
    ids = [(c, c.send(f"observe {n}"), n) for _ in range(50) for c in (a, b) for n in ("x", "y")]
    for c, reqid, _ in reversed(ids):
        assert c.take(reqid)["state"] == "created"
    a.call("start y")
    assert [b.event() for _ in range(3)] == ["x created", "y created", "y started"]
    assert not a.events


@test
def client_killed_in_the_middle(sim):
    c = sim.client()
    c.call("fault create kind=delay ms=50 count=1")
    c.call("fault create kind=late ms=50 count=1")
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            k = Client(sim.path)
            k.call("subscribe")
            for i in range(100):
                k.send(f"create k{i} cpus=1 mem=1 tag=t prog=count:1")
                k.send(f"start k{i}")
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    c.wait_state("k99", "running")
    c.wait_state("k1", "running")
    c.wait_state("k0", "created")  # the delayed one: done for a client long dead, after its start was refused
    console = Console(c.call("console k1")["fd"])
    assert console.line().startswith("count ")
    console.close()
    assert c.call("stat")["cells"] == "100"


@test
def kill_loop_leaks_no_descriptor(sim):
    c = sim.client()
    c.call("stat")  # accepted, so counted
    before = len(os.listdir(f"/proc/{sim.process.pid}/fd"))
    for i in range(50):
        k = Client(sim.path)
        k.send(f"create c{i} cpus=1 mem=1 tag=t")
        k.send(f"console c{i}")
        k.send(f"destroy c{i}")
        k.close()
    end = time.monotonic() + LONG
    while c.call("stat")["destroys"] != "50" or len(os.listdir(f"/proc/{sim.process.pid}/fd")) > before:
        assert time.monotonic() < end, (c.call("stat"), os.listdir(f"/proc/{sim.process.pid}/fd"))


@test
def a_reader_that_stops(sim):
    deaf, c = sim.client(), sim.client()
    sent = deaf.send_until_blocked(lambda i: f"{i + 1} stat", 100000)
    assert c.call("stat")["cells"] == "0"  # others go on
    for i in range(sent):  # and nothing is lost
        assert deaf.sock.recv(4096).startswith(f"{i + 1} ok ".encode())
    lost = sim.client()
    lost.call("subscribe")
    c.create("a").close()
    c.call("start a")
    for _ in range(3000):  # a subscriber that never reads is closed
        c.call("pause a")
        c.call("resume a")
    with contextlib.suppress(EOFError, ConnectionResetError):
        while lost.receive() == 0:
            assert len(lost.events) < 6000
    assert c.call("observe a")["state"] == "running"


@test
def what_a_dead_client_asked_is_done(sim):
    deaf, c = sim.client(), sim.client()
    sent = deaf.send_until_blocked(lambda i: f"{i + 1} create c{i} cpus=1 mem=1 tag=t", 4000)
    assert int(c.call("stat")["cells"]) < sent
    deaf.close()
    end = time.monotonic() + LONG
    while int(c.call("stat")["cells"]) != sent:
        assert time.monotonic() < end, (sent, c.call("stat"))


@test
def bounded_connections(sim):
    clients = [sim.client() for _ in range(64)]
    for c in clients:
        c.call("stat")
    extra = Client(sim.path)
    try:
        extra.call("stat")
        raise AssertionError("a 65th connection")
    except (EOFError, OSError):
        pass
    extra.close()
    clients[5].close()
    end = time.monotonic() + LONG
    while True:
        c = Client(sim.path)
        try:
            c.call("stat")
            break
        except (EOFError, OSError):
            assert time.monotonic() < end
        finally:
            c.close()
    for c in clients:
        c.close()


@test
def bounded_cells(sim):
    c = sim.client()
    for first in range(0, 4096, 64):
        ids = [c.send(f"create c{i} cpus={i % 1024} mem=1 tag=t prog=count:50") for i in range(first, first + 64)]
        for reqid in ids:
            os.close(c.take(reqid)["fd"])
    with refused("ENOSPC"):
        c.create("more")
    for i in range(4096):
        c.call(f"start c{i}")
    assert took(lambda: c.call("stat")) < 1
    c.call("destroy c7")
    c.create("more").close()


@test
def out_of_descriptors(sim):
    c = sim.client()
    c.call("stat")
    used = len(os.listdir(f"/proc/{sim.process.pid}/fd"))
    soft, hard = resource.prlimit(sim.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard
    resource.prlimit(sim.process.pid, resource.RLIMIT_NOFILE, (used + 2, hard))
    consoles = []
    try:
        while len(consoles) < 10:
            consoles.append(c.create(f"c{len(consoles)}"))
        raise AssertionError("more descriptors than there are")
    except Refused as e:
        assert e.name == "EMFILE", e
    others = []
    for _ in range(4):  # must neither spin nor block
        other = Client(sim.path)
        others.append(other)
    assert c.call("stat")["cells"] == str(len(consoles))
    before = cpu_seconds(sim.process.pid)
    select.select([], [], [], 0.3)
    assert cpu_seconds(sim.process.pid) - before < 0.15
    resource.prlimit(sim.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    for x in others + consoles:
        x.close()
    assert c.call("stat")["cells"] == str(len(consoles))


@test
def signals(sim):
    c = sim.client()
    for number in (signal.SIGHUP, signal.SIGPIPE):
        sim.process.send_signal(number)
    c.create("a").close()
    sim.process.send_signal(signal.SIGSTOP)
    reqid = c.send("start a")
    assert c.quiet()
    sim.process.send_signal(signal.SIGCONT)
    c.take(reqid)
    sim.process.send_signal(signal.SIGTERM)
    assert sim.process.wait(LONG) == 0


# ---- the process

@test
def command_line(sim):
    def run(*args):
        return subprocess.run([PHID_SIM, *args], capture_output=True, text=True, timeout=60)

    got = run("--help")
    assert got.returncode == 0 and "stand-in, not a hypervisor" in got.stdout
    for args in ((), ("serve",), ("ctl", "--socket", sim.path), ("dance", "--socket", sim.path, "x"),
                 ("serve", "--socket"), ("serve", "--socket", sim.path, "--backward"),
                 ("ctl", "--socket", sim.path, "stat", "stat")):
        got = run(*args)
        assert got.returncode == 2 and "stand-in" in got.stderr, (args, got)
    for request, code, begin in (("stat", 0, "1 ok cells=0 "), ("42 stat", 0, "42 ok cells=0 "),
                                 ("observe a", 1, "1 err ENOENT "), ("x", 1, "1 err EINVAL "),
                                 ("create a cpus=1 mem=1 tag=t", 0, "1 ok\n"), ("destroy a", 0, "1 ok\n")):
        got = sim.ctl(request)
        assert got.returncode == code and got.stdout.startswith(begin), (request, got)
    assert run("ctl", "--socket", sim.path + "x", "stat").returncode == 2
    assert run("ctl", "--socket", sim.path, "x" * 5000).returncode == 2
    assert run("serve", "--socket", "/tmp/" + "x" * 200).returncode == 1
    mode = os.stat(sim.path).st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600


@test
def refuses_a_second_and_replaces_the_dead(sim):
    second = [PHID_SIM, "serve", "--socket", sim.path]
    got = subprocess.run(second, capture_output=True, text=True)
    assert got.returncode == 1 and "in use" in got.stderr, got
    assert sim.client().call("stat")["pid"] == str(sim.process.pid)
    sim.process.kill()
    sim.process.communicate()
    assert os.path.exists(sim.path)
    sim.process = sim.spawn()
    c = sim.client()
    assert c.call("stat")["cells"] == "0"
    c.call("quit")
    sim.process.communicate(timeout=LONG)
    pathlib.Path(sim.path).write_text("precious")
    got = subprocess.run(second, capture_output=True, text=True)
    assert got.returncode == 1 and pathlib.Path(sim.path).read_text() == "precious"
    os.unlink(sim.path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as foreign:
        foreign.bind(sim.path)
        foreign.listen()
        assert subprocess.run(second, capture_output=True).returncode == 1
    os.unlink(sim.path)
    sim.process = sim.spawn()


@test
def of_many_at_once_one_serves(sim):
    sim.client().call("quit")
    sim.process.communicate(timeout=LONG)
    pathlib.Path(sim.path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(sim.path)
    racers = [subprocess.Popen([PHID_SIM, "serve", "--socket", sim.path, "--foreground"], stderr=subprocess.PIPE)
              for _ in range(8)]
    end = time.monotonic() + LONG
    while sum(r.poll() is None for r in racers) > 1:
        assert time.monotonic() < end
        select.select([], [], [], 0.01)
    wait_for_socket(sim.path, [r for r in racers if r.poll() is None][0])
    for r in racers:
        if r.poll() is None:
            sim.process = r
        else:
            assert r.returncode == 1 and b"in use" in r.communicate()[1]
    assert sim.client().call("stat")["pid"] == str(sim.process.pid)


@test
def daemon(sim):
    directory = os.path.dirname(sim.path)
    daemons = []
    r, w = os.pipe()  # inherited: the daemon must close it
    for _ in range(3):
        started = subprocess.run([PHID_SIM, "serve", "--socket", "daemon.sock"], cwd=directory, pass_fds=[w],
                                 capture_output=True, timeout=LONG)
        assert (started.returncode, started.stdout, started.stderr) == (0, b"", b""), started
        c = Client(f"{directory}/daemon.sock")  # listens already
        pid = int(c.call("stat")["pid"])
        try:
            peer = struct.unpack("3i", c.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            assert peer == pid
            assert os.getsid(pid) not in (os.getsid(0), pid)  # a session without leader: never a terminal again
            fds = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            assert all(fds[fd] == "/dev/null" for fd in (0, 1, 2)), fds
            assert not any(name.startswith("pipe:") for name in fds.values()), fds
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            os.kill(pid, signal.SIGHUP)
            c.create("a").close()
        finally:
            c.call("quit")
            c.close()
        assert not os.path.exists(f"{directory}/daemon.sock")  # and the next may start at once
        daemons.append(pid)
    for pid in daemons:
        assert os.waitpid(pid, 0) == (pid, 0)
    os.close(w)
    assert select.select([r], [], [], LONG)[0] and os.read(r, 1) == b""
    os.close(r)


def build(directory):
    binary = f"{directory}/phid-sim"
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-O1",
                    "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o", binary,
                    *[str(HERE / source) for source in SOURCES]], check=True)
    return binary


def adopt_daemons():
    """Daemons become children of this process, which can then see them end."""
    pr_set_child_subreaper = 36
    assert ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0


def main():
    global PHID_SIM
    adopt_daemons()
    passed = failed = 0
    only = sys.argv[2:]
    with tempfile.TemporaryDirectory(prefix="phid-sim-") as directory:
        PHID_SIM = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else build(directory)
        for function in TESTS:
            if only and function.__name__ not in only:
                continue
            with tempfile.TemporaryDirectory(dir=directory) as own:
                sim = Sim(own)
                good = True
                begin = time.monotonic()
                try:
                    function(sim)
                except BaseException as e:
                    good = False
                    traceback.print_exc()
                    if isinstance(e, KeyboardInterrupt):
                        sim.process.kill()
                        raise
                try:
                    sim.end()
                except BaseException:
                    good = False
                    traceback.print_exc()
            passed, failed = passed + good, failed + (not good)
            print(f"{'ok' if good else 'FAILED'} {function.__name__} ({time.monotonic() - begin:.2f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
