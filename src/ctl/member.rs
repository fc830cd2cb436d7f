//! `edgetcdctl member`: lists and changes the members of the cluster.
//!
//! Errors are printed without the `Error:  ` of the commands for keys, and have status 1. The only exception: if no
//! connection can be made in the first step, which asks for all members, the error is reported as in all commands.
//!
//! A change is sent to a second endpoint only if no connection to the first could be made. The reference retries in
//! more cases. A slow addition would then be made twice, or be reported as refused because its URL is already in use.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Stop;
use super::client::{Answer, Client, Failure};
use super::command::{Command, HELP, Run};
use super::endpoint::Endpoint;
use super::wire::{Ask, Body, Further, Limit, Method, Patience, clean};
use crate::urls::Url;

pub(super) const ALL: &[Command] = &[
    Command {
        name: "member list",
        arguments: "",
        what: "list the members of the cluster",
        examples: &["member list"],
        options: &[HELP],
        run: list,
    },
    Command {
        name: "member add",
        arguments: "NAME PEER-URL",
        what: "add a member and print the settings for its start",
        examples: &["member add n4 http://10.0.0.4:2380"],
        options: &[HELP],
        run: add,
    },
    Command {
        name: "member remove",
        arguments: "ID",
        what: "remove a member permanently",
        examples: &["member remove 8e9e05c52164694d"],
        options: &[HELP],
        run: remove,
    },
    Command {
        name: "member update",
        arguments: "ID PEER-URLS",
        what: "change the peer URLs of a member, separated by commas",
        examples: &["member update 8e9e05c52164694d http://10.0.0.4:2380"],
        options: &[HELP],
        run: update,
    },
];

const PATH: &str = "/v2/members";

/// Maximum number of members: each of them is asked, and a server must not decide how many.
const MEMBERS_MAX: usize = 1000;

/// A member as the API shows it. A member that was never started has no name.
#[derive(Debug, Deserialize)]
pub(super) struct Member {
    pub id: String,
    #[serde(default)]
    pub name: String,
    #[serde(default, rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    #[serde(default, rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Members {
    #[serde(default)]
    members: Vec<Member>,
}

/// An error response of the members API.
#[derive(Debug, Deserialize)]
struct Refusal {
    message: String,
}

/// The members as known to the first endpoint that answers, in the API's order.
pub(super) fn known_to(client: &Client) -> Result<Vec<Member>, Failure> {
    let answer = client.answer(&Ask::get(PATH, vec![]))?;
    if answer.status != 200 {
        return Err(Failure::NoJson);
    }
    let Members { members } = serde_json::from_slice(&answer.body).map_err(|_| Failure::NoJson)?;
    match members.len() <= MEMBERS_MAX {
        true => Ok(members),
        false => Err(Failure::NoJson),
    }
}

/// The members' client URLs, as far as they can be parsed.
pub(super) fn client_urls(client: &Client) -> Result<Vec<Endpoint>, Failure> {
    let members = known_to(client)?;
    let urls = members.iter().flat_map(|member| &member.client_urls);
    Ok(urls.filter_map(|url| Endpoint::parse(url).ok()).collect())
}

fn list(run: &mut Run) -> Result<(), Stop> {
    let [] = arguments(run, "No arguments accepted")?;
    let client = run.connect()?;
    let members = members(&client, "")?;
    let leader: Member = get(
        &client,
        &format!("{PATH}/leader"),
        "Failed to get leader:  ",
    )?;
    for member in &members {
        writeln!(run.world.stdout, "{}", line(member, &leader.id))?;
    }
    Ok(())
}

fn line(member: &Member, leader: &str) -> String {
    let (id, peer_urls) = (&member.id, member.peer_urls.join(","));
    if member.name.is_empty() {
        return format!("{id}[unstarted]: peerURLs={peer_urls}");
    }
    format!(
        "{id}: name={} peerURLs={peer_urls} clientURLs={} isLeader={}",
        member.name,
        member.client_urls.join(","),
        id == leader
    )
}

fn add(run: &mut Run) -> Result<(), Stop> {
    let [name, url] = arguments(run, "Provide a name and a single member peerURL")?;
    let ask = change(Method::Post, PATH.to_owned(), peer_urls(&[&url])?);
    let client = run.connect()?;
    let (status, body) = answer(&client, &ask, "")?;
    let added: Member = match status {
        201 => read(&body, "")?,
        409 => return Err(refused(&body)),
        _ => return Err(unexpected(status, "")),
    };
    let id = &added.id;
    writeln!(
        run.world.stdout,
        "Added member named {name} with ID {id} to cluster"
    )?;
    let cluster = initial_cluster(&members(&client, "")?, id, &name);
    writeln!(run.world.stdout, "\nETCD_NAME={name:?}")?;
    writeln!(run.world.stdout, "ETCD_INITIAL_CLUSTER={cluster:?}")?;
    Ok(writeln!(
        run.world.stdout,
        "ETCD_INITIAL_CLUSTER_STATE=\"existing\""
    )?)
}

/// `NAME=URL,…` of all members. The added member has no name before its first start, so `name` is used.
fn initial_cluster(members: &[Member], added: &str, name: &str) -> String {
    let named = |member: &Member| {
        let name = if member.id == added {
            name
        } else {
            &member.name
        };
        let pairs = member.peer_urls.iter().map(|url| format!("{name}={url}"));
        pairs.collect::<Vec<_>>()
    };
    members.iter().flat_map(named).collect::<Vec<_>>().join(",")
}

fn remove(run: &mut Run) -> Result<(), Stop> {
    let [id] = arguments(run, "Provide a single member ID")?;
    let client = run.connect()?;
    let members = members(&client, "Error while verifying ID against known members: ")?;
    if !members.iter().any(|member| member.id == id) {
        return Err(Stop::Plain(unknown(&members, &id)));
    }
    let ask = Ask {
        body: Body::None,
        ..change(Method::Delete, format!("{PATH}/{id}"), String::new())
    };
    let before = format!("Received an error trying to remove member {id}: ");
    let (status, _) = answer(&client, &ask, &before).map_err(|stop| match stop {
        // Unlike all other errors, this one is printed without an extra newline.
        Stop::Plain(text) => Stop::Plain(text.trim_end().to_owned()),
        other => other,
    })?;
    match status {
        // 410: another client removed it meanwhile.
        204 | 410 => Ok(writeln!(
            run.world.stdout,
            "Removed member {id} from cluster"
        )?),
        status => Err(unexpected(status, &before)),
    }
}

/// A member cannot be selected by its name, because two members may have the same one. The words are etcdctl's,
/// including its own name.
fn unknown(members: &[Member], id: &str) -> String {
    let mut out = String::new();
    for member in members.iter().filter(|member| member.name == id) {
        out += &format!(
            "Found a member named {id}; if this is correct, please use its ID, eg:\n\
             \tetcdctl member remove {}\n\
             For more details, read the documentation at https://github.com/etcd-io/etcd/blob/\
             master/Documentation/runtime-configuration.md#remove-a-member\n\n",
            member.id
        );
    }
    out + &format!("Couldn't find a member in the cluster with an ID of {id}.")
}

fn update(run: &mut Run) -> Result<(), Stop> {
    let [id, urls] = arguments(
        run,
        "Provide an ID and a list of comma separated peerURL \
         (0xabcd http://example.com,http://example1.com)",
    )?;
    let urls = peer_urls(&urls.split(',').collect::<Vec<_>>())?;
    let ask = change(Method::Put, clean(&format!("{PATH}/{id}")), urls);
    let (status, body) = answer(&run.connect()?, &ask, "")?;
    match status {
        204 => Ok(writeln!(
            run.world.stdout,
            "Updated member with ID {id} in cluster"
        )?),
        404 | 409 => Err(refused(&body)),
        _ => Err(unexpected(status, "")),
    }
}

/// Returns the arguments if there are exactly N.
fn arguments<const N: usize>(run: &Run, otherwise: &str) -> Result<[String; N], Stop> {
    let given = <[String; N]>::try_from(run.parsed.args.clone());
    given.map_err(|_| Stop::Plain(otherwise.to_owned()))
}

/// The request body with a member's URLs, which are checked before anything is sent.
fn peer_urls(texts: &[&str]) -> Result<String, Stop> {
    let urls = Url::parse_members(texts).map_err(|error| Stop::Plain(error.to_string()))?;
    let urls: Vec<String> = urls.iter().map(Url::to_string).collect();
    Ok(serde_json::json!({ "peerURLs": urls }).to_string())
}

fn change(method: Method, path: String, json: String) -> Ask {
    Ask {
        method,
        path,
        query: vec![],
        body: Body::Json(json),
        further: Further::IfNotReached,
        patience: Patience::Usual,
        limit: Limit::Page,
    }
}

/// In the API's order.
fn members(client: &Client, before: &str) -> Result<Vec<Member>, Stop> {
    get(client, PATH, before).map(|Members { members }| members)
}

fn get<T: DeserializeOwned>(client: &Client, path: &str, before: &str) -> Result<T, Stop> {
    match answer(client, &Ask::get(path, vec![]), before)? {
        (200, body) => read(&body, before),
        (status, _) => Err(unexpected(status, before)),
    }
}

/// Returns status and body. `before` is the prefix of error messages.
fn answer(client: &Client, ask: &Ask, before: &str) -> Result<(u16, Vec<u8>), Stop> {
    match client.answer(ask) {
        Ok(Answer { status, body, .. }) => Ok((status, body)),
        Err(failure) => Err(Stop::Plain(format!("{before}{}", failure.brief()))),
    }
}

fn read<T: DeserializeOwned>(body: &[u8], before: &str) -> Result<T, Stop> {
    serde_json::from_slice(body).map_err(|_| Stop::Plain(format!("{before}{}", Failure::NoJson)))
}

/// The server's error message.
fn refused(body: &[u8]) -> Stop {
    match read(body, "") {
        Ok(Refusal { message }) => Stop::Plain(message),
        Err(stop) => stop,
    }
}

/// etcdctl's message for every unexpected response, even if the response contains a message.
fn unexpected(status: u16, before: &str) -> Stop {
    Stop::Plain(format!("{before}unexpected status code {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, name: &str, peer_urls: &[&str]) -> Member {
        Member {
            id: id.to_owned(),
            name: name.to_owned(),
            peer_urls: peer_urls.iter().map(|url| (*url).to_owned()).collect(),
            client_urls: vec![],
        }
    }

    #[test]
    fn the_new_member_stands_in_the_initial_cluster_by_the_name_it_is_to_have() {
        let members = [
            member("1", "a", &["http://a:1", "http://a:2"]),
            member("2", "", &["http://b:1"]),
            member("3", "", &["http://c:1"]),
        ];
        assert_eq!(
            initial_cluster(&members, "2", "b"),
            "a=http://a:1,a=http://a:2,b=http://b:1,=http://c:1"
        );
    }

    #[test]
    fn urls_are_sent_in_their_order() {
        assert_eq!(
            peer_urls(&["http://b:1", " HTTP://a:1"]).unwrap(),
            r#"{"peerURLs":["http://a:1","http://b:1"]}"#
        );
        assert_eq!(
            peer_urls(&["http://b:1", ""]).unwrap_err().text(),
            "URL scheme must be http, https, unix, or unixs: "
        );
    }

    #[test]
    fn all_members_of_a_name_are_told() {
        let members = [member("1", "a", &[]), member("2", "a", &[])];
        let text = unknown(&members, "a");
        assert!(text.contains("\tetcdctl member remove 1\n") && text.contains("remove 2\n"));
        assert!(text.ends_with("\n\nCouldn't find a member in the cluster with an ID of a."));
    }
}
