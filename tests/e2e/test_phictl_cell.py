"""phictl cell: Jailhouse's files shown, checked and written; no phid."""
import json
import pathlib
import subprocess

import pytest
from phidtest.daemon import build_dir

CELLS = sorted((pathlib.Path(__file__).resolve().parents[1] / "data/runphi").glob("*.cell"))


def cell(*args):
    done = subprocess.run([str(build_dir() / "client/phictl"), "cell", *map(str, args)], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_what_is_shown_is_written_as_the_same_bytes(path, tmp_path):
    status, out, _ = cell("show", "--json", path)
    assert status == 0 and json.loads(out)["flavour"] == "runphi-13"
    (tmp_path / "spec").write_text(out)
    assert cell("write", tmp_path / "spec", tmp_path / "again") == (0, "", "")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    status, out, _ = cell("show", path)
    assert status == 0 and json.loads((tmp_path / "spec").read_text())["name"] in out


def test_cells_that_share_are_told_in_words_and_documents():
    status, out, _ = cell("check", *CELLS)
    assert status == 2 and "memory-overlap" in out and "irq-overlap" in out
    status, out, _ = cell("check", "--json", *CELLS)
    findings = [json.loads(line) for line in out.splitlines()]
    assert status == 2 and {"file", "code", "pointer", "detail", "other"} == set(findings[0])
    assert cell("check", CELLS[0])[0] == 0


def test_memory_of_linux_is_read_from_iomem(tmp_path):
    (tmp_path / "iomem").write_text("40000000-7fffffff : System RAM\n  40080000-410effff : Kernel code\n80000000-80ffffff : PCI\n")
    status, out, _ = cell("check", "--iomem", tmp_path / "iomem", CELLS[0])
    assert status == 2 and "memory-of-linux" in out
    (tmp_path / "iomem").write_text("00000000-00000000 : System RAM\n")
    status, _, err = cell("check", "--iomem", tmp_path / "iomem", CELLS[0])
    assert status == 2 and "as root" in err


@pytest.mark.parametrize("args", [(), ("show",), ("show", "/nowhere"), ("check",), ("write", "x"), ("paint", "x"), ("show", "--flavour", "x", str(CELLS[0]))])
def test_wrong_words_are_refused(args):
    status, _, err = cell(*args)
    assert status == 2 and err


def test_a_file_that_is_cut_is_refused_with_its_offset(tmp_path):
    (tmp_path / "cut").write_bytes(CELLS[0].read_bytes()[:200])
    status, _, err = cell("show", tmp_path / "cut")
    assert status == 2 and "at offset 0x30" in err and "200" in err
    (tmp_path / "huge").write_bytes(bytes(1 << 20))
    assert cell("show", tmp_path / "huge")[0] == 2
