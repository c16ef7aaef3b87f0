"""Too much, too many, and what is no HTTP: nobody else is hurt."""
import contextlib
import json
import os
import random
import resource
import select
import socket

import pytest
from conftest import eventually
from phidtest.client import Client
from phidtest.openapi import document
from wrong import A, OPERATIONS, makes_containers, put, unchanged  # noqa: F401 (a fixture of every test)

# ---- size ----

def memory_peak(phid):
    with open(f"/proc/{phid.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))


def read_answer(s, seconds=30):
    """Status and body of what came on a socket, up to the end or the whole answer."""
    s.settimeout(seconds)
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            more = s.recv(65536)
            if not more:
                break
            data += more
            head, gap, body = data.partition(b"\r\n\r\n")
            length = [int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length:")]
            if gap and length and len(body) >= length[0]:
                break
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head.startswith(b"HTTP/1.") else None, body


def read_now(s):
    """What is there already; half a request is waited for, up to the idle time of a connection, and that is not our matter."""
    s.setblocking(False)
    data = b""
    with contextlib.suppress(BlockingIOError, ConnectionResetError):
        data = s.recv(65536)
    return int(data.split(b" ")[1]) if data.startswith(b"HTTP/1.") else None, data


def connect(phid):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(str(phid.socket))
    return s


def send_until_refused(s, chunk, times):
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(times):
            s.sendall(chunk)


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_a_body_of_100_mib_is_413_and_costs_no_memory(phid, client, how):
    before = memory_peak(phid)
    with connect(phid) as s:
        head = b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        if how == "length":
            s.sendall(head + b"Content-Length: %d\r\n\r\n" % (100 << 20))
            send_until_refused(s, b" " * (1 << 20), 100)
        else:
            s.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            send_until_refused(s, b"100000\r\n" + b" " * (1 << 20) + b"\r\n", 100)
            with contextlib.suppress(BrokenPipeError):
                s.sendall(b"0\r\n\r\n")
        status, body = read_answer(s)
    assert status == 413 and json.loads(body)["code"] == "too-large"
    assert memory_peak(phid) - before < 64 << 10, "the body was kept"


def test_a_body_of_just_under_and_over_1_mib(client):
    body = b'{"spec":{}}'
    put(client, body + b" " * ((1 << 20) - len(body)), query="?dry_run=true").expect(200)
    put(client, body + b" " * ((1 << 20) - len(body) + 1), query="?dry_run=true").expect(413, "too-large")


def test_too_long_a_header_or_path_is_refused_below_the_api(client):
    assert client.raw("GET", "/v1/health", headers={"X": "y" * 20000}).status == 431
    assert client.raw("GET", "/v1/" + "x" * 20000).status in (414, 431)
    client.get("/v1/health").expect(200)


JUNK = [
    b"\r\n\r\n", b"GARBAGE\r\n\r\n", b"GET\r\n\r\n", b"GET /v1/health\r\n\r\n", b"GET /v1/health HTTP/9.9\r\nHost: x\r\n\r\n",
    b"\0\0\0\0\0\0\0\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET " + b"/" * 50000,
    b"GET /v1/health HTTP/1.1\r\n\r\n", b"GET /v1/health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
    b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
    b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n{}",
    b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 11\r\n\r\n{\"spec\":{}}",
    b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{\"spec\":{\"nobody\":1}}\r\n0\r\n\r\n",
    b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n{}",
    b"GET http://elsewhere/v1/nope HTTP/1.1\r\nHost: x\r\n\r\n", b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/nope\x01\x02 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /v1/nope HTTP/1.1\r\nHost: x\r\nA\0B: c\r\n\r\n",
    b"GET /v1/nope HTTP/1.1\nHost: x\n\n", b"GET /v1/nope HTTP/1.1\r\nHost: x\r\n folded: x\r\n\r\n",
]


@pytest.mark.parametrize("bytes_", JUNK, ids=lambda b: repr(b[:40]))
def test_what_is_not_http_hurts_nobody(phid, client, bytes_):
    with connect(phid) as s:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(bytes_)
            s.shutdown(socket.SHUT_WR)
        client.get("/v1/health").expect(200)
        status, _ = read_now(s)
    assert status is None or status >= 400 or b"health" in bytes_


def test_random_bytes_hurt_nobody(phid, client):
    rng = random.Random(4711)
    good = b'PUT /v1/containers/a?dry_run=true HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n{"spec":{"cpus":{"count":1},"name":"ab"}}'
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(rng.randrange(1, 8)):
            at = rng.randrange(len(bad))
            if b"dry_run=true" in good[max(0, at - 11):at + 12] and at < 35:
                continue  # it stays a dry run
            bad[at] = rng.randrange(256)
        with connect(phid) as s:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                s.sendall(bytes(bad[:rng.randrange(len(bad)) + 1]))
                s.shutdown(socket.SHUT_WR)
            client.get("/v1/health").expect(200)


# ---- connections ----

def test_10000_idle_connections_keep_nobody_out(phid, client):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 10500:
        pytest.skip(f"RLIMIT_NOFILE is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle = []
    try:
        for i in range(10000):
            s = socket.socket(socket.AF_UNIX)
            s.connect(str(phid.socket))
            idle.append(s)
            if i % 3 == 1:
                s.send(b"GET /v1/hea")  # begun and never ended
            if i % 500 == 499:
                Client(str(phid.socket)).get("/v1/health").expect(200)
                client.get("/v1/containers").expect(200)
        with Client(str(phid.socket)) as fresh:
            fresh.put("a", {}, dry_run=True).expect(200)
        descriptors = len(os.listdir(f"/proc/{phid.process.pid}/fd"))
        assert descriptors < 600, f"{descriptors} descriptors are open"
    finally:
        for s in idle:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    client.get("/v1/health").expect(200)


def test_too_many_requests_at_once_of_one_user_are_429_and_a_crowd_that_went_away_is_forgotten(own_phid):
    phid = own_phid()
    crowd = []
    try:
        for _ in range(300):
            s = connect(phid)
            with contextlib.suppress(BrokenPipeError):  # turned away already
                s.sendall(b"GET /v1/events?after=1000000&wait=60 HTTP/1.1\r\nHost: x\r\n\r\n")
            crowd.append(s)
        turned_away = []
        while len(turned_away) < 44:
            got = select.select(crowd, [], [], 20)[0]
            assert got, f"only {len(turned_away)} of 300 were turned away"
            turned_away = got
        for s in turned_away:
            status, body = read_answer(s)
            assert status == 429 and json.loads(body)["code"] == "too-many", (status, body)
            document().check_named(json.loads(body), "Problem", "429")
    finally:
        for s in crowd:
            s.close()

    def served():
        with contextlib.suppress(ConnectionError), Client(str(phid.socket)) as fresh:
            return fresh.get("/v1/health").status == 200
        return False

    eventually(served, "an answer after the crowd has gone", 10)


@makes_containers
def test_a_client_that_goes_away_cancels_nothing(phid, client):
    phid.sim.fault("create", "delay", ms=200, count=1)
    with connect(phid) as s:
        s.sendall(b'PUT /v1/containers/b HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n{"spec":{}}')
        eventually(lambda: client.container("b").status == 200, "the record")
    client.wait("b", "created").expect(200)


def test_operations_that_are_not_built_say_so(client):
    for op in OPERATIONS:
        if "200" not in op.responses and "204" not in op.responses:
            client.raw(op.method, op.template.replace("{id}", "a")).expect(501, "not-built")
