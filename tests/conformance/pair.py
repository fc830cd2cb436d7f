"""Drives two servers in lockstep: sends every request to both, then compares both responses.

A step is a template: `{p}` is the key prefix of this run, `{i-3}` the store index minus 3, `{m}` the
modifiedIndex of the step's own key and `{v}` its value, as last read. So the same steps have the same meaning
with another prefix and at another index, which shrinking needs.
"""

import json
import re
import shlex
import time
import urllib.parse

import compare
import users
from users import ROOT
from wire import Broken, Connection, Stream, request_bytes, wait_until

HOLE = re.compile(r"\{(p|v|[im](?:[+-]\d+)?)\}")
WAIT = re.compile(r"[?&]wait=(1|t|T|TRUE|true|True)(&|$)")
HOST = b"127.0.0.1:"
LAG_SECONDS = 2         # how long one server may be behind the other with a watched event
EXPIRY_SECONDS = 8
FOUNDED_SECONDS = 20    # how long the reference may take to write the version of its cluster
FIRST_INDEX = 3         # of a single member: the member, its published name and URLs, the version of the cluster
JSON = (("Content-Type", "application/json"),)

# Numbers of writes and deletes before the first run, so that the two stores have different histories.
EARLIER_WRITES = (37, 1211)
MAX_WATCHES = 6


class Step:
    """One request, or `auth` (a request about users and roles), or `close` (ends a watch), or `expire` (waits until a
    key has expired on both), or `member` (updates the member's peer URLs).
    """

    __slots__ = ("kind", "method", "target", "headers", "body", "key", "name")

    def __init__(self, kind, method="", target="", headers=(), body=None, key="", name=""):
        self.kind, self.method, self.target, self.headers = kind, method, target, headers
        self.body, self.key, self.name = body, key, name


class Difference(Exception):
    """A difference between the two servers: a list of (place, reference, other)."""

    def __init__(self, step, places):
        super().__init__(step, places)
        self.step, self.places = step, places

    def signature(self):
        """Two differences count as the same if the kind of request and the place of the difference are equal."""
        step, (place, one, other) = self.step, self.places[0]
        named = (one, other) if place in ("status", "x-etcd-index present") else ()
        code = ERROR_CODE.search(str(one)) if place == "body" else None
        path = step.target.partition("?")[0]
        area = "keys" if path.startswith("/v2/keys") else path
        return (step.method, area, re.sub(r"\d+", "0", place), named, code and code.group(0))


ERROR_CODE = re.compile(r'"errorCode":\d+')


class Pair:
    """Both servers, and what is known about their state.

    `stores` sets the state at the start of a run. `unequal`: the stores of earlier runs with different histories. They
    are emptied, and the one with the lower index is written to until both have the same index. `fresh`: both servers are
    started again, and nothing is done to make them equal.
    """

    def __init__(self, reference, other, stores="unequal"):
        self.servers = (reference, other)
        self.fresh = stores == "fresh"
        self.connections = [Connection(server.port) for server in self.servers]
        self.owned = [str(server.port).encode() for server in self.servers]
        self.peers = [str(server.peer_port).encode() for server in self.servers]
        self.run = 0
        if not self.fresh:
            self.live_differently()

    # ---- a run: a prefix, an index, nothing known

    def begin(self):
        """Starts a run: an empty tree, an unused prefix, and equal indexes unless the stores are fresh."""
        self.watches = {}
        self.known = {}
        self.run += 1
        self.prefix = "r%d" % self.run
        if self.fresh:
            return self.start_anew()
        for connection in self.connections:
            self.clear(connection)
        self.level()
        self.fill_history()

    def start_anew(self):
        """Waits until the reference has made the writes of its start."""
        for connection in self.connections:
            connection.close()
        for server in self.servers:
            server.start_anew()
        wait_until(lambda: self.indexes()[0] >= FIRST_INDEX, FOUNDED_SECONDS)
        self.index = FIRST_INDEX

    def live_differently(self):
        for connection, count in zip(self.connections, EARLIER_WRITES):
            for number in range(count):
                ask(connection, "PUT", "/v2/keys/earlier/%d?value=%d" % (number % 7, number))
                if number % 5 == 0:
                    ask(connection, "DELETE", "/v2/keys/earlier/%d" % (number % 7))

    def clear(self, connection):
        ask(connection, "DELETE", "/v2/keys/r%d?recursive=true" % (self.run - 1))
        root = json.loads(ask(connection, "GET", "/v2/keys/").body)
        for node in root["node"].get("nodes", []):
            ask(connection, "DELETE", "/v2/keys%s?recursive=true" % urllib.parse.quote(node["key"]))
        self.clear_users(connection)

    @staticmethod
    def clear_users(connection):
        """Disables authentication, and deletes all users and roles, also those that no list contains."""
        ask(connection, "DELETE", "/v2/auth/enable")
        for kind, names in (("users", users.USERS), ("roles", users.ROLES)):
            for name in names + users.ODD_NAMES:
                ask(connection, "DELETE", "/v2/auth/%s/%s" % (kind, name))

    def indexes(self):
        return [int(ask(connection, "GET", "/v2/keys/").headers["x-etcd-index"])
                for connection in self.connections]

    def level(self):
        """Writes to the server with the lower index until both have the same index."""
        first, second = self.indexes()
        behind = self.connections[0 if first < second else 1]
        for _ in range(abs(first - second)):
            ask(behind, "PUT", "/v2/keys/level?value=1")
        for connection in self.connections:
            ask(connection, "PUT", "/v2/keys/level?value=1")
            ask(connection, "DELETE", "/v2/keys/level")
        first, second = self.indexes()
        assert first == second, "the indexes cannot be made equal: %d, %d" % (first, second)
        self.index = first

    def fill_history(self, events=1010):
        """Fills both histories with the same events, so that old indexes are outdated on both."""
        for _ in range(events):
            for connection in self.connections:
                connection.send(request_bytes("PUT", "/v2/keys/%s/history?value=1" % self.prefix, ROOT, None))
            for connection in self.connections:
                connection.receive(False)
        self.index = self.indexes()[0]

    # ---- one step

    def resolve(self, text, key):
        if "{" not in text:
            return text
        return HOLE.sub(lambda hole: self.fill(hole.group(1), key), text)

    def fill(self, name, key):
        if name == "p":
            return self.prefix
        modified, value = self.known.get(self.prefix + key, (self.index, "nothing"))
        if name == "v":
            return urllib.parse.quote(value or "x", safe="")
        base = self.index if name[0] == "i" else modified
        return str(max(0, base + int(name[1:] or 0)))

    def concrete(self, step):
        """The step with its placeholders replaced: target, and body as bytes or a list of pieces."""
        target = self.resolve(step.target, step.key)
        body = step.body
        if isinstance(body, str):
            body = self.resolve(body, step.key).encode("latin-1")
        elif isinstance(body, tuple):
            body = [self.resolve(piece, step.key).encode("latin-1") for piece in body]
        return target, body

    def perform(self, step):
        """Performs the step on both servers. Raises Difference. Returns an equivalent command line."""
        if step.kind == "close":
            self.close_watch(step.name)
            return "# the watch %s is closed" % step.name
        if step.kind == "member":
            return self.update_member(step)
        target, body = self.concrete(step)
        data = request_bytes(step.method, target, step.headers, body)
        line = curl(self.servers[0].port, step, target, body)
        step = Step(step.kind, step.method, target, step.headers, body, step.key, step.name)
        if step.method == "GET" and WAIT.search(target):
            self.open_watch(step, data)
        else:
            self.ask_both(step, data)
        if step.kind == "auth":
            self.learn_index(step)
        self.compare_watches(step)
        return line

    def learn_index(self, step):
        """A change of users and roles uses indexes, and its answer does not contain them."""
        first, second = self.indexes()
        if first != second:
            raise Difference(step, [("x-etcd-index after the step", first, second)])
        self.index = first

    def update_member(self, step):
        """Sets each member's peer URL to its current one, perhaps in another spelling. This uses an index."""
        statuses, lines = [], []
        for connection, server in zip(self.connections, self.servers):
            listed = json.loads(ask(connection, "GET", "/v2/members").body)["members"]
            target = "/v2/members/%s" % listed[0]["id"]
            body = json.dumps({"peerURLs": ["http://%s:%d" % (step.name, server.peer_port)]}).encode()
            connection.send(request_bytes("PUT", target, JSON + ROOT, body))
            statuses.append(connection.receive(False).status)
            lines.append(curl(server.port, Step("member", "PUT", target, JSON), target, body))
        if statuses[0] != statuses[1]:
            raise Difference(step, [("status", *statuses)])
        if statuses[0] == 204:
            self.index += 1
        return lines[0]

    def ask_both(self, step, data):
        try:
            for connection in self.connections:
                connection.send(data)
        except OSError as error:
            raise Difference(step, [("connection", "", str(error))])
        answers = [self.receive(connection, step) for connection in self.connections]
        if isinstance(answers[0], str) or isinstance(answers[1], str):
            shown = [answer if isinstance(answer, str) else answer.status for answer in answers]
            if isinstance(answers[0], str) and isinstance(answers[1], str):
                return  # neither answers, which counts as equal
            raise Difference(step, [("answer", shown[0], shown[1])])
        before = self.index
        self.compare(step, *answers)
        self.learn(step, answers[0])
        if step.kind == "expire" and answers[0].status < 300 and self.index > before:
            self.wait_for_expiry(step)

    @staticmethod
    def receive(connection, step):
        try:
            return connection.receive(step.method == "HEAD")
        except (Broken, ValueError) as error:
            connection.close()
            return "no answer: %s" % error

    def compare(self, step, one, other):
        if one.body != other.body:
            one.body, other.body = (
                answer.body.replace(HOST + port, b"CLIENT").replace(HOST + peer, b"PEER")
                for answer, port, peer in zip((one, other), self.owned, self.peers))
        places = compare.differences(step.target, step.method, one, other)
        if places:
            raise Difference(step, places)

    def learn(self, step, answer):
        """Records the index, and the key's modifiedIndex and value, for later conditions."""
        index = answer.headers.get("x-etcd-index", "0")
        if index != "0":
            self.index = int(index)
        if answer.status < 300 and step.key and len(answer.body) < 4096 and answer.body[:1] == b"{":
            node = json.loads(answer.body.decode("utf-8", "replace"), strict=False).get("node", {})
            if "modifiedIndex" in node:
                key = self.prefix + node["key"][len(self.prefix) + 1:]
                self.known[key] = (node["modifiedIndex"], node.get("value", ""))

    def wait_for_expiry(self, step):
        """Waits until a key with a time to live of at most a second has expired on both servers."""
        goal = self.index + 1
        reached = wait_until(lambda: min(self.indexes()) >= goal, EXPIRY_SECONDS)
        first, second = self.indexes()
        if not reached or first != second:
            raise Difference(step, [("x-etcd-index after the expiry", first, second)])
        self.index = goal

    # ---- watches

    def open_watch(self, step, data):
        if len(self.watches) >= MAX_WATCHES:
            self.close_watch(next(iter(self.watches)))
        name = step.name or "w%d" % len(self.watches)
        self.close_watch(name)
        streams = [Stream(server.port, data) for server in self.servers]
        heads = [self.head(stream) for stream in streams]
        if isinstance(heads[0], str) or isinstance(heads[1], str):
            shown = [head if isinstance(head, str) else head.status for head in heads]
            raise Difference(step, [("head of the watch", shown[0], shown[1])])
        self.watches[name] = Watch(step, streams)
        self.compare(step, *heads)
        index = heads[0].headers.get("x-etcd-index", "0")
        if index != "0":
            self.index = int(index)

    @staticmethod
    def head(stream):
        try:
            return stream.head()
        except (Broken, ValueError) as error:
            return "no answer: %s" % error

    def close_watch(self, name):
        watch = self.watches.pop(name, None)
        if watch:
            for stream in watch.streams:
                stream.close()

    def compare_watches(self, step):
        for name in list(self.watches):
            watch = self.watches[name]
            places = watch.differences()
            if places:
                raise Difference(watch.step, places)
            if watch.streams[0].ended:
                self.close_watch(name)

    def settle(self, step):
        """At the end of a run: outstanding events must arrive on both servers."""
        time.sleep(0.1)
        self.compare_watches(step)

    def end(self):
        for name in list(self.watches):
            self.close_watch(name)


class Watch:
    def __init__(self, step, streams):
        self.step, self.streams = step, streams
        self.twice = "stream=" in step.target

    def differences(self):
        for stream in self.streams:
            stream.poll()
        if not self.level():
            wait_until(self.level, LAG_SECONDS)
        one, other = (self.lines(stream) for stream in self.streams)
        found = []
        for number in range(max(len(one), len(other))):
            first = one[number] if number < len(one) else b""
            second = other[number] if number < len(other) else b""
            for place, left, right in compare.event_differences(first, second):
                found.append(("watched event " + place, left, right))
        ends = [stream.ended for stream in self.streams]
        if ends[0] != ends[1]:
            found.append(("end of the watch", ends[0], ends[1]))
        return found

    def level(self):
        for stream in self.streams:
            stream.poll()
        one, other = self.streams
        return one.ended == other.ended and len(self.lines(one)) == len(self.lines(other))

    def lines(self, stream):
        """The complete lines so far. In a stream, a repeated event counts once."""
        whole = stream.body if stream.ended else stream.body[:stream.body.rfind(b"\n") + 1]
        lines = whole.splitlines(keepends=True)
        if self.twice:
            lines = [line for place, line in enumerate(lines) if place == 0 or line != lines[place - 1]]
        return lines


def ask(connection, method, target):
    connection.send(request_bytes(method, target, ROOT, None))
    return connection.receive(method == "HEAD")


def curl(port, step, target, body):
    """A command line that sends this request."""
    words = ["curl", "-sS", "-i", "--path-as-is"]
    if step.method == "HEAD":
        words[1:3] = ["-sSI"]
    elif step.method != "GET":
        words += ["-X", step.method]
    typed = False
    for name, value in step.headers:
        typed = typed or name.lower() == "content-type"
        words += ["-H", "%s: %s" % (name, value)]
    if body is not None:
        if not typed:
            words += ["-H", "Content-Type:"]
        if isinstance(body, list):
            words += ["-H", "Transfer-Encoding: chunked"]
            body = b"".join(body)
        words += ["--data-binary", body.decode("latin-1")]
    base = "http://127.0.0.1:%d" % port
    if target.startswith("/"):
        words.append(base + target)
    else:
        words += ["--request-target", target, base]
    line = " ".join(quoted(word) for word in words)
    if step.method == "GET" and WAIT.search(target):
        line += " &"
    return line


def quoted(word):
    if word.isascii() and word.isprintable():
        return shlex.quote(word)
    escaped = "".join(c if " " <= c <= "~" and c not in "'\\" else "\\x%02x" % ord(c) for c in word)
    return "$'%s'" % escaped
