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
    /// Where members of the table say that they are reached, if that differs from the table. A member that was down
    /// while others moved does not know their new URLs, and cannot learn them without answering these members.
    heard: BTreeMap<NodeId, Vec<String>>,
}

/// More would not be a cluster.
const GUESTS_MAX: usize = 16;

impl State {
    fn known(&self, member: &Member) -> Known {
        let id = NodeId(member.id);
        let mut urls = member.peer_urls.clone();
        let heard = self.heard.get(&id).into_iter().flatten();
        urls.extend(heard.filter(|url| !member.peer_urls.contains(url)).cloned());
        Known {
            name: member.name.clone(),
            urls,
            incarnation: self.members.incarnation(id).unwrap_or(0),
        }
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
            heard: BTreeMap::new(),
        };
        Table {
            me,
            state: Mutex::new(state),
        }
    }

    pub fn update(&self, members: &Members) {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.members, members.clone());
        let State {
            members,
            seen,
            guests,
            heard,
        } = &mut *state;
        // New URLs in the table are newer than what was heard.
        let urls = |members: &Members, id: NodeId| Some(members.get(id)?.peer_urls.clone());
        heard.retain(|id, _| {
            urls(members, *id).is_some() && urls(members, *id) == urls(&before, *id)
        });
        guests.retain(|id, _| members.get(*id).is_none() && !members.was_removed(*id));
        seen.retain(|id, _| members.get(*id).is_some() || guests.contains_key(id));
    }

    /// All members but this one.
    pub fn others(&self) -> BTreeMap<NodeId, Known> {
        let state = self.state();
        let others = state.members.iter().filter(|member| member.id != self.me.0);
        let others = others.map(|member| (NodeId(member.id), state.known(member)));
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

    /// What a member that was admitted says of where it is reached; Some: it is to be dialled there, too.
    pub fn hear(&self, from: NodeId, urls: &[String]) -> Option<Known> {
        let mut state = self.state();
        let member = state.members.get(from)?.clone();
        let is_known = urls.iter().all(|url| member.peer_urls.contains(url));
        if from == self.me || is_known || state.heard.get(&from).is_some_and(|heard| heard == urls)
        {
            return None;
        }
        state.heard.insert(from, urls.to_vec());
        Some(state.known(&member))
    }

    /// Whether `from` may take part with this incarnation, on either end of a connection.
    pub fn admits(&self, from: NodeId, incarnation: u64) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.members.was_removed(from) {
            return Err(Refusal::Removed(from));
        }
        let known = match (state.members.get(from), state.guests.get(&from)) {
            (Some(member), _) if from != self.me => state.known(member),
            (None, Some(urls)) => guest(urls),
            _ => return Err(Refusal::Unknown(from)),
        };
        let wanted = match known.incarnation {
            0 => *state.seen.entry(from).or_insert(incarnation),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, url: &str) -> Member {
        Member {
            id,
            name: format!("n{id}"),
            peer_urls: vec![url.to_owned()],
            client_urls: Vec::new(),
        }
    }

    #[test]
    fn what_a_member_says_of_itself_counts_until_the_table_says_something_new() {
        let (one, two) = (NodeId(1), NodeId(2));
        let mut members = Members::new(9, [member(1, "http://a:1"), member(2, "http://b:1")]);
        let table = Table::new(one, &members);
        let urls = || table.others().get(&two).map(|known| known.urls.clone());
        let said = ["http://b:2".to_owned()];
        assert!(table.hear(one, &said).is_none(), "it is this member");
        assert!(table.hear(NodeId(3), &said).is_none(), "nobody knows it");
        assert!(
            table.hear(two, &["http://b:1".to_owned()]).is_none() && table.hear(two, &[]).is_none()
        );
        let both = ["http://b:1".to_owned(), "http://b:2".to_owned()];
        assert_eq!(
            table.hear(two, &said).map(|known| known.urls),
            Some(both.to_vec())
        );
        assert!(table.hear(two, &said).is_none(), "it is known by now");
        table.update(&members);
        assert_eq!(urls(), Some(both.to_vec()));
        members.update(&member(2, "http://b:3")).expect("an update");
        table.update(&members);
        assert_eq!(urls(), Some(vec!["http://b:3".to_owned()]));
        table.hear(two, &said);
        members.remove(two);
        table.update(&members);
        assert_eq!(urls(), None);
    }
}
