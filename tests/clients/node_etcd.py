"""node-etcd: a scenario with every call of it, in `node/scenario.js`.

Its own tests are skipped: a mock of HTTP (nock) answers all their requests, so they test no server. The packages for npm
are in `node/package-lock.json`; no script of a package is run. The library needs deasync, which contains a binary for
64-bit PCs and the usual versions of Node.
"""

import hashlib
import shutil
import subprocess

from compare import HERE, servers, try_program

SOURCES = HERE / "node"
FOLDER = servers.ROOT / "target/clients/node"


def install():
    lock, mark = SOURCES / "package-lock.json", FOLDER / "installed"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == wanted:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCES / name, FOLDER)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                   cwd=FOLDER, check=True, stdout=subprocess.DEVNULL)
    mark.write_text(wanted)


def trial(started, report, options):
    install()
    command = ["env", "NODE_PATH=%s" % (FOLDER / "node_modules"), "node", str(SOURCES / "scenario.js")]
    try_program("node-etcd", command, started, report, options)
