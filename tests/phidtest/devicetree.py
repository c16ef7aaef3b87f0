"""A machine's /proc and /sys as phid reads them, written to a directory: what --host-root is given."""
import os
import pathlib
import struct


def cells(*numbers):
    return struct.pack(f">{len(numbers)}I", *numbers)


def words(*texts):
    return b"".join(t.encode() + b"\0" for t in texts)


def write_tree(directory, node):
    """A node is a dict: of dicts (nodes), bytes, a text, or numbers (cells) for properties; True for an empty one."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in node.items():
        if isinstance(value, dict):
            write_tree(directory / name, value)
        elif value is True:
            (directory / name).write_bytes(b"")
        elif isinstance(value, bytes):
            (directory / name).write_bytes(value)
        else:
            (directory / name).write_bytes(words(value) if isinstance(value, str) else cells(*value))


class Machine:
    """`files` by path: /proc/iomem and the like; `tree`: the device tree, None for a machine without one."""

    def __init__(self, directory, tree=None, online="0-3", isolated="", iomem="", memory_kib=2 << 20, arch="aarch64", files=()):
        self.root = pathlib.Path(directory)
        self.file("/proc/iomem", iomem)
        self.file("/proc/meminfo", f"MemTotal:       {memory_kib} kB\nMemFree: 1 kB\n")
        self.file("/proc/sys/kernel/arch", arch + "\n")
        self.file("/sys/devices/system/cpu/online", online + "\n")
        self.file("/sys/devices/system/cpu/present", "0-3\n")
        self.file("/sys/devices/system/cpu/isolated", isolated + "\n")
        for path, text in dict(files).items():
            self.file(path, text)
        for cpu in range(4):
            self.file(f"/sys/devices/system/cpu/cpu{cpu}/topology/core_id", f"{cpu}\n")
        if tree is not None:
            write_tree(self.root / "proc/device-tree", tree)

    def file(self, path, text):
        p = self.root / path[1:]
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_text(text)

    def driver(self, bus, device, node, driver):
        """What Linux shows of a device of the tree that a driver has."""
        d = self.root / f"sys/devices/platform/{device}"
        d.mkdir(parents=True)
        os.symlink(f"../../../firmware/devicetree/base{node}", d / "of_node")
        os.symlink(f"../../../bus/{bus}/drivers/{driver}", d / "driver")
        link = self.root / f"sys/bus/{bus}/devices/{device}"
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(f"../../../devices/platform/{device}", link)
