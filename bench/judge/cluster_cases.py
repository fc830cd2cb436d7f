"""Cases of three members."""

import http.client
import signal
import statistics
import sys
import threading
import time

import measure

from . import slow_disk
from .case import Row, case
from .load import rate
from .node_cases import READ

ATTEMPTS = 8


class LeaderChanged(Exception):
    """The numbers of this attempt mean nothing."""


def with_leader(bench, measured, attempts=3):
    """Starts clusters until one keeps its leader during `measured(cluster, leader, follower)`."""
    for _ in range(attempts):
        cluster = bench.cluster()
        try:
            leader = cluster.start().leader()
            follower = next(server for server in cluster.servers if server is not leader)
            measure.write(leader, "bench/read", "v" * 64)
            measure.wait_value(follower, "bench/read")
            rows = measured(cluster, leader, follower)
            if cluster.leader() is leader:
                return rows
        finally:
            cluster.remove()
        print("%s: the leader changed, measuring again" % bench.name, file=sys.stderr, flush=True)
    raise SystemExit("%s: the leader changed in %d attempts" % (bench.name, attempts))


@case("cluster", "three members: PUT and quorum GET")
def cluster(bench):
    def measured(three, leader, follower):
        def run(server, connections, target="", kind=None):
            return rate(server, connections, bench.seconds, target, kind, three.servers)
        return {
            "3 members: PUT, 1 connection": run(leader, 1, kind="put"),
            "3 members: PUT through the leader, 64 connections": run(leader, 64, kind="put"),
            "3 members: PUT through a follower, 64 connections": run(follower, 64, kind="put"),
            "3 members: quorum GET through a follower, 64 connections": run(follower, 64, READ + "?quorum=true"),
        }
    return with_leader(bench, measured)


@case("slow", "three members, one with a slow disk: quorum GET while 64 clients write", rounds_max=2)
def slow(bench):
    rows = {}
    for role in bench.shorter(("follower", "leader"), ("follower",)):
        for delay in bench.shorter((20, 150), (20,)):
            name = "quorum GET p99, %d ms in each sync of %s" % (
                delay, "the leader" if role == "leader" else "one follower")
            rows[name] = Row(slow_p99(bench, delay, role), "ms")
    return rows


def slow_p99(bench, delay, role):
    """Starts a cluster whose first member has a slow disk, and brings that member into the role."""
    three = bench.cluster()
    slowed = three.servers[0]
    slowed.wrapper = slow_disk.wrapper(delay)
    try:
        leader = in_role(three.start(), slowed, role)
        measure.write(leader, "bench/read", "v" * 64)
        writing = threading.Thread(target=rate, args=(leader, 64, bench.seconds + 1), kwargs={"kind": "put"})
        writing.start()
        time.sleep(0.5)
        row = rate(leader, 4, bench.seconds, READ + "?quorum=true")
        writing.join()
        return row.p99
    finally:
        three.remove()


def in_role(three, slowed, role):
    """Brings a member into the role. Returns the leader."""
    for _ in range(ATTEMPTS):
        leader = three.leader()
        if (leader is slowed) == (role == "leader"):
            return leader
        others = [server for server in three.servers if server is not leader]
        if role == "follower":
            leader.stop()       # it transfers its leadership
            three.leader(others)
            leader.start()
        else:
            elect(three, leader, slowed, next(server for server in others if server is not slowed))
    raise SystemExit("%s: the member with the slow disk does not become the %s" % (three.name, role))


def elect(three, leader, wanted, third):
    """Gives `wanted` a head start: the third member is paused, and the leader restarts while `wanted` already waits."""
    third.send(signal.SIGSTOP)
    try:
        leader.send(signal.SIGKILL)
        leader.process.wait()
        time.sleep(0.7)
        leader.spawn()
        three.leader([wanted, leader])
    finally:
        third.send(signal.SIGCONT)


@case("failover", "three members: from kill -9 of the leader to the first write", rounds_max=5)
def failover(bench):
    times = []
    repetitions = bench.shorter(10 if bench.name == "edgetcd" else 4, 1)
    three = bench.cluster()
    try:
        three.start()
        for _ in range(repetitions):
            leader = three.leader()
            others = [server for server in three.servers if server is not leader]
            measure.write(leader, "bench/before", "x")
            begin = time.monotonic()
            leader.send(signal.SIGKILL)
            first_write_to(others)
            times.append((time.monotonic() - begin) * 1000)
            leader.process.wait()
            leader.start()
    finally:
        three.remove()
    return {"failover after kill -9, median": Row(statistics.median(times), "ms"),
            "failover after kill -9, worst": Row(max(times), "ms")}


def first_write_to(members):
    """Tries the members in turns until one acknowledges a write."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for member in members:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", member.port, timeout=1)
                connection.request("PUT", "/v2/keys/bench/after?value=x")
                status = connection.getresponse().status
                connection.close()
                if status in (200, 201):
                    return
            except OSError:
                pass
            time.sleep(0.001)
    raise SystemExit("no write for a minute after a failover:\n%s" % members[0].log())
