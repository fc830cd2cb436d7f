//! The output of the commands, as a person sees it.

use std::fmt::Write as _;

use crate::harness::Server;
use crate::support::{folder, put, run, send, text, url};
use crate::transcript;

/// Replaces everything that differs from one run to the next.
fn masked(text: &str) -> String {
    let mut out = text.to_owned();
    let patterns = [
        (r"\b[0-9a-f]{14,16}\b", "ID"),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
        (r"\b\d+ bytes", "BYTES bytes"),
        (r"bytes        \d+", "bytes        BYTES"),
        (r#""bytes":\d+"#, r#""bytes":BYTES"#),
        (r"process \d+", "process PID"),
    ];
    for (pattern, name) in patterns {
        let pattern = regex_lite::Regex::new(pattern).expect("a pattern");
        out = pattern.replace_all(&out, name).into_owned();
    }
    out
}

#[test]
fn transcript_of_backup_and_restore() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    for key in ["/fruit/apple", "/fruit/pear", "/_hidden"] {
        put(&mut connection, key, "v");
    }
    send(&mut connection, "PUT", "/lease", "value=mine&ttl=3600");
    let (endpoint, folder) = (url(server.address()), folder());
    let peer = url(server.peer_address());
    let dir = text(folder.path());
    transcript::check("ctl/backup", |line| {
        let words: Vec<String> = line
            .split(' ')
            .skip(1)
            .map(|word| {
                word.replace("DIR", dir)
                    .replace("DATA", text(server.data()))
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = run(&endpoint, &words);
        let mut shown = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            writeln!(shown, "{}", format!("! {line}").trim_end()).expect("a String takes all");
        }
        if let Some(status) = output.status.code().filter(|status| *status != 0) {
            writeln!(shown, "status {status}").expect("a String takes all");
        }
        let shown = shown
            .replace(text(server.data()), "DATA")
            .replace(dir, "DIR");
        masked(&shown.replace(&endpoint, "SERVER").replace(&peer, "PEER"))
    });
}
