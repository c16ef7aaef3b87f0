"""What phid-sim bears: faults on demand, odd packets and clients, its own process. Run by standin_selftest.py."""
import contextlib
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
import time

import standin_rig
from standin_rig import Client, Console, LONG, Refused, cpu_seconds, refused, test, wait_for_socket


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
        return subprocess.run([standin_rig.PHID_SIM, *args], capture_output=True, text=True, timeout=60)

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
    second = [standin_rig.PHID_SIM, "serve", "--socket", sim.path]
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
    racers = [subprocess.Popen([standin_rig.PHID_SIM, "serve", "--socket", sim.path, "--foreground"], stderr=subprocess.PIPE)
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
        started = subprocess.run([standin_rig.PHID_SIM, "serve", "--socket", "daemon.sock"], cwd=directory, pass_fds=[w],
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
