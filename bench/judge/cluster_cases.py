"""Cases of three members."""

import concurrent.futures
import http.client
import json
import signal
import statistics
import sys
import threading
import time
import urllib.request

import measure
from measure import Process

from . import slow_disk
from .case import Row, case
from .load import fill, rate
from .node_cases import READ, metric
from .turns import OWN

ATTEMPTS = 3             # clusters, until one keeps its leader during a measurement
ELECTIONS_MAX = 8        # elections, until the wanted member has won one
HEAD_START_SECONDS = 0.7  # less than the shortest election timeout
WRITERS = 64


def with_leader(bench, measured, wrapper=(), role=None):
    """Starts clusters until one keeps its leader during `measured(cluster, leader, follower)`. `wrapper`: words before
    the command line of the first member, which then has this `role`."""
    for _ in range(ATTEMPTS):
        with bench.cluster(wrapper=wrapper) as cluster:
            leader = in_role(cluster, cluster.servers[0], role) if role else cluster.leader()
            follower = next(server for server in cluster.servers if server is not leader)
            measure.write(leader, "bench/read", "v" * 64)
            measure.wait_value(follower, "bench/read")
            rows = measured(cluster, leader, follower)
            if cluster.leader() is leader:
                return rows
        print("%s: the leader changed, measuring again" % bench.name, file=sys.stderr, flush=True)
    raise SystemExit("%s: the leader changed in %d attempts" % (bench.name, ATTEMPTS))


@case("cluster", "three members: PUT, quorum GET and memory")
def cluster(bench):
    def measured(three, leader, follower):
        def run(server, connections, target="", kind=None):
            return rate(server, connections, bench.seconds, target, kind, three.servers)
        idle = max(measure.idle_memory(Process(server.pid)) for server in three.servers)
        return {
            "3 members: memory of a node, idle": Row(idle, "MiB"),
            "3 members: PUT, 1 connection": run(leader, 1, kind="put"),
            "3 members: PUT through the leader, 64 connections": run(leader, 64, kind="put"),
            "3 members: PUT through a follower, 64 connections": run(follower, 64, kind="put"),
            "3 members: quorum GET through a follower, 64 connections": run(follower, 64, READ + "?quorum=true"),
            "3 members: memory of the leader after these": Row(Process(leader.pid).memory(), "MiB"),
        }
    return with_leader(bench, measured)


@case("slow", "three members, one with a slow disk: quorum GET while 64 clients write", rounds_max=2)
def slow(bench):
    rows = {}
    for role in bench.shorter(("follower", "leader"), ("follower",)):
        for delay in bench.shorter((20, 150), (20,)):
            name = "quorum GET p99, %d ms in each sync of %s" % (
                delay, "the leader" if role == "leader" else "one follower")
            p99 = with_leader(bench, lambda three, leader, follower: beside_writers(leader, bench.seconds).p99,
                              slow_disk.wrapper(delay), role)
            rows[name] = Row(p99, "ms")
    return rows


def beside_writers(leader, seconds):
    """The Row of quorum GETs during which other clients write without a pause."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        writing = pool.submit(rate, leader, WRITERS, seconds + 2, kind="put")
        # This is the second key that the first of wrk's threads writes.
        measure.wait_value(leader, "bench/t1/k2", unless=writing.done)
        row = rate(leader, 4, seconds, READ + "?quorum=true")
        wrote_until_now = not writing.done()
        writing.result()        # raises what the writers met
    if not wrote_until_now:
        raise SystemExit("%s: the writers ended before the readers" % leader.name)
    return row


def in_role(three, slowed, role):
    """Brings a member into the role. Returns the leader."""
    for _ in range(ELECTIONS_MAX):
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
        time.sleep(HEAD_START_SECONDS)
        leader.spawn()
        three.leader([wanted, leader])
    finally:
        third.send(signal.SIGCONT)


SNAPSHOT_RUNS_MAX = 15   # runs with writes, until a snapshot is made
NEVER, OFTEN = 100_000_000, 20_000      # --snapshot-count


@case("steady", "three members with 1,000,000 keys: heartbeats while the leader makes snapshots and 64 clients write",
      rounds_max=1)
def steady(bench):
    if bench.name != OWN:
        return {}               # the reference does not tell when it gets a heartbeat
    keys = bench.shorter(1_000_000, 10_000)
    with bench.cluster(flags=["--snapshot-count=%d" % NEVER]) as three:
        fill(three.leader(), keys)
        for server in three.servers:
            server.stop()
            server.flags = ["--snapshot-count=%d" % bench.shorter(OFTEN, 1_000)]
        three.start()
        leader = three.leader()
        follower = next(server for server in three.servers if server is not leader)
        before = snapshots(leader)
        with Heartbeats(follower) as heartbeats:
            for _ in range(SNAPSHOT_RUNS_MAX):
                # Snapshots of a large state become due by the bytes of the log, so the values are large.
                rate(leader, WRITERS, bench.seconds, kind="put", processes=three.servers, value_bytes=1024)
                if snapshots(leader) > before:
                    break
        made = snapshots(leader) - before
        if made == 0 or three.leader() is not leader:
            raise SystemExit("%s: %d snapshots, and the leader is %s:\n%s" % (
                bench.name, made, three.leader().member, leader.log()))
        return {"longest time between two heartbeats, beside snapshots of %s keys" % format(keys, ","):
                Row(heartbeats.longest_ms(), "ms", only_own=True)}


def snapshots(server):
    return metric(server, "etcd_debugging_snap_save_total_duration_seconds_count")


class Heartbeats:
    """Listens to the trace of a follower: when it gets the heartbeats of its leader."""

    def __init__(self, follower):
        self.stream = urllib.request.urlopen(follower.url + "/edgetcd/trace?last=0", timeout=10)
        self.times = []
        self.thread = threading.Thread(target=self.listen)
        self.ending = False

    def listen(self):
        for line in self.stream:
            record = json.loads(line)
            if record.get("kind") == "received" and record["what"] == "heartbeat":
                self.times.append(record["at"])
                if self.ending:
                    return

    def longest_ms(self):
        if len(self.times) < 2:
            raise SystemExit("the follower got %d heartbeats" % len(self.times))
        return max(later - earlier for earlier, later in zip(self.times, self.times[1:])) / 1000

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending = True
        self.thread.join(10)
        self.stream.close()


@case("failover", "three members: from kill -9 of the leader to the first write", rounds_max=5)
def failover(bench):
    times = []
    repetitions = bench.shorter(10 if bench.name == "edgetcd" else 4, 1)
    with bench.cluster() as three:
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
