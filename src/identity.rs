//! The member identity of a data directory, written once at the first start.
//!
//! A member's id follows from its peer URLs. A wiped node that returns with its old flags would therefore have its old
//! id and an empty log. The other members would see a member that has forgotten what it confirmed. The random
//! *incarnation* distinguishes the two. The module [`ids`] computes ids.

pub mod ids;

use crate::config::Config;
use crate::engine::members::{Member, Members, Published};
use crate::raft::NodeId;
use crate::urls::Url;
use serde::{Deserialize, Serialize};

/// The identity, stored next to the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    version: u32,
    /// Id of this member.
    pub id: u64,
    /// Random number, chosen at the first start.
    pub incarnation: u64,
    /// The founding members of the cluster, or the members that this member found when it joined. Later changes are in
    /// the log.
    pub founders: Members,
    /// Whether the member was added to a running cluster. Then it learns the voters from the others.
    #[serde(default)]
    pub joined: bool,
}

const VERSION: u32 = 1;

impl Identity {
    /// The identity according to the flags of a first start.
    pub fn found(config: &Config, incarnation: u64) -> Identity {
        let token = &config.initial_cluster_token;
        let founders: Vec<Member> = config
            .initial_cluster
            .iter()
            .map(|(name, urls)| Member {
                id: ids::founder(urls, token).0,
                name: name.clone(),
                peer_urls: texts(urls),
                client_urls: Vec::new(),
            })
            .collect();
        let ids: Vec<NodeId> = founders.iter().map(|member| NodeId(member.id)).collect();
        let own = founders.iter().find(|member| member.name == config.name);
        let id = own.map_or_else(
            || {
                unreachable!(
                    "the first start was checked to have {:?} in its cluster",
                    config.name
                )
            },
            |member| member.id,
        );
        let founders = Members::new(ids::cluster(&ids), founders);
        Identity {
            version: VERSION,
            id,
            incarnation,
            founders,
            joined: false,
        }
    }

    /// The identity in a running cluster that has these members. `id` is one of them.
    pub fn join(id: u64, incarnation: u64, members: Members) -> Identity {
        Identity {
            version: VERSION,
            id,
            incarnation,
            founders: members,
            joined: true,
        }
    }

    /// The identity of the only member of a cluster with random ids.
    pub fn alone(id: u64, incarnation: u64, members: Members) -> Identity {
        Identity {
            version: VERSION,
            id,
            incarnation,
            founders: members,
            joined: false,
        }
    }

    /// Encodes the identity as JSON. The file that contains it adds a checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an identity is plain data")
    }

    /// Decodes an identity.
    ///
    /// # Errors
    /// The reason why the bytes cannot be decoded. Because of the checksum this is not damage but another version's
    /// format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Identity, String> {
        let identity: Identity =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if identity.version != VERSION {
            return Err(format!(
                "version {} was written by another edgetcd",
                identity.version
            ));
        }
        Ok(identity)
    }

    /// This member's entry in the member table, according to these flags.
    pub fn published(&self, config: &Config) -> Published {
        let member = Member {
            id: self.id,
            name: config.name.clone(),
            peer_urls: Vec::new(),
            client_urls: texts(&config.advertise_client_urls),
        };
        Published {
            member,
            incarnation: self.incarnation,
        }
    }
}

/// URLs as sorted texts, as the members API stores them.
fn texts(urls: &[Url]) -> Vec<String> {
    let mut texts: Vec<String> = urls.iter().map(|url| url.as_str().to_owned()).collect();
    texts.sort_unstable();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_start_with_default_flags_founds_a_cluster_of_one() {
        let identity = Identity::found(&Config::default(), 7);
        assert_eq!(identity.founders.iter().count(), 1);
        let me = identity
            .founders
            .get(NodeId(identity.id))
            .expect("the founder is a member");
        assert_eq!((me.name.as_str(), me.client_urls.len()), ("default", 0));
        assert_eq!(Identity::from_bytes(&identity.to_bytes()), Ok(identity));
    }

    #[test]
    fn another_versions_identity_is_refused() {
        let mut identity = Identity::found(&Config::default(), 7);
        identity.version = 2;
        assert!(Identity::from_bytes(&identity.to_bytes()).is_err());
        assert!(Identity::from_bytes(b"{}").is_err());
    }
}
