//! The Debian package, installed, upgraded, removed and purged in a copy of this machine's root folder.
//!
//! systemd does not run in that copy. A script in place of `systemctl` records what the package asks of it. The tests
//! start the server as systemd would: as the package's user, with the settings in `/etc/edgetcd.env`.

#![cfg(target_os = "linux")]

mod harness;

use harness::mount::Mount;
use harness::{Makes, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Records its arguments. `active` exists while the service runs. The real one changes the links of enabled services,
/// for which it needs no running systemd.
const SYSTEMCTL: &str = "#!/bin/sh
echo \"$@\" >>/run/asked
case \"$*\" in
--root=*) exec systemctl.real \"$@\" ;;
*is-enabled*) if [ -L /etc/systemd/system/multi-user.target.wants/edgetcd.service ]; then echo enabled; else echo disabled; fi ;;
*is-active*) [ -e /run/active ] ;;
*start*) touch /run/active ;;
*stop*) rm -f /run/active ;;
esac
";

const PURGE_DATA: &str = "echo edgetcd edgetcd/purge_data boolean true | debconf-set-selections";

/// A Debian whose changes are lost at the end of the test.
struct Machine {
    root: Mount,
    // Dropped after the root, which uses it.
    _changes: Mount,
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    fn new() -> Machine {
        let changes = Mount::tmpfs(600);
        let root = Mount::copy_of_root(&changes);
        let machine = Machine {
            root,
            _changes: changes,
        };
        machine.done("mv /usr/bin/systemctl /usr/bin/systemctl.real");
        fs::write(machine.path("/usr/bin/systemctl"), SYSTEMCTL).expect("written");
        // In some containers, policy-rc.d forbids packages to start services. man-db would read all man pages again.
        machine.done(
            "chmod 755 /usr/bin/systemctl; mkdir -p /run/systemd/system; \
             rm -f /usr/sbin/policy-rc.d /var/lib/man-db/auto-update",
        );
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A shell in the copy, not started yet. Its mounts end with it.
    fn shell(&self, script: &str) -> Command {
        let inside = "mount --rbind /dev \"$0/dev\"; mount -t proc proc \"$0/proc\"; exec chroot \"$0\" sh -ec \"$1\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", inside]);
        command.arg(self.root.path()).arg(script);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null());
        command
    }

    /// Runs a script, which must succeed. Returns its output.
    fn done(&self, script: &str) -> String {
        let output: Output = self.shell(script).output().expect("unshare runs");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        assert!(output.status.success(), "{script}: {printed}");
        printed
    }

    /// What the package has asked systemd to do with the service since the last call.
    fn asked(&self) -> Vec<String> {
        let log = self.path("/run/asked");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        let does = |line: &&str| line.contains("start ") || line.contains("stop ");
        text.lines().filter(does).map(str::to_owned).collect()
    }

    /// Installs a package as `apt install ./FILE` does, or upgrades to it.
    fn install(&self, package: &Path) {
        fs::copy(package, self.path("/edgetcd.deb")).expect("copied");
        self.done("dpkg --force-unsafe-io -i /edgetcd.deb");
    }

    /// Runs the server as systemd would, and the commands of `make.ctl` on it.
    fn serve<T>(&self, make: &Makes, act: impl FnOnce() -> T) -> T {
        let script = "set -a; . /etc/edgetcd.env; set +a; cd /; \
             exec setpriv --reuid=edgetcd --regid=edgetcd --clear-groups /usr/bin/edgetcd";
        let mut command = self.shell(script);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running(command.spawn().expect("unshare runs"));
        wait_for("the server to serve", SOON, || {
            assert!(running.0.try_wait().expect("a state").is_none(), "it ended");
            make.ctl(1, &["ls", "/"])
        });
        let result = act();
        kill_process(Pid::from_child(&running.0), Signal::TERM).expect("it runs");
        running.0.wait().expect("it ends");
        result
    }
}

/// The package with the programs of this test and this version. Not compressed, because that takes long.
fn package(make: &Makes, folder: &Path, version: &str) -> PathBuf {
    let machine = std::env::consts::ARCH;
    make.done(&[
        "deb",
        &format!("TARGET={machine}-unknown-linux-musl"),
        &format!("DIST_DIR={}", folder.display()),
        &format!("VERSION={version}"),
        concat!("HOSTCTL=", env!("CARGO_BIN_EXE_edgetcdctl")),
        "DPKG_DEB_COMPRESSOR_TYPE=none",
    ]);
    let output = Command::new("dpkg").arg("--print-architecture").output();
    let architecture = String::from_utf8(output.expect("dpkg runs").stdout).expect("text");
    folder.join(format!("edgetcd_{version}_{}.deb", architecture.trim()))
}

#[test]
#[ignore = "needs root, overlay mounts and Debian's dpkg and debconf"]
fn a_package_is_installed_upgraded_removed_and_purged() {
    let make = Makes::new();
    let folder = tempfile::tempdir().expect("a folder");
    let first = package(&make, folder.path(), "0.1.0");
    let second = package(&make, folder.path(), "0.2.0");
    let machine = Machine::new();
    let data = "/var/lib/edgetcd/data/member/identity";
    let restart = ["--quiet --system restart edgetcd.service"];

    // Installed: enabled and started, as its own user.
    machine.install(&first);
    machine.done("dpkg --verify edgetcd");
    assert_eq!(machine.asked(), restart);
    assert!(machine.done("id edgetcd").contains("gid="));
    assert_eq!(
        machine.done("stat -c '%U %a' /var/lib/edgetcd").trim(),
        "edgetcd 700"
    );
    let link = machine.path("/etc/systemd/system/multi-user.target.wants/edgetcd.service");
    let is_enabled = || fs::symlink_metadata(&link).is_ok();
    assert!(is_enabled());
    let unit = fs::read_to_string(machine.path("/usr/lib/systemd/system/edgetcd.service"));
    assert!(
        unit.expect("a unit")
            .contains("\nExecStart=/usr/bin/edgetcd\n")
    );
    for file in [
        "/usr/bin/edgetcdctl",
        "/usr/share/man/man1/edgetcdctl.1.gz",
        "/usr/share/bash-completion/completions/edgetcdctl",
        "/usr/share/zsh/vendor-completions/_edgetcdctl",
        "/usr/share/fish/vendor_completions.d/edgetcdctl.fish",
        "/usr/share/edgetcd/prometheus/alerts.yml",
        "/usr/share/edgetcd/grafana/edgetcd.json",
        "/usr/share/doc/edgetcd/copyright",
        "/usr/share/doc/edgetcd/README.Debian",
    ] {
        assert!(machine.exists(file), "{file}");
    }
    let (client, peer) = (make.port(), make.port() + 1);
    machine.done(&format!(
        "sed -i 's/2379/{client}/; s/2380/{peer}/' /etc/edgetcd.env"
    ));
    machine.serve(&make, || {
        make.ctl(1, &["set", "/fruit", "apple"]).expect("a write")
    });

    // Upgraded while it runs: restarted. The changed settings and the data stay.
    machine.install(&second);
    assert_eq!(machine.asked(), restart);
    let read = || make.ctl(1, &["get", "/fruit"]).expect("a read");
    assert_eq!(machine.serve(&make, read), "apple");

    // Upgraded while it is stopped and disabled: it stays so.
    machine.done("rm /run/active; systemctl.real --root=/ disable edgetcd.service");
    machine.install(&second);
    assert_eq!(machine.asked(), [""; 0]);
    assert!(!is_enabled(), "it stays disabled");
    machine.done("systemctl.real --root=/ enable edgetcd.service; touch /run/active");

    // Removed: stopped. Installed again: started, with the same settings and data.
    machine.done("dpkg --remove edgetcd");
    assert_eq!(machine.asked(), ["stop edgetcd.service"]);
    assert!(!machine.exists("/usr/bin/edgetcd") && !machine.exists("/usr/share/edgetcd"));
    assert!(machine.exists("/etc/edgetcd.env") && machine.exists(data));
    machine.install(&first);
    assert_eq!(machine.asked(), restart);
    assert_eq!(machine.serve(&make, read), "apple");

    // Purged without an answer: the data stays. With the answer: the data is deleted.
    machine.done("dpkg --purge edgetcd");
    assert!(!machine.exists("/etc/edgetcd.env") && machine.exists(data));
    machine.install(&second);
    machine.done(&format!("{PURGE_DATA}; dpkg --purge edgetcd"));
    assert!(!machine.exists("/var/lib/edgetcd"));
    assert!(
        machine.done("id edgetcd").contains("gid="),
        "the user stays"
    );
}

#[test]
fn a_package_is_refused_for_a_processor_without_a_name() {
    let make = Makes::new();
    let printed = make.refused(&["deb", "TARGET=mips-unknown-linux-musl"]);
    assert!(
        printed.contains("Debian has no name for TARGET=mips-unknown-linux-musl"),
        "{printed}"
    );
}
