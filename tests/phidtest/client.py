"""HTTP over a Unix socket, every request and answer held against api/openapi.yaml."""
import http.client
import json
import re
import socket
import urllib.parse

from . import openapi


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("phid", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, status, headers, body, document):
        self.status, self.headers, self.body, self.json = status, headers, body, document

    @property
    def code(self):
        """The problem's code, None where it is none."""
        return self.json.get("code") if isinstance(self.json, dict) and self.status >= 400 else None

    @property
    def pointers(self):
        return [e["pointer"] for e in self.json["errors"]]

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def __repr__(self):
        return f"<{self.status} {self.text[:400]}>"

    def expect(self, status, code=None):
        assert self.status == status, f"{status} was expected, not {self}"
        assert code is None or self.code == code, f"{code} was expected, not {self}"
        return self


class Client:
    """One connection; not for several threads at once."""

    def __init__(self, path, timeout=90):
        self.path, self.timeout = path, timeout
        self.doc = openapi.document()
        self.connection = None

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- sending ----

    def _send(self, method, target, body, headers):
        fresh = self.connection is None
        if fresh:
            self.connection = UnixConnection(self.path, self.timeout)
        c = self.connection
        try:
            try:
                c.request(method, target, body=body, headers=headers)
            except (BrokenPipeError, ConnectionResetError):
                if c.sock is None:
                    raise
                # The daemon may have answered before it read all of it (too large, too many).
                response = c.response_class(c.sock, method=method)
                response.begin()
                return response
            return c.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):
            self.close()
            if fresh or (method != "GET" and "Idempotency-Key" not in headers):
                raise
            return self._send(method, target, body, headers)  # an idle connection was closed meanwhile
        except BaseException:
            self.close()
            raise

    def raw(self, method, target, body=None, headers=None):
        """A request that may be wrong; target as it goes into the request line. The answer is checked all the same."""
        response = self._send(method, target, body, dict(headers or {}))
        try:
            data = response.read()
        finally:
            if response.will_close:
                self.close()
        # As the daemon reads a path: decoded, but for what would become another path.
        kept = re.sub(r"%(2[Ff]|00)", r"%25\1", target.split("?")[0].split("#")[0])
        path = urllib.parse.unquote(kept)
        document = self.doc.check_answer(method, path, response.status, response.headers, data)
        return Answer(response.status, response.headers, data, document)

    @staticmethod
    def _target(path, query):
        text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in query.items()}
        return text, path + ("?" + urllib.parse.urlencode(text) if text else "")

    def request(self, method, path, query=None, body=None, headers=None):
        """A request that is meant to be valid. body: a document or None."""
        text, target = self._target(path, query or {})
        headers = dict(headers or {})
        self.doc.check_request(method, path, text, headers, body)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        return self.raw(method, target, data, headers)

    # ---- the verbs ----

    def get(self, path, **query):
        return self.request("GET", path, query)

    def put(self, id, spec=None, key=None, headers=None, dry_run=None, **members):
        body = dict(members)
        if spec is not None:
            body["spec"] = spec
        query = {} if dry_run is None else {"dry_run": dry_run}
        return self.request("PUT", "/v1/containers/" + id, query, body, self._headers(key, headers))

    def post(self, id, verb, body=None, key=None, **query):
        return self.request("POST", f"/v1/containers/{id}/{verb}", query, body, self._headers(key))

    def start(self, id, **rest):
        return self.post(id, "start", **rest)

    def pause(self, id, **rest):
        return self.post(id, "pause", **rest)

    def resume(self, id, **rest):
        return self.post(id, "resume", **rest)

    def kill(self, id, signal=None, timeout_ms=None, key=None, **query):
        body = {}
        if signal is not None:
            body["signal"] = signal
        if timeout_ms is not None:
            body["timeout_ms"] = timeout_ms
        return self.post(id, "kill", body or None, key, **query)

    def delete(self, id, force=None, key=None, **query):
        if force is not None:
            query["force"] = force
        return self.request("DELETE", "/v1/containers/" + id, query, None, self._headers(key))

    def container(self, id, **query):
        return self.get("/v1/containers/" + id, **query)

    def wait(self, id, what="stopped", timeout=60, **query):
        return self.request("GET", f"/v1/containers/{id}/wait", {"for": what, "timeout": timeout, **query})

    def events(self, after=0, wait=0, limit=1000):
        return self.get("/v1/events", after=after, wait=wait, limit=limit).expect(200).json

    def all_events(self, after=0):
        """Every event behind after; asserts that there is no gap."""
        items = []
        while True:
            page = self.events(after)
            if not page["items"]:
                return items
            for event in page["items"]:
                assert not items or event["seq"] == items[-1]["seq"] + 1, f"a gap before {event}"
                items.append(event)
            after = page["next"]

    def containers(self, **query):
        """All pages."""
        items, after = [], None
        while True:
            if after is not None:
                query["after"] = after
            page = self.get("/v1/containers", **query).expect(200).json
            items += page["items"]
            after = page["next"]
            if after is None:
                return items

    @staticmethod
    def _headers(key, headers=None):
        headers = dict(headers or {})
        if key is not None:
            headers["Idempotency-Key"] = key
        return headers

    def stream(self, path, query=None, headers=None):
        """An endless answer on a connection of its own; close() it."""
        text, target = self._target(path, query or {})
        headers = dict(headers or {})
        self.doc.check_request("GET", path, text, headers, None)
        connection = UnixConnection(self.path, self.timeout)
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            data = response.read()
            document = self.doc.check_answer("GET", path, response.status, response.headers, data)
            connection.close()
            return Answer(response.status, response.headers, data, document)
        self.doc.check_answer("GET", path, response.status, response.headers, b"", streaming=True)
        return Stream(connection, response, self.doc)


class Stream:
    status = 200

    def __init__(self, connection, response, doc):
        self.connection, self.response, self.doc = connection, response, doc

    def close(self):
        self.response.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def read1(self, n=65536):
        """Some bytes, b"" at the end."""
        return self.response.read1(n)

    def read_until(self, mark):
        data = b""
        while mark not in data:
            more = self.read1()
            assert more, f"the stream ended before {mark!r}: {data[-300:]!r}"
            data += more
        return data

    def read_all(self):
        data = b""
        while True:
            more = self.read1()
            if not more:
                return data
            data += more

    def events(self):
        """Server-sent events, decoded and checked."""
        fields = {}
        while True:
            line = self.response.readline()
            if not line:
                return
            line = line.decode("utf-8").rstrip("\n")
            if line == "":
                if fields:
                    event = json.loads(fields["data"])
                    self.doc.check_named(event, "Event", "server-sent event")
                    assert fields["id"] == str(event["seq"]) and fields["event"] == event["type"], fields
                    yield event
                fields = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(": ")
                assert name in ("id", "event", "data") and name not in fields, line
                fields[name] = value
