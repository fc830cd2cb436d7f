//! The OCI archive: skopeo reads it, its bytes do not depend on when it was built, and its program runs as in a container.

#![cfg(target_os = "linux")]

mod harness;

use harness::json::Json;
use harness::{Makes, wait_for};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn done(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success(), "{command:?}: {printed}");
    printed
}

/// An archive with the programs in these folders.
fn archive(out: PathBuf, images: &[(&str, &Path)]) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/packaging/image/build");
    let mut command = Command::new(script);
    command.arg(&out).arg("0.1.0");
    for (architecture, programs) in images {
        command.arg(format!("{architecture}={}", programs.display()));
    }
    done(&mut command);
    out
}

fn texts(json: &Json, pointer: &str) -> Vec<String> {
    let items = json
        .at(pointer)
        .unwrap_or_else(|| panic!("no {pointer}: {json}"))
        .items();
    items
        .iter()
        .map(|item| item.text().expect("a text").to_owned())
        .collect()
}

/// Copies one image out of the archive, for which skopeo compares all checksums. Returns its configuration, and the file
/// with its layer.
fn unpacked(archive: &Path, to: &Path, words: &[&str]) -> (Json, PathBuf) {
    let from = format!("oci-archive:{}", archive.display());
    let copy = format!("dir:{}", to.display());
    done(Command::new("skopeo").args(words).args([
        "copy",
        "--quiet",
        "--insecure-policy",
        &from,
        &copy,
    ]));
    let read = |name: &str| {
        let text = fs::read_to_string(to.join(name)).expect("a file");
        Json::parse(&text).expect("JSON")
    };
    let manifest = read("manifest.json");
    let digest = |pointer: &str| {
        let text = manifest.at(pointer).and_then(Json::text).expect("a digest");
        text.trim_start_matches("sha256:").to_owned()
    };
    (
        read(&digest("/config/digest")),
        to.join(digest("/layers/0/digest")),
    )
}

#[test]
#[ignore = "needs root and skopeo (apt-get install skopeo)"]
fn an_image_is_read_by_others_and_its_program_runs() {
    let make = Makes::new();
    let folder = tempfile::tempdir().expect("a folder");
    // Small files in place of the programs for another processor.
    let small = folder.path().join("small");
    fs::create_dir(&small).expect("a folder");
    for name in ["edgetcd", "edgetcdctl"] {
        fs::write(small.join(name), name).expect("a file");
    }
    let twice = ["first", "second"].map(|name| {
        let path = archive(
            folder.path().join(name),
            &[("amd64", &small), ("arm64", &small)],
        );
        fs::read(path).expect("an archive")
    });
    assert!(
        twice[0] == twice[1],
        "the same programs give the same bytes"
    );
    let programs = Path::new(env!("CARGO_BIN_EXE_edgetcd"))
        .parent()
        .expect("a folder");
    let archive = archive(
        folder.path().join("both"),
        &[("arm/v7", &small), ("amd64", programs)],
    );

    let arm = ["--override-arch=arm", "--override-variant=v7"];
    let (config, _) = unpacked(&archive, &folder.path().join("arm"), &arm);
    assert_eq!(config.at("/architecture").and_then(Json::text), Some("arm"));
    assert_eq!(config.at("/variant").and_then(Json::text), Some("v7"));
    let amd = ["--override-arch=amd64"];
    let (config, layer) = unpacked(&archive, &folder.path().join("amd"), &amd);
    assert_eq!(
        config.at("/architecture").and_then(Json::text),
        Some("amd64")
    );

    // The checksum of the unpacked layer, which skopeo does not compare.
    let sum = "set -o pipefail; zcat \"$0\" | sha256sum | cut -d ' ' -f 1";
    let sum = done(Command::new("bash").args(["-ec", sum]).arg(&layer));
    let listed = texts(&config, "/rootfs/diff_ids");
    assert_eq!(listed, [format!("sha256:{}", sum.trim())]);

    // The files, and their owners.
    let root = folder.path().join("root");
    fs::create_dir(&root).expect("a folder");
    done(
        Command::new("tar")
            .arg("-xzf")
            .arg(&layer)
            .arg("--numeric-owner")
            .arg("-C")
            .arg(&root),
    );
    let listed = done(Command::new("stat").current_dir(&root).args([
        "-c",
        "%n %u %a",
        "data",
        "edgetcd",
        "edgetcdctl",
    ]));
    assert_eq!(listed, "data 65532 700\nedgetcd 0 755\nedgetcdctl 0 755\n");
    assert_eq!(
        fs::read_dir(&root).expect("files").count(),
        3,
        "nothing else"
    );

    // The program, with the image's user, settings and command. These programs are not static, so they see the
    // machine's libraries.
    let user = config
        .at("/config/User")
        .and_then(Json::text)
        .expect("a user");
    let (user, group) = user.split_once(':').expect("a group");
    let inside = "for dir in usr lib lib64; do [ ! -e /$dir ] || { mkdir $0/$dir; mount --rbind /$dir $0/$dir; }; done; \
         exec chroot --userspec=\"$1\" \"$0\" \"$2\"";
    let (client, peer) = (make.port(), make.port() + 1);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", inside]).arg(&root);
    command
        .arg(format!("{user}:{group}"))
        .args(texts(&config, "/config/Entrypoint"));
    let settings = texts(&config, "/config/Env");
    let settings: Vec<_> = settings
        .iter()
        .map(|setting| setting.split_once('=').expect("a value"))
        .collect();
    assert!(
        settings.contains(&("ETCD_LISTEN_CLIENT_URLS", "http://0.0.0.0:2379")),
        "{settings:?}"
    );
    command.envs(settings);
    for (name, port) in [
        ("LISTEN_CLIENT_URLS", client),
        ("ADVERTISE_CLIENT_URLS", client),
        ("LISTEN_PEER_URLS", peer),
    ] {
        command.env(format!("ETCD_{name}"), format!("http://127.0.0.1:{port}"));
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut running = Running(command.spawn().expect("unshare runs"));
    wait_for("the server to serve", SOON, || {
        assert!(running.0.try_wait().expect("a state").is_none(), "it ended");
        make.ctl(1, &["set", "/fruit", "apple"])
    });
    let owner = done(
        Command::new("stat")
            .arg("-c%u")
            .arg(root.join("data/edgetcd/member")),
    );
    assert_eq!(owner.trim(), user);

    // The health check, with the port of the test.
    let health = texts(&config, "/config/Healthcheck/Test");
    assert_eq!(health[..2], ["CMD", "/edgetcdctl"]);
    let words: Vec<&str> = health[2..].iter().map(String::as_str).collect();
    assert!(make.ctl(1, &words).expect("healthy").contains("/fruit"));
    drop(running);
    assert!(make.ctl(1, &words).is_none(), "not healthy");
}
