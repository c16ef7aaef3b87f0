"""A hypervisor that is slow, hangs, lies or refuses: the others do not notice, and nothing is lost."""
import subprocess
import time

import pytest
from conftest import Background, check_loop, eventually, finish
from phidtest.daemon import build_dir
from phidtest.strace import Strace, threads

MS = 5000
VERBS = {"create": None, "start": "created", "pause": "running", "resume": "paused", "destroy": "running", "observe": "created",
         "powerdown": "running"}


@pytest.fixture
def brief(own_phid):
    """A phid that gives a hypervisor a second."""
    return own_phid(args=["--action-timeout-ms", "1000"])


def bring(client, id, state):
    if state is None:
        return
    client.put(id, {}).expect(201)
    if state in ("running", "paused"):
        client.start(id).expect(200)
    if state == "paused":
        client.pause(id).expect(200)


def act(client, verb, id="slow"):
    """The API's verb that needs the hypervisor's."""
    if verb == "create":
        return client.put(id, {})
    if verb == "destroy":
        return client.kill(id, "KILL")
    if verb == "observe":
        return client.start(id)  # start, then observe
    if verb == "powerdown":
        return client.kill(id, "TERM")
    return client.post(id, verb)


@pytest.mark.parametrize("verb", VERBS)
def test_a_slow_action_delays_nobody_else(own_phid, verb):
    """5 s in one action; meanwhile reads, and the whole life of another container, go on and end before it."""
    phid = own_phid()
    client = phid.client()
    bring(client, "slow", VERBS[verb])
    phid.sim.fault(verb, "delay", ms=MS, count=1)
    slow = Background(lambda: (act(phid.client(), verb), time.monotonic()))
    if verb == "powerdown":  # does not change the record
        eventually(lambda: client.container("slow").json["operation"] == "kill", "the operation")
    else:
        eventually(lambda: (a := client.container("slow")).status == 200 and a.json["operation"] is not None, "the operation")
    for path in ("/v1/health", "/v1/host", "/v1/allocations", "/v1/capacity", "/v1/containers", "/v1/containers/slow", "/v1/events"):
        client.get(path).expect(200)
    eventually(lambda: client.get("/v1/containers/slow/console").status == 200, "its log")  # made before the cell
    client.wait("slow", "stopped", timeout=0).expect(204)
    client.put("other", {}).expect(201)
    client.start("other").expect(200)
    client.pause("other").expect(200)
    client.resume("other").expect(200)
    client.kill("other", "KILL").expect(200)
    client.delete("other").expect(204)
    client.kill("slow", "KILL").expect(409, "busy")  # one operation a container at a time
    assert not slow.done()
    here = time.monotonic()
    answer, at = slow.result()
    assert answer.status in (200, 201), answer
    assert here < at
    client.container("slow").expect(200)
    check_loop(client)


def test_all_actions_slow_at_once_hold_each_other_up_not(own_phid):
    """16 slow creates take as long as one, not 16 times as long: they end in the same second."""
    phid = own_phid()
    phid.sim.fault("create", "delay", ms=1000, count=16)
    creates = [Background(lambda i=i: (phid.client().put(f"s{i}", {}).expect(201), time.monotonic())) for i in range(16)]
    ends = [c.result()[1] for c in creates]
    assert max(ends) - min(ends) < 8, "one after the other"
    check_loop(phid.client())


# ---- hang ----

def test_a_hanging_create_is_504_and_leaves_nothing(brief):
    client = brief.client()
    brief.sim.fault("create", "hang", count=1)
    client.put("a", {}).expect(504, "deadline")
    client.container("a").expect(404)
    assert brief.sim.cells() == [] and client.get("/v1/capacity").json["cpus"]["free"] == 16
    failed = client.all_events()[-1]
    assert failed["type"] == "container.create-failed" and failed["detail"]["code"] == "deadline"
    client.put("a", {}).expect(201)


@pytest.mark.parametrize("verb, state", [("start", "created"), ("pause", "running"), ("resume", "paused")])
def test_a_hanging_verb_is_504_and_leaves_the_container_as_it_was(brief, verb, state):
    client = brief.client()
    bring(client, "a", state)
    before = client.container("a").json
    brief.sim.fault(verb, "hang", count=1)
    client.post("a", verb).expect(504, "deadline")
    after = client.container("a").json
    assert after["state"] == state and after["operation"] is None and after["cell"] == before["cell"]
    assert client.all_events()[-1]["type"] == "container.failed"
    client.post("a", verb).expect(200)  # it can be tried again


def test_a_late_answer_of_a_hypervisor_is_not_taken_for_that_of_another_question(brief):
    client = brief.client()
    bring(client, "a", "running")
    brief.sim.fault("pause", "late", ms=1500, count=1)  # done at once, told too late
    client.pause("a").expect(504, "deadline")
    brief.sim.fault("resume", "delay", ms=900, count=1)
    answer = client.resume("a")  # the late answer to pause comes meanwhile
    assert answer.status in (200, 409), answer
    state = client.container("a").json["state"]
    shown = brief.sim.ctl("observe phid-1")["state"]
    assert state == "running" or shown == state, f"phid says {state}, the hypervisor {shown}"


@pytest.mark.parametrize("how", ["kill", "force"])
def test_units_of_a_cell_that_does_not_go_are_quarantined_until_it_does(brief, how):
    client = brief.client()
    cpus = None
    bring(client, "a", "running")
    cpus = client.container("a").json["cell"]["cpus"]
    brief.sim.fault("destroy", "hang")
    if how == "kill":
        client.kill("a", "KILL").expect(504, "deadline")
    else:
        client.delete("a", force=True).expect(504, "deadline")
    left = client.container("a").expect(200).json
    assert left["state"] == "running" and left["operation"] is None
    shown = {c["id"]: (c["state"], c["owner"]) for c in client.get("/v1/allocations").json["cpus"]}
    assert all(shown[cpu] == ("quarantined", "a") for cpu in cpus)
    assert client.all_events()[-1]["type"] == "container.quarantined"
    client.put("b", {"cpus": {"set": ",".join(map(str, cpus))}}).expect(409, "no-resources")
    client.put("b", {"cpus": {"count": 15}}).expect(201)  # the others are free
    client.delete("a", force=True).expect(504, "deadline")  # still
    brief.sim.clear()
    client.delete("b", force=True).expect(204)
    client.delete("a", force=True).expect(204)
    client.put("b", {"cpus": {"count": 16}}).expect(201)


def test_a_create_that_cannot_be_undone_is_quarantined_and_a_forced_delete_ends_it(brief):
    client = brief.client()
    brief.sim.fault("create", "late", ms=3000, count=1)  # made, but not told in time
    brief.sim.fault("destroy", "hang")
    client.put("a", {}).expect(504, "deadline")
    left = client.container("a").expect(200).json
    assert left["state"] == "creating" and left["operation"] is None
    assert {c["state"] for c in client.get("/v1/allocations").json["cpus"]} == {"host", "free", "quarantined"}
    brief.sim.clear()
    client.delete("a", force=True).expect(204)
    assert brief.sim.cells() == []


def test_a_hypervisor_that_does_not_show_its_cells_is_504(brief):
    client = brief.client()
    bring(client, "a", "created")
    brief.sim.fault("observe", "hang", count=1)
    client.start("a").expect(504, "deadline")
    client.container("a").expect(200)


# ---- lie ----

def test_a_create_that_made_nothing_is_502_and_leaves_nothing(phid, client):
    phid.sim.fault("create", "lie", count=1)
    client.put("a", {}).expect(502, "backend")
    client.container("a").expect(404)
    assert phid.sim.cells() == [] and client.get("/v1/capacity").json["cpus"]["free"] == 16


@pytest.mark.parametrize("verb, state", [("start", "created"), ("pause", "running"), ("resume", "paused")])
def test_a_verb_that_did_nothing_is_502_and_the_state_says_so(phid, client, verb, state):
    bring(client, "a", state)
    phid.sim.fault(verb, "lie", count=1)
    client.post("a", verb).expect(502, "backend")
    assert client.container("a").json["state"] == state
    client.post("a", verb).expect(200)


def test_a_destroy_that_did_nothing_does_not_free_the_units(brief):
    client = brief.client()
    bring(client, "a", "running")
    brief.sim.fault("destroy", "lie")
    client.kill("a", "KILL").expect(504, "deadline")
    assert brief.sim.cells() == ["phid-1"]
    assert [c["state"] for c in client.get("/v1/allocations").json["cpus"] if c["owner"] == "a"] == ["quarantined"]
    brief.sim.clear()
    assert client.kill("a", "KILL").expect(200).json["state"] == "stopped"
    assert client.get("/v1/capacity").json["cpus"]["free"] == 16


def test_the_operator_releases_what_phid_cannot_see_gone(brief):
    client = brief.client()
    bring(client, "a", "running")
    client.post("a", "release").expect(409, "wrong-state")
    brief.sim.fault("destroy", "lie")
    client.kill("a", "KILL").expect(504, "deadline")
    assert client.get("/v1/health").expect(200).json["quarantined"] == ["a"]
    doctor = phictl(brief, "doctor")
    assert doctor.returncode == 1 and "quarantined: a" in doctor.stdout and "phictl release" in doctor.stdout
    assert phictl(brief, "release", "a").returncode == 0
    client.container("a").expect(404)
    assert client.get("/v1/capacity").json["cpus"]["free"] == 16 and client.get("/v1/health").json["quarantined"] == []
    assert client.all_events()[-1]["type"] == "container.released"
    client.post("a", "release").expect(404)
    client.close()
    brief.stop()
    brief.start()  # the cell is there all the same: now nobody's, and its CPU is not granted
    owners = [c["owner"] for c in client.get("/v1/allocations").json["cpus"] if c["state"] == "observed"]
    assert owners == ["sim:phid-1"]
    client.close()
    brief.stop()
    brief.sim.clear()
    brief.sim.ctl("destroy phid-1")
    brief.start()
    assert client.get("/v1/capacity").json["cpus"]["free"] == 16


def phictl(phid, *args):
    return subprocess.run([str(build_dir() / "client/phictl"), "--host", f"unix:{phid.socket}", *args], capture_output=True, text=True, timeout=60)


# ---- error ----

@pytest.mark.parametrize("verb, state", [("create", None), ("start", "created"), ("pause", "running"), ("resume", "paused"),
                                         ("powerdown", "running"), ("observe", "created")])
def test_an_error_of_the_hypervisor_is_502_with_its_words(phid, client, verb, state):
    bring(client, "slow", state)
    phid.sim.fault(verb, "error", errno="EBUSY", count=1)
    answer = act(client, verb).expect(502, "backend")
    assert "EBUSY" in answer.json["detail"]
    if state is None:
        client.container("slow").expect(404)
    else:
        assert client.container("slow").json["state"] in (state, "running")


def test_a_destroy_that_is_refused_once_is_asked_again(brief):
    client = brief.client()
    bring(client, "a", "running")
    brief.sim.fault("destroy", "error", errno="EIO", count=1)
    client.kill("a", "KILL").expect(200)
    assert brief.sim.cells() == []


def test_a_hypervisor_that_is_not_there_is_an_error_and_no_hang(own_phid):
    phid = own_phid(args=["--action-timeout-ms", "1000"])
    client = phid.client()
    client.put("a", {}).expect(201)
    phid.sim.ctl("quit")
    eventually(lambda: not client.get("/v1/host").json["backends"][0]["available"], "the backend's absence")
    client.put("b", {}).expect(501, "unsupported")
    client.start("a").expect(502, "backend")
    client.get("/v1/containers").expect(200)
    reply = client.delete("a", force=True)
    assert reply.status == 504, reply
    # With the stand-in's end its cells are gone; a new one shows that.
    phid.restart()
    client.wait("a", timeout=10)
    client.delete("a", force=True)
    finish(phid)


def test_a_forced_delete_of_a_create_is_finished_by_the_next_phid(own_phid):
    """The create is superseded, its cell there, and phid dies before the cell is gone: the intent on record is the delete's."""
    phid = own_phid(args=["--action-timeout-ms", "60000"])
    client = phid.client()
    phid.sim.fault("observe", "hang", count=1)
    phid.sim.fault("destroy", "hang", count=1)
    made = Background(lambda: phid.client().put("one", {}))
    eventually(lambda: phid.sim.cells(), "the cell")
    gone = Background(lambda: phid.client().delete("one", force=True))
    made.result().expect(409, "wrong-state")
    eventually(lambda: phid.rows("SELECT op FROM containers") == [("force-delete",)], "the intent of the delete")
    phid.kill9()
    with pytest.raises(OSError):
        gone.result()
    phid.sim.clear()
    phid.start()
    client = phid.client()
    eventually(lambda: client.get("/v1/containers").json["items"] == [], "the end of the container")
    assert phid.sim.cells() == []


def test_a_kill_whose_intent_and_outcome_wait_for_the_disk_is_superseded(own_phid):
    """The disk takes three seconds: the kill acts after one, asks for its outcome to be written, and a forced delete comes in between."""
    phid = own_phid()
    client = phid.client()
    bring(client, "one", "running")
    cells = phid.sim.cells()
    with Strace(threads(phid.process.pid), phid.dir / "strace", "fdatasync", "delay_enter=3000000"):
        kill = Background(lambda: phid.client().kill("one", "KILL"))
        eventually(lambda: phid.sim.cells() != cells or phid.sim.ctl("observe phid-1").get("state") == "ended", "the cell's end")
        delete = Background(lambda: phid.client().delete("one", force=True))
        assert kill.result().status in (200, 409)
        delete.result().expect(204)
    client.container("one").expect(404)
    client.put("one", {}).expect(201)
    client.delete("one", force=True).expect(204)
