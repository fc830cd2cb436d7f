"""What the machine allows, measured in the same run: the HTTP server alone, and one sync alone."""

import json
import os
import subprocess
import sys

import servers

from . import slow_disk
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


def measure(folder, seconds, with_http1=True):
    """{what: (number, unit)}"""
    limits = {"one msync of 4 KiB, median": (slow_disk.raw_sync(folder), "µs")}
    if with_http1:
        path = os.environ.get("HTTP1_BENCH") or program()
        with Constant(path) as constant:
            for connections in (1, 64, 256):
                row = rate(constant, connections, seconds, "/")
                limits["http1 with a constant response, %d connections" % connections] = (row.value, "/s")
                limits["its CPU per response, %d connections" % connections] = (row.cpu, "µs")
    for name, (number, unit) in limits.items():
        print("limit    %s: %.4g %s" % (name, number, unit), file=sys.stderr, flush=True)
    return limits
