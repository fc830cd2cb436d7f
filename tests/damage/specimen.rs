//! Data directories with every kind of record and file, in segments small enough to damage each byte.

use edgetcd::config::Config;
use edgetcd::engine::entry;
use edgetcd::engine::members::{Member, Published};
use edgetcd::engine::state::State;
use edgetcd::identity::Identity;
use edgetcd::raft::{
    Change, ChangeKind, Entry, HardState, LogIndex, Membership, NodeId, Payload, Position,
    SnapshotMetadata, Term,
};
use edgetcd::tree::{Action, Bytes, ClusterTime, Command, Key, Stamp, WallTime};
use edgetcd::wal::{
    Batch, Clock, DataDir, FaultyDisk, Line, Options, Wal, dump, recover, segments,
};
use std::path::{Path, PathBuf};

/// Path of the directory on the disk in memory.
pub const DIR: &str = "data";
const SEGMENT: u64 = 4096;
/// Number of past events that a node keeps.
pub const HISTORY: usize = 1000;
const OTHER: NodeId = NodeId(0xbeef);

pub fn options() -> Options {
    Options {
        max_wals: 0,
        max_snapshots: 0,
        segment_bytes: SEGMENT,
        segment_bytes_max: SEGMENT,
        ..Options::new(DIR)
    }
}

/// How the node of the directory ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The last record is a stop.
    Clean,
    /// The last record is an entry that no record calls durable.
    Killed,
    /// As `Killed`, but without the last entry: the state after the last entry was torn.
    Without,
}

/// A node that runs on a disk in memory.
struct Life {
    wal: Wal<FaultyDisk>,
    identity: Identity,
    state: State,
    term: u64,
    ticks: u64,
}

/// A directory on a disk on which no process runs. Its node was the only member and had this peer URL.
pub fn make(peer_url: &str, end: End) -> FaultyDisk {
    let disk = FaultyDisk::new(7);
    let args = [
        format!("--initial-advertise-peer-urls={peer_url}"),
        format!("--initial-cluster=default={peer_url}"),
    ];
    let config = Config::from_args(&args.map(Into::into), std::iter::empty());
    let identity = Identity::found(&config.expect("good flags"), 7);
    let data_dir = DataDir::open(disk.clone(), options()).expect("a new directory");
    let (wal, _) = recover(&data_dir).expect("a new log");
    data_dir
        .write_identity(&identity.to_bytes())
        .expect("written");
    let state = State::new(identity.founders.clone(), HISTORY);
    let mut life = Life {
        wal,
        identity,
        state,
        term: 1,
        ticks: 0,
    };
    life.begin();
    // A leader has sent a snapshot that is ahead of the log, and the next start restarts the log after it.
    life.state.applied = LogIndex(100);
    life.term = 3;
    life.snapshot();
    drop(life.wal);
    (life.wal, _) = recover(&data_dir).expect("it starts");
    life.go_on();
    if end != End::Without {
        life.put(Action::Set, "/last", "of all");
    }
    match end {
        End::Clean => life.wal.close().expect("closed"),
        End::Killed | End::Without => drop(life.wal),
    }
    drop(data_dir);
    disk.kill();
    disk
}

/// The records in the order in which they were written.
pub fn records(disk: &FaultyDisk) -> Vec<(PathBuf, Line)> {
    let wal = Path::new(DIR).join("member/wal");
    let mut all = Vec::new();
    for path in segments(disk, &wal).expect("a folder") {
        let lines = dump(disk, &path).expect("a good segment");
        all.extend(lines.into_iter().map(|line| (path.clone(), line)));
    }
    all
}

impl Life {
    fn begin(&mut self) {
        self.vote();
        self.entry(Payload::Noop);
        let member = Member {
            id: self.identity.id,
            name: "default".into(),
            peer_urls: Vec::new(),
            client_urls: vec!["http://127.0.0.1:2379".into()],
        };
        let incarnation = self.identity.incarnation;
        self.order(entry::publish(&Published {
            member,
            incarnation,
        }));
        self.put(Action::Set, "/a", "one");
        self.put(Action::Create, "/b", "two");
        self.put(Action::Update, "/a", "three");
        self.put(Action::CreateInOrder, "/queue", "four");
        self.put(Action::CompareAndSwap, "/a", "five");
        self.put(Action::Set, "/large", &"x".repeat(3000));
        self.members();
        self.put(Action::CompareAndDelete, "/b", "");
        self.put(Action::Delete, "/large", "");
        self.snapshot();
        self.put(Action::Set, "/dir/c", "six");
        for number in 0..20 {
            self.put(Action::Set, "/many", &format!("{number}").repeat(200));
        }
    }

    /// Another member is added as a learner, promoted, updated and removed.
    fn members(&mut self) {
        let mut member = Member {
            id: OTHER.0,
            name: String::new(),
            peer_urls: vec!["http://127.0.0.1:1".into()],
            client_urls: Vec::new(),
        };
        self.change(ChangeKind::AddLearner, entry::add(&member));
        self.change(ChangeKind::Promote, Vec::new());
        member.peer_urls = vec!["http://127.0.0.1:2".into()];
        self.order(entry::update(&member));
        self.change(ChangeKind::Remove, entry::remove(OTHER));
    }

    fn go_on(&mut self) {
        self.vote();
        self.entry(Payload::Noop);
        self.put(Action::Set, "/e", "seven");
        self.order(entry::expire());
        self.order(entry::time());
        self.snapshot();
        for number in 0..12 {
            self.put(Action::Set, "/more", &format!("{number}").repeat(200));
        }
        // A leader of another term replaces entries that were never committed.
        let clone = self.state.clone();
        for number in 0..3 {
            self.put(Action::Set, "/lost", &format!("{number}"));
        }
        (self.state, self.term) = (clone, 5);
        self.vote();
        self.entry(Payload::Noop);
        self.put(Action::Set, "/f", "eight");
    }

    fn vote(&mut self) {
        let hard_state = HardState {
            term: Term(self.term),
            vote: Some(NodeId(self.identity.id)),
        };
        let batch = Batch {
            hard_state: Some(hard_state),
            ..Batch::default()
        };
        self.wal.write(&batch).expect("written");
    }

    fn put(&mut self, action: Action, key: &str, value: &str) {
        let mut command = Command::new(action, Key::new(key.as_bytes()));
        command.value = Bytes::from(value);
        // `/queue` gets a time to live, so that the files contain one. It never ends here.
        command.ttl = (key == "/queue").then_some(1_000_000_000);
        self.order(entry::tree(&command));
    }

    fn order(&mut self, mut bytes: Vec<u8>) {
        self.stamp(&mut bytes);
        self.entry(Payload::Command(bytes.into()));
    }

    fn change(&mut self, kind: ChangeKind, mut context: Vec<u8>) {
        if !context.is_empty() {
            self.stamp(&mut context);
        }
        let context = context.into();
        self.entry(Payload::Change(Change {
            kind,
            node: OTHER,
            context,
        }));
    }

    fn stamp(&mut self, bytes: &mut [u8]) {
        self.ticks += 1_000_000;
        let stamp = Stamp {
            cluster: ClusterTime(self.ticks),
            wall: WallTime(1_700_000_000_000_000_000 + self.ticks as i64),
        };
        entry::stamp(bytes, stamp);
    }

    /// Each entry is a batch of its own, like the writes of one client.
    fn entry(&mut self, payload: Payload) {
        let index = self.state.applied.next();
        let position = Position {
            term: Term(self.term),
            index,
        };
        let entry = Entry { position, payload };
        self.state.apply(&entry);
        let clock = Clock {
            boot_id: [self.term as u8; 16],
            boottime_ns: self.ticks,
            cluster_ns: self.ticks,
        };
        let batch = Batch {
            entries: vec![entry],
            clock: Some(clock),
            ..Batch::default()
        };
        self.wal.write(&batch).expect("written");
    }

    fn snapshot(&mut self) {
        let voters = [NodeId(self.identity.id)].into();
        let position = Position {
            term: Term(self.term),
            index: self.state.applied,
        };
        let metadata = SnapshotMetadata {
            position,
            membership: Membership {
                voters,
                learners: [].into(),
            },
        };
        let mut writer = self.wal.begin_snapshot(&metadata).expect("begun");
        self.state
            .save(|slice| writer.write(slice))
            .expect("written");
        writer.finish().expect("finished");
    }
}
