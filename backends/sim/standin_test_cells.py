"""What a cell of phid-sim does: verbs, programs, consoles. Run by standin_selftest.py."""
import contextlib
import select
import socket
import time

from standin_rig import Console, LONG, Refused, SHORT, cpu_seconds, refused, test


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
                "create b cpus=1, mem=1 tag=t", "create b cpus=1- mem=1 tag=t", "create b cpus=4096 mem=1 tag=t",
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
