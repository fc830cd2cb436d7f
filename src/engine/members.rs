//! The member table: ids, names and URLs of the cluster's members (spec §13).
//!
//! Raft knows members as numbers. This table adds how to reach them and how the API shows them. It changes only when
//! entries are applied, is part of snapshots, and is the same on every member at the same index.

use crate::raft::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One member, as the members API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Shown in lower-case hexadecimal without leading zeros.
    #[serde(serialize_with = "hex", deserialize_with = "unhex")]
    pub id: u64,
    /// Empty until the member has started.
    pub name: String,
    /// Where other members reach it. Only raft commands change these; publishing does not.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// As published by the member; empty until then.
    #[serde(rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

impl Member {
    /// Whether it has ever run: only a running member publishes its client URLs.
    pub fn has_started(&self) -> bool {
        !self.client_urls.is_empty()
    }
}

/// The table's entry for a process that claims to be a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The member has published this incarnation.
    Proven,
    /// The member has published no incarnation yet, so the table cannot decide.
    Unproven,
    /// The member has published another incarnation: this process does not have the member's data.
    LostItsData,
    /// The member was removed.
    Removed,
    /// There is no such member.
    Unknown,
}

/// What a member publishes about itself when it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its name and client URLs. Its peer URLs are ignored.
    pub member: Member,
    /// A random number, chosen when its data directory was created.
    pub incarnation: u64,
}

/// Why a membership change is refused finally (spec §13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberError {
    /// A member with this id exists already.
    IdExists,
    /// Another member has one of the peer URLs.
    UrlExists,
    /// There is no member with this id.
    NotFound,
    /// It was removed. Ids are never used again.
    Removed,
    /// Too few members would be left, or are connected, for a majority (`--strict-reconfig-check`).
    Unhealthy,
}

impl MemberError {
    const CODES: [MemberError; 5] = [
        MemberError::IdExists,
        MemberError::UrlExists,
        MemberError::NotFound,
        MemberError::Removed,
        MemberError::Unhealthy,
    ];

    /// Its number in peer messages.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// `None` for a code of another version.
    pub fn from_code(code: u8) -> Option<MemberError> {
        MemberError::CODES.get(usize::from(code)).copied()
    }
}

/// The table of members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The cluster id. It never changes.
    pub cluster: u64,
    /// Sorted by id as a number, in the order of the API.
    list: BTreeMap<u64, Member>,
    /// Ids of removed members. They are never used again.
    removed: BTreeSet<u64>,
    /// By id, for members that have published one. A member that returns with another incarnation has lost its data,
    /// and with it the votes and entries that it had confirmed (hazard D12).
    #[serde(default)]
    incarnations: BTreeMap<u64, u64>,
}

impl Members {
    /// A table without removed members. If two members have the same id, the later one counts.
    pub fn new(cluster: u64, members: impl IntoIterator<Item = Member>) -> Members {
        let list = members
            .into_iter()
            .map(|member| (member.id, member))
            .collect();
        Members {
            cluster,
            list,
            removed: BTreeSet::new(),
            incarnations: BTreeMap::new(),
        }
    }

    /// All members, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.list.values()
    }

    /// `None` if it never was a member, or was removed.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.list.get(&id.0)
    }

    /// Whether it was a member and has been removed.
    pub fn was_removed(&self, id: NodeId) -> bool {
        self.removed.contains(&id.0)
    }

    /// As published by the member; `None` if it has not published one yet.
    pub fn incarnation(&self, id: NodeId) -> Option<u64> {
        self.incarnations.get(&id.0).copied()
    }

    /// The table's entry for a process that claims to be `id`, and names this incarnation, or none.
    pub fn claim(&self, id: NodeId, incarnation: Option<u64>) -> Claim {
        let published = self.incarnation(id);
        match self.get(id) {
            None if self.was_removed(id) => Claim::Removed,
            None => Claim::Unknown,
            Some(_) if published.is_none() => Claim::Unproven,
            Some(_) if published == incarnation => Claim::Proven,
            Some(_) => Claim::LostItsData,
        }
    }

    /// Adds the incarnations of an earlier table. A member publishes one only once, so a table without it is of an older
    /// index: a member that starts reads its log before it applies it.
    pub fn keep_incarnations(&mut self, earlier: &Members) {
        for (id, incarnation) in &earlier.incarnations {
            if self.list.contains_key(id) {
                self.incarnations.entry(*id).or_insert(*incarnation);
            }
        }
    }

    /// Removes all incarnations. A process that knows one can claim to be that member, so only members may know them.
    pub fn hide_incarnations(&mut self) {
        self.incarnations.clear();
    }

    /// Applies what a member publishes about itself. Returns false if nothing changes. A member that is no longer in
    /// the table is not added.
    pub fn publish(&mut self, published: Published) -> bool {
        let Some(member) = self.list.get_mut(&published.member.id) else {
            return false;
        };
        let before = (&member.name, &member.client_urls);
        let is_new = before != (&published.member.name, &published.member.client_urls);
        member.name = published.member.name;
        member.client_urls = published.member.client_urls;
        let incarnation = self.incarnations.insert(member.id, published.incarnation);
        is_new || incarnation != Some(published.incarnation)
    }

    /// Whether any member has published itself.
    pub fn any_published(&self) -> bool {
        !self.incarnations.is_empty()
    }

    /// Checks whether `member` can be added: its id must be unused, and its peer URLs too.
    ///
    /// # Errors
    /// The first reason against it, in the reference's order.
    pub fn may_add(&self, member: &Member) -> Result<(), MemberError> {
        let id = NodeId(member.id);
        if self.was_removed(id) {
            Err(MemberError::Removed)
        } else if self.get(id).is_some() {
            Err(MemberError::IdExists)
        } else {
            self.urls_are_free(member)
        }
    }

    /// Checks whether `id` can be removed.
    ///
    /// # Errors
    /// It is not a member, or was removed before.
    pub fn may_remove(&self, id: NodeId) -> Result<(), MemberError> {
        match self.get(id) {
            Some(_) => Ok(()),
            None if self.was_removed(id) => Err(MemberError::Removed),
            None => Err(MemberError::NotFound),
        }
    }

    /// Checks whether a member can have these peer URLs.
    ///
    /// # Errors
    /// It is not a member, was removed, or another member has one of the URLs.
    pub fn may_update(&self, member: &Member) -> Result<(), MemberError> {
        self.may_remove(NodeId(member.id))?;
        self.urls_are_free(member)
    }

    /// Applies a committed addition.
    pub fn add(&mut self, member: Member) {
        self.list.insert(member.id, member);
    }

    /// Applies a committed removal. This id is never used again.
    pub fn remove(&mut self, id: NodeId) {
        self.list.remove(&id.0);
        self.incarnations.remove(&id.0);
        self.removed.insert(id.0);
    }

    /// Applies a committed change of peer URLs.
    ///
    /// # Errors
    /// There is no such member, or another one has one of the URLs. The table is unchanged.
    pub fn update(&mut self, member: &Member) -> Result<(), MemberError> {
        self.may_update(member)?;
        if let Some(known) = self.list.get_mut(&member.id) {
            known.peer_urls.clone_from(&member.peer_urls);
        }
        Ok(())
    }

    /// Whether the table is consistent: the key of each member is its own id, no id is 0 or was removed, and only
    /// members have an incarnation.
    pub fn is_sound(&self) -> bool {
        let is_member = |id: &u64| self.list.contains_key(id);
        let listed = self.list.iter();
        let is_own = |(id, member): (&u64, &Member)| *id == member.id && *id != 0;
        listed.clone().all(is_own)
            && listed.clone().all(|(id, _)| !self.removed.contains(id))
            && self.incarnations.keys().all(is_member)
    }

    fn urls_are_free(&self, member: &Member) -> Result<(), MemberError> {
        let is_used = |url: &String| {
            self.iter()
                .any(|other| other.id != member.id && other.peer_urls.contains(url))
        };
        match member.peer_urls.iter().any(is_used) {
            true => Err(MemberError::UrlExists),
            false => Ok(()),
        }
    }

    /// All client URLs, sorted (`/v2/machines`).
    pub fn client_urls(&self) -> Vec<&str> {
        let mut urls: Vec<&str> = self
            .iter()
            .flat_map(|member| member.client_urls.iter().map(String::as_str))
            .collect();
        urls.sort_unstable();
        urls
    }
}

fn hex<S: serde::Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{id:x}"))
}

fn unhex<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str) -> Member {
        Member {
            id,
            name: name.into(),
            peer_urls: vec!["http://127.0.0.1:2380".into()],
            client_urls: vec![format!("http://{name}:2379")],
        }
    }

    fn published(member: Member) -> Published {
        Published {
            member,
            incarnation: 9,
        }
    }

    #[test]
    fn an_id_is_used_once_and_a_url_by_one() {
        let urls = |member: Member, url: &str| Member {
            peer_urls: vec![url.into()],
            ..member
        };
        let mut members = Members::new(1, [urls(member(1, "a"), "http://a:1")]);
        let b = urls(member(2, "b"), "http://b:1");
        assert_eq!(members.may_add(&b), Ok(()));
        members.add(b.clone());
        assert_eq!(members.may_add(&b), Err(MemberError::IdExists));
        let taken = urls(member(3, "c"), "http://a:1");
        assert_eq!(members.may_add(&taken), Err(MemberError::UrlExists));
        assert_eq!(members.update(&taken), Err(MemberError::NotFound));
        let moved = urls(b.clone(), "http://a:1");
        assert_eq!(members.update(&moved), Err(MemberError::UrlExists));
        assert_eq!(members.update(&b), Ok(()), "its own URL is no obstacle");
        let moved = urls(b.clone(), "http://b:2");
        assert_eq!(members.update(&moved), Ok(()));
        let shown = members.get(NodeId(2)).map(|member| &member.peer_urls);
        assert_eq!(shown, Some(&moved.peer_urls));
        members.remove(NodeId(2));
        assert_eq!(members.may_add(&b), Err(MemberError::Removed));
        assert_eq!(members.may_remove(NodeId(2)), Err(MemberError::Removed));
        assert_eq!(members.may_remove(NodeId(7)), Err(MemberError::NotFound));
        assert!(members.was_removed(NodeId(2)) && members.get(NodeId(2)).is_none());
    }

    #[test]
    fn a_claim_is_decided_by_the_published_incarnation() {
        let mut members = Members::new(1, [member(1, "a"), member(2, "b"), member(3, "c")]);
        members.publish(published(member(2, "b")));
        members.remove(NodeId(3));
        let claim = |id, incarnation| members.claim(NodeId(id), incarnation);
        assert_eq!(claim(1, Some(5)), Claim::Unproven);
        assert_eq!(claim(2, Some(9)), Claim::Proven);
        assert_eq!(claim(2, Some(5)), Claim::LostItsData);
        assert_eq!(claim(2, None), Claim::LostItsData);
        assert_eq!(claim(3, Some(9)), Claim::Removed);
        assert_eq!(claim(4, Some(9)), Claim::Unknown);
    }

    /// A member that starts applies its log again, from a table of an earlier index.
    #[test]
    fn an_earlier_table_forgets_no_incarnation() {
        let earlier = Members::new(1, [member(1, "a"), member(2, "b")]);
        let mut known = earlier.clone();
        known.publish(published(member(2, "b")));
        let mut table = earlier;
        table.keep_incarnations(&known);
        assert_eq!(table.incarnation(NodeId(2)), Some(9));
        let newer = Published {
            incarnation: 10,
            ..published(member(2, "b"))
        };
        table.publish(newer);
        table.keep_incarnations(&known);
        assert_eq!(
            table.incarnation(NodeId(2)),
            Some(10),
            "the earlier one does not replace it"
        );
        table.remove(NodeId(2));
        table.keep_incarnations(&known);
        assert!(table.is_sound(), "it is no member any longer");
    }

    #[test]
    fn shows_members_as_the_api_does() {
        let text = serde_json::to_string(&member(0x1f, "n1")).unwrap();
        let wanted = r#"{"id":"1f","name":"n1","peerURLs":["http://127.0.0.1:2380"],"clientURLs":["http://n1:2379"]}"#;
        assert_eq!(text, wanted);
        assert_eq!(
            serde_json::from_str::<Member>(&text).unwrap(),
            member(0x1f, "n1")
        );
    }

    #[test]
    fn a_stranger_cannot_publish_itself() {
        let mut members = Members::new(1, [member(2, "b"), member(1, "a")]);
        members.publish(published(member(3, "c")));
        members.publish(published(Member {
            peer_urls: vec![],
            ..member(2, "z")
        }));
        assert_eq!(members.incarnation(NodeId(2)), Some(9));
        assert_eq!(members.incarnation(NodeId(3)), None);
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["a", "z"]);
        assert_eq!(
            members.get(NodeId(2)).unwrap().peer_urls.len(),
            1,
            "peer URLs change by raft only"
        );
        assert_eq!(members.client_urls(), ["http://a:2379", "http://z:2379"]);
    }
}
