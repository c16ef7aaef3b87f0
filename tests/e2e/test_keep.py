"""lifecycle.keeper_lost: keep - a cell that goes on without its keeper, and the create that claims it."""
import os
import signal
import subprocess

import pytest
from conftest import eventually
from living import owners, types
from phidtest.daemon import await_gone
from test_runphi import Runphi, runphi  # noqa: F401 (fixture)

KEPT = {"format": "phid-boot/1", "backend": "sim", "name": "press", "boot": {"cmdline": "sim=count:20"}, "memory": [{"size": "1M"}],
        "lifecycle": {"keeper_lost": "keep"}}


def lose_keeper(runphi, client, ident):
    state = runphi.state(ident)
    os.kill(state["pid"], signal.SIGKILL)
    await_gone(state["pid"])
    return client.get("/v1/containers").json["items"][0]


def running(runphi, ident, boot=KEPT, **config):
    runphi.good("create", "-b", runphi.bundle(ident, boot, config), ident)
    runphi.good("start", ident)


def test_a_kept_cell_is_stopped_for_the_oci_side_and_goes_on(runphi, client, phid):
    running(runphi, "one")
    kept = lose_keeper(runphi, client, "one")
    assert runphi.state("one")["status"] == "stopped" and runphi.state("one")["pid"] == 0
    status, _, err = runphi("kill", "one", "9")
    assert status == 1 and "container not running" in err
    for verb in ("pause", "start", "resume"):
        status, _, err = runphi(verb, "one")
        assert status == 1 and "container not running" in err, verb
    runphi.good("kill", "--all", "one", "9")
    assert "kept" in runphi("delete", "--force", "one")[2]
    runphi.good("delete", "--force", "one")  # as a shim does: once more
    assert runphi.markers() == []
    now, = client.get("/v1/containers").json["items"]
    assert now["state"] == "running" and now["cell"] == kept["cell"] and len(phid.sim.cells()) == 1
    client.delete(now["id"], force=True).expect(204)


@pytest.mark.parametrize("again", ["one", "two"])
@pytest.mark.parametrize("deleted", [True, False])
def test_the_next_create_of_the_like_claims_the_cell(runphi, client, phid, again, deleted):
    running(runphi, "one", annotations={"a": "old"})
    old = lose_keeper(runphi, client, "one")
    if deleted or again == "one":
        runphi.good("delete", "one")
    bundle = runphi.bundle("b", KEPT, {"annotations": {"a": "new"}})
    out = runphi.dir / "out"
    with open(out, "w") as f:
        runphi.good("create", "-b", bundle, f"--pid-file={runphi.dir}/pid", again, out=f)
    new, = client.get("/v1/containers").json["items"]
    state = runphi.state(again)
    assert new["cell"] == {**old["cell"], "claimed": True} and new["incarnation"] != old["incarnation"]
    assert (new["annotations"], new["bundle"], new["oci"]["id"]) == ({"a": "new"}, bundle, again)
    assert state["status"] == "running" and state["pid"] == int((runphi.dir / "pid").read_text()) != old["keeper"]["pid"]
    runphi.good("start", again)
    status, _, err = runphi("start", again)
    assert status == 1 and "running" in err, "one start is right, a second is wrong"
    eventually(lambda: "count" in out.read_text(), "the console of the claimed cell")
    assert set(owners(client).values()) == {new["id"]} and phid.sim.ctl("stat")["cpu_overlaps"] == "0"
    if again != "one" and not deleted:
        assert "does not exist" in runphi("state", "one")[2]
        runphi.good("delete", "--force", "one")
        assert len(phid.sim.cells()) == 1, "the first one's deletion does not touch it"
    runphi.good("kill", again, "9")
    await_gone(state["pid"])
    runphi.good("delete", again)
    assert phid.sim.cells() == [] and runphi.markers() == []


def test_a_claimed_cell_whose_keeper_is_lost_in_turn_is_claimed_at_once(runphi, phid):
    for ident in ("one", "two", "three"):
        running(runphi, ident)
        state = runphi.state(ident)
        os.kill(state["pid"], signal.SIGKILL)
        await_gone(state["pid"])
    assert len(phid.sim.cells()) == 1


def test_events_tell_of_a_claim(runphi, client):
    after = client.get("/v1/health").json["last_event"]
    running(runphi, "one")
    old = lose_keeper(runphi, client, "one")
    running(runphi, "two")
    new, = client.get("/v1/containers").json["items"]
    assert types(client, after, old["id"]) == ["creating", "created", "started", "deleted"]
    assert types(client, after, new["id"]) == ["claimed", "started"]
    claimed, = [e for e in client.all_events(after) if e["type"] == "container.claimed"]
    assert claimed["detail"] == {"was": old["id"]}


@pytest.mark.parametrize("boot", [dict(KEPT, name="other"), dict(KEPT, boot={"cmdline": "sim=count:30"}), dict(KEPT, cpus={"count": 2}),
                                  {k: v for k, v in KEPT.items() if k != "lifecycle"}], ids=["name", "boot", "cpus", "not kept"])
def test_a_create_of_another_kind_claims_nothing(runphi, client, phid, boot):
    running(runphi, "one")
    old = lose_keeper(runphi, client, "one")
    runphi.good("create", "-b", runphi.bundle("b", boot), "two")
    assert len(phid.sim.cells()) == 2
    assert client.get(f"/v1/containers/{old['id']}").json["incarnation"] == old["incarnation"]


def test_a_cell_with_a_keeper_is_not_claimed(runphi, phid):
    running(runphi, "one")
    running(runphi, "two")
    assert len(phid.sim.cells()) == 2
    assert runphi("create", "-b", runphi.bundle("b", KEPT), "one")[0] == 1


def test_of_many_claimants_at_once_each_gets_another_cell(runphi, client, phid):
    for n in range(4):
        running(runphi, f"old{n}")
    for c in client.get("/v1/containers").json["items"]:
        os.kill(c["keeper"]["pid"], signal.SIGKILL)
        await_gone(c["keeper"]["pid"])
    cells = sorted(phid.sim.cells())
    bundle = runphi.bundle("b", KEPT)
    creates = [subprocess.Popen(runphi.argv("create", "-b", bundle, f"new{n}"), env=runphi.env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for n in range(6)]
    assert [p.wait(60) for p in creates] == [0] * 6
    assert set(cells) <= set(phid.sim.cells()) and len(phid.sim.cells()) == 6
    ids = {c["oci"]["id"]: c["cell"].get("claimed", False) for c in client.get("/v1/containers").json["items"]}
    assert set(ids) == {f"new{n}" for n in range(6)} and sum(ids.values()) == 4


def test_a_claim_whose_creator_dies_is_given_back(runphi, client, phid):
    running(runphi, "one")
    lose_keeper(runphi, client, "one")
    hook = runphi.dir / "hook"
    hook.write_text("#!/bin/sh\nexit 3\n")
    hook.chmod(0o755)
    status, _, err = runphi("create", "-b", runphi.bundle("b", KEPT, {"hooks": {"createRuntime": [{"path": str(hook)}]}}), "two")
    assert status == 1 and "createRuntime" in err and runphi.markers() and len(phid.sim.cells()) == 1
    running(runphi, "three")
    now, = client.get("/v1/containers").json["items"]
    assert now["oci"]["id"] == "three" and now["state"] == "running" and len(phid.sim.cells()) == 1


def test_phid_killed_after_the_claim_gives_the_keeper_its_console(own_phid, runphi_dir):
    phid = own_phid()
    r = Runphi(phid, runphi_dir)
    client = phid.client()
    running(r, "one")
    lose_keeper(r, client, "one")
    client.close()
    phid.stop()
    phid.env["PHID_KILL_AT"] = "claim.committed:1"
    phid.start()
    bundle = r.bundle("b", KEPT)
    with open(r.dir / "out", "w") as f:
        create = subprocess.Popen(r.argv("create", "-b", bundle, "two"), env=r.env, stdin=subprocess.DEVNULL, stdout=f)
    eventually(lambda: not phid.alive(), "phid's death")
    phid.kill9()  # reaps it
    del phid.env["PHID_KILL_AT"]
    phid.start()
    assert create.wait(60) == 0
    r.good("start", "two")
    eventually(lambda: "count" in (r.dir / "out").read_text())
    assert r.state("two")["status"] == "running" and len(phid.sim.cells()) == 1
    r.good("delete", "--force", "two")
