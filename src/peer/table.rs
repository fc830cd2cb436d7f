//! The members of the cluster, and the incarnation of each.
//!
//! A member's id follows from its URLs, so a member that has lost its data returns with its old id and an empty log. It
//! has forgotten the entries that it acknowledged and the votes that it gave, and one such member is enough to lose a
//! write. The random incarnation in its data directory distinguishes the two (hazard D12). Only an incarnation that the
//! log has published counts. Otherwise a process that uses a member's id first would keep the member out.
//!
//! # Newcomers
//!
//! The table contains the changes that are applied here. A member may have been added after that, and may be the
//! leader. If this member refused it, this member would never learn of that change. So a process whose id the table
//! does not contain is a *newcomer* if
//!
//! - its handshake proves that it knows this member's incarnation, which only members learn, from the log; or
//! - a member of the table lists it, asked at the address that the table has for it (`listing.rs`). This is for a
//!   member whose own incarnation is not published yet.
//!
//! All other processes are refused, and the URLs that they name are not dialled. A newcomer is forgotten when its
//! connection ends, and the number of newcomers is limited.

use super::handshake::{Handshake, Me, Proof, Refusal};
use crate::engine::members::{Claim, Member, Members};
use crate::raft::NodeId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The part of a member's data that links need.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub name: String,
    pub urls: Vec<String>,
}

/// The newest table, shared by all links.
pub(super) struct Table {
    me: Me,
    state: Mutex<State>,
}

struct State {
    members: Members,
    /// Members that the table does not contain yet, with their URLs.
    newcomers: BTreeMap<NodeId, Vec<String>>,
    /// URLs that members of the table have named for themselves, if they differ from the table. A member that was down
    /// while others moved does not know their new URLs, and cannot learn them without answering these members.
    named: BTreeMap<NodeId, Vec<String>>,
}

/// Limit for newcomers. A member that misses more changes than this catches up from one of the newcomers.
const NEWCOMERS_MAX: usize = 8;

/// The properties of the sender of an accepted handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admitted {
    /// The sender has shown that it is a member: it knows this member's incarnation, or its own is the published one.
    pub is_shown: bool,
    /// The table does not contain the sender.
    pub is_newcomer: bool,
}

impl State {
    fn known(&self, member: &Member) -> Known {
        let id = NodeId(member.id);
        let mut urls = member.peer_urls.clone();
        let named = self.named.get(&id).into_iter().flatten();
        urls.extend(named.filter(|url| !member.peer_urls.contains(url)).cloned());
        Known {
            name: member.name.clone(),
            urls,
        }
    }

    fn lost_its_data(&self, id: NodeId) -> Refusal {
        let member = self.members.get(id);
        let known = member.map_or_else(|| newcomer(&[]), |member| self.known(member));
        Refusal::LostItsData(id, Box::new(known))
    }
}

fn newcomer(urls: &[String]) -> Known {
    Known {
        name: String::new(),
        urls: urls.to_vec(),
    }
}

impl Table {
    pub fn new(me: Me, members: &Members) -> Table {
        let state = State {
            members: members.clone(),
            newcomers: BTreeMap::new(),
            named: BTreeMap::new(),
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
            newcomers,
            named,
        } = &mut *state;
        members.keep_incarnations(&before);
        // If the table has new URLs for a member, they are newer than the URLs that the member has named.
        let urls = |members: &Members, id: NodeId| Some(members.get(id)?.peer_urls.clone());
        named.retain(|id, _| {
            urls(members, *id).is_some() && urls(members, *id) == urls(&before, *id)
        });
        newcomers.retain(|id, _| members.get(*id).is_none() && !members.was_removed(*id));
    }

    /// All members except this one, and the newcomers.
    pub fn others(&self) -> BTreeMap<NodeId, Known> {
        let state = self.state();
        let newcomers = state.newcomers.iter();
        let newcomers = newcomers.map(|(id, urls)| (*id, newcomer(urls)));
        self.members_of(&state).chain(newcomers).collect()
    }

    /// All members except this one.
    pub fn members(&self) -> BTreeMap<NodeId, Known> {
        self.members_of(&self.state()).collect()
    }

    fn members_of<'a>(&self, state: &'a State) -> impl Iterator<Item = (NodeId, Known)> + 'a {
        let me = self.me.id;
        let others = state.members.iter().filter(move |member| member.id != me.0);
        others.map(move |member| (NodeId(member.id), state.known(member)))
    }

    /// This member's URLs in the table. None: the table does not contain it yet.
    pub fn own_urls(&self) -> Option<Vec<String>> {
        let state = self.state();
        let me = state.members.get(self.me.id);
        me.map(|me| me.peer_urls.clone())
    }

    /// A member's URLs in the table, or a newcomer's URLs from its handshake or from the list of a member.
    pub fn urls(&self, of: NodeId) -> Vec<String> {
        let state = self.state();
        let member = state.members.get(of).map(|member| &member.peer_urls);
        let urls = member.or_else(|| state.newcomers.get(&of));
        urls.cloned().unwrap_or_default()
    }

    /// Stores the URLs that a member names for itself. The member must have shown itself before. Some: it is to be
    /// dialled at these URLs, too.
    pub fn learn_urls(&self, from: NodeId, urls: &[String]) -> Option<Known> {
        let mut state = self.state();
        let member = state.members.get(from)?.clone();
        let is_known = urls.iter().all(|url| member.peer_urls.contains(url));
        if from == self.me.id
            || is_known
            || state.named.get(&from).is_some_and(|named| named == urls)
        {
            return None;
        }
        state.named.insert(from, urls.to_vec());
        Some(state.known(&member))
    }

    /// A member's incarnation, if the log has published it.
    pub fn incarnation(&self, of: NodeId) -> Option<u64> {
        self.state().members.incarnation(of)
    }

    /// Adds a newcomer that a proof or a member vouches for. `is_open` returns whether a newcomer is connected. If
    /// there are too many newcomers, one that is not connected is removed. This adds none if the table contains or has
    /// removed the member, if it is known at these URLs, or if all newcomers are connected and the limit is reached.
    pub fn add_newcomer(
        &self,
        id: NodeId,
        urls: &[String],
        is_open: impl Fn(NodeId) -> bool,
    ) -> AddedNewcomer {
        let mut state = self.state();
        let is_named = state.members.get(id).is_some() || state.members.was_removed(id);
        let is_known = state.newcomers.get(&id).is_some_and(|known| known == urls);
        if id == self.me.id || is_named || is_known || urls.is_empty() {
            return AddedNewcomer::default();
        }
        let mut added = AddedNewcomer::default();
        if state.newcomers.len() >= NEWCOMERS_MAX && !state.newcomers.contains_key(&id) {
            let Some(idle) = state.newcomers.keys().copied().find(|id| !is_open(*id)) else {
                return added;
            };
            state.newcomers.remove(&idle);
            added.forgotten = Some(idle);
        }
        state.newcomers.insert(id, urls.to_vec());
        added.new = Some(newcomer(urls));
        added
    }

    /// Forgets a newcomer whose connection has ended. False: it is not a newcomer.
    pub fn forget(&self, id: NodeId) -> bool {
        self.state().newcomers.remove(&id).is_some()
    }

    /// Whether the sender of this handshake is accepted.
    pub fn admits(&self, handshake: &Handshake) -> Result<Admitted, Refusal> {
        let from = handshake.from;
        let state = self.state();
        let claim = state.members.claim(from, Some(handshake.incarnation));
        if claim == Claim::Removed {
            return Err(Refusal::Removed(from));
        }
        if handshake.proof == Proof::Wrong {
            // Another member knows this one by another incarnation.
            return Err(state.lost_its_data(self.me.id));
        }
        let is_proven = handshake.proof == Proof::Valid;
        match claim {
            _ if from == self.me.id => Err(Refusal::Unknown(from)),
            Claim::LostItsData => Err(state.lost_its_data(from)),
            Claim::Proven | Claim::Unproven => Ok(Admitted {
                is_shown: is_proven || claim == Claim::Proven,
                is_newcomer: false,
            }),
            Claim::Unknown if is_proven || state.newcomers.contains_key(&from) => Ok(Admitted {
                is_shown: is_proven,
                is_newcomer: true,
            }),
            Claim::Unknown | Claim::Removed => Err(Refusal::Unknown(from)),
        }
    }

    /// Whether the process that answers as `to` is that member. `incarnation` is the one that its answer names, if any.
    pub fn admits_answer(&self, to: NodeId, incarnation: Option<u64>) -> Result<(), Refusal> {
        let state = self.state();
        match state.members.claim(to, incarnation) {
            Claim::Removed => Err(Refusal::Removed(to)),
            Claim::LostItsData => Err(state.lost_its_data(to)),
            Claim::Proven | Claim::Unproven => Ok(()),
            Claim::Unknown if state.newcomers.contains_key(&to) => Ok(()),
            Claim::Unknown => Err(Refusal::Unknown(to)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of [`Table::add_newcomer`].
#[derive(Debug, Default)]
pub(super) struct AddedNewcomer {
    /// The newcomer to link.
    pub new: Option<Known>,
    /// A newcomer that was removed to make space. Its link ends.
    pub forgotten: Option<NodeId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::members::Published;

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
        let me = Me {
            cluster: 9,
            id: one,
            incarnation: 1,
        };
        let table = Table::new(me, &members);
        let urls = || table.others().get(&two).map(|known| known.urls.clone());
        let said = ["http://b:2".to_owned()];
        assert!(table.learn_urls(one, &said).is_none(), "it is this member");
        assert!(
            table.learn_urls(NodeId(3), &said).is_none(),
            "nobody knows it"
        );
        assert!(
            table.learn_urls(two, &["http://b:1".to_owned()]).is_none()
                && table.learn_urls(two, &[]).is_none()
        );
        let both = ["http://b:1".to_owned(), "http://b:2".to_owned()];
        assert_eq!(
            table.learn_urls(two, &said).map(|known| known.urls),
            Some(both.to_vec())
        );
        assert!(table.learn_urls(two, &said).is_none(), "it is known by now");
        table.update(&members);
        assert_eq!(urls(), Some(both.to_vec()));
        members.update(&member(2, "http://b:3")).expect("an update");
        table.update(&members);
        assert_eq!(urls(), Some(vec!["http://b:3".to_owned()]));
        table.learn_urls(two, &said);
        members.remove(two);
        table.update(&members);
        assert_eq!(urls(), None);
    }

    /// A member that has just started publishes the members of a snapshot again, and then those of its log.
    #[test]
    fn a_member_without_its_data_is_refused_while_the_log_is_applied_again() {
        let (one, two) = (NodeId(1), NodeId(2));
        let earlier = Members::new(9, [member(1, "http://a:1"), member(2, "http://b:1")]);
        let mut members = earlier.clone();
        members.publish(Published {
            member: member(2, "http://b:1"),
            incarnation: 7,
        });
        let me = Me {
            cluster: 9,
            id: one,
            incarnation: 1,
        };
        let table = Table::new(me, &members);
        table.update(&earlier);
        assert!(table.admits_answer(two, Some(7)).is_ok());
        assert!(matches!(
            table.admits_answer(two, Some(8)),
            Err(Refusal::LostItsData(id, _)) if id == two
        ));
    }
}
