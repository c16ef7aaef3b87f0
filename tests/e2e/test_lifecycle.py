"""The life of a container, as the API promises it. Backend: the stand-in."""
import json
import os
import threading
import uuid

import pytest
from conftest import Background, assert_nothing_left, background, eventually, finish
from phidtest.daemon import await_gone, process_alive
from phidtest.openapi import document

COUNTS = {"boot": {"cmdline": "sim=count:10"}}
IGNORES = {"boot": {"cmdline": "quiet sim=powerdown:ignore"}}


def owners(client):
    return {c["id"]: c["owner"] for c in client.get("/v1/allocations").json["cpus"] if c["owner"] not in (None, "host")}


def types(client, after, id):
    return [e["type"].partition(".")[2] for e in client.all_events(after) if e["container"] == id]


def last_event(client):
    return client.get("/v1/health").json["last_event"]


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


# ---- the console ----

def numbers(text):
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("count ")]


def test_console_follow_gives_every_line_once_until_the_guest_ends(client):
    client.put("a", COUNTS).expect(201)
    with client.stream("/v1/containers/a/console", {"follow": True}) as s:
        client.start("a").expect(200)
        begin = s.read_until(b"count 7\n")
        client.kill("a", "KILL").expect(200)
        text = (begin + s.read_all()).decode()
    assert text.startswith("phid-sim: cell ")
    counted = numbers(text)
    assert counted == list(range(1, counted[-1] + 1)) and counted[-1] >= 7
    assert client.get("/v1/containers/a/console").expect(200).text == text


def test_console_tail_is_the_last_bytes(client):
    client.put("a", {"boot": {"cmdline": "sim=count:1,exit:0:100"}}).expect(201)
    client.start("a").expect(200)
    client.wait("a").expect(200)
    whole = client.get("/v1/containers/a/console").expect(200).text
    assert len(numbers(whole)) > 5
    for n in (0, 1, 17, len(whole), len(whole) + 1):
        assert client.get("/v1/containers/a/console", tail=n).expect(200).text == (whole[-n:] if n else "")
    with client.stream("/v1/containers/a/console", {"follow": True, "tail": 17}) as s:
        assert s.read_all().decode() == whole[-17:]


def test_console_log_is_bounded_and_keeps_the_newest(client):
    client.put("a", {"boot": {"cmdline": "sim=count:1"}, "console": {"log": {"max": 4096}}}).expect(201)
    client.start("a").expect(200)
    with client.stream("/v1/containers/a/console", {"follow": True}) as s:
        s.read_until(b"count 600\n")
    client.kill("a", "KILL").expect(200)
    text = client.get("/v1/containers/a/console").expect(200).text
    counted = numbers(text.split("\n", 1)[1])
    assert len(text) == 4096 and counted[-1] >= 600
    assert counted == list(range(counted[0], counted[-1] + 1))


def test_console_of_a_deleted_container_is_404_and_a_follower_is_let_go(client):
    client.put("a", COUNTS).expect(201)
    client.start("a").expect(200)
    with client.stream("/v1/containers/a/console", {"follow": True}) as s:
        s.read_until(b"count 2\n")
        client.delete("a", force=True).expect(204)
        s.read_all()
    client.get("/v1/containers/a/console").expect(404, "not-found")


# ---- events ----

def test_events_come_in_pages_without_a_gap(client):
    begin = last_event(client)
    for i in range(7):
        client.put(f"e{i}", {}).expect(201)
    client.delete("e3", force=True).expect(204)
    whole = client.all_events(begin)
    assert [e["seq"] for e in whole] == list(range(begin + 1, begin + 1 + 7 * 2 + 1))
    paged, after = [], begin
    while True:
        page = client.events(after, limit=4)
        assert len(page["items"]) <= 4
        if not page["items"]:
            assert page["next"] == after
            break
        paged += page["items"]
        after = page["next"]
    assert paged == whole


def test_a_long_poll_is_answered_when_something_happens(phid, client):
    begin = last_event(client)
    poll = background(phid, "events", begin, wait=60)
    assert client.events(begin, wait=0)["items"] == []
    assert not poll.done()
    client.put("a", {}).expect(201)
    page = poll.result()
    assert page["items"][0]["type"] == "container.creating" and page["items"][0]["seq"] == begin + 1
    assert client.events(last_event(client), wait=1) == {"items": [], "next": last_event(client)}


def test_an_event_stream_has_every_event_once_and_goes_on_behind_last_event_id(client):
    begin = last_event(client)
    stop = threading.Event()

    def traffic():
        c = client.__class__(client.path)
        i = 0
        while not stop.is_set():
            c.put(f"t{i % 4}", {}).expect(201)
            c.delete(f"t{i % 4}", force=True).expect(204)
            i += 1

    work = Background(traffic)
    seen, after = [], begin
    try:
        for _ in range(5):  # the client reconnects, as EventSource does
            with client.stream("/v1/events", headers={"Accept": "text/event-stream", "Last-Event-ID": str(after)}) as s:
                for event in s.events():
                    seen.append(event)
                    after = event["seq"]
                    if len(seen) % 20 == 0:
                        break
    finally:
        stop.set()
        work.result()
    assert [e["seq"] for e in seen] == list(range(begin + 1, begin + 101))
    assert client.all_events(begin)[:100] == seen


def test_an_event_stream_without_last_event_id_begins_behind_after(client):
    begin = last_event(client)
    client.put("a", {}).expect(201)
    with client.stream("/v1/events", {"after": begin}, {"Accept": "text/event-stream"}) as s:
        events = s.events()
        assert next(events)["type"] == "container.creating"
        assert next(events)["type"] == "container.created"
        client.start("a").expect(200)
        assert next(events)["type"] == "container.started"


# ---- wait ----

def test_wait_for_stopped_is_answered_by_the_end(phid, client):
    client.put("a", {}).expect(201)
    client.start("a").expect(200)
    wait = background(phid, "wait", "a", "stopped")
    client.wait("a", "stopped", timeout=0).expect(204)
    assert not wait.done()
    client.kill("a", "TERM").expect(200)
    assert wait.result().expect(200).json["state"] == "stopped"
    client.wait("a", "stopped", timeout=0).expect(200)


def test_wait_for_created_is_answered_when_the_cell_is_made(phid, client):
    phid.sim.fault("create", "delay", ms=300, count=1)
    put = background(phid, "put", "a", {})
    eventually(lambda: client.container("a").status == 200, "the record")
    assert client.container("a").json["state"] == "creating"
    assert client.wait("a", "created").expect(200).json["state"] == "created"
    put.result().expect(201)


def test_wait_is_410_when_the_container_is_deleted(phid, client):
    client.put("a", {}).expect(201)
    made = client.container("a").json["incarnation"]
    waits = [background(phid, "wait", "a", "stopped"), background(phid, "wait", "a", "stopped", incarnation=made)]
    client.wait("a", timeout=0).expect(204)
    client.delete("a", force=True).expect(204)
    for w in waits:
        w.result().expect(410, "gone")
    client.wait("a", timeout=0).expect(404, "not-found")


def test_wait_of_another_incarnation_is_404(client):
    client.put("a", {}).expect(201)
    client.wait("a", timeout=0, incarnation=str(uuid.uuid4())).expect(404, "not-found")


# ---- put again ----

def test_an_equal_put_is_200_and_another_one_409(phid, client):
    made = client.put("a", COUNTS).expect(201).json
    begin = last_event(client)
    assert client.put("a", COUNTS).expect(200).json == made
    assert client.put("a", {**COUNTS, "backend": "auto", "cpus": {"count": 1}, "name": None}).expect(200).json == made
    assert client.put("a", COUNTS, incarnation=made["incarnation"]).expect(200).json == made
    client.put("a", COUNTS, incarnation=str(uuid.uuid4())).expect(409, "exists")
    for other in ({}, {**COUNTS, "cpus": {"count": 2}}, {**COUNTS, "labels": {"a": "b"}}, {**COUNTS, "backend": "sim"}):
        client.put("a", other).expect(409, "exists")
    client.put("a", COUNTS, headers={"If-None-Match": "*"}).expect(409, "exists")
    assert client.container("a").json == made and last_event(client) == begin
    assert len(phid.sim.cells()) == 1


def test_if_none_match_makes_what_is_not_there(client):
    client.put("a", COUNTS, headers={"If-None-Match": "*"}).expect(201)


def test_an_image_that_changed_makes_a_put_another_one(phid, client):
    file = phid.dir / "kernel"
    file.write_bytes(b"one")
    spec = {"boot": {"kernel": str(file)}}
    made = client.put("a", spec).expect(201).json
    assert made["payload"] == [{"role": "kernel", "path": str(file), "size": 3,
                                "sha256": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"}]
    client.put("a", spec).expect(200)
    file.write_bytes(b"two")
    client.put("a", spec).expect(409, "exists")


# ---- idempotency keys ----

def test_a_repeated_put_gets_the_recorded_201(phid, client):
    made = client.put("a", {}, key="k-put").expect(201).json
    begin = last_event(client)
    assert client.put("a", {}, key="k-put").expect(201).json == made
    assert last_event(client) == begin and len(phid.sim.cells()) == 1


def test_a_put_repeated_while_it_runs_joins_it(phid, client):
    phid.sim.fault("create", "delay", ms=300, count=1)
    calls = [background(phid, "put", "a", {}, key="k-join") for _ in range(4)]
    answers = [c.result().expect(201).json for c in calls]
    assert all(a == answers[0] for a in answers)
    assert phid.sim.stat()["cells"] == 1


def test_a_failed_put_is_repeated_with_its_failure(phid, client):
    phid.sim.fault("create", "error", errno="EIO", count=1)
    first = client.put("a", {}, key="k-fail").expect(502, "backend").json
    assert client.put("a", {}, key="k-fail").expect(502, "backend").json == first
    client.container("a").expect(404)


def test_a_repeated_start_gets_the_recorded_200(client):
    client.put("a", {}).expect(201)
    client.start("a", key="k-start").expect(200)
    begin = last_event(client)
    assert client.start("a", key="k-start").expect(200).json["state"] == "running"
    client.start("a").expect(409, "wrong-state")
    assert last_event(client) == begin


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_repeated_pause_or_resume_gets_the_recorded_200(client, verb):
    client.put("a", {}).expect(201)
    client.start("a").expect(200)
    if verb == "resume":
        client.pause("a").expect(200)
    client.post("a", verb, key="k-" + verb).expect(200)
    client.post("a", verb, key="k-" + verb).expect(200)
    client.post("a", verb).expect(409, "wrong-state")


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_a_repeated_kill_gets_the_recorded_200(client, signal):
    client.put("a", {}).expect(201)
    client.start("a").expect(200)
    client.kill("a", signal, key="k-kill-" + signal).expect(200)
    client.wait("a").expect(200)
    assert client.kill("a", signal, key="k-kill-" + signal).expect(200).json["state"] == "stopped"
    client.kill("a", signal).expect(409, "wrong-state")


@pytest.mark.parametrize("force", [None, True])
def test_a_repeated_delete_gets_the_recorded_204_and_spares_the_next_incarnation(client, force):
    key = f"k-delete-{force}"
    client.put("a", {}).expect(201)
    if not force:
        client.kill("a", "KILL").expect(200)
    client.delete("a", force=force, key=key).expect(204)
    client.delete("a", force=force, key=key).expect(204)
    client.delete("a", force=force).expect(404, "not-found")
    again = client.put("a", {}).expect(201).json
    client.delete("a", force=force, key=key).expect(204)
    assert client.container("a").expect(200).json == again


def test_a_key_cannot_be_used_for_another_request(phid, client):
    client.put("a", {}, key="k-one").expect(201)
    before = client.container("a").json
    others = [
        lambda: client.put("a", COUNTS, key="k-one"),
        lambda: client.put("b", {}, key="k-one"),
        lambda: client.start("a", key="k-one"),
        lambda: client.kill("a", "KILL", key="k-one"),
        lambda: client.kill("a", "TERM", key="k-one"),
        lambda: client.delete("a", force=True, key="k-one"),
    ]
    for other in others:
        answer = other().expect(422, "key-reused")
        assert answer.pointers == ["/Idempotency-Key"]
    assert client.container("a").json == before and len(phid.sim.cells()) == 1
    client.container("b").expect(404)


# ---- incarnations ----

def test_another_incarnation_is_404_for_every_verb(client):
    made = client.put("a", {}).expect(201).json
    other = str(uuid.uuid4())
    client.container("a", incarnation=other).expect(404, "not-found")
    for verb in ("start", "pause", "resume", "kill"):
        client.post("a", verb, incarnation=other).expect(404, "not-found")
    client.delete("a", incarnation=other).expect(404, "not-found")
    client.delete("a", force=True, incarnation=other).expect(404, "not-found")
    client.get("/v1/containers/a/console", incarnation=other).expect(404, "not-found")
    assert client.container("a").json == made
    client.container("a", incarnation=made["incarnation"]).expect(200)
    client.start("a", incarnation=made["incarnation"]).expect(200)
    client.delete("a", force=True, incarnation=made["incarnation"]).expect(204)


def test_an_incarnation_of_the_callers_is_taken_and_unique(client):
    mine = str(uuid.uuid4())
    assert client.put("a", {}, incarnation=mine).expect(201).json["incarnation"] == mine
    second = client.put("b", {}, incarnation=mine)
    assert 400 <= second.status < 500, f"a taken incarnation is the caller's fault: {second}"
    client.container("b").expect(404)


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


# ---- dry run ----

def test_a_dry_run_answers_the_plan_and_leaves_no_trace(phid, client):
    client.put("other", {}).expect(201)
    before, begin = phid.leftovers(client), last_event(client)
    generation = client.get("/v1/allocations").json["generation"]
    plan = client.put("a", {"cpus": {"count": 3}, "memory": [{"size": 1 << 20}]}, dry_run=True).expect(200).json
    assert len(plan["cpus"]) == 3 and plan["backend"] == "sim" and plan["memory"][0]["size"] == 1 << 20
    client.put("a", {"cpus": {"count": 16}}, dry_run=True).expect(409, "no-resources")
    assert phid.leftovers(client) == before and last_event(client) == begin
    assert client.get("/v1/allocations").json["generation"] == generation
    client.container("a").expect(404)
    assert client.put("a", {"cpus": {"count": 3}, "memory": [{"size": 1 << 20}]}).expect(201).json["cell"]["cpus"] == plan["cpus"]


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


# ---- lists ----

def test_lists_come_in_pages_and_filters(client):
    names = [f"l{i}" for i in range(9)]
    for n in names:
        client.put(n, {}).expect(201)
    client.start("l4").expect(200)
    assert [c["id"] for c in client.containers(limit=4)] == names
    assert [c["id"] for c in client.containers(state="running")] == ["l4"]
    assert len(client.containers(state="created", limit=3)) == 8
    assert client.containers(backend="qemu") == [] and len(client.containers(backend="sim")) == 9
    page = client.get("/v1/containers", limit=9).json
    assert len(page["items"]) == 9 and page["next"] is None
    assert client.get("/v1/containers", after="l8").json == {"items": [], "next": None}


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
