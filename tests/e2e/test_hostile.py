"""Clients that mean harm: slow ones, many, ambiguous ones, and names of every kind. phid's memory stays, and others are served."""
import contextlib
import json
import os
import random
import re
import resource
import select
import signal
import socket
import statistics
import string
import time

import pytest
from conftest import Background
from phidtest.client import Client
from phidtest.daemon import Phid
from test_roles import NOBODY, as_user
from test_wrong_http import connect, read_answer, read_now
from wrong import put, unchanged  # noqa: F401 (a fixture of every test)

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as another user")
LONG = int(os.environ.get("PHID_HOSTILE_SECONDS", "0"))  # of the random tests and floods; a few seconds without
GROWTH_KIB = 64 << 10


def frugal():
    """A phid of which AddressSanitizer gives back what was freed, so that what phid itself keeps is seen."""
    phid = Phid()
    phid.env["ASAN_OPTIONS"] += ":quarantine_size_mb=4"
    return phid


@pytest.fixture(scope="module")
def daemon():
    with frugal() as phid:
        yield phid


def resident(phid):
    with open(f"/proc/{phid.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


@contextlib.contextmanager
def without_soft_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def crowd(phid, n, words):
    """n connections, each of which has sent `words`."""
    sockets = []
    try:
        for _ in range(n):
            s = connect(phid)
            sockets.append(s)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # turned away
                s.sendall(words)
        yield sockets
    finally:
        for s in sockets:
            s.close()


# ---- slow, and many ----

@pytest.mark.parametrize("words", [b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: ", b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"],
                         ids=["headers", "body"])
@ROOT_ONLY
def test_slow_senders_of_one_user_keep_no_other_out(phid, client, words):
    before = resident(phid)

    def dribble():
        with crowd(phid, 300, words) as slow:
            for _ in range(20):
                for s in slow:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        s.send(b"y")
            return len(slow)

    slow = Background(as_user, NOBODY, NOBODY, [], dribble)
    while not slow.done():
        client.get("/v1/health").expect(200)
        client.put("a", {}, dry_run=True).expect(200)
    assert slow.result() == 300 and resident(phid) - before < GROWTH_KIB


@ROOT_ONLY
def test_bodies_of_those_who_may_nothing_cost_no_memory(phid, client):
    """200 connections with a MiB less a byte each."""
    before = resident(phid)

    def send():
        body = b" " * ((1 << 20) - 1)
        with crowd(phid, 200, b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (1 << 20) + body) as sockets:
            grown = resident(phid) - before
            sockets[0].sendall(b" ")
            return grown, read_answer(sockets[0])[0]

    grown, status = as_user(NOBODY, NOBODY, [], send)
    assert grown < GROWTH_KIB and status == 403


@ROOT_ONLY
def test_many_users_together_keep_root_out_neither(phid, client):
    """Nine users with all the connections that one may have, each with half a body."""
    words = b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
    ready, go = os.pipe(), os.pipe()
    children = []
    for n in range(9):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(60000 + n)
                with crowd(phid, 256, words):
                    os.write(ready[1], b"r")
                    os.close(go[1])
                    os.read(go[0], 1)
            os._exit(0)
        children.append(pid)
    try:
        for _ in children:
            assert os.read(ready[0], 1) == b"r"
        for _ in range(100):
            with Client(str(phid.socket)) as root:
                root.get("/v1/health").expect(200)
    finally:
        for fd in (*go, *ready):
            os.close(fd)
        for pid in children:
            os.waitpid(pid, 0)


def flood(phid):
    """Requests on fresh connections, as fast as it goes, until it is killed."""
    while True:
        with contextlib.suppress(OSError), connect(phid) as s:
            s.sendall(b"GET /v1/containers HTTP/1.1\r\nHost: x\r\n\r\n" * 8)
            s.recv(65536)


@ROOT_ONLY
def test_a_flood_of_one_user_leaves_others_their_answers(phid, client):
    """root's GETs with and without a flood, in turns of the same run: the ratio of their p50 and p99 is bounded."""
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            flood(phid)
        pids.append(pid)
    try:
        times = {signal.SIGSTOP: [], signal.SIGCONT: []}
        for _ in range(max(6, LONG)):
            for what, took in times.items():
                for pid in pids:
                    os.kill(pid, what)
                time.sleep(0.05)
                for _ in range(100):
                    begin = time.perf_counter()
                    client.get("/v1/health").expect(200)
                    took.append(time.perf_counter() - begin)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    alone, flooded = (statistics.quantiles(t, n=100) for t in times.values())
    print(f"p50 {flooded[49] / alone[49]:.1f} times, p99 {flooded[98] / alone[98]:.1f} times")
    assert flooded[49] < 20 * alone[49] and flooded[98] < 50 * alone[98]


# ---- huge and deep ----

@pytest.mark.parametrize("text", ["[" * 500000, '{"a":' * 200000, "[" + "1," * 300000 + "1]", '{"spec":{"labels":{' + ",".join(
    f'"k{i}":"v"' for i in range(60000)) + "}}}", '{"spec":{"name":"' + "x" * 900000 + '"}}', '"' + "\\u0041" * 150000 + '"'],
    ids=["arrays", "objects", "numbers", "members", "text", "escapes"])
def test_huge_and_deep_documents_are_refused_and_forgotten(phid, client, text):
    before = resident(phid)
    for _ in range(20):
        assert put(client, text.encode()).status in (400, 413, 422)
    assert resident(phid) - before < GROWTH_KIB


# ---- ambiguous ----

PUT = b"PUT /v1/containers/smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n{\"spec\":{}}"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
# A request with something behind it that one reader takes for its body and another for the next request. Lengths are of the whole.
AMBIGUOUS = {
    "length and chunked": b"Content-Length: %d\r\n" + CHUNKED,
    "chunked and length": CHUNKED + b"Content-Length: %d\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n",
    "a list of lengths": b"Content-Length: 0, %d\r\n",
    "a signed length": b"Content-Length: +%d\r\n",
    "a negative length": b"Content-Length: -%d\r\n",
    "a hexadecimal length": b"Content-Length: 0x%x\r\n",
    "a length of words": b"Content-Length: %d x\r\n",
    "space before the colon": b"Content-Length : %d\r\n",
    "a folded length": b"Content-Length:\r\n %d\r\n",
    "chunked twice": CHUNKED + CHUNKED + b"X: %d\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n",
    "chunked and another": b"Transfer-Encoding: chunked, identity\r\nContent-Length: %d\r\n",
    "a tab before chunked": b"Transfer-Encoding:\tchunked\r\nContent-Length: %d\r\n",
    "a bare return": b"X: y\rContent-Length: %d\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_request_with_two_meanings_smuggles_no_other(phid, client, name):
    inner = b"0\r\n\r\n" + PUT
    with connect(phid) as s:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(b"POST /v1/containers/nobody/start HTTP/1.1\r\nHost: x\r\n" + AMBIGUOUS[name] % len(inner) + b"\r\n" + inner)
            s.shutdown(socket.SHUT_WR)
        client.get("/v1/health").expect(200)
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while select.select([s], [], [], 0.5)[0] and (more := s.recv(65536)):
                data += more
    answers = re.findall(rb"HTTP/1.1 (\d+)", data)  # libmicrohttpd repeats the head of its own 400
    assert len(answers) <= 1 or set(answers) == {b"400"}, data
    client.container("smuggled").expect(404)


CHUNKS = [b"0\r\n", b"\r\n", b"5;" + b"x" * 60000 + b"\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"-1\r\n\r\n", b"5\r\nhell", b"5\r\nhelloXX0\r\n\r\n",
          b"fffffffffffffffff\r\nx", b"7fffffffffffffff\r\nx", b"0\r\nA: b\r\nContent-Length: 3\r\n\r\n", b"1\r\n{\r\n" * 1000, b"0" * 5000 + b"1\r\n{\r\n0\r\n\r\n",
          b" 1\r\n{\r\n0\r\n\r\n", b"1\n{\n0\n\n"]


@pytest.mark.parametrize("chunks", CHUNKS, ids=lambda c: repr(c[:20]))
def test_odd_chunks_make_nothing(phid, client, chunks):
    with connect(phid) as s:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"\r\n" + chunks)
            s.shutdown(socket.SHUT_WR)
        client.get("/v1/health").expect(200)
        status, _ = read_now(s)
    assert status is None or 400 <= status < 500


def test_a_hundred_requests_in_one_write_are_answered_in_their_order(phid):
    with connect(phid) as s:
        s.sendall(b"".join(b"GET /v1/containers/%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(100)))
        s.shutdown(socket.SHUT_WR)
        data = b""
        while more := s.recv(65536):
            data += more
    answers = data.split(b"HTTP/1.1 404")[1:]
    assert len(answers) == 100
    assert all(b"does not exist: %d\"" % i in a for i, a in enumerate(answers)), data[:2000]


def test_a_client_that_closed_its_half_gets_its_answer(phid):
    with connect(phid) as s:
        s.sendall(b"GET /v1/events?after=1000000&wait=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        s.shutdown(socket.SHUT_WR)
        status, body = read_answer(s)
    assert status is None or status == 200 and json.loads(body)["items"] == []


# ---- names ----

NAMES = ["..", ".", "%2e%2e", "%2E%2E%2F%2E%2E", "..%2f..%2fetc", "a%2fb", "a/b", "a//b", "%00", "a%00", "a%00b", "%", "%z", "%2", "%ff%fe", "%c0%ae%c0%ae",
         "%e2%82%ac", "%c3%a9", "%F0%9F%92%A9", "a%20b", "a b", "-a", ".a", "_a", "~", "a~", "a~1234567", "a~123456789", "a%7e12345678/",
         "x" * 129, "x" * 5000, "%61" * 129, "a;b", "a?b=c#d", "a%3fb", "a%23", "a%0d%0aX:%20y", "a%09", "%5c..%5c", "a'--", "a\"", "a%27%20OR%201=1", "$(id)", "`id`",
         "{id}", "a%25", "a%2500", "%2525", "*", "**", "a,b", "a:b", "a@b", "a=b", "a&b", "\\", "a\\b"]
ALPHABET = string.printable.replace("\n", "").replace("\r", "") + "%%%%..//"


def ask_for(phid, method, name):
    with connect(phid) as s:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(f"{method} /v1/containers/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\nConnection: close\r\n\r\n".encode() + b'{"spec":{}}')
        return read_answer(s)


@pytest.mark.parametrize("name", NAMES, ids=lambda n: n[:30])
def test_what_is_no_id_is_none(phid, client, name):
    for method in ("GET", "PUT", "DELETE"):
        status, body = ask_for(phid, method, name)
        assert status is None or 400 <= status < 500, (method, status, body)
    client.get("/v1/health").expect(200)


def test_random_names_name_nothing(phid, client):
    rng = random.Random(4711)
    until = time.monotonic() + max(3, LONG)
    while time.monotonic() < until:
        name = "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(1, 40)))
        status, body = ask_for(phid, rng.choice(("GET", "DELETE")), name)
        assert status is None or 400 <= status < 500, (name, status, body)
    client.get("/v1/health").expect(200)
