"""A request that is made again: equal ones, keys, incarnations, dry runs. Backend: the stand-in."""
import uuid

import pytest
from conftest import background
from living import COUNTS, last_event

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
