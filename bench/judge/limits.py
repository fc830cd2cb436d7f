"""What the machine allows, measured in the same run: the HTTP server alone, and one sync alone."""

import json
import os
import statistics
import subprocess
import sys

import servers

from .load import rate


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


def of_http1(seconds):
    """{what: (number, unit)} of the HTTP server alone."""
    limits = {}
    with Constant(os.environ.get("HTTP1_BENCH") or program()) as constant:
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
