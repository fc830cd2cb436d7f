//! Transcripts: commands, a line `---`, then everything that the cluster did.
//!
//! `harness/lesson.rs` documents the form of the files.
//!
//! | command                      | effect                                                      |
//! |------------------------------|-------------------------------------------------------------|
//! | `settings memory=500 …`      | limits of nodes created after it (memory, batch, window, uncommitted, strict) |
//! | `cluster n1 n2 n3`           | creates nodes that know each other as voters                |
//! | `join n4`                    | creates and starts a node that knows no other               |
//! | `disk n1 term=3 log=1,1,2`   | sets the disk of n1: its term, and the term of each entry   |
//! | `start`, `start n1`          | starts all nodes, or one (again)                            |
//! | `crash n1`                   | stops it; data that was not stored is lost                  |
//! | `timeout n1`                 | ticks only n1 until it starts an election                   |
//! | `tick 3`, `tick n1 3`        | ticks                                                       |
//! | `store`, `store n1`          | stores everything that waits for the disk; `one n1`: one batch |
//! | `deliver`, `deliver n1>n2`   | delivers messages in transit, also `n1>`, `>n2`. With `#2` at the end: only the second |
//! | `copy n1>n2 #1`              | duplicates that message                                     |
//! | `drop`, `drop n1>n2`         | drops messages in transit                                   |
//! | `settle`                     | stores and delivers until nothing is left to do             |
//! | `cut n1`, `cut n1>n2`, `heal`| links that lose everything                                  |
//! | `elect n1`                   | `timeout n1` and `settle`; prints only the leader           |
//! | `put n1 a b`, `bulk n1 100`  | proposals: one for each word; a hundred of 40 bytes         |
//! | `read n1`                    | requests a linearizable read                                |
//! | `add n1 n4`, `promote …`, `remove …` | proposes a membership change to n1                  |
//! | `transfer n1 n2`             | n1 transfers its leadership to n2                           |
//! | `step-down n1`               | n1 steps down                                               |
//! | `gone n2 n1`                 | reports to n2 that n1's process has ended                   |
//! | `unreachable n1 n2`          | reports to n1 that messages to n2 were dropped              |
//! | `compact n1`                 | n1 makes a snapshot of its applied state and truncates its log |
//! | `snapshot`, `copy-snapshot`  | delivers the first snapshot in transit; duplicates it       |
//! | `readback n1`                | delivers the entries that n1 wants to read back             |
//! | `show`, `show n1`            | prints the state of nodes that are up                       |
//! | `members n1`                 | prints the membership as n1 knows it                        |
//! | `quietly …`                  | runs the command without output                             |

use crate::cluster::{Cluster, Effect, Flight, Outcome, change, members};
use crate::raft_text::{body_text, entries_text, hard_state_text, log_text, role_line, role_text};
use edgetcd::raft::{
    ChangeKind, Core, Entry, HardState, Input, LogIndex, Membership, NodeId, Payload, PeerFlow,
    Position, Role, Rules, Settings, Term, Todo,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Role, term and commit of a node when they were last printed.
type Seen = (Role, Term, LogIndex);

pub struct Script<R: Rules> {
    cluster: Cluster<R>,
    settings: Settings,
    seen: BTreeMap<NodeId, Seen>,
    reads: u64,
    /// The output of the current command.
    out: String,
}

fn node(word: &str) -> NodeId {
    let id = word.strip_prefix('n').and_then(|id| id.parse().ok());
    NodeId(id.unwrap_or_else(|| panic!("not a node: {word:?}")))
}

impl<R: Rules> Script<R> {
    pub fn new() -> Script<R> {
        let settings = Settings {
            election_ticks: 20,
            heartbeat_ticks: 4,
            ..Settings::new(NodeId(1), 1)
        };
        let mut cluster = Cluster::new();
        cluster.tracing = true;
        Script {
            cluster,
            settings,
            seen: BTreeMap::new(),
            reads: 0,
            out: String::new(),
        }
    }

    /// Runs one command and returns its output.
    pub fn command(&mut self, line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["quietly", ..] => {
                self.command(line.trim_start().trim_start_matches("quietly"))?;
                return Ok(String::new());
            }
            ["elect", who] => {
                self.command(&format!("quietly timeout {who}"))?;
                self.command("quietly settle")?;
                let core = self.core(node(who));
                return Ok(format!("{}\n", role_line(core)));
            }
            _ => {}
        }
        let outcome = self.run(&words);
        self.tell();
        outcome.map(|()| std::mem::take(&mut self.out))
    }

    fn core(&self, id: NodeId) -> &Core<R> {
        self.cluster.nodes[&id]
            .core
            .as_ref()
            .unwrap_or_else(|| panic!("{id:?} is down"))
    }

    fn run(&mut self, words: &[&str]) -> Outcome {
        match *words {
            ["settings", ref limits @ ..] => limits.iter().for_each(|limit| self.limit(limit)),
            ["cluster", ref ids @ ..] => {
                let ids: Vec<NodeId> = ids.iter().map(|id| node(id)).collect();
                ids.iter().for_each(|id| self.make(*id, members(&ids)));
            }
            ["join", who] => {
                self.make(node(who), Membership::default());
                return self.cluster.start(node(who));
            }
            ["disk", who, term, log] => self.write_disk(node(who), term, log),
            ["start"] => {
                return self
                    .cluster
                    .ids()
                    .into_iter()
                    .try_for_each(|id| self.cluster.start(id));
            }
            ["start", who] => return self.cluster.start(node(who)),
            ["crash", who] => {
                self.cluster.crash(node(who), 0);
                self.seen.remove(&node(who));
            }
            ["members", who] => {
                let membership = self.core(node(who)).membership();
                let text = |ids: &BTreeSet<NodeId>| {
                    ids.iter()
                        .map(|id| format!("n{}", id.0))
                        .collect::<Vec<_>>()
                        .join(" ")
                };
                let (voters, learners) = (text(&membership.voters), text(&membership.learners));
                let _ = writeln!(
                    self.out,
                    "{who} has voters [{voters}] learners [{learners}]"
                );
            }
            ["show"] => self.cluster.ids().into_iter().for_each(|id| self.show(id)),
            ["show", who] => self.show(node(who)),
            _ => return self.run_network(words),
        }
        Ok(())
    }

    fn run_network(&mut self, words: &[&str]) -> Outcome {
        match *words {
            ["timeout", who] => return self.timeout(node(who)),
            ["tick", count] => {
                return (0..number(count)).try_for_each(|_| self.cluster.tick());
            }
            ["tick", who, count] => {
                return (0..number(count))
                    .try_for_each(|_| self.cluster.step(node(who), Input::Tick));
            }
            ["store"] => {
                for id in self.cluster.ids() {
                    while self.cluster.store(id)? {}
                }
            }
            ["store", who] => while self.cluster.store(node(who))? {},
            ["one", who] => drop(self.cluster.store(node(who))?),
            ["deliver", ref which @ ..] => return self.deliver(which),
            ["copy", ref which @ ..] => {
                for at in self.pick(which) {
                    let copy = self.cluster.flights[at].clone();
                    self.cluster.flights.push(copy);
                }
            }
            ["drop", ref which @ ..] => {
                for at in self.pick(which).into_iter().rev() {
                    self.cluster.flights.remove(at);
                }
            }
            ["settle"] => return self.cluster.settle(),
            ["cut", link] => self.cut(link),
            ["heal"] => self.cluster.cuts.clear(),
            ["snapshot"] => return self.cluster.deliver_snapshot(0),
            ["copy-snapshot"] => {
                let copy = self.cluster.snapshots[0].clone();
                self.cluster.snapshots.push(copy);
            }
            ["readback", who] => drop(self.cluster.read_back(node(who))?),
            _ => return self.run_input(words),
        }
        Ok(())
    }

    fn run_input(&mut self, words: &[&str]) -> Outcome {
        let (who, input) = match *words {
            ["put", who, ref values @ ..] => {
                let commands = values.iter().map(|value| value.as_bytes().into()).collect();
                (
                    who,
                    Input::Propose {
                        term: None,
                        commands,
                    },
                )
            }
            ["bulk", who, count] => {
                let commands = (1..=number(count)).map(|n| format!("{n:040}").into_bytes().into());
                (
                    who,
                    Input::Propose {
                        term: None,
                        commands: commands.collect(),
                    },
                )
            }
            ["read", who] => {
                self.reads += 1;
                return self.cluster.read(node(who), self.reads);
            }
            ["add", who, new] => (who, change(ChangeKind::AddLearner, node(new))),
            ["promote", who, learner] => (who, change(ChangeKind::Promote, node(learner))),
            ["remove", who, old] => (who, change(ChangeKind::Remove, node(old))),
            ["transfer", who, to] => (who, Input::Transfer { to: Some(node(to)) }),
            ["step-down", who] => (who, Input::StepDown),
            ["gone", who, leader] => (
                who,
                Input::LeaderGone {
                    leader: node(leader),
                },
            ),
            ["unreachable", who, other] => (who, Input::Unreachable { node: node(other) }),
            ["compact", who] => return self.cluster.compact(node(who)),
            _ => panic!("no such command: {words:?}"),
        };
        self.cluster.step(node(who), input)
    }

    fn limit(&mut self, limit: &str) {
        let (name, value) = limit.split_once('=').expect("name=value");
        match name {
            "memory" => self.settings.memory_bytes = number(value),
            "batch" => self.settings.batch_bytes = number(value),
            "window" => self.settings.window_bytes = number(value),
            "uncommitted" => self.settings.uncommitted_bytes = number(value),
            "strict" => self.settings.strict_changes = value == "yes",
            _ => panic!("no such limit: {limit:?}"),
        }
    }

    fn make(&mut self, id: NodeId, members: Membership) {
        self.cluster.add(
            Settings {
                id,
                ..self.settings.clone()
            },
            members,
        );
    }

    fn write_disk(&mut self, id: NodeId, term: &str, log: &str) {
        let term = number(term.strip_prefix("term=").expect("term=…")) as u64;
        let log = log.strip_prefix("log=").expect("log=…");
        let terms = log
            .split(',')
            .filter(|term| !term.is_empty())
            .map(|term| number(term) as u64);
        let entry = |(index, term): (u64, u64)| Entry {
            position: Position {
                term: Term(term),
                index: LogIndex(index),
            },
            payload: Payload::Command(format!("t{term}").into_bytes().into()),
        };
        let disk = &mut self.cluster.node(id).disk;
        disk.hard_state = HardState {
            term: Term(term),
            vote: None,
        };
        disk.entries = (1..).zip(terms).map(entry).collect();
    }

    fn timeout(&mut self, id: NodeId) -> Outcome {
        let before = (self.core(id).role(), self.core(id).term());
        for _ in 0..2 * self.settings.election_ticks {
            self.cluster.step(id, Input::Tick)?;
            let now = (self.core(id).role(), self.core(id).term());
            if now != before || !self.cluster.flights.is_empty() && now.0 == Role::PreCandidate {
                return Ok(());
            }
        }
        self.out.push_str("nothing happens\n");
        Ok(())
    }

    fn cut(&mut self, link: &str) {
        if let Some((from, to)) = link.split_once('>') {
            self.cluster.cuts.insert((node(from), node(to)));
            return;
        }
        for other in self.cluster.ids() {
            self.cluster
                .cuts
                .extend([(node(link), other), (other, node(link))]);
        }
    }

    /// The positions in `flights` of the messages that a filter selects.
    fn pick(&self, which: &[&str]) -> Vec<usize> {
        let (link, only) = match *which {
            [] => (">", None),
            [link] => (link, None),
            [link, only] => (link, Some(number(only.trim_start_matches('#')))),
            _ => panic!("no such filter: {which:?}"),
        };
        let (from, to) = link.split_once('>').expect("from>to");
        let fits = |word: &str, id: NodeId| word.is_empty() || node(word) == id;
        let flights = self.cluster.flights.iter().enumerate();
        let all = flights.filter(|(_, flight)| fits(from, flight.from) && fits(to, flight.to));
        let all: Vec<usize> = all.map(|(at, _)| at).collect();
        match only {
            Some(only) => vec![all[only - 1]],
            None => all,
        }
    }

    /// Delivers the messages in transit, but not the messages that result from them.
    fn deliver(&mut self, which: &[&str]) -> Outcome {
        for (gone, at) in self.pick(which).into_iter().enumerate() {
            self.cluster.deliver(at - gone)?;
        }
        Ok(())
    }

    fn show(&mut self, id: NodeId) {
        let Some(core) = &self.cluster.nodes[&id].core else {
            return;
        };
        let (log, commit) = (log_text(core), core.commit().0);
        let _ = writeln!(self.out, "{} log {log} commit {commit}", role_line(core));
        for peer in core.progress() {
            let flow = match peer.flow {
                PeerFlow::Probe => "probe",
                PeerFlow::Stream => "stream",
                PeerFlow::Snapshot => "snapshot",
            };
            let (node, matched) = (peer.node.0, peer.matched.0);
            let _ = writeln!(
                self.out,
                "   n{node}: {flow}, has {matched}, next {}",
                peer.next.0
            );
        }
    }

    /// Prints what happened since the last call.
    fn tell(&mut self) {
        for effect in std::mem::take(&mut self.cluster.effects) {
            match effect {
                Effect::Sent { flight, lost } => self.tell_sent(&flight, lost),
                Effect::Done {
                    node,
                    todo,
                    role,
                    term,
                    commit,
                } => {
                    self.tell_role(node, (role, term, commit));
                    self.tell_todo(node, &todo);
                }
            }
        }
    }

    fn tell_sent(&mut self, flight: &Flight, lost: bool) {
        let (from, to, term) = (flight.from.0, flight.to.0, flight.message.term.0);
        let body = body_text(&flight.message.body, bytes_text);
        let lost = if lost { " (lost)" } else { "" };
        let _ = writeln!(self.out, "n{from}@{term} → n{to} {body}{lost}");
    }

    fn tell_role(&mut self, id: NodeId, now: Seen) {
        let fresh = (Role::Follower, Term(0), LogIndex(0));
        let before = self.seen.insert(id, now).unwrap_or(fresh);
        if (before.0, before.1) != (now.0, now.1) {
            let _ = writeln!(
                self.out,
                "n{} is {} in term {}",
                id.0,
                role_text(now.0),
                now.1.0
            );
        }
        if before.2 != now.2 {
            let _ = writeln!(self.out, "n{} commits {}", id.0, now.2.0);
        }
    }

    fn tell_todo(&mut self, id: NodeId, todo: &Todo) {
        let mut line = |text: String| {
            let _ = writeln!(self.out, "n{} {text}", id.0);
        };
        if let Some(metadata) = &todo.install {
            line(format!("installs the snapshot at {}", metadata.position));
        }
        if let Some(hard_state) = todo.hard_state {
            line(format!("to disk: {}", hard_state_text(hard_state)));
        }
        if !todo.append.is_empty() {
            line(format!(
                "to disk: {}",
                entries_text(&todo.append, bytes_text)
            ));
        }
        todo.send_snapshot
            .iter()
            .for_each(|to| line(format!("sends a snapshot to n{}", to.0)));
        if !todo.apply.is_empty() {
            line(format!("applies {}", entries_text(&todo.apply, bytes_text)));
        }
        if let Some((first, last)) = todo.read {
            line(format!("reads back {}..{}", first.0, last.0));
        }
        todo.lost_tail.iter().for_each(|(of, last)| {
            line(format!(
                "reports that n{} has lost entries and ends at {}",
                of.0, last.0
            ));
        });
        if let Some(refusal) = todo.refused {
            line(format!("refuses: {refusal:?}"));
        }
        todo.reads
            .iter()
            .for_each(|(id, at)| line(format!("read {id} is good at {}", at.0)));
        todo.refused_reads
            .iter()
            .for_each(|id| line(format!("read {id} is refused")));
    }
}

fn number(word: &str) -> usize {
    word.parse()
        .unwrap_or_else(|_| panic!("not a number: {word:?}"))
}

fn bytes_text(command: &[u8]) -> String {
    String::from_utf8_lossy(command).into_owned()
}
