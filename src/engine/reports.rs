//! Reports of the WAL thread and the snapshot thread. Snapshots: made, sent, received and installed; and the deletion
//! of the log before them.

use super::lag::MakeWay;
use super::request::{Failure, Outcome, Task};
use super::rules::{Rule, Rules};
use super::time::Monotonic;
use super::trace::{SnapshotStep, Trace};
use super::{DiskJob, DiskReport, Engine, Incoming, NoRoom, Note, Stored};
use crate::raft::{Input, LogIndex, NodeId, PeerFlow, PeerProgress, Position, SnapshotMetadata};
use core::time::Duration;

/// Maximum bytes of the log before a new snapshot that is kept for a follower ([`super::Settings::keep_tail`]), in addition
/// to the size of the snapshot.
const KEEP_TAIL_BYTES: u64 = 64 << 20;

/// How long a batch without space waits for a snapshot before writes are refused.
const FULL_PATIENCE: Duration = Duration::from_secs(5);

/// The first wait before a snapshot that did not fit is tried again. Later waits are longer.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// The longest of these waits.
const ROOM_PAUSE_MAX: Duration = Duration::from_secs(10);

impl<T, R: Rules> Engine<T, R> {
    pub(super) fn take_report(&mut self, report: DiskReport) {
        match report {
            DiskReport::Stored(batches) => self.stored(&batches),
            DiskReport::Full => self.disk_is_full(),
            DiskReport::Read(entries) => {
                self.input(Input::Read { entries });
            }
            DiskReport::Snapshot {
                metadata,
                bytes,
                took,
            } => {
                let at = metadata.position;
                self.note(Note::SnapshotMade { at, bytes, took });
                self.record_snapshot(SnapshotStep::Made, at.index, None);
                self.snapshot_saved(metadata, bytes);
            }
            DiskReport::NoSnapshot => self.no_snapshot(),
            DiskReport::Installed(position) => self.installed(position),
        }
    }

    fn stored(&mut self, batches: &[Stored]) {
        self.saving = None;
        for (_, caller) in std::mem::take(&mut self.probes.saving) {
            self.reply(caller, Outcome::Confirmed);
        }
        self.full_since = None;
        if std::mem::take(&mut self.disk_full) && self.no_room.is_none() {
            self.note(Note::SpaceAgain);
        }
        for Stored { hard_state, last } in batches {
            // Reports the position first. Until the core knows that the hard state is stored, it holds back the last
            // reported position. If it held a position from an earlier batch, this batch may have overwritten that
            // entry, and the hard state must not release it.
            if let Some(position) = *last {
                self.input(Input::Stored { position });
            }
            if let Some(hard_state) = *hard_state {
                self.input(Input::HardStateStored { hard_state });
            }
        }
        self.record_released();
    }

    /// The disk has no space for a batch, apart from the space reserved for the next snapshot. Reported with each
    /// attempt. A snapshot shortens the log, and then the waiting batch can be stored. So requests are not refused yet.
    /// Writes are refused only if no snapshot can be made.
    fn disk_is_full(&mut self) {
        let now = self.now.monotonic;
        self.full_since.get_or_insert(now);
        self.compact_when_possible(now);
        if self.no_room.is_some() {
            self.refuse_writes();
        } else if self.may_begin_snapshot() {
            self.begin_snapshot();
        }
    }

    fn may_begin_snapshot(&self) -> bool {
        self.installing.is_none() && !self.schedule.is_running() && self.schedule.has_news()
    }

    /// Refuses writes if a snapshot, and the space it frees, take too long.
    pub(super) fn refuse_if_full_for_long(&mut self, now: Monotonic) {
        let is_long = |since: Monotonic| now - since >= FULL_PATIENCE;
        if self.disk_full || !self.full_since.is_some_and(is_long) {
            return;
        }
        match self.schedule.is_running() || self.no_room.is_some() {
            true => self.refuse_writes(),
            // The newest snapshot already contains everything.
            false => self.is_out_of_room(),
        }
    }

    /// Fails the waiting writes at once. The ones in the batch may still be applied when there is space. Reads
    /// continue.
    fn refuse_writes(&mut self) {
        if std::mem::replace(&mut self.disk_full, true) {
            return;
        }
        self.note(Note::DiskFull);
        // Forwarded commands fail too: their outcome is known when they are applied here, and that needs this disk.
        let mut callers = self.pending.drain();
        callers.extend(self.drain_forwards());
        callers.extend(self.probes.drain());
        self.fail(callers, Failure::DiskFull);
        assert!(
            self.pending.is_empty() && self.forwards.is_empty(),
            "{} writes wait for a full disk",
            self.pending()
        );
        if !self.serves_reads() {
            let readers = self.reads.drain();
            self.fail(readers, Failure::DiskFull);
        }
    }

    /// Bytes that the next snapshot may need: the size of the last one, and twice the log since then, because an event
    /// also contains the previous value.
    pub(super) fn reserve(&self) -> u64 {
        match self.no_room {
            Some(_) => 0,
            None => self.schedule.reserve(),
        }
    }

    /// No snapshot fits. The waiting batch may use the space reserved for one. From now on, only commands that remove
    /// keys are accepted.
    fn is_out_of_room(&mut self) {
        let now = self.now.monotonic;
        let first = self.no_room.is_none();
        let pause = self
            .no_room
            .as_ref()
            .map_or(ROOM_PAUSE, |no_room| no_room.pause * 2);
        self.no_room = Some(NoRoom {
            again: now + pause.min(ROOM_PAUSE_MAX),
            pause: pause.min(ROOM_PAUSE_MAX),
            bytes: self.state.saved_bytes(),
            measured: self.state.applied,
        });
        if !first {
            return;
        }
        self.note(Note::NoRoom);
        self.effects.disk.push(DiskJob::Reserve(0));
        // Another member may have a larger disk. This is tried only once: if the other disks are not larger, leadership
        // stays with the new leader.
        if self.core.is_leader() && self.core.others_decide() {
            let _ = self.input(Input::Transfer { to: None });
        }
    }

    /// After keys were removed or the disk got more space, a snapshot may fit again.
    pub(super) fn seek_room(&mut self, now: Monotonic) {
        let applied = self.state.applied;
        let has_news = self.schedule.has_news();
        let Some(no_room) = &mut self.no_room else {
            return;
        };
        let mut is_smaller = false;
        if no_room.measured != applied && now + ROOM_PAUSE >= no_room.again {
            no_room.measured = applied;
            let bytes = self.state.saved_bytes();
            is_smaller = bytes < no_room.bytes - no_room.bytes / 8;
        }
        if !is_smaller && now < no_room.again {
            return;
        }
        no_room.again = now + no_room.pause;
        if self.may_begin_snapshot() {
            self.begin_snapshot();
        } else if !has_news && self.full_since.is_none() {
            // The newest snapshot contains everything, and the waiting batch is stored.
            self.has_room();
        }
    }

    fn has_room(&mut self) {
        if self.no_room.take().is_some() && !self.disk_full {
            self.note(Note::SpaceAgain);
        }
    }

    /// A leader whose disk is full cannot accept writes. It transfers leadership if the reachable members are a
    /// majority without it. Called with each tick; the core refuses a transfer while one is in progress.
    pub(super) fn hand_over_if_full(&mut self) {
        if !self.disk_full || !self.core.others_decide() {
            return;
        }
        let (_, refused) = self.input(Input::Transfer { to: None });
        if refused.is_none() {
            self.note(Note::HandsOverFullDisk);
        }
    }

    /// A leader whose disk hangs, or is much slower than the others' disks, gives up leadership. Called with each tick;
    /// the core refuses a transfer while one is in progress.
    pub(super) fn make_way_if_slow(&mut self, now: Monotonic) {
        let core = &self.core;
        if !core.is_leader() {
            return;
        }
        let patience = self.settings.leader_timeout / 2;
        let (last, stored, commit) = (core.last_position().index, core.stored(), core.commit());
        self.lag.look(now, last, stored, commit);
        let others_decide = core.others_decide();
        if !self.rules.keeps(Rule::HungLeaderMakesWay) {
            return;
        }
        let way = match self.rules.keeps(Rule::EqualsStay) {
            true => self.lag.makes_way(now, patience, commit, others_decide),
            false => (self.is_stalled_for(patience)).then_some(MakeWay::Transfer),
        };
        match way {
            Some(MakeWay::Transfer) => {
                let (_, refused) = self.input(Input::Transfer { to: None });
                if refused.is_none() {
                    self.note(Note::HandsOverSlowDisk);
                }
            }
            Some(MakeWay::StepDown) => {
                self.note(Note::StepsDownSlowDisk);
                self.input(Input::StepDown);
            }
            None => {}
        }
    }

    fn is_stalled_for(&self, patience: Duration) -> bool {
        self.saving
            .is_some_and(|since| self.now.monotonic - since > patience)
    }

    /// Whether a follower has sent a message within an election timeout.
    fn lives(&self, follower: &PeerProgress) -> bool {
        let patience = self.settings.election_ticks;
        follower
            .silent_ticks
            .is_some_and(|ticks| ticks < u64::from(patience))
    }

    // This member's own snapshots

    fn begin_snapshot(&mut self) {
        let applied = self.state.applied;
        let Some(metadata) = self.core.metadata_at(applied) else {
            unreachable!("what is applied ({applied:?}) is committed and in the log")
        };
        assert_eq!(
            metadata.position.index, applied,
            "{metadata:?} is of this state"
        );
        assert!(
            self.installing.is_none(),
            "a snapshot at {applied:?} of a state that is being replaced"
        );
        self.schedule.begun();
        let state = self.state.clone();
        self.effects
            .disk
            .push(DiskJob::Snapshot(Box::new(Task { metadata, state })));
    }

    fn snapshot_saved(&mut self, metadata: SnapshotMetadata, bytes: u64) {
        let (at, applied) = (metadata.position, self.state.applied);
        assert!(
            at.index <= applied,
            "a snapshot at {at}, applied {applied:?}"
        );
        self.schedule.ended(Some(bytes));
        self.has_room();
        self.has_snapshot = true;
        let wanted = std::mem::take(&mut self.want_snapshot);
        if self.core.is_leader() {
            wanted.into_iter().for_each(|to| self.send_snapshot(to));
        }
        // Meanwhile, another member's snapshot may have replaced the log.
        if self.core.position_at(metadata.position.index) == Some(metadata.position) {
            let now = self.now.monotonic;
            self.compacting = Some((metadata, now));
            self.compact_when_possible(now);
        }
        if self.full_since.is_some() {
            // The waiting batch was given to the disk with the reserve of the previous snapshot.
            let reserve = self.reserve();
            self.effects.disk.push(DiskJob::Reserve(reserve));
        }
    }

    fn no_snapshot(&mut self) {
        self.schedule.ended(None);
        if self.full_since.is_some() || self.no_room.is_some() {
            self.is_out_of_room();
        }
        for to in std::mem::take(&mut self.want_snapshot) {
            self.snapshot_sent(to, None);
        }
    }

    /// Deletes the log before the newest snapshot, unless a reachable follower still copies that part. Otherwise that
    /// follower would need the whole snapshot (hazard D22).
    pub(super) fn compact_when_possible(&mut self, now: Monotonic) {
        let Some((metadata, since)) = &self.compacting else {
            return;
        };
        let waited =
            now - *since >= self.settings.keep_tail || self.schedule.log_bytes() >= KEEP_TAIL_BYTES;
        if !waited && self.full_since.is_none() && self.is_needed(metadata.position) {
            return;
        }
        if let Some((metadata, _)) = self.compacting.take() {
            self.input(Input::Compacted {
                metadata: metadata.clone(),
            });
            self.effects.disk.push(DiskJob::Compact(metadata));
        }
    }

    /// Whether a follower still copies the log up to `end`.
    fn is_needed(&self, end: Position) -> bool {
        self.core.progress().iter().any(|follower| {
            let behind = follower.matched < end.index;
            behind && (self.lives(follower) || follower.flow == PeerFlow::Snapshot)
        })
    }

    // Snapshots sent between members

    /// A follower needs a snapshot: sends the newest one, or makes the first one now.
    pub(super) fn send_snapshot(&mut self, to: NodeId) {
        if self.has_snapshot {
            let term = self.core.term();
            self.effects.send_snapshot.push((to, term));
        } else {
            self.want_snapshot.push(to);
        }
    }

    /// A follower has installed a snapshot, or has not. In the second case the core is informed after a pause.
    pub(super) fn snapshot_sent(&mut self, to: NodeId, installed: Option<Position>) {
        let Some(at) = installed else {
            self.record_snapshot(SnapshotStep::Failed, LogIndex(0), Some(to));
            return self.pauses.failed(to, self.now.monotonic);
        };
        self.record_snapshot(SnapshotStep::Sent, at.index, Some(to));
        self.pauses.succeeded(to);
        self.input(Input::SnapshotSent { to, installed });
    }

    /// Informs the core of failures whose pause is over. It may then request another snapshot.
    pub(super) fn end_pauses(&mut self, now: Monotonic) {
        for to in self.pauses.over(now) {
            let installed = None;
            self.input(Input::SnapshotSent { to, installed });
        }
    }

    /// Begins a snapshot if one is due, or if a follower needs the first one. At the start of a new cluster there is no
    /// applied entry to save yet. The first entry of a term is applied soon.
    pub(super) fn begin_snapshot_if_due(&mut self) {
        let wanted = self.schedule.is_due() || !self.want_snapshot.is_empty();
        let may = self.installing.is_none() && !self.schedule.is_running();
        if wanted && may && self.state.applied.0 > 0 {
            self.begin_snapshot();
        }
    }

    /// Only one snapshot is installed at a time. Another one that arrives meanwhile is dropped, and its sender is
    /// informed.
    pub(super) fn snapshot_received(&mut self, incoming: Box<Incoming>) {
        if self.installing.is_some() || !self.may_send_snapshot(incoming.from) {
            return;
        }
        let (from, term, metadata) = (incoming.from, incoming.term, incoming.metadata.clone());
        self.installing = Some(incoming);
        let todo = self.core.step(Input::Snapshot {
            from,
            term,
            metadata,
        });
        self.rules.stepped(&self.core, &todo);
        self.record_step(None, &todo);
        if todo.install.is_none() {
            self.installing = None;
        }
        self.perform(todo);
    }

    /// First hands all collected records to the WAL, then replaces the log by the snapshot.
    pub(super) fn install(&mut self, metadata: SnapshotMetadata) {
        let Some(incoming) = &self.installing else {
            unreachable!("the core installs a snapshot when one was received")
        };
        let (incoming_at, sender) = (incoming.metadata.position, incoming.from);
        self.note(Note::Installs {
            at: metadata.position,
            bytes: incoming.bytes,
        });
        self.record_snapshot(
            SnapshotStep::Installing,
            metadata.position.index,
            Some(sender),
        );
        while !self.batch.entries.is_empty() || self.batch.hard_state.is_some() {
            self.save_now();
        }
        self.compacting = None;
        let at = metadata.position;
        assert_eq!(
            at, incoming_at,
            "the snapshot that was received is installed"
        );
        self.handed.0 = at.index;
        self.effects.disk.push(DiskJob::Install(metadata));
        if !self.rules.keeps(Rule::InstalledByTheDisk) {
            self.installed(at);
        }
    }

    /// The snapshot has replaced the log on disk. Only now its state is used and published.
    fn installed(&mut self, position: Position) {
        let Some(incoming) = self.installing.take() else {
            if !self.rules.keeps(Rule::InstalledByTheDisk) {
                return;
            }
            unreachable!("{position} was installed, and nothing was received")
        };
        if !self.rules.keeps(Rule::InstallEnds) {
            self.installing = Some(incoming.clone());
        }
        let Incoming {
            from, state, bytes, ..
        } = *incoming;
        self.note(Note::Installed {
            at: position,
            from,
            bytes,
        });
        let last = position.index;
        self.record_snapshot(SnapshotStep::Installed, last, Some(from));
        self.record(Trace::Stored { last });
        self.schedule.replaced(bytes);
        self.has_snapshot = true;
        // Each step publishes the entries that it has applied before it ends.
        assert!(
            !self.unpublished,
            "{position} replaces what nobody was shown"
        );
        let applied = self.state.applied;
        assert!(
            position.index > applied,
            "{position} is installed after {applied:?}"
        );
        assert_eq!(state.applied, position.index, "the state is of {position}");
        self.applied_term = position.term;
        self.state = state;
        self.record_applied();
        self.estimate = self.estimate.at_least(self.state.time, self.now.monotonic);
        self.check_estimate();
        // A member's snapshot is not checked against what this member has shown.
        self.seen = self.look();
        self.state.tree.limit_history(self.settings.history_bytes);
        self.members_changed();
        self.effects.auth_changed = true;
        let publication = self.present();
        self.effects.publish.push(publication);
        // Callers whose entries are part of the snapshot will not see them applied.
        if self.rules.keeps(Rule::InstallEndsWaiting) {
            let mut callers = self.pending.drain();
            callers.extend(self.drain_forwards());
            self.fail(callers, Failure::LeaderLost);
        }
        self.input(Input::Stored { position });
    }
}
