"""What the machine allows, measured in the same run: the HTTP server alone, and one sync alone."""

import json
import os
import statistics
import subprocess
import sys

import servers

from .load import rate
from .watchers import Connections

WAKES = 5                # repetitions; the median counts


class Constant:
    """The HTTP server with a constant response: `bench/http1.rs`, in a process of its own."""

    name = "http1"

    def __init__(self, program):
        self.process = subprocess.Popen([program, "serve-http1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = "http://" + self.process.stdout.readline().strip()

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        return ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def program():
    """Builds the benchmark of the HTTP server with the profile of the release. Returns its path."""
    built = subprocess.run(
        ["cargo", "bench", "--locked", "--bench", "http1", "--no-run", "--message-format=json"],
        cwd=servers.ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in built.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "http1":
            if message.get("executable"):
                return message["executable"]
    raise SystemExit("cargo built no benchmark named http1")


def of_the_machine(seconds):
    """{what: (number, unit)} of the HTTP server alone, and of sockets alone."""
    bench = os.environ.get("HTTP1_BENCH") or program()
    return {**of_http1(bench, seconds), **of_sends(bench)}


def of_sends(bench):
    """The time in ms until each of many connections has a response that is ready, sent by two threads."""
    limits = {}
    for count in (1000, 5000):
        process = subprocess.Popen([bench, "send-to-all", str(count)], stdout=subprocess.PIPE, text=True)
        try:
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            took = statistics.median(sends(port, count) for _ in range(WAKES))
        finally:
            process.kill()
            process.wait()
        limits["%s ready responses sent, until the last is there" % format(count, ",")] = (took, "ms")
        print("limit    %d sends: %.1f ms" % (count, took), file=sys.stderr, flush=True)
    return limits


def sends(port, count):
    with Connections(port, [b""] * count) as connections, Connections(port, [b""]) as trigger:
        connections.expect_events()
        return connections.milliseconds_until_all_have(lambda: trigger.sockets[0].sendall(b"x"))


def of_http1(bench, seconds):
    limits = {}
    with Constant(bench) as constant:
        for connections in (1, 64, 256):
            row = rate(constant, connections, seconds, "/")
            limits["http1 with a constant response, %d connections" % connections] = (row.value, "/s")
            limits["its CPU per response, %d connections" % connections] = (row.cpu, "µs")
            print("limit    http1, %d connections: %.0f/s" % (connections, row.value), file=sys.stderr, flush=True)
    return limits


def of_syncs(syncs):
    """The same of one msync of 4 KiB in an allocated segment, in µs."""
    return {"one msync of 4 KiB, median of the run": (statistics.median(syncs), "µs"),
            "the same in the fastest moment": (min(syncs), "µs"),
            "the same in the slowest moment": (max(syncs), "µs")}
