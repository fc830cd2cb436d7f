//! Parses `--initial-cluster`, and checks the settings of a member's very first start.

use super::{Config, Stop};
use crate::urls::{self, Url, UrlError};

/// The initial members, sorted by name, each with its sorted URLs.
type Founders = Vec<(String, Vec<Url>)>;

/// The default cluster: this member alone.
pub(super) fn alone(name: &str, peer_urls: &[Url]) -> String {
    let pairs: Vec<String> = peer_urls
        .iter()
        .map(|url| format!("{name}={url}"))
        .collect();
    pairs.join(",")
}

/// Parses `name=url,name=url`. If a name appears several times, that member has several URLs.
pub(super) fn parse_cluster(text: &str) -> Result<Founders, UrlError> {
    let mut founders: Founders = Vec::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, url) = (name.trim(), Url::parse(url)?);
        match founders.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url),
            None => founders.push((name.to_owned(), vec![url])),
        }
    }
    founders.sort_unstable();
    founders
        .iter_mut()
        .for_each(|(_, urls)| urls.sort_unstable());
    Ok(founders)
}

/// Checks the settings that matter only on the first start. Call it if the data directory contains no member. If it
/// returns Ok, `config.initial_cluster` is the list of members to start or join.
///
/// Makes DNS lookups if `--initial-cluster` and `--initial-advertise-peer-urls` spell this member's URLs differently.
///
/// # Errors
/// Returns a [`Stop`] with status 1, in the reference's words, if this member is not in the list, if its URLs differ
/// from those it advertises, or if the list is invalid.
pub fn check_first_start(config: &Config) -> Result<(), Stop> {
    let founders = parse_cluster(&config.initial_cluster_text).map_err(|error| {
        Stop::fatal(
            format!("error setting up initial cluster: {error}"),
            "type --initial-cluster=NAME=http://HOST:PORT, several separated by commas",
        )
    })?;
    check_peers_use_the_network(&founders)?;
    let Some((_, own)) = founders.iter().find(|(name, _)| *name == config.name) else {
        return Err(name_is_missing(config, &founders));
    };
    check_unique(&founders)?;
    check_own_urls(config, own)
}

fn check_peers_use_the_network(founders: &Founders) -> Result<(), Stop> {
    let mut urls = founders.iter().flat_map(|(_, urls)| urls);
    match urls.find(|url| url.socket_path().is_some()) {
        None => Ok(()),
        Some(url) => Err(Stop::fatal(
            format!(
                "error setting up initial cluster: {} URLs are not supported ({url})",
                url.scheme().as_str()
            ),
            "members connect to each other over the network: type http:// or https:// URLs",
        )),
    }
}

fn name_is_missing(config: &Config, founders: &Founders) -> Stop {
    let names: Vec<&str> = founders.iter().map(|(name, _)| name.as_str()).collect();
    let own = alone(&config.name, &config.initial_advertise_peer_urls);
    Stop::fatal(
        format!(
            "couldn't find local name {:?} in the initial cluster configuration",
            config.name
        ),
        &format!(
            "type --name with one of the names in --initial-cluster ({}), or add {own} to it",
            names.join(", ")
        ),
    )
}

/// Checks that no URL appears twice, within a member or in two members.
fn check_unique(founders: &Founders) -> Result<(), Stop> {
    let mut all: Vec<&Url> = founders.iter().flat_map(|(_, urls)| urls).collect();
    all.sort_unstable();
    match all.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Stop::fatal(
            format!("initial cluster {} has duplicate url", shown(founders)),
            &format!("{} appears twice: each member needs its own URLs", pair[0]),
        )),
    }
}

/// The list sorted by name, as the reference prints it.
fn shown(founders: &Founders) -> String {
    let members: Vec<String> = founders
        .iter()
        .map(|(name, urls)| alone(name, urls))
        .collect();
    members.join(",")
}

/// Checks that this member's URLs in the list equal its advertised URLs, either as text or by the addresses they
/// resolve to.
fn check_own_urls(config: &Config, listed: &[Url]) -> Result<(), Stop> {
    let advertised = &config.initial_advertise_peer_urls;
    let own = alone(&config.name, listed);
    let hint = format!("type --initial-advertise-peer-urls={}", urls::join(listed));
    if let Some(url) = listed.iter().find(|url| !is_among(url, advertised)) {
        let reason = format!(
            "--initial-cluster has {}={url} but missing from --initial-advertise-peer-urls={}",
            config.name,
            urls::join(advertised)
        );
        return Err(Stop::fatal(reason, &hint));
    }
    if let Some(url) = advertised.iter().find(|url| !is_among(url, listed)) {
        let reason = format!(
            "--initial-advertise-peer-urls has {url} but missing from --initial-cluster={own}"
        );
        return Err(Stop::fatal(reason, &hint));
    }
    Ok(())
}

fn is_among(url: &Url, others: &[Url]) -> bool {
    others.contains(url) || others.iter().any(|other| reach_the_same(url, other))
}

fn reach_the_same(a: &Url, b: &Url) -> bool {
    if a.port() != b.port() {
        return false;
    }
    match (a.resolve(), b.resolve()) {
        (Ok(a), Ok(b)) => a.iter().any(|address| b.contains(address)),
        _ => false,
    }
}
