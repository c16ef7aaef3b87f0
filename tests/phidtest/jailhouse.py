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

CREATE, LOAD, START, DESTROY = 0x40100002, 0x40300003, 0x40280004, 0x40280005
HEADER, MEMORY = 132, 32  # upstream, revision 14
ARM64 = 2


def bits(mask):
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


def text(cpus):
    return ",".join(map(str, sorted(cpus)))


class Cell:
    def __init__(self, number, name, cpus, memory):
        self.id, self.name, self.cpus, self.memory = number, name, set(cpus), memory
        self.state, self.failed, self.images, self.starts = "shut down", set(), [], 0


class Jailhouse:
    def __init__(self, directory, cpus=range(8), arch=ARM64):
        self.dir = pathlib.Path(directory)
        self.device, self.sysfs = self.dir / "jailhouse", self.dir / "sysfs"
        self.arch, self.lock = arch, threading.Lock()
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
        return {"flavour": "upstream-14", "architecture": "arm64", "device": str(self.device), "sysfs": str(self.sysfs), **more}

    # ---- what a guest or the hypervisor does by itself ----

    def ends(self, name, state="shut down", failed=()):
        with self.lock:
            cell = self._by_name(name)
            cell.state, cell.failed = state, set(failed)
            self._show(cell)

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
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection, connection.makefile("rb") as f:
            head = f.read(8)
            if len(head) < 8:
                return  # a phid that was killed
            operation, n = struct.unpack("=II", head)
            body = f.read(n)
            time.sleep(self.delay.get(operation, 0))
            with self.lock:
                self.calls.append(operation)
                err = 0 if self.enabled else errno.EINVAL
                if not err:
                    err = {CREATE: self._create, LOAD: self._load, START: self._start, DESTROY: self._destroy}[operation](body)
            with contextlib.suppress(BrokenPipeError):  # a phid that was killed does not listen
                connection.sendall(struct.pack("=i", err))

    def _by_name(self, name):
        return next(c for c in self.cells.values() if c.name == name)

    def _create(self, config):
        if self.faults > 0:  # one of the next creates fails
            self.faults -= 1
            return errno.EIO
        if len(config) > 65536:
            return errno.E2BIG
        if config[:5] != b"JHCLL" or struct.unpack_from("<H", config, 6)[0] != 14 or len(config) < HEADER:
            return errno.EINVAL
        if config[5] != self.arch:
            return 0  # the driver's bug: well answered, nothing made
        name = config[8:40].split(b"\0")[0].decode()
        if name == "root" or any(c.name == name for c in self.cells.values()):
            return errno.EEXIST
        set_size, regions = struct.unpack_from("<II", config, 0x30)
        cpus = bits(int.from_bytes(config[HEADER:HEADER + set_size], "little"))
        if not self.root.issuperset(cpus) or self.root == set(cpus):
            return errno.EBUSY
        memory = [struct.unpack_from("<QQQQ", config, HEADER + set_size + MEMORY * i) for i in range(regions)]
        number = next(i for i in range(1, 1000) if i not in self.cells)
        self.root -= set(cpus)
        self.cells[number] = Cell(number, name, cpus, memory)
        self.cells[number].config = config
        self._show_all()
        return 0

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
