//! Lessons: blocks of commands, each with a line `---` and everything that happened.
//!
//! A file begins with a comment that says what it teaches. Blocks are separated by empty lines, and `#` begins a
//! comment. `UPDATE=1` writes the parts after the lines again. Read the difference before you commit it.

use std::path::{Path, PathBuf};

/// The lessons about one subject.
pub fn folder(subject: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(subject)
}

/// Reads a lesson.
pub fn read(subject: &str, name: &str) -> String {
    let text = std::fs::read_to_string(folder(subject).join(name)).expect("the lesson is there");
    assert!(text.starts_with("# "), "{name} begins with what it teaches");
    text
}

/// Runs each command of a lesson. Returns the lesson with the new output. If a check fails, the error ends it.
pub fn replay(
    text: &str,
    mut command: impl FnMut(&str) -> Result<String, String>,
) -> (String, Result<(), String>) {
    let (mut out, mut happened) = (String::new(), String::new());
    let mut is_output = false;
    for line in text.lines() {
        if line.is_empty() {
            is_output = false;
            out.push('\n');
            continue;
        }
        if is_output {
            continue;
        }
        out.push_str(line);
        out.push('\n');
        is_output = line == "---";
        if is_output {
            out.push_str(&std::mem::take(&mut happened));
        } else if !line.starts_with('#') {
            match command(line) {
                Ok(more) => happened.push_str(&more),
                Err(broken) => return (out + &happened, Err(format!("{line}: {broken}"))),
            }
        }
    }
    (out, Ok(()))
}

/// Compares the lesson with its new output, or writes that with `UPDATE=1`.
pub fn check(subject: &str, name: &str, command: impl FnMut(&str) -> Result<String, String>) {
    let text = read(subject, name);
    let (now, outcome) = replay(&text, command);
    outcome.unwrap_or_else(|broken| panic!("{name}: {broken}, after\n{now}"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(folder(subject).join(name), now).expect("it can be written");
    } else if now != text {
        let mut pairs = now.lines().zip(text.lines());
        let line = pairs
            .position(|(now, text)| now != text)
            .unwrap_or_default()
            + 1;
        panic!("{name} differs from line {line} on. UPDATE=1 writes the new output:\n{now}");
    }
}

/// Each file in the folder is one of `known`.
pub fn all_are_run(subject: &str, known: &[&str]) {
    for entry in std::fs::read_dir(folder(subject)).expect("the folder is there") {
        let name = entry.expect("it can be read").file_name();
        assert!(
            known.iter().any(|known| name == *known),
            "{name:?} is not run"
        );
    }
}
