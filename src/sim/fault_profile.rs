//! The fault profile of a run, drawn from its seed.
//!
//! The absence of a rule is visible only under certain faults: a stale read needs late replies, and a double vote needs
//! a crash at the right moment. So seeds alternate among kinds of fault profiles. Each kind has the faults against which
//! some of the rules protect. The numbers within a kind are drawn for each seed.

use super::power::by_machine;
use crate::random::Random;
use core::time::Duration;

/// An election timeout by a clock of normal speed, in virtual microseconds: ten ticks.
pub const ELECTION: u64 = 10 * TICK;
/// A tick by a clock of normal speed.
pub const TICK: u64 = 10_000;

/// The kind of faults of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All kinds of faults, few of each.
    Mixed,
    /// Crashes that lose unsynced data, power failures in the middle of writes, slow and failing syncs.
    Disks,
    /// Cut links, and messages that are delayed by more than an election.
    Network,
    /// Members are added and removed, and the leadership is transferred.
    Members,
    /// Snapshots every few entries, members far behind.
    Snapshots,
    /// Clocks at half and double speed, wall clocks that jump, stopped machines.
    Clocks,
    /// Data directories are emptied, and the operator replaces their members.
    Wiped,
    /// Leaders that change as often as possible.
    Elections,
    /// Clocks of normal speed, short delays: keys must not expire before their deadline in real time.
    TimesToLive,
    /// Adversarial schedules, for violations that random faults do not produce.
    Adversary(Adversary),
    /// One fault in a healthy cluster, with a known result.
    Scenario(Scenario),
    /// Repeated leadership transfers under load. Seeds do not select this kind; a test requests it.
    Handovers(Handovers),
    /// No faults except those that the caller chooses ([`Cluster::by_hand`](super::Cluster::by_hand)). Seeds do not
    /// select this kind either.
    ByHand,
}

/// The faults during leadership transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handovers {
    /// No other faults: each transfer must succeed.
    Undisturbed,
    /// Messages are lost and late, targets die and are cut off.
    Disturbed,
}

/// The violation that an adversarial schedule tries to produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adversary {
    /// Figure 8: an entry of an old term is stored by a majority, and then replaced (hazard D4).
    OldEntry,
    /// 2015: two leaders change the members, and neither has the other's change (hazard D10).
    TwoChanges,
    /// A leader sleeps through an election with questions under way, and is asked when it
    /// wakes (hazard D6).
    Sleeper,
}

/// The single fault. Seeds select those in `CALMS`; a test requests the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// A follower is cut off and reconnected: the term stays (hazard D8).
    Isolated,
    /// One follower does not receive the leader's messages: the term stays.
    DeafToLeader,
    /// The leader receives no messages: another one leads soon.
    DeafLeader,
    /// The leader is down, and a member far behind with a fast clock stands repeatedly: the other
    /// is elected nevertheless (hazard D19).
    FastAndStale,
    /// A removed member does not know that it was removed: the term stays (hazard D9).
    Removed,
    /// The leader's disk hangs: another one leads soon.
    HungDisk,
    /// A sync takes longer than an election on all disks: the term stays.
    SlowDisks,
    /// A follower restarts without its last entries: the leader reports it, does not flood it, and keeps leading.
    LostTail,
    /// The leader is stopped under load: another one leads, and no request fails.
    Shutdown,
    /// A process that is no member sends messages all the time: the term stays, and no request fails.
    Stranger,
    /// All members move: the operator sets their new peer URLs, and then all machines start at their new addresses.
    /// Another leader is elected soon.
    Moved,
    /// The leader's disk hangs while clients write through the other members.
    HungUnderLoad,
    /// A member is added under constant load, and its disk is slower than the others': it becomes a voter.
    Learner,
}

/// The faults, in the order of [`FaultProfile::weights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Crash,
    Kill,
    PowerCut,
    FailSync,
    SlowDisk,
    CutOneWay,
    CutBoth,
    Isolate,
    Mend,
    Pause,
    Pace,
    WallJump,
    Transfer,
    Add,
    Remove,
    Unreachable,
    Stop,
    HangDisk,
    FillDisk,
    Wipe,
}

const ACTS: [Act; 20] = [
    Act::Crash,
    Act::Kill,
    Act::PowerCut,
    Act::FailSync,
    Act::SlowDisk,
    Act::CutOneWay,
    Act::CutBoth,
    Act::Isolate,
    Act::Mend,
    Act::Pause,
    Act::Pace,
    Act::WallJump,
    Act::Transfer,
    Act::Add,
    Act::Remove,
    Act::Unreachable,
    Act::Stop,
    Act::HangDisk,
    Act::FillDisk,
    Act::Wipe,
];

/// The numbers of a run. Times are virtual microseconds; "one in 0" is never.
#[derive(Debug, Clone)]
pub struct FaultProfile {
    /// The subject of the seed.
    pub kind: Kind,
    /// How long faults happen.
    pub storm: u64,
    /// One of this many messages is lost.
    pub drop_one_in: u64,
    /// One of this many messages is duplicated.
    pub double_one_in: u64,
    /// The delay of messages.
    pub delay: (u64, u64),
    /// One of this many messages has an additional delay…
    pub late_one_in: u64,
    /// …of this length.
    pub late: (u64, u64),
    /// The duration of a sync.
    pub sync: (u64, u64),
    /// How much longer a sync of a slow disk takes.
    pub slow_disk: u64,
    /// One of this many syncs takes as long as on a slow disk.
    pub slow_sync_one_in: u64,
    /// Whether every second process of a node stores one entry at a time, so that entries become durable one by one.
    pub alone: bool,
    /// Time between two faults.
    pub every: (u64, u64),
    pub(super) weights: [u64; 20],
    /// How long a crashed node is down.
    pub down: (u64, u64),
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// How long the log before a snapshot is kept for a follower that needs it.
    pub keep_tail: u64,
    /// Bytes of entries that a core keeps in memory.
    pub memory_bytes: usize,
    /// Bytes of one append; 1 is an entry at a time.
    pub batch_bytes: usize,
    /// One of this many faults hits the leader.
    pub aimed_one_in: u64,
    /// Whether removals that leave no reachable majority are refused.
    pub strict_changes: bool,
    /// Whether a leader receives a membership change as soon as it is elected.
    pub hasty: bool,
    /// Number of clients.
    pub clients: u64,
    /// A client's pause before its next operation.
    pub think: (u64, u64),
    /// How long a client waits for an answer.
    pub patience: u64,
    /// One of this many requests goes to another node than the one before.
    pub stray_one_in: u64,
    /// Keys that clients share.
    pub keys: u64,
    /// Whether removed members stop when they learn of their removal.
    pub removed_stop: bool,
    /// Time between two messages of a process that is no member; 0: there is none.
    pub stranger_every: (u64, u64),
    /// Whether crashes restart the process only, so that the machine's clocks continue.
    pub same_boot: bool,
}

impl FaultProfile {
    /// The profile of a seed: of this kind, or of the kind that the seed selects.
    pub(super) fn of(random: &mut Random, kind: Option<Kind>) -> FaultProfile {
        let drawn = match random.below(24) {
            0 | 1 => Kind::Mixed,
            2 | 3 => Kind::Disks,
            4..=6 => Kind::Network,
            7 | 8 => Kind::Members,
            9 | 10 => Kind::Snapshots,
            11 => Kind::Clocks,
            12 | 13 => Kind::Elections,
            14 => Kind::TimesToLive,
            15..=17 => Kind::Adversary(random.pick(&PLOTS).unwrap_or(Adversary::OldEntry)),
            18 | 19 => Kind::Wiped,
            _ => Kind::Scenario(random.pick(&CALMS).unwrap_or(Scenario::Isolated)),
        };
        let kind = kind.unwrap_or(drawn);
        let mut profile = FaultProfile::mixed(kind, random);
        profile.turn_into(kind, random);
        profile
    }

    /// The profile for repeated transfers: more clients than in other runs, and the run ends with the last transfer.
    pub(super) fn of_handovers(how: Handovers, random: &mut Random) -> FaultProfile {
        let kind = Kind::Handovers(how);
        let mut profile = FaultProfile::mixed(kind, random);
        profile.turn_into(kind, random);
        profile
    }

    /// A profile without faults, for [`Kind::ByHand`]. All delays are constant, so messages stay in order on a link. Each
    /// append carries one entry, and each sync stores one, so that a person sees them one by one.
    pub(super) fn by_hand() -> FaultProfile {
        FaultProfile {
            kind: Kind::ByHand,
            storm: u64::MAX / 2,
            drop_one_in: 0,
            double_one_in: 0,
            delay: (2_000, 2_000),
            late_one_in: 0,
            late: (0, 0),
            sync: (1_000, 1_000),
            slow_disk: 100,
            slow_sync_one_in: 0,
            alone: true,
            every: (0, 0),
            weights: [0; 20],
            down: (0, 0),
            snapshot_every: 40,
            keep_tail: 0,
            memory_bytes: 64 << 10,
            batch_bytes: 1,
            aimed_one_in: 0,
            strict_changes: false,
            hasty: false,
            clients: 0,
            think: (0, 0),
            patience: 20 * ELECTION,
            stray_one_in: 0,
            keys: 8,
            removed_stop: true,
            stranger_every: (0, 0),
            same_boot: false,
        }
    }

    fn mixed(kind: Kind, random: &mut Random) -> FaultProfile {
        let memory_bytes = random.within((600, 6_000)) as usize;
        let stranger_every = match random.one_in(4) {
            true => (1_000, 20_000),
            false => (0, 0),
        };
        FaultProfile {
            kind,
            storm: random.within((800_000, 1_600_000)),
            drop_one_in: random.within((20, 200)),
            double_one_in: random.within((20, 200)),
            delay: (200, random.within((1_000, 8_000))),
            late_one_in: random.within((30, 300)),
            late: (10_000, 2 * ELECTION),
            sync: (100, random.within((500, 6_000))),
            slow_disk: 10,
            slow_sync_one_in: random.within((20, 100)),
            alone: false,
            every: (20_000, random.within((60_000, 200_000))),
            weights: [4, 3, 3, 1, 2, 4, 3, 3, 8, 2, 2, 1, 3, 2, 2, 2, 2, 1, 1, 0],
            down: (10_000, 3 * ELECTION),
            snapshot_every: random.within((5, 60)),
            keep_tail: random.within((0, 2 * ELECTION)),
            memory_bytes,
            batch_bytes: memory_bytes / 2,
            aimed_one_in: 3,
            strict_changes: true,
            hasty: false,
            clients: random.within((3, 5)),
            think: (500, random.within((5_000, 30_000))),
            patience: 6 * ELECTION,
            stray_one_in: 6,
            keys: random.within((1, 3)),
            removed_stop: !random.one_in(3),
            stranger_every,
            same_boot: false,
        }
    }

    fn turn_into(&mut self, kind: Kind, random: &mut Random) {
        //                crash kill cut fail slow | one both iso mend | pause pace wall | trans add rem unr | stop hang fill wipe
        match kind {
            Kind::Mixed | Kind::ByHand => {}
            Kind::Disks => {
                self.weights = [8, 4, 8, 3, 6, 1, 1, 1, 4, 1, 1, 0, 2, 1, 1, 1, 1, 3, 6, 0];
                self.sync = (500, random.within((5_000, ELECTION)));
                self.down = (5_000, ELECTION);
                self.every = (10_000, 80_000);
            }
            Kind::Network => {
                self.weights = [1, 1, 1, 0, 2, 6, 4, 8, 14, 6, 3, 0, 3, 0, 0, 3, 2, 1, 0, 0];
                self.late_one_in = random.within((3, 12));
                self.late = (20_000, random.within((ELECTION, 5 * ELECTION)));
                self.delay = (200, random.within((5_000, 20_000)));
                self.every = (20_000, 100_000);
                self.clients = random.within((4, 7));
            }
            Kind::Members => {
                self.weights = [
                    2, 2, 1, 0, 2, 6, 4, 6, 10, 1, 1, 0, 6, 14, 14, 2, 2, 1, 0, 0,
                ];
                self.every = (5_000, 60_000);
                self.late_one_in = random.within((5, 30));
                self.strict_changes = random.one_in(3);
                self.hasty = random.one_in(2);
                self.sync = (500, random.within((2_000, 60_000)));
            }
            Kind::Snapshots => {
                self.weights = [4, 3, 4, 1, 2, 3, 3, 8, 8, 2, 1, 0, 3, 2, 1, 2, 1, 1, 2, 0];
                self.snapshot_every = random.within((2, 6));
                self.keep_tail = random.within((0, TICK));
                self.memory_bytes = random.within((300, 900)) as usize;
                self.late_one_in = random.within((5, 30));
            }
            Kind::Clocks => {
                self.weights = [2, 3, 1, 0, 2, 2, 2, 4, 8, 6, 12, 6, 3, 0, 0, 1, 1, 1, 0, 0];
            }
            Kind::Elections => {
                self.weights = [4, 6, 2, 0, 6, 8, 3, 6, 10, 2, 4, 0, 10, 0, 0, 2, 3, 2, 0, 0];
                self.every = (5_000, 50_000);
                self.down = (2_000, ELECTION);
                self.late_one_in = random.within((4, 20));
                self.sync = (500, random.within((2_000, 80_000)));
                self.batch_bytes = random.within((1, 200)) as usize;
                self.aimed_one_in = random.within((1, 2));
                self.alone = !random.one_in(4);
            }
            Kind::Wiped => {
                self.weights = [4, 4, 2, 0, 3, 3, 3, 8, 10, 2, 0, 0, 3, 0, 0, 2, 2, 1, 1, 10];
                self.every = (10_000, 80_000);
                self.down = (5_000, 2 * ELECTION);
                self.storm = random.within((1_600_000, 2_400_000));
            }
            Kind::TimesToLive => {
                self.weights = [0, 6, 0, 0, 2, 2, 2, 2, 8, 3, 0, 8, 6, 0, 0, 1, 2, 0, 0, 0];
                (self.late_one_in, self.same_boot) = (0, true);
                self.delay = (200, 2_000);
                self.sync = (500, random.within((2_000, 30_000)));
                self.storm = 2_000_000;
            }
            Kind::Adversary(adversary) => self.turn_against(adversary, random),
            Kind::Scenario(scenario) => {
                self.stranger_every = match scenario {
                    Scenario::Stranger => (200, 3_000),
                    _ => (0, 0),
                };
                (self.late_one_in, self.drop_one_in, self.double_one_in) = (0, 0, 0);
                (self.delay, self.sync) = ((200, 2_000), (100, 1_000));
                self.slow_sync_one_in = 0;
                self.storm = 25 * ELECTION;
                self.removed_stop = false;
                self.down = (12 * ELECTION, 12 * ELECTION);
                // Messages stay in order, as on one connection.
                if scenario == Scenario::Shutdown {
                    self.delay = (500, 500);
                }
                if scenario == Scenario::HungUnderLoad {
                    (self.clients, self.keys, self.think) = (8, 4, (50, 500));
                }
                // No snapshot is made for another reason than the new URLs.
                if scenario == Scenario::Moved {
                    self.snapshot_every = u64::from(u32::MAX);
                }
                if scenario == Scenario::Learner {
                    (self.clients, self.keys, self.think) = (8, 4, (50, 500));
                    (self.memory_bytes, self.batch_bytes) = (20_000, 5_000);
                    // The learner is behind at each moment, by less than an election timeout.
                    (self.slow_disk, self.snapshot_every) = (50, 200);
                }
            }
            Kind::Handovers(how) => {
                self.storm = u64::MAX / 2;
                self.stranger_every = (0, 0);
                (self.memory_bytes, self.batch_bytes) = (20_000, 5_000);
                (self.clients, self.keys) = (8, 4);
                self.sync = (100, 1_000);
                match how {
                    Handovers::Undisturbed => {
                        // All messages have the same delay, so they stay in order, as on one connection.
                        self.delay = (500, 500);
                        (self.drop_one_in, self.double_one_in, self.late_one_in) = (0, 0, 0);
                        self.slow_sync_one_in = 0;
                        // So many clients that messages to the followers are in transit at all times.
                        self.think = (100, 1_000);
                    }
                    Handovers::Disturbed => {
                        self.delay = (200, 2_000);
                        (self.drop_one_in, self.double_one_in, self.late_one_in) = (50, 100, 200);
                        self.late = (TICK, ELECTION);
                        self.slow_sync_one_in = 50;
                        self.think = (500, 5_000);
                        // Clients leave a dead node soon, because this run tests whether other nodes serve.
                        self.patience = 2 * ELECTION;
                        self.down = (TICK / 2, 2 * ELECTION);
                    }
                }
            }
        }
    }

    /// Random faults for an adversarial schedule: few, but not none.
    fn turn_against(&mut self, adversary: Adversary, random: &mut Random) {
        self.weights = [2, 2, 1, 0, 2, 1, 0, 0, 0, 2, 2, 0, 1, 0, 0, 2, 0, 0, 0, 0];
        self.every = (50_000, random.within((100_000, 600_000)));
        self.storm = random.within((1_500_000, 2_500_000));
        self.delay = (200, random.within((1_000, 4_000)));
        (self.drop_one_in, self.double_one_in) = (random.within((50, 500)), 200);
        self.late_one_in = random.within((100, 1_000));
        match adversary {
            Adversary::OldEntry => {
                self.batch_bytes = random.within((1, 100)) as usize;
                self.clients = random.within((4, 7));
                self.down = (2_000, 2 * ELECTION);
            }
            Adversary::TwoChanges => self.strict_changes = false,
            Adversary::Sleeper => {
                self.clients = random.within((4, 6));
                self.patience = random.within((ELECTION, 3 * ELECTION));
                self.stray_one_in = random.within((1, 3));
                self.keys = 1;
            }
        }
    }

    /// The request timeout of an engine, by its machine's clock. It is shorter than the client's timeout.
    pub(super) fn request_timeout(&self) -> Duration {
        by_machine(self.patience * 4 / 5)
    }

    pub(super) fn act(&self, random: &mut Random) -> Act {
        ACTS[random.weighted(&self.weights)]
    }
}

const PLOTS: [Adversary; 3] = [
    Adversary::OldEntry,
    Adversary::TwoChanges,
    Adversary::Sleeper,
];

const CALMS: [Scenario; 11] = [
    Scenario::Isolated,
    Scenario::DeafToLeader,
    Scenario::DeafLeader,
    Scenario::FastAndStale,
    Scenario::Removed,
    Scenario::HungDisk,
    Scenario::SlowDisks,
    Scenario::LostTail,
    Scenario::Shutdown,
    Scenario::Stranger,
    Scenario::Learner,
];
