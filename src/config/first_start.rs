//! `--initial-cluster`, and the checks of a member's very first start.

use super::{Config, Stop};
use crate::urls::{self, Scheme, Url, UrlError};

/// The founders, sorted by name, each with its sorted URLs.
type Founders = Vec<(String, Vec<Url>)>;

/// The cluster of a member that was told of no other.
pub(super) fn alone(name: &str, peer_urls: &[Url]) -> String {
    let pairs: Vec<String> = peer_urls
        .iter()
        .map(|url| format!("{name}={url}"))
        .collect();
    pairs.join(",")
}

/// Reads `name=url,name=url`. A name that comes several times has several URLs.
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
    founders.sort();
    founders.iter_mut().for_each(|(_, urls)| urls.sort());
    Ok(founders)
}

/// Checks what counts on the first start only: call it when the data directory holds no member.
/// `config.initial_cluster` is the list to found or join once this has passed.
///
/// May ask the resolver when `--initial-cluster` and `--initial-advertise-peer-urls` spell this
/// member's URLs differently.
///
/// # Errors
/// A [`Stop`] with status 1, in the reference's words, when this member is not in the list, or not
/// with the URLs it advertises, or the list itself cannot be.
pub fn check_first_start(config: &Config) -> Result<(), Stop> {
    let founders = parse_cluster(&config.initial_cluster_text).map_err(|error| {
        Stop::fatal(
            format!("error setting up initial cluster: {error}"),
            "type --initial-cluster=NAME=http://HOST:PORT, several with commas between them",
        )
    })?;
    check_peers_speak_http(&founders)?;
    let Some((_, own)) = founders.iter().find(|(name, _)| *name == config.name) else {
        return Err(name_is_missing(config, &founders));
    };
    check_unique(&founders)?;
    check_own_urls(config, own)
}

fn check_peers_speak_http(founders: &Founders) -> Result<(), Stop> {
    let mut urls = founders.iter().flat_map(|(_, urls)| urls);
    match urls.find(|url| url.scheme() != Scheme::Http) {
        None => Ok(()),
        Some(url) => Err(Stop::fatal(
            format!(
                "error setting up initial cluster: {} cannot be served ({url})",
                url.scheme().as_str()
            ),
            "members speak plain HTTP to each other: type http:// URLs",
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

/// No two members share a URL, and none has one twice.
fn check_unique(founders: &Founders) -> Result<(), Stop> {
    let mut all: Vec<&Url> = founders.iter().flat_map(|(_, urls)| urls).collect();
    all.sort();
    match all.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(Stop::fatal(
            format!("initial cluster {} has duplicate url", shown(founders)),
            &format!(
                "{} stands twice: each member needs URLs of its own",
                pair[0]
            ),
        )),
    }
}

/// The list in the order of names, as the reference prints it.
fn shown(founders: &Founders) -> String {
    let members: Vec<String> = founders
        .iter()
        .map(|(name, urls)| alone(name, urls))
        .collect();
    members.join(",")
}

/// What the list says of this member and what it advertises must be the same, by spelling or by
/// the addresses it resolves to.
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
