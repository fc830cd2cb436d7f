"""The `etcd` crate for Rust: a scenario with every call of the crate, in `crate/src`, and the crate's own tests.

Our scenario is a separate Cargo workspace with a lock file, built into target/. The crate's calls that change members
fail against every etcd, because they send a form. Its TLS needs OpenSSL's headers, so it is built without.

The crate's package contains its own tests. They are copied next to our `test.rs`, which sets the server. The crate uses
another endpoint only after a failure, so the tests run on one node of each server.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess

from compare import HERE, servers, try_program

MANIFEST = HERE / "crate/Cargo.toml"
FOLDER = servers.ROOT / "target/clients/crate"
OWN_TESTS = ["kv_test", "stats_test", "members_test", "client_test", "auth_test"]

# Some of the crate's own tests contain the URL of their server.
THEIR_URL = '&["http://etcd:2379"]'
OUR_URL = '&[std::env::var("ETCD_URLS").unwrap().as_str()]'

# The crate's own tests that are skipped.
LEFT_OUT = {
    "https": "needs the crate's TLS",
    "https_without_valid_client_certificate": "needs the crate's TLS",
    "versions": "wants etcd 2.3.8",
    "list": "wants a member named default",
    "watch": "sets a key without knowing that it is watched, and waits for ever if it was not",
    "watch_recursive": "the same",
}


def cargo(*words, **options):
    environment = dict(os.environ, CARGO_TARGET_DIR=str(FOLDER))
    return subprocess.run(["cargo", *words], check=True, env=environment, **options)


def built():
    cargo("build", "--quiet", "--locked", "--manifest-path", str(MANIFEST))
    return str(FOLDER / "debug/etcd-crate-trial")


def own_tests():
    """Builds the programs of the crate's own tests."""
    listed = cargo("metadata", "--locked", "--format-version=1", "--manifest-path", str(MANIFEST), stdout=subprocess.PIPE)
    packages = json.loads(listed.stdout)["packages"]
    theirs = next(pathlib.Path(package["manifest_path"]).parent for package in packages if package["name"] == "etcd")
    copy = FOLDER / "own"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(HERE / "crate", copy, ignore=shutil.ignore_patterns("target", "own"))
    (copy / "tests").mkdir()
    shutil.copy(HERE / "crate/own/test.rs", copy / "tests")
    for name in OWN_TESTS:
        text = (theirs / "tests" / (name + ".rs")).read_text()
        (copy / "tests" / (name + ".rs")).write_text(text.replace(THEIR_URL, OUR_URL))
    words = ["test", "--quiet", "--locked", "--no-run", "--message-format=json", "--manifest-path", str(copy / "Cargo.toml")]
    made = cargo(*words, *("--test=%s" % name for name in OWN_TESTS), stdout=subprocess.PIPE, text=True)
    messages = [json.loads(line) for line in made.stdout.splitlines()]
    return [message["executable"] for message in messages if message.get("executable")]


def run_own_tests(programs, nodes):
    """The result of each test by its name."""
    results = {}
    for program in programs:
        left_out = [word for name in LEFT_OUT for word in ("--skip", name)]
        done = subprocess.run([program, "--exact", "--test-threads=1", *left_out], timeout=120, text=True,
                              env=dict(os.environ, ETCD_URLS=",".join(nodes.urls)), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        results.update(re.findall(r"^test (\w+) \.\.\. (\w+)$", done.stdout, re.MULTILINE))
    return results


def trial(started, report, options):
    try_program("etcd-crate", [built()], started, report, options)
    programs = own_tests()
    for who, line in (("the reference", options.reference), ("edgetcd", options.server)):
        results = run_own_tests(programs, started(line, 1))
        report.hold("FAILED: %d of the etcd crate's own tests were run with %s" % (len(results), who), len(results) >= 30)
        for name, result in results.items():
            report.hold("FAILED: the etcd crate's own test %s with %s" % (name, who), result == "ok")
