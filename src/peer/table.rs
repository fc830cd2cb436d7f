//! Who belongs to the cluster, and by which incarnation each is known.
//!
//! A member's id follows from its URLs, so a member that has lost its data comes back with the id it had
//! and an empty log: it has forgotten what it confirmed and whom it voted for, and one such member is
//! enough to lose a write. The random incarnation in its directory tells the two apart (hazard D12). Only what the
//! log has published counts: a process that comes first under a member's id would otherwise keep the member out.
//!
//! # Newcomers
//!
//! The table shows what is applied here. A member may have been added after that, and may lead, and without hearing it
//! this member would never learn of it. So somebody whom the table does not name is a *newcomer* if
//!
//! - its handshake proves that it knows this member's incarnation, which only members learn, from the log; or
//! - a member of the table lists it, asked at the address that the table has for it (`listing.rs`). This is for a member
//!   whose own incarnation is not published yet.
//!
//! Everybody else is refused, and no URL that a stranger names is dialled. A newcomer is forgotten when its connection
//! ends, and there are few.

use super::hello::{Hello, Me, Proof, Refusal};
use crate::engine::members::{Member, Members};
use crate::raft::NodeId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One member as links need it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub name: String,
    pub urls: Vec<String>,
    /// None: the log has published none yet.
    pub incarnation: Option<u64>,
}

/// The newest table, shared by all links.
pub(super) struct Table {
    me: Me,
    state: Mutex<State>,
}

struct State {
    members: Members,
    /// Members that the table does not name yet, with their URLs.
    newcomers: BTreeMap<NodeId, Vec<String>>,
    /// Where members of the table say that they are reached, if that differs from the table. A member that was down
    /// while others moved does not know their new URLs, and cannot learn them without answering these members.
    heard: BTreeMap<NodeId, Vec<String>>,
}

/// A member that is this far behind catches up from one of them.
const NEWCOMERS_MAX: usize = 8;

/// What became of a handshake that is not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admitted {
    /// The sender has shown that it is a member: it knows this member's incarnation, or its own is the published one.
    pub is_shown: bool,
    /// The table does not name it.
    pub is_newcomer: bool,
}

impl State {
    fn known(&self, member: &Member) -> Known {
        let id = NodeId(member.id);
        let mut urls = member.peer_urls.clone();
        let heard = self.heard.get(&id).into_iter().flatten();
        urls.extend(heard.filter(|url| !member.peer_urls.contains(url)).cloned());
        Known {
            name: member.name.clone(),
            urls,
            incarnation: self.members.incarnation(id),
        }
    }
}

fn newcomer(urls: &[String]) -> Known {
    Known {
        name: String::new(),
        urls: urls.to_vec(),
        incarnation: None,
    }
}

impl Table {
    pub fn new(me: Me, members: &Members) -> Table {
        let state = State {
            members: members.clone(),
            newcomers: BTreeMap::new(),
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
            newcomers,
            heard,
        } = &mut *state;
        // New URLs in the table are newer than what was heard.
        let urls = |members: &Members, id: NodeId| Some(members.get(id)?.peer_urls.clone());
        heard.retain(|id, _| {
            urls(members, *id).is_some() && urls(members, *id) == urls(&before, *id)
        });
        newcomers.retain(|id, _| members.get(*id).is_none() && !members.was_removed(*id));
    }

    /// All members but this one, and the newcomers.
    pub fn others(&self) -> BTreeMap<NodeId, Known> {
        let state = self.state();
        let newcomers = state.newcomers.iter();
        let newcomers = newcomers.map(|(id, urls)| (*id, newcomer(urls)));
        self.members_of(&state).chain(newcomers).collect()
    }

    /// All members but this one.
    pub fn members(&self) -> BTreeMap<NodeId, Known> {
        self.members_of(&self.state()).collect()
    }

    fn members_of<'a>(&self, state: &'a State) -> impl Iterator<Item = (NodeId, Known)> + 'a {
        let me = self.me.id;
        let others = state.members.iter().filter(move |member| member.id != me.0);
        others.map(move |member| (NodeId(member.id), state.known(member)))
    }

    /// Where the table says this member is reached; None: it is not in it yet.
    pub fn own_urls(&self) -> Option<Vec<String>> {
        let state = self.state();
        let me = state.members.get(self.me.id);
        me.map(|me| me.peer_urls.clone())
    }

    /// Where the table says that a member is reached, or where whoever speaks for a newcomer says it.
    pub fn urls(&self, of: NodeId) -> Vec<String> {
        let state = self.state();
        let member = state.members.get(of).map(|member| &member.peer_urls);
        let urls = member.or_else(|| state.newcomers.get(&of));
        urls.cloned().unwrap_or_default()
    }

    /// What a member that has shown itself says of where it is reached; Some: it is to be dialled there, too.
    pub fn hear(&self, from: NodeId, urls: &[String]) -> Option<Known> {
        let mut state = self.state();
        let member = state.members.get(from)?.clone();
        let is_known = urls.iter().all(|url| member.peer_urls.contains(url));
        if from == self.me.id
            || is_known
            || state.heard.get(&from).is_some_and(|heard| heard == urls)
        {
            return None;
        }
        state.heard.insert(from, urls.to_vec());
        Some(state.known(&member))
    }

    /// A member's incarnation, once the log has published it.
    pub fn incarnation(&self, of: NodeId) -> Option<u64> {
        self.state().members.incarnation(of)
    }

    /// Takes in a newcomer for whom somebody speaks. `is_open` tells which newcomers are connected: others make room.
    /// None: the table names it or has removed it, it is known at these URLs, or there are too many.
    pub fn introduce(
        &self,
        id: NodeId,
        urls: &[String],
        is_open: impl Fn(NodeId) -> bool,
    ) -> Introduced {
        let mut state = self.state();
        let is_named = state.members.get(id).is_some() || state.members.was_removed(id);
        let is_known = state.newcomers.get(&id).is_some_and(|known| known == urls);
        if id == self.me.id || is_named || is_known || urls.is_empty() {
            return Introduced::default();
        }
        let mut introduced = Introduced::default();
        if state.newcomers.len() >= NEWCOMERS_MAX && !state.newcomers.contains_key(&id) {
            let Some(idle) = state.newcomers.keys().copied().find(|id| !is_open(*id)) else {
                return introduced;
            };
            state.newcomers.remove(&idle);
            introduced.forgotten = Some(idle);
        }
        state.newcomers.insert(id, urls.to_vec());
        introduced.new = Some(newcomer(urls));
        introduced
    }

    /// Forgets a newcomer whose connection has ended; false: it is none.
    pub fn forget(&self, id: NodeId) -> bool {
        self.state().newcomers.remove(&id).is_some()
    }

    /// Whether the sender of this handshake may take part.
    pub fn admits(&self, hello: &Hello) -> Result<Admitted, Refusal> {
        let from = hello.from;
        let state = self.state();
        if state.members.was_removed(from) {
            return Err(Refusal::Removed(from));
        }
        if hello.proof == Proof::Wrong {
            return Err(self.lost_its_data(&state));
        }
        let is_proven = hello.proof == Proof::Valid;
        let member = state.members.get(from).filter(|_| from != self.me.id);
        match member.map(|member| state.known(member)) {
            Some(known) => match known.incarnation {
                Some(published) if published != hello.incarnation => {
                    Err(Refusal::LostItsData(from, Box::new(known)))
                }
                published => Ok(Admitted {
                    is_shown: is_proven || published.is_some(),
                    is_newcomer: false,
                }),
            },
            None if from != self.me.id && (is_proven || state.newcomers.contains_key(&from)) => {
                Ok(Admitted {
                    is_shown: is_proven,
                    is_newcomer: true,
                })
            }
            None => Err(Refusal::Unknown(from)),
        }
    }

    /// Whether the process that answers as `to`, with this incarnation if it names one, is that member.
    pub fn admits_answer(&self, to: NodeId, incarnation: Option<u64>) -> Result<(), Refusal> {
        let state = self.state();
        if state.members.was_removed(to) {
            return Err(Refusal::Removed(to));
        }
        let member = state.members.get(to);
        let known = member.map(|member| state.known(member));
        match known {
            Some(known) if known.incarnation.is_some() && known.incarnation != incarnation => {
                Err(Refusal::LostItsData(to, Box::new(known)))
            }
            Some(_) => Ok(()),
            None if state.newcomers.contains_key(&to) => Ok(()),
            None => Err(Refusal::Unknown(to)),
        }
    }

    /// Another member knows this one by another incarnation.
    fn lost_its_data(&self, state: &State) -> Refusal {
        let me = state.members.get(self.me.id);
        let known = match me {
            Some(me) => state.known(me),
            None => newcomer(&[]),
        };
        Refusal::LostItsData(self.me.id, Box::new(known))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Table::introduce`] did.
#[derive(Debug, Default)]
pub(super) struct Introduced {
    /// To be linked.
    pub new: Option<Known>,
    /// It made room: its link ends.
    pub forgotten: Option<NodeId>,
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
        let me = Me {
            cluster: 9,
            id: one,
            incarnation: 1,
        };
        let table = Table::new(me, &members);
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
