"""runphi as OCI clients call it: the stand-in for numbers, real QEMU guests for what an image may say."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from conftest import eventually
from phidtest.daemon import Phid, build_dir

SOURCE = pathlib.Path(__file__).resolve().parents[2]
GUEST = next(p for p in (pathlib.Path(os.environ.get("GUEST_ELF", "/nowhere")), build_dir() / "samples/guest/guest.elf",
                         SOURCE / "samples/guest/guest.elf") if p.exists())


class Runphi:
    def __init__(self, phid, dir):
        self.phid, self.dir = phid, pathlib.Path(dir)
        self.root = f"{dir}/root"
        self.env = dict(os.environ, PHID_SOCKET=str(phid.socket), RUNPHI_STATE_DIR=f"{dir}/markers")

    def bundle(self, name, boot, config=None):
        """A bundle with that /boot/config.json (None: none), and members of config.json besides."""
        path = self.dir / name
        (path / "rootfs/boot").mkdir(parents=True)
        shutil.copy(GUEST, path / "rootfs/boot/guest.elf")
        if boot is not None:
            (path / "rootfs/boot/config.json").write_text(json.dumps(boot))
        (path / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, **(config or {})}))
        return str(path)

    def argv(self, *args):
        return [str(build_dir() / "client/runphi"), "--root", self.root, *args]

    def __call__(self, *args, out=None):
        """(exit status, stdout or None, stderr). Files, not pipes: the keeper holds what create is given."""
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            p = subprocess.run(self.argv(*args), env=self.env, stdin=subprocess.DEVNULL, stdout=out or stdout, stderr=stderr,
                               timeout=90)
            stdout.seek(0), stderr.seek(0)
            return p.returncode, stdout.read(), stderr.read()

    def good(self, *args, out=None):
        status, stdout, stderr = self(*args, out=out)
        assert status == 0, f"{args}: {status} {stderr}"
        return stdout

    def state(self, ident):
        return json.loads(self.good("state", ident))

    def markers(self):
        return [f for f in (self.dir / "markers").rglob("*") if f.is_file()]


SIM = {"format": "phid-boot/1", "backend": "sim", "boot": {"cmdline": "sim=count:20"}, "memory": [{"size": "1M"}]}


@pytest.fixture
def runphi(phid, runphi_dir):
    return Runphi(phid, runphi_dir)


def test_64_processes_at_once_get_16_cpus_once_each(runphi, phid, client):
    bundle = runphi.bundle("b", SIM)
    errors = [tempfile.TemporaryFile("w+") for _ in range(64)]
    running = [subprocess.Popen(runphi.argv("create", "-b", bundle, f"c{n}"), env=runphi.env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=errors[n]) for n in range(64)]
    statuses = [p.wait(timeout=90) for p in running]
    free = client.get("/v1/capacity").json["cpus"]["total"]
    assert free == 16
    assert sorted(statuses) == [0] * 16 + [1] * 48
    for n, status in enumerate(statuses):
        errors[n].seek(0)
        assert status == 0 or "~" in errors[n].read().split("cpu ")[1], "a refusal names a holder"
    owners = [c["owner"] for c in client.get("/v1/allocations").json["cpus"] if c["state"] == "granted"]
    assert len(owners) == len(set(owners)) == 16
    for n in range(64):
        assert runphi("delete", "--force", f"c{n}")[0] == 0
    assert runphi.markers() == []
    assert phid.sim.ctl("stat")["cpu_overlaps"] == "0"


def test_a_container_through_its_life_is_told_truly(runphi):
    bundle = runphi.bundle("b", SIM)
    pid_file = runphi.dir / "pid"
    runphi.good("create", "--bundle", bundle, f"--pid-file={pid_file}", "one")
    state = runphi.state("one")
    assert (state["status"], state["id"], state["bundle"]) == ("created", "one", bundle)
    assert state["pid"] == int(pid_file.read_text()) and pathlib.Path(f"/proc/{state['pid']}").exists()
    for verb, status in (("start", "running"), ("pause", "paused"), ("resume", "running")):
        runphi.good(verb, "one")
        assert runphi.state("one")["status"] == status
    assert runphi("delete", "one") == (1, "", runphi("delete", "one")[2]), "a running one stays"
    runphi.good("kill", "--all", "one", "SIGKILL")
    assert runphi.state("one")["status"] == "stopped"
    status, _, err = runphi("kill", "one", "9")
    assert status == 1 and "container not running" in err
    assert runphi("kill", "--all", "one", "9")[0] == 0
    runphi.good("delete", "one")
    for verb in ("state", "start", "delete"):
        status, _, err = runphi(verb, "one")
        assert status == 1 and "does not exist" in err
    assert runphi("delete", "--force", "one")[0] == 0


def test_an_id_that_is_taken_stays_the_first_ones(runphi):
    bundle = runphi.bundle("b", SIM)
    runphi.good("create", "-b", bundle, "one")
    status, _, err = runphi("create", "-b", bundle, "one")
    assert status == 1 and "already exists" in err
    assert runphi.state("one")["status"] == "created"
    runphi.good("delete", "--force", "one")


def test_list_shows_ours_in_each_format(runphi):
    bundle = runphi.bundle("b", SIM)
    runphi.good("create", "-b", bundle, "one")
    assert "one" in runphi.good("list") and runphi.good("list", "-q").split() == ["one"]
    assert [c["id"] for c in json.loads(runphi.good("list", "--format", "json"))] == ["one"]
    runphi.good("delete", "--force", "one")


def test_an_error_is_the_last_line_of_the_log_as_containerd_reads_it(runphi):
    bundle = runphi.bundle("b", dict(SIM, cpus={"count": 99}))
    log = runphi.dir / "log.json"
    p = subprocess.run([str(build_dir() / "client/runphi"), "--root", runphi.root, f"--log={log}", "--log-format", "json", "create",
                        "-b", bundle, "one"], env=runphi.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
    last = json.loads(log.read_text().splitlines()[-1])
    assert p.returncode == 1 and last["level"] == "error" and "99 CPUs" in last["msg"]
    assert runphi.markers() == []


def test_an_unknown_command_is_an_error(runphi):
    assert runphi("conquer", "one")[0] != 0


def test_what_no_cell_can_do_says_so(runphi):
    runphi.good("create", "-b", runphi.bundle("b", SIM), "one")
    for verb in ("exec", "checkpoint", "restore"):
        status, _, err = runphi(verb, "one")
        assert status == 1 and f"{verb}: not supported for cells" in err
    runphi.good("delete", "--force", "one")


def test_fails_at_once_where_there_is_no_phid(runphi):
    bundle = runphi.bundle("b", SIM)
    runphi.env["PHID_SOCKET"] = "/tmp/there-is-no-phid/s"
    status, _, err = runphi("create", "-b", bundle, "one")
    assert status == 1 and "phid cannot be reached" in err and runphi.markers() == []


# ---- real guests: what images of each kind may say ----

@pytest.fixture(scope="module")
def qemu():
    with Phid(backends=("qemu",), platform={"format": "phid-platform/1", "cpus": {"host": ""}}) as phid:
        r = Runphi(phid, tempfile.mkdtemp(prefix="phid-rp-", dir="/tmp"))
        yield r
        shutil.rmtree(r.dir)


def run(qemu, name, bundle):
    with open(qemu.dir / f"{name}.out", "w+") as out:
        status, _, err = qemu("run", "--bundle", bundle, name, out=out)
        out.seek(0)
        return status, out.read(), err


IMAGES = {
    "phid-boot/1": ({"format": "phid-boot/1", "boot": {"kernel": "/boot/guest.elf", "cmdline": "echo it is me; exit 5"},
                     "memory": [{"size": "16M"}]}, {}),
    "q35": ({"format": "phid-boot/1", "boot": {"kernel": "/boot/guest.elf", "machine": "q35", "cmdline": "echo it is me; exit 5"},
             "memory": [{"size": "16M"}]}, {}),
    "two CPUs": ({"format": "phid-boot/1", "boot": {"kernel": "/boot/guest.elf", "cmdline": "echo it is me; exit 5"},
                  "cpus": {"count": 2}, "memory": [{"size": "16M"}]}, {}),
    "runPHI": ({"os_var": "zephyr", "inmate": "boot/guest.elf", "cmdline": "echo it is me; exit 5", "net": "none", "memory": 16}, {}),
    "the vm section": (None, {"vm": {"kernel": {"path": str(GUEST), "parameters": ["echo it is me;", "exit 5"]},
                                     "hwConfig": {"vcpus": 1, "memory": 16 << 20}}}),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_a_guest_runs_by_what_its_image_says(qemu, kind):
    boot, config = IMAGES[kind]
    name = kind.replace(" ", "-").replace("/", "-")
    if len(os.sched_getaffinity(0)) < 2 and kind == "two CPUs":
        boot["cpus"] = {"count": 1}
    status, out, err = run(qemu, name, qemu.bundle(name, boot, config))
    assert status == 5 and "it is me" in out, err
    assert qemu.markers() == []


@pytest.mark.parametrize("words, code, reason", [("exit 0", 0, "guest-exit"), ("exit 127", 127, "guest-exit"), ("panic", 134, "guest-panic"),
                                                ("crash", 1, "guest-reset")])
def test_each_end_of_a_guest_has_its_code_and_reason(qemu, words, code, reason):
    name = words.replace(" ", "")
    bundle = qemu.bundle(name, {"format": "phid-boot/1", "boot": {"kernel": "/boot/guest.elf", "cmdline": f"sleep 20; {words}"},
                                "memory": [{"size": "16M"}]})
    qemu.good("create", "-b", bundle, name)
    qemu.good("start", name)
    eventually(lambda: qemu.state(name)["status"] == "stopped")
    record = next(c for c in qemu.phid.client().get("/v1/containers").json["items"] if c["name"] == name)
    assert (record["exit"]["code"], record["exit"]["reason"]) == (code, reason)
    qemu.good("delete", name)


def test_a_guest_answers_what_it_reads(qemu):
    bundle = qemu.bundle("talk", {"format": "phid-boot/1", "boot": {"kernel": "/boot/guest.elf"}, "memory": [{"size": "16M"}]})
    out = qemu.dir / "talk.out"
    with open(out, "w") as stdout:
        p = subprocess.Popen(qemu.argv("run", "-b", bundle, "talk"), env=qemu.env, stdin=subprocess.PIPE, stdout=stdout, text=True)
    eventually(lambda: "ready" in out.read_text())
    p.stdin.write("ping\n")
    p.stdin.flush()
    eventually(lambda: "pong" in out.read_text())
    p.stdin.write("exit 3\n")
    p.stdin.close()
    assert p.wait(timeout=60) == 3


def test_what_is_no_kernel_is_refused_with_qemus_words(qemu):
    bundle = qemu.bundle("junk", {"format": "phid-boot/1", "boot": {"kernel": "/boot/junk"}})
    (pathlib.Path(bundle) / "rootfs/boot/junk").write_bytes(b"no kernel" * 1000)
    status, _, err = qemu("create", "-b", bundle, "junk")
    assert status == 1 and "failed" in err and "kernel" in err
    assert qemu.markers() == []


# ---- markers of others ----

@pytest.mark.parametrize("what", ["the marker", "its directory"])
def test_a_marker_of_another_user_is_not_taken(runphi, client, what):
    """What is in it would run as the caller: hooks, and signals to a pid."""
    seen = runphi.dir / "seen"
    hook = {"hooks": {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"touch {seen}"]}]}}
    runphi.good("create", "-b", runphi.bundle("b", SIM, hook), "one")
    marker, = runphi.markers()
    owned = marker if what == "the marker" else marker.parent
    os.chown(owned, 12345, 12345)
    for verb in (["state"], ["start"], ["kill"], ["delete", "--force"], ["ps"]):
        status, _, err = runphi(*verb, "one")
        assert status == 1 and "another user's" in err, (verb, err)
    assert not seen.exists() and client.containers()[0]["state"] == "created"
    os.chown(owned, 0, 0)
    runphi.good("delete", "--force", "one")
    assert seen.exists()
