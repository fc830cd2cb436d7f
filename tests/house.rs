//! The structure of the crate: which modules a module may import, and which modules may have effects.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer. A module imports only from layers below its own, without exceptions.
const LAYERS: [&[&str]; 11] = [
    &[
        "allowed",
        "go",
        "guide",
        "histogram",
        "logging",
        "random",
        "threads",
        "urls",
        "process",
        "varint",
    ],
    &["config", "dial", "http1", "systemd", "raft", "tree"],
    &["engine", "ids", "wal", "watch"],
    &["identity", "storage"],
    &["replica", "sim"],
    &["peer"],
    &["api"],
    &["node"],
    &["backup"],
    &["ctl"],
    &["bin", "main"],
];

/// Modules that are pure values.
const PURE: [&str; 3] = ["raft", "tree", "engine"];

/// Names that must not appear in those modules.
const EFFECTS: [&str; 11] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::time",
    "std::process",
    "std::env",
    "Instant",
    "SystemTime",
    "rand",
    "crossbeam_channel",
    "mio",
];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("the source folder can be read") {
        let path = entry.expect("so can its entries").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Source files with their module and their text without comments and unit tests, which may import anything.
fn files() -> Vec<(PathBuf, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = |path: &Path| {
        let inside = path.strip_prefix(&src).expect("sources lie in src");
        let first = inside.iter().next().expect("a file has a name");
        first.to_string_lossy().trim_end_matches(".rs").to_owned()
    };
    let code = |path: &Path| {
        let text = fs::read_to_string(path).expect("sources are text");
        let tests = "\n#[cfg(test)]\nmod tests {";
        let text = text.split(tests).next().unwrap_or_default();
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        text.lines().filter(is_code).collect::<Vec<_>>().join("\n")
    };
    let is_of_tests =
        |path: &Path| path.iter().any(|part| part == "tests") || path.ends_with("tests.rs");
    let shipped = sources(&src).into_iter().filter(|path| !is_of_tests(path));
    shipped
        .map(|path| (path.clone(), module(&path), code(&path)))
        .collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The words of code, split at all characters that cannot be part of a path.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| !word.is_empty())
}

/// The modules of this crate that a file imports, with `crate::module` or in a list, `crate::{…}`.
fn imports(code: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => found.extend(words(rest).next().and_then(|word| word.split("::").next())),
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            start = false;
                            let word = words(&list[at..]).next();
                            found.extend(word.and_then(|word| word.split("::").next()));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::raft::Core; use crate::{tree, wal::{Home, Wal},\n engine}; crate::urls::Url::parse(x)";
    let expected = ["engine", "raft", "tree", "urls", "wal"];
    assert_eq!(imports(code), BTreeSet::from(expected));
}

#[test]
fn modules_import_only_from_layers_below() {
    let mut wrong = Vec::new();
    for (path, module, code) in files() {
        if module == "lib" {
            continue;
        }
        let own = layer(&module).unwrap_or_else(|| panic!("{module} has no layer"));
        for other in imports(&code) {
            // A name of the crate itself, such as its version, has no layer.
            let Some(theirs) = layer(other) else { continue };
            if other != module && theirs >= own {
                wrong.push(format!("{}: {other}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports from the same layer or from above:\n{}",
        wrong.join("\n")
    );
}

/// The table in the documentation of the crate.
#[test]
fn the_table_of_modules_is_complete() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = fs::read_to_string(src.join("lib.rs")).expect("lib.rs");
    let mut listed = BTreeSet::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let mut cells = row.split(" | ");
        let Some(Ok(number)) = cells.next().map(str::parse::<usize>) else {
            continue;
        };
        let names = cells.next().expect("modules").split(", ");
        listed.extend(names.map(|name| (number, name.trim_matches(['[', ']', '`']).to_owned())));
    }
    let modules = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod "));
    let expected: BTreeSet<(usize, String)> = modules
        .map(|name| name.trim_end_matches(';').to_owned())
        .map(|name| (layer(&name).unwrap_or(usize::MAX), name))
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn pure_modules_have_no_effects() {
    let mut wrong = Vec::new();
    for (path, module, code) in files() {
        if !PURE.contains(&module.as_str()) {
            continue;
        }
        for word in words(&code) {
            let named = |effect: &&&str| {
                word == **effect
                    || word.starts_with(&format!("{effect}::"))
                    || word.split("::").any(|part| part == **effect)
            };
            let effect = EFFECTS.iter().find(named);
            if let Some(effect) = effect {
                wrong.push(format!("{}: {effect}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "effects in pure modules:\n{}",
        wrong.join("\n")
    );
}

/// The name of a flag also contains the word.
fn is_unsafe(code: &str) -> bool {
    let begins = ["{", "fn ", "impl ", "extern ", "trait "];
    let mut after = code.split("unsafe ").skip(1);
    after.any(|rest| begins.iter().any(|begin| rest.starts_with(begin)))
}

#[test]
fn unsafe_stands_in_one_file_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let with_unsafe: Vec<PathBuf> = files()
        .into_iter()
        .filter(|(_, _, code)| is_unsafe(code))
        .map(|(path, _, _)| {
            path.strip_prefix(&src)
                .expect("sources lie in src")
                .to_owned()
        })
        .collect();
    assert_eq!(
        with_unsafe,
        [Path::new("wal/map.rs")],
        "only the mapped segment needs it"
    );
}
