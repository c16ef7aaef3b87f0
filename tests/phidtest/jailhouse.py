"""A stand-in for Jailhouse: driver, hypervisor and sysfs, for tests only. It behaves as the real ones were seen to, faults included:
no check between cells, ids reused at once, another architecture answered well and not made, no event when a cell ends.

It is a stream socket in the device's place (backends/jailhouse/driver.c, stand_in) and a directory in that of sysfs."""
import contextlib
import errno
import os
import pathlib
import shutil
import socket
import struct
import threading
import time

ENABLE, DISABLE, CREATE, LOAD, START, DESTROY = 0x40080000, 1, 0x40100002, 0x40300003, 0x40280004, 0x40280005
OMNIVISOR_LOAD = 0x40380003
CONSOLE = 0x80000000  # no ioctl: read() of the device
HEADERS = {"upstream-14": (132, 32, 0x34), "omnivisor-14": (152, 40, 0x3c)}  # bytes of the header and of a memory region; where its counts begin
ARM64 = 2
RING = 2048


def root_cell(cpus=(), memory=(), pci=(), hypervisor=(0, 0), console=0, gic=(3, 0x8000000), arch=ARM64, name=b"root"):
    """A system configuration of upstream-14. memory: (phys, size, flags); pci: bytes of a device's entry."""
    system, root = bytearray(0x164), bytearray(132)
    system[:8] = struct.pack("<5sBH", b"JHSYS", arch, 14)
    struct.pack_into("<QQQQ", system, 0xc, hypervisor[0], 0, hypervisor[1], 3)
    struct.pack_into("<Q", system, 0x2c, console)
    struct.pack_into("<BBHQ", system, 0x138, 25, gic[0], 0, gic[1])
    root[8:8 + len(name)] = name
    struct.pack_into("<IIIIII", root, 0x30, 8, len(memory), 0, 0, 0, len(pci))
    mask = sum(1 << c for c in cpus).to_bytes(8, "little")
    return bytes(system + root) + mask + b"".join(struct.pack("<QQQQ", phys, phys, size, flags) for phys, size, flags in memory) + b"".join(pci)


def ivshmem(slot, first, peers=2, number=0, protocol=0, domain=0):
    """The entry of a link's end: its sections are memory[first:]."""
    entry = bytearray(56)
    entry[0] = 3
    struct.pack_into("<HH", entry, 2, domain, slot << 3)
    struct.pack_into("<IBBH", entry, 0x30, first, number, peers, protocol)
    return bytes(entry)


def bits(mask):
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


def text(cpus):
    return ",".join(map(str, sorted(cpus)))


class Cell:
    def __init__(self, number, name, cpus, memory, rcpus=()):
        self.id, self.name, self.cpus, self.memory, self.rcpus, self.firmware = number, name, set(cpus), memory, set(rcpus), {}
        self.state, self.failed, self.images, self.starts = "shut down", set(), [], 0


class Jailhouse:
    def __init__(self, directory, cpus=range(8), arch=ARM64, flavour="upstream-14", rcpus=()):
        self.dir = pathlib.Path(directory)
        self.device, self.sysfs = self.dir / "jailhouse", self.dir / "sysfs"
        self.arch, self.flavour, self.lock = arch, flavour, threading.Lock()
        self.root_rcpus, self.ring, self.listeners, self.created, self.received = set(rcpus), b"", [], [], []
        self.root, self.cells, self.calls, self.delay, self.enabled, self.faults = set(cpus), {}, [], {}, True, 0
        (self.sysfs / "cells").mkdir(parents=True)
        self._write(self.sysfs / "enabled", "1")
        self._show_all()
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.device))
        self.listening.listen(64)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def close(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listening.close()
        shutil.rmtree(self.dir)

    def platform(self, **more):
        return {"flavour": self.flavour, "architecture": "arm64", "device": str(self.device), "sysfs": str(self.sysfs), **more}

    # ---- what a guest or the hypervisor does by itself ----

    def ends(self, name, state="shut down", failed=()):
        with self.lock:
            cell = self._by_name(name)
            cell.state, cell.failed = state, set(failed)
            self._show(cell)

    def prints(self, text):
        """On its console: the hypervisor, or a cell by hypercall."""
        with self.lock:
            self.ring = (self.ring + text)[-RING:]
            for connection in list(self.listeners):
                try:
                    connection.sendall(text)
                except OSError:
                    self.listeners.remove(connection)

    def enable(self, on):
        with self.lock:
            self.enabled = on
            self._write(self.sysfs / "enabled", "1" if on else "0")

    # ---- the driver ----

    def _serve(self):
        while True:
            try:
                connection = self.listening.accept()[0]
            except OSError:
                return
            self.came = time.perf_counter()  # the last request, for bench/jailhouse.py
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        head = connection.recv(8, socket.MSG_WAITALL)
        if head[:4] == struct.pack("=I", CONSOLE):
            with self.lock:
                connection.sendall(b"." + self.ring)  # a byte that says it is open, then the ring
                self.listeners.append(connection)
            return
        with connection, connection.makefile("rb") as f:
            if len(head) < 8:
                return  # a phid that was killed
            operation, n = struct.unpack("=II", head)
            body = f.read(n)
            self.received.append(operation)
            time.sleep(self.delay.get(operation, 0))
            with self.lock:
                self.calls.append(operation)
                err = 0 if self.enabled or operation == ENABLE else errno.EINVAL
                if not err:
                    known = {ENABLE: self._enable, DISABLE: self._disable, CREATE: self._create, START: self._start, DESTROY: self._destroy,
                             **({LOAD: self._load} if self.flavour == "upstream-14" else {OMNIVISOR_LOAD: self._omnivisor_load})}
                    err = known[operation](body) if operation in known else errno.EINVAL
            with contextlib.suppress(BrokenPipeError):  # a phid that was killed does not listen
                connection.sendall(struct.pack("=i", err))

    def _by_name(self, name):
        return next(c for c in self.cells.values() if c.name == name)

    def _enable(self, config):
        if self.enabled:
            return errno.EBUSY
        if config[:5] != b"JHSYS":
            return errno.EINVAL
        self.enabled = True
        self._write(self.sysfs / "enabled", "1")
        self._show_all()
        return 0

    def _disable(self, _):
        for cell in list(self.cells):
            self._destroy(struct.pack("=i", cell))
        self.enabled = False
        self._write(self.sysfs / "enabled", "0")
        return 0

    def _create(self, config):
        if self.faults > 0:  # one of the next creates fails
            self.faults -= 1
            return errno.EIO
        if len(config) > 65536:
            return errno.E2BIG
        header, entry, counts = HEADERS[self.flavour]
        if config[:5] != b"JHCLL" or struct.unpack_from("<H", config, 6)[0] != 14 or len(config) < header:
            return errno.EINVAL
        if config[5] != self.arch:
            return 0  # the driver's bug: well answered, nothing made
        name = config[8:40].split(b"\0")[0].decode()
        if name == "root" or any(c.name == name for c in self.cells.values()):
            return errno.EEXIST
        set_size, = struct.unpack_from("<I", config, 0x30)
        rset_size = struct.unpack_from("<I", config, 0x34)[0] if self.flavour == "omnivisor-14" else 0
        regions, = struct.unpack_from("<I", config, counts)
        cpus = bits(int.from_bytes(config[header:header + set_size], "little"))
        rcpus = bits(int.from_bytes(config[header + set_size:header + set_size + rset_size], "little"))
        if not self.root.issuperset(cpus) or self.root == set(cpus) or not self.root_rcpus.issuperset(rcpus):
            return errno.EBUSY
        memory = [struct.unpack_from("<QQQQ", config, header + set_size + rset_size + entry * i) for i in range(regions)]
        slots = self._slots(config, header + set_size + rset_size + entry * regions, counts)
        if any(slot in self._slots_of(c) for c in self.cells.values() for slot in slots):
            return errno.EBUSY  # the same end of the same link
        number = next(i for i in range(1, 1000) if i not in self.cells)
        self.root -= set(cpus)
        self.root_rcpus -= set(rcpus)
        self.cells[number] = Cell(number, name, cpus, memory, rcpus)
        self.cells[number].config, self.cells[number].slots = config, slots
        self.created.append(self.cells[number])
        self._show_all()
        return 0

    @staticmethod
    def _slots_of(cell):
        return getattr(cell, "slots", [])

    @staticmethod
    def _slots(config, at, counts):
        """(bdf, id) of each end of a link."""
        caches, chips, pios, devices = struct.unpack_from("<IIII", config, counts + 4)
        at += caches * 12 + chips * 32 + pios * 4
        return [(struct.unpack_from("<H", config, at + 56 * i + 4)[0], config[at + 56 * i + 0x34]) for i in range(devices) if config[at + 56 * i] == 3]

    def _omnivisor_load(self, body):
        number, n = struct.unpack_from("=iI", body)
        cell = self.cells.get(number)
        if cell is None:
            return errno.ENOENT
        for i in range(n):
            processor, _, name = struct.unpack_from("=II32s", body, 8 + 40 * i)
            file = self.dir / "firmware" / name.split(b"\0")[0].decode()
            if processor not in cell.rcpus:
                return errno.EINVAL
            if not file.exists():
                return errno.ENOENT
            cell.firmware[processor] = file.read_bytes()
        return self._load(body[:4] + body[8 + 40 * n:])

    def _load(self, body):
        cell = self.cells.get(struct.unpack_from("=i", body)[0])
        if cell is None:
            return errno.ENOENT
        cell.state = "shut down"  # before anything is looked at
        self._show(cell)
        at, images = 4, []
        while at < len(body):
            target, size = struct.unpack_from("=QQ", body, at)
            images.append((target, body[at + 16:at + 16 + size]))
            at += 16 + size
            if not any(virt <= target and target + size <= virt + length and flags & 0x42 == 0x42 for _, virt, length, flags in cell.memory):
                return errno.EINVAL
        cell.images = images
        return 0

    def _start(self, body):
        cell = self.cells.get(struct.unpack_from("=i", body)[0])
        if cell is None:
            return errno.ENOENT
        cell.state, cell.failed = "running", set()
        cell.starts += 1
        self._show(cell)
        return 0

    def _destroy(self, body):
        cell = self.cells.pop(struct.unpack_from("=i", body)[0], None)
        if cell is None:
            return errno.ENOENT
        self.root |= cell.cpus
        self.root_rcpus |= cell.rcpus
        shutil.rmtree(self.sysfs / "cells" / str(cell.id))
        self._show_all()
        return 0

    # ---- sysfs ----

    @staticmethod
    def _write(path, value):
        fresh = path.with_suffix(".new")
        fresh.write_text(value + "\n")
        os.rename(fresh, path)

    def _show(self, cell):
        d = self.sysfs / "cells" / str(cell.id)
        d.mkdir(exist_ok=True)
        for name, value in (("state", cell.state), ("cpus_assigned_list", text(cell.cpus)), ("cpus_failed_list", text(cell.failed)),
                            ("name", cell.name)):
            self._write(d / name, value)

    def _show_all(self):
        root = Cell(0, "root", self.root, [])
        root.state = "running"
        for cell in (root, *self.cells.values()):
            self._show(cell)
