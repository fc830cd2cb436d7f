//! Runs the pages of the guide (`src/guide`): every command of a page runs in one bash and must print the output on
//! the page.
//!
//! Parts that vary are compared only in their form: ids, times, processes, sizes, the elected leader. Everything else
//! must be equal, including numbers. `UPDATE=1` writes the real output into the pages; read the change before you
//! commit it.
//!
//! Linux only, because one page mounts a disk. That page needs root, the page about etcd needs an etcd, and the one about
//! certificates needs openssl. They are ignored unless they are requested.

mod harness;

use harness::server::free_address;
use regex_lite::Regex;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// The ports on the pages: client and peer ports of n1, n2, n3, and of another server.
const PORTS: [u16; 8] = [12379, 12380, 22379, 22380, 32379, 32380, 42379, 42380];

/// Time limit of a page. `timeout` ends bash and the nodes.
const PATIENCE_SECONDS: &str = "120";

/// Printed between the outputs of two commands.
const MARK: &str = "@@@ done";

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide")
}

/// An id of a member or a cluster.
const ID: &str = r"\b[0-9a-f]{14,16}\b";

/// A command of a page, its output there, and the text up to the next command.
struct Step {
    command: String,
    output: String,
    prose: String,
}

/// The text before the first command, and the commands: the `$ …` lines of ```` ```console ```` blocks.
fn steps(page: &str) -> (String, Vec<Step>) {
    let (mut head, mut steps) = (String::new(), Vec::<Step>::new());
    let mut inside = false;
    for line in page.lines() {
        let is_fence = matches!(line, "```console" | "```");
        inside = line == "```console" || inside && !is_fence;
        let command = line.strip_prefix("$ ").filter(|_| inside);
        if let Some(command) = command {
            let (command, output, prose) = (command.to_owned(), String::new(), String::new());
            steps.push(Step {
                command,
                output,
                prose,
            });
            continue;
        }
        let to = match steps.last_mut() {
            None => &mut head,
            Some(step) if inside && !is_fence => &mut step.output,
            Some(step) => &mut step.prose,
        };
        *to += line;
        *to += "\n";
    }
    (head, steps)
}

/// Replaces each port of the pages by a port that is free here, or the reverse.
fn move_ports(text: &str, from: &[u16], to: &[u16]) -> String {
    let mut moved = text.to_owned();
    // In two steps, because a free port may be one of those on the pages.
    for (at, port) in from.iter().enumerate() {
        let pattern = Regex::new(&format!(r"\b{port}\b")).expect("a pattern");
        moved = pattern
            .replace_all(&moved, format!("@port{at}@"))
            .into_owned();
    }
    for (at, port) in to.iter().enumerate() {
        moved = moved.replace(&format!("@port{at}@"), &port.to_string());
    }
    moved
}

/// Removes all processes and disks, however the page ends.
const CLEAR_AWAY: &str = "clear_away() {
    for id in \"${process[@]}\" $(jobs -p); do kill -KILL $id 2>/dev/null; done
    [ $(id -u) != 0 ] || umount *.etcd 2>/dev/null
}
trap clear_away EXIT
";

/// A bash in an empty folder that runs one command after another.
struct Walk {
    bash: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    ports: Vec<u16>,
    /// Ids on the page, and the corresponding ids here.
    ids: Vec<(String, String)>,
    _folder: TempDir,
}

impl Walk {
    fn begin() -> Walk {
        let folder = tempfile::Builder::new().prefix("edgetcd-guide-").tempdir();
        let folder = folder.expect("a folder");
        let ports: Vec<u16> = PORTS.iter().map(|_| free_address().port()).collect();
        let listed: Vec<String> = ports.iter().map(u16::to_string).collect();
        let programs = Path::new(env!("CARGO_BIN_EXE_edgetcd"))
            .parent()
            .expect("a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut bash = Command::new("timeout")
            .args([PATIENCE_SECONDS, "bash"])
            .current_dir(folder.path())
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("GUIDE_PORTS", listed.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a bash");
        let input = bash.stdin.take().expect("it is a pipe");
        let output = BufReader::new(bash.stdout.take().expect("it is a pipe"));
        let mut walk = Walk {
            bash,
            input,
            output,
            ports,
            ids: Vec::new(),
            _folder: folder,
        };
        let script = guide().join("guide.sh");
        walk.tell(&format!(
            "exec 2>&1\n{CLEAR_AWAY}\n. '{}'",
            script.display()
        ));
        walk
    }

    /// Runs a command and returns its output.
    fn tell(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}\necho '{MARK}'").expect("bash reads");
        let mut printed = String::new();
        while !printed.ends_with(&format!("{MARK}\n")) {
            let read = self.output.read_line(&mut printed).expect("text");
            assert!(read > 0, "bash has ended: {printed}");
        }
        printed.truncate(printed.len() - MARK.len() - 1);
        printed
    }

    /// Runs a command of a page, and returns its output with the page's ports and ids.
    fn step(&mut self, shown: &Step) -> String {
        let mut command = move_ports(&shown.command, &PORTS, &self.ports);
        for (there, here) in &self.ids {
            command = command.replace(there, here);
        }
        let mut printed = move_ports(&self.tell(&command), &self.ports, &PORTS);
        // The first new id here corresponds to the first new id on the page.
        let ids = |text: &str| -> Vec<String> {
            let pattern = Regex::new(ID).expect("a pattern");
            pattern
                .find_iter(text)
                .map(|id| id.as_str().to_owned())
                .collect()
        };
        for (there, here) in ids(&shown.output).into_iter().zip(ids(&printed)) {
            let known = self
                .ids
                .iter()
                .any(|(known, id)| *known == there || *id == here);
            if !known {
                self.ids.push((there, here));
            }
        }
        for (there, here) in &self.ids {
            printed = printed.replace(here, there);
        }
        printed
    }

    /// Until bash has ended, the folder may contain a mounted disk.
    fn end(mut self) {
        drop(self.input);
        let status = self.bash.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

/// The text without the parts that vary.
fn likeness(text: &str) -> String {
    let patterns = [
        (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", "TIME"),
        (r"\b[0-9a-f]{8}\.wal", "SALT.wal"),
        // Each election adds an entry to the log.
        (
            r"[0-9]+ +[0-9]+ +[0-9]+ +(-|[0-9.]+ms) +[0-9.]+ms +[0-9.]+MiB",
            "STATUS",
        ),
        (r"\b(entry|byte) +[0-9]+(@[0-9]+|, of term [0-9]+)?", "$1 N"),
        // A restored member publishes its name at an unpredictable index.
        (r#""index":10000[0-9]{2}"#, "\"index\":N"),
        // An id sometimes has one or two digits less, so sizes differ. The order of endpoints also differs.
        (
            r"[0-9]+ bytes, from http://[0-9.:]+",
            "N bytes, from MEMBER",
        ),
        (r"\bbytes +[0-9]+", "bytes N"),
        (r"(?m)^ +[0-9]+ +\?", "N ?"),
        (r"\b(follower|leader)\b", "ROLE"),
        (r#""(at|start|after_ms|next)":[0-9]+"#, "\"$1\":N"),
        (r" +", " "),
    ];
    let mut like = text.trim_end().to_owned();
    for (pattern, by) in patterns {
        let pattern = Regex::new(pattern).expect("a pattern");
        like = pattern.replace_all(&like, by).into_owned();
    }
    let lines = like.lines().map(members_sorted);
    lines.collect::<Vec<_>>().join("\n")
}

/// Members are sorted by their ids.
fn members_sorted(line: &str) -> String {
    for (head, between) in [("ETCD_INITIAL_CLUSTER=", ','), (" members", ' ')] {
        if let Some(list) = line.strip_prefix(head) {
            let mut members: Vec<&str> = list.trim_matches('"').split(between).collect();
            members.sort_unstable();
            return format!("{head}{}", members.join(","));
        }
    }
    line.to_owned()
}

/// Runs a page.
fn check(name: &str) {
    let path = guide().join(name);
    let page = fs::read_to_string(&path).expect("the page");
    let (head, steps) = steps(&page);
    assert!(steps.len() >= 3, "{name} shows {} commands", steps.len());
    let update = std::env::var_os("UPDATE").is_some();
    let mut walk = Walk::begin();
    let mut found = head;
    for step in &steps {
        let printed = walk.step(step);
        let (here, there) = (likeness(&printed), likeness(&step.output));
        assert!(
            update || here == there,
            "{name}: $ {}\n--- printed:\n{printed}\n--- shown:\n{}\n--- compared:\n{here}\n---\n{there}",
            step.command,
            step.output,
        );
        found += &format!("$ {}\n{printed}{}", step.command, step.prose);
    }
    walk.end();
    if update {
        fs::write(&path, found).expect("it can be written");
    }
}

#[test]
fn setting() {
    check("README.md");
}

#[test]
#[ignore = "needs openssl"]
fn closed_cluster() {
    check("closed_cluster.md");
}

#[test]
fn lost_disk() {
    check("lost_disk.md");
}

#[test]
fn lost_majority() {
    check("lost_majority.md");
}

#[test]
fn damaged_log() {
    check("damaged_log.md");
}

#[test]
fn restore() {
    check("restore.md");
}

#[test]
fn trace() {
    check("trace.md");
}

#[test]
#[ignore = "needs etcd and curl"]
fn from_etcd() {
    check("from_etcd.md");
}

#[test]
#[ignore = "needs root, to mount a small file system"]
fn full_disk() {
    check("full_disk.md");
}
