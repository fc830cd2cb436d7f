//! The structure of the crate: which modules a module may import, and which modules may have effects.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer. A module imports only from layers below its own, without exceptions.
const LAYERS: [&[&str]; 12] = [
    &[
        "auth",
        "go",
        "guide",
        "histogram",
        "logging",
        "page",
        "random",
        "threads",
        "tls",
        "process",
        "varint",
    ],
    &["urls"],
    &["config", "dial", "http1", "systemd", "raft", "tree"],
    &["engine", "wal", "watch"],
    &["identity", "storage"],
    &["replica", "sim"],
    &["lab", "peer"],
    &["api"],
    &["node"],
    &["backup"],
    &["ctl"],
    &["bin", "main"],
];

/// Modules that are pure values.
const PURE: [&str; 4] = ["auth", "raft", "tree", "engine"];

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

/// Modules that also build for WebAssembly, where there are no files, sockets, threads or clocks. The standard library
/// compiles there and panics at run time, so the compiler alone would not notice its use.
const PORTABLE: [&str; 12] = [
    "auth",
    "engine",
    "histogram",
    "lab",
    "raft",
    "random",
    "sim",
    "storage",
    "tree",
    "varint",
    "wal",
    "watch",
];

/// Files of these modules that build for the machine only.
const NATIVE_FILES: [&str; 3] = ["wal/map.rs", "wal/real.rs", "watch/hub.rs"];

/// Names that must not appear in the other files.
const NATIVE: [&str; 13] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "Instant",
    "SystemTime",
    "RandomState",
    "rustix",
    "memmap2",
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
    let code = "use crate::raft::Core; use crate::{tree, wal::{DataDir, Wal},\n engine}; crate::urls::Url::parse(x)";
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
        let found = named(&code, &EFFECTS);
        wrong.extend(found.map(|effect| format!("{}: {effect}", path.display())));
    }
    assert!(
        wrong.is_empty(),
        "effects in pure modules:\n{}",
        wrong.join("\n")
    );
}

/// Those of `names` that the code contains, as a word or as a part of a path.
fn named<'a>(code: &'a str, names: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let is_in = |word: &str, name: &str| {
        word == name
            || word.starts_with(&format!("{name}::"))
            || word.split("::").any(|part| part == name)
    };
    words(code).filter_map(move |word| names.iter().copied().find(|name| is_in(word, name)))
}

#[test]
fn modules_for_webassembly_need_no_machine() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (path, module, code) in files() {
        let path = path.strip_prefix(&src).expect("sources lie in src");
        let is_native = NATIVE_FILES.iter().any(|file| path == Path::new(file));
        if is_native || !PORTABLE.contains(&module.as_str()) {
            continue;
        }
        let native = named(&code, &NATIVE).map(str::to_owned);
        let modules = imports(&code).into_iter().map(str::to_owned);
        let above = modules
            .filter(|module| layer(module).is_some() && !PORTABLE.contains(&module.as_str()));
        wrong.extend((native.chain(above)).map(|name| format!("{}: {name}", path.display())));
    }
    assert!(
        wrong.is_empty(),
        "modules that build for WebAssembly use what it lacks:\n{}",
        wrong.join("\n")
    );
}

/// All other modules are left out of that build.
#[test]
fn modules_for_webassembly_are_those_without_a_mark() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = fs::read_to_string(src.join("lib.rs")).expect("lib.rs");
    let mut unmarked = Vec::new();
    let mut before = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("pub mod ")
            && before != "#[cfg(not(target_arch = \"wasm32\"))]"
        {
            unmarked.push(name.trim_end_matches(';'));
        }
        before = line;
    }
    assert_eq!(unmarked, PORTABLE);
}

/// The name of a flag also contains the word.
fn is_unsafe(code: &str) -> bool {
    let begins = ["{", "fn ", "impl ", "extern ", "trait "];
    let mut after = code.split("unsafe ").skip(1);
    after.any(|rest| begins.iter().any(|begin| rest.starts_with(begin)))
}

#[test]
fn unsafe_stands_in_two_files_only() {
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
        [Path::new("process.rs"), Path::new("wal/map.rs")],
        "only the mapped segment needs it, and the release of the program's code"
    );
}
