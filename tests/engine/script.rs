//! The commands of the transcripts. `harness/lesson.rs` documents the form of the files.
//!
//! Members, disks and network do nothing without a command. Only `elect`, `settle` and `wait` let them work.
//!
//! | command                       | effect                                                      |
//! |-------------------------------|-------------------------------------------------------------|
//! | `cluster n1 n2 n3`            | starts the members of a new cluster. `snapshot-count=5`: a snapshot is due after five entries. `memory=100`: bytes of entries in memory; older ones are only on disk |
//! | `join n4`                     | starts a process that knows no other member                 |
//! | `elect n1`                    | makes n1 leader: its clock runs until it starts an election, then all settles. Prints as little as `briefly` |
//! | `set n1 /a=1 /b=2`            | two clients write at n1. `ttl=5` at the end: for five seconds |
//! | `delete n1 /a`, `get n1 /a`   | a client deletes a key; reads it with `quorum=true`         |
//! | `add n1 n4`, `remove n1 n4`   | a client changes the membership at n1                       |
//! | `store`, `store n1`           | disks do the jobs that they have; `snapshot n1`: finishes the snapshot that it writes |
//! | `deliver`, `deliver n1>n2`    | delivers messages in transit (also `n1>` and `>n2`). With `#2` at the end: only the second |
//! | `copy n1>n2 #1`               | duplicates that message: the copy is the last in transit     |
//! | `drop n1>n2`, `unsent n1>n2`  | loses messages in transit; the same, and their sender knows that no byte left it |
//! | `tick n1 5`                   | five ticks (20 ms each) of n1, whose disk and messages stand still |
//! | `settle`, `settle n1 n2`      | disks and network work until nothing is left to do; only those of n1 and n2, and the links between them |
//! | `wait 2s`, `wait 300ms`       | time passes, while disks and network work. Heartbeats are not printed |
//! | `cut n1`, `cut n1>n2`, `heal` | links that lose everything, without notice                  |
//! | `split n1 n4`                 | the same, for all links between these members and the others |
//! | `disk n1 STATE`               | `works`, `hangs`, `full` (nothing fits), `log-full` (only a snapshot fits), `tree-full` (everything but a snapshot fits) |
//! | `crash n1`, `start n1`        | kills the process, so that the others' connections break; starts it again |
//! | `stop n1`                     | asks the process to stop, as SIGTERM does                   |
//! | `transfer n1 n2`              | n1 transfers its leadership to n2                           |
//! | `show`, `show n1`, `waiting`  | prints the state of members; the clients without an answer  |
//! | `trace n1`                    | prints the trace records of n1 since the last time          |
//! | `members n1`                  | prints the membership as n1's raft knows it                 |
//! | `read n1 /a`                  | prints what readers of n1 see, without `quorum=true`        |
//! | `quietly …`                   | runs the command without output                             |
//! | `briefly …`                   | prints only what concerns clients, requests of members to their leader, and log lines that are no part of an election |
//! | `only n2 …`                   | prints only what n2 does                                    |
//!
//! In the output, `n2@1 → n1` is a message of n2, which is in term 1. `5@1` is entry 5, appended in term 1. `n1 logs`
//! begins a line of n1's log file.

use crate::cluster::{Cluster, Detail, ELECTION_TICKS, Flaw, Make, listed};
use crate::disk::Space;
use crate::raft_text::{log_text, role_line};
use crate::text::{key_text, tree_text};
use edgetcd::engine::Event;
use edgetcd::engine::entry;
use edgetcd::engine::request::{Proposal, Query, Request};
use edgetcd::raft::{Core, NodeId, Role};
use edgetcd::tree::{Action, Command, Key};
use std::collections::BTreeSet;
use std::time::Duration;

pub struct Script {
    cluster: Cluster,
}

fn node(word: &str) -> NodeId {
    let id = word.strip_prefix('n').and_then(|id| id.parse().ok());
    NodeId(id.unwrap_or_else(|| panic!("not a member: {word:?}")))
}

fn span(word: &str) -> Duration {
    let number = |digits: &str| {
        digits
            .parse()
            .unwrap_or_else(|_| panic!("not a time: {word:?}"))
    };
    match word.strip_suffix("ms") {
        Some(digits) => Duration::from_millis(number(digits)),
        None => Duration::from_secs(number(word.trim_end_matches('s'))),
    }
}

impl Script {
    /// A script before its first command.
    pub fn new(flaw: Option<Flaw>) -> Script {
        Script {
            cluster: Cluster::new(flaw),
        }
    }

    /// Runs one command and returns its output.
    pub fn command(&mut self, line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (words, detail, only) = match words[..] {
            ["quietly", ref rest @ ..] => (rest, Detail::Brief, Some("none")),
            ["briefly", ref rest @ ..] | ref rest @ ["elect", ..] => (rest, Detail::Brief, None),
            ["only", who, ref rest @ ..] => (rest, Detail::Full, Some(who)),
            _ => (&words[..], Detail::Full, None),
        };
        self.cluster.detail = detail;
        self.run(words);
        let lines = self.cluster.take_output();
        let is_wanted = |line: &&str| {
            only.is_none_or(|who| {
                let rest = line.strip_prefix(who);
                rest.is_some_and(|rest| rest.starts_with([' ', '@']))
            })
        };
        let wanted = lines.lines().filter(is_wanted);
        Ok(wanted.map(|line| format!("{line}\n")).collect())
    }

    fn run(&mut self, words: &[&str]) {
        let cluster = &mut self.cluster;
        match *words {
            ["cluster", ref words @ ..] => self.found(words),
            ["join", who] => {
                cluster.add(node(who), &[]);
                cluster.start(node(who));
            }
            ["start", who] => cluster.start(node(who)),
            ["crash", who] => cluster.crash(node(who)),
            ["stop", who] => cluster.step(node(who), Event::Stop),
            ["transfer", who, to] => cluster.step(node(who), Event::Transfer(Some(node(to)))),
            ["store"] => {
                for id in cluster.ids() {
                    cluster.store(id);
                }
            }
            ["store", who] => _ = cluster.store(node(who)),
            ["snapshot", who] => _ = cluster.finish_snapshot(node(who)),
            ["elect", who] => self.elect(node(who)),
            ["tick", who, ticks] => {
                let ticks: u32 = ticks.parse().expect("a number");
                (0..ticks).for_each(|_| cluster.tick(node(who)));
            }
            ["settle"] => cluster.settle(),
            ["settle", ref whom @ ..] => {
                let whom: Vec<NodeId> = whom.iter().map(|who| node(who)).collect();
                cluster.settle_between(&whom);
            }
            ["wait", time] => {
                let before = cluster.detail;
                cluster.detail = before.min(Detail::Usual);
                cluster.wait(span(time));
                cluster.detail = before;
            }
            ["show"] => self.cluster.ids().into_iter().for_each(|id| self.show(id)),
            ["show", who] => self.show(node(who)),
            ["read", who, key] => {
                let text = key_text(&Key::new(key.as_bytes()), cluster.tree(node(who)));
                cluster.say(format!("readers of {who}: {text}"));
            }
            ["members", who] => {
                let membership = cluster.core(node(who)).membership();
                let (voters, learners) =
                    (ids_text(&membership.voters), ids_text(&membership.learners));
                cluster.say(format!(
                    "{who} knows voters {voters} and learners {learners}"
                ));
            }
            ["trace", who] => cluster.show_trace(node(who)),
            ["waiting"] => cluster.show_waiting(),
            _ => self.run_faults(words),
        }
    }

    fn run_faults(&mut self, words: &[&str]) {
        let cluster = &mut self.cluster;
        match *words {
            ["deliver", ref which @ ..] => {
                for (gone, at) in self.pick(which).into_iter().enumerate() {
                    self.cluster.deliver(at - gone);
                }
            }
            ["copy", ref which @ ..] => {
                for at in self.pick(which) {
                    let copy = self.cluster.flights[at].clone();
                    self.cluster.flights.push(copy);
                }
            }
            ["drop", ref which @ ..] => {
                for at in self.pick(which).into_iter().rev() {
                    self.cluster.lose(at);
                }
            }
            ["unsent", ref which @ ..] => {
                let chosen = self.pick(which);
                self.cluster.unsent(&chosen);
            }
            ["cut", link] => self.cut(link),
            ["split", ref part @ ..] => {
                let part: Vec<NodeId> = part.iter().map(|who| node(who)).collect();
                cluster.split(&part);
            }
            ["heal"] => cluster.cuts.clear(),
            ["disk", who, state] => {
                let disk = cluster.disk(node(who));
                disk.hangs = state == "hangs";
                disk.space = match state {
                    "works" | "hangs" => Space::Enough,
                    "full" => Space::Nothing,
                    "log-full" => Space::SnapshotOnly,
                    "tree-full" => Space::ReserveOnly,
                    _ => panic!("no such state of a disk: {state:?}"),
                };
            }
            _ => self.run_client(words),
        }
    }

    fn run_client(&mut self, words: &[&str]) {
        let (who, requests) = match *words {
            ["set", who, ref pairs @ .., ttl] if ttl.starts_with("ttl=") => {
                let ttl = Some(ttl["ttl=".len()..].parse().expect("seconds"));
                (who, pairs.iter().map(|pair| set(pair, ttl)).collect())
            }
            ["set", who, ref pairs @ ..] => {
                (who, pairs.iter().map(|pair| set(pair, None)).collect())
            }
            ["delete", who, key] => {
                let command = Command::new(Action::Delete, Key::new(key.as_bytes()));
                (who, vec![write(format!("delete {key}"), &command)])
            }
            ["get", who, key] => {
                let make: Make = Box::new(|client| Request::Read(Query::new(client, None)));
                let wanted = Some(Key::new(key.as_bytes()));
                (who, vec![(format!("get {key}, quorum"), wanted, make)])
            }
            ["add", who, new] => {
                let command = entry::add(&listed(node(new)));
                (who, vec![change(format!("add member {new}"), command)])
            }
            ["remove", who, old] => {
                let command = entry::remove(node(old));
                (who, vec![change(format!("remove member {old}"), command)])
            }
            _ => panic!("no such command: {words:?}"),
        };
        self.cluster.request(node(who), requests);
    }

    fn found(&mut self, words: &[&str]) {
        let (settings, names): (Vec<&str>, Vec<&str>) =
            words.iter().partition(|word| word.contains('='));
        for setting in settings {
            let (name, value) = setting.split_once('=').expect("name=value");
            let value = value.parse().expect("a number");
            match name {
                "snapshot-count" => self.cluster.snapshot_count = value,
                "memory" => self.cluster.memory_bytes = value as usize,
                _ => panic!("no such setting: {setting:?}"),
            }
        }
        let ids: Vec<NodeId> = names.iter().map(|name| node(name)).collect();
        ids.iter().for_each(|id| self.cluster.add(*id, &ids));
        ids.iter().for_each(|id| self.cluster.start(*id));
    }

    /// Members that follow a leader refuse a candidate. So first their election timeout passes. The clock of the present
    /// leader stands still.
    fn elect(&mut self, id: NodeId) {
        let cluster = &mut self.cluster;
        let follows = |core: &Core| core.role() == Role::Follower && core.leader().is_some();
        for _ in 0..ELECTION_TICKS {
            let followers = cluster.up().filter(|core| follows(core));
            let followers: Vec<NodeId> = followers.map(Core::id).collect();
            followers.into_iter().for_each(|other| cluster.tick(other));
            cluster.settle();
        }
        for _ in 0..2 * ELECTION_TICKS {
            if cluster.core(id).role() != Role::Follower {
                break;
            }
            cluster.tick(id);
        }
        cluster.settle();
    }

    fn cut(&mut self, link: &str) {
        match link.split_once('>') {
            Some((from, to)) => _ = self.cluster.cuts.insert((node(from), node(to))),
            None => self.cluster.split(&[node(link)]),
        }
    }

    /// The positions in `flights` of the messages that a filter selects.
    fn pick(&self, which: &[&str]) -> Vec<usize> {
        let (link, only) = match *which {
            [] => (">", None),
            [link] => (link, None),
            [link, only] => (link, only.strip_prefix('#')),
            _ => panic!("no such filter: {which:?}"),
        };
        let (from, to) = link.split_once('>').expect("from>to");
        let fits = |word: &str, id: NodeId| word.is_empty() || node(word) == id;
        let flights = self.cluster.flights.iter().enumerate();
        let all = flights.filter(|(_, flight)| fits(from, flight.from) && fits(to, flight.to));
        let all: Vec<usize> = all.map(|(at, _)| at).collect();
        match only {
            Some(only) => vec![all[only.parse::<usize>().expect("a number") - 1]],
            None => all,
        }
    }

    fn show(&mut self, id: NodeId) {
        if !self.cluster.is_up(id) {
            return self.cluster.say(format!("n{} is down", id.0));
        }
        let core = self.cluster.core(id);
        let (role, log, commit) = (role_line(core), log_text(core), core.commit().0);
        self.cluster
            .say(format!("{role}, log {log}, commit {commit}"));
    }
}

fn ids_text(ids: &BTreeSet<NodeId>) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("n{}", id.0)).collect();
    format!("[{}]", ids.join(" "))
}

fn set(pair: &str, ttl: Option<u64>) -> (String, Option<Key>, Make) {
    let (key, value) = pair.split_once('=').expect("key=value");
    let mut command = Command::new(Action::Set, Key::new(key.as_bytes()));
    command.value = value.into();
    command.ttl = ttl;
    write(tree_text(&command), &command)
}

fn write(text: String, command: &Command) -> (String, Option<Key>, Make) {
    let bytes = entry::tree(command);
    let make: Make = Box::new(|client| Request::Propose(Proposal::of(bytes, client)));
    (text, None, make)
}

fn change(text: String, bytes: Vec<u8>) -> (String, Option<Key>, Make) {
    let make: Make = Box::new(|client| Request::Change(Proposal::of(bytes, client)));
    (text, None, make)
}
