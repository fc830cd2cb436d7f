//! Runs every command in the README and compares the output with the README.
//!
//! Only the address differs: the node under test listens on a free port. The output of `make` commands is compared in
//! a separate cluster. CI runs `make`, `make test`, `make demo`, `make install` and `make dist`, and `by_make` runs
//! `make run`.

mod harness;

use harness::{Makes, Server};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A command and its output.
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
#[ignore = "needs curl"]
fn the_commands_print_what_the_readme_shows() {
    let server = Server::start(&[]);
    let address = server.address().to_string();
    let all = shown(&readme());
    assert!(all.len() >= 8, "only {} commands were found", all.len());
    for Shown { command, output } in all {
        if command.starts_with("make ") {
            continue;
        }
        let here = command.replace("127.0.0.1:2379", &address);
        let run = Command::new("sh")
            .args(["-c", &here])
            .output()
            .expect("there is a shell");
        let printed = String::from_utf8_lossy(&run.stdout);
        assert_eq!(printed.trim_end(), output.trim_end(), "of: {command}");
    }
}

/// The lines of a make command's output without the parts that vary: ports, processes, ids, the elected leader, the
/// order of members, and the width of columns.
fn likeness(text: &str) -> Vec<String> {
    let replaced = |text: &str, pattern: &str, by: &str| {
        let pattern = regex_lite::Regex::new(pattern).expect("a pattern");
        pattern.replace_all(text, by).into_owned()
    };
    let text = replaced(text, r"\b[0-9a-f]{15,16}\b", "ID");
    let text = replaced(&text, "[0-9]+", "0");
    // A time that no member has reported yet is a dash.
    let timeless = |word| match word {
        "-" | "0.0ms" => "…",
        word => word,
    };
    let words = text.lines().map(|line| line.split_whitespace());
    let mut lines: Vec<String> = words
        .map(|words| words.map(timeless).collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    lines
}

#[test]
fn the_makes_print_what_the_readme_shows() {
    let make = Makes::new();
    let all = shown(&readme());
    let makes: Vec<&Shown> = all
        .iter()
        .filter(|shown| shown.command.starts_with("make "))
        .collect();
    assert!(makes.len() >= 4, "only {} makes were found", makes.len());
    let mut terminal = make.terminal(&["cluster"]);
    terminal.shows("Ctrl-C ends all");
    let folder = make.cluster_dir().display().to_string();
    for Shown { command, output } in makes {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let printed = make.done(&words);
        let printed = printed.replace(&format!(" CLUSTER_DIR={folder}"), "");
        let printed = printed.replace(&folder, "cluster.etcd");
        assert_eq!(likeness(&printed), likeness(output), "of: {command}");
    }
    make.done(&["stop"]);
    terminal.wait();
}

/// The script of the section on three nodes, with other ports.
fn three_nodes(clients: &[u16], peers: &[u16]) -> String {
    let text = readme();
    let (_, after) = text.split_once("```sh\n").expect("a script");
    let (script, _) = after.split_once("```").expect("its end");
    let mut here = script.replace("target/release/edgetcd", env!("CARGO_BIN_EXE_edgetcd"));
    for (n, port) in (1..).zip(peers) {
        here = here.replace(&format!(":{n}2380"), &format!(":{port}"));
    }
    let nth = |ports: &[u16]| {
        let all: Vec<String> = ports.iter().map(u16::to_string).collect();
        format!("$(echo {} | cut -d' ' -f$n)", all.join(" "))
    };
    here.replace("${n}2379", &nth(clients))
        .replace("${n}2380", &nth(peers))
}

/// The nodes started by the script. They are ended by the ids that the script has printed.
struct Started(Vec<String>);

impl Drop for Started {
    fn drop(&mut self) {
        let killed = Command::new("kill").arg("-9").args(&self.0).status();
        assert!(killed.is_ok(), "there is a kill");
    }
}

#[test]
#[ignore = "needs curl"]
fn the_three_nodes_of_the_readme_become_a_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let ports: Vec<u16> = (0..6)
        .map(|_| harness::server::free_address().port())
        .collect();
    let (clients, peers) = ports.split_at(3);
    let script =
        three_nodes(clients, peers).replace(" &\ndone", " >/dev/null 2>&1 & echo $!\ndone");
    let run = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder.path())
        .output()
        .expect("there is a shell");
    let printed = String::from_utf8_lossy(&run.stdout);
    let started = Started(printed.split_whitespace().map(str::to_owned).collect());
    assert_eq!(started.0.len(), 3, "three nodes were started: {printed}");
    let patience = std::time::Duration::from_secs(30);
    for port in clients {
        let url = format!("http://127.0.0.1:{port}/v2/members/leader");
        harness::wait_for("a node that knows its leader", patience, || {
            let asked = Command::new("curl").args(["-sf", "-m", "2", &url]).output();
            asked.expect("curl runs").status.success().then_some(())
        });
    }
}

/// The commands of the section on backups, and the `curl` command of the text below them.
#[test]
fn a_backup_is_saved_checked_and_restored_by_what_the_readme_says() {
    let text = readme();
    let (_, after) = text
        .split_once("```sh\nedgetcdctl snapshot save")
        .expect("the commands");
    let (script, _) = after.split_once("```").expect("their end");
    let (_, curl) = text
        .split_once("`curl http://127.0.0.1:2379/edgetcd/snapshot")
        .expect("the curl");
    let (curl, _) = curl.split_once('`').expect("its end");
    let server = Server::start(&[]);
    let url = format!("http://{}", server.address());
    let folder = tempfile::tempdir().expect("a folder");
    let programs = Path::new(env!("CARGO_BIN_EXE_edgetcdctl"))
        .parent()
        .expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let all = format!(
        "set -e\nedgetcdctl snapshot save{script}\ncurl -s {url}/edgetcd/snapshot{curl}\n\
         edgetcdctl snapshot check keys.snap\nls n1.etcd/member"
    );
    let run = Command::new("sh")
        .args(["-c", &all])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("ETCDCTL_ENDPOINTS", &url)
        .output()
        .expect("there is a shell");
    let printed = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    assert_eq!(printed.matches("keys.snap: good").count(), 2, "{printed}");
    assert!(printed.contains("identity\n"), "{printed}");
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
