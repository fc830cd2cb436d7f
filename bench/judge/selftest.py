#!/usr/bin/env python3
"""Tests of the judge itself: does it count, compare and draw correctly? Needs wrk, and no server.

    bench/judge/selftest.py
"""

import argparse
import contextlib
import io
import itertools
import os
import pathlib
import socket
import socketserver
import sys
import threading
import time
import unittest
from unittest import mock
from xml.dom import minidom

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "tests/harness")]

import measure                                              # noqa: E402
from judge import cluster_cases, goals, growth, load, node_cases, plot, report, turns, watchers  # noqa: E402
from judge.case import Bench, Case, Row                     # noqa: E402


class Table(unittest.TestCase):
    def test_a_ratio_is_computed_within_a_round(self):
        # The machine is ten times as fast in the second round. That changes no ratio.
        rows = {"GET": {"reference": [Row(100), Row(1000)], "edgetcd": [Row(300), Row(3000)]}}
        line = report.lines(rows)[0]
        self.assertEqual((line.ratio, line.ratio_min, line.ratio_max), (3, 3, 3))
        self.assertEqual((line.reference, line.own), (550, 1650))

    def test_the_spread_is_that_of_the_rounds(self):
        rows = {"GET": {"reference": [Row(100)] * 3, "edgetcd": [Row(500), Row(200), Row(300)]}}
        line = report.lines(rows)[0]
        self.assertEqual((line.ratio, line.ratio_min, line.ratio_max), (3, 2, 5))
        self.assertIn("3.00× (2.00–5.00)", report.markdown([line], {}, ABOUT))

    def test_a_missed_goal_is_named(self):
        name = "GET, 64 connections"
        rows = {name: {"reference": [Row(100, cpu=10)], "edgetcd": [Row(300, cpu=1)]}}
        table = report.lines(rows)
        self.assertEqual(goals.check(table[0]), [("≥ 3.5×", False), ("≤ 0.17× CPU", True)])
        self.assertEqual(report.missed(table), [name + ": ≥ 3.5×"])


    def test_a_goal_without_a_number_is_missed(self):
        name = "GET, 64 connections"
        rows = {name: {"reference": [Row(0)], "edgetcd": [Row(300, cpu=1)]}}
        self.assertEqual(report.missed(report.lines(rows)),
                         [name + ": ≥ 3.5× (no number)", name + ": ≤ 0.17× CPU (no number)"])

    def test_a_row_that_the_reference_cannot_have_is_shown(self):
        rows = {"heartbeats": {"edgetcd": [Row(120, "ms", only_own=True), Row(180, "ms", only_own=True)]}}
        line = report.lines(rows)[0]
        self.assertEqual((line.reference, line.own, line.ratio), (None, 150, None))
        self.assertIn("| heartbeats |  | 150 ms | – |", report.markdown([line], {}, ABOUT))

    def test_a_goal_whose_row_was_renamed_is_found(self):
        rows = dict.fromkeys(goals.GOALS)
        self.assertEqual(goals.without_row(rows), [])
        del rows["program"]
        self.assertEqual(goals.without_row(rows), ["program"])


class Turns(unittest.TestCase):
    def test_a_row_of_one_server_is_left_out_unless_it_says_why(self):
        def run(bench):
            return {} if bench.name == "reference" else {"lost": Row(1), "own": Row(2, only_own=True)}
        options = argparse.Namespace(rounds=1, reference="a", server="b", folder=None, seconds=1, short=True)
        with contextlib.redirect_stderr(io.StringIO()):
            rows, *_ = turns.run([Case("some", "", run)], options)
        self.assertEqual(list(rows), ["own"])

    def test_a_fault_of_a_case_is_reported_with_its_place(self):
        def faulty(bench):
            return {}["missing"]

        def interrupted(bench):
            raise KeyboardInterrupt

        options = argparse.Namespace(rounds=1, reference="a", server="b", folder=None, seconds=1, short=True)
        with contextlib.redirect_stderr(io.StringIO()):
            rows, _, failures, _ = turns.run([Case("bad", "", faulty), Case("good", "", lambda _: {"g": Row(1)})], options)
            with self.assertRaises(KeyboardInterrupt):
                turns.run([Case("stop", "", interrupted)], options)
        self.assertEqual(list(rows), ["g"])
        self.assertIn("in faulty", failures[0])
        self.assertIn("KeyError: 'missing'", failures[0])

    def test_a_case_that_fails_keeps_no_other_from_being_measured(self):
        def fails(bench):
            if bench.name == "edgetcd":
                raise SystemExit("no answer")
            return {"bad": Row(1)}

        asked = []

        def works(bench):
            asked.append(bench.name)
            return {"good": Row(len(asked))}

        options = argparse.Namespace(rounds=2, reference="a", server="b", folder=None, seconds=1, short=True)
        with contextlib.redirect_stderr(io.StringIO()):
            rows, _, failures, syncs = turns.run([Case("bad", "", fails), Case("good", "", works)], options)
        self.assertEqual(failures, ["bad, edgetcd: no answer"])
        self.assertEqual(list(rows), ["good"])
        self.assertEqual(len(syncs), 3)
        # The servers change places in each round.
        self.assertEqual(asked, ["reference", "edgetcd", "edgetcd", "reference"])


class Growth(unittest.TestCase):
    def test_both_servers_are_measured_at_each_point_and_ended(self):
        ended = []

        def measured(bench, points):
            try:
                for point in points[:bench.seconds]:
                    yield point, {"y": point}
            finally:
                ended.append(bench.name)

        benches = [Bench("", name, "", seconds, True) for name, seconds in (("a", 1), ("b", 3))]
        steps = growth.in_turns(measured, benches, (1, 2, 3))
        self.assertEqual([(name, point) for name, point, _ in steps], [("a", 1), ("b", 1), ("b", 2), ("b", 3)])
        self.assertEqual(ended, ["a", "b"])
        steps = growth.in_turns(measured, benches, (1, 2, 3))
        next(steps)
        steps.close()
        self.assertIn("a", ended[2:])


class Http(socketserver.ThreadingTCPServer):
    """Answers each request with 200, and records its method and target."""

    daemon_threads = True
    name, pid = "fake", os.getpid()

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.targets = set()
        self.port = self.server_address[1]
        self.url = "http://127.0.0.1:%d" % self.port

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            try:
                while line := self.rfile.readline():
                    length = 0
                    while (head := self.rfile.readline()) != b"\r\n":
                        if head.lower().startswith(b"content-length:"):
                            length = int(head.split(b":")[1])
                    self.rfile.read(length)
                    self.server.targets.add(tuple(line.decode().split()[:2]))
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            except ConnectionError:
                pass            # wrk ends in the middle of a request

    def log(self):
        return ""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Load(unittest.TestCase):
    def test_puts_into_a_directory_make_no_directory_of_their_own(self):
        with Http() as server:
            row = load.rate(server, 2, 1, kind="into", directory="wide/d0", keys=10)
        self.assertEqual(server.targets, {("PUT", "/v2/keys/wide/d0/k%d" % number) for number in range(10)})
        self.assertGreater(row.requests, 0)
        self.assertAlmostEqual(row.requests, row.value, delta=row.value / 2)      # of about a second

    def test_wide_and_deep_directories_get_the_writes_themselves(self):
        for group, points, directory in (("width", (20,), "width20/d0"), ("depth", (3,), "d3/d3/d3")):
            with Http() as server:
                bench = Bench("", "fake", "", 1, True)
                bench.server = lambda: contextlib.nullcontext(server)
                list(growth.ALL[group][4](bench, points))
            written = {target.rpartition("/")[0] for method, target in server.targets if method == "PUT"}
            self.assertEqual({path.partition("?")[0] for path in written}, {"/v2/keys/" + directory})

    def test_writes_per_sync_are_the_requests_that_wrk_counted(self):
        counts = iter([10, 15])
        bench = Bench("", "fake", "", 1, True)
        bench.server = lambda wrapper: contextlib.nullcontext("server")
        with mock.patch.object(node_cases, "syncs", lambda server: next(counts)), \
                mock.patch.object(node_cases, "rate", lambda *_, **__: Row(1, requests=400)):
            self.assertEqual(node_cases.writes_per_sync(bench, 1)[1], 80)


class SlowDisk(unittest.TestCase):
    def beside(self, writers):
        def rate(server, connections, seconds, target="", kind=None):
            return writers() if kind else Row(2, p99=3)

        leader = type("Leader", (), {"name": "n0"})
        with mock.patch.object(cluster_cases, "rate", rate), \
                mock.patch.object(cluster_cases.measure, "wait_value", lambda *_, unless: None):
            return cluster_cases.beside_writers(leader, 1)

    def test_readers_are_measured_while_others_write(self):
        self.assertEqual(self.beside(lambda: time.sleep(0.5)).p99, 3)

    def test_writers_that_fail_or_end_early_fail_the_case(self):
        def fail():
            raise SystemExit("no response")

        with self.assertRaisesRegex(SystemExit, "no response"):
            self.beside(fail)
        done = mock.Mock(done=lambda: True)
        pool = mock.MagicMock()
        pool.return_value.__enter__.return_value.submit.return_value = done
        with mock.patch.object(cluster_cases.concurrent.futures, "ThreadPoolExecutor", pool), \
                self.assertRaisesRegex(SystemExit, "ended before the readers"):
            self.beside(lambda: None)

    def test_a_member_that_lost_its_role_is_measured_again(self):
        # The member with the slow disk leads, then loses the leadership during the first measurement.
        class Three:
            def __init__(self, leaders):
                self.servers = ["slow", "b", "c"]
                self.leader = mock.Mock(side_effect=leaders)

        clusters = iter([Three(["slow", "b"]), Three(["slow", "slow"])])
        bench = Bench("", "fake", "", 1, True)
        bench.cluster = lambda wrapper: contextlib.nullcontext(next(clusters))
        seen = []
        with mock.patch.object(cluster_cases, "measure"), contextlib.redirect_stderr(io.StringIO()):
            cluster_cases.with_leader(bench, lambda three, leader, follower: seen.append((leader, follower)), (), "leader")
        self.assertEqual(seen, [("slow", "b")] * 2)


class Watches(unittest.TestCase):
    def test_what_arrives_before_the_change_is_no_event(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with watchers.Connections(listener.getsockname()[1], [b"a"] * 2) as connections:
                peers = [listener.accept()[0] for _ in range(2)]
                # The second head arrives later than the first, and before it has been quiet.
                peers[0].sendall(b"head")
                threading.Timer(watchers.QUIET_SECONDS / 3, peers[1].sendall, (b"head",)).start()
                connections.expect_events()
                took = connections.milliseconds_until_all_have(
                    lambda: [threading.Timer(wait, peer.sendall, (b"event",)).start()
                             for wait, peer in zip((0.1, 0.5), peers)])
                self.assertGreaterEqual(took, 500)
            for peer in peers:
                peer.close()


class Memory(unittest.TestCase):
    def test_a_busy_process_is_not_measured(self):
        cpus = iter([0, 1, 2, 2.01])
        process = type("Process", (), {"pid": 1, "cpu": lambda self: next(cpus), "memory": lambda self: 7})()
        with mock.patch.object(measure, "IDLE_SECONDS", 0):
            self.assertEqual(measure.idle_memory(process), 7)
        self.assertEqual(list(cpus), [])
        busy = itertools.count()
        process = type("Process", (), {"pid": 1, "cpu": lambda self: next(busy)})()
        with mock.patch.object(measure, "IDLE_SECONDS", 0), self.assertRaisesRegex(SystemExit, "still busy"):
            measure.idle_memory(process, seconds=0.05)


class Filler(unittest.TestCase):
    def test_each_response_counts_once_however_it_is_cut(self):
        listener = socket.create_server(("127.0.0.1", 0))
        filler = load.Filler(listener.getsockname()[1], iter([b"a"] * 3), b"value=v")
        peer, _ = listener.accept()
        response = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
        for at in range(0, 3 * len(response), 7):
            peer.sendall((response * 3)[at:at + 7])
            filler.receive()
        self.assertEqual(filler.unanswered, 0)
        for one in (peer, listener, filler.socket):
            one.close()

    def test_all_keys_are_sent(self):
        listener, targets = socket.create_server(("127.0.0.1", 0)), []
        peers = []

        def serve(peer):
            with peer.makefile("rb") as lines:
                while line := lines.readline():
                    targets.append(line.split()[1])
                    while lines.readline() != b"\r\n":
                        pass
                    lines.read(len(b"value=vv"))
                    peer.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

        def accept():
            for _ in range(load.FILL_CONNECTIONS):
                peer, _ = listener.accept()
                peers.append(peer)
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        server = type("Server", (), {"port": listener.getsockname()[1]})
        load.fill(server, 2500, value_bytes=2)
        self.assertEqual(len(set(targets)), 2500)
        for one in [listener, *peers]:
            one.close()


class Charts(unittest.TestCase):
    def test_a_chart_is_valid_xml_and_shows_each_point(self):
        chart = plot.curves("a < b", "keys", "/s", {"edgetcd": [(1, 10), (100, 20)], "reference": [(1, 5), (100, 1)]})
        document = minidom.parseString(plot.grid([chart, chart]))
        self.assertEqual(len(document.getElementsByTagName("circle")), 8)
        self.assertIn("prefers-color-scheme: dark", plot.grid([chart]))

    def test_a_longer_bar_is_a_larger_ratio(self):
        document = minidom.parseString(plot.bars("t", [("a", 2.0, 1.5, 3.0), ("b", 8.0, 8.0, 8.0)]))
        first, second = (float(bar.getAttribute("width")) for bar in document.getElementsByTagName("rect"))
        self.assertAlmostEqual(second / first, 3, delta=0.05)       # log 8 / log 2

    def test_marks_are_round_and_in_the_range(self):
        self.assertEqual(plot.marks(0, 4.7, (1,)), [1, 10, 100])
        self.assertEqual([plot.brief(number) for number in (5, 1000, 65536, 2e6)], ["5", "1k", "65.5k", "2M"])


ABOUT = {"machine": "m", "date": "d", "rounds": 1, "seconds": 1, "versions": "v", "load": 0.0}

if __name__ == "__main__":
    unittest.main()
