"""Code shared by the client tests: one or three nodes of each server, and a report that compares two outputs.

The responses of two servers can be compared line by line under two conditions. Both begin at the same index (`level`),
and each member has applied all earlier writes (`Nodes.caught_up`; a plain read does not wait for that).
"""

import concurrent.futures
import difflib
import json
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "harness")]

import servers                                          # noqa: E402

# A test program prints this line when the leader is to be killed, and then waits for a line of input.
KILL_THE_LEADER = "kill the leader\n"
TRIAL_SECONDS = 120


class Nodes:
    """One node, or three that are a cluster."""

    def __init__(self, line, name, count, folder=None):
        self.cluster = servers.Cluster(line, name, count, folder, ("--cors=*",))
        self.servers = list(self.cluster.servers)       # the running servers

    def __enter__(self):
        self.cluster.start()
        try:
            until("all members are known by name", self.complete, servers.READY_SECONDS)
        except BaseException:
            self.cluster.remove()
            raise
        return self

    def __exit__(self, *_):
        self.cluster.remove()

    @property
    def urls(self):
        return [server.url for server in self.cluster.servers]

    def complete(self):
        """Whether every member knows the names of all members. The reference counts publishing a name as a write."""
        for server in self.servers:
            members = ask(server.url + "/v2/members")["members"]
            versions = ask(server.url + "/version")
            if not all(member["name"] for member in members) or versions["etcdcluster"] == "not_decided":
                return False
        return True

    def kill_leader(self):
        """Kills the leader and waits until the others have a new one."""
        self.cluster.servers = self.servers
        leader = self.cluster.leader()
        leader.process.kill()
        leader.process.wait()
        self.servers = [server for server in self.servers if server is not leader]

        def another():
            named = {server.leader_named() for server in self.servers}
            return len(named) == 1 and named != {None} and named != {leader.member}

        try:
            until("another leader", another, servers.READY_SECONDS)
        finally:
            self.cluster.servers = self.servers + [leader]

    def caught_up(self):
        """Waits until each member has applied all acknowledged writes. A quorum read waits for that."""
        for server in self.servers:
            try:
                urllib.request.urlopen(server.url + "/v2/keys/none?quorum=true", timeout=10).close()
            except urllib.error.HTTPError as error:
                error.close()

    def index(self):
        self.caught_up()
        with urllib.request.urlopen(self.servers[0].url + "/v2/keys/", timeout=5) as answer:
            return int(answer.headers["X-Etcd-Index"])

    def watchers(self):
        return sum(ask(server.url + "/v2/stats/store")["watchers"] for server in self.servers)


def ask(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def until(what, condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("waited %d s for: %s" % (seconds, what))
        time.sleep(0.005)


def level(all_nodes):
    """Writes to the servers with lower indexes until all have the same index."""
    indexes = [nodes.index() for nodes in all_nodes]
    for nodes, own in zip(all_nodes, indexes):
        url = nodes.servers[0].url + "/v2/keys/level"
        for number in range(max(indexes) + 2 - own):
            method = "DELETE" if number == max(indexes) + 1 - own else "PUT"
            urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5).close()
        nodes.caught_up()


def plain(text, nodes):
    """The text with placeholders for addresses, names, ids and times."""
    for server in nodes.cluster.servers:
        text = text.replace(str(server.port), "PORT").replace(str(server.peer_port), "PEERPORT")
    text = re.sub(r"\bn[0-2]\b", "NAME", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r'(TTL: |"ttl":)\d+', r"\1SECONDS", text)
    return re.sub(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{14,16}\b", "ID", text)


class Report:
    def __init__(self, show):
        self.show = show
        self.passed = self.failed = 0

    def fail(self, text):
        self.failed += 1
        print(text, flush=True)

    def hold(self, what, holds):
        if holds:
            self.passed += 1
        else:
            self.fail(what)

    def differ(self, what, one, other):
        """Compares two outputs that must differ."""
        self.hold("NOT DIFFERENT ANY MORE: %s\n%s" % (what, other), one != other)

    def compare(self, what, one, other):
        if self.show:
            print("%s\n%s" % (what, "".join("    " + line for line in other.splitlines(keepends=True))))
        if one == other:
            self.passed += 1
            return
        self.fail("DIFFERENT: %s" % what)
        lines = difflib.unified_diff(one.splitlines(), other.splitlines(), "reference", "edgetcd", lineterm="", n=1)
        print("\n".join("    " + line for line in lines), flush=True)

    def compare_lines(self, what, one, other):
        """Compares two outputs with one line per call."""
        same = sum(match.size for match in difflib.SequenceMatcher(
            None, one.splitlines(), other.splitlines(), autojunk=False).get_matching_blocks())
        self.passed += same
        if one != other:
            self.compare(what, one, other)
        elif self.show:
            print("%s\n%s" % (what, "".join("    " + line for line in other.splitlines(keepends=True))))


def connections(nodes):
    """Of the nodes' client ports, from both ends, with the bytes that nobody has read."""
    ports = " or ".join("sport = :%d or dport = :%d" % (server.port, server.port) for server in nodes.cluster.servers)
    return subprocess.run(["ss", "-tnp", ports], capture_output=True, text=True).stdout


def told(command, nodes):
    """Runs a program with the nodes' URLs. Returns its output and its exit status."""
    process = subprocess.Popen(command + [",".join(nodes.urls)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    said = []

    def end():
        said.append("not at its end after %d s; its connections:\n%s" % (TRIAL_SECONDS, connections(nodes)))
        process.kill()

    too_long = threading.Timer(TRIAL_SECONDS, end)
    too_long.start()
    try:
        for line in process.stdout:
            if line == KILL_THE_LEADER:
                nodes.kill_leader()
                process.stdin.write("\n")
                process.stdin.flush()
            said.append(plain(line, nodes))
        return "".join(said) + "status %d\n" % process.wait()
    finally:
        too_long.cancel()
        process.kill()
        process.wait()


def try_program(name, command, started, report, options):
    """Runs the program on one node and on three, of the reference and of edgetcd."""
    for count in (1, 3):
        pair = [started(line, count) for line in (options.reference, options.server)]
        level(pair)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            one, other = pool.map(lambda nodes: told(command, nodes), pair)
        if not one.endswith("status 0\n"):
            raise SystemExit("%s fails against %d of the reference:\n%s" % (name, count, one))
        report.compare_lines("%s, %s" % (name, "one node" if count == 1 else "three nodes"), one, other)
        for nodes in pair:
            nodes.cluster.remove()
