"""api/openapi.yaml as a judge: which operation a request is, whether request and answer are what the document says."""
import functools
import json
import pathlib
import re

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Mismatch(AssertionError):
    """A request or an answer is not what api/openapi.yaml says."""


def _follow(document, node):
    while isinstance(node, dict) and "$ref" in node and node["$ref"].startswith("#/"):
        found = document
        for part in node["$ref"][2:].split("/"):
            found = found[part]
        node = found
    return node


class Operation:
    def __init__(self, document, template, method, node, shared):
        self.template, self.method, self.id = template, method.upper(), node["operationId"]
        self.responses = {s: _follow(document, r) for s, r in node["responses"].items()}
        self.parameters = {}
        for p in map(functools.partial(_follow, document), list(shared) + node.get("parameters", [])):
            self.parameters[p["in"], p["name"]] = p
        self.body = node.get("requestBody")
        self.pattern = re.compile(re.sub(r"\\\{\w+\\\}", r"([^/]+)", re.escape(template)) + r"\Z")
        self.names = re.findall(r"\{(\w+)\}", template)


class Document:
    def __init__(self, path=ROOT / "api" / "openapi.yaml"):
        self.tree = yaml.safe_load(open(path, encoding="utf-8"))
        self.operations = []
        for template, item in self.tree["paths"].items():
            for method, node in item.items():
                if method != "parameters":
                    self.operations.append(Operation(self.tree, template, method, node, item.get("parameters", [])))
        stray = self.tree["x-phid-no-operation"]["responses"]
        self.stray = {s: _follow(self.tree, r) for s, r in stray.items()}
        self.errors = {e["code"]: e for e in self.tree["x-phid-errors"]}
        self._resolver = jsonschema.RefResolver.from_schema(self.tree)
        self._validators = {}

    def operation(self, method, path):
        """The operation and its path parameters, or (None, {})."""
        for op in self.operations:
            found = op.pattern.match(path)
            if op.method == method and found:
                return op, dict(zip(op.names, found.groups()))
        return None, {}

    def check(self, value, schema, what):
        key = id(schema)
        if key not in self._validators:
            self._validators[key] = jsonschema.Draft202012Validator(schema, resolver=self._resolver), schema
        error = jsonschema.exceptions.best_match(self._validators[key][0].iter_errors(value))
        if error is not None:
            where = "/".join(map(str, error.absolute_path))
            raise Mismatch(f"{what}: at /{where}: {error.message[:600]}\nin {json.dumps(value)[:2000]}")

    def check_named(self, value, name, what):
        self.check(value, self.tree["components"]["schemas"][name], what)

    # ---- requests ----

    @staticmethod
    def _typed(text, schema):
        if schema.get("type") == "integer" and re.fullmatch(r"-?\d+", text):
            return int(text)
        return text

    def check_request(self, method, path, query, headers, body):
        """path without the query; query a dict of texts; headers a dict; body the decoded JSON or None."""
        what = f"request {method} {path}"
        op, in_path = self.operation(method, path)
        if op is None:
            raise Mismatch(f"{what}: there is no such operation")
        given = {("path", n): v for n, v in in_path.items()}
        given.update({("query", n): v for n, v in query.items()})
        for (place, name) in op.parameters:
            if place == "header" and name in headers:
                given[place, name] = headers[name]
        for key, value in given.items():
            if key not in op.parameters:
                raise Mismatch(f"{what}: there is no {key[0]} parameter {key[1]}")
            schema = _follow(self.tree, op.parameters[key]["schema"])
            self.check(self._typed(value, schema), schema, f"{what}: {key[0]} parameter {key[1]}")
        for key, p in op.parameters.items():
            if p.get("required") and key not in given:
                raise Mismatch(f"{what}: {key[1]} is missing")
        if body is None:
            if op.body is not None and op.body.get("required"):
                raise Mismatch(f"{what}: a body is required")
        elif op.body is None:
            raise Mismatch(f"{what}: there is no body")
        else:
            self.check(body, op.body["content"]["application/json"]["schema"], f"{what}: body")
        return op

    # ---- answers ----

    def check_answer(self, method, path, status, headers, body, streaming=False):
        """headers: a mapping that ignores case. Answers the decoded document (None where it is not JSON)."""
        op, _ = self.operation(method, path)
        what = f"answer {status} to {method} {path}" + (f" ({op.id})" if op else "")
        responses = dict(self.stray) if op is None else op.responses
        response = responses.get(str(status))
        below = self.stray.get(str(status), {}).get("x-phid-below-the-api")
        if below and headers.get("Content-Type") is None:
            return None
        if response is None:
            raise Mismatch(f"{what}: the status is not documented; {body[:500]!r}")
        for name, header in response.get("headers", {}).items():
            if header.get("required") and headers.get(name) is None:
                raise Mismatch(f"{what}: header {name} is missing")
        content = response.get("content")
        kind = (headers.get("Content-Type") or "").split(";")[0].strip()
        if not content:
            if body or kind:
                raise Mismatch(f"{what}: no body is documented, {kind} {body[:200]!r} came")
            return None
        if kind not in content:
            raise Mismatch(f"{what}: content type {kind!r} is not documented; {body[:200]!r}")
        if streaming or kind not in ("application/json", "application/problem+json"):
            return None
        if method == "HEAD":
            return None
        try:
            document = json.loads(body.decode("utf-8"), object_pairs_hook=_unique)
        except ValueError as e:
            raise Mismatch(f"{what}: not JSON: {e}: {body[:500]!r}") from None
        self.check(document, content[kind]["schema"], what)
        if kind == "application/problem+json":
            self.check_problem(document, status, what)
        return document

    def check_problem(self, problem, status, what):
        known = self.errors[problem["code"]]
        if (problem["status"], known["http"], problem["title"]) != (status, status, known["title"]):
            raise Mismatch(f"{what}: {problem} is not {known}")
        if problem["type"] != "urn:phid:problem:" + problem["code"]:
            raise Mismatch(f"{what}: type {problem['type']}")


def _unique(pairs):
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError(f"a member is there twice: {[n for n, _ in pairs]}")
    return dict(pairs)


@functools.lru_cache(maxsize=None)
def document():
    return Document()
