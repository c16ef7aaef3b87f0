"""Many clients at once whose runphi and keepers die at any moment: what a client does after a failure takes everything away.

A client is what a containerd shim is: create, start, kill, delete, and after whatever failed a forced delete, which is not cut off.
STRESS_SEED repeats a run."""
import collections
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import threading
import time
import uuid

import pytest
from conftest import assert_nothing_left, eventually
from phidtest import keeper
from phidtest.daemon import process_alive
from phidtest.keeper import Keeper
from test_runphi import SIM, runphi  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making cgroups needs root")

CLIENTS, LIVES, PAIRS = 8, 25, 40
LIFE = (["create"], ["start"], ["state"], ["kill", "9"], ["delete"])


class Shims:
    """The bundles and calls of many clients; every container has a cgroup of its own below one of the test's."""

    def __init__(self, runphi):  # noqa: F811
        self.runphi, self.above = runphi, f"phid-stress-{os.getpid()}"
        self.took, self.deaths = {}, collections.Counter()
        self.rootfs = runphi.bundle("image", SIM) + "/rootfs"
        v2 = pathlib.Path("/sys/fs/cgroup")
        hierarchies = [v2] if (v2 / "cgroup.procs").exists() else {d.resolve() for d in v2.iterdir() if (d / "cgroup.procs").exists()}
        self.cgroups = [d / self.above for d in hierarchies]
        for d in self.cgroups:
            d.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):  # those of v1 begin empty, and take no process then
                if (d.parent / name).exists():
                    (d / name).write_text((d.parent / name).read_text())

    def bundle(self, id):
        path = self.runphi.dir / "bundles" / id
        path.mkdir(parents=True)
        config = {"ociVersion": "1.0.2", "root": {"path": self.rootfs}, "linux": {"cgroupsPath": f"/{self.above}/{id}"}}
        (path / "config.json").write_text(json.dumps(config))
        return path

    def argv(self, verb, id, *more):
        if verb == "create":
            bundle = self.runphi.dir / "bundles" / id
            more = ("--bundle", str(bundle), "--pid-file", str(bundle / "init.pid"))
        return self.runphi.argv(*([verb, *more, id] if verb != "kill" else [verb, id, *more]))

    def call(self, words, killed_at=None):
        """(status, what it said); killed_at: in parts of what the verb took the last time, when SIGKILL comes if it is there still."""
        verb, begun = words[0], time.monotonic()
        with tempfile.TemporaryFile("w+") as said:
            p = subprocess.Popen(self.argv(*words), env=self.runphi.env, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            try:
                p.wait(120 if killed_at is None else killed_at * self.took.get(verb, 0.05))
                self.took[verb] = time.monotonic() - begun
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
                assert killed_at is not None, f"{words} does not return"
                self.deaths[f"runphi {verb}"] += 1
            said.seek(0)
            return p.returncode, said.read()

    def assert_nothing_left(self, client):
        phid = self.runphi.phid
        assert_nothing_left(phid, client)
        eventually(lambda: not self.keepers(), "the end of every keeper")
        assert client.get("/v1/containers").json["items"] == []
        assert list(pathlib.Path(self.runphi.env["RUNPHI_STATE_DIR"]).rglob("*")) == []
        assert [p for d in self.cgroups for p in d.iterdir() if p.is_dir()] == []

    def keepers(self):
        """Every living process that was given this phid's keeper socket."""
        found = []
        for d in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (d / "cmdline").read_bytes().split(b"\0")
                if f"{self.runphi.phid.dir}/keeper.sock".encode() in words:
                    found.append(int(d.name))
        return [p for p in found if process_alive(p)]

    def close(self):
        self.runphi.phid.delete_all(self.runphi.phid.client())  # where a test failed
        eventually(lambda: not self.keepers(), "the end of every keeper")
        for d in self.cgroups:
            for below in [p for p in d.iterdir() if p.is_dir()]:
                below.rmdir()
            d.rmdir()


@pytest.fixture
def shims(runphi):  # noqa: F811
    s = Shims(runphi)
    yield s
    s.close()


@pytest.fixture
def seed():
    n = int(os.environ.get("STRESS_SEED") or random.randrange(1 << 32))
    print(f"STRESS_SEED={n}")
    return n


def live(shims, id, rng):
    """One container's life, perhaps with a death in it; answers what went wrong though nothing died."""
    bundle, dies = shims.bundle(id), rng.choice(("nobody", "nobody", "runphi", "runphi", "keeper"))
    step, wrong = rng.randrange(len(LIFE)), None
    for n, (verb, *more) in enumerate(LIFE):
        hit = dies == "runphi" and n == step
        status, said = shims.call((verb, id, *more), rng.random() if hit else None)
        if dies == "keeper" and n == step and (bundle / "init.pid").exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int((bundle / "init.pid").read_text()), signal.SIGKILL)  # no other's: it is ours to reap
                shims.deaths[f"keeper {verb}"] += 1
        if status != 0 and dies == "nobody":
            wrong = f"{id}: {verb}: {status} {said}"
        if status != 0:
            break
    status, said = shims.call(("delete", id, "--force"))
    return wrong if status == 0 else f"{id}: delete --force: {status} {said}"


@pytest.mark.parametrize("stays", (True, False), ids=("connected", "gone"))
def test_a_create_that_comes_after_its_keeper_said_undo_makes_nothing(phid, client, stays):
    """runphi died with its PUT on the way, and the keeper's word overtook it."""
    incarnation = str(uuid.uuid4())
    with Keeper(phid) as k:
        k.send(keeper.hello(incarnation))
        k.send(keeper.packet(keeper.UNDO))
        if not stays:
            k.socket.close()
        for _ in range(2):  # each comes to the loop later than what was sent before, and is answered
            with Keeper(phid) as later:
                later.send(keeper.hello(str(uuid.uuid4()), by_caller=False))
                assert later.receive()[0] == keeper.GONE
        said = client.put("late", {}, keeper="caller", incarnation=incarnation).expect(409).json
        assert "creator went away" in said["detail"], said
        assert_nothing_left(phid, client)
    client.put("late", {}).expect(201)  # another's
    client.delete("late", force=True).expect(204)


def test_nothing_is_left_of_200_containers_whose_runphi_and_keepers_die(shims, client, seed):
    wrong, threads = [], []

    def shim(n):
        rng = random.Random(seed + n)
        try:
            wrong.extend(filter(None, [live(shims, f"c{n}-{i}", rng) for i in range(LIVES)]))
        except BaseException as e:
            wrong.append(repr(e))

    for n in range(CLIENTS):
        threads.append(threading.Thread(target=shim, args=(n,)))
        threads[-1].start()
    for t in threads:
        t.join()
    print(dict(shims.deaths))
    assert wrong == [] and shims.deaths["runphi create"] > 0 and sum(shims.deaths.values()) > CLIENTS * LIVES / 10
    shims.assert_nothing_left(client)
    assert shims.runphi.phid.sim.ctl("stat")["cpu_overlaps"] == "0"


@pytest.mark.parametrize("dies", (False, True), ids=("both live", "one is killed"))
def test_of_two_creates_of_an_id_one_makes_it(shims, client, seed, dies):
    """The other fails, and takes nothing of the first's away: neither marker nor cgroup, pid-file, keeper or cell. A client sends no
    forced delete for an id that its own list has for another's; whoever was killed in the middle does."""
    rng, killed = random.Random(seed), 0
    shims.bundle("first")
    assert [shims.call(words)[0] for words in (("create", "first"), ("delete", "first", "--force"))] == [0, 0]
    for n in range(PAIRS):
        id = f"pair{n}"
        bundle = shims.bundle(id)
        said = [tempfile.TemporaryFile("w+") for _ in range(2)]
        pair = [subprocess.Popen(shims.argv("create", id), env=shims.runphi.env, stdin=subprocess.DEVNULL, stdout=f, stderr=f)
                for f in said]
        if dies:
            with contextlib.suppress(subprocess.TimeoutExpired):
                pair[0].wait(rng.uniform(0, 1.5) * shims.took["create"])
            pair[0].kill()
        statuses = [p.wait(120) for p in pair]
        killed += -signal.SIGKILL in statuses
        won = [p for p in pair if p.returncode == 0]
        assert len(won) == 1 or (dies and len(won) == 0 and -signal.SIGKILL in statuses), statuses
        if won:
            lost, = [f for f, p in zip(said, pair) if p.returncode == 1] or [None]
            if lost is not None:
                lost.seek(0)
                assert "already exists" in lost.read()
            state = shims.runphi.state(id)
            assert state["status"] == "created" and process_alive(state["pid"]) and (bundle / "init.pid").read_text() == str(state["pid"])
            assert {(d / id / "cgroup.procs").read_text() for d in shims.cgroups} == {f"{state['pid']}\n"}
            eventually(lambda: shims.keepers() == [state["pid"]], "the end of the other's keeper")
            shims.runphi.good("start", id)
        shims.runphi.good("delete", "--force", id)
        for f in said:
            f.close()
    print(f"{killed} killed")
    assert (killed > 0) == dies
    shims.assert_nothing_left(client)
