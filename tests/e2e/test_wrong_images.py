"""Images and bundles that cannot be used, and those that try to lead out of their root."""
import hashlib
import json
import os
import socket

import pytest
from wrong import A, put, unchanged  # noqa: F401 (a fixture of every test)

def refused(client, boot, pointer, words="", **body):
    answer = put(client, {"spec": {"boot": boot}, **body}).expect(422, "payload")
    assert answer.pointers == [pointer] and words in answer.json["detail"], answer


def test_a_kernel_that_is_no_file_is_refused(phid, client):
    d = phid.dir / "images"
    d.mkdir()
    kernel = "/spec/boot/kernel"
    refused(client, {"kernel": str(d / "missing")}, kernel, "No such file")
    refused(client, {"kernel": str(d)}, kernel, "not a regular file")
    os.mkfifo(d / "fifo")
    refused(client, {"kernel": str(d / "fifo")}, kernel, "not a regular file")
    for device in ("/dev/zero", "/dev/null", "/dev/tty", "/dev/ptmx"):
        refused(client, {"kernel": device}, kernel, "not a regular file" if device != "/dev/tty" else "")
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(d / "socket"))
    refused(client, {"kernel": str(d / "socket")}, kernel, "not a regular file")
    s.close()
    (d / "empty").touch()
    refused(client, {"kernel": str(d / "empty")}, kernel, "empty")
    (d / "loop").symlink_to("loop")
    refused(client, {"kernel": str(d / "loop")}, kernel)
    for magic in ("/proc/self/exe", "/proc/self/cwd/etc/passwd", f"/proc/{os.getpid()}/root/etc/passwd", "/proc/self/fd/0"):
        refused(client, {"kernel": magic}, kernel)
    refused(client, {"kernel": str(d / "empty" / "x")}, kernel, "Not a directory")
    with open(d / "huge", "wb") as f:
        f.truncate((512 << 20) + 1)
    refused(client, {"kernel": str(d / "huge")}, kernel, "at most")
    (d / "good").write_bytes(b"good")
    digest = hashlib.sha256(b"good").hexdigest()
    refused(client, {"kernel": {"path": str(d / "good"), "sha256": "0" * 64}}, kernel, digest)
    refused(client, {"kernel": str(d / "good"), "initrd": str(d / "missing")}, "/spec/boot/initrd", "No such file")
    refused(client, {"inmate": str(d / "missing")}, "/spec/boot/inmate", "No such file")
    for sha in (digest, "sha256:" + digest):
        client.put("a", {"boot": {"kernel": {"path": str(d / "good"), "sha256": sha}}}, dry_run=True).expect(200)


def make_bundle(phid, name, boot=None, config=None):
    d = phid.dir / name
    (d / "rootfs" / "boot").mkdir(parents=True)
    if boot is not None:
        (d / "rootfs" / "boot" / "config.json").write_text(boot if isinstance(boot, str) else json.dumps(boot))
    (d / "config.json").write_text(
        config if isinstance(config, str) else json.dumps({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, **(config or {})}))
    return d


def test_a_link_in_an_image_does_not_lead_out_of_it(phid, client):
    secret = phid.dir / "secret"
    secret.write_bytes(b"not the image's")
    boot = {"format": "phid-boot/1", "boot": {"inmate": "/boot/x"}}
    for i, target in enumerate((str(secret), "../../../secret", "../../../../../../../../../../etc/passwd", "/proc/self/exe")):
        d = make_bundle(phid, f"linked{i}", boot)
        (d / "rootfs" / "boot" / "x").symlink_to(target)
        answer = put(client, {"bundle": str(d)}).expect(422, "payload")
        assert answer.pointers == ["/spec/boot/inmate"]
    # The directory is a link: still beneath the image.
    d = make_bundle(phid, "linked-dir", {"format": "phid-boot/1", "boot": {"inmate": "/out/secret"}})
    (d / "rootfs" / "out").symlink_to("../..")
    put(client, {"bundle": str(d)}).expect(422, "payload")
    # And one that stays inside is followed.
    d = make_bundle(phid, "linked-inside", boot)
    (d / "rootfs" / "boot" / "y").write_bytes(b"inside")
    (d / "rootfs" / "boot" / "x").symlink_to("/boot/y")
    plan = client.request("PUT", A, {"dry_run": True}, {"bundle": str(d)}).expect(200).json
    assert plan["payload"][0]["size"] == 6


BAD_BUNDLES = {
    "no such directory": (None, None),
    "config.json is not JSON": (None, "{"),
    "config.json has a member twice": (None, '{"ociVersion":"1.0.2","ociVersion":"1.0.2"}'),
    "no ociVersion": (None, '{"root":{"path":"rootfs"}}'),
    "ociVersion 2": (None, '{"ociVersion":"2.0","root":{"path":"rootfs"}}'),
    "no root": (None, '{"ociVersion":"1.0.2"}'),
    "rootfs is missing": (None, '{"ociVersion":"1.0.2","root":{"path":"nowhere"}}'),
    "rootfs is elsewhere": (None, '{"ociVersion":"1.0.2","root":{"path":"/nowhere"}}'),
    "nothing says what to boot": (None, {}),
    "boot configuration is not JSON": ("{", {}),
    "boot configuration is no object": ("[]", {}),
    "unknown format": ('{"format":"phid-boot/2"}', {}),
    "format is a number": ('{"format":1}', {}),
    "unknown member": ('{"format":"phid-boot/1","nobody":1}', {}),
    "boot configuration is empty": ("", {}),
}


@pytest.mark.parametrize("what", BAD_BUNDLES)
def test_a_bad_bundle_is_refused(phid, client, what):
    boot, config = BAD_BUNDLES[what]
    d = phid.dir / "nowhere"
    if what != "no such directory":
        d = make_bundle(phid, "bad-" + what.replace(" ", "-"), boot, config)
    answer = put(client, {"bundle": str(d)})
    assert answer.status in (400, 422), answer


def test_files_of_a_bundle_that_are_no_files_are_refused(phid, client):
    d = make_bundle(phid, "odd", {"format": "phid-boot/1"})
    for file in (d / "config.json", d / "rootfs" / "boot" / "config.json"):
        good = file.read_bytes()
        for make in (os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p), lambda p: open(p, "wb").truncate(8 << 20)):
            file.unlink()
            make(file)
            answer = put(client, {"bundle": str(d)})
            assert answer.status in (400, 422), answer
            file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
            file.write_bytes(good)


@pytest.mark.parametrize("member", ["accelerators", "bitstream", "net", "disk_image", "isolcpu"])
def test_what_a_runphi_image_asks_for_and_cannot_get_is_named(phid, client, member):
    d = make_bundle(phid, "old-" + member, {"inmate": "boot/x", member: "something"})
    assert put(client, {"bundle": str(d)}).expect(501, "unsupported").pointers == ["/" + member]
