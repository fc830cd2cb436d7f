//! Log lines for operators: one note for each event in raft, on the disk and in the membership.
//!
//! The core logs nothing. So after each step, the engine compares term, vote, role and leader with their previous
//! values. A note is a value. The raft thread logs it as one line, at the level given by [`Note::level`]. Changes are
//! `info`. Problems that an operator must look at are `warn`. Explanations of why nothing happened (a refused vote),
//! and membership changes that are applied again after a restart, are `debug`.

use super::Engine;
use super::entry::{self, Command};
use super::members::{Member, Members};
use super::rules::Rules;
use super::time::Monotonic;
use crate::raft::{
    Body, ChangeKind, Core, Entry, Envelope, HardState, LogIndex, NodeId, Payload, Position, Role,
    Term, Violation,
};
use core::fmt;
use core::time::Duration;

/// How often a member without a leader logs that.
const NO_LEADER_INTERVAL: Duration = Duration::from_secs(10);

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// This member no longer has a leader.
    LostLeader {
        /// The previous leader.
        leader: NodeId,
        /// The term in which it led.
        term: Term,
    },
    /// A newer term.
    Term {
        /// The new one.
        now: Term,
        /// The previous one.
        before: Term,
        /// The member whose message contained the new term. `None` if this member begins it.
        from: Option<NodeId>,
    },
    /// This member is a candidate, and votes for itself.
    Stands {
        /// The new term.
        term: Term,
    },
    /// This member votes for another one.
    Vote {
        /// The candidate.
        candidate: NodeId,
        /// The term of the vote.
        term: Term,
    },
    /// This member's role changed.
    Role {
        /// The previous role.
        before: Role,
        /// The new role.
        now: Role,
        /// The present term.
        term: Term,
    },
    /// There is a new leader.
    Leads {
        /// The leader.
        leader: NodeId,
        /// Its term.
        term: Term,
    },
    /// This member refuses a candidate's request.
    Refuses {
        /// The candidate.
        candidate: NodeId,
        /// Whether it was a pre-vote.
        pre_vote: bool,
        /// This member's term.
        term: Term,
        /// The member that this one has voted for in that term.
        vote: Option<NodeId>,
        /// The leader that this member follows.
        leader: Option<NodeId>,
        /// Last position of this member's log.
        last: Position,
    },
    /// There has been no leader for a while.
    NoLeader {
        /// For this long.
        since: Duration,
        /// Number of voters.
        voters: usize,
    },
    /// An applied entry changed the membership.
    Members {
        /// The index of the entry.
        index: LogIndex,
        /// The change.
        change: MemberChange,
        /// Whether the entry was in the log when the process started, and is applied again.
        is_old: bool,
    },
    /// A snapshot of this member's state is on disk.
    SnapshotMade {
        /// Its position.
        at: Position,
        /// Bytes of the state.
        bytes: u64,
        /// Duration of making the snapshot.
        took: Duration,
    },
    /// The installation of another member's snapshot begins.
    Installs {
        /// Its position.
        at: Position,
        /// Bytes of the state.
        bytes: u64,
    },
    /// The snapshot has replaced the log.
    Installed {
        /// Its position.
        at: Position,
        /// The sender.
        from: NodeId,
        /// Bytes of the state.
        bytes: u64,
    },
    /// The disk has no space for the next batch.
    DiskFull,
    /// The disk was full and has space again.
    SpaceAgain,
    /// A snapshot of the tree does not fit on the disk.
    NoRoom,
    /// This leader's disk is full: it transfers its leadership.
    HandsOverFullDisk,
    /// This leader's disk has not stored a batch for an election timeout, and the others are ahead: it transfers its
    /// leadership.
    HandsOverSlowDisk,
    /// The transfer failed, and this leader steps down.
    StepsDownSlowDisk,
    /// A follower lacks entries that it had acknowledged.
    LostTail {
        /// The follower.
        node: NodeId,
        /// The last index of its log.
        last: LogIndex,
    },
    /// A member's message contradicts the protocol.
    Violation {
        /// The member.
        from: NodeId,
        /// The violation.
        violation: Violation,
    },
    /// A member forwarded bytes that are not a command.
    BadForward {
        /// The member.
        from: NodeId,
    },
    /// This member was removed from its cluster.
    Removed,
}

/// A change of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// A member without a vote was added.
    Added(Member),
    /// A member was promoted to a voter.
    Promoted(NodeId),
    /// A member was removed. The member table no longer contains its name.
    Removed {
        /// The member.
        node: NodeId,
        /// Empty if it never started.
        name: String,
    },
    /// A member has other peer URLs.
    Moved(Member),
    /// A member published its name and client URLs.
    Published(Member),
}

impl Note {
    /// The log level.
    pub fn level(&self) -> log::Level {
        match self {
            Note::Refuses { .. } | Note::Members { is_old: true, .. } => log::Level::Debug,
            Note::Role {
                before: Role::Leader,
                ..
            }
            | Note::LostLeader { .. }
            | Note::NoLeader { .. }
            | Note::DiskFull
            | Note::SpaceAgain
            | Note::NoRoom
            | Note::HandsOverFullDisk
            | Note::HandsOverSlowDisk
            | Note::StepsDownSlowDisk
            | Note::LostTail { .. }
            | Note::BadForward { .. }
            | Note::Removed => log::Level::Warn,
            Note::Violation { .. } => log::Level::Error,
            _ => log::Level::Info,
        }
    }

    /// The log line, with the members' names from `members`.
    pub fn text<'a>(&'a self, members: &'a Members) -> impl fmt::Display + 'a {
        Text {
            note: self,
            members,
        }
    }
}

/// `n2 (b3a64181bea306fb)`.
fn label(id: NodeId, name: &str) -> String {
    match name {
        "" => format!("{:x}", id.0),
        name => format!("{name} ({:x})", id.0),
    }
}

struct Text<'a> {
    note: &'a Note,
    members: &'a Members,
}

impl Text<'_> {
    fn label(&self, id: NodeId) -> String {
        let known = self.members.get(id);
        label(id, known.map_or("", |member| member.name.as_str()))
    }

    fn lost_tail(&self, node: NodeId, last: LogIndex, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, urls) = self
            .members
            .get(node)
            .map_or(("NAME", "PEER-URLS".into()), |member| {
                (member.name.as_str(), member.peer_urls.join(","))
            });
        write!(
            f,
            "member {} lost entries that it had acknowledged: its log ends at {}. Its disk did not keep what was \
             synced, or its data directory is an older copy. It gets no further entries. Replace the member: stop it; \
             edgetcdctl member remove {:x}; edgetcdctl member add {name} {urls}; then start it with an empty data \
             directory and --initial-cluster-state existing",
            self.label(node),
            last.0,
            node.0
        )
    }

    fn label_or(&self, id: Option<NodeId>, nobody: &str) -> String {
        id.map_or_else(|| nobody.to_owned(), |id| self.label(id))
    }

    fn role(&self, before: Role, now: Role, term: Term, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (before, now) {
            (_, Role::PreCandidate) => {
                let next = term.next().0;
                write!(f, "has no leader: starts a pre-vote for term {next}")
            }
            (_, Role::Candidate) => write!(f, "became candidate in term {}", term.0),
            (_, Role::Leader) => write!(f, "became leader in term {}", term.0),
            (Role::Leader, _) => write!(f, "is no longer the leader, in term {}", term.0),
            (_, Role::Follower) => write!(f, "became follower in term {}", term.0),
        }
    }

    fn change(&self, change: &MemberChange) -> String {
        match change {
            MemberChange::Added(member) => format!(
                "added member {:x} at {} as a learner: it votes once it has caught up",
                member.id,
                member.peer_urls.join(",")
            ),
            MemberChange::Promoted(id) => {
                let label = self.label(*id);
                format!("promoted member {label}: it has caught up and votes")
            }
            MemberChange::Removed { node, name } => {
                format!("removed member {}", label(*node, name))
            }
            MemberChange::Moved(member) => format!(
                "member {} has new peer URLs: {}",
                self.label(NodeId(member.id)),
                member.peer_urls.join(",")
            ),
            MemberChange::Published(member) => format!(
                "member {:x} has the name {} and the client URLs {}",
                member.id,
                member.name,
                member.client_urls.join(",")
            ),
        }
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.note {
            Note::LostLeader { leader, term } => {
                let leader = self.label(*leader);
                write!(f, "lost leader {leader} in term {}", term.0)
            }
            Note::Term { now, before, from } => {
                write!(f, "term is {}, was {}", now.0, before.0)?;
                from.map_or(Ok(()), |from| {
                    write!(f, ", by a message from {}", self.label(from))
                })
            }
            Note::Stands { term } => write!(
                f,
                "starts an election in term {} and votes for itself",
                term.0
            ),
            Note::Vote { candidate, term } => {
                write!(f, "votes for {} in term {}", self.label(*candidate), term.0)
            }
            Note::Role { before, now, term } => self.role(*before, *now, *term, f),
            Note::Leads { leader, term } => {
                write!(f, "leader is {} in term {}", self.label(*leader), term.0)
            }
            Note::Refuses {
                candidate,
                pre_vote,
                term,
                vote,
                leader,
                last,
            } => {
                let asked = if *pre_vote {
                    "pre-vote"
                } else {
                    "vote"
                };
                write!(
                    f,
                    "refuses the {asked} to {}: term {}, voted for {}, leader {}, last entry {last}",
                    self.label(*candidate),
                    term.0,
                    self.label_or(*vote, "nobody"),
                    self.label_or(*leader, "nobody"),
                )
            }
            Note::NoLeader { since, voters } => write!(
                f,
                "no leader for {} s: writes and quorum reads fail until a majority of the {voters} voters runs and is reachable",
                since.as_secs(),
            ),
            Note::Members { index, change, .. } => {
                write!(f, "{} (entry {})", self.change(change), index.0)
            }
            Note::SnapshotMade { at, bytes, took } => {
                write!(
                    f,
                    "saved a snapshot at {at}: {bytes} bytes in {took:.1?}"
                )
            }
            Note::Installs { at, bytes } => write!(
                f,
                "installing a snapshot of {bytes} bytes at {at} in place of the log"
            ),
            Note::Installed { at, from, bytes } => {
                let sender = self.label(*from);
                write!(
                    f,
                    "installed the snapshot at {at} from {sender}: {bytes} bytes"
                )
            }
            Note::DiskFull => {
                f.write_str("the disk is full: writes are refused until there is space; reads are served")
            }
            Note::SpaceAgain => f.write_str("the disk has space again: writes are accepted"),
            Note::NoRoom => f.write_str(
                "the disk has no room for a snapshot of the keys: only commands that remove keys are accepted. Delete keys, \
                 or give the disk more space",
            ),
            Note::HandsOverFullDisk => f.write_str("the disk is full: transferring the leadership to another member"),
            Note::HandsOverSlowDisk => f.write_str(
                "the disk has stored no entry for an election timeout, but a majority of the members has: transferring the \
                 leadership",
            ),
            Note::StepsDownSlowDisk => f.write_str(
                "the transfer of the leadership timed out and the disk still stores nothing: stepping down",
            ),
            Note::LostTail { node, last } => self.lost_tail(*node, *last, f),
            Note::BadForward { from } => {
                write!(
                    f,
                    "dropped a forward from {}: it is not a command",
                    self.label(*from)
                )
            }
            Note::Violation { from, violation } => write!(
                f,
                "ignored a message from {} and closed its connection: {violation}; check which process runs at its peer \
                 URL, and with which data directory",
                self.label(*from)
            ),
            Note::Removed => f.write_str("this member was removed from the cluster: stopping"),
        }
    }
}

/// The previous values.
pub(super) struct Noted {
    hard_state: HardState,
    role: Role,
    leader: Option<NodeId>,
    /// Entries up to here were in the log when the process started.
    old: LogIndex,
    no_leader: Option<NoLeader>,
}

struct NoLeader {
    since: Monotonic,
    noted: Monotonic,
}

impl Noted {
    pub fn new<R: crate::raft::Rules>(core: &Core<R>) -> Noted {
        Noted {
            hard_state: core.hard_state(),
            role: core.role(),
            leader: core.leader(),
            old: core.last_position().index,
            no_leader: None,
        }
    }
}

impl<T, R: Rules> Engine<T, R> {
    pub(super) fn note(&mut self, note: Note) {
        self.effects.notes.push(note);
    }

    /// Whether this entry was in the log when the process started, so that it is applied again.
    pub(super) fn is_old(&self, index: LogIndex) -> bool {
        index <= self.noted.old
    }

    /// Creates notes for the changes made by the core's last input, which was a message `from` another member, or
    /// something else.
    pub(super) fn note_changes(&mut self, from: Option<NodeId>) {
        let core = &self.core;
        let (hard_state, role, leader) = (core.hard_state(), core.role(), core.leader());
        let before_hard_state = std::mem::replace(&mut self.noted.hard_state, hard_state);
        let before_role = std::mem::replace(&mut self.noted.role, role);
        let before_leader = std::mem::replace(&mut self.noted.leader, leader);
        let term = hard_state.term;
        // The loss of a leader is logged before the election, and the new leader after it.
        if let Some(led) = before_leader.filter(|_| leader.is_none()) {
            let term = before_hard_state.term;
            self.note(Note::LostLeader { leader: led, term });
        }
        self.note_term(before_hard_state, hard_state, from);
        // A candidate votes for itself, and that vote has a note already.
        if role != before_role && role != Role::Candidate {
            self.note(Note::Role {
                before: before_role,
                now: role,
                term,
            });
        }
        if let Some(leader) = leader.filter(|_| leader != before_leader) {
            self.note(Note::Leads { leader, term });
        }
    }

    fn note_term(&mut self, before: HardState, hard_state: HardState, from: Option<NodeId>) {
        let HardState { term: now, vote } = hard_state;
        if now != before.term && vote != Some(self.core.id()) {
            let before = before.term;
            self.note(Note::Term { now, before, from });
        }
        if let Some(candidate) = vote.filter(|_| hard_state != before) {
            let term = now;
            self.note(match candidate == self.core.id() {
                true => Note::Stands { term },
                false => Note::Vote { candidate, term },
            });
        }
    }

    /// Creates notes for refused vote requests, with the reasons.
    pub(super) fn note_refusals(&mut self, envelopes: &[Envelope]) {
        for Envelope { to, message } in envelopes {
            let pre_vote = match message.body {
                Body::VoteReply { granted: false } => false,
                Body::PreVoteReply { granted: false, .. } => true,
                _ => continue,
            };
            let core = &self.core;
            let note = Note::Refuses {
                candidate: *to,
                pre_vote,
                term: core.term(),
                vote: core.hard_state().vote,
                leader: core.leader(),
                last: core.last_position(),
            };
            self.note(note);
        }
    }

    /// Logs at intervals that there is no leader.
    pub(super) fn note_no_leader(&mut self, now: Monotonic) {
        if self.core.leader().is_some() {
            self.noted.no_leader = None;
            return;
        }
        let first = NoLeader {
            since: now,
            noted: now,
        };
        let no_leader = self.noted.no_leader.get_or_insert(first);
        if now - no_leader.noted >= NO_LEADER_INTERVAL {
            no_leader.noted = now;
            let since = now - no_leader.since;
            let voters = self.core.membership().voters.len();
            self.note(Note::NoLeader { since, voters });
        }
    }

    /// Logs at intervals that a follower has lost entries that it had acknowledged.
    pub(super) fn note_lost_tail(&mut self, node: NodeId, last: LogIndex) {
        let now = self.now.monotonic;
        let is_due = |noted: &Monotonic| now - *noted >= NO_LEADER_INTERVAL;
        if self.lost_tails.get(&node).is_none_or(is_due) {
            self.lost_tails.insert(node, now);
            self.note(Note::LostTail { node, last });
        }
    }

    /// The membership change that an entry is about to make; `None` if it is none that is logged.
    pub(super) fn member_change(&self, entry: &Entry) -> Option<MemberChange> {
        let command = match &entry.payload {
            Payload::Command(bytes) if entry::is_update(bytes) || entry::is_publish(bytes) => bytes,
            Payload::Change(change) if change.kind == ChangeKind::Promote => {
                return Some(MemberChange::Promoted(change.node));
            }
            Payload::Change(change) => &change.context,
            _ => return None,
        };
        match entry::decode(command).ok()?.1 {
            Command::Add(member) => Some(MemberChange::Added(member)),
            Command::Remove(node) => {
                let known = self.state.members.get(node);
                let name = known.map_or_else(String::new, |member| member.name.clone());
                Some(MemberChange::Removed { node, name })
            }
            Command::Update(member) => Some(MemberChange::Moved(member)),
            Command::Publish(published) => Some(MemberChange::Published(published.member)),
            Command::Tree(_)
            | Command::Expire(_)
            | Command::Time
            | Command::Auth(_)
            | Command::NextFormat => None,
        }
    }

    /// The entry at `index` has made this change.
    pub(super) fn note_member_change(&mut self, index: LogIndex, change: MemberChange) {
        let is_old = self.is_old(index);
        self.note(Note::Members {
            index,
            change,
            is_old,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../guide/log_lines.md");

    fn member(id: u64, name: &str, url: &str) -> Member {
        Member {
            id,
            name: name.to_owned(),
            peer_urls: vec![url.to_owned()],
            client_urls: Vec::new(),
        }
    }

    /// One note for each kind of warning.
    fn warnings() -> Vec<Note> {
        let (leader, node, term) = (NodeId(1), NodeId(2), Term(7));
        vec![
            Note::LostLeader { leader, term },
            Note::NoLeader {
                since: Duration::from_secs(10),
                voters: 3,
            },
            Note::Role {
                before: Role::Leader,
                now: Role::Follower,
                term,
            },
            Note::DiskFull,
            Note::HandsOverFullDisk,
            Note::SpaceAgain,
            Note::NoRoom,
            Note::HandsOverSlowDisk,
            Note::StepsDownSlowDisk,
            Note::LostTail {
                node,
                last: LogIndex(12),
            },
            Note::BadForward { from: node },
            Note::Removed,
        ]
    }

    /// The operators' page in the guide contains each warning word for word, and no other line.
    #[test]
    fn the_guide_lists_every_warning() {
        let members = [
            member(1, "n1", "http://a:2380"),
            member(2, "n2", "http://b:2380"),
        ];
        let members = Members::new(9, members);
        let printed = warnings().into_iter().map(|note| {
            assert_eq!(note.level(), log::Level::Warn, "{note:?}");
            note.text(&members).to_string()
        });
        let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
        let listed = rows.filter_map(|row| row.split_once('`').map(|(line, _)| line.to_owned()));
        assert_eq!(listed.collect::<Vec<_>>(), printed.collect::<Vec<_>>());
    }
}
