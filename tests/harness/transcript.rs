//! Transcripts: commands as a person would type them, a line `---`, and the output of each.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

/// Runs each command of `tests/transcripts/NAME` and compares the output with the text below the line. `UPDATE=1`
/// writes the new output to the file.
#[track_caller]
pub fn check(name: &str, run: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let (commands, expected) = text
        .split_once("---\n")
        .expect("a line --- below the commands");
    let mut got = String::new();
    for line in logical_lines(commands) {
        write!(got, "\n$ {line}\n{}", run(&line)).expect("a String takes all");
    }
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{commands}---\n{got}")).expect("transcripts can be written");
    } else {
        assert!(
            got == expected,
            "{name}: UPDATE=1 shows the difference; now it is\n{got}"
        );
    }
}

/// Lines without comments. A backslash at the end of a line continues it on the next one.
fn logical_lines(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}
