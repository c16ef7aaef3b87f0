"""A phid-sim of its own for each test of standin_selftest.py, and a client of its socket."""
import contextlib
import os
import pathlib
import select
import socket
import subprocess
import time

LONG = 10.0   # for what must come
SHORT = 0.08  # for what must not come
TESTS = []
PHID_SIM = ""


def test(function):
    TESTS.append(function)
    return function


class Refused(Exception):
    def __init__(self, name, text):
        super().__init__(f"{name} {text}")
        self.name = name


class Console:
    def __init__(self, fd):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd)
        self.sock.settimeout(LONG)
        self.pending = b""

    def line(self):
        while b"\n" not in self.pending:
            got = self.sock.recv(65536)
            if not got:
                raise EOFError
            self.pending += got
        line, self.pending = self.pending.split(b"\n", 1)
        return line.decode()

    def rest(self):
        """Everything to the end of the stream."""
        while got := self.sock.recv(1 << 20):
            self.pending += got
        return self.pending

    def silent(self):
        return not self.pending and not select.select([self.sock], [], [], SHORT)[0]

    def write(self, data):
        self.sock.sendall(data)

    def close(self):
        self.sock.close()


class Client:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(LONG)
        self.sock.connect(path)
        self.last_id = 0
        self.replies, self.events = {}, []

    def close(self):
        self.sock.close()

    def send(self, text):
        self.last_id += 1
        self.sock.send(f"{self.last_id} {text}".encode())
        return self.last_id

    def send_until_blocked(self, request, limit):
        """Reads nothing; the number of requests after which phid-sim reads no more."""
        for i in range(limit):
            if not select.select([], [self.sock], [], SHORT)[1]:
                return i
            self.sock.send(request(i).encode())
        raise AssertionError("never blocked")

    def receive(self):
        data, fds, flags, _ = socket.recv_fds(self.sock, 8192, 4)
        assert not flags & socket.MSG_TRUNC
        if not data:
            raise EOFError("phid-sim closed the connection")
        reqid, rest = data.decode().split(" ", 1)
        if reqid == "0" and rest.startswith("event "):
            self.events.append(rest[6:])
        else:
            assert int(reqid) not in self.replies, f"two answers to {reqid}"
            self.replies[int(reqid)] = (rest, fds)
        return int(reqid)

    def take(self, reqid):
        """The answer to a request: dict of its fields ('fd' if it brought one), or Refused."""
        while reqid not in self.replies:
            self.receive()
        rest, fds = self.replies.pop(reqid)
        words = rest.split(" ")
        if words[0] == "err":
            assert not fds
            raise Refused(words[1], " ".join(words[2:]))
        assert words[0] == "ok", rest
        fields = dict(word.split("=", 1) for word in words[1:])
        if fds:
            assert len(fds) == 1
            fields["fd"] = fds[0]
        return fields

    def call(self, text):
        return self.take(self.send(text))

    def create(self, name, prog=None, cpus="1", mem=1 << 20, tag="t", base=None):
        fields = self.call(f"create {name} cpus={cpus} mem={mem} tag={tag}" + (f" prog={prog}" if prog else "") +
                           (f" base={base}" if base else ""))
        return Console(fields["fd"])

    def raw(self, data):
        """Sends any bytes; the first answer as text."""
        self.sock.send(data)
        return self.sock.recv(8192).decode()

    def event(self):
        while not self.events:
            self.receive()
        return self.events.pop(0)

    def wait_state(self, name, state):
        end = time.monotonic() + LONG
        while True:
            fields = None
            with contextlib.suppress(Refused):
                fields = self.call(f"observe {name}")
            if fields and fields["state"] == state:
                return fields
            assert time.monotonic() < end, fields
            select.select([], [], [], 0.002)

    def quiet(self):
        return not select.select([self.sock], [], [], SHORT)[0]


@contextlib.contextmanager
def refused(name):
    try:
        yield
    except Refused as e:
        assert e.name == name, f"{e} instead of {name}"
    else:
        raise AssertionError(f"not refused with {name}")


def wait_for_socket(path, process):
    end = time.monotonic() + LONG
    while True:
        assert process.poll() is None, process.stderr.read()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s, contextlib.suppress(OSError):
            s.connect(path)
            return
        assert time.monotonic() < end
        select.select([], [], [], 0.005)


class Sim:
    """One phid-sim in the foreground."""

    def __init__(self, directory):
        self.path = f"{directory}/sim.sock"
        self.clients = []
        self.process = self.spawn()

    def spawn(self):
        process = subprocess.Popen([PHID_SIM, "serve", "--socket", self.path, "--foreground"],
                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for_socket(self.path, process)
        return process

    def client(self):
        client = Client(self.path)
        self.clients.append(client)
        return client

    def ctl(self, request):
        return subprocess.run([PHID_SIM, "ctl", "--socket", self.path, request], capture_output=True, text=True,
                              timeout=60)

    def end(self):
        """Quit by request, then it must be gone, with its socket, having complained of nothing."""
        try:
            if self.process.poll() is None:
                with contextlib.suppress(OSError, EOFError):
                    client = Client(self.path)
                    client.call("quit")
                    client.close()
            for client in self.clients:
                client.close()
            _, err = self.process.communicate(timeout=LONG)
        except BaseException:
            self.process.kill()
            self.process.communicate()
            raise
        lines = err.decode().splitlines()
        assert self.process.returncode == 0, (self.process.returncode, lines)
        assert len(lines) == 1 and "stand-in, not a hypervisor" in lines[0], lines
        assert not os.path.exists(self.path)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
