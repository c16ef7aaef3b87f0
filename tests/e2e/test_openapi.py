"""The API document says what the sources do: routes, errors, life cycle, schemas."""
import copy
import json
import re
import subprocess

import jsonschema
import pytest
from phidtest.daemon import PLATFORM, build_dir
from phidtest.openapi import ROOT, document


def source(path):
    return (ROOT / path).read_text(encoding="utf-8")


def routes():
    """(method, path, role, query parameters) of the table in daemon/routes.c."""
    table = re.search(r"\} routes\[\] = \{\n(.*?)\n\};", source("daemon/routes.c"), re.S).group(1)
    rows = re.findall(r'\{"(\w+)", "([^"]+)", ROLE_(\w+), (\w+),\s*(no_query|Q\([^)]*\))\}', table)
    assert len(rows) == len(re.findall(r'^\t\{"', table, re.M)), "a row of routes[] is not understood"
    return {(m, p): (role, handler, set(re.findall(r'"(\w+)"', q))) for m, p, role, handler, q in rows}


def test_every_route_is_documented_and_nothing_else():
    documented = {(o.method, re.sub(r"\{\w+\}", "*", o.template)) for o in document().operations}
    assert documented == set(routes())


def test_the_query_parameters_are_those_of_the_table():
    for op in document().operations:
        _, _, query = routes()[op.method, re.sub(r"\{\w+\}", "*", op.template)]
        assert {name for place, name in op.parameters if place == "query"} == query, op.id


def test_what_is_not_built_is_documented_as_that_and_the_rest_is_not():
    for op in document().operations:
        _, handler, _ = routes()[op.method, re.sub(r"\{\w+\}", "*", op.template)]
        built = any(s.startswith("2") for s in op.responses)
        assert built == (handler != "not_built"), op.id


def test_gets_are_for_viewers_and_changes_for_administrators():
    for (method, path), (role, _, _) in routes().items():
        assert role == ("VIEW" if method == "GET" else "ADMIN"), path


def test_the_error_table_is_that_of_error_h():
    rows = re.findall(r'X\((\w+), "([^"]+)", (\d+), (\d+), "([^"]+)"\)', source("api/error.h"))
    assert [{"code": w, "http": int(h), "title": t} for _, w, h, _, t in rows] == document().tree["x-phid-errors"]
    answered = {w for _, w, _, _, _ in rows} - {"ok", "no-daemon"}
    assert set(document().tree["components"]["schemas"]["Code"]["enum"]) == answered


def test_every_status_of_the_error_table_is_documented_somewhere():
    statuses = {str(e["http"]) for e in document().tree["x-phid-errors"]} - {"200"}
    documented = set(document().stray).union(*(o.responses for o in document().operations))
    assert statuses <= documented


def test_the_life_cycle_is_that_of_lifecycle_c():
    text = source("api/lifecycle.c")
    states = re.findall(r'"([\w-]+)"', re.search(r"lifecycle_states\[\] = \{(.*?)NULL", text, re.S).group(1))
    verbs = re.findall(r'"([\w-]+)"', re.search(r"lifecycle_verbs\[\] = \{(.*?)NULL", text, re.S).group(1))
    wire = {"PHI_" + n: w for n, w in re.findall(r'X\((\w+), "([^"]+)"', source("api/error.h"))}
    wire.update({n: wire[v] for n, v in re.findall(r"#define (ok|no) (PHI_\w+)", text)})
    rows = re.findall(r"\[VERB_(\w+)\] = +\{([^}]*)\}", text)
    table = {}
    for verb, cells in rows:
        name = {"DELETE_FORCE": "force-delete"}.get(verb, verb.lower())
        table[name] = dict(zip(states, (wire[c.strip()] for c in cells.split(","))))
    assert list(table) == verbs and all(len(r) == len(states) for r in table.values())
    assert document().tree["x-phid-lifecycle"] == table
    schemas = document().tree["components"]["schemas"]
    assert schemas["State"]["enum"] == states and schemas["Verb"]["enum"] == verbs


def test_the_event_types_are_those_of_the_daemon():
    text = "".join(source(f"daemon/{p.name}") for p in (ROOT / "daemon").glob("*.c"))
    used = set(re.findall(r'"((?:container|phid|cell)\.(?!h"|slice"|service"|c")[a-z-]+)"', text))
    documented = set(document().tree["components"]["schemas"]["Event"]["properties"]["type"]["enum"])
    assert documented == used


def test_the_daemon_serves_the_document_as_it_was_built(client):
    """The daemon under test may be older than the file: what it serves is a document of the same API all the same."""
    served = client.get("/v1/openapi.json").expect(200).json
    assert served["openapi"] == "3.1.0" and served["info"]["version"] == "v1"
    assert set(served["paths"]) == set(document().tree["paths"])


def test_every_schema_is_one_and_every_reference_leads_somewhere():
    tree = document().tree
    for name, schema in tree["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)

    def walk(node):
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                found = tree
                for part in node["$ref"].removeprefix("#/").split("/"):
                    found = found[part]
            for below in node.values():
                walk(below)
        elif isinstance(node, list):
            for below in node:
                walk(below)

    walk(tree)
    text = json.dumps(tree)
    unused = [k for kind in ("schemas", "responses", "parameters") for k in tree["components"][kind]
              if f'"#/components/{kind}/{k}"' not in text]
    assert unused == []


def test_requests_and_answers_are_closed():
    """additionalProperties is said for every object that lists its properties."""
    def walk(node, where):
        if isinstance(node, dict):
            if node.get("type") in ("object", ["object", "null"]) and isinstance(node.get("properties"), dict) and \
                    "not" not in where and "if" not in where:
                assert node.get("additionalProperties") is False, where
            for k, below in node.items():
                walk(below, where + (k,))
        elif isinstance(node, list):
            for i, below in enumerate(node):
                walk(below, where + (i,))

    walk(document().tree["components"]["schemas"], ())


# ---- schema/*.json against the daemon ----

def schema(name):
    tree = json.loads(source(f"schema/{name}.schema.json"))
    jsonschema.Draft202012Validator.check_schema(tree)
    return jsonschema.Draft202012Validator(tree)


def changed(base, *changes):
    """A copy with (path, value) set; value ... deletes."""
    d = copy.deepcopy(base)
    for path, value in changes:
        at = d
        for p in path[:-1]:
            at = at[p]
        if value is ...:
            del at[path[-1]]
        else:
            at[path[-1]] = value
    return d


MINIMAL = {"format": "phid-platform/1"}
GIC = {"controller": "gicv2", "base": "0x8000000"}
DEVICE = {"name": "a", "kind": "uart", "type": "pl011", "mmio": [{"base": "0x1000", "size": 4096}], "irqs": [{"spi": 1}], "host": {"handover": "absent"}}
JAILHOUSE = {"flavour": "upstream-14", "architecture": "arm64"}
GOOD_PLATFORMS = [
    MINIMAL,
    PLATFORM,
    {**MINIMAL, "board": "x" * 128, "note": {"any": ["thing", 1, None]}},
    {**MINIMAL, "board": None, "cpus": None, "memory": None, "backends": None},
    {**MINIMAL, "cpus": {"ids": "0-3,8", "host": "", "unused": "host", "note": "x"}},
    {**MINIMAL, "cpus": {"ids": None, "host": None, "unused": None, "topology": None}},
    {**MINIMAL, "cpus": {"ids": "4095,0007", "host": "7"}},
    {**MINIMAL, "cpus": {"ids": "0-3", "topology": [{"id": 3, "package": 0, "cluster": 1, "core": 65535, "node": 0, "note": 1}]}},
    {**MINIMAL, "memory": []},
    {**MINIMAL, "memory": [{"name": "a", "kind": "carveout", "base": "0x0", "size": 4096, "node": 3, "note": "x"}]},
    {**MINIMAL, "memory": [{"name": "a", "kind": "tcm", "base": "0xFF000", "size": "0x1000"},
                           {"name": "b", "kind": "ocm", "base": "0x100000", "size": "64K"},
                           {"name": "c", "kind": "hugepages", "size": "1G", "base": None},
                           {"name": "d", "kind": "host", "size": 4503599627370496}]},
    {**MINIMAL, "memory": [{"name": "a", "kind": "carveout", "base": "0x3ffffffffffff000", "size": 4096}]},
    {**MINIMAL, "backends": {"qemu": {"accel": ["tcg"], "note": 1}, "note": 2}},
    {**MINIMAL, "backends": {"qemu": {"accel": []}}},
    {**MINIMAL, "backends": {"qemu": {"accel": ["kvm", "tcg"]}}},
    {**MINIMAL, "backends": {"qemu": None}},
    {**MINIMAL, "backends": {"jailhouse": None}},
    {**MINIMAL, "devices": None}, {**MINIMAL, "devices": []}, {**MINIMAL, "interrupts": GIC}, {**MINIMAL, "interrupts": None},
    {**MINIMAL, "interrupts": GIC, "devices": [DEVICE, {**DEVICE, "name": "b", "mmio": [{"base": "0x2000", "size": "4K"}], "irqs": None, "type": None}]},
    {**MINIMAL, "interrupts": GIC, "devices": [{**DEVICE, "dma": True, "stream_ids": [{"id": 4294967295, "note": 1}], "group": "g", "unsafe_dma": None,
                                                "safe_state": [{"address": "0x1008", "value": "0xff", "width": 8}],
                                                "host": {"handover": "unbind", "sysfs": "/sys/d", "tty": "/dev/ttyUSB0", "baud": 9600}}]},
    {**MINIMAL, "interrupts": {**GIC, "virtual": [{"spi": 0}, {"spi": 984}]}}, {**MINIMAL, "interrupts": {**GIC, "virtual": []}},
    {**MINIMAL, "remote_processors": []}, {**MINIMAL, "links": {}}, {**MINIMAL, "links": None},
    {**MINIMAL, "remote_processors": [{"name": "r5", "id": 15, "match": "r5f", "memory": [{"base": "0x1000", "size": "4K", "at": "0x0", "bank": "a"}]}, {"name": "b", "id": 0}]},
    {**MINIMAL, "memory": [{"name": "a", "kind": "carveout", "base": "0x0", "size": "64K"}],
     "links": {"memory": "a", "domain": 1, "host_slots": [{"slot": 31, "base": "0x10000", "output": 4096, "peers": 8, "id": 7, "protocol": "network", "common": None}]}},
    {**MINIMAL, "backends": {"jailhouse": JAILHOUSE}},
    {**MINIMAL, "backends": {"jailhouse": {**JAILHOUSE, "root_cell": "/r", "device": "/d", "sysfs": "/s", "firmware": "/f", "mem": "/m", "comm_region": "0x80000000", "host_enable": True, "note": 1}}},
]
POOL = {**MINIMAL, "memory": [{"name": "a", "kind": "carveout", "base": "0x10000", "size": 4096}]}
BAD_PLATFORMS = [
    {}, [], {"format": None}, {"format": 1}, {"format": "phid-platform/2"}, {"format": "x" * 33},
    {**MINIMAL, "nobody": 1}, {**MINIMAL, "board": 5}, {**MINIMAL, "board": "x" * 129}, {**MINIMAL, "cpus": []},
    {**MINIMAL, "cpus": {"ids": "x"}}, {**MINIMAL, "cpus": {"ids": "0-4096"}}, {**MINIMAL, "cpus": {"ids": [0, 1]}},
    {**MINIMAL, "cpus": {"ids": "0,"}}, {**MINIMAL, "cpus": {"unused": "offline"}}, {**MINIMAL, "cpus": {"nobody": 1}},
    {**MINIMAL, "cpus": {"topology": [{}]}}, {**MINIMAL, "cpus": {"topology": [{"id": None}]}},
    {**MINIMAL, "cpus": {"topology": [{"id": 4096}]}}, {**MINIMAL, "cpus": {"topology": [{"id": 1, "core": -1}]}},
    {**MINIMAL, "cpus": {"topology": [{"id": 1, "core": 65536}]}}, {**MINIMAL, "cpus": {"topology": [{"id": 1.5}]}},
    {**MINIMAL, "memory": {}}, {**MINIMAL, "memory": [{}]}, {**MINIMAL, "memory": [None]},
    *(changed(POOL, (("memory", 0, m), ...)) for m in ("name", "kind", "base", "size")),
    *(changed(POOL, (("memory", 0, m), None)) for m in ("name", "kind", "base", "size")),
    *(changed(POOL, (("memory", 0, "size"), v)) for v in (0, 4095, 4097, -4096, 2 ** 53, "x", "4096B", "", 4096.5, [], "-1", "16m")),
    *(changed(POOL, (("memory", 0, "base"), v)) for v in (65536, "65536", "0x", "0x10001", "0x4000000000000000", "0xg", "", "x0x0")),
    *(changed(POOL, (("memory", 0, "kind"), v)) for v in ("host", "hugepages", "ram", "", 1)),
    *(changed(POOL, (("memory", 0, "name"), v)) for v in ("", "x" * 65, 1)),
    changed(POOL, (("memory", 0, "node"), 65536)), changed(POOL, (("memory", 0, "nobody"), 1)),
    {**MINIMAL, "memory": [{"name": "a", "kind": "host", "size": 4096, "base": "0x1000"}]},
    {**MINIMAL, "memory": [{"name": str(i), "kind": "host", "size": 4096} for i in range(65)]},
    {**MINIMAL, "backends": {"nobody": {}}}, {**MINIMAL, "backends": {"qemu": {"accel": "kvm"}}},
    {**MINIMAL, "backends": {"qemu": {"accel": ["xen"]}}}, {**MINIMAL, "backends": {"qemu": {"accel": ["kvm", "tcg", "kvm"]}}},
    {**MINIMAL, "backends": {"qemu": {"accel": [None]}}},
    # defined, not built
    *({**MINIMAL, m: {}} for m in ("include", "expect")),
    {**MINIMAL, "remote_processors": {}}, {**MINIMAL, "remote_processors": [{}]}, {**MINIMAL, "remote_processors": [{"name": "a", "id": 16}]},
    {**MINIMAL, "remote_processors": [{"name": "a", "id": 1, "isolation": 1}]}, {**MINIMAL, "remote_processors": [{"name": "a", "id": 1, "memory": [{"base": "0x0", "size": 1}]}]},
    {**MINIMAL, "links": []}, {**MINIMAL, "links": {"host_slots": [{}]}}, {**MINIMAL, "links": {"domain": 65536}}, {**MINIMAL, "links": {"memory": ""}},
    *({**MINIMAL, "links": {"host_slots": [{"slot": 1, "base": "0x0", "output": 4096, "peers": 2, m: v}]}} for m, v in (
        ("slot", 32), ("base", 0), ("output", 0), ("peers", 1), ("peers", 9), ("id", 8), ("protocol", "x"), ("nobody", 1))),
    *({**MINIMAL, "cpus": {m: {}}} for m in ("classes", "domains")),
    *(changed(POOL, (("memory", 0, m), "x")) for m in ("access", "use", "scrub", "seen_at")),
    {**MINIMAL, "interrupts": {}}, {**MINIMAL, "interrupts": {**GIC, "controller": "apic"}}, {**MINIMAL, "interrupts": {**GIC, "base": 1}},
    {**MINIMAL, "interrupts": {**GIC, "virtual": {}}}, {**MINIMAL, "interrupts": {**GIC, "virtual": [{"spi": 988}]}}, {**MINIMAL, "devices": {}},
    *({**MINIMAL, "interrupts": GIC, "devices": [{**DEVICE, m: v}]} for m, v in (
        ("name", ""), ("name", None), ("kind", ""), ("type", ""), ("host", {}), ("host", None), ("host", {"handover": "take"}), ("host", {"handover": "none", "baud": 1}),
        ("mmio", [{}]), ("mmio", [{"base": "0x1000"}]), ("mmio", [{"base": "0x1000", "size": 0}]), ("irqs", [{}]), ("irqs", [{"spi": 988}]),
        ("irqs", [{"gsi": 1}]), ("dma", 1), ("group", ""), ("share", 1), ("requires", []), ("safe_state", [{}]), ("stream_ids", [{"id": -1}]), ("stream_ids", [1]),
        ("safe_state", [{"address": "0x1000", "value": "0x0", "width": 24}]), ("nobody", 1))),
    {**MINIMAL, "backends": {"xen": {}}}, {**MINIMAL, "backends": {"jailhouse": {**JAILHOUSE, "host_enable": 1}}},
    {**MINIMAL, "backends": {"jailhouse": {}}}, {**MINIMAL, "backends": {"jailhouse": {"flavour": "upstream-14"}}},
    *({**MINIMAL, "backends": {"jailhouse": {**JAILHOUSE, m: v}}} for m, v in (("flavour", "x"), ("flavour", None), ("architecture", "riscv"),
      ("device", "d"), ("sysfs", "/a/../b"), ("root_cell", 1), ("comm_region", 1), ("comm_region", "0x4000000000000000"), ("nobody", 1))),
]
# What the reader knows and no schema can say.
READER_ONLY = [
    {**MINIMAL, "cpus": {"ids": "0-3", "host": "4"}},
    {**MINIMAL, "cpus": {"ids": "3-1"}},
    changed(POOL, (("memory", 0, "size"), "4097")),
    changed(POOL, (("memory", 0, "size"), "1")),
    changed(POOL, (("memory", 0, "size"), "9999T")),
    changed(POOL, (("memory", 0, "base"), "0x3ffffffffffff000"), (("memory", 0, "size"), 8192)),
    {**MINIMAL, "memory": POOL["memory"] * 2},
    {**MINIMAL, "memory": [*POOL["memory"], {"name": "b", "kind": "tcm", "base": "0x10000", "size": 4096}]},
    *({**MINIMAL, "interrupts": GIC, "devices": [{**DEVICE, **more}]} for more in (
        {"dma": True}, {"host": {"handover": "unbind"}}, {"host": {"handover": "none", "sysfs": "/sys/d"}}, {"type": "jailhouse"},
        {"safe_state": [{"address": "0x8", "value": "0x0", "width": 32}]}, {"safe_state": [{"address": "0x1001", "value": "0x0", "width": 32}]},
        {"safe_state": [{"address": "0x1000", "value": "0x100", "width": 8}]})),
    {**MINIMAL, "interrupts": GIC, "devices": [{**DEVICE, "group": "a"}, {**DEVICE, "name": "b", "group": "b"}]},
    {**MINIMAL, "interrupts": GIC, "devices": [{**DEVICE, "host": {"handover": "none", "tty": "/dev/t"}},
                                               {"name": "b", "kind": "x", "host": {"handover": "none", "tty": "/dev/t"}}]},
    {**MINIMAL, "interrupts": {**GIC, "virtual": [{"spi": 10}, {"spi": 13}]}}, {**MINIMAL, "interrupts": {**GIC, "virtual": [{"spi": 985}]}},
    {**MINIMAL, "interrupts": {**GIC, "virtual": [{"spi": DEVICE["irqs"][0]["spi"]}]}, "devices": [DEVICE]},
    {**MINIMAL, "remote_processors": [{"name": "a", "id": 1}, {"name": "b", "id": 1}]},
    {**POOL, "remote_processors": [{"name": "a", "id": 1, "memory": [{"base": "0x10000", "size": 4096}]}]},
    {**MINIMAL, "links": {"memory": "nobody"}},
    {**MINIMAL, "memory": [{"name": "a", "kind": "host", "size": 4096}], "links": {"memory": "a"}},
    *({**POOL, "links": {"host_slots": [{"slot": 1, "base": "0x20000", "output": 4096, "peers": 2, **more}]}} for more in (
        {"id": 2}, {"base": "0x20001"}, {"base": "0xf000"}, {"output": 4097}, {"common": 1})),
    {**MINIMAL, "links": {"host_slots": [{"slot": 1, "base": "0x0", "output": 4096, "peers": 2}, {"slot": 1, "base": "0x10000", "output": 4096, "peers": 2}]}},
]


def check_config(tmp_path, platform):
    file = tmp_path / "platform.json"
    file.write_text(json.dumps(platform))
    done = subprocess.run([build_dir() / "daemon" / "phid", "--check-config", "--platform", str(file), "--config", "/dev/null"],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode in (0, 2, 3), f"{platform}: {done}"
    if done.returncode != 0:
        assert str(file) in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("path", sorted((ROOT / "share/platforms").glob("*.json")), ids=lambda p: p.stem)
def test_the_platforms_that_come_along_are_right(tmp_path, path):
    platform = json.loads(path.read_text())
    jsonschema.Draft202012Validator(json.loads(source("schema/platform.schema.json"))).validate(platform)
    done = check_config(tmp_path, platform)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("platform", GOOD_PLATFORMS, ids=lambda p: json.dumps(p)[24:70])
def test_a_good_platform_file_is_good_to_both(tmp_path, platform):
    assert list(schema("platform").iter_errors(platform)) == []
    done = check_config(tmp_path, platform)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("platform", BAD_PLATFORMS, ids=lambda p: json.dumps(p)[24:70])
def test_a_bad_platform_file_is_bad_to_both(tmp_path, platform):
    assert list(schema("platform").iter_errors(platform)) != []
    assert check_config(tmp_path, platform).returncode != 0


@pytest.mark.parametrize("platform", READER_ONLY, ids=lambda p: json.dumps(p)[24:120])
def test_what_no_schema_can_say_is_bad_to_the_reader(tmp_path, platform):
    assert list(schema("platform").iter_errors(platform)) == []
    assert check_config(tmp_path, platform).returncode == 2


def test_a_platform_file_that_is_no_json_is_told_with_its_place(tmp_path):
    file = tmp_path / "platform.json"
    for text in ("", "{", '{"format":"phid-platform/1",}', '{"format":"phid-platform/1","format":"x"}'):
        file.write_text(text)
        done = subprocess.run([build_dir() / "daemon" / "phid", "--check-config", "--platform", str(file)], capture_output=True,
                              text=True, timeout=30)
        assert done.returncode == 2 and str(file) in done.stderr, done


BOOT = {"format": "phid-boot/1"}
GOOD_BOOTS = [
    BOOT,
    {**BOOT, "name": "x", "backend": "sim", "criticality": "asil-d", "labels": {"a": "b"}},
    {**BOOT, **{m: None for m in ("name", "backend", "criticality", "boot", "cpus", "memory", "console", "stop", "lifecycle", "labels")}},
    {**BOOT, "boot": {"kernel": "/boot/k", "initrd": {"path": "/boot/k"}, "cmdline": "a b", "machine": "q35"}},
    {**BOOT, "boot": {"inmate": {"path": "/boot/k", "at": "0x80000"}, "kernel": None, "machine": ""}},
    {**BOOT, "boot": {"kernel": "/boot/k", "inmate": None, "initrd": None}},
    {**BOOT, "boot": {"kernel": "/boot/..k"}},
    {**BOOT, "cpus": {"count": 1}}, {**BOOT, "cpus": {"set": "1,2-3"}}, {**BOOT, "cpus": {"set": None, "count": 2}},
    {**BOOT, "memory": []}, {**BOOT, "memory": [{"size": "1M"}, {"size": 4096, "pool": "host", "at": None, "colors": None}]},
    {**BOOT, "memory": [{"size": "0x1000", "colors": "0xF0"}]},
    {**BOOT, "console": {"log": {"max": "4K"}}}, {**BOOT, "console": {"log": {"max": 67108864}}}, {**BOOT, "console": {"log": None}},
    {**BOOT, "devices": []}, {**BOOT, "devices": None},
    {**BOOT, "links": []}, {**BOOT, "links": [{"name": "a.b", "size": "1M", "protocol": "network", "peers": 3, "role": 2}, {"name": "h", "host": True}, {"host": True}]},
    {**BOOT, "boot": {"kernel": "/boot/k", "dtb": "/boot/k", "entry": None}}, {**BOOT, "boot": {"inmate": "/boot/k", "entry": "0x1000"}},
    {**BOOT, "remote_processors": {}}, {**BOOT, "boot": {"firmware": "/boot/k"}, "remote_processors": {"count": 1}, "cpus": {"count": 0}},
    {**BOOT, "boot": {"firmware": "/boot/k"}, "remote_processors": {"names": ["a", "b"], "count": None}},
    {**BOOT, "stop": {"grace_ms": 0, "then": "nothing"}}, {**BOOT, "lifecycle": {"keeper_lost": "keep"}},
]
BAD_BOOTS = [
    {"format": "phid-boot/2"}, {"format": 1}, {**BOOT, "nobody": 1}, {**BOOT, "name": ""}, {**BOOT, "name": 5}, {**BOOT, "backend": "kvm"},
    {**BOOT, "boot": {"kernel": "boot/k"}}, {**BOOT, "boot": {"kernel": "/boot/../k"}}, {**BOOT, "boot": {"kernel": "/"}},
    {**BOOT, "boot": {"kernel": {"path": "/boot/k", "sha256": "x"}}}, {**BOOT, "boot": {"kernel": {}}},
    {**BOOT, "boot": {"kernel": {"path": "/boot/k", "at": None}}}, {**BOOT, "boot": {"kernel": {"path": "/boot/k", "nobody": 1}}},
    {**BOOT, "boot": {"kernel": "/boot/k", "inmate": "/boot/k"}}, {**BOOT, "boot": {"initrd": "/boot/k"}},
    {**BOOT, "boot": {"initrd": "/boot/k", "kernel": None}}, {**BOOT, "boot": {"machine": "virt"}},
    {**BOOT, "cpus": {"count": 1, "set": "1"}}, {**BOOT, "cpus": {"set": ""}}, {**BOOT, "cpus": {"count": 0}}, {**BOOT, "cpus": {"set": "4096"}},
    {**BOOT, "memory": [{}]}, {**BOOT, "memory": [{"size": "1X"}]}, {**BOOT, "memory": [{"size": 4097}]},
    {**BOOT, "memory": [{"size": 4096, "at": "0x1"}]}, {**BOOT, "memory": [{"size": 4096, "colors": "0x0"}]},
    {**BOOT, "memory": [{"size": 4096, "at": "0x4000000000000000"}]}, {**BOOT, "memory": [{"size": 4096}] * 17},
    {**BOOT, "console": {"log": {"max": 1}}}, {**BOOT, "console": {"log": 1}}, {**BOOT, "stop": {"grace_ms": -1}},
    {**BOOT, "lifecycle": {"keeper_lost": ""}}, {**BOOT, "labels": {"a": 1}}, {**BOOT, "labels": []}, {**BOOT, "labels": {"": ""}},
    {**BOOT, "devices": {}}, {**BOOT, "devices": [{}]}, {**BOOT, "devices": [{"name": "a", "kind": "b"}]}, {**BOOT, "devices": [{"name": ""}]},
    {**BOOT, "devices": [{"kind": 1}]}, {**BOOT, "devices": [{"name": "a", "as": "b"}]}, {**BOOT, "devices": [{"name": "a", "share": 1}]},
    {**BOOT, "devices": [{"name": str(i)} for i in range(17)]},
    *({**BOOT, m: {}} for m in ("health",)),
    {**BOOT, "links": {}}, *({**BOOT, "links": [{"name": "a", "size": 16384, m: v}]} for m, v in (
        ("name", ""), ("name", "a/b"), ("name", None), ("size", 4096), ("size", 16385), ("protocol", "tcp"), ("peers", 1), ("peers", 9), ("role", 8), ("role", -1), ("host", 1), ("x", 1))),
    {**BOOT, "remote_processors": []}, {**BOOT, "remote_processors": {"count": 0}}, {**BOOT, "remote_processors": {"count": 1, "names": ["a"]}},
    *({**BOOT, "boot": {m: "/x"}} for m in ("args",)), {**BOOT, "boot": {"dtb": "/boot/k"}}, {**BOOT, "boot": {"entry": 1}}, {**BOOT, "links": [{"size": 16384}]},
    {**BOOT, "cpus": {"class": "x"}}, {**BOOT, "memory": [{"size": 4096, "access": "x"}]}, {**BOOT, "console": {"via": "x"}},
    {**BOOT, "console": {"log": {"keep_on_failure": True}}}, {**BOOT, "stop": {"ask": "x"}},
    *({**BOOT, "lifecycle": {m: True}} for m in ("autostart", "restart")),
]


@pytest.fixture(scope="module")
def image(daemon):
    d = daemon.dir / "image"
    (d / "rootfs" / "boot").mkdir(parents=True)
    (d / "rootfs" / "boot" / "k").write_bytes(b"k")
    (d / "rootfs" / "boot" / "..k").write_bytes(b"k")
    (d / "config.json").write_text('{"ociVersion":"1.0.2","root":{"path":"rootfs"}}')
    return d


def boots(client, image, boot):
    """Does the daemon take it, as far as its form goes?"""
    (image / "rootfs" / "boot" / "config.json").write_text(json.dumps(boot))
    answer = client.request("PUT", "/v1/containers/boot", {"dry_run": True}, {"bundle": str(image)})
    assert answer.status in (200, 409, 422, 501), answer
    return answer.status == 200 or "/boot/config.json" not in answer.json["detail"], answer


@pytest.mark.parametrize("boot", GOOD_BOOTS, ids=lambda p: json.dumps(p)[24:70])
def test_a_good_boot_configuration_is_good_to_both(client, image, boot):
    assert list(schema("boot").iter_errors(boot)) == []
    good, answer = boots(client, image, boot)
    assert good, answer


@pytest.mark.parametrize("boot", BAD_BOOTS, ids=lambda p: json.dumps(p)[24:70])
def test_a_bad_boot_configuration_is_bad_to_both(client, image, boot):
    assert list(schema("boot").iter_errors(boot)) != []
    good, answer = boots(client, image, boot)
    assert not good and answer.status in (422, 501), answer
    assert answer.pointers, answer


def test_request_and_boot_schema_know_the_same_members():
    """The spec of a request and the file differ in how a size may be written, and in nothing else."""
    boot = json.loads(source("schema/boot.schema.json"))

    def members(node, resolve):
        node = resolve(node)
        found = {}
        for part in node.get("oneOf", []) + node.get("anyOf", []):
            found.update(members(part, resolve))
        if "items" in node:
            found.update(members(node["items"], resolve))
        for name, below in node.get("properties", {}).items():
            found[name] = members(below, resolve)
        return found

    def of_request(node):
        return document().tree["components"]["schemas"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node

    def of_boot(node):
        return boot["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node

    in_file = members(boot, of_boot)
    del in_file["format"]
    assert in_file == members(document().tree["components"]["schemas"]["SpecRequest"], of_request)
