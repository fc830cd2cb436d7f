"""The `etcd` crate of crates.io: a scenario with every call of it, in `crate/`.

It is a Cargo workspace of its own with a lock file, built into target/. Users and roles are left out until the
server has them; of the crate's calls, those that change members fail against every etcd, as they send a form.
"""

import os
import subprocess

from compare import HERE, servers, try_program

FOLDER = servers.ROOT / "target/clients/crate"


def built():
    environment = dict(os.environ, CARGO_TARGET_DIR=str(FOLDER))
    manifest = HERE / "crate/Cargo.toml"
    subprocess.run(["cargo", "build", "--quiet", "--locked", "--manifest-path", str(manifest)], check=True, env=environment)
    return str(FOLDER / "debug/etcd-crate-trial")


def trial(started, report, options):
    try_program("etcd-crate", [built()], started, report, options)
