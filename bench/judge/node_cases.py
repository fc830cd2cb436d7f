"""Cases of one server: rates of requests, starts, bytes."""

import os
import re
import shutil
import socket
import time
import urllib.request

import measure
from measure import Process

from . import slow_disk
from .case import Row, case
from .load import fill, rate

READ = "/v2/keys/bench/read"


def first_write(server):
    """Starts the process and returns the milliseconds until a write is acknowledged."""
    return first_answer(server, b"PUT /v2/keys/bench/first HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")


def first_answer(server, request, seconds=120):
    start = time.monotonic()
    server.spawn()
    while time.monotonic() < start + seconds:
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                connection.sendall(request)
                if connection.recv(4096).startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
                    return (time.monotonic() - start) * 1000
        except OSError:
            pass
        if server.process.poll() is not None:
            raise SystemExit("%s ended:\n%s" % (server.name, server.log()))
        time.sleep(0.001)
    raise SystemExit("%s does not answer:\n%s" % (server.name, server.log()))


@case("start", "start, restart, memory and files of an idle node", rounds_max=3)
def start(bench):
    rows = {}
    with bench.prepared() as server:
        rows["start to first write"] = Row(first_write(server), "ms")
        rows["memory, idle"] = Row(measure.idle_memory(Process(server.pid)), "MiB")
        files = [file for file in server.data.rglob("*") if file.is_file()]
        rows["data directory, empty"] = Row(sum(file.stat().st_size for file in files) / 1e6, "MB")
        server.stop()
        rows["restart to first write"] = Row(first_write(server), "ms")
        rows["program"] = Row(os.stat(shutil.which(server.words[0])).st_size / 1e6, "MB")
        return rows


@case("get", "GET of one key")
def get(bench):
    with bench.server() as server:
        return {"GET, %d connection%s" % (connections, "s"[:connections > 1]): rate(server, connections, bench.seconds, READ)
                for connections in bench.shorter((1, 64, 256), (64,))}


@case("put", "PUT of 64 bytes to 2,000 keys, each synced")
def put(bench):
    with bench.server() as server:
        return {"PUT, %d connection%s" % (connections, "s"[:connections > 1]):
                rate(server, connections, bench.seconds, kind="put") for connections in bench.shorter((1, 8, 64, 256), (1, 64))}


def metric(server, name):
    with urllib.request.urlopen(server.url + "/metrics", timeout=60) as page:
        return float(re.search(r"^%s (\S+)" % name, page.read().decode(), re.M).group(1))


def syncs(server):
    return metric(server, "etcd_disk_wal_fsync_duration_seconds_count")


SLOW_MS = 50


@case("crowd", "PUT of 64 bytes with 1,000 connections, on this disk and on a slow one")
def crowd(bench):
    row, each = writes_per_sync(bench, 1000)
    rows = {"PUT, 1000 connections": row, "writes per sync, 1000 connections": Row(each, "")}
    # Each connection has one write on the way, so that a sync stores at most as many writes as there are connections.
    for connections in bench.shorter((1000, 2500), (1000,)):
        _, each = writes_per_sync(bench, connections, SLOW_MS)
        rows["writes per sync, %d connections, %d ms in each sync" % (connections, SLOW_MS)] = Row(each, "")
    return rows


def writes_per_sync(bench, connections, delay_ms=0):
    with bench.server(slow_disk.wrapper(delay_ms) if delay_ms else ()) as server:
        before = syncs(server)
        row = rate(server, connections, bench.seconds, kind="put")
        return row, row.requests / max(syncs(server) - before, 1)


@case("qget", "quorum GET of one key")
def quorum_get(bench):
    with bench.server() as server:
        return {"quorum GET, 64 connections": rate(server, 64, bench.seconds, READ + "?quorum=true")}


@case("list", "recursive listing of 1,000 keys")
def listing(bench):
    with bench.server() as server:
        fill(server, 1000, directory="list")
        return {"listing of 1,000 keys, 8 connections":
                rate(server, 8, bench.seconds, "/v2/keys/list?recursive=true")}


@case("cas", "compare-and-swap of one key by all connections")
def compare_and_swap(bench):
    with bench.server() as server:
        measure.write(server, "bench/contended", "v" * 64)
        return {"CAS of one key, 64 connections": rate(server, 64, bench.seconds, kind="cas")}


@case("post", "POST of in-order keys to one directory")
def post(bench):
    with bench.server() as server:
        return {"in-order POST, 64 connections": rate(server, 64, bench.seconds, kind="post")}


@case("ttl", "PUT with a time to live, while 100,000 keys have one")
def time_to_live(bench):
    with bench.server() as server:
        fill(server, bench.shorter(100_000, 5_000), directory="live", ttl=7200)
        return {"PUT with ttl, 100,000 live, 64 connections": rate(server, 64, bench.seconds, kind="ttl")}
