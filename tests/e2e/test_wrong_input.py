"""Whatever comes in: a wrong request is answered with a problem that names the place, and changes nothing."""
import json

import pytest
from phidtest.openapi import document
from wrong import A, OPERATIONS, SPEC, makes_containers, put, unchanged  # noqa: F401 (a fixture of every test)

# ---- not JSON ----

NESTED = b'{"spec":' * 40 + b"{}" + b"}" * 40
NOT_JSON = {
    "empty": b"",
    "space": b"  \n",
    "cut": b'{"spec":{}',
    "word": b"spec",
    "single quotes": b"{'spec':{}}",
    "no quotes": b"{spec:{}}",
    "comma at the end": b'{"spec":{},}',
    "comment": b'{"spec":{}/*x*/}',
    "trailing bytes": b'{"spec":{}} x',
    "two documents": b'{"spec":{}}{"spec":{}}',
    "trailing NUL": b'{"spec":{}}\0',
    "byte order mark": b'\xef\xbb\xbf{"spec":{}}',
    "member twice": b'{"spec":{},"spec":{}}',
    "member twice inside": b'{"spec":{"cpus":{"count":1,"count":1}}}',
    "member twice by escape": b'{"spec":{"name":"a","n\\u0061me":"b"}}',
    "bad UTF-8": b'{"spec":{"name":"\xff"}}',
    "cut UTF-8": b'{"spec":{"name":"\xc3"}}',
    "overlong UTF-8": b'{"spec":{"name":"\xc0\xaf"}}',
    "UTF-8 surrogate": b'{"spec":{"name":"\xed\xa0\x80"}}',
    "UTF-8 beyond U+10FFFF": b'{"spec":{"name":"\xf4\x90\x80\x80"}}',
    "Latin-1": '{"spec":{"name":"Zürich"}}'.encode("latin-1"),
    "UTF-16": '{"spec":{}}'.encode("utf-16"),
    "\\u0000": b'{"spec":{"name":"a\\u0000b"}}',
    "\\u0000 in a name": b'{"spec":{"name\\u0000":"b"}}',
    "a NUL": b'{"spec":{"name":"a\0b"}}',
    "control character": b'{"spec":{"name":"a\nb"}}',
    "lone high surrogate": b'{"spec":{"name":"\\ud800"}}',
    "lone low surrogate": b'{"spec":{"name":"\\udc00"}}',
    "no such escape": b'{"spec":{"name":"\\x41"}}',
    "hexadecimal": b'{"spec":{"cpus":{"count":0x1}}}',
    "leading zero": b'{"spec":{"cpus":{"count":01}}}',
    "plus": b'{"spec":{"cpus":{"count":+1}}}',
    "no digits": b'{"spec":{"cpus":{"count":1.}}}',
    "NaN": b'{"spec":{"cpus":{"count":NaN}}}',
    "Infinity": b'{"spec":{"cpus":{"count":Infinity}}}',
    "nested 40 deep": NESTED,
    "nested 100000 deep": b"[" * 100000,
    "objects 100000 deep": b'{"a":' * 100000,
    "2000 members": json.dumps({str(i): 0 for i in range(2000)}).encode(),
}


@pytest.mark.parametrize("what", NOT_JSON)
def test_what_is_not_strict_json_is_400(client, what):
    put(client, NOT_JSON[what]).expect(400, "bad-request")


@pytest.mark.parametrize("body", [[], "text", 1, None, True, [{"spec": {}}]])
def test_a_body_that_is_no_object_is_422(client, body):
    put(client, body).expect(422, "invalid")


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "kill"])
def test_verbs_read_their_body_as_strictly(client, verb):
    path = f"{A}/{verb}"
    client.raw("POST", path, b"{").expect(400, "bad-request")
    client.raw("POST", path, b"[]").expect(422, "invalid")
    assert client.raw("POST", path, b'{"nobody":1}').expect(422, "unknown-member").pointers == ["/nobody"]
    client.raw("POST", path, b"{}").expect(404, "not-found")


def test_delete_reads_its_body_as_strictly(client):
    client.raw("DELETE", A, b"{").expect(400, "bad-request")
    assert client.raw("DELETE", A, b'{"force":true}').expect(422, "unknown-member").pointers == ["/force"]


# ---- the spec: every place of the schema ----

def objects(schema, path=()):
    """Every object of the request, as (path, schema); array items under index 0."""
    schema = {**schema, **SPEC[schema["$ref"].rsplit("/", 1)[1]]} if "$ref" in schema else schema
    for part in schema.get("oneOf", []):
        yield from objects(part, path)
    if "properties" in schema:
        yield path, schema
        for name, below in schema["properties"].items():
            yield from objects(below, path + (name,))
    if "items" in schema:
        yield from objects(schema["items"], path + (0,))


OBJECTS = list(objects(SPEC["ContainerRequest"]))
# What an object needs besides, so that only the member in question is wrong.
NEEDS = {(): {"spec": {}}, ("oci",): {"id": "x", "root": "/r"}, ("spec", "memory", 0): {"size": 4096}}
NEEDS.update({("spec", "boot", image): {"path": "/nowhere"} for image in ("kernel", "initrd", "dtb", "inmate", "firmware")})


def body_with(path, members):
    """A request whose object at path has those members."""
    value = {**NEEDS.get(path, {}), **members}
    for i in range(len(path) - 1, -1, -1):
        if path[i] == 0:
            value = [value]
        else:
            value = {**NEEDS.get(path[:i], {}), path[i]: value}
    return value


def pointer_of(path):
    return "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in path)


@pytest.mark.parametrize("path", [p for p, _ in OBJECTS], ids=pointer_of)
@pytest.mark.parametrize("name", ["nobody", "", "a/b~c", "Spec", "x" * 60])
def test_an_unknown_member_is_named_at_every_place(client, path, name):
    answer = put(client, body_with(path, {name: 1}))
    if path == ("oci",):
        assert answer.expect(422).pointers[0].startswith("/oci")
        return
    assert answer.expect(422, "unknown-member").pointers == [pointer_of(path + (name,))]


@pytest.mark.parametrize("path", [p + (n,) for p, s in OBJECTS for n in s.get("x-phid-not-built", [])], ids=pointer_of)
def test_a_member_that_is_not_built_is_501_by_name(client, path):
    for value in (1, None, "x", {}, []):
        answer = put(client, body_with(path[:-1], {path[-1]: value}))
        assert answer.expect(501, "not-built").pointers == [pointer_of(path)]
        assert path[-1] in answer.json["detail"]


@pytest.mark.parametrize("path", [p + (n,) for p, s in OBJECTS for n in s["properties"]], ids=pointer_of)
def test_document_and_daemon_agree_on_every_value_at_every_place(client, path):
    """What the schema refuses is 4xx with the place; what it takes is not refused for its form."""
    schema = SPEC["ContainerRequest"]
    for value in (None, True, False, 0, 1, -1, 1.5, 4096, 4097, 2 ** 53 - 1, 2 ** 53, 2 ** 64, "", "x", "0x1000", "0x", "0x1001",
                  "0x0", "-1", "16M", "2", "2-3", "0,", "/", "/x", "/../x", "/x/..", "kill", [], [1], [{}], {}, {"x": 1},
                  "x" * 65, "x" * 5000):
        body = body_with(path[:-1], {path[-1]: value})
        answer = put(client, body, query="?dry_run=true")
        try:
            document().check(body, schema, "body")
        except AssertionError:
            assert answer.status in (422, 501), f"{value!r}: {answer}"
            if answer.pointers:  # at the value, below it, or at what it contradicts
                assert answer.pointers[0].startswith(pointer_of(path)[:len(answer.pointers[0])]) or \
                    answer.pointers[0].startswith(pointer_of(path[:2])), f"{value!r}: {answer}"
            else:
                assert len(path) == 1, f"{value!r}: {answer}"
            continue
        refused_form = answer.status == 400 or (answer.status == 422 and answer.code in ("invalid", "unknown-member"))
        about_platform = any(w in answer.text for w in ("this host", "no pool", "is kept for the host"))
        assert not refused_form or about_platform, f"{value!r}: {answer}"


def test_the_pointer_says_which_item(client):
    spec = {"memory": [{"size": 4096}, {"size": 4096}, {"size": -1}]}
    assert put(client, {"spec": spec}).expect(422, "invalid").pointers == ["/spec/memory/2/size"]
    spec = {"labels": {"ok": "x", "a/b~c": 5}}
    assert put(client, {"spec": spec}).expect(422, "invalid").pointers == ["/spec/labels/a~1b~0c"]


# ---- numbers ----

@pytest.mark.parametrize("number", ["-1", "0", "4097", "1.5", "1e2.5"[:3] + "00", "9007199254740992", "18446744073709551616",
                                    "1e400", "-1e400", "1e-400", "-9223372036854775809"])
def test_a_number_out_of_bounds_is_422(client, number):
    answer = put(client, b'{"spec":{"cpus":{"count":%s}}}' % number.encode())
    assert answer.expect(422, "invalid").pointers == ["/spec/cpus/count"]
    answer = put(client, b'{"spec":{"memory":[{"size":%s}]}}' % number.encode())
    assert answer.expect(422, "invalid").pointers == ["/spec/memory/0/size"]


WRONG_SPECS = [
    ({"cpus": {"count": 1, "set": "2"}}, 422, "/spec/cpus"),
    ({"cpus": {"set": ""}}, 422, "/spec/cpus/set"),
    ({"cpus": {"set": "3-1"}}, 422, "/spec/cpus/set"),
    ({"cpus": {"set": "4096"}}, 422, "/spec/cpus/set"),
    ({"cpus": {"set": "99999999999999999999"}}, 422, "/spec/cpus/set"),
    ({"cpus": {"set": "1, 2"}}, 422, "/spec/cpus/set"),
    ({"cpus": {"set": "17"}}, 422, "/spec/cpus/set"),  # does not exist
    ({"cpus": {"set": "1-4095"}}, 422, "/spec/cpus/set"),
    ({"cpus": {"set": "0"}}, 422, "/spec/cpus/set"),  # the host's
    ({"cpus": {"set": "0-3"}}, 422, "/spec/cpus/set"),
    ({"cpus": {"count": 17}}, 409, "/spec/cpus"),  # more than there are
    ({"cpus": {"count": 4096}}, 409, "/spec/cpus"),
    ({"memory": [{"size": 16 << 30}]}, 409, "/spec/memory/0"),
    ({"memory": [{"size": 8 << 30}, {"size": 4 << 30}, {"size": 4096}]}, 409, "/spec/memory/2"),
    ({"memory": [{"size": 1 << 50}]}, 409, "/spec/memory/0"),
    ({"memory": [{"size": 4097}]}, 422, "/spec/memory/0/size"),
    ({"memory": [{"size": "16M"}]}, 422, "/spec/memory/0/size"),  # texts are for files
    ({"memory": [{"size": 4096}] * 17}, 422, "/spec/memory"),
    ({"memory": [{"size": 4096, "at": "0x100000001"}]}, 422, "/spec/memory/0/at"),
    ({"memory": [{"size": 4096, "at": "0x1000"}]}, 422, "/spec/memory/0"),  # in no pool
    ({"memory": [{"size": 4096, "at": "0x200000000"}]}, 422, "/spec/memory/0"),  # just behind the pool
    ({"memory": [{"size": 8192, "at": "0x1fffff000"}]}, 422, "/spec/memory/0"),  # half behind it
    ({"memory": [{"size": 4096, "at": "0x4000000000000000"}]}, 422, "/spec/memory/0/at"),
    ({"memory": [{"size": 4096, "at": "0x3ffffffffffff000"}]}, 422, "/spec/memory/0"),
    ({"memory": [{"size": 4096, "at": "0xffffffffffffffffff"}]}, 422, "/spec/memory/0/at"),
    ({"memory": [{"size": 4096, "at": "0x0x1000"}]}, 422, "/spec/memory/0/at"),
    ({"memory": [{"size": 4096, "at": 4096}]}, 422, "/spec/memory/0/at"),
    ({"memory": [{"size": 4096, "colors": "0x0"}]}, 422, "/spec/memory/0/colors"),
    ({"memory": [{"size": 4096, "pool": "nope"}]}, 422, "/spec/memory/0"),
    ({"memory": [{"size": 4096, "at": "0x100000000"}] * 2}, 409, "/spec/memory/1"),  # twice the same
    ({"backend": "vmware"}, 422, "/spec/backend"),
    ({"backend": "SIM"}, 422, "/spec/backend"),
    ({"backend": "xen"}, 501, "/spec/backend"),  # known, not enabled
    ({"backend": "qemu"}, 501, "/spec/backend"),
    ({"name": ""}, 422, "/spec/name"),
    ({"name": "x" * 65}, 422, "/spec/name"),
    ({"criticality": "x" * 33}, 422, "/spec/criticality"),
    ({"boot": {"cmdline": "x" * 2048}}, 422, "/spec/boot/cmdline"),
    ({"boot": {"kernel": "boot/vmlinuz"}}, 422, "/spec/boot/kernel"),
    ({"boot": {"kernel": "/a/../b"}}, 422, "/spec/boot/kernel"),
    ({"boot": {"kernel": "/" + "x" * 4095}}, 422, "/spec/boot/kernel"),
    ({"boot": {"kernel": {"at": "0x1000"}}}, 422, "/spec/boot/kernel"),
    ({"boot": {"kernel": {"path": "/x", "sha256": "abc"}}}, 422, "/spec/boot/kernel/sha256"),
    ({"boot": {"kernel": {"path": "/x", "sha256": "A" * 64}}}, 422, "/spec/boot/kernel/sha256"),
    ({"boot": {"kernel": "/x", "inmate": "/y"}}, 422, "/spec/boot/inmate"),
    ({"boot": {"initrd": "/x"}}, 422, "/spec/boot/initrd"),
    ({"stop": {"grace_ms": 3600001}}, 422, "/spec/stop/grace_ms"),
    ({"stop": {"then": "explode"}}, 422, "/spec/stop/then"),
    ({"console": {"log": {"max": 4095}}}, 422, "/spec/console/log/max"),
    ({"console": {"log": {"max": (64 << 20) + 1}}}, 422, "/spec/console/log/max"),
    ({"lifecycle": {"keeper_lost": "panic"}}, 422, "/spec/lifecycle/keeper_lost"),
    ({"labels": {str(i): "x" for i in range(65)}}, 422, "/spec/labels"),
    ({"labels": {"a": "x" * 4097}}, 422, "/spec/labels/a"),
    ({"labels": {"": "x"}}, 422, "/spec/labels/"),
]


@pytest.mark.parametrize("spec, status, pointer", WRONG_SPECS, ids=[json.dumps(s)[:50] for s, _, _ in WRONG_SPECS])
def test_a_wrong_spec_is_refused_at_the_place(client, spec, status, pointer):
    answer = put(client, {"spec": spec}).expect(status)
    assert answer.pointers == [pointer], answer
    if status == 409:
        assert answer.code == "no-resources" and answer.json["wanted"] and answer.json["free"] is not None
    assert put(client, {"spec": spec}, query="?dry_run=true").status == status


@makes_containers
def test_who_holds_a_cpu_is_told(client, phid):
    holders = {}
    for i in range(4):
        c = client.put(f"h{i}", {"cpus": {"count": 4}}).expect(201).json
        holders.update({f"cpu {n}": c["id"] for n in c["cell"]["cpus"]})
    refused = client.put("a", {}).expect(409, "no-resources").json
    assert refused["wanted"] == {"cpus": 1} and refused["free"] == {"cpus": 0}
    assert {b["unit"]: b["owner"] for b in refused["blockers"]} == holders


# ---- PUT's other members ----

@pytest.mark.parametrize("body, pointer", [
    ({}, None),
    ({"incarnation": "7e2c9b4e-0000-4000-8000-000000000000"}, None),
    ({"spec": None}, "/spec"),
    ({"spec": []}, "/spec"),
    ({"spec": "x"}, "/spec"),
    ({"bundle": "relative"}, "/bundle"),
    ({"bundle": ""}, "/bundle"),
    ({"bundle": None}, "/bundle"),
    ({"bundle": 5}, "/bundle"),
    ({"bundle": "/" + "x" * 5000}, "/bundle"),
    ({"spec": {}, "incarnation": "x"}, "/incarnation"),
    ({"spec": {}, "incarnation": "7E2C9B4E-0000-4000-8000-000000000000"}, "/incarnation"),
    ({"spec": {}, "incarnation": None}, "/incarnation"),
    ({"spec": {}, "keeper": "nobody"}, "/keeper"),
    ({"spec": {}, "keeper": "caller"}, "/incarnation"),
    ({"spec": {}, "oci": {}}, "/oci"),
    ({"spec": {}, "oci": {"id": "x"}}, "/oci"),
    ({"spec": {}, "oci": {"id": "x", "root": "relative"}}, "/oci"),
    ({"spec": {}, "oci": {"id": "x" * 129, "root": "/r"}}, "/oci"),
    ({"spec": {}, "oci": 5}, "/oci"),
], ids=lambda v: json.dumps(v)[:40])
def test_wrong_members_of_put(client, body, pointer):
    assert put(client, body).expect(422).pointers == ([pointer] if pointer else [])


@pytest.mark.parametrize("name, value", [("If-None-Match", '"abc"'), ("If-None-Match", "W/*"), ("Idempotency-Key", ""),
                                         ("Idempotency-Key", "x" * 129)])
def test_wrong_headers_are_422(client, name, value):
    assert put(client, {"spec": {}}, headers={name: value}).expect(422, "invalid").pointers == ["/" + name]


# ---- kill ----

@pytest.mark.parametrize("signal", ["HUP", "SIGTSTP", "kill", "SIGSIGKILL", "", 0, -9, 1, 64, 9.5, 1e300, [], {}, True, None])
def test_a_signal_that_no_cell_knows_is_422(client, signal):
    body = json.dumps({"signal": signal}).encode()
    assert client.raw("POST", A + "/kill", body).expect(422, "invalid").pointers == ["/signal"]


@pytest.mark.parametrize("ms", [-1, 3600001, 2 ** 53, 1.5, "5", None, []])
def test_a_wrong_timeout_is_422(client, ms):
    body = json.dumps({"signal": "TERM", "timeout_ms": ms}).encode()
    assert client.raw("POST", A + "/kill", body).expect(422, "invalid").pointers == ["/timeout_ms"]


@pytest.mark.parametrize("signal", ["STOP", "CONT"])
def test_a_timeout_of_what_does_not_end_is_422(client, signal):
    body = json.dumps({"signal": signal, "timeout_ms": 5}).encode()
    assert client.raw("POST", A + "/kill", body).expect(422, "invalid").pointers == ["/timeout_ms"]


# ---- ids ----

BAD_IDS = ["a" * 129, "a" * 5000, ".a", "..", ".", "-a", "_a", "+a", "~12345678", "a~", "a~1234567", "a~123456789",
           "a~1234567g", "a~1234567A", "a~12345678~12345678", "a~12345678b", "a%20b", "a%0Ab", "%0A", "a%7F", "a%C3%A4", "%FF",
           "a%", "a%zz", "a%252Fb", "a:b", "a@b", "a,b", "a;b", "a*", "*", "a%00", "a%00b", "%00", "a%5Cb", "a%22b", "a%3Fb", "a%23b"]


@pytest.mark.parametrize("id", BAD_IDS, ids=lambda s: s[:20])
def test_a_bad_id_is_refused_by_every_operation(client, id):
    requests = [("GET", "", None), ("PUT", "", b'{"spec":{}}'), ("DELETE", "?force=true", None), ("POST", "/start", None),
                ("POST", "/kill", None), ("GET", "/wait?timeout=0", None), ("GET", "/console", None)]
    for method, rest, body in requests:
        answer = client.raw(method, f"/v1/containers/{id}{rest}", body)
        assert answer.expect(422, "invalid").pointers == ["/id"], f"{method} {rest}: {answer}"
    assert client.raw("GET", f"/v1/containers?after={id}").expect(422, "invalid").pointers == ["?after"]


@pytest.mark.parametrize("path", ["/v1/containers/", "/v1/containers//start", "/v1/containers/a/b", "/v1/containers/a/",
                                  "/v1/containers/a/start/", "/v1//containers/a", "/v1/containers/../health", "/v1/containers/a/..",
                                  "/v1/Containers/a", "/v2/containers/a", "//v1/containers/a", "/v1/", "/v1/containers/a/start/b",
                                  "/etc/passwd", "/%2e%2e/etc/passwd", "/v1/nope", "/v1%2Fhealth%00"])
def test_what_is_no_resource_is_404(client, path):
    for method, body in (("GET", None), ("PUT", b'{"spec":{}}'), ("POST", b"{}"), ("DELETE", None)):
        client.raw(method, path, body).expect(404, "not-found")


@makes_containers
def test_an_encoded_slash_or_nul_names_no_other_container(client):
    client.put("a", {}).expect(201)
    for method, target in (("POST", "/v1/containers/a%2Fstart"), ("POST", "/v1/containers/a%00x/start"),
                           ("DELETE", "/v1/containers/a%00x?force=true"), ("DELETE", "/v1/containers/a%00?force=true"),
                           ("POST", "/v1/containers/x%2F..%2Fa/start"), ("PUT", "/v1/containers/n%00n")):
        answer = client.raw(method, target, b'{"spec":{}}' if method == "PUT" else None)
        assert answer.status in (404, 405, 422), f"{method} {target}: {answer}"
    assert client.container("a").expect(200).json["state"] == "created"
    client.container("n").expect(404)


def test_an_id_of_128_bytes_is_good(client):
    for id in ("a" * 128, "a" * 119 + "~12345678", "A", "0", "a.b_c+d-e"):
        client.put(id, {}, dry_run=True).expect(200)


# ---- queries and methods ----


@pytest.mark.parametrize("op", OPERATIONS, ids=lambda o: o.id)
def test_an_unknown_query_parameter_is_422(client, op):
    path = op.template.replace("{id}", "a")
    body = b'{"spec":{}}' if op.method == "PUT" else None
    for query in ("nope=1", "nope", "Incarnation=x", "=1"):
        answer = client.raw(op.method, f"{path}?{query}", body)
        assert answer.expect(422, "unknown-member").pointers == ["?" + query.split("=")[0]]


@pytest.mark.parametrize("template", document().tree["paths"])
def test_a_wrong_method_is_405_with_allow(client, template):
    defined = {o.method for o in OPERATIONS if o.template == template}
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO", "get"):
        if method in defined:
            continue
        answer = client.raw(method, template.replace("{id}", "a"), b"{}" if method in ("POST", "PUT", "PATCH") else None)
        assert answer.status == 405 and set(answer.headers["Allow"].split(", ")) == defined, answer
        client.close()  # what follows an unknown method's body is not our matter


@pytest.mark.parametrize("target", [
    "/v1/containers?limit=0", "/v1/containers?limit=1001", "/v1/containers?limit=-1", "/v1/containers?limit=abc",
    "/v1/containers?limit=", "/v1/containers?limit=1.5", "/v1/containers?limit=1e2", "/v1/containers?limit=%201",
    "/v1/containers?limit=1%20", "/v1/containers?limit=0x10", "/v1/containers?limit=99999999999999999999",
    "/v1/containers?state=dead", "/v1/containers?state=", "/v1/containers?state=Running",
    "/v1/events?after=-1", "/v1/events?after=x", "/v1/events?after=9223372036854775808", "/v1/events?wait=601",
    "/v1/events?wait=-1", "/v1/events?limit=0",
])
def test_wrong_query_values_are_422(client, target):
    name = target.partition("?")[2].partition("=")[0]
    assert client.raw("GET", target).expect(422, "invalid").pointers == ["?" + name]


@pytest.mark.parametrize("method, rest, pointer", [
    ("GET", "/wait?timeout=601", "?timeout"), ("GET", "/wait?timeout=-1", "?timeout"), ("GET", "/wait?for=running", "?for"),
    ("GET", "/console?tail=-1", "?tail"), ("GET", "/console?tail=99999999999", "?tail"), ("GET", "/console?follow=1", "?follow"),
    ("PUT", "?dry_run=1", "?dry_run"), ("PUT", "?dry_run=TRUE", "?dry_run"), ("DELETE", "?force=yes", "?force"),
    ("DELETE", "?force=", "?force"), ("DELETE", "?incarnation=x", "?incarnation"), ("POST", "/start?incarnation=", "?incarnation"),
])
def test_wrong_query_values_on_a_container_are_422(client, method, rest, pointer):
    answer = client.raw(method, A + rest, b'{"spec":{}}' if method == "PUT" else None)
    assert answer.expect(422, "invalid").pointers == [pointer]


@makes_containers
@pytest.mark.parametrize("method, rest", [
    ("PUT", "?dry_run"), ("PUT", "?dry_run=true&dry_run=false"), ("PUT", "?dry_run=false&dry_run=true"), ("DELETE", "?force"),
    ("DELETE", "?incarnation"), ("DELETE", "?force=true&incarnation"), ("POST", "/start?incarnation"), ("POST", "/kill?incarnation"),
])
def test_a_parameter_without_value_or_given_twice_is_not_left_out_silently(client, method, rest):
    """A guard or a dry run that is spelt half must not become the real thing."""
    client.put("b", {}).expect(201)
    answer = client.raw(method, "/v1/containers/" + ("c" if method == "PUT" else "b") + rest, b'{"spec":{}}' if method == "PUT" else None)
    answer.expect(422)
    assert client.container("b").json["state"] == "created"
    client.container("c").expect(404)
