"""The bundles that are measured."""
import json
import os
import pathlib
import shutil
import subprocess

from phidtest.daemon import build_dir

SOURCE = pathlib.Path(__file__).resolve().parents[1]


def ordinary_bundle(dir, *args):
    """A container of Linux, of busybox."""
    root = dir / "ordinary/rootfs"
    (root / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    subprocess.run(["runc", "spec"], cwd=root.parent, check=True)
    config = json.loads((root.parent / "config.json").read_text())
    config["process"].update(terminal=False, args=["/bin/busybox", *args], rlimits=[])
    (root.parent / "config.json").write_text(json.dumps(config))
    return root.parent


def cell_bundle(dir):
    """A cell of the simulator."""
    (dir / "cell/rootfs/boot").mkdir(parents=True)
    (dir / "cell/rootfs/boot/config.json").write_text(json.dumps({"format": "phid-boot/1", "backend": "sim", "memory": [{"size": "1M"}]}))
    (dir / "cell/config.json").write_text(json.dumps({"ociVersion": "1.0.2", "root": {"path": "rootfs"}}))
    return dir / "cell"


def guest_bundle(dir):
    """The bare-metal guest of samples/, for QEMU."""
    subprocess.run([f"{SOURCE}/samples/mkbundle", "guest", str(dir / "guest"), "sleep 100000"], check=True,
                   env=dict(os.environ, GUEST_ELF=str(build_dir() / "samples/guest/guest.elf")))
    return dir / "guest"
