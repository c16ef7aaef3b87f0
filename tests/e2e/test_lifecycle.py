"""The life of a container, as the API promises it. Backend: the stand-in."""
import json
import os
import threading

import pytest
from conftest import Background, assert_nothing_left, background, eventually, finish
from living import COUNTS, IGNORES, last_event, numbers, owners, types
from phidtest.daemon import await_gone, process_alive
from phidtest.openapi import document

# ---- the way through ----

def test_a_container_goes_through_all_states_and_frees_what_it_held(phid, client):
    begin = last_event(client)
    made = client.put("a", {**COUNTS, "name": "Alpha", "cpus": {"count": 2}, "labels": {"role": "test"}}).expect(201).json
    assert (made["state"], made["name"], made["backend"], made["labels"]) == ("created", "Alpha", "sim", {"role": "test"})
    assert made["exit"] is None and made["started_at"] is None and made["operation"] is None
    assert owners(client) == {cpu: "a" for cpu in made["cell"]["cpus"]} and len(made["cell"]["cpus"]) == 2
    assert made["cell"]["memory"][0]["size"] == 64 << 20
    keeper = made["keeper"]["pid"]
    assert process_alive(keeper)
    assert client.container("a").json == made

    running = client.start("a").expect(200).json
    assert running["state"] == "running" and running["started_at"] is not None and running["cell"] == made["cell"]
    assert client.pause("a").expect(200).json["state"] == "paused"
    assert client.resume("a").expect(200).json["state"] == "running"
    assert running["generation"] > made["generation"]

    stopped = client.kill("a", "KILL").expect(200).json
    assert stopped["state"] == "stopped" and stopped["stopped_at"] is not None
    assert stopped["exit"] == {"code": 137, "signal": 9, "reason": "killed", "detail": None}
    assert stopped["cell"] is None and stopped["keeper"]["pid"] is None
    assert owners(client) == {} and phid.sim.cells() == []
    await_gone(keeper)

    client.delete("a").expect(204)
    client.container("a").expect(404, "not-found")
    assert types(client, begin, "a") == ["creating", "created", "started", "paused", "resumed", "stopped", "deleted"]


def test_a_killed_container_can_be_made_again_as_another_incarnation(client):
    first = client.put("a", COUNTS).expect(201).json["incarnation"]
    client.delete("a", force=True).expect(204)
    assert client.put("a", COUNTS).expect(201).json["incarnation"] != first


def test_term_asks_the_guest_which_shuts_down_with_0(client):
    client.put("a", {}).expect(201)
    client.start("a").expect(200)
    client.kill("a", "TERM").expect(200)
    stopped = client.wait("a").expect(200).json
    assert stopped["exit"] == {"code": 0, "signal": None, "reason": "guest-shutdown", "detail": None}


@pytest.mark.parametrize("signal", ["TERM", "INT", "SIGQUIT", 15, 2, 3, None])
def test_every_gentle_signal_asks(client, signal):
    client.put("a", {}).expect(201)
    client.start("a").expect(200)
    client.kill("a", signal).expect(200)
    assert client.wait("a").expect(200).json["exit"]["reason"] == "guest-shutdown"


@pytest.mark.parametrize("signal", ["KILL", "SIGKILL", 9])
def test_kill_is_told_by_name_or_number(client, signal):
    client.put("a", IGNORES).expect(201)
    client.start("a").expect(200)
    assert client.kill("a", signal).expect(200).json["exit"]["signal"] == 9


def test_a_guest_that_ignores_term_runs_on_unless_a_timeout_says_so(client):
    client.put("a", IGNORES).expect(201)
    client.start("a").expect(200)
    client.kill("a", "TERM").expect(200)
    client.wait("a", timeout=1).expect(204)
    assert client.container("a").json["state"] == "running"
    client.kill("a", "TERM", timeout_ms=50).expect(200)
    stopped = client.wait("a").expect(200).json
    assert (stopped["exit"]["code"], stopped["exit"]["signal"], stopped["exit"]["reason"]) == (137, 9, "killed")


def test_any_signal_ends_a_container_that_never_ran(client):
    client.put("a", {}).expect(201)
    stopped = client.kill("a", "TERM").expect(200).json
    assert stopped["state"] == "stopped" and stopped["started_at"] is None
    assert (stopped["exit"]["code"], stopped["exit"]["reason"]) == (143, "killed")


def test_a_paused_container_can_be_killed(client):
    client.put("a", {}).expect(201)
    client.start("a").expect(200)
    client.pause("a").expect(200)
    assert client.kill("a", "KILL").expect(200).json["exit"]["code"] == 137


def test_a_guest_that_ends_by_itself_stops_its_container_with_its_code(phid, client):
    begin = last_event(client)
    keeper = client.put("a", {"boot": {"cmdline": "sim=exit:5:50"}}).expect(201).json["keeper"]["pid"]
    client.start("a").expect(200)
    stopped = client.wait("a").expect(200).json
    assert (stopped["exit"]["code"], stopped["exit"]["reason"]) == (5, "guest-shutdown")
    assert owners(client) == {} and phid.sim.cells() == []
    assert types(client, begin, "a")[-1] == "stopped"
    await_gone(keeper)


def test_a_guest_that_panics_says_so(client):
    client.put("a", {"boot": {"cmdline": "sim=panic:20"}}).expect(201)
    client.start("a").expect(200)
    stopped = client.wait("a").expect(200).json
    assert (stopped["exit"]["code"], stopped["exit"]["reason"]) == (134, "guest-panic")


def test_a_guest_that_ends_at_once_was_started_all_the_same(client):
    for i in range(20):
        client.put(f"a{i}", {"boot": {"cmdline": "sim=exit:7:0"}}).expect(201)
        client.start(f"a{i}").expect(200)
        assert client.wait(f"a{i}").expect(200).json["exit"]["code"] == 7
        client.delete(f"a{i}").expect(204)


# ---- state x verb ----

def bring(phid, client, state):
    """A container "a" in that state. Answers the PUT that hangs, if it is creating."""
    if state == "creating":
        phid.sim.fault("create", "hang", count=1)
        put = background(phid, "put", "a", {})
        eventually(lambda: client.container("a").status == 200, "the record")
        eventually(lambda: phid.rows("SELECT op FROM containers WHERE id = 'a'") == [("create",)], "the operation")
        return put
    client.put("a", {}).expect(201)
    if state in ("running", "paused"):
        client.start("a").expect(200)
    if state == "paused":
        client.pause("a").expect(200)
    if state == "stopped":
        client.kill("a", "KILL").expect(200)
    assert client.container("a").json["state"] == state
    return None


VERBS = {
    "create": lambda c: c.put("a", {"name": "another"}),
    "start": lambda c: c.start("a"),
    "pause": lambda c: c.pause("a"),
    "resume": lambda c: c.resume("a"),
    "kill": lambda c: c.kill("a", "KILL"),
    "delete": lambda c: c.delete("a"),
    "force-delete": lambda c: c.delete("a", force=True),
}
AFTER = {"start": "running", "pause": "paused", "resume": "running", "kill": "stopped", "delete": None, "force-delete": None}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", ["creating", "created", "running", "paused", "stopped"])
def test_every_cell_of_the_state_verb_table(phid, client, state, verb):
    code = document().tree["x-phid-lifecycle"][verb][state]
    if (state, verb) == ("creating", "create"):
        code = "busy"  # another PUT of what is being created: it may become equal
    put = bring(phid, client, state)
    before = client.container("a").json
    answer = VERBS[verb](client)
    if code != "ok":
        answer.expect(409, code)
        assert client.container("a").json == before
        if code == "wrong-state":
            assert answer.pointers == ["/state"]
    elif AFTER[verb] is None:
        answer.expect(204)
        client.container("a").expect(404)
        assert owners(client) == {}
    else:
        assert answer.expect(200).json["state"] == AFTER[verb]
    if put is not None:
        if code != "ok":
            client.delete("a", force=True).expect(204)
        put.result().expect(409, "wrong-state")


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "kill", "delete", "force-delete"])
def test_every_verb_on_what_does_not_exist_is_404(client, verb):
    VERBS[verb](client).expect(404, "not-found")


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "destroy"])
def test_a_forced_delete_supersedes_what_is_under_way(phid, client, verb):
    bring(phid, client, {"start": "created", "pause": "running", "resume": "paused", "destroy": "running"}[verb])
    phid.sim.fault(verb, "hang", count=1)
    call = Background(lambda: VERBS["kill" if verb == "destroy" else verb](phid.client()))
    eventually(lambda: client.container("a").json["operation"] is not None, "the operation")
    client.kill("a", "KILL").expect(409, "busy")
    client.delete("a").expect(409)
    client.delete("a", force=True).expect(204)
    client.container("a").expect(404)
    answer = call.result()
    assert answer.status == 409, answer
    assert owners(client) == {} and phid.sim.cells() == []


# ---- allocation ----

def test_named_cpus_and_addresses_are_granted_as_named(client):
    spec = {"cpus": {"set": "3,5-6"}, "memory": [{"size": 2 << 20, "at": "0x100200000"}, {"size": 8192, "pool": "host"}]}
    made = client.put("a", spec).expect(201).json
    assert made["cell"]["cpus"] == [3, 5, 6]
    assert made["cell"]["memory"] == [{"pool": "carve", "base": "0x100200000", "size": 2 << 20}, {"pool": "host", "size": 8192}]
    assert owners(client) == {3: "a", 5: "a", 6: "a"}
    refused = client.put("b", {"cpus": {"set": "6-7"}}).expect(409, "no-resources").json
    assert refused["wanted"] == {"cpus": 2} and refused["free"] == {"cpus": 1}
    assert refused["blockers"] == [{"unit": "cpu 6", "owner": "a"}]
    refused = client.put("b", {"memory": [{"size": 4096, "at": "0x1003ff000"}]}).expect(409, "no-resources").json
    assert refused["blockers"][0]["owner"] == "a" and refused["wanted"] == {"memory": 4096}
    client.put("b", {"memory": [{"size": 4096, "at": "0x100400000"}]}).expect(201)
    memory = client.get("/v1/allocations").json["memory"]
    assert {(m["owner"], m["base"], m["size"]) for m in memory} == {
        ("a", "0x100200000", 2 << 20), ("a", None, 8192), ("b", "0x100400000", 4096)}


def test_colours_share_a_range_only_where_they_differ(client):
    at = {"size": 1 << 20, "at": "0x100000000"}
    client.put("a", {"memory": [{**at, "colors": "0x3"}]}).expect(201)
    client.put("b", {"memory": [{**at, "colors": "0xc"}]}).expect(201)
    client.put("c", {"memory": [{**at, "colors": "0x8"}]}).expect(409, "no-resources")
    client.put("c", {"memory": [at]}).expect(409, "no-resources")


# ---- bundles ----

def bundle(phid, name, boot, config=None):
    d = phid.dir / name
    (d / "rootfs" / "boot").mkdir(parents=True)
    (d / "rootfs" / "boot" / "config.json").write_text(json.dumps(boot))
    (d / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, **(config or {})}))
    return d


def test_a_bundle_says_what_to_boot(phid, client):
    boot = {"format": "phid-boot/1", "boot": {"inmate": "/boot/x.bin", "cmdline": "sim=count:5"}, "memory": [{"size": "2M"}]}
    d = bundle(phid, "bundle1", boot, {"annotations": {"a.b": "c"}})
    (d / "rootfs" / "boot" / "x.bin").write_bytes(b"x" * 10)
    made = client.put("a", bundle=str(d), oci={"id": "web", "root": "/run/runc"}).expect(201).json
    assert made["bundle"] == str(d) and made["oci"] == {"id": "web", "root": "/run/runc"} and made["name"] == "web"
    assert made["annotations"] == {"a.b": "c"} and made["payload"][0]["path"] == "/boot/x.bin"
    assert made["cell"]["memory"][0]["size"] == 2 << 20
    spec = client.put("b", {"name": "mine"}, bundle=str(d)).expect(201).json["spec"]
    assert spec["name"] == "mine" and "boot" not in spec


# ---- the keeper, and phid itself ----

def test_a_container_whose_keeper_dies_is_stopped(phid, client):
    keeper = client.put("a", COUNTS).expect(201).json["keeper"]["pid"]
    client.start("a").expect(200)
    os.kill(keeper, 9)
    stopped = client.wait("a").expect(200).json
    assert stopped["exit"]["reason"] == "keeper-lost" and phid.sim.cells() == []


def test_a_container_that_keeps_running_without_its_keeper_says_so_in_its_spec(phid, client):
    keeper = client.put("a", {**COUNTS, "lifecycle": {"keeper_lost": "keep"}}).expect(201).json["keeper"]["pid"]
    client.start("a").expect(200)
    os.kill(keeper, 9)
    await_gone(keeper)
    client.wait("a", timeout=1).expect(204)
    assert client.container("a").json["state"] == "running"
    client.kill("a", "KILL").expect(200)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_restart_of_phid_disturbs_no_cell(own_phid, how):
    phid = own_phid()
    client = phid.client()
    made = client.put("a", COUNTS).expect(201).json
    client.put("idle", {}).expect(201)
    client.put("old", {}).expect(201)
    client.start("a").expect(200)
    client.kill("old", "KILL").expect(200)
    before = phid.sim.stat()
    events = last_event(client)
    client.close()
    if how == "SIGTERM":
        phid.stop()
    else:
        phid.kill9()
    assert process_alive(made["keeper"]["pid"])
    phid.start()
    assert {c["id"]: c["state"] for c in client.containers()} == {"a": "running", "idle": "created", "old": "stopped"}
    again = client.container("a").json
    assert (again["keeper"], again["cell"], again["incarnation"]) == (made["keeper"], made["cell"], made["incarnation"])
    assert {k: phid.sim.stat()[k] for k in ("cells", "creates", "destroys", "pid")} == {
        k: before[k] for k in ("cells", "creates", "destroys", "pid")}
    assert [e["type"] for e in client.all_events(events)] == ["phid.started"]
    with client.stream("/v1/containers/a/console", {"follow": True}) as s:
        counted = numbers(s.read_until(b"count ").decode())
        assert counted == list(range(1, len(counted) + 1))
    client.start("idle").expect(200)
    assert client.kill("a", "TERM").expect(200)
    assert client.wait("a").expect(200).json["exit"]["code"] == 0


def test_a_guest_that_ends_while_phid_is_away_is_stopped_with_its_code(own_phid):
    phid = own_phid()
    client = phid.client()
    client.put("a", {"boot": {"cmdline": "sim=exit:5:200"}}).expect(201)
    client.start("a").expect(200)
    client.close()
    phid.kill9()
    eventually(lambda: "state=ended" in " ".join(f"{k}={v}" for k, v in phid.sim.ctl("observe phid-1").items()), "the end")
    phid.start()
    stopped = client.wait("a").expect(200).json
    assert (stopped["exit"]["code"], stopped["exit"]["reason"]) == (5, "guest-shutdown")


def test_requests_that_wait_are_answered_503_when_phid_stops(own_phid):
    phid = own_phid()
    client = phid.client()
    client.put("a", {}).expect(201)
    phid.sim.fault("start", "hang", count=1)
    waits = [background(phid, "wait", "a"), background(phid, "get", "/v1/events", after=10 ** 6, wait=60),
             background(phid, "start", "a")]
    eventually(lambda: client.container("a").json["operation"] == "start", "the operation")
    stream = client.stream("/v1/events", headers={"Accept": "text/event-stream"})
    next(stream.events())
    phid.stop()
    for w in waits:
        w.result().expect(503, "shutting-down")
    stream.read_all()
    stream.close()
    phid.start()
    finish(phid)


def test_phid_stops_well_amid_traffic(own_phid):
    """Commits, operations and requests are under way at SIGTERM; stop() asserts that no sanitizer speaks."""
    phid = own_phid()
    stop = threading.Event()

    def traffic(n):
        c = phid.client()
        i = 0
        while not stop.is_set():
            i += 1
            try:
                if c.put(f"t{n}", {}, key=f"t{n}-{i}").status == 503:
                    return
                c.start(f"t{n}")
                c.delete(f"t{n}", force=True)
            except OSError:
                return

    for _ in range(4):
        stop.clear()
        work = [Background(traffic, n) for n in range(12)]
        eventually(lambda: last_event(phid.client()) % 50 > 40, "some traffic")
        phid.stop()
        stop.set()
        for w in work:
            w.result()
        phid.start()
    finish(phid)


def test_nothing_is_left_after_all_that(phid, client):
    assert_nothing_left(phid, client)
    stat = phid.sim.stat()
    # Memory overlaps are counted without their colours, of which a test above makes use.
    assert stat["cpu_overlaps"] == 0 and stat["creates"] == stat["destroys"]
