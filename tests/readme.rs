//! Every command that the README shows, run as it stands there, with the output that it shows.
//!
//! Only the address differs: the node under test listens on a free port. `make run` and `make test`
//! themselves are what CI calls.

mod harness;

use harness::Server;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A command and what it prints.
struct Shown {
    command: String,
    output: String,
}

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    fs::read_to_string(path).expect("there is a README")
}

/// The `$ …` lines of ```` ```console ```` blocks, each with the lines below it.
fn shown(text: &str) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            let (command, output) = (command.to_owned(), String::new());
            found.push(Shown { command, output });
        } else if inside {
            let last = found.last_mut().expect("output follows a command");
            last.output.push_str(line);
            last.output.push('\n');
        }
    }
    found
}

#[test]
fn the_commands_print_what_the_readme_shows() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: there is no curl here");
        return;
    }
    let server = Server::start(&[]);
    let address = server.address().to_string();
    let all = shown(&readme());
    assert!(all.len() >= 8, "only {} commands were found", all.len());
    for Shown { command, output } in all {
        let here = command.replace("127.0.0.1:2379", &address);
        let run = Command::new("sh")
            .args(["-c", &here])
            .output()
            .expect("there is a shell");
        let printed = String::from_utf8_lossy(&run.stdout);
        assert_eq!(printed.trim_end(), output.trim_end(), "of: {command}");
    }
}

#[test]
fn every_target_the_readme_names_is_in_the_makefile() {
    let makefile = Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile");
    let makefile = fs::read_to_string(makefile).expect("there is a Makefile");
    let text = readme();
    let after = text
        .match_indices("make ")
        .map(|(at, found)| &text[at + found.len()..]);
    let named = after.filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase())?;
        let quoted = rest[end..].starts_with(['`', ' ', '\n', '\\']);
        (end > 0 && quoted).then(|| &rest[..end])
    });
    for target in named {
        assert!(
            makefile.contains(&format!("\n{target}:")),
            "no `make {target}`"
        );
    }
}
