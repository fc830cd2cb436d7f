//! Who belongs to the cluster, and by which incarnation each is known.
//!
//! A member's id follows from its URLs, so a member that has lost its data comes back with the id it had
//! and an empty log: it has forgotten what it confirmed and whom it voted for, and one such member is
//! enough to lose a write. The random incarnation in its directory tells the two apart (hazard D12). The
//! members' table holds what each has published; until then the first one seen since the start counts.

use super::hello::Refusal;
use crate::engine::members::{Member, Members};
use crate::raft::NodeId;
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
    /// Members of this cluster by their own word, with their URLs: the table shows what is applied here, and a
    /// leader may have been added after that. Without hearing it, this member would never learn of it.
    guests: BTreeMap<NodeId, Vec<String>>,
}

/// More would not be a cluster.
const GUESTS_MAX: usize = 16;

fn known(members: &Members, member: &Member) -> Known {
    Known {
        name: member.name.clone(),
        urls: member.peer_urls.clone(),
        incarnation: members.incarnation(NodeId(member.id)).unwrap_or(0),
    }
}

fn guest(urls: &[String]) -> Known {
    Known {
        name: String::new(),
        urls: urls.to_vec(),
        incarnation: 0,
    }
}

impl Table {
    pub fn new(me: NodeId, members: &Members) -> Table {
        let state = State {
            members: members.clone(),
            seen: BTreeMap::new(),
            guests: BTreeMap::new(),
        };
        Table {
            me,
            state: Mutex::new(state),
        }
    }

    pub fn update(&self, members: &Members) {
        let mut state = self.state();
        state.members = members.clone();
        let State {
            members,
            seen,
            guests,
        } = &mut *state;
        guests.retain(|id, _| members.get(*id).is_none() && !members.was_removed(*id));
        seen.retain(|id, _| members.get(*id).is_some() || guests.contains_key(id));
    }

    /// All members but this one.
    pub fn others(&self) -> BTreeMap<NodeId, Known> {
        let state = self.state();
        let others = state.members.iter().filter(|member| member.id != self.me.0);
        let others = others.map(|member| (NodeId(member.id), known(&state.members, member)));
        let guests = state.guests.iter().map(|(id, urls)| (*id, guest(urls)));
        others.chain(guests).collect()
    }

    /// Where the table says this member is reached; None: it is not in it yet.
    pub fn own_urls(&self) -> Option<Vec<String>> {
        let state = self.state();
        state.members.get(self.me).map(|me| me.peer_urls.clone())
    }

    /// Somebody of this cluster whom the table has not named and not removed is heard until it does; Some: it
    /// is new, and to be linked.
    pub fn invite(&self, from: NodeId, urls: &[String]) -> Option<Known> {
        let mut state = self.state();
        let is_named = state.members.get(from).is_some() || state.members.was_removed(from);
        let is_known = state.guests.get(&from).is_some_and(|known| known == urls);
        let is_full = state.guests.len() >= GUESTS_MAX && !state.guests.contains_key(&from);
        if from == self.me || is_named || is_known || is_full || urls.is_empty() {
            return None;
        }
        state.guests.insert(from, urls.to_vec());
        Some(guest(urls))
    }

    /// Whether `from` may take part with this incarnation, on either end of a connection.
    pub fn admits(&self, from: NodeId, incarnation: u64) -> Result<(), Refusal> {
        let mut state = self.state();
        let State {
            members,
            seen,
            guests,
        } = &mut *state;
        if members.was_removed(from) {
            return Err(Refusal::Removed(from));
        }
        let known = match (members.get(from), guests.get(&from)) {
            (Some(member), _) if from != self.me => known(members, member),
            (None, Some(urls)) => guest(urls),
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
