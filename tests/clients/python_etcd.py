"""python-etcd: a scenario with every call of it, in `python/scenario.py`, and its own tests, with `python/own_tests.py`.
`python/secure.py` connects with TLS: with the right certificate, without one, and with one of another CA.

Its own tests start three servers with the name `etcd` and with flags of their choice. So this name stands for the
reference first and then for edgetcd. edgetcd must pass all tests that the reference passes. A table lists those that the
reference does not pass, with reasons. If one passes after all, the table is wrong, and that is a failure too.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import shlex
import socket
import subprocess
import sys
import tempfile
import urllib.request

from compare import HERE, servers, try_program
import certificates

VENV = servers.ROOT / "target/clients/venv"
REQUIREMENTS = HERE / "python/requirements.txt"

# Modules of python-etcd's tests. The unit tests use a mock. They show that the library works in this environment.
UNIT_TESTS = ["unit.test_client", "unit.test_lock", "unit.test_old_request", "unit.test_request", "unit.test_result"]
SERVER_TESTS = ["integration.test_simple", "integration.test_ssl", "test_auth"]

# Tests that the reference does not pass. The library was written for etcd 2.2, an older OpenSSL and an older Python.
REFERENCE_FAILS = {
    "unit.test_lock.TestClientLock.test_acquired": "mocks a mock, which Python forbids since 3.11",
    "integration.test_ssl.TestEncryptedAccess.test_get_set_authenticated":
        "its certificates are signed with SHA-1, which OpenSSL refuses",
    "integration.test_ssl.TestClientAuthenticatedAccess": "starts etcd with -ca-file, a flag that 3.4 no longer has",
    "test_auth.EtcdRoleTest.test_names": "etcd lists whole roles since 2.3, not names",
    "test_auth.EtcdRoleTest.test_read": "etcd lists a user's whole roles since 2.3, not names",
    "test_auth.EtcdRoleTest.test_write_and_delete": "the same",
    "test_auth.EtcdUserTest.test_names": "the same",
    "test_auth.EtcdUserTest.test_read": "the same",
    "test_auth.EtcdUserTest.test_write_and_delete": "the same",
}

# Tests that read a key from a member which may not have applied the write yet, and how they fail then.
RACES = {
    "integration.test_simple.TestClusterFunctions.test_reconnect_with_several_hosts_passed": "EtcdKeyNotFound",
}


def installed():
    """The Python of an environment with the packages of `requirements.txt`."""
    python, mark = VENV / "bin/python", VENV / "installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not mark.exists() or mark.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r",
                        str(REQUIREMENTS)], check=True)
        mark.write_text(wanted)
    return str(python)


def ports_in_a_row(count):
    """Finds consecutive free ports of five digits. Returns the first."""
    row = []
    while len(row) < count:
        port = servers.free_port()
        row = row + [port] if row and port == row[-1] + 1 else [port]
    return row[0]


def own_tests(python, line, modules):
    """The result of each of python-etcd's own tests: its name, and "ok" or the reason."""
    with tempfile.TemporaryDirectory(prefix="edgetcd-python-etcd-", dir=servers.memory_folder()) as folder:
        program = pathlib.Path(folder) / "etcd"
        words = shlex.split(line)
        if "/" in words[0]:
            words[0] = os.path.abspath(words[0])
        program.write_text("#!/bin/sh\nexec env PATH=%s %s \"$@\"\n" % (shlex.quote(os.environ["PATH"]), shlex.join(words)))
        program.chmod(0o755)
        environment = dict(os.environ, PATH=folder + os.pathsep + os.environ["PATH"], TMPDIR=folder)
        command = [python, str(HERE / "python/own_tests.py"), str(ports_in_a_row(4)), str(ports_in_a_row(3)), *modules]
        with open(pathlib.Path(folder) / "log", "w+") as log:
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, timeout=300)
            if done.returncode:
                log.seek(0)
                raise SystemExit("own_tests.py ended with %d:\n%s" % (done.returncode, log.read()[-3000:]))
    results = {}
    for word, _, rest in (line.partition(" ") for line in done.stdout.splitlines()):
        name, _, reason = rest.partition(": ")
        results[name] = "ok" if word == "ok" else reason
    return results


def judge(who, results, allowed, report):
    for name, result in results.items():
        if name in RACES and result.startswith(RACES[name]):
            report.hold("", True)
        elif name in allowed:
            report.differ("python-etcd's %s with %s: failed, as %s" % (name, who, allowed[name]), result, "ok")
        else:
            report.hold("FAILED: python-etcd's %s with %s: %s" % (name, who, result), result == "ok")


class Closed(servers.Server):
    """A server whose clients need a certificate of the CA."""

    def __init__(self, line, name, folder, authority):
        self.pair = authority.sign(name, ["127.0.0.1"])
        self.context = authority.context(self.pair)
        cert, key = self.pair
        super().__init__(line, name, folder, ("--cert-file=%s" % cert, "--key-file=%s" % key, "--client-cert-auth",
                                              "--trusted-ca-file=%s" % authority.ca))

    @property
    def url(self):
        return "https://127.0.0.1:%d" % self.port

    def healthy(self):
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=2, context=self.context) as answer:
                return answer.status == 200
        except OSError:
            return False


def try_certificates(python, report, options):
    with tempfile.TemporaryDirectory(prefix="edgetcd-python-etcd-", dir=servers.memory_folder()) as folder:
        ours, other = certificates.Authority(folder), certificates.Authority(folder, "other")
        pairs = [("the right certificate", ours.sign("client", ["127.0.0.1"]), "written over TLS\n"),
                 ("no certificate", (), "not answered\n"),
                 ("a certificate of another CA", other.sign("stranger", ["127.0.0.1"]), "not answered\n")]
        for who, line in (("the reference", options.reference), ("edgetcd", options.server)):
            with Closed(line, who.replace(" ", "-"), folder, ours) as server:
                for what, pair, wanted in pairs:
                    words = [python, str(HERE / "python/secure.py"), str(server.port), str(ours.ca), *map(str, pair)]
                    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
                    report.compare("python-etcd with %s, %s" % (what, who), wanted, done.stdout)


def trial(started, report, options):
    python = installed()
    try_program("python-etcd", [python, str(HERE / "python/scenario.py")], started, report, options)
    try_certificates(python, report, options)
    judge("a mock", own_tests(python, options.reference, UNIT_TESTS), REFERENCE_FAILS, report)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        lines = (options.reference, options.server)
        reference, edgetcd = pool.map(lambda line: own_tests(python, line, SERVER_TESTS), lines)
    judge("the reference", reference, REFERENCE_FAILS, report)
    judge("edgetcd", edgetcd, REFERENCE_FAILS, report)
    never_run = [name for name in reference if name not in edgetcd]
    report.hold("FAILED: python-etcd's tests that edgetcd was not put to: %s" % never_run, not never_run)
