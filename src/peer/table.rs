//! Who belongs to the cluster, and by which incarnation each is known.
//!
//! A member's id follows from its URLs, so a member that has lost its data comes back with the id it had
//! and an empty log: it has forgotten what it confirmed and whom it voted for, and one such member is
//! enough to lose a write. The random incarnation in its directory tells the two apart (hazard D12). The
//! members' table holds what each has published; until then the first one seen since the start counts.

use super::hello::Refusal;
use crate::raft::NodeId;
use crate::replica::members::{Member, Members};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One member as links need it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub name: String,
    pub urls: Vec<String>,
    /// 0: it has not published one yet.
    incarnation: u64,
}

/// The newest table, shared by all links.
pub(super) struct Table {
    me: NodeId,
    state: Mutex<State>,
}

struct State {
    members: Members,
    /// The first incarnation heard of each member that has published none.
    seen: BTreeMap<NodeId, u64>,
}

fn known(members: &Members, member: &Member) -> Known {
    Known {
        name: member.name.clone(),
        urls: member.peer_urls.clone(),
        incarnation: members.incarnation(NodeId(member.id)).unwrap_or(0),
    }
}

impl Table {
    pub fn new(me: NodeId, members: &Members) -> Table {
        let state = State {
            members: members.clone(),
            seen: BTreeMap::new(),
        };
        Table {
            me,
            state: Mutex::new(state),
        }
    }

    pub fn update(&self, members: &Members) {
        let mut state = self.state();
        state.members = members.clone();
        let State { members, seen } = &mut *state;
        seen.retain(|id, _| members.get(*id).is_some());
    }

    /// All members but this one.
    pub fn others(&self) -> BTreeMap<NodeId, Known> {
        let state = self.state();
        let others = state.members.iter().filter(|member| member.id != self.me.0);
        others
            .map(|member| (NodeId(member.id), known(&state.members, member)))
            .collect()
    }

    /// Whether `from` may take part with this incarnation, on either end of a connection.
    pub fn admits(&self, from: NodeId, incarnation: u64) -> Result<(), Refusal> {
        let mut state = self.state();
        let State { members, seen } = &mut *state;
        if members.was_removed(from) {
            return Err(Refusal::Removed(from));
        }
        let known = match members.get(from) {
            Some(member) if from != self.me => known(members, member),
            _ => return Err(Refusal::Unknown(from)),
        };
        let wanted = match known.incarnation {
            0 => *seen.entry(from).or_insert(incarnation),
            published => published,
        };
        match wanted == incarnation {
            true => Ok(()),
            false => Err(Refusal::LostItsData(from, Box::new(known))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
