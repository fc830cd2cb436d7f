//! A first start: the flags and the running members determine the identity of this node.
//!
//! | `--initial-cluster-state` | this node is | it asks the other members |
//! |---|---|---|
//! | `new` | a founder; its id is derived from the flags | whether they already know this member (then its data was lost), and whether they belong to another cluster |
//! | `existing` | a member that the cluster has added | for the list of members; its id is the one listed with its peer URLs |

use super::random;
use crate::config::{self, ClusterState, Config, Stop};
use crate::dial::Tls;
use crate::engine::members::Members;
use crate::identity::{Identity, ids};
use crate::peer::listing::{Listed, MemberList, ask};
use crate::urls::Url;

/// Determines the identity of this node from its flags and the answers of the other members.
///
/// # Errors
/// The flags contradict each other, or contradict the answer of the cluster. At this point no file was written.
pub(super) fn identity(config: &Config, tls: &Tls) -> Result<Identity, Stop> {
    config::check_first_start(config)?;
    match config.initial_cluster_state {
        ClusterState::New => found(config, tls),
        ClusterState::Existing => join(config, tls),
    }
}

fn found(config: &Config, tls: &Tls) -> Result<Identity, Stop> {
    let identity = Identity::found(config, random());
    let id = identity.id;
    let knows_me = |list: &MemberList| {
        let is_me = |listed: &Listed| listed.id == id && listed.member().has_started();
        list.members.iter().any(is_me)
    };
    let all: Vec<MemberList> = ask_others(config, tls);
    if let Some(list) = all.iter().find(|list| knows_me(list)) {
        return Err(lost_data(config, id, list));
    }
    let cluster = identity.founders.cluster;
    match all.iter().find(|list| list.cluster != cluster) {
        Some(list) => Err(founded_already(config, cluster, list)),
        None => Ok(identity),
    }
}

/// The error when a member that should be founded together with this one already belongs to another cluster. Either the
/// cluster was restored from a backup and the flags are those of its first start, or the flags name the wrong machine.
/// Without this check, the remaining nodes would found an empty cluster.
fn founded_already(config: &Config, cluster: u64, list: &MemberList) -> Stop {
    Stop::fatal(
        format!(
            "{} is already a member of the cluster {:x}, but these flags would found another cluster, {cluster:x}",
            list.url, list.cluster
        ),
        &format!(
            "if that cluster was restored from a backup: edgetcdctl snapshot restore, with the same file, into {}; to \
             join it: edgetcdctl member add {}, and --initial-cluster-state existing; otherwise, use other URLs",
            config.data_dir.display(),
            config.name
        ),
    )
}

/// The error when this member belongs to a running cluster, but no longer has the data that it has confirmed. It must
/// not rejoin with the same id (hazard D12).
fn lost_data(config: &Config, id: u64, list: &MemberList) -> Stop {
    let urls = config
        .initial_advertise_peer_urls
        .iter()
        .map(Url::as_str)
        .collect::<Vec<_>>()
        .join(",");
    let id = ids::hex(id);
    Stop::fatal(
        format!(
            "{} reports that member {id} was started before, but {} is empty: its data is lost",
            list.url,
            config.data_dir.display()
        ),
        &format!(
            "replace the member: edgetcdctl member remove {id}; edgetcdctl member add {} {urls}; then \
             start it with --initial-cluster-state existing",
            config.name
        ),
    )
}

fn join(config: &Config, tls: &Tls) -> Result<Identity, Stop> {
    let own = own_urls(config);
    let lists_us = |list: &MemberList| list.members.iter().any(|member| member.peer_urls == own);
    // The first answer that lists this node. A member that has not applied the addition yet does not list it; another
    // one may.
    let mut all: Vec<MemberList> = ask_others(config, tls);
    let at = all.iter().position(lists_us).unwrap_or(0);
    if all.is_empty() {
        return Err(Stop::fatal(
            "none of the members in --initial-cluster answers",
            "check that one of them is running, and that --initial-cluster contains its peer URL; to found a \
             new cluster, use --initial-cluster-state new",
        ));
    }
    let list = all.swap_remove(at);
    let members = list.members.iter().map(Listed::member);
    match list.members.iter().find(|member| member.peer_urls == own) {
        Some(me) if me.member().has_started() => Err(lost_data(config, me.id, &list)),
        Some(me) => Ok(Identity::join(
            me.id,
            random(),
            Members::new(list.cluster, members),
        )),
        None => Err(not_added(config, &own, &list)),
    }
}

fn not_added(config: &Config, own: &[String], list: &MemberList) -> Stop {
    let urls = own.join(",");
    Stop::fatal(
        format!(
            "the cluster of {} has no member with the peer URLs {urls}",
            list.url
        ),
        &format!("add it first: edgetcdctl member add {} {urls}", config.name),
    )
}

/// This node's peer URLs, sorted in the order in which members list them.
fn own_urls(config: &Config) -> Vec<String> {
    let own = (config.initial_cluster.iter()).find(|(name, _)| *name == config.name);
    own.map(|(_, urls)| urls.iter().map(|url| url.as_str().to_owned()).collect())
        .unwrap_or_default()
}

/// The answers of all other members in the initial cluster.
fn ask_others(config: &Config, tls: &Tls) -> Vec<MemberList> {
    let others = others(config);
    others.iter().filter_map(|url| ask(url, tls)).collect()
}

/// The peer URLs of all other members in the initial cluster.
fn others(config: &Config) -> Vec<Url> {
    let others = config.initial_cluster.iter();
    others
        .filter(|(name, _)| *name != config.name)
        .flat_map(|(_, urls)| urls.clone())
        .collect()
}
