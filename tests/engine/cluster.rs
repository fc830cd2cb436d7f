//! A small cluster of engines. Disks, network and clocks act only on command.
//!
//! The effects of a step take effect in the order that [`Effects`] documents, as in a server. Each is written down as a
//! line of text. The messages of a step wait in [`Cluster::flights`], and the jobs for a disk wait at that disk. So a
//! transcript decides the order of all events, and a crash loses exactly the data that was not stored.

mod clock;
mod jobs;
mod network;

use crate::disk::{Disk, Snapshot};
use crate::raft_text::entries_text;
use crate::text::{answer_text, command_text};
use edgetcd::engine::members::{self, Members};
use edgetcd::engine::request::{Reply, Request};
use edgetcd::engine::rules::{Rule, Rules};
use edgetcd::engine::state::{Outcome, State};
use edgetcd::engine::time::{Estimate, Monotonic, Now};
use edgetcd::engine::trace::Record;
use edgetcd::engine::{Effects, Engine, Event, Note, PeerEvent, Publication, Settings};
use edgetcd::raft::{self, AllRules, Core, Entry, LogIndex, Membership, NodeId, Role};
use edgetcd::tree::{Key, Tree, WallTime};
use network::Flight;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

pub const TICK: Duration = Duration::from_millis(20);

/// Ticks of an election timeout: one second.
pub const ELECTION_TICKS: u32 = 50;

/// The machine of n2 has been up for this much longer than that of n1, and so on.
const UPTIME: Duration = Duration::from_secs(3600);

/// Past events that a tree keeps for watches.
const HISTORY_EVENTS: usize = 100;

/// A mistake that is made on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The engines keep all rules but this one.
    Without(Rule),
    /// Each start of a member tags its forwards with the same numbers.
    SameTags,
}

/// The rules of an engine. Records the applied entries.
struct Kept {
    flaw: Option<Flaw>,
    applied: Rc<RefCell<Vec<Entry>>>,
}

impl Rules for Kept {
    type Core = AllRules;

    fn keeps(&self, rule: Rule) -> bool {
        self.flaw != Some(Flaw::Without(rule))
    }

    fn applied(&self, entry: &Entry, _: &State, _: &Outcome) {
        self.applied.borrow_mut().push(entry.clone());
    }
}

/// A running process.
struct Process {
    engine: Engine<u64, Kept>,
    /// The entries that the present step applies.
    applied: Rc<RefCell<Vec<Entry>>>,
    /// The version of the tree that readers see.
    tree: Tree,
    /// The snapshot that is being installed, and its sender.
    incoming: Option<(NodeId, Snapshot)>,
    /// Whether the last attempt to store something found the disk full.
    knows_full: bool,
    /// The trace records that were not printed yet.
    records: Vec<Record>,
}

/// A member: its disk, and its process while one runs.
struct Member {
    disk: Disk,
    founders: Vec<NodeId>,
    starts: u64,
    process: Option<Process>,
}

/// A request without an answer.
struct Asked {
    at: NodeId,
    /// The key that a quorum read wants.
    key: Option<Key>,
}

pub struct Cluster {
    flaw: Option<Flaw>,
    members: BTreeMap<NodeId, Member>,
    pub flights: Vec<Flight>,
    /// One-way links that lose everything.
    pub cuts: BTreeSet<(NodeId, NodeId)>,
    pub snapshot_count: u64,
    /// Bytes of entries that a core keeps in memory.
    pub memory_bytes: usize,
    asked: BTreeMap<u64, Asked>,
    clients: u64,
    now: Monotonic,
    pub detail: Detail,
    out: String,
}

/// How much of what happens is part of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Clients, requests of members to their leader, and log lines that are no part of an election.
    Brief,
    /// Everything but heartbeats.
    Usual,
    Full,
}

fn detail_of_note(note: &Note) -> Detail {
    match note {
        Note::Term { .. }
        | Note::Stands { .. }
        | Note::Vote { .. }
        | Note::Refuses { .. }
        | Note::LostLeader { .. }
        | Note::Leads { .. } => Detail::Usual,
        Note::Role { before, now, .. } if ![*before, *now].contains(&Role::Leader) => Detail::Usual,
        _ => Detail::Brief,
    }
}

/// As the members API would show it.
pub fn listed(id: NodeId) -> members::Member {
    members::Member {
        id: id.0,
        name: format!("n{}", id.0),
        peer_urls: vec![format!("http://n{}:2380", id.0)],
        client_urls: Vec::new(),
    }
}

fn label(id: NodeId) -> String {
    format!("n{}", id.0)
}

impl Cluster {
    /// A cluster without members.
    pub fn new(flaw: Option<Flaw>) -> Cluster {
        Cluster {
            flaw,
            members: BTreeMap::new(),
            flights: Vec::new(),
            cuts: BTreeSet::new(),
            snapshot_count: u64::MAX,
            memory_bytes: usize::MAX,
            asked: BTreeMap::new(),
            clients: 0,
            now: Monotonic(1 << 40),
            detail: Detail::Full,
            out: String::new(),
        }
    }

    /// Adds a line that needs this much detail.
    fn say_from(&mut self, detail: Detail, line: impl Display) {
        if self.detail >= detail {
            self.say(line);
        }
    }

    fn say_usual(&mut self, line: impl Display) {
        self.say_from(Detail::Usual, line);
    }

    /// Adds a line to the output.
    pub fn say(&mut self, line: impl Display) {
        self.out.push_str(&format!("{line}\n"));
    }

    /// The output since the last call.
    pub fn take_output(&mut self) -> String {
        std::mem::take(&mut self.out)
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.members[&id].process.is_some()
    }

    /// The cores that run.
    pub fn up(&self) -> impl Iterator<Item = &Core> {
        let processes = self
            .members
            .values()
            .filter_map(|member| member.process.as_ref());
        processes.map(|process| process.engine.core())
    }

    pub fn disk(&mut self, id: NodeId) -> &mut Disk {
        &mut self.member(id).disk
    }

    pub fn core(&self, id: NodeId) -> &Core {
        let process = self.members[&id].process.as_ref();
        process
            .unwrap_or_else(|| panic!("{id:?} is down"))
            .engine
            .core()
    }

    /// The tree that readers of this member see.
    pub fn tree(&self, id: NodeId) -> &Tree {
        let process = self.members[&id].process.as_ref();
        &process.unwrap_or_else(|| panic!("{id:?} is down")).tree
    }

    fn member(&mut self, id: NodeId) -> &mut Member {
        let found = self.members.get_mut(&id);
        found.unwrap_or_else(|| panic!("there is no {id:?}"))
    }

    fn process(&mut self, id: NodeId) -> &mut Process {
        let process = self.member(id).process.as_mut();
        process.unwrap_or_else(|| panic!("{id:?} is down"))
    }

    /// The clocks of a member's machine. They count from its boot, and the machines have been booted an hour after each
    /// other.
    fn clock(&self, id: NodeId) -> Now {
        let uptime = self.now + UPTIME * id.0 as u32;
        let wall = WallTime(self.now.0 as i64);
        Now {
            monotonic: uptime,
            wall,
        }
    }

    // Processes

    /// Adds a member with an empty disk. One without founders joins a cluster later.
    pub fn add(&mut self, id: NodeId, founders: &[NodeId]) {
        let member = Member {
            disk: Disk::default(),
            founders: founders.to_vec(),
            starts: 0,
            process: None,
        };
        self.members.insert(id, member);
    }

    pub fn start(&mut self, id: NodeId) {
        let (flaw, snapshot_count, memory_bytes) =
            (self.flaw, self.snapshot_count, self.memory_bytes);
        let now = self.clock(id);
        let member = self.member(id);
        member.starts += 1;
        let founders = Membership {
            voters: member.founders.iter().copied().collect(),
            learners: BTreeSet::new(),
        };
        let core = raft::Settings {
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 5,
            memory_bytes,
            ..raft::Settings::new(id, id.0)
        };
        let core = Core::new(core, member.disk.start(founders));
        let (state, bytes) = match &member.disk.snapshot {
            Some(snapshot) => (snapshot.state.clone(), snapshot.bytes),
            None => {
                let table = Members::new(1, member.founders.iter().map(|id| listed(*id)));
                (State::new(table, HISTORY_EVENTS), 0)
            }
        };
        // A server draws this number at random. It must differ from those of other members and of earlier starts.
        let start = if flaw == Some(Flaw::SameTags) {
            1
        } else {
            member.starts
        };
        let settings = settings(snapshot_count, bytes, id.0 << 32 | start << 16);
        let applied = Rc::default();
        let rules = Kept {
            flaw,
            applied: Rc::clone(&applied),
        };
        let tree = state.tree.clone();
        let engine = Engine::with_rules(rules, core, state, settings, Estimate::default(), now);
        member.process = Some(Process {
            engine,
            applied,
            tree,
            incoming: None,
            knows_full: false,
            records: Vec::new(),
        });
        self.step(id, Event::Start);
    }

    /// The process ends, its connections break, and its machine refuses new ones.
    pub fn crash(&mut self, id: NodeId) {
        self.end(id);
        let cut = |from: NodeId, to: NodeId| self.cuts.contains(&(from, to));
        let others = self.ids().into_iter();
        let others: Vec<NodeId> = others
            .filter(|other| *other != id && !cut(id, *other) && !cut(*other, id))
            .collect();
        for other in others {
            let events = vec![PeerEvent::Unreachable(id), PeerEvent::Gone(id)];
            self.step(other, Event::Peers(events));
        }
    }

    fn end(&mut self, id: NodeId) {
        self.member(id).process = None;
        self.disk(id).forget_jobs();
        self.flights
            .retain(|flight| flight.from != id && flight.to != id);
        let all = std::mem::take(&mut self.asked).into_iter();
        let (lost, kept) = all.partition(|(_, asked)| asked.at == id);
        self.asked = kept;
        let lost: BTreeMap<u64, Asked> = lost;
        for number in lost.into_keys() {
            self.say(format!(
                "client {number} loses its connection to {}",
                label(id)
            ));
        }
    }

    /// Passes an event to a member that is up, and performs the effects.
    pub fn step(&mut self, id: NodeId, event: Event<u64>) {
        let now = self.clock(id);
        let Some(process) = &mut self.member(id).process else {
            return;
        };
        let before = process.engine.core().commit();
        let effects = process.engine.step(now, event);
        process.records.extend(process.engine.trace());
        let commit = process.engine.core().commit();
        let applied = std::mem::take(&mut *process.applied.borrow_mut());
        self.perform(id, effects, (commit != before).then_some(commit), &applied);
    }

    /// Prints the trace records since the last call, without numbers and times.
    pub fn show_trace(&mut self, id: NodeId) {
        for record in std::mem::take(&mut self.process(id).records) {
            let line = record.json(0, id);
            let from = line.find("\"term\"").expect("each record has a term");
            self.say(format!("{} {{{}", label(id), &line[from..]));
        }
    }

    fn perform(
        &mut self,
        id: NodeId,
        effects: Effects<u64>,
        commit: Option<LogIndex>,
        applied: &[Entry],
    ) {
        for note in effects.notes {
            let members = &self.process(id).engine.state().members;
            let line = format!("{} logs: {}", label(id), note.text(members));
            self.say_from(detail_of_note(&note), line);
        }
        if let Some(commit) = commit {
            self.say_usual(format!("{} commits {}", label(id), commit.0));
        }
        for (to, message) in effects.send {
            self.send(id, to, message);
        }
        for (to, term) in effects.send_snapshot {
            self.send_snapshot(id, to, term);
        }
        for from in effects.cut {
            self.say(format!(
                "{} closes the connection of {}",
                label(id),
                label(from)
            ));
        }
        for job in effects.disk {
            self.order(id, job);
        }
        if !applied.is_empty() {
            let entries = entries_text(applied, command_text);
            self.say_usual(format!("{} applies {entries}", label(id)));
        }
        for publication in effects.publish {
            self.publish(id, publication);
        }
        for reply in effects.replies {
            self.reply(id, reply);
        }
        if effects.stopped {
            self.say(format!("{} has stopped", label(id)));
            self.end(id);
        }
    }

    fn publish(&mut self, id: NodeId, publication: Publication) {
        let source = match publication.is_jump {
            true => ", from a snapshot",
            false => "",
        };
        let term = match publication.term == self.core(id).term() {
            true => String::new(),
            false => format!(" and term {}", publication.term.0),
        };
        let applied = publication.applied.0;
        self.say_usual(format!(
            "{} shows readers entry {applied}{term}{source}",
            label(id)
        ));
        self.process(id).tree = publication.tree;
    }

    // Clients

    /// New clients send these requests to a member, all at once.
    pub fn request(&mut self, at: NodeId, requests: Vec<(String, Option<Key>, Make)>) {
        let mut made = Vec::new();
        for (text, key, make) in requests {
            self.clients += 1;
            let number = self.clients;
            self.say(format!("client {number} → {}: {text}", label(at)));
            self.asked.insert(number, Asked { at, key });
            made.push(make(number));
        }
        self.step(at, Event::Requests(made));
    }

    fn reply(&mut self, id: NodeId, Reply { caller, outcome }: Reply<u64>) {
        let asked = self.asked.remove(&caller);
        let asked = asked.unwrap_or_else(|| panic!("client {caller} is answered twice"));
        let answer = answer_text(&outcome, asked.key.as_ref(), self.tree(id));
        self.say(format!("{} → client {caller}: {answer}", label(id)));
    }

    /// Names the clients without an answer.
    pub fn show_waiting(&mut self) {
        let waiting = self.asked.iter();
        let waiting =
            waiting.map(|(number, asked)| format!("client {number} at {}", label(asked.at)));
        let waiting: Vec<String> = waiting.collect();
        match waiting.is_empty() {
            true => self.say("no client waits"),
            false => self.say(format!("waiting: {}", waiting.join(", "))),
        }
    }
}

/// Makes the request of a client with this number.
pub type Make = Box<dyn FnOnce(u64) -> Request<u64>>;

fn settings(snapshot_count: u64, snapshot_bytes: u64, first_tag: u64) -> Settings {
    Settings {
        tick: TICK,
        request_timeout: Duration::from_secs(7),
        leader_timeout: Duration::from_secs(2),
        snapshot_count,
        snapshot_bytes,
        log_bytes_max: u64::MAX,
        batch_bytes_max: 1_000_000,
        history_bytes: usize::MAX,
        // Requests never wait for the present batch: a transcript shows each at once.
        stall: Duration::ZERO,
        keep_tail: Duration::from_secs(30),
        election_ticks: ELECTION_TICKS,
        strict_changes: true,
        first_tag,
    }
}
