"""What a keeper says, as bytes (api/keeper_proto.h): for tests in which it is not ours."""
import socket
import struct
import time

HELLO, SPAWNED, ENDED, QMP_OUT, UNDO, TAKEN = range(1, 7)
SPAWN, QMP_IN = 64, 65
GONE = 69
ALIVE = 1


def packet(kind, rest=b"", length=None):
    return struct.pack("<IHH", 8 + len(rest) if length is None else length, kind, 0) + rest


def hello(incarnation, cell=0, pid=0, cell_pid=0, by_caller=True, version=4):
    return packet(HELLO, struct.pack("<IIiiQQ40sI4x", version, cell, pid, cell_pid, 0, 0, incarnation.encode(), by_caller))


def spawned(pid, err=0):
    return packet(SPAWNED, struct.pack("<iiQ", err, pid, 0))


class Keeper:
    """One connection to keeper.sock."""

    def __init__(self, phid):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(30)
        until = time.monotonic() + 30
        while True:
            try:
                return self.socket.connect(str(phid.dir / "keeper.sock"))
            except BlockingIOError:  # more wait to be accepted than fit, and a socket with a timeout does not
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data, descriptors=()):
        socket.send_fds(self.socket, [data], list(descriptors))

    def receive(self):
        """(type, what is behind the header); descriptors that came along are closed. (None, b"") at the end."""
        data, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 16)
        for fd in descriptors:
            socket.close(fd)
        return (struct.unpack("<IHH", data[:8])[1], data[8:]) if data else (None, b"")
