"""What the runtime-spec and its clients ask of a runtime, of a cell: options, hooks, terminal, cgroup, descriptors, processes."""
import array
import contextlib
import json
import os
import pathlib
import pty
import socket
import subprocess
import termios

import pytest
from conftest import eventually
from test_runphi import SIM, qemu, runphi  # noqa: F401 (fixtures)

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hook(runphi, name, more=""):
    """A program that appends its name and the state document of its stdin to hooks.log."""
    path = runphi.dir / name
    path.write_text(f'#!/bin/sh\nprintf "%s " {name} >>{runphi.dir}/hooks.log\n/bin/cat >>{runphi.dir}/hooks.log\n'
                    f'echo >>{runphi.dir}/hooks.log\n{more}\n')
    path.chmod(0o755)
    return {"path": str(path)}


def hooks_seen(runphi):
    log = runphi.dir / "hooks.log"
    return [(line.split(" ", 1)[0], json.loads(line.split(" ", 1)[1])) for line in log.read_text().splitlines()] if log.exists() else []


def test_hooks_run_in_order_with_the_state_of_that_moment(runphi):
    hooks = {kind: [hook(runphi, f"{kind}-{n}") for n in (1, 2)] for kind in HOOKS}
    bundle = runphi.bundle("b", SIM, {"hooks": hooks, "annotations": {"a": "b"}})
    runphi.good("create", "-b", bundle, "one")
    keeper = runphi.state("one")["pid"]
    config = json.loads(pathlib.Path(bundle, "config.json").read_text())
    del config["hooks"]  # what is edited after create has no effect
    pathlib.Path(bundle, "config.json").write_text(json.dumps(config))
    runphi.good("start", "one")
    runphi.good("kill", "one", "KILL")
    runphi.good("delete", "one")
    seen = hooks_seen(runphi)
    assert [name for name, _ in seen] == [f"{kind}-{n}" for kind in HOOKS for n in (1, 2)]
    assert [s["status"] for _, s in seen] == ["creating"] * 6 + ["created"] * 2 + ["running"] * 2 + ["stopped"] * 2
    assert all(s["id"] == "one" and s["bundle"] == bundle and s["annotations"] == {"a": "b"} and s["ociVersion"] for _, s in seen)
    assert [s["pid"] for _, s in seen] == [keeper] * 10 + [0] * 2


@pytest.mark.parametrize("kind", HOOKS[:3])
def test_a_failing_hook_undoes_the_create(runphi, client, kind):
    hooks = {kind: [hook(runphi, "bad", "echo no luck >&2; exit 3")], "poststop": [hook(runphi, "after")]}
    status, _, err = runphi("create", "-b", runphi.bundle("b", SIM, {"hooks": hooks}), "one")
    assert status == 1 and f"{kind} hook 0" in err and "status 3" in err and "no luck" in err
    assert [(name, s["status"], s["pid"] == 0) for name, s in hooks_seen(runphi)] == [("bad", "creating", False), ("after", "stopped", True)]
    assert runphi.markers() == []
    eventually(lambda: client.get("/v1/containers").json["items"] == [])


@pytest.mark.parametrize("kind", HOOKS[3:5])
def test_a_failing_hook_of_start_takes_the_container_away(runphi, client, kind):
    hooks = {kind: [hook(runphi, "bad", "exit 3")], "poststop": [hook(runphi, "after")]}
    runphi.good("create", "-b", runphi.bundle("b", SIM, {"hooks": hooks}), "one")
    status, _, err = runphi("start", "one")
    assert status == 1 and f"{kind} hook 0" in err
    assert [name for name, _ in hooks_seen(runphi)] == ["bad", "after"]
    assert client.get("/v1/containers").json["items"] == [] and runphi.markers() == []


def test_a_run_whose_hook_fails_is_taken_away_once(runphi, client):
    hooks = {"poststart": [hook(runphi, "bad", "exit 3")], "poststop": [hook(runphi, "after")]}
    status, _, err = runphi("run", "-b", runphi.bundle("b", SIM, {"hooks": hooks}), "one")
    assert status == 1 and "poststart hook 0" in err
    assert [name for name, _ in hooks_seen(runphi)] == ["bad", "after"]
    assert client.get("/v1/containers").json["items"] == [] and runphi.markers() == []


def test_a_create_that_phid_refuses_runs_no_hook(runphi):
    hooks = {kind: [hook(runphi, kind)] for kind in HOOKS}
    status, _, err = runphi("create", "-b", runphi.bundle("b", dict(SIM, cpus={"count": 99}), {"hooks": hooks}), "one")
    assert status == 1 and "99 CPUs" in err and hooks_seen(runphi) == [] and runphi.markers() == []


@pytest.mark.parametrize("path", ["/a/../b", "/..", "/a\nb", "/" + "x" * 5000])
def test_a_cgroup_that_leads_elsewhere_is_refused(runphi, path):
    status, _, err = runphi("create", "-b", runphi.bundle("b", SIM, {"linux": {"cgroupsPath": path}}), "one")
    assert status == 1 and "/linux/cgroupsPath" in err and runphi.markers() == []


def test_a_failing_poststop_hook_is_a_warning_and_the_rest_go_on(runphi):
    hooks = {"poststop": [hook(runphi, "bad", "exit 3"), hook(runphi, "after")]}
    runphi.good("create", "-b", runphi.bundle("b", SIM, {"hooks": hooks}), "one")
    status, _, err = runphi("delete", "--force", "one")
    assert status == 0 and "warning" in err and [name for name, _ in hooks_seen(runphi)] == ["bad", "after"]


def test_a_hook_that_takes_too_long_is_killed(runphi):
    slow = dict(hook(runphi, "slow", "exec sleep 1000"), timeout=1)
    status, _, err = runphi("create", "-b", runphi.bundle("b", SIM, {"hooks": {"prestart": [slow]}}), "one")
    assert status == 1 and "did not end within its 1 s" in err and runphi.markers() == []


@pytest.mark.parametrize("wrong, where", [({"path": "relative"}, "/path"), ({"path": "/x", "timeout": 0}, "/timeout"),
                                          ({"path": "/x", "args": "no"}, "/args"), ({"path": "/x", "env": [1]}, "/env"), ({}, "/path")])
def test_a_wrong_hook_is_refused_by_its_place(runphi, wrong, where):
    status, _, err = runphi("create", "-b", runphi.bundle("b", SIM, {"hooks": {"poststart": [wrong]}}), "one")
    assert status == 1 and f"/hooks/poststart/0{where}" in err and runphi.markers() == []


def test_an_option_that_nobody_knows_is_an_error_for_a_cell(runphi):
    bundle = runphi.bundle("b", SIM)
    for args in (("--conquer", "create", "-b", bundle, "one"), ("create", "--conquer", "-b", bundle, "one")):
        status, _, err = runphi(*args)
        assert status == 1 and "--conquer" in err, args
    runphi.good("--cgroup-manager=cgroupfs", "--systemd-cgroup=false", "create", "one", "--no-pivot", f"--bundle={bundle}")
    status, _, err = runphi("kill", "--conquer", "one", "9")
    assert status == 1 and "--conquer" in err and runphi.state("one")["status"] == "created"
    runphi.good("delete", "one", "-f")


def test_ps_names_the_keeper(runphi):
    runphi.good("create", "-b", runphi.bundle("b", SIM), "one")
    pid = runphi.state("one")["pid"]
    assert json.loads(runphi.good("ps", "--format", "json", "one")) == [pid] and f"{pid}" in runphi.good("ps", "one")
    runphi.good("kill", "one", "KILL")
    status, _, err = runphi("ps", "one")
    assert status == 1 and "container not running" in err
    runphi.good("delete", "one")


def test_stop_and_cont_pause_and_resume(runphi):
    runphi.good("create", "-b", runphi.bundle("b", SIM), "one")
    runphi.good("start", "one")
    for signal, status in (("STOP", "paused"), ("SIGCONT", "running"), ("19", "paused"), ("18", "running")):
        runphi.good("kill", "one", signal)
        assert runphi.state("one")["status"] == status
    assert "SIGSTOP (pause)" in runphi("kill", "one", "HUP")[2]
    runphi.good("delete", "--force", "one")


def test_features_is_a_document_with_annotations_of_ours(runphi):
    for runtime in ("", "/bin/false"):
        runphi.env["RUNPHI_RUNTIME"] = runtime
        document = json.loads(runphi.good("features"))
        assert document["ociVersionMin"] <= document["ociVersionMax"] and "poststop" in document["hooks"]
        assert document["annotations"]["org.runphi.version"]


def test_a_create_that_was_cut_off_is_cleaned_up_by_delete(runphi):
    runphi.good("create", "-b", runphi.bundle("b", SIM), "one")
    marker = runphi.markers()[0]
    runphi.good("delete", "-f", "one")
    assert not marker.parent.exists(), "the directory goes with its last marker"
    marker.parent.mkdir()
    marker.write_text("runphi-marker 1\nincarnation ")
    for verb in ("state", "kill", "start"):
        status, _, err = runphi(verb, "one")
        assert status == 1 and "does not exist" in err
    runphi.good("delete", "--force", "one")
    assert runphi.markers() == []


def test_what_leaked_into_create_is_closed_but_for_what_is_to_be_kept(runphi):
    bundle = runphi.bundle("b", SIM)
    read, write = os.pipe()
    for n, (more, kept) in enumerate(((["--preserve-fds", "1"], True), ([], False))):
        # The shell makes the pipe descriptor 3, as a shim's listening socket would be.
        subprocess.run(["/bin/bash", "-c", f'exec 3>&{write} {write}>&-; exec "$@"', "sh"] +
                       runphi.argv("create", "-b", bundle, *more, f"c{n}"), env=runphi.env, pass_fds=[write], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        pid = runphi.state(f"c{n}")["pid"]
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert (os.readlink(f"/proc/self/fd/{write}") in links) == kept
        runphi.good("delete", "-f", f"c{n}")
    os.close(read), os.close(write)


@pytest.mark.skipif(os.geteuid() != 0, reason="making cgroups needs root")
@pytest.mark.parametrize("slash", ["/", ""], ids=["absolute", "relative"])
def test_the_keeper_is_in_the_bundles_cgroup_which_goes_with_it(runphi, slash):
    path = f"/phid-test-{os.getpid()}/inner"
    runphi.good("create", "-b", runphi.bundle("b", SIM, {"linux": {"cgroupsPath": slash + path[1:]}}), "one")
    pid = runphi.state("one")["pid"]
    lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    dirs = [d for d in pathlib.Path("/sys/fs/cgroup").glob(f"**{path}") if d.is_dir()]
    assert any(line.endswith(path) for line in lines) and dirs
    for d in dirs:  # in v2 it has what its hierarchy has
        if (d / "cgroup.controllers").exists():
            top = d.parents[1]
            assert (d / "cgroup.controllers").read_text().split() == (top / "cgroup.controllers").read_text().split()
    runphi.good("delete", "--force", "one")
    assert not [d for d in dirs if d.exists()]
    for d in dirs:
        d.parent.rmdir()


@pytest.mark.parametrize("path, word", [("a.slice:pre", "slice:prefix:name"), ("a:b:", "slice:prefix:name"), ("a:b:c:d", "slice:prefix:name"),
                                        ("a/../b:c:d", "slice:prefix:name"), ("a.slice:pre:name", "systemd")])
def test_a_scope_that_cannot_be_made_is_refused(runphi, path, word):
    if word == "systemd" and os.path.exists("/run/systemd/system"):
        pytest.skip("systemd runs here; tests/clients/systemd.sh has the scope")
    status, _, err = runphi("create", "-b", runphi.bundle("b", SIM, {"linux": {"cgroupsPath": path}}), "one")
    assert status == 1 and word in err and "/linux/cgroupsPath" in err and runphi.markers() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")
@pytest.mark.parametrize("namespaces, own", [([{"type": "pid"}, {"type": "network"}], True), ([{"type": "pid"}], False),
                                             ([{"type": "network", "path": "/proc/1/ns/net"}], False)], ids=["new", "none", "path"])
def test_a_hook_that_sets_a_network_up_does_not_reach_the_hosts(runphi, namespaces, own):
    """docker's prestart hook writes into the namespace of the pid it is told."""
    look = hook(runphi, "look", f"readlink /proc/$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' {runphi.dir}/hooks.log)/ns/net >{runphi.dir}/net")
    runphi.good("create", "-b", runphi.bundle("b", SIM, {"hooks": {"prestart": [look]}, "linux": {"namespaces": namespaces}}), "one")
    assert ((runphi.dir / "net").read_text().strip() != os.readlink("/proc/self/ns/net")) == own
    assert (os.readlink(f"/proc/{runphi.state('one')['pid']}/ns/net") != os.readlink("/proc/self/ns/net")) == own
    runphi.good("start", "one")
    runphi.good("delete", "--force", "one")


def terminal(runphi, bundle, name):
    """Creates with a console socket; answers the master, which came in one message."""
    path = str(runphi.dir / f"{name}.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(1)
        runphi.good("create", "-b", bundle, "--console-socket", path, name)
        with listening.accept()[0] as connection:
            fds = array.array("i")
            message, control, _, _ = connection.recvmsg(4096, socket.CMSG_LEN(4 * 4))
            assert message and len(control) == 1 and control[0][:2] == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            fds.frombytes(control[0][2])
            assert len(fds) == 1 and os.isatty(fds[0])
            return fds[0]


def hearing(master):
    """What the terminal said so far, and a function: did it say that by now?"""
    os.set_blocking(master, False)
    said = bytearray()

    def hear(what):
        with contextlib.suppress(BlockingIOError):
            said.extend(os.read(master, 65536))
        return what in said

    return said, hear


def test_a_terminal_carries_the_console_both_ways_over_a_restart_of_phid(qemu):
    bundle = qemu.bundle("term", {"format": "phid-boot/1", "boot": {"kernel": "/boot/guest.elf"}, "memory": [{"size": "16M"}]},
                         {"process": {"terminal": True, "consoleSize": {"height": 25, "width": 132}, "cwd": "/"}})
    master = terminal(qemu, bundle, "term")
    try:
        assert termios.tcgetwinsize(master) == (25, 132)
        said, hear = hearing(master)

        qemu.good("start", "term")
        eventually(lambda: hear(b"ready"), seconds=60)
        for n in range(30):
            if n == 10:
                qemu.phid.kill9()
            if n == 20:
                qemu.phid.start()
            said.clear()
            os.write(master, b"ping\n")
            eventually(lambda: hear(b"pong"), seconds=60)
        eventually(lambda: qemu.state("term")["status"] == "running")
        qemu.good("kill", "term", "KILL")
        qemu.good("delete", "term")
    finally:
        os.close(master)


def test_run_has_the_caller_s_terminal_and_gives_it_back(qemu):
    bundle = qemu.bundle("tty", {"format": "phid-boot/1", "boot": {"kernel": "/boot/guest.elf", "cmdline": "tty"}, "memory": [{"size": "16M"}]},
                         {"process": {"terminal": True, "cwd": "/"}})
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    run = subprocess.Popen(qemu.argv("run", "-b", bundle, "tty"), env=qemu.env, stdin=slave, stdout=slave, stderr=slave)
    said, hear = hearing(master)

    try:
        eventually(lambda: hear(b"ready"), seconds=60)
        assert termios.tcgetattr(slave) != before
        os.write(master, b"\x03echo it is ^C for the guest\r")
        eventually(lambda: hear(b"\x03echo it is ^C for the guest"), seconds=60)
        qemu.good("kill", "tty", "KILL")
        assert run.wait(60) == 137
        assert termios.tcgetattr(slave) == before
    finally:
        run.kill()
        run.wait()
        os.close(master), os.close(slave)


def test_run_without_a_terminal_to_give_is_refused(runphi):
    bundle = runphi.bundle("b", SIM, {"process": {"terminal": True, "cwd": "/"}})
    status, _, err = runphi("run", "-b", bundle, "one")
    assert status == 1 and "standard input is none" in err and runphi.markers() == []
    status, _, err = runphi("run", "--detach", "-b", bundle, "one")
    assert status == 1 and "--console-socket" in err and runphi.markers() == []


def test_a_terminal_needs_a_socket_and_a_socket_a_terminal(runphi):
    status, _, err = runphi("create", "-b", runphi.bundle("t", SIM, {"process": {"terminal": True}}), "one")
    assert status == 1 and "--console-socket" in err
    status, _, err = runphi("create", "-b", runphi.bundle("n", SIM), "--console-socket", "/tmp/nobody", "one")
    assert status == 1 and "/console-socket" in err
    status, _, err = runphi("create", "-b", str(runphi.dir / "t"), "--console-socket", "/tmp/nobody", "one")
    assert status == 1 and "/tmp/nobody" in err and runphi.markers() == []
