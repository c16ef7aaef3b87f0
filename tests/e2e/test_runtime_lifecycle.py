"""The MUSTs of the runtime-spec's lifecycle (runtime.md), of a cell: L1 to L18 of test_runtime_spec.py."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile

import pytest
from conftest import eventually
from living import owners
from phidtest.daemon import process_alive
from test_roles import ADMIN_GROUP, NOBODY, grouped  # noqa: F401 (a fixture)
from test_runphi import SIM, Runphi, qemu, runphi  # noqa: F401 (fixtures)
from test_runphi_oci import hook, hooks_seen

ENDS = {"format": "phid-boot/1", "boot": {"kernel": "/boot/guest.elf", "cmdline": "echo it is me; exit 5"}, "memory": [{"size": "16M"}]}


@pytest.fixture
def one(runphi):  # noqa: F811
    """A container that was created. The forwarded runtime is a program that always succeeds: what fails was not forwarded."""
    runphi.env["RUNPHI_RUNTIME"] = "/bin/true"
    runphi.good("create", "-b", runphi.bundle("b", SIM, {"annotations": {"a": "b"}}), "one")
    return runphi


def status(runphi, id="one"):  # noqa: F811
    return runphi.state(id)["status"]


def keepers(phid):
    return [p for p in phid.processes() if process_alive(p) and b"phid-keeper" in pathlib.Path(f"/proc/{p}/cmdline").read_bytes()]


def host(runphi, client):  # noqa: F811
    """What must be as before where something failed: records, CPUs, memory, cells, markers, processes, files. A keeper whose container
    is gone ends by itself, a moment later."""
    phid = runphi.phid
    eventually(lambda: len(keepers(phid)) == sum(c["state"] != "stopped" for c in client.containers()), "an end of the keepers")
    return {**phid.leftovers(client), "markers": sorted(runphi.markers()),
            "processes": sorted(p for p in phid.processes() if process_alive(p)),
            "files": sorted(p for p in runphi.dir.rglob("*") if "markers" not in p.parts)}


def refuses(runphi, *args):  # noqa: F811
    code, _, err = runphi(*args)
    assert code == 1 and err.startswith("runphi: "), (args, code, err)
    return err


def record(runphi, name):  # noqa: F811
    return next((c for c in runphi.phid.client().get("/v1/containers").json["items"] if c["name"] == name), None)


def test_L1_whoever_created_a_container_can_do_everything_with_it(grouped, runphi_dir):  # noqa: F811
    """The creator, who is not root here, can use every operation on it."""
    r = Runphi(grouped, runphi_dir)
    bundle = r.bundle("b", SIM)
    os.chown(r.dir, NOBODY, ADMIN_GROUP)
    for verb in (["create", "-b", bundle], ["state"], ["start"], ["ps"], ["pause"], ["resume"], ["kill"], ["kill", "--all"],
                 ["delete", "--force"]):
        with tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(r.argv(*verb, "one"), env=r.env, user=NOBODY, group=ADMIN_GROUP, extra_groups=[], cwd="/", timeout=60,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err)
            err.seek(0)
            assert done.returncode == 0, (verb, err.read())


def test_L2_an_id_is_one_containers(one, client):
    """An id that is taken or malformed fails and makes nothing."""
    before = host(one, client)
    assert "already exists" in refuses(one, "create", "-b", f"{one.dir}/b", "one")
    for id in ("", ".", "..", "../one", "a/b", "two words", "one~", "\u00e9", "x" * 1025):
        assert one("create", "-b", f"{one.dir}/b", id)[0] == 1, id
    eventually(lambda: host(one, client) == before, "the host as before")
    assert status(one) == "created"


def test_L2_an_id_is_one_containers_of_cells_and_ordinary_ones(one, client):
    """Nor has an ordinary container the id of a cell, or a cell that of an ordinary one."""
    (one.dir / "plain").mkdir()
    (one.dir / "plain/config.json").write_text('{"ociVersion": "1.0.2"}')
    (one.dir / "root/ordinary").mkdir(parents=True)
    before = host(one, client)
    for verb in ("create", "run"):
        assert "already exists" in refuses(one, verb, "-b", f"{one.dir}/plain", "one")
        assert one(verb, "-b", f"{one.dir}/plain", "other")[0] == 0, "it is forwarded"
        assert "already exists" in refuses(one, verb, "-b", f"{one.dir}/b", "ordinary")
    eventually(lambda: host(one, client) == before, "the host as before")


def test_L3_the_state_has_what_it_must(one):
    """ociVersion, id, status and an absolute bundle always, a pid while there is a process, annotations if there are any."""
    one.good("create", "-b", os.path.relpath(one.bundle("bare", SIM)), "bare")
    for words, expected in (([], "created"), (["start"], "running"), (["kill", "KILL"], "stopped")):
        for id, bundle, annotations in (("one", "b", {"a": "b"}), ("bare", "bare", None)):
            if words:
                one.good(words[0], id, *words[1:])
            state = one.state(id)
            assert re.fullmatch(r"1\.\d+\.\d+", state["ociVersion"]) and (state["id"], state["status"]) == (id, expected)
            assert state["bundle"] == str(one.dir / bundle) and state.get("annotations") == annotations
            assert expected == "stopped" or process_alive(state["pid"])


def test_L4_a_status_is_one_of_the_four_or_paused(one):
    """creating, created, running, stopped; what is new has a new name: paused, as runc has it."""
    one.good("create", "-b", one.bundle("h", SIM, {"hooks": {"prestart": [hook(one, "prestart")]}}), "two")
    seen = [hooks_seen(one)[0][1]["status"], status(one)]
    for words in (["start"], ["pause"], ["resume"], ["kill", "KILL"]):
        one.good(words[0], "one", *words[1:])
        seen.append(status(one))
    assert seen == ["creating", "created", "running", "paused", "running", "stopped"]


def test_L5_create_needs_a_bundle_and_an_id(runphi, client):  # noqa: F811
    """Without either it fails. The forwarded runtime says so, hence it is a real one here."""
    bundle = runphi.bundle("b", SIM)
    before = host(runphi, client)
    for args in (["-b", bundle], ["-b", f"{bundle}/none", "one"], ["-b", f"{bundle}/rootfs", "one"], ["one"]):
        assert runphi("create", *args)[0] != 0, args
    assert [p for p in pathlib.Path(runphi.root).glob("*")] == []
    assert {**host(runphi, client), "files": 0} == {**before, "files": 0}


def qmp(runphi, id, command, arguments=None):  # noqa: F811
    """Asks QEMU by the socket that is for people."""
    row, = runphi.phid.rows("SELECT row FROM containers WHERE id LIKE ?", f"{id}~%")[0]
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(str(runphi.phid.state / "cells" / str(row) / "qmp"))
        f = s.makefile("rw")
        for request in (None, {"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments or {}}):
            if request is not None:
                f.write(json.dumps(request) + "\n")
                f.flush()
            answer = json.loads(f.readline())
            while "event" in answer:
                answer = json.loads(f.readline())
        return answer["return"]


def test_L7_nothing_of_the_guest_runs_before_start(qemu):  # noqa: F811
    """The cell is loaded and waits: its first CPU stands where a reset puts it, and nothing was said."""
    with open(qemu.dir / "l7.out", "w+") as out:
        qemu.good("create", "-b", qemu.bundle("l7", ENDS), "l7", out=out)
        assert qmp(qemu, "l7", "query-status")["status"] == "prelaunch"
        assert re.search(r"[ER]IP=0*fff0", qmp(qemu, "l7", "human-monitor-command", {"command-line": "info registers"}))
        assert os.fstat(out.fileno()).st_size == 0
        qemu.good("start", "l7")
        eventually(lambda: "it is me" in pathlib.Path(out.name).read_text(), seconds=60)
    eventually(lambda: status(qemu, "l7") == "stopped", seconds=60)
    qemu.good("delete", "l7")


def test_L8_what_is_edited_after_create_has_no_effect(qemu):  # noqa: F811
    """Neither config.json nor the image is read again."""
    bundle = pathlib.Path(qemu.bundle("l8", ENDS, {"annotations": {"a": "b"}}))
    qemu.good("create", "-b", str(bundle), "l8")
    before = qemu.state("l8")
    (bundle / "config.json").write_text("{}")
    (bundle / "rootfs/boot/config.json").write_text(json.dumps(dict(ENDS, boot=dict(ENDS["boot"], cmdline="exit 6"))))
    (bundle / "rootfs/boot/guest.elf").write_bytes(b"junk")
    assert qemu.state("l8") == before
    qemu.good("start", "l8")
    eventually(lambda: status(qemu, "l8") == "stopped", seconds=60)
    assert record(qemu, "l8")["exit"]["code"] == 5
    qemu.good("delete", "l8")


def forbidden(runphi, client, words, id="one"):  # noqa: F811
    """The verb fails and has no effect; answers why."""
    before = host(runphi, client)
    err = refuses(runphi, words[0], id, *words[1:])
    eventually(lambda: host(runphi, client) == before, "the host as before")
    return err


def test_L9_start_is_for_what_was_created_only(one, client):
    """Of any other state, or of none, it fails and changes nothing."""
    del one.env["RUNPHI_RUNTIME"]
    code, _, err = one("start", "none")
    assert code == 1 and "does not exist" in err
    for words, expected in ((["start"], "running"), (["pause"], "paused"), (["kill", "KILL"], "stopped")):
        one.good(words[0], "one", *words[1:])
        assert expected in forbidden(one, client, ["start"]) and status(one) == expected


def test_L10_a_cell_starts_what_its_image_says_not_a_process(one):
    """start must fail where nothing was said that could run. For a cell that is the kernel, and create asks for it already; a bundle
    without `process`, as this, is whole."""
    one.good("start", "one")
    bundle = one.bundle("v", None, {"vm": {}, "process": {"args": ["sh"], "cwd": "/"}})
    assert "/vm/kernel/path" in refuses(one, "create", "-b", bundle, "two")


def test_L11_kill_is_for_what_was_created_or_runs(one, client):
    """A stopped one is an error without effect; the signal that was asked for is delivered, or refused where no cell knows it."""
    one.good("create", "-b", one.bundle("term", dict(SIM, boot={"cmdline": "sim=powerdown:ignore"})), "deaf")
    one.good("start", "deaf")
    one.good("kill", "deaf", "TERM")
    assert status(one, "deaf") == "running", "TERM asks"
    assert "SIGHUP" not in forbidden(one, client, ["kill", "HUP"], "deaf") and status(one, "deaf") == "running"
    one.good("kill", "deaf", "KILL")
    assert status(one, "deaf") == "stopped" and record(one, "deaf")["exit"]["code"] == 137, "KILL does not ask"
    one.good("kill", "one")
    assert status(one) == "stopped"
    assert "container not running" in forbidden(one, client, ["kill", "9"])


def test_L12_delete_is_for_what_is_stopped(one, client):
    """Of any other state it fails and changes nothing."""
    for words, expected in ((None, "created"), (["start"], "running"), (["pause"], "paused")):
        if words:
            one.good(words[0], "one")
        assert "not stopped" in forbidden(one, client, ["delete"]) and status(one) == expected
    one.good("kill", "one", "KILL")
    one.good("delete", "one")


@pytest.mark.skipif(os.geteuid() != 0, reason="making cgroups needs root")
def test_L13_delete_removes_what_create_made_and_nothing_else(runphi, client):  # noqa: F811
    """Record, CPUs, cell, marker, process and cgroup go; the bundle, the other cell and the cgroup above stay."""
    above = f"phid-test-{os.getpid()}"
    v2 = pathlib.Path("/sys/fs/cgroup")
    hierarchies = [v2] if (v2 / "cgroup.procs").exists() else sorted({d.resolve() for d in v2.iterdir() if (d / "cgroup.procs").exists()})
    for d in hierarchies:
        (d / above).mkdir()
    try:
        bundle = runphi.bundle("b", SIM)
        runphi.good("create", "-b", bundle, "other")
        before = host(runphi, client)
        for last in (["delete"], ["delete", "--force"]):
            (runphi.dir / "b/config.json").write_text(json.dumps({"ociVersion": "1.0.2", "root": {"path": "rootfs"},
                                                                  "linux": {"cgroupsPath": f"/{above}/one"}}))
            runphi.good("create", "-b", bundle, "one")
            assert len(owners(client)) == 2 and any((d / above / "one").exists() for d in hierarchies)
            runphi.good("start", "one")
            if last == ["delete"]:
                runphi.good("kill", "one", "KILL")
            runphi.good(*last, "one")
            eventually(lambda: host(runphi, client) == before, "the host as before")
            assert not any((d / above / "one").exists() for d in hierarchies) and status(runphi, "other") == "created"
    finally:
        for d in hierarchies:
            (d / above).rmdir()


def test_L14_state_is_of_a_container(runphi):  # noqa: F811
    """Of none, and without an id, it fails, and prints no document."""
    for args in (["none"], []):
        code, out, err = runphi("state", *args)
        assert code == 1 and not out.lstrip().startswith("{") and (args == [] or "does not exist" in err)


def hooked(kind):
    return lambda r: {"hooks": {kind: [hook(r, "bad", "exit 1")]}}


FAILS = {
    "a refused bundle": (dict(SIM, cpus={"count": 99}), lambda r: {}, None),
    "a hypervisor that fails": (SIM, lambda r: {}, "create"),
    "a hook that fails": (SIM, hooked("createContainer"), None),
    "a pid-file that cannot be": (SIM, lambda r: {}, "pid-file"),
    "a cgroup that cannot be": (SIM, lambda r: {"linux": {"cgroupsPath": "/a/../b"}}, None),
}


@pytest.mark.parametrize("boot, config, fault", FAILS.values(), ids=FAILS)
def test_L15_a_create_that_fails_was_never_tried(runphi, client, boot, config, fault):  # noqa: F811
    """All is given back: nothing is there that was not there before."""
    bundle = runphi.bundle("b", boot, config(runphi))
    before = host(runphi, client)
    if fault == "create":
        runphi.phid.sim.fault("create", "error", errno="EIO")
    refuses(runphi, "create", "-b", bundle, "--pid-file", str(runphi.dir / ("none/pid" if fault == "pid-file" else "pid")), "one")
    log = runphi.dir / "hooks.log"
    log.unlink(missing_ok=True)
    eventually(lambda: host(runphi, client) == before, "the host as before")
    runphi.phid.sim.clear()


@pytest.mark.parametrize("verb, expected", [("start", "created"), ("pause", "running"), ("resume", "paused")])
def test_L15_a_verb_that_fails_was_never_tried(one, client, verb, expected):
    """The hypervisor refuses it: the container is what it was, and the verb can be asked for again."""
    for before in {"start": [], "pause": ["start"], "resume": ["start", "pause"]}[verb]:
        one.good(before, "one")
    one.phid.sim.fault(verb, "error", errno="EIO")
    forbidden(one, client, [verb])
    assert status(one) == expected
    one.phid.sim.clear()
    one.good(verb, "one")


@pytest.mark.parametrize("end", ("exit", "panic", "crash", "KILL", "QEMU is killed", "the keeper is killed"))
def test_L17_stopped_is_reached_by_any_end_and_kept_until_delete(qemu, end):  # noqa: F811
    """By its own exit, by a crash or by a kill; nobody has to delete it for that to be told."""
    # The pause is for QEMU, which can hang where it is asked for its state while it ends.
    words = {"exit": "exit 3", "panic": "sleep 500; panic", "crash": "sleep 500; crash"}.get(end, "echo on")
    id = f"l17-{end.replace(' ', '-')}"
    qemu.good("create", "-b", qemu.bundle(id, dict(ENDS, boot=dict(ENDS["boot"], cmdline=words))), id)
    qemu.good("start", id)
    if end == "KILL":
        qemu.good("kill", id, "KILL")
    elif "killed" in end:
        os.kill(record(qemu, id)["cell" if "QEMU" in end else "keeper"]["pid"], signal.SIGKILL)
    eventually(lambda: status(qemu, id) == "stopped", seconds=60)
    assert [qemu.state(id)[k] for k in ("status", "pid")] == ["stopped", 0]
    qemu.good("delete", id)
    assert "does not exist" in qemu("state", id)[2]


def test_L18_poststop_comes_after_what_create_made_is_gone(runphi):  # noqa: F811
    """The hook finds no container, and no keeper but perhaps one that waits for its parent."""
    seen = runphi.dir / "seen"
    look = f'{" ".join(runphi.argv("state", "one"))} >{seen} 2>&1; grep -s ^State: /proc/$(cat {runphi.dir}/pid)/status >>{seen}; exit 0'
    program = dict(hook(runphi, "poststop", look), env=[f"{k}={v}" for k, v in runphi.env.items()])
    runphi.good("create", "-b", runphi.bundle("b", SIM, {"hooks": {"poststop": [program]}}), "--pid-file", str(runphi.dir / "pid"), "one")
    runphi.good("start", "one")
    runphi.good("kill", "one", "KILL")
    runphi.good("delete", "one")
    assert "does not exist" in seen.read_text() and not re.search("State:.[^ZX]", seen.read_text())
