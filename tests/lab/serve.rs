//! The program `edgetcd-lab` with a file: it serves that file, and nothing else.

use crate::real::{PROGRAM, Process};
use std::process::{Command, Output};

struct Served {
    _process: Process,
    url: String,
}

/// Serves this text on a free port.
fn serve(text: &str) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("lab.html");
    std::fs::write(&file, text).expect("the folder can be written");
    let mut command = Command::new(PROGRAM);
    let mut process = Process::start(command.arg(&file).arg("127.0.0.1:0"));
    let line = process.first_line();
    let url = line.trim().strip_prefix("the lab is at ").expect("the URL");
    Served {
        url: url.to_owned(),
        _process: process,
    }
}

#[test]
fn it_serves_the_page_and_nothing_else() {
    let served = serve("<!doctype html><p>lab");
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .new_agent();
    let get = |path: &str| {
        let url = format!("{}{path}", served.url);
        let mut answer = agent.get(&url).call().expect("an answer");
        let kind = answer
            .headers()
            .get("content-type")
            .map(|kind| kind.to_str().expect("text").to_owned());
        (
            answer.status().as_u16(),
            kind,
            answer.body_mut().read_to_string().expect("text"),
        )
    };
    let (status, kind, body) = get("");
    assert_eq!(
        (status, kind.as_deref()),
        (200, Some("text/html; charset=utf-8"))
    );
    assert_eq!(body, "<!doctype html><p>lab");
    assert_eq!(get("?any=thing").0, 200);
    assert_eq!(get("../Cargo.toml").0, 404);
    assert_eq!(get("v2/keys").0, 404);
    let put = agent.put(&served.url).send("").expect("an answer");
    assert_eq!(put.status().as_u16(), 405);
}

#[test]
fn it_says_what_is_wrong() {
    let run = |args: &[&str]| {
        Command::new(PROGRAM)
            .args(args)
            .output()
            .expect("it starts")
    };
    let says = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let missing = run(&["/no/such/lab.html"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        says(&missing).contains("/no/such/lab.html") && says(&missing).contains("make lab"),
        "{}",
        says(&missing)
    );
    let address = run(&["/dev/null", "here"]);
    assert!(
        says(&address).contains("here is not an address"),
        "{}",
        says(&address)
    );
    let flag = run(&["--port"]);
    assert_eq!(flag.status.code(), Some(2));
    assert!(says(&flag).contains("usage: edgetcd-lab"));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}
