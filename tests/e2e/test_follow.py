"""Whoever reads while things happen: console, events, waits, lists. Backend: the stand-in."""
import threading
import uuid
from conftest import Background, background, eventually
from living import COUNTS, last_event, numbers

# ---- the console ----

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
