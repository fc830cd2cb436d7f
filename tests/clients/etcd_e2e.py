"""The reference's own end-to-end tests of v2, with and without TLS, with this server as `etcd`.

Debian ships their source (golang-etcd-server-dev). They are compiled in the package's folder into target/; nothing is
copied here. They start clusters of one and three members on fixed ports, so each run has its own network namespace. They
use etcdctl and curl. They run with Debian's etcdctl and again with edgetcdctl. One round with the reference everywhere
shows whether failures are caused by the machine.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess

from compare import HERE, servers

PACKAGE = "go.etcd.io/etcd/tests/e2e"
GOPATH = pathlib.Path("/usr/share/gocode")
CERTIFICATES = GOPATH / "src/go.etcd.io/etcd/integration/fixtures"
FOLDER = servers.ROOT / "target/clients/e2e"
ROUND_SECONDS = 120

# The tests of this API.
OF_V2 = re.compile(r"Test(CtlV2|V2Curl)")

RUN = (
    "TestCtlV2Set", "TestCtlV2SetQuorum", "TestCtlV2Mk", "TestCtlV2MkQuorum", "TestCtlV2Rm", "TestCtlV2Ls",
    "TestCtlV2LsQuorum", "TestCtlV2Watch", "TestCtlV2ClusterHealth", "TestV2CurlNoTLS",
    # Users and roles.
    "TestCtlV2GetRoleUser", "TestCtlV2UserListUsername", "TestCtlV2UserListRoot", "TestCtlV2RoleList",
    "TestV2CurlIssue5182", "TestCtlV2AuthWithCommonName",
    # TLS.
    "TestCtlV2SetClientTLS", "TestCtlV2SetPeerTLS", "TestCtlV2SetTLS", "TestCtlV2MkTLS", "TestCtlV2RmTLS",
    "TestCtlV2LsTLS", "TestCtlV2WatchTLS", "TestV2CurlAutoTLS", "TestV2CurlAllTLS", "TestV2CurlPeerTLS",
    "TestV2CurlClientTLS", "TestV2CurlClientBoth",
)

LEFT_OUT = {
    "TestCtlV2Backup": "etcdctl backup reads the files of etcd's own data directory",
    "TestCtlV2BackupSnapshot": "etcdctl backup reads the files of etcd's own data directory",
    "TestCtlV2BackupV3": "etcdctl backup reads the files of etcd's own data directory",
    "TestCtlV2BackupV3Snapshot": "etcdctl backup reads the files of etcd's own data directory",
}


def compiled():
    """Builds the program of the tests."""
    servers.install_reference(("golang-go", "golang-etcd-server-dev"))
    FOLDER.mkdir(parents=True, exist_ok=True)
    program = FOLDER / "e2e.test"
    # GOPATH mode and no network: Debian's packages contain all dependencies.
    environment = dict(os.environ, GO111MODULE="off", GOPATH=str(GOPATH), GOFLAGS="", GOPROXY="off",
                       GOTOOLCHAIN="local", GOCACHE=str(FOLDER / "cache"))
    subprocess.run(["go", "test", "-c", "-o", str(program), PACKAGE], check=True, env=environment)
    return program


def hold_lists(program, report):
    """Checks that each test of v2 is either run or listed as skipped."""
    listed = subprocess.run([program, "-test.list", "."], check=True, text=True, stdout=subprocess.PIPE).stdout
    theirs = {name for name in listed.split() if OF_V2.match(name)}
    report.hold("FAILED: run and left out are not the tests of v2 in %s: %s" % (
        PACKAGE, sorted(theirs ^ {*RUN, *LEFT_OUT})), theirs == {*RUN, *LEFT_OUT})


def alone():
    """Words before a command that give it its own loopback ports, because the program uses fixed ports."""
    words = ["unshare", "--net"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--net"]
    prepare = words + ["sh", "-ec", 'ip link set lo up; exec "$@"', "sh"]
    if subprocess.run(prepare + ["true"], stderr=subprocess.DEVNULL).returncode == 0:
        return prepare
    print("no network namespace can be made here: the end-to-end tests take the ports from 20000 on", flush=True)
    return []


def programs(name, etcd, etcdctl):
    """Creates a folder with these programs as `etcd` and `etcdctl`, as the tests expect."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "etcd").symlink_to(etcd)
    (folder / "etcdctl").symlink_to(etcdctl)
    return folder


def run(program, folder, server, rounds):
    """Returns how often each test has passed, and the whole output."""
    command = alone() + [str(program), "-test.v", "-test.count=%d" % rounds,
                         "-test.timeout=%ds" % (ROUND_SECONDS * rounds), "-test.run=^(%s)$" % "|".join(RUN),
                         "-cert-dir=%s" % CERTIFICATES, "-bin-dir=%s" % folder]
    # Remove `http_proxy`, because the servers are on the loopback interface.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(command, cwd=FOLDER, env=dict(environment, SERVER_UNDER_TEST=server), text=True,
                          errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    passed = re.findall(r"^--- PASS: (\w+) ", done.stdout, re.MULTILINE)
    return {name: passed.count(name) for name in RUN}, done.stdout


def trial(_, report, options):
    servers.install_reference(("etcd-server", "etcd-client"))
    program = compiled()
    hold_lists(program, report)
    reference, etcdctl = servers.path_of(options.reference), shutil.which("etcdctl")
    trials = (
        ("the reference and its etcdctl", programs("reference", reference, etcdctl), "", 1),
        ("edgetcd and the reference's etcdctl", programs("etcdctl", HERE / "as_etcd", etcdctl),
         options.server, options.e2e_rounds),
        ("edgetcd and edgetcdctl", programs("edgetcdctl", HERE / "as_etcd", servers.path_of(options.edgetcdctl)),
         options.server, options.e2e_rounds),
    )
    for who, folder, server, rounds in trials:
        if server:
            server = shlex.join([servers.path_of(server), *shlex.split(server)[1:]])
        counts, printed = run(program, folder, server, rounds)
        for name, count in counts.items():
            report.hold("FAILED: %s of the reference's end-to-end tests has passed %d of %d times with %s" % (
                name, count, rounds, who), count == rounds)
        if any(count != rounds for count in counts.values()):
            print("\n".join(printed.splitlines()[-200:]), flush=True)
