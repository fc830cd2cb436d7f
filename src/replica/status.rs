//! The state of the raft thread, for all other threads to read without a request.

use crate::auth;
use crate::engine::Engine;
use crate::engine::followers::Followers;
use crate::engine::members::Members;
use crate::engine::state::State;
use crate::engine::time::Monotonic;
use crate::histogram::{DiskTimes, Histogram};
use crate::raft::{Core, LogIndex, NodeId, PeerProgress, Position, Role, Rules, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

/// Written by the raft thread once per step, read by any thread. Each value is correct by itself. Two values that are
/// read together may be from different steps.
#[derive(Debug)]
pub struct Status {
    id: NodeId,
    /// 0 if no leader is known.
    leader: AtomicU64,
    term: AtomicU64,
    commit: AtomicU64,
    applied: AtomicU64,
    leader_changes: AtomicU64,
    proposals_failed: AtomicU64,
    proposals_pending: AtomicU64,
    disk_full: AtomicBool,
    decides_alone: AtomicBool,
    /// When the present batch was handed to the disk, in nanoseconds since boot; 0 if there is none.
    disk_waits_since: AtomicU64,
    /// When the raft thread must run again at the latest, in nanoseconds since boot.
    next_step_due: AtomicU64,
    /// A batch that is with the disk for longer cannot be acknowledged in time.
    request_timeout: Duration,
    role: Mutex<Role>,
    leader_since: Mutex<SystemTime>,
    members: RwLock<Arc<Members>>,
    /// Whether `auth` is enabled, so that most requests need no lock.
    auth_enabled: AtomicBool,
    auth: RwLock<Arc<auth::Store>>,
    followers: Mutex<Followers>,
    progress: Mutex<Vec<PeerProgress>>,
    log: Mutex<LogShape>,
    learner_ids: Mutex<BTreeSet<NodeId>>,
    behind: Mutex<Behind>,
    turns: AtomicU64,
    learners: AtomicU64,
    is_learner: AtomicBool,
    uncommitted_bytes: AtomicU64,
    accepted_bytes: AtomicU64,
    commits: DiskTimes,
    snapshots: DiskTimes,
    last_snapshot: Mutex<Option<Snapshot>>,
    round_trips: Mutex<BTreeMap<u64, Arc<RoundTrips>>>,
}

/// What a member's log contains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogShape {
    /// The position before the first entry.
    pub base: Position,
    /// The last entry, which may not be on the disk yet. Equal to `base` if there is none.
    pub last: Position,
    /// The entries up to here are on this member's disk.
    pub stored: LogIndex,
    /// The first entry of each term, oldest first.
    pub terms: Vec<Position>,
}

impl LogShape {
    fn update<R: Rules>(&mut self, core: &Core<R>) {
        let (base, last) = (core.base(), core.last_position());
        // Entries are appended far more often than terms begin, end or are forgotten.
        let is_longer = last.term == self.last.term && last.index >= self.last.index;
        if !is_longer || base != self.base || self.terms.is_empty() {
            self.terms = core.terms();
        }
        (self.base, self.last, self.stored) = (base, last, core.stored());
    }
}

/// A committed entry that was not applied when it was observed, and the time of that. It is observed until it is
/// applied.
#[derive(Debug, Default)]
struct Behind(Option<(LogIndex, Instant)>);

impl Behind {
    fn update(&mut self, commit: LogIndex, applied: LogIndex, now: impl FnOnce() -> Instant) {
        if self.0.is_some_and(|(index, _)| index > applied) {
            return;
        }
        self.0 = (commit > applied).then(|| (commit, now()));
    }
}

/// Round-trip times of a leader's heartbeats: buckets from 0.1 ms to 3.2768 s, as in etcd's
/// `etcd_network_peer_round_trip_time_seconds`.
pub type RoundTrips = Histogram<100, 17>;

/// A snapshot of this member's own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes of the state.
    pub bytes: u64,
    /// Time from the request to a complete file that a start can use.
    pub took: Duration,
    /// When it was complete.
    pub at: SystemTime,
}

/// A raft thread that is this late does not run any more. No load of the machine delays it so long.
const STUCK_AFTER: Duration = Duration::from_secs(10);

impl Status {
    /// The state at the start: no leader, all counts zero.
    pub fn new(core: &Core, state: &State, request_timeout: Duration) -> Status {
        Status {
            id: core.id(),
            leader: AtomicU64::new(0),
            term: AtomicU64::new(core.term().0),
            commit: AtomicU64::new(core.commit().0),
            applied: AtomicU64::new(state.applied.0),
            leader_changes: AtomicU64::new(0),
            proposals_failed: AtomicU64::new(0),
            proposals_pending: AtomicU64::new(0),
            disk_full: AtomicBool::new(false),
            decides_alone: AtomicBool::new(false),
            disk_waits_since: AtomicU64::new(0),
            next_step_due: AtomicU64::new(u64::MAX),
            request_timeout,
            role: Mutex::new(Role::Follower),
            leader_since: Mutex::new(SystemTime::now()),
            members: RwLock::new(Arc::new(state.members.clone())),
            auth_enabled: AtomicBool::new(state.auth.is_enabled()),
            auth: RwLock::new(Arc::clone(&state.auth)),
            followers: Mutex::new(Followers::default()),
            progress: Mutex::new(Vec::new()),
            log: Mutex::new(LogShape::default()),
            learner_ids: Mutex::new(BTreeSet::new()),
            behind: Mutex::new(Behind::default()),
            turns: AtomicU64::new(0),
            learners: AtomicU64::new(0),
            is_learner: AtomicBool::new(false),
            uncommitted_bytes: AtomicU64::new(0),
            accepted_bytes: AtomicU64::new(0),
            commits: DiskTimes::default(),
            snapshots: DiskTimes::default(),
            last_snapshot: Mutex::new(None),
            round_trips: Mutex::new(BTreeMap::new()),
        }
    }

    /// This member's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The leader as far as this member knows; `None` if there is none, as between two leaders.
    pub fn leader(&self) -> Option<NodeId> {
        Some(NodeId(self.leader.load(Ordering::Relaxed))).filter(|id| id.0 != 0)
    }

    /// Whether this member leads, as far as it knows. A newer term may already have another leader.
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.id)
    }

    /// The newest term that this member has seen. Never decreases.
    pub fn term(&self) -> Term {
        Term(self.term.load(Ordering::Relaxed))
    }

    /// The commit index. It may be ahead of `applied`.
    pub fn commit(&self) -> LogIndex {
        LogIndex(self.commit.load(Ordering::Relaxed))
    }

    /// The last applied entry as of the last step. The newest view may contain more.
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.applied.load(Ordering::Relaxed))
    }

    /// How many new leaders this process has seen.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }

    /// Requests that failed because of raft (error 300).
    pub fn proposals_failed(&self) -> u64 {
        self.proposals_failed.load(Ordering::Relaxed)
    }

    /// Requests that wait for their entry.
    pub fn proposals_pending(&self) -> u64 {
        self.proposals_pending.load(Ordering::Relaxed)
    }

    /// Whether writes are refused until there is space. Reads continue.
    pub fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Whether the newest view contains every acknowledged write, because no other member has a vote
    /// ([`Engine::decides_alone`]). A view that is taken after this returned true is linearizable: the raft thread
    /// publishes a view before it acknowledges the writes in it, and clears this before it carries out any effect of the
    /// step that gives a vote to another member.
    pub fn is_view_linearizable(&self) -> bool {
        self.decides_alone.load(Ordering::Acquire)
    }

    /// Whether the disk has not synced a batch within the request timeout, so that no write can be acknowledged in
    /// time. A disk that hangs while there are no writes is not noticed, because no test record is written.
    pub fn is_disk_stuck(&self, now: Monotonic) -> bool {
        let since = self.disk_waits_since.load(Ordering::Relaxed);
        since > 0 && now - Monotonic(since) >= self.request_timeout
    }

    /// Whether the raft thread runs at least ten seconds later than it must. A slow disk does not make it late.
    pub fn is_raft_stuck(&self, now: Monotonic) -> bool {
        let due = Monotonic(self.next_step_due.load(Ordering::Relaxed));
        now > due && now - due >= STUCK_AFTER
    }

    /// This member's role at the end of the last step.
    pub fn role(&self) -> Role {
        *lock(&self.role)
    }

    /// When this member first noticed its leader.
    pub fn leader_since(&self) -> SystemTime {
        *lock(&self.leader_since)
    }

    /// The members as of the newest view.
    pub fn members(&self) -> Arc<Members> {
        self.members
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Users and roles as of the newest view.
    pub fn auth(&self) -> Arc<auth::Store> {
        Arc::clone(&self.auth.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Users and roles if they are enforced. Takes no lock if they are not.
    pub fn enforced_auth(&self) -> Option<Arc<auth::Store>> {
        let enabled = self.auth_enabled.load(Ordering::Acquire);
        enabled
            .then(|| self.auth())
            .filter(|auth| auth.is_enabled())
    }

    /// Statistics of the followers, about a tick old; empty if this member does not lead.
    pub fn followers(&self) -> Followers {
        lock(&self.followers).clone()
    }

    /// The leader's information about the other members, about a tick old; empty if this member does not lead.
    pub fn progress(&self) -> Vec<PeerProgress> {
        match self.is_leader() {
            true => lock(&self.progress).clone(),
            false => Vec::new(),
        }
    }

    /// What this member's log contains.
    pub fn log(&self) -> LogShape {
        lock(&self.log).clone()
    }

    /// The members without a vote.
    pub fn learner_ids(&self) -> BTreeSet<NodeId> {
        lock(&self.learner_ids).clone()
    }

    /// How long an entry that is known to be committed has waited to be applied; zero if there is none. Under load the
    /// last committed entry is rarely applied at the same moment. The value shows how far this member is behind.
    pub fn apply_lag(&self) -> Duration {
        let since = lock(&self.behind).0.map(|(_, since)| since);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Number of loops of the raft thread. It loops at each tick, so this value stands still only if the thread hangs.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Number of members without a vote.
    pub fn learners(&self) -> u64 {
        self.learners.load(Ordering::Relaxed)
    }

    /// Whether this member has no vote.
    pub fn is_learner(&self) -> bool {
        self.is_learner.load(Ordering::Relaxed)
    }

    /// Bytes that this member has accepted as the leader, and not committed yet.
    pub fn uncommitted_bytes(&self) -> u64 {
        self.uncommitted_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of keys and values in the client changes that were applied here, whichever member received them.
    pub fn accepted_bytes(&self) -> u64 {
        self.accepted_bytes.load(Ordering::Relaxed)
    }

    /// How long it took to apply and publish the entries of one commit.
    pub fn commits(&self) -> &DiskTimes {
        &self.commits
    }

    /// How long this member's own snapshots took.
    pub fn snapshots(&self) -> &DiskTimes {
        &self.snapshots
    }

    /// The last of them since the start of the process.
    pub fn last_snapshot(&self) -> Option<Snapshot> {
        *lock(&self.last_snapshot)
    }

    /// Round-trip times of this member's heartbeats while it led.
    pub fn round_trips(&self) -> Vec<(NodeId, Arc<RoundTrips>)> {
        let trips = lock(&self.round_trips);
        let each = trips.iter().map(|(id, times)| (NodeId(*id), times.clone()));
        each.collect()
    }

    pub(super) fn round_trip(&self, of: NodeId, took: Duration) {
        lock(&self.round_trips).entry(of.0).or_default().add(took);
    }

    /// A client's change of this size was applied.
    pub(super) fn accepted(&self, bytes: u64) {
        self.accepted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn snapshot_made(&self, bytes: u64, took: Duration) {
        self.snapshots.add(took);
        let at = SystemTime::now();
        *lock(&self.last_snapshot) = Some(Snapshot { bytes, took, at });
    }

    pub(super) fn set_followers(&self, followers: &Followers, progress: Vec<PeerProgress>) {
        lock(&self.followers).clone_from(followers);
        *lock(&self.progress) = progress;
    }

    /// As after a step of a member that decides alone.
    #[cfg(test)]
    pub(super) fn decide_alone(&self) {
        self.decides_alone.store(true, Ordering::Release);
    }

    /// Called by the raft thread after each step, before its effects.
    pub(super) fn before_effects<T>(&self, engine: &Engine<T>) {
        if !engine.decides_alone() {
            self.decides_alone.store(false, Ordering::Release);
        }
    }

    /// Called by the raft thread after each step, when its view is published.
    pub(super) fn update<T>(&self, engine: &Engine<T>) {
        let (core, applied) = (engine.core(), engine.state().applied);
        self.decides_alone
            .store(engine.decides_alone(), Ordering::Release);
        self.disk_full
            .store(engine.is_disk_full(), Ordering::Relaxed);
        let waits = engine.disk_waits_since().map_or(0, |since| since.0);
        self.disk_waits_since.store(waits, Ordering::Relaxed);
        let due = engine.deadline().0;
        self.next_step_due.store(due, Ordering::Relaxed);
        self.term.store(core.term().0, Ordering::Relaxed);
        self.commit.store(core.commit().0, Ordering::Relaxed);
        self.applied.store(applied.0, Ordering::Relaxed);
        self.proposals_pending
            .store(engine.pending() as u64, Ordering::Relaxed);
        self.turns.fetch_add(1, Ordering::Relaxed);
        let learners = &core.membership().learners;
        self.learners
            .store(learners.len() as u64, Ordering::Relaxed);
        self.is_learner
            .store(learners.contains(&self.id), Ordering::Relaxed);
        let mut ids = lock(&self.learner_ids);
        if *ids != *learners {
            ids.clone_from(learners);
        }
        drop(ids);
        lock(&self.log).update(core);
        self.uncommitted_bytes
            .store(core.uncommitted_bytes() as u64, Ordering::Relaxed);
        lock(&self.behind).update(core.commit(), applied, Instant::now);
        let leader = core.leader().map_or(0, |id| id.0);
        if self.leader.swap(leader, Ordering::Relaxed) != leader {
            self.leader_changed(leader);
        }
        *lock(&self.role) = core.role();
    }

    pub(super) fn failed(&self, count: usize) {
        self.proposals_failed
            .fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn set_members(&self, members: &Members) {
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(members.clone());
        lock(&self.round_trips).retain(|id, _| members.get(NodeId(*id)).is_some());
    }

    pub(super) fn set_auth(&self, auth: &Arc<auth::Store>) {
        *self.auth.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(auth);
        self.auth_enabled
            .store(auth.is_enabled(), Ordering::Release);
    }

    fn leader_changed(&self, leader: u64) {
        if leader == 0 {
            return;
        }
        self.leader_changes.fetch_add(1, Ordering::Relaxed);
        *lock(&self.leader_since) = SystemTime::now();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The member always applies what was committed a second ago.
    #[test]
    fn a_member_that_keeps_up_under_load_is_not_behind_for_long() {
        let (mut behind, begin) = (Behind::default(), Instant::now());
        let lag = |behind: &Behind, now: Instant| behind.0.map(|(_, since)| now - since);
        for second in 1..100 {
            let now = begin + Duration::from_secs(second);
            behind.update(LogIndex(10 * second), LogIndex(10 * second - 10), || now);
            assert!(lag(&behind, now) <= Some(Duration::from_secs(1)));
        }
        let stands = begin + Duration::from_secs(150);
        behind.update(LogIndex(2000), LogIndex(985), || stands);
        assert_eq!(lag(&behind, stands), Some(Duration::from_secs(51)));
        behind.update(LogIndex(2000), LogIndex(2000), || stands);
        assert_eq!(lag(&behind, stands), None);
    }
}
