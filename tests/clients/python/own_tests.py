"""python-etcd's own tests, with the server that is called `etcd` in PATH; a line for each test.

    own_tests.py CLIENT_PORT PEER_PORT MODULE...

The tests are in the installed package. They start servers themselves and have fixed ports in their text, so a
copy is made in which the ports are free ones: four for clients from CLIENT_PORT on, three for peers from PEER_PORT.
Their helper sleeps two seconds for each server that it starts or kills; here it waits until the servers answer,
and until the killed one is gone. nose, which no longer runs, is used by them for one decorator.
"""

import importlib.util
import multiprocessing
import os
import pathlib
import re
import shutil
import socket
import sys
import tempfile
import time
import types
import unittest
import urllib.parse
import urllib.request

READY_SECONDS = 20


def copy_with_ports(client_port, peer_port):
    """The package in a folder of its own, first in sys.path."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="python-etcd-"))
    package = folder / "etcd"
    shutil.copytree(pathlib.Path(importlib.util.find_spec("etcd").origin).parent, package,
                    ignore=shutil.ignore_patterns("__pycache__"))
    for path in package.glob("tests/**/*.py"):
        if "unit" in path.parts:
            continue
        text = re.sub(r"\b600([1-4])\b", lambda port: str(client_port + int(port[1]) - 1), path.read_text("utf-8"))
        path.write_text(re.sub(r"\b8001\b", str(peer_port), text), "utf-8")
    sys.path.insert(0, str(folder))
    return folder


def stand_in_for_nose():
    def nottest(function):
        function.__test__ = False
        return None                         # unittest selects by name and does not see it

    tools = types.ModuleType("nose.tools")
    tools.nottest = nottest
    sys.modules["nose"] = types.ModuleType("nose")
    sys.modules["nose.tools"] = tools


def answers(url):
    """Of TLS, that somebody listens is enough."""
    address = urllib.parse.urlsplit(url)
    try:
        if address.scheme == "https":
            socket.create_connection((address.hostname, address.port), timeout=2).close()
        else:
            urllib.request.urlopen(url + "/health", timeout=2).close()
        return True
    except OSError:
        return False


def wait_for_conditions(helpers):
    """Makes the helper wait for what it sleeps for."""
    helpers.time = types.SimpleNamespace(sleep=lambda seconds: None)
    run = helpers.EtcdProcessHelper.run

    def run_and_wait(self, number=1, proc_args=()):
        run(self, number, list(proc_args))
        deadline = time.monotonic() + READY_SECONDS
        for slot, (_, process) in self.processes.items():
            url = "%s127.0.0.1:%d" % (self.schema, self.port_range_start + slot)
            while not answers(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError("the server at %s does not come up" % url)
                time.sleep(0.02)

    def kill_one(self, slot):
        folder, process = self.processes.pop(slot)
        process.kill()
        process.wait()
        shutil.rmtree(folder)

    helpers.EtcdProcessHelper.run = run_and_wait
    helpers.EtcdProcessHelper.kill_one = kill_one


class Lines(unittest.TestResult):
    """A line for each test; a class that cannot be set up fails as one."""

    def say(self, word, test, error=None):
        name = re.sub(r".*tests\.", "", test.id()).rstrip(")")
        reason = "" if error is None else ": %s: %s" % (error[0].__name__, str(error[1]).replace("\n", " ")[:200])
        print("%s %s%s" % (word, name, reason), flush=True)

    def addSuccess(self, test):
        self.say("ok", test)

    def addError(self, test, err):
        self.say("FAILED", test, err)

    def addFailure(self, test, err):
        self.say("FAILED", test, err)

    def addSkip(self, test, reason):
        print("skipped %s: %s" % (test.id(), reason), flush=True)


def main():
    client_port, peer_port, *modules = sys.argv[1:]
    multiprocessing.set_start_method("fork")        # the tests start functions that are local to them
    if not hasattr(unittest.TestCase, "assertEquals"):
        unittest.TestCase.assertEquals = unittest.TestCase.assertEqual      # its name until Python 3.12
    stand_in_for_nose()
    folder = copy_with_ports(int(client_port), int(peer_port))
    try:
        from etcd.tests.integration import helpers
        wait_for_conditions(helpers)
        unittest.defaultTestLoader.loadTestsFromNames(["etcd.tests." + module for module in modules]).run(Lines())
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
