#!/usr/bin/python3
"""Linux in a Jailhouse cell, as far as it goes without the hypervisor: what phid has the stand-in load (boot code, its own device tree, a real
kernel, an initramfs) is put at the same addresses of a QEMU machine whose first CPU begins where the cell's would.

    cell.py KERNEL INITRAMFS     the initramfs' /init says what it sees on the console
Prints "ok" and "FAIL" lines; 1 if anything failed. PHID_BUILD: a build for this machine with --enable-test-hooks."""
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from phidtest.daemon import Phid  # noqa: E402
from phidtest.jailhouse import Jailhouse  # noqa: E402

# QEMU's virt machine with a GICv3 (hw/arm/virt.c, memory map).
GICD, GICR, UART, UART_SPI = 0x8000000, 0x80a0000, 0x9000000, 1
BASE, SIZE, CPUS = 0x50000000, 512 << 20, 8
failed = 0


def check(name, good, why=""):
    global failed
    failed += not good
    print(f"{'ok  ' if good else 'FAIL'} {name}" + ("" if good else f": {why}"), flush=True)


def root_cell():
    """A system configuration of upstream-14 with that interrupt controller (facts: cell-config.h, struct jailhouse_system)."""
    s = bytearray(0x164 + 132)
    s[:8] = b"JHSYS\2\x0e\0"
    s[0x0c:0x24] = struct.pack("<QQQ", 0x7fc00000, 0, 4 << 20)
    s[0x139] = 3
    s[0x13c:0x144], s[0x15c:0x164] = struct.pack("<Q", GICD), struct.pack("<Q", GICR)
    s[0x164 + 0x30:0x164 + 0x34] = struct.pack("<I", 8)
    return bytes(s) + struct.pack("<Q", (1 << CPUS) - 1)


def images(directory, kernel, initramfs):
    jh = Jailhouse(tempfile.mkdtemp(prefix="phid-jh-", dir="/tmp"), cpus=range(CPUS))
    (directory / "root.cell").write_bytes(root_cell())
    platform = {"format": "phid-platform/1", "cpus": {"ids": f"0-{CPUS - 1}", "host": f"{CPUS - 1}"},
                "memory": [{"name": "m", "kind": "carveout", "base": hex(BASE), "size": SIZE}],
                "interrupts": {"controller": "gicv3", "base": hex(GICD)},
                "devices": [{"name": "uart0", "kind": "uart", "type": "pl011", "mmio": [{"base": hex(UART), "size": 4096}], "irqs": [{"spi": UART_SPI}],
                             "host": {"handover": "absent"}}],
                "backends": {"jailhouse": jh.platform(root_cell=str(directory / "root.cell"))}}
    try:
        # The sanitizers and whatever else this machine does take longer than a hypervisor does.
        with Phid(backends=("jailhouse",), platform=platform, args=["--action-timeout-ms", "120000"]) as phid:
            spec = {"boot": {"kernel": kernel, "initrd": initramfs, "cmdline": "console=ttyAMA0 panic=-1 loglevel=1"}, "cpus": {"set": "0-1"},
                    "memory": [{"size": SIZE}], "devices": [{"name": "uart0"}]}
            phid.client().put("linux", spec).expect(201)
            cell, = jh.cells.values()
            return struct.unpack_from("<Q", cell.config, 0x54)[0], cell.images[1:]
    finally:
        jh.close()


def main():
    kernel, initramfs = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="phid-arm64-cell.", dir="/tmp") as d:
        directory = pathlib.Path(d)
        entry, loaded = images(directory, kernel, initramfs)
        check("phid plans a Linux cell", len(loaded) == 4, f"{len(loaded)} images")
        argv = ["timeout", "600", "qemu-system-aarch64", "-M", "virt,gic-version=3,virtualization=on", "-cpu", "cortex-a53", "-smp", "2", "-m", "1G",
                "-accel", "tcg,thread=multi", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{directory}/console"]
        for i, (at, content) in enumerate(loaded):
            (directory / f"image{i}").write_bytes(content)
            argv += ["-device", f"loader,file={directory}/image{i},addr={at:#x},force-raw=on"]
        argv += ["-device", f"loader,addr={entry:#x},cpu-num=0"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        console = (directory / "console").read_text(errors="replace") if (directory / "console").exists() else ""
        said = dict(line.strip().split(" ", 1) for line in console.splitlines() if " " in line.strip())
        check("the machine ends by itself", done.returncode == 0, f"{done.returncode} {done.stderr}\n{console[-2000:]}")
        check("the kernel came to its init, by boot code, device tree and initrd of phid's", said.get("machine") == "aarch64", console[-2000:])
        check("with the cell's CPUs, the second by PSCI", said.get("cpus") == "0-1", said.get("cpus"))
        check("with the cell's memory, at its address", said.get("memory", "").startswith(f"{BASE:08x}-"), said.get("memory"))
        check("with the command line", said.get("cmdline", "").startswith("console=ttyAMA0"), said.get("cmdline"))
        check("and the model says whose it is", said.get("model") == "phid-1", said.get("model"))
    return failed > 0


if __name__ == "__main__":
    os.environ.setdefault("PHID_BUILD", "")
    sys.exit(main())
