"""phid --discover: what it finds in the files of a machine, and what it leaves out. The machines are written here, but one: this one."""
import json
import os
import subprocess

import jsonschema
import pytest
from phidtest.daemon import build_dir
from phidtest.devicetree import Machine, words
from phidtest.jailhouse import ivshmem, root_cell
from phidtest.openapi import ROOT

PHID = str(build_dir() / "daemon/phid")
GIC, SMMU = 1, 2  # phandles
MIB = 1 << 20


def run(*args):
    done = subprocess.run([PHID, *map(str, args)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def discover(root, tmp_path, *args):
    """The platform that is printed, which phid itself takes and the schema allows."""
    status, out, err = run("--discover", "--host-root", root, *args)
    assert status == 0, err
    platform = json.loads(out)
    jsonschema.Draft202012Validator(json.loads((ROOT / "schema/platform.schema.json").read_text())).validate(platform)
    (tmp_path / "found.json").write_text(out)
    assert run("--check-config", "--platform", tmp_path / "found.json") == (0, "the configuration is good\n", "")
    return platform


def number(text):
    if isinstance(text, int):
        return text
    return int(text, 0) if text[-1] not in "KMG" else int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]]


def pools(platform):
    return {m["name"]: (number(m["base"]), number(m["size"])) for m in platform["memory"] if "base" in m}


def devices(platform):
    return {d["name"]: d for d in platform.get("devices", [])}


def mmio(device):
    return [(number(m["base"]), number(m["size"])) for m in device["mmio"]]


def spis(device):
    return [i["spi"] for i in device.get("irqs", [])]


def left_out(platform, *parts):
    """Does a sentence at the top say all of these?"""
    return any(all(p in note for p in parts) for note in platform["note"])


def every_value_has_its_source(node):
    """Each object but the document, and the lists' holders, has a note."""
    for name, value in node.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                assert name == "backends" or item.get("note"), (name, item)
                every_value_has_its_source(item)


# ---- machines ----

def kria(**reserved):
    """ZynqMP as zynqmp.dtsi of Linux has it, cut to what matters, with the reserved memory of runPHI's KV260."""
    return {
        "#address-cells": [2], "#size-cells": [2], "interrupt-parent": [GIC], "model": "ZynqMP SMK-K26 Rev1/B/A",
        "memory@0": {"device_type": "memory", "reg": [0, 0, 0, 0x7ff00000, 8, 0, 0, 0x80000000]},
        "aliases": {"serial1": "/axi/serial@ff010000"},
        "chosen": {"stdout-path": "serial1:115200n8"},
        "reserved-memory": {
            "#address-cells": [2], "#size-cells": [2], "ranges": True,
            "cells@3ed00000": {"no-map": True, "reg": [0, 0x3ed00000, 0, 0x8000000], "phandle": [10]}, **reserved},
        "apu-bus@0": {"#address-cells": [2], "#size-cells": [1], "ranges": [0, 0, 0, 0, 0xffffffff],
                      "interrupt-controller@f9010000": {
                          "compatible": "arm,gic-400", "#interrupt-cells": [3], "interrupt-controller": True, "phandle": [GIC],
                          "reg": [0, 0xf9010000, 0x10000, 0, 0xf9020000, 0x20000, 0, 0xf9040000, 0x20000, 0, 0xf9060000, 0x20000]}},
        "axi": {"#address-cells": [2], "#size-cells": [2], "ranges": True,
                "serial@ff000000": {"compatible": words("xlnx,xuartps", "cdns,uart-r1p12"), "reg": [0, 0xff000000, 0, 0x1000],
                                    "interrupts": [0, 21, 4], "status": "disabled"},
                "serial@ff010000": {"compatible": words("xlnx,xuartps", "cdns,uart-r1p12"), "reg": [0, 0xff010000, 0, 0x1000],
                                    "interrupts": [0, 22, 4], "status": "okay"},
                "ethernet@ff0e0000": {"compatible": words("xlnx,zynqmp-gem", "cdns,gem"), "reg": [0, 0xff0e0000, 0, 0x1000],
                                      "interrupts": [0, 63, 4, 0, 63, 4], "iommus": [SMMU, 0x877]},
                "can@ff070000": {"compatible": "xlnx,zynq-can-1.0", "reg": [0, 0xff070000, 0, 0x1000], "interrupts": [0, 24, 4]},
                "iommu@fd800000": {"compatible": "arm,mmu-500", "#iommu-cells": [1], "phandle": [SMMU], "reg": [0, 0xfd800000, 0, 0x20000]}}}


KRIA_MAP = "00000000-3ecfffff : System RAM\n  00200000-014fffff : Kernel code\n3ed00000-46cfffff : reserved\n46d00000-7fefffff : System RAM\n" \
           "800000000-87fffffff : System RAM\nff010000-ff010fff : ff010000.serial\n"


def virt():
    """QEMU's virt machine with a GICv3 (hw/arm/virt.c), 1 GiB."""
    return {
        "#address-cells": [2], "#size-cells": [2], "interrupt-parent": [GIC], "model": "linux,dummy-virt",
        "chosen": {"stdout-path": "/pl011@9000000"},
        "memory@40000000": {"device_type": "memory", "reg": [0, 0x40000000, 0, 0x40000000]},
        "intc@8000000": {"compatible": "arm,gic-v3", "#interrupt-cells": [3], "interrupt-controller": True, "phandle": [GIC],
                         "reg": [0, 0x8000000, 0, 0x10000, 0, 0x80a0000, 0, 0xf60000]},
        "pl011@9000000": {"compatible": words("arm,pl011", "arm,primecell"), "reg": [0, 0x9000000, 0, 0x1000], "interrupts": [0, 1, 4]}}


VIRT_MAP = "08000000-0800ffff : GICD\n09000000-09000fff : pl011@9000000\n40000000-6fffffff : System RAM\n  6fe00000-6fffffff : reserved\n"
VIRT_ROOT = dict(cpus=range(4), hypervisor=(0x7fc00000, 0x400000), console=0x9000000,
                 memory=[(0x7faf0000, 0x1000, 1), (0x7faf1000, 0x9000, 3), (0x7fafa000, 0x2000, 3), (0x7fafc000, 0x2000, 1),
                         (0x7fb00000, 0x1000, 1), (0, 0, 0), (0x7fb01000, 0x7f000, 3), (0x7fb80000, 0x7f000, 1), (0x40000000, 0x3fb10000, 0xf)],
                 pci=[ivshmem(0, 0, domain=1), ivshmem(1, 4, number=1, protocol=1, domain=1)])


# ---- what is found ----

def test_this_machine(tmp_path):
    platform = discover("/", tmp_path)
    host, = [m for m in platform["memory"] if m["kind"] == "host"]
    total = int(open("/proc/meminfo").readline().split()[1]) * 1024
    assert 0 <= total * 3 // 4 - number(host["size"]) < 2 * MIB
    assert platform["cpus"]["ids"] == open("/sys/devices/system/cpu/online").read().strip()
    assert "topology" not in platform["cpus"], "sysfs has it"
    every_value_has_its_source(platform)


def test_the_kria_is_found_as_its_platform_file_has_it(tmp_path):
    machine = Machine(tmp_path / "m", kria(), iomem=KRIA_MAP)
    found, known = discover(machine.root, tmp_path), json.loads((ROOT / "share/platforms/kria-kv260.json").read_text())
    assert found["board"] == "ZynqMP SMK-K26 Rev1/B/A"
    for member in ("ids", "host"):
        assert found["cpus"][member] == known["cpus"][member]
    cells, links = pools(known)["cells"], pools(known)["links"]
    assert cells[0] + cells[1] == links[0], "people divided what the tree reserves as one"
    assert pools(found) == {"cells": (cells[0], cells[1] + links[1])}
    assert number(found["interrupts"]["base"]) == number(known["interrupts"]["base"])
    assert found["interrupts"]["controller"] == known["interrupts"]["controller"]
    one, other = devices(found)["serial@ff010000"], devices(known)["uart1"]
    assert mmio(one) == mmio(other) and spis(one) == spis(other) == [22]
    assert {m: one[m] for m in ("kind", "type")} == {m: other[m] for m in ("kind", "type")}
    assert one["host"]["handover"] == other["host"]["handover"] == "none" and "console" in one["host"]["note"]
    off = devices(found)["serial@ff000000"]
    assert (off["host"]["handover"], spis(off)) == ("absent", [21]), "Linux does not know it"
    gem = devices(found)["ethernet@ff0e0000"]
    assert (gem["kind"], gem["type"], gem["dma"], [s["id"] for s in gem["stream_ids"]]) == ("ethernet", "xlnx,zynqmp-gem", True, [0x877])
    assert "can@ff070000" not in devices(found), "whether it has DMA nothing says"
    assert "backends" not in found, "there is no Jailhouse"
    every_value_has_its_source(found)


def test_with_a_root_cell_memory_that_neither_linux_nor_the_hypervisor_has(tmp_path):
    machine = Machine(tmp_path / "m", virt(), iomem=VIRT_MAP)
    (tmp_path / "root.cell").write_bytes(root_cell(**VIRT_ROOT))
    found = discover(machine.root, tmp_path, "--root-cell", tmp_path / "root.cell")
    assert pools(found) == {"cells": (0x70000000, 0xfaf0000), "cells-2": (0x7fafe000, 0x2000), "cells-3": (0x7fbff000, 0x1000)}
    assert {m: found["interrupts"][m] for m in ("controller", "base")} == {"controller": "gicv3", "base": "0x8000000"}
    uart = devices(found)["pl011@9000000"]
    assert (uart["type"], mmio(uart), spis(uart)) == ("pl011", [(0x9000000, 4096)], [1])
    assert "hypervisor prints" in uart["host"]["note"]
    assert found["links"]["domain"] == 1
    assert [(s["slot"], s["base"], number(s["output"]), s["peers"], s["id"], s["protocol"]) for s in found["links"]["host_slots"]] == [
        (0, "0x7faf0000", 0x2000, 2, 0, "raw"), (1, "0x7fb00000", 0x7f000, 2, 1, "network")]
    assert {k: v for k, v in found["backends"]["jailhouse"].items() if k != "note"} == {
        "flavour": "upstream-14", "architecture": "arm64", "root_cell": str(tmp_path / "root.cell")}
    every_value_has_its_source(found)


def test_without_a_root_cell_such_memory_is_left_out(tmp_path):
    machine = Machine(tmp_path / "m", virt(), iomem=VIRT_MAP)
    found = discover(machine.root, tmp_path)
    assert pools(found) == {} and left_out(found, "0x70000000 + 0x10000000", "--root-cell")
    (tmp_path / "root.cell").write_bytes(root_cell(**VIRT_ROOT))
    machine.file("/sys/firmware/efi/runtime", "")
    found = discover(machine.root, tmp_path, "--root-cell", tmp_path / "root.cell")
    assert pools(found) == {} and left_out(found, "0x70000000 + 0xfaf0000", "EFI")


def test_the_hypervisor_that_is_on_keeps_its_memory(tmp_path):
    machine = Machine(tmp_path / "m", kria(), iomem=KRIA_MAP + "46800000-46cfffff : Jailhouse hypervisor\n")
    assert pools(discover(machine.root, tmp_path)) == {"cells": (0x3ed00000, 0x7b00000)}


@pytest.mark.parametrize("node, why", [
    ({"reg": [0, 0x60000000, 0, 0x100000]}, "no-map"),
    ({"no-map": True, "compatible": "shared-dma-pool", "reg": [0, 0x60000000, 0, 0x100000]}, "shared-dma-pool"),
    ({"no-map": True, "phandle": [33], "reg": [0, 0x60000000, 0, 0x100000]}, "rproc"),
    ({"no-map": True, "reg": [0, 0x10000000, 0, 0x100000]}, "System RAM")])
def test_reserved_memory_that_is_anothers(tmp_path, node, why):
    machine = Machine(tmp_path / "m", {**kria(other=node), "rproc": {"memory-region": [33]}},
                      iomem=KRIA_MAP.replace("46d00000-7fefffff", "60100000-7fefffff"))
    found = discover(machine.root, tmp_path)
    assert pools(found) == {"cells": (0x3ed00000, 0x8000000)} and left_out(found, "/reserved-memory/other", why)


def test_a_carveout_that_linux_uses_is_none(tmp_path):
    machine = Machine(tmp_path / "m", kria(), iomem="00000000-7fefffff : System RAM\n")
    found = discover(machine.root, tmp_path)
    assert pools(found) == {} and left_out(found, "0x3ed00000", "System RAM")


def test_what_the_kernel_hides_is_said(tmp_path):
    machine = Machine(tmp_path / "m", kria(), iomem="00000000-00000000 : System RAM\n")
    found = discover(machine.root, tmp_path)
    assert pools(found) == {"cells": (0x3ed00000, 0x8000000)} and left_out(found, "as root")


def test_cpus_that_are_isolated_or_the_root_cells(tmp_path):
    machine = Machine(tmp_path / "m", virt(), isolated="2-3", iomem=VIRT_MAP)
    cpus = discover(machine.root, tmp_path)["cpus"]
    assert (cpus["ids"], cpus["host"]) == ("0-3", "0-1")
    (tmp_path / "root.cell").write_bytes(root_cell(range(6)))
    found = discover(machine.root, tmp_path, "--root-cell", tmp_path / "root.cell")
    assert found["cpus"]["ids"] == "0-5" and left_out(found, "CPU 4", "offline") and left_out(found, "CPU 5")
    machine = Machine(tmp_path / "one", virt(), online="0")
    found = discover(machine.root, tmp_path)
    assert (found["cpus"]["ids"], found["cpus"]["host"]) == ("0", "") and left_out(found, "CPU 3", "If a cell has it")


# ---- devices ----

def with_devices(tmp_path, nodes):
    soc = {"#address-cells": [1], "#size-cells": [1], "ranges": [0x7e000000, 0, 0xfe000000, 0x1000000]}
    return Machine(tmp_path / "m", {**virt(), "soc": {**soc, **nodes}})


def uart(base, spi, compatible="ns16550a", **more):
    return {"compatible": compatible, "reg": [base, 0x100], "interrupts": [0, spi, 4], **more}


@pytest.mark.parametrize("compatible, kind", [("arm,pl011", "pl011"), ("cdns,uart-r1p12", "xuartps"), ("ns16550a", "8250"),
                                              ("snps,dw-apb-uart", "8250"), ("fsl,imx6q-uart", "imx"), ("renesas,scif", "scif")])
def test_uarts_by_what_they_are_compatible_with(tmp_path, compatible, kind):
    found = discover(with_devices(tmp_path, {"uart@7e201000": uart(0x7e201000, 121, words("vendor,own", compatible))}).root, tmp_path)
    device = devices(found)["uart@7e201000"]
    assert (device["kind"], device["type"], mmio(device), spis(device)) == ("uart", kind, [(0xfe201000, 0x100)], [121])
    assert device["host"]["handover"] == "none"


def test_devices_of_one_page_or_interrupt_are_a_group(tmp_path):
    found = discover(with_devices(tmp_path, {
        "a@7e201000": uart(0x7e201000, 40), "b@7e201800": uart(0x7e201800, 41),  # a page
        "c@7e203000": uart(0x7e203000, 41),                                      # an interrupt, so all three
        "d@7e205000": uart(0x7e205000, 50), "e@7e206000": uart(0x7e206000, 50), "f@7e207000": uart(0x7e207000, 60)}).root, tmp_path)
    groups = {name[0]: d.get("group") for name, d in devices(found).items()}
    assert groups["a"] == groups["b"] == groups["c"] != groups["d"] == groups["e"] != groups["a"] and None not in (groups["a"], groups["d"])
    assert groups["f"] is None and groups["p"] is None


def test_groups_that_meet_late_are_one(tmp_path):
    found = discover(with_devices(tmp_path, {"a@1": uart(0x7e201000, 40), "b@2": uart(0x7e202000, 40), "c@3": uart(0x7e203000, 41),
                                             "d@4": uart(0x7e204000, 41),
                                             "e@5": uart(0x7e205000, 40, interrupts=[0, 40, 4, 0, 41, 4])}).root, tmp_path)
    assert len({d["group"] for name, d in devices(found).items() if name != "pl011@9000000"}) == 1


@pytest.mark.parametrize("node, why", [
    ({"reg": [0x10, 0x100], "interrupts": [0, 40, 4]}, "registers"),
    ({"interrupts": [0, 40, 4]}, "registers"),
    ({"reg": [0x7e201000, 0], "interrupts": [0, 40, 4]}, "registers"),
    ({"reg": [0x7e201000, 0x100], "interrupts": [1, 9, 4]}, "interrupts"),
    ({"reg": [0x7e201000, 0x100], "interrupts": [0, 988, 4]}, "interrupts"),
    ({"reg": [0x7e201000, 0x100], "interrupts-extended": [GIC, 0, 40, 4, 9, 1, 1]}, "interrupts"),
    ({"reg": [0x7e201000, 0x100], "interrupts-extended": [GIC, 0, 40, 4, 50, 0, 41, 4]}, "interrupts"),
    ({"reg": [0x7e201000, 0x100], "interrupts": [0, 40, 4], "iommus": [77, 1]}, "streams"),
    ({"reg": [0x7e201000, 0x100], "interrupts": [0, 40, 4], "iommus": [40, 1]}, "streams"),
    ({"reg": [0x7e201000, 0x100], "interrupts": [0, 40, 4], "iommus": [41, 0x10000]}, "streams")])
def test_a_device_of_which_something_is_not_known_is_left_out(tmp_path, node, why):
    machine = with_devices(tmp_path, {"x@1": {"compatible": "ns16550a", **node},
                                      "iommu@2": {"compatible": "acme,iommu", "#iommu-cells": [1], "phandle": [40]},
                                      "other@4": {"interrupt-controller": True, "#interrupt-cells": [3], "phandle": [50]},
                                      "iommu@3": {"compatible": "arm,smmu-v2", "#iommu-cells": [1], "phandle": [41]}})
    found = discover(machine.root, tmp_path)
    assert set(devices(found)) == {"pl011@9000000"} and left_out(found, "/soc/x@1", why)


def test_streams_as_the_smmu_counts_them(tmp_path):
    def device(base, spi, *iommus):
        return {"compatible": "acme,dma", "reg": [base, 0x1000], "interrupts": [0, spi, 4], "iommus": list(iommus)}
    machine = with_devices(tmp_path, {
        "iommu@1": {"compatible": "arm,mmu-500", "#iommu-cells": [2], "phandle": [41]},
        "iommu@2": {"compatible": "arm,mmu-500", "#iommu-cells": [1], "phandle": [42], "stream-match-mask": [0x7c00]},
        "iommu@3": {"compatible": "arm,smmu-v3", "#iommu-cells": [1], "phandle": [43]},
        "a@1": device(0x7e201000, 40, 41, 0x20, 0xf, 41, 0x100, 0), "b@2": device(0x7e202000, 41, 42, 3), "c@3": device(0x7e203000, 42, 43, 0x12345)})
    found = {name[0]: [s["id"] for s in d["stream_ids"]] for name, d in devices(discover(machine.root, tmp_path)).items() if "stream_ids" in d}
    assert found == {"a": [0x20 | 0xf << 16, 0x100], "b": [3 | 0x7c00 << 16], "c": [0x12345]}


def test_who_has_a_device_in_linux_is_said(tmp_path):
    machine = with_devices(tmp_path, {"uart@7e201000": uart(0x7e201000, 121)})
    machine.driver("amba", "7e201000.uart", "/soc/uart@7e201000", "of_serial")
    note = devices(discover(machine.root, tmp_path))["uart@7e201000"]["host"]["note"]
    assert "/sys/devices/platform/7e201000.uart (of_serial)" in note and "unbind" in note


def test_registers_apart_have_no_type(tmp_path):
    found = discover(with_devices(tmp_path, {"u@1": uart(0x7e201000, 40, **{"reg-shift": [2]})}).root, tmp_path)
    assert "type" not in devices(found)["u@1"] and left_out(found, "/soc/u@1", "reg-shift")


def test_names_are_given_once(tmp_path):
    found = discover(with_devices(tmp_path, {"pl011@9000000": uart(0x7e201000, 40), "x" * 80: uart(0x7e203000, 41)}).root, tmp_path)
    assert {"pl011@9000000", "pl011@9000000-2", "x" * 60} == set(devices(found))


@pytest.mark.parametrize("compatible, controller", [("arm,gic-v3", "gicv3"), ("arm,gic-400", "gicv2"), ("arm,cortex-a15-gic", "gicv2")])
def test_interrupt_controllers(tmp_path, compatible, controller):
    tree = virt()
    tree["intc@8000000"]["compatible"] = compatible
    assert discover(Machine(tmp_path / "m", tree).root, tmp_path)["interrupts"]["controller"] == controller
    tree["intc@8000000"]["compatible"] = "acme,intc"
    found = discover(Machine(tmp_path / "m", tree).root, tmp_path)
    assert "interrupts" not in found and "devices" not in found and left_out(found, "GIC")


def test_remote_processors_with_a_number_only_where_it_is_known(tmp_path):
    machine = Machine(tmp_path / "m", kria(), iomem=KRIA_MAP)
    for i, (name, compatible) in enumerate([("dsp", "acme,dsp"), ("ff9a0000.zynqmp_r5_rproc:r5_0", "xlnx,zynqmp-r5-remoteproc"),
                                            ("ff9a0000.zynqmp_r5_rproc:r5_1", "xlnx,zynqmp-r5-remoteproc")]):
        machine.file(f"/sys/firmware/devicetree/base/n{i}/core/x", "")
        machine.file(f"/sys/firmware/devicetree/base/n{i}/compatible", compatible + "\0")
        machine.file(f"/sys/class/remoteproc/remoteproc{i}/name", name + "\n")
        (machine.root / f"sys/class/remoteproc/remoteproc{i}/device").mkdir()
        os.symlink(f"../../../../firmware/devicetree/base/n{i}/core", machine.root / f"sys/class/remoteproc/remoteproc{i}/device/of_node")
    found = discover(machine.root, tmp_path)
    assert [(r["name"], r["id"], r["match"]) for r in found["remote_processors"]] == [
        ("r5_0", 0, "ff9a0000.zynqmp_r5_rproc:r5_0"), ("r5_1", 1, "ff9a0000.zynqmp_r5_rproc:r5_1")]
    assert left_out(found, "dsp", "number")


# ---- Jailhouse ----

def test_the_flavour_is_said_only_where_something_shows_it(tmp_path):
    machine = Machine(tmp_path / "m", virt(), iomem=VIRT_MAP)
    machine.file("/sys/devices/jailhouse/enabled", "1\n")
    machine.file("/sys/devices/jailhouse/cells/0/name", "root\n")
    found = discover(machine.root, tmp_path)
    assert "backends" not in found and left_out(found, "flavour", "--root-cell")
    machine.file("/sys/devices/jailhouse/cells/0/rcpus_assigned", "0\n")
    found = discover(machine.root, tmp_path)["backends"]["jailhouse"]
    assert (found["flavour"], found["architecture"]) == ("omnivisor-14", "arm64")
    (tmp_path / "root.cell").write_bytes(root_cell(**VIRT_ROOT))
    found = discover(machine.root, tmp_path, "--root-cell", tmp_path / "root.cell")
    assert "backends" not in found and left_out(found, "upstream-14", "is Omnivisor")


def test_a_root_cell_of_another_machine_or_layout_is_said(tmp_path):
    machine = Machine(tmp_path / "m", virt(), iomem=VIRT_MAP)
    (tmp_path / "root.cell").write_bytes(root_cell(**{**VIRT_ROOT, "gic": (2, 0xf9010000)}))
    assert left_out(discover(machine.root, tmp_path, "--root-cell", tmp_path / "root.cell"), "another interrupt controller", "0xf9010000")
    (tmp_path / "root.cell").write_bytes(root_cell(**VIRT_ROOT)[:-1])
    found = discover(machine.root, tmp_path, "--root-cell", tmp_path / "root.cell")
    assert left_out(found, "none of upstream-14", "at offset") and left_out(found, "flavour") and "backends" not in found


def test_a_link_that_phid_would_lay_out_otherwise_is_left_out(tmp_path):
    machine = Machine(tmp_path / "m", virt(), iomem=VIRT_MAP)
    memory = list(VIRT_ROOT["memory"])
    memory[3] = (0x7fafd000, 0x2000, 1)  # a gap before the second output
    (tmp_path / "root.cell").write_bytes(root_cell(**{**VIRT_ROOT, "memory": memory}))
    found = discover(machine.root, tmp_path, "--root-cell", tmp_path / "root.cell")
    assert [s["slot"] for s in found["links"]["host_slots"]] == [1] and left_out(found, "bdf 0x0")


def test_the_place_of_the_communication_region_is_warned_of(tmp_path):
    tree = virt()
    tree["reserved-memory"] = {"#address-cells": [2], "#size-cells": [2], "ranges": True,
                               "cells": {"no-map": True, "reg": [0, 0x7ff00000, 0, 0x200000]}}
    machine = Machine(tmp_path / "m", tree)
    (tmp_path / "root.cell").write_bytes(root_cell(range(4)))
    assert left_out(discover(machine.root, tmp_path, "--root-cell", tmp_path / "root.cell"), "comm_region")


@pytest.mark.parametrize("args, part", [(("--host-root", "/nowhere"), "/nowhere"), (("--root-cell", "/nowhere"), "/nowhere"),
                                        (("--root-cell", "relative"), "absolute")])
def test_wrong_options_print_nothing(args, part):
    status, out, err = run("--discover", *args)
    assert status == 2 and out == "" and part in err


def test_nothing_but_the_platform_is_printed():
    assert json.loads(run("--discover", "--check-config")[1])["format"] == "phid-platform/1"


def test_a_standard_output_that_is_full_is_an_error():
    with open("/dev/full", "w") as full:
        done = subprocess.run([PHID, "--discover"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode != 0 and "standard output" in done.stderr
