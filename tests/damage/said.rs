//! The output of `wal check` and `wal dump`, as a person sees it.

use crate::process::{ctl, edit, export, flip, record, text, wal};
use crate::specimen::{self, End};
use crate::transcript;
use std::fmt::Write as _;
use std::fs;

#[test]
fn transcript_of_wal() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let peer = "http://127.0.0.1:2380";
    for name in ["DATA", "DAMAGED", "UNSEALED"] {
        export(&specimen::make(peer, End::Clean), &path(name));
    }
    flip(&path("DAMAGED"), "entry 117@5");
    flip(&path("UNSEALED"), "sealed after 115");
    export(&specimen::make(peer, End::Killed), &path("TORN"));
    let torn = wal(&path("TORN")).into_iter().rev().nth(1).expect("two");
    let (_, line) = record(&path("TORN"), "entry 119@5");
    edit(&torn, |bytes| bytes[line.offset as usize + 16] = 0);
    fs::write(path("TORN").join("member/wal/1.tmp"), "half").expect("written");
    fs::create_dir(path("EMPTY")).expect("made");
    fs::create_dir_all(path("ETCD").join("member/wal")).expect("made");
    let theirs = "ETCD/member/wal/0000000000000000-0000000000000000.wal";
    fs::write(path(theirs), "theirs").expect("written");

    let names = ["DATA", "DAMAGED", "UNSEALED", "TORN", "EMPTY", "ETCD"];
    transcript::check("ctl/wal", |line| {
        let words: Vec<String> = (line.split(' ').skip(1))
            .map(|word| {
                let named = names.iter().find(|name| word.starts_with(**name));
                named.map_or(word.to_owned(), |_| path(word).display().to_string())
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = ctl(&words);
        let mut shown = text(&output.stdout);
        for line in text(&output.stderr).lines() {
            writeln!(shown, "{}", format!("! {line}").trim_end()).expect("a String takes all");
        }
        if let Some(status) = output.status.code().filter(|status| *status != 0) {
            writeln!(shown, "status {status}").expect("a String takes all");
        }
        shown.replace(&format!("{}/", folder.path().display()), "")
    });
}

/// `wal dump … | head`: when the pipe is closed, the dump ends without a message.
#[test]
fn a_closed_pipe_ends_the_dump() {
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    export(&specimen::make("http://127.0.0.1:2380", End::Clean), &data);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .args(["wal", "dump"])
        .arg(&data)
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .expect("it starts");
    assert_eq!(
        (text(&output.stderr).as_str(), output.status.code()),
        ("", Some(1))
    );
}
