//! What the raft thread tells the rest of the process about itself, without being asked.

use super::followers::Followers;
use super::members::Members;
use super::state::State;
use crate::raft::{Core, LogIndex, NodeId, Role, Term};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

/// Written by the raft thread once a turn, read by anybody. Each value is true by itself; two of them
/// read together may be of different turns.
#[derive(Debug)]
pub struct Status {
    id: NodeId,
    /// 0: none known.
    leader: AtomicU64,
    term: AtomicU64,
    commit: AtomicU64,
    applied: AtomicU64,
    leader_changes: AtomicU64,
    proposals_failed: AtomicU64,
    proposals_pending: AtomicU64,
    disk_full: AtomicBool,
    role: Mutex<Role>,
    leader_since: Mutex<SystemTime>,
    members: RwLock<Arc<Members>>,
    followers: Mutex<Followers>,
}

impl Status {
    /// As of the start: no leader known, nothing counted.
    pub fn new(core: &Core, state: &State) -> Status {
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
            role: Mutex::new(Role::Follower),
            leader_since: Mutex::new(SystemTime::now()),
            members: RwLock::new(Arc::new(state.members.clone())),
            followers: Mutex::new(Followers::default()),
        }
    }

    /// This member.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Whom this member believes to lead; None: nobody, as between two leaders.
    pub fn leader(&self) -> Option<NodeId> {
        Some(NodeId(self.leader.load(Ordering::Relaxed))).filter(|id| id.0 != 0)
    }

    /// Whether this member leads as far as it knows; a newer term may have another already.
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.id)
    }

    /// The newest term that this member has seen. Never falls.
    pub fn term(&self) -> Term {
        Term(self.term.load(Ordering::Relaxed))
    }

    /// Everything up to here is committed; it may be ahead of `applied`.
    pub fn commit(&self) -> LogIndex {
        LogIndex(self.commit.load(Ordering::Relaxed))
    }

    /// As of the last turn; the newest view may have more.
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.applied.load(Ordering::Relaxed))
    }

    /// How often this process has seen a new leader.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }

    /// Requests answered with a failure of raft (error 300).
    pub fn proposals_failed(&self) -> u64 {
        self.proposals_failed.load(Ordering::Relaxed)
    }

    /// Requests that wait for their entry.
    pub fn proposals_pending(&self) -> u64 {
        self.proposals_pending.load(Ordering::Relaxed)
    }

    /// Writes are refused until there is space; reads go on.
    pub fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// What this member was at the end of the last turn.
    pub fn role(&self) -> Role {
        *self.role.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When this member first saw its leader.
    pub fn leader_since(&self) -> SystemTime {
        *self
            .leader_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The members as of the newest view.
    pub fn members(&self) -> Arc<Members> {
        self.members
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How the followers answer, as of about a tick ago; empty if this member does not lead.
    pub fn followers(&self) -> Followers {
        self.followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_followers(&self, followers: &Followers) {
        let mut shown = self
            .followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        shown.clone_from(followers);
    }

    /// Called by the raft thread after each turn.
    pub(super) fn update(&self, core: &Core, applied: LogIndex, pending: usize) {
        self.term.store(core.term().0, Ordering::Relaxed);
        self.commit.store(core.commit().0, Ordering::Relaxed);
        self.applied.store(applied.0, Ordering::Relaxed);
        self.proposals_pending
            .store(pending as u64, Ordering::Relaxed);
        let leader = core.leader().map_or(0, |id| id.0);
        if self.leader.swap(leader, Ordering::Relaxed) != leader {
            self.leader_changed(leader, core.term());
        }
        *self.role.lock().unwrap_or_else(PoisonError::into_inner) = core.role();
    }

    pub(super) fn failed(&self, count: usize) {
        self.proposals_failed
            .fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn set_disk_full(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }

    pub(super) fn set_members(&self, members: &Members) {
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(members.clone());
    }

    fn leader_changed(&self, leader: u64, term: Term) {
        if leader == 0 {
            log::warn!("no leader in term {}", term.0);
            return;
        }
        self.leader_changes.fetch_add(1, Ordering::Relaxed);
        *self
            .leader_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
        log::info!("{leader:x} leads in term {}", term.0);
    }
}
