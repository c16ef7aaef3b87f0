"""A stand-in for a device in sysfs and the driver that Linux has for it, for tests only: the files that phid writes are FIFOs, and what
is written has the effect that the kernel's have."""
import os
import pathlib
import threading


class Device:
    def __init__(self, directory, name="ff010000.serial"):
        self.dir, self.name = pathlib.Path(directory), name
        self.bus, self.driver = self.dir / "bus", self.dir / "bus/drivers/serial"
        self.sysfs = self.dir / "devices" / name
        self.driver.mkdir(parents=True)
        self.sysfs.mkdir(parents=True)
        (self.sysfs / "subsystem").symlink_to(self.bus)
        (self.sysfs / "driver_override").write_text("(null)\n")
        self.log, self.stuck, self.refuses, self.resets = [], False, False, False
        self.ends = []
        self.bind()
        self._fifo(self.driver / "unbind", self._unbind)
        self._fifo(self.bus / "drivers_probe", self._probe)

    def has_reset(self):
        self._fifo(self.sysfs / "reset", lambda _: self.log.append("reset"))

    def bind(self):
        if not self.bound():
            (self.sysfs / "driver").symlink_to(self.driver)

    def bound(self):
        return (self.sysfs / "driver").is_symlink()

    def override(self):
        return (self.sysfs / "driver_override").read_text().strip()

    def _unbind(self, name):
        self.log.append("unbind")
        if name == self.name and not self.stuck:
            (self.sysfs / "driver").unlink()

    def _probe(self, name):
        self.log.append("probe")
        if name == self.name and not self.refuses and self.override() in ("", "(null)"):
            self.bind()

    def _fifo(self, path, act):
        os.mkfifo(path)
        end = os.open(path, os.O_RDWR)  # so that a writer never waits, and a reader never sees the end
        self.ends.append(end)

        def serve():
            while (text := os.read(end, 4096)) != b"bye":
                act(text.decode().strip())

        threading.Thread(target=serve, daemon=True).start()

    def close(self):
        for end in self.ends:
            os.write(end, b"bye")
