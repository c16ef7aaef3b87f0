"""Many clients at once: one owner a unit, always, and everything free in the end."""
import collections
import http.client
import json
import os
import random
import signal
import socket
import threading
import time

import pytest
from conftest import Background, assert_nothing_left, check_loop
from phidtest.client import Client

SECONDS = 5


class Reader:
    """Polls the database while others write: no CPU with two owners, no container with units that its state forbids."""

    def __init__(self, phid):
        self.phid, self.stop, self.rounds = phid, threading.Event(), 0
        self.work = Background(self._run)

    def _run(self):
        with self.phid.database() as db:
            while not self.stop.is_set():
                db.execute("BEGIN")
                grants = db.execute("SELECT g.cpu, c.id, c.state FROM cpu_grants g JOIN containers c USING (row)").fetchall()
                all_grants = db.execute("SELECT count(*) FROM cpu_grants").fetchone()[0]
                ranges = db.execute("SELECT base, size, row FROM memory_grants WHERE base IS NOT NULL ORDER BY base").fetchall()
                stopped = db.execute("SELECT count(*) FROM memory_grants JOIN containers USING (row) WHERE containers.state = 'stopped'")
                assert stopped.fetchone()[0] == 0
                db.execute("ROLLBACK")
                assert len(grants) == all_grants, "a grant without a container"
                assert not [c for c, n in collections.Counter(c for c, _, _ in grants).items() if n > 1], grants
                assert all(0 < cpu <= 16 and state != "stopped" for cpu, _, state in grants), grants
                for (base, size, _), (above, _, _) in zip(ranges, ranges[1:]):
                    assert base + size <= above, ranges
                self.rounds += 1
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []

    def end(self):
        self.stop.set()
        self.work.result()
        assert self.rounds > 3


def sim_is_clean(phid):
    stat = phid.sim.stat()
    assert (stat["cells"], stat["cpu_overlaps"], stat["mem_overlaps"]) == (0, 0, 0), stat
    assert stat["creates"] == stat["destroys"]


def test_of_64_that_want_a_cpu_16_get_one_and_48_hear_who_has_them(phid, client):
    reader = Reader(phid)
    gate = threading.Barrier(64)

    def create(i):
        with Client(str(phid.socket)) as c:
            c.get("/v1")
            gate.wait()
            return c.put(f"c{i:02}", {"cpus": {"count": 1}, "memory": [{"size": 1 << 20}]})

    answers = {f"c{i:02}": work for i, work in enumerate([Background(create, i) for i in range(64)])}
    answers = {id: work.result() for id, work in answers.items()}
    good = {id: a.json for id, a in answers.items() if a.status == 201}
    bad = {id: a for id, a in answers.items() if id not in good}
    assert (len(good), len(bad)) == (16, 48)
    cpus = {f"cpu {c['cell']['cpus'][0]}": id for id, c in good.items()}
    assert len(cpus) == 16
    for answer in bad.values():
        refused = answer.expect(409, "no-resources").json
        assert refused["wanted"] == {"cpus": 1} and refused["free"] == {"cpus": 0}
        assert {b["unit"]: b["owner"] for b in refused["blockers"]} == cpus
    assert sorted(c["id"] for c in client.containers()) == sorted(good)
    assert phid.sim.stat()["cells"] == 16

    def delete(id):
        with Client(str(phid.socket)) as c:
            return c.delete(id, force=True)

    for work in [Background(delete, id) for id in good]:
        work.result().expect(204)
    reader.end()
    assert_nothing_left(phid, client)
    sim_is_clean(phid)
    check_loop(client)


def test_64_equal_puts_with_one_key_make_one_container(phid, client):
    gate = threading.Barrier(64)

    def create():
        with Client(str(phid.socket)) as c:
            c.get("/v1")
            gate.wait()
            return c.put("one", {}, key="k-one")

    answers = [w.result() for w in [Background(create) for _ in range(64)]]
    assert {a.status for a in answers} == {201}
    assert len({a.json["incarnation"] for a in answers}) == 1
    assert len(phid.sim.cells()) == 1


def test_of_32_different_puts_of_one_id_one_wins(phid, client):
    gate = threading.Barrier(32)

    def create(i):
        with Client(str(phid.socket)) as c:
            c.get("/v1")
            gate.wait()
            return c.put("one", {"labels": {"n": str(i)}})

    answers = [w.result() for w in [Background(create, i) for i in range(32)]]
    assert sorted(a.status for a in answers) == [201] + [409] * 31
    assert {a.code for a in answers} <= {None, "exists", "busy"}
    winner = next(a.json for a in answers if a.status == 201)
    assert client.container("one").json["labels"] == winner["labels"]


def test_of_32_deletes_at_once_one_is_the_one(phid, client):
    client.put("one", {}).expect(201)
    gate = threading.Barrier(32)

    def delete():
        with Client(str(phid.socket)) as c:
            c.get("/v1")
            gate.wait()
            return c.delete("one", force=True)

    answers = [w.result() for w in [Background(delete) for _ in range(32)]]
    statuses = collections.Counter(a.status for a in answers)
    assert statuses[204] >= 1 and set(statuses) <= {204, 404, 409}, statuses
    client.container("one").expect(404)


def test_a_forced_delete_is_never_busy(phid, client):
    """Also while a create has been reserved and the loop does not know it yet: a client that clears up asks once."""
    seen = collections.Counter()
    with Client(str(phid.socket)) as other:
        for n in range(40):
            made = Background(lambda: other.put("one", {}))
            while made.thread.is_alive():
                answer = client.delete("one", force=True)
                assert answer.status in (204, 404), answer
                seen[answer.status] += 1
            assert made.result().status in (201, 409)
            client.delete("one", force=True)
    assert seen[204] > 0 and seen[404] > 0, seen


def at_once(phid, *requests):
    """Sends each (method, target, body) on a connection of its own, all of them before phid's loop turns; the connections."""
    connections = [socket.socket(socket.AF_UNIX) for _ in requests]
    for c in connections:
        c.connect(str(phid.socket))
        c.sendall(b"GET /v1 HTTP/1.1\r\nHost: phid\r\n\r\n")
        answered(c)
    os.kill(phid.process.pid, signal.SIGSTOP)
    for c, (method, target, body) in zip(connections, requests):
        c.sendall(f"{method} {target} HTTP/1.1\r\nHost: phid\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    os.kill(phid.process.pid, signal.SIGCONT)
    return connections


def answered(connection):
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read() or "{}")


@pytest.mark.parametrize("order", (1, -1))  # which of them is first in the turn is libmicrohttpd's to say
def test_a_start_that_a_kill_overtakes_leaves_the_kills_intent_alone(phid, client, order):
    """Both in one turn of the loop: the intent of the kill is what the record says until it is done, else a crash would forget it."""
    client.put("one", {}).expect(201)
    phid.sim.fault("destroy", "delay", ms=1000, count=1)
    requests = [("POST", "/v1/containers/one/kill", '{"signal": "KILL"}'), ("POST", "/v1/containers/one/start", "")]
    kill, start = at_once(phid, *requests[::order])[::order]
    status, document = answered(start)
    assert (status, document["code"]) == (409, "busy"), document
    client.put("other", {}).expect(201)  # a transaction after all of the start's
    assert phid.rows("SELECT state, op FROM containers WHERE id = 'one'") == [("created", "kill")]
    assert answered(kill)[0] == 200
    assert phid.rows("SELECT state, op FROM containers WHERE id = 'one'") == [("stopped", None)]
    for c in (start, kill):
        c.close()


@pytest.mark.parametrize("ids", [6, 40], ids=["contended", "spread"])
def test_8_clients_at_random_leave_a_consistent_daemon(own_phid, ids):
    """Every answer is one that the API documents (the client checks), and no clash leaves anything wrong."""
    phid = own_phid()
    client = phid.client()
    reader = Reader(phid)
    begin = client.get("/v1/health").json["last_event"]
    until = time.monotonic() + SECONDS
    seen = collections.Counter()

    def play(seed):
        rng = random.Random(seed)
        programs = [None, "sim=count:5", "sim=exit:3:5", "sim=powerdown:ignore", "sim=powerdown:20", "sim=panic:30"]
        with Client(str(phid.socket)) as c:
            n = 0
            while time.monotonic() < until:
                n += 1
                id = f"r{rng.randrange(ids)}"
                verb = rng.choice(["put", "put", "start", "start", "kill", "term", "pause", "resume", "delete", "force", "get",
                                   "list", "console", "wait", "allocations"])
                key = f"{ids}-{seed}-{n}" if rng.random() < 0.5 else None
                if verb == "put":
                    program = rng.choice(programs)
                    spec = {"cpus": {"count": rng.choice([1, 1, 2, 5])}, "memory": [{"size": rng.choice([4096, 1 << 20, 3 << 20])}]}
                    if program:
                        spec["boot"] = {"cmdline": program}
                    a = c.put(id, spec, key=key)
                    allowed = {201, 200, 409, 404}  # 404: an equal one was there, and was gone before the answer was made
                elif verb in ("start", "pause", "resume"):
                    a = c.post(id, verb, key=key)
                    allowed = {200, 404, 409, 502}  # 502: the guest ended meanwhile, or a forced delete took its cell
                elif verb == "kill":
                    a = c.kill(id, "KILL", key=key)
                    allowed = {200, 404, 409}
                elif verb == "term":
                    a = c.kill(id, "TERM", timeout_ms=rng.choice([None, 0, 10]), key=key)
                    allowed = {200, 404, 409, 502}
                elif verb == "delete":
                    a = c.delete(id, key=key)
                    allowed = {204, 404, 409}
                elif verb == "force":
                    a = c.delete(id, force=True, key=key)
                    allowed = {204, 404, 409}
                elif verb == "get":
                    a, allowed = c.container(id), {200, 404}
                elif verb == "list":
                    a, allowed = c.get("/v1/containers", limit=rng.randrange(1, 50)), {200}
                elif verb == "console":
                    a, allowed = c.get(f"/v1/containers/{id}/console"), {200, 404}
                elif verb == "wait":
                    a, allowed = c.wait(id, timeout=0), {200, 204, 404, 410}
                else:
                    a, allowed = c.get("/v1/allocations"), {200}
                    owned = [x["owner"] for x in a.json["cpus"] if x["state"] == "granted"]
                    assert len(owned) <= 16
                assert a.status in allowed, f"{verb} {id}: {a}"
                seen[verb, a.status] += 1

    work = [Background(play, seed) for seed in range(8)]
    for w in work:
        w.thread.join(SECONDS + 60)
    for w in work:
        w.result()
    reader.end()
    print(dict(seen))
    for wanted in (("put", 201), ("start", 200), ("kill", 200), ("delete", 204), ("force", 204), ("put", 409)):
        assert seen[wanted] > 0, f"{wanted} never came about: {seen}"
    check_events(client.all_events(begin))
    phid.delete_all(client)
    assert_nothing_left(phid, client)
    sim_is_clean(phid)
    check_loop(client)


NEXT = {
    None: {"creating"},
    "creating": {"created", "create-failed", "deleted"},
    "created": {"started", "stopped", "deleted", "failed"},
    "started": {"paused", "stopped", "deleted", "failed"},
    "paused": {"resumed", "stopped", "deleted", "failed"},
    "resumed": {"paused", "stopped", "deleted", "failed"},
    "stopped": {"deleted"},
}


def check_events(events):
    """The events of each incarnation tell a possible life."""
    at = {}
    for e in events:
        if e["container"] is None:
            continue
        what, before = e["type"].partition(".")[2], at.get(e["incarnation"])
        assert before != "gone", e
        assert what in NEXT[before], f"{what} after {before}: {e}"
        if what == "failed":
            continue
        at[e["incarnation"]] = "gone" if what in ("deleted", "create-failed") else what
