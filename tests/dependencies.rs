//! The rules for dependencies: their licenses, their sources, and no crate in two versions. `tests/deny.toml` contains the same
//! rules for `cargo deny`, which is not needed here.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Licenses under which a crate may be used. Of alternatives, one must be here.
const LICENSES: [&str; 7] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
];

/// Crates that are here in two versions.
const TWICE: [(&str, &str); 3] = [
    (
        "getrandom",
        "ring needs an older one than the tests' tempfile",
    ),
    (
        "syn",
        "two generations of derive macros, at build time only",
    ),
    ("windows-sys", "on no supported system"),
];

/// The packages that this machine's build uses. Others need not be downloaded.
fn packages() -> Vec<Value> {
    let rustc = Command::new("rustc").arg("-vV").output();
    let said = String::from_utf8(rustc.expect("rustc runs").stdout).expect("text");
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .arg(format!("--filter-platform={}", host.expect("a host")))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    said["packages"].as_array().expect("a list").clone()
}

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or_default()
}

/// Whether an expression of the form `A OR B`, `A/B` or `(A OR B) AND C` is allowed.
fn is_allowed(license: &str) -> bool {
    let license = license.replace('/', " OR ").replace(['(', ')'], "");
    license.split(" AND ").all(|part| {
        let mut alternatives = part.split(" OR ");
        // The old form of "or later".
        alternatives.any(|name| LICENSES.contains(&name.trim_end_matches('+')))
    })
}

#[test]
fn licenses_are_read_as_they_are_written() {
    for allowed in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "ISC+",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in ["", "GPL-3.0", "MIT AND GPL-3.0", "SSPL-1.0 OR GPL-3.0"] {
        assert!(!is_allowed(refused), "{refused}");
    }
}

#[test]
fn every_dependency_has_an_allowed_license_and_source() {
    let packages = packages();
    assert!(packages.len() > 20, "{} packages", packages.len());
    for package in &packages {
        let name = text(package, "name");
        assert!(
            is_allowed(text(package, "license")),
            "{name} is under {:?}: use another crate, or add the license here and to tests/deny.toml",
            package["license"]
        );
        let is_own = package["source"].is_null();
        let from = text(package, "source");
        assert!(
            is_own && name == "edgetcd"
                || from.starts_with("registry+https://github.com/rust-lang/"),
            "{name} comes from {from:?}, and not from crates.io"
        );
    }
}

#[test]
fn no_crate_is_here_in_two_versions() {
    let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
    for package in packages() {
        let version = text(&package, "version").to_owned();
        let name = text(&package, "name").to_owned();
        versions.entry(name).or_default().insert(version);
    }
    let known: BTreeSet<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    for (name, found) in versions {
        assert!(
            found.len() == 1 || known.contains(name.as_str()),
            "{name} is here in the versions {found:?}"
        );
    }
}

/// The tool and this test have the same rules.
#[test]
fn the_file_of_the_tool_has_the_same_rules() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deny.toml");
    let rules = std::fs::read_to_string(path).expect("the file");
    let names = TWICE.iter().map(|(name, _)| name);
    for name in LICENSES.iter().chain(names) {
        assert!(rules.contains(&format!("\"{name}\"")), "{name}");
    }
}
