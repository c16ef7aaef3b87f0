"""What Jailhouse cells boot: ELF files, Linux with its device tree, images of runPHI; what the stand-in was given to load."""
import json
import struct
import subprocess
import tempfile

import pytest
from phidtest.daemon import Phid, build_dir
from phidtest.jailhouse import Jailhouse
from test_jailhouse import with_root
from test_runphi import Runphi

POOLS = [{"name": "ddr", "kind": "carveout", "base": "0x70000000", "size": "128M"}, {"name": "high", "kind": "carveout", "base": "0x900000000", "size": "128M"}]
DEVICES = [{"name": "uart0", "kind": "uart", "type": "pl011", "mmio": [{"base": "0x9000000", "size": 4096}], "irqs": [{"spi": 1}], "host": {"handover": "absent"}}]
MiB = 1 << 20


@pytest.fixture
def hypervisor():
    jh = Jailhouse(tempfile.mkdtemp(prefix="phid-jh-", dir="/tmp"))
    yield jh
    jh.close()


@pytest.fixture
def host(hypervisor):
    platform = {"format": "phid-platform/1", "cpus": {"ids": "0-7", "host": "0"}, "memory": POOLS, "interrupts": {"controller": "gicv3", "base": "0x8000000"},
                "devices": DEVICES, "backends": {"jailhouse": hypervisor.platform()}}
    with Phid(backends=("jailhouse",), platform=platform) as phid:
        yield phid


def elf(segments, entry, machine=183):
    """A 64-bit ELF program of (address, bytes, size in memory)."""
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, entry, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    at, table, data = 64 + 56 * len(segments), b"", b""
    for address, content, size in segments:
        table += struct.pack("<IIQQQQQQ", 1, 7, at + len(data), address + (1 << 40), address, len(content), size, 4096)
        data += content
    return head + table + data


def kernel(size=3 * MiB):
    return bytes(8) + struct.pack("<QQ", 0, size) + bytes(32) + b"ARM\x64" + bytes(4) + b"kernel" * 1000


def cell_of(hypervisor, container):
    return next(c for c in hypervisor.cells.values() if c.name == container["cell"]["name"])


def test_an_elf_file_is_loaded_by_its_segments(host, hypervisor):
    (host.dir / "rtos.elf").write_bytes(elf([(0x10002000, b"data" * 8, 0x1000), (0x10000000, b"code" * 100, 400)], 0x10000008))
    made = host.client().put("a", {"boot": {"inmate": str(host.dir / "rtos.elf"), "cmdline": "a=1"}, "memory": [{"size": 65536}]}).expect(201).json
    cell = cell_of(hypervisor, made)
    assert cell.memory[0][:3] == (int(made["cell"]["memory"][0]["base"], 16), 0x10000000, 65536)
    assert cell.images == [(0x10000000, bytes(65536)), (0x10000000, b"code" * 100), (0x10002000, b"data" * 8), (0x10001000, b"a=1\0")]
    assert struct.unpack_from("<Q", cell.config, 0x54)[0] == 0x10000008, "where it begins"


@pytest.mark.parametrize("boot, change, word", [
    (elf([(0x1000, b"x", 1)], 0x1000, machine=62), {}, "machine 62"), (elf([(0x1000, b"x", 1)], 0x9000), {}, "begins at 0x9000"),
    (elf([(0x1000, b"x", 0x20000)], 0x1000), {}, "the cell has 0x10000"), (elf([(0x1000, b"x", 1)], 0x1000), {"at": "0x1000"}, "says itself"),
    (elf([(0x1000, b"x", 1), (0x900000, b"y", 1)], 0x1000), {}, "the cell has 0x10000"), (b"\x7fELF", {}, "shorter than its header"), (b"x" * 65537, {}, "not within")])
def test_an_inmate_that_does_not_fit_is_refused_before_a_cell_is_made(host, hypervisor, boot, change, word):
    (host.dir / "x").write_bytes(boot)
    answer = host.client().put("a", {"boot": {"inmate": {"path": str(host.dir / "x"), **change}}, "memory": [{"size": 65536}]}).expect(422)
    assert word in answer.json["detail"] and hypervisor.created == [] and host.client().containers() == []


def test_an_entry_of_ones_own(host, hypervisor):
    (host.dir / "x").write_bytes(b"x" * 100)
    made = host.client().put("a", {"boot": {"inmate": {"path": str(host.dir / "x"), "at": "0x70000000"}, "entry": "0x70000040"}, "memory": [{"size": 65536}]}).expect(201).json
    assert struct.unpack_from("<Q", cell_of(hypervisor, made).config, 0x54)[0] == 0x70000040


def tree(dtb):
    return subprocess.run(["dtc", "-I", "dtb", "-O", "dts", "-q", "-"], input=dtb, capture_output=True, check=True, timeout=30).stdout.decode()


def with_arm64_root(host, hypervisor):
    with_root(host, hypervisor)
    root = bytearray((host.dir / "root.cell").read_bytes())
    root[5] = 2
    root[0x139] = 3
    root[0x0c:0x1c] = struct.pack("<QQ", 0x7fc00000, 0)
    root[0x1c:0x24] = struct.pack("<Q", 4 * MiB)
    root[0x13c:0x144], root[0x15c:0x164] = struct.pack("<Q", 0x8000000), struct.pack("<Q", 0x80a0000)
    (host.dir / "root.cell").write_bytes(bytes(root))
    host.stop()
    host.platform = json.loads((host.dir / "platform.json").read_text())
    host.start()


@pytest.mark.parametrize("pool, base", [("ddr", 0x70000000), ("high", 0x900000000)])
def test_linux_with_a_device_tree_of_phids(host, hypervisor, pool, base):
    with_arm64_root(host, hypervisor)
    (host.dir / "Image").write_bytes(kernel())
    (host.dir / "initrd").write_bytes(b"initrd" * 1000)
    made = host.client().put("a", {"boot": {"kernel": str(host.dir / "Image"), "initrd": str(host.dir / "initrd"), "cmdline": "console=ttyAMA0 quiet"},
                                   "cpus": {"set": "2-3"}, "memory": [{"size": 32 * MiB, "pool": pool}], "devices": [{"name": "uart0"}]}).expect(201).json
    cell = cell_of(hypervisor, made)
    assert cell.memory[0][:3] == (base, base, 32 * MiB) and struct.unpack_from("<Q", cell.config, 0x54)[0] == base
    pieces = dict(cell.images[1:])
    assert pieces[base + 2 * MiB] == kernel() and pieces[base + 6 * MiB] == b"initrd" * 1000, "on multiples of 2 MiB"
    assert struct.unpack_from("<QQ", pieces[base], 24) == (base + 4096, base + 2 * MiB), "the boot code's two addresses"
    dts = tree(pieces[base + 4096])
    for word in ('bootargs = "console=ttyAMA0 quiet"', 'stdout-path = "/serial@9000000"', "cpu@2", "cpu@3", f"linux,initrd-start = <{base >> 32:#04x} {(base + 6 * MiB) & 0xffffffff:#x}>",
                 'method = "smc"', 'compatible = "arm,gic-v3"', 'compatible = "arm,pl011\\0arm,primecell"'):
        assert word in dts, (word, dts)


def test_linux_knows_its_cpus_by_the_names_that_the_machine_has_for_them(host, hypervisor, tmp_path):
    cpus = tmp_path / "sys/devices/system/cpu"
    for cpu, name in ((2, "cpu@100"), (3, "cpu@101")):
        (cpus / f"cpu{cpu}/topology").mkdir(parents=True)
        (cpus / f"cpu{cpu}/topology/cluster_id").write_text("7\n")
        (cpus / f"cpu{cpu}/of_node").symlink_to(f"../../../../firmware/devicetree/base/cpus/{name}")
    host.args += ["--host-root", str(tmp_path)]
    with_arm64_root(host, hypervisor)
    (host.dir / "Image").write_bytes(kernel())
    made = host.client().put("a", {"boot": {"kernel": str(host.dir / "Image")}, "cpus": {"set": "2-4"}, "memory": [{"size": 32 * MiB}]}).expect(201).json
    dts = tree(dict(cell_of(hypervisor, made).images[1:])[0x70000000 + 4096])
    assert [word in dts for word in ("cpu@100", "cpu@101", "cpu@4")] == [True] * 3, dts


def test_linux_needs_a_tree_and_a_kernel_that_is_one(host, hypervisor):
    client = host.client()
    (host.dir / "Image").write_bytes(kernel())
    (host.dir / "zipped").write_bytes(b"\x1f\x8b" + bytes(100))
    (host.dir / "bad.dtb").write_bytes(b"\xd0\x0d\xfe\xed" + bytes(100))
    memory = {"memory": [{"size": 32 * MiB}]}
    for boot, word in (({"kernel": str(host.dir / "Image")}, "root_cell"), ({"kernel": str(host.dir / "zipped")}, "gunzip"),
                       ({"kernel": str(host.dir / "Image"), "dtb": str(host.dir / "bad.dtb")}, "the device tree"),
                       ({"kernel": str(host.dir / "Image"), "entry": "0x1000"}, "leave \"entry\" out")):
        assert word in client.put("a", {"boot": boot, **memory}).expect(422).json["detail"]
    answer = client.put("a", {"boot": {"kernel": str(host.dir / "Image"), "dtb": str(host.dir / "bad.dtb")}, "memory": [{"size": 4 * MiB}]}).expect(422)
    assert "need" in answer.json["detail"] and hypervisor.created == []


def test_the_images_own_tree_is_put_right(host, hypervisor):
    source = '/dts-v1/; / { #address-cells = <2>; #size-cells = <2>; model = "mine"; memory { device_type = "memory"; reg = <0 0 0 0>; }; };'
    subprocess.run(["dtc", "-q", "-o", str(host.dir / "own.dtb"), "-"], input=source.encode(), check=True, timeout=30)
    (host.dir / "Image").write_bytes(kernel())
    made = host.client().put("a", {"boot": {"kernel": str(host.dir / "Image"), "dtb": str(host.dir / "own.dtb"), "cmdline": "quiet"},
                                   "memory": [{"size": 32 * MiB}]}).expect(201).json
    dts = tree(dict(cell_of(hypervisor, made).images[1:])[0x70001000])
    assert 'model = "mine"' in dts and "reg = <0x00 0x70000000 0x00 0x2000000>" in dts and 'bootargs = "quiet"' in dts


def test_an_image_of_runphi_with_linux_runs_unchanged(host, hypervisor, runphi_dir):
    r = Runphi(host, runphi_dir)
    bundle = r.bundle("b", {"os_var": "linux", "kernel": "boot/Image", "ramdisk": "boot/fs.cpio", "dtb": "boot/cell.dtb", "net": "none", "memory": 32})
    boot = r.dir / "b/rootfs/boot"
    (boot / "Image").write_bytes(kernel())
    (boot / "fs.cpio").write_bytes(b"cpio")
    subprocess.run(["dtc", "-q", "-o", str(boot / "cell.dtb"), "-"], input=b"/dts-v1/; / { #address-cells = <2>; #size-cells = <2>; };", check=True, timeout=30)
    r.good("create", "-b", bundle, "linux")
    cell, = hypervisor.cells.values()
    assert [at & 0xfffffff for at, _ in cell.images] == [0, 2 * MiB, 6 * MiB, 4096, 0] and build_dir()
    r.good("delete", "--force", "linux")
