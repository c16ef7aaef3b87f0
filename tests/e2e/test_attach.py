"""The console in both directions: GET /console with an Upgrade, and phictl attach. Backend: the stand-in."""
import os
import pty
import re
import signal
import socket
import subprocess
import termios
import time

import pytest
from conftest import eventually
from phidtest.daemon import build_dir, process_alive

ECHO = {"boot": {"cmdline": "sim=echo"}}
A = "/v1/containers/a/console"


def echoed(text):
    """What the stand-in's guest answers to lines."""
    return b"".join(b"echo: " + line for line in text.splitlines(keepends=True))


def lines(n):
    """Long ones: the stand-in drops lines, as a serial line does, where many short ones come at once."""
    return b"".join(b"%0200d\n" % i for i in range(n))


class Attached:
    def __init__(self, phid, target=A, protocol="phid-console", more="", early=b""):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(phid.socket))
        upgrade = f"Upgrade: {protocol}\r\nConnection: Upgrade\r\n"
        self.sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n{upgrade}{more}\r\n".encode() + early)
        self.said = b""
        while b"\r\n\r\n" not in self.said:
            got = self.sock.recv(4096)
            assert got, self.said
            self.said += got
        head, self.said = self.said.split(b"\r\n\r\n", 1)
        self.status = int(head.split()[1])
        self.head = head.decode().lower()

    def until(self, text):
        while text not in self.said:
            got = self.sock.recv(65536)
            assert got, f"closed before {text}: {self.said[-200:]}"
            self.said += got
        return self.said

    def rest(self):
        while got := self.sock.recv(65536):
            self.said += got
        return self.said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


@pytest.fixture
def echo(client):
    client.put("a", ECHO).expect(201)
    client.start("a").expect(200)


def test_both_directions(phid, client, echo):
    with Attached(phid) as a:
        assert a.status == 101 and "upgrade: phid-console" in a.head
        for n in range(20):
            a.sock.sendall(b"line %d\n" % n)
            a.until(b"line %d\n" % n)
    assert client.container("a").json["state"] == "running"
    assert "line 19" in client.get(A).expect(200).text


def test_what_is_sent_with_the_request_is_not_lost(phid, echo):
    with Attached(phid, early=b"early\n" * 100) as a:
        a.until(echoed(b"early\n" * 100))


def test_the_log_first_if_asked(phid, echo):
    with Attached(phid, A + "?tail=0") as a:
        a.sock.sendall(b"first\n")
        a.until(b"first\n")
    with Attached(phid, A + "?tail=12") as a:
        assert a.until(b"first\n") == b"echo: first\n"


def test_much_input_arrives_whole_and_in_order(phid, client):
    client.put("a", {**ECHO, "console": {"log": {"max": 1 << 20}}}).expect(201)
    client.start("a").expect(200)
    text = lines(500)
    with Attached(phid, A + "?tail=0") as a:
        a.sock.setblocking(False)
        sent = 0
        until = time.monotonic() + 120
        while len(a.said) < len(echoed(text)):
            assert time.monotonic() < until, (sent, len(a.said), a.said[-30:])
            try:
                sent += a.sock.send(text[sent:sent + 65536]) if sent < len(text) else 0
            except BlockingIOError:
                pass
            try:
                a.said += a.sock.recv(65536)
            except BlockingIOError:
                pass
        assert a.said == echoed(text)


def test_a_reader_that_falls_behind_is_told_how_far_and_the_guest_does_not_wait(phid, client):
    client.put("a", {**ECHO, "console": {"log": {"max": 4096}}}).expect(201)
    client.start("a").expect(200)
    text = lines(1500)
    with Attached(phid, A + "?tail=0") as a:
        a.sock.sendall(text)  # without reading a byte of the echo
        eventually(lambda: client.get(A).text.endswith("0001499\n"), "the end of the echo", 60)
        a.until(b"0001499\n")
    lost = sum(int(n) for n in re.findall(rb"\[phid: (\d+) bytes of the console were lost here\]", a.said))
    kept = re.sub(rb"\r\n\[phid: \d+ bytes of the console were lost here\]\r\n", b"", a.said)
    assert lost > 0 and len(kept) + lost == len(echoed(text)) and echoed(text).endswith(kept[-4000:])


def test_two_at_once_see_the_same(phid, echo):
    with Attached(phid, A + "?tail=0") as a, Attached(phid, A + "?tail=0") as b:
        a.sock.sendall(b"from a\n")
        assert b.until(b"from a\n") == a.until(b"from a\n")
        b.sock.sendall(b"from b\n")
        assert a.until(b"from b\n") == b.until(b"from b\n")


def test_input_that_ended_leaves_the_output(phid, client):
    client.put("a", {"boot": {"cmdline": "sim=count:10"}}).expect(201)
    client.start("a").expect(200)
    with Attached(phid) as a:
        a.sock.shutdown(socket.SHUT_WR)
        a.until(b"count 20\n")
        client.kill("a", "KILL").expect(200)
        a.rest()
        assert a.said.decode() == client.get(A).expect(200).text, "to the last byte, then closed"


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_phid_may_go_at_any_time(own_phid, how):
    phid = own_phid()
    client = phid.client()
    client.put("a", ECHO).expect(201)
    client.start("a").expect(200)
    a = Attached(phid)
    a.sock.sendall(b"before\n")
    a.until(b"before\n")
    a.sock.sendall(b"x" * 500000 if how == "SIGKILL" else b"")
    if how == "SIGTERM":
        phid.stop()
    else:
        phid.kill9()
    try:
        a.rest()
    except ConnectionResetError:
        pass
    phid.start()
    with Attached(phid, A + "?tail=0") as b:
        b.sock.sendall(b"\nafter\n")
        b.until(b"after\n")


def test_what_is_wrong_is_refused(phid, client, echo):
    def refused(status, word, **kwargs):
        with Attached(phid, **kwargs) as a:
            assert a.status == status
            a.until(word)

    refused(422, b"/Upgrade", protocol="websocket")
    refused(422, b"?tail", target=A + "?tail=x")
    refused(404, b"does not exist", target="/v1/containers/none/console")
    answer = client.raw("GET", A, headers={"Upgrade": "phid-console"})
    assert answer.expect(422, "invalid").pointers == ["/Upgrade"]
    client.kill("a", "KILL").expect(200)
    refused(409, b"container not running")


def test_last_words_arrive(phid, client, echo):
    for n in range(20):
        a = Attached(phid)
        a.sock.sendall(b"last %d\n" % n)
        a.sock.close()
        eventually(lambda n=n: f"echo: last {n}\n" in client.get(A).text, f"what was said before close {n}")


def test_a_client_that_vanishes_costs_nothing(phid, client, echo):
    for n in range(50):
        a = Attached(phid)
        a.sock.sendall(b"x\n" * n)
        a.sock.close()
    with Attached(phid, A + "?tail=0") as a:
        a.sock.sendall(b"still\n")
        a.until(b"still\n")


# ---- phictl attach ----

def phictl(phid, *args):
    return [str(build_dir() / "client/phictl"), "--host", f"unix:{phid.socket}", *args]


class Typist:
    """phictl attach on a terminal."""

    def __init__(self, phid, *args):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(phictl(phid, "attach", *args), stdin=self.slave, stdout=self.slave, stderr=self.slave)
        os.set_blocking(self.master, False)
        self.said = b""
        self.until(b"detaches]")

    def until(self, text):
        def hear():
            try:
                self.said += os.read(self.master, 65536)
            except BlockingIOError:
                pass
            return text in self.said
        eventually(hear, f"{text} in {self.said[-200:]}", 60)

    def close(self):
        status = self.process.wait(60)
        assert termios.tcgetattr(self.slave) == self.before
        os.close(self.master), os.close(self.slave)
        return status


def test_phictl_attaches_and_detaches_by_keys(phid, client, echo):
    t = Typist(phid, "a")
    os.write(t.master, b"hello\n")
    t.until(b"hello")
    os.write(t.master, b"\x10x\x10\x10y\n")  # ctrl-p that is not followed by ctrl-q is the guest's
    t.until(b"\x10x\x10\x10y")
    os.write(t.master, b"\x10\x11")
    t.until(b"[detached]")
    assert t.close() == 0
    assert client.container("a").json["state"] == "running"


def test_other_detach_keys(phid, echo):
    t = Typist(phid, "--detach-keys", "ctrl-a,d", "a")
    os.write(t.master, b"\x10\x11 is text\n")
    t.until(b"\x10\x11 is text")
    os.write(t.master, b"\x01d")
    assert t.close() == 0
    for keys in ("ctrl-", "ctrl-1", "ab", ",", "a,b,c,d,e,f,g,h,i"):
        done = subprocess.run(phictl(phid, "attach", "--detach-keys", keys, "a"), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        assert done.returncode != 0 and "--detach-keys" in done.stderr


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP])
def test_phictl_that_is_killed_leaves_the_terminal_as_it_was(phid, echo, sig):
    t = Typist(phid, "a")
    os.write(t.master, b"hello\n")
    t.until(b"echo: hello")
    t.process.send_signal(sig)
    assert t.close() == -sig


def test_phictl_ends_with_the_guest_s_exit_code(phid, client):
    client.put("a", {"boot": {"cmdline": "sim=count:10,exit:5:300"}}).expect(201)
    client.start("a").expect(200)
    done = subprocess.run(phictl(phid, "attach", "--tail", "1000000", "a"), capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 5 and done.stdout.decode() == client.get(A).expect(200).text


def test_a_script_types_into_a_console(phid, client, echo):
    p = subprocess.Popen(phictl(phid, "attach", "a"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    p.stdin.write(b"\x10\x11 of a script is text\n")
    p.stdin.close()
    assert p.stdout.readline() == b"echo: \x10\x11 of a script is text\n"
    client.kill("a", "KILL").expect(200)
    assert p.wait(60) == 137
    p.stdout.close()


def test_no_id_at_all_is_no_beginning_of_one(phid, client, echo):
    for command in (["rm", "--force"], ["stop", "--kill"], ["inspect"]):
        done = subprocess.run(phictl(phid, *command, ""), capture_output=True, text=True, timeout=60)
        assert done.returncode == 5 and 'no container ""' in done.stderr
    assert client.container("a").json["state"] == "running"


def test_phictl_removes(phid, client, echo):
    done = subprocess.run(phictl(phid, "rm", "a"), capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "not stopped" in done.stderr
    subprocess.run(phictl(phid, "rm", "--force", "a"), check=True, timeout=60)
    client.container("a").expect(404)


def test_the_keeper_lives_on(phid, client, echo):
    keeper = client.container("a").json["keeper"]["pid"]
    with Attached(phid) as a:
        a.sock.sendall(b"y" * 100000)
    assert process_alive(keeper)
